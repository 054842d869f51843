"""Whatever kind of back end a client's request has come to, and whatever it has sent by then: when the client
leaves it is let go within a second, and nothing of the request stays behind."""

import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from routeproxy.web.response import StreamTimings
from tests.backend import HANG, BackEnd, error, json_answer, pause
from tests.budgets import seconds
from tests.google import token, write_service_account
from tests.running import Running, connect, receive_until, request, request_bytes, running, until
from tests.sockets import open_connections
from tests.upstream.litellm.asking import LITELLMS_WARNINGS
from tests.upstream.litellm.test_gemini import part
from tests.wire.asking import answers
from tests.wire.kinds_of_back_ends import KINDS, MOMENTS, Moment, rules

pytestmark = LITELLMS_WARNINGS

TASKS_OF_THE_SERVER = {"LifespanOn.main", "Server.serve", "TaskHandle._run_coro", "_by_itself"}
"""Tasks that are there as long as it runs."""

SIZES = (10, 66_000, 300_000)
"""Bytes of text in the requests that leave together: one is read at once, one in parts, one beside the event
loop. All sizes: `benchmarks/leaving_clients.py`."""


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd([HANG]) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def tokens() -> Iterator[BackEnd]:
    with BackEnd(token()) as tokens:
        yield tokens


@pytest.fixture(scope="module")
def proxy(back_end: BackEnd, tokens: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Without pings, by whose failure a client that left would be noticed as well."""
    folder = tmp_path_factory.mktemp("rules")
    rules_of_all = rules(back_end.url, tokens.url, folder)
    with running(rules_of_all, folder, {"KEY": "KEY-1"}, timings=StreamTimings(60, 60)) as proxy:
        yield proxy


class Asked(NamedTuple):
    moment: Moment
    stream: bool
    size: int

    @property
    def hears_content(self) -> bool:
        return self.stream and self.moment == "after content"

    @property
    def status(self) -> int:
        return 200 if self.hears_content else 499

    def ask(self, proxy: Running, model: str) -> socket.socket:
        wire = connect(proxy.url)
        text = f"{self.moment} " + "x" * self.size
        wire.sendall(request_bytes(request(text, model=model, stream=self.stream)))
        return wire


def nothing_is_left(proxy: Running, back_end: BackEnd) -> None:
    until(lambda: not open_connections(proxy.url, back_end.url))
    until(lambda: set(proxy.tasks) <= TASKS_OF_THE_SERVER)


def lines_of_requests(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "routeproxy.requests"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_leaves_takes_its_back_end_along(
    proxy: Running, back_end: BackEnd, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    answers(back_end, KINDS[kind].answer)
    asked = [Asked(moment, stream, size) for moment in MOMENTS for stream in (True, False) for size in SIZES]
    with caplog.at_level(logging.INFO, "routeproxy"):
        wires = [one.ask(proxy, kind) for one in asked]
        until(lambda: len(back_end.requests) == len(asked), 10)
        for one, wire in zip(asked, wires, strict=True):
            if one.hears_content:
                receive_until(wire, b"Hello")
        time.sleep(0.1)  # until all else that the back end has sent is read
        left = time.monotonic()
        for wire in wires:
            wire.close()
        until(lambda: len(back_end.left_at) == len(asked), 3)
        assert max(back_end.left_at) - left < seconds(1)
        nothing_is_left(proxy, back_end)
        lines = until(lambda: len(found := lines_of_requests(caplog)) == len(asked) and found)
    assert Counter(line.split()[2] for line in lines) == Counter(str(one.status) for one in asked)
    assert all("client-left" in line and "error=" not in line for line in lines)
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


# --- before there is an answer to wait for, or between two

STEPS = """
[providers.claude]
type = "anthropic"
base_url = "{0}"
api_key = "none"
zone = "private"

[providers.spare]
type = "anthropic"
base_url = "{1}"
api_key = "none"
zone = "private"

[providers.own]
type = "ollama"
base_url = "{0}"
zone = "private"

[providers.google]
type = "vertex_ai"
base_url = "{0}"
zone = "private"
project = "proj"
location = "europe-west1"
credentials = "{2}"

[[rules]]
name = "one after the other"
match.model.equals = "pair"
targets = ["claude/*", "spare/*"]

[[rules]]
name = "again"
match.model.equals = "again"
targets = "claude/*"
retry = {{ attempts = 3, backoff = "10s" }}

[[rules]]
name = "by itself"
match.model.equals = "unheard-of"
targets = "own/*"

[[rules]]
name = "signed in"
match.model.equals = "gemini-2.5-pro"
targets = "google/*"

[default]
targets = "claude/*"
"""
BUSY = error(503, "busy")


@pytest.fixture
def spare() -> Iterator[BackEnd]:
    with BackEnd([HANG]) as spare:
        yield spare


@pytest.fixture
def stepwise(back_end: BackEnd, spare: BackEnd, tokens: BackEnd, tmp_path: Path) -> Iterator[Running]:
    credentials = write_service_account(tmp_path / "key.json", tokens.url)
    with running(STEPS.format(back_end.url, spare.url, credentials), tmp_path) as proxy:
        yield proxy


def leave(proxy: Running, body: object, path: str = "/v1/messages", *, once: Callable[[], object]) -> None:
    """Asks, and leaves once there is something to leave."""
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(body, path))
        until(once, 5)
        time.sleep(0.1)


def is_told_as_left(caplog: pytest.LogCaptureFixture, path: str = "/v1/messages") -> None:
    (line,) = until(lambda: lines_of_requests(caplog))
    assert f"POST {path} 499" in line
    assert "client-left" in line


def test_a_client_that_leaves_the_second_target_takes_it_along(
    stepwise: Running, back_end: BackEnd, spare: BackEnd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "routeproxy.requests")
    answers(back_end, BUSY)
    leave(stepwise, request(model="pair", stream=True), once=lambda: spare.requests)
    left = time.monotonic()
    assert spare.wait_until_left() - left < seconds(1)
    is_told_as_left(caplog)
    until(lambda: set(stepwise.tasks) <= TASKS_OF_THE_SERVER)


def test_a_client_that_leaves_before_another_try_is_not_tried_for(
    stepwise: Running, back_end: BackEnd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "routeproxy.requests")
    answers(back_end, BUSY)
    leave(stepwise, request(model="again"), once=lambda: back_end.requests)
    is_told_as_left(caplog)
    until(lambda: set(stepwise.tasks) <= TASKS_OF_THE_SERVER)
    assert len(back_end.requests) == 1


def test_a_client_that_leaves_while_tokens_are_counted_takes_the_back_end_along(
    stepwise: Running, back_end: BackEnd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "routeproxy.requests")
    path = "/v1/messages/count_tokens"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
    for script in ([HANG], [head, HANG]):
        answers(back_end, script)
        caplog.clear()
        leave(stepwise, request("x" * 300_000), path, once=lambda: back_end.requests)
        left = time.monotonic()
        assert back_end.wait_until_left() - left < seconds(1)
        is_told_as_left(caplog, path)
        nothing_is_left(stepwise, back_end)


def test_a_client_that_leaves_while_its_request_is_explained_leaves_nothing_behind(
    stepwise: Running, back_end: BackEnd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "routeproxy.requests")
    back_end.requests.clear()
    with connect(stepwise.url) as wire:
        wire.sendall(request_bytes(request("a\\n" * 1_000_000, model="unheard-of"), "/v1/route"))
    (line,) = until(lambda: lines_of_requests(caplog), 5)
    assert "POST /v1/route 499" in line
    assert "client-left" in line
    nothing_is_left(stepwise, back_end)
    assert back_end.requests == []


def test_a_model_is_asked_again_what_it_can_do_when_the_client_left_that_asked_first(
    stepwise: Running, back_end: BackEnd
) -> None:
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 3000}
    answers(back_end, [HANG])
    leave(stepwise, request(model="unheard-of", **thinking), once=lambda: back_end.requests)
    back_end.wait_until_left()
    reply = {
        "model": "m",
        "message": {"role": "assistant", "content": "Hi"},
        "done": True,
        "done_reason": "stop",
    }
    answers(back_end, json_answer({"capabilities": ["completion", "thinking"]}), json_answer(reply))
    assert stepwise.post(request(model="unheard-of", **thinking)).status_code == 200
    assert [received.path for received in back_end.requests] == ["/api/show", "/api/chat"]
    assert back_end.last.json["think"], "it is asked to think"


def test_a_client_that_leaves_while_we_sign_in_does_not_take_the_token_from_others(
    stepwise: Running, back_end: BackEnd, tokens: BackEnd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "routeproxy.requests")
    answers(tokens, [pause(seconds(1)), *token()])
    answers(back_end, json_answer(part({"text": "Hello"}, finish="STOP")))
    leave(stepwise, request(model="gemini-2.5-pro"), once=lambda: tokens.requests)
    is_told_as_left(caplog)
    assert back_end.requests == []
    assert stepwise.post(request(model="gemini-2.5-pro")).json()["content"][0]["text"] == "Hello"
    assert len(tokens.requests) == 1
