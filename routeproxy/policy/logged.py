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
    "headers": dict[str, str | None],
}
"""Of the values in a log, by the kinds of their facts."""

_LOGGED = tuple(fact for fact in FACTS if fact.logged != "never")
_WITH_SHORT_NAMES = frozenset(fact.header for fact in _LOGGED if fact.header is not None)


HEADERS: Kind = "headers"
SESSION = "session"
NOT_RECORDED = "not_recorded"
"""Where the names of the facts stand that nobody worked out: they are unknown, and not false."""
AT_MOST = "input_tokens_at_most"
"""An upper bound of the input tokens, where that was enough for all rules that asked."""
SESSION_IN_BODY = "session_in_body"
"""The session, where it stands in `metadata.user_id` and in no header: a share of all goes by it."""


def recorded_facts(facts: Facts, policy: Policy) -> dict[str, Any]:
    """The same, for whoever keeps all requests: a fact that costs something is there only if some rule looks
    at it, and so has it worked out already."""
    reader = _reader(policy.reads, policy.recorded_headers, is_of_all_requests=True)
    recorded = reader.read(facts)
    if reader.left_out:
        recorded[NOT_RECORDED] = (*reader.left_out, *recorded.get(NOT_RECORDED, ()))
    return recorded


def logged_facts(facts: Facts, policy: Policy) -> dict[str, Any]:
    """By name, what the request states: its model, and whatever else it has. Of headers, and of what the
    table says so of, only what some rule looks at: `None` where the request does not have it."""
    return _reader(policy.reads, policy.recorded_headers, is_of_all_requests=False).read(facts)


class _Reader(Struct, frozen=True):
    """Which facts are read under a policy, and how: it is asked of each request."""

    plain: tuple[tuple[str, Callable[[Facts], Any]], ...]
    by_header: tuple[tuple[str, str], ...]
    """The facts with a short name for a header, and that header."""
    headers: tuple[str, ...]
    """Others that rules look at."""
    left_out: tuple[str, ...]
    """The facts that nobody works out."""
    nullable: frozenset[str]
    """Those that are recorded only under some policies: a request without them is said to be that."""

    def read(self, facts: Facts) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, read in self.plain:
            value = read(facts)
            if (value is not None and value is not False and value != ()) or name in self.nullable:
                found[name] = value
        if self.headers:
            # One that is not there is said to be that: others were not looked at, and nobody knows.
            found[HEADERS] = {name: facts.header(name) for name in self.headers}
        if (most := facts.counted_at_most) is not None:
            found[AT_MOST] = most
        stated = facts.headers
        for name, header in self.by_header:
            if lines := stated.get(header):
                if len({*lines}) == 1:
                    found[name] = facts.header(header)
                else:  # no rule looks at it: nobody chose one of its values
                    found[NOT_RECORDED] = (*found.get(NOT_RECORDED, ()), name)
        if SESSION not in found and (session := facts.session_in_body):
            found[SESSION_IN_BODY] = session
        return found


@lru_cache(8)
def _reader(reads: frozenset[str], headers: frozenset[str], *, is_of_all_requests: bool) -> _Reader:
    """For what the rules of a policy look at, and the headers that are recorded."""
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
        headers=tuple(sorted(headers - _WITH_SHORT_NAMES)),
        left_out=tuple(left_out),
        nullable=frozenset(fact.name for fact in kept if fact.logged == "if read"),
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
                stated[name] = {
                    header: (as_line(text),) for header, text in stated[name].items() if text is not None
                }
    if MODEL.name not in stated:
        raise ValueError("a logged request has a model")
    return HypotheticalRequest(**stated)
