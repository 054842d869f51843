"""The body of a request, scanned once for all who read it: rules need a few of its fields, a pass-through
needs their places, a translation their content.

Three fields are long. The tools come back with every turn as they were, so they are taken from a cache; the
other two are decoded from their own span, when they are wanted.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property

from msgspec import Raw
from msgspec.json import Decoder
from msgspec.structs import replace

from routeproxy.messages.decoding import UNREADABLE, explain_undecodable
from routeproxy.messages.edits import Edit, apply_edits, find_members, scan_object
from routeproxy.messages.request import (
    NULL,
    Envelope,
    MessagesRequest,
    System,
    Turns,
    decode_envelope,
    decode_request,
)
from routeproxy.messages.tools import CACHE, LazyTools

_LONG_FIELDS = {"messages": b"[]", "system": b"null", "tools": b"null"}
"""What stands for each of them in the outline."""

_envelope: Decoder[Envelope] = Decoder(Envelope)
_request: Decoder[MessagesRequest] = Decoder(MessagesRequest)
_turns: Decoder[Turns] = Decoder(Turns)
_system: Decoder[System | None] = Decoder(System | None)


_READ_BY_RULES = frozenset({"thinking", "output_config", "metadata"})
"""The objects of which rules look at a member."""


def _check_keys(text: bytes) -> None:
    """Raises `InvalidRequest` for an object that has a key twice: its readers may see different requests."""
    with suppress(*UNREADABLE):  # it is no object, which its type will say
        find_members(text)


class Body:
    """Raises `InvalidRequest` for a text that is no JSON object, and for one that has a key twice."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        try:
            self._values, self.members = scan_object(text)
        except UNREADABLE:
            decode_envelope(text)  # says where the mistake is, unless it is in a name that we skip
            raise explain_undecodable(text, dict[str, Raw]) from None
        members = self.members
        self._outline = apply_edits(
            text,
            [Edit(*members[name].value, short) for name, short in _LONG_FIELDS.items() if name in members],
        )

    @property
    def fields(self) -> Mapping[str, Raw]:
        """The value of each top-level field, as it stands."""
        return self._values

    def envelope(self) -> Envelope:
        """The fields that rules may look at. Raises `InvalidRequest` with the path of what is wrong."""
        values = self._values
        for name in _READ_BY_RULES & values.keys():
            _check_keys(bytes(values[name]))
        try:
            return replace(
                _envelope.decode(self._outline),
                messages=values.get("messages", NULL),
                system=values.get("system", NULL),
                tools=self._tools.heads if "tools" in values else None,
            )
        except UNREADABLE:
            return decode_envelope(self.text)  # mends half emojis, or says where the mistake is

    def request(self) -> MessagesRequest:
        """The whole request. Raises `InvalidRequest`, for an unknown block type with its position."""
        values = self._values
        try:
            return replace(
                _request.decode(self._outline),
                messages=_turns.decode(values.get("messages", NULL)),
                system=_system.decode(values.get("system", NULL)),
                tools=self._tools.whole if "tools" in values else None,
            )
        except UNREADABLE:
            return decode_request(self.text)

    @property
    def field_names(self) -> tuple[str, ...]:
        """Those of the fields that hold something, in the client's order."""
        return tuple(name for name, value in self._values.items() if value != NULL)

    @cached_property
    def _tools(self) -> LazyTools:
        return CACHE.read(self._values["tools"])
