"""Where LiteLLM may ask: at the provider's own address, or where its type and its options allow."""

import asyncio
import contextvars
from pathlib import Path

import httpx
import pytest

from routeproxy.exchange import Call, Exchange, Inbound
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.targets import Target
from routeproxy.upstream.http.client import Client
from routeproxy.upstream.litellm.providers import litellm_provider_of
from routeproxy.upstream.litellm.transport import (
    DispatchingTransport,
    LiteLLMTransport,
    SyncDispatchingTransport,
    is_nobody_to_be_asked,
    set_current_transport,
)

RULES = """
[providers.vertex]
type = "vertex_ai"
project = "p"
location = "europe-west1"
[providers.bedrock]
aws_region_name = "eu-central-1"
[providers.gemini]
api_key = "none"
[providers.groq]
api_key = "none"
[default]
deny = "nobody"
"""
EUROPE = "https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/europe-west1/publishers/x"


def transport_of(name: str) -> LiteLLMTransport:
    policy = compile_rules(RULES, path=Path("rules.toml"), environ={})
    provider = policy.providers[name]
    call = Call(Target(provider=provider, model="m"), None, Exchange(Inbound(body=b""), policy))
    return LiteLLMTransport(Client({}), call, litellm_provider_of(provider), None, stream=False)


def refusal(name: str, url: str, method: str = "POST") -> str | None:
    try:
        transport_of(name).provider_for(httpx.Request(method, url))
    except httpx.TransportError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("vertex", EUROPE),
        ("bedrock", "https://bedrock-runtime.eu-central-1.amazonaws.com/model/m/converse"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent"),
        ("groq", "https://api.groq.com/openai/v1/chat/completions"),
    ],
)
def test_the_usual_address_is_asked(name: str, url: str) -> None:
    assert refusal(name, url) is None


@pytest.mark.parametrize(
    ("name", "url", "why"),
    [
        (
            "vertex",
            "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/x",
            "LiteLLM would have asked aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/x, "
            "which is not in location `europe-west1`",
        ),
        (
            "vertex",
            EUROPE.replace("googleapis.com", "googleapis.com.example"),
            "a request would have gone to europe-west1-aiplatform.googleapis.com.example, "
            "which is not googleapis.com",
        ),
        (
            "bedrock",
            "https://bedrock-runtime.us-east-1.amazonaws.com/model/m/converse",
            "LiteLLM would have asked bedrock-runtime.us-east-1.amazonaws.com/model/m/converse, "
            "which is not in aws_region_name `eu-central-1`",
        ),
        (
            "gemini",
            "https://elsewhere.example/v1beta/models/m:generateContent",
            "a request would have gone to elsewhere.example, which is not its base_url",
        ),
    ],
)
def test_no_other_address_is(name: str, url: str, why: str) -> None:
    assert refusal(name, url) == why


@pytest.mark.parametrize("url", [EUROPE, "https://pictures.example/cat.png"])
def test_nothing_is_fetched_for_a_prompt(url: str) -> None:
    path = httpx.URL(url).path
    assert refusal("vertex", url, "GET") == f"GET {path} is not sent for a chat"


def test_nothing_is_fetched_without_the_event_loop_either() -> None:
    transport = transport_of("vertex")

    def asking() -> None:
        set_current_transport(transport)
        with pytest.raises(httpx.UnsupportedProtocol, match="is not sent for a chat"):
            SyncDispatchingTransport().handle_request(
                httpx.Request("GET", "https://pictures.example/cat.png")
            )

    contextvars.copy_context().run(asking)


def test_what_is_still_at_work_for_a_call_that_is_over_asks_nobody() -> None:
    def asking() -> None:
        assert not is_nobody_to_be_asked()
        transport = transport_of("vertex")
        set_current_transport(transport)
        assert not is_nobody_to_be_asked()
        del transport
        assert is_nobody_to_be_asked()
        with pytest.raises(httpx.UnsupportedProtocol, match="no call asked"):
            asyncio.run(DispatchingTransport().handle_async_request(httpx.Request("POST", EUROPE)))

    contextvars.copy_context().run(asking)


def test_on_the_event_loop_nothing_is_asked_without_awaiting() -> None:
    async def asking() -> None:
        transport = transport_of("vertex")
        set_current_transport(transport)
        with pytest.raises(httpx.UnsupportedProtocol, match="stop the event loop"):
            SyncDispatchingTransport().handle_request(httpx.Request("POST", EUROPE))

    asyncio.run(asking())
