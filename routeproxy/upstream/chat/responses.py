"""The answers of OpenAI's Responses API as chunks of a chat completion. No I/O here. (Its requests, and the
sources: `responses_request.py`.)

An answer is a list of items: reasoning, messages, function calls. An item is announced (`added`), its text
comes in pieces and then whole, the item comes whole (`done`), and at the end the response, with all items.
Back ends leave out any of these, so each of them is held against what has come before: what is missing there
is added, what says something else makes a failure of the answer.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from routeproxy.chat.completion import (
    Choice,
    Chunk,
    CompletionTokensDetails,
    CompletionUsage,
    Delta,
    FunctionDelta,
    Page,
    PageCitation,
    PromptTokensDetails,
    ToolCallDelta,
    WebSearchCall,
)
from routeproxy.chat.responses import Event, Response
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.upstream.chat.completions import DONE
from routeproxy.upstream.chat.lenient import decode_object_leniently, reported_error
from routeproxy.upstream.http.sse import EventDecoder

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

_WEB_SEARCH = "web_search_call"
_ITEM_TYPES = frozenset(event.item_type for event in _TEXT_EVENTS.values()) | {_WEB_SEARCH}
"""The items that are read. The others come from tools that run at OpenAI, which no request declares."""

_CONTRADICTION = "the back end streamed something else than what it says at the end of it"


class _Part:
    """A part of an item, and what was emitted of it."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.checked = 0
        """How many of the pieces were held against the whole. Some number all parts alike."""


class _Item:
    """An item of the output, and what was emitted of it."""

    def __init__(self, type: str) -> None:
        self.type = type
        self.parts: dict[tuple[str, int], _Part] = {}
        """By type and number."""
        self.name = ""
        """Of a call."""
        self.reasoning_part = ""
        """The type of the parts that are shown of reasoning. Some send a summary beside the text."""
        self.call_index: int | None = None
        """The number of a call among the calls."""
        self.is_done = False
        self.annotations: list[Any] = []
        """Those that came before the item was whole."""
        self.is_search_shown = False
        """The search that it is, or its citations of searches, were emitted."""

    def text(self, part_type: str) -> str:
        """What was emitted of the parts of this type."""
        return "".join(
            piece for (type, _), part in self.parts.items() if type == part_type for piece in part.pieces
        )

    def says(self, fields: Mapping[str, Any]) -> bool:
        """Whether it is, all of it, the item that has these fields."""
        if self.type == "function_call" and self.name != fields.get("name"):
            return False
        whole = _whole_texts(self.type, fields)
        return all(
            bool(emitted := self.text(part_type)) == bool(text := whole.get(part_type))
            and _missing_tail(emitted, text, self.type) == ""
            for part_type in {*whole, *(type for type, _ in self.parts)}
        )


class ResponsesStream:
    """`feed` it the events of one response. A response that merely ceases gets no finish reason."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str | int], _Item] = {}
        """By type, and by id or place in the output."""
        self._order: list[_Item] = []
        """As they came."""
        self._call_count = 0
        self._last_reasoning: tuple[_Item, int] | None = None
        """The part of the reasoning that came last."""
        self._after_reasoning_item = False
        """A reasoning item was emitted to be carried, and nothing since."""

    def feed(self, event: bytes) -> list[Chunk]:
        """`event`: the data of a server-sent event. Raises `ValueError` for what is no event of a
        response."""
        if (type := _LEADING_TYPE.match(event)) and type[1] in _SKIPPED_TYPES:
            return _check_json(event)
        decoded = _read_event(event)
        name = decoded.type if isinstance(decoded.type, str) else ""
        if (text_event := _TEXT_EVENTS.get(name)) is not None:
            return self._on_text(text_event, decoded)
        if (handle := _HANDLERS.get(name)) is not None:
            return handle(self, decoded)
        if not name:
            return _read_untyped(event)
        return self._on_error(decoded) if decoded.error or name.endswith("error") else []

    def finish(self, status: Any, response: Response) -> list[Chunk]:
        """What has not been emitted of a response that has ended with `status`."""
        own = response.status if isinstance(response.status, str) else str(status)
        if response.error or str(status) not in _ENDS or own in _FAILED:
            no_reason = {"message": f"the response ended with status {own} and gave no reason"}
            return [Chunk(error=response.error or no_reason)]
        chunks = self._finish_items(response.output)
        reason: Any = "tool_calls" if self._call_count else "stop"
        if "incomplete" in (status, own):
            reason = _object(response.incomplete_details).get("reason")
            reason = "length" if reason in _LIMITS else reason
        choice = Choice(delta=Delta(), finish_reason=reason)
        last = Chunk((choice,), _usage(response.usage), response.model, service_tier=response.service_tier)
        return [*chunks, last]

    # --- events

    def _on_created(self, event: Event) -> list[Chunk]:
        return _model_chunks(event.response or Response())

    def _on_item_added(self, event: Event) -> list[Chunk]:
        if (type := _item_type(event.item)) is None:
            return []
        ids = _ids(event.item)
        item = self._find_item(type, ids, None)
        if item is None or item.is_done:
            item = self._new_item(type)
        self._register(item, ids, _number(event.output_index))
        return self._emit_start(item, event.item)

    def _on_text(self, text_event: _TextEvent, event: Event) -> list[Chunk]:
        id = event.item_id
        ids = (id,) if isinstance(id, str) and id else ()
        item = self._item(text_event.item_type, ids, _number(event.output_index))
        index = _number(getattr(event, text_event.index_field))
        text = getattr(event, text_event.text_field)
        if text_event.is_whole:
            return self._finish_part(item, text_event.part_type, index, text)
        return self._emit_text(item, text_event.part_type, index, text)

    def _on_annotation(self, event: Event) -> list[Chunk]:
        """Kept until its text is whole: its indexes say which part of that rests on the page."""
        ids = (event.item_id,) if isinstance(event.item_id, str) and event.item_id else ()
        self._item("message", ids, _number(event.output_index)).annotations.append(event.annotation)
        return []

    def _on_item_done(self, event: Event) -> list[Chunk]:
        if (type := _item_type(event.item)) is None:
            return _left_out(event.item)
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
            self._register(item := self._new_item(type), ids, place)
        return item

    def _new_item(self, type: str) -> _Item:
        self._order.append(item := _Item(type))
        return item

    def _finish_part(self, item: _Item, part_type: str, index: int, text: Any) -> list[Chunk]:
        """What has not been emitted of a part, now that its text is there in full."""
        part = item.parts.get((part_type, index))
        if part is None:
            return self._emit_text(item, part_type, index, text)
        if item.type == "reasoning":  # which is compared with nothing: back ends shorten it as they like
            return []
        new, everything = "".join(part.pieces[part.checked :]), "".join(part.pieces)
        part.checked = len(part.pieces)
        tail = _missing_tail(new, text, item.type)
        if tail is None and new != everything:
            tail = _missing_tail(everything, text, item.type)
        return self._emit_tail(item, part_type, index, tail)

    def _finish_item(self, item: _Item, fields: Mapping[str, Any]) -> list[Chunk]:
        """What has not been emitted of an item, now that it is there in full."""
        if item.type == "reasoning":
            return self._finish_reasoning(item, fields)
        chunks = [] if item.is_done else self._emit_start(item, fields)
        if item.type == "function_call" and item.name != fields.get("name"):
            # Without a name nobody can run it; with two, nobody knows which.
            chunks += [Chunk(error={"message": _CONTRADICTION})] if item.name else [self._nameless_call(item)]
        for part_type, text in _whole_texts(item.type, fields).items():
            tail = _missing_tail(item.text(part_type), text, item.type)
            # Behind everything that was emitted of this type.
            index = max((number for type, number in item.parts if type == part_type), default=0)
            chunks += self._emit_tail(item, part_type, index, tail)
        chunks += _unread_parts(item.type, fields)
        if not item.is_search_shown:
            chunks += self._emit_search(item, fields)
        item.is_done = True
        return chunks

    def _finish_reasoning(self, item: _Item, fields: Mapping[str, Any]) -> list[Chunk]:
        if item.is_done:
            return []
        item.is_done = True
        chunks: list[Chunk] = []
        for part_type, index, text in _texts_of(item.type, fields):
            if (part_type, index) not in item.parts:
                chunks += self._emit_text(item, part_type, index, text)
        return chunks + self._emit_reasoning_item(fields)

    def _finish_items(self, output: Any) -> list[Chunk]:
        """What has not been emitted of the items that the response holds at its end. Some back ends bring all
        of them there, others none (litellm#32724)."""
        items = output if isinstance(output, list) else []
        came = self._match(items)
        nothing_came = not any(item.parts or item.name or item.is_done for item in self._order)
        chunks: list[Chunk] = []
        for place, fields in enumerate(items):
            if (type := _item_type(fields)) is None:
                chunks += _left_out(fields)
            elif (item := came.get(place)) is not None:
                chunks += self._finish_item(item, fields)
            elif nothing_came or type != "reasoning":  # whose place was before what came
                chunks += self._finish_item(self._new_item(type), fields)
        return chunks

    def _match(self, output: list[Any]) -> dict[int, _Item]:
        """The items that came, by the place in the output in which each of them stands in full: because it
        says the same, or by its id, or by its place among those of its type, for ids may change, or be one
        for all."""
        places = [place for place, fields in enumerate(output) if _item_type(fields) is not None]
        waiting, found = list(self._order), dict[int, _Item]()

        def take(place: int, item: _Item | None) -> None:
            if item in waiting and place not in found:
                waiting.remove(item)
                found[place] = item

        def of_type(place: int) -> Iterator[_Item]:
            return (item for item in waiting if item.type == output[place]["type"])

        for place in places:
            take(place, next((item for item in of_type(place) if item.says(output[place])), None))
        for place in places:
            for id in _ids(output[place]):
                take(place, self._items.get((output[place]["type"], id)))
        for place in places:
            take(place, next(of_type(place), None))
        return found

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
        if item.type == "function_call" and not item.name and isinstance(name := fields.get("name"), str):
            item.name = name
            return [self._call_chunk(item, FunctionDelta(name), _call_id(fields))] if name else []
        return []

    def _nameless_call(self, item: _Item) -> Chunk:
        return self._call_chunk(item, FunctionDelta(), "nameless")

    def _emit_tail(self, item: _Item, part_type: str, index: int, tail: str | None) -> list[Chunk]:
        if tail is None:
            return [Chunk(error={"message": _CONTRADICTION})]
        return self._emit_text(item, part_type, index, tail)

    def _emit_text(self, item: _Item, part_type: str, index: int, text: Any) -> list[Chunk]:
        if not isinstance(text, str) or not text:
            return []
        if (part := item.parts.get((part_type, index))) is None:
            part = item.parts[part_type, index] = _Part()
        part.pieces.append(text)
        if item.type == "function_call":
            return [self._call_chunk(item, FunctionDelta(arguments=text))]
        if item.type == "reasoning":
            return self._emit_reasoning_text(item, part_type, index, text)
        self._after_reasoning_item = False
        delta = _MESSAGE_DELTAS.get(part_type)
        return _left_out({"type": part_type}) if delta is None else [_chunk(delta(text))]

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

    def _emit_search(self, item: _Item, fields: Mapping[str, Any]) -> list[Chunk]:
        """A search, or what a message cites of searches. (Pages that are opened or looked through are no
        searches.)"""
        if item.type == "message":
            citations = _citations(fields, item.annotations)
            item.is_search_shown = bool(citations)
            return citations
        if item.type != _WEB_SEARCH:
            return []
        item.is_search_shown = True
        deltas = []
        if self._after_reasoning_item:
            # What reasoning led to must come back with it: alone it would be refused.
            kept = {name: value for name, value in fields.items() if value is not None}
            deltas.append(Delta(reasoning_details=[kept]))
        action = _object(fields.get("action"))
        if action.get("type", "search") == "search":
            deltas.append(Delta(web_searches=[_search(action, fields.get("status"))]))
        return [_chunk(delta) for delta in deltas]

    def _call_chunk(self, item: _Item, function: FunctionDelta, id: Any = None) -> Chunk:
        if item.call_index is None:
            item.call_index, self._call_count = self._call_count, self._call_count + 1
        self._after_reasoning_item = False
        return _chunk(Delta(tool_calls=(ToolCallDelta(item.call_index, id, function),)))


_HANDLERS: Mapping[str, Callable[[ResponsesStream, Event], list[Chunk]]] = {
    "response.created": ResponsesStream._on_created,
    "response.output_item.added": ResponsesStream._on_item_added,
    "response.output_item.done": ResponsesStream._on_item_done,
    "response.output_text.annotation.added": ResponsesStream._on_annotation,
    "response.completed": ResponsesStream._on_ended,
    "response.incomplete": ResponsesStream._on_ended,
    "response.failed": ResponsesStream._on_ended,
    "error": ResponsesStream._on_error,
}
"""By the type of the other events that are read. The rest repeats these, or tells only of progress."""

_SKIPPED_TYPES = frozenset(
    (
        b"response.in_progress",
        b"response.content_part.added",
        b"response.content_part.done",
        b"response.reasoning_summary_part.added",
        b"response.reasoning_summary_part.done",
    )
)
"""Those of each answer that need not be read. The first of them repeats the whole request."""
_LEADING_TYPE = re.compile(rb'\s*\{\s*"type"\s*:\s*"([^"\\]*)"')
_ENDS = ("completed", "incomplete")
_LIMITS = (None, "max_output_tokens")
"""What leaves a response incomplete at its limit."""
_FAILED = ("failed", "cancelled", "canceled", "expired")


def response_chunks(body: bytes) -> list[Chunk]:
    """The chunks of an answer in one piece: those of the stream that it would have been, so that they cannot
    differ. An error for whatever is no finished response."""
    response = _read_response(body)
    status = response.status or ("completed" if isinstance(response.output, list) else "failed")
    return [*_model_chunks(response), *ResponsesStream().finish(status, response)]


class ResponsesDecoder:
    """One answer: server-sent events, or one response where none was to be streamed."""

    streams_json = False

    def __init__(self) -> None:
        self._events = EventDecoder()
        self._stream = ResponsesStream()

    def feed(self, data: bytes) -> tuple[list[Chunk], bool]:
        """The chunks, and whether the answer is over. Raises `ValueError` for what can't be read."""
        return self._read(self._events.feed(data))

    def end(self) -> tuple[list[Chunk], bool]:
        return self._read(self._events.end())

    def decode_whole(self, body: bytes) -> list[Chunk]:
        fields = decode_object_leniently(body)  # what is no object at all is no failed response either
        if "output" not in fields and "status" not in fields and (error := reported_error(body)):
            return [Chunk(error=error)]
        return response_chunks(body)

    def _read(self, events: list[bytes]) -> tuple[list[Chunk], bool]:
        chunks: list[Chunk] = []
        for event in events:
            if event.startswith(DONE):  # not the API's own, but of gateways that know it from chat
                return chunks, True
            chunks += self._stream.feed(event)
            if chunks and chunks[-1].error:
                break  # whatever follows an error, it is no answer
        return chunks, False


def _model_chunks(response: Response) -> list[Chunk]:
    """The model that served, which is told first."""
    return [Chunk(model=response.model)] if response.model else []


def _chunk(delta: Delta) -> Chunk:
    return Chunk((Choice(delta=delta),))


def _item_type(fields: Any) -> str | None:
    """The type of an item that is read."""
    type = _object(fields).get("type")
    return type if isinstance(type, str) and type in _ITEM_TYPES else None


def _left_out(fields: Any) -> list[Chunk]:
    """A part, or an item, that is not read: the translator is to know that there was one."""
    type = _object(fields).get("type")
    return [_chunk(Delta([{"type": type}]))] if isinstance(type, str) else []


def _unread_parts(item_type: str, fields: Mapping[str, Any]) -> list[Chunk]:
    parts = fields.get("content") if item_type == "message" else None
    return [
        chunk
        for part in (parts if isinstance(parts, list) else ())
        if _part_type(item_type, _object(part).get("type")) not in _MESSAGE_DELTAS
        for chunk in _left_out(part)
    ]


def _part_type(item_type: str, type: Any) -> str:
    """Some call the text of a message so, as chat does."""
    return "output_text" if item_type == "message" and type == "text" else str(type)


def _missing_tail(emitted: str, whole: Any, item_type: str) -> str | None:
    """What is left to emit of a text that is `whole` in the end; `None` where it is another one."""
    if not isinstance(whole, str) or not whole or whole == emitted:
        return ""
    if not emitted.isascii():  # an emoji may have come in halves
        emitted, whole = _joined_halves(emitted), _joined_halves(whole)
    if whole.startswith(emitted):
        return str(whole[len(emitted) :])
    if whole.strip() == emitted.strip():
        return ""
    if item_type == "function_call":
        try:  # some write them anew at the end
            return "" if json.loads(whole) == json.loads(emitted) else None
        except (ValueError, RecursionError):
            pass
    return None


def _joined_halves(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _whole_texts(type: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The texts of an item that is there in full, by the types of its parts."""
    texts: dict[str, Any] = {}
    for part_type, _, text in _texts_of(type, fields):
        texts[part_type] = texts.get(part_type, "") + text if isinstance(text, str) else ""
    return texts


def _call_id(fields: Mapping[str, Any]) -> Any:
    return fields.get("call_id") or fields.get("id")


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
                    yield _part_type(type, part_type), index, text


def _search(action: Mapping[str, Any], status: Any) -> WebSearchCall:
    """`query` may be missing, and `queries` have all of them. What is no page (`oai-weather`) has no URL."""
    queries = action.get("queries")
    texts = [action.get("query"), *(queries if isinstance(queries, list) else ())]
    query = next((text for text in texts if isinstance(text, str) and text), None)
    sources = action.get("sources")
    pages = None
    if isinstance(sources, list):
        pages = tuple(page for source in sources if (page := _page(source)) is not None)
    return WebSearchCall(query=query, pages=pages, failed=status == "failed")


def _citations(fields: Mapping[str, Any], before: list[Any]) -> list[Chunk]:
    """The pages that a message cites. `before`: annotations that came before it was whole."""
    parts = [part for part in _list(fields.get("content")) if isinstance(part, dict)]
    annotated = [(part.get("text"), _list(part.get("annotations"))) for part in parts]
    if before and not any(annotations for _, annotations in annotated):
        annotated = [(parts[0].get("text") if len(parts) == 1 else None, before)]
    citations = [
        PageCitation(page, _span(text, annotation))
        for text, annotations in annotated
        for annotation in annotations
        if _object(annotation).get("type") == "url_citation" and (page := _page(annotation)) is not None
    ]
    return [_chunk(Delta(citations=citations))] if citations else []


def _page(fields: Any) -> Page | None:
    match fields:
        case {"url": str(url)} if url:
            title = fields.get("title")
            return Page(url, title if isinstance(title, str) and title else None)
    return None


def _span(text: Any, annotation: Mapping[str, Any]) -> str:
    start, end = annotation.get("start_index"), annotation.get("end_index")
    if not isinstance(text, str) or not isinstance(start, int) or not isinstance(end, int):
        return ""
    return text[start:end] if 0 <= start < end <= len(text) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


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
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode


def _check_json(event: bytes) -> list[Chunk]:
    """Nothing. Raises `ValueError` for what is no JSON."""
    try:
        _decode_raw(event)
    except UNREADABLE:
        decode_object_leniently(event)
    return []


def _read_event(event: bytes) -> Event:
    """Raises `ValueError` for what is no JSON object, or none of an event's shape."""
    try:
        return _decode_event(event)
    except UNREADABLE:
        if error := reported_error(event):
            return Event(type="error", error=error)
        return msgspec.convert(decode_object_leniently(event), Event)


def _read_untyped(event: bytes) -> list[Chunk]:
    """An object without a type. Raises `ValueError` unless it is an error, or nothing: some keep a connection
    alive with that."""
    if error := reported_error(event):
        return [Chunk(error=error)]
    if decode_object_leniently(event):
        raise ValueError("no event of a response")
    return []


_decode_response = msgspec.json.Decoder(Response).decode


def _read_response(body: bytes) -> Response:
    """An empty one, if it cannot be read."""
    try:
        try:
            return _decode_response(body)
        except UNREADABLE:  # because of half an emoji, too, which back ends do send
            return msgspec.convert(json.loads(body), Response)
    except (ValueError, RecursionError):
        return Response()
