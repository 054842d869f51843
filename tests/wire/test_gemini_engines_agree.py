"""Our own engine for Gemini beside LiteLLM's, which is in the field: the same requests and answers come to
the same, or the difference is listed with its reason."""

import json
import re
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from routeproxy.chat.completion import Chunk
from routeproxy.exchange import Call
from routeproxy.upstream.chat.gemini_request import gemini_request
from routeproxy.upstream.chat.profiles import profile_of
from routeproxy.upstream.chat.upstream import ChatBackEnd
from routeproxy.upstream.litellm.backend import LiteLLMBackEnd
from tests.backend import CUT, HANG, RESET, BackEnd, Step, answer, data, json_answer, streamed
from tests.running import Running
from tests.translate.asking import ask as translate
from tests.upstream.litellm.asking import LITELLMS_WARNINGS, LOOP, call, chat, leave, said, target
from tests.upstream.litellm.test_gemini import CALL, TALK, THOUGHT, part, stream
from tests.wire.asking import answers, ask
from tests.wire.test_engines_agree import ENGINES, READ, REQUESTS, Outcome, both, outcomes

pytestmark = LITELLMS_WARNINGS

RECORDED = Path(__file__).parent / "claude-code"


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd(TALK) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def gemini(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with both(back_end, tmp_path_factory.mktemp("gemini"), "gemini", "/v1beta", "gemini-2.5-pro") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def newer(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    name = "gemini-3-pro-preview"
    with both(back_end, tmp_path_factory.mktemp("newer"), "gemini", "/v1beta", name) as proxy:
        yield proxy


def error(status: int, message: str, name: str, **headers: str) -> list[Step]:
    return json_answer({"error": {"code": status, "message": message, "status": name}}, status, **headers)


SECOND = {"functionCall": {"name": "read", "args": {"path": "b"}}}
STREAMS: dict[str, list[Step]] = {
    "thought, text and a call": TALK,
    "text": stream(part({"text": "Hel"}), part({"text": "lo"}, finish="STOP", usage=True)),
    "all in one": stream(part(THOUGHT, {"text": "Hello"}, CALL, finish="STOP", usage=True)),
    "two calls at once": stream(part(CALL, SECOND, finish="STOP", usage=True)),
    "two calls in a row": stream(part(CALL), part(SECOND), part(finish="STOP", usage=True)),
    "cut at its limit": stream(part({"text": "Hel"}), part(finish="MAX_TOKENS", usage=True)),
    "a safety stop": stream(part({"text": "Hel"}), part(finish="SAFETY", usage=True)),
    "recitation": stream(part({"text": "Hel"}), part(finish="RECITATION", usage=True)),
    "a malformed call": stream(part(finish="MALFORMED_FUNCTION_CALL", usage=True)),
    "a malformed call after text": stream(part({"text": "a"}), part(finish="MALFORMED_FUNCTION_CALL")),
    "nothing": stream(part(finish="STOP", usage=True)),
    "a call, cut at its limit": stream(part(CALL, finish="MAX_TOKENS", usage=True)),
    "text and a call, cut at its limit": stream(
        part({"text": "a"}), part(CALL), part(finish="MAX_TOKENS", usage=True)
    ),
    "a malformed call behind text": stream(
        part({"text": "a"}), part(finish="MALFORMED_FUNCTION_CALL", usage=True)
    ),
    "a failure of no name": stream(part(finish="OTHER", usage=True)),
    "a failure of no name behind text": stream(part({"text": "a"}), part(finish="OTHER", usage=True)),
    "no picture": stream(part(finish="NO_IMAGE", usage=True)),
    "a word that nobody knows": stream(part({"text": "a"}), part(finish="SOLAR_FLARE", usage=True)),
    "an end without an end": stream(part({"text": "a"})),
    "a cut": stream(part({"text": "a"}), CUT),
    "a reset": stream(part({"text": "a"}), RESET),
    "an error later": stream(
        part({"text": "a"}),
        {"error": {"code": 503, "message": "The model is overloaded", "status": "UNAVAILABLE"}},
    ),
    "half an emoji at a time": stream(
        part({"text": "Hej \ud83d"}), part({"text": "\udc4b!"}), part(finish="STOP", usage=True)
    ),
    "half an emoji in a call": stream(
        part({"functionCall": {"name": "read", "args": {"path": "a\ud83d"}}}, finish="STOP", usage=True)
    ),
    "thoughts that are counted among the rest": stream(
        part({"text": "a"}, finish="STOP")
        | {
            "usageMetadata": {
                "promptTokenCount": 10,
                "candidatesTokenCount": 8,
                "thoughtsTokenCount": 3,
                "totalTokenCount": 18,
            }
        }
    ),
}
WHOLES: dict[str, list[Step]] = {
    "text": json_answer(part({"text": "Hello"}, finish="STOP", usage=True)),
    "all": json_answer(part(THOUGHT, {"text": "Hello"}, CALL, finish="STOP", usage=True)),
    "a call": json_answer(part(CALL, finish="STOP", usage=True)),
    "a call, cut at its limit": json_answer(part(CALL, finish="MAX_TOKENS", usage=True)),
    "a failure of no name": json_answer(part(finish="OTHER", usage=True)),
    "a word that nobody knows": json_answer(part({"text": "a"}, finish="SOLAR_FLARE", usage=True)),
    "cut at its limit": json_answer(part({"text": "Hel"}, finish="MAX_TOKENS", usage=True)),
    "a malformed call": json_answer(part({"text": "a"}, finish="MALFORMED_FUNCTION_CALL", usage=True)),
    "garbage": answer(200, b"<html>", content_type="application/json"),
}
FAILURES: dict[str, list[Step]] = {
    "400": error(400, "odd", "INVALID_ARGUMENT"),
    "400 in a list": json_answer(
        [{"error": {"code": 400, "message": "odd", "status": "INVALID_ARGUMENT"}}], 400
    ),
    "401": error(401, "who", "UNAUTHENTICATED"),
    "403": error(403, "denied sk-canary", "PERMISSION_DENIED"),
    "404": error(404, "models/x is not found", "NOT_FOUND"),
    "429": error(429, "slow down", "RESOURCE_EXHAUSTED", retry_after="7"),
    "500": error(500, "oops", "INTERNAL"),
    "503": error(503, "The model is overloaded", "UNAVAILABLE"),
    "a page": answer(502, b"<html>bad gateway</html>", content_type="text/html"),
    "too long": error(
        400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", "X"
    ),
}


def in_our_words(one: Outcome) -> Outcome:
    """LiteLLM puts Google's word for a failure in front of its message."""
    said = one.said
    return (
        one._replace(said=[line.replace("UNAVAILABLE - ", "") for line in said])
        if isinstance(said, list)
        else one
    )


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_comes_to_the_same(gemini: Running, back_end: BackEnd, name: str) -> None:
    direct, oracle = outcomes(gemini, back_end, STREAMS[name], True)
    assert direct == in_our_words(oracle)


UNDAMAGED = [
    "thought, text and a call",
    "text",
    "all in one",
    "two calls at once",
    "two calls in a row",
    "cut at its limit",
    "thoughts that are counted among the rest",
]


@pytest.mark.parametrize("name", UNDAMAGED)
def test_litellms_own_reader_reads_the_same(back_end: BackEnd, name: str) -> None:
    """Both engines have our reader; LiteLLM's, which is in the field, is asked only here."""
    oracle = LiteLLMBackEnd(LOOP.client, LOOP.google_tokens, decoder_for=lambda path: None)
    found = []
    for engine in (LOOP.direct, oracle):
        answers(back_end, STREAMS[name])
        lines = said(LOOP.run(chunks_of(engine, call(target("gemini", back_end.url, "gemini-2.5-pro")))))
        # Finish reasons are translated here and there, and usage is repeated.
        found.append([line for line in lines if not line.startswith(("ends", "usage"))] + lines[-1:])
    assert found[0] == found[1]


async def chunks_of(engine: ChatBackEnd, one: Call) -> list[Chunk]:
    async with aclosing(await engine.open(chat(tools=True), one)) as answer:
        return [chunk async for chunks in answer for chunk in chunks]


@pytest.mark.parametrize("name", WHOLES)
def test_a_whole_answer_comes_to_the_same(gemini: Running, back_end: BackEnd, name: str) -> None:
    direct, oracle = outcomes(gemini, back_end, WHOLES[name], False)
    assert direct == oracle


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_comes_to_the_same(gemini: Running, back_end: BackEnd, name: str, stream: bool) -> None:
    direct, oracle = outcomes(gemini, back_end, FAILURES[name], stream)
    assert direct == oracle


ANSWER = b"".join(
    data(step) for step in (part({"text": "Hel"}), part({"text": "lo"}, finish="STOP", usage=True))
)
EVENTS = ANSWER.split(b"\n\n")
DAMAGES: dict[str, list[Step]] = {
    "cut by 50 bytes": streamed(ANSWER[:-50]),
    "its last event cut": streamed(EVENTS[0] + b"\n\n" + EVENTS[1][:40]),
    "a stray brace": streamed(EVENTS[0] + b"\n\ndata: }\n\n" + EVENTS[1] + b"\n\n"),
    "HTML between": streamed(EVENTS[0] + b"\n\ndata: <html></html>\n\n" + EVENTS[1] + b"\n\n"),
    "`[DONE]` between": streamed(EVENTS[0] + b"\n\ndata: [DONE]\n\n" + EVENTS[1] + b"\n\n"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_answer_is_none(gemini: Running, back_end: BackEnd, name: str) -> None:
    direct, oracle = outcomes(gemini, back_end, DAMAGES[name], True)
    assert direct == oracle
    assert direct.status == 502 or str(direct.said[-1]).startswith("error api_error")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_prompt_that_was_blocked_is_a_refusal(
    gemini: Running, back_end: BackEnd, stream: bool, engine: str
) -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}}
    answers(back_end, streamed_or_whole(blocked, stream))
    reply = ask(gemini, engine, stream=stream)
    assert (reply.script[-1] if stream else reply.json["stop_reason"]) == "refusal"


def streamed_or_whole(said: dict[str, Any], streams: bool) -> list[Step]:
    return stream(said) if streams else json_answer(said)


# --- what is asked

SPELLED = re.compile(r"_([a-z])")


def camel(value: Any) -> Any:
    """Google takes both spellings. Names of properties and arguments stay as they are."""
    if isinstance(value, list):
        return [camel(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {"args", "response", "parameters", "parametersJsonSchema", "responseJsonSchema"}
    renamed = {SPELLED.sub(lambda found: found[1].upper(), key): one for key, one in value.items()}
    return {key: one if key in kept else camel(one) for key, one in renamed.items()}


def differently(body: dict[str, Any]) -> dict[str, Any]:
    """Without the differences that are meant.

    Schemas: LiteLLM rewrites them into Google's older form under `parameters`, we send them as they are under
    `parametersJsonSchema`. Temperature: LiteLLM states what is the default of Gemini 3 anyway."""
    body = camel(body)
    for tool in body.get("tools", ()):
        for declared in tool["functionDeclarations"]:
            declared.pop("parameters", None)
            declared.pop("parametersJsonSchema", None)
    if body.get("generationConfig", {}).get("temperature") == 1.0:
        del body["generationConfig"]["temperature"]
    return body


MORE: dict[str, dict[str, Any]] = {
    "a picture from a tool": {
        "messages": [
            {"role": "user", "content": "Look."},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c1", "name": "read", "input": {"path": "a"}}],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c1",
                        "content": [
                            {"type": "text", "text": '{"a":1}'},
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
                            },
                        ],
                    },
                    {"type": "text", "text": "And?"},
                ],
            },
        ]
    },
    "a file": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
                    },
                    {"type": "text", "text": "Read it."},
                ],
            }
        ]
    },
    "words of the system in between": {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "So?"},
        ]
    },
    "any tool": {"tool_choice": {"type": "any"}},
    "no tool": {"tool_choice": {"type": "none"}},
    "a little thought": {"output_config": {"effort": "low"}},
    "much thought": {"output_config": {"effort": "max"}},
    "no thought": {"thinking": {"type": "disabled"}},
}


@pytest.mark.parametrize("which", ["gemini", "newer"])
@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", REQUESTS | MORE)
def test_the_same_is_asked(
    request: pytest.FixtureRequest, back_end: BackEnd, name: str, streams: bool, which: str
) -> None:
    asked = []
    for engine in ENGINES:
        answers(back_end, streamed_or_whole(part({"text": "x"}, finish="STOP", usage=True), streams))
        fields = {"stream": streams, "tools": [READ], **(REQUESTS | MORE)[name]}
        reply = ask(request.getfixturevalue(which), engine, **fields)
        assert reply.status == 200, reply.body
        sent = back_end.last
        keys = sent.header("x-goog-api-key"), sent.header("authorization")
        asked.append((sent.path, keys, differently(sent.json)))
    assert asked[0] == asked[1]


@pytest.mark.parametrize("recorded", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_the_same_is_asked_for_claude_code(gemini: Running, back_end: BackEnd, recorded: Path) -> None:
    body = json.loads(recorded.read_text(encoding="utf-8"))["body"]
    asked = []
    for engine in ENGINES:
        answers(back_end, streamed_or_whole(part({"text": "x"}, finish="STOP", usage=True), body["stream"]))
        assert gemini.post({**body, "model": engine}, anthropic_version="2023-06-01").status_code == 200
        asked.append((back_end.last.path, differently(back_end.last.json)))
    assert asked[0] == asked[1]


def test_a_schema_goes_out_as_it_is(gemini: Running, back_end: BackEnd) -> None:
    schema = {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}
    answers(back_end, TALK)
    assert ask(gemini, "direct", stream=True, tools=[{"name": "read", "input_schema": schema}]).status == 200
    (tool,) = back_end.last.json["tools"]
    assert tool["functionDeclarations"] == [{"name": "read", "parametersJsonSchema": schema}]


def test_a_thought_signature_comes_back_with_the_next_turn(gemini: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer(part(CALL, finish="STOP", usage=True)))
    said = ask(gemini, "direct", tools=[READ]).json["content"]
    (use,) = [block for block in said if block["type"] == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": use["id"], "content": "text"}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": said},
        {"role": "user", "content": [result]},
    ]
    answers(back_end, TALK)
    assert ask(gemini, "direct", tools=[READ], messages=messages, stream=True).status == 200
    (_, model, _) = back_end.last.json["contents"]
    assert model["parts"] == [
        {"functionCall": {"name": "read", "args": {"path": "a"}}, "thoughtSignature": "c2ln"}
    ]


def test_a_call_without_arguments_stays_one(gemini: Running, back_end: BackEnd) -> None:
    """LiteLLM makes `{"type": "object"}` of it."""
    use = {"type": "tool_use", "id": "c1", "name": "read", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "text"}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    answers(back_end, TALK)
    ask(gemini, "direct", tools=[READ], messages=messages, stream=True)
    assert back_end.last.json["contents"][1]["parts"][0]["functionCall"]["args"] == {}


@pytest.mark.parametrize("said", [{"args": None}, {}], ids=["null for arguments", "no arguments"])
def test_a_call_that_brings_no_arguments_has_none(
    gemini: Running, back_end: BackEnd, said: dict[str, Any]
) -> None:
    answers(back_end, json_answer(part({"functionCall": {"name": "read", **said}}, finish="STOP")))
    (use,) = ask(gemini, "direct", tools=[READ]).json["content"]
    assert use["input"] == {}


def test_half_an_emoji_is_no_reason_to_fail(gemini: Running, back_end: BackEnd) -> None:
    half = b'data: {"candidates":[{"content":{"parts":[{"text":"a\\ud83d"}]},"finishReason":"STOP"}]}\r\n\r\n'
    answers(back_end, stream(half))
    assert ask(gemini, "direct", stream=True).text.startswith("a")


def test_the_back_end_is_let_go_when_the_client_leaves() -> None:
    with BackEnd(stream(part({"text": "a"}), HANG)) as hanging:
        assert leave(call(target("gemini", hanging.url, "gemini-2.5-pro", engine="direct")), hanging) < 1


@pytest.mark.parametrize(
    ("model", "within", "apart"),
    [
        pytest.param("gemini-2.5-pro", 0, 1, id="2.5 refuses functionResponse.parts"),
        pytest.param("gemini-3-pro-preview", 1, 0, id="3 takes them"),
    ],
)
def test_b20_a_picture_in_a_result_stands_where_the_generation_takes_it(
    model: str, within: int, apart: int
) -> None:
    asked = translate(
        *MORE["a picture from a tool"]["messages"], profile=profile_of(target("gemini", None, model))
    )
    contents = json.loads(gemini_request(asked.chat, model))["contents"]
    parts = [part for content in contents for part in content["parts"]]
    responses = [part["functionResponse"] for part in parts if "functionResponse" in part]
    assert sum(len(response.get("parts", ())) for response in responses) == within
    assert sum("inlineData" in part for part in parts) == apart
