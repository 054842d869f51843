"""The ledger held against a back end's own books: to the token and to the billionth of a dollar.

    python benchmarks/books.py [--requests 100000] [--postgres]

A real `routeproxy serve --workers 2` stands in front of back ends that write down each answer themselves,
under a name of its own that comes back as the model's. Some
 of their answers fail, are cut, or tell no usage;
some clients leave; the rules are edited, a worker is killed in the middle, and the database is stopped and
started again (a SQLite file is locked instead). In the end each row is held against the back ends' books, and
so are the sums of `routeproxy usage` and of `/metrics`. Linux only.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.ledger.databases import Postgres, postgres

COMMAND = [sys.executable, "-m", "routeproxy"]
KINDS = ("input_uncached", "cache_read", "output")
Scraped = dict[str, dict[tuple[tuple[str, str], ...], float]]

INPUT, CACHED, OUTPUT = 1.25, 0.125, 10.0
"""US dollars for a million tokens."""
LOST = 1.5
"""Seconds before the kill of a worker whose answers may be in no book, the one that is promised and some for
the back end's clock."""

RULES = """
[server]
admin_keys = [{{ name = "scrape", key = "env:SCRAPE", role = "metrics" }}, "env:ADMIN"]
health = false

[ledger]
{ledger}
users = "plain"
spool = "spool"

[telemetry]
metrics = "127.0.0.1:{metrics}"

[providers.first]
type = "openai_compatible"
base_url = "http://127.0.0.1:{port}/first/v1"
api_key = "none"
[providers.first.prices]
"*" = {{ input = {input}, cache_read = {cached}, output = {output} }}

[providers.second]
type = "openai_compatible"
base_url = "http://127.0.0.1:{port}/second/v1"
api_key = "none"
[providers.second.prices]
"*" = {{ input = {input}, cache_read = {cached}, output = {output} }}

[teams.a]
keys = "env:A"
[teams.b]
keys = "env:B"

[[rules]]
name = "edit {edit}"
match.model = "never"
targets = "first/m"

[default]
targets = ["first/m", "second/m"]
"""
KEYS = {"SCRAPE": "key-of-scrape", "ADMIN": "key-of-admin", "A": "key-of-a", "B": "key-of-b"}


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Answer(NamedTuple):
    """One answer as its back end has it in its books."""

    prompt: int
    cached: int
    completion: int
    kind: str
    """`whole`, `cut`, `silent` (no usage was told) or `failed`."""
    at: float
    provider: str

    @property
    def nanousd(self) -> int:
        # In billionths for a token: whole thousands, but for the cached ones.
        return (self.prompt - self.cached) * 1250 + self.cached * 125 + self.completion * 10_000


class Row(NamedTuple):
    """What an attempt of the ledger must have of an answer."""

    input_uncached: int
    cache_read: int
    output: int
    cost_nanousd: int
    provider: str


class Books:
    """A back end."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self._numbers = itertools.count()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = int(head.lower().partition("content-length:")[2].split("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                provider = head.split(" ")[1].split("/")[1]
                if not await self._answer(body, provider, writer):
                    break
        writer.close()

    async def _answer(self, body: Any, provider: str, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        name = f"served-{next(self._numbers)}"
        prompt, completion = random.randrange(1, 5000), random.randrange(1, 500)
        cached = random.choice((0, random.randrange(prompt)))
        luck = random.random()
        kind = "failed" if luck < 0.06 else "cut" if luck < 0.1 else "silent" if luck < 0.13 else "whole"
        usage = {
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }  # fmt: skip
        if kind == "failed":
            self._note(name, Answer(0, 0, 0, kind, time.time(), provider))
            await _send(writer, 503, {"error": {"message": "down", "type": "server_error"}})
            return True
        if not body.get("stream"):
            if kind == "cut":
                self._note(name, Answer(0, 0, 0, kind, time.time(), provider))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{")
                return False
            self._note(name, Answer(prompt, cached, completion, kind, time.time(), provider))
            await _send(writer, 200, _whole(name, usage if kind == "whole" else None))
            return True
        writer.write(STREAM)
        for word in ("Hello ", "there"):
            _chunk(writer, {"model": name, "choices": [{"index": 0, "delta": {"content": word}}]})
        await writer.drain()
        if random.random() < 0.1:
            await asyncio.sleep(0.02)  # so that somebody can leave
        if kind == "cut":
            self._note(name, Answer(0, 0, 0, kind, time.time(), provider))
            return False
        last = {"model": name, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        _chunk(writer, last | ({"usage": usage} if kind == "whole" else {}))
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        self._note(name, Answer(prompt, cached, completion, kind, time.time(), provider))
        await writer.drain()
        return True

    def _note(self, name: str, answer: Answer) -> None:
        self.answers[name] = answer


def _whole(name: str, usage: Any) -> Any:
    message = {"role": "assistant", "content": "Hello there"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    base = {"id": "c", "object": "chat.completion", "created": 1, "model": name, "choices": [choice]}
    return base | ({"usage": usage} if usage else {})


def _chunk(writer: asyncio.StreamWriter, value: Any) -> None:
    data = b"data: " + json.dumps(value).encode() + b"\n\n"
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


async def _send(writer: asyncio.StreamWriter, status: int, value: Any) -> None:
    data = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()


def _back_end(pipe: "multiprocessing.connection.Connection") -> None:
    async def run() -> None:
        books = Books()
        server = await asyncio.start_server(books.serve, "127.0.0.1", 0, backlog=512)
        pipe.send(server.sockets[0].getsockname()[1])
        while True:
            await asyncio.to_thread(pipe.recv)
            pipe.send(books.answers)

    asyncio.run(run())


class Load:
    def __init__(self, url: str, number: int) -> None:
        self.url = url
        self.left = number
        self.total = number
        self.outcomes: Counter[str] = Counter()

    async def client(self, session: aiohttp.ClientSession) -> None:
        while self.left > 0:
            self.left -= 1
            try:
                await self._ask(session)
            except (aiohttp.ClientError, OSError):
                self.outcomes["the connection broke"] += 1
                await asyncio.sleep(0.02)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        body = {
            "model": "m", "max_tokens": 99, "stream": random.random() < 0.5,
            "messages": [{"role": "user", "content": "Hi"}],
        }  # fmt: skip
        headers = {"x-api-key": random.choice((KEYS["A"], KEYS["B"]))}
        async with session.post(f"{self.url}/v1/messages", json=body, headers=headers) as reply:
            if random.random() < 0.03:
                reply.close()
                self.outcomes["left"] += 1
                return
            await reply.read()
            self.outcomes[str(reply.status)] += 1


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


class Ledger(NamedTuple):
    """Where it is, and how it is stopped for a while."""

    table: str
    environ: Mapping[str, str]
    database: tuple[Postgres, str] | None
    file: Path

    async def pause(self) -> None:
        if self.database is not None:
            await asyncio.to_thread(self.database[0].stop)
            await asyncio.sleep(5)
            await asyncio.to_thread(self.database[0].start)
            return
        with contextlib.closing(sqlite3.connect(self.file, isolation_level=None, timeout=30)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(15)
            connection.execute("ROLLBACK")

    def query(self, sql: str) -> list[dict[str, Any]]:
        if self.database is not None:
            server, name = self.database
            text = f"SELECT coalesce(json_agg(x), '[]') FROM ({sql}) x"
            return json.loads(server.sql(name, f"SET search_path TO routeproxy; {text}"))
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql)]


@contextlib.contextmanager
def _ledger(folder: Path, *, with_postgres: bool) -> Iterator[Ledger]:
    if not with_postgres:
        yield Ledger('path = "usage.db"', {}, None, folder / "usage.db")
        return
    with postgres() as server:
        name = server.new_database()
        environ = {"LEDGER_URL": server.url(name)}
        yield Ledger('url = "env:LEDGER_URL"\nmigrate = true', environ, (server, name), folder)


async def _run(
    load: Load, server: "subprocess.Popen[bytes]", ledger: Ledger, rules: Path, text: str
) -> float:
    """When a worker was killed."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(24):
                tasks.create_task(load.client(session))
            disturbing = tasks.create_task(_disturb(load, server, ledger, rules, text))
        return disturbing.result()


async def _disturb(
    load: Load, server: "subprocess.Popen[bytes]", ledger: Ledger, rules: Path, text: str
) -> float:
    began, killed_at, edit, paused = time.monotonic(), 0.0, 0, False
    while load.left > 0:
        await asyncio.sleep(1)
        edit += 1
        rules.write_text(text.replace("{edit}", str(edit)))
        done = load.total - load.left
        if done > load.total / 3 and not paused:
            paused = True
            await ledger.pause()
        if done > load.total * 2 / 3 and not killed_at:
            killed_at = time.time()
            os.kill(random.choice(_workers(server.pid)), signal.SIGKILL)
        rate = done / (time.monotonic() - began)
        print(f"\r{done:,} of {load.total:,}, {rate:,.0f} a second", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return killed_at


def _workers(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


# --- the books side by side


def compare(
    answers: Mapping[str, Answer], rows: Sequence[Mapping[str, Any]], killed_at: float
) -> tuple[list[str], Counter[str]]:
    """What is wrong, and how many are what."""
    wrong: list[str] = []
    counts: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for row in rows:
        name, source = row["served_model"], row["usage_source"]
        counts[f"in the ledger: {source}"] += 1
        if source != "reported":
            continue
        seen[name] += 1
        answer = answers.get(name)
        if answer is None:
            wrong.append(f"{name}: no back end has given it")
            continue
        expected = Row(
            answer.prompt - answer.cached, answer.cached, answer.completion, answer.nanousd, answer.provider
        )
        found = Row(*(row[field] for field in Row._fields))
        if found != expected:
            wrong.append(f"{name}: {found} in the ledger, {expected} in the back end's books")
    wrong += [f"{name}: {count} times in the ledger" for name, count in seen.items() if count > 1]
    others = {row["served_model"] for row in rows if row["usage_source"] != "reported"}
    for name, answer in answers.items():
        if answer.kind != "whole" or name in seen:
            continue
        if name in others:
            counts["whole for the back end, and cut on the way: partial or estimated"] += 1
        elif -LOST <= answer.at - killed_at <= 0.5:
            counts["lost with the killed worker, within its last second"] += 1
        else:
            counts["whole for the back end, and the client had left before it was read"] += 1
    return wrong, counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--postgres", action="store_true")
    arguments = parser.parse_args()
    own, other = multiprocessing.Pipe()
    back_end = multiprocessing.get_context("fork").Process(target=_back_end, args=(other,), daemon=True)
    back_end.start()
    port = own.recv()
    with (
        tempfile.TemporaryDirectory() as name,
        _ledger(Path(name), with_postgres=arguments.postgres) as ledger,
    ):
        run = Run(Path(name), ledger, port)
        try:
            problems = run.measure(arguments.requests, own)
        finally:
            run.end()
            back_end.terminate()
    for problem in problems[:20]:
        print(problem)
    print(f"{len(problems)} wrong")
    sys.exit(bool(problems))


class Run:
    """One server, and what it is asked in the end."""

    def __init__(self, folder: Path, ledger: Ledger, back_end: int) -> None:
        self._folder = folder
        self._ledger = ledger
        self._port, self._metrics = _free_port(), _free_port()
        self._text = RULES.format(
            port=back_end,
            metrics=self._metrics,
            ledger=ledger.table,
            edit="{edit}",
            input=INPUT,
            cached=CACHED,
            output=OUTPUT,
        )
        self._rules = folder / "rules.toml"
        self._rules.write_text(self._text.replace("{edit}", "0"))
        self._environ = {"PATH": os.environ["PATH"], **KEYS, **ledger.environ}
        self._server = self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        flags = ["--rules", "rules.toml", "--workers", "2", "--port", str(self._port), "--log-level", "ERROR"]
        return subprocess.Popen(
            [*COMMAND, "serve", *flags], cwd=self._folder, env=self._environ, stderr=subprocess.DEVNULL
        )

    def end(self) -> None:
        self._server.terminate()
        self._server.wait(60)

    def measure(self, requests: int, own: "multiprocessing.connection.Connection") -> list[str]:
        """What is wrong."""
        url = f"http://127.0.0.1:{self._port}"
        _wait_until_ready(url)
        load = Load(url, requests)
        killed_at = asyncio.run(_run(load, self._server, self._ledger, self._rules, self._text))
        self._wait_for_spool()
        scraped = _scraped(self._metrics)
        self.end()
        own.send("books")
        answers: dict[str, Answer] = own.recv()
        rows = self._ledger.query("SELECT * FROM attempts")
        wrong, counts = compare(answers, rows, killed_at)
        counts.update({f"clients: {outcome}": count for outcome, count in load.outcomes.items()})
        counts.update(Counter(f"back ends: {answer.kind}" for answer in answers.values()))
        for kind, count in sorted(counts.items()):
            print(f"{count:9,}  {kind}")
        return wrong + self._sums(rows, scraped)

    def _wait_for_spool(self) -> None:
        """What a killed worker has spooled, another sees to within ten seconds."""
        time.sleep(3)
        for _ in range(300):
            if not list((self._folder / "spool").rglob("*.batch")):
                return
            time.sleep(0.1)

    def _sums(self, rows: Sequence[Mapping[str, Any]], scraped: Scraped) -> list[str]:
        """What is wrong with the sums of `usage` and of `/metrics`."""
        ids = "SELECT count(*) AS number, count(DISTINCT id) AS ids FROM requests"
        requests = self._ledger.query(ids)[0]
        by_rows = {
            "requests": requests["number"],
            "attempts": len(rows),
            **{kind: sum(row[kind] or 0 for row in rows) for kind in KINDS},
            "nanousd": sum(row["cost_nanousd"] or 0 for row in rows),
        }
        total = self._usage()["total"]
        by_usage = {name: total[name] for name in by_rows if name != "nanousd"}
        by_usage["nanousd"] = int(Decimal(total["cost_usd"]) * 10**9)
        by_metrics = {
            "requests": sum(scraped["routeproxy_requests"].values()),
            "attempts": sum(scraped["routeproxy_attempts"].values()),
            **{kind: _of_kind(scraped["routeproxy_tokens"], kind) for kind in KINDS},
            "nanousd": round(sum(scraped["routeproxy_cost_usd"].values()) * 10**9),
        }
        wrong = [] if requests["number"] == requests["ids"] else ["a request has two rows"]
        for name, value in by_rows.items():
            behind = value - by_metrics[name]
            print(f"{name}: rows {value:,}, usage {by_usage[name]:,}, metrics {behind:,.0f} fewer")
            if by_usage[name] != value:
                wrong.append(f"{name}: usage says {by_usage[name]:,}, the rows {value:,}")
            if not -1 <= behind <= max(1000, 0.02 * value):
                wrong.append(f"{name}: /metrics says {by_metrics[name]:,.0f}, the rows {value:,}")
        return wrong

    def _usage(self) -> Any:
        command = [*COMMAND, "usage", "--rules", "rules.toml", "--json", "--since", "2d"]
        done = subprocess.run(command, cwd=self._folder, env=self._environ, capture_output=True, check=True)
        return json.loads(done.stdout)


def _of_kind(tokens: Mapping[tuple[tuple[str, str], ...], float], kind: str) -> float:
    return sum(value for labels, value in tokens.items() if dict(labels)["kind"] == kind)


def _scraped(port: int) -> Scraped:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        text = reply.read().decode()
    return {
        family.name: {tuple(sorted(sample.labels.items())): sample.value for sample in family.samples}
        for family in text_string_to_metric_families(text)
    }


def _wait_until_ready(url: str) -> None:
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"{url}/readyz") as reply:
                if reply.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
