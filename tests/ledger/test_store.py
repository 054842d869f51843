"""What the ledger has in its database, whichever that is."""

import asyncio
import datetime
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import pytest

from routeproxy.ledger.past import past_requests
from routeproxy.ledger.places import place_problem
from routeproxy.ledger.question import asked
from routeproxy.ledger.rows import Batch, OpenRow, RequestRow
from routeproxy.ledger.sqlite import SqliteStore
from routeproxy.ledger.store import LedgerUnavailable, Store
from routeproxy.ledger.usage import FILTERS, IN_SUMS, Question, Usage, usage_of
from tests.ledger.databases import Postgres, postgres
from tests.ledger.rows import MICRO, NOON, at, attempt, made_up, request

T = TypeVar("T")

Opened = Callable[[], Awaitable[Store]]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Opens the same new database, as often as it is asked for."""
    if request.param == "sqlite":

        async def sqlite() -> Store:
            return SqliteStore(tmp_path / "usage.db")

        return sqlite
    server: Postgres = request.getfixturevalue("server")
    database = server.new_database()

    async def other() -> Store:
        from routeproxy.ledger.postgres import PostgresStore

        return await PostgresStore.opened(server.url(database), migrate=True)

    return other


def with_store(opened: Opened, work: Callable[[Store], Awaitable[T]]) -> T:
    async def run() -> T:
        store = await opened()
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(run())


def written(opened: Opened, rows: Sequence[RequestRow], opening: Sequence[OpenRow] = ()) -> None:
    batch = Batch(requests=list(rows), opened=list(opening))
    with_store(opened, lambda store: store.write(batch, NOON + MICRO))


def ask(opened: Opened, by: str = "", **options: Any) -> Usage:
    usual = {"since": "2026-10-01", "until": "2026-12-02", "month": None, "only": (), "time_zone": "UTC"}
    question = asked(by, **(usual | options))  # type: ignore[arg-type]
    return with_store(opened, lambda store: usage_of(store, question))


def shown(usage: Usage) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Requests, attempts, input, output and cost of each group."""
    return {
        row.by: (row.sums.requests, row.sums.attempts, row.input, row.sums.output, row.sums.cost_nanousd)
        for row in usage.rows
    }


def test_a_batch_that_comes_twice_counts_once(opened: Opened) -> None:
    rows = [request(1, attempt()), request(2, attempt(cost_nanousd=5))]
    for batch in (rows, rows, rows[:1], [*rows, request(3, attempt(cost_nanousd=1))]):
        written(opened, batch)
    assert shown(ask(opened, "team")) == {("search",): (3, 3, 450, 30, 13)}
    assert shown(ask(opened, "session")) == {("",): (3, 3, 450, 30, 13)}


def test_a_row_that_stands_twice_in_one_batch_counts_once(opened: Opened) -> None:
    written(opened, [request(1, attempt()), request(1, attempt())])
    assert shown(ask(opened, "team")) == {("search",): (1, 1, 150, 10, 7)}


def test_a_request_counts_where_its_last_attempt_went_and_each_attempt_counts_its_own(opened: Opened) -> None:
    failed = attempt(failure="server_error", provider="azure", usage_source="none", price_source="",
                     input_uncached=None, cache_read=None, output=None, cost_nanousd=None)  # fmt: skip
    judge = attempt(3, purpose="safeguards", provider="judge", cost_nanousd=2)
    written(opened, [request(1, failed, attempt(2), judge), request(2, status=400, denied=True)])
    for by in ("provider", "provider,session"):
        found = {key[0]: value for key, value in shown(ask(opened, by)).items()}
        assert found == {
            "openai": (1, 1, 150, 10, 7), "azure": (0, 1, 0, 0, 0), "judge": (0, 1, 150, 10, 2),
            "": (1, 0, 0, 0, 0),
        }  # fmt: skip


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"])
@pytest.mark.parametrize("seed", range(3))
def test_sums_tell_what_the_rows_tell(opened: Opened, seed: int, zone: str) -> None:
    rows = list(made_up(seed, 150))
    for start in range(0, len(rows), 40):
        written(opened, rows[start : start + 40])
    for by in (
        "",
        "team",
        "day",
        "day,provider,model",
        "label",
        "label:cost_center,rule",
        "key,request_class",
    ):
        by_sums = ask(opened, by, time_zone=zone)
        by_rows = ask(opened, f"{by},session" if by else "session", time_zone=zone)
        folded: dict[tuple[str, ...], tuple[int, ...]] = {}
        for key, value in shown(by_rows).items():
            before = folded.get(key[:-1], (0,) * len(value))
            folded[key[:-1]] = tuple(map(sum, zip(before, value, strict=True)))
        assert shown(by_sums) == folded
        assert by_sums.total == by_rows.total
        assert by_sums.by_source == by_rows.by_source
        assert by_sums.late == by_rows.late


def test_days_are_those_of_the_zone_also_when_its_clocks_change(opened: Opened) -> None:
    # Berlin: 2026-10-25 has 25 hours, from 22:00 to 23:00 UTC.
    for number, text in enumerate(
        ("2026-10-24T21:59", "2026-10-24T22:00", "2026-10-25T22:59", "2026-10-25T23:00")
    ):
        written(opened, [request(number, attempt(at=at(text)), at=at(text))])
    found = ask(opened, "day", time_zone="Europe/Berlin")
    assert {row.by[0]: row.sums.requests for row in found.rows} == {
        "2026-10-24": 1, "2026-10-25": 2, "2026-10-26": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", FILTERS)
def test_only_one_value_counts_where_that_is_asked_for(opened: Opened, name: str) -> None:
    rows = list(made_up(7, 120))
    written(opened, rows)
    whole = ask(opened, name)
    for row in whole.rows:
        only = ask(opened, "", only=[f"{name}={row.by[0]}"])
        assert only.total.sums == row.sums
    assert sum(row.sums.cost_nanousd for row in whole.rows) == whole.total.sums.cost_nanousd
    assert name in IN_SUMS or name in ("user", "session")


def test_late_rows_count_in_their_own_hour_and_are_told_apart(opened: Opened) -> None:
    then = NOON - 3 * 86_400 * MICRO
    written(opened, [request(1, attempt(at=then), at=then), request(2, attempt())])
    for by in ("day", "day,session"):
        usage = ask(opened, by)
        assert sorted(row.by[0] for row in usage.rows) == ["2026-11-27", "2026-11-30"]
        assert (usage.late.requests, usage.late.cost_nanousd) == (1, 7)


def test_what_has_no_price_is_in_no_cost_and_its_tokens_are_told(opened: Opened) -> None:
    written(opened, [request(1, attempt(cost_nanousd=None, price_source="unknown")), request(2, attempt())])
    for by in ("", "session"):
        total = ask(opened, by).total.sums
        assert (total.cost_nanousd, total.unpriced_tokens) == (7, 160)


def test_requests_that_never_ended_are_open(opened: Opened) -> None:
    opening = [OpenRow(id=f"{number:032x}", at=NOON, team="search", process=1) for number in (1, 2)]
    written(opened, [], opening)
    written(opened, [request(1, attempt())], opening)
    assert ask(opened).open == 1
    assert ask(opened, only=["team=search"]).open == 1
    assert ask(opened, only=["team=ads"]).open == 0


def test_who_is_forgotten_is_named_by_no_row_and_what_was_used_stays(opened: Opened) -> None:
    rows = [request(1, attempt(), user="ann", session="s1"), request(2, attempt(), user="bob", session="s2")]
    written(opened, rows)
    assert with_store(opened, lambda store: store.forget("ann")) == 1
    assert with_store(opened, lambda store: store.forget("ann")) == 0
    assert set(shown(ask(opened, "user,session"))) == {("", ""), ("bob", "s2")}
    assert ask(opened).total.sums.requests == 2


def test_old_rows_go_and_their_sums_stay_until_they_are_old_too(opened: Opened) -> None:
    old = at("2026-08-15T10:00")
    written(opened, [request(1, attempt(at=old), at=old), request(2, attempt())])
    limit = at("2026-10-01T00:00")
    with_store(opened, lambda store: store.prune(limit, 0))
    since = {"since": "2026-01-01"}
    assert ask(opened, "session", **since).total.sums.requests == 1
    assert ask(opened, "", **since).total.sums.requests == 2
    with_store(opened, lambda store: store.prune(limit, limit // MICRO))
    assert ask(opened, "", **since).total.sums.requests == 1


def test_texts_of_all_kinds_come_back(opened: Opened) -> None:
    odd = "é'\"\\;--\n\u2028😀"
    written(opened, [request(1, attempt(model=odd), team=odd, facts={"model": odd}, labels={odd: odd})])
    assert list(shown(ask(opened, f"team,model,label:{odd}"))) == [(odd, odd, odd)]


# --- SQLite


def test_a_file_that_is_no_database_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "usage.db").write_bytes(b"something else, and long enough to be looked at" * 100)
    with pytest.raises(LedgerUnavailable, match="it is no SQLite database"):
        SqliteStore(tmp_path / "usage.db")


def test_a_ledger_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "usage.db")
    store._connection.execute("PRAGMA user_version = 99")
    asyncio.run(store.aclose())
    with pytest.raises(LedgerUnavailable, match="of a later routeproxy"):
        SqliteStore(tmp_path / "usage.db")


def test_whoever_only_reads_makes_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="there is no ledger"):
        SqliteStore(tmp_path / "usage.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


MOUNTS = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:30 / /data rw - nfs4 server:/data rw
31 30 0:31 / /data/disk rw - xfs /dev/sdb1 rw
32 22 0:32 / /with\\040space rw - fuse.sshfs host:/ rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/usage.db", None), ("/data/usage.db", "nfs4"), ("/data/disk/usage.db", None),
        ("/database/usage.db", None), ("/with space/usage.db", "fuse.sshfs"),
    ],
)  # fmt: skip
def test_a_network_file_system_is_refused(path: str, kind: str | None) -> None:
    problem = place_problem(Path(path), lambda: MOUNTS)
    assert (problem is None) == (kind is None)
    assert kind is None or f"({kind})" in str(problem)


# --- PostgreSQL


def test_servers_need_no_more_than_to_insert_to_read_and_to_add(server: Postgres) -> None:
    from routeproxy.ledger.postgres import PostgresStore

    database = server.new_database()

    async def run() -> None:
        with pytest.raises(LedgerUnavailable, match="routeproxy ledger migrate"):
            await PostgresStore.opened(server.url(database, "server"))
        owner = await PostgresStore.opened(server.url(database), migrate=True)
        await owner.grant("server")
        store = await PostgresStore.opened(server.url(database, "server"))
        await store.write(Batch(requests=[request(1, attempt())]), NOON)
        await store.write(Batch(requests=[request(2, attempt())]), NOON)
        for refused in (store.forget("ann"), store.prune(0, 0), store.migrate()):
            with pytest.raises(LedgerUnavailable, match="may not do that"):
                await refused
        question = asked("team", "2026-11-01", "2026-12-01", None, (), "UTC")
        assert (await usage_of(store, question)).total.sums.requests == 2
        await store.aclose()
        await owner.aclose()

    asyncio.run(run())


def test_several_may_migrate_at_once_and_rows_of_a_month_are_a_partition(server: Postgres) -> None:
    from routeproxy.ledger.postgres import MONTHS_AHEAD, PostgresStore

    database = server.new_database()

    async def run() -> None:
        stores = await asyncio.gather(
            *(PostgresStore.opened(server.url(database), migrate=True) for _ in range(4))
        )
        for store in stores:
            await store.aclose()

    asyncio.run(run())
    query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'routeproxy' AND tablename ~ '^requests_2'"
    assert int(server.sql(database, query)) == MONTHS_AHEAD
    assert server.sql(database, "SELECT count(*) FROM routeproxy.versions") == "1"


def test_months_that_are_over_are_dropped_as_a_whole(server: Postgres) -> None:
    from routeproxy.ledger.postgres import PostgresStore

    database = server.new_database()

    async def run() -> int:
        store = await PostgresStore.opened(server.url(database), migrate=True)
        await store.migrate(datetime.datetime(2026, 6, 15, tzinfo=datetime.UTC))
        old = at("2026-06-10T00:00")
        await store.write(Batch(requests=[request(1, attempt(at=old), at=old)]), NOON)
        dropped = await store.prune(at("2026-08-01T00:00"), 0)
        await store.aclose()
        return dropped

    assert asyncio.run(run()) == 6  # June and July of three tables
    assert server.sql(database, "SELECT count(*) FROM routeproxy.requests") == "0"


def test_an_older_server_goes_on_beside_tables_that_have_grown(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    from routeproxy.ledger import postgres as module

    database = server.new_database()
    grown = ("ALTER TABLE routeproxy.requests ADD COLUMN colour text",)

    async def run() -> None:
        older = await module.PostgresStore.opened(server.url(database), migrate=True)
        await older.write(Batch(requests=[request(1, attempt())]), NOON)
        with monkeypatch.context() as patched:
            patched.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, grown))
            patched.setattr(module, "OLDEST", (*module.OLDEST, 1))
            with pytest.raises(
                LedgerUnavailable, match="are of version 1, and this routeproxy needs version 2"
            ):
                await module.PostgresStore.opened(server.url(database))
            newer = await module.PostgresStore.opened(server.url(database), migrate=True)
            await newer.write(Batch(requests=[request(2, attempt())]), NOON)
        await older.write(Batch(requests=[request(3, attempt())]), NOON)
        again = await module.PostgresStore.opened(server.url(database))
        question = Question(
            by=(),
            since=datetime.datetime(2026, 11, 1, tzinfo=ZoneInfo("UTC")),
            until=datetime.datetime(2026, 12, 1, tzinfo=ZoneInfo("UTC")),
        )
        assert (await usage_of(again, question)).total.sums.requests == 3
        for store in (older, newer, again):
            await store.aclose()

    asyncio.run(run())
    server.sql(database, "UPDATE routeproxy.versions SET oldest = 2 WHERE version = 2")

    async def refused() -> None:
        await module.PostgresStore.opened(server.url(database))

    with pytest.raises(LedgerUnavailable, match="takes nothing from servers before version 2"):
        asyncio.run(refused())


def test_two_servers_that_add_to_the_same_sums_wait_for_each_other_and_lose_nothing(server: Postgres) -> None:
    from routeproxy.ledger.postgres import PostgresStore

    database = server.new_database()

    async def run() -> int:
        stores = [await PostgresStore.opened(server.url(database), migrate=True) for _ in range(3)]

        async def work(number: int, store: PostgresStore) -> None:
            for index in range(10):
                rows = list(made_up(number * 100 + index, 30, days=2))
                await store.write(Batch(requests=rows), NOON)

        await asyncio.gather(*(work(number, store) for number, store in enumerate(stores)))
        question = asked("", "2026-11-01", "2026-12-02", None, (), "UTC")
        total = (await usage_of(stores[0], question)).total.sums.requests
        for store in stores:
            await store.aclose()
        return total

    assert asyncio.run(run()) == 900


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://nobody-known@127.0.0.1:{port}/postgres", "refuses the name or the password"),
        ("postgresql://owner@127.0.0.1:{port}/nothing", "is not there"),
        ("postgresql://owner@127.0.0.1:1/postgres", "nobody listens"),
        ("postgresql://owner:sk-canary@nobody.invalid/x", "can't be reached"),
        ("mysql://sk-canary@127.0.0.1/x", "can't be read"),
    ],
)
def test_why_a_database_can_not_be_used_is_said_without_its_address(
    server: Postgres, url: str, words: str
) -> None:
    from routeproxy.ledger.postgres import PostgresStore

    with pytest.raises(LedgerUnavailable, match=words) as raised:
        asyncio.run(PostgresStore.opened(url.format(port=server.port)))
    assert "canary" not in str(raised.value)


def test_a_question_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "usage.db", seconds=0.0)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(LedgerUnavailable, match="the question takes too long"):
        asyncio.run(store.query(endless, {}))
    asyncio.run(store.aclose())


# --- the requests themselves, page by page


@pytest.mark.parametrize("latest_first", [False, True])
def test_past_requests_come_in_their_order_with_their_attempts_whatever_the_page(
    opened: Opened, latest_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routeproxy.ledger.past.AT_ONCE", 7)
    rows = list(made_up(3, 60, days=2))
    rows[0].shadow = {"tried": "openai/gpt-5"}
    rows[0].facts = {"model": "m", "headers": {"x-a": None}}
    rows += [request(f"{number:032x}", at=rows[0].at) for number in range(900, 920)]  # all at one moment
    since, until = moment("2026-11-27T00:00"), moment("2026-12-02T00:00")

    async def read(store: Store) -> list[RequestRow]:
        await store.write(Batch(requests=rows), NOON)
        return [row async for row in past_requests(store, since, until, latest_first=latest_first)]

    found = with_store(opened, read)
    expected = sorted(rows, key=lambda row: (row.at, row.id), reverse=latest_first)
    assert [row.id for row in found] == [row.id for row in expected]
    for row, was in zip(found, expected, strict=True):
        assert row.at == was.at
        assert (row.team, row.session, row.facts, row.shadow) == (
            was.team,
            was.session,
            was.facts,
            was.shadow,
        )
        assert [attempt.tokens for attempt in row.attempts] == [attempt.tokens for attempt in was.attempts]
        assert [one.cost_nanousd for one in row.attempts] == [one.cost_nanousd for one in was.attempts]


def test_past_requests_may_be_those_of_a_team_and_only_some(opened: Opened) -> None:
    rows = [request(number, at=NOON + number, team="a" if number % 2 else "b") for number in range(10)]

    async def read(store: Store) -> list[str]:
        await store.write(Batch(requests=rows), NOON)
        period = moment("2026-11-30T00:00"), moment("2026-12-01T00:00")
        found = past_requests(store, *period, latest_first=True, team="a", most=3)
        return [row.id async for row in found]

    assert with_store(opened, read) == [f"{number:032x}" for number in (9, 7, 5)]


def moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(f"{text}+00:00")
