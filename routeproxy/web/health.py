"""Probes, greetings, and what clients send to everybody: answered without a key."""

from collections.abc import Callable

from litestar import Response, post, route
from litestar.types import ControllerRouterHandler

import routeproxy
from routeproxy.policy.decide import Policy
from routeproxy.proxy import Proxy
from routeproxy.web.replies import empty_reply, json_reply
from routeproxy.web.response import InFlight


def health_handlers(
    proxy: Proxy, in_flight: InFlight, rules_problem: Callable[[], str | None]
) -> list[ControllerRouterHandler]:
    """`rules_problem` says why what is on disk is not in force, if it is not."""

    @route("/", http_method=["GET", "HEAD"], sync_to_thread=False)
    def greeting() -> Response[bytes]:
        return greeting_reply(proxy.rules.policy, rules_problem())

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
        if problem := rules_problem():
            state["rules_problem"] = problem
        return json_reply(state, 503 if in_flight.draining else 200)

    return [greeting, hello, event_logging, healthz, readyz]


def greeting_reply(policy: Policy, problem: str | None) -> Response[bytes]:
    greeting = {
        "message": "routeproxy: Anthropic clients in front, any model behind",
        "version": routeproxy.__version__,
        "rules": policy.source,
        "rules_version": policy.version,
    }
    return json_reply(greeting | ({"rules_problem": problem} if problem else {}))
