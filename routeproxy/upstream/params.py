"""A rule's `params` put into a request, in Messages names and by span, so that a pass-through and a
translated target see the same."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from routeproxy.messages.edits import Edit, Member, apply, members, set_members
from routeproxy.messages.request import without_lone_surrogates
from routeproxy.policy.decide import Params, Target

LEAST_BUDGET = 1024
"""The API's lower bound for `thinking.budget_tokens`."""


def with_params(body: bytes, params: Params) -> tuple[bytes, tuple[str, ...]]:
    """The body after default, set, cap and drop, and the names of its top-level fields, in order."""
    present = members(body)
    if not (params.default or params.set or params.cap or params.drop):
        return body, tuple(present)
    values, gone = _wanted(body, present, params, {}, frozenset(), {})
    new = [name for name in values if name not in present]
    names = (*new, *(name for name in present if name not in gone))
    return apply(body, _spliced(body, present, values, gone)), names


def settled_by_rules(present: Iterable[str], target: Target) -> dict[str, str]:
    """The fields that a back end which speaks Messages would understand and a client may not set, each with
    the reason."""
    settled = {"fallbacks": "fallbacks: dropped, the rules decide who answers"}
    if region := target.provider.facts_of(target.model).region:
        settled["inference_geo"] = f"inference_geo: dropped, the rules say that `{region}` answers"
    return {name: settled[name] for name in present if name in settled}


def edits(
    body: bytes,
    present: Mapping[str, Member],
    params: Params,
    also: Mapping[str, Any] | None = None,
    drop: frozenset[str] = frozenset(),
    extra_body: Mapping[str, Any] | None = None,
) -> list[Edit]:
    """Edits of the top-level object, whose `members` are `present`: default, set, cap, drop, in this order;
    then `also`, and `extra_body` merged into what is there."""
    return _spliced(body, present, *_wanted(body, present, params, also or {}, drop, extra_body or {}))


def _wanted(
    body: bytes,
    present: Mapping[str, Member],
    params: Params,
    also: Mapping[str, Any],
    drop: frozenset[str],
    extra_body: Mapping[str, Any],
) -> tuple[dict[str, Any], frozenset[str]]:
    """What is put there, and the names of what goes."""
    values: dict[str, Any] = {
        name: value
        for name, value in params.default.items()
        if name in drop or _value(body, present, name) is None
    }
    values |= params.set
    for name, most in params.cap.items():
        asked = values.get(name, _value(body, present, name))
        if isinstance(asked, int | float) and asked > most:
            values[name] = most
    values = {name: value for name, value in values.items() if name not in params.drop}
    if "max_tokens" in values or "thinking" in values:
        values |= _budget_below(
            values.get("max_tokens", _value(body, present, "max_tokens")),
            values.get("thinking", _value(body, present, "thinking")),
        )
    values |= also
    gone = (params.drop | drop) & present.keys() - values.keys()
    for name, extra in extra_body.items():
        there = None if name in gone else values.get(name, _value(body, present, name))
        values[name] = merged(there, extra)
    return values, gone - values.keys()


def _spliced(
    body: bytes, present: Mapping[str, Member], values: Mapping[str, Any], gone: frozenset[str]
) -> list[Edit]:
    written = {name: msgspec.json.encode(value) for name, value in values.items()}
    return set_members(body, written, gone, present)


def merged(one: Any, other: Any) -> Any:
    """`other` laid over `one`, object by object; anything else replaces."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return other
    return {
        **one,
        **{name: merged(one[name], value) if name in one else value for name, value in other.items()},
    }


def _value(body: bytes, present: Mapping[str, Member], name: str) -> Any:
    """What the client wrote; `null` is the same as nothing."""
    if name not in present:
        return None
    value = body[slice(*present[name].value)]
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return msgspec.json.decode(without_lone_surrogates(value))


def _budget_below(max_tokens: Any, thinking: Any) -> dict[str, Any]:
    """A thinking budget must stay below `max_tokens`, or the request is refused."""
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if not isinstance(budget, int) or not isinstance(max_tokens, int | float) or budget < max_tokens:
        return {}
    if max_tokens <= LEAST_BUDGET:
        return {"thinking": {"type": "disabled"}}
    return {"thinking": {**thinking, "budget_tokens": int(max_tokens) - 1}}
