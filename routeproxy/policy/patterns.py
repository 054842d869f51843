"""Globs and regular expressions: matched in linear time, and compared with each other without any text."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from re import escape, findall

import re2  # without stubs: nothing else imports it

Search = Callable[[bytes], object]
"""Says of a text in UTF-8 whether it matches: what it returns is true or false."""

WILD = "*?"
_PROBE = b"probe"

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.never_capture = True


def regex(pattern: str) -> Search:
    """The search for `pattern` anywhere in UTF-8 text. Raises `ValueError` with the engine's words."""
    try:
        search: Search = re2.compile(pattern, _OPTIONS).search
    except re2.error as error:
        reason = error.args[0] if error.args else error
        words = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(words) from None
    return search


@cache
def glob(pattern: str) -> Search:
    """The search whether `pattern` matches the whole of a UTF-8 text: `*` is any text, `?` one character,
    nothing else is special."""
    if "?" in pattern:
        return regex(as_regex(pattern))
    # Most globs are names, or begin or end with one, and some are tried on each of a client's tools.
    head, *others = (part.encode() for part in pattern.split("*"))
    if not others:
        return head.__eq__
    *inner, tail = others
    least = len(head) + len(tail)
    if not any(inner):
        return lambda text: len(text) >= least and text.startswith(head) and text.endswith(tail)
    return partial(_has_in_order, head, tuple(filter(None, inner)), tail)


def _has_in_order(head: bytes, inner: tuple[bytes, ...], tail: bytes, text: bytes) -> bool:
    """Whether `text` begins with `head`, ends with `tail` and has the inner parts between them. What stands
    first leaves the most for the others."""
    if not (text.startswith(head) and text.endswith(tail)):
        return False
    start, end = len(head), len(text) - len(tail)
    for part in inner:
        start = text.find(part, start, end)
        if start < 0:
            return False
        start += len(part)
    return start <= end


def as_regex(glob: str) -> str:
    """The regex that matches the same whole texts."""
    wild = escape(glob).replace(r"\*", ".*").replace(r"\?", ".")
    return rf"(?s)\A{wild}\z"


def search_of(regexes: Sequence[bytes]) -> Callable[[bytes], list[int]] | None:
    """The search for all `regexes` at once: it gives the numbers of those that are in a text, in little more
    time than one regex takes. `None`: they are too many.

    The engine looks for the literal letters that each regex can't match without, for those of all at once,
    and then tries only the regexes that have theirs: 1,000 globs take 2 to 20 µs. (One automaton of them all,
    `re2.Set`, takes 2 ms for each text that it has not seen yet.)
    """
    filters = re2.Filter()
    try:
        for pattern in (*regexes, _PROBE):
            filters.Add(pattern, _OPTIONS)
        filters.Compile()
    except re2.error:
        return None
    # Short of memory the engine finds nothing, and doesn't say so: a regex that has to be found tells.
    probe = len(regexes)
    if probe not in (filters.Match(_PROBE) or ()):
        return None

    def search(text: bytes) -> list[int]:
        return [number for number in filters.Match(text) or () if number != probe]

    return search


def matches(pattern: str, text: str) -> bool:
    """Whether the glob `pattern` matches the whole of `text`."""
    return bool(glob(pattern)(text.encode("utf-8", "replace")))


def is_glob(text: str) -> bool:
    return any(char in text for char in WILD)


def hint_for(pattern: str) -> str | None:
    """How to do without what RE2 refuses; `None` if the regex shows nothing of that."""
    if any(look in pattern for look in ("(?=", "(?!", "(?<=", "(?<!")):
        return "looking ahead or behind can't be had in linear time; add a `not` condition"
    if findall(r"\\[1-9]", pattern):
        return "a back-reference can't be had in linear time"
    return None


def overlap(one: str, other: str) -> bool:
    """Whether some text matches both globs."""
    # The places in `other` to which some text may have led that matches `one` as far as it was read.
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
    """Whether every text that matches the glob `narrow` matches `wide` too. `False` may also mean that this
    is not plain to see."""
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
    """`places`, and the places behind the stars at them: a star may be nothing."""
    reachable = set(places)
    for place in places:
        while place < len(pattern) and pattern[place] == "*":
            place += 1
            reachable.add(place)
    return reachable
