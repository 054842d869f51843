"""Probes, and what clients send to everybody: answered without a key."""

from litestar import Response, post, route
from litestar.types import ControllerRouterHandler

import routeproxy
from routeproxy.proxy import Proxy
from routeproxy.web.admin import Control
from routeproxy.web.auth import Authenticator
from routeproxy.web.front_page import rules_problem
from routeproxy.web.replies import empty_reply, json_reply
from routeproxy.web.response import InFlight


def health_handlers(
    proxy: Proxy, authenticator: Authenticator, in_flight: InFlight, control: Control | None
) -> list[ControllerRouterHandler]:
    @route("/api/hello", http_method=["GET", "HEAD"], sync_to_thread=False)
    def hello() -> Response[bytes]:
        return empty_reply()

    @post("/api/event_logging/batch", status_code=200, sync_to_thread=False)
    def event_logging() -> Response[bytes]:
        """Claude Code's own telemetry: taken, and thrown away."""
        return json_reply({})

    @route("/healthz", http_method=["GET", "HEAD"], sync_to_thread=False)
    def healthz() -> Response[bytes]:
        return json_reply({"status": "ok", "version": routeproxy.__version__})

    @route("/readyz", http_method=["GET", "HEAD"], sync_to_thread=False)
    def readyz() -> Response[bytes]:
        state: dict[str, object] = {
            "status": "draining" if in_flight.draining else "ready",
            "rules_version": proxy.rules.policy.version,
        }
        if in_flight.of_a_session:
            state["of_a_session"] = True
        if problem := rules_problem(control, authenticator.key_need):
            state["rules_problem"] = problem
        return json_reply(state, 503 if in_flight.draining else 200)

    return [hello, event_logging, healthz, readyz]
