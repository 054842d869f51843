"""A rule's `params` put into a request, in Messages names and by span, so that a pass-through and a translated target see the same."""

from collections.abc import Mapping
from typing import Any

import msgspec

from routeproxy.messages.edits import Edit, Member, members, set_members
from routeproxy.policy.decide import Params

LEAST_BUDGET = 1024
"""The API's lower bound for `thinking.budget_tokens`."""


def edits(body: bytes, params: Params, also: Mapping[str, Any] | None = None, drop: frozenset[str] = frozenset()) -> list[Edit]:
    """Edits of the top-level object: default, set, cap, drop, in this order; then `also`, which no parameter may override."""
    present = members(body)
    values: dict[str, Any] = {name: value for name, value in params.default.items() if _absent(body, present, name)}
    values |= params.set
    for name, most in params.cap.items():
        asked = values.get(name, _value(body, present, name))
        if not isinstance(asked, int | float) or asked > most:
            values[name] = most
    gone = {name for name in {*params.drop, *drop} if name in present}
    values = {name: value for name, value in values.items() if name not in params.drop} | dict(also or {})
    if "max_tokens" in values and "thinking" in present and "thinking" not in values:
        values |= _budget_below(values["max_tokens"], _value(body, present, "thinking"))
    return set_members(body, {name: msgspec.json.encode(value) for name, value in values.items()}, gone)


def merged(one: Any, other: Any) -> Any:
    """`other` laid over `one`, object by object; anything else replaces."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return other
    return {**one, **{name: merged(one[name], value) if name in one else value for name, value in other.items()}}


def _value(body: bytes, present: Mapping[str, Member], name: str) -> Any:
    return msgspec.json.decode(body[slice(*present[name].value)]) if name in present else None


def _absent(body: bytes, present: Mapping[str, Member], name: str) -> bool:
    return name not in present or body[slice(*present[name].value)] == b"null"


def _budget_below(max_tokens: Any, thinking: Any) -> dict[str, Any]:
    """A thinking budget must stay below `max_tokens`, or the request is refused."""
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if not isinstance(budget, int) or not isinstance(max_tokens, int) or budget < max_tokens:
        return {}
    if max_tokens <= LEAST_BUDGET:
        return {"thinking": {"type": "disabled"}}
    return {"thinking": {**thinking, "budget_tokens": max_tokens - 1}}
