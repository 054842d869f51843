"""What a Messages back end wrote, read for a client that speaks something else. Clients of the Messages API
get the bytes themselves, so nothing of theirs is lost here.

Events and deltas of types that nobody here knows are left out, citations of unknown kinds too, and a content
block of an unknown type is an empty text block, so that blocks still open and close in order.
"""

import re
from typing import Any

import msgspec

from routeproxy.messages.decoding import ANY_JSON, UNREADABLE
from routeproxy.messages.errors import ApiError
from routeproxy.messages.events import Delta, Event
from routeproxy.messages.reply import Message, ReplyBlock

Json = dict[str, Any]

FRAME_END = re.compile(rb"\n\r?\n")
DATA_LINE = re.compile(rb"^data: ?(.*?)\r?$", re.MULTILINE)


def frame_data(frame: bytes) -> bytes:
    """The data of one frame, which may stand on several lines."""
    return b"\n".join(DATA_LINE.findall(frame))


def read_events(frames: bytes) -> list[Event]:
    """The events in whole frames of a stream. Raises `ApiError` (502) for one that can't be read."""
    events: list[Event] = []
    for frame in FRAME_END.split(frames):
        if data := frame_data(frame):
            event = _object(data)
            if event.get("type") in _EVENT_TYPES and not _has_unknown_delta(event):
                events.append(_converted(_known_parts(event), Event))
    return events


def read_message(body: bytes) -> Message:
    """A whole reply. Raises `ApiError` (502) for what is none."""
    read: Message = _converted(_known_parts(_object(body)), Message)
    return read


_EVENT_TYPES = {kind.__struct_config__.tag for kind in Event.__args__}


def _has_unknown_delta(event: Json) -> bool:
    """Whether it is a delta of a type, or of citations of a kind, that we have none for."""
    match event:
        case {"type": "content_block_delta", "delta": {"type": str(type)} as delta}:
            return type not in _TEXTUAL_DELTAS and not _fits(delta, Delta)
    return False


_TEXTUAL_DELTAS = ("text_delta", "thinking_delta", "signature_delta", "input_json_delta")


def _known_parts(value: Json) -> Json:
    """An event or a message without what our types have no place for."""
    known = dict(value)
    if "content_block" in known:
        known["content_block"] = _known_block(known["content_block"])
    if isinstance(content := known.get("content"), list):
        known["content"] = [_known_block(block) for block in content]
    if isinstance(message := known.get("message"), dict):
        known["message"] = _known_parts(message)
    if isinstance(usage := known.get("usage"), dict):
        # A count that is null is one that is not known.
        known["usage"] = {"output_tokens": 0} | {
            key: count for key, count in usage.items() if count is not None
        }
    return known


def _known_block(block: Any) -> Any:
    if _fits(block, ReplyBlock):
        return block
    text = block.get("text") if isinstance(block, dict) and block.get("type") == "text" else None
    return {"type": "text", "text": text if isinstance(text, str) else ""}


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.json.decode(msgspec.json.encode(value), type=kind)
    except UNREADABLE:
        return False
    return True


def _object(text: bytes) -> Json:
    try:
        value = ANY_JSON.decode(text)
    except UNREADABLE:
        raise _unreadable() from None
    if not isinstance(value, dict):
        raise _unreadable()
    return value


def _converted(value: Json, kind: Any) -> Any:
    try:
        return msgspec.json.decode(msgspec.json.encode(value), type=kind)
    except UNREADABLE:
        raise _unreadable() from None


def _unreadable() -> ApiError:
    return ApiError(502, "the back end answered with something that is not a message")
