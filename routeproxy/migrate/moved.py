"""What comes of a move: the rules file, and all that it could not take along."""

from collections.abc import Iterable

from msgspec import Struct


class Leftover(Struct, frozen=True):
    """Something that the rules file does not say, or that is still to be done."""

    line: int
    """Of the source file."""
    key: str
    """As in `Router.think` or `Providers[2].api_key`."""
    why: str
    """Why it was left, and what to do instead. Never the value: it may be a key."""


class Moved(Struct, frozen=True):
    text: str
    """The rules file."""
    left: tuple[Leftover, ...] = ()
    """In the order of the source file."""


def in_order(left: Iterable[Leftover]) -> tuple[Leftover, ...]:
    return tuple(sorted(left, key=lambda leftover: leftover.line))
