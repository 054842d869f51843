"""What a client sees when a back end fails: the status, the type and the words of wire.md §2.8 (F01 to
F17)."""

# ruff: noqa: E501 - the words of back ends stand on one line each

import json
import logging
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import anthropic
import pytest

from routeproxy.upstream.errors.overflow import match_overflow
from tests.backend import (
    HANG,
    BackEnd,
    Script,
    answer,
    completion,
    data,
    error,
    event,
    json_answer,
    messages_stream,
    sse,
    streamed,
)
from tests.budgets import seconds
from tests.running import Running, running
from tests.upstream.litellm.asking import LITELLMS_WARNINGS
from tests.wire.asking import KEY, OVERLOADED, answers, ask

pytestmark = LITELLMS_WARNINGS

RULES = """
[providers.claude]
type = "anthropic"
base_url = "{url}"
api_key = "env:KEY"

[providers.corp]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "env:KEY"

[providers.keyless]
type = "anthropic"
base_url = "{url}"
api_key = "env:NOT_SET"

[providers.garbled]
type = "anthropic"
base_url = "{url}"
api_key = "env:GARBLED"

[[rules]]
match.model.equals = "chat"
targets = ["corp/gpt-x"]

[[rules]]
match.model.equals = "quick"
targets = ["claude/m"]
timeouts = {{ first_token = "100ms" }}

[[rules]]
match.model.equals = "keyless"
targets = ["keyless/m"]

[[rules]]
match.model.equals = "garbled"
targets = ["garbled/m"]

[default]
targets = ["claude/m"]
"""


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder, environ = tmp_path_factory.mktemp("rules"), {"KEY": KEY, "GARBLED": "sk-a\nb\u20ac"}
    with running(RULES.format(url=back_end.url), folder, environ) as proxy:
        yield proxy


both = pytest.mark.parametrize("model", ["messages", "chat"])
"""From a back end that speaks Messages, and from one that speaks chat completions."""


F01: list[Any] = [
    # what the back end answers, and what the client sees: status, type, words
    pytest.param(error(400, "bad tool"), 400, "invalid_request_error", "bad tool", id="400"),
    pytest.param(error(401, "bad key"), 502, "api_error", "rejected the proxy's credentials", id="401"),
    pytest.param(error(402, "pay first"), 402, "billing_error", "pay first", id="402"),
    pytest.param(error(403, "not you"), 502, "api_error", "rejected the proxy's credentials", id="403"),
    pytest.param(error(404, "The model `x` does not exist", "model_not_found"), 404, "not_found_error", "model", id="404"),
    pytest.param(error(408, "too slow"), 504, "timeout_error", "too slow", id="408"),
    pytest.param(error(409, "busy with that"), 409, "conflict_error", "busy with that", id="409"),
    pytest.param(error(413, "too big"), 413, "request_too_large", "too big", id="413"),
    pytest.param(error(422, "unprocessable"), 400, "invalid_request_error", "unprocessable", id="422"),
    pytest.param(error(429, "slow down"), 429, "rate_limit_error", "slow down", id="429"),
    pytest.param(error(429, "no", "insufficient_quota"), 429, "rate_limit_error", "no", id="quota"),
    pytest.param(error(500, "broken"), 500, "api_error", "broken", id="500"),
    pytest.param(error(502, "bad gateway"), 502, "api_error", "bad gateway", id="502"),
    pytest.param(error(503, "in maintenance"), 529, "overloaded_error", "in maintenance", id="503"),
    pytest.param(error(504, "gave up"), 504, "timeout_error", "gave up", id="504"),
    pytest.param(error(529, "too many"), 529, "overloaded_error", "too many", id="529"),
    pytest.param(error(400, "too long", "context_length_exceeded"), 400, "invalid_request_error", "prompt_too_long", id="context"),
    pytest.param(error(400, "filtered", "content_filter"), 200, "refusal", "filtered", id="policy"),
]  # fmt: skip


@both
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("said", "status", "kind", "words"), F01)
def test_f01_each_failure_has_its_status_and_type(
    proxy: Running,
    back_end: BackEnd,
    model: str,
    stream: bool,
    said: Script,
    status: int,
    kind: str,
    words: str,
) -> None:
    answers(back_end, said)
    reply = ask(proxy, model, stream=stream)
    if kind == "refusal":
        stopped = reply.events[-2]["delta"] if stream else reply.json
        assert (reply.status, stopped["stop_reason"]) == (200, "refusal")
        assert words in stopped["stop_details"]["explanation"]
        return
    assert reply.error[:2] == (status, kind)
    assert words in reply.error[2]
    assert reply.headers["request-id"] == reply.json["request_id"]
    assert len(back_end.requests) == 1


INPUT = "prompt is too long: 5000 tokens > 4096 maximum"
BOTH = "input length and `max_tokens` exceed context limit: 1000 + 4000 > 4096, decrease input length or `max_tokens` and try again"
OUTPUT = "max_tokens: 9000 > 8192, which is the maximum allowed number of output tokens for this model"
NO_NUMBERS = "capability_rejected: prompt_too_long ("
NO_OUTPUT = "capability_rejected: max_tokens_context_overflow ("

WORDINGS = [
    ("OpenAI", INPUT, "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens. Please reduce the length of the messages."),
    ("OpenAI, with functions", INPUT, "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens (4800 in the messages, 200 in the functions). Please reduce the length of the messages or functions."),
    ("OpenAI, with completion", BOTH, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (1000 in the messages, 4000 in the completion). Please reduce the length of the messages or completion."),
    ("OpenAI, with both", BOTH, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (900 in the messages, 100 in the functions, and 4000 in the completion). Please reduce the length."),
    ("OpenAI, GPT-5", INPUT, "Input tokens exceed the configured limit of 4096 tokens. Your messages resulted in 5000 tokens. Please reduce the length of the messages."),
    ("OpenAI, Responses", NO_NUMBERS, "Your input exceeds the context window of this model. Please adjust your input and try again."),
    ("OpenAI, a minute's tokens", INPUT, "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 4096, Requested 5000. The input or output tokens must be reduced in order to run successfully."),
    ("OpenAI, output", OUTPUT, "max_tokens is too large: 9000. This model supports at most 8192 completion tokens, whereas you provided 9000."),
    ("Azure", INPUT, "This model's maximum context length is 4,096 tokens, however you requested 5,000 tokens in the messages"),
    ("vLLM", INPUT, "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens. Please reduce the length of the input messages."),
    ("vLLM, old", INPUT, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens in the messages, Please reduce the length of the messages."),
    ("vLLM, both, old", BOTH, "'max_tokens' or 'max_completion_tokens' is too large: 4000. This model's maximum context length is 4096 tokens and your request has 1000 input tokens (4000 > 4096 - 1000)."),
    ("vLLM, both, new", BOTH, "This model's maximum context length is 4096 tokens. However, you requested 4000 output tokens and your prompt contains at least 1000 input tokens, for a total of at least 5000 tokens. Please reduce the length of the input prompt or the number of requested output tokens."),
    ("vLLM, decoder", INPUT, "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller than the number of text tokens."),
    ("SGLang", INPUT, "The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
    ("SGLang, both", BOTH, "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 5000 tokens: 1000 tokens from the input messages and 4000 tokens for the completion."),
    ("llama.cpp", INPUT, "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it"),
    ("llama.cpp, old", NO_NUMBERS, "the request exceeds the available context size. try increasing the context size or enable context shift"),
    ("Ollama", NO_NUMBERS, "prompt too long; exceeded max context length by 904 tokens"),
    ("LM Studio", NO_NUMBERS, "The number of tokens to keep from the initial prompt is greater than the context length."),
    ("Together", BOTH, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 1000 `inputs` tokens and 4000 `max_new_tokens`"),
    ("Text Generation Inference", INPUT, "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000"),
    ("Gemini", INPUT, "The input token count (5000) exceeds the maximum number of tokens allowed (4096)."),
    ("Vertex", INPUT, "Unable to submit request because the input token count is 5000 but model only supports up to 4096. Reduce the input token count and try again."),
    ("Vertex, output", OUTPUT, "Unable to submit request because it has a maxOutputTokens value of 9000 but the supported range is from 1 (inclusive) to 8193 (exclusive). Update the value and try again."),
    ("Groq", INPUT, "Request too large for model `llama-3.3-70b` in organization `org` service tier `on_demand` on tokens per minute (TPM): Limit 4096, Requested 5000, please reduce your message size and try again."),
    ("Groq, output", NO_OUTPUT, "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the `context_window` for this model"),
    ("Mistral", INPUT, "Prompt contains 5000 tokens and 0 draft tokens, too large for model with 4096 maximum context length"),
    ("DeepSeek", BOTH, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (1000 in the messages, 4000 in the completion). Please reduce the length of the messages or completion."),
    ("DeepSeek, output", NO_OUTPUT, "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
    ("Bedrock", NO_NUMBERS, "Input is too long for requested model."),
    ("Bedrock, Claude", INPUT, "The model returned the following errors: prompt is too long: 5000 tokens > 4096 maximum"),
    ("Bedrock, output", NO_OUTPUT, "The maximum tokens you requested exceeds the model limit of 8192. Try again with a maximum tokens value that is lower than 8192."),
    ("OpenRouter", BOTH, "This endpoint's maximum context length is 4096 tokens. However, you requested about 5000 tokens (900 of text input, 100 of tool input, 4000 in the output). Please reduce the length of either one, or use the \"middle-out\" transform"),
    ("xAI", INPUT, "This model's maximum prompt length is 4096 but the request contains 5000 tokens."),
    ("Fireworks", INPUT, "The prompt is too long: 5000, model maximum context length: 4096"),
    ("Cerebras", INPUT, "Please reduce the length of the messages or completion. Current length is 5000 while limit is 4096"),
    ("Moonshot", INPUT, "Invalid request: Your request exceeded model token limit: 4096 (requested: 5000)"),
    ("Cohere", INPUT, "too many tokens: total number of tokens in the prompt cannot exceed 4096 - received 5000. Try using a shorter prompt"),
    ("GitHub", INPUT, "prompt token count of 5000 exceeds the limit of 4096"),
    ("MiniMax", NO_NUMBERS, "invalid params, context window exceeds limit (2013)"),
    ("Anthropic, both", BOTH, "input length and `max_tokens` exceed context limit: 1000 + 4000 > 4096, decrease input length or `max_tokens` and try again"),
    ("Anthropic, output", OUTPUT, "max_tokens: 9000 > 8192, which is the maximum allowed number of output tokens for claude-x"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("expected", "wording"), [pytest.param(expected, words, id=who) for who, expected, words in WORDINGS]
)
def test_f02_f03_a_prompt_that_does_not_fit_is_said_in_words_that_claude_code_acts_on(
    expected: str, wording: str
) -> None:
    said = match_overflow(wording, "")
    assert said == expected or (expected.endswith("(") and said == f"{expected}{wording})")


@pytest.mark.parametrize(
    "words",
    [
        "tools.0.custom.input_schema: JSON schema is invalid",
        "Invalid value for 'max_tokens': integer below minimum value",
        "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000.",
        "messages: text content blocks must be non-empty",
    ],
)
def test_other_complaints_are_no_overflow(words: str) -> None:
    assert match_overflow(words, "") is None


@both
def test_f02_the_client_reads_it_as_anthropic_says_it(proxy: Running, back_end: BackEnd, model: str) -> None:
    words = WORDINGS[0][2]
    answers(back_end, error(400, words, "context_length_exceeded"))
    assert ask(proxy, model).error == (400, "invalid_request_error", INPUT)


@both
def test_f04_a_refused_key_is_our_mistake_and_not_worth_another_try(
    proxy: Running, back_end: BackEnd, model: str
) -> None:
    answers(back_end, error(401, f"Incorrect API key provided: {KEY}", "invalid_api_key"))
    reply = ask(proxy, model)
    assert reply.error[0] == 502
    assert reply.headers["x-should-retry"] == "false"
    assert KEY not in reply.response.text


WAITS = [
    pytest.param({"retry-after": "7"}, "7", id="seconds"),
    pytest.param({"retry-after": "0.2"}, "1", id="part of a second"),
    pytest.param({"retry-after-ms": "6400", "retry-after": "9"}, "7", id="milliseconds"),
    pytest.param({"retry-after": "3600"}, "60", id="too long to wait"),
    pytest.param({}, "5", id="none"),
    pytest.param({"retry-after": "soon"}, "5", id="nonsense"),
]


@both
@pytest.mark.parametrize(("headers", "shown"), WAITS)
def test_f05_the_wait_that_a_back_end_asks_for_is_passed_on(
    proxy: Running, back_end: BackEnd, model: str, headers: dict[str, str], shown: str
) -> None:
    answers(back_end, error(429, "slow down", **headers))
    assert ask(proxy, model).headers["retry-after"] == shown


def test_f05_a_date_is_a_wait_too(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, error(429, "slow down", retry_after=formatdate(time.time() + 8, usegmt=True)))
    assert ask(proxy).headers["retry-after"] in ("7", "8")


def test_f05_some_say_it_in_their_message_only(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, error(429, "Rate limit reached. Please try again in 11.3s.", "rate_limit_exceeded"))
    assert ask(proxy).headers["retry-after"] == "12"


QUOTAS = [
    pytest.param(
        "You exceeded your current quota, please check your plan", "insufficient_quota", id="OpenAI"
    ),
    pytest.param(
        "Budget has been exceeded! Current cost: 1.0, Max budget: 1.0", "budget_exceeded", id="LiteLLM"
    ),
]


@both
@pytest.mark.parametrize(("words", "code"), QUOTAS)
def test_f06_who_has_no_credit_left_is_not_told_to_come_back(
    proxy: Running, back_end: BackEnd, model: str, words: str, code: str
) -> None:
    answers(back_end, error(429, words, code))
    reply = ask(proxy, model)
    assert (reply.status, reply.headers["x-should-retry"]) == (429, "false")
    assert "retry-after" not in reply.headers


def test_f06_geminis_quota_of_a_minute_passes(proxy: Running, back_end: BackEnd) -> None:
    answers(
        back_end, error(429, "You exceeded your current quota. Please retry in 23.4s.", "RESOURCE_EXHAUSTED")
    )
    reply = ask(proxy)
    assert reply.headers["retry-after"] == "24"
    assert "x-should-retry" not in reply.headers


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (503, "unavailable"),
        (529, "no"),
        (500, "The model is overloaded. Please try again later."),
        (400, "No deployments available for selected model"),
        (503, "Loading model"),
    ],
)
def test_f07_overloaded_has_many_forms_and_one_answer(
    proxy: Running, back_end: BackEnd, status: int, words: str
) -> None:
    answers(back_end, error(status, words))
    reply = ask(proxy)
    assert reply.error[:2] == (529, "overloaded_error")
    assert reply.headers["retry-after"] == "5"


def test_f08_a_back_end_that_takes_too_long(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, streamed(messages_stream()[0], event("ping"), HANG))
    assert ask(proxy, "quick", stream=True).error == (
        504,
        "timeout_error",
        "the back end claude gave no token in time",
    )
    back_end.wait_until_left()


@both
def test_f09_a_page_is_no_message_for_a_client(proxy: Running, back_end: BackEnd, model: str) -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head>" + b"<p>nginx</p>" * 1000
    answers(back_end, answer(502, page, content_type="text/html"))
    status, kind, words = ask(proxy, model).error
    assert (status, kind) == (502, "api_error")
    assert words.endswith("answered 502 without a JSON error")


def test_f09_a_long_message_is_cut(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, answer(500, b"x" * 2_000_000, content_type="text/plain"))
    assert len(ask(proxy).error[2]) <= 2000
    answers(back_end, answer(500, b"y" * 5_000, content_type="text/plain"))
    assert len(ask(proxy).error[2]) == 2000


SHAPES = [
    pytest.param({"error": "words"}, id="a string"),
    pytest.param({"detail": "words"}, id="FastAPI"),
    pytest.param({"message": "words"}, id="AWS, Cohere"),
    pytest.param({"object": "error", "message": "words", "code": 400}, id="old vLLM"),
    pytest.param([{"error": {"code": 400, "message": "words", "status": "INVALID_ARGUMENT"}}], id="Gemini"),
    pytest.param({"error": {"message": "Provider returned error: words", "metadata": {}}}, id="OpenRouter"),
    pytest.param(
        {"error": {"message": "Provider returned error", "metadata": {"raw": "words"}}},
        id="behind OpenRouter",
    ),
    pytest.param({"object": "error", "message": {"detail": [{"msg": "words"}]}}, id="Mistral"),
    pytest.param({"detail": [{"loc": ["body"], "msg": "words"}]}, id="FastAPI, validation"),
]


@pytest.mark.parametrize("body", SHAPES)
def test_words_are_found_in_every_shape_of_error(proxy: Running, back_end: BackEnd, body: object) -> None:
    answers(back_end, json_answer(body, 400))
    assert "words" in ask(proxy).error[2]


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"error":null}', b'{"error":[[[', b"\xff\xfe", b"[" * 100_000]
)
def test_an_error_that_says_nothing_is_an_error_all_the_same(
    proxy: Running, back_end: BackEnd, body: bytes
) -> None:
    answers(back_end, answer(500, body, content_type="application/json"))
    assert ask(proxy).error[:2] == (500, "api_error")


@both
def test_f11_an_error_before_the_first_token_is_no_stream(
    proxy: Running, back_end: BackEnd, model: str
) -> None:
    answers(back_end, error(500, "broken"))
    assert ask(proxy, model, stream=True).error == (500, "api_error", "broken")


IN_STREAM = [
    pytest.param("rate_limit_error", 429, id="rate limit"),
    pytest.param("overloaded_error", 529, id="overloaded"),
    pytest.param("invalid_request_error", 400, id="invalid"),
    pytest.param("api_error", 502, id="api"),
    pytest.param("brand_new_error", 502, id="unknown"),
]


@pytest.mark.parametrize(("kind", "status"), IN_STREAM)
def test_f12_an_error_event_before_the_first_content_is_a_status(
    proxy: Running, back_end: BackEnd, kind: str, status: int
) -> None:
    start = messages_stream()[0]
    answers(back_end, streamed(start, event("error", error={"type": kind, "message": "no"})))
    shown = kind if status != 502 else "api_error"
    assert ask(proxy, stream=True).error == (status, shown, "no")


def test_f12_an_error_inside_a_whole_200_is_one_too(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer(OVERLOADED))
    assert ask(proxy).error == (529, "overloaded_error", "Overloaded")


SDK = [
    (400, anthropic.BadRequestError, "invalid_request_error"),
    (401, anthropic.InternalServerError, "api_error"),  # our key, so not the client's authentication
    (402, anthropic.PaymentRequiredError, "billing_error"),
    (404, anthropic.NotFoundError, "not_found_error"),
    (408, anthropic.GatewayTimeoutError, "timeout_error"),
    (409, anthropic.ConflictError, "conflict_error"),
    (413, anthropic.ContentTooLargeError, "request_too_large"),
    (422, anthropic.BadRequestError, "invalid_request_error"),
    (429, anthropic.RateLimitError, "rate_limit_error"),
    (500, anthropic.InternalServerError, "api_error"),
    (503, anthropic.OverloadedError, "overloaded_error"),
    (504, anthropic.GatewayTimeoutError, "timeout_error"),
    (529, anthropic.OverloadedError, "overloaded_error"),
]


@pytest.mark.parametrize(("status", "kind", "type"), SDK)
def test_f13_the_sdk_raises_what_it_would_for_anthropic(
    proxy: Running, back_end: BackEnd, status: int, kind: type[anthropic.APIStatusError], type: str
) -> None:
    answers(back_end, error(status, "no"))
    with (
        anthropic.Anthropic(base_url=proxy.url, api_key="x", max_retries=0) as client,
        pytest.raises(kind) as caught,
    ):
        client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    assert caught.value.type == type
    assert (caught.value.request_id or "").startswith("req_")


def test_f05_the_sdk_waits_as_long_as_the_back_end_asked(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, error(429, "slow down", retry_after="1"), json_answer(completion("Hello")))
    began = time.monotonic()
    with anthropic.Anthropic(base_url=proxy.url, api_key="x", max_retries=1) as client:
        client.messages.create(model="chat", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    assert 1 <= time.monotonic() - began < seconds(3)


# --- keys


def test_an_unset_key_is_a_502_that_names_the_variable(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, error(500, "never asked"))
    assert ask(proxy, "keyless").error == (
        502,
        "api_error",
        "the key of provider keyless is not set: env:NOT_SET is empty",
    )
    assert back_end.requests == []


def test_a_key_that_no_header_can_hold_is_never_sent_or_shown(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, error(500, "never asked"))
    status, _, words = ask(proxy, "garbled").error
    assert (status, words) == (502, "the key of provider garbled has characters that no header can hold")
    assert back_end.requests == []


ECHOES = [
    pytest.param(error(400, f"Incorrect API key provided: {KEY}. See ?key={KEY}"), id="another shape"),
    pytest.param(
        json_answer({"type": "error", "error": {"type": "invalid_request_error", "message": f"x-api-key: {KEY}"}}, 400, request_id=f"req_{KEY}"),
        id="the API's own shape",
    ),
    pytest.param(answer(500, f"Authorization: Bearer {KEY}".encode(), content_type="text/plain"), id="plain text"),
    pytest.param(json_answer({"type": "error", "error": {"type": "api_error", "message": KEY}}), id="inside a 200"),
    pytest.param(streamed(event("error", error={"type": "api_error", "message": KEY})), id="before the first content"),
    pytest.param(
        streamed(*messages_stream()[:4], event("error", error={"type": "api_error", "message": KEY})), id="after it"
    ),
    pytest.param(sse({"error": {"message": f"bad key {KEY}", "code": 400}}), id="inside a chat stream"),
    pytest.param(answer(302, b"", location=f"https://elsewhere.example/?key={KEY}"), id="a redirect"),
    pytest.param(streamed(data({"garbage": KEY})), id="garbage"),
    pytest.param([f"HTTP/1.1 200 OK {KEY}\r\n{KEY}\r\n\r\n".encode()], id="not HTTP"),
]  # fmt: skip


@both
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("echo", ECHOES)
def test_f17_a_key_that_the_back_end_repeats_is_seen_by_nobody(
    proxy: Running,
    back_end: BackEnd,
    caplog: pytest.LogCaptureFixture,
    model: str,
    stream: bool,
    echo: Script,
) -> None:
    caplog.set_level(logging.DEBUG)
    answers(back_end, echo)
    reply = ask(proxy, model, stream=stream)
    assert back_end.requests
    assert KEY not in reply.response.text
    assert KEY not in str(reply.headers)
    assert KEY not in caplog.text


def test_f17_nor_is_it_in_the_warning_that_tokens_were_estimated(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, error(400, f"not with {KEY}"))
    reply = ask(proxy, path="/v1/messages/count_tokens")
    assert reply.status == 200
    assert "not with ***" in (reply.said("warning") or "")


def test_f17_nor_is_it_in_anything_that_prints_a_policy(proxy: Running, tmp_path: Path) -> None:
    policy = proxy.app.rules.policy
    assert KEY not in repr(policy)
    assert KEY not in repr(policy.providers)
    assert KEY not in json.dumps(str(policy.default))
