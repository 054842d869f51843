"""Where each key and value of a TOML text stands, for problems that point at them.

It reads only what `tomli` has accepted, so it checks nothing: it walks the same grammar and keeps positions.
"""

import re
from bisect import bisect_right
from functools import cached_property

import tomli
from msgspec import Struct

from routeproxy.policy.problems import KeyPath

MOST_LEVELS = 50
"""How many tables and arrays may stand in each other. Rules are asked, compiled and compared by recursion,
and a condition of a condition of a condition is past what people can read."""

Span = tuple[int, int]
"""Offsets into the text: of the first character, and of the one behind the last."""


class Place(Struct, frozen=True):
    """Line and column as editors count them, from 1; `end_column` is the one behind the last character."""

    line: int
    column: int
    end_column: int


class SourceMap:
    """The positions of one text. A path that is not there is answered with its nearest parent that is."""

    def __init__(self, text: str) -> None:
        # tomli reads line ends this way too, and an editor shows both alike.
        self.text = text.replace("\r\n", "\n")
        self.keys: dict[KeyPath, Span] = {}
        self.values: dict[KeyPath, Span] = {}

    @classmethod
    def of(cls, text: str) -> "SourceMap":
        """The positions of all keys and values of a TOML text."""
        source_map = cls(text)
        _Walker(source_map).walk()
        return source_map

    def key(self, path: KeyPath) -> Place:
        return self._nearest(path, self.keys)

    def value(self, path: KeyPath) -> Place:
        return self._nearest(path, self.values)

    @property
    def deepest(self) -> KeyPath:
        """The path that has the most parts."""
        return max(self.values, key=len, default=())

    def line(self, number: int) -> str:
        start = self._starts[number - 1]
        return self.text[start : self._end(start)]

    def at(self, start: int, end: int | None = None) -> Place:
        """The place of a span; one that runs over several lines ends with its first."""
        line = bisect_right(self._starts, start)
        column = start - self._starts[line - 1]
        width = min(start + 1 if end is None else end, self._end(start)) - start
        return Place(line, column + 1, column + 1 + max(width, 1))

    def _end(self, start: int) -> int:
        # Each rule asks for its line: no copy of the text behind it may be made.
        end = self.text.find("\n", start)
        return len(self.text) if end < 0 else end

    def _nearest(self, path: KeyPath, spans: dict[KeyPath, Span]) -> Place:
        span = spans.get(path)
        while not span and path:
            span = self.keys.get(path) or self.values.get(path)
            path = path[:-1]
        return self.at(*span) if span else Place(1, 1, 2)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(newline.end() for newline in re.finditer("\n", self.text))]


# Most of the time goes into the number of matches, so what may follow a token is read with it.
_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*('[^'\n]*'|"(?:[^"\\\n]|\\.)*"|[^\s.='"\[\]{},#]+)[ \t]*(\.|=[ \t]*|\])""")
_SCALAR = re.compile(
    r'''("""(?:[^"\\]|\\.|"{1,2}(?!"))*+""""{0,2}'''
    r"""|'''(?:[^']|'{1,2}(?!'))*+''''{0,2}"""
    r"""|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*'"""
    r"|\d{4}-\d\d-\d\d[ ]\d\d:[^\s,\]}#]+"  # a date and a time with a space between them
    rf"|[^\s,\]}}#]+){_BLANK.pattern}",
    re.DOTALL,
)
# Nearly every line of a long file is one of these two: each is read by one match.
_REST_OF_LINE = rf"[ \t]*(?:#[^\n]*)?(?:\n|\Z){_BLANK.pattern}"
_PLAIN_ARRAY = re.compile(rf"\[\[([A-Za-z0-9_-]+)\]\]{_REST_OF_LINE}")
_PLAIN_PAIR = re.compile(
    r"([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){0,5})[ \t]*=[ \t]*"
    rf"""("[^"\\\n]*"(?!")|'[^'\n]*'(?!')|[^\s\[\]{{}}"',#]+){_REST_OF_LINE}"""
)


class _Walker:
    """Its methods read something from a position on, and return the position behind it and behind what is
    blank."""

    def __init__(self, source_map: SourceMap) -> None:
        self.text = source_map.text
        self.keys = source_map.keys
        self.values = source_map.values
        self.last_item: dict[KeyPath, int] = {}
        """For each array of tables, the index of the table that `[array.…]` means now."""

    def walk(self) -> None:
        table: KeyPath = ()
        position = self._skip_blank(0)
        while position < len(self.text):
            if array := _PLAIN_ARRAY.match(self.text, position):
                table, position = self._add_item(array), array.end()
            elif self.text[position] == "[":
                table, position = self._read_header(position)
            elif pair := _PLAIN_PAIR.match(self.text, position):
                self._add_pair(table, pair)
                position = pair.end()
            else:
                position = self._read_pair(table, position)

    def _add_item(self, header: re.Match[str]) -> KeyPath:
        """Adds the table that a plain header begins. Returns its path."""
        path = (header[1],)
        start, end = header.start(1), header.end(1)
        index = self.last_item[path] = self.last_item.get(path, -1) + 1
        item = (header[1], index)
        self.keys.setdefault(path, (start, end))
        self.values.setdefault(path, (start - 2, end + 2))
        self.keys[item] = self.values[item] = (start - 2, end + 2)
        return item

    def _add_pair(self, table: KeyPath, pair: re.Match[str]) -> None:
        """Adds a key, with or without dots, and its value."""
        path, start = table, pair.start(1)
        for name in pair[1].split("."):
            path, span = (*path, name), (start, start + len(name))
            self.keys.setdefault(path, span)
            self.values.setdefault(path, span)
            start += len(name) + 1
        self.values[path] = pair.span(2)

    def _read_header(self, start: int) -> tuple[KeyPath, int]:
        brackets = 2 if self.text.startswith("[[", start) else 1
        parts, position = self._read_key(start + brackets)
        end = position + brackets - 1
        path: KeyPath = ()
        for name, span in parts:
            path = (*path, name)
            self.keys.setdefault(path, span)
            if brackets == 2 and span is parts[-1][1]:
                self.values.setdefault(path, (start, end))
                self.last_item[path] = self.last_item.get(path, -1) + 1
            if path in self.last_item:
                path = (*path, self.last_item[path])
                self.keys.setdefault(path, (start, end))
        # A table that was mentioned before (`[a.b]` above `[a]`) belongs to its own header.
        self.keys[path] = self.keys[path] if brackets == 2 else parts[-1][1]
        self.values[path] = (start, end)
        return path, self._skip_blank(end)

    def _read_pair(self, table: KeyPath, start: int) -> int:
        path = table
        parts, position = self._read_key(start)
        for name, span in parts:
            path = (*path, name)
            self.keys.setdefault(path, span)
            self.values.setdefault(path, span)
        return self._read_value(path, position)

    def _read_key(self, position: int) -> tuple[list[tuple[str, Span]], int]:
        """A dotted key and the `=` or `]` behind it."""
        parts = []
        while match := _KEY.match(self.text, position):
            parts.append((_unquoted(match[1]), match.span(1)))
            position = match.end()
            if match[2] != ".":
                break
        # A path of 10,000 parts has 10,000 parents, and its text is refused anyway.
        return parts[: MOST_LEVELS + 1], position

    def _read_value(self, path: KeyPath, start: int) -> int:
        opening = self.text[start]
        if opening not in "[{":
            match = _SCALAR.match(self.text, start)
            assert match is not None
            self.values[path] = match.span(1)
            return match.end()
        index = 0
        position = self._skip_blank(start + 1)
        while self.text[position] not in "]}":
            if opening == "{":
                position = self._read_pair(path, position)
            else:
                position = self._read_value((*path, index), position)
                index += 1
            if self.text[position] == ",":
                position = self._skip_blank(position + 1)
        self.values[path] = (start, position + 1)
        return self._skip_blank(position + 1)

    def _skip_blank(self, position: int) -> int:
        match = _BLANK.match(self.text, position)
        return match.end() if match else position


def _unquoted(key: str) -> str:
    if key[0] == '"':
        return next(iter(tomli.loads(f"{key} = 0"))) if "\\" in key else key[1:-1]
    return key.strip("'") if key[0] == "'" else key
