"""The requests that are in the ledger, with their attempts, page by page: there may be millions."""

import datetime
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from routeproxy.ledger.rows import AttemptRow, RequestRow
from routeproxy.ledger.schema import REQUEST_COLUMNS
from routeproxy.ledger.store import Store

AT_ONCE = 2_000
"""Requests of one question."""
_JSON = ("labels", "facts", "skipped", "shadow")
_ATTEMPT = AttemptRow.__struct_fields__
_PAGE = """
SELECT r.at AS place, {requests}, {attempts} FROM (
    SELECT * FROM requests
    WHERE at >= :since AND at < :until AND (at, id) {after} (:place, :id){only}
    ORDER BY at {order}, id {order} LIMIT {limit}
) r LEFT JOIN attempts a ON {join}
ORDER BY r.at {order}, r.id {order}, a.number
"""


async def past_requests(
    store: Store,
    since: datetime.datetime,
    until: datetime.datetime,
    *,
    latest_first: bool = False,
    team: str | None = None,
    most: int | None = None,
) -> AsyncIterator[RequestRow]:
    """Those that began in this time, in order; `most` of them. Their times are in microseconds. Raises
    `LedgerUnavailable`."""
    dialect, left = store.dialect, most
    begin, end = dialect.row_time(since.timestamp()), dialect.row_time(until.timestamp())
    last = (end, "~") if latest_first else (begin, "")
    values: dict[str, Any] = {"since": begin, "until": end}
    if team is not None:
        values["team"] = team
    while left is None or left > 0:
        limit = AT_ONCE if left is None else min(left, AT_ONCE)
        sql = _PAGE.format(
            requests=", ".join(f'r."{name}"' for name in REQUEST_COLUMNS if name != "at"),
            attempts=", ".join(f'a."{name}"' for name in _ATTEMPT if name != "at"),
            after="<" if latest_first else ">",
            only=" AND team = :team" if team is not None else "",
            order="DESC" if latest_first else "ASC",
            limit=limit,
            join=dialect.join,
        )
        rows = await store.query(sql, {**values, "place": last[0], "id": last[1]})
        found = 0
        for row in _joined(rows):
            found += 1
            yield row
        if found < limit:
            return
        left = left - found if left is not None else None
        last = (rows[-1][0], rows[-1][1])


_REQUEST = tuple(name for name in REQUEST_COLUMNS if name != "at")
_WIDTH = 1 + len(_REQUEST)
_ATTEMPT_READ = tuple(name for name in _ATTEMPT if name != "at")


def _joined(rows: Sequence[Sequence[Any]]) -> Sequence[RequestRow]:
    """Each request once, with its attempts."""
    requests: list[RequestRow] = []
    attempts: list[AttemptRow] = []
    last = None
    for row in rows:
        if row[1] != last:
            if requests:
                requests[-1].attempts = tuple(attempts)
            last, attempts = row[1], []
            requests.append(_request(row))
        if row[_WIDTH] is not None:
            attempts.append(_attempt(row, requests[-1].at))
    if requests:
        requests[-1].attempts = tuple(attempts)
    return requests


def _request(row: Sequence[Any]) -> RequestRow:
    fields = dict(zip(_REQUEST, row[1:], strict=False))
    for name in _JSON:
        written = fields[name]
        fields[name] = json.loads(written) if isinstance(written, str) else written or {}
    for name in ("stream", "denied", "client_left"):
        fields[name] = bool(fields[name])
    return RequestRow(at=_microseconds(row[0]), **fields)


def _microseconds(time: int | datetime.datetime) -> int:
    """A row's time, as its database has it."""
    if isinstance(time, int):
        return time
    return (time - _EPOCH) // datetime.timedelta(microseconds=1)


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _attempt(row: Sequence[Any], at: int) -> AttemptRow:
    """Its time is that of its request: what matters is their order."""
    fields = dict(zip(_ATTEMPT_READ, row[_WIDTH:], strict=True))
    written = fields["dropped"]
    fields["dropped"] = json.loads(written) if isinstance(written, str) else written or {}
    fields["let_go"], fields["batch"] = bool(fields["let_go"]), bool(fields["batch"])
    return AttemptRow(at=at, **fields)


async def past_request(store: Store, request_id: str) -> RequestRow | None:
    """The one of this id, 32 hexadecimal digits. Raises `LedgerUnavailable`."""
    sql = f"""
SELECT r.at AS place, {", ".join(f'r."{name}"' for name in _REQUEST)},
    {", ".join(f'a."{name}"' for name in _ATTEMPT_READ)}
FROM requests r LEFT JOIN attempts a ON {store.dialect.join} WHERE r.id = :id ORDER BY a.number
"""
    return next(iter(_joined(await store.query(sql, {"id": request_id}))), None)
