"""The ledger in a PostgreSQL database, for several servers.

Servers insert and read rows, and add to sums: nothing else is asked of their role. Whoever owns the tables
makes and drops them (`routeproxy ledger migrate`): rows of a month are a partition, which goes as a whole.
All of it works behind a PgBouncer in transaction mode: nothing outlives a transaction.
"""

import asyncio
import datetime
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import asyncpg

from routeproxy.ledger.dialect import POSTGRES, Dialect
from routeproxy.ledger.rows import Batch, RequestRow
from routeproxy.ledger.schema import (
    ATTEMPT_COLUMNS,
    GROUP_COLUMNS,
    OPEN_COLUMNS,
    REQUEST_COLUMNS,
    SUM_COLUMNS,
    SUM_TABLES,
    attempt_values,
    group_values,
    open_values,
    request_values,
    sum_values,
)
from routeproxy.ledger.store import BatchRefused, LedgerUnavailable, Written
from routeproxy.ledger.sums import sum_up

P = ParamSpec("P")
T = TypeVar("T")

SCHEMA = "routeproxy"
LOCK = 0x726F757465
"""The advisory lock of whoever changes the tables."""
CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 60.0
MONTHS_AHEAD = 24
"""Partitions that are made in advance: so long servers go on without anybody who may make some."""

TEXT, BIGINT, BOOL, TIME, JSON = "text", "bigint", "boolean", "timestamptz", "jsonb"
TYPES: Mapping[str, str] = {
    **dict.fromkeys(("at", "written_at", "request_at"), TIME),
    **dict.fromkeys(("stream", "denied", "client_left", "let_go", "batch", "late", "is_last"), BOOL),
    **dict.fromkeys(("facts", "skipped", "shadow", "dropped"), JSON),
    **dict.fromkeys(("status", "number", "process", "queued", "first_content", "duration"), BIGINT),
    **dict.fromkeys(("cost_nanousd", *SUM_COLUMNS), BIGINT),
}
"""By column; all others are texts."""
NEVER_NULL = frozenset(
    (
        "at",
        "path",
        "version",
        "status",
        "provider",
        "model",
        "number",
        "purpose",
        "usage_source",
        "price_source",
    )
)

PARTITIONED = ("requests", "attempts", "opened")


def _table(name: str, columns: Sequence[str], key: str, partitioned_by: str = "") -> str:
    written = [
        f'"{column}" {TYPES.get(column, TEXT)}{" NOT NULL" if column in NEVER_NULL else ""}'
        for column in columns
    ]
    partition = f" PARTITION BY RANGE ({partitioned_by})" if partitioned_by else ""
    return f"CREATE TABLE {SCHEMA}.{name} ({', '.join(written)}, PRIMARY KEY ({key})){partition}"


ATTEMPTS = ("request_at", *ATTEMPT_COLUMNS)

MIGRATIONS: Sequence[tuple[str, ...]] = (
    (
        _table("requests", (*REQUEST_COLUMNS, "written_at"), "id, at", "at"),
        f"CREATE INDEX ON {SCHEMA}.requests (at)",
        f'CREATE INDEX ON {SCHEMA}.requests ("user") WHERE "user" IS NOT NULL',
        _table("attempts", ATTEMPTS, "request_id, number, request_at", "request_at"),
        f"CREATE INDEX ON {SCHEMA}.attempts (request_at)",
        _table("opened", OPEN_COLUMNS, "id, at", "at"),
        f"CREATE TABLE {SCHEMA}.groups (id bigint PRIMARY KEY, "
        + ", ".join(f'"{column}" {TYPES.get(column, TEXT)} NOT NULL' for column in GROUP_COLUMNS[1:])
        + ")",
        *(
            f"CREATE TABLE {SCHEMA}.{table} (began timestamptz NOT NULL, group_id bigint NOT NULL, "
            + ", ".join(f"{column} bigint NOT NULL" for column in SUM_COLUMNS)
            + ", PRIMARY KEY (began, group_id))"
            for table in SUM_TABLES.values()
        ),
        *(
            f"CREATE TABLE {SCHEMA}.{table}_rest PARTITION OF {SCHEMA}.{table} DEFAULT"
            for table in PARTITIONED
        ),
    ),
)
"""What each version of the tables adds to the one before. One that is released is never changed. A version
must leave alone what servers of the one before insert: first the tables grow, and only when no such server is
left a later version may take something away, and says so in `OLDEST`."""
OLDEST: Sequence[int] = (1,)
"""By version, the oldest version whose servers may go on beside it."""


def _insert(table: str, columns: Sequence[str], returning: str = "", types: Mapping[str, str] = TYPES) -> str:
    names = ", ".join(f'"{column}"' for column in columns)
    arrays = ", ".join(f"${number}::{types.get(column, TEXT)}[]" for number, column in enumerate(columns, 1))
    sql = f"INSERT INTO {SCHEMA}.{table} ({names}) SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING"
    return f"{sql} RETURNING {returning}" if returning else sql


_REQUEST_COLUMNS = (*REQUEST_COLUMNS, "written_at")
_INSERT_REQUESTS = _insert("requests", _REQUEST_COLUMNS, "id")
_INSERT_ATTEMPTS = _insert("attempts", ATTEMPTS)
_INSERT_OPENED = _insert("opened", OPEN_COLUMNS)
_INSERT_GROUPS = _insert("groups", GROUP_COLUMNS, types={**TYPES, "id": BIGINT})


def _add(table: str) -> str:
    columns = ("began", "group_id", *SUM_COLUMNS)
    types = (TIME, *[BIGINT] * (len(columns) - 1))
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types, 1))
    adds = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in SUM_COLUMNS)
    return (
        f"INSERT INTO {SCHEMA}.{table} ({', '.join(columns)}) SELECT * FROM unnest({arrays}) "
        f"ON CONFLICT (began, group_id) DO UPDATE SET {adds}"
    )


_ADD = {period: _add(table) for period, table in SUM_TABLES.items()}


Method = Callable[Concatenate["PostgresStore", P], Coroutine[Any, Any, T]]


def _explained(method: Method[P, T]) -> Method[P, T]:
    """What goes wrong is `LedgerUnavailable`."""

    async def tried(self: "PostgresStore", *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(self, *args, **kwargs)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, OverflowError) as error:
            raise BatchRefused(f"the database can't hold it: {error}") from error
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise LedgerUnavailable(reason_of(error)) from error

    return cast(Method[P, T], wraps(method)(tried))


class PostgresStore:
    """One connection, on the event loop that opened it."""

    dialect: Dialect = POSTGRES

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self._connection = connection
        self._known_groups: set[int] = set()

    @classmethod
    async def opened(
        cls, url: str, *, migrate: bool = False, seconds: float | None = None
    ) -> "PostgresStore":
        """Raises `LedgerUnavailable`: for tables that are not there, too, unless it is to `migrate` them.
        `seconds`: how long a statement may take."""
        try:
            connection = await asyncpg.connect(
                url,
                timeout=CONNECT_SECONDS,
                command_timeout=seconds or COMMAND_SECONDS,
                statement_cache_size=0,
            )
        except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise LedgerUnavailable(reason_of(error)) from error
        store = cls(connection)
        try:
            if migrate:
                await store.migrate()
            await store.check_version()
        except LedgerUnavailable:
            await store.aclose()
            raise
        return store

    # --- the tables

    @_explained
    async def check_version(self) -> None:
        """Raises `LedgerUnavailable` where these tables are not for this version of routeproxy."""
        own = len(MIGRATIONS)
        found, oldest = await self._version()
        if found < own:
            state = f"are of version {found}" if found else "are not there"
            hint = "whoever owns them makes them with `routeproxy ledger migrate`"
            raise LedgerUnavailable(f"its tables {state}, and this routeproxy needs version {own}: {hint}")
        if oldest > own:
            words = (
                f"its tables are of version {found}, which takes nothing from servers before version {oldest}"
            )
            raise LedgerUnavailable(f"{words}; this one is of version {own}")

    async def _version(self) -> tuple[int, int]:
        """That of the tables, 0 if there are none; and the oldest whose servers may go on."""
        with suppress(asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            row = await self._connection.fetchrow(
                f"SELECT version, oldest FROM {SCHEMA}.versions ORDER BY version DESC LIMIT 1"
            )
            if row is not None:
                return row["version"], row["oldest"]
        return 0, 0

    @_explained
    async def migrate(self, now: datetime.datetime | None = None) -> int:
        """Brings the tables up to date, and makes the partitions of the next months; the version that they
        have now. Several may try at once."""
        async with self._connection.transaction():
            await self._connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            await self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            await self._connection.execute(
                f"CREATE TABLE IF NOT EXISTS {SCHEMA}.versions "
                "(version bigint PRIMARY KEY, oldest bigint NOT NULL, at timestamptz NOT NULL DEFAULT now())"
            )
            found, _ = await self._version()
            for number in range(found + 1, len(MIGRATIONS) + 1):
                for statement in MIGRATIONS[number - 1]:
                    await self._connection.execute(statement)
                await self._connection.execute(
                    f"INSERT INTO {SCHEMA}.versions (version, oldest) VALUES ($1, $2)",
                    number,
                    OLDEST[number - 1],
                )
            await self._make_partitions(now or datetime.datetime.now(datetime.UTC))
            return max(found, len(MIGRATIONS))

    async def _make_partitions(self, now: datetime.datetime) -> None:
        month = datetime.date(now.year, now.month, 1)
        known = await self._partitions()
        for _ in range(MONTHS_AHEAD):
            following = _month_after(month)
            for table in PARTITIONED:
                name = f"{table}_{month:%Y_%m}"
                if name in known:
                    continue
                bounds = f"FROM ('{month} 00:00+00') TO ('{following} 00:00+00')"
                await self._connection.execute(
                    f"CREATE TABLE {SCHEMA}.{name} PARTITION OF {SCHEMA}.{table} FOR VALUES {bounds}"
                )
            month = following

    async def _partitions(self) -> set[str]:
        rows = await self._connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", SCHEMA)
        return {row["tablename"] for row in rows}

    @_explained
    async def grant(self, role: str) -> None:
        """What the servers need, to the role as which they come. Raises `ValueError` for what is no role."""
        if not re.fullmatch(r"[A-Za-z_][\w$]{0,62}", role):
            raise ValueError(f"`{role}` is no name of a role")
        tables = ", ".join(f"{SCHEMA}.{name}" for name in (*PARTITIONED, "groups", *SUM_TABLES.values()))
        sums = ", ".join(f"{SCHEMA}.{name}" for name in SUM_TABLES.values())
        async with self._connection.transaction():
            for privilege in (
                f"USAGE ON SCHEMA {SCHEMA}", f"SELECT ON {SCHEMA}.versions", f"SELECT, INSERT ON {tables}",
                f"UPDATE ON {sums}",
            ):  # fmt: skip
                await self._connection.execute(f'GRANT {privilege} TO "{role}"')

    # --- rows

    @_explained
    async def write(self, batch: Batch, written_at: int) -> Written:
        execute = self._connection.execute
        async with self._connection.transaction():
            new = await self._insert_requests(batch.requests, written_at)
            attempts = [(row.at, *attempt_values(attempt, row)) for row in new for attempt in row.attempts]
            if attempts:
                await execute(_INSERT_ATTEMPTS, *_arrays(ATTEMPTS, attempts))
            if batch.opened:
                opened = [open_values(row) for row in batch.opened]
                await execute(_INSERT_OPENED, *_arrays(OPEN_COLUMNS, opened))
            groups: dict[int, Sequence[Any]] = {}
            for period, found in sum_up(new, written_at).items():
                add = _ADD[period]
                # In one order, so that no two servers wait for each other.
                places = sorted(found.items(), key=lambda item: (item[0][0], item[0][1].id))
                groups |= {
                    group.id: group_values(group)
                    for (_, group), _ in places
                    if group.id not in self._known_groups
                }
                if groups:
                    await execute(
                        _INSERT_GROUPS, *_arrays(GROUP_COLUMNS, [groups[id] for id in sorted(groups)])
                    )
                if places:
                    rows = [sum_values(place, sums) for place, sums in places]
                    began, *columns = map(list, zip(*rows, strict=True))
                    await execute(add, [_moment(seconds * 10**6) for seconds in began], *columns)
        self._known_groups |= groups.keys()
        return Written(len(new), len(batch.requests) - len(new))

    async def _insert_requests(self, rows: Sequence[RequestRow], written_at: int) -> list[RequestRow]:
        """Those that were not there."""
        if not rows:
            return []
        values = [request_values(row, written_at) for row in rows]
        inserted = await self._connection.fetch(_INSERT_REQUESTS, *_arrays(_REQUEST_COLUMNS, values))
        ids = {row["id"] for row in inserted}
        new = []
        for row in rows:
            if row.id in ids:
                ids.discard(row.id)  # twice in a batch is once
                new.append(row)
        return new

    @_explained
    async def query(self, sql: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        names: list[str] = []

        def numbered(match: re.Match[str]) -> str:
            if match[1] not in names:
                names.append(match[1])
            return f"${names.index(match[1]) + 1}"

        text = re.sub(r"(?<![:\w]):([a-z_]\w*)", numbered, sql)
        async with self._connection.transaction(readonly=True):
            # The sums of a year are sorted in memory.
            await self._connection.execute(f"SET LOCAL search_path TO {SCHEMA}; SET LOCAL work_mem TO '32MB'")
            rows = await self._connection.fetch(text, *(values[name] for name in names))
        return [tuple(row) for row in rows]

    @_explained
    async def prune(self, rows_before: int, sums_before: int) -> int:
        """Only who owns the tables can: months that are over are dropped, without counting their rows."""
        limit, dropped = _moment(rows_before), 0
        async with self._connection.transaction():
            await self._connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            for name in sorted(await self._partitions()):
                if found := re.fullmatch(rf"({'|'.join(PARTITIONED)})_(\d{{4}})_(\d\d)", name):
                    following = _month_after(datetime.date(int(found[2]), int(found[3]), 1))
                    if datetime.datetime.combine(following, datetime.time(), datetime.UTC) <= limit:
                        await self._connection.execute(f"DROP TABLE {SCHEMA}.{name}")
                        dropped += 1
            for table, column in zip(PARTITIONED, ("at", "request_at", "at"), strict=True):
                await self._connection.execute(
                    f"DELETE FROM {SCHEMA}.{table}_rest WHERE {column} < $1", limit
                )
            for table in SUM_TABLES.values():
                await self._connection.execute(
                    f"DELETE FROM {SCHEMA}.{table} WHERE began < $1", _moment(sums_before * 10**6)
                )
        return dropped

    @_explained
    async def forget(self, user: str) -> int:
        nothing = 'SET "user" = NULL, user_source = NULL, session = NULL, prompt_id = NULL'
        done = await self._connection.execute(f'UPDATE {SCHEMA}.requests {nothing} WHERE "user" = $1', user)
        return int(done.rpartition(" ")[2])

    async def aclose(self) -> None:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await asyncio.wait_for(self._connection.close(), 5)


def _arrays(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The values by column, as PostgreSQL takes them."""
    return [
        [_moment(value) if TYPES.get(column) == TIME else _flag(value, column) for value in values]
        for column, values in zip(columns, zip(*rows, strict=True), strict=True)
    ]


def _flag(value: Any, column: str) -> Any:
    if TYPES.get(column) == BOOL:
        return bool(value)
    # PostgreSQL has no text with a NUL in it, which no name that we know has either.
    return value.replace("\0", "") if isinstance(value, str) else value


def _moment(microseconds: int) -> datetime.datetime:
    return datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(microseconds=microseconds)


def _month_after(month: datetime.date) -> datetime.date:
    return (month + datetime.timedelta(days=32)).replace(day=1)


def reason_of(error: BaseException) -> str:
    """Why the database can't be used, in our words where we have some; never its address, which may have a
    password in it."""
    match error:
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return "the database refuses the name or the password of the address"
        case asyncpg.InvalidCatalogNameError():
            return "the database of the address is not there"
        case asyncpg.InsufficientPrivilegeError():
            hint = "`routeproxy ledger migrate --grant ROLE` gives a role what servers need"
            return f"the role of the address may not do that: {hint}"
        case TimeoutError():
            return "the database does not answer in time"
        case ConnectionRefusedError():
            return "nobody listens at the address of the database"
        case OSError():
            return f"the database can't be reached: {error.strerror or 'the connection broke'}"
        case ValueError():
            return "the address of the database can't be read; expected postgresql://USER:PASSWORD@HOST/NAME"
        case asyncpg.PostgresError():
            return f"the database refuses: {error} (SQLSTATE {error.sqlstate})"
    return "the connection to the database is gone"
