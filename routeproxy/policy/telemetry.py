"""What a server tells of itself to others, and where. Nothing here decides a request."""

from msgspec import Struct


class TelemetrySettings(Struct, frozen=True, kw_only=True):
    """`[telemetry]`."""

    metrics: str | None = None
    """The address, `host:port`, where `/metrics` is served to everybody who can reach it."""
