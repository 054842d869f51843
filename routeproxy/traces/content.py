"""What was asked, as spans tell it where a rule says `record = "content"`: messages in the shape of
OpenTelemetry's conventions for generative AI, version 1.37 (`gen_ai.input.messages`). They are JSON: spans
hold no tables.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from routeproxy.exchange import Trace
from routeproxy.traces.conventions import Attributes

MOST = 256 * 1024
"""Bytes that a span has of a conversation: collectors refuse long ones. The latest messages stay."""

_encode = msgspec.json.Encoder().encode


def content_attributes(trace: Trace) -> Attributes:
    """Empty where nothing is to be told."""
    if trace.is_asked_left_out:
        return {"routeproxy.content_left_out": "too long"}
    if trace.asked is None:
        return {}
    try:
        system = msgspec.json.decode(trace.asked.system)
        messages = msgspec.json.decode(trace.asked.messages)
        told = [_encode(_message(message)) for message in messages]
        instructions = _encode(list(_parts(system))) if system else b""
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {"routeproxy.content_left_out": "it could not be read"}
    attributes: Attributes = {}
    room = MOST
    if instructions:
        if len(instructions) <= room // 2:
            attributes["gen_ai.system_instructions"] = instructions.decode()
            room -= len(instructions)
        else:
            attributes["routeproxy.system_left_out"] = True
    kept = _latest(told, room)
    if kept:
        attributes["gen_ai.input.messages"] = f"[{b','.join(kept).decode()}]"
    if len(kept) < len(told):
        attributes["routeproxy.messages_left_out"] = len(told) - len(kept)
    return attributes


def _latest(messages: list[bytes], room: int) -> list[bytes]:
    """The last of them that have room."""
    for start in range(len(messages) - 1, -1, -1):
        room -= len(messages[start]) + 1
        if room < 0:
            return messages[start + 1 :]
    return messages


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": str(message.get("role", "")), "parts": list(_parts(message.get("content")))}


def _parts(content: Any) -> Iterator[dict[str, Any]]:
    """The conventions' parts of a text, or of content blocks."""
    if isinstance(content, str):
        yield {"type": "text", "content": content}
        return
    for block in content or ():
        match block.get("type"):
            case "text":
                yield {"type": "text", "content": block.get("text", "")}
            case "thinking":
                yield {"type": "reasoning", "content": block.get("thinking", "")}
            case "tool_use" | "server_tool_use":
                called = {"id": block.get("id"), "name": block.get("name"), "arguments": block.get("input")}
                yield {"type": "tool_call", **called}
            case "tool_result":
                response = block.get("content")
                told = list(_parts(response)) if isinstance(response, list) else response
                yield {"type": "tool_call_response", "id": block.get("tool_use_id"), "response": told}
            case kind:  # pictures and documents: that there was one
                yield {"type": str(kind)}
