"""The answers of OpenAI's Responses API as chunks of a chat completion. No I/O here, and no event makes it
raise. (Its requests, and the sources: `responses_request.py`.)

An answer is a list of items: reasoning, messages, function calls. An item is announced (`added`), its text
comes in pieces and then whole, the item comes whole (`done`), and at the end the response, with all items.
Back ends leave out any of these: the first that brings a text counts, and what comes after it brings nothing.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from routeproxy.chat.completion import (
    Choice,
    Chunk,
    CompletionTokensDetails,
    CompletionUsage,
    Delta,
    FunctionDelta,
    PromptTokensDetails,
    ToolCallDelta,
)
from routeproxy.chat.responses import Event, Response
from routeproxy.upstream.chat.lenient import decode_object_leniently
from routeproxy.upstream.http.sse import EventDecoder

T = TypeVar("T", bound=Struct)

_BETWEEN_PARTS = "\n\n"


class _TextEvent(NamedTuple):
    """An event that brings text of a part of an item."""

    item_type: str
    part_type: str
    text_field: str
    index_field: str = "content_index"
    """The field that holds the part's number."""
    is_whole: bool = False
    """The text comes again, at its end."""


_ARGUMENTS = "arguments"
_SUMMARY_INDEX = "summary_index"
_TEXT_EVENTS: Mapping[str, _TextEvent] = {
    "response.output_text.delta": _TextEvent("message", "output_text", "delta"),
    "response.output_text.done": _TextEvent("message", "output_text", "text", is_whole=True),
    "response.refusal.delta": _TextEvent("message", "refusal", "delta"),
    "response.refusal.done": _TextEvent("message", "refusal", "refusal", is_whole=True),
    "response.reasoning_text.delta": _TextEvent("reasoning", "reasoning_text", "delta"),
    "response.reasoning_text.done": _TextEvent("reasoning", "reasoning_text", "text", is_whole=True),
    "response.reasoning_summary_text.delta": _TextEvent("reasoning", "summary_text", "delta", _SUMMARY_INDEX),
    "response.reasoning_summary_text.done": _TextEvent(
        "reasoning", "summary_text", "text", _SUMMARY_INDEX, is_whole=True
    ),
    "response.function_call_arguments.delta": _TextEvent("function_call", _ARGUMENTS, "delta"),
    "response.function_call_arguments.done": _TextEvent(
        "function_call", _ARGUMENTS, "arguments", is_whole=True
    ),
}
"""By the event's type."""

_MESSAGE_DELTAS: Mapping[str, Callable[[str], Delta]] = {
    "output_text": lambda text: Delta(content=text),
    "refusal": lambda text: Delta(refusal=text),
}
"""By the type of a message's part: its text in chat."""

_ITEM_TYPES = frozenset(event.item_type for event in _TEXT_EVENTS.values())
"""The items that are read. The others come from tools that run at OpenAI, which no request declares."""

_FINISH_REASONS: Mapping[str, str] = {"max_output_tokens": "length", "content_filter": "content_filter"}
"""By what left a response incomplete. Anything else counts as its limit."""


class _Item:
    """An item of the output, and how much of it has been emitted."""

    def __init__(self, type: str) -> None:
        self.type = type
        self.started_parts: set[tuple[str, int]] = set()
        """The parts, by type and number, of which some text was emitted: whole, they bring nothing new."""
        self.reasoning_part = ""
        """The type of the parts that are shown of reasoning. Some send a summary beside the text."""
        self.call_index: int | None = None
        """The number of a call among the calls."""
        self.is_named = False
        self.is_done = False


class ResponsesStream:
    """`feed` it the events of one response. A response that merely ceases gets no finish reason."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str | int], _Item] = {}
        """By type, and by id or place in the output."""
        self._call_count = 0
        self._last_reasoning: tuple[_Item, int] | None = None
        """The part of the reasoning that came last."""
        self._after_reasoning_item = False
        """A reasoning item was emitted to be carried, and nothing since."""

    def feed(self, event: bytes | Mapping[str, Any]) -> list[Chunk]:
        """`event`: the data of a server-sent event, or the object in it."""
        if isinstance(event, bytes) and (type := _LEADING_TYPE.match(event)) and type[1] not in _READ_TYPES:
            return []
        decoded = _decode(event, _decode_event, Event)
        name = decoded.type if isinstance(decoded.type, str) else "error" if decoded.error else ""
        if (text_event := _TEXT_EVENTS.get(name)) is not None:
            return self._on_text(text_event, decoded)
        handle = _HANDLERS.get(name)
        return [] if handle is None else handle(self, decoded)

    def finish(self, status: Any, response: Response) -> list[Chunk]:
        """What has not been emitted of a response that has ended with `status`."""
        statuses = {str(status), str(response.status)}
        if response.error or "failed" in statuses or statuses.isdisjoint(("completed", "incomplete")):
            no_reason = {"message": f"the response ended with status {status} and gave no reason"}
            return [Chunk(error=response.error or no_reason)]
        chunks = self._finish_items(response.output)
        reason = "tool_calls" if self._call_count else "stop"
        if "incomplete" in statuses:
            reason = _FINISH_REASONS.get(str(_object(response.incomplete_details).get("reason")), "length")
        choice = Choice(delta=Delta(), finish_reason=reason)
        return [*chunks, Chunk((choice,), _usage(response.usage), response.model)]

    # --- events

    def _on_created(self, event: Event) -> list[Chunk]:
        return _model_chunks(event.response or Response())

    def _on_item_added(self, event: Event) -> list[Chunk]:
        if (type := _item_type(event.item)) is None:
            return []
        ids = _ids(event.item)
        item = self._find_item(type, ids, None) or _Item(type)
        self._register(item, ids, _number(event.output_index))
        return self._emit_start(item, event.item)

    def _on_text(self, text_event: _TextEvent, event: Event) -> list[Chunk]:
        id = event.item_id
        ids = (id,) if isinstance(id, str) and id else ()
        item = self._item(text_event.item_type, ids, _number(event.output_index))
        index = _number(getattr(event, text_event.index_field))
        if text_event.is_whole and (text_event.part_type, index) in item.started_parts:
            return []
        return self._emit_text(item, text_event.part_type, index, getattr(event, text_event.text_field))

    def _on_item_done(self, event: Event) -> list[Chunk]:
        if (type := _item_type(event.item)) is None:
            return []
        item = self._item(type, _ids(event.item), _number(event.output_index))
        return self._finish_item(item, event.item)

    def _on_ended(self, event: Event) -> list[Chunk]:
        return self.finish(str(event.type).removeprefix("response."), event.response or Response())

    def _on_error(self, event: Event) -> list[Chunk]:
        """`code` and `message` are the event's own, or in an `error` of it (can1357/oh-my-pi#2570)."""
        error = event.error if isinstance(event.error, dict) else {"message": event.error}
        own = {"code": event.code, "message": event.message}
        return [Chunk(error=own | {name: value for name, value in error.items() if value})]

    # --- items

    def _find_item(self, type: str, ids: tuple[str, ...], place: int | None) -> _Item | None:
        """By id, or else the one in its place that is not done: some change the ids from event to event
        (litellm#30072), others number all items alike (CLIProxyAPI#539)."""
        for id in ids:
            if (item := self._items.get((type, id))) is not None:
                return item
        item = None if place is None else self._items.get((type, place))
        return None if item is None or item.is_done else item

    def _register(self, item: _Item, ids: tuple[str, ...], place: int) -> None:
        for id in ids:
            self._items[item.type, id] = item
        self._items[item.type, place] = item

    def _item(self, type: str, ids: tuple[str, ...], place: int) -> _Item:
        item = self._find_item(type, ids, place)
        if item is None:
            self._register(item := _Item(type), ids, place)
        return item

    def _finish_item(self, item: _Item, fields: Mapping[str, Any]) -> list[Chunk]:
        """What has not been emitted of an item, now that it is there in full."""
        if item.is_done:
            return []
        item.is_done = True
        chunks = self._emit_start(item, fields)
        for part_type, index, text in _texts_of(item.type, fields):
            if (part_type, index) not in item.started_parts:
                chunks += self._emit_text(item, part_type, index, text)
        if item.type == "reasoning":
            chunks += self._emit_reasoning_item(fields)
        return chunks

    def _finish_items(self, output: Any) -> list[Chunk]:
        """What has not been emitted of the items that the response holds at its end. Some back ends bring all
        of them there, others none (litellm#32724)."""
        items = self._items.values()
        nothing_emitted = not any(item.started_parts or item.is_named or item.is_done for item in items)
        chunks: list[Chunk] = []
        for place, fields in enumerate(output if isinstance(output, list) else ()):
            if (type := _item_type(fields)) is not None:
                ids = _ids(fields)
                if nothing_emitted or self._find_item(type, ids, place) is not None:
                    chunks += self._finish_item(self._item(type, ids, place), fields)
        return chunks

    # --- chunks

    def _emit_start(self, item: _Item, fields: Mapping[str, Any]) -> list[Chunk]:
        """What is known of an item before its text."""
        if (
            item.type == "message"
            and self._after_reasoning_item
            and isinstance(phase := fields.get("phase"), str)
        ):
            # Models that tell a phase want to be told it again, or they stop too early (vercel/ai#12860). The
            # only place for it is beside reasoning.
            self._after_reasoning_item = False
            return [_chunk(Delta(reasoning_details=[{"type": "message", "phase": phase}]))]
        if item.type == "function_call" and not item.is_named and fields.get("name"):
            item.is_named = True
            id = fields.get("call_id") or fields.get("id")
            return [self._call_chunk(item, FunctionDelta(fields["name"]), id)]
        return []

    def _emit_text(self, item: _Item, part_type: str, index: int, text: Any) -> list[Chunk]:
        if not isinstance(text, str) or not text:
            return []
        item.started_parts.add((part_type, index))
        if item.type == "function_call":
            return [self._call_chunk(item, FunctionDelta(arguments=text))]
        if item.type == "reasoning":
            return self._emit_reasoning_text(item, part_type, index, text)
        self._after_reasoning_item = False
        delta = _MESSAGE_DELTAS.get(part_type)
        return [] if delta is None else [_chunk(delta(text))]

    def _emit_reasoning_text(self, item: _Item, part_type: str, index: int, text: str) -> list[Chunk]:
        item.reasoning_part = item.reasoning_part or part_type
        if part_type != item.reasoning_part:
            return []
        last, self._last_reasoning = self._last_reasoning, (item, index)
        if last not in (None, self._last_reasoning):
            text = _BETWEEN_PARTS + text
        return [_chunk(Delta(reasoning_content=text))]

    def _emit_reasoning_item(self, fields: Mapping[str, Any]) -> list[Chunk]:
        """Reasoning as it must come back with the next request, if there is more to it than a summary: with
        `status` or a null in it it is refused, and without `summary` (openai-python#3053, Agora#141)."""
        if not (fields.get("encrypted_content") or fields.get("content")):
            return []
        self._after_reasoning_item = True
        kept = {name: value for name, value in fields.items() if name != "status" and value is not None}
        return [_chunk(Delta(reasoning_details=[{"summary": []} | kept]))]

    def _call_chunk(self, item: _Item, function: FunctionDelta, id: Any = None) -> Chunk:
        if item.call_index is None:
            item.call_index, self._call_count = self._call_count, self._call_count + 1
        self._after_reasoning_item = False
        return _chunk(Delta(tool_calls=(ToolCallDelta(item.call_index, id, function),)))


_HANDLERS: Mapping[str, Callable[[ResponsesStream, Event], list[Chunk]]] = {
    "response.created": ResponsesStream._on_created,
    "response.output_item.added": ResponsesStream._on_item_added,
    "response.output_item.done": ResponsesStream._on_item_done,
    "response.completed": ResponsesStream._on_ended,
    "response.incomplete": ResponsesStream._on_ended,
    "response.failed": ResponsesStream._on_ended,
    "error": ResponsesStream._on_error,
}
"""By the type of the other events that are read. The rest repeats these, or tells only of progress."""

_READ_TYPES = frozenset(type.encode() for type in (*_TEXT_EVENTS, *_HANDLERS))
_LEADING_TYPE = re.compile(rb'\s*\{\s*"type"\s*:\s*"([^"\\]*)"')


def response_chunks(body: bytes) -> list[Chunk]:
    """The chunks of an answer in one piece: those of the stream that it would have been, so that they cannot
    differ. An error for whatever is no finished response."""
    response = _decode(body, _decode_response, Response)
    status = response.status or ("completed" if isinstance(response.output, list) else "failed")
    return [*_model_chunks(response), *ResponsesStream().finish(status, response)]


class ResponsesDecoder:
    """One answer: server-sent events, or one response where none was to be streamed."""

    def __init__(self) -> None:
        self._events = EventDecoder()
        self._stream = ResponsesStream()

    def feed(self, data: bytes) -> tuple[list[Chunk], bool]:
        """The chunks, and that the answer is not over: only the end of the body is the end."""
        return self._read(self._events.feed(data)), False

    def end(self) -> tuple[list[Chunk], bool]:
        return self._read(self._events.end()), False

    def decode_whole(self, body: bytes) -> list[Chunk]:
        decode_object_leniently(body)  # what is no object at all is no failed response either
        return response_chunks(body)

    def _read(self, events: list[bytes]) -> list[Chunk]:
        return [chunk for event in events for chunk in self._stream.feed(event)]


def _model_chunks(response: Response) -> list[Chunk]:
    """The model that served, which is told first."""
    return [Chunk(model=response.model)] if response.model else []


def _chunk(delta: Delta) -> Chunk:
    return Chunk((Choice(delta=delta),))


def _item_type(fields: Any) -> str | None:
    """The type of an item that is read."""
    type = _object(fields).get("type")
    return type if isinstance(type, str) and type in _ITEM_TYPES else None


def _ids(fields: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(id for id in (fields.get("id"), fields.get("call_id")) if isinstance(id, str) and id)


def _texts_of(type: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, int, Any]]:
    """The texts of an item that is there in full, with the types and the numbers of their parts."""
    if type == "function_call":
        yield _ARGUMENTS, 0, fields.get("arguments")
        return
    for parts in (fields.get("content"), fields.get("summary")):
        for index, part in enumerate(parts if isinstance(parts, list) else ()):
            match part:
                case {"type": "refusal" as part_type, "refusal": text} | {
                    "type": str(part_type),
                    "text": text,
                }:
                    yield part_type, index, text


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _usage(reported: Any) -> CompletionUsage | None:
    match reported:
        case {"input_tokens": _} | {"output_tokens": _}:
            input_details = _object(reported.get("input_tokens_details"))
            output_details = _object(reported.get("output_tokens_details"))
            return CompletionUsage(
                prompt_tokens=reported.get("input_tokens"),
                completion_tokens=reported.get("output_tokens"),
                prompt_tokens_details=PromptTokensDetails(
                    input_details.get("cached_tokens"), input_details.get("cache_write_tokens")
                ),
                completion_tokens_details=CompletionTokensDetails(output_details.get("reasoning_tokens")),
            )
    return None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


_decode_event = msgspec.json.Decoder(Event).decode
_decode_response = msgspec.json.Decoder(Response).decode


def _decode(value: bytes | Mapping[str, Any], decode: Callable[[bytes], T], type: type[T]) -> T:
    """`value` as a struct; an empty one, if it cannot be read."""
    try:
        if not isinstance(value, bytes):
            return msgspec.convert(value, type)
        try:
            return decode(value)
        except msgspec.DecodeError:  # of half an emoji, too, which back ends do send
            return msgspec.convert(json.loads(value), type)
    except (msgspec.ValidationError, ValueError, RecursionError):
        return type()
