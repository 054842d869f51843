"""Finish reasons in the Messages API's terms (wire.md §2.6)."""

from typing import Literal

from routeproxy.messages.reply import StopReason

STOP_REASONS: dict[str, StopReason | Literal["failed"]] = {
    "stop": "end_turn",
    "eos": "end_turn",
    "eos_token": "end_turn",
    "end_turn": "end_turn",
    "complete": "end_turn",
    "stop_sequence": "end_turn",  # which string matched is not known
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
"""By finish reason, in lower case. An unknown reason counts as `stop`."""

CUT_SHORT: frozenset[StopReason | Literal["failed"]] = frozenset(
    {"max_tokens", "model_context_window_exceeded"}
)


def stop_reason(finish_reason: str | None) -> StopReason | Literal["failed"]:
    """`failed`: the answer is no answer, unless something usable came before."""
    return STOP_REASONS.get((finish_reason or "stop").lower(), "end_turn")
