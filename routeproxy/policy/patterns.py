"""Globs and regular expressions: matched in linear time, and compared with each other without any text."""

from collections.abc import Callable, Sequence
from functools import cache
from re import escape, findall
from typing import Any

import re2  # without stubs: nothing else imports it

Search = Callable[[bytes], object]

WILD = "*?"
_PROBE = b"probe"


def regex(pattern: str) -> Search:
    """Finds `pattern` anywhere in UTF-8 text. Raises `ValueError` with the engine's words."""
    try:
        search: Search = re2.compile(pattern, _options()).search
    except re2.error as error:
        said = error.args[0] if error.args else error
        raise ValueError(said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)) from None
    return search


@cache
def glob(pattern: str) -> Search:
    """Whether `pattern` is the whole text: `*` is any text, `?` one character, nothing else is special."""
    if "?" in pattern or pattern.count("*") > 1:
        return regex(as_regex(pattern))
    # Most are names, or begin or end with one, and some are held against each of a client's tools.
    head, star, tail = (part.encode() for part in pattern.partition("*"))
    if not star:
        return head.__eq__
    least = len(head) + len(tail)
    return lambda text: len(text) >= least and text.startswith(head) and text.endswith(tail)


def as_regex(glob: str) -> str:
    wild = escape(glob).replace(r"\*", ".*").replace(r"\?", ".")
    return rf"(?s)\A{wild}\z"


def search_of(regexes: Sequence[bytes]) -> Callable[[bytes], list[int]] | None:
    """Finds which of `regexes` are in a text, in little more time than one takes. `None`: they are too many.

    The engine looks for the letters that they can't do without, for those of all at once, and then tries only
    the ones that have theirs: 1,000 globs take 2 to 20 µs. (One automaton of them all, `re2.Set`, takes 2 ms
    for each text that it has not seen yet.)
    """
    many = re2.Filter()
    options = _options()
    try:
        for pattern in (*regexes, _PROBE):
            many.Add(pattern, options)
        many.Compile()
    except re2.error:
        return None
    # Short of memory it finds nothing, and doesn't say so.
    probe = len(regexes)
    if probe not in (many.Match(_PROBE) or ()):
        return None

    def search(text: bytes) -> list[int]:
        return [number for number in many.Match(text) or () if number != probe]

    return search


def matches(pattern: str, text: str) -> bool:
    return bool(glob(pattern)(text.encode("utf-8", "replace")))


def is_glob(text: str) -> bool:
    return any(char in text for char in WILD)


def hint_for(pattern: str) -> str | None:
    """What a regex that was refused may have wanted."""
    if any(look in pattern for look in ("(?=", "(?!", "(?<=", "(?<!")):
        return "looking ahead or behind can't be had in linear time; add a `not` condition"
    if findall(r"\\[1-9]", pattern):
        return "a back-reference can't be had in linear time"
    return None


def overlap(one: str, other: str) -> bool:
    """Whether some text matches both globs."""
    # The places in `other` that some text may have led to, after as much of `one` as was read.
    places = _past_stars({0}, other)
    for char in one:
        if char == "*":
            places = set(range(min(places), len(other) + 1)) if places else places
        else:
            places = _past_stars(
                {
                    place if other[place] == "*" else place + 1
                    for place in places
                    if place < len(other) and (other[place] in WILD or char in ("?", other[place]))
                },
                other,
            )
    return len(other) in places


def covers(wide: str, narrow: str) -> bool:
    """Whether whatever matches the glob `narrow` matches `wide` too. A `False` may only mean that it is not
    plain to see."""
    if wide == narrow or wide == "*":
        return True
    if not is_glob(narrow):
        return matches(wide, narrow)
    beginning = wide.removesuffix("*")
    if beginning == wide or is_glob(beginning):
        return False
    fixed = narrow[: min(narrow.find(char) for char in WILD if char in narrow)]
    return fixed.startswith(beginning)


def _past_stars(places: set[int], pattern: str) -> set[int]:
    """`places`, and those behind the stars at them: a star may be nothing."""
    found = set(places)
    for place in places:
        while place < len(pattern) and pattern[place] == "*":
            place += 1
            found.add(place)
    return found


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    return options
