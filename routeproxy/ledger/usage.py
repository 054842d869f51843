"""What was used, by whom and of what: tables out of the ledger. Where sums by the hour or the day tell it,
they are read; users, sessions and odd time zones need the rows themselves."""

import datetime
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from routeproxy.ledger.dialect import Dialect
from routeproxy.ledger.schema import SUM_TABLES
from routeproxy.ledger.store import Store
from routeproxy.ledger.sums import DAY, HOUR, Period, Sums
from routeproxy.messages.token_usage import KINDS, NANO

IN_SUMS = ("team", "key", "rule", "provider", "model", "request_class")
IN_ROWS = ("user", "session")
BY = ("team", "label", "key", "user", "session", "rule", "provider", "model", "request_class", "day")
"""What usage can be told by; `label` may name one: `label:cost_center`."""
FILTERS = (*IN_SUMS, *IN_ROWS)

UTC = ZoneInfo("UTC")

SUMMED = tuple(Sums.__struct_fields__)


class Question(Struct, frozen=True, kw_only=True):
    """What is asked of the ledger."""

    by: tuple[str, ...] = ()
    since: datetime.datetime
    """With its time zone: days begin when they do there."""
    until: datetime.datetime
    """Not included."""
    only: Mapping[str, str] = {}
    """By names of `FILTERS`, the value that counts alone."""

    @property
    def zone(self) -> ZoneInfo:
        zone = self.since.tzinfo
        assert isinstance(zone, ZoneInfo)
        return zone

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the tables that are asked for."""
        return tuple("labels" if each.partition(":")[0] == "label" else each for each in self.by)


class UsageRow(Struct, kw_only=True, gc=False):
    """What is known of one group."""

    by: tuple[str, ...]
    """Its values, in the order that was asked for; empty: there was none."""
    sums: Sums

    @property
    def input(self) -> int:
        """All tokens of requests, those of caches included."""
        sums = self.sums
        written = sums.cache_write_5m + sums.cache_write_1h + sums.cache_write_other
        return sums.input_uncached + sums.cache_read + written

    @property
    def cached(self) -> float | None:
        """The share of the input that was read from a cache; `None`: there was none."""
        return self.sums.cache_read / self.input if self.input else None

    @property
    def dollars(self) -> Decimal:
        """Of what has a price."""
        return dollars(self.sums.cost_nanousd)


class Usage(Struct, kw_only=True):
    question: Question
    rows: list[UsageRow]
    total: UsageRow
    by_source: Mapping[str, Sums]
    """By where the tokens come from (`rows.UsageSource`)."""
    late: Sums
    """Of all that was written long after it happened."""
    open: int
    """Requests that are under way, or whose server did not live to see their end."""


def dollars(nanousd: int) -> Decimal:
    return Decimal(nanousd) / NANO


async def usage_of(store: Store, question: Question) -> Usage:
    """Raises `LedgerUnavailable`."""
    found = await store.query(*_Statement(question, store.dialect).select())
    shown = shown_columns(question)
    width = len(shown)
    columns = list(zip(*found, strict=True)) if found else [()] * (width + 2)
    sources, lates = columns[width], columns[width + 1]
    names = [map(show, values) for show, values in zip(shown, columns, strict=False)]
    groups = list(zip(*names, strict=True)) if names else [()] * len(found)
    counts = [tuple([count or 0 for count in row[width + 2 :]]) for row in found]  # nobody told of it: none
    rows: dict[tuple[str, ...], UsageRow] = {}
    for group, numbers in zip(groups, counts, strict=True):
        if (row := rows.get(group)) is None:
            rows[group] = UsageRow(by=group, sums=Sums(*numbers))
        else:
            row.sums.add(Sums(*numbers))
    apart: dict[tuple[str | None, bool], list[Sequence[int]]] = {}
    for key, numbers in zip(zip(sources, lates, strict=True), counts, strict=True):
        apart.setdefault(key, []).append(numbers)
    total, by_source, late = Sums(), dict[str, Sums](), Sums()
    for (source, is_late), several in apart.items():
        sums = Sums(*map(sum, zip(*several, strict=True)))
        total.add(sums)
        by_source.setdefault(source or "", Sums()).add(sums)
        if is_late:
            late.add(sums)
    opened = await store.query(*_open(question, store.dialect))
    return Usage(
        question=question,
        rows=_in_order(rows.values(), question),
        total=UsageRow(by=(), sums=total),
        by_source=by_source,
        late=late,
        open=opened[0][0],
    )


def summed_by(usage: Usage, by: tuple[str, ...]) -> list[UsageRow]:
    """The rows of an answer that was asked by more, by some of its columns only."""
    places = [usage.question.by.index(each) for each in by]
    rows: dict[tuple[str, ...], UsageRow] = {}
    for row in usage.rows:
        group = tuple(row.by[place] for place in places)
        if group not in rows:
            rows[group] = UsageRow(by=group, sums=Sums())
        rows[group].sums.add(row.sums)
    return _in_order(rows.values(), replace(usage.question, by=by))


def _in_order(rows: Iterable[UsageRow], question: Question) -> list[UsageRow]:
    """What cost most comes first, but days come one after the other."""
    ordered = sorted(rows, key=attrgetter("by"))
    ordered.sort(key=_WEIGHT, reverse=True)
    if "day" in question.by:
        day = question.by.index("day")
        ordered.sort(key=lambda row: row.by[day])
    return ordered


_WEIGHT = attrgetter("sums.cost_nanousd", "sums.unpriced_tokens", "sums.input_uncached", "sums.output")


def shown_columns(question: Question) -> list[Callable[[Any], str]]:
    """How the values of each column that was asked by are shown."""
    return [_shown(asked) for asked in question.by]


def statement_of_attempts(
    question: Question, dialect: Dialect, columns: Sequence[str]
) -> tuple[str, Mapping[str, Any]]:
    """The `SELECT` of each attempt itself: the columns that were asked by, the seconds since 1970,
    `columns`."""
    statement = _Statement(question, dialect, of_rows=True)
    return statement.select_rows(columns)


def _shown(asked: str) -> Callable[[Any], str]:
    """How the values of a column are shown: a day has its date, one label stands alone."""
    if asked == "day":
        return _date
    if name := asked.partition(":")[2]:
        return lambda labels: str(json.loads(labels).get(name, "")) if labels else ""
    return lambda value: str(value or "")


@cache
def _date(day: Any) -> str:
    """`day`: since 1970."""
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=int(day))).isoformat()


class _Statement:
    """The `SELECT` for one question, over sums where they tell it."""

    def __init__(self, question: Question, dialect: Dialect, *, of_rows: bool = False) -> None:
        self._question = question
        self._period = None if of_rows else _period(question)
        since, until = question.since.timestamp(), question.until.timestamp()
        if self._period is None:
            self._time, time = dialect.row_seconds.format("at"), dialect.row_time
        else:
            self._time, time = dialect.sum_seconds.format("began"), dialect.sum_time
        self._rows = _ROWS.format(is_late=dialect.is_late, join=dialect.join)
        self._values: dict[str, Any] = {"since": time(since), "until": time(until)}
        self._conditions = []
        for name, value in question.only.items():
            assert name in FILTERS
            self._conditions.append(f"coalesce({_column(name)}, '') = :only_{name}")
            self._values[f"only_{name}"] = value

    def select(self) -> tuple[str, Mapping[str, Any]]:
        """By what was asked for, and by what a sum may hide."""
        sql = self._select_of_rows() if self._period is None else self._select_of_sums(self._period)
        return sql, self._values

    def _select_of_rows(self) -> str:
        columns = {name: self._column(name) for name in self._question.columns}
        named = [f"{column} AS {_column(name)}" for name, column in columns.items()]
        sql = f"SELECT {', '.join([*named, *APART, *_SUMMED])} FROM {self._rows} WHERE {self._where}"
        return f"{sql} GROUP BY {', '.join([*columns.values(), *APART])}"

    def _select_of_sums(self, period: Period) -> str:
        """Groups that are shown as one have a number in common, by which sums are added up: comparing their
        names for each sum would take longer."""
        columns = self._question.columns
        together = ", ".join([*(_column(name) for name in columns if name != "day"), *APART])
        only = " AND ".join(["1 = 1", *self._conditions])
        days = ["day"] if "day" in columns else []
        day = [f"{self._column('day')} AS day"] if days else []
        shown = ["summed.day" if name == "day" else f"groups.{_column(name)}" for name in columns]
        shown += [*(f"groups.{name}" for name in APART), *(f"summed.{name}" for name in SUMMED)]
        return f"""
            WITH named AS (
                SELECT id, min(id) OVER (PARTITION BY {together}) AS number FROM groups WHERE {only}
            ), summed AS (
                SELECT {", ".join([*day, "number", *_SUMMED])}
                FROM {SUM_TABLES[period]} AS sums JOIN named ON named.id = sums.group_id
                WHERE began >= :since AND began < :until
                GROUP BY {", ".join([*days, "number"])}
            )
            SELECT {", ".join(shown)} FROM summed JOIN groups ON groups.id = summed.number"""

    def select_rows(self, columns: Sequence[str]) -> tuple[str, Mapping[str, Any]]:
        by = [self._column(name) for name in self._question.columns]
        sql = f"SELECT {', '.join([*by, self._time, *columns])} FROM {self._rows}"
        return f"{sql} WHERE {self._where} AND attempts = 1", self._values

    @property
    def _where(self) -> str:
        return " AND ".join(["at >= :since", "at < :until", *self._conditions])

    def _column(self, name: str) -> str:
        if name != "day":
            return _column(name)
        offset = _offset(self._question, self._time)
        return f"({self._time} + {offset}) / {DAY}"


APART = ("usage_source", "late")
"""What a sum may hide."""
_SUMMED = tuple(f"CAST(sum({name}) AS bigint) AS {name}" for name in SUMMED)  # else PostgreSQL makes decimals


def _column(name: str) -> str:
    """`user` is a word of SQL."""
    return f'"{name}"'


_ROWS = f"""(
    SELECT r.at, r.team, r.labels, r.key, r.rule, r.request_class, r."user", r.session,
        a.provider, a.model, coalesce(a.usage_source, '') AS usage_source,
        CASE WHEN {{is_late}} THEN 1 ELSE 0 END AS late,
        CASE WHEN a.number IS NULL OR a.is_last THEN 1 ELSE 0 END AS requests,
        CASE WHEN (a.number IS NULL OR a.is_last)
            AND (r.status >= 400 OR r.error IS NOT NULL OR r.client_left) THEN 1 ELSE 0 END AS errors,
        CASE WHEN a.number IS NULL THEN 0 ELSE 1 END AS attempts,
        CASE WHEN a.failure IS NULL THEN 0 ELSE 1 END AS failures,
        a.input_uncached, a.cache_read, a.cache_write_5m, a.cache_write_1h, a.cache_write_other, a.output,
        a.reasoning_output, a.web_searches, a.cost_nanousd, a.served_model, a.service_tier, a.price_source,
        CASE WHEN a.price_source = 'unknown' THEN
            {" + ".join(f"coalesce(a.{kind}, 0)" for kind in KINDS)}
        ELSE 0 END AS unpriced_tokens
    FROM requests r LEFT JOIN attempts a ON {{join}}
) AS s"""


def _period(question: Question) -> Period | None:
    """Whose sums tell it: days of UTC, or hours; `None`: only the rows do."""
    if {*question.columns, *question.only} & {*IN_ROWS}:
        return None
    moments = [question.since, question.until]
    if all(moment.timestamp() % DAY == 0 for moment in moments) and _offsets(question) == [(None, 0)]:
        return "day"
    begins_hour = all(moment.timestamp() % HOUR == 0 for moment in moments)
    return "hour" if begins_hour and all(offset % HOUR == 0 for _, offset in _offsets(question)) else None


def _offsets(question: Question) -> list[tuple[int | None, int]]:
    """The seconds by which the zone is ahead of UTC, each with the time until which it is; the last: to the
    end."""
    offsets: list[tuple[int | None, int]] = []
    moment, end = int(question.since.timestamp()), int(question.until.timestamp())
    before = _offset_at(moment, question.zone)
    while moment < end:
        # Day by day, and hour by hour where the clocks change.
        day_after = min(moment + DAY, end)
        if _offset_at(day_after, question.zone) != before:
            for hour in range(moment + HOUR, day_after + HOUR, HOUR):
                if (now := _offset_at(hour, question.zone)) != before:
                    offsets.append((hour // HOUR * HOUR, before))
                    before = now
        moment = day_after
    return [*offsets, (None, before)]


def _offset_at(moment: int, zone: ZoneInfo) -> int:
    offset = datetime.datetime.fromtimestamp(moment, zone).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


def _offset(question: Question, time: str) -> str:
    offsets = _offsets(question)
    if len(offsets) == 1:
        return str(offsets[0][1])
    whens = " ".join(f"WHEN {time} < {until} THEN {offset}" for until, offset in offsets[:-1])
    return f"(CASE {whens} ELSE {offsets[-1][1]} END)"


def _open(question: Question, dialect: Dialect) -> tuple[str, Mapping[str, Any]]:
    sql = "SELECT count(*) AS number FROM opened o WHERE o.at >= :since AND o.at < :until"
    sql += " AND NOT EXISTS (SELECT 1 FROM requests r WHERE r.id = o.id)"
    values = {
        "since": dialect.row_time(question.since.timestamp()),
        "until": dialect.row_time(question.until.timestamp()),
    }
    for name, value in question.only.items():
        if name in ("team", "key", "rule"):
            sql += f" AND coalesce(o.{_column(name)}, '') = :only_{name}"
            values[f"only_{name}"] = value
    return sql, values
