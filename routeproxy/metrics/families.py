"""The families of metrics: what each counts, by which labels, and how the numbers of several workers become
one. Their names are an interface: dashboards and alerts are written in them."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Kind = Literal["counter", "gauge", "histogram", "info"]
Merge = Literal["sum", "max", "min"]

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""The upper bounds of a histogram's buckets. Answers may take minutes."""


class Family(Struct, frozen=True, kw_only=True):
    name: str
    """With `_total` for a counter, and without for OpenMetrics' own name of it."""
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    merge: Merge = "sum"
    """Of a gauge: what several workers' numbers come to."""
    digits: int = 0
    """It is counted in whole parts of one, with so many digits behind the point."""


def _counter(name: str, help: str, *labels: str) -> Family:
    return Family(name=f"routeproxy_{name}", kind="counter", help=help, labels=labels)


def _gauge(name: str, help: str, *labels: str, merge: Merge = "sum") -> Family:
    return Family(name=f"routeproxy_{name}", kind="gauge", help=help, labels=labels, merge=merge)


def _histogram(name: str, help: str, *labels: str) -> Family:
    return Family(name=f"routeproxy_{name}", kind="histogram", help=help, labels=labels)


REQUESTS = _counter("requests_total", "Requests for an answer, by how they ended.", "team", "rule", "code")
ATTEMPTS = _counter(
    "attempts_total",
    "Attempts at targets: ok, let_go, or the class of the failure.",
    "provider",
    "model",
    "outcome",
)
FALLBACKS = _counter(
    "fallbacks_total",
    "Requests that went on to another target, and what with the one before.",
    "rule",
    "reason",
)
REFUSALS = _counter(
    "refusals_total", "Requests that nobody was asked about, and who refused.", "kind", "name"
)
DURATION = _histogram(
    "request_duration_seconds", "From the request to the end of its answer.", "provider", "model", "stream"
)
FIRST_TOKEN = _histogram(
    "time_to_first_token_seconds", "From the request to the first content of its answer.", "provider", "model"
)
TOKENS = _counter(
    "tokens_total", "Tokens, each of one kind; estimates included.", "team", "provider", "model", "kind"
)
COST = Family(
    name="routeproxy_cost_usd_total",
    kind="counter",
    help="What has a price, in US dollars.",
    labels=("team", "provider", "model"),
    digits=9,
)
UNPRICED = _counter("unpriced_tokens_total", "Tokens whose price nobody knows.", "provider", "model")
IN_FLIGHT = _gauge("requests_in_flight", "Answers that are under way.")
QUEUE = _gauge("queue_length", "Requests that wait for a place.", "team", merge="max")
HEALTHY = _gauge(
    "target_healthy", "1: it is asked; 0: it is left alone, or has as many requests as it may.", "target",
    merge="min",
)  # fmt: skip
SPILLED = _counter("spilled_total", "Requests that their full member of a pool sent elsewhere.", "pool")
RELOAD_OK = _gauge(
    "config_last_reload_successful", "Whether what is on disk was taken, the last time.", merge="min"
)
RELOAD_AT = _gauge(
    "config_last_reload_success_timestamp_seconds", "When rules were last taken, since 1970.", merge="max"
)
RULES = _gauge("rules_info", "The version of the rules in force.", "version", merge="max")
BUILD = _gauge("build_info", "The version of routeproxy.", "version", merge="max")
LAG = _gauge("event_loop_lag_seconds", "By how much the slowest worker's event loop is late.", merge="max")
SPOOL = _gauge("ledger_spool_bytes", "What waits for the ledger's database.")
DROPPED = _counter("ledger_rows_dropped_total", "Rows that are in no ledger and will never be.")

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        REQUESTS, ATTEMPTS, FALLBACKS, REFUSALS, DURATION, FIRST_TOKEN, TOKENS, COST, UNPRICED, IN_FLIGHT,
        QUEUE, HEALTHY, SPILLED, RELOAD_OK, RELOAD_AT, RULES, BUILD, LAG, SPOOL, DROPPED,
    )
}  # fmt: skip
"""By name, in the order in which they are shown."""
