"""The application: which path is answered by what. Litestar is a thin shell here; what is on the hot path
goes past its router."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, cast

from litestar import Litestar, asgi, route
from litestar.config.cors import CORSConfig
from litestar.enums import HttpMethod
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.plugins import PluginProtocol
from litestar.types import ASGIApp, HTTPScope

from routeproxy.messages.errors import ApiError
from routeproxy.metrics.service import MetricsService
from routeproxy.observe import Observer
from routeproxy.policy.decide import Policy
from routeproxy.proxy import Proxy
from routeproxy.web.admin import Control, admin_handlers
from routeproxy.web.auth import Authenticator
from routeproxy.web.cross_site import CrossSiteGuard
from routeproxy.web.exchanges import Exchanges
from routeproxy.web.front_page import FrontDoor
from routeproxy.web.health import health_handlers
from routeproxy.web.ledger_questions import LedgerQuestions
from routeproxy.web.metrics import metrics_handlers, metrics_listener
from routeproxy.web.models import Models
from routeproxy.web.overload import Overload
from routeproxy.web.pages.desk import Desk
from routeproxy.web.pages.handlers import Pages
from routeproxy.web.pages.sign_in import SignIns
from routeproxy.web.protocols import PROTOCOLS, ClientProtocol
from routeproxy.web.replies import (
    AnyRequest,
    bug_reply,
    empty_reply,
    error_app,
    error_reply,
    routing_error_reply,
    with_request_id,
)
from routeproxy.web.response import InFlight, StreamTimings
from routeproxy.web.small_requests import observed
from routeproxy.web.usage import usage_handlers


class RouteproxyApp(Litestar):
    """Litestar without the plugins that it finds by itself, of which our handlers use none. Pydantic, which
    is here for LiteLLM, would make a worker 8 MB larger and its start a tenth of a second longer."""

    fast_paths: Mapping[str, ASGIApp] = {}
    """What is answered past the router, which takes a twentieth of a small request's time, by its path."""
    observer = Observer()
    guard: CrossSiteGuard | None = None
    metrics_port: int | None = None
    """The port of the listener on which `metrics_app` is served, and nothing else."""
    metrics_app: ASGIApp | None = None
    overload: Overload

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return plugins

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app = self.fast_paths.get(scope.get("path", ""))
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        elif self.metrics_app is not None and (scope.get("server") or ("", 0))[1] == self.metrics_port:
            await self.metrics_app(scope, receive, send)
        elif self.guard is not None and (error := self.guard.refusal(cast(HTTPScope, scope))):
            await observed(error_app(error), self.observer, scope, receive, send)
        elif app is not None:
            await app(scope, receive, send)
        else:
            await observed(super().__call__, self.observer, scope, receive, send)


def build_app(
    proxy: Proxy,
    *,
    authenticator: Authenticator | None = None,
    in_flight: InFlight | None = None,
    timings: StreamTimings | None = None,
    observer: Observer | None = None,
    lifespan: Callable[[Litestar], AbstractAsyncContextManager[None]] | None = None,
    control: Control | None = None,
    protocols: Sequence[ClientProtocol] = PROTOCOLS,
    bound_host: str = "127.0.0.1",
    counters: Callable[[], Mapping[str, object]] = dict,
    metrics: MetricsService | None = None,
    metrics_port: int | None = None,
    secret: bytes | None = None,
    earlier: Callable[[str], Policy] | None = None,
) -> RouteproxyApp:
    """The application around `proxy`. Without `control` its rules stay as they are. `bound_host`: what the
    server was told to listen on. `counters`: what else this process counts for its operators, by name.
    `metrics_port`: of the listener that has nothing but them. `secret`: that of the page's cookies, known to
    all workers. `earlier`: the rules of a version that was in force."""
    authenticator = authenticator or Authenticator(proxy.rules.policy, None)
    in_flight = in_flight or InFlight()
    observer = observer or Observer()
    exchanges = Exchanges(
        proxy,
        protocols,
        authenticator,
        in_flight=in_flight,
        observer=observer,
        timings=timings or StreamTimings(),
    )
    apps = exchanges.apps()

    def state() -> Mapping[str, object]:
        return {"overloaded": exchanges.overload.reason() or None, **counters()}

    questions = LedgerQuestions(proxy.rules)
    models = Models(proxy, authenticator)
    front_door = FrontDoor(proxy, authenticator, models, in_flight, control)
    desk = Desk(proxy=proxy, questions=questions, observer=observer, control=control, earlier=earlier)
    sign_ins = SignIns(authenticator, secret or secrets.token_bytes(32))
    pages = Pages(desk, authenticator, sign_ins, bound_host)
    settings = proxy.rules.policy.server
    origins = list(settings.cors_origins)
    # No cookie is looked at but by the page at `/-/`, which needs one of its own site: `*` is for requests
    # without credentials.
    cors = CORSConfig(allow_origins=origins, expose_headers=["*"], max_age=3600) if origins else None
    application = RouteproxyApp(
        [
            *(asgi(path, copy_scope=True)(app) for path, app in apps.items()),
            _other_paths(proxy, exchanges, models, front_door),
            *front_door.handlers(),
            *models.handlers(),
            *health_handlers(proxy, authenticator, in_flight, control),
            *admin_handlers(proxy, authenticator, control, observer, state),
            *metrics_handlers(metrics, authenticator),
            *pages.handlers(),
            *usage_handlers(proxy, authenticator, observer, questions),
        ],
        exception_handlers={
            ApiError: error_reply,
            HTTPException: routing_error_reply,
            Exception: bug_reply,
        },
        after_request=with_request_id,
        lifespan=[lifespan or (lambda app: nullcontext())],
        request_max_body_size=settings.max_body_mb * 2**20,
        cors_config=cors,
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    application.observer = observer
    application.overload = exchanges.overload
    if metrics is not None and metrics_port is not None:
        application.metrics_port, application.metrics_app = metrics_port, metrics_listener(metrics)
    is_named = cors.is_origin_allowed if cors is not None else None
    application.guard = CrossSiteGuard(proxy.rules, authenticator, bound_host, is_named)
    if not origins:  # pages get their headers from Litestar
        application.fast_paths = apps
    return application


def _other_paths(
    proxy: Proxy, exchanges: Exchanges, models: Models, front_door: FrontDoor
) -> HTTPRouteHandler:
    @route("/{rest:path}", http_method=list(HttpMethod))
    async def other_paths(request: AnyRequest) -> ASGIApp:
        """A target named in the URL, or nothing that is here. Litestar's own path parameters only end a
        path."""
        path = request.scope["path"].rstrip("/")
        if app := exchanges.app_with_target(path):
            return app
        if (answer := await models.answer_with_target(request, path)) is not None:
            return cast(ASGIApp, with_request_id(answer).to_asgi_response(None, request))
        first, colon, rest = path[1:].partition(":")
        if not proxy.rules.policy.server.url_targets or not colon or "/" in first:
            raise ApiError(404, f"{path[:200]} is not here")
        if rest.endswith("/api/hello"):
            return cast(ASGIApp, with_request_id(empty_reply()).to_asgi_response(None, request))
        if not rest or "/v1/" in rest or "/api/" in rest:
            raise ApiError(404, f"{path[:200]} is not here")
        answer = await front_door.answer(request)
        return cast(ASGIApp, with_request_id(answer).to_asgi_response(None, request))

    return other_paths
