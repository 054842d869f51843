"""What the decision log keeps of a request, and the request that this makes once more."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

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


NOT_RECORDED = "not_recorded"
"""Where the names of the facts stand that nobody worked out: they are unknown, and not false."""


def recorded_facts(facts: Facts, policy: Policy) -> dict[str, Any]:
    """The same, for whoever keeps all requests: a fact that costs something is there only if some rule looks
    at it, and so has it worked out already."""
    left_out = [fact.name for fact in _LOGGED if fact.cost and fact.name not in policy.reads]
    recorded = logged_facts(facts, policy, frozenset(left_out))
    if left_out:
        recorded[NOT_RECORDED] = left_out
    return recorded


def logged_facts(facts: Facts, policy: Policy, left_out: Collection[str] = frozenset()) -> dict[str, Any]:
    """By name, what the request states: its model, and whatever else is not left out. Of headers, and of what
    the table says so of, only what some rule looks at."""
    logged: dict[str, Any] = {}
    for fact in _LOGGED:
        if fact.name in left_out:
            continue
        if fact.logged == "if read" and fact.name not in policy.reads:
            continue
        if fact.header is not None and len({*facts.headers.get(fact.header, ())}) > 1:
            continue  # no rule looks at it, or it would have been refused: nobody chose one of its values
        value: Any
        if fact.kind == "headers":
            names = sorted(policy.reads_headers - _WITH_SHORT_NAMES)
            value = {name: text for name in names if (text := facts.header(name)) is not None}
        else:
            value = (fact.stated or fact.read)(facts)
        if value is not None and value is not False and value not in ((), {}):
            logged[fact.name] = value
    return logged


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
