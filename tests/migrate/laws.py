"""What holds for every move, whatever is moved."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import reduce
from operator import delitem, getitem
from pathlib import Path
from typing import Any

from routeproxy.migrate.moved import Moved
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy

FILES = Path(__file__).parent / "files"
Place = tuple[str | int, ...]


def policy_of(moved: Moved, **environ: str) -> Policy:
    """What `routeproxy check` makes of it. Raises what it would refuse."""
    return compile_rules(moved.text, path=Path("rules.toml"), environ=environ)


def reasons(moved: Moved) -> dict[str, str]:
    return {left.key: left.reason for left in moved.leftovers}


def lost(document: Any, move: Callable[[Any], Moved]) -> list[str]:
    """The leaves that are in no list, though the rules are the same without them and with others."""
    moved = move(document)
    listed = {left.key for left in moved.leftovers}
    return [
        key_of(place)
        for place in leaves(document)
        if not any(key_of(place[:length]) in listed for length in range(1, len(place) + 1))
        and all(move(variant).text == moved.text for variant in variants(document, place))
    ]


def leaves(value: Any, place: Place = ()) -> Iterator[Place]:
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    inner = [leaf for name, member in members for leaf in leaves(member, (*place, name))]
    yield from inner or [place]


def variants(document: Any, place: Place) -> Iterator[Any]:
    """Without the leaf, and with another in its place."""
    for alter in (delitem, _alter):
        copy = deepcopy(document)
        alter(reduce(getitem, place[:-1], copy), place[-1])
        yield copy


def _alter(holder: Any, name: str | int) -> None:
    value = holder[name]
    holder[name] = value + 1 if isinstance(value, int | float) else f"{value}x"


def key_of(place: Place) -> str:
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in place).lstrip(".")
