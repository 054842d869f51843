"""The events of a streamed reply, their frames on the wire, and the message they add up to (wire.md §2.2)."""

from collections.abc import Iterable

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from routeproxy.messages.errors import ErrorObject
from routeproxy.messages.reply import (
    EMPTY_OBJECT,
    Message,
    ReplyBlock,
    ServerToolUseBlock,
    StopDetails,
    StopReason,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    Usage,
    WebSearchCitation,
    WebSearchResultBlock,
    encode,
)
from routeproxy.messages.safeguards import SafeguardResult


class TextDelta(Struct, frozen=True, tag="text_delta"):
    text: str


class ThinkingDelta(Struct, frozen=True, tag="thinking_delta"):
    thinking: str


class SignatureDelta(Struct, frozen=True, tag="signature_delta"):
    signature: str


class InputJsonDelta(Struct, frozen=True, tag="input_json_delta"):
    partial_json: str


class CitationsDelta(Struct, frozen=True, tag="citations_delta"):
    citation: WebSearchCitation


Delta = TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta | CitationsDelta


class MessageStart(Struct, frozen=True, tag="message_start"):
    message: Message


class ContentBlockStart(Struct, frozen=True, tag="content_block_start"):
    index: int
    content_block: ReplyBlock


class ContentBlockDelta(Struct, frozen=True, tag="content_block_delta"):
    index: int
    delta: Delta


class ContentBlockStop(Struct, frozen=True, tag="content_block_stop"):
    index: int


class Stop(Struct, frozen=True):
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None
    safeguard_results: tuple[SafeguardResult, ...] | UnsetType = UNSET


class MessageDelta(Struct, frozen=True, tag="message_delta"):
    delta: Stop
    usage: Usage


class MessageStop(Struct, frozen=True, tag="message_stop"): ...


class Ping(Struct, frozen=True, tag="ping"): ...


class Error(Struct, frozen=True, tag="error"):
    error: ErrorObject
    request_id: str | UnsetType = UNSET


Event = (
    MessageStart
    | ContentBlockStart
    | ContentBlockDelta
    | ContentBlockStop
    | MessageDelta
    | MessageStop
    | Ping
    | Error
)

_PREFIX = {
    kind: f"event: {kind.__struct_config__.tag}\ndata: ".encode()
    for kind in (
        MessageStart,
        ContentBlockStart,
        ContentBlockDelta,
        ContentBlockStop,
        MessageDelta,
        MessageStop,
        Ping,
        Error,
    )
}


def frame(event: Event) -> bytes:
    """`event` as one server-sent event: its name and one line of JSON."""
    return b"%b%b\n\n" % (_PREFIX[type(event)], encode(event))


PING = frame(Ping())


def error_event(type: str, message: str, request_id: str | UnsetType = UNSET) -> Error:
    return Error(ErrorObject(type, message), request_id)


def events_of(message: Message) -> list[Event]:
    """The events that stream `message`: each block in one piece."""
    empty = msgspec.structs.replace(
        message,
        content=(),
        stop_reason=None,
        stop_sequence=None,
        stop_details=None,
        usage=_usage_at_start(message.usage),
        safeguard_results=UNSET,
    )
    events: list[Event] = [MessageStart(empty)]
    for index, block in enumerate(message.content):
        match block:
            case TextBlock():
                events += [
                    ContentBlockStart(index, TextBlock("")),
                    ContentBlockDelta(index, TextDelta(block.text)),
                ]
                events += [
                    ContentBlockDelta(index, CitationsDelta(citation)) for citation in block.citations or ()
                ]
            case ThinkingBlock():
                events.append(ContentBlockStart(index, ThinkingBlock("", "")))
                if block.thinking:
                    events.append(ContentBlockDelta(index, ThinkingDelta(block.thinking)))
                events.append(ContentBlockDelta(index, SignatureDelta(block.signature)))
            case ToolUseBlock() | ServerToolUseBlock():
                events.append(ContentBlockStart(index, type(block)(block.id, block.name)))
                events.append(ContentBlockDelta(index, InputJsonDelta(bytes(block.input).decode())))
            case WebSearchResultBlock():
                events.append(ContentBlockStart(index, block))
        events.append(ContentBlockStop(index))
    stop = Stop(message.stop_reason, message.stop_sequence, message.stop_details, message.safeguard_results)
    return [*events, MessageDelta(stop, message.usage), MessageStop()]


def _usage_at_start(usage: Usage) -> Usage:
    return msgspec.structs.replace(
        usage, output_tokens=min(1, usage.output_tokens), output_tokens_details=UNSET
    )


def accumulate(events: Iterable[Event]) -> Message | Error:
    """The whole message that a stream adds up to, as an SDK would build it; the error, if it ends in one."""
    message: Message | None = None
    content: list[ReplyBlock] = []
    parts: list[str] = []
    signature = ""
    citations: list[WebSearchCitation] = []
    for event in events:
        if isinstance(event, ContentBlockDelta):
            delta = event.delta
            if isinstance(delta, TextDelta):
                parts.append(delta.text)
            elif isinstance(delta, ThinkingDelta):
                parts.append(delta.thinking)
            elif isinstance(delta, InputJsonDelta):
                parts.append(delta.partial_json)
            elif isinstance(delta, CitationsDelta):
                citations.append(delta.citation)
            else:
                signature = delta.signature
        elif isinstance(event, ContentBlockStart):
            content.append(event.content_block)
            parts, signature, citations = [], "", []
        elif isinstance(event, ContentBlockStop):
            content[-1] = _fill_block(content[-1], "".join(parts), signature, citations)
        elif isinstance(event, MessageStart):
            message = event.message
        elif isinstance(event, MessageDelta):
            if message is not None:
                message = msgspec.structs.replace(
                    message,
                    content=tuple(content),
                    stop_reason=event.delta.stop_reason,
                    stop_sequence=event.delta.stop_sequence,
                    stop_details=event.delta.stop_details,
                    usage=message.usage.updated(event.usage),
                    safeguard_results=event.delta.safeguard_results,
                )
        elif isinstance(event, Error):
            return event
    if message is None or message.stop_reason is None:
        return error_event("api_error", "the answer ended before it was complete")
    return message


def _fill_block(
    block: ReplyBlock, text: str, signature: str, citations: list[WebSearchCitation]
) -> ReplyBlock:
    match block:
        case TextBlock():
            return TextBlock(block.text + text, tuple(citations) or UNSET)
        case ThinkingBlock():
            return ThinkingBlock(block.thinking + text, signature or block.signature)
        case ToolUseBlock() | ServerToolUseBlock():
            return type(block)(block.id, block.name, _object_or_empty(text))
        case WebSearchResultBlock():
            return block


def _object_or_empty(text: str) -> Raw:
    # A reply that max_tokens cut may end inside a tool's input. Whole replies must be JSON, so an input that
    # cannot be read becomes {}.
    raw = text.encode("utf-8", "surrogatepass")
    try:
        msgspec.json.decode(raw, type=dict[str, Raw])
    except msgspec.DecodeError:
        return EMPTY_OBJECT
    return Raw(raw)
