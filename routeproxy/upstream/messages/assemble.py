"""The two forms of a Messages answer, stream and whole message, each made from the other. What it is made of
stays as it came, block types and fields unknown to us included, so everything here is plain JSON."""

import json
import re
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

FRAME_END = re.compile(rb"\n\r?\n")
DATA = re.compile(rb"^data: ?(.*?)\r?$", re.MULTILINE)


def read(text: bytes) -> Json:
    """Raises `ValueError` for what is not an object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def write(value: Json) -> bytes:
    # In ASCII: half an emoji is legal JSON only as an escape.
    return json.dumps(value, separators=(",", ":")).encode()


def data_of(frame: bytes) -> bytes:
    """The data of one server-sent event, which may stand on several lines."""
    return b"\n".join(DATA.findall(frame))


def message_of(frames: bytes) -> Json:
    """The message that a whole stream adds up to, as an SDK builds it; an error event as it is. Raises
    `ValueError`."""
    message: Json = {}
    content: list[Json] = []
    partial: dict[int, str] = {}
    for one in FRAME_END.split(frames):
        if not (data := data_of(one)):
            continue
        event = read(data)
        match event.get("type"):
            case "message_start":
                message = dict(event["message"])
            case "content_block_start":
                content.append(dict(event["content_block"]))
            case "content_block_delta":
                _add(content[-1], event["delta"], partial, len(content) - 1)
            case "message_delta":
                usage = {key: value for key, value in (event.get("usage") or {}).items() if value is not None}
                rest = {key: value for key, value in event.items() if key not in ("type", "delta", "usage")}
                message |= event["delta"] | rest | {"usage": (message.get("usage") or {}) | usage}
            case "error":
                return event
    for index, text in partial.items():
        content[index]["input"] = _object(text)
    return message | {"content": content}


def _add(block: Json, delta: Json, partial: dict[int, str], index: int) -> None:
    match delta.get("type"):
        case "text_delta":
            block["text"] = block.get("text", "") + delta["text"]
        case "thinking_delta":
            block["thinking"] = block.get("thinking", "") + delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        case "input_json_delta":
            partial[index] = partial.get(index, "") + delta["partial_json"]


def _object(text: str) -> Json:
    # An answer that was cut by max_tokens may end inside a tool's input. A whole message must be JSON all the
    # same.
    try:
        return read(text.encode("utf-8", "surrogatepass")) if text else {}
    except ValueError:
        return {}


def events_of(message: Json) -> Iterator[Json]:
    """The stream that `message` would have been: each block in one piece."""
    usage = message.get("usage") or {}
    bare = message | {"content": [], "stop_reason": None, "stop_sequence": None}
    if "output_tokens" in usage:
        bare["usage"] = usage | {"output_tokens": min(1, usage["output_tokens"])}
    bare.pop("stop_details", None)
    yield {"type": "message_start", "message": bare}
    for index, block in enumerate(message["content"]):
        opened, deltas = _taken_apart(block)
        yield {"type": "content_block_start", "index": index, "content_block": opened}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = {key: message.get(key) for key in ("stop_reason", "stop_sequence")}
    if "stop_details" in message:
        stop["stop_details"] = message["stop_details"]
    yield {"type": "message_delta", "delta": stop, "usage": usage}
    yield {"type": "message_stop"}


def frames_of(message: Json) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), write(event)) for event in events_of(message)
    )


def _taken_apart(block: Json) -> tuple[Json, list[Json]]:
    match block:
        case {"type": "text", "text": str(text)}:
            opened = block | {"text": ""} | ({"citations": []} if block.get("citations") else {})
            deltas: list[Json] = [{"type": "text_delta", "text": text}] if text else []
            deltas += [{"type": "citations_delta", "citation": one} for one in block.get("citations") or ()]
            return opened, deltas
        case {"type": "thinking", "thinking": str(thinking)}:
            deltas = [{"type": "thinking_delta", "thinking": thinking}] if thinking else []
            deltas.append({"type": "signature_delta", "signature": block.get("signature") or ""})
            return block | {"thinking": "", "signature": ""}, deltas
        case {"type": "tool_use" | "server_tool_use" | "mcp_tool_use", "input": dict(asked)}:
            return block | {"input": {}}, [
                {"type": "input_json_delta", "partial_json": write(asked).decode()}
            ]
    return block, []  # a type that comes whole, or one that nobody here knows
