"""The two forms of a Messages answer, stream and whole message, each made from the other. What it is made of
stays as it came, block types and fields unknown to us included, so everything here is plain JSON."""

import json
from collections.abc import Iterator
from typing import Any

from routeproxy.messages.relayed import FRAME_END, frame_data

Json = dict[str, Any]


def decode_object(text: bytes) -> Json:
    """Raises `ValueError` for what is not a JSON object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def encode(value: Json) -> bytes:
    # In ASCII: half an emoji is legal JSON only as an escape.
    return json.dumps(value, separators=(",", ":")).encode()


# --- a message out of a stream


def assemble_message(frames: bytes) -> Json:
    """The message that a whole stream adds up to, as an SDK builds it; an error event as it is. Raises
    `ValueError`, `LookupError`, `TypeError` or `AttributeError` for a stream that adds up to none."""
    message: Json = {}
    content: list[Json] = []
    partial_inputs: dict[int, str] = {}
    for frame in FRAME_END.split(frames):
        if not (data := frame_data(frame)):
            continue
        event = decode_object(data)
        match event.get("type"):
            case "message_start":
                message = dict(event["message"])
            case "content_block_start":
                content.append(dict(event["content_block"]))
            case "content_block_delta":
                _add_delta(content[-1], event["delta"], partial_inputs, len(content) - 1)
            case "message_delta":
                usage = {key: value for key, value in (event.get("usage") or {}).items() if value is not None}
                rest = {key: value for key, value in event.items() if key not in ("type", "delta", "usage")}
                message |= event["delta"] | rest | {"usage": (message.get("usage") or {}) | usage}
            case "error":
                return event
    for index, text in partial_inputs.items():
        content[index]["input"] = _decode_input(text)
    return message | {"content": content}


def _add_delta(block: Json, delta: Json, partial_inputs: dict[int, str], index: int) -> None:
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
            partial_inputs[index] = partial_inputs.get(index, "") + delta["partial_json"]


def _decode_input(text: str) -> Json:
    # An answer that was cut by max_tokens may end inside a tool's input. A whole message must be JSON all the
    # same.
    try:
        return decode_object(text.encode("utf-8", "surrogatepass")) if text else {}
    except ValueError:
        return {}


# --- a stream out of a message


def frames_of_message(message: Json) -> bytes:
    """The stream that `message` would have been: each block in one piece. Raises `LookupError`, `TypeError`
    or `AttributeError` for what is no message."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), encode(event))
        for event in _split_message(message)
    )


def _split_message(message: Json) -> Iterator[Json]:
    """The events."""
    usage = message.get("usage") or {}
    start = message | {"content": [], "stop_reason": None, "stop_sequence": None}
    if "output_tokens" in usage:
        start["usage"] = usage | {"output_tokens": min(1, usage["output_tokens"])}
    start.pop("stop_details", None)
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(message["content"]):
        empty_block, deltas = _split_block(block)
        yield {"type": "content_block_start", "index": index, "content_block": empty_block}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = {key: message.get(key) for key in ("stop_reason", "stop_sequence")}
    if "stop_details" in message:
        stop["stop_details"] = message["stop_details"]
    yield {"type": "message_delta", "delta": stop, "usage": usage}
    yield {"type": "message_stop"}


def _split_block(block: Json) -> tuple[Json, list[Json]]:
    """The block as it starts, and the deltas that fill it."""
    match block:
        case {"type": "text", "text": str(text)}:
            citations = block.get("citations") or ()
            empty_block = block | {"text": ""} | ({"citations": []} if citations else {})
            deltas: list[Json] = [{"type": "text_delta", "text": text}] if text else []
            deltas += [{"type": "citations_delta", "citation": citation} for citation in citations]
            return empty_block, deltas
        case {"type": "thinking", "thinking": str(thinking)}:
            deltas = [{"type": "thinking_delta", "thinking": thinking}] if thinking else []
            deltas.append({"type": "signature_delta", "signature": block.get("signature") or ""})
            return block | {"thinking": "", "signature": ""}, deltas
        case {"type": "tool_use" | "server_tool_use" | "mcp_tool_use", "input": dict(input)}:
            partial_json = encode(input).decode()
            return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": partial_json}]
    return block, []  # a type that comes whole, or one that nobody here knows
