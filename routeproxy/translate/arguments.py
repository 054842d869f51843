"""A tool call's arguments, as they arrive: what of them may be shown already, and what they are in the end.

They should come as pieces of one JSON object's text. They also come as an object, as JSON in a JSON string,
each time from the start (snapshots), once more at the end, with a brace too many or too few, and after a `{}`
that means nothing (wire.md §2.5, 8). What is shown cannot be taken back: a piece is shown at once only if no
later piece can change its meaning.
"""

import json
import re
from typing import Any

import msgspec
from msgspec import Raw

from routeproxy.messages.decoding import UNREADABLE

_OPENING = re.compile(r'\s*\{\s*"')
_EMPTY_FORMS = ("", "null", '""', "[]", "{}")
_MAX_DEPTH = 100
"""Decoders give up on deeper nesting, some of them with a crash."""


class Arguments:
    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._first_character = ""
        """Without the white space before it."""
        self._snapshot: str | None = None
        """The last piece, while each piece begins with the one before it: snapshots, or an unlucky split."""
        self._object: dict[str, Any] | None = None
        self._reader = _ObjectReader()
        self._unread: list[str] = []
        self._ready = ""
        self._shown: list[str] = []

    @property
    def empty(self) -> bool:
        return not self._pieces and self._object is None

    @property
    def complete(self) -> bool:
        """Whether the arguments could end here. A call without any could, too, but they may well come yet."""
        if self._reader.ended or self._object is not None:
            return True
        # Only for the odd shapes is the whole text read each time.
        return not self.empty and not self._is_plain() and self._whole_object() is not None

    def is_followed_by(self, value: Any) -> bool:
        """Whether `value`, after these arguments, can only belong to another call."""
        piece = _as_text(value)
        return bool(piece.strip()) and (self._object is not None or not piece.startswith(self._text()))

    def add(self, value: Any) -> None:
        if isinstance(value, dict):
            self._object = value
            return
        piece = _as_text(value)
        if not piece:
            return
        if not self._pieces or (self._snapshot is not None and piece.startswith(self._snapshot)):
            # '{"a":' and '{"a":1}' may be snapshots, or begin {"a":{"a":1}}: what follows will tell.
            self._snapshot = piece
        else:
            self._snapshot = None
        self._first_character = self._first_character or piece.lstrip()[:1]
        self._pieces.append(piece)
        self._unread.append(piece)
        if self._is_plain():
            self._ready += self._reader.read("".join(self._unread))
            self._unread.clear()

    def take_ready(self) -> str:
        """What may be shown since the last call of this."""
        if not self._is_plain() or not (self._shown or _OPENING.match(self._ready)):
            return ""
        ready, self._ready = self._ready, ""
        self._shown.append(ready)
        return ready

    def remainder(self, *, repaired: bool = True) -> str | None:
        """What is left to show at the end; `None` if the arguments are no object. `repaired`: brackets that
        are missing at the end of them may be added."""
        whole = self._whole_object() or (self._repaired_object() if repaired else None)
        shown = "".join(self._shown)
        if whole is None or not whole.startswith(shown):
            return None
        return whole[len(shown) :] if whole.strip() not in _EMPTY_FORMS else ""

    def _is_plain(self) -> bool:
        """Whether the pieces are those of an object's text, as they should be."""
        may_be_snapshots = self._snapshot is not None and len(self._pieces) > 1
        return self._first_character == "{" and self._object is None and not may_be_snapshots

    def _text(self) -> str:
        return "".join(self._pieces)

    def _whole_object(self) -> str | None:
        if self._object is not None:
            return _object_in(_encoded(self._object))
        text, snapshot = self._text(), self._snapshot or ""
        if text.strip() in _EMPTY_FORMS:
            return "{}"
        for candidate in (text, snapshot, _unwrapped(text), _unwrapped(snapshot)):
            if (whole := _object_in(candidate)) is not None:
                return whole
        return None

    def _repaired_object(self) -> str | None:
        """With the brackets that are missing, if the text before them is finished: a number may be cut."""
        reader = _ObjectReader()
        read = reader.read(self._text())
        if self._first_character != "{" or reader.ended or read.rstrip()[-1:].isdigit():
            return None
        return _object_in(read + "".join(reversed(reader.closing_brackets)))


class _ObjectReader:
    """Follows an object's text to its end, and escapes what models put into strings and JSON forbids."""

    _MARKS = re.compile(r'["\\{}\[\]\x00-\x1f\ud800-\udfff]')

    def __init__(self) -> None:
        self.closing_brackets: list[str] = []
        """Those of what is open, innermost last."""
        self.depth = 0
        """The deepest so far."""
        self.ended = False
        self.rest = ""
        """The text after the end."""
        self._in_string = False
        self._escaping = False

    def read(self, text: str) -> str:
        """The next part of the object's text, escaped."""
        if self.ended:
            self.rest += text
            return ""
        escaped: list[str] = []
        copied, skip = 0, int(self._escaping)
        for mark in self._MARKS.finditer(text):
            position, char = mark.start(), mark[0]
            if position < skip:
                continue
            if char == '"':
                self._in_string = not self._in_string
            elif self._in_string:
                if char == "\\":
                    skip = position + 2
                elif char not in "{}[]":
                    escaped += text[copied:position], f"\\u{ord(char):04x}"
                    copied = position + 1
            elif char in "{[":
                self.closing_brackets.append("}" if char == "{" else "]")
                self.depth = max(self.depth, len(self.closing_brackets))
            elif char in "}]" and self.closing_brackets:
                self.closing_brackets.pop()
                if not self.closing_brackets:
                    self.ended, self.rest, text = True, text[position + 1 :], text[: position + 1]
                    break
        self._escaping = skip > len(text)
        return "".join([*escaped, text[copied:]])


_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode


def _object_in(text: str) -> str | None:
    """The object in `text`, which may have closing brackets too many, or hold the object twice."""
    if not text.lstrip().startswith("{"):
        return None
    reader = _ObjectReader()
    read = reader.read(text)
    rest = reader.rest.strip()
    if rest.strip("}] \n"):
        if read.strip() == "{}":
            return _object_in(rest)
        if rest != read.strip():
            return None
    return read if reader.ended and reader.depth <= _MAX_DEPTH and _is_object(read) else None


def _is_object(text: str) -> bool:
    try:
        _decode_object(text)
    except (*UNREADABLE, UnicodeEncodeError):
        return False
    return True


def _unwrapped(text: str) -> str:
    """The value of the JSON string `text`; nothing, if it is none."""
    if not text.lstrip().startswith('"'):
        return ""
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return ""


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return _encoded(value) if value else ""


def _encoded(value: Any) -> str:
    try:
        return json.dumps(value, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return "?"
