"""The checker itself: a good stream passes, and each way to spoil it is called by its number."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.invariants import check

Frames = list[dict[str, Any]]


def good() -> Frames:
    return [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "opus",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 9, "output_tokens": 1},
            },
        },
        start(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="hm"),
        delta(0, type="signature_delta", signature="s"),
        stop(0),
        {"type": "ping"},
        start(1, type="text", text=""),
        delta(1, type="text_delta", text="hi"),
        stop(1),
        start(2, type="tool_use", id="c1", name="read", input={}),
        delta(2, type="input_json_delta", partial_json='{"a":1}'),
        stop(2),
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
    ]


def start(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **body: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": body}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


ERROR = {"type": "error", "error": {"type": "api_error", "message": "boom"}}


def raw(frames: Frames) -> bytes:
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in frames)


def problems(stream: bytes, **told: Any) -> list[str]:
    return check(stream, requested_model="opus", **told)


def test_a_good_stream_passes() -> None:
    assert problems(raw(good())) == []
    assert problems(raw(good()).replace(b"\n", b"\r\n")) == []
    assert problems(b": hello\n\n" + raw([{"type": "ping"}, *good()])) == []
    assert problems(raw([*good()[:3], ERROR])) == []
    assert problems(raw([ERROR])) == []


def spoiled(change: Callable[[Frames], Any]) -> bytes:
    frames = good()
    change(frames)
    return raw(frames)


def put(at: int, *path_and_value: Any) -> Callable[[Frames], None]:
    *path, last, value = path_and_value

    def change(frames: Frames) -> None:
        place: Any = frames[at]
        for key in path:
            place = place[key]
        place[last] = value

    return change


def swap(at: int, *frames: dict[str, Any], end: int | None = None) -> Callable[[Frames], None]:
    def change(stream: Frames) -> None:
        stream[at : at + 1 if end is None else end] = frames

    return change


MESSAGE_DELTA = good()[12]


@pytest.mark.parametrize(
    ("number", "stream"),
    [
        (1, raw(good()).replace(b"event: ping\n", b"")),
        (1, raw(good()) + b"data: [DONE]\n\n"),
        (2, raw(good()).replace(b'data: {"type": "ping"}', b"data: {")),
        (2, b"event: ping\n\n" + raw(good())),
        (3, raw(good()).replace(b"event: ping", b"event: pong")),
        (4, raw([*good()[:3], ERROR, {"type": "message_stop"}])),
        (5, raw([*good(), {"type": "ping"}])),
        (6, raw([{"type": "error", "error": "boom"}])),
        (6, raw([{**ERROR, "status": 500}])),
        (7, spoiled(lambda f: f.pop(0))),
        (7, spoiled(lambda f: f.insert(1, f[0]))),
        (8, spoiled(put(0, "message", "content", [{"type": "text", "text": ""}]))),
        (8, spoiled(lambda f: f[0]["message"].pop("stop_sequence"))),
        (9, spoiled(put(0, "message", "id", "chatcmpl-1"))),
        (10, spoiled(put(0, "message", "model", "gpt"))),
        (11, spoiled(put(0, "message", "usage", None))),
        (11, spoiled(put(0, "message", "usage", "input_tokens", None))),
        (12, spoiled(lambda f: f.insert(13, f[6]))),
        (13, spoiled(lambda f: f.pop(4))),
        (13, spoiled(lambda f: f.pop(11))),
        (14, spoiled(swap(6, start(2, type="text", text="")))),
        (15, spoiled(put(6, "content_block", "text", "hi"))),
        (15, spoiled(lambda f: f[1]["content_block"].pop("signature"))),
        (16, spoiled(put(9, "content_block", "id", "functions.read:0"))),
        (16, spoiled(put(9, "content_block", "id", None))),
        (17, spoiled(swap(11, stop(2), start(3, type="tool_use", id="c1", name="read", input={}), stop(3)))),
        (18, spoiled(put(9, "content_block", "name", ""))),
        (19, spoiled(put(7, "index", 0))),
        (19, spoiled(put(8, "index", 0))),
        (20, spoiled(swap(7, delta(1, type="thinking_delta", thinking="hm")))),
        (21, spoiled(put(7, "delta", "text", None))),
        (22, spoiled(put(7, "delta", "text", ""))),
        (23, spoiled(lambda f: f.insert(4, f[2]))),
        (24, spoiled(lambda f: f.pop(7))),
        (25, spoiled(lambda f: f.pop(3))),
        (25, spoiled(lambda f: f.insert(4, f[3]))),
        (26, spoiled(put(10, "delta", "partial_json", '{"a":'))),
        (26, spoiled(put(10, "delta", "partial_json", "[]"))),
        (27, spoiled(lambda f: f.insert(12, MESSAGE_DELTA))),
        (27, spoiled(lambda f: f.pop(12))),
        (28, spoiled(put(12, "delta", "stop_reason", "length"))),
        (28, spoiled(lambda f: f[12]["delta"].pop("stop_sequence"))),
        (28, spoiled(put(12, "delta", "stop_sequence", "END"))),
        (29, spoiled(put(12, "usage", {}))),
        (29, spoiled(lambda f: f[12].pop("usage"))),
        (30, spoiled(put(12, "usage", "output_tokens", 0))),
        (31, spoiled(put(12, "usage", "cache_read_input_tokens", None))),
        (31, spoiled(put(12, "usage", "output_tokens", -1))),
        (31, spoiled(put(12, "usage", "input_tokens", 0))),
        (32, spoiled(lambda f: f.pop(12))),
        (33, spoiled(swap(5, {"type": "chunk"}))),
        (34, spoiled(lambda f: f.pop())),
        (34, b""),
        (34, raw(good()) + b"event: ping"),
        (35, spoiled(swap(9, end=12))),
        (36, spoiled(put(12, "delta", "stop_reason", "end_turn"))),
    ],
)
def test_each_way_to_spoil_a_stream_is_named(number: int, stream: bytes) -> None:
    assert f"I{number}" in {problem.split(":")[0] for problem in problems(stream)}


def test_an_id_of_an_earlier_turn_is_a_second_use() -> None:
    assert problems(raw(good()), earlier_tool_ids=["c1"]) == ["I17: tool id 'c1' came before"]


def test_arguments_may_be_cut_by_the_limit() -> None:
    def change(frames: Frames) -> None:
        put(10, "delta", "partial_json", '{"a":')(frames)
        put(12, "delta", "stop_reason", "max_tokens")(frames)

    assert problems(spoiled(change)) == []


def test_no_input_tokens_are_true_when_all_were_cached() -> None:
    usage = {"input_tokens": 0, "cache_read_input_tokens": 9, "output_tokens": 5}
    assert problems(spoiled(put(12, "usage", usage))) == []
