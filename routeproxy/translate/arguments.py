"""A tool call's arguments, as they arrive: what of them may be shown already, and what they are in the end.

They should come as pieces of one JSON object's text. They also come as an object, as JSON in a JSON string,
each time from the start (snapshots), once more at the end, with a brace too many or too few, and after a `{}`
that means nothing (wire.md §2.5, 8). What is shown cannot be taken back: a piece is shown at once only if no
later one can change its meaning.
"""

import json
import re
from typing import Any

import msgspec
from msgspec import Raw

_OPENING = re.compile(r'\s*\{\s*"')
_NOTHING = ("", "null", '""', "[]", "{}")
_DEEPEST = 100
"""Decoders give up on deeper nesting, some of them with a crash."""


class Arguments:
    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._begins = ""
        """The first character that is not white space."""
        self._snapshot: str | None = None
        """The last piece, while each has begun with the one before: snapshots, or an unlucky split."""
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
        """Whether they could end here. No arguments at all could, too, but more of them may well come."""
        if self._reader.ended or self._object is not None:
            return True
        # Reading it all is left for the odd shapes.
        return not self.empty and not self._is_plain() and self._whole() is not None

    def is_followed_by(self, value: Any) -> bool:
        """Whether `value` can only be the arguments of the next call."""
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
        self._begins = self._begins or piece.lstrip()[:1]
        self._pieces.append(piece)
        self._unread.append(piece)
        if self._is_plain():
            self._ready += self._reader.read("".join(self._unread))
            self._unread.clear()

    def take(self) -> str:
        """What has become fit to be shown."""
        if not self._is_plain() or not (self._shown or _OPENING.match(self._ready)):
            return ""
        ready, self._ready = self._ready, ""
        self._shown.append(ready)
        return ready

    def settle(self) -> str | None:
        """What is left to show at the end; `None` if that makes no object, nor can be repaired."""
        whole = self._whole() or self._repaired()
        shown = "".join(self._shown)
        if whole is None or not whole.startswith(shown):
            return None
        return whole[len(shown) :] if whole.strip() not in _NOTHING else ""

    def _is_plain(self) -> bool:
        """Pieces of an object's text, as they should be."""
        may_be_snapshots = self._snapshot is not None and len(self._pieces) > 1
        return self._begins == "{" and self._object is None and not may_be_snapshots

    def _text(self) -> str:
        return "".join(self._pieces)

    def _whole(self) -> str | None:
        if self._object is not None:
            return _object_in(_dumped(self._object))
        text, snapshot = self._text(), self._snapshot or ""
        if text.strip() in _NOTHING:
            return "{}"
        candidates = (text, snapshot, _unwrapped(text), _unwrapped(snapshot))
        return next((whole for candidate in candidates if (whole := _object_in(candidate)) is not None), None)

    def _repaired(self) -> str | None:
        """With the missing brackets, if what stands before them is finished. A number may have been cut."""
        reader = _ObjectReader()
        read = reader.read(self._text())
        if self._begins != "{" or reader.ended or read.rstrip()[-1:].isdigit():
            return None
        return _object_in(read + "".join(reversed(reader.open)))


class _ObjectReader:
    """Follows an object's text to its end; escapes what JSON strings may not hold and models put there."""

    _MARKS = re.compile(r'["\\{}\[\]\x00-\x1f\ud800-\udfff]')

    def __init__(self) -> None:
        self.open: list[str] = []
        """The brackets that would close what is open, innermost last."""
        self.deepest = 0
        self.ended = False
        self.rest = ""
        """What came after the end."""
        self._in_string = False
        self._escaping = False

    def read(self, text: str) -> str:
        if self.ended:
            self.rest += text
            return ""
        escaped: list[str] = []
        copied, skip = 0, int(self._escaping)
        for mark in self._MARKS.finditer(text):
            at, char = mark.start(), mark[0]
            if at < skip:
                continue
            if char == '"':
                self._in_string = not self._in_string
            elif self._in_string:
                if char == "\\":
                    skip = at + 2
                elif char not in "{}[]":
                    escaped += text[copied:at], f"\\u{ord(char):04x}"
                    copied = at + 1
            elif char in "{[":
                self.open.append("}" if char == "{" else "]")
                self.deepest = max(self.deepest, len(self.open))
            elif char in "}]" and self.open:
                self.open.pop()
                if not self.open:
                    self.ended, self.rest, text = True, text[at + 1 :], text[: at + 1]
                    break
        self._escaping = skip > len(text)
        return "".join([*escaped, text[copied:]])


_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode


def _object_in(text: str) -> str | None:
    """`text`, if it is an object, or one with closing brackets too many, or one that is said twice."""
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
    return read if reader.ended and reader.deepest <= _DEEPEST and _is_object(read) else None


def _is_object(text: str) -> bool:
    try:
        _decode_object(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def _unwrapped(text: str) -> str:
    """What is in `text`, if it is a JSON string."""
    if not text.lstrip().startswith('"'):
        return ""
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return ""


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return _dumped(value) if value else ""


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return "?"
