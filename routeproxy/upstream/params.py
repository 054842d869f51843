"""A rule's `params` put into a request, in Messages names and by span, so that a pass-through and a
translated target see the same."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from routeproxy.messages.body import Body
from routeproxy.messages.decoding import ANY_JSON, decode_leniently
from routeproxy.messages.edits import Edit, apply, set_members
from routeproxy.policy.targets import Params, Target

LEAST_BUDGET = 1024
"""The API's lower bound for `thinking.budget_tokens`."""


def with_params(body: Body, params: Params) -> Body:
    """The body after default, set, cap and drop."""
    if not (params.default or params.set or params.cap or params.drop):
        return body
    text = apply(body.text, edits(body, params))
    return body if text is body.text else Body(text)


def settled_by_rules(present: Iterable[str], target: Target) -> dict[str, str]:
    """The fields that a back end which speaks Messages would understand and a client may not set, each with
    the reason."""
    settled = {"fallbacks": "fallbacks: dropped, the rules decide who answers"}
    if region := target.provider.facts_of(target.model).region:
        settled["inference_geo"] = f"inference_geo: dropped, the rules say that `{region}` answers"
    return {name: settled[name] for name in present if name in settled}


def edits(
    body: Body,
    params: Params,
    also: Mapping[str, Any] | None = None,
    drop: frozenset[str] = frozenset(),
    extra_body: Mapping[str, Any] | None = None,
) -> list[Edit]:
    """Edits of the top-level object: default, set, cap, drop, in this order; then `also`, and `extra_body`
    merged into what is there."""
    present = body.members
    values: dict[str, Any] = {
        name: value for name, value in params.default.items() if name in drop or _value(body, name) is None
    }
    values |= params.set
    for name, most in params.cap.items():
        asked = values.get(name, _value(body, name))
        if isinstance(asked, int | float) and asked > most:
            values[name] = most
    values = {name: value for name, value in values.items() if name not in params.drop}
    if "max_tokens" in values or "thinking" in values:
        values |= _budget_below(
            values.get("max_tokens", _value(body, "max_tokens")),
            values.get("thinking", _value(body, "thinking")),
        )
    values |= also or {}
    gone = (params.drop | drop) & present.keys() - values.keys()
    for name, extra in (extra_body or {}).items():
        there = None if name in gone else values.get(name, _value(body, name))
        values[name] = merged(there, extra)
    written = {name: msgspec.json.encode(value) for name, value in values.items()}
    return set_members(body.text, written, gone - values.keys(), present)


def merged(one: Any, other: Any) -> Any:
    """`other` laid over `one`, object by object; anything else replaces."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return other
    return {
        **one,
        **{name: merged(one[name], value) if name in one else value for name, value in other.items()},
    }


def _value(body: Body, name: str) -> Any:
    """What the client wrote; `null` is the same as nothing. Raises `InvalidRequest`."""
    if name not in body.members:
        return None
    value = body.text[slice(*body.members[name].value)]
    return decode_leniently(ANY_JSON, value)


def _budget_below(max_tokens: Any, thinking: Any) -> dict[str, Any]:
    """A thinking budget must stay below `max_tokens`, or the request is refused."""
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if not isinstance(budget, int) or not isinstance(max_tokens, int | float) or budget < max_tokens:
        return {}
    if max_tokens <= LEAST_BUDGET:
        return {"thinking": {"type": "disabled"}}
    return {"thinking": {**thinking, "budget_tokens": int(max_tokens) - 1}}
