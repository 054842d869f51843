"""`/metrics`: on a listener of its own to everybody who can reach that, on the server's own port to keys.
Where a request comes from never stands for a key: behind a proxy everybody comes from the same address."""

from collections.abc import Mapping
from typing import Any

from litestar import Response, route
from litestar.types import ASGIApp, ControllerRouterHandler, Receive, Scope, Send

from routeproxy.messages.errors import ApiError
from routeproxy.metrics.service import MetricsService
from routeproxy.web.auth import Authenticator
from routeproxy.web.headers import request_headers
from routeproxy.web.replies import AnyRequest, error_app
from routeproxy.web.small_requests import note_caller

PATH = "/metrics"


def metrics_handlers(
    metrics: MetricsService | None, authenticator: Authenticator
) -> list[ControllerRouterHandler]:
    @route(PATH, http_method=["GET", "HEAD"])
    async def of_a_key(request: AnyRequest) -> Response[bytes]:
        headers = request_headers(request.scope)
        if metrics is None or not authenticator.has_admin_keys:
            raise ApiError(
                404, f"{PATH} is not here: `[telemetry] metrics`, or an admin key for it, turns it on"
            )
        caller = authenticator.authenticate(headers, admin=True)
        note_caller(request.scope, caller)
        if not caller.may("metrics"):
            raise ApiError(*_refusal(caller.team is not None or caller.admin))
        return await _answer(metrics, headers)

    return [of_a_key]


def _refusal(has_key: bool) -> tuple[int, str]:
    if has_key:
        return 403, "this takes an admin key with the role `metrics`, and another was shown"
    return 401, "x-api-key header is required: an admin key with the role `metrics`"


async def _answer(metrics: MetricsService, headers: Mapping[str, tuple[str, ...]]) -> Response[bytes]:
    exposition = await metrics.exposition(", ".join(headers.get("accept", ())))
    return Response(exposition.body, media_type=exposition.content_type)


def metrics_listener(metrics: MetricsService) -> ASGIApp:
    """What is served on the listener of its own."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        answer: Any
        if scope["path"] != PATH:
            answer = error_app(ApiError(404, f"{scope['path'][:200]} is not here: only {PATH} is"))
        elif scope.get("method") not in ("GET", "HEAD"):
            answer = error_app(ApiError(405, f"expected GET {PATH}"))
        else:
            response = await _answer(metrics, request_headers(scope))
            answer = response.to_asgi_response(None, None)  # type: ignore[arg-type]
        await answer(scope, receive, send)

    return app
