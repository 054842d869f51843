"""A tool call's arguments, as they arrive: what of them may be shown already, and what they are in the end.

They should come as pieces of one JSON object's text. They also come as an object, as JSON in a JSON string, each time from the start
(snapshots), once more at the end, with a brace too many or too few, and after a first `{}` that means nothing (wire.md §2.5, 8). What is
shown cannot be taken back, so a piece is shown at once only if no later one can change its meaning.
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
        self._text = ""
        self._object: dict[str, Any] | None = None
        self._reader = _ObjectReader()
        self._read = ""
        self._unread = ""
        self._shown = 0
        self._snapshot: str | None = ""
        """The last piece, as long as each began with the one before: they may be snapshots, or a deeply unlucky split."""

    @property
    def empty(self) -> bool:
        return not self._text and self._object is None

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
        return bool(piece.strip()) and (self._object is not None or not piece.startswith(self._text))

    def add(self, value: Any) -> None:
        if isinstance(value, dict):
            self._object = value
            return
        piece = _as_text(value)
        if not piece:
            return
        if self._text and self._snapshot is not None and piece.startswith(self._snapshot):
            # '{"a":' and then '{"a":1}' may be snapshots, or the beginning of {"a":{"a":1}}: what follows will tell.
            self._snapshot = piece
        else:
            self._snapshot = None if self._text else piece
        self._text += piece
        self._unread += piece
        if self._is_plain():
            self._read += self._reader.read(self._unread)
            self._unread = ""

    def take(self) -> str:
        """What has become fit to be shown."""
        if not self._is_plain() or not _OPENING.match(self._read):
            return ""
        shown, self._shown = self._shown, len(self._read)
        return self._read[shown:]

    def settle(self) -> str | None:
        """What is left to show at the end of the call; `None` if that would not make an object, and no repair suggests itself."""
        whole = self._whole() or self._repaired()
        if whole is None or not whole.startswith(self._read[: self._shown]):
            return None
        return whole[self._shown :] if whole.strip() not in _NOTHING else ""

    def _is_plain(self) -> bool:
        """Pieces of an object's text, as they should be."""
        one_piece = self._snapshot is None or self._snapshot == self._text
        return one_piece and self._object is None and self._text.lstrip()[:1] == "{"

    def _whole(self) -> str | None:
        if self._object is not None:
            return json.dumps(self._object, separators=(",", ":"), default=str)
        text = self._text.strip()
        if text in _NOTHING:
            return "{}"
        candidates = [self._text, self._snapshot or "", *_unwrapped(text), *_unwrapped(self._snapshot or "")]
        return next((whole for candidate in candidates if (whole := _object_in(candidate)) is not None), None)

    def _repaired(self) -> str | None:
        """With the closing braces that are missing, if what stands before them is finished. A number may have been cut."""
        reader = _ObjectReader()
        read = reader.read(self._text)
        if not self._text.lstrip().startswith("{") or read.rstrip()[-1:].isdigit():
            return None
        return _object_in(read + "".join(reversed(reader.open)))


class _ObjectReader:
    """Follows the text of an object to its end. Escapes what may not stand in a JSON string as it is, though models put it there."""

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


def _unwrapped(text: str) -> tuple[str, ...]:
    """What is in `text`, if it is a JSON string."""
    if not text.startswith('"'):
        return ()
    try:
        return (str(json.loads(text, strict=False)),)
    except ValueError:
        return ()


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str) if value else ""
