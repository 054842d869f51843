"""`timeouts.first_token` runs while a back end has the request: not while that waits for a thread of ours."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from routeproxy.upstream.chat import upstream as chat_upstream
from tests.backend import HANG, BackEnd, completion, json_answer, pause
from tests.budgets import seconds
from tests.running import Running, request, running

LIMIT = 0.5
RULES = """
[providers.corp]
type = "openai"
base_url = "{0}"
api_key = "none"
zone = "private"

[default]
targets = ["corp/m"]
timeouts = {{ first_token = "500ms" }}
"""


@pytest.fixture
def back_end() -> Iterator[BackEnd]:
    with BackEnd(json_answer(completion("fine"))) as back_end:
        yield back_end


@pytest.fixture
def proxy(tmp_path: Path, back_end: BackEnd) -> Iterator[Running]:
    with running(RULES.format(back_end.url), tmp_path) as proxy:
        yield proxy


def translate_after(monkeypatch: pytest.MonkeyPatch, delay: float) -> None:
    """Lets each translation wait as long for its thread."""

    async def read_late(
        size: int, caller: object, work: Callable[..., object], *args: Any, **kwargs: Any
    ) -> object:
        await asyncio.sleep(delay)
        return work(*args, **kwargs)

    monkeypatch.setattr(chat_upstream, "read_beside", read_late)


def test_it_stands_still_while_the_request_waits_for_our_thread(
    proxy: Running, back_end: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    translate_after(monkeypatch, 3 * LIMIT)
    answer = proxy.post(request("Hi"))
    assert answer.status_code == 200, answer.text
    assert len(back_end.requests) == 1


def test_it_runs_from_when_the_request_was_sent(
    proxy: Running, back_end: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    translate_after(monkeypatch, LIMIT)
    back_end.answers = [[HANG]]
    started = time.monotonic()
    answer = proxy.post(request("Hi"))
    assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout_error")
    assert 2 * LIMIT * 0.9 < time.monotonic() - started < 2 * LIMIT + seconds(1)


def test_it_runs_before_the_first_byte_and_after_headers(proxy: Running, back_end: BackEnd) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    back_end.answers = [[pause(LIMIT / 2), head, HANG]]
    started = time.monotonic()
    assert proxy.post(request("Hi", stream=True)).status_code == 504
    assert time.monotonic() - started < LIMIT + seconds(1)
