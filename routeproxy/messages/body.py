"""A request's body, scanned once for all who read it: rules want a few of its fields, a pass-through where
they stand, a translation their content.

Three fields are long. The tools come back with every turn as they were, so what has been read of them is
remembered; the rest is read out of its own span, when it is wanted.
"""

from collections import OrderedDict
from functools import cached_property
from typing import Any

from msgspec import Raw
from msgspec.json import Decoder
from msgspec.structs import replace

from routeproxy.messages.decoding import UNREADABLE, explain_undecodable
from routeproxy.messages.edits import Edit, apply, scan
from routeproxy.messages.request import (
    NULL,
    Envelope,
    MessagesRequest,
    System,
    Tool,
    ToolHead,
    Turns,
    decode_envelope,
    decode_request,
)

REMEMBERED = 32
"""Lists of tools."""
LONGEST_REMEMBERED = 2**18
"""Bytes of one."""

_LONG = {"messages": b"[]", "system": b"null", "tools": b"null"}
"""What stands in the outline for each."""

_envelope: Decoder[Envelope] = Decoder(Envelope)
_request: Decoder[MessagesRequest] = Decoder(MessagesRequest)
_turns: Decoder[Turns] = Decoder(Turns)
_system: Decoder[System | None] = Decoder(System | None)
_heads: Decoder[tuple[ToolHead, ...] | None] = Decoder(tuple[ToolHead, ...] | None)
_tools: Decoder[tuple[Tool, ...] | None] = Decoder(tuple[Tool, ...] | None)


class Body:
    """Raises `InvalidRequest` for what is no object, and for one that has a key twice."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        try:
            self._values, self.members = scan(text)
        except UNREADABLE:
            decode_envelope(text)  # says where the mistake is, unless it is in a name that we skip
            raise explain_undecodable(text, dict[str, Raw]) from None
        present = self.members
        self._outline = apply(
            text, [Edit(*present[name].value, short) for name, short in _LONG.items() if name in present]
        )

    def envelope(self) -> Envelope:
        """Raises `InvalidRequest` with the path of what is wrong."""
        values = self._values
        try:
            return replace(
                _envelope.decode(self._outline),
                messages=values.get("messages", NULL),
                system=values.get("system", NULL),
                tools=self._tools.heads if "tools" in values else None,
            )
        except (*UNREADABLE, RecursionError):
            return decode_envelope(self.text)  # without half emojis; or it says where the mistake is

    def request(self) -> MessagesRequest:
        """Raises `InvalidRequest`, for an unknown block type with its position."""
        values = self._values
        try:
            return replace(
                _request.decode(self._outline),
                messages=_turns.decode(values.get("messages", NULL)),
                system=_system.decode(values.get("system", NULL)),
                tools=self._tools.whole if "tools" in values else None,
            )
        except (*UNREADABLE, RecursionError):
            return decode_request(self.text)

    @cached_property
    def _tools(self) -> "Tools":
        return _read(self._values["tools"])


class SameTools(tuple[Tool, ...]):
    """Tools that come back, the very same object with every turn, and what has been made of them."""

    @cached_property
    def translated(self) -> dict[Any, Any]:
        return {}


class Tools:
    """A list of tools. Raises `DecodeError` for what is none."""

    def __init__(self, text: Raw) -> None:
        self.text = text

    @cached_property
    def heads(self) -> tuple[ToolHead, ...] | None:
        return _heads.decode(self.text)

    @cached_property
    def whole(self) -> tuple[Tool, ...] | None:
        tools = _tools.decode(self.text)
        return None if tools is None else SameTools(tools)


_remembered: OrderedDict[tuple[int, bytes], Tools] = OrderedDict()
"""By length and end, since hashing 80 kB takes as long as reading them. The last that was used is last."""


def _read(text: Raw) -> Tools:
    view = memoryview(text)
    if len(view) > LONGEST_REMEMBERED:
        return Tools(text)
    key = len(view), bytes(view[-32:])
    # A thread may be here, too: each step leaves what another finds in order.
    known = _remembered.pop(key, None)
    if known is None or known.text != text:
        known = Tools(text.copy())
    _remembered[key] = known
    if len(_remembered) > REMEMBERED:
        _remembered.popitem(last=False)
    return known
