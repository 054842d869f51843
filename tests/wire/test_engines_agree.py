"""LiteLLM as the oracle: what a back end says, in whatever odd way, comes to the same answer through both
engines, and the same is asked; where it is not, the difference stands here with its reason."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.backend import (
    CUT,
    RESET,
    BackEnd,
    Script,
    answer,
    chunk,
    completion,
    data,
    done,
    error,
    json_answer,
    sse,
    streamed,
    tool_chunk,
)
from tests.running import Running, running
from tests.upstream.litellm.asking import LITELLMS_WARNINGS
from tests.wire.asking import Reply, answers, ask

pytestmark = LITELLMS_WARNINGS

RULES = """
[providers.{engine}]
type = "{type}"
base_url = "{url}{base}"
api_key = "env:KEY"
zone = "local"
engine = "{engine}"
[[rules]]
name = "{engine}"
match.model = "{engine}"
targets = "{engine}/{model}"
"""
DEFAULT = '[default]\ndeny = "neither"\n'
ENGINES = ("direct", "litellm")
READ = {"name": "read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"path":"a"}'}}


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd(sse(chunk("x"), done())) as back_end:
        yield back_end


def both(back_end: BackEnd, folder: Any, type: str, base: str, model: str) -> Any:
    tables = [
        RULES.format(engine=engine, type=type, url=back_end.url, base=base, model=model) for engine in ENGINES
    ]
    return running("\n".join(tables) + DEFAULT, folder, {"KEY": "sk-canary"})


@pytest.fixture(scope="module")
def chat(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with both(back_end, tmp_path_factory.mktemp("chat"), "openai_compatible", "/v1", "m") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def ollama(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with both(back_end, tmp_path_factory.mktemp("ollama"), "ollama", "", "qwen3:8b") as proxy:
        yield proxy


class Outcome(NamedTuple):
    """What a client gets: status and words of an error, or the answer as a transcript with its usage."""

    status: int
    said: Any
    usage: Any


def outcome(reply: Reply, stream: bool) -> Outcome:
    """The engines are told by the names of their providers, so those are no difference."""
    reply.body = reply.body.replace(b"back end litellm", b"back end direct")
    if reply.status != 200:
        return Outcome(reply.status, reply.error[1:], reply.headers.get("retry-after"))
    if stream:
        events = reply.events
        usage = next((event["usage"] for event in events if event["type"] == "message_delta"), None)
        return Outcome(200, in_one_piece(reply.script), usage)
    message = reply.json
    content = [
        {key: value for key, value in block.items() if key not in ("id", "signature")}
        for block in message["content"]
    ]
    return Outcome(200, (content, message["stop_reason"], message["stop_sequence"]), message["usage"])


def in_one_piece(script: list[str]) -> list[str]:
    """Text that arrives in one read leaves as one event, and reads fall as they like."""
    found: list[str] = []
    for line in script:
        if line.startswith("text ") and found and found[-1].startswith("text "):
            found[-1] += line.removeprefix("text ")
        else:
            found.append(line)
    return found


def outcomes(proxy: Running, back_end: BackEnd, script: Script, stream: bool, **fields: Any) -> list[Outcome]:
    found = []
    for engine in ENGINES:
        answers(back_end, script)
        found.append(outcome(ask(proxy, engine, stream=stream, tools=[READ], **fields), stream))
    return found


TOOL = [tool_chunk(0, "read", "", id="c1"), tool_chunk(0, None, '{"path":'), tool_chunk(0, None, '"a"}')]
STREAMS: dict[str, Script] = {
    "text": sse(chunk(role="assistant", content=""), chunk("Hel"), chunk("lo"), done()),
    "reasoning, text and a call": sse(
        chunk(reasoning_content="Hm."), chunk("Look."), *TOOL, done("tool_calls")
    ),
    "reasoning under its other name": sse(chunk(reasoning="Hm."), chunk("Look."), done()),
    "a call and `stop`": sse(*TOOL, done("stop")),
    "`tool_calls` and no call": sse(chunk("No."), done("tool_calls")),
    "a call at once": sse(tool_chunk(0, "read", '{"path":"a"}', id="c1"), done("tool_calls")),
    "two calls": sse(
        tool_chunk(0, "read", '{"path":"a"}', id="c1"),
        tool_chunk(1, "read", '{"path":"b"}', id="c2"),
        done("tool_calls"),
    ),
    "two calls by turns": sse(
        tool_chunk(0, "read", "", id="c1"),
        tool_chunk(1, "read", "", id="c2"),
        tool_chunk(0, None, '{"path":'),
        tool_chunk(1, None, '{"path":'),
        tool_chunk(0, None, '"a"}'),
        tool_chunk(1, None, '"b"}'),
        done("tool_calls"),
    ),
    "cut at its limit": sse(chunk("Hel"), done("length")),
    "filtered": sse(chunk("Hel"), done("content_filter")),
    "a refusal": sse(chunk(refusal="I won't."), done()),
    "nothing": sse(done()),
    "no usage": sse(chunk("Hello"), chunk(finish="stop")),
    "cached tokens": sse(
        chunk("Hello"),
        chunk(
            finish="stop",
            usage={
                "prompt_tokens": 100,
                "completion_tokens": 5,
                "total_tokens": 105,
                "prompt_tokens_details": {"cached_tokens": 60},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
        ),
    ),
    "content behind the finish": sse(chunk("Hel"), chunk(finish="stop"), chunk("lo"), done()),
    "carriage returns and comments": streamed(
        b": hello\r\n\r\n",
        data(chunk("Hel")).replace(b"\n", b"\r\n"),
        data(chunk("lo")),
        data(done()),
        b"data: [DONE]\n\n",
    ),
    "no `[DONE]`": streamed(data(chunk("Hello")), data(done())),
    "half an emoji at a time": streamed(
        data(chunk("Hej ")),
        b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"\\udc4b"}}]}\n\n',
        data(done()),
        b"data: [DONE]\n\n",
    ),
    "line separators": sse(chunk("a\u2028b\u0085c"), done()),
    "a failure that is called a finish": sse(chunk(finish="network_error")),
    "a failure behind text": sse(chunk("Hel"), chunk(finish="abort")),
    "a failure behind a call": sse(*TOOL, chunk(finish="error")),
    "a word that nobody knows": sse(chunk("Hel"), chunk(finish="solar_flare")),
    "a word that nobody knows, and nothing else": sse(chunk(finish="solar_flare")),
    "a call, cut at its limit": sse(*TOOL, done("length")),
    "a call without a name": sse(
        chunk("Hel"), tool_chunk(0, None, '{"path":"a"}', id="c1"), done("tool_calls")
    ),
    "`tool_calls` and nothing": sse(done("tool_calls")),
    "only `[DONE]`": streamed(b"data: [DONE]\n\n"),
    "`[DONE]` without a finish": sse(chunk("Hel")),
    "a picture": sse(chunk(images=[{"type": "image_url", "image_url": {"url": "data:,"}}]), done()),
    "an object that is no chunk": streamed(
        data(chunk("Hel")), data({"detail": "out of memory"}), data(chunk("lo")), data(done())
    ),
    "an error that is called an object": streamed(
        data({"object": "error", "message": "the engine died", "code": 500})
    ),
    "an event called error": streamed(
        data(chunk("Hel")), b'event: error\ndata: {"message":"the engine died"}\n\n', data(done())
    ),
    "usage in its choice": sse(
        chunk("Hi"),
        {
            "choices": [
                {
                    "index": 0,
                    "delta": {},
                    "finish_reason": "stop",
                    "usage": {"prompt_tokens": 100, "completion_tokens": 9, "cached_tokens": 60},
                }
            ]
        },
    ),
    "an end without an end": streamed(data(chunk("Hel"))),
    "a cut": streamed(data(chunk("Hel")), CUT),
    "a reset": streamed(data(chunk("Hel")), RESET),
    "an error first": streamed(
        data({"error": {"message": "Overloaded", "type": "overloaded_error", "code": 529}})
    ),
    "an error later": streamed(
        data(chunk("Hel")),
        data({"error": {"message": "the engine died", "type": "server_error", "code": 500}}),
    ),
    "a whole completion instead": json_answer(completion("Hello")),
}
WHOLES: dict[str, Script] = {
    "text": json_answer(completion("Hello")),
    "reasoning": json_answer(completion("Hello", reasoning_content="Hm.")),
    "a call": json_answer(completion(None, finish="tool_calls", tool_calls=[CALL])),
    "a call and `stop`": json_answer(completion("Look.", finish="stop", tool_calls=[CALL])),
    "a refusal": json_answer(completion(None, refusal="I won't.")),
    "cut at its limit": json_answer(completion("Hel", finish="length")),
    "nothing": json_answer(completion("")),
    "a word that nobody knows": json_answer(completion("Hel", finish="solar_flare")),
    "no word": json_answer(completion("Hel", finish=None)),
    "`tool_calls` and no call": json_answer(completion("Hel", finish="tool_calls")),
    "a call without a name": json_answer(
        completion(
            None, finish="tool_calls", tool_calls=[{**CALL, "function": {"name": "", "arguments": "{}"}}]
        )
    ),
    "an error that is called an object": json_answer(
        {"object": "error", "message": "the engine died", "code": 500}
    ),
    "arguments that are none": json_answer(
        completion(
            None, finish="tool_calls", tool_calls=[{**CALL, "function": {"name": "read", "arguments": "{"}}]
        )
    ),
    "a stream instead": sse(chunk("Hel"), chunk("lo"), done()),
    "garbage": answer(200, b"<html>", content_type="application/json"),
}
FAILURES: dict[str, Script] = {
    "400": error(400, "tools[0] is odd"),
    "401": error(401, "Incorrect API key provided: sk-canary"),
    "403": error(403, "no"),
    "404": error(404, "The model `m` does not exist", "model_not_found"),
    "408": error(408, "slow"),
    "409": error(409, "again"),
    "413": error(413, "too large"),
    "422": error(422, "unprocessable"),
    "429": error(429, "slow down", retry_after="7"),
    "429, a quota": error(429, "You exceeded your current quota", "insufficient_quota"),
    "500": error(500, "oops"),
    "502, a page": answer(502, b"<html>bad gateway</html>", content_type="text/html"),
    "503": error(503, "down", retry_after="9"),
    "529": error(529, "Overloaded"),
    "a prompt that is too long": error(
        400,
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
        "context_length_exceeded",
    ),
    "a content filter": error(400, "The response was filtered", "content_filter"),
    "a redirect": answer(302, b"", location="http://127.0.0.1:1/"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_comes_to_the_same(chat: Running, back_end: BackEnd, name: str) -> None:
    direct, oracle = outcomes(chat, back_end, STREAMS[name], True)
    assert direct == oracle


@pytest.mark.parametrize("name", WHOLES)
def test_a_whole_answer_comes_to_the_same(chat: Running, back_end: BackEnd, name: str) -> None:
    direct, oracle = outcomes(chat, back_end, WHOLES[name], False)
    assert direct == oracle


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_comes_to_the_same(chat: Running, back_end: BackEnd, name: str, stream: bool) -> None:
    direct, oracle = outcomes(chat, back_end, FAILURES[name], stream)
    assert direct == oracle
    assert "sk-canary" not in str(direct)


# --- requests

REQUESTS: dict[str, dict[str, Any]] = {
    "the smallest": {},
    "parameters": {"temperature": 0.5, "top_p": 0.9, "stop_sequences": ["END"], "max_tokens": 77},
    "a system text": {
        "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "And kind."}]
    },
    "a forced tool": {"tool_choice": {"type": "tool", "name": "read"}},
    "one tool at a time": {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 4000},
    "a picture": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
                    },
                    {"type": "text", "text": "What is it?"},
                ],
            }
        ]
    },
    "a tool's result": {
        "messages": [
            {"role": "user", "content": "Read a."},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c1", "name": "read", "input": {"path": "a"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "text"}]},
        ]
    },
    "a schema for the answer": {
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {}}}}
    },
}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_is_asked(chat: Running, back_end: BackEnd, name: str, stream: bool) -> None:
    script = STREAMS["text"] if stream else WHOLES["text"]
    bodies = []
    for engine in ENGINES:
        answers(back_end, script)
        assert ask(chat, engine, **{"stream": stream, "tools": [READ], **REQUESTS[name]}).status == 200
        bodies.append((back_end.last.path, back_end.last.json))
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_half_an_emoji_in_a_request_is_no_reason_to_fail(
    chat: Running, back_end: BackEnd, stream: bool
) -> None:
    """JavaScript clients cut texts where they like, and write what is left as `\\ud83d`."""
    body = b'{"model":"%b","max_tokens":5,"stream":%b,"messages":[{"role":"user","content":"cut \\ud83d"}]}'
    for engine in ENGINES:
        answers(back_end, STREAMS["text"] if stream else WHOLES["text"])
        sent = body % (engine.encode(), b"true" if stream else b"false")
        assert chat.post(sent).status_code == 200
        assert back_end.last.json["messages"][0]["content"] == "cut \ufffd"


OLLAMAS_OWN = {"a tool's result"}
"""LiteLLM writes no `tool_name` beside a result."""


@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_is_asked_of_ollama(ollama: Running, back_end: BackEnd, name: str) -> None:
    said = {"role": "assistant", "content": "Hi"}
    line = json.dumps({"model": "m", "message": said, "done": True, "done_reason": "stop"}).encode() + b"\n"
    bodies = []
    for engine in ENGINES:
        answers(back_end, streamed(line, content_type="application/x-ndjson"))
        assert ask(ollama, engine, **{"stream": True, "tools": [READ], **REQUESTS[name]}).status == 200
        bodies.append((back_end.last.path, without_empty_images(back_end.last.json)))
    assert (bodies[0] != bodies[1]) == (name in OLLAMAS_OWN), bodies


def without_empty_images(body: dict[str, Any]) -> dict[str, Any]:
    """LiteLLM writes a list of no images beside every text."""
    turns = [{key: value for key, value in turn.items() if value != []} for turn in body["messages"]]
    return {**body, "messages": turns}
