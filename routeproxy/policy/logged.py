"""What the decision log keeps of a request, and the request that this makes once more."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from routeproxy.policy.decide import Policy
from routeproxy.policy.fact_table import BY_NAME, FACTS, MODEL, Kind
from routeproxy.policy.facts import Facts, as_line
from routeproxy.policy.hypothetical import HypotheticalRequest

_TYPES: Mapping[Kind, Any] = {
    "word": str,
    "text": str,
    "number": int,
    "flag": bool,
    "presence": str,
    "tools": tuple[str, ...],
    "headers": dict[str, str],
}
"""Of the values in a log, by the kinds of their facts."""

_LOGGED = tuple(fact for fact in FACTS if fact.logged != "never")
_WITH_SHORT_NAMES = frozenset(fact.header for fact in _LOGGED if fact.header is not None)


HEADERS: Kind = "headers"
NOT_RECORDED = "not_recorded"
"""Where the names of the facts stand that nobody worked out: they are unknown, and not false."""


def recorded_facts(facts: Facts, policy: Policy) -> dict[str, Any]:
    """The same, for whoever keeps all requests: a fact that costs something is there only if some rule looks
    at it, and so has it worked out already."""
    reader = _reader(policy.reads, policy.reads_headers, is_of_all_requests=True)
    recorded = reader.read(facts)
    if reader.left_out:
        recorded[NOT_RECORDED] = reader.left_out
    return recorded


def logged_facts(facts: Facts, policy: Policy) -> dict[str, Any]:
    """By name, what the request states: its model, and whatever else it has. Of headers, and of what the
    table says so of, only what some rule looks at."""
    return _reader(policy.reads, policy.reads_headers, is_of_all_requests=False).read(facts)


class _Reader(Struct, frozen=True):
    """Which facts are read under a policy, and how: it is asked of each request."""

    plain: tuple[tuple[str, Callable[[Facts], Any]], ...]
    by_header: tuple[tuple[str, str], ...]
    """The facts with a short name for a header, and that header."""
    headers: tuple[str, ...]
    """Others that rules look at."""
    left_out: tuple[str, ...]
    """The facts that nobody works out."""

    def read(self, facts: Facts) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, read in self.plain:
            value = read(facts)
            if value is not None and value is not False and value != ():
                found[name] = value
        if self.headers:
            others = {name: text for name in self.headers if (text := facts.header(name)) is not None}
            if others:
                found[HEADERS] = others
        stated = facts.headers
        for name, header in self.by_header:
            if (lines := stated.get(header)) and len({*lines}) == 1:
                # If no rule looks at it, several may differ: nobody chose one of its values.
                found[name] = facts.header(header)
        return found


@lru_cache(8)
def _reader(reads: frozenset[str], reads_headers: frozenset[str], *, is_of_all_requests: bool) -> _Reader:
    """For what the rules of a policy look at."""
    wanted = [fact for fact in _LOGGED if fact.logged != "if read" or fact.name in reads]
    left_out = [fact.name for fact in wanted if is_of_all_requests and fact.cost and fact.name not in reads]
    kept = [fact for fact in wanted if fact.name not in left_out]
    return _Reader(
        plain=tuple(
            (fact.name, fact.stated or fact.read)
            for fact in kept
            if fact.header is None and fact.kind != HEADERS
        ),
        by_header=tuple((fact.name, fact.header) for fact in kept if fact.header is not None),
        headers=tuple(sorted(reads_headers - _WITH_SHORT_NAMES)) if HEADERS in reads else (),
        left_out=tuple(left_out),
    )


def logged_request(logged: Mapping[str, Any]) -> HypotheticalRequest:
    """The request that a log has these facts of. Its system text is not logged; what is no fact of this
    version is passed over. Raises `ValueError` for a value of the wrong type."""
    stated: dict[str, Any] = {}
    for name, value in logged.items():
        if (fact := BY_NAME.get(name)) is not None:
            try:
                stated[name] = msgspec.convert(value, _TYPES[fact.kind] | None)
            except msgspec.ValidationError:
                raise ValueError(f"`{name}` of a logged request is not what it should be") from None
            if fact.kind == "headers":
                stated[name] = {header: (as_line(text),) for header, text in stated[name].items()}
    if MODEL.name not in stated:
        raise ValueError("a logged request has a model")
    return HypotheticalRequest(**stated)
