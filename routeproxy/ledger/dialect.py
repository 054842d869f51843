"""What the two databases say differently of times."""

import datetime
from collections.abc import Callable
from typing import Any

from msgspec import Struct


class Dialect(Struct, frozen=True, kw_only=True):
    row_seconds: str
    """The seconds since 1970 of a row's time `{0}`."""
    sum_seconds: str
    """The same of the beginning of a sum's period."""
    row_time: Callable[[float], Any]
    """Seconds since 1970 as a row's time."""
    sum_time: Callable[[float], Any]
    is_late: str
    """Whether a row of requests `r` was written long after it happened."""
    join: str
    """How attempts `a` are found to a request `r`."""


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


SQLITE = Dialect(
    row_seconds="{0} / 1000000",
    sum_seconds="{0}",
    row_time=lambda seconds: int(seconds * 10**6),
    sum_time=int,
    is_late="r.written_at - r.at > 3600000000",
    join="a.request_id = r.id",
)
POSTGRES = Dialect(
    row_seconds="extract(epoch FROM {0})::bigint",
    sum_seconds="extract(epoch FROM {0})::bigint",
    row_time=_utc,
    sum_time=_utc,
    is_late="r.written_at - r.at > interval '1 hour'",
    join="a.request_id = r.id AND a.request_at = r.at AND a.request_at >= :since AND a.request_at < :until",
)
