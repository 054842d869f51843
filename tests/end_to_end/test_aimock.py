"""routeproxy in front of aimock, a mock server that others wrote from the providers' documentation: what we
take for their formats is not only what we made up ourselves."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from anthropic.types import Message

from tests.end_to_end import judges
from tests.end_to_end.aimock import Aimock, aimock
from tests.end_to_end.back_ends import KEY, KINDS, rules, signed_in
from tests.end_to_end.clients import needs_aimock
from tests.end_to_end.judges import judged, post, replayed, results
from tests.invariants import check
from tests.running import Running, request, running
from tests.upstream.litellm.asking import LITELLMS_WARNINGS

pytestmark = [
    needs_aimock,
    *LITELLMS_WARNINGS,
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning"),
]

USAGE = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}
OSLO = {"name": "get_weather", "arguments": {"city": "Oslo"}}
ROME = {"name": "get_weather", "arguments": {"city": "Rome"}}
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def when(text: str, response: dict[str, Any], *, match: dict[str, Any] | None = None, **how: Any) -> Any:
    """What is answered to a last user's text, and how."""
    return {"match": {"userMessage": text, **(match or {})}, "response": {"usage": USAGE, **response}, **how}


def fails(text: str, status: int, message: str, type: str, **more: Any) -> Any:
    return {
        "match": {"userMessage": text},
        "response": {"error": {"message": message, "type": type}, "status": status, **more},
    }


CALLED = ["text Let me look.", 'get_weather {"city": "Oslo"}', "tool_use"]
LONG = "A text that is long enough to be cut off somewhere"

FIXTURES = [
    # Letter by letter: aimock cuts between the halves of an emoji, too.
    when("Hello", {"content": "Hej 👋 wörld"}, chunkSize=1),
    when("Lines", {"content": "one\u2028two\u2029three\u0085four"}),
    when("Weather", {"content": "It is 7 degrees."}, match={"hasToolResult": True}),
    when("Weather", {"content": "Let me look.", "toolCalls": [OSLO]}, chunkSize=3),
    when("Both", {"blocks": [{"type": "toolCall", **OSLO}, {"type": "toolCall", **ROME}]}),
    when("Think", {"content": "Yes.", "reasoning": "Let me see."}, chunkSize=5),
    when("Limit", {"content": "Half", "finishReason": "length"}),
    when("Filter", {"content": "No", "finishReason": "content_filter"}),
    when("Cut", {"content": LONG}, chunkSize=4, truncateAfterChunks=9, latency=10),
    when("Slow", {"content": "At last."}, chaos={"latencyMs": 500}),
    when("Comment", {"content": "Worked on."}, openRouterProcessing=True),
    fails("Wait", 429, "slow down", "rate_limit_error", retryAfter=7),
    fails("Break", 500, "oh no", "server_error"),
    fails("Busy", 503, "too many", "overloaded_error"),
    fails("Deny", 401, "bad key", "authentication_error"),
    fails("Refuse", 400, "odd tools", "invalid_request_error"),
    when("Garble", {"content": "-"}, chaos={"malformedRate": 1}),
    when("Vanish", {"content": "-"}, chaos={"disconnectRate": 1}),
    when("Drop", {"content": "-"}, chaos={"dropRate": 1}),
    {
        "match": {"userMessage": "Fall", "model": "gpt-4.1"},
        "response": {"error": {"message": "down"}, "status": 503},
    },
    when("Fall", {"content": "Caught."}),
]

MORE_RULES = """
[[rules]]
match.model.equals = "impatient"
targets = "openai/gpt-4.1"
timeouts = { first_token = "100ms" }

[[rules]]
match.model.equals = "in-turn"
targets = ["openai/gpt-4.1", "gemini/gemini-2.5-pro"]
"""

# Cohere has tests of its own, below.
ALL = [name for name in KINDS if name not in ("echo", "cohere")]
CHAT = ("openai", "openai_compatible", "azure", "together_ai", "nvidia_nim", "openrouter")
GOOGLE = ("gemini", "vertex_ai")
RESPONSES = ("openai-reasoning", "azure-responses")


def but(*names: str) -> list[str]:
    return [name for name in ALL if name not in names]


def each(names: Sequence[str]) -> Any:
    return pytest.mark.parametrize("kind", names)


both_ways = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aimock]:
    with aimock(tmp_path_factory.mktemp("aimock"), FIXTURES) as mock:
        yield mock


@pytest.fixture(scope="module")
def proxy(mock: Aimock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("rules")
    with signed_in(folder) as credentials:
        urls = dict.fromkeys(KINDS, mock.url)
        with running(rules(urls, credentials) + MORE_RULES, folder, {"KEY": KEY}) as proxy:
            yield proxy


def said(message: Message) -> list[str]:
    """Without what only carries sealed reasoning: aimock seals some into every response that may have it."""
    return [line for line in judges.said(message) if line != "thinking "]


def asking(kind: str, text: str, **fields: Any) -> dict[str, Any]:
    """A request that may think and call a tool."""
    thinking = {"type": "enabled", "budget_tokens": 1024}
    more = {"max_tokens": 2000, "tools": [WEATHER], "thinking": thinking, **fields}
    return request(text, model=kind, **more)


def conversation(proxy: Running, kind: str, text: str, **fields: Any) -> list[str]:
    asked = asking(kind, text, **fields)
    return said(judged(asked, post(proxy, asked)))


def failure(proxy: Running, kind: str, text: str, stream: bool) -> tuple[int, str, str, httpx.Headers]:
    answer = post(proxy, asking(kind, text, stream=stream))
    error = answer.json()["error"]
    assert KEY not in answer.text
    assert "litellm" not in answer.text.lower()
    return answer.status_code, error["type"], error["message"], answer.headers


# --- what a back end says


@both_ways
@each(ALL)
def test_a_text_comes_through(proxy: Running, kind: str, stream: bool) -> None:
    asked = asking(kind, "Hello", stream=stream)
    message = judged(asked, post(proxy, asked))
    assert said(message) == ["text Hej 👋 wörld", "end_turn"]
    if kind != "ollama":  # aimock says there that no token was used
        assert (message.usage.input_tokens, message.usage.output_tokens) == (12, 7)


@each(ALL)
def test_what_looks_like_the_end_of_a_line_is_text(proxy: Running, kind: str) -> None:
    expected = ["text one\u2028two\u2029three\u0085four", "end_turn"]
    assert conversation(proxy, kind, "Lines", stream=True) == expected


@both_ways
@each(GOOGLE)
def test_gemini_calls_a_tool(proxy: Running, kind: str, stream: bool) -> None:
    assert conversation(proxy, kind, "Weather", stream=stream) == CALLED


# LiteLLM writes `function_response`, which Google's parser takes beside `functionResponse` and aimock's does
# not: what goes back to Gemini is left to tests/end_to_end/test_recorded_requests.py.
@both_ways
@each(but(*GOOGLE))
def test_a_tool_goes_round(proxy: Running, mock: Aimock, kind: str, stream: bool) -> None:
    asked = asking(kind, "Weather", stream=stream)
    message = judged(asked, post(proxy, asked))
    assert said(message) == CALLED

    mock.forget()
    turns = [{"role": "assistant", "content": replayed(message)}, results(message, "cold, 7")]
    again = asked | {"messages": [*asked["messages"], *turns]}
    assert said(judged(again, post(proxy, again))) == ["text It is 7 degrees.", "end_turn"]

    (seen,) = mock.asked
    called = [call["function"] for turn in seen["messages"] for call in turn.get("tool_calls") or ()]
    assert [(one["name"], json.loads(one["arguments"])) for one in called] == [
        ("get_weather", {"city": "Oslo"})
    ]
    (result,) = [turn for turn in seen["messages"] if turn["role"] == "tool"]
    assert "cold, 7" in str(result["content"])
    assert [tool["function"]["name"] for tool in seen["tools"]] == ["get_weather"]


@both_ways
@each(ALL)
def test_two_calls_at_once_stay_two(proxy: Running, kind: str, stream: bool) -> None:
    assert conversation(proxy, kind, "Both", stream=stream) == [
        'get_weather {"city": "Oslo"}',
        'get_weather {"city": "Rome"}',
        "tool_use",
    ]


# aimock's Ollama puts it under `reasoning_content`; the real one says `thinking` (docs.ollama.com/api/chat).
@both_ways
@each(but("ollama"))
def test_reasoning_is_thinking_and_may_go_back(proxy: Running, kind: str, stream: bool) -> None:
    asked = asking(kind, "Think", stream=stream)
    message = judged(asked, post(proxy, asked))
    assert said(message) == ["thinking Let me see.", "text Yes.", "end_turn"]
    turns = [{"role": "assistant", "content": replayed(message)}, {"role": "user", "content": "Hello"}]
    again = asked | {"messages": [*asked["messages"], *turns]}
    assert said(judged(again, post(proxy, again)))[-1] == "end_turn"


# aimock's Ollama knows no endings; its streams of Responses say `response.completed` where the real ones say
# `response.incomplete`, so that one is left to tests/wire/test_responses.py.
@both_ways
@each(but("ollama", *RESPONSES))
def test_an_answer_cut_at_its_limit_says_so(proxy: Running, kind: str, stream: bool) -> None:
    assert conversation(proxy, kind, "Limit", stream=stream) == ["text Half", "max_tokens"]


@each([*RESPONSES])
def test_a_whole_response_cut_at_its_limit_says_so(proxy: Running, kind: str) -> None:
    assert conversation(proxy, kind, "Limit") == ["text Half", "max_tokens"]


# Claude has no filter that speaks up by `content_filter`, as aimock has it; its Responses `fail` over one,
# where the real ones are `incomplete`.
@both_ways
@each(but("anthropic", "ollama", *RESPONSES))
def test_what_a_filter_took_is_a_refusal(proxy: Running, kind: str, stream: bool) -> None:
    assert conversation(proxy, kind, "Filter", stream=stream)[-1] == "refusal"


def test_openrouters_sign_of_life_is_no_answer(proxy: Running) -> None:
    assert conversation(proxy, "openrouter", "Comment", stream=True) == ["text Worked on.", "end_turn"]


def test_each_format_is_asked_where_its_provider_has_it(proxy: Running, mock: Aimock) -> None:
    def path(kind: str) -> str:
        mock.forget()
        conversation(proxy, kind, "Hello", stream=True)
        return mock.paths[0]

    assert {kind: path(kind) for kind in ALL} == {
        "openai": "/v1/chat/completions",
        "openai-reasoning": "/v1/responses",
        "openai_compatible": "/v1/chat/completions",
        "azure": "/openai/deployments/dep/chat/completions?api-version=2024-10-21",
        "azure-responses": "/openai/responses?api-version=2025-04-01-preview",
        "gemini": "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
        "vertex_ai": "/v1/projects/proj/locations/us-central1/publishers/google/models/"
        "gemini-2.5-pro:streamGenerateContent?alt=sse",
        "together_ai": "/v1/chat/completions",
        "nvidia_nim": "/v1/chat/completions",
        "openrouter": "/api/v1/chat/completions",
        "ollama": "/api/chat",
        "bedrock": "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream",
        "anthropic": "/v1/messages?beta=true",
    }


# --- what goes wrong

TRANSLATED = but("anthropic")


@both_ways
@pytest.mark.parametrize(
    ("text", "expected", "headers"),
    [
        pytest.param("Wait", (429, "rate_limit_error", "slow down"), {"retry-after": "7"}, id="429"),
        pytest.param("Break", (500, "api_error", "oh no"), {}, id="500"),
        pytest.param("Busy", (529, "overloaded_error", "too many"), {"retry-after": "5"}, id="503"),
        pytest.param("Refuse", (400, "invalid_request_error", "odd tools"), {}, id="400"),
        pytest.param("Drop", (500, "api_error", "Chaos: request dropped"), {}, id="dropped"),
    ],
)
@each(TRANSLATED)
def test_an_error_keeps_its_meaning(
    proxy: Running, kind: str, text: str, expected: tuple[int, str, str], headers: Any, stream: bool
) -> None:
    status, type, message, received = failure(proxy, kind, text, stream)
    assert (status, type, message) == expected
    assert {name: received.get(name) for name in headers} == headers


@both_ways
@pytest.mark.parametrize(
    ("text", "status", "type"),
    [("Wait", 429, "rate_limit_error"), ("Break", 500, "server_error"), ("Busy", 503, "overloaded_error")],
)
def test_claudes_own_errors_are_relayed(
    proxy: Running, text: str, status: int, type: str, stream: bool
) -> None:
    assert failure(proxy, "anthropic", text, stream)[:2] == (status, type)


@both_ways
@each(ALL)
def test_a_key_that_is_refused_is_not_the_clients_fault(proxy: Running, kind: str, stream: bool) -> None:
    status, type, message, headers = failure(proxy, kind, "Deny", stream)
    assert (status, type, headers["x-should-retry"]) == (502, "api_error", "false")
    assert message == f"the back end {kind} rejected the proxy's credentials"


@both_ways
@each(ALL)
def test_a_back_end_that_vanishes_is_a_502(proxy: Running, kind: str, stream: bool) -> None:
    status, type, message, _ = failure(proxy, kind, "Vanish", stream)
    assert (status, type) == (502, "api_error")
    assert message == f"the back end {kind} closed the connection without an answer"


@each(ALL)
def test_garbage_instead_of_a_stream_is_a_502(proxy: Running, kind: str) -> None:
    assert failure(proxy, kind, "Garble", True)[:2] == (502, "api_error")


@each(ALL)
def test_garbage_instead_of_an_answer_is_a_502(proxy: Running, kind: str) -> None:
    assert failure(proxy, kind, "Garble", False)[:2] == (502, "api_error")


@each(ALL)
def test_a_stream_that_is_cut_ends_with_an_error(proxy: Running, kind: str) -> None:
    answer = post(proxy, asking(kind, "Cut", stream=True))
    assert answer.status_code == 200
    assert check(answer.content, requested_model=kind) == []
    last = json.loads(answer.text.split("data: ")[-1])
    assert last["error"]["type"] == "api_error"
    assert "closed the connection before completing" in last["error"]["message"]
    assert "message_stop" not in answer.text


@both_ways
def test_latency_is_waited_for(proxy: Running, stream: bool) -> None:
    assert conversation(proxy, "gemini", "Slow", stream=stream) == ["text At last.", "end_turn"]


@both_ways
def test_latency_beyond_the_rules_patience_is_a_504(proxy: Running, stream: bool) -> None:
    assert failure(proxy, "impatient", "Slow", stream)[:2] == (504, "timeout_error")


@both_ways
def test_where_one_provider_is_down_another_answers_in_its_own_format(
    proxy: Running, mock: Aimock, stream: bool
) -> None:
    mock.forget()
    assert conversation(proxy, "in-turn", "Fall", stream=stream) == ["text Caught.", "end_turn"]
    assert [path.partition("?")[0].rpartition(":")[0] for path in mock.paths] == [
        "",
        "/v1beta/models/gemini-2.5-pro",
    ]


# --- Cohere, which LiteLLM knows by a name of its own


@pytest.mark.filterwarnings("ignore:Items .* on TypedDict class:UserWarning")
def test_cohere_answers_whole(proxy: Running) -> None:
    assert conversation(proxy, "cohere", "Hello") == ["text Hej 👋 wörld", "end_turn"]


@pytest.mark.xfail(reason="LiteLLM 1.106.2 parses the `event:` lines of Cohere's streams as JSON")
def test_cohere_answers_in_a_stream(proxy: Running) -> None:
    assert conversation(proxy, "cohere", "Hello", stream=True) == ["text Hej 👋 wörld", "end_turn"]
