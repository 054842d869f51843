"""What the back end says: the bytes of its answers, as chat completions and as Messages.

An answer has the same text on both wires, so a client can tell whether a hop lost or changed something.
"""

import json
from typing import Any, NamedTuple, Protocol

WORD = b"w0rd"
"""Begins each piece of text, and stands nowhere else in an answer."""
STAMP = b"at:%d;"
"""A piece of text that tells when it was written, in nanoseconds of the machine's monotonic clock."""


class Script(NamedTuple):
    """How the back end answers, until it is told another."""

    events: int = 0
    """Pieces of text; none means an answer that is not streamed."""
    gap: float = 0.0
    """Seconds between two of them; none means that the whole stream is written at once."""
    delay: float = 0.0
    """Seconds until the first byte."""
    stamped: bool = False
    """Whether each piece tells when it was written."""

    @property
    def streamed(self) -> bool:
        return self.events > 0

    @property
    def text(self) -> str:
        return "".join(map(piece, range(max(self.events, 1))))


def piece(number: int) -> str:
    return f"{WORD.decode()} {number} "


class Frames(Protocol):
    """One wire's answers as HTTP."""

    whole: bytes
    opening: bytes
    closing: bytes

    def event(self, text: bytes) -> bytes:
        """A piece of text as one HTTP chunk. The text needs no escapes."""


class Chat:
    """What answers `/v1/chat/completions`."""

    def __init__(self) -> None:
        usage = {"prompt_tokens": 100, "completion_tokens": 100, "total_tokens": 200}
        message = {"role": "assistant", "content": piece(0), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        self.whole = _whole(
            {**_CHAT, "object": "chat.completion", "choices": [choice], "usage": usage},
        )
        self.opening = _HEAD + _chunk(_data(self._said({"role": "assistant", "content": ""})))
        done = {**_CHAT, "object": "chat.completion.chunk", "choices": [], "usage": usage}
        closing = [_data(self._said({}, "stop")), _data(done), b"data: [DONE]\n\n"]
        self.closing = b"".join(map(_chunk, closing)) + _LAST
        self._event = _data(self._said({"content": "TEXT"})).split(b"TEXT")

    def event(self, text: bytes) -> bytes:
        return _chunk(text.join(self._event))

    @staticmethod
    def _said(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**_CHAT, "object": "chat.completion.chunk", "choices": [choice]}


class Messages:
    """What answers `/v1/messages`."""

    def __init__(self) -> None:
        said = {"type": "text", "text": piece(0)}
        usage = {"input_tokens": 100, "output_tokens": 100}
        self.whole = _whole(
            {**_MESSAGE, "content": [said], "stop_reason": "end_turn", "usage": usage},
        )
        opening = [
            _named("message_start", message={**_MESSAGE, "usage": {**usage, "output_tokens": 1}}),
            _named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        ]
        self.opening = _HEAD + b"".join(map(_chunk, opening))
        ended = {"stop_reason": "end_turn", "stop_sequence": None}
        closing = [
            _named("content_block_stop", index=0),
            _named("message_delta", delta=ended, usage=usage),
            _named("message_stop"),
        ]
        self.closing = b"".join(map(_chunk, closing)) + _LAST
        delta = {"type": "text_delta", "text": "TEXT"}
        self._event = _named("content_block_delta", index=0, delta=delta).split(b"TEXT")

    def event(self, text: bytes) -> bytes:
        return _chunk(text.join(self._event))


_CHAT = {"id": "chatcmpl-0123456789abcdef", "created": 1_700_000_000, "model": "served"}
_MESSAGE: dict[str, Any] = {
    "id": "msg_0123456789abcdef",
    "type": "message",
    "role": "assistant",
    "model": "served",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
}
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LAST = b"0\r\n\r\n"


def _data(value: object) -> bytes:
    return b"data: %b\n\n" % _json(value)


def _named(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _json({"type": kind, **fields}))


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def _whole(value: object) -> bytes:
    body = _json(value)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
