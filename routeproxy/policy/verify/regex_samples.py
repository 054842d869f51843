"""Texts that a regular expression probably matches, made by walking the expression in the syntax of RE2.

They are guesses: whoever takes one has the engine match it. What can't be said by walking from left to right
(`\\b` in the middle of a word, `^` behind something) is passed over, and the engine then says no.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

from msgspec import Struct

from routeproxy.policy.patterns import regex

MOST_SAMPLES = 6
"""Of one expression: each takes the next of its alternatives, and of the characters that a class allows."""

LONGEST = 2_000
"""No more characters than this are made: `a{1000}` may stand in another repetition."""

DEEPEST = 40
"""So many groups may stand in each other."""

_USUAL = "abcdefghijklmnopqrstuvwxyz0123456789-_./:@+ ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The characters that are tried first for a class: those of models' names."""

_UNUSUAL = "".join(map(chr, range(0x21, 0x7F))) + "\t\n\u00e9\u03a9\u0436\u4e2d\u0000"
"""The characters that are tried last, some of them twice."""

_TOKEN = re.compile(
    r"\\Q(?P<quoted>.*?)(?:\\E|\Z)"
    r"|\\x\{(?P<hex>[0-9A-Fa-f]+)\}|\\x(?P<byte>[0-9A-Fa-f]{2})|\\(?P<octal>[0-7]{2,3}|0)"
    r"|\\[pP](?:\{[^}]*\}|.)|\\(?P<escaped>.)"
    r"|(?P<group>\((?:\?(?:P?<[^>]*>|(?P<flags>[imsU-]*)[:)]))?)"
    r"|(?P<repeat>[*+?]|\{(?P<least>\d+)(?:,\d*)?\})[?]?"
    r"|(?P<class>\[\^?\]?(?:\[:\^?\w+:\]|\\p\{[^}]*\}|\\[^\n]|[^\]\\])*\])"
    r"|(?P<plain>[\w/ -]+(?![*+?{])|.)",
    re.DOTALL,
)

_ESCAPES = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_PLACES = frozenset("AzbB")
"""Escapes that stand for a place in the text, and for no character."""


class _Choice(Struct, frozen=True):
    """One of several characters, those that are tried first at the beginning."""

    characters: str


class _Alternatives(Struct, frozen=True):
    branches: "tuple[_Node, ...]"


class _Repeated(Struct, frozen=True):
    node: "_Node"
    least: int


_Node = str | _Choice | _Alternatives | _Repeated | tuple["_Node", ...]
"""A text as it stands, or what makes one. A tuple is one after the other."""


def samples(pattern: str) -> Iterator[str]:
    """Texts that the regex `pattern` may match, no two alike; none if it is nested too deep."""
    try:
        node = _Parser(pattern).parse()
    except _TooDeep:
        return
    seen = set()
    for number in range(MOST_SAMPLES):
        text = "".join(islice(_characters(node, number), LONGEST))
        if text not in seen:
            seen.add(text)
            yield text


def _characters(node: _Node, number: int) -> Iterator[str]:
    """The characters of the sample of this `number`."""
    match node:
        case str():
            yield from node
        case _Choice(characters=characters):
            yield characters[number % len(characters)]
        case _Alternatives(branches=branches):
            yield from _characters(branches[number % len(branches)], number)
        case _Repeated(node=inner, least=least):
            # Every second sample has something where nothing would do.
            for _ in range(max(least, number % 2)):
                yield from _characters(inner, number)
        case tuple():
            for part in node:
                yield from _characters(part, number)


class _TooDeep(Exception):
    pass


class _Parser:
    """Reads one expression, which the engine has accepted."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.position = 0
        self.folds = False
        """Whether capitals make no difference here."""

    def parse(self, depth: int = 0) -> _Node:
        """What stands up to the end of the group, or of the expression."""
        if depth > DEEPEST:
            raise _TooDeep
        folds = self.folds
        branches: list[list[_Node]] = [[]]
        while self.position < len(self.pattern):
            match = _TOKEN.match(self.pattern, self.position)
            assert match is not None  # any character is a token
            self.position = match.end()
            if match["plain"]:
                if match["plain"] == ")" and depth:
                    break
                if match["plain"] == "|":
                    branches.append([])
                else:
                    branches[-1].append(self._read_plain(match["plain"]))
            elif match["repeat"] and branches[-1]:
                branches[-1][-1] = _Repeated(branches[-1][-1], _least(match))
            elif match["group"]:
                branches[-1].append(self._parse_group(match, depth))
            else:
                branches[-1].append(self._read(match))
        self.folds = folds
        return tuple(branches[0]) if len(branches) == 1 else _Alternatives(tuple(map(tuple, branches)))

    def _parse_group(self, match: re.Match[str], depth: int) -> _Node:
        folds = self.folds
        if match["flags"] is not None:
            on, _, off = match["flags"].partition("-")
            self.folds = "i" in on or (self.folds and "i" not in off)
            if match["group"].endswith(")"):
                return ""  # it holds for what follows in the group around it
        node = self.parse(depth + 1)
        self.folds = folds
        return node

    def _read(self, match: re.Match[str]) -> _Node:
        text = match[0]
        if match["quoted"] is not None:
            return self._folded(match["quoted"])
        if digits := match["hex"] or match["byte"]:
            return self._folded(chr(min(int(digits, 16), 0x10FFFF)))
        if match["octal"]:
            return chr(int(match["octal"], 8))
        if escaped := match["escaped"]:
            return self._read_class(text) if escaped in "dDsSwW" else self._escaped(escaped)
        return self._read_class(text)

    def _read_plain(self, text: str) -> _Node:
        if text == ".":
            return self._read_class(text)
        return "" if text in "^$" else self._folded(text)

    def _read_class(self, written: str) -> _Node:
        characters = _characters_of(f"(?i){written}" if self.folds else written)
        return _Choice(characters) if characters else ""

    def _escaped(self, character: str) -> str:
        if character in _PLACES:
            return ""
        return _ESCAPES.get(character) or self._folded(character)

    def _folded(self, text: str) -> str:
        return text.lower() if self.folds else text


@lru_cache(maxsize=1_000)
def _characters_of(written: str) -> str:
    """Those characters that a class allows, as the engine understands it, the usual ones first."""
    try:
        search = regex(rf"(?s)\A(?:{written})\z")
    except ValueError:
        return ""  # it was not one class after all
    return "".join(character for character in _USUAL + _UNUSUAL if search(character.encode()))


def _least(match: re.Match[str]) -> int:
    """How often what stands before it comes at least."""
    return int(match["least"]) if match["least"] else int(match["repeat"][0] == "+")
