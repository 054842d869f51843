"""The real command told to stop, to reload, and to do either with several workers."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.backend import HANG, BackEnd, messages_stream, pause, streamed
from tests.budgets import seconds
from tests.running import ECHO, Served, connect, events, receive_until, request, request_bytes, serving, until

FRAMES = messages_stream()


def rules(back_end: BackEnd, drain: str = "20s") -> str:
    return f"""
[server]
drain = "{drain}"

[providers.claude]
type = "anthropic"
base_url = "{back_end.url}"
api_key = "none"
zone = "private"

[providers.echo]

[[rules]]
name = "echo"
match.model = "echo"
targets = ["echo/*"]

[default]
targets = ["claude/*"]
"""


@pytest.fixture
def back_end() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


class Asking(threading.Thread):
    """A request that takes its time."""

    def __init__(self, server: Served, text: str = "Hi", **fields: object) -> None:
        super().__init__(daemon=True)
        self._server, self._request = server, request(text, **fields)
        self.start()

    def run(self) -> None:
        self._answer = self._server.post(self._request)

    @property
    def answer(self) -> httpx.Response:
        self.join(10)
        return self._answer


def serve(tmp_path: Path, text: str, *flags: str) -> AbstractContextManager[Served]:
    (tmp_path / "rules.toml").write_text(text)
    return serving(tmp_path, "--rules", "rules.toml", "--port", "0", *flags)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_lets_streams_finish_and_sends_others_away(
    tmp_path: Path, back_end: BackEnd, number: signal.Signals
) -> None:
    back_end.answers = [streamed(*FRAMES[:4], pause(1.5), *FRAMES[4:])]
    with serve(tmp_path, rules(back_end)) as server, httpx.Client(base_url=server.url) as kept:
        assert kept.get("/readyz").status_code == 200
        stream = Asking(server, stream=True)
        until(lambda: back_end.requests)
        server.send_signal(number)
        until(lambda: kept.get("/readyz").status_code == 503)
        assert kept.get("/readyz").json()["status"] == "draining"
        refused = kept.post("/v1/messages", json=request(model="echo"))
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "overloaded_error")
        assert refused.headers["retry-after"]
        assert refused.headers["x-routeproxy-rules-version"]
        assert server.get("/readyz").status_code == 503
        assert events(stream.answer.text)[-1] == "message_stop"
        assert server.exit_code() == 0
        assert "shutting down: 1 open, 20 s more at most" in server.stderr


def test_streams_that_take_too_long_are_ended_with_an_error(tmp_path: Path, back_end: BackEnd) -> None:
    back_end.answers = [lambda asked: streamed(*FRAMES[:4], HANG) if b"talk" in asked.body else [HANG]]
    with serve(tmp_path, rules(back_end, drain="500ms")) as server:
        stream = Asking(server, "talk", stream=True)
        silent, whole = Asking(server, stream=True), Asking(server)
        until(lambda: len(back_end.requests) == 3)
        time.sleep(0.1)
        server.send_signal(signal.SIGTERM)
        told = time.monotonic()
        answers = [stream.answer, silent.answer, whole.answer]
        assert server.exit_code() == 0
        assert 0.4 < time.monotonic() - told < seconds(2.5)
    talking, *waiting = answers
    assert (talking.status_code, events(talking.text)[-1]) == (200, "error")
    assert "routeproxy is shutting down" in talking.text
    assert [(answer.status_code, answer.json()["error"]["type"]) for answer in waiting] == [
        (503, "overloaded_error")
    ] * 2
    assert "bug" not in server.stderr
    assert "Traceback" not in server.stderr


def test_told_twice_it_stops_at_once(tmp_path: Path, back_end: BackEnd) -> None:
    back_end.answers = [streamed(*FRAMES[:4], HANG)]
    with serve(tmp_path, rules(back_end)) as server:
        stream = Asking(server, stream=True)
        until(lambda: back_end.requests)
        server.send_signal(signal.SIGINT)
        until(lambda: server.get("/readyz").status_code == 503)
        server.send_signal(signal.SIGINT)
        assert server.exit_code(within=1.5) == 0
        assert events(stream.answer.text)[-1] == "error"
        back_end.wait_until_left()


def test_a_client_that_does_not_read_cannot_keep_it(tmp_path: Path, back_end: BackEnd) -> None:
    back_end.answers = [streamed(*messages_stream(chunks=["x" * 60_000] * 300))]
    with serve(tmp_path, rules(back_end, drain="200ms")) as server, connect(server.url) as wire:
        wire.sendall(request_bytes(request(stream=True)))
        receive_until(wire, b"text_delta")
        server.send_signal(signal.SIGTERM)
        assert server.exit_code(within=8) == 0


def test_idle_it_stops_at_once_even_with_connections_open(tmp_path: Path, back_end: BackEnd) -> None:
    with serve(tmp_path, rules(back_end)) as server, httpx.Client(base_url=server.url) as kept:
        kept.get("/readyz")
        server.send_signal(signal.SIGTERM)
        assert server.exit_code(within=1) == 0


def test_an_import_under_way_does_not_keep_it(tmp_path: Path) -> None:
    gemini = '[providers.gemini]\napi_key = "none"\n[default]\ntargets = ["gemini/gemini-2.5-flash"]\n'
    with serve(tmp_path, gemini) as server:
        until(lambda: server.get("/readyz").status_code == 200)
        server.send_signal(signal.SIGTERM)
        assert server.exit_code(within=1.5) == 0
    assert "Traceback" not in server.stderr
    assert "Error" not in server.stderr


def test_sighup_reloads_whatever_the_moment(tmp_path: Path) -> None:
    with serve(tmp_path, ECHO) as server:
        assert server.url
        server.send_signal(signal.SIGHUP)  # it listens, but does not serve yet
        until(lambda: server.stderr.count("the rules were read again") == 1)
        (tmp_path / "rules.toml").write_text(ECHO.replace("*", "two"))
        server.send_signal(signal.SIGHUP)
        until(lambda: server.post(request()).headers["x-routeproxy-model"] == "two", 1)
        server.send_signal(signal.SIGTERM)
        assert server.exit_code() == 0


# --- several workers


def both_serve(server: Served) -> None:
    """Waits until they do: a worker that is told to reload says so once it serves."""
    server.send_signal(signal.SIGHUP)
    until(lambda: server.stderr.count("the rules were read again") == 2, 10)


def test_workers_reload_are_replaced_and_stop_together(tmp_path: Path, back_end: BackEnd) -> None:
    back_end.answers = [streamed(*FRAMES[:4], pause(1), *FRAMES[4:])]
    with serve(tmp_path, rules(back_end), "--workers", "2") as server:
        assert server.get("/readyz").status_code == 200
        before = server.workers
        assert len(before) == 2

        # A SIGHUP, then an edit: all of them reload, none is restarted.
        both_serve(server)
        (tmp_path / "rules.toml").write_text(rules(back_end) + "# read me again\n")
        until(lambda: server.stderr.count("the rules were read again") == 4)
        assert server.workers == before

        # One dies: another takes its place, and nobody is refused meanwhile.
        dead = min(before)
        os.kill(dead, signal.SIGKILL)
        until(lambda: len(server.workers - {dead}) == 2, 10)
        assert f"worker {dead} died" in server.stderr
        assert {server.post(request(model="echo")).status_code for _ in range(10)} == {200}

        # Ctrl-C goes to all processes of a terminal, and still lets streams finish.
        stream = Asking(server, stream=True)
        until(lambda: back_end.requests)
        os.killpg(server.process.pid, signal.SIGINT)
        assert events(stream.answer.text)[-1] == "message_stop"
        assert server.exit_code() == 0
        assert "Traceback" not in server.stderr


def test_a_worker_that_takes_anothers_place_takes_the_version_in_force(tmp_path: Path) -> None:
    with serve(tmp_path, ECHO, "--workers", "2") as server:
        assert server.get("/readyz").status_code == 200
        both_serve(server)
        before = server.workers
        (tmp_path / "rules.toml").write_text("broken")
        until(lambda: "were not reloaded" in server.stderr)
        os.kill(min(before), signal.SIGKILL)
        until(lambda: "the last good one, is in force instead of" in server.stderr, 10)
        both_serve(server)
        assert {server.post(request()).status_code for _ in range(5)} == {200}
        (tmp_path / "rules.toml").write_text(ECHO.replace("*", "two"))
        models = set[str]()
        until(lambda: models.add(server.post(request()).headers["x-routeproxy-model"]) or "two" in models, 5)
        server.send_signal(signal.SIGTERM)
        assert server.exit_code() == 0


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    with serve(tmp_path, ECHO, "--workers", "2") as server:
        assert server.get("/readyz").status_code == 200
        workers = server.workers
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
        server.process.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 3)
