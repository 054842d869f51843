"""Rows summed up by the hour and by the day: what tables of usage are made of, and what is left once the rows
are gone. Nothing in a sum names a user or a session."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from routeproxy.ledger.rows import LATE, AttemptRow, RequestRow
from routeproxy.messages.token_usage import KINDS

HOUR = 3600
DAY = 86_400

Period = Literal["hour", "day"]


class Group(Struct, frozen=True):
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


class Sums(Struct, gc=False):
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

    def count_request(self, row: RequestRow) -> None:
        self.requests += 1
        self.errors += row.status >= 400 or row.error is not None or row.client_left

    def count_attempt(self, attempt: AttemptRow) -> None:
        self.attempts += 1
        self.failures += attempt.failure is not None
        tokens = 0
        for name in KINDS:
            if count := getattr(attempt, name):
                tokens += count
                setattr(self, name, getattr(self, name) + count)
        self.reasoning_output += attempt.reasoning_output or 0
        self.web_searches += attempt.web_searches or 0
        self.cost_nanousd += attempt.cost_nanousd or 0
        if attempt.price_source == "unknown":
            self.unpriced_tokens += tokens

    def add(self, other: "Sums") -> None:
        for name in _FIELDS:
            if by := getattr(other, name):
                setattr(self, name, getattr(self, name) + by)


_FIELDS = Sums.__struct_fields__

Place = tuple[int, Group]
"""The beginning of a period, in seconds since 1970, and a group."""


def sum_up(rows: Iterable[RequestRow], written_at: int) -> dict[Period, dict[Place, Sums]]:
    """By the hour and by the day. `written_at`: now, in microseconds since 1970."""
    by_hour, by_day = dict[_Key, Sums](), dict[Place, Sums]()
    for row in rows:
        last = row.last
        for attempt in row.attempts:
            sums = _sums_at(by_hour, row, attempt, written_at)
            sums.count_attempt(attempt)
            if attempt.number == last:
                sums.count_request(row)
        if last is None:
            _sums_at(by_hour, row, None, written_at).count_request(row)
    hours = {(began, Group(*group)): sums for (began, *group), sums in by_hour.items()}
    for (began, group), sums in hours.items():
        place = began // DAY * DAY, group
        if (known := by_day.get(place)) is None:
            by_day[place] = known = Sums()
        known.add(sums)
    return {"hour": hours, "day": by_day}


_Key = tuple[Any, ...]
"""The beginning of a period, and the fields of a group."""


def _sums_at(found: dict[_Key, Sums], row: RequestRow, attempt: AttemptRow | None, written_at: int) -> Sums:
    """Where something of a request is counted: its own place, or that of its attempt."""
    at = attempt.at if attempt is not None else row.at
    of_attempt = (
        (attempt.provider, attempt.model, row.request_class or "", attempt.usage_source, attempt.price_source)
        if attempt is not None
        else ("", "", row.request_class or "", "", "")
    )
    place = (
        at // 10**6 // HOUR * HOUR,
        row.team or "",
        labels_text(row.labels),
        row.key or "",
        row.rule or "",
        *of_attempt,
        written_at - row.at > LATE,
    )
    if (sums := found.get(place)) is None:
        found[place] = sums = Sums()
    return sums


def labels_text(labels: Mapping[str, str]) -> str:
    return msgspec.json.encode(labels, order="sorted").decode() if labels else ""
