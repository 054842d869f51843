"""Reads along in the stream of a Messages back end: its usage, its first content, its errors and its end; and
whether clients can follow it (`stream_events.py`). Two things only are written anew: the model's name in
`message_start`, and an error that quotes our key or has another shape than the API's."""

import re
from contextlib import suppress

import msgspec

from routeproxy.exchange import Call
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.messages.edits import Span, find_members
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.events import MessageStop
from routeproxy.messages.events import frame as frame_of
from routeproxy.messages.relayed import DATA_LINE, FRAME_END, frame_data
from routeproxy.messages.token_usage import short_text
from routeproxy.redaction import redact_bytes
from routeproxy.upstream.errors.classify import classify_error_object
from routeproxy.upstream.failures import UpstreamFailure, not_a_message, stream_cut
from routeproxy.upstream.messages.stream_events import (
    BlockDelta,
    BlockStart,
    ErrorEvent,
    EventOrder,
    InvalidStream,
    MessageDelta,
    Start,
    Stop,
    StreamEvent,
    decode_event,
    read_event,
)
from routeproxy.upstream.messages.usage import UsageTally

_DELTA = b"event: content_block_delta\ndata: "
_DELTA_LENGTH = len(_DELTA)
_EVENT_LINE = re.compile(rb"^event: ?(.*?)\r?$", re.MULTILINE)
_ODD_LINE = re.compile(rb"^(?![\w-]*:|(?:event|data|id|retry)?\r?$).", re.MULTILINE)
"""A line that is neither a comment nor a field."""

Event = StreamEvent | ErrorEvent | bytes
"""Of bytes, only `DONE`."""

DONE = b"[DONE]"
"""How streams of another protocol end."""
MESSAGE_STOP = frame_of(MessageStop())


class Scanner:
    """Follows one stream, which is relayed as far as it keeps the rules."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._usage = UsageTally(call.exchange)
        self._order = EventOrder()
        self.has_content = False
        """Some of the answer's content has been seen."""
        self.over = False
        self.failure: UpstreamFailure | None = None
        """Why nothing can follow what has been scanned."""

    @property
    def is_whole(self) -> bool:
        return self._order.is_whole

    def scan(self, frames: bytes) -> bytes:
        """What goes out in place of whole frames: nearly always the same. Raises `UpstreamFailure` for an
        error before the first content."""
        parts: list[bytes] = []
        at = relayed = 0
        text = _as_far_as_it_is_text(frames)
        try:
            while not self.over and (at := _skip_deltas(text, at, self._order)) < len(text):
                event, end = _next_event(text, at)
                if event is not None and (new := self._on_event(event, frames[at:end])) is not None:
                    parts += (frames[relayed:at], new)
                    relayed = end
                at = end
            if len(text) < len(frames) and not self.over:
                raise InvalidStream("an event that is no UTF-8")
        except InvalidStream as invalid:
            words = f"the back end {self._call.target.provider.name} sent an invalid stream: {invalid}"
            self.failure = UpstreamFailure("connection", words)
        # Nothing may follow the end, nor what broke a rule.
        return b"".join((*parts, frames[relayed:at])) if parts or at < len(frames) else frames

    def end(self) -> bytes:
        """What is missing where the back end says no more. Raises `UpstreamFailure` if that is more than the
        last event."""
        if not self._order.has_begun:
            raise not_a_message(self._call.target.provider.name)
        if not self.is_whole:
            raise stream_cut()
        self.over = True
        return MESSAGE_STOP

    def _on_event(self, event: Event, frame: bytes) -> bytes | None:
        """What goes out instead; `None`: the frame as it came."""
        if isinstance(event, ErrorEvent):
            return self._on_error(event, frame)
        if isinstance(event, bytes):
            if not self.is_whole:
                raise InvalidStream("[DONE] before the end of the message")
            return self.end()
        self._order.follow(event)
        match event:
            case Start(message=message):
                self._call.exchange.served_model = short_text(message.model)
                self._usage.add(message.usage)
                return self._with_model(frame)
            case BlockStart():
                self.has_content = True
            case MessageDelta(usage=usage):
                self.has_content = True
                self._usage.add(usage)
            case Stop():
                self.over = True
        return None

    def _with_model(self, frame: bytes) -> bytes | None:
        model = model_to_show(self._call)
        lines = list(DATA_LINE.finditer(frame))
        if model is None or not lines:
            return None
        data = frame_data(frame)
        span = _span_of_model(data)
        if span is None:
            return None
        data = data[: span.start] + msgspec.json.encode(model) + data[span.end :]
        return frame[: lines[0].start(1)] + data.replace(b"\n", b"\ndata: ") + frame[lines[-1].end(1) :]

    def _on_error(self, event: ErrorEvent, as_it_came: bytes) -> bytes:
        target = self._call.target
        failure = classify_error_object(event.value, provider=target.provider.name, model=target.model)
        if not self.has_content:
            raise failure
        self.over, self.failure = True, failure
        if event.is_sound:
            failure.type = event.value["error"]["type"]
            failure.event = redact_bytes(as_it_came, self._call.exchange.secrets)
        return b""


def _as_far_as_it_is_text(frames: bytes) -> bytes:
    """The whole frames before the first that is no UTF-8, which no client could read."""
    if frames.isascii():
        return frames
    try:
        frames.decode()
    except UnicodeDecodeError as error:
        ends = [match.end() for match in FRAME_END.finditer(frames, 0, error.start)]
        return frames[: ends[-1]] if ends else b""
    return frames


def _skip_deltas(frames: bytes, at: int, order: EventOrder) -> int:
    """Behind the deltas that follow one another from `at` on, as nearly all events do, in two lines each and
    in order. What is not that, `_next_event` looks at."""
    while frames.startswith(_DELTA, at) and (end := frames.find(b"\n\n", at)) >= 0:
        try:
            event = decode_event(frames[at + _DELTA_LENGTH : end])
        except UNREADABLE:
            return at
        if type(event) is not BlockDelta or not order.takes(event):
            return at
        at = end + 2
    return at


def _next_event(frames: bytes, at: int) -> tuple[Event | None, int]:
    """The event at `at` and where its frame ends; no event for a frame that is not looked at. Raises
    `InvalidStream`."""
    end = match.end() if (match := FRAME_END.search(frames, at)) else len(frames)
    frame = frames[at:end]
    data = frame_data(frame)
    if data == DONE:
        return DONE, end
    names = _EVENT_LINE.findall(frame)
    name = names[-1].decode("utf-8", "replace") if names else None
    if data or name == "error":
        return read_event(name, data), end
    if _ODD_LINE.search(frame):
        raise InvalidStream("text that is no event")
    return None, end


def _span_of_model(data: bytes) -> Span | None:
    """Where `message.model` stands in a `message_start`. Whatever cannot be read goes to the client as it
    is."""
    with suppress(*UNREADABLE, InvalidRequest):
        if message := find_members(data).get("message"):
            model = find_members(data, *message.value).get("model")
            return model.value if model else None
    return None


def model_to_show(call: Call) -> str | None:
    """What `model` must be instead of what the back end wrote; None where that is right already."""
    if call.target.transforms.model_name == "served":
        return None
    return call.exchange.envelope.model if call.exchange.envelope else None
