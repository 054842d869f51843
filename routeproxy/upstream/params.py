"""A rule's `params` put into a request, in Messages names and by span, so that a pass-through and a
translated target see the same."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from routeproxy.messages.body import Body
from routeproxy.messages.decoding import ANY_JSON, decode_leniently
from routeproxy.messages.edits import Edit, apply_edits, set_members
from routeproxy.policy.targets import Params, Target

CHOOSING = frozenset(
    {
        "api_base",
        "api_key",
        "base_url",
        "content_policy_fallbacks",
        "context_window_fallbacks",
        "custom_llm_provider",
        "default_fallbacks",
        "deployment_id",
        "extra_body",
        "fallback",
        "fallback_model",
        "fallback_models",
        "fallbacks",
        "litellm_metadata",
        "mock_response",
        "mock_testing_content_policy_fallbacks",
        "mock_testing_context_fallbacks",
        "mock_testing_fallbacks",
        "model_list",
        "models",
        "num_retries",
        "plugins",
        "preset",
        "provider",
        "providerOptions",
        "route",
        "router_settings_override",
        "specific_deployment",
        "tags",
        "user_config",
    }
)
"""The fields by which Anthropic, OpenRouter, LiteLLM's proxy or Vercel's gateway would ask another model,
somebody besides (a search, by OpenRouter's plugins), more often or nobody. A rule's `extra_body` may set
them."""

SMALLEST_BUDGET = 1024
"""The API's lower bound for `thinking.budget_tokens`."""


def with_params(body: Body, params: Params) -> Body:
    """The body after default, set, cap and drop. Raises `InvalidRequest`."""
    if not (params.default or params.set or params.cap or params.drop):
        return body
    text = apply_edits(body.text, plan_edits(body, params))
    return body if text is body.text else Body(text)


def settled_by_rules(present: Iterable[str], target: Target) -> dict[str, str]:
    """The fields, of those `present`, that a back end which speaks Messages would understand and a client may
    not set, each with the reason."""
    reasons = {name: f"{name}: dropped, the rules decide who answers" for name in CHOOSING}
    if region := target.provider.facts_of(target.model).region:
        reasons["inference_geo"] = f"inference_geo: dropped, the rules say that `{region}` answers"
    return {name: reasons[name] for name in present if name in reasons}


def plan_edits(
    body: Body,
    params: Params,
    also: Mapping[str, Any] | None = None,
    drop: frozenset[str] = frozenset(),
    extra_body: Mapping[str, Any] | None = None,
) -> list[Edit]:
    """The edits of the top-level object: default, set, cap, drop, in this order; then `also`, and
    `extra_body` merged into what is there. Raises `InvalidRequest`."""
    present = body.members
    values: dict[str, Any] = {
        name: value for name, value in params.default.items() if name in drop or _value(body, name) is None
    }
    values |= params.set
    for name, cap in params.cap.items():
        value = values.get(name, _value(body, name))
        if isinstance(value, int | float) and value > cap:
            values[name] = cap
    values = {name: value for name, value in values.items() if name not in params.drop}
    if "max_tokens" in values or "thinking" in values:
        values |= _budget_below(
            values.get("max_tokens", _value(body, "max_tokens")),
            values.get("thinking", _value(body, "thinking")),
        )
    values |= also or {}
    removed = (params.drop | drop) & present.keys() - values.keys()
    for name, extra in (extra_body or {}).items():
        value = None if name in removed else values.get(name, _value(body, name))
        values[name] = merge(value, extra)
    written = {name: msgspec.json.encode(value) for name, value in values.items()}
    return set_members(body.text, written, removed - values.keys(), present)


def merge(below: Any, above: Any) -> Any:
    """`above` laid over `below`, object by object; anything else replaces. Neither is changed."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {
        **below,
        **{name: merge(below[name], value) if name in below else value for name, value in above.items()},
    }


def _value(body: Body, name: str) -> Any:
    """What the client wrote; `null` is the same as nothing. Raises `InvalidRequest`."""
    if name not in body.members:
        return None
    value = body.text[slice(*body.members[name].value)]
    return decode_leniently(ANY_JSON, value)


def _budget_below(max_tokens: Any, thinking: Any) -> dict[str, Any]:
    """The change that keeps a thinking budget below `max_tokens`, or the request would be refused."""
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if not isinstance(budget, int) or not isinstance(max_tokens, int | float) or budget < max_tokens:
        return {}
    if max_tokens <= SMALLEST_BUDGET:
        return {"thinking": {"type": "disabled"}}
    return {"thinking": {**thinking, "budget_tokens": int(max_tokens) - 1}}
