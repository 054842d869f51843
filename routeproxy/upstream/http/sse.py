"""Server-sent events and JSON lines out of bytes, wherever a read cuts them: comments, carriage returns,
`data:` without a space and data on several lines included. The bytes themselves are not kept: who relays them
as they came reads them elsewhere (`messages/relay.py`)."""

import re
from collections.abc import Callable

_LINE_ENDS = re.compile(rb"\r\n|\r")

_ERROR_NAMES = (b"event: error", b"event:error")
ERROR_NAME = b"event: error\n"
"""What stands before the data of an event of this name: whatever such data hold, they are an error. As they
are no JSON then, no reader overlooks it, and for other events it costs nothing."""

LONGEST_EVENT = 2**24
"""Bytes. A longer one must not fill the memory that all requests share."""


class EventTooLong(ValueError):
    """An event or a line without an end."""


class EventDecoder:
    """Server-sent events: what is read goes in, the data of the events that are complete by now comes out."""

    def __init__(self, coalesce: Callable[[list[bytes]], list[bytes]] | None = None) -> None:
        """`coalesce` may make one event of several that came in one read."""
        self._coalesce = coalesce
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Raises `EventTooLong`."""
        if self._rest:
            data = self._rest + data
        held = b""
        if data.find(b"\r") >= 0:
            # The last one may be half of a line end, the other half of which is still on its way.
            held = b"\r" if data.endswith(b"\r") else b""
            data = _LINE_ENDS.sub(b"\n", data[: len(data) - len(held)])
        *events, rest = data.split(b"\n\n")
        self._rest = rest + held
        if len(self._rest) > LONGEST_EVENT:
            raise EventTooLong
        if self._coalesce is not None and len(events) > 1:
            events = self._coalesce(events)
        return [payload for event in events if (payload := event_data(event))]

    def end(self) -> list[bytes]:
        """The data of the last event, where there are no more bytes: some leave out the last line break."""
        rest, self._rest = self._rest.strip(), b""
        payload = event_data(_LINE_ENDS.sub(b"\n", rest))
        return [payload] if payload else []


def event_data(event: bytes) -> bytes:
    """The data of one event, whose lines end in line feeds; empty if it is a comment. They are after
    `ERROR_NAME` if it has this name."""
    # Nearly all events of chat completions are one line of data. (To Python `in` is first a question about a
    # number, and the answer an error that costs more than the search.)
    if event.find(b"\n") < 0 and event.startswith(b"data: "):
        return event[6:]
    lines = event.split(b"\n")
    data = b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
    is_error = event.find(b"error") >= 0 and any(line in _ERROR_NAMES for line in lines)
    return ERROR_NAME + data if is_error else data


class LineDecoder:
    """The same for lines of JSON, as Ollama streams them."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Raises `EventTooLong`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_EVENT:
            raise EventTooLong
        return [line for line in lines if line.strip()]

    def end(self) -> list[bytes]:
        rest, self._rest = self._rest.strip(), b""
        return [rest] if rest else []
