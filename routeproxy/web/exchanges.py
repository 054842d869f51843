"""Requests for an answer, a token count or an explanation: the hot path. Raw ASGI with a method check and a
body limit of its own, past Litestar's router."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import cast
from urllib.parse import parse_qs

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from msgspec.structs import replace

from routeproxy.allocator import return_free_memory
from routeproxy.exchange import Endpoint, Exchange, Inbound
from routeproxy.large_bodies import read_beside
from routeproxy.messages.errors import ApiError
from routeproxy.messages.weight import check_weight
from routeproxy.observe import Observer
from routeproxy.output import Write
from routeproxy.policy.decide import Policy
from routeproxy.proxy import Proxy
from routeproxy.tracebacks import forget_tracebacks
from routeproxy.web.auth import Authenticator, Caller, Headers
from routeproxy.web.body import check_size, read_body
from routeproxy.web.body_memory import BodyMemory, ClientLeft, HeldBody
from routeproxy.web.headers import encoded, request_headers
from routeproxy.web.overload import Overload
from routeproxy.web.protocols import ClientProtocol
from routeproxy.web.response import (
    DISCONNECT_SIGNAL,
    DisconnectSignal,
    ExchangeResponse,
    InFlight,
    Responder,
    StreamTimings,
    error_answer,
)
from routeproxy.web.small_requests import note_disconnect, note_exchange
from routeproxy.web.targets import target_in_url

log = logging.getLogger("routeproxy.web.app")

TRY_ANOTHER_CONNECTION = {"retry-after": "1", "connection": "close"}
"""What a client hears while the server stops: by its next connection it meets another server, or this one
started anew."""


class Exchanges:
    """Every endpoint of every client protocol."""

    def __init__(
        self,
        proxy: Proxy,
        protocols: Sequence[ClientProtocol],
        authenticator: Authenticator,
        *,
        in_flight: InFlight,
        observer: Observer,
        timings: StreamTimings,
    ) -> None:
        self._proxy = proxy
        self._protocols = protocols
        self._authenticator = authenticator
        self._in_flight = in_flight
        self._observer = observer
        self._timings = timings
        self.bodies = BodyMemory(
            lambda: proxy.rules.policy.server.body_memory_mb * 2**20,
            patience=timings.body,
            on_let_go=_return_free_memory_soon,
        )
        self.overload = Overload(lambda: _memory_limit(proxy.rules.policy))
        self._responders: dict[Endpoint, Responder] = {
            "messages": proxy.answer,
            "count_tokens": self._count_tokens,
            "route": self._explain,
        }

    def apps(self) -> dict[str, ASGIApp]:
        """An ASGI app for each path."""
        return {
            path: self._app(protocol, endpoint)
            for protocol in self._protocols
            for endpoint, path in protocol.paths.items()
        }

    def app_with_target(self, path: str) -> ASGIApp | None:
        """The app for a path with a target in front: `/{provider}:{model}/v1/messages`; `None` for others."""
        for protocol in self._protocols:
            for endpoint in ("count_tokens", "messages"):  # the first path may end with the second
                suffix = protocol.paths.get(endpoint)
                if suffix is not None and path.endswith(suffix):
                    return self._app(protocol, endpoint, path.removesuffix(suffix).strip("/"))
        return None

    def _app(self, protocol: ClientProtocol, endpoint: Endpoint, url_target: str | None = None) -> ASGIApp:
        """`url_target`: what stands in front of the path."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            signal = (scope.get("extensions") or {}).get(DISCONNECT_SIGNAL)
            held = self.bodies.hold(signal if isinstance(signal, DisconnectSignal) else None)
            try:
                await self._serve(cast(HTTPScope, scope), receive, send, protocol, endpoint, url_target, held)
            finally:
                held.release()

        return app

    async def _serve(
        self,
        scope: HTTPScope,
        receive: Receive,
        send: Send,
        protocol: ClientProtocol,
        endpoint: Endpoint,
        url_target: str | None,
        held: HeldBody,
    ) -> None:
        headers = request_headers(scope)
        query = scope["query_string"].decode("latin-1")
        method = scope["method"]
        inbound = Inbound(
            body=b"",
            method=method,
            path=protocol.paths[endpoint],
            url_path=scope["path"],
            headers=headers,
            query=query,
            address=client[0] if (client := scope["client"]) else None,
        )
        exchange = self._proxy.receive(inbound, endpoint)
        note_exchange(scope)
        try:
            if method != "POST":
                raise ApiError(405, f"{method} is not allowed here, POST is", headers={"allow": "POST"})
            caller, admitted = self._admit(inbound, exchange, url_target)
            self._observer.request_started(exchange)
            if self._in_flight.draining:
                raise ApiError(503, "routeproxy is shutting down", headers=TRY_ANOTHER_CONNECTION)
            self.overload.refuse_new_work()
            held.caller = admitted.caller
            body = await read_body(receive, headers, _body_limit(exchange), held)
            if not self._is_current(caller, exchange):
                # A body may take minutes, in which a key is taken back or a rule added.
                self._proxy.renew(exchange)
                _, admitted = self._admit(inbound, exchange, url_target)
                check_size(len(body), _body_limit(exchange))
            body = await read_beside(len(body), admitted.caller, _decode, protocol, body, endpoint)
        except ClientLeft:
            note_disconnect(scope, exchange)
            self._observer.request_done(exchange)
            return
        except Exception as raised:
            error = raised if isinstance(raised, ApiError) else bug(exchange.request_id, raised)
            forget_tracebacks(raised)
            exchange.error, exchange.status = error.type, error.status
            await send_whole(send, *error_answer(error, exchange, protocol))
            self._observer.request_done(exchange)
            return
        exchange.inbound = replace(admitted, body=body)
        exchange.on_text_forgotten = held.release
        del body  # the exchange lets it go before its answer is over
        response = ExchangeResponse(
            exchange,
            self._responders[endpoint],
            protocol,
            in_flight=self._in_flight,
            observer=self._observer,
            timings=self._timings,
        )
        await response(scope, receive, send)

    def _admit(self, inbound: Inbound, exchange: Exchange, url_target: str | None) -> tuple[Caller, Inbound]:
        """Who asks, and the request as its caller may send it. Raises `ApiError` for what may not be asked by
        this caller, or by anybody."""
        caller = self._authenticator.authenticate(inbound.headers, admin=exchange.endpoint == "route")
        try:
            admitted = _of_caller(inbound, caller, exchange)
            target = target_in_url(url_target, exchange.policy) if url_target is not None else None
        except ApiError:  # whose mistake it was is known all the same
            exchange.inbound = replace(inbound, team=caller.team, key_name=caller.key_name)
            raise
        exchange.inbound = replace(admitted, url_target=target)
        return caller, exchange.inbound

    def _is_current(self, caller: Caller, exchange: Exchange) -> bool:
        """Whether what the request was admitted by still counts."""
        return exchange.policy is self._proxy.rules.policy and self._authenticator.is_current(caller)

    async def _count_tokens(self, exchange: Exchange, write: Write) -> None:
        await write([await self._proxy.count_tokens(exchange)])

    async def _explain(self, exchange: Exchange, write: Write) -> None:
        await write([await self._proxy.explain(exchange)])


def _return_free_memory_soon() -> None:
    """Once their requests have come to an end, and beside the loop."""
    loop = asyncio.get_running_loop()
    loop.call_later(SOON, lambda: threading.Thread(target=return_free_memory, daemon=True).start())


SOON = 1.0
"""Seconds."""


def _decode(protocol: ClientProtocol, body: bytes, endpoint: Endpoint) -> bytes:
    """The Messages request. Raises `ApiError`, also for a text of more values than a decoder may take."""
    check_weight(body)
    return protocol.decode_request(body, endpoint)


def _of_caller(inbound: Inbound, caller: Caller, exchange: Exchange) -> Inbound:
    """`inbound` as its caller may send it. Raises `ApiError` for what the caller may not ask."""
    policy = exchange.policy
    if exchange.endpoint == "route" and not caller.may_explain:
        if caller.team is None:
            raise ApiError(401, "x-api-key header is required: only known clients may ask why")
        raise ApiError(403, "this key may not ask why: `explain` of its team is not set")
    team = caller.team
    if caller.admin:  # may ask for any team
        (team, *_) = parse_qs(inbound.query).get("team", [None])
        if team is not None and team not in policy.teams:
            raise ApiError(400, f"team: there is no `{team[:100]}`")
    no_fallback = _is_set("x-routeproxy-no-fallback", caller.headers)
    if no_fallback and not policy.server.no_fallback_header:
        raise ApiError(400, "x-routeproxy-no-fallback: this server does not take it")
    explain = _is_set("x-routeproxy-explain", caller.headers)
    if explain and not caller.may_explain:
        exchange.warn_of_request("x-routeproxy-explain: not for this key")
    return replace(
        inbound,
        headers=policy.headers_of(team, caller.headers),
        team=team,
        key_name=caller.key_name,
        no_fallback=no_fallback,
        explain=explain and caller.may_explain,
        shows_addresses=caller.is_operator,
    )


def _body_limit(exchange: Exchange) -> int:
    """In bytes."""
    return exchange.policy.server.max_body_mb * 2**20


def _is_set(name: str, headers: Headers) -> bool:
    """Whether a header switches something on. A client that writes it otherwise than we read it must hear
    so: raises `ApiError` (400)."""
    if name not in headers:
        return False
    values = {line.strip().lower() for line in headers[name]}
    if not values <= {"", "0", "1", "false", "true"} or len(values) > 1:
        raise ApiError(400, f"{name}: expected `1`")
    return values <= {"1", "true"} and bool(values)


def bug(what: str, error: Exception) -> ApiError:
    """The error that a client sees when we failed. The log has the rest."""
    log.error("%s: this is a bug in routeproxy", what, exc_info=error)
    return ApiError(500, "routeproxy failed on this request; its log says why")


async def send_whole(send: Send, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    headers = [*headers, ("content-length", str(len(body)))]
    await send({"type": "http.response.start", "status": status, "headers": encoded(headers)})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _memory_limit(policy: Policy) -> int | None:
    limit = policy.server.memory_limit_mb
    return limit * 2**20 if limit is not None else None
