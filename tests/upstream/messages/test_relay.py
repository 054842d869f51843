"""A Messages stream on its way through: the same frames, wherever a read cuts them."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.exchange import Call, Exchange, Inbound
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.targets import Target
from routeproxy.upstream.http.sse import EventTooLong
from routeproxy.upstream.messages.assemble import assemble_message, frames_of_message
from routeproxy.upstream.messages.relay import LONGEST_FRAME, FrameSplitter
from routeproxy.upstream.messages.scanner import Scanner
from tests.backend import event, messages_stream
from tests.invariants import check

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


# --- the order of events


POLICY = compile_rules(
    '[providers.p]\ntype = "anthropic"\napi_key = "none"\n[default]\ntargets = "p/*"',
    path=Path("rules.toml"),
    environ={},
)


def a_call() -> Call:
    return Call(Target(provider=POLICY.providers["p"], model="m"), None, Exchange(Inbound(body=b""), POLICY))


START = event(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    },
)
REASON = event(
    "message_delta", delta={"stop_reason": "max_tokens", "stop_sequence": None}, usage={"output_tokens": 9}
)
INDEXES = range(3)
STARTS = [
    event("content_block_start", index=index, content_block=block)
    for index in INDEXES
    for block in (
        {"type": "text", "text": ""},
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "tool_use", "id": f"toolu_{index}", "name": "n", "input": {}},
    )
]
DELTAS = [
    event("content_block_delta", index=index, delta=delta)
    for index in INDEXES
    for delta in (
        {"type": "text_delta", "text": "x"},
        {"type": "thinking_delta", "thinking": "x"},
        {"type": "signature_delta", "signature": "x"},
        {"type": "input_json_delta", "partial_json": "{}"},
    )
]
BLOCK_ENDS = [event("content_block_stop", index=index) for index in INDEXES]
ANY_EVENT = st.sampled_from(
    [
        START,
        REASON,
        *STARTS,
        *DELTAS,
        *BLOCK_ENDS,
        event("message_stop"),
        event("ping"),
        b": hi\n\n",
        b"data: 1\n\n",
    ]
)

OF_THE_ORDER = re.compile(r"I(2|3|4|5|7|12|13|14|19|20|21|32|33):")


def relayed(frames: bytes, at_most: int) -> bytes:
    """What a client gets of these frames, where that many bytes come at once."""
    splitter, scanner = FrameSplitter(), Scanner(a_call())
    got: list[bytes] = []
    reads = [frames[at : at + at_most] for at in range(0, len(frames), at_most)]
    for whole in [*map(splitter.feed, reads), splitter.end()]:
        if not scanner.over and scanner.failure is None and whole:
            got.append(scanner.scan(whole))
    if scanner.failure is not None or not (scanner.over or scanner.is_whole):
        got.append(event("error", error={"type": "api_error", "message": "no"}))
    elif not scanner.over:
        got.append(scanner.end())
    return b"".join(got)


@given(st.lists(ANY_EVENT, max_size=12), st.integers(1, 400))
def test_whatever_comes_clients_get_events_in_an_order_that_they_can_follow(
    frames: list[bytes], at_most: int
) -> None:
    got = relayed(b"".join(frames), at_most)
    assert [problem for problem in check(got) if OF_THE_ORDER.match(problem)] == []


@given(st.lists(ANY_EVENT, max_size=12), st.integers(1, 400))
def test_how_a_stream_is_cut_makes_no_difference(frames: list[bytes], at_most: int) -> None:
    whole = b"".join(frames)
    assert relayed(whole, at_most) == relayed(whole, len(whole) or 1)


BLOCKS = [
    (STARTS[0], DELTAS[0], BLOCK_ENDS[0]),
    (STARTS[1], DELTAS[1], DELTAS[2], BLOCK_ENDS[0]),
    (STARTS[2], DELTAS[3], BLOCK_ENDS[0]),
]


def renumbered(block: tuple[bytes, ...], index: int) -> bytes:
    return b"".join(frame.replace(b'"index": 0', b'"index": %d' % index) for frame in block)


@given(st.lists(st.sampled_from(BLOCKS), max_size=4), st.integers(1, 400))
def test_a_sound_stream_stays_byte_for_byte(blocks: list[tuple[bytes, ...]], at_most: int) -> None:
    content = [renumbered(block, index) for index, block in enumerate(blocks)]
    frames = b"".join([START, *content, REASON, event("message_stop")])
    assert relayed(frames, at_most) == frames
