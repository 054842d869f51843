"""A Messages back end's answer, handed on byte for byte: whole frames of its stream, as many at a time as one
read brought, and a scanner that watches them for content, usage, errors and the end (wire.md §3). Two things
only are written anew: the model's name in `message_start`, and a key that an error quotes.

Frames are found here and not with `http/sse.py`, which gives an event's data and forgets the bytes that it
came in: comments, `event:` and `id:` lines and line ends have to go out as they came, and nearly no frame has
to be decoded.

A read ends anywhere. What is behind the last end of a frame waits for the next read; ends are looked for from
three bytes before what was read on, since a read may have cut `⏎\\r⏎`:

    event: a⏎data: …⏎⏎event: b⏎data: …⏎⏎event: c⏎da
    ├ rest[:end] goes out ─────────────┤├ waits ──┤

In whole frames the scanner looks for the next line that names a notable event, and then for the frame that
this line stands in, which may begin with other lines:

    event: x⏎data: …⏎⏎id: 7⏎event: message_delta⏎data: {…}⏎⏎event: y⏎data: …⏎⏎
    ^at               ^begin^line                           ^end, the next at
    ├ as it came ────┤├ looked into ───────────────────────┤
"""

import re
from contextlib import suppress

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from routeproxy.exchange import Call
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.messages.edits import Span, apply_edits, find_members, set_members
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.events import error_event
from routeproxy.messages.events import frame as event_frame
from routeproxy.messages.relayed import DATA_LINE, FRAME_END, frame_data
from routeproxy.messages.reply import Usage
from routeproxy.output import KEEPALIVE, Emit, Output, Relayed
from routeproxy.upstream.errors.classify import (
    classify_error_data,
    classify_error_object,
    find_error_in_answer,
)
from routeproxy.upstream.failures import (
    REDACTED,
    UpstreamFailure,
    not_a_message,
    page_instead,
    stream_cut,
)
from routeproxy.upstream.http.client import Response
from routeproxy.upstream.http.sse import EventTooLong
from routeproxy.upstream.messages.assemble import (
    assemble_message,
    decode_object,
    encode,
    frames_of_message,
)

LONGEST_REPLY = 2**26
LONGEST_FRAME = 2**24
"""Bytes. What is longer is no answer to a person's question, and must not fill the memory that all requests
share."""


async def relay(response: Response, call: Call, emit: Emit) -> None:
    """Hands on the answer in the form that the client asked for, whichever the back end chose. Raises
    `UpstreamFailure`."""
    form = await response.form()
    if form == "page":
        raise page_instead(response.provider)
    if form == "json":
        await emit(Output(Relayed(await _read_message(response, call)), commits=True))
    elif not call.exchange.stream:
        await emit(Output(Relayed(await _read_stream(response, call)), commits=True))
    else:
        await _relay_frames(response, call, emit)


async def _relay_frames(response: Response, call: Call, emit: Emit) -> None:
    splitter, scanner = FrameSplitter(), Scanner(call)
    while not scanner.over:
        data = await response.read()
        try:
            frames = splitter.feed(data) if data else splitter.end()
        except EventTooLong as error:
            words = f"the back end {call.target.provider.name} sends no end of an event"
            raise UpstreamFailure("connection", words) from error
        await emit(Output(Relayed(scanner.scan(frames)), scanner.has_content) if frames else KEEPALIVE)
        if not (data or scanner.over):
            raise stream_cut()
    await response.drain()


async def _read_message(response: Response, call: Call) -> bytes:
    """A whole reply, as it is or as a stream."""
    body = await response.read_all(LONGEST_REPLY)
    target = call.target
    if failure := find_error_in_answer(body, provider=response.provider, model=target.model):
        raise failure
    try:
        head = decode_reply_head(body)
    except UNREADABLE:
        raise not_a_message(response.provider) from None
    if head.type != "message":
        raise not_a_message(response.provider)
    UsageTally(call).add(head.usage)
    try:
        if model := _model_to_show(call):
            body = apply_edits(body, set_members(body, {"model": msgspec.json.encode(model)}))
        return frames_of_message(decode_object(body)) if call.exchange.stream else body
    except (InvalidRequest, ValueError, LookupError, TypeError):
        raise not_a_message(response.provider) from None


async def _read_stream(response: Response, call: Call) -> bytes:
    """A stream that came although a whole reply was asked for, as one."""
    parts: list[bytes] = []

    async def collect(output: Output) -> None:
        if isinstance(output.content, Relayed):
            parts.append(output.content.data)

    await _relay_frames(response, call, collect)
    try:
        message = assemble_message(b"".join(parts))
    except (ValueError, LookupError, TypeError):
        raise not_a_message(response.provider) from None
    if message.get("type") == "error":
        raise classify_error_object(message, provider=response.provider, model=call.target.model)
    return encode(message)


# --- frames


class FrameSplitter:
    """What is read goes in, the frames that are complete by now come out, byte for byte."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Whole frames; empty where none is complete. Raises `EventTooLong`."""
        searched = max(0, len(self._rest) - 3)
        rest = self._rest + data if self._rest else data
        end = _end_of_frames(rest, searched)
        if not end and len(rest) > LONGEST_FRAME:
            raise EventTooLong
        self._rest = rest[end:]
        return rest[:end]

    def end(self) -> bytes:
        """The last frame, where there is no more to read: some leave out the very last line break."""
        rest, self._rest = self._rest, b""
        return rest.rstrip() + b"\n\n" if _is_complete(rest) else b""


def _end_of_frames(text: bytes, start: int, stop: int | None = None) -> int:
    """Where the last frame that ends between `start` and `stop` ends; 0 if none does."""
    bare, full = text.rfind(b"\n\n", start, stop), text.rfind(b"\n\r\n", start, stop)
    return max(bare + 2 if bare >= 0 else 0, full + 3 if full >= 0 else 0)


def _is_complete(frame: bytes) -> bool:
    with suppress(*UNREADABLE):
        msgspec.json.decode(frame_data(frame), type=msgspec.Raw)
        return True
    return False


# --- what is read along the way


class UsageHead(Struct, frozen=True):
    """The numbers that we count, of many that back ends report."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class ErrorHead(Struct, frozen=True):
    type: str = "api_error"
    message: str = ""


class ReplyHead(Struct, frozen=True):
    """The fields of a whole reply that we go by."""

    type: str = ""
    usage: UsageHead | None = None
    error: ErrorHead | None = None


class _MessageHead(Struct, frozen=True):
    usage: UsageHead | None = None


class _EventHead(Struct, frozen=True):
    type: str = ""
    message: _MessageHead | None = None
    usage: UsageHead | None = None
    error: ErrorHead | None = None


decode_reply_head = msgspec.json.Decoder(ReplyHead).decode
"""Raises `UNREADABLE`."""
_decode_event_head = msgspec.json.Decoder(_EventHead).decode


def _event_head(frame: bytes) -> _EventHead:
    try:
        return _decode_event_head(frame_data(frame))
    except UNREADABLE:
        return _EventHead()


def is_api_error(body: bytes) -> bool:
    """Whether it has the shape that Anthropic's clients read; other shapes lose what they say."""
    try:
        head = decode_reply_head(body)
    except UNREADABLE:
        return False
    return head.type == "error" and head.error is not None and bool(head.error.message)


class UsageTally:
    """The usage of an answer, as its parts report it."""

    def __init__(self, call: Call) -> None:
        self._exchange = call.exchange
        self._usage = UsageHead()

    def add(self, usage: UsageHead | None) -> None:
        if usage is None:
            return
        reported = {
            name: value for name in usage.__struct_fields__ if (value := getattr(usage, name)) is not None
        }
        total = self._usage = replace(self._usage, **reported)
        self._exchange.usage = Usage(
            input_tokens=_or_unset(total.input_tokens),
            cache_creation_input_tokens=_or_unset(total.cache_creation_input_tokens),
            cache_read_input_tokens=_or_unset(total.cache_read_input_tokens),
            output_tokens=total.output_tokens or 0,
        )


def _or_unset(value: int | None) -> int | UnsetType:
    return UNSET if value is None else value


# --- the scanner

_NOTABLE_LINE = re.compile(
    rb'^(?:event: ?|data: ?\{\s*"type"\s*:\s*")'
    rb"(message_start|message_delta|message_stop|content_block_start|error)\b",
    re.MULTILINE,
)

_NOTABLE_WORDS = (b"message_", b"content_block_start", b"error")
"""One of them stands in every notable line. To look for a word is much faster than to look for a line."""


def _find_notable_line(frames: bytes, at: int) -> re.Match[bytes] | None:
    """The first line from `at` on that names a notable event."""
    nearest = -1
    for word in _NOTABLE_WORDS:
        place = frames.find(word, at)
        if place >= 0 and (nearest < 0 or place < nearest):
            nearest = place
    if nearest < 0:
        return None
    return _NOTABLE_LINE.search(frames, max(at, frames.rfind(b"\n", at, nearest) + 1))


class Scanner:
    """Reads along, and decodes only frames whose event is notable."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._usage = UsageTally(call)
        self.has_content = False
        """Some of the answer's content has been seen."""
        self.over = False

    def scan(self, frames: bytes) -> bytes:
        """What goes out in place of whole frames: nearly always the same. Raises `UpstreamFailure` for an
        error before the first content."""
        parts: list[bytes] = []
        at = 0
        while notable := _find_notable_line(frames, at):
            line = notable.start()
            begin = max(at, _end_of_frames(frames, at, line))
            end = match.end() if (match := FRAME_END.search(frames, line)) else len(frames)
            parts += (frames[at:begin], self._on_notable_frame(frames[begin:end], notable[1]))
            at = end
            if self.over:  # nothing may follow the end
                return b"".join(parts)
        return b"".join((*parts, frames[at:])) if parts else frames

    def _on_notable_frame(self, frame: bytes, event: bytes) -> bytes:
        match event:
            case b"message_start":
                return self._on_message_start(frame)
            case b"content_block_start":
                self.has_content = True
            case b"message_delta":
                self.has_content = True
                self._usage.add(_event_head(frame).usage)
            case b"message_stop":
                self.over = True
            case b"error":
                return self._on_error(frame)
        return frame

    def _on_message_start(self, frame: bytes) -> bytes:
        head = _event_head(frame)
        self._usage.add(head.message.usage if head.message else None)
        model = _model_to_show(self._call)
        lines = list(DATA_LINE.finditer(frame))
        if model is None or not lines:
            return frame
        data = frame_data(frame)
        span = _span_of_model(data)
        if span is None:
            return frame
        data = data[: span.start] + msgspec.json.encode(model) + data[span.end :]
        return frame[: lines[0].start(1)] + data.replace(b"\n", b"\ndata: ") + frame[lines[-1].end(1) :]

    def _on_error(self, frame: bytes) -> bytes:
        target, data = self._call.target, frame_data(frame)
        failure = classify_error_data(data, provider=target.provider.name, model=target.model)
        if not self.has_content:
            raise failure
        self.over = True
        if not is_api_error(data):
            self._call.exchange.error = failure.type
            return event_frame(error_event(failure.type, failure.message))
        error = _event_head(frame).error or ErrorHead()
        self._call.exchange.error = error.type
        key = self._call.key
        return frame.replace(key.encode(), REDACTED.encode()) if key else frame


def _span_of_model(data: bytes) -> Span | None:
    """Where `message.model` stands in a `message_start`. Whatever cannot be read goes to the client as it
    is."""
    with suppress(*UNREADABLE, InvalidRequest):
        if message := find_members(data).get("message"):
            model = find_members(data, *message.value).get("model")
            return model.value if model else None
    return None


def _model_to_show(call: Call) -> str | None:
    """What `model` must be instead of what the back end wrote; None where that is right already."""
    if call.target.transforms.model_name == "served":
        return None
    return call.exchange.envelope.model if call.exchange.envelope else None
