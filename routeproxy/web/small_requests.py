"""Requests that are no exchange, on their way to whoever observes: what becomes of each is noted at the edge
of the application, whatever answers it."""

import time
from typing import Any

from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from routeproxy.exchange import Exchange, SmallRequest
from routeproxy.observe import Observer
from routeproxy.web.auth import Caller
from routeproxy.web.response import CLIENT_CLOSED_REQUEST, DISCONNECT_SIGNAL, DisconnectSignal

_KEY = "routeproxy.small_request"
"""Where a scope has its `SmallRequest`. Copies of the scope have the same."""

_PROBES = ("/healthz", "/readyz", "/api/hello")


async def observed(app: ASGIApp, observer: Observer, scope: HTTPScope, receive: Receive, send: Send) -> None:
    """Answers by `app`, and tells the observer of the request once, unless an exchange has come of it."""
    request = SmallRequest(
        method=scope["method"],
        path=scope["path"],
        is_probe=scope["method"] in ("GET", "HEAD") and scope["path"].endswith(_PROBES),
        started=time.perf_counter(),
    )
    scope[_KEY] = request  # type: ignore[literal-required]

    async def noting_receive() -> Any:
        message = await receive()
        if message["type"] == "http.disconnect" and not request.status:
            note_disconnect(scope, request)
        return message

    async def noting_send(message: Message) -> None:
        if message["type"] == "http.response.start" and not request.status:
            request.status = message["status"]
            ids = (value for name, value in message["headers"] if name.lower() == b"request-id")
            request.request_id = next(ids, b"").decode("latin-1") or None
        await send(message)

    try:
        await app(scope, noting_receive, noting_send)
    finally:
        if not request.is_exchange:
            request.status = request.status or 500
            observer.small_request_done(request)


def small_request_of(scope: Scope) -> SmallRequest | None:
    request = scope.get(_KEY)
    return request if isinstance(request, SmallRequest) else None


def note_exchange(scope: Scope) -> None:
    """The request is an exchange, and its observer hears of it as that."""
    if (request := small_request_of(scope)) is not None:
        request.is_exchange = True


def note_caller(scope: Scope, caller: Caller) -> None:
    if (request := small_request_of(scope)) is not None:
        request.team, request.key_name = caller.team, caller.key_name


def note_error(scope: Scope, type: str) -> None:
    if (request := small_request_of(scope)) is not None and not request.status:
        request.error = type


def note_disconnect(scope: Scope, request: SmallRequest | Exchange) -> None:
    """The body of the request will not be complete: the client left, or the rest of it was no HTTP."""
    signal = (scope.get("extensions") or {}).get(DISCONNECT_SIGNAL)
    refusal = signal.refusal if isinstance(signal, DisconnectSignal) else None
    if refusal is not None:
        request.status, request.error, request.request_id = refusal
    else:
        request.status, request.client_left = CLIENT_CLOSED_REQUEST, True
