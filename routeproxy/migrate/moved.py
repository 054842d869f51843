"""The result of a migration: the rules file, and the settings that it could not take over."""

from collections.abc import Iterable

from msgspec import Struct


class Leftover(Struct, frozen=True):
    """A setting that the rules file does not have, or that needs something done by hand."""

    line: int
    """In the source file."""
    key: str
    """As in `Router.think` or `Providers[2].api_key`."""
    reason: str
    """Why it was left, and what to do instead. It never has the value, which may be a key."""


class Moved(Struct, frozen=True):
    """A configuration as a rules file."""

    text: str
    """The rules file."""
    leftovers: tuple[Leftover, ...] = ()
    """In the order of the source file."""


def sort_leftovers(leftovers: Iterable[Leftover]) -> tuple[Leftover, ...]:
    return tuple(sorted(leftovers, key=lambda leftover: leftover.line))
