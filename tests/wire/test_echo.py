"""The echo provider: a Messages back end that needs no key and says back what it hears."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tests.running import ECHO, Running, running
from tests.wire.asking import Reply, ask


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(
        '[providers.echo]\n[default]\ntargets = ["echo/*"]', tmp_path_factory.mktemp("rules")
    ) as proxy:
        yield proxy


def text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


HEARD = [
    pytest.param([{"role": "user", "content": "Hi there"}], "Hi there", id="a string"),
    pytest.param(
        [user(text("<system-reminder>"), text("Hi"))], "Hi", id="the last block: clients put reminders first"
    ),
    pytest.param(
        [user(text("one")), {"role": "assistant", "content": "two"}, user(text("three"))],
        "three",
        id="the last turn",
    ),
    pytest.param(
        [user(text("one")), {"role": "assistant", "content": "two"}], "one", id="the user's, not its own"
    ),
    pytest.param([user(text("one")), {"role": "system", "content": "two"}], "one", id="nor the system's"),
    pytest.param(
        [user({"type": "tool_result", "tool_use_id": "t", "content": [text("done")]})],
        "done",
        id="a tool's result",
    ),
    pytest.param([user({"type": "hologram"}, text("seen"))], "seen", id="beside what nobody knows"),
    pytest.param(
        [user({"type": "image", "source": {}})], "(the last user message has no text)", id="no text at all"
    ),
    pytest.param([user(text("é😀\u2028\\n"))], "é😀\u2028\\n", id="odd characters"),
]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("messages", "said"), HEARD)
def test_it_says_the_last_text_of_the_user(
    proxy: Running, messages: list[Any], said: str, stream: bool
) -> None:
    reply = ask(proxy, "echo", messages=messages, stream=stream)
    assert reply.text == said
    if stream:
        assert reply.script[-1] == "end_turn"


def test_it_streams_word_by_word(proxy: Running) -> None:
    assert ask(proxy, "echo", messages=[user(text("Hi  there\nyou"))], stream=True).script == [
        "text Hi  ",
        "text there\n",
        "text you",
        "end_turn",
    ]


def test_a_long_text_comes_in_a_bearable_number_of_events(proxy: Running) -> None:
    said = "word " * 20_000
    reply = ask(proxy, "echo", messages=[user(text(said))], stream=True)
    assert reply.text == said
    assert len(reply.events) < 400


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_it_calls_the_tool_that_it_must(proxy: Running, stream: bool) -> None:
    tools = [{"name": "get_weather", "input_schema": {"type": "object"}}]
    choice = {"type": "tool", "name": "get_weather"}
    reply = ask(proxy, "echo", tools=tools, tool_choice=choice, stream=stream)
    if stream:
        assert reply.script == ["tool get_weather", "input {}", "tool_use"]
    else:
        assert [(block["name"], block["input"]) for block in reply.json["content"]] == [("get_weather", {})]
        assert reply.json["stop_reason"] == "tool_use"


def test_it_takes_whatever_is_well_formed(proxy: Running) -> None:
    reply = ask(proxy, "echo", new_field=1, tools=[{"type": "brand_new_2031"}], thinking={"type": "adaptive"})
    assert (reply.status, reply.text) == (200, "Hi")


def test_half_an_emoji_is_no_reason_to_fall_over(proxy: Running) -> None:
    body = b'{"model":"echo","max_tokens":9,"messages":[{"role":"user","content":"a\\ud83d"}]}'
    assert Reply(proxy.post(body)).status == 200


def test_it_says_who_it_is_and_counts(proxy: Running) -> None:
    reply = ask(proxy, "claude-opus-4-8")
    assert (reply.json["model"], reply.said("provider"), reply.said("model")) == (
        "claude-opus-4-8",
        "echo",
        "claude-opus-4-8",
    )
    assert reply.json["usage"]["input_tokens"] > 0
    counted = ask(proxy, "echo", path="/v1/messages/count_tokens").json
    assert counted.keys() == {"input_tokens"}


def test_the_sdk_takes_it_for_claude(proxy: Running) -> None:
    with anthropic.Anthropic(base_url=proxy.url, api_key="x", _strict_response_validation=True) as client:
        messages: list[Any] = [{"role": "user", "content": "Hi there"}]
        whole = client.messages.create(model="echo", max_tokens=9, messages=messages)
        with client.messages.stream(model="echo", max_tokens=9, messages=messages) as stream:
            streamed = stream.get_final_message()
    assert [block.type for block in streamed.content] == ["text"]
    assert streamed.content[0].text == whole.content[0].text == "Hi there"  # type: ignore[union-attr]
    assert whole.usage.output_tokens == streamed.usage.output_tokens > 0


@pytest.mark.parametrize(
    ("field", "words"),
    [
        pytest.param(b'"user_id": ' + b"9" * 5000, "it has a number that can't be read", id="digits"),
        pytest.param(b'"user_id": "\xff"', "a text in it is not valid UTF-8", id="no UTF-8"),
    ],
)
def test_what_no_reader_could_read_is_a_mistake_of_the_request(
    tmp_path: Path, field: bytes, words: str
) -> None:
    body = (
        b'{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "x": {%b}}' % field
    )
    with running(ECHO, tmp_path) as proxy:
        answer = proxy.post(body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, f"invalid JSON: {words}")
