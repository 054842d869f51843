"""How long `routeproxy usage` takes with a year of rows behind it.

    python benchmarks/usage_speed.py [--rows 10000000] [--postgres] [--keep FOLDER]

Half of the rows are requests, half are attempts; they are spread over a year, 24 teams, 40 users, 6 models
and the working day. They are made here, with their sums, which takes some minutes. Then usage is asked by
team and day over the year, and with filters over the last day, five times each.
"""

import argparse
import asyncio
import datetime
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from msgspec import structs

from routeproxy.ledger.question import asked
from routeproxy.ledger.rows import AttemptRow, RequestRow
from routeproxy.ledger.schema import (
    ATTEMPT_COLUMNS,
    GROUP_COLUMNS,
    REQUEST_COLUMNS,
    SUM_COLUMNS,
    SUM_TABLES,
    attempt_values,
    group_values,
    request_values,
    sum_values,
)
from routeproxy.ledger.sqlite import SqliteStore
from routeproxy.ledger.store import Store
from routeproxy.ledger.sums import sum_up
from routeproxy.ledger.usage import usage_of
from tests.ledger.databases import postgres

MICRO = 10**6
END = datetime.datetime(2026, 12, 1, tzinfo=datetime.UTC)
HOURS = 365 * 24
QUESTIONS = (
    ("by team and day, over the year", "team,day", "2025-12-02", ()),
    ("by team and model, over the year", "team,model", "2025-12-02", ()),
    ("by label, over the year, days of Berlin", "label:cost_center,day", "2025-12-02", ()),
    ("by user, over the last day", "user", "2026-11-30", ()),
    ("by session of one user, over the last day", "session", "2026-11-30", ("user=user-7",)),
    ("by rule of one team and model, over the last day", "rule", "2026-11-30", ("team=team-3", "model=m2")),
)


ATTEMPT = AttemptRow(
    number=1,
    provider="",
    model="",
    at=0,
    duration=900_000,
    usage_source="reported",
    input_uncached=1000,
    cache_read=9000,
    output=300,
    cost_nanousd=7_000_000,
    price_source="table",
    price_version="table 2026-12-01",
)
REQUEST = RequestRow(
    id="",
    at=0,
    path="/v1/messages",
    version="0123456789ab",
    key="ci",
    user_source="key",
    status=200,
    duration=900_000,
)


def hours(number: int) -> Iterator[list[RequestRow]]:
    """The requests of each hour of a year."""
    dice, made = random.Random(1), 0
    weights = [3 if 7 <= hour % 24 < 18 else 1 for hour in range(HOURS)]
    total = sum(weights)
    for hour, weight in enumerate(weights):
        began = int(END.timestamp()) - (HOURS - hour) * 3600
        rows = []
        for _ in range(round(number * weight / total)):
            team, user = dice.randrange(24), dice.randrange(40)
            at = (began + dice.randrange(3600)) * MICRO
            attempt = structs.replace(ATTEMPT, at=at, provider=f"p{team % 2}", model=f"m{dice.randrange(6)}")
            made += 1
            rows.append(
                structs.replace(
                    REQUEST,
                    id=f"{at:016x}{made:016x}",
                    at=at,
                    team=f"team-{team}",
                    labels={"cost_center": str(4000 + team // 3)},
                    rule=f"r{team % 5}",
                    user=f"user-{user}",
                    session=f"s-{user}-{at // (3 * 3600 * MICRO)}",
                    attempts=(attempt,),
                )
            )
        yield rows


def _insert(table: str, columns: Sequence[str]) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    return f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})"


def fill_sqlite(file: Path, number: int) -> None:
    asyncio.run(SqliteStore(file).aclose())
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    requests = _insert("requests", (*REQUEST_COLUMNS, "written_at"))
    attempts, groups = _insert("attempts", ATTEMPT_COLUMNS), _insert("groups", GROUP_COLUMNS)
    for count, rows in enumerate(hours(number)):
        connection.execute("BEGIN")
        connection.executemany(requests, [request_values(row, row.at) for row in rows])
        connection.executemany(attempts, [attempt_values(each, row) for row in rows for each in row.attempts])
        for period, sums in sum_up(rows, 0).items():
            connection.executemany(groups, [group_values(group) for _, group in sums])
            columns = ("began", "group_id", *SUM_COLUMNS)
            add = (
                f"{_insert(SUM_TABLES[period], columns).replace(' OR IGNORE', '')} ON CONFLICT DO UPDATE SET "
            )
            add += ", ".join(f"{name} = {name} + excluded.{name}" for name in SUM_COLUMNS)
            connection.executemany(add, [sum_values(place, each) for place, each in sums.items()])
        connection.execute("COMMIT")
        _progress(count)
    connection.close()


async def fill_postgres(url: str, number: int) -> None:
    from routeproxy.ledger import postgres as module

    store = await module.PostgresStore.opened(url, migrate=True)
    await store.migrate(END - datetime.timedelta(days=400))
    connection = store._connection
    at = module._moment
    for count, rows in enumerate(hours(number)):
        columns = module._REQUEST_COLUMNS
        times = [index for index, name in enumerate(columns) if module.TYPES.get(name) == module.TIME]
        flags = [index for index, name in enumerate(columns) if module.TYPES.get(name) == module.BOOL]
        records = []
        for row in rows:
            values = [*request_values(row, row.at)]
            for index in times:
                values[index] = at(values[index])
            for index in flags:
                values[index] = bool(values[index])
            records.append(values)
        await connection.copy_records_to_table(
            "requests", records=records, columns=columns, schema_name=module.SCHEMA
        )
        arrays = module._arrays(
            module.ATTEMPTS, [(row.at, *attempt_values(each, row)) for row in rows for each in row.attempts]
        )
        await connection.copy_records_to_table(
            "attempts",
            records=list(zip(*arrays, strict=True)),
            columns=module.ATTEMPTS,
            schema_name=module.SCHEMA,
        )
        for period, sums in sum_up(rows, 0).items():
            groups = {group.id: group_values(group) for _, group in sums}
            await connection.execute(
                module._INSERT_GROUPS, *module._arrays(GROUP_COLUMNS, list(groups.values()))
            )
            began, *rest = map(list, zip(*(sum_values(*item) for item in sums.items()), strict=True))
            await connection.execute(module._ADD[period], [at(each * MICRO) for each in began], *rest)
        _progress(count)
    await connection.execute("ANALYZE")
    await store.aclose()


def _progress(hour: int) -> None:
    if hour % 200 == 0:
        print(f"\r{hour * 100 // HOURS} % made", end="", file=sys.stderr, flush=True)


async def measure(store: Store) -> None:
    for words, by, since, only in QUESTIONS:
        zone = "Europe/Berlin" if "Berlin" in words else "UTC"
        question = asked(by, since, "2026-12-01", None, only, zone)
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            usage = await usage_of(store, question)
            taken.append((time.perf_counter() - began) * 1000)
        spread = f"{min(taken):.0f} – **{statistics.median(taken):.0f}** – {max(taken):.0f} ms"
        print(f"| {words} | {len(usage.rows):,} rows, {usage.total.sums.requests:,} requests | {spread} |")
    await store.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--keep", type=Path, help="a folder for the SQLite file, which is made once")
    arguments = parser.parse_args()
    if arguments.postgres:
        _with_postgres(arguments.rows // 2)
        return
    with tempfile.TemporaryDirectory() as name:
        file = (arguments.keep or Path(name)) / "usage.db"
        if not file.exists():
            fill_sqlite(file, arguments.rows // 2)
        print(f"\nSQLite, {file.stat().st_size / 2**30:.1f} GB")
        asyncio.run(measure(SqliteStore(file, read_only=True)))


def _with_postgres(number: int) -> None:
    from routeproxy.ledger.postgres import PostgresStore

    with postgres() as server:
        url = server.url(server.new_database())
        asyncio.run(fill_postgres(url, number))

        async def run() -> None:
            await measure(await PostgresStore.opened(url))

        print("\nPostgreSQL")
        asyncio.run(run())


if __name__ == "__main__":
    main()
