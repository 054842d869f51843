"""The official Python SDK, with strict validation, as the judge of our replies: sync and async, streamed and
not, tools and thinking."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message

from tests.backend import (
    BackEnd,
    Received,
    Script,
    chunk,
    completion,
    done,
    error,
    json_answer,
    messages_stream,
    sse,
    streamed,
    tool_chunk,
)
from tests.invariants import check
from tests.running import Running, running

WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
HELLO = [{"role": "user", "content": "Hello"}]


def back_end(received: Received) -> Script:
    """Answers by what it is asked: the last user text says which answer is wanted."""
    body = received.json
    wanted = next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")
    stream = body.get("stream", False)
    match wanted:
        case "Refuse":
            return error(429, "slow down", retry_after="7")
        case "Think":
            if stream:
                return sse(
                    chunk(reasoning_content="Let me "), chunk(reasoning_content="see."), chunk("Yes"), done()
                )
            return json_answer(completion("Yes", reasoning_content="Let me see."))
        case "Weather":
            arguments = '{"city": "Oslo"}'
            if stream:
                return sse(
                    chunk("Looking."),
                    tool_chunk(0, "get_weather", "", id="call_1"),
                    tool_chunk(0, arguments=arguments[:5]),
                    tool_chunk(0, arguments=arguments[5:]),
                    done("tool_calls"),
                )
            call = {
                "id": "call_1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": arguments},
            }
            return json_answer(completion("Looking.", finish="tool_calls", tool_calls=[call]))
        case _:
            return sse(chunk("Hel"), chunk("lo"), done()) if stream else json_answer(completion("Hello"))


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    messages = [*messages_stream("Hello from Claude")]
    with BackEnd(back_end) as chat, BackEnd(streamed(*messages)) as claude:
        rules = f"""
        [providers.corp]
        type = "openai_compatible"
        base_url = "{chat.url}/v1"
        api_key = "none"
        zone = "private"

        [providers.anthropic]
        base_url = "{claude.url}"
        api_key = "none"
        zone = "private"

        [providers.echo]

        [[rules]]
        name = "echo"
        match.model.equals = "echo"
        targets = "echo/echo"

        [[rules]]
        name = "claude"
        match.model = "opus"
        targets = "anthropic/*"

        [default]
        targets = "corp/served-model"
        """
        with running(rules, tmp_path_factory.mktemp("sdk")) as server:
            yield server


@pytest.fixture
def client(proxy: Running) -> Iterator[Anthropic]:
    with Anthropic(
        base_url=proxy.url, api_key="anything", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def ask(
    client: Anthropic, text: str, *, stream: bool, model: str = "claude-sonnet-5", **more: object
) -> Message:
    arguments: dict[str, object] = {
        "model": model,
        "max_tokens": 2000,
        "messages": [{"role": "user", "content": text}],
        **more,
    }
    if not stream:
        return client.messages.create(**arguments)  # type: ignore[call-overload, no-any-return]
    with client.messages.stream(**arguments) as events:  # type: ignore[arg-type]
        return events.get_final_message()


both_ways = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


@both_ways
def test_a_text_answer(client: Anthropic, stream: bool) -> None:
    message = ask(client, "Hello", stream=stream)
    assert [block.type for block in message.content] == ["text"]
    assert message.content[0].text == "Hello"  # type: ignore[union-attr]
    assert (message.model, message.stop_reason) == ("claude-sonnet-5", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (10, 5)


@both_ways
def test_reasoning_comes_as_a_thinking_block(client: Anthropic, stream: bool) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    message = ask(client, "Think", stream=stream, thinking=thinking)
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking == "Let me see."  # type: ignore[union-attr]
    assert message.content[0].signature.startswith("rp1.")  # type: ignore[union-attr]


@both_ways
def test_a_tool_goes_round(client: Anthropic, stream: bool) -> None:
    message = ask(client, "Weather", stream=stream, tools=[WEATHER])
    assert [block.type for block in message.content] == ["text", "tool_use"]
    assert message.content[1].input == {"city": "Oslo"}  # type: ignore[union-attr]
    assert message.stop_reason == "tool_use"


@both_ways
def test_echo_says_it_back(client: Anthropic, stream: bool) -> None:
    message = ask(client, "Say  this\nback", stream=stream, model="echo")
    assert message.content[0].text == "Say  this\nback"  # type: ignore[union-attr]


def test_echo_calls_the_tool_that_it_must(client: Anthropic) -> None:
    choice = {"type": "tool", "name": "get_weather"}
    message = ask(client, "Weather", stream=True, model="echo", tools=[WEATHER], tool_choice=choice)
    assert [(block.type, block.name, block.input) for block in message.content] == [
        ("tool_use", "get_weather", {})
    ]  # type: ignore[union-attr]


def test_a_stream_of_claude_is_relayed(client: Anthropic) -> None:
    message = ask(client, "Hello", stream=True, model="claude-opus-4-8")
    assert message.content[0].text == "Hello from Claude"  # type: ignore[union-attr]
    assert message.model == "claude-opus-4-8"


@both_ways
def test_an_error_is_the_class_that_the_sdk_knows(client: Anthropic, stream: bool) -> None:
    with pytest.raises(anthropic.RateLimitError) as refused:
        ask(client, "Refuse", stream=stream)
    assert refused.value.type == "rate_limit_error"
    assert refused.value.request_id
    assert refused.value.request_id.startswith("req_")
    assert refused.value.response.headers["retry-after"] == "7"


@both_ways
def test_the_async_client_sees_the_same(proxy: Running, stream: bool) -> None:
    async def conversation() -> Message:
        async with AsyncAnthropic(
            base_url=proxy.url, api_key="anything", max_retries=0, _strict_response_validation=True
        ) as client:
            if not stream:
                return await client.messages.create(model="claude-sonnet-5", max_tokens=100, messages=HELLO)  # type: ignore[arg-type]
            async with client.messages.stream(
                model="claude-sonnet-5", max_tokens=100, messages=HELLO
            ) as events:  # type: ignore[arg-type]
                return await events.get_final_message()

    message = asyncio.run(conversation())
    assert message.content[0].text == "Hello"  # type: ignore[union-attr]


def test_tokens_are_counted(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model="claude-sonnet-5", messages=HELLO)  # type: ignore[arg-type]
    assert counted.input_tokens >= 1


def test_models_are_listed_and_shown(client: Anthropic) -> None:
    listed = client.models.list(limit=1)
    assert [client.models.retrieve(model.id).id for model in listed] == [model.id for model in listed]
    assert any("claude" in model.id or "anthropic" in model.id for model in listed)


RECORDED = sorted((Path(__file__).parent.parent / "wire" / "claude-code").glob("*.json"))


@pytest.mark.parametrize("recorded", RECORDED, ids=[path.stem for path in RECORDED])
@pytest.mark.parametrize(
    "model", ["echo", "claude-opus-4-8", "anything"], ids=["echo", "pass-through", "translated"]
)
def test_a_request_of_a_real_claude_code_goes_through(proxy: Running, recorded: Path, model: str) -> None:
    request = json.loads(recorded.read_text())
    body = request["body"] | {"model": model}
    headers = {name.replace("-", "_"): value for name, value in request["headers"].items()}
    answer = proxy.post(body, "/v1/messages?beta=true", **headers)
    assert answer.status_code == 200, answer.text
    assert check(answer.content, requested_model=model) == []
