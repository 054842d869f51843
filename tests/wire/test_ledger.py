"""What becomes of requests, as the ledger has it (docs/ledger.md)."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.backend import (
    CUT,
    HANG,
    BackEnd,
    chunk,
    completion,
    data,
    error,
    event,
    json_answer,
    messages_stream,
    sse,
    streamed,
)
from tests.ledger.databases import Postgres, postgres
from tests.running import (
    Running,
    Served,
    connect,
    receive_until,
    request,
    request_bytes,
    running,
    serving,
    until,
)
from tests.wire.asking import answers

RULES = """
[server]
admin_keys = ["env:ADMIN"]
{server}

[ledger]
{ledger}
{users}

[providers.chat]
type = "openai_compatible"
base_url = "{chat}/v1"
api_key = "none"
[providers.chat.prices]
"m" = {{ input = 1, output = 10 }}
"unpriced" = {{ input = 1 }}

[providers.claude]
type = "anthropic"
base_url = "{claude}"
api_key = "none"
[providers.claude.prices]
"*" = {{ input = 3, output = 15, cache_read = 0.3, cache_write_5m = 3.75, cache_write_1h = 6 }}

[teams.search]
labels = {{ cost_center = "4711" }}
keys = [{{ name = "ci", key = "env:SEARCH", user = "build" }}, {{ name = "people", key = "env:PEOPLE" }}]

[[rules]]
name = "denied"
match.model.equals = "denied"
deny = "no"

[[rules]]
name = "both"
match.model.equals = "both"
targets = ["chat/m", "claude/c"]

[[rules]]
name = "claude"
match.model.equals = "claude"
targets = "claude/c"

[[rules]]
name = "unpriced"
match.model.equals = "unpriced"
targets = "chat/unpriced"

[default]
targets = "chat/m"
"""
ENVIRON = {"ADMIN": "key-of-admin", "SEARCH": "key-of-search", "PEOPLE": "key-of-people", "KEY": "secret"}


def rules(one: BackEnd, two: BackEnd, ledger: str, users: str = 'users = "plain"', server: str = "") -> str:
    return RULES.format(chat=one.url, claude=two.url, ledger=ledger, users=users, server=server)


@pytest.fixture(scope="module")
def back_ends() -> Iterator[tuple[BackEnd, BackEnd]]:
    with BackEnd() as one, BackEnd() as two:
        yield one, two


class Scene:
    def __init__(self, proxy: Running, one: BackEnd, two: BackEnd, file: Path) -> None:
        self.proxy, self.one, self.two, self.file = proxy, one, two, file
        answers(one, json_answer(completion("Hello")))
        answers(two, streamed(*messages_stream("Hello")))

    def ask(self, model: str = "m", key: str = "key-of-people", **fields: Any) -> httpx.Response:
        headers = {name: fields.pop(name) for name in list(fields) if name.startswith("x_")}
        return self.proxy.post(request(model=model, **fields), x_api_key=key, **headers)

    def rows(self, number: int = 1) -> list[dict[str, Any]]:
        """Those of requests, each with its attempts, once there are so many."""
        until(lambda: len(requests_in(self.file)) >= number, 5)
        return requests_in(self.file)

    def row(self) -> dict[str, Any]:
        (row,) = self.rows()
        return row


def requests_in(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        try:
            rows = [dict(row) for row in connection.execute("SELECT * FROM requests ORDER BY id")]
            for row in rows:
                found = connection.execute(
                    "SELECT * FROM attempts WHERE request_id = ? ORDER BY number", (row["id"],)
                )
                row["attempts"] = [dict(attempt) for attempt in found]
        except sqlite3.OperationalError:  # its tables are not there yet
            return []
    return rows


Serve = Callable[..., Scene]


@pytest.fixture
def serve(back_ends: tuple[BackEnd, BackEnd], tmp_path: Path) -> Iterator[Serve]:
    opened = []

    def start(users: str = 'users = "plain"', server: str = "") -> Scene:
        file = tmp_path / "usage.db"
        text = rules(*back_ends, f'path = "{file}"', users, server)
        opened.append(proxy := running(text, tmp_path, ENVIRON))
        return Scene(proxy.__enter__(), *back_ends, file)

    yield start
    for proxy in opened:
        proxy.__exit__(None, None, None)


def shown(row: Mapping[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


TOKENS = ("usage_source", "input_uncached", "cache_read", "output", "cost_nanousd", "price_source")


def test_an_answer_is_a_request_and_an_attempt_with_what_it_took_and_cost(serve: Serve) -> None:
    scene = serve()
    reply = scene.ask(
        metadata={"user_id": '{"device_id":"d1","account_uuid":"a1","session_id":"s1"}'},
        x_claude_code_request_class="main",
        x_claude_code_prompt_id="p1",
    )
    row = scene.row()
    assert reply.headers["request-id"] == f"req_{row['id']}"
    assert row["id"][12] == "7", "a UUID of version 7"
    assert shown(row, "status", "team", "key", "rule", "requested_model", "stream", "error") == (
        200, "search", "people", "default", "m", 0, None,
    )  # fmt: skip
    assert shown(row, "user", "user_source", "session", "prompt_id", "request_class") == (
        "a1", "claimed", "s1", "p1", "main",
    )  # fmt: skip
    assert json.loads(row["labels"]) == {"cost_center": "4711"}
    assert "a1" not in row["facts"]
    assert "s1" not in row["facts"]
    (attempt,) = row["attempts"]
    assert shown(attempt, "provider", "model", "served_model", "failure") == (
        "chat",
        "m",
        "served-model",
        None,
    )
    assert shown(attempt, *TOKENS) == ("reported", 10, None, 5, 60_000, "rules")
    assert 0 < attempt["duration"] <= row["duration"]
    assert abs(row["at"] / 10**6 - time.time()) < 60


@pytest.mark.parametrize("stream", [False, True])
def test_both_ways_to_get_an_answer_are_counted_alike(serve: Serve, stream: bool) -> None:
    scene = serve()
    usage = {
        "input_tokens": 12, "output_tokens": 7, "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    }  # fmt: skip
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-served", "content": [],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    frames = messages_stream("Hello")
    frames[0] = event("message_start", message=message | {"stop_reason": None})
    answers(scene.two, streamed(*frames) if stream else json_answer(message))
    scene.ask("claude", stream=stream)
    (attempt,) = scene.row()["attempts"]
    assert shown(attempt, *TOKENS[:4], "cache_write_5m", "cache_write_1h", "served_model") == (
        "reported", 12, 100, 7, 10, 20, "claude-served",
    )  # fmt: skip
    by_hand = 12 * 3 + 7 * 15 + 100 * 0.3 + 10 * 3.75 + 20 * 6
    assert attempt["cost_nanousd"] == round(by_hand * 1000)


def test_each_attempt_counts_the_failed_ones_too(serve: Serve) -> None:
    scene = serve()
    answers(scene.one, error(503, "down"))
    scene.ask("both", stream=True)
    first, second = scene.row()["attempts"]
    assert shown(first, "provider", "failure", *TOKENS) == (
        "chat", "overloaded", "none", None, None, None, None, "",
    )  # fmt: skip
    assert shown(second, "provider", "failure", *TOKENS[:2]) == ("claude", None, "reported", 12)


def test_a_refusal_of_the_rules_is_a_row_without_attempts(serve: Serve) -> None:
    scene = serve()
    scene.ask("denied")
    row = scene.row()
    assert shown(row, "status", "rule", "denied", "error", "attempts") == (
        400, "denied", 1, "invalid_request_error", [],
    )  # fmt: skip


CUTS: Any = {
    "of Messages: what was told so far": (
        "claude", streamed(*messages_stream("Hello")[:4], CUT), ("partial", 12, 1),
    ),
    "of chat completions that told their usage": (
        "m", sse(chunk("Hello"), data(chunk(usage={"prompt_tokens": 10, "completion_tokens": 3})), CUT),
        ("partial", 10, 3),
    ),
    "of chat completions that had not": ("m", sse(chunk("Hello " * 20), CUT), ("estimated", 31, 31)),
}  # fmt: skip


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_answer_is_counted_as_what_it_is(serve: Serve, name: str) -> None:
    model, script, expected = CUTS[name]
    scene = serve()
    answers(scene.one, script)
    answers(scene.two, script)
    scene.ask(model, stream=True)
    row = scene.row()
    (attempt,) = row["attempts"]
    assert (attempt["failure"], row["error"]) == ("connection", "api_error")
    source, input, output = expected
    assert attempt["usage_source"] == source
    assert attempt["output"] == output
    assert abs(attempt["input_uncached"] - input) < 12, "of an estimate only about"


def test_a_client_that_leaves_has_had_what_it_has_had(serve: Serve) -> None:
    scene = serve()
    answers(scene.two, streamed(*messages_stream("Hello")[:4], HANG))
    with connect(scene.proxy.url) as sock:
        body = request(model="claude", stream=True)
        sock.sendall(request_bytes(body, x_api_key="key-of-people"))
        receive_until(sock, b"Hello")
    row = scene.row()
    assert shown(row, "client_left", "status") == (1, 200)
    (attempt,) = row["attempts"]
    assert shown(attempt, "let_go", "failure", *TOKENS[:2]) == (1, None, "partial", 12)


def test_an_answer_that_told_nothing_is_an_estimate_and_says_so(serve: Serve) -> None:
    scene = serve()
    silent = completion("Hello " * 20)
    del silent["usage"]
    answers(scene.one, json_answer(silent))
    scene.ask()
    (attempt,) = scene.row()["attempts"]
    assert (attempt["usage_source"], attempt["output"], attempt["price_source"]) == ("estimated", 31, "rules")


def test_a_price_that_is_left_out_is_unknown(serve: Serve) -> None:
    scene = serve()
    scene.ask("unpriced")
    (attempt,) = scene.row()["attempts"]
    assert shown(attempt, *TOKENS) == ("reported", 10, None, 5, None, "unknown")


def test_a_keys_own_user_counts_before_what_the_client_claims(serve: Serve) -> None:
    scene = serve()
    scene.ask(key="key-of-search", metadata={"user_id": "somebody"})
    assert shown(scene.row(), "user", "user_source", "key") == ("build", "key", "ci")


def test_users_are_known_by_a_keyed_hash(serve: Serve) -> None:
    scene = serve(users='pseudonym_key = "env:KEY"')
    scene.ask(metadata={"user_id": "somebody"})
    scene.ask(metadata={"user_id": "somebody"})
    users = {row["user"] for row in scene.rows(2)}
    assert len(users) == 1
    assert "somebody" not in str(scene.rows(2))
    assert len(users.pop()) == 32


def test_counts_of_tokens_and_questions_where_a_request_would_go_are_no_usage(serve: Serve) -> None:
    scene = serve()
    body = request(model="m")
    for path, key in (("/v1/messages/count_tokens", "key-of-people"), ("/v1/route", "key-of-admin")):
        assert scene.proxy.post(body, path, x_api_key=key).status_code == 200
    scene.ask()
    assert [row["path"] for row in scene.rows()] == ["/v1/messages"]


def test_a_reload_may_move_the_ledger_and_end_it(serve: Serve, tmp_path: Path) -> None:
    scene = serve()
    scene.ask()
    scene.rows(1)
    text = scene.proxy.rules.read_text()
    table = f'[ledger]\npath = "{scene.file}"\nusers = "plain"\n'
    for ledger in (table.replace("usage.db", "other.db"), ""):
        scene.proxy.rules.write_text(text.replace(table, ledger))
        reply = scene.proxy.post(b"", "/-/reload", x_api_key="key-of-admin")
        assert reply.json()["reloaded"], reply.text
        scene.ask()
    until(lambda: len(requests_in(tmp_path / "other.db")) == 1, 5)
    time.sleep(1.2)
    assert (len(requests_in(scene.file)), len(requests_in(tmp_path / "other.db"))) == (1, 1)


def test_whoever_shows_no_key_fills_no_ledger(serve: Serve) -> None:
    scene = serve()
    assert scene.ask(key="wrong").status_code == 401
    assert scene.proxy.post(b"{", x_api_key="key-of-people").status_code == 400
    assert shown(scene.row(), "status", "key", "rule") == (400, "people", None)


def test_an_operator_sees_how_the_ledger_does(serve: Serve) -> None:
    scene = serve()
    status = scene.proxy.get("/-/status", x_api_key="key-of-admin").json()
    assert {name: status[name] for name in status if name.startswith("ledger_")} == {
        "ledger_problem": None, "ledger_spool_bytes": 0, "ledger_rows_dropped": 0,
    }  # fmt: skip


# --- processes


@pytest.fixture
def folder(back_ends: tuple[BackEnd, BackEnd], tmp_path: Path) -> Path:
    (tmp_path / "rules.toml").write_text(rules(*back_ends, 'path = "usage.db"'))
    answers(back_ends[0], json_answer(completion("Hello")))
    return tmp_path


FLAGS = ("--rules", "rules.toml", "--port", "0")


def ask(server: Served, model: str = "m") -> int:
    return server.post(request(model=model), x_api_key="key-of-people").status_code


def test_a_server_that_is_told_to_stop_loses_nothing(folder: Path) -> None:
    with serving(folder, *FLAGS, "--workers", "2", environ=ENVIRON) as server:
        until(lambda: _is_ready(server), 10)
        assert Counter(ask(server) for _ in range(20)) == {200: 20}
        server.send_signal(signal.SIGTERM)
        assert server.exit_code(15) == 0
    assert len(requests_in(folder / "usage.db")) == 20
    assert not list((folder / "usage.db-spool").rglob("*.batch"))


def test_a_request_whose_server_is_killed_stays_open(
    back_ends: tuple[BackEnd, BackEnd], folder: Path
) -> None:
    answers(back_ends[1], streamed(*messages_stream("Hello")[:4], HANG))
    with serving(folder, *FLAGS, environ=ENVIRON) as server:
        until(lambda: _is_ready(server), 10)
        assert ask(server) == 200
        with connect(server.url) as sock:
            body = request(model="claude", stream=True)
            sock.sendall(request_bytes(body, x_api_key="key-of-people"))
            receive_until(sock, b"Hello")
            until(lambda: _opened(folder) and len(requests_in(folder / "usage.db")) == 1, 10)
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
    ((id, rule),) = _opened(folder)
    assert rule == "claude"
    assert id not in {row["id"] for row in requests_in(folder / "usage.db")}


def _opened(folder: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(folder / "usage.db")) as connection:
        return connection.execute("SELECT id, rule FROM opened").fetchall()


def test_rows_that_a_killed_server_had_spooled_are_written_by_the_next(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "usage.db", isolation_level=None)) as connection:
        with serving(folder, *FLAGS, environ=ENVIRON) as server:
            until(lambda: _is_ready(server), 10)
            ask(server)
            until(lambda: len(requests_in(folder / "usage.db")) == 1, 10)
            connection.execute("BEGIN IMMEDIATE")  # from now on nobody else writes
            ask(server)
            until(lambda: len(list((folder / "usage.db-spool").rglob("*.batch"))) == 1, 10)
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
        connection.execute("ROLLBACK")
    with serving(folder, *FLAGS, environ=ENVIRON):
        until(lambda: len(requests_in(folder / "usage.db")) == 2, 20)


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


def test_a_postgres_that_stops_and_comes_back_gets_all_of_it(
    back_ends: tuple[BackEnd, BackEnd], database: Postgres, tmp_path: Path
) -> None:
    name = database.new_database()
    text = rules(*back_ends, 'url = "env:LEDGER_URL"\nmigrate = true\nspool = "spool"')
    (tmp_path / "rules.toml").write_text(text)
    answers(back_ends[0], json_answer(completion("Hello")))
    environ = {**ENVIRON, "LEDGER_URL": database.url(name)}

    def count() -> int:
        try:
            return int(database.sql(name, "SELECT count(*) FROM routeproxy.requests"))
        except subprocess.CalledProcessError:  # it is not there yet, or not yet again
            return 0

    with serving(tmp_path, *FLAGS, "--workers", "2", environ=environ) as server:
        until(lambda: _is_ready(server), 10)
        assert Counter(ask(server) for _ in range(10)) == {200: 10}
        until(lambda: count() == 10, 10)
        database.stop()
        began = time.monotonic()
        assert Counter(ask(server) for _ in range(10)) == {200: 10}
        assert time.monotonic() - began < 5, "nobody waits for the database"
        until(lambda: "the ledger can't be written" in server.stderr, 10)
        database.start()
        assert Counter(ask(server) for _ in range(10)) == {200: 10}
        until(lambda: count() == 30, 20)
        sums = database.sql(name, "SELECT sum(requests), sum(cost_nanousd) FROM routeproxy.sums_by_day")
        assert sums == "30|1800000"
    assert "canary" not in server.stderr


def _is_ready(server: Served) -> bool:
    try:
        return server.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
