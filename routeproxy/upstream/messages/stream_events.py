"""The events of a Messages stream that a back end writes, and the order that clients can follow (wire.md
§2.3, I2 to I5, I7, I12 to I14, I19 to I21, I32). Nothing is sent or rewritten here.

    message_start ( content_block_start content_block_delta* content_block_stop )* message_delta+ message_stop

Events, blocks and deltas of types that nobody here knows are the client's affair: they pass wherever they
stand, but a block of theirs has its place in the order. Every event of every pass-through comes by here, so a
usual one is decoded once, into a type that has what is looked at; only what that can't take is read field by
field.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from routeproxy.messages.decoding import UNREADABLE
from routeproxy.messages.events import InputJsonDelta, SignatureDelta, TextDelta, ThinkingDelta
from routeproxy.upstream.errors.classify import reports_error

Json = dict[str, Any]


class InvalidStream(Exception):
    """What is wrong with a stream, in words that have nothing of the answer in them."""


# --- events, with what of them is looked at


class UsageHead(Struct, frozen=True):
    """What we count, of much that back ends report. What no client relies on is `Any`: no stream breaks
    because of it."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: Any = None
    output_tokens_details: Any = None
    server_tool_use: Any = None
    service_tier: Any = None
    cost: Any = None
    """OpenRouter's: US dollars."""


class MessageHead(Struct, frozen=True):
    usage: UsageHead | None = None
    model: Any = None


class Start(Struct, frozen=True, tag="message_start"):
    message: MessageHead


class BlockHead(Struct, frozen=True):
    type: str
    id: Any = None
    name: Any = None

    @property
    def is_sound(self) -> bool:
        """A call without an id or a name can't be answered."""
        return self.type not in CALLS or all(isinstance(word, str) and word for word in (self.id, self.name))


CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})


class BlockStart(Struct, frozen=True, tag="content_block_start"):
    index: int
    content_block: BlockHead


class CitationsDelta(Struct, frozen=True, tag="citations_delta"):
    citation: Raw


class BlockDelta(Struct, frozen=True, tag="content_block_delta", gc=False):
    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta | CitationsDelta


class OtherDelta(Struct, frozen=True):
    """A `content_block_delta` of a type that nobody here knows."""

    index: int


class BlockStop(Struct, frozen=True, tag="content_block_stop"):
    index: int


class StopHead(Struct, frozen=True):
    stop_reason: str | None = None


class MessageDelta(Struct, frozen=True, tag="message_delta"):
    delta: StopHead
    usage: UsageHead | None = None


class Stop(Struct, frozen=True, tag="message_stop"): ...


class ErrorEvent(NamedTuple):
    value: Json
    is_sound: bool
    """It has the API's shape, so clients can read it as it is."""


StreamEvent = Start | BlockStart | BlockDelta | OtherDelta | BlockStop | MessageDelta | Stop

KINDS: Mapping[str, type[StreamEvent]] = {
    "message_start": Start,
    "content_block_start": BlockStart,
    "content_block_delta": BlockDelta,
    "content_block_stop": BlockStop,
    "message_delta": MessageDelta,
    "message_stop": Stop,
}
"""By the name of the event. An `error` stands apart, and a `ping` is nothing that has to be looked at."""

decode_event: Callable[[bytes], StreamEvent] = msgspec.json.Decoder(
    Start | BlockStart | BlockDelta | BlockStop | MessageDelta | Stop
).decode
"""The event that `data` is, if it is a usual one. Raises `UNREADABLE`."""


# --- events that are not usual


def read_event(name: str | None, data: bytes) -> StreamEvent | ErrorEvent | None:
    """The event with this name and data; `None` for one that is not looked at. Raises `InvalidStream`."""
    if name is not None and name in KINDS:
        with suppress(*UNREADABLE):
            if type(event := decode_event(data)) is KINDS[name]:
                return event
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        if name == "error":
            return ErrorEvent({"error": data.decode("utf-8", "replace")}, is_sound=False)
        raise InvalidStream("an event that is not JSON") from None
    fields: Json = value if isinstance(value, dict) else {}
    stated = fields.get("type")
    stated = stated if isinstance(stated, str) else None
    if "error" in (name, stated) or (name is None and stated is None and reports_error(fields)):
        return ErrorEvent(fields or {"error": value}, is_sound=name == "error" and is_api_error(fields))
    if name is None and stated is None:
        raise InvalidStream("an event without a type")
    if name is not None and name != stated and (name in KINDS or stated in KINDS):
        raise InvalidStream("an event whose name and type differ")
    return _READ_BY_HAND[stated](fields) if stated is not None and stated in KINDS else None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def is_api_error(fields: Json) -> bool:
    """Whether it is an error in the shape that Anthropic's clients read; other shapes lose what they say."""
    error = fields.get("error")
    return (
        fields.get("type") == "error"
        and isinstance(error, dict)
        and isinstance(error.get("type"), str)
        and isinstance(error.get("message"), str)
        and bool(error["message"])
    )


def _read_start(fields: Json) -> Start:
    if not isinstance(message := fields.get("message"), dict):
        raise InvalidStream("a message_start without a message")
    return Start(MessageHead(read_usage(message.get("usage")), message.get("model")))


def _read_block_start(fields: Json) -> BlockStart:
    block = fields.get("content_block")
    if not (isinstance(block, dict) and isinstance(block.get("type"), str)):
        raise InvalidStream("a content_block_start without a block")
    return BlockStart(_read_index(fields), BlockHead(block["type"], block.get("id"), block.get("name")))


_DELTAS: Mapping[str, tuple[Any, str]] = {
    "text_delta": (TextDelta, "text"),
    "thinking_delta": (ThinkingDelta, "thinking"),
    "signature_delta": (SignatureDelta, "signature"),
    "input_json_delta": (InputJsonDelta, "partial_json"),
}
"""By type: the delta, and its field that holds a string."""


def _read_block_delta(fields: Json) -> BlockDelta | OtherDelta:
    index, delta = _read_index(fields), fields.get("delta")
    if not (isinstance(delta, dict) and isinstance(type := delta.get("type"), str)):
        raise InvalidStream("a content_block_delta without a delta")
    if type not in _DELTAS:
        return OtherDelta(index)
    kind, field = _DELTAS[type]
    if not isinstance(text := delta.get(field), str):
        raise InvalidStream(f"a {type} whose {field} is no string")
    return BlockDelta(index, kind(text))


def _read_block_stop(fields: Json) -> BlockStop:
    return BlockStop(_read_index(fields))


def _read_message_delta(fields: Json) -> MessageDelta:
    delta = fields.get("delta")
    reason = delta.get("stop_reason") if isinstance(delta, dict) else 0
    if not isinstance(reason, str | None):
        raise InvalidStream("a message_delta without a delta")
    return MessageDelta(StopHead(reason), read_usage(fields.get("usage")))


def _read_stop(fields: Json) -> Stop:
    return Stop()


def _read_index(fields: Json) -> int:
    index = fields.get("index")
    if type(index) is not int:
        raise InvalidStream(f"a {fields['type']} without an index")
    return index


def read_usage(usage: Any) -> UsageHead | None:
    """What of `usage` is what it should be."""
    if not isinstance(usage, dict):
        return None
    return UsageHead(
        **{
            name: value
            for name in UsageHead.__struct_fields__
            if (value := usage.get(name)) is not None and (name not in _NUMBERS or _is_number(value))
        }
    )


_NUMBERS = frozenset(name for name in UsageHead.__struct_fields__ if name.endswith("_tokens"))


def _is_number(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63


_READ_BY_HAND: Mapping[str, Callable[[Json], StreamEvent]] = {
    "message_start": _read_start,
    "content_block_start": _read_block_start,
    "content_block_delta": _read_block_delta,
    "content_block_stop": _read_block_stop,
    "message_delta": _read_message_delta,
    "message_stop": _read_stop,
}


# --- their order


class _Stage(Enum):
    UNSTARTED = "before message_start"
    BETWEEN_BLOCKS = "before the stop reason"
    IN_BLOCK = "while a content block is open"
    STOPPING = "after the stop reason"


_ANY_DELTA: frozenset[type] = frozenset(
    {TextDelta, ThinkingDelta, SignatureDelta, InputJsonDelta, CitationsDelta}
)
_DELTAS_OF_BLOCK: Mapping[str, frozenset[type]] = {
    "text": frozenset({TextDelta, CitationsDelta}),
    "thinking": frozenset({ThinkingDelta, SignatureDelta}),
    **dict.fromkeys(CALLS, frozenset({InputJsonDelta})),
}


class EventOrder:
    """Follows the events of one stream. `follow` raises `InvalidStream` for an event that can't come next."""

    def __init__(self) -> None:
        self._stage = _Stage.UNSTARTED
        self._blocks = 0
        """How many blocks have begun."""
        self._open: int | None = None
        """The index of the block that is open."""
        self._deltas = _ANY_DELTA
        """The deltas that the open block takes."""

    @property
    def has_begun(self) -> bool:
        return self._stage is not _Stage.UNSTARTED

    @property
    def is_whole(self) -> bool:
        """The answer has a stop reason and no open block, so nothing is missing but `message_stop`."""
        return self._stage is _Stage.STOPPING

    def takes(self, event: BlockDelta) -> bool:
        """Whether a delta can come next, which changes nothing."""
        return event.index == self._open and type(event.delta) in self._deltas

    def follow(self, event: StreamEvent) -> None:
        match event:
            case BlockDelta(index=index) | OtherDelta(index=index) if index != self._open:
                raise InvalidStream(f"a delta of content block {index}, which is not open")
            case BlockDelta(delta=delta) if type(delta) not in self._deltas:
                kind = delta.__struct_config__.tag
                raise InvalidStream(f"{kind} in a content block of another type")
            case BlockStart(index=index, content_block=block):
                self._expect("content_block_start", _Stage.BETWEEN_BLOCKS)
                if index != self._blocks:
                    raise InvalidStream(f"content block {index} where {self._blocks} is next")
                if not block.is_sound:
                    raise InvalidStream(f"a {block.type} without an id and a name")
                self._stage, self._open = _Stage.IN_BLOCK, index
                self._blocks += 1
                self._deltas = _DELTAS_OF_BLOCK.get(block.type, _ANY_DELTA)
            case BlockStop(index=index):
                if index != self._open:
                    raise InvalidStream(f"the end of content block {index}, which is not open")
                self._stage, self._open = _Stage.BETWEEN_BLOCKS, None
            case MessageDelta(delta=delta):
                self._expect("message_delta", _Stage.BETWEEN_BLOCKS, _Stage.STOPPING)
                if delta.stop_reason:
                    self._stage = _Stage.STOPPING
            case Stop():
                self._expect("message_stop", _Stage.STOPPING)
            case Start():
                if self._stage is not _Stage.UNSTARTED:
                    raise InvalidStream("a second message_start")
                self._stage = _Stage.BETWEEN_BLOCKS

    def _expect(self, name: str, *stages: _Stage) -> None:
        if self._stage not in stages:
            raise InvalidStream(f"{name} {self._stage.value}")
