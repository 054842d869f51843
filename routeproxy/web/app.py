"""Paths and their handlers. Litestar is a thin shell here: what is on the hot path is raw ASGI, with its own
method check and body limit."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, cast

import msgspec
from litestar import Litestar, Request, Response, asgi, get, post, route
from litestar.config.cors import CORSConfig
from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from msgspec.structs import replace

import routeproxy
from routeproxy.exchange import Exchange, Inbound, Part, new_request_id
from routeproxy.messages.errors import ApiError, error_body
from routeproxy.messages.models import ModelInfo, page
from routeproxy.policy.decide import Policy
from routeproxy.proxy import Proxy
from routeproxy.web.auth import Door
from routeproxy.web.body import ClientLeft, headers_of, read_body
from routeproxy.web.streaming import LEFT, Answer, Live, Patience, encoded, error_answer

log = logging.getLogger(__name__)

AnyRequest = Request[Any, Any, Any]
AnyResponse = Response[Any]
AnyConnection = ASGIConnection[Any, Any, Any, Any]

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"

GO_ELSEWHERE = {"retry-after": "1", "connection": "close"}
"""What a client is told while the server stops: by the next connection it meets another, or this one started
anew."""


def build_app(
    proxy: Proxy,
    *,
    door: Door | None = None,
    live: Live | None = None,
    patience: Patience | None = None,
    done: Callable[[Exchange], None] = lambda exchange: None,
    lifespan: Callable[[Litestar], AbstractAsyncContextManager[None]] | None = None,
    problem: Callable[[], str | None] = lambda: None,
) -> Litestar:
    """The application around `proxy`. `problem` says why what is on disk is not in force."""
    door = door or Door(None)
    live = live or Live()
    patience = patience or Patience()

    async def exchange_over_http(
        scope: HTTPScope, receive: Receive, send: Send, method: str, named: str | None = None
    ) -> None:
        headers = headers_of(scope)
        inbound = Inbound(body=b"", headers=headers, query=scope["query_string"].decode("latin-1"))
        exchange = proxy.receive(inbound, method)
        settings = exchange.policy.server
        try:
            if (verb := scope["method"]) != "POST":
                raise ApiError(405, f"{verb} is not allowed here, POST is", headers={"allow": "POST"})
            inbound = replace(inbound, headers=door.enter(headers, require_key=settings.require_key))
            if live.draining:
                raise ApiError(503, "routeproxy is shutting down", headers=GO_ELSEWHERE)
            target = _url_target(named, exchange.policy) if named is not None else None
            body = await read_body(receive, headers, settings.max_body_mb * 2**20)
        except ClientLeft:
            exchange.client_left, exchange.status = True, LEFT
            done(exchange)
            return
        except ApiError as error:
            exchange.error, exchange.status = error.type, error.status
            await _send_whole(send, *error_answer(error, exchange))
            done(exchange)
            return
        exchange.inbound = replace(inbound, body=body, url_target=target)
        parts = proxy.answer(exchange) if method == "messages" else _counted(exchange)
        await Answer(exchange, parts, live, done, patience)(scope, receive, send)

    async def _counted(exchange: Exchange) -> AsyncIterator[Part]:
        yield Part(await proxy.count_tokens(exchange), True)

    @asgi(MESSAGES, copy_scope=True)
    async def create_message(scope: Scope, receive: Receive, send: Send) -> None:
        await exchange_over_http(cast(HTTPScope, scope), receive, send, "messages")

    @asgi(COUNT_TOKENS, copy_scope=True)
    async def count_tokens(scope: Scope, receive: Receive, send: Send) -> None:
        await exchange_over_http(cast(HTTPScope, scope), receive, send, "count_tokens")

    @route("/{rest:path}", http_method=list(HttpMethod))
    async def anything_else(request: AnyRequest) -> ASGIApp:
        """A target named in the URL, or nothing that is here. Litestar's own path parameters only end a
        path."""
        path = request.scope["path"].rstrip("/")
        for suffix, method in ((COUNT_TOKENS, "count_tokens"), (MESSAGES, "messages")):
            if path.endswith(suffix):
                named = path.removesuffix(suffix).strip("/")
                return cast(ASGIApp, partial(exchange_over_http, method=method, named=named))
        first, colon, rest = path[1:].partition(":")
        if not proxy.rules.policy.server.url_targets or not colon or "/" in first:
            raise ApiError(404, f"{path[:200]} is not here")
        if rest.endswith("/api/hello"):
            return _identified(_nothing()).to_asgi_response(None, request)
        if not rest or "/v1/" in rest or "/api/" in rest:
            raise ApiError(404, f"{path[:200]} is not here")
        return _identified(_greeting(proxy.rules.policy, problem())).to_asgi_response(None, request)

    def needs_key(connection: AnyConnection, _: BaseRouteHandler) -> None:
        door.enter(headers_of(connection.scope), require_key=proxy.rules.policy.server.require_key)

    @get("/v1/models", guards=[needs_key], sync_to_thread=False)
    def list_models(request: AnyRequest) -> Response[bytes]:
        query = request.query_params
        try:
            limit = int(query.get("limit", "20"))
        except ValueError:
            raise ApiError(400, "limit: Input should be a valid integer") from None
        if not 1 <= limit <= 1000:
            raise ApiError(400, "limit: Input should be between 1 and 1000")
        found = page(
            _models(proxy.rules.policy),
            limit=limit,
            after_id=query.get("after_id"),
            before_id=query.get("before_id"),
        )
        return _json(found)

    @get("/v1/models/{model_id:path}", guards=[needs_key], sync_to_thread=False)
    def show_model(request: AnyRequest) -> Response[bytes]:
        wanted = str(request.path_params["model_id"]).removeprefix("/")
        for model in _models(proxy.rules.policy):
            if model.id == wanted:
                return _json(model)
        raise ApiError(404, f"model: {wanted[:256]}")

    @route("/", http_method=["GET", "HEAD"], sync_to_thread=False)
    def greeting() -> Response[bytes]:
        return _greeting(proxy.rules.policy, problem())

    @route("/api/hello", http_method=["GET", "HEAD"], sync_to_thread=False)
    def hello() -> Response[bytes]:
        return _nothing()

    @post("/api/event_logging/batch", status_code=200, sync_to_thread=False)
    def event_logging() -> Response[bytes]:
        """Claude Code's own telemetry: taken, and thrown away."""
        return _json({})

    @route("/healthz", http_method=["GET", "HEAD"], sync_to_thread=False)
    def healthz() -> Response[bytes]:
        return _json({"status": "ok", "version": routeproxy.__version__})

    @route("/readyz", http_method=["GET", "HEAD"], sync_to_thread=False)
    def readyz() -> Response[bytes]:
        state = {
            "status": "draining" if live.draining else "ready",
            "rules_version": proxy.rules.policy.version,
        }
        if found := problem():
            state["rules_problem"] = found
        return _json(state, 503 if live.draining else 200)

    settings = proxy.rules.policy.server
    origins = list(settings.cors_origins)
    return Litestar(
        [
            create_message,
            count_tokens,
            anything_else,
            list_models,
            show_model,
            greeting,
            hello,
            event_logging,
            healthz,
            readyz,
        ],
        exception_handlers={ApiError: _answer_error, HTTPException: _answer_http, Exception: _answer_bug},
        after_request=_identified,
        lifespan=[lifespan or (lambda app: nullcontext())],
        request_max_body_size=settings.max_body_mb * 2**20,
        # No cookie is ever looked at, so browsers may show a page everything: `*` is for requests without
        # credentials.
        cors_config=CORSConfig(allow_origins=origins, expose_headers=["*"], max_age=3600)
        if origins
        else None,
        openapi_config=None,
        logging_config=None,
        debug=False,
    )


def _url_target(named: str, policy: Policy) -> str:
    """`provider:model` of a URL as `provider/model`."""
    provider, colon, model = named.partition(":")
    if not policy.server.url_targets:
        hint = ": targets in the URL are off, [server] url_targets turns them on" if colon else ""
        raise ApiError(404, f"/{named[:200]} is not here{hint}")
    known = policy.providers.values()
    if not model or not any(provider == one.name or provider.lower() in one.spellings for one in known):
        raise ApiError(
            400, f"{named[:200]}: expected provider:model with one of {', '.join(policy.providers)}"
        )
    return f"{provider}/{model}"


def _models(policy: Policy) -> list[ModelInfo]:
    return [ModelInfo(id=name, display_name=name) for name in policy.models]


def _greeting(policy: Policy, problem: str | None) -> Response[bytes]:
    greeting = {
        "message": "routeproxy: Anthropic clients in front, any model behind",
        "version": routeproxy.__version__,
        "rules": policy.source,
        "rules_version": policy.version,
    }
    return _json(greeting | ({"rules_problem": problem} if problem else {}))


# --- answers that are no exchange


def _identified(response: AnyResponse) -> AnyResponse:
    if isinstance(response, Response):
        response.headers.setdefault("request-id", new_request_id())
    return response


def _json(value: object, status: int = 200) -> Response[bytes]:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


def _nothing() -> Response[bytes]:
    return Response(b"", media_type="application/json")


def _answer_error(request: AnyRequest, error: ApiError) -> Response[bytes]:
    request_id = new_request_id()
    return Response(
        error_body(error, request_id),
        status_code=error.status,
        headers={"request-id": request_id, **error.headers},
        media_type="application/json",
    )


def _answer_http(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """What Litestar's router refuses, in the API's shape."""
    path = request.scope["path"][:200]
    hint = ": leave /v1 out of the base URL" if path.startswith("/v1/v1/") else ""
    words = {404: f"{path} is not here{hint}", 405: f"{request.method} is not allowed here"}
    message = words.get(error.status_code, error.detail)
    return _answer_error(request, ApiError(error.status_code, message, headers=error.headers))


def _answer_bug(request: AnyRequest, error: Exception) -> Response[bytes]:
    log.error("%s %s: this is a bug in routeproxy", request.method, request.scope["path"], exc_info=error)
    return _answer_error(request, ApiError(500, "routeproxy failed on this request; its log says why"))


async def _send_whole(send: Send, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    headers = [*headers, ("content-length", str(len(body)))]
    await send({"type": "http.response.start", "status": status, "headers": encoded(headers)})
    await send({"type": "http.response.body", "body": body, "more_body": False})
