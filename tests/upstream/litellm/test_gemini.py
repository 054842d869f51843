"""Gemini, by its own API and on Vertex, through LiteLLM, and Vertex by our own engine too: real bytes both
ways."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from routeproxy.chat.request import Assistant, FunctionCall, System, ToolCall, ToolMessage, User
from routeproxy.upstream.chat.profiles import profile_of
from tests.backend import CUT, HANG, RESET, BackEnd, Step, data, json_answer, streamed
from tests.google import token, write_service_account
from tests.translate.asking import ask as translate
from tests.translate.asking import user
from tests.upstream.litellm.asking import LITELLMS_WARNINGS, ask, call, chat, failure, leave, said, target

pytestmark = LITELLMS_WARNINGS

USAGE = {
    "promptTokenCount": 10,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 3,
    "totalTokenCount": 18,
    "cachedContentTokenCount": 4,
}


def part(*parts: dict[str, Any], finish: str | None = None, usage: bool = False) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [*parts], "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "gemini-2.5-pro", "responseId": "r"} | (
        {"usageMetadata": USAGE} if usage else {}
    )


def stream(*steps: dict[str, Any] | Step) -> list[Step]:
    return streamed(*[data(step) if isinstance(step, dict) else step for step in steps])


THOUGHT = {"text": "Hm.", "thought": True}
CALL = {"functionCall": {"name": "read", "args": {"path": "a"}}, "thoughtSignature": "c2ln"}
TALK = stream(
    part(THOUGHT), part({"text": "Hel"}), part({"text": "lo"}), part(CALL), part(finish="STOP", usage=True)
)


def gemini(back_end: BackEnd, model: str = "gemini-2.5-pro", **more: Any) -> Any:
    return call(target("gemini", f"{back_end.url}/v1beta", model, **more))


@pytest.fixture(params=["direct", "litellm"])
def vertex(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A target on Vertex whose credentials are a file, and whose token endpoint is a scripted back end."""

    def made(tokens: BackEnd, back_end: BackEnd, model: str = "gemini-2.5-pro") -> Any:
        credentials = write_service_account(tmp_path / "adc.json", tokens.url)
        options = {"project": "proj", "location": "us-central1", "credentials": str(credentials)}
        return call(target("vertex_ai", back_end.url, model, options=options, engine=request.param), key=None)

    return made


def test_a_stream_comes_through_whole() -> None:
    with BackEnd(TALK) as back_end:
        chunks = ask(gemini(back_end), chat(tools=True, reasoning_effort="high", top_k=40, stop=("END",)))
    assert said(chunks) == [
        "thought Hm.",
        "text Hel",
        "text lo",
        'call 0 read {"path": "a"}',
        "ends STOP",
        "usage 10 8",
    ]
    called = next(
        c.choices[0].delta.tool_calls[0]
        for c in chunks
        if c.choices[0].delta and c.choices[0].delta.tool_calls
    )
    assert "__thought__" not in called.id
    assert called.provider_specific_fields["thought_signature"] == "c2ln"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens_details is not None
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 4
    sent = back_end.last
    assert sent.path == "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    assert (sent.header("x-goog-api-key"), sent.header("authorization")) == ("KEY-1", None)
    wanted = sent.json["generationConfig"]
    assert (wanted["top_k"], wanted["stop_sequences"], wanted["max_output_tokens"]) == (40, ["END"], 50)
    assert wanted["thinkingConfig"]["includeThoughts"] is True


def test_a_whole_answer_comes_through() -> None:
    with BackEnd(json_answer(part(THOUGHT, {"text": "Hello"}, CALL, finish="STOP", usage=True))) as back_end:
        chunks = ask(gemini(back_end), chat(tools=True, stream=False))
    assert said(chunks) == [
        "thought Hm.",
        "text Hello",
        'call 0 read {"path": "a"}',
        "ends STOP",
        "usage 10 8",
    ]
    assert back_end.last.path == "/v1beta/models/gemini-2.5-pro:generateContent"


def test_an_emoji_cut_in_two_does_not_end_the_answer() -> None:
    halves = stream(part({"text": "a\ud83d"}), part({"text": "\ude00b"}), part(finish="STOP", usage=True))
    with BackEnd(halves) as back_end:
        assert said(ask(gemini(back_end)))[:2] == ["text a\ud83d", "text \ude00b"]


def test_a_whole_answer_may_end_in_half_an_emoji() -> None:
    with BackEnd(json_answer(part({"text": "a\ud83d"}, finish="MAX_TOKENS", usage=True))) as back_end:
        assert said(ask(gemini(back_end), chat(stream=False)))[0] == "text a\ud83d"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b'data: {"candidates": [{"content": 5}]}\n\n', id="a number for a content"),
        pytest.param(b'data: {"candidates": 7}\n\n', id="a number for the candidates"),
    ],
)
def test_a_chunk_that_cannot_be_read_is_said_in_our_words(sent: bytes) -> None:
    with BackEnd(streamed(data(part({"text": "a"})), sent, data(part(finish="STOP")))) as back_end:
        failed = failure(gemini(back_end))
    assert failed.kind == "connection"
    assert failed.message == "the back end corp answered with something that is not a completion"


def test_a_thought_signature_goes_back_where_it_came_from() -> None:
    signed = ToolCall(
        id="call_1",
        function=FunctionCall("read", '{"path":"a"}'),
        provider_specific_fields=Raw(b'{"thought_signature":"c2ln"}'),
    )
    messages = (
        System("Be brief."),
        User("Hi"),
        Assistant(None, tool_calls=(signed,)),
        ToolMessage("call_1", "text"),
    )
    with BackEnd(TALK) as back_end:
        ask(gemini(back_end), chat(tools=True, messages=messages))
    parts = [one for turn in back_end.last.json["contents"] for one in turn["parts"]]
    assert [one["thoughtSignature"] for one in parts if "thoughtSignature" in one] == ["c2ln"]


def test_a_model_that_no_table_knows_may_reason() -> None:
    with BackEnd(TALK) as back_end:
        ask(gemini(back_end, "gemini-9-ultra"), chat(tools=True, reasoning_effort="high"))
    assert "thinkingConfig" in back_end.last.json["generationConfig"]
    assert back_end.last.json["tools"]


def test_an_address_without_a_version_gets_one() -> None:
    with BackEnd(TALK) as back_end:
        ask(call(target("gemini", back_end.url, "gemini-2.5-pro")))
    assert back_end.last.path.startswith("/v1beta/models/")


@pytest.mark.parametrize(
    "reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MISSING_THOUGHT_SIGNATURE"]
)
def test_a_finish_reason_that_means_failure_is_not_turned_into_stop(reason: str) -> None:
    last = part({"text": "a"}, finish=reason, usage=True)
    with BackEnd(stream(part({"text": "a"}), last), json_answer(last)) as back_end:
        assert f"ends {reason}" in said(ask(gemini(back_end)))
        assert f"ends {reason}" in said(ask(gemini(back_end), chat(stream=False)))


def test_a_safety_stop_is_a_content_filter() -> None:
    with BackEnd(stream(part({"text": "a"}), part(finish="SAFETY", usage=True))) as back_end:
        assert "ends SAFETY" in said(ask(gemini(back_end)))


@pytest.mark.parametrize(
    ("answered", "kind", "message", "wait"),
    [
        pytest.param(
            json_answer([{"error": {"code": 400, "message": "odd", "status": "INVALID_ARGUMENT"}}], 400),
            "invalid_request",
            "odd",
            None,
            id="400",
        ),
        pytest.param(
            json_answer(
                {"error": {"code": 403, "message": "denied KEY-1", "status": "PERMISSION_DENIED"}}, 403
            ),
            "auth",
            "credentials",
            None,
            id="403",
        ),
        pytest.param(
            json_answer(
                {"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}},
                429,
                retry_after="9",
            ),
            "rate_limit",
            "slow",
            9.0,
            id="429",
        ),
        pytest.param(
            json_answer({"error": {"code": 500, "message": "oh", "status": "INTERNAL"}}, 500),
            "server_error",
            "oh",
            None,
            id="500",
        ),
        pytest.param(stream(part({"text": "a"}), RESET), "connection", "closed", None, id="reset"),
        pytest.param(stream(part({"text": "a"}), CUT), "connection", "closed", None, id="cut"),
        pytest.param(
            stream(
                part({"text": "a"}),
                {"error": {"code": 503, "message": "The model is overloaded", "status": "UNAVAILABLE"}},
            ),
            "overloaded",
            "overloaded",
            None,
            id="error in the stream",
        ),
        pytest.param([CUT], "connection", "closed", None, id="cut before the head"),
    ],
)
def test_an_error_keeps_its_meaning(
    answered: list[Step], kind: str, message: str, wait: float | None
) -> None:
    with BackEnd(answered) as back_end:
        found = failure(gemini(back_end))
    assert (found.kind, found.retry_after) == (kind, wait)
    assert message in found.message
    assert "KEY-1" not in found.message
    assert len(back_end.requests) == 1


def test_the_back_end_is_let_go_when_the_client_leaves() -> None:
    with BackEnd(stream(part({"text": "a"}), HANG)) as back_end:
        assert leave(gemini(back_end), back_end) < 1


def test_vertex_signs_in_with_application_default_credentials(vertex: Any) -> None:
    with BackEnd(token()) as tokens, BackEnd(TALK) as back_end:
        lines = said(ask(vertex(tokens, back_end), chat(tools=True, reasoning_effort="low")))
    assert lines[-2] == "ends STOP"
    assert lines[-1] == "usage 10 8"
    assert back_end.last.header("authorization") == "Bearer TOKEN-1"
    assert (
        "/projects/proj/locations/us-central1/publishers/google/models/gemini-2.5-pro:streamGenerateContent"
        in back_end.last.path
    )


def test_vertex_behind_a_gateway_takes_the_gateways_key(vertex: Any) -> None:
    with BackEnd(token()) as tokens, BackEnd(TALK) as back_end:
        ask(msgspec.structs.replace(vertex(tokens, back_end), key="GATEWAY-1"))
    assert back_end.last.header("authorization") == "Bearer GATEWAY-1"
    assert tokens.requests == []


def test_vertex_is_let_go_when_the_client_leaves(vertex: Any) -> None:
    with BackEnd(token()) as tokens, BackEnd(stream(part({"text": "a"}), HANG)) as back_end:
        assert leave(vertex(tokens, back_end), back_end) < 1


@pytest.mark.parametrize("engine", ["direct", "litellm"])
def test_a_schema_that_is_true_is_no_failure(engine: Any) -> None:
    schema = {"type": "object", "properties": {"a": True, "b": {"anyOf": [True, {"type": "null"}]}}}
    with BackEnd(TALK) as back_end:
        one = target("gemini", back_end.url, "gemini-2.5-flash", engine=engine)
        tools = [{"name": "read", "input_schema": schema}]
        asked = translate(user("hi"), profile=profile_of(one), stream=True, tools=tools)
        assert ask(call(one), asked.chat)
    assert '"a": true' not in json.dumps(back_end.last.json["tools"])
