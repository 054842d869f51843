"""Paths and their handlers. Litestar is a thin shell here: what is on the hot path is raw ASGI, with its own
method check and body limit."""

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, Protocol, cast
from urllib.parse import parse_qs

import msgspec
from litestar import Litestar, Request, Response, asgi, get, post, route
from litestar.config.cors import CORSConfig
from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.plugins import PluginProtocol
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from msgspec.structs import replace

import routeproxy
from routeproxy.exchange import PATHS, Exchange, Inbound, Write, new_request_id
from routeproxy.messages.decoding import decode_leniently
from routeproxy.messages.errors import ApiError, InvalidRequest, error_body
from routeproxy.messages.models import ModelInfo, page
from routeproxy.policy.decide import Policy
from routeproxy.policy.live.versions import NoSuchVersion
from routeproxy.policy.model_list import ModelLists
from routeproxy.policy.problems import RulesRefused
from routeproxy.proxy import Proxy
from routeproxy.web.auth import Authenticator, Caller, Headers
from routeproxy.web.body import ClientLeft, headers_of, read_body
from routeproxy.web.response import (
    CLIENT_CLOSED_REQUEST,
    ExchangeResponse,
    InFlight,
    Responder,
    StreamTimings,
    encoded,
    error_answer,
)

log = logging.getLogger("routeproxy.web.app")

AnyRequest = Request[Any, Any, Any]
AnyResponse = Response[Any]
AnyConnection = ASGIConnection[Any, Any, Any, Any]

GO_ELSEWHERE = {"retry-after": "1", "connection": "close"}
"""What a client is told while the server stops: by the next connection it meets another, or this one started
anew."""


class Control(Protocol):
    """What an operator may do to the rules that are in force."""

    @property
    def history(self) -> tuple[str, ...]:
        """The versions that were in force, the latest last."""

    def problem(self) -> str | None:
        """Why what is on disk is not in force."""

    async def reload(self) -> bool:
        """Whether what is on disk is now in force."""

    async def rollback(self, version: str | None) -> None:
        """Raises `NoSuchVersion`, `RulesRefused` or `ValueError`."""


class RouteproxyApp(Litestar):
    """Litestar without the plugins that it finds by itself, of which our handlers use none. Pydantic, which
    is here for LiteLLM, would make a worker 8 MB larger and its start a tenth of a second longer."""

    straight: Mapping[str, ASGIApp] = {}
    """What is answered past the router, which takes a twentieth of a small request's time, by its path."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return plugins

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        answer = self.straight.get(scope.get("path", ""))
        await (answer or super().__call__)(scope, receive, send)


def build_app(
    proxy: Proxy,
    *,
    door: Authenticator | None = None,
    live: InFlight | None = None,
    patience: StreamTimings | None = None,
    done: Callable[[Exchange], None] = lambda exchange: None,
    lifespan: Callable[[Litestar], AbstractAsyncContextManager[None]] | None = None,
    control: Control | None = None,
) -> Litestar:
    """The application around `proxy`. Without `control` its rules stay as they are."""
    door = door or Authenticator(proxy.rules.policy, None)
    problem = control.problem if control is not None else lambda: None
    live = live or InFlight()
    patience = patience or StreamTimings()
    model_lists = ModelLists()

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
            inbound = _of_caller(inbound, door.enter(headers, admin=method == "route"), exchange)
            if live.draining:
                raise ApiError(503, "routeproxy is shutting down", headers=GO_ELSEWHERE)
            target = _url_target(named, exchange.policy) if named is not None else None
            body = await read_body(receive, headers, settings.max_body_mb * 2**20)
        except ClientLeft:
            exchange.client_left, exchange.status = True, CLIENT_CLOSED_REQUEST
            done(exchange)
            return
        except Exception as raised:
            error = raised if isinstance(raised, ApiError) else _bug(exchange.request_id, raised)
            exchange.error, exchange.status = error.type, error.status
            await _send_whole(send, *error_answer(error, exchange))
            done(exchange)
            return
        exchange.inbound = replace(inbound, body=body, url_target=target)
        del body  # the exchange lets it go before its answer is over
        await ExchangeResponse(exchange, answers[method], live, done, patience)(scope, receive, send)

    async def counted(exchange: Exchange, write: Write) -> None:
        await write(await proxy.count_tokens(exchange))

    async def explained(exchange: Exchange, write: Write) -> None:
        await write(msgspec.json.encode(await proxy.explain(exchange)))

    answers: dict[str, Responder] = {
        "messages": proxy.answer,
        "count_tokens": counted,
        "route": explained,
    }

    def straight(method: str) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await exchange_over_http(cast(HTTPScope, scope), receive, send, method)

        return answer

    exchanges = {path: straight(method) for method, path in PATHS.items()}

    @route("/{rest:path}", http_method=list(HttpMethod))
    async def anything_else(request: AnyRequest) -> ASGIApp:
        """A target named in the URL, or nothing that is here. Litestar's own path parameters only end a
        path."""
        path = request.scope["path"].rstrip("/")
        for method in ("count_tokens", "messages"):
            if path.endswith(PATHS[method]):
                named = path.removesuffix(PATHS[method]).strip("/")
                return cast(ASGIApp, partial(exchange_over_http, method=method, named=named))
        first, colon, rest = path[1:].partition(":")
        if not proxy.rules.policy.server.url_targets or not colon or "/" in first:
            raise ApiError(404, f"{path[:200]} is not here")
        if rest.endswith("/api/hello"):
            return _identified(_nothing()).to_asgi_response(None, request)
        if not rest or "/v1/" in rest or "/api/" in rest:
            raise ApiError(404, f"{path[:200]} is not here")
        return _identified(_greeting(proxy.rules.policy, problem())).to_asgi_response(None, request)

    def caller(connection: AnyConnection) -> Caller:
        return door.enter(headers_of(connection.scope))

    def needs_admin_key(connection: AnyConnection, _: BaseRouteHandler) -> None:
        if control is None or not proxy.rules.policy.server.admin_keys:
            raise ApiError(404, f"{connection.scope['path']} is not here: `[server] admin_keys` turns it on")
        caller = door.enter(headers_of(connection.scope), admin=True)
        if caller.team is not None:
            raise ApiError(403, "this takes an admin key, and a team's was shown")
        if not caller.admin:
            raise ApiError(401, "x-api-key header is required: an admin key")

    @get("/v1/models", sync_to_thread=False)
    def list_models(request: AnyRequest) -> Response[bytes]:
        models = _models(model_lists, proxy.rules.policy, caller(request))
        query = request.query_params
        try:
            limit = int(query.get("limit", "20"))
        except ValueError:
            raise ApiError(400, "limit: Input should be a valid integer") from None
        if not 1 <= limit <= 1000:
            raise ApiError(400, "limit: Input should be between 1 and 1000")
        found = page(
            models,
            limit=limit,
            after_id=query.get("after_id"),
            before_id=query.get("before_id"),
        )
        return _json(found)

    @get("/v1/models/{model_id:path}", sync_to_thread=False)
    def show_model(request: AnyRequest) -> Response[bytes]:
        wanted = str(request.path_params["model_id"]).removeprefix("/")
        for model in _models(model_lists, proxy.rules.policy, caller(request)):
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

    @get("/-/status", guards=[needs_admin_key], sync_to_thread=False)
    def status() -> Response[bytes]:
        return _json(_status(proxy, control))

    @post("/-/reload", guards=[needs_admin_key], status_code=200)
    async def reload() -> Response[bytes]:
        assert control is not None
        done = await control.reload()
        return _json(_status(proxy, control) | {"reloaded": done}, 200 if done else 409)

    @post("/-/rollback", guards=[needs_admin_key], status_code=200)
    async def rollback(request: AnyRequest) -> Response[bytes]:
        assert control is not None
        try:
            wanted = _version_in(await request.body())
            await control.rollback(wanted)
        except (NoSuchVersion, RulesRefused, ValueError) as refused:
            raise ApiError(409, f"nothing was rolled back: {refused}") from refused
        return _json(_status(proxy, control))

    settings = proxy.rules.policy.server
    origins = list(settings.cors_origins)
    shell = RouteproxyApp(
        [
            *(asgi(path, copy_scope=True)(answer) for path, answer in exchanges.items()),
            anything_else,
            list_models,
            show_model,
            greeting,
            hello,
            event_logging,
            healthz,
            readyz,
            status,
            reload,
            rollback,
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
    if not origins:  # pages get their headers from Litestar
        shell.straight = exchanges
    return shell


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


def _of_caller(inbound: Inbound, caller: Caller, exchange: Exchange) -> Inbound:
    """`inbound` as its caller may send it."""
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
    no_fallback = _asked_for("x-routeproxy-no-fallback", caller.headers)
    if no_fallback and not policy.server.no_fallback_header:
        raise ApiError(400, "x-routeproxy-no-fallback: this server does not take it")
    explain = _asked_for("x-routeproxy-explain", caller.headers)
    if explain and not caller.may_explain:
        exchange.warn_of_request("x-routeproxy-explain: not for this key")
    return replace(
        inbound,
        headers=policy.headers_of(team, caller.headers),
        team=team,
        no_fallback=no_fallback,
        explain=explain and caller.may_explain,
    )


def _asked_for(name: str, headers: Headers) -> bool:
    """Whether a header asks for something. A client that writes it otherwise than we read it must hear so."""
    if name not in headers:
        return False
    values = {line.strip().lower() for line in headers[name]}
    if not values <= {"", "0", "1", "false", "true"} or len(values) > 1:
        raise ApiError(400, f"{name}: expected `1`")
    return values <= {"1", "true"} and bool(values)


def _version_in(body: bytes) -> str | None:
    if not body.strip():
        return None
    try:
        return decode_leniently(_rollback, body).version
    except InvalidRequest as error:
        raise ApiError(400, f'expected nothing, or {{"version": "…"}}: {error.message}') from None


class _Rollback(msgspec.Struct):
    version: str | None = None


_rollback = msgspec.json.Decoder(_Rollback)


def _status(proxy: Proxy, control: Control | None) -> dict[str, object]:
    assert control is not None
    return {
        "rules": proxy.rules.policy.source,
        "rules_version": proxy.rules.policy.version,
        "history": control.history,
        "rules_problem": control.problem(),
        "refused_by_invariants": proxy.upstreams.refused,
        "process": os.getpid(),
    }


def _models(lists: ModelLists, policy: Policy, caller: Caller) -> list[ModelInfo]:
    return [ModelInfo(id=name, display_name=name) for name in lists.of(policy, caller.team)]


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
    return _answer_error(request, _bug(f"{request.method} {request.scope['path']}", error))


def _bug(what: str, error: Exception) -> ApiError:
    log.error("%s: this is a bug in routeproxy", what, exc_info=error)
    return ApiError(500, "routeproxy failed on this request; its log says why")


async def _send_whole(send: Send, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    headers = [*headers, ("content-length", str(len(body)))]
    await send({"type": "http.response.start", "status": status, "headers": encoded(headers)})
    await send({"type": "http.response.body", "body": body, "more_body": False})
