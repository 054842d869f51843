"""Whatever Anthropic's SDK says that an answer may hold goes through a pass-through as it is: blocks, deltas,
stop reasons and events of the SDK that is installed (`tests/sdk_shapes.py`)."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import pytest
from anthropic.types import Message, RawMessageStreamEvent, StopReason
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent, BetaStopReason

from routeproxy.messages import reply
from routeproxy.messages.relayed import read_events, read_message
from routeproxy.upstream.messages.assemble import assemble_message, frames_of_message
from routeproxy.upstream.messages.stream_events import KINDS
from tests.backend import event
from tests.sdk_shapes import Shape, members, tag, variants
from tests.upstream.messages.test_relay import relayed

Json = dict[str, Any]

START, REASON, STOP = (
    event(
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
    ),
    event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 9}),
    event("message_stop"),
)


@cache
def messages() -> list[Shape]:
    """Whole replies, which have a stop reason."""
    shapes = [*variants(BetaMessage), *variants(Message)]
    return [
        Shape(name, {"stop_sequence": None} | value | {"stop_reason": value.get("stop_reason") or "end_turn"})
        for name, value in shapes
    ]


@cache
def events() -> list[Shape]:
    return [*variants(BetaRawMessageStreamEvent), *variants(RawMessageStreamEvent)]


def blocks() -> Iterator[Shape]:
    """Content blocks as they start."""
    for shape in events():
        if shape.value["type"] == "content_block_start":
            yield Shape(shape.name, shape.value["content_block"])


@cache
def block_types() -> dict[str, Json]:
    return {tag(shape.value): shape.value for shape in blocks()}


BLOCK_OF_DELTA = {
    "text_delta": "text",
    "citations_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "thinking",
    "input_json_delta": "tool_use",
    "compaction_delta": "compaction",
}


def around(value: Json) -> bytes:
    """A stream in which the event stands where it belongs."""
    this = event(**value)
    match value["type"]:
        case "message_start":
            return this + REASON + STOP
        case "content_block_start":
            return START + this + event("content_block_stop", index=value["index"]) + REASON + STOP
        case "content_block_delta":
            block = block_types()[BLOCK_OF_DELTA[value["delta"]["type"]]]
            opened = event("content_block_start", index=value["index"], content_block=block)
            return START + opened + this + event("content_block_stop", index=value["index"]) + REASON + STOP
        case "content_block_stop":
            opened = event(
                "content_block_start", index=value["index"], content_block={"type": "text", "text": ""}
            )
            return START + opened + this + REASON + STOP
        case "message_delta":
            return START + this + REASON + STOP
    return START + REASON + this


def first_block(value: Json) -> Json:
    """The event as one of the first content block: instances have 1 for a number."""
    return value | {"index": 0} if "index" in value else value


def test_every_event_of_the_sdk_is_one_that_we_know() -> None:
    types = {shape.value["type"] for shape in events()}
    assert types - set(KINDS) == set()


def test_every_delta_of_the_sdk_is_one_that_this_test_knows() -> None:
    types = {
        shape.value["delta"]["type"] for shape in events() if shape.value["type"] == "content_block_delta"
    }
    assert types - set(BLOCK_OF_DELTA) == set()


def test_every_event_of_the_sdk_goes_through_as_it_is() -> None:
    changed = [
        shape.name
        for shape in events()
        if (stream := around(first_block(shape.value))) != relayed(stream, 100)
    ]
    assert changed == []


def test_every_event_of_the_sdk_adds_up_to_a_message_and_is_read_for_other_protocols() -> None:
    for shape in events():
        stream = around(first_block(shape.value))
        assert assemble_message(stream)["type"] == "message", shape.name
        assert read_events(stream), shape.name


def test_every_message_of_the_sdk_is_the_same_as_a_stream() -> None:
    for shape in messages():
        frames = frames_of_message(shape.value)
        assert relayed(frames, 100) == frames, shape.name
        assert assemble_message(frames) == shape.value, shape.name


def test_every_message_of_the_sdk_is_read_for_other_protocols() -> None:
    for shape in messages():
        assert read_message(json.dumps(shape.value).encode()), shape.name


@pytest.mark.parametrize("sdk", [StopReason, BetaStopReason], ids=["stable", "beta"])
def test_every_stop_reason_of_the_sdk_is_one_that_we_know(sdk: Any) -> None:
    assert set(get_args(sdk)) - set(get_args(reply.StopReason)) == set()


def test_the_unions_of_the_sdk_are_walked_in_full() -> None:
    assert {tag(shape.value) for shape in events()} >= {"message_start", "message_delta", "message_stop"}
    assert len(members(BetaRawMessageStreamEvent)) == len({tag(shape.value) for shape in events()})
