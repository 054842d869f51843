"""Where each key and value of a TOML text stands, for problems that point at them.

It reads only what `tomli` has accepted, so it checks nothing: it walks the same grammar and keeps positions.
"""

import re
from bisect import bisect_right
from functools import cached_property
from typing import NamedTuple

import tomli
from msgspec import Struct

Path = tuple[str | int, ...]


class Span(NamedTuple):
    """Offsets into the text: `start` is inside, `end` is not."""

    start: int
    end: int


class Place(Struct, frozen=True):
    """Line and column as editors count them, from 1; `end_column` is the one behind the last character."""

    line: int
    column: int
    end_column: int


class Map:
    """The positions of one text. A path that is not there is answered with its nearest parent that is."""

    def __init__(self, text: str) -> None:
        # tomli reads line ends this way too, and an editor shows both alike.
        self.text = text.replace("\r\n", "\n")
        self.keys: dict[Path, Span] = {}
        self.values: dict[Path, Span] = {}

    @classmethod
    def of(cls, text: str) -> "Map":
        found = cls(text)
        _Walk(found).document()
        return found

    def key(self, path: Path) -> Place:
        return self._nearest(path, self.keys)

    def value(self, path: Path) -> Place:
        return self._nearest(path, self.values)

    def line(self, number: int) -> str:
        return self.text[self._starts[number - 1] :].partition("\n")[0]

    def at(self, start: int, end: int | None = None) -> Place:
        """The place of a span; one that runs over several lines ends with its first."""
        line = bisect_right(self._starts, start)
        column = start - self._starts[line - 1]
        width = min(start + 1 if end is None else end, self._starts[line - 1] + len(self.line(line))) - start
        return Place(line, column + 1, column + 1 + max(width, 1))

    def _nearest(self, path: Path, wanted: dict[Path, Span]) -> Place:
        found = wanted.get(path)
        while not found and path:
            found = self.keys.get(path) or self.values.get(path)
            path = path[:-1]
        return self.at(*found) if found else Place(1, 1, 2)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(newline.end() for newline in re.finditer("\n", self.text))]


_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"""'[^'\n]*'|"(?:[^"\\\n]|\\.)*"|[^\s.='"\[\]{},#]+""")
_SCALAR = re.compile(
    r'''"""(?:[^"\\]|\\.|"{1,2}(?!"))*+""""{0,2}'''
    r"""|'''(?:[^']|'{1,2}(?!'))*+''''{0,2}"""
    r"""|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*'"""
    r"|\d{4}-\d\d-\d\d[ ]\d\d:[^\s,\]}#]+"  # a date and a time with a space between them
    r"|[^\s,\]}#]+",
    re.DOTALL,
)


class _Walk:
    def __init__(self, found: Map) -> None:
        self.text = found.text
        self.keys = found.keys
        self.values = found.values
        self.position = 0
        self.last_item: dict[Path, int] = {}
        """For each array of tables, the index of the table that `[array.…]` means now."""

    def document(self) -> None:
        table: Path = ()
        while self._skip(_BLANK) < len(self.text):
            if self.text.startswith("[", self.position):
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        start = self.position
        brackets = 2 if self.text.startswith("[[", start) else 1
        self.position += brackets
        parts = self._key()
        self.position += brackets
        path: Path = ()
        for name, span in parts:
            path = (*path, name)
            self.keys.setdefault(path, span)
            if brackets == 2 and span is parts[-1][1]:
                self.values.setdefault(path, Span(start, self.position))
                self.last_item[path] = self.last_item.get(path, -1) + 1
            if path in self.last_item:
                path = (*path, self.last_item[path])
                self.keys.setdefault(path, Span(start, self.position))
        # A table that was mentioned before (`[a.b]` above `[a]`) belongs to its own header.
        self.keys[path] = self.keys[path] if brackets == 2 else parts[-1][1]
        self.values[path] = Span(start, self.position)
        return path

    def _pair(self, table: Path) -> None:
        path = table
        for name, span in self._key():
            path = (*path, name)
            self.keys.setdefault(path, span)
            self.values.setdefault(path, span)
        self.position += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> list[tuple[str, Span]]:
        """A dotted key, up to the `=` or `]` behind it."""
        parts = []
        while True:
            self._skip(_SPACE)
            start = self.position
            end = self._skip(_KEY)
            parts.append((_unquoted(self.text[start:end]), Span(start, end)))
            if not self.text.startswith(".", self._skip(_SPACE)):
                return parts
            self.position += 1

    def _value(self, path: Path) -> None:
        start = self.position
        opening = self.text[start]
        if opening in "[{":
            self.position += 1
            index = 0
            while self.text[self._skip(_BLANK)] not in "]}":
                if opening == "{":
                    self._pair(path)
                else:
                    self._value((*path, index))
                    index += 1
                if self.text[self._skip(_BLANK)] == ",":
                    self.position += 1
            self.position += 1
        else:
            self._skip(_SCALAR)
        self.values[path] = Span(start, self.position)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        if match := pattern.match(self.text, self.position):
            self.position = match.end()
        return self.position


def _unquoted(key: str) -> str:
    if key[0] == '"':
        return next(iter(tomli.loads(f"{key} = 0"))) if "\\" in key else key[1:-1]
    return key.strip("'") if key[0] == "'" else key
