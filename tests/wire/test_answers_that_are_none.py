"""An answer is never better than it says (wire.md, "Decided", §2.6): over each format that we speak, what is
no whole answer goes to the next target before its first content, and ends the stream with an error after
it."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.backend import (
    BackEnd,
    Script,
    Step,
    answer,
    chunk,
    completion,
    data,
    json_answer,
    pause,
    streamed,
    tool_chunk,
)
from tests.running import Running, running
from tests.wire.asking import answers, ask

RULES = """
[providers.chat]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"
[providers.responses]
type = "openai_compatible"
api = "responses"
base_url = "{url}/v1"
api_key = "none"
[providers.gemini]
type = "gemini"
base_url = "{url}"
api_key = "env:KEY"
[providers.ollama]
type = "ollama"
base_url = "{url}"
api_key = "none"
[providers.next]
type = "openai_compatible"
base_url = "{next}/v1"
api_key = "none"
"""
RULE = """
[[rules]]
match.model.equals = "{format}"
targets = ["{format}/some-model", "next/m"]
"""
FORMATS = ("chat", "responses", "gemini", "ollama")


@pytest.fixture(scope="module")
def back_ends() -> Iterator[tuple[BackEnd, BackEnd]]:
    with BackEnd(json_answer({})) as back_end, BackEnd(json_answer({})) as another:
        yield back_end, another


@pytest.fixture(scope="module")
def proxy(back_ends: tuple[BackEnd, BackEnd], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    back_end, another = back_ends
    rules = RULES.format(url=back_end.url, next=another.url)
    rules += "".join(RULE.format(format=format) for format in FORMATS) + '[default]\ndeny = "no such rule"\n'
    with running(rules, tmp_path_factory.mktemp("rules"), {"KEY": "sk-1"}) as proxy:
        yield proxy


def gemini(*parts: dict[str, Any], finish: str | None = None) -> bytes:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}}
    return data({"candidates": [candidate | ({"finishReason": finish} if finish else {})]})


def ollama(content: str = "", **fields: Any) -> bytes:
    message = {"role": "assistant", "content": content}
    return json.dumps({"model": "m", "message": message, "done": False, **fields}).encode() + b"\n"


def responses(type: str, **fields: Any) -> bytes:
    return data({"type": f"response.{type}", **fields})


def completed(*output: dict[str, Any], **fields: Any) -> bytes:
    return responses("completed", response={"status": "completed", "output": list(output), **fields})


TEXT = {
    "chat": data(chunk("Hel")),
    "responses": responses("output_text.delta", delta="Hel", item_id="m", output_index=0, content_index=0),
    "gemini": gemini({"text": "Hel"}),
    "ollama": ollama("Hel"),
}
"""What is streamed before it goes wrong."""


class End(NamedTuple):
    format: str
    frames: tuple[bytes, ...]
    words: str
    """What the client is told."""


CLOSED = "upstream closed the stream before completing"
NOT_KNOWN = "upstream ended its answer with a finish reason that is not known: "
NAMELESS = "upstream called a tool without a name"
NO_CALL = "upstream said that it calls a tool, and there is no call that can be read"
UNREADABLE = "that is not a completion"

ENDS = {
    "abort": End("chat", (data(chunk(finish="abort")),), "upstream failed: abort"),
    "an unknown word": End("chat", (data(chunk(finish="solar_flare")),), NOT_KNOWN + "solar_flare"),
    "[DONE] alone": End("chat", (b"data: [DONE]\n\n",), CLOSED),
    "nothing": End("chat", (), CLOSED),
    "a call without a name": End(
        "chat", (data(tool_chunk(0, None, "{}", id="c1")), data(chunk(finish="tool_calls"))), NAMELESS
    ),
    "no call": End("chat", (data(chunk(finish="tool_calls")),), NO_CALL),
    "a detail": End("chat", (data({"detail": "no memory"}), data(chunk(finish="stop"))), "no memory"),
    "an object called error": End("chat", (data({"object": "error", "message": "no memory"}),), "no memory"),
    "an event called error": End(
        "chat", (b'event: error\ndata: {"message":"no memory"}\n\n', data(chunk(finish="stop"))), "no memory"
    ),
    "null": End("chat", (b"data: null\n\n", data(chunk(finish="stop"))), UNREADABLE),
    "choices of 7": End("chat", (b'data: {"choices": 7}\n\n', data(chunk(finish="stop"))), UNREADABLE),
    "a delta that is a list": End(
        "chat", (b'data: {"choices":[{"delta":["lo"]}]}\n\n', data(chunk(finish="stop"))), UNREADABLE
    ),
    "a frame that is no JSON, Responses": End("responses", (b"data: {\n\n", completed()), UNREADABLE),
    "null, Responses": End("responses", (b"data: null\n\n", completed()), UNREADABLE),
    "[DONE] alone, Responses": End("responses", (b"data: [DONE]\n\n",), CLOSED),
    "a detail, Responses": End("responses", (data({"detail": "no memory"}), completed()), "no memory"),
    "cancelled": End("responses", (completed(status="cancelled"),), "status cancelled"),
    "incomplete, nobody knows why": End(
        "responses",
        (
            responses(
                "incomplete",
                response={"status": "incomplete", "incomplete_details": {"reason": "solar_flare"}},
            ),
        ),
        NOT_KNOWN + "solar_flare",
    ),
    "another text in the end": End(
        "responses",
        (completed({"type": "message", "id": "m", "content": [{"type": "output_text", "text": "Bye"}]}),),
        "something else",
    ),
    "a malformed call": End(
        "gemini", (gemini(finish="MALFORMED_FUNCTION_CALL"),), "upstream failed: MALFORMED_FUNCTION_CALL"
    ),
    "OTHER": End("gemini", (gemini(finish="OTHER"),), "upstream failed: OTHER"),
    "NO_IMAGE": End("gemini", (gemini(finish="NO_IMAGE"),), "upstream failed: NO_IMAGE"),
    "an unknown word of Gemini's": End(
        "gemini", (gemini(finish="MALFORMED_WORLD"),), NOT_KNOWN + "MALFORMED_WORLD"
    ),
    "a call without a name, Gemini's": End(
        "gemini", (gemini({"functionCall": {"args": {}}}, finish="STOP"),), NAMELESS
    ),
    "an object that is none of Gemini's": End(
        "gemini", (data({"foo": 1}), gemini(finish="STOP")), UNREADABLE
    ),
    "an unknown word of Ollama's": End(
        "ollama", (ollama(done=True, done_reason="solar_flare"),), NOT_KNOWN + "solar_flare"
    ),
    "no word of Ollama's": End("ollama", (ollama(done=True),), CLOSED),
}


def script(format: str, *frames: Step) -> Script:
    return streamed(
        *frames, content_type="application/x-ndjson" if format == "ollama" else "text/event-stream"
    )


@pytest.mark.parametrize("case", [case for case in ENDS if case != "another text in the end"])
def test_before_its_first_content_the_next_target_answers(
    proxy: Running, back_ends: tuple[BackEnd, BackEnd], case: str
) -> None:
    back_end, another = back_ends
    end = ENDS[case]
    answers(back_end, script(end.format, *end.frames))
    answers(another, streamed(data(chunk("Hello")), data(chunk(finish="stop"))))
    assert ask(proxy, end.format, stream=True).script == ["text Hello", "end_turn"]


@pytest.mark.parametrize("case", ENDS)
def test_after_it_the_stream_ends_with_an_error_and_the_word_is_in_the_log(
    proxy: Running, back_ends: tuple[BackEnd, BackEnd], case: str, caplog: pytest.LogCaptureFixture
) -> None:
    back_end, another = back_ends
    end = ENDS[case]
    answers(back_end, script(end.format, TEXT[end.format], pause(0.1), *end.frames))
    answers(another)
    text, *rest, error = ask(proxy, end.format, stream=True).script
    assert text == "text Hel"
    assert error.startswith("error api_error: ")
    assert end.words in error
    assert "end_turn" not in rest
    assert not another.requests
    if "upstream" in end.words:
        assert end.words in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(completion("Hel", finish="abort"), id="a failure"),
        pytest.param(completion("Hel", finish="solar_flare"), id="an unknown word"),
        pytest.param(completion(None, images=[{"type": "image_url"}]), id="pictures"),
        pytest.param(completion(None, audio={"data": "UklG"}), id="sound"),
        pytest.param({"detail": "no memory"}, id="a detail"),
        pytest.param({"object": "error", "message": "no memory"}, id="an object called error"),
    ],
)
def test_a_whole_answer_that_is_none_goes_to_the_next_target_too(
    proxy: Running, back_ends: tuple[BackEnd, BackEnd], answer: dict[str, Any]
) -> None:
    back_end, another = back_ends
    answers(back_end, json_answer(answer))
    answers(another, json_answer(completion("Hello")))
    assert ask(proxy, "chat").text == "Hello"


DEEP = b"[" * 3000 + b"]" * 3000
"""Valid JSON that no decoder can hold."""

NESTED = {
    "chat": b'{"choices":[{"index":0,"delta":{"content":%b}}]}' % DEEP,
    "responses": b'{"type":"response.completed","status":"completed","response":{"output":%b},"output":%b}'
    % (DEEP, DEEP),
    "gemini": b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"n","args":%b}}]}}]}' % DEEP,
    "ollama": b'{"model":"m","message":{"content":%b},"done":true}' % DEEP,
}
"""By format: an answer in its shape in which something is nested so."""


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("where", ["inside", "all of it"])
@pytest.mark.parametrize("format", FORMATS)
def test_an_answer_that_is_nested_too_deeply_to_be_read_is_none(
    proxy: Running, back_ends: tuple[BackEnd, BackEnd], format: str, where: str, stream: bool
) -> None:
    back_end, another = back_ends
    body = DEEP if where == "all of it" else NESTED[format]
    frame = body + b"\n" if format == "ollama" else b"data: %b\n\n" % body
    answers(back_end, script(format, frame) if stream else json_bytes(body))
    answers(another, json_answer(completion("Hello")))
    assert ask(proxy, format, stream=stream).text == "Hello"
    assert len(another.requests) == 1


def json_bytes(body: bytes) -> Script:
    return answer(200, body, content_type="application/json")


def test_a_list_of_geminis_answers_may_hold_what_is_no_unicode(
    proxy: Running, back_ends: tuple[BackEnd, BackEnd]
) -> None:
    back_end, another = back_ends
    said = b'{"candidates":[{"content":{"parts":[{"text":"H\xff"}]}}]}'
    answers(back_end, json_bytes(b'[%b,{"candidates":[{"finishReason":"STOP"}]}]' % said))
    answers(another)
    assert ask(proxy, "gemini", stream=True).text == "H\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("reads", ["one read", "two reads"])
@pytest.mark.parametrize("after", [ollama(" there"), ollama(done=True, done_reason="length"), b"{half\n"])
def test_nothing_follows_the_end_of_ollamas_answer(
    proxy: Running, back_ends: tuple[BackEnd, BackEnd], reads: str, after: bytes
) -> None:
    back_end, _ = back_ends
    end = ollama("Hi", done=True, done_reason="stop")
    answers(back_end, script("ollama", *([end + after] if reads == "one read" else [end, pause(0.1), after])))
    assert ask(proxy, "ollama", stream=True).script == ["text Hi", "end_turn"]
