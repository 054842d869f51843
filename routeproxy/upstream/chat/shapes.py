"""The shape in which a target takes a request, once its words have said which part of it it refuses: changes
of its profile. The one place that turns a refusal into such changes; who remembers them is `model_facts`."""

from collections.abc import Mapping
from typing import Any

from routeproxy.translate.params import EFFORTS
from routeproxy.translate.profile import ModelProfile
from routeproxy.upstream.errors.refusals import Feature, Refusal

Changes = Mapping[str, Any]
"""Fields of `ModelProfile`."""

_NO_EFFORT: Changes = {"efforts": (), "thinking_off": {}}
_NO_SWITCH: Changes = {"thinking_off": {}}
_AFTER_TOOL: Changes = {"mid_system": "user", "user_after_tool": False}

_SHAPES: Mapping[Feature, Changes] = {
    "mid_conv_system": {"mid_system": "user"},
    "system_role": {"mid_system": "user", "system_role": False},
    "alternating_roles": _AFTER_TOOL,
    "user_after_tool": _AFTER_TOOL,
    "null_content": {"null_content": False},
    "tool_content_parts": {"images_in_tool_messages": False},
    "image_block": {"vision": False},
    "document_block": {"files": False},
    "effort_with_tools": _NO_EFFORT,
    "effort_unsupported": _NO_EFFORT,
    "thinking_off": {"thinks_always": True, "thinking_off": {}},
    "structured_outputs_unsupported": {"structured_outputs": False},
    "max_tokens": {"max_tokens_field": "max_completion_tokens"},
}
_WITHOUT: Mapping[str, Changes] = {
    "temperature": {"sampling": False},
    "top_p": {"sampling": False},
    "top_k": {"top_k": False},
    "stop": {"stop_limit": 0},
    "user": {"user": False},
    "parallel_tool_calls": {"parallel_tool_calls": False},
    "prompt_cache_key": {"prompt_cache_key": False},
    "service_tier": {"priority_tier": False},
    "response_format": {"structured_outputs": False, "json_mode": False},
    "tool_choice": {"named_tool_choice": False, "tool_choice_required": False},
    "reasoning_effort": _NO_EFFORT,
    "max_completion_tokens": {"max_tokens_field": "max_tokens"},
    "reasoning_content": {"takes_reasoning": False, "replays_reasoning": False},
    "chat_template_kwargs": _NO_SWITCH,
    "disable_reasoning": _NO_SWITCH,
    "enable_thinking": _NO_SWITCH,
    "reasoning": _NO_SWITCH,
    "think": _NO_SWITCH,
    "thinking": _NO_SWITCH,
}
"""By parameter, what leaves it out."""

_SETTINGS: Mapping[Feature, str] = {
    "mid_conv_system": 'mid_system = "user"',
    "system_role": 'mid_system = "user"',
    "alternating_roles": 'mid_system = "user"',
    "user_after_tool": 'mid_system = "user"',
    "image_block": 'models = { "MODEL" = { vision = false } }',
    "effort_unsupported": 'models = { "MODEL" = { thinking = false } }',
}
"""What an operator may write for the provider, so that nobody has to be asked twice."""


def wanted_shape(refusal: Refusal, profile: ModelProfile) -> dict[str, Any]:
    """The changes of `profile` by which a request goes without what the target refuses; empty if nothing is
    known that would."""
    changes = {
        name: value for name, value in _changes(refusal, profile).items() if getattr(profile, name) != value
    }
    return {} if _is_no_way_out(changes, profile) else changes


def refused_part(refusal: Refusal) -> str:
    """What is refused, in one of our own words or by a parameter's name."""
    known = [name for name in refusal.names if _of_parameter(name)]
    return ", ".join(known) if refusal.feature == "parameter" and known else str(refusal.feature)


def setting_for(refusal: Refusal, model: str) -> str | None:
    """The setting that has the same effect from the start."""
    setting = _SETTINGS.get(refusal.feature) if refusal.feature is not None else None
    return setting and setting.replace("MODEL", model)


def _changes(refusal: Refusal, profile: ModelProfile) -> Changes:
    match refusal.feature:
        case None:
            return {}
        case "effort_value":
            return _efforts_among(refusal.accepted, profile)
        case "tool_choice" if profile.named_tool_choice:
            return {"named_tool_choice": False}
        case "tool_choice":
            return {"tool_choice_required": False}
        case "parameter":
            return {name: value for named in refusal.names for name, value in _of_parameter(named).items()}
        case feature:
            return _SHAPES.get(feature, {})


def _of_parameter(named: str) -> Changes:
    """`named` may be a place: `response_format.type`."""
    return _WITHOUT.get(named.partition(".")[0], {})


def _efforts_among(accepted: tuple[str, ...], profile: ModelProfile) -> Changes:
    words = [word.lower() for word in accepted]
    if not words:
        return _NO_EFFORT
    changes: dict[str, Any] = {"efforts": tuple(effort for effort in EFFORTS if effort in words)}
    if profile.thinking_off.get("reasoning_effort", words[0]) not in words:
        least = next((word for word in ("none", "minimal", "low") if word in words), None)
        changes["thinking_off"] = {"reasoning_effort": least} if least else {}
    elif profile.thinking_off and "reasoning_effort" not in profile.thinking_off:
        changes["thinking_off"] = {}
    return changes


def _is_no_way_out(changes: Changes, profile: ModelProfile) -> bool:
    """Whether the request would then be refused by us, in words that its client understands as well."""
    return profile.without_vision == "refuse" and bool({"files", "vision"} & changes.keys())
