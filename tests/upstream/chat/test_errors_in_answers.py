"""Errors of chat back ends, over real bytes: each format, each place where it puts an error, one meaning. And
bodies under a wrong `content-type`, which are read by their first byte."""

# ruff: noqa: E501 - a body stands on one line

import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import pytest

from routeproxy.exchange import Call
from tests.backend import (
    BackEnd,
    Step,
    answer,
    chunk,
    completion,
    data,
    done,
    event,
    json_answer,
    sse,
    streamed,
)
from tests.upstream.litellm.asking import LITELLMS_WARNINGS, ask, call, chat, failure, said, target

pytestmark = LITELLMS_WARNINGS

Script = Callable[[int, dict[str, Any]], list[Step]]


class Format(NamedTuple):
    type: str
    base: str = "/v1"
    model: str = "m"
    api: Literal["chat", "responses"] | None = None

    def call(self, back_end: BackEnd) -> Call:
        return call(target(self.type, back_end.url + self.base, self.model, engine="direct", api=self.api))


CHAT = Format("openai_compatible")
RESPONSES = Format("openai_compatible", api="responses")
GEMINI = Format("gemini", "", "gemini-2.5-pro")
OLLAMA = Format("ollama", "", "llama3.3")


def lines(*values: object, **headers: str) -> list[Step]:
    text = [json.dumps(value).encode() + b"\n" for value in values]
    return streamed(*text, **{"content_type": "application/x-ndjson", **headers})


def as_status(status: int, error: dict[str, Any]) -> list[Step]:
    return json_answer({"error": error}, status)


def response(**fields: Any) -> dict[str, Any]:
    return {"id": "r", "object": "response", "model": "m", "output": [], **fields}


PLACES: list[Any] = [
    pytest.param(CHAT, as_status, id="chat, status"),
    pytest.param(CHAT, lambda status, error: sse({"error": error}), id="chat, first chunk"),
    pytest.param(CHAT, lambda status, error: sse(chunk("a"), {"error": error}), id="chat, after text"),
    pytest.param(CHAT, lambda status, error: json_answer({"error": error}), id="chat, inside a 200"),
    pytest.param(CHAT, lambda status, error: sse({"object": "error", **error}), id="chat, bare"),
    pytest.param(RESPONSES, as_status, id="Responses, status"),
    pytest.param(
        RESPONSES,
        lambda status, error: streamed(
            event("response.failed", response=response(status="failed", error=error))
        ),
        id="Responses, failed",
    ),
    pytest.param(
        RESPONSES, lambda status, error: streamed(event("error", error=error)), id="Responses, error"
    ),
    pytest.param(
        RESPONSES,
        lambda status, error: json_answer(response(status="failed", error=error)),
        id="Responses, inside a 200",
    ),
    pytest.param(GEMINI, as_status, id="Gemini, status"),
    pytest.param(GEMINI, lambda status, error: sse({"error": error}), id="Gemini, first event"),
    pytest.param(GEMINI, lambda status, error: json_answer([{"error": error}]), id="Gemini, a list"),
    pytest.param(OLLAMA, as_status, id="Ollama, status"),
    pytest.param(OLLAMA, lambda status, error: lines({"error": error}), id="Ollama, first line"),
]

KEY_OF_OURS = {
    "code": 400,
    "message": "API key not valid. Please pass a valid API key.",
    "status": "INVALID_ARGUMENT",
    "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
}
ERRORS: list[Any] = [
    pytest.param(
        429,
        {"message": "slow down", "type": "tokens", "code": "rate_limit_exceeded"},
        "rate_limit",
        "slow down",
        id="rate limit",
    ),
    pytest.param(400, KEY_OF_OURS, "auth", "rejected the proxy's credentials", id="our key"),
    pytest.param(
        400,
        {"message": "too much", "code": "context_length_exceeded", "type": "invalid_request_error"},
        "context_overflow",
        "capability_rejected: prompt_too_long (too much)",
        id="overflow",
    ),
    pytest.param(
        400, {"message": "no", "code": "content_filter"}, "content_policy", "no", id="content policy"
    ),
    pytest.param(
        500,
        {"message": "Jinja Exception: System message must be at the beginning.", "type": "server_error"},
        "capability",
        "capability_rejected: mid_conv_system (System message must be at the beginning.)",
        id="template",
    ),
    pytest.param(
        500,
        {"message": "the engine died", "type": "server_error", "code": "server_error"},
        "server_error",
        "the engine died",
        id="died",
    ),
    pytest.param(
        503,
        {"message": "busy", "code": "server_is_overloaded"},
        "overloaded",
        "busy",
        id="overloaded",
    ),
]


@pytest.mark.parametrize(("status", "error", "kind", "words"), ERRORS)
@pytest.mark.parametrize(("format", "place"), PLACES)
def test_an_error_means_the_same_in_every_format_and_place(
    format: Format, place: Script, status: int, error: dict[str, Any], kind: str, words: str
) -> None:
    with BackEnd(place(status, error)) as back_end:
        found = failure(format.call(back_end))
        assert len(back_end.requests) == 1
    assert found.kind == kind
    assert words in found.message


# --- bodies under another name

PART = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hello"}]}, "finishReason": "STOP"}]}
COMPLETED = response(
    status="completed",
    output=[{"type": "message", "id": "i", "content": [{"type": "output_text", "text": "Hello"}]}],
)
LINE = {
    "model": "m",
    "message": {"role": "assistant", "content": "Hello"},
    "done": True,
    "done_reason": "stop",
}
BODIES: list[Any] = [
    pytest.param(CHAT, b"".join([data(chunk("Hello")), data(done()), b"data: [DONE]\n\n"]), id="chat, events"),
    pytest.param(CHAT, json.dumps(completion("Hello")).encode(), id="chat, JSON"),
    pytest.param(CHAT, b"\xef\xbb\xbf \r\n" + json.dumps(completion("Hello")).encode(), id="chat, JSON with a mark"),
    pytest.param(CHAT, b": hi\n\n" + data(chunk("Hello")) + data(done()), id="chat, events with a comment"),
    pytest.param(RESPONSES, event("response.completed", response=COMPLETED), id="Responses, events"),
    pytest.param(RESPONSES, json.dumps(COMPLETED, indent=1).encode(), id="Responses, JSON"),
    pytest.param(GEMINI, data(PART), id="Gemini, events"),
    pytest.param(GEMINI, json.dumps(PART).encode(), id="Gemini, JSON"),
    pytest.param(GEMINI, json.dumps([PART]).encode(), id="Gemini, a list"),
    pytest.param(OLLAMA, json.dumps(LINE).encode() + b"\n", id="Ollama, a line"),
]  # fmt: skip
TYPES = ["application/json", "text/event-stream", "text/plain", "application/x-ndjson", "", "text/html"]


@pytest.mark.parametrize("stream", [True, False], ids=["asked as a stream", "asked whole"])
@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize(("format", "body"), BODIES)
def test_a_body_is_read_as_what_it_is(format: Format, body: bytes, content_type: str, stream: bool) -> None:
    headers = {"content_type": content_type} if content_type else {}
    with BackEnd(answer(200, body, **headers)) as back_end:
        assert "text Hello" in said(ask(format.call(back_end), chat(stream=stream)))


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>Sign in</html>", b"\r\n <html></html>", b"<?xml version='1.0'?><Error/>"]
)
@pytest.mark.parametrize("content_type", ["text/html", "application/json", "text/event-stream"])
@pytest.mark.parametrize("format", [CHAT, RESPONSES, GEMINI, OLLAMA], ids=lambda one: str(one.type))
def test_a_page_with_200_is_called_that(format: Format, content_type: str, page: bytes) -> None:
    with BackEnd(answer(200, page, content_type=content_type)) as back_end:
        found = failure(format.call(back_end))
    words = "answered with a web page in place of a completion: is its base_url right?"
    assert (found.kind, found.status, found.message) == ("connection", 502, f"the back end corp {words}")
