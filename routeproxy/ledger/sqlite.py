"""The ledger in a SQLite file, for the servers of one host.

Several processes write to it: each transaction waits for its turn, and readers wait for nobody (WAL).
"""

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from routeproxy.ledger.dialect import SQLITE, Dialect
from routeproxy.ledger.places import place_problem
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

T = TypeVar("T")

VERSION = 1
"""Of the tables, in the file's `user_version`."""
BUSY = 10.0
"""Seconds that a transaction waits for others."""
PROGRESS = 100_000
"""Steps of SQLite's machine between looks at the time."""
PRUNED_AT_ONCE = 2000
"""Rows that one transaction deletes, so that nobody waits for long."""

TABLES = """
CREATE TABLE requests (
    id TEXT PRIMARY KEY, at INTEGER NOT NULL, path TEXT NOT NULL, stream INTEGER NOT NULL,
    requested_model TEXT, session TEXT, prompt_id TEXT, request_class TEXT, team TEXT, labels TEXT, key TEXT,
    user TEXT, user_source TEXT, rule TEXT, version TEXT NOT NULL, facts TEXT, status INTEGER NOT NULL,
    error TEXT, denied INTEGER NOT NULL, skipped TEXT, shadow TEXT, client_left INTEGER NOT NULL,
    queued INTEGER NOT NULL, first_content INTEGER, duration INTEGER NOT NULL, written_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX requests_by_time ON requests (at);
CREATE INDEX requests_by_user ON requests (user) WHERE user IS NOT NULL;
CREATE TABLE attempts (
    request_id TEXT NOT NULL, number INTEGER NOT NULL, purpose TEXT NOT NULL, provider TEXT NOT NULL,
    model TEXT NOT NULL, served_model TEXT, engine TEXT NOT NULL, at INTEGER NOT NULL, first_content INTEGER,
    duration INTEGER NOT NULL, failure TEXT, let_go INTEGER NOT NULL, asked_again TEXT, dropped TEXT,
    usage_source TEXT NOT NULL, input_uncached INTEGER, cache_read INTEGER, cache_write_5m INTEGER,
    cache_write_1h INTEGER, cache_write_other INTEGER, output INTEGER, reasoning_output INTEGER,
    web_searches INTEGER, service_tier TEXT, batch INTEGER NOT NULL, cost_nanousd INTEGER,
    price_source TEXT NOT NULL, price_version TEXT, is_last INTEGER NOT NULL,
    PRIMARY KEY (request_id, number)
) WITHOUT ROWID;
CREATE TABLE opened (
    id TEXT PRIMARY KEY, at INTEGER NOT NULL, team TEXT, key TEXT, rule TEXT, process INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE groups (
    id INTEGER PRIMARY KEY, team TEXT NOT NULL, labels TEXT NOT NULL, key TEXT NOT NULL, rule TEXT NOT NULL,
    provider TEXT NOT NULL, model TEXT NOT NULL, request_class TEXT NOT NULL, usage_source TEXT NOT NULL,
    price_source TEXT NOT NULL, late INTEGER NOT NULL
);
""" + "".join(
    f"CREATE TABLE {table} (began INTEGER NOT NULL, group_id INTEGER NOT NULL, "
    + "".join(f"{name} INTEGER NOT NULL, " for name in SUM_COLUMNS)
    + "PRIMARY KEY (began, group_id)) WITHOUT ROWID;\n"
    for table in SUM_TABLES.values()
)


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


_INSERT_REQUEST = _insert("requests", (*REQUEST_COLUMNS, "written_at"))
_INSERT_ATTEMPT = _insert("attempts", ATTEMPT_COLUMNS)
_INSERT_OPENED = _insert("opened", OPEN_COLUMNS)
_INSERT_GROUP = _insert("groups", GROUP_COLUMNS)
_ADD = {
    period: f"INSERT INTO {table} (began, group_id, {', '.join(SUM_COLUMNS)}) "
    f"VALUES (?, ?, {', '.join('?' * len(SUM_COLUMNS))}) ON CONFLICT DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in SUM_COLUMNS)
    for period, table in SUM_TABLES.items()
}


class SqliteStore:
    """Its methods take the time that the disk takes, in the thread that calls them."""

    dialect: Dialect = SQLITE

    def __init__(
        self,
        path: Path,
        *,
        is_synchronous: bool = False,
        read_only: bool = False,
        seconds: float | None = None,
    ) -> None:
        """Raises `LedgerUnavailable`. `seconds`: how long all questions may take, from now on."""
        self._path = path
        self._known_groups: set[int] = set()
        if problem := place_problem(path):
            raise LedgerUnavailable(problem)
        try:
            if read_only:
                if not path.exists():
                    raise LedgerUnavailable(f"{path}: there is no ledger")
                uri = f"{path.absolute().as_uri()}?mode=ro"
                self._connection = sqlite3.connect(uri, BUSY, uri=True, check_same_thread=False)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileExistsError):  # it says who did what: not for everybody on the machine
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
                self._connection = sqlite3.connect(path, BUSY, isolation_level=None, check_same_thread=False)
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute(f"PRAGMA synchronous = {'FULL' if is_synchronous else 'NORMAL'}")
                self._migrate()
            if seconds is not None:
                until = time.monotonic() + seconds
                self._connection.set_progress_handler(lambda: time.monotonic() > until, PROGRESS)
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error

    def _migrate(self) -> None:
        with self._transaction():
            (found,) = self._connection.execute("PRAGMA user_version").fetchone()
            if found > VERSION:
                words = f"{self._path} is the ledger of a later routeproxy: its tables have version {found}"
                raise LedgerUnavailable(f"{words}, and this one knows {VERSION}")
            if found < 1:
                for statement in filter(str.strip, TABLES.split(";")):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {VERSION}")

    async def write(self, batch: Batch, written_at: int) -> Written:
        return self._tried(lambda: self._write(batch, written_at))

    def _write(self, batch: Batch, written_at: int) -> Written:
        execute = self._connection.execute
        with self._transaction():
            new = self._insert_requests(batch.requests, written_at)
            self._connection.executemany(
                _INSERT_ATTEMPT, [attempt_values(each, row) for row in new for each in row.attempts]
            )
            self._connection.executemany(_INSERT_OPENED, [open_values(row) for row in batch.opened])
            groups = set[int]()
            for period, places in sum_up(new, written_at).items():
                add = _ADD[period]
                for place, sums in places.items():
                    group = place[1]
                    if group.id not in self._known_groups | groups:
                        execute(_INSERT_GROUP, group_values(group))
                        groups.add(group.id)
                    execute(add, sum_values(place, sums))
        self._known_groups |= groups
        return Written(len(new), len(batch.requests) - len(new))

    def _insert_requests(self, rows: Sequence[RequestRow], written_at: int) -> Sequence[RequestRow]:
        """Those that were not there yet: usually all of them."""
        values = [request_values(row, written_at) for row in rows]
        self._connection.execute("SAVEPOINT requests")
        if self._connection.executemany(_INSERT_REQUEST, values).rowcount == len(rows):
            return rows
        self._connection.execute("ROLLBACK TO requests")
        execute = self._connection.execute
        return [
            row for row, of_row in zip(rows, values, strict=True) if execute(_INSERT_REQUEST, of_row).rowcount
        ]

    async def query(self, sql: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return self._tried(lambda: self._connection.execute(sql, values).fetchall())

    async def prune(self, rows_before: int, sums_before: int) -> int:
        return self._tried(lambda: self._prune(rows_before, sums_before))

    def _prune(self, rows_before: int, sums_before: int) -> int:
        pruned = 0
        while True:
            with self._transaction():
                found = self._connection.execute(
                    "SELECT id FROM requests WHERE at < ? LIMIT ?", (rows_before, PRUNED_AT_ONCE)
                ).fetchall()
                ids = [(id,) for (id,) in found]
                self._connection.executemany("DELETE FROM attempts WHERE request_id = ?", ids)
                self._connection.executemany("DELETE FROM requests WHERE id = ?", ids)
            pruned += len(ids)
            if len(ids) < PRUNED_AT_ONCE:
                break
            time.sleep(0.01)  # others have their turn
        with self._transaction():
            self._connection.execute("DELETE FROM opened WHERE at < ?", (rows_before,))
            for table in SUM_TABLES.values():
                pruned += self._connection.execute(
                    f"DELETE FROM {table} WHERE began < ?", (sums_before,)
                ).rowcount
        return pruned

    async def forget(self, user: str) -> int:
        return self._tried(lambda: self._forget(user))

    def _forget(self, user: str) -> int:
        with self._transaction():
            sql = "UPDATE requests SET user = NULL, user_source = NULL, session = NULL, prompt_id = NULL"
            return self._connection.execute(f"{sql} WHERE user = ?", (user,)).rowcount

    async def aclose(self) -> None:
        self._connection.close()

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._connection)

    def _tried(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, *_UNWRITABLE) as error:
            raise BatchRefused(f"{self._path} can't hold it: {error}") from error
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> LedgerUnavailable:
        return LedgerUnavailable(f"{self._path}: {REASONS.get(_name_of(error), str(error))}")


_UNWRITABLE = (OverflowError, UnicodeEncodeError, sqlite3.ProgrammingError)
"""Values that are none for a database."""

REASONS = {
    "SQLITE_BUSY": "somebody else has kept it locked for too long",
    "SQLITE_FULL": "no space is left on its disk",
    "SQLITE_READONLY": "this user may not write it",
    "SQLITE_NOTADB": "it is no SQLite database",
    "SQLITE_CORRUPT": "it is damaged",
    "SQLITE_CANTOPEN": "it can't be opened",
    "SQLITE_IOERR": "its disk fails",
    "SQLITE_INTERRUPT": "the question takes too long: ask about less",
}


def _name_of(error: Exception) -> str:
    name = getattr(error, "sqlite_errorname", "")
    return next((known for known in REASONS if name.startswith(known)), "")


class _Transaction:
    """One that may write, and so begins by waiting for its turn."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
