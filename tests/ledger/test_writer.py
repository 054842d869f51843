"""Rows on their way to the database: what one that is slow, gone or full costs, and what it doesn't."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from routeproxy.ledger.dialect import SQLITE, Dialect
from routeproxy.ledger.pipeline import Recorded
from routeproxy.ledger.rows import Batch, RequestRow
from routeproxy.ledger.spool import Spool, SpoolFull
from routeproxy.ledger.sqlite import SqliteStore
from routeproxy.ledger.store import BatchRefused, LedgerUnavailable, Store, Written
from routeproxy.ledger.users import pseudonym_of
from routeproxy.ledger.writer import LedgerWriter
from routeproxy.policy.ledger import LedgerSettings
from tests.ledger.rows import NOON, attempt, made_up, request
from tests.running import until


class Books:
    """A database in memory that may be gone."""

    dialect: Dialect = SQLITE

    def __init__(self) -> None:
        self.rows: list[RequestRow] = []
        self.is_gone = False
        self.refuses: str | None = None
        self.stuck = threading.Event()
        self.stuck.set()

    async def opened(self) -> Store:
        if self.is_gone:
            raise LedgerUnavailable("it is gone")
        return self

    async def write(self, batch: Batch, written_at: int) -> Written:
        self.stuck.wait(30)
        if self.is_gone:
            raise LedgerUnavailable("it is gone")
        if any(row.id == self.refuses for row in batch.requests):
            raise BatchRefused("there is something in it")
        self.rows += batch.requests
        return Written(len(batch.requests), 0)

    async def query(self, sql: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        raise NotImplementedError

    async def prune(self, rows_before: int, sums_before: int) -> int:
        return 0

    async def forget(self, user: str) -> int:
        return 0

    async def aclose(self) -> None:
        pass


def settings(folder: Path, **fields: Any) -> LedgerSettings:
    usual: dict[str, Any] = {
        "path": str(folder / "usage.db"),
        "spool": str(folder / "spool"),
        "users": "plain",
    }
    return LedgerSettings(**(usual | fields))


Open = Callable[[], Awaitable[Store]]


@contextmanager
def writing(
    folder: Path, open_store: Open, key: bytes | None = None, **fields: Any
) -> Iterator[LedgerWriter]:
    writer = LedgerWriter(settings(folder, **fields), open_store, key, now=lambda: NOON)
    writer.start()
    try:
        yield writer
    finally:
        writer.close()


def put(writer: LedgerWriter, *rows: RequestRow) -> None:
    writer.put([Recorded(row, ()) for row in rows])


def batches(folder: Path) -> list[Path]:
    return sorted((folder / "spool").rglob("*.batch"))


def test_rows_reach_the_database_and_nothing_stays_in_the_spool(tmp_path: Path) -> None:
    books, rows = Books(), list(made_up(1, 20))
    with writing(tmp_path, books.opened) as writer:
        put(writer, *rows[:10])
        put(writer, *rows[10:])
        until(lambda: len(books.rows) == 20)
    assert books.rows == rows
    assert list(tmp_path.glob("spool/*")) == []


def test_rows_wait_while_the_database_is_gone_and_it_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    books, rows = Books(), list(made_up(1, 30))
    books.is_gone = True
    with caplog.at_level(logging.INFO, "routeproxy.ledger"), writing(tmp_path, books.opened) as writer:
        for row in rows:
            put(writer, row)
        until(lambda: writer.problem is not None)
        assert len(batches(tmp_path)) == 30
        assert writer.spooled_bytes == sum(file.stat().st_size for file in batches(tmp_path))
        books.is_gone = False
        until(lambda: len(books.rows) == 30, 5)
        until(lambda: writer.problem is None)
        assert writer.spooled_bytes == 0
    said = [record.getMessage() for record in caplog.records]
    assert [line[:29] for line in said] == ["the ledger can't be written, ", "the ledger is written again; "]


def test_a_spool_that_is_full_loses_rows_which_are_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    books = Books()
    books.is_gone = True
    long = "x" * 400_000
    with writing(tmp_path, books.opened, spool_mb=1) as writer:
        until(lambda: writer.problem is not None)
        for number in range(5):
            put(writer, request(number, attempt(), rule=long))
        assert (writer.dropped, len(batches(tmp_path))) == (6, 2)
        books.is_gone = False
        until(lambda: len(books.rows) == 2, 5)
        put(writer, request(9))
        until(lambda: len(books.rows) == 3)
    assert caplog.text.count("rows of the ledger are lost") == 1
    assert "spooled again: 6 were lost so far" in caplog.text


def test_a_disk_that_takes_nothing_holds_up_nobody_while_the_database_is_well(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    books = Books()
    with writing(tmp_path, books.opened) as writer:
        put(writer, request(1))
        until(lambda: len(books.rows) == 1)
        books.is_gone = True
        put(writer, request(2))
        until(lambda: writer.problem is not None)
        put(writer, request(3))
        assert writer.dropped == 1
        books.is_gone = False
        until(lambda: len(books.rows) == 2, 5)


def test_what_a_process_left_is_written_by_the_next_which_takes_nothing_of_the_living(tmp_path: Path) -> None:
    dead, living = (Spool(tmp_path / "spool", 10**6) for _ in range(2))
    dead.add(Batch(requests=[request(1)]))
    living.add(Batch(requests=[request(2)]))
    dead.close()
    books = Books()
    with writing(tmp_path, books.opened):
        until(lambda: len(books.rows) == 1)
    assert [row.id for row in books.rows] == [request(1).id]
    assert len(batches(tmp_path)) == 1
    living.close()


def test_a_batch_that_no_database_takes_is_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    books = Books()
    books.refuses = request(2).id
    with writing(tmp_path, books.opened) as writer:
        for number in (1, 2, 3):
            put(writer, request(number))
        until(lambda: len(books.rows) == 2)
        assert writer.dropped == 1
    assert len(list(tmp_path.rglob("*.unreadable"))) == 1


def test_a_file_that_is_no_batch_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path / "spool", 10**6)
    spooled = spool.add(Batch(requests=[request(1)]))
    assert spooled.file is not None
    spooled.file.write_bytes(b"\xff\xff")
    spool.close()
    books = Books()
    with writing(tmp_path, books.opened):
        until(lambda: list(tmp_path.rglob("*.unreadable")))
    assert "can't be read, and are set aside" in caplog.text
    assert books.rows == []


def test_an_exit_waits_for_no_database_and_the_spool_keeps_what_is_left(tmp_path: Path) -> None:
    books = Books()
    books.is_gone = True
    with writing(tmp_path, books.opened) as writer:
        put(writer, request(1))
        until(lambda: writer.problem is not None)
    assert len(batches(tmp_path)) == 1
    books.is_gone = False
    with writing(tmp_path, books.opened):
        until(lambda: len(books.rows) == 1)
    assert batches(tmp_path) == []


@pytest.mark.parametrize(
    ("users", "key", "expected"),
    [
        ("plain", None, "ann"), ("none", None, None), ("pseudonym", b"k", pseudonym_of("ann", b"k")),
        ("pseudonym", None, None),
    ],
)  # fmt: skip
def test_the_ledger_knows_users_as_it_is_told_to(
    tmp_path: Path, users: str, key: bytes | None, expected: str | None
) -> None:
    books = Books()
    with writing(tmp_path, books.opened, key, users=users) as writer:
        put(writer, request(1, user="ann", user_source="claimed"))
        until(lambda: books.rows)
    (row,) = books.rows
    assert (row.user, row.user_source) == (expected, "claimed" if expected else None)
    assert expected == "ann" or "ann" not in str(row)


def test_half_an_emoji_does_not_keep_a_row_from_the_ledger(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "usage.db")

    async def opened() -> Store:
        return store

    with writing(tmp_path, opened) as writer:
        put(writer, request(1, session="a\ud83d", facts={"model": "\ude00"}))
        until(lambda: not batches(tmp_path))
    found = SqliteStore(tmp_path / "usage.db", read_only=True)
    rows = asyncio.run(found.query("SELECT session, facts FROM requests", {}))
    assert list(rows) == [("a?", '{"model":"?"}')]
    asyncio.run(found.aclose())


def test_a_spool_takes_no_more_than_it_may_and_again_once_there_is_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 600)
    first = spool.add(Batch(requests=[request(1, rule="x" * 200)]))
    with pytest.raises(SpoolFull):
        spool.add(Batch(requests=[request(2, rule="x" * 400)]))
    spool.done(first)
    spool.add(Batch(requests=[request(2, rule="x" * 400)]))
    spool.close()
