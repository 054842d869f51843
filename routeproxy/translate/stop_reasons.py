"""Finish reasons in the Messages API's terms (wire.md §2.6)."""

from collections.abc import Mapping
from typing import Any, Literal

from routeproxy.messages.reply import StopReason

Meaning = StopReason | Literal["failed"]
"""`failed`: what came is no answer, whatever there was of it."""

_WORDS: Mapping[Meaning, tuple[str, ...]] = {
    "end_turn": (
        "stop",  # OpenAI and most others
        "eos",  # Together
        "eos_token",  # Text Generation Inference, watsonx
        "stop_sequence",  # the same, Cohere, Bedrock: which string matched is not known
        "end_turn",  # Anthropic's, behind gateways
        "complete",  # Cohere
        "completed",
        "finish",  # Bedrock's Titan
        "finished",
        "stop_criteria_met",
        "endoftext",  # AI21
        "normal",  # ERNIE: finished, not truncated
    ),
    "tool_use": ("tool_calls", "tool_call", "tool_use", "function_call"),
    "pause_turn": ("pause_turn",),
    "max_tokens": (
        "length",
        "max_tokens",
        "max_length",
        "max_output_tokens",  # Responses
        "max_completion_tokens",
        "token_limit",  # watsonx
        "repetition",  # vLLM: it was stopped in a loop
    ),
    "model_context_window_exceeded": (
        "model_length",  # Mistral
        "context_length",
        "context_length_exceeded",
        "model_context_window_exceeded",
        "error_limit",  # Cohere
    ),
    "refusal": (
        "content_filter",
        "content_filtered",  # Bedrock
        "refusal",
        "safety",  # Google's from here
        "recitation",
        "language",
        "blocklist",
        "prohibited_content",
        "spii",
        "image_safety",
        "image_prohibited_content",
        "image_recitation",
        "model_armor",
        "sensitive",  # GLM, Hunyuan
        "guardrail_intervened",  # Bedrock
        "error_toxic",  # Cohere
        "blacklist",  # GigaChat
    ),
    "failed": (
        "error",
        "abort",  # vLLM, SGLang
        "aborted",
        "network_error",  # GLM
        "insufficient_system_resource",  # DeepSeek
        "timeout",
        "time_limit",  # watsonx
        "cancelled",
        "user_cancel",  # Cohere
        "load",  # Ollama: a model was loaded, or let go, and nothing generated
        "unload",
        "malformed_function_call",  # Google's from here
        "malformed_response",
        "missing_thought_signature",
        "unexpected_tool_call",
        "too_many_tool_calls",
        "other",
        "no_image",
        "image_other",
        "finish_reason_unspecified",
        "malformed_model_output",  # Bedrock
        "malformed_tool_use",
    ),
}

STOP_REASONS: Mapping[str, Meaning] = {word: meaning for meaning, words in _WORDS.items() for word in words}
"""By finish reason, in lower case. One that is not here has failed: nobody knows how such an answer ended."""

CUT_SHORT: frozenset[Meaning | None] = frozenset({"max_tokens", "model_context_window_exceeded"})

_NOT_YET = ("", "null", "none", "not_finished")
"""What some write into each chunk in which the answer goes on."""

_SEVERITY: Mapping[Meaning | None, int] = {None: -1, "max_tokens": 1, "refusal": 2, "failed": 3} | {
    "model_context_window_exceeded": 1
}


def stop_reason(finish_reason: Any) -> Meaning | None:
    """`None`: the answer has not ended."""
    if finish_reason is None:
        return None
    if not isinstance(finish_reason, str):
        return "failed" if finish_reason else None
    word = finish_reason.strip().lower()
    return None if word in _NOT_YET else STOP_REASONS.get(word, "failed")


def later_finish_reason(earlier: Any, later: Any) -> Any:
    """What holds of two finish reasons of one answer: the later, unless the earlier is worse. Gateways end
    with a `stop` of their own what was cut or failed behind them."""
    if _SEVERITY.get(stop_reason(later), 0) < _SEVERITY.get(stop_reason(earlier), 0):
        return earlier
    return later
