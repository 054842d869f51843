"""Rows summed up by the hour and by the day: what tables of usage are made of, and what is left once the rows
are gone. Nothing in a sum names a user or a session."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from msgspec import Struct, structs

from routeproxy.ledger.rows import LATE, AttemptRow, RequestRow
from routeproxy.messages.token_usage import KINDS

HOUR = 3600
DAY = 86_400

Period = Literal["hour", "day"]


class Group(Struct, frozen=True, kw_only=True):
    """What is summed up together. What is not known, or was not there, is empty."""

    team: str = ""
    labels: str = ""
    """JSON, its keys sorted."""
    key: str = ""
    rule: str = ""
    provider: str = ""
    model: str = ""
    request_class: str = ""
    usage_source: str = ""
    price_source: str = ""
    late: bool = False

    @property
    def id(self) -> int:
        """A number of 63 bits, the same wherever it is worked out."""
        digest = hashlib.blake2b(msgspec.json.encode(self), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1


class Sums(Struct):
    """Of one group in one period."""

    requests: int = 0
    """Each counts where its last attempt went."""
    errors: int = 0
    """Those of them that came to an error."""
    attempts: int = 0
    failures: int = 0
    input_uncached: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_write_other: int = 0
    output: int = 0
    reasoning_output: int = 0
    web_searches: int = 0
    cost_nanousd: int = 0
    """Of what has a price."""
    unpriced_tokens: int = 0
    """The tokens of attempts whose cost nobody knows."""

    def add(self, other: "Sums") -> None:
        for name in _FIELDS:
            if by := getattr(other, name):
                setattr(self, name, getattr(self, name) + by)


_FIELDS = Sums.__struct_fields__

Place = tuple[int, Group]
"""The beginning of a period, in seconds since 1970, and a group."""


def sum_up(rows: Iterable[RequestRow], written_at: int) -> dict[Period, dict[Place, Sums]]:
    """By the hour and by the day. `written_at`: now, in microseconds since 1970."""
    by_hour, by_day = dict[Place, Sums](), dict[Place, Sums]()
    for row in rows:
        for group, at, sums in _parts_of(row, written_at):
            _add(by_hour, at // 10**6 // HOUR * HOUR, group, sums)
    for (began, group), sums in by_hour.items():
        _add(by_day, began // DAY * DAY, group, Sums(**structs.asdict(sums)))
    return {"hour": by_hour, "day": by_day}


def _add(found: dict[Place, Sums], began: int, group: Group, sums: Sums) -> None:
    if (known := found.get((began, group))) is None:
        found[began, group] = sums
    else:
        known.add(sums)


def _parts_of(row: RequestRow, written_at: int) -> Iterable[tuple[Group, int, Sums]]:
    is_error = row.status >= 400 or row.error is not None or row.client_left
    last = row.last
    for attempt in row.attempts:
        sums = sums_of(attempt)
        if attempt.number == last:
            sums.requests, sums.errors = 1, int(is_error)
        yield group_of(row, attempt, written_at), attempt.at, sums
    if last is None:
        yield group_of(row, None, written_at), row.at, Sums(requests=1, errors=int(is_error))


def sums_of(attempt: AttemptRow) -> Sums:
    sums = Sums(
        attempts=1,
        failures=int(attempt.failure is not None),
        **{kind: getattr(attempt, kind) or 0 for kind in (*KINDS, "reasoning_output", "web_searches")},
        cost_nanousd=attempt.cost_nanousd or 0,
    )
    if attempt.price_source == "unknown":
        sums.unpriced_tokens = attempt.tokens.total
    return sums


def group_of(row: RequestRow, attempt: AttemptRow | None, written_at: int) -> Group:
    return Group(
        team=row.team or "",
        labels=labels_text(row.labels),
        key=row.key or "",
        rule=row.rule or "",
        provider=attempt.provider if attempt is not None else "",
        model=attempt.model if attempt is not None else "",
        request_class=row.request_class or "",
        usage_source=attempt.usage_source if attempt is not None else "",
        price_source=attempt.price_source if attempt is not None else "",
        late=written_at - row.at > LATE,
    )


def labels_text(labels: Mapping[str, str]) -> str:
    return msgspec.json.encode(labels, order="sorted").decode() if labels else ""
