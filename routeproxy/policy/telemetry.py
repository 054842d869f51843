"""What a server tells of itself to others, and where. Nothing here decides a request."""

from typing import Literal

from msgspec import Struct

Always = Literal["error", "fallback"]
"""What is always traced: requests that failed, and those that went on to another target."""


class TraceSettings(Struct, frozen=True, kw_only=True):
    """`traces` of `[telemetry]`."""

    endpoint: str
    """Where OTLP is taken over HTTP."""
    ratio: float = 0.05
    """The share of requests that is traced."""
    always: frozenset[Always] = frozenset()


class TelemetrySettings(Struct, frozen=True, kw_only=True):
    """`[telemetry]`."""

    metrics: str | None = None
    """The address, `host:port`, where `/metrics` is served to everybody who can reach it."""
    traces: TraceSettings | None = None
