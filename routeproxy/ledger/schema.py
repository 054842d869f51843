"""The tables of the ledger, which both databases have with the same columns: what a row is made of, and in
which order. How the tables are made stands with each database."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from routeproxy.ledger.rows import AttemptRow, OpenRow, RequestRow
from routeproxy.ledger.sums import Group, Period, Place, Sums

REQUEST_COLUMNS = tuple(name for name in RequestRow.__struct_fields__ if name != "attempts")
ATTEMPT_COLUMNS = ("request_id", *AttemptRow.__struct_fields__)
OPEN_COLUMNS = OpenRow.__struct_fields__
GROUP_COLUMNS = ("id", *Group.__struct_fields__)
SUM_COLUMNS = Sums.__struct_fields__

SUM_TABLES: Mapping[Period, str] = {"hour": "sums_by_hour", "day": "sums_by_day"}
"""By period."""

_encode = msgspec.json.Encoder(order="sorted").encode


def request_values(row: RequestRow, written_at: int) -> Sequence[Any]:
    return (*(_value(getattr(row, name)) for name in REQUEST_COLUMNS), written_at)


def attempt_values(row: AttemptRow, request: RequestRow) -> Sequence[Any]:
    return (request.id, *(_value(getattr(row, name)) for name in AttemptRow.__struct_fields__))


def open_values(row: OpenRow) -> Sequence[Any]:
    return tuple(getattr(row, name) for name in OPEN_COLUMNS)


def group_values(group: Group) -> Sequence[Any]:
    return (group.id, *(getattr(group, name) for name in Group.__struct_fields__))


def sum_values(place: Place, sums: Sums) -> Sequence[Any]:
    began, group = place
    return (began, group.id, *(getattr(sums, name) for name in SUM_COLUMNS))


def _value(value: Any) -> Any:
    """A table within a row is JSON; an empty one is not there."""
    if isinstance(value, dict):
        return _encode(value).decode() if value else None
    return value
