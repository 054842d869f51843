"""Chunks that came together and are nothing but text become one before they are read, and say the same."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.chat.completion import Choice, Chunk, Delta
from routeproxy.messages.events import accumulate
from routeproxy.upstream.chat.coalesce import TextCoalescer
from routeproxy.upstream.chat.completions import ChatCompletionsDecoder
from routeproxy.upstream.http.sse import EventDecoder
from tests.translate.answering import events_of

CALL = {"index": 0, "id": "c", "function": {"name": "read", "arguments": "{}"}}
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "served"}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {**HEAD, "choices": [choice], **more}


def text(content: str, **more: Any) -> dict[str, Any]:
    return chunk({"content": content}, **more)


def stream(*chunks: dict[str, Any], ascii: bool = True) -> bytes:
    lines = (json.dumps(one, separators=(",", ":"), ensure_ascii=ascii) for one in chunks)
    return "".join(f"data: {line}\n\n" for line in lines).encode("utf-8", "surrogatepass")


def read(data: bytes) -> list[Chunk]:
    """As it is read when it comes in one piece."""
    return list(ChatCompletionsDecoder().feed(data)[0])


def one_by_one(data: bytes) -> list[Chunk]:
    words = ChatCompletionsDecoder()
    return [chunk for event in EventDecoder().feed(data) for chunk in words.feed(b"data: %b\n\n" % event)[0]]


pieces = st.text(st.sampled_from('ab"\\\n\r\t/ünß😀\ud83d\ude00{}:,'), max_size=4)
deltas = st.one_of(
    st.fixed_dictionaries({"content": pieces}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": pieces}),
    st.fixed_dictionaries({"content": pieces, "reasoning_content": st.sampled_from(["", "hm"])}),
    st.fixed_dictionaries({"content": pieces, "refusal": st.sampled_from([None, "no"])}),
    st.just({"content": "a", "tool_calls": [CALL]}),
    st.sampled_from([{}, {"content": None}, {"content": [{"type": "text", "text": "a"}]}]),
)
more = st.fixed_dictionaries(
    {"id": st.sampled_from("ab")},
    optional={"usage": st.sampled_from([None, {"prompt_tokens": 5}]), "error": st.just({"message": "no"})},
)
others = st.builds(
    lambda delta, finish, more: {**chunk(delta, finish), **more},
    deltas,
    st.sampled_from([None, None, None, "stop", "length"]),
    more,
)


@given(st.lists(pieces.map(text) | others, max_size=12), st.booleans())
def test_what_came_together_says_what_it_says_one_by_one(sent: list[dict[str, Any]], ascii: bool) -> None:
    data = stream(*sent, chunk({}, "stop"), ascii=ascii)
    assert accumulate(events_of(*read(data))) == accumulate(events_of(*one_by_one(data)))


def test_chunks_that_are_only_text_are_read_as_one() -> None:
    sent = [chunk({"role": "assistant", "content": ""}), *map(text, "abc"), chunk({}, "stop")]
    assert [one.choices[0].delta and one.choices[0].delta.content for one in read(stream(*sent))] == [
        "",
        "abc",
        None,
    ]


def test_escapes_stay_what_they_are_and_half_characters_meet() -> None:
    sent = ['say \\"', '"', "\\", "n\n", "\ud83d", "\ude00"]
    (together,) = read(stream(*map(text, sent)))
    assert together == Chunk((Choice(0, Delta('say \\""\\n\n😀')),), model="served")


# Three chunks around the same text, of which each says something that must be heard three times.
HEARD = [
    pytest.param(chunk({"content": "a", "tool_calls": [CALL]}), id="a call"),
    pytest.param(chunk({"content": "a", "reasoning_content": "hm"}), id="a thought"),
    pytest.param(text("a", usage={"prompt_tokens": 1}), id="usage"),
    pytest.param(chunk({"content": "a"}, "stop"), id="a finish reason"),
    pytest.param({**HEAD, "choices": [{"index": 1, "delta": {"content": "a"}}]}, id="another choice"),
    pytest.param({**HEAD, "choices": [{"delta": {"content": "a"}}] * 2}, id="two choices"),
    pytest.param({"content": "a", "choices": []}, id="text in no delta"),
]


@pytest.mark.parametrize("sent", HEARD)
def test_nothing_else_gets_lost_on_the_way(sent: dict[str, Any]) -> None:
    (once,) = read(stream(sent))
    assert read(stream(sent, sent, sent)) == [once] * 3


def test_nothing_is_read_behind_an_error() -> None:
    failed = {**HEAD, "error": "no", "choices": [{"delta": {"content": "a"}}]}
    assert read(stream(failed, failed)) == read(stream(failed))


BROKEN = [
    pytest.param(b'{"choices":[{"delta":{"content":"}}]}', id="one whose end is its beginning"),
    pytest.param(b'{"choices":[{"delta":{"content":"a"b"}}]}', id="a quote too many"),
    pytest.param(b'{"choices":[{"delta":{"content":"a\\"}}]}', id="a quote too few"),
]


@pytest.mark.parametrize("line", BROKEN)
def test_what_cannot_be_read_is_not_made_readable(line: bytes) -> None:
    good = b'{"choices":[{"delta":{"content":"a"}}]}'
    for lines in ([good, line, good], [line, good, good], [good, good, line], [line, line]):
        with pytest.raises(ValueError, match=r"."):
            read(b"".join(b"data: %b\n\n" % one for one in lines))


def test_a_comment_or_a_named_event_between_them_is_no_text() -> None:
    one = stream(text("a"))
    assert [len(read(data)) for data in (one * 3, one + b": hm\n\n" + one, one + b"event: x\n" + one)] == [
        1,
        2,
        2,
    ]


class Looked(list[bytes]):
    """Counts how many frames are taken out of it in slices."""

    many = 0

    def __getitem__(self, key: Any) -> Any:
        taken = super().__getitem__(key)
        self.many += len(taken) if isinstance(key, slice) else 0
        return taken


A, B = (
    b'{"choices":[{"delta":{"content":"Z"}}]}',
    b'{"choices":[{"delta":{"content":"","role":"assistant"}}]}',
)
MANY = [
    pytest.param([A] * 4000, 1, id="all alike"),
    pytest.param([A] * 4000 + [B], 1, id="all but the last"),
    pytest.param([A, B] * 2000, 8, id="one and one"),
    pytest.param([A, A, B] * 1300, 8, id="two and one"),
]


@pytest.mark.parametrize(("frames", "times"), MANY)
def test_odd_frames_among_them_do_not_make_each_look_at_all(frames: list[bytes], times: int) -> None:
    looked = Looked(frames)
    together = TextCoalescer(lambda frame: True).coalesce(looked)
    assert looked.many <= times * len(frames)
    assert b"".join(together).count(b"Z") == b"".join(frames).count(b"Z")
