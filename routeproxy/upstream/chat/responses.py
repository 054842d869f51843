"""OpenAI's Responses API, to and from chat: a chat request as its request, its events as chat chunks. No I/O
here, and no event makes it raise.

The sources: the reference as the `openai` package has it (`types/responses`), and what its users ran into,
which is named where it counts.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from routeproxy.chat import responses as wire
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
from routeproxy.chat.request import (
    Assistant,
    ChatMessage,
    ChatRequest,
    FilePart,
    Function,
    FunctionChoice,
    ImagePart,
    Part,
    ResponseFormat,
    System,
    TextPart,
    ToolMessage,
    User,
)
from routeproxy.chat.responses import Event, InputItem, InputPart, Response

T = TypeVar("T", bound=Struct)

# --- the request

SMALLEST_LIMIT = 16
"""`max_output_tokens` below it is refused."""
BETWEEN_TEXTS = "\n\n"

_encode = msgspec.json.Encoder().encode


def responses_request(
    chat: ChatRequest, *, model: str, reasons: bool = True, summaries: bool = True
) -> bytes:
    """The body that asks for what `chat` asks for. `reasons`: whether the model does; one that does not
    refuses every mention of it (pydantic-ai#3326, roackb2/heddle#227). `summaries`: whether its provider
    gives us those of its reasoning.

    The conversation is sent whole each time and nothing is stored, so what must outlive a turn of the model's
    reasoning comes back in `Assistant.reasoning_details`. Stop strings are not sent: the API knows none.
    """
    opening, said = _opening(chat.messages)
    return _encode(
        wire.ResponsesRequest(
            model=model,
            instructions=opening,
            input=tuple(item for message in said for item in _items(message, reasons)),
            tools=UNSET if chat.tools is UNSET else tuple(_tool(tool.function) for tool in chat.tools),
            tool_choice=_choice(chat.tool_choice),
            parallel_tool_calls=chat.parallel_tool_calls,
            max_output_tokens=_limit(chat),
            temperature=chat.temperature,
            top_p=chat.top_p,
            reasoning=_reasoning(chat.reasoning_effort, reasons, summaries),
            include=("reasoning.encrypted_content",) if reasons else UNSET,
            text=_text_format(chat.response_format),
            service_tier=chat.service_tier,
            user=chat.user,
            prompt_cache_key=chat.prompt_cache_key,
            stream=chat.stream,
        )
    )


def _opening(
    messages: tuple[ChatMessage, ...],
) -> tuple[str | Raw | UnsetType, tuple[ChatMessage, ...]]:
    """The system prompt, which goes into `instructions`: the API's own place for it, and the only one that
    all take (CliRelay#820)."""
    if messages and isinstance(system := messages[0], System):
        return system.content, messages[1:]
    return UNSET, messages


def _items(message: ChatMessage, reasons: bool) -> Iterator[InputItem]:
    match message:
        case System(content=content):
            # Not `system`, which Codex's back end refuses; OpenAI takes both for the same (codex2api#409).
            yield wire.Message("developer", (wire.InputText(content),))
        case User(content=content):
            yield wire.Message("user", _parts(content))
        case Assistant():
            yield from _answer(message, reasons)
        case ToolMessage(tool_call_id=id, content=content):
            yield wire.FunctionCallOutput(id, content if isinstance(content, str) else _parts(content))


def _answer(message: Assistant, reasons: bool) -> Iterator[InputItem]:
    """An earlier answer: reasoning before what it led to, text before calls (continuedev#11994)."""
    phase: str | UnsetType = UNSET
    if message.reasoning_details is not UNSET and reasons:
        for item in msgspec.json.decode(message.reasoning_details):
            match item:
                case {"type": "reasoning"}:
                    yield item
                case {"type": "message", "phase": str(phase)}:
                    pass
    if message.content:
        yield wire.Message("assistant", (wire.OutputText(message.content),), phase)
    for call in message.tool_calls or ():
        yield wire.FunctionCall(call.id, call.function.name, call.function.arguments)


def _parts(content: str | tuple[Part, ...]) -> tuple[InputPart, ...]:
    return (wire.InputText(content),) if isinstance(content, str) else tuple(map(_part, content))


def _part(part: Part) -> InputPart:
    match part:
        case TextPart(text=text):
            return wire.InputText(text)
        case ImagePart(image_url=image):
            return wire.InputImage(image.url)
        case FilePart(file=file):
            return wire.InputFile(file.filename, file.file_data, file.file_id)


def _tool(function: Function) -> wire.FunctionTool:
    return wire.FunctionTool(
        name=function.name,
        description=function.description,
        parameters=None if function.parameters is UNSET else function.parameters,
        strict=function.strict is True,
    )


def _choice(choice: str | FunctionChoice | UnsetType) -> str | wire.FunctionChoice | UnsetType:
    return wire.FunctionChoice(choice.function.name) if isinstance(choice, FunctionChoice) else choice


def _limit(chat: ChatRequest) -> int | UnsetType:
    limit = chat.max_tokens if chat.max_completion_tokens is UNSET else chat.max_completion_tokens
    return limit if limit is UNSET else max(limit, SMALLEST_LIMIT)


def _reasoning(effort: str | UnsetType, reasons: bool, summaries: bool) -> wire.Reasoning | UnsetType:
    """With a summary, which is all that one gets to see of it and comes only if asked for."""
    summary = "auto" if summaries and effort != "none" else UNSET
    if not reasons or (effort is UNSET and summary is UNSET):
        return UNSET
    return wire.Reasoning(effort, summary)


def _text_format(format: ResponseFormat | UnsetType) -> wire.Text | UnsetType:
    if format is UNSET:
        return UNSET
    wanted = format.json_schema
    return wire.Text(wire.JsonSchema(wanted.name, wanted.schema, wanted.strict))


# --- the answer


class _Text(NamedTuple):
    """Text of an answer: in which kind of item and of part it is, and the event's fields that hold it and the
    part's number."""

    item: str
    part: str
    field: str
    place: str = "content_index"
    whole: bool = False
    """It comes again, at its end."""


_ARGUMENTS = "arguments"
_TEXTS: Mapping[str, _Text] = {
    "response.output_text.delta": _Text("message", "output_text", "delta"),
    "response.output_text.done": _Text("message", "output_text", "text", whole=True),
    "response.refusal.delta": _Text("message", "refusal", "delta"),
    "response.refusal.done": _Text("message", "refusal", "refusal", whole=True),
    "response.reasoning_text.delta": _Text("reasoning", "reasoning_text", "delta"),
    "response.reasoning_text.done": _Text("reasoning", "reasoning_text", "text", whole=True),
    "response.reasoning_summary_text.delta": _Text("reasoning", "summary_text", "delta", "summary_index"),
    "response.reasoning_summary_text.done": _Text(
        "reasoning", "summary_text", "text", "summary_index", whole=True
    ),
    "response.function_call_arguments.delta": _Text("function_call", _ARGUMENTS, "delta"),
    "response.function_call_arguments.done": _Text("function_call", _ARGUMENTS, "arguments", whole=True),
}
"""By the event's name."""

_DELTAS: Mapping[str, Callable[[str], Delta]] = {
    "output_text": lambda text: Delta(content=text),
    "refusal": lambda text: Delta(refusal=text),
}
"""What a part of a message is in chat."""

_KINDS = frozenset(text.item for text in _TEXTS.values())
"""The items that are read. The others come from tools that run at OpenAI, and nobody has asked for those."""

_FINISH_REASONS: Mapping[str, str] = {"max_output_tokens": "length", "content_filter": "content_filter"}
"""By what left a response incomplete. Anything else counts as its limit."""


class _Item:
    """An item of the output: how much of it has been passed on."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.begun: set[tuple[str, int]] = set()
        """The parts of which some text came: whole, they bring nothing new."""
        self.voice = ""
        """Of reasoning: the kind of part that is shown. Some send a summary beside the text."""
        self.call: int | None = None
        """Of a call: its number among the calls."""
        self.named = False
        self.done = False


class ResponsesStream:
    """`feed` it the events of one response. One that merely ceases gets no finish reason."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str | int], _Item] = {}
        """By kind, and by id or place."""
        self._calls = 0
        self._last_thought: tuple[_Item, int] | None = None
        """The part of the reasoning that came last."""
        self._carrying = False
        """A reasoning item has gone out to be carried, and nothing since."""

    def feed(self, event: bytes | Mapping[str, Any]) -> list[Chunk]:
        """`event`: what stands behind its `data:`."""
        if isinstance(event, bytes) and (named := _NAME_FIRST.match(event)) and named[1] not in _HEARD:
            return []
        read = _read(event, _decode_event, Event)
        name = read.type if isinstance(read.type, str) else "error" if read.error else ""
        if (text := _TEXTS.get(name)) is not None:
            return self._hear(text, read)
        handle = _HANDLERS.get(name)
        return [] if handle is None else handle(self, read)

    # Items

    def _known(self, kind: str, ids: tuple[str, ...], place: int | None) -> _Item | None:
        """By id, or else the one in its place that is not done: some change the ids from event to event
        (litellm#30072), others number all items alike (CLIProxyAPI#539)."""
        for id in ids:
            if (item := self._items.get((kind, id))) is not None:
                return item
        item = None if place is None else self._items.get((kind, place))
        return None if item is None or item.done else item

    def _enter(self, item: _Item, ids: tuple[str, ...], place: int) -> _Item:
        for id in ids:
            self._items[item.kind, id] = item
        self._items[item.kind, place] = item
        return item

    def _item(self, kind: str, ids: tuple[str, ...], place: int) -> _Item:
        return self._known(kind, ids, place) or self._enter(_Item(kind), ids, place)

    def _added(self, event: Event) -> list[Chunk]:
        if (kind := _kind(event.item)) is None:
            return []
        ids = _ids(event.item)
        item = self._enter(self._known(kind, ids, None) or _Item(kind), ids, _number(event.output_index))
        return self._introduce(item, event.item)

    def _done(self, event: Event) -> list[Chunk]:
        if (kind := _kind(event.item)) is None:
            return []
        item = self._item(kind, _ids(event.item), _number(event.output_index))
        return self._finish(item, event.item)

    def _introduce(self, item: _Item, found: Mapping[str, Any]) -> list[Chunk]:
        """What is known of an item before its text."""
        if item.kind == "message" and self._carrying and isinstance(phase := found.get("phase"), str):
            # Models that tell it want to be told it again, or they stop too early (vercel/ai#12860). The only
            # place for it is beside reasoning.
            self._carrying = False
            return [_chunk(Delta(reasoning_details=[{"type": "message", "phase": phase}]))]
        if item.kind == "function_call" and not item.named and found.get("name"):
            item.named = True
            return [self._call(item, FunctionDelta(found["name"]), found.get("call_id") or found.get("id"))]
        return []

    def _finish(self, item: _Item, found: Mapping[str, Any]) -> list[Chunk]:
        """What has not been passed on of an item, now that it is there in full."""
        if item.done:
            return []
        item.done = True
        chunks = self._introduce(item, found)
        for part, place, text in _texts_in(item.kind, found):
            if (part, place) not in item.begun:
                chunks += self._say(item, part, place, text)
        if item.kind == "reasoning":
            chunks += self._carry(found)
        return chunks

    def _carry(self, found: Mapping[str, Any]) -> list[Chunk]:
        """Reasoning as it must come back with the next request, if there is more to it than a summary: with
        `status` or a null in it it is refused, and without `summary` (openai-python#3053, Agora#141)."""
        if not (found.get("encrypted_content") or found.get("content")):
            return []
        self._carrying = True
        kept = {name: value for name, value in found.items() if name != "status" and value is not None}
        return [_chunk(Delta(reasoning_details=[{"summary": []} | kept]))]

    # Text

    def _hear(self, text: _Text, event: Event) -> list[Chunk]:
        id = event.item_id
        ids = (id,) if isinstance(id, str) and id else ()
        item = self._item(text.item, ids, _number(event.output_index))
        place = _number(getattr(event, text.place))
        if text.whole and (text.part, place) in item.begun:
            return []
        return self._say(item, text.part, place, getattr(event, text.field))

    def _say(self, item: _Item, part: str, place: int, text: Any) -> list[Chunk]:
        if not isinstance(text, str) or not text:
            return []
        item.begun.add((part, place))
        if item.kind == "function_call":
            return [self._call(item, FunctionDelta(arguments=text))]
        if item.kind == "reasoning":
            return self._think(item, part, place, text)
        self._carrying = False
        return [_chunk(delta(text))] if (delta := _DELTAS.get(part)) is not None else []

    def _think(self, item: _Item, part: str, place: int, text: str) -> list[Chunk]:
        item.voice = item.voice or part
        if part != item.voice:
            return []
        last, self._last_thought = self._last_thought, (item, place)
        if last not in (None, self._last_thought):
            text = BETWEEN_TEXTS + text
        return [_chunk(Delta(reasoning_content=text))]

    def _call(self, item: _Item, function: FunctionDelta, id: Any = None) -> Chunk:
        if item.call is None:
            item.call, self._calls = self._calls, self._calls + 1
        self._carrying = False
        return _chunk(Delta(tool_calls=(ToolCallDelta(item.call, id, function),)))

    # The beginning and the end

    def _begin(self, event: Event) -> list[Chunk]:
        return _served_by(event.response or Response())

    def _end(self, event: Event) -> list[Chunk]:
        return self.end(str(event.type).removeprefix("response."), event.response or Response())

    def end(self, told: Any, response: Response) -> list[Chunk]:
        """What is left to tell of a response that has ended as `told`."""
        words = {str(told), str(response.status)}
        if response.error or "failed" in words or words.isdisjoint(("completed", "incomplete")):
            no_reason = {"message": f"the response ended with status {told} and gave no reason"}
            return [Chunk(error=response.error or no_reason)]
        chunks = self._left(response.output)
        reason = "tool_calls" if self._calls else "stop"
        if "incomplete" in words:
            reason = _FINISH_REASONS.get(str(_object(response.incomplete_details).get("reason")), "length")
        ending = Choice(delta=Delta(), finish_reason=reason)
        return [*chunks, Chunk((ending,), _usage(response.usage), response.model)]

    def _left(self, output: Any) -> list[Chunk]:
        """What the response holds at its end and did not tell before. Some tell it all there, some nothing
        (litellm#32724)."""
        told_nothing = not any(item.begun or item.named or item.done for item in self._items.values())
        chunks: list[Chunk] = []
        for place, found in enumerate(output if isinstance(output, list) else ()):
            if (kind := _kind(found)) is not None:
                ids = _ids(found)
                if told_nothing or self._known(kind, ids, place) is not None:
                    chunks += self._finish(self._item(kind, ids, place), found)
        return chunks

    def _fail(self, event: Event) -> list[Chunk]:
        """`code` and `message` are the event's own, or in an `error` of it (can1357/oh-my-pi#2570)."""
        wrapped = event.error if isinstance(event.error, dict) else {"message": event.error}
        own = {"code": event.code, "message": event.message}
        return [Chunk(error=own | {name: value for name, value in wrapped.items() if value})]


_HANDLERS: Mapping[str, Callable[[ResponsesStream, Event], list[Chunk]]] = {
    "response.created": ResponsesStream._begin,
    "response.output_item.added": ResponsesStream._added,
    "response.output_item.done": ResponsesStream._done,
    "response.completed": ResponsesStream._end,
    "response.incomplete": ResponsesStream._end,
    "response.failed": ResponsesStream._end,
    "error": ResponsesStream._fail,
}
"""The other events. What is in no table repeats what these say, or tells only of progress."""

_HEARD = frozenset(name.encode() for name in (*_TEXTS, *_HANDLERS))
_NAME_FIRST = re.compile(rb'\s*\{\s*"type"\s*:\s*"([^"\\]*)"')


def responses_whole(body: bytes) -> list[Chunk]:
    """The chunks of an answer in one piece: those of the stream that it would have been, so that they cannot
    differ. An error for whatever is no finished response."""
    response = _read(body, _decode_response, Response)
    told = response.status or ("completed" if isinstance(response.output, list) else "failed")
    return [*_served_by(response), *ResponsesStream().end(told, response)]


def _served_by(response: Response) -> list[Chunk]:
    return [Chunk(model=response.model)] if response.model else []


def _chunk(delta: Delta) -> Chunk:
    return Chunk((Choice(delta=delta),))


def _kind(found: Any) -> str | None:
    kind = _object(found).get("type")
    return kind if isinstance(kind, str) and kind in _KINDS else None


def _ids(found: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(id for id in (found.get("id"), found.get("call_id")) if isinstance(id, str) and id)


def _texts_in(kind: str, found: Mapping[str, Any]) -> Iterator[tuple[str, int, Any]]:
    """The texts of an item that is there in full, with their parts and places."""
    if kind == "function_call":
        yield _ARGUMENTS, 0, found.get("arguments")
        return
    for parts in (found.get("content"), found.get("summary")):
        for place, part in enumerate(parts if isinstance(parts, list) else ()):
            match part:
                case {"type": "refusal" as kind, "refusal": text} | {"type": str(kind), "text": text}:
                    yield kind, place, text


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _usage(reported: Any) -> CompletionUsage | None:
    match reported:
        case {"input_tokens": _} | {"output_tokens": _}:
            of_input = _object(reported.get("input_tokens_details"))
            of_output = _object(reported.get("output_tokens_details"))
            return CompletionUsage(
                prompt_tokens=reported.get("input_tokens"),
                completion_tokens=reported.get("output_tokens"),
                prompt_tokens_details=PromptTokensDetails(
                    of_input.get("cached_tokens"), of_input.get("cache_write_tokens")
                ),
                completion_tokens_details=CompletionTokensDetails(of_output.get("reasoning_tokens")),
            )
    return None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


_decode_event = msgspec.json.Decoder(Event).decode
_decode_response = msgspec.json.Decoder(Response).decode


def _read(found: bytes | Mapping[str, Any], decode: Callable[[bytes], T], kind: type[T]) -> T:
    """`found`, or an empty one of its kind, if it cannot be read."""
    try:
        if not isinstance(found, bytes):
            return msgspec.convert(found, kind)
        try:
            return decode(found)
        except msgspec.DecodeError:  # of half an emoji, too, which back ends do send
            return msgspec.convert(json.loads(found), kind)
    except (msgspec.ValidationError, ValueError, RecursionError):
        return kind()
