"""A Messages stream on its way through: the same frames, wherever a read cuts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.upstream.http.sse import EventTooLong
from routeproxy.upstream.messages.assemble import assemble_message, frames_of_message
from routeproxy.upstream.messages.relay import LONGEST_FRAME, FrameSplitter
from tests.backend import messages_stream

STREAM = b"".join([b": hi\n\n", *messages_stream("Hello")])
LINE_ENDS = st.sampled_from([b"\n", b"\r\n"])


@given(st.lists(st.integers(1, 400), max_size=30), LINE_ENDS)
def test_frames_are_the_same_however_the_stream_is_cut(lengths: list[int], line_end: bytes) -> None:
    stream = STREAM.replace(b"\n", line_end)
    splitter, parts, at = FrameSplitter(), [], 0
    for length in (*lengths, len(stream)):
        parts.append(splitter.feed(stream[at : at + length]))
        at += length
    assert b"".join(parts) == stream
    assert all(part.endswith(line_end * 2) for part in parts if part)
    assert splitter.end() == b""


@pytest.mark.parametrize(
    ("rest", "last"),
    [
        (b'event: x\ndata: {"a":1}', b'event: x\ndata: {"a":1}\n\n'),
        (b'event: x\ndata: {"a":1}\n', b'event: x\ndata: {"a":1}\n\n'),
        (b'event: x\ndata: {"a":', b""),
        (b"event: x", b""),
        (b"", b""),
    ],
)
def test_a_last_frame_that_only_lacks_its_line_end_goes_out(rest: bytes, last: bytes) -> None:
    splitter = FrameSplitter()
    assert splitter.feed(rest) == b""
    assert splitter.end() == last


def test_a_frame_without_an_end_is_too_long_some_day() -> None:
    splitter = FrameSplitter()
    splitter.feed(b"x" * LONGEST_FRAME)
    with pytest.raises(EventTooLong):
        splitter.feed(b"x")


def test_a_message_that_became_a_stream_is_the_same_message_again() -> None:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "text", "text": "Hello", "citations": [{"type": "page"}]},
            {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "a"}},
            {"type": "brand_new", "field": 1},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 9},
        "brand_new": [1],
    }
    assert assemble_message(frames_of_message(message)) == message
