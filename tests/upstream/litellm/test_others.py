"""Any other provider that LiteLLM knows: what it sends goes through our own client, with our key, to our
address and nowhere else."""

import pytest

from routeproxy.policy.provider_types import TYPE_NAMES, TYPES
from routeproxy.upstream.litellm.setup import import_litellm
from tests.backend import BackEnd, chunk, done, sse
from tests.upstream.litellm.asking import (
    LITELLMS_WARNINGS,
    LOOP,
    ask,
    call,
    chat,
    failure,
    said,
    target,
    until_failure,
)

pytestmark = LITELLMS_WARNINGS

# These speak OpenAI's protocol under LiteLLM's own name for them.
SPEAK_CHAT = [
    "aiml",
    "baseten",
    "cerebras",
    "cometapi",
    "dashscope",
    "deepinfra",
    "deepseek",
    "empower",
    "fireworks_ai",
    "friendliai",
    "galadriel",
    "github",
    "helicone",
    "hosted_vllm",
    "hyperbolic",
    "inception",
    "lambda_ai",
    "litellm_proxy",
    "llamafile",
    "lm_studio",
    "meta_llama",
    "minimax",
    "mistral",
    "moonshot",
    "morph",
    "nano-gpt",
    "nebius",
    "novita",
    "nscale",
    "ovhcloud",
    "parasail",
    "perplexity",
    "poe",
    "publicai",
    "sambanova",
    "scaleway",
    "synthetic",
    "v0",
    "vercel_ai_gateway",
    "volcengine",
    "wandb",
    "xai",
    "xinference",
    "zai",
]


@pytest.mark.parametrize("type", SPEAK_CHAT)
def test_a_stream_comes_through(type: str) -> None:
    with BackEnd(sse(chunk("Hel"), chunk("lo"), done())) as back_end:
        lines = said(ask(call(target(type, f"{back_end.url}/v1", "some/model")), chat(tools=True)))
    assert [line for line in lines if not line.startswith("usage")] == ["text Hel", "text lo", "ends stop"]
    assert back_end.last.json["model"].endswith("some/model")  # Fireworks' are put under accounts/
    assert back_end.last.json["tools"][0]["function"]["name"] == "read"
    assert back_end.last.header("authorization") == "Bearer KEY-1"
    assert back_end.last.header("accept-encoding") == "identity"


@pytest.mark.parametrize("type", sorted(set(TYPE_NAMES) - set(TYPES) - set(SPEAK_CHAT)))
def test_nothing_goes_past_our_client(type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Formats differ, and some want more than a key: but whoever asks, asks through us, or not at all."""
    if type in ("chatgpt", "github_copilot"):
        pytest.skip("signs in at its own site before the first request")
    with BackEnd(sse(chunk("a"), done())) as back_end:
        until_failure(call(target(type, f"{back_end.url}/v1", "some-model")))
    assert {one.header("accept-encoding") for one in back_end.requests} <= {"identity"}


def test_a_deployment_with_the_name_of_a_model_of_mistrals_is_still_asked_at_azure() -> None:
    """LiteLLM takes `azure/M` to OpenAI's path, with the key as a token, once it knows a `mistral/M`."""
    with BackEnd(sse(chunk("a"), done())) as back_end:
        ask(call(target("mistral", f"{back_end.url}/v1", "large", engine="litellm")))
        ask(call(target("azure", back_end.url, "large", engine="litellm")))
    assert back_end.last.path.startswith("/openai/deployments/large/chat/completions")
    assert back_end.last.header("api-key") == "KEY-1"


def test_a_client_that_litellm_lets_go_does_not_take_ours_with_it() -> None:
    litellm = import_litellm()

    async def close() -> bool:
        await litellm.aclient_session.aclose()
        return bool(litellm.aclient_session.is_closed)

    assert not LOOP.run(close())
    with BackEnd(sse(chunk("a"), done())) as back_end:
        assert ask(call(target("mistral", f"{back_end.url}/v1", "large", engine="litellm")))


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b'data: {"choices": [}\n\n', id="broken JSON"),
        pytest.param(b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n', id="not UTF-8"),
    ],
)
def test_a_chunk_that_openais_client_cannot_read_is_said_in_our_words(sent: bytes) -> None:
    with BackEnd(sse(chunk("a"), sent, done())) as back_end:
        failed = failure(call(target("openai", f"{back_end.url}/v1", "gpt-4o", engine="litellm")))
    assert failed.kind == "connection"
    assert failed.message == "the back end corp answered with something that is not a completion"
