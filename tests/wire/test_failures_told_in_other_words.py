"""Failures of servers that speak Messages in words of their own, and statuses and bodies that no API sends,
as a client sees them."""

# ruff: noqa: E501 - the words of back ends stand on one line each

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.backend import (
    BackEnd,
    Step,
    answer,
    completion,
    data,
    error,
    event,
    json_answer,
    messages_stream,
    streamed,
)
from tests.running import Running, running
from tests.upstream.litellm.asking import LITELLMS_WARNINGS
from tests.wire.asking import KEY, answers, ask, message

pytestmark = LITELLMS_WARNINGS

RULES = """
[providers.far]
type = "anthropic"
base_url = "{url}"
api_key = "env:KEY"

[providers.corp]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "env:KEY"

[[rules]]
match.model.equals = "chat"
targets = ["corp/gpt-x"]

[[rules]]
match.model.equals = "two"
targets = ["far/m", "corp/gpt-x"]

[default]
targets = ["far/m"]
"""


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    rules = RULES.format(url=back_end.url)
    with running(rules, tmp_path_factory.mktemp("rules"), {"KEY": KEY}) as proxy:
        yield proxy


def api_error(words: str, status: int = 400, type: str = "invalid_request_error") -> list[Step]:
    return json_answer({"type": "error", "error": {"type": type, "message": words}}, status)


def error_event(words: str, type: str = "invalid_request_error") -> list[Step]:
    return streamed(messages_stream()[0], event("error", error={"type": type, "message": words}))


TOO_LONG = "prompt is too long: 5000 tokens > 4096 maximum"
FOREIGN: list[Any] = [
    pytest.param("This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens.", TOO_LONG, id="vLLM"),
    pytest.param("request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it", TOO_LONG, id="llama.cpp"),
    pytest.param("the input length exceeds the context length", "capability_rejected: prompt_too_long (the input length exceeds the context length)", id="Ollama"),
    pytest.param("max_tokens must be at least 1, got -853", "capability_rejected: prompt_too_long (max_tokens must be at least 1, got -853)", id="NIM"),
    pytest.param("System message must be at the beginning.", "capability_rejected: mid_conv_system (System message must be at the beginning.)", id="a template"),
    pytest.param("image input is not supported", "capability_rejected: image_block (image input is not supported)", id="no eyes"),
]  # fmt: skip


@pytest.mark.parametrize("place", [api_error, error_event], ids=["status", "event"])
@pytest.mark.parametrize(("words", "shown"), FOREIGN)
def test_what_a_foreign_server_says_in_the_apis_shape_is_put_into_the_apis_words(
    proxy: Running, back_end: BackEnd, place: Any, words: str, shown: str
) -> None:
    answers(back_end, place(words))
    assert ask(proxy, stream=True).error == (400, "invalid_request_error", shown)


OWN: list[Any] = [
    pytest.param(TOO_LONG, id="overflow"),
    pytest.param("input length and `max_tokens` exceed context limit: 1000 + 4000 > 4096, decrease input length or `max_tokens` and try again", id="both"),
    pytest.param("max_tokens: 9000 > 8192, which is the maximum allowed number of output tokens for claude-x", id="output"),
    pytest.param("Input is too long.", id="Bedrock's"),
    pytest.param("Input is too long for requested model.", id="Bedrock's, longer"),
    pytest.param("capability_rejected: image_block", id="a token"),
    pytest.param("messages.1.content.0: Invalid `signature` in `thinking` block", id="signature"),
    pytest.param("This model does not support the effort parameter.", id="effort"),
    pytest.param("context_management: Extra inputs are not permitted", id="field"),
    pytest.param("messages.3: role 'system' is not supported on this model", id="system"),
    pytest.param("Your credit balance is too low to access the Anthropic API.", id="credit"),
    pytest.param("messages.0.content: the user says that prompt is too long", id="an echo"),
]  # fmt: skip


@pytest.mark.parametrize("words", OWN)
def test_what_the_api_says_itself_goes_out_as_it_came(proxy: Running, back_end: BackEnd, words: str) -> None:
    body = json.dumps(
        {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": words},
            "request_id": "req_up",
        }
    )
    answers(back_end, answer(400, body.encode(), content_type="application/json"))
    reply = ask(proxy)
    assert (reply.status, reply.body) == (400, body.encode())


def test_a_body_that_is_too_large_for_the_api_is_told_as_it_tells_it(
    proxy: Running, back_end: BackEnd
) -> None:
    answers(back_end, api_error("Request exceeds the maximum size", 413, "request_too_large"))
    assert ask(proxy).error == (413, "request_too_large", "Request exceeds the maximum size")


both = pytest.mark.parametrize("model", ["messages", "chat"])


@both
def test_a_403_for_what_was_asked_is_no_refused_key(proxy: Running, back_end: BackEnd, model: str) -> None:
    flagged = {
        "error": {"code": 403, "message": "Your input was flagged", "metadata": {"flagged_input": "x"}}
    }
    answers(back_end, json_answer(flagged, 403))
    reply = ask(proxy, model)
    assert (reply.status, reply.json["stop_reason"]) == (200, "refusal")
    answers(
        back_end,
        json_answer(
            {
                "type": "error",
                "error": {
                    "type": "permission_error",
                    "message": "Country, region, or territory not supported",
                },
            },
            403,
        ),
    )
    assert ask(proxy, model).error == (
        400,
        "invalid_request_error",
        "Country, region, or territory not supported",
    )


@both
@pytest.mark.parametrize(
    ("status", "shown", "type"),
    [
        *((status, 502, "api_error") for status in (101, 407, 418, 421, 425, 498, 499, 600, 999)),
        (408, 504, "timeout_error"),
    ],
)
@pytest.mark.parametrize("body", [b"<html>no</html>", b""], ids=["page", "nothing"])
def test_a_status_that_nobody_expects_is_a_failure_of_the_back_end(
    proxy: Running, back_end: BackEnd, model: str, status: int, shown: int, type: str, body: bytes
) -> None:
    answers(back_end, answer(status, body, content_type="text/html"))
    reply = ask(proxy, model)
    assert reply.error[:2] == (shown, type)
    assert len(back_end.requests) == 1


@pytest.mark.parametrize("status", [407, 421, 425, 498, 499, 600])
def test_nor_is_it_relayed_in_the_apis_shape(proxy: Running, back_end: BackEnd, status: int) -> None:
    answers(back_end, api_error("odd", status, "api_error"))
    assert ask(proxy).error == (502, "api_error", "odd")


def test_a_4xx_of_a_firewall_leads_to_the_next_target(proxy: Running, back_end: BackEnd) -> None:
    answers(
        back_end,
        answer(403, b"<html>blocked</html>", content_type="text/html"),
        json_answer(completion("Hello")),
    )
    reply = ask(proxy, "two")
    assert (reply.status, reply.text) == (200, "Hello")


def test_a_500_that_never_works_is_not_worth_another_try(proxy: Running, back_end: BackEnd) -> None:
    words = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
    answers(back_end, json_answer({"error": {"code": 500, "message": words, "type": "server_error"}}, 500))
    assert ask(proxy).error == (400, "invalid_request_error", f"capability_rejected: image_block ({words})")


def test_nor_is_one_in_the_apis_shape(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, api_error("Jinja Exception: No user query found in messages.", 500, "api_error"))
    assert ask(proxy).error == (400, "invalid_request_error", "No user query found in messages.")


@both
def test_geminis_and_other_waits_become_a_retry_after(proxy: Running, back_end: BackEnd, model: str) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "23.4s"}
    body = {"error": {"code": 429, "message": "full", "status": "RESOURCE_EXHAUSTED", "details": [info]}}
    answers(back_end, json_answer(body, 429))
    assert ask(proxy, model).headers["retry-after"] == "24"


# --- error events that lack an error


SHAPELESS: list[Any] = [
    pytest.param({"type": "error", "message": "boom"}, "boom", id="bare"),
    pytest.param({"type": "error", "error": "boom"}, "boom", id="words in its place"),
    pytest.param({"error": {"message": "boom", "code": 500}}, "boom", id="OpenAI's"),
    pytest.param({"type": "error", "error": None}, "reported an error", id="nothing"),
    pytest.param({"detail": "boom"}, "boom", id="FastAPI's"),
    pytest.param("boom", "boom", id="a string"),
]


@pytest.mark.parametrize(("value", "words"), SHAPELESS)
def test_an_error_event_without_an_error_is_rebuilt(
    proxy: Running, back_end: BackEnd, value: Any, words: str
) -> None:
    frame = b"event: error\n" + data(value)
    answers(back_end, streamed(*messages_stream()[:4], frame))
    script = ask(proxy, stream=True).script
    assert script[0] == "text Hello"
    assert script[-1].startswith("error api_error: ")
    assert words in script[-1]
    answers(back_end, streamed(messages_stream()[0], frame))
    status, type, shown = ask(proxy, stream=True).error
    assert (status in (500, 502), type) == (True, "api_error")
    assert words in shown


def test_an_error_event_that_is_one_goes_out_as_it_came(proxy: Running, back_end: BackEnd) -> None:
    frame = event("error", error={"type": "overloaded_error", "message": "Overloaded", "more": 1})
    answers(back_end, streamed(*messages_stream()[:4], frame))
    assert ask(proxy, stream=True).body.endswith(frame)


# --- bodies under another name


@pytest.mark.parametrize("stream", [True, False], ids=["asked as a stream", "asked whole"])
@pytest.mark.parametrize(
    "content_type", ["application/json", "text/event-stream", "text/plain", "text/html", ""]
)
@pytest.mark.parametrize("events", [True, False], ids=["events", "JSON"])
def test_a_message_is_read_as_what_it_is(
    proxy: Running, back_end: BackEnd, events: bool, content_type: str, stream: bool
) -> None:
    body = b"".join(messages_stream()) if events else json.dumps(message("Hello")).encode()
    headers = {"content_type": content_type} if content_type else {}
    answers(back_end, answer(200, body, **headers))
    assert ask(proxy, stream=stream).text == "Hello"


@both
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("content_type", ["text/html", "application/json", "text/event-stream"])
def test_a_page_with_200_is_called_that(
    proxy: Running, back_end: BackEnd, model: str, content_type: str, stream: bool
) -> None:
    answers(back_end, answer(200, b"<!DOCTYPE html><html>Sign in</html>", content_type=content_type))
    status, type, words = ask(proxy, model, stream=stream).error
    assert (status, type) == (502, "api_error")
    assert "answered with a web page in place of a completion" in words


@both
@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "slow", "type": "tokens", "code": "rate_limit_exceeded"}},
        {"object": "error", "message": "slow", "code": "rate_limit_exceeded"},
        {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}},
    ],
    ids=["OpenAI's", "vLLM's", "Anthropic's"],
)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_an_error_inside_a_200_is_its_status(
    proxy: Running, back_end: BackEnd, model: str, body: dict[str, Any], stream: bool
) -> None:
    answers(back_end, json_answer(body))
    assert ask(proxy, model, stream=stream).error == (429, "rate_limit_error", "slow")


def test_gateways_appendices_are_no_words_of_the_error(proxy: Running, back_end: BackEnd) -> None:
    words = "litellm.BadRequestError: OpenAIException - bad tool. Received Model Group=gpt\nAvailable Model Group Fallbacks=None"
    answers(back_end, error(400, words))
    assert ask(proxy, "chat").error == (400, "invalid_request_error", "bad tool")
