"""Whole answers, case by case: the numbers are those of wire.md, E."""

import json
from typing import Any

import pytest
from anthropic.types import Message as SdkMessage
from msgspec import UNSET

from routeproxy.chat.completion import (
    Chunk,
    CompletionTokensDetails,
    CompletionUsage,
    Delta,
    FunctionDelta,
    PromptTokensDetails,
)
from routeproxy.messages.events import Error
from routeproxy.messages.reply import Message, ThinkingBlock, encode
from tests.translate.answering import blocks, call, reply, whole


def message(**completion: Any) -> Message:
    """The message that a completion becomes; Anthropic's SDK must agree that it is one."""
    answer = reply(whole(**completion))
    assert isinstance(answer, Message), answer
    body = json.loads(encode(answer))
    SdkMessage.model_validate(body)
    assert body["id"] == "msg_1"
    assert body["model"] == "claude-opus-4-8"
    return answer


def test_e01_text() -> None:
    answer = message(content="Hello", usage=CompletionUsage(prompt_tokens=9, completion_tokens=3))
    assert json.loads(encode(answer)) == {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "model": "claude-opus-4-8",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {"input_tokens": 9, "output_tokens": 3},
    }


def test_e02_two_calls_with_one_id_get_two() -> None:
    answer = message(
        tool_calls=(call(None, "c1", "read", '{"a":1}'), call(None, "c1", "write", '{"b":2}')),
        finish_reason="tool_calls",
    )
    assert blocks(answer) == [("tool_use", "read", '{"a":1}'), ("tool_use", "write", '{"b":2}')]
    assert [block.id for block in answer.content if block.__struct_config__.tag == "tool_use"] == [
        "c1",
        "toolu_1",
    ]
    assert answer.stop_reason == "tool_use"


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_e03_no_text_beside_a_call_makes_no_block(content: Any) -> None:
    answer = message(content=content, tool_calls=(call(0, "c1", "read", "{}"),))
    assert blocks(answer) == [("tool_use", "read", "{}")]


@pytest.mark.parametrize("content", ["", None])
def test_e04_an_empty_answer_is_an_empty_message(content: str | None) -> None:
    answer = message(content=content)
    assert (answer.content, answer.stop_reason) == ((), "end_turn")


@pytest.mark.parametrize("content", ["", None, "Hi"])
def test_e04_a_whole_answer_without_a_finish_reason_is_a_failure(content: str | None) -> None:
    assert isinstance(reply(whole(content=content, finish_reason=None)), Error)


def test_e05_thinking_stands_first_and_is_signed() -> None:
    answer = message(content="hi", reasoning_content="hm")
    thinking, _ = answer.content
    assert isinstance(thinking, ThinkingBlock)
    assert thinking.signature.startswith("rp1.")
    assert blocks(answer) == [("thinking", "hm"), ("text", "hi")]


def test_e06_usage_tells_cached_and_reasoning_tokens_apart() -> None:
    reported = CompletionUsage(
        prompt_tokens=100,
        completion_tokens=50,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=60),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=40),
    )
    assert json.loads(encode(message(content="hi", usage=reported)))["usage"] == {
        "input_tokens": 40,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 60,
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 40},
    }


def test_usage_that_is_not_known_is_estimated_and_never_missing() -> None:
    usage = message(content="four words of text").usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens) == (7, 5, UNSET)


def test_e07_the_old_function_call_is_a_call() -> None:
    answer = message(function_call=FunctionDelta("read", '{"a":1}'), finish_reason="function_call")
    assert blocks(answer) == [("tool_use", "read", '{"a":1}')]
    assert answer.stop_reason == "tool_use"


@pytest.mark.parametrize("arguments", ["nonsense", '{"a":', '{"a":1}{"b":2}', '["a"]'])
def test_e08_arguments_that_are_no_object_are_an_error(arguments: str) -> None:
    answer = reply(whole(tool_calls=(call(0, "c1", "read", arguments),)))
    assert isinstance(answer, Error)
    assert answer.error.type == "api_error"


def test_e09_an_answer_cut_by_the_limit_says_so() -> None:
    assert message(content="long", finish_reason="length").stop_reason == "max_tokens"


def test_e09_a_call_cut_by_the_limit_has_no_input() -> None:
    answer = message(tool_calls=(call(0, "c1", "write", '{"text":"long'),), finish_reason="length")
    assert (blocks(answer), answer.stop_reason) == ([("tool_use", "write", "{}")], "max_tokens")


def test_e10_nothing_of_the_back_ends_own_is_passed_on() -> None:
    answer = message(
        content="hi",
        provider_specific_fields={"x": 1},
        annotations=[{"type": "url_citation"}],
        reasoning_details=[{"type": "reasoning.encrypted", "data": "opaque"}],
    )
    body = encode(answer)
    for foreign in (b"provider_specific_fields", b"annotations", b"opaque", b"choices", b"chatcmpl"):
        assert foreign not in body


def test_e11_text_with_annotations_stays_text() -> None:
    answer = message(
        content="It rains [1].", annotations=[{"type": "url_citation", "url": "https://example.com"}]
    )
    assert blocks(answer) == [("text", "It rains [1].")]


def test_a_refusal_is_a_message() -> None:
    answer = message(refusal="I can't.", finish_reason="stop")
    assert (blocks(answer), answer.stop_reason) == ([("text", "I can't.")], "refusal")


def test_an_error_in_a_200_is_an_error() -> None:
    answer = reply(Chunk(error={"message": "boom"}))
    assert isinstance(answer, Error)
    assert answer.error.message == "boom"


def test_a_completion_without_choices_is_an_error() -> None:
    assert isinstance(reply(Chunk()), Error)


def test_a_delta_where_a_message_should_be_is_read() -> None:
    """Some servers answer a request for one piece with a single chunk."""
    completion = whole(content="hi").choices[0]
    chunk = Chunk(choices=(completion.__class__(delta=Delta(content="hi"), finish_reason="stop"),))
    answer = reply(chunk)
    assert isinstance(answer, Message)
    assert blocks(answer) == [("text", "hi")]
