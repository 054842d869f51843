"""A Messages back end's answer, handed on byte for byte in whole frames, as many at a time as one read
brought (wire.md §3). What a scanner finds wrong with them (`scanner.py`) ends the answer.

Frames are found here and not with `http/sse.py`, which gives an event's data and forgets the bytes that it
came in: comments, `event:` and `id:` lines and line ends have to go out as they came.

A read ends anywhere. What is behind the last end of a frame waits for the next read; ends are looked for from
three bytes before what was read on, since a read may have cut `⏎\\r⏎`:

    event: a⏎data: …⏎⏎event: b⏎data: …⏎⏎event: c⏎da
    ├ rest[:end] goes out ─────────────┤├ waits ──┤
"""

from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Raw, Struct

from routeproxy.exchange import Call
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.messages.edits import apply_edits, set_members
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.relayed import frame_data
from routeproxy.messages.request import NULL
from routeproxy.messages.token_usage import short_text
from routeproxy.output import KEEPALIVE, Emit, Output, Relayed
from routeproxy.upstream.errors.classify import classify_error_object, find_error_in_answer
from routeproxy.upstream.failures import UpstreamFailure, not_a_message, page_instead
from routeproxy.upstream.http.client import Response
from routeproxy.upstream.http.sse import EventTooLong
from routeproxy.upstream.messages.assemble import (
    assemble_message,
    decode_object,
    encode,
    frames_of_message,
)
from routeproxy.upstream.messages.scanner import Scanner, model_to_show
from routeproxy.upstream.messages.stream_events import BlockHead, read_usage
from routeproxy.upstream.messages.usage import UsageTally

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
        data = await _read_on(response, scanner)
        try:
            frames = splitter.feed(data) if data else splitter.end()
        except EventTooLong as error:
            words = f"the back end {call.target.provider.name} sends no end of an event"
            raise UpstreamFailure("connection", words) from error
        relayed = scanner.scan(frames)
        await emit(Output(Relayed(relayed), scanner.has_content) if relayed else KEEPALIVE)
        if scanner.failure is not None:
            raise scanner.failure
        if not (data or scanner.over):
            await emit(Output(Relayed(scanner.end()), commits=True))
            return
    await response.drain()


async def _read_on(response: Response, scanner: Scanner) -> bytes:
    try:
        return await response.read()
    except UpstreamFailure:
        if scanner.is_whole:  # the connection broke, but the answer had been given
            return b""
        raise


class _ReplyHead(Struct, frozen=True):
    """The fields of a whole reply that we go by."""

    content: tuple[BlockHead, ...]
    type: str
    usage: Raw = NULL
    stop_reason: str | None = None
    model: Any = None


_NO_MESSAGE = (InvalidRequest, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What comes of fields that are not of their types."""

_decode_reply_head = msgspec.json.Decoder(_ReplyHead).decode


async def _read_message(response: Response, call: Call) -> bytes:
    """A whole reply, as it is or as a stream."""
    body = await response.read_all(LONGEST_REPLY)
    target = call.target
    if failure := find_error_in_answer(body, provider=response.provider, model=target.model):
        raise failure
    head = _head_of_reply(body, response.provider)
    call.exchange.served_model = short_text(head.model)
    UsageTally(call.exchange).add(read_usage(msgspec.json.decode(head.usage)))
    try:
        if model := model_to_show(call):
            body = apply_edits(body, set_members(body, {"model": msgspec.json.encode(model)}))
        return frames_of_message(decode_object(body)) if call.exchange.stream else body
    except _NO_MESSAGE:
        raise not_a_message(response.provider) from None


def _head_of_reply(body: bytes, provider: str) -> _ReplyHead:
    """Raises `UpstreamFailure` for what is no whole reply."""
    try:
        body.decode()  # what is skipped is not looked at
        head = _decode_reply_head(body)
        msgspec.json.decode(head.usage)
    except UNREADABLE:
        raise not_a_message(provider) from None
    if head.type != "message" or not all(block.is_sound for block in head.content):
        raise not_a_message(provider)
    return head


async def _read_stream(response: Response, call: Call) -> bytes:
    """A stream that came although a whole reply was asked for, as one."""
    parts: list[bytes] = []

    async def collect(output: Output) -> None:
        if isinstance(output.content, Relayed):
            parts.append(output.content.data)

    await _relay_frames(response, call, collect)
    try:
        message = assemble_message(b"".join(parts))
    except _NO_MESSAGE:
        raise not_a_message(response.provider) from None
    if message.get("type") == "error":
        raise classify_error_object(message, provider=response.provider, model=call.target.model)
    body = encode(message)
    _head_of_reply(body, response.provider)
    return body


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
