"""Models that want Responses, on Azure and at OpenAI, directly and through LiteLLM's bridge: real bytes."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.backend import CUT, HANG, RESET, BackEnd, Step, chunk, done, error, json_answer, sse, streamed
from tests.upstream.litellm.asking import (
    LITELLMS_WARNINGS,
    ask,
    call,
    chat,
    failure,
    leave,
    said,
    target,
    until_failure,
)

pytestmark = LITELLMS_WARNINGS

RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "gpt-5.4",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 6,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 16,
    },
}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_9", "name": "read", "status": "completed"}


def event(type: str, **fields: Any) -> bytes:
    return f"event: {type}\ndata: {json.dumps({'type': type, **fields})}\n\n".encode()


STARTS = event("response.created", response=RESPONSE | {"status": "in_progress", "usage": None})
TEXT = [
    event(
        "response.output_item.added",
        output_index=1,
        item={"type": "message", "id": "m", "role": "assistant", "content": []},
    ),
    event("response.output_text.delta", item_id="m", output_index=1, content_index=0, delta="Hello"),
]
TALK = streamed(
    STARTS,
    event(
        "response.output_item.added", output_index=0, item={"type": "reasoning", "id": "rs", "summary": []}
    ),
    event(
        "response.reasoning_summary_text.delta", item_id="rs", output_index=0, summary_index=0, delta="Hm."
    ),
    *TEXT,
    event(
        "response.output_item.added", output_index=2, item=CALL | {"arguments": "", "status": "in_progress"}
    ),
    event("response.function_call_arguments.delta", item_id="fc_1", output_index=2, delta='{"path":'),
    event("response.function_call_arguments.delta", item_id="fc_1", output_index=2, delta='"a"}'),
    event("response.function_call_arguments.done", item_id="fc_1", output_index=2, arguments='{"path":"a"}'),
    event("response.output_item.done", output_index=2, item=CALL | {"arguments": '{"path":"a"}'}),
    event("response.completed", response=RESPONSE),
)

AZURE = "/openai/responses?api-version=2025-04-01-preview"
VERSION = {"api_version": "2025-04-01-preview"}
DIRECT = {"engine": "direct"}
ROUTES = [
    pytest.param("azure", "", "dep", {"api": "responses", "options": VERSION}, AZURE, id="azure"),
    pytest.param(
        "openai", "/v1", "gpt-9", {"api": "responses"}, "/v1/responses", id="openai, because the rules say so"
    ),
    pytest.param("openai", "/v1", "gpt-5.4", {}, "/v1/responses", id="openai, because the model needs it"),
    pytest.param(
        "azure",
        "",
        "dep",
        {"api": "responses", "options": VERSION} | DIRECT,
        AZURE,
        id="azure, directly",
    ),
    pytest.param(
        "azure", "", "o4-mini", {"options": VERSION} | DIRECT, AZURE, id="azure, directly, since it reasons"
    ),
    pytest.param(
        "azure",
        "/openai/v1",
        "dep",
        {"api": "responses"} | DIRECT,
        "/openai/v1/responses",
        id="azure without versions, directly",
    ),
    pytest.param(
        "openai", "/v1", "gpt-9", {"api": "responses"} | DIRECT, "/v1/responses", id="openai, directly"
    ),
    pytest.param(
        "openai_compatible",
        "/v1",
        "m",
        {"api": "responses"} | DIRECT,
        "/v1/responses",
        id="a gateway, directly",
    ),
]
WITH_TOOLS = chat(tools=True, reasoning_effort="high")


def system_texts(body: dict[str, Any]) -> Iterator[str]:
    """What the model is told first: `instructions`, or items of the system's among the others (LiteLLM's way
    since 1.110)."""
    if "instructions" in body:
        yield body["instructions"]
    for item in body["input"]:
        if item.get("role") in ("system", "developer"):
            yield from (
                [item["content"]]
                if isinstance(item["content"], str)
                else (part["text"] for part in item["content"])
            )


@pytest.mark.parametrize(("type", "base", "model", "more", "path"), ROUTES)
def test_a_stream_comes_through_whole(
    type: str, base: str, model: str, more: dict[str, Any], path: str
) -> None:
    with BackEnd(TALK) as back_end:
        lines = said(ask(call(target(type, back_end.url + base, model, **more)), WITH_TOOLS))
    assert [line for line in lines if line not in ("call 0", "ends stop", "ends tool_calls")] == [
        "thought Hm.",
        "text Hello",
        "call 0 read",
        'call 0  {"path":',
        'call 0  "a"}',
        "usage 10 6",
    ]
    sent = back_end.last
    assert sent.path == path
    assert (sent.json["model"], sent.json["stream"], sent.json["store"]) == (model, True, False)
    assert sent.json["reasoning"]["effort"] == "high"
    assert [*system_texts(sent.json)] == ["Be brief."]
    assert sent.header("api-key" if type == "azure" else "authorization") in ("KEY-1", "Bearer KEY-1")


@pytest.mark.parametrize(("type", "base", "model", "more", "path"), ROUTES)
def test_a_whole_answer_comes_through(
    type: str, base: str, model: str, more: dict[str, Any], path: str
) -> None:
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
    output = [message | {"content": [{"type": "output_text", "text": "Hello", "annotations": []}]}]
    with BackEnd(json_answer(RESPONSE | {"output": output})) as back_end:
        lines = said(
            ask(
                call(target(type, back_end.url + base, model, **more)),
                chat(tools=True, stream=False, reasoning_effort="high"),
            )
        )
    assert lines == ["text Hello", "ends stop", "usage 10 6"]


@pytest.mark.parametrize(
    ("answered", "kind", "message"),
    [
        pytest.param(error(400, "odd"), "invalid_request", "odd", id="400"),
        pytest.param(error(429, "slow", retry_after="3"), "rate_limit", "slow", id="429"),
        pytest.param(streamed(STARTS, *TEXT, RESET), "connection", "closed", id="reset"),
        pytest.param(streamed(STARTS, *TEXT, CUT), "connection", "closed", id="cut"),
        pytest.param(
            streamed(
                STARTS,
                *TEXT,
                event(
                    "response.failed",
                    response=RESPONSE
                    | {"status": "failed", "error": {"code": "server_error", "message": "the engine died"}},
                ),
            ),
            "server_error",
            "the engine died",
            id="failed",
        ),
    ],
)
@pytest.mark.parametrize(("type", "base", "model", "more", "path"), ROUTES)
def test_an_error_keeps_its_meaning(
    type: str,
    base: str,
    model: str,
    more: dict[str, Any],
    path: str,
    answered: list[Step],
    kind: str,
    message: str,
) -> None:
    with BackEnd(answered) as back_end:
        found = failure(call(target(type, back_end.url + base, model, **more)), WITH_TOOLS)
    assert found.kind == kind
    assert message in found.message


@pytest.mark.parametrize(("type", "base", "model", "more", "path"), ROUTES)
def test_an_answer_cut_at_its_limit_says_so(
    type: str, base: str, model: str, more: dict[str, Any], path: str
) -> None:
    last = RESPONSE | {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    with BackEnd(streamed(STARTS, *TEXT, event("response.incomplete", response=last))) as back_end:
        lines = said(ask(call(target(type, back_end.url + base, model, **more)), WITH_TOOLS))
    assert "ends length" in lines


@pytest.mark.parametrize(("type", "base", "model", "more", "path"), ROUTES)
def test_the_back_end_is_let_go_when_the_client_leaves(
    type: str, base: str, model: str, more: dict[str, Any], path: str
) -> None:
    with BackEnd(streamed(STARTS, *TEXT, HANG)) as back_end:
        assert leave(call(target(type, back_end.url + base, model, **more)), back_end, WITH_TOOLS) < 1


@pytest.mark.parametrize(("type", "base", "model", "more", "path"), ROUTES)
def test_no_end_is_invented_for_a_stream_that_ceased(
    type: str, base: str, model: str, more: dict[str, Any], path: str
) -> None:
    with BackEnd(streamed(STARTS, *TEXT)) as back_end:
        lines = until_failure(call(target(type, back_end.url + base, model, **more)), WITH_TOOLS)
    assert lines == ["text Hello"]


def test_an_organisation_that_may_not_see_summaries_is_asked_without_and_that_is_remembered() -> None:
    refused = json_answer(
        {
            "error": {
                "message": "Your organization must be verified to generate reasoning summaries.",
                "type": "invalid_request_error",
                "param": "reasoning.summary",
                "code": "unsupported_value",
            }
        },
        400,
    )
    with BackEnd(refused, TALK, TALK) as back_end:
        one = call(
            target("openai", f"{back_end.url}/v1", "gpt-9", api="responses", name="unverified", **DIRECT)
        )
        for _ in range(2):
            assert "text Hello" in said(ask(one, WITH_TOOLS))
    asked = [received.json["reasoning"] for received in back_end.requests]
    assert asked == [{"effort": "high", "summary": "auto"}, {"effort": "high"}, {"effort": "high"}]


@pytest.mark.parametrize("engine", ["direct", "litellm"])
def test_a_model_of_openai_that_does_not_need_it_gets_chat_completions(engine: str) -> None:
    with BackEnd(sse(chunk("a"), done())) as back_end:
        ask(call(target("openai", f"{back_end.url}/v1", "gpt-4.1", engine=engine)), WITH_TOOLS)
    assert back_end.last.path == "/v1/chat/completions"


@pytest.mark.parametrize("engine", ["direct", "litellm"])
def test_a_gateways_model_gets_chat_completions_whatever_its_name(engine: str) -> None:
    with BackEnd(sse(chunk("a"), done())) as back_end:
        found = target("openai_compatible", f"{back_end.url}/v1", "gpt-5.4", engine=engine)
        ask(call(found), WITH_TOOLS)
    assert back_end.last.path == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("", "/openai/deployments/dep/chat/completions?api-version=2024-10-21"),
        ("/openai/deployments/dep", "/openai/deployments/dep/chat/completions?api-version=2024-10-21"),
        ("/openai/v1", "/openai/v1/chat/completions"),
    ],
)
def test_azure_takes_a_resource_a_deployment_or_the_api_without_versions(base: str, path: str) -> None:
    with BackEnd(sse(chunk("a"), done())) as back_end:
        ask(call(target("azure", back_end.url + base, "dep", options={"api_version": "2024-10-21"})))
    assert back_end.last.path == path
    assert back_end.last.json["model"] == "dep"
