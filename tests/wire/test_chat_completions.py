"""Providers that speak OpenAI's protocol, directly and through LiteLLM: real bytes both ways."""

import pytest
from msgspec import Raw, json

from routeproxy.chat.request import Assistant, FunctionCall, System, ToolCall, ToolMessage, User
from tests.backend import (
    CUT,
    HANG,
    RESET,
    BackEnd,
    Step,
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

AZURE = "/openai/deployments/some/model/chat/completions?api-version=2024-10-21"
WHERE = {
    "openai": ("/v1", "/v1/chat/completions"),
    "openai_compatible": ("/v1", "/v1/chat/completions"),
    "together_ai": ("/v1", "/v1/chat/completions"),
    "nvidia_nim": ("/v1", "/v1/chat/completions"),
    "openrouter": ("/api/v1", "/api/v1/chat/completions"),
    "azure": ("", AZURE),
}
"""What we speak to ourselves: the `base_url`, and what is asked there."""
THROUGH_LITELLM = {
    "mistral": ("/v1", "/v1/chat/completions"),
    "deepseek": ("/v1", "/v1/chat/completions"),
    "groq": ("/openai/v1", "/openai/v1/chat/completions"),
    "hosted_vllm": ("/v1", "/v1/chat/completions"),
    "xai": ("/v1", "/v1/chat/completions"),
}
OURS = [
    pytest.param(f"{type}@{engine}", *where, id=f"{type}, {engine}")
    for engine in ("direct", "litellm")
    for type, where in WHERE.items()
]
PROVIDERS = [
    *OURS,
    *(pytest.param(f"{type}@litellm", *where, id=type) for type, where in THROUGH_LITELLM.items()),
]
MODEL = "some/model"
TALK: list[Step] = sse(
    chunk(role="assistant", content=""),
    chunk(reasoning_content="Hm."),
    chunk("Hel"),
    chunk("lo"),
    tool_chunk(0, "read", "", id="c1"),
    tool_chunk(0, None, '{"path":'),
    tool_chunk(0, None, '"a"}'),
    done("tool_calls"),
)


def there(type: str, back_end: BackEnd, base: str, model: str = MODEL, **more: object):
    type, _, engine = type.partition("@")
    options = {"api_version": "2024-10-21"} if type == "azure" else {}
    return target(type, back_end.url + base, model, **{"options": options, "engine": engine, **more})


@pytest.mark.parametrize(("type", "base", "path"), PROVIDERS)
def test_a_stream_comes_through_whole(type: str, base: str, path: str) -> None:
    with BackEnd(TALK) as back_end:
        chunks = ask(call(there(type, back_end, base)), chat(tools=True))
    assert [line for line in said(chunks) if line != "call 0"] == [
        "thought Hm.",
        "text Hel",
        "text lo",
        "call 0 read",
        'call 0  {"path":',
        'call 0  "a"}',
        "ends tool_calls",
        "usage 10 5",
    ]
    assert back_end.last.path == path
    assert back_end.last.json["model"] == MODEL
    assert back_end.last.json["tools"][0]["function"]["name"] == "read"
    assert back_end.last.header("accept-encoding") == "identity"


@pytest.mark.parametrize(("type", "base", "path"), PROVIDERS)
def test_a_whole_answer_comes_through(type: str, base: str, path: str) -> None:
    with BackEnd(
        json_answer(completion("Hello", reasoning_content="Hm.") | {"service_tier": "default"})
    ) as back_end:
        chunks = ask(call(there(type, back_end, base)), chat(stream=False))
    assert said(chunks) == ["thought Hm.", "text Hello", "ends stop", "usage 10 5"]
    assert chunks[0].model == "served-model"
    assert "stream_options" not in back_end.last.json


@pytest.mark.parametrize(("type", "base", "path"), OURS)
def test_the_request_goes_out_as_it_was_translated(type: str, base: str, path: str) -> None:
    request = chat(
        tools=True,
        messages=(
            System("Be brief."),
            User("Hi"),
            Assistant(
                None,
                tool_calls=(ToolCall(id="c1", function=FunctionCall("read", '{"b":1,"a":2}')),),
                reasoning_content="",
            ),
            ToolMessage("c1", "text"),
            System("Mind the time."),
            User("Go on"),
        ),
        max_tokens=77,
        temperature=0.5,
        stop=("END",),
        reasoning_effort="high",
        user="u",
        top_k=4,
    )
    with BackEnd(TALK) as back_end:
        ask(call(there(type, back_end, base)), request)
    assert json.decode(back_end.last.body, type=dict[str, Raw]) == {
        "model": Raw(b'"some/model"'),
        **json.decode(json.encode(request), type=dict[str, Raw]),
    }


@pytest.mark.parametrize(
    ("answered", "kind", "status", "message", "wait"),
    [
        pytest.param(
            error(400, "tools[0] is odd"), "invalid_request", 400, "tools[0] is odd", None, id="400"
        ),
        pytest.param(error(401, "Incorrect API key: KEY-1"), "auth", 502, "credentials", None, id="401"),
        pytest.param(error(404, "no such model"), "not_found", 404, "model: some/model", None, id="404"),
        pytest.param(error(429, "slow down", retry_after="7"), "rate_limit", 429, "slow down", 7.0, id="429"),
        pytest.param(error(500, "oh no"), "server_error", 500, "oh no", None, id="500"),
        pytest.param(error(503, "busy"), "overloaded", 529, "busy", None, id="503"),
        pytest.param(
            error(
                400,
                "maximum context length is 100 tokens. However, your messages resulted in 120 tokens",
                "context_length_exceeded",
            ),
            "context_overflow",
            400,
            "prompt is too long: 120 tokens > 100 maximum",
            None,
            id="overflow",
        ),
        pytest.param(
            answer(302, location="http://127.0.0.1:9/"), "connection", 502, "redirect", None, id="a redirect"
        ),
        pytest.param([CUT], "connection", 502, "closed the connection", None, id="cut before the head"),
    ],
)
@pytest.mark.parametrize(("type", "base", "path"), PROVIDERS)
def test_an_error_keeps_its_meaning(
    type: str,
    base: str,
    path: str,
    answered: list[Step],
    kind: str,
    status: int,
    message: str,
    wait: float | None,
) -> None:
    with BackEnd(answered) as back_end:
        found = failure(call(there(type, back_end, base)))
    assert (found.kind, found.status, found.retry_after) == (kind, status, wait)
    assert message in found.message
    assert "KEY-1" not in found.message
    assert "litellm" not in found.message.lower()
    assert len(back_end.requests) == 1


@pytest.mark.parametrize(
    "steps",
    [pytest.param([chunk("a"), RESET], id="reset"), pytest.param([chunk("a"), CUT], id="cut")],
)
@pytest.mark.parametrize(("type", "base", "path"), PROVIDERS)
def test_a_dropped_stream_is_a_failure(type: str, base: str, path: str, steps: list[Step]) -> None:
    with BackEnd(sse(*steps)) as back_end:
        found = failure(call(there(type, back_end, base)))
    assert found.kind == "connection"


@pytest.mark.parametrize(("type", "base", "path"), PROVIDERS)
def test_no_end_is_invented_for_a_stream_that_ceased(type: str, base: str, path: str) -> None:
    with BackEnd(streamed(data(chunk("a")))) as back_end:
        lines = until_failure(call(there(type, back_end, base)))
    assert not [line for line in lines if line.startswith("ends")]


@pytest.mark.parametrize(("type", "base", "path"), PROVIDERS)
def test_an_error_in_a_stream_is_a_failure_with_its_words(type: str, base: str, path: str) -> None:
    broken = data({"error": {"message": "the engine died", "type": "server_error", "code": 500}})
    with BackEnd(streamed(data(chunk("a")), broken)) as back_end:
        found = failure(call(there(type, back_end, base)))
    assert found.kind == "server_error"
    assert "the engine died" in found.message


@pytest.mark.parametrize("reason", ["error", "network_error"])
@pytest.mark.parametrize(("type", "base", "path"), PROVIDERS)
def test_a_finish_reason_that_means_failure_is_not_turned_into_stop(
    type: str, base: str, path: str, reason: str
) -> None:
    whole = completion("a", finish=reason) | {"service_tier": "default"}
    with BackEnd(sse(chunk("a"), chunk(finish=reason)), json_answer(whole)) as back_end:
        streaming = call(there(type, back_end, base))
        assert f"ends {reason}" in said(ask(streaming))
        assert f"ends {reason}" in said(ask(streaming, chat(stream=False)))


@pytest.mark.parametrize(("type", "base", "path"), PROVIDERS)
def test_the_back_end_is_let_go_when_the_client_leaves(type: str, base: str, path: str) -> None:
    with BackEnd(sse(chunk("a"), HANG)) as back_end:
        assert leave(call(there(type, back_end, base)), back_end) < 1


@pytest.mark.parametrize(("type", "base", "path"), OURS)
def test_what_only_some_back_ends_say_is_kept(type: str, base: str, path: str) -> None:
    last = chunk(finish="stop")
    last["choices"][0]["stop_reason"] = "END!"
    details = [{"type": "reasoning.encrypted", "data": "xyz"}]
    with BackEnd(
        sse(chunk(reasoning="Hm."), chunk(reasoning_details=details), chunk(refusal="No."), last)
    ) as back_end:
        chunks = ask(call(there(type, back_end, base)))
    assert said(chunks) == ["thought Hm.", "refusal No.", "matched END!", "ends stop"]
    assert [c.choices[0].delta.reasoning_details for c in chunks if c.choices[0].delta][1] == details


@pytest.mark.parametrize(("type", "base", "path"), OURS)
def test_without_a_key_none_is_sent_and_none_is_looked_for(
    type: str, base: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI", "AZURE", "AZURE_OPENAI", "TOGETHERAI", "NVIDIA_NIM", "OPENROUTER"):
        monkeypatch.setenv(f"{name}_API_KEY", "sk-canary")
    for name in ("OPENAI_ORG_ID", "OPENAI_ORGANIZATION", "OPENAI_PROJECT_ID", "AZURE_AD_TOKEN"):
        monkeypatch.setenv(name, "sk-canary")
    with BackEnd(TALK) as back_end:
        ask(call(there(type, back_end, base), key=None))
    sent = " ".join(f"{name}: {value}" for name, value in back_end.last.headers)
    assert "canary" not in sent
    assert not {"authorization", "api-key"} & {name.lower() for name, _ in back_end.last.headers}


@pytest.mark.parametrize(("type", "base", "path"), OURS)
def test_only_the_key_of_the_call_goes_out(type: str, base: str, path: str) -> None:
    with BackEnd(TALK) as back_end:
        ask(
            call(
                there(type, back_end, base, headers={"X-App": "a"}, forward=("x-cost", "host")),
                x_cost="7",
                host="evil",
            )
        )
    headers = {name.lower(): value for name, value in back_end.last.headers}
    assert headers.get("api-key" if type.startswith("azure") else "authorization") in (
        "KEY-1",
        "Bearer KEY-1",
    )
    assert (headers["x-app"], headers["x-cost"]) == ("a", "7")
    assert headers["host"] == back_end.url.removeprefix("http://")
    assert not [name for name in headers if name.startswith("x-stainless")]
    assert "litellm" not in str(headers).lower()


def test_extra_body_is_merged_in() -> None:
    extra = {"chat_template_kwargs": {"thinking": True}, "stream_options": {"continuous_usage_stats": True}}
    with BackEnd(TALK) as back_end:
        ask(call(there("nvidia_nim", back_end, "/v1", "nvidia/nemotron", extra_body=extra)))
    assert back_end.last.json["model"] == "nvidia/nemotron"
    assert back_end.last.json["chat_template_kwargs"] == {"thinking": True}
    assert back_end.last.json["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize(
    ("fallback", "provider"),
    [(False, {"sort": "price", "allow_fallbacks": False}), (True, {"sort": "price"})],
)
def test_openrouter_falls_back_only_where_the_rule_does(fallback: bool, provider: dict[str, object]) -> None:
    extra = {"provider": {"sort": "price"}, "models": ["a/b", "c/d"]}
    with BackEnd(TALK) as back_end:
        ask(
            call(
                there("openrouter", back_end, "/api/v1", "openai/gpt-4o", extra_body=extra), fallback=fallback
            )
        )
    assert back_end.last.json["model"] == "openai/gpt-4o"
    assert back_end.last.json["provider"] == provider
    assert ("models" in back_end.last.json) is fallback


def test_a_provider_in_the_local_zone_must_have_a_local_address() -> None:
    found = failure(call(target("openai_compatible", "http://192.0.2.7/v1", "m")))
    assert "neither loopback nor private" in found.message


def test_a_repeating_answer_is_not_a_failure() -> None:
    with BackEnd(sse(*[chunk("|---|") for _ in range(300)], done())) as back_end:
        assert len(ask(call(there("deepseek", back_end, "/v1")))) > 300
