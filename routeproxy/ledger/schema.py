"""The tables of the ledger, which both databases have with the same columns: what a row is made of, and in
which order. How the tables are made stands with each database."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from routeproxy.ledger.rows import AttemptRow, OpenRow, RequestRow
from routeproxy.ledger.sums import Group, Period, Place, Sums

REQUEST_COLUMNS = tuple(name for name in RequestRow.__struct_fields__ if name != "attempts")
ATTEMPT_COLUMNS = ("request_id", *AttemptRow.__struct_fields__, "is_last")
OPEN_COLUMNS = OpenRow.__struct_fields__
GROUP_COLUMNS = ("id", *Group.__struct_fields__)
SUM_COLUMNS = Sums.__struct_fields__

SUM_TABLES: Mapping[Period, str] = {"hour": "sums_by_hour", "day": "sums_by_day"}
"""By period."""

_encode = msgspec.json.Encoder(order="sorted").encode


_of_request = attrgetter(*REQUEST_COLUMNS)
_of_attempt = attrgetter(*AttemptRow.__struct_fields__)
_of_opened = attrgetter(*OPEN_COLUMNS)
_of_group = attrgetter(*Group.__struct_fields__)
_of_sums = attrgetter(*SUM_COLUMNS)
_DROPPED = AttemptRow.__struct_fields__.index("dropped")
_TABLES_OF_REQUEST = tuple(REQUEST_COLUMNS.index(name) for name in ("labels", "facts", "skipped", "shadow"))


def request_values(row: RequestRow, written_at: int) -> Sequence[Any]:
    values = [*_of_request(row), written_at]
    for place in _TABLES_OF_REQUEST:
        values[place] = _json(values[place])
    return values


def attempt_values(row: AttemptRow, request: RequestRow) -> Sequence[Any]:
    """With whether it is the one by which the request is counted."""
    values = [request.id, *_of_attempt(row), row.number == request.last]
    values[_DROPPED + 1] = _json(values[_DROPPED + 1])
    return values


def open_values(row: OpenRow) -> Sequence[Any]:
    return _of_opened(row)


def group_values(group: Group) -> Sequence[Any]:
    return (group.id, *_of_group(group))


def sum_values(place: Place, sums: Sums) -> Sequence[Any]:
    began, group = place
    return (began, group.id, *_of_sums(sums))


def _json(table: Mapping[str, Any]) -> str | None:
    """A table within a row; an empty one is not there."""
    return _encode(table).decode() if table else None
