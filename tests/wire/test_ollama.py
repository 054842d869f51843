"""Ollama by its own API, directly and through LiteLLM: real bytes both ways."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from routeproxy.chat.request import (
    Assistant,
    ChatRequest,
    FileData,
    FilePart,
    FunctionCall,
    ImagePart,
    ImageUrl,
    System,
    TextPart,
    ToolCall,
    ToolMessage,
    User,
)
from routeproxy.exchange import Call
from routeproxy.upstream.chat.ollama_request import ollama_request
from routeproxy.upstream.failures import UpstreamFailure
from tests.backend import CUT, HANG, RESET, BackEnd, Received, Step, answer, json_answer, pause, streamed
from tests.running import running
from tests.upstream.litellm.asking import (
    LITELLMS_WARNINGS,
    LOOP,
    ask,
    call,
    chat,
    engine_of,
    failure,
    leave,
    said,
    target,
    until_failure,
)
from tests.wire import asking as wire

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


Ollama = Callable[..., Call]


@pytest.fixture(params=["direct", "litellm"])
def ollama(request: pytest.FixtureRequest) -> Ollama:
    def of(back_end: BackEnd, base: str = "", model: str = "llama3.3:70b", **options: Any) -> Call:
        found = target("ollama", back_end.url + base, model, options=options, engine=request.param)
        return call(found, key=None)

    return of


@pytest.mark.parametrize("base", ["", "/v1", "/api"])
def test_a_stream_comes_through_whole(ollama: Ollama, base: str) -> None:
    with BackEnd(TALK) as back_end:
        *lines, ends, usage = said(ask(ollama(back_end, base), chat(tools=True)))
    assert lines == ["thought Hm.", "text Hel", "text lo", 'call 0 read {"path": "a"}']
    assert ends in ("ends stop", "ends tool_calls")  # LiteLLM says the latter, as does our translator
    assert usage == "usage 7 3"
    assert (back_end.last.path, back_end.last.header("authorization")) == ("/api/chat", None)


def test_a_whole_answer_comes_through(ollama: Ollama) -> None:
    with BackEnd(json_answer(json.loads(line("Hello", done=True)))) as back_end:
        assert said(ask(ollama(back_end), chat(stream=False))) == ["text Hello", "ends stop", "usage 7 3"]


def test_its_options_really_arrive_and_nothing_else_does(ollama: Ollama) -> None:
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


def test_no_question_about_the_model_stops_the_loop(ollama: Ollama) -> None:
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
                async with aclosing(await engine_of(one).open(chat(), one)) as chunks:
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
        pytest.param(
            stream(line("a"), b'{"error":"the runner crashed"}\n'),
            "server_error",
            "the runner crashed",
            id="error in the stream",
        ),
    ],
)
def test_an_error_keeps_its_meaning(ollama: Ollama, answered: list[Step], kind: str, message: str) -> None:
    with BackEnd(answered) as back_end:
        found = failure(ollama(back_end))
    assert found.kind == kind
    assert message in found.message


def test_no_end_is_invented_for_a_stream_that_ceased(ollama: Ollama) -> None:
    with BackEnd(stream(line("a"))) as back_end:
        assert until_failure(ollama(back_end)) == ["text a"]


def test_the_back_end_is_let_go_when_the_client_leaves(ollama: Ollama) -> None:
    with BackEnd(stream(line("a"), HANG)) as back_end:
        assert leave(ollama(back_end), back_end) < 1


# --- what we say ourselves


def sent(request: ChatRequest, model: str = "llama3.3:70b") -> Any:
    return json.loads(ollama_request(request, model))


def test_a_whole_conversation_in_ollamas_words() -> None:
    picture = ImagePart(ImageUrl("data:image/png;base64,iVBO"))
    request = chat(
        stream=False,
        messages=(
            System("Be brief."),
            User((TextPart("Look:"), picture, TextPart("What is it?"))),
            Assistant(
                None,
                tool_calls=(ToolCall(id="c1", function=FunctionCall("read", '{"b":1,"a":2}')),),
                reasoning_content="Hm.",
            ),
            ToolMessage("c1", "a cat"),
            User("Thanks"),
        ),
    )
    assert sent(request) == {
        "model": "llama3.3:70b",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look:\nWhat is it?", "images": ["iVBO"]},
            {
                "role": "assistant",
                "content": "",
                "thinking": "Hm.",
                "tool_calls": [{"id": "c1", "function": {"name": "read", "arguments": {"b": 1, "a": 2}}}],
            },
            {"role": "tool", "content": "a cat", "tool_name": "read", "tool_call_id": "c1"},
            {"role": "user", "content": "Thanks"},
        ],
        "stream": False,
        "options": {"num_predict": 50},
    }


@pytest.mark.parametrize(
    ("model", "effort", "think"),
    [
        ("qwen3:8b", "high", True),
        ("gpt-oss:20b", "low", "low"),
    ],
)
def test_think_is_a_level_for_those_that_take_one(model: str, effort: str, think: Any) -> None:
    assert sent(chat(reasoning_effort=effort), model)["think"] == think
    assert "think" not in sent(chat(), model)
    assert sent(chat(thinking_off={"think": False}), model)["think"] is False


@pytest.mark.parametrize(
    ("part", "words"),
    [
        pytest.param(ImagePart(ImageUrl("https://x.example/a.png")), "image_block", id="the URL of an image"),
        pytest.param(FilePart(FileData(filename="a.pdf")), "document_block", id="a file"),
    ],
)
def test_what_ollama_cannot_be_given_is_a_failure_of_its_capability(part: Any, words: str) -> None:
    with pytest.raises(UpstreamFailure, match=words) as refused:
        ollama_request(chat(messages=(User((part,)),)), "m")
    assert refused.value.kind == "capability"


SHOW = """
[providers.ollama]
type = "ollama"
base_url = "{url}"
zone = "local"

[providers.through]
type = "ollama"
base_url = "{url}"
zone = "local"
engine = "litellm"

[providers.told]
type = "ollama"
base_url = "{url}"
zone = "local"
models = {{ "qwen3.9:8b" = {{ thinking = false }} }}

[[rules]]
match.model = "through"
targets = "through/qwen3.9:8b"

[[rules]]
match.model = "told"
targets = "told/qwen3.9:8b"

[default]
targets = "ollama/qwen3.9:8b"
"""
WANTED = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}
LINE = {"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": True, "done_reason": "stop"}


def an_ollama(shown: list[Step]) -> Callable[[Received], list[Step]]:
    return lambda received: shown if received.path == "/api/show" else json_answer(LINE)


@pytest.mark.parametrize(
    ("shown", "think"),
    [
        pytest.param(
            json_answer({"capabilities": ["completion", "tools", "thinking"]}), True, id="it thinks"
        ),
        pytest.param(json_answer({"capabilities": ["completion", "tools"]}), None, id="it does not"),
        pytest.param(json_answer({"license": "MIT"}), None, id="an old Ollama"),
        pytest.param(json_answer({"error": "not found"}, 404), None, id="it is not told"),
        pytest.param(answer(200, b"<html>"), None, id="no JSON"),
        pytest.param([CUT], None, id="cut"),
    ],
)
@pytest.mark.parametrize("model", ["m", "through"], ids=["direct", "litellm"])
def test_whether_a_newer_model_thinks_is_asked_of_ollama_once(
    shown: list[Step], think: bool | None, model: str, tmp_path: Path
) -> None:
    with BackEnd(an_ollama(shown)) as back_end, running(SHOW.format(url=back_end.url), tmp_path) as proxy:
        for _ in range(2):
            assert wire.ask(proxy, model, **WANTED).text == "Hi"
            assert back_end.last.json.get("think") is think
        paths = [received.path for received in back_end.requests]
        assert paths == ["/api/show", "/api/chat", "/api/chat"]
        assert back_end.requests[0].json == {"model": "qwen3.9:8b"}


@pytest.mark.parametrize(
    ("model", "fields"), [("told", WANTED), ("m", {}), ("m", {"thinking": {"type": "disabled"}})]
)
def test_nobody_asks_what_does_not_matter(model: str, fields: dict[str, Any], tmp_path: Path) -> None:
    with BackEnd(an_ollama([])) as back_end, running(SHOW.format(url=back_end.url), tmp_path) as proxy:
        assert wire.ask(proxy, model, **fields).text == "Hi"
        assert [received.path for received in back_end.requests] == ["/api/chat"]


@pytest.mark.parametrize("model", ["m", "through"], ids=["direct", "litellm"])
def test_a_prompt_that_does_not_fit_is_never_cut_without_a_word(model: str, tmp_path: Path) -> None:
    too_long = json_answer({"error": "the input length exceeds the context length"}, 400)
    with BackEnd(too_long) as back_end, running(SHOW.format(url=back_end.url), tmp_path) as proxy:
        reply = wire.ask(proxy, model)
        assert back_end.last.json["truncate"] is False
        assert reply.status == 400
        assert "prompt" in reply.error[2]
