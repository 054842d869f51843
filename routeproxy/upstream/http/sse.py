"""Server-sent events out of bytes, wherever a read cuts them: comments, carriage returns, `data:` without a
space and data on several lines included."""

import re
from collections.abc import Callable

_LINE_ENDS = re.compile(rb"\r\n|\r")


class TooLong(ValueError):
    """An event without an end."""


class Events:
    """`feed` it what was read; it gives the data of the events that are complete by now."""

    def __init__(
        self, together: Callable[[list[bytes]], list[bytes]] | None = None, longest: int = 2**24
    ) -> None:
        """`together` may make one of several that came together. `longest`: bytes of an event, which must not
        fill the memory that all requests share."""
        self._together = together
        self._rest = b""
        self._longest = longest

    def feed(self, data: bytes) -> list[bytes]:
        if self._rest:
            data = self._rest + data
        held = b""
        if data.find(b"\r") >= 0:
            # The last one may be half of a line end, the other half of which is still on its way.
            held = b"\r" if data.endswith(b"\r") else b""
            data = _LINE_ENDS.sub(b"\n", data[: len(data) - len(held)])
        *whole, rest = data.split(b"\n\n")
        self._rest = rest + held
        if len(self._rest) > self._longest:
            raise TooLong
        if self._together is not None and len(whole) > 1:
            whole = self._together(whole)
        return [payload for event in whole if (payload := data_of(event))]

    def end(self) -> list[bytes]:
        """What is left when there are no more bytes: some leave out the last line break."""
        rest, self._rest = self._rest.strip(), b""
        payload = data_of(_LINE_ENDS.sub(b"\n", rest))
        return [payload] if payload else []


def data_of(event: bytes) -> bytes:
    """What one event says; nothing, if it is a comment."""
    # Nearly all events of chat completions are one line of data. (To Python `in` is first a question about a
    # number, and the answer an error that costs more than the search.)
    if event.find(b"\n") < 0 and event.startswith(b"data: "):
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines)


class Lines:
    """The same for JSON lines, as Ollama streams."""

    def __init__(self, longest: int = 2**24) -> None:
        self._rest = b""
        self._longest = longest

    def feed(self, data: bytes) -> list[bytes]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self._longest:
            raise TooLong
        return [line for line in whole if line.strip()]

    def end(self) -> list[bytes]:
        rest, self._rest = self._rest.strip(), b""
        return [rest] if rest else []
