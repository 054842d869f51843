"""Half characters on their way through LiteLLM: hidden from it in the JSON, back in what it makes of that."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.chat.completion import Choice, Chunk, Delta, FunctionDelta, ToolCallDelta
from routeproxy.upstream.litellm.half_characters import HalfCharacters, unfinished

HALVES = st.text(st.sampled_from('\\"u\n d8😀\ud83d\ude00\udbfd\udfffé'), max_size=8)


def read_by_litellm(texts: list[str], cuts: list[int]) -> tuple[list[str], HalfCharacters]:
    """The texts of a body of JSON that comes in pieces, as somebody reads them who can't bear a half."""
    body, halves, held, seen = json.dumps(texts).encode(), HalfCharacters(), b"", b""
    places = sorted({0, len(body), *(cut % len(body) for cut in cuts)})
    for start, end in pairwise(places):
        piece = held + body[start:end]
        ready = len(piece) - unfinished(piece)
        held = piece[ready:]
        seen += halves.hide(piece[:ready])
    read = json.loads(seen + held)
    "".join(read).encode()  # as whatever writes, or validates, a text does
    return read, halves


@given(st.lists(HALVES, max_size=4), st.lists(st.integers(0, 400), max_size=12))
def test_a_reader_sees_no_half_and_each_is_restored(texts: list[str], cuts: list[int]) -> None:
    as_json = json.loads(json.dumps(texts))  # two halves in one string are a character
    read, halves = read_by_litellm(texts, cuts)
    chunk = Chunk((Choice(delta=Delta(content=read)),))
    delta = halves.restore(chunk).choices[0].delta
    assert delta is not None
    assert list(delta.content) == as_json


@pytest.mark.parametrize(
    "json_bytes",
    [
        pytest.param(rb'"\ud83d\ude00"', id="a whole character"),
        pytest.param(rb'"\\ud83d"', id="an escaped backslash before four digits"),
        pytest.param(rb'"\\\\ud83d \u00e9 \n"', id="other escapes"),
    ],
)
def test_what_is_no_half_stays_as_it_is(json_bytes: bytes) -> None:
    assert HalfCharacters().hide(json_bytes) == json_bytes


def test_a_half_in_arguments_is_restored_as_the_escape_that_it_was() -> None:
    halves = HalfCharacters()
    arguments = json.dumps(json.loads(halves.hide(rb'{"name": "cut \ud83d", "else": "\uDE00"}')))
    called = ToolCallDelta(function=FunctionDelta("read", arguments))
    delta = halves.restore(Chunk((Choice(delta=Delta(tool_calls=(called,))),))).choices[0].delta
    assert delta is not None
    assert delta.tool_calls
    assert delta.tool_calls[0].function
    assert delta.tool_calls[0].function.arguments == r'{"name": "cut \ud83d", "else": "\ude00"}'


def test_an_answer_without_halves_keeps_every_character_that_it_has() -> None:
    chunk = Chunk((Choice(delta=Delta(content=chr(0x10F83D))),))
    assert HalfCharacters().restore(chunk) is chunk
