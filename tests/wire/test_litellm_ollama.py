"""Ollama by its own API, through LiteLLM: real bytes both ways."""

import asyncio
import json
import time
from typing import Any

import pytest

from tests.backend import CUT, HANG, RESET, BackEnd, Received, Step, json_answer, pause, streamed
from tests.wire.asking_litellm import LITELLMS_WARNINGS, LOOP, ask, call, chat, failure, leave, said, target

pytestmark = LITELLMS_WARNINGS


def line(content: str = "", *, done: bool = False, **message: Any) -> bytes:
    last = {"done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3} if done else {}
    whole = {"model": "llama3.3:70b", "created_at": "2026-01-01T00:00:00Z", "done": done, **last}
    return (
        json.dumps(whole | {"message": {"role": "assistant", "content": content, **message}}).encode() + b"\n"
    )


def stream(*steps: Step) -> list[Step]:
    return streamed(*steps, content_type="application/x-ndjson")


CALL = {"function": {"name": "read", "arguments": {"path": "a"}}}
TALK = stream(line(thinking="Hm."), line("Hel"), line("lo"), line(tool_calls=[CALL]), line(done=True))


def ollama(back_end: BackEnd, base: str = "", **options: Any) -> Any:
    return call(target("ollama", back_end.url + base, "llama3.3:70b", options=options), key=None)


@pytest.mark.parametrize("base", ["", "/v1", "/api"])
def test_a_stream_comes_through_whole(base: str) -> None:
    with BackEnd(TALK) as back_end:
        lines = said(ask(ollama(back_end, base), chat(tools=True)))
    assert lines == [
        "thought Hm.",
        "text Hel",
        "text lo",
        'call 0 read {"path": "a"}',
        "ends tool_calls",
        "usage 7 3",
    ]
    assert (back_end.last.path, back_end.last.header("authorization")) == ("/api/chat", None)


def test_a_whole_answer_comes_through() -> None:
    with BackEnd(json_answer(json.loads(line("Hello", done=True)))) as back_end:
        assert said(ask(ollama(back_end), chat(stream=False))) == ["text Hello", "ends stop", "usage 7 3"]


def test_its_options_really_arrive_and_nothing_else_does() -> None:
    with BackEnd(TALK) as back_end:
        request = chat(tools=True, top_k=3, stop=("END",), temperature=0.5, reasoning_effort="high")
        ask(ollama(back_end, num_ctx=128_000, keep_alive="10m"), request)
    sent = back_end.last.json
    assert sent["options"] == {
        "num_ctx": 128_000,
        "num_predict": 50,
        "temperature": 0.5,
        "top_k": 3,
        "stop": ["END"],
    }
    assert (sent["keep_alive"], sent["think"], sent["stream"]) == ("10m", True, True)


def test_no_question_about_the_model_stops_the_loop() -> None:
    def answers(received: Received) -> list[Step]:
        return TALK if received.path == "/api/chat" else [pause(2), *json_answer({})]

    async def worst_gap(one: Any) -> float:
        worst, stop = 0.0, asyncio.Event()

        async def ticks() -> None:
            nonlocal worst
            while not stop.is_set():
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                worst = max(worst, time.perf_counter() - before)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ticks())
            for _ in range(2):
                async with LOOP.litellm.open(chat(), one) as chunks:
                    async for _ in chunks:
                        pass
            await asyncio.sleep(0.5)
            stop.set()
        return worst

    with BackEnd(answers) as back_end:
        assert LOOP.run(worst_gap(ollama(back_end))) < 0.5
    assert {one.path for one in back_end.requests} == {"/api/chat"}


@pytest.mark.parametrize(
    ("answered", "kind", "message"),
    [
        pytest.param(
            json_answer({"error": "model 'x' not found"}, 404), "not_found", "model: llama3.3:70b", id="404"
        ),
        pytest.param(json_answer({"error": "odd options"}, 400), "invalid_request", "odd options", id="400"),
        pytest.param(json_answer({"error": "no memory"}, 500), "server_error", "no memory", id="500"),
        pytest.param(stream(line("a"), RESET), "connection", "closed", id="reset"),
        pytest.param(stream(line("a"), CUT), "connection", "closed", id="cut"),
        pytest.param(stream(line("a")), "connection", "before completing", id="ceased"),
        pytest.param(
            stream(line("a"), b'{"error":"the runner crashed"}\n'),
            "server_error",
            "the runner crashed",
            id="error in the stream",
        ),
    ],
)
def test_an_error_keeps_its_meaning(answered: list[Step], kind: str, message: str) -> None:
    with BackEnd(answered) as back_end:
        found = failure(ollama(back_end))
    assert found.kind == kind
    assert message in found.message


def test_the_back_end_is_let_go_when_the_client_leaves() -> None:
    with BackEnd(stream(line("a"), HANG)) as back_end:
        assert leave(ollama(back_end), back_end) < 1
