"""How answers end: stop reasons, usage and failures in the Messages API's words (wire.md §2.6–2.8)."""

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from routeproxy.chat.completion import CompletionTokensDetails, CompletionUsage, PromptTokensDetails
from routeproxy.messages.errors import TYPE_OF_STATUS
from routeproxy.messages.events import Error, error_event
from routeproxy.messages.reply import OutputTokensDetails, StopReason, Usage

STOP_REASONS: dict[str, StopReason | Literal["failed"]] = {
    "stop": "end_turn",
    "eos": "end_turn",
    "eos_token": "end_turn",
    "end_turn": "end_turn",
    "complete": "end_turn",
    "stop_sequence": "end_turn",  # without its value: which string matched is not said
    "finish_reason_unspecified": "end_turn",
    "tool_calls": "tool_use",
    "tool_call": "tool_use",
    "tool_use": "tool_use",
    "function_call": "tool_use",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "model_length": "model_context_window_exceeded",
    "context_length_exceeded": "model_context_window_exceeded",
    "model_context_window_exceeded": "model_context_window_exceeded",
    "content_filter": "refusal",
    "content_filtered": "refusal",
    "refusal": "refusal",
    "safety": "refusal",
    "recitation": "refusal",
    "prohibited_content": "refusal",
    "blocklist": "refusal",
    "spii": "refusal",
    "language": "refusal",
    "sensitive": "refusal",
    "image_safety": "refusal",
    "guardrail_intervened": "refusal",
    "error_toxic": "refusal",
    "error": "failed",
    "network_error": "failed",
    "malformed_function_call": "failed",
    "malformed_response": "failed",
    "missing_thought_signature": "failed",
    "unexpected_tool_call": "failed",
    "too_many_tool_calls": "failed",
}
"""By finish reason, in lower case. An unknown one counts as `stop`."""

CUT_SHORT: frozenset[StopReason | Literal["failed"]] = frozenset(
    {"max_tokens", "model_context_window_exceeded"}
)


def stop_reason(finish_reason: str | None) -> StopReason | Literal["failed"]:
    return STOP_REASONS.get((finish_reason or "stop").lower(), "end_turn")


# --- usage

_NO_PROMPT_DETAILS = PromptTokensDetails()
_NO_COMPLETION_DETAILS = CompletionTokensDetails()


def usage(reported: CompletionUsage | None, *, output_estimate: int, speed: str | None) -> Usage:
    """Tokens as the back end reported them, in the API's terms: `input_tokens` is without the cached ones.

    A back end that does not know a number reports 0 or nothing: neither is passed on. `output_estimate` is
    for one that reports no output.
    """
    reported = reported or CompletionUsage()
    prompt_details = reported.prompt_tokens_details or _NO_PROMPT_DETAILS
    completion_details = reported.completion_tokens_details or _NO_COMPLETION_DETAILS

    prompt = _first_count(reported.prompt_tokens)
    cache_read = _first_count(
        prompt_details.cached_tokens, reported.prompt_cache_hit_tokens, reported.cache_read_input_tokens
    )
    cache_creation = _first_count(
        prompt_details.cache_write_tokens,
        prompt_details.cache_creation_tokens,
        reported.cache_creation_input_tokens,
    )
    uncached: int | UnsetType = UNSET
    if prompt:
        if cache_read is not None:
            cache_read = min(cache_read, prompt)
            cache_creation = min(cache_creation or 0, prompt - cache_read)
        elif cache_creation is not None:
            cache_creation = min(cache_creation, prompt)
        uncached = prompt - (cache_read or 0) - (cache_creation or 0)

    thinking = _first_count(completion_details.reasoning_tokens)
    return Usage(
        input_tokens=uncached,
        cache_creation_input_tokens=UNSET if cache_creation is None else cache_creation,
        cache_read_input_tokens=UNSET if cache_read is None else cache_read,
        # `message_start` has reported 1, and the number is cumulative.
        output_tokens=max(1, _first_count(reported.completion_tokens) or output_estimate),
        output_tokens_details=UNSET if thinking is None else OutputTokensDetails(thinking),
        speed=speed or UNSET,
    )


_NUMBER_TYPES = (int, float)


def _first_count(*values: Any) -> int | None:
    for value in values:
        if value.__class__ in _NUMBER_TYPES and 0 <= value < 2**53:
            return int(value)
    return None


# --- failures

CLOSED_EARLY = "upstream closed the stream before completing"
_REJECTED_CREDENTIALS = "upstream rejected the proxy's credentials"
_MAX_MESSAGE_LENGTH = 2000

ERROR_TYPES = {
    "rate_limit": "rate_limit_error",
    "rate_limit_error": "rate_limit_error",
    "rate_limit_exceeded": "rate_limit_error",
    "resource_exhausted": "rate_limit_error",
    "too_many_requests": "rate_limit_error",
    "overloaded": "overloaded_error",
    "overloaded_error": "overloaded_error",
    "server_overloaded": "overloaded_error",
    "service_unavailable": "overloaded_error",
    "unavailable": "overloaded_error",
    "timeout": "timeout_error",
    "timeout_error": "timeout_error",
    "deadline_exceeded": "timeout_error",
    "invalid_request": "invalid_request_error",
    "invalid_request_error": "invalid_request_error",
    "invalid_argument": "invalid_request_error",
    "badrequesterror": "invalid_request_error",
    "invalid_prompt": "invalid_request_error",
    "image_content_policy_violation": "invalid_request_error",
    "context_length_exceeded": "invalid_request_error",
    "not_found_error": "not_found_error",
    "model_not_found": "not_found_error",
}
"""By the `type`, `code` or `status` of an error inside a stream, in lower case. Any other is `api_error`."""


def failure(error: Any) -> Error:
    """An error that a back end reported inside a 200, as the event that ends our stream."""
    if not isinstance(error, dict):
        error = {"message": error}
    codes = [error.get("code"), error.get("status"), error.get("type")]
    statuses = {int(code) for code in codes if _is_status(code)}
    if statuses & {401, 403}:
        # The client would take its own key for bad.
        return error_event("api_error", _REJECTED_CREDENTIALS)
    message = error.get("message")
    if not isinstance(message, str) or not message.strip():
        message = "upstream reported an error"
    types = [TYPE_OF_STATUS[status] for status in statuses if status in TYPE_OF_STATUS]
    types += [
        ERROR_TYPES[code.lower()] for code in codes if isinstance(code, str) and code.lower() in ERROR_TYPES
    ]
    type = types[0] if types else "overloaded_error" if "overloaded" in message.lower() else "api_error"
    return error_event(type, message[:_MAX_MESSAGE_LENGTH])


def _is_status(code: Any) -> bool:
    return (isinstance(code, int) and not isinstance(code, bool)) or (
        isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3
    )
