"""The parameters of a request: checked as the Messages API checks them, and put in the terms of chat."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from routeproxy.chat.request import JsonSchema, ResponseFormat
from routeproxy.messages.errors import Incapable, InvalidRequest
from routeproxy.messages.request import KNOWN_FIELDS, NULL, MessagesRequest, OutputFormat
from routeproxy.translate.profile import Effort, ModelProfile
from routeproxy.translate.schemas import SchemaRules, clean_answer_schema, is_strict

Warn = Callable[[str], None]

EFFORTS: Mapping[str, Effort] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
"""What a client may ask for, in rising order."""
EFFORT_OF_BUDGET: tuple[tuple[float, Effort], ...] = (
    (2048, "low"),
    (8192, "medium"),
    (24576, "high"),
    (inf, "xhigh"),
)
"""A budget below the number amounts to the effort beside it."""
MIN_BUDGET = 1024

FIRST_VERSIONS = frozenset({"2023-01-01", "2023-06-01"})
"""Any other is read as the newest that we know, 2026-10-21 (wire.md §1.1)."""

_SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_NOT_IN_FIELD_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_MAX_FIELDS_NAMED = 8
_FIELDS_WITHOUT_EFFECT = frozenset(
    {"billing_policy", "diagnostics", "fallback_credit_token", "inference_geo"}
)
_REFUSED_FIELDS = ("mcp_servers", "container", "compaction", "thread")
"""Without them the answer would be another than the one that was asked for."""


def check(
    request: MessagesRequest, version: str, betas: frozenset[str], by_rule: frozenset[str] = frozenset()
) -> None:
    """Refuses what the Messages API itself would refuse, in its words."""
    if not request.messages:
        raise InvalidRequest("messages: at least one message is required")
    if request.max_tokens is None:
        raise InvalidRequest("max_tokens: Field required")
    _check_sampling(request, version, by_rule)
    for sequence in request.stop_sequences or ():
        if not sequence.strip():
            raise InvalidRequest("stop_sequences: each stop sequence must contain non-whitespace")
    _check_thinking(request, betas)
    for name in _REFUSED_FIELDS:
        value = getattr(request, name)
        if value is not NULL and bytes(value) not in (b"null", b"[]", b"{}"):
            raise Incapable(f"{name} is not supported by this model")
    format = output_format(request)
    if format is not None and format.type != "json_schema":
        raise InvalidRequest("output_config.format.type: Input should be 'json_schema'")


def _check_sampling(request: MessagesRequest, version: str, by_rule: frozenset[str]) -> None:
    for name, maximum in (("temperature", 1), ("top_p", 1), ("top_k", None)):
        value = getattr(request, name)
        if value is None:
            continue
        if version not in FIRST_VERSIONS and name not in by_rule:
            raise InvalidRequest(f"{name}: Extra inputs are not permitted")
        if value < 0:
            raise InvalidRequest(f"{name}: Input should be greater than or equal to 0")
        if maximum is not None and value > maximum:
            raise InvalidRequest(f"{name}: Input should be less than or equal to {maximum}")


def _check_thinking(request: MessagesRequest, betas: frozenset[str]) -> None:
    if request.thinking is None or request.thinking.type != "enabled":
        return
    budget = request.thinking.budget_tokens
    if budget is None:
        raise InvalidRequest("thinking.enabled.budget_tokens: Field required")
    if budget < MIN_BUDGET:
        raise InvalidRequest(
            f"thinking.enabled.budget_tokens: Input should be greater than or equal to {MIN_BUDGET}"
        )
    # With interleaved thinking the budget spans a turn with all its tool calls, so it may exceed one answer.
    interleaved = any(beta.startswith("interleaved-thinking") for beta in betas)
    if request.max_tokens and budget >= request.max_tokens and not interleaved:
        raise InvalidRequest("`max_tokens` must be greater than `thinking.budget_tokens`")
    if request.tool_choice is not None and request.tool_choice.type in ("any", "tool"):
        raise InvalidRequest("Thinking may not be enabled when tool_choice forces tool use.")


def check_warmup(request: MessagesRequest) -> None:
    """Refuses what `max_tokens: 0` does not go with."""
    forces_tool = request.tool_choice is not None and request.tool_choice.type in ("any", "tool")
    clashes = {
        "stream": request.stream,
        "thinking.type: enabled": request.thinking is not None and request.thinking.type == "enabled",
        "output_config.format": output_format(request) is not None,
        "a tool_choice that forces a tool": forces_tool,
    }
    for clash, is_there in clashes.items():
        if is_there:
            raise InvalidRequest(f"max_tokens: 0 cannot be combined with {clash}")


def output_format(request: MessagesRequest) -> OutputFormat | None:
    if request.output_config is not None and request.output_config.format is not None:
        return request.output_config.format
    return request.output_format


def response_format(format: OutputFormat, rules: SchemaRules) -> ResponseFormat:
    """Strict only where the schema is already: making properties required would change the answer."""
    try:
        schema = clean_answer_schema(format.schema, rules)
    except ValueError:
        raise InvalidRequest("output_config.format.schema: Input should be a valid dictionary") from None
    return ResponseFormat(JsonSchema("output", schema, is_strict(schema)))


def effort(request: MessagesRequest, latest: str | None, profile: ModelProfile) -> Effort | UnsetType:
    """`reasoning_effort`: the effort that the client asks for, or the one that a budget amounts to.

    `latest` is the last that a system turn asks for; it counts more than the request's own.
    """
    requested = latest or (request.output_config.effort if request.output_config is not None else None)
    if requested is not None and requested not in EFFORTS:
        raise InvalidRequest(
            "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'"
        )
    if not profile.efforts or wants_no_thinking(request):
        return UNSET
    if requested is not None:
        return _nearest(EFFORTS[requested], profile.efforts)
    if request.thinking is not None and request.thinking.budget_tokens is not None:
        budget = request.thinking.budget_tokens
        amount = next(effort for limit, effort in EFFORT_OF_BUDGET if budget < limit)
        return _nearest(amount, profile.efforts)
    return UNSET


def _nearest(requested: Effort, supported: tuple[Effort, ...]) -> Effort:
    """The highest effort that is not above `requested`, or else the lowest."""
    rising = tuple(EFFORTS)
    limit = rising.index(requested)
    return next((one for one in reversed(supported) if rising.index(one) <= limit), supported[0])


def wants_no_thinking(request: MessagesRequest) -> bool:
    return request.thinking is not None and request.thinking.type == "disabled"


def thinking_off(request: MessagesRequest, profile: ModelProfile, warn: Warn) -> Mapping[str, Any]:
    """The fields that switch thinking off, where the client has."""
    if not wants_no_thinking(request):
        return {}
    if profile.thinks_always:
        warn("this model cannot be told not to think")
    return profile.thinking_off


class Stops(Struct, frozen=True):
    sent: tuple[str, ...] | UnsetType
    scanned: tuple[str, ...]
    """The stop sequences beyond what the back end takes: the answer is searched for them."""


def stops(sequences: Sequence[str] | None, limit: int | None) -> Stops:
    unique = tuple(dict.fromkeys(sequences or ()))
    sent = unique if limit is None else unique[:limit]
    return Stops(sent or UNSET, unique[len(sent) :])


def safe_id(id: str) -> str:
    """`id`, or its hash if back ends may refuse its length or characters: Claude Code sends JSON."""
    return id if _SAFE_ID.match(id) else hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()


def service_tier(request: MessagesRequest, profile: ModelProfile, warn: Warn) -> str | UnsetType:
    if request.speed == "fast":
        if profile.priority_tier:
            return "priority"
        warn("speed fast is not supported by this model")
    if request.service_tier == "standard_only" and profile.priority_tier:
        return "default"
    return UNSET


def warn_of_unsupported_sampling(request: MessagesRequest, profile: ModelProfile, warn: Warn) -> None:
    if not profile.sampling and (request.temperature is not None or request.top_p is not None):
        warn("temperature and top_p are not supported by this model and were left out")
    if not profile.top_k and request.top_k is not None:
        warn("top_k is not supported by this model and was left out")


class _Edit(Struct, frozen=True):
    type: str = ""
    keep: object = None


def warn_of_ignored(request: MessagesRequest, fields: Sequence[str], warn: Warn) -> None:
    """Names the fields that would mean something, but not to a chat back end. `fields`: those of the body."""
    for raw_edit in (request.context_management and request.context_management.edits) or ():
        try:
            edit = msgspec.json.decode(raw_edit, type=_Edit)
        except msgspec.ValidationError:
            edit = _Edit()
        # Claude Code's default, and what happens anyway.
        if not (edit.type.startswith("clear_thinking") and edit.keep in ("all", None)):
            warn(f"context_management edit {_header_safe(edit.type)} is not supported and was ignored")
    if request.output_config is not None and request.output_config.task_budget != NULL:
        warn("output_config.task_budget is not supported and was ignored")
    if request.fallbacks != NULL:
        warn("fallbacks is not supported and was ignored")
    ignored = [name for name in fields if name in _FIELDS_WITHOUT_EFFECT or name not in KNOWN_FIELDS]
    for name in ignored[:_MAX_FIELDS_NAMED]:
        warn(f"field {_header_safe(name)} is not supported and was ignored")
    if len(ignored) > _MAX_FIELDS_NAMED:
        warn(f"{len(ignored) - _MAX_FIELDS_NAMED} more fields were ignored")


def _header_safe(name: str) -> str:
    """`name` as a header may show it."""
    return _NOT_IN_FIELD_NAME.sub("?", name[:40])
