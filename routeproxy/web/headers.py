"""Headers of a request as rules and back ends read them, and the headers in which an answer says how it came
about."""

import re
from urllib.parse import quote

from litestar.types import Scope

from routeproxy.exchange import Exchange
from routeproxy.policy.explain import HEALTHY, explain

LONGEST_WARNING = 2000
"""Characters of all warnings together."""


def request_headers(scope: Scope) -> dict[str, tuple[str, ...]]:
    """By name in lower case, each with the value of every line that arrived."""
    lines = list(scope["headers"])
    headers: dict[str, tuple[str, ...]] = {
        name.decode("latin-1"): (value.decode("latin-1"),) for name, value in lines
    }
    if len(headers) < len(lines):
        return _with_all_values(lines)
    return headers


def _with_all_values(lines: list[tuple[bytes, bytes]]) -> dict[str, tuple[str, ...]]:
    headers: dict[str, list[str]] = {}
    for name, value in lines:
        headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return {name: tuple(values) for name, values in headers.items()}


def answer_headers(exchange: Exchange) -> list[tuple[str, str]]:
    """What every answer says of itself: ids, the rule, who served. Values are ASCII."""
    relayed = {name for name, _ in exchange.relayed_headers}
    headers = [] if "request-id" in relayed else [("request-id", exchange.request_id)]
    headers += exchange.relayed_headers
    headers.append(("x-routeproxy-rules-version", exchange.policy.version))
    decision, target = exchange.decision, exchange.target
    if decision is not None:
        headers.append(("x-routeproxy-rule", _ascii(decision.rule)))
    if target is not None:
        headers.append(("x-routeproxy-provider", _ascii(target.provider.name)))
        headers.append(("x-routeproxy-model", _ascii(target.model)))
    headers.append(("x-routeproxy-attempts", str(len(exchange.attempts))))
    if exchange.inbound.explain and decision is not None:
        health = {target.name: exchange.skipped.get(target.name, HEALTHY) for target in decision.targets}
        explanation = explain(decision, exchange.policy, health=health)
        headers.append(("x-routeproxy-explain", explanation.in_a_header()))
    if exchange.warnings:
        warnings = _ascii("; ".join(exchange.warnings))[:LONGEST_WARNING]
        headers.append(("x-routeproxy-warning", warnings))
    return headers


def encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """As ASGI wants them."""
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]


_SAFE = " !#$&'()*+,-./:;<=>?@[]^_`{|}~\""
"""What a header may hold as it is, beside letters and digits: all that ASCII can print but `%` and `\\`."""

_PLAIN = re.compile(f"[A-Za-z0-9{re.escape(_SAFE)}]*")


def _ascii(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_SAFE)
