"""The parameters of a request: checked as the Messages API checks them, and put in the back end's words."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from math import inf

import msgspec
from msgspec import UNSET, Struct, UnsetType

from routeproxy.chat.request import JsonSchema, ResponseFormat
from routeproxy.messages.errors import Incapable, InvalidRequest
from routeproxy.messages.request import KNOWN_FIELDS, NULL, MessagesRequest, OutputFormat
from routeproxy.translate.profile import Effort, ModelProfile
from routeproxy.translate.schemas import is_strict

Warn = Callable[[str], None]

RISING: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
CLIENTS_EFFORTS: Mapping[str, Effort] = {word: word for word in RISING[RISING.index("low") :]}
BUDGETS: tuple[tuple[float, Effort], ...] = ((2048, "low"), (8192, "medium"), (24576, "high"), (inf, "xhigh"))
"""A budget below the number is that effort."""
SMALLEST_BUDGET = 1024

FIRST_VERSIONS = frozenset({"2023-01-01", "2023-06-01"})
"""Any other is read as the newest that we know, 2026-10-21 (wire.md §1.1)."""

_SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_FIELD_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_MOST_FIELDS_NAMED = 8
_NO_MEANING = frozenset({"cache_control"})
_WITHOUT_EFFECT = frozenset({"inference_geo", "diagnostics"})

_REFUSED_FIELDS = ("mcp_servers", "container", "thread")


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
        asked = getattr(request, name)
        if asked is not NULL and bytes(asked) not in (b"null", b"[]", b"{}"):
            raise Incapable(f"{name} is not supported by this model")
    wanted = output_format(request)
    if wanted is not None and wanted.type != "json_schema":
        raise InvalidRequest("output_config.format.type: Input should be 'json_schema'")


def _check_sampling(request: MessagesRequest, version: str, by_rule: frozenset[str]) -> None:
    for name, most in (("temperature", 1), ("top_p", 1), ("top_k", None)):
        value = getattr(request, name)
        if value is None:
            continue
        if version not in FIRST_VERSIONS and name not in by_rule:
            raise InvalidRequest(f"{name}: Extra inputs are not permitted")
        if value < 0:
            raise InvalidRequest(f"{name}: Input should be greater than or equal to 0")
        if most is not None and value > most:
            raise InvalidRequest(f"{name}: Input should be less than or equal to {most}")


def _check_thinking(request: MessagesRequest, betas: frozenset[str]) -> None:
    if request.thinking is None or request.thinking.type != "enabled":
        return
    budget = request.thinking.budget_tokens
    if budget is None:
        raise InvalidRequest("thinking.enabled.budget_tokens: Field required")
    if budget < SMALLEST_BUDGET:
        raise InvalidRequest(
            f"thinking.enabled.budget_tokens: Input should be greater than or equal to {SMALLEST_BUDGET}"
        )
    # With interleaved thinking the budget spans a turn with all its tool calls, so it may exceed one answer.
    interleaved = any(beta.startswith("interleaved-thinking") for beta in betas)
    if request.max_tokens and budget >= request.max_tokens and not interleaved:
        raise InvalidRequest("`max_tokens` must be greater than `thinking.budget_tokens`")
    if request.tool_choice is not None and request.tool_choice.type in ("any", "tool"):
        raise InvalidRequest("Thinking may not be enabled when tool_choice forces tool use.")


def check_warmup(request: MessagesRequest) -> None:
    """What `max_tokens: 0` does not go with."""
    forced = request.tool_choice is not None and request.tool_choice.type in ("any", "tool")
    clashes = {
        "stream": request.stream,
        "thinking.type: enabled": request.thinking is not None and request.thinking.type == "enabled",
        "output_config.format": output_format(request) is not None,
        "a tool_choice that forces a tool": forced,
    }
    for what, there in clashes.items():
        if there:
            raise InvalidRequest(f"max_tokens: 0 cannot be combined with {what}")


def output_format(request: MessagesRequest) -> OutputFormat | None:
    if request.output_config is not None and request.output_config.format is not None:
        return request.output_config.format
    return request.output_format


def response_format(wanted: OutputFormat) -> ResponseFormat:
    """Strict only where the schema is already: making properties required would change the answer."""
    if not bytes(wanted.schema).startswith(b"{"):
        raise InvalidRequest("output_config.format.schema: Input should be a valid dictionary")
    return ResponseFormat(JsonSchema("output", wanted.schema, is_strict(wanted.schema)))


def effort(request: MessagesRequest, latest: str | None, profile: ModelProfile) -> Effort | UnsetType:
    """`reasoning_effort`: off, an effort that was asked for, or the one that a budget amounts to.

    `latest` is the last that a system turn asked for; it counts more than the one on top.
    """
    top = request.output_config.effort if request.output_config is not None else None
    asked = latest or top
    if asked is not None and asked not in CLIENTS_EFFORTS:
        raise InvalidRequest(
            "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'"
        )
    if not profile.efforts:
        return UNSET
    if request.thinking is not None and request.thinking.type == "disabled":
        return _nearest("none", profile.efforts)
    if asked is not None:
        return _nearest(CLIENTS_EFFORTS[asked], profile.efforts)
    if request.thinking is not None and request.thinking.budget_tokens is not None:
        budget = request.thinking.budget_tokens
        return _nearest(next(word for below, word in BUDGETS if budget < below), profile.efforts)
    return UNSET


def _nearest(wanted: Effort, taken: tuple[Effort, ...]) -> Effort:
    """The highest that is not above what was asked for, or else the lowest; `none` only if asked for."""
    if wanted in taken:
        return wanted
    some: list[Effort] = [word for word in taken if word != "none"] or list(taken)
    below = [word for word in some if RISING.index(word) < RISING.index(wanted)]
    return below[-1] if below else some[0]


class Stops(Struct, frozen=True):
    sent: tuple[str, ...] | UnsetType
    scanned: tuple[str, ...]


def stops(asked: Sequence[str] | None, limit: int | None) -> Stops:
    unique = tuple(dict.fromkeys(asked or ()))
    sent = unique if limit is None else unique[:limit]
    return Stops(sent or UNSET, unique[len(sent) :])


def safe_id(id: str) -> str:
    """`id`, or its hash if it is longer or odder than back ends allow: Claude Code sends JSON."""
    return id if _SAFE.match(id) else hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()


def service_tier(request: MessagesRequest, profile: ModelProfile, warn: Warn) -> str | UnsetType:
    if request.speed == "fast":
        if profile.priority_tier:
            return "priority"
        warn("speed fast is not supported by this model")
    if request.service_tier == "standard_only" and profile.priority_tier:
        return "default"
    return UNSET


class _Edit(Struct, frozen=True):
    type: str = ""
    keep: object = None


def warn_of_ignored(request: MessagesRequest, fields: Sequence[str], warn: Warn) -> None:
    """The fields that mean something, but nothing to a chat back end."""
    for edit in (request.context_management and request.context_management.edits) or ():
        try:
            read = msgspec.json.decode(edit, type=_Edit)
        except msgspec.ValidationError:
            read = _Edit()
        # Claude Code's default, and what happens anyway.
        if not (read.type.startswith("clear_thinking") and read.keep in ("all", None)):
            warn(f"context_management edit {_plain(read.type)} is not supported and was ignored")
    if request.output_config is not None and request.output_config.task_budget != NULL:
        warn("output_config.task_budget is not supported and was ignored")
    for name in ("fallbacks", "compaction"):
        if getattr(request, name) != NULL:
            warn(f"{name} is not supported and was ignored")
    ignored = [name for name in fields if name in _WITHOUT_EFFECT or name not in KNOWN_FIELDS]
    for name in ignored[:_MOST_FIELDS_NAMED]:
        warn(f"field {_plain(name)} is not supported and was ignored")
    if len(ignored) > _MOST_FIELDS_NAMED:
        warn(f"{len(ignored) - _MOST_FIELDS_NAMED} more fields were ignored")


def _plain(name: str) -> str:
    """`name` as a header may show it."""
    return _FIELD_NAME.sub("?", name[:40])
