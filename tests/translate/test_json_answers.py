"""Answers that were asked for as JSON: fences come off, JSON comes out of the reasoning, a miss is said."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from routeproxy.chat.completion import Chunk
from routeproxy.messages.reply import Message, TextBlock
from routeproxy.translate.reply import translate_reply
from tests.translate.answering import context, ends, options, text, thinks, tool

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
ASKED = Raw(json.dumps(SCHEMA).encode())


def answer(*chunks: Chunk, schema: Raw | None = ASKED) -> tuple[list[str], list[str]]:
    """The texts, and the warnings."""
    warnings: list[str] = []
    message = translate_reply(chunks, context(schema=schema), options(), warnings.append)
    assert isinstance(message, Message), message
    return [block.text for block in message.content if isinstance(block, TextBlock)], warnings


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        pytest.param('{"a": 1}', '{"a": 1}', id="bare"),
        pytest.param('```json\n{"a": 1}\n```', '{"a": 1}', id="fenced"),
        pytest.param('```\n{"a": 1}\n```\n', '{"a": 1}', id="fenced without a word"),
        pytest.param('\n\n```JSON\r\n{"a": 1}\r\n```', '{"a": 1}', id="after line breaks"),
        pytest.param('```json{"a": 1}```', '{"a": 1}', id="on one line"),
        pytest.param('{"a": 1, "b": "```json"}', '{"a": 1, "b": "```json"}', id="a fence within"),
    ],
)
def test_a_fence_comes_off(written: str, shown: str) -> None:
    assert answer(text(written), ends()) == ([shown], [])
    assert answer(*map(text, written), ends()) == ([shown], [])


@pytest.mark.parametrize(
    ("written", "miss"),
    [
        pytest.param("I can't.", "it is no JSON", id="prose"),
        pytest.param('Here: ```json\n{"a": 1}\n```', "it is no JSON", id="prose around it"),
        pytest.param("[1]", "it is not of type object", id="another type"),
        pytest.param("{}", "a required property is missing", id="a property is missing"),
    ],
)
def test_a_miss_is_handed_on_and_said(written: str, miss: str) -> None:
    assert answer(text(written), ends()) == (
        [written],
        [f"the answer is not what its JSON schema describes: {miss}"],
    )


def test_json_in_the_reasoning_is_the_answer_where_there_is_no_other() -> None:
    assert answer(thinks('{"a":'), thinks(" 1}"), ends()) == (['{"a": 1}'], [])
    assert answer(thinks('{"a": 2}'), text('{"a": 1}'), ends()) == (['{"a": 1}'], [])


def test_thoughts_that_are_no_json_are_none() -> None:
    texts, warnings = answer(thinks("hm"), ends())
    assert (texts, len(warnings)) == ([], 1)


@pytest.mark.parametrize(
    "chunks",
    [(text("hm"), ends("length")), (tool(0, "c", "read", "{}"), ends("tool_calls"))],
    ids=["cut", "a call"],
)
def test_an_answer_that_was_cut_and_one_that_calls_a_tool_miss_nothing(chunks: tuple[Chunk, ...]) -> None:
    assert answer(*chunks)[1] == []


def test_without_a_schema_nothing_is_touched() -> None:
    assert answer(text("```json\n{}\n```"), ends(), schema=None) == (["```json\n{}\n```"], [])


@given(st.lists(st.sampled_from(["```", "`", "json", "\n", " ", '{"a":1}', "x", "\r\n"]), max_size=8))
def test_how_it_is_cut_makes_no_difference(pieces: list[str]) -> None:
    whole = answer(text("".join(pieces)), ends())
    assert answer(*(text(piece) for piece in pieces), ends()) == whole
    assert answer(*map(text, "".join(pieces)), ends()) == whole
