"""Tokens, each counted once, whichever dialect told them."""

from typing import Any

import msgspec
import pytest

from routeproxy.chat.completion import CompletionUsage
from routeproxy.messages.token_usage import KINDS, TokenUsage, nanousd
from routeproxy.translate.usage import tokens_of_completion
from routeproxy.upstream.chat.gemini import _usage as usage_of_gemini
from routeproxy.upstream.chat.responses import _usage as usage_of_responses
from routeproxy.upstream.messages.stream_events import read_usage
from routeproxy.upstream.messages.usage import tokens_of


def of_chat(reported: dict[str, Any]) -> TokenUsage:
    usage = msgspec.convert(reported, CompletionUsage)
    return tokens_of_completion(usage, input_estimate=999, output_estimate=99)


def of_responses(reported: dict[str, Any]) -> TokenUsage:
    return tokens_of_completion(usage_of_responses(reported), input_estimate=999, output_estimate=99)


def of_gemini(reported: dict[str, Any]) -> TokenUsage:
    return tokens_of_completion(usage_of_gemini(reported), input_estimate=999, output_estimate=99)


def of_messages(reported: dict[str, Any]) -> TokenUsage:
    usage = read_usage(reported)
    assert usage is not None
    return tokens_of(usage)


DIALECTS: list[Any] = [
    pytest.param(
        of_chat,
        {
            "prompt_tokens": 100, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 60},
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
        {"input_uncached": 40, "cache_read": 60, "output": 30, "reasoning_output": 20},
        id="OpenAI: input has the cached in it, output the reasoning",
    ),
    pytest.param(
        of_chat,
        {
            "prompt_tokens": 100, "completion_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30}, "cost": 0.00123,
        },
        {
            "input_uncached": 10, "cache_read": 60, "cache_write_other": 30, "output": 30,
            "cost_nanousd": 1_230_000,
        },
        id="OpenRouter: its own cost",
    ),
    pytest.param(
        of_chat,
        {"prompt_tokens": 100, "completion_tokens": 30, "prompt_cache_hit_tokens": 64},
        {"input_uncached": 36, "cache_read": 64, "output": 30},
        id="DeepSeek",
    ),
    pytest.param(
        of_chat,
        {"prompt_tokens": 100, "completion_tokens": 30, "cached_tokens": 4},
        {"input_uncached": 96, "cache_read": 4, "output": 30},
        id="Moonshot",
    ),
    pytest.param(
        of_chat,
        {"prompt_tokens": 100, "completion_tokens": 30},
        {"input_uncached": 100, "output": 30},
        id="nothing of caches: not 0",
    ),
    pytest.param(
        of_chat,
        {},
        {"input_uncached": 999, "output": 99, "is_estimate": True},
        id="nothing told: an estimate",
    ),
    pytest.param(
        of_chat,
        {"prompt_tokens": 100, "completion_tokens": 0},
        {"input_uncached": 100, "output": 99, "is_estimate": True},
        id="a 0 for what was written all the same: an estimate",
    ),
    pytest.param(
        of_responses,
        {
            "input_tokens": 100, "output_tokens": 30, "input_tokens_details": {"cached_tokens": 60},
            "output_tokens_details": {"reasoning_tokens": 20},
        },
        {"input_uncached": 40, "cache_read": 60, "output": 30, "reasoning_output": 20},
        id="Responses",
    ),
    pytest.param(
        of_gemini,
        {
            "promptTokenCount": 100, "candidatesTokenCount": 30, "thoughtsTokenCount": 20,
            "cachedContentTokenCount": 60, "totalTokenCount": 150,
        },
        {"input_uncached": 40, "cache_read": 60, "output": 50, "reasoning_output": 20},
        id="Gemini: candidates without the thoughts",
    ),
    pytest.param(
        of_messages,
        {
            "input_tokens": 40, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            "output_tokens": 50, "output_tokens_details": {"thinking_tokens": 20},
            "server_tool_use": {"web_search_requests": 3}, "service_tier": "priority",
        },
        {
            "input_uncached": 40, "cache_read": 60, "cache_write_5m": 10, "cache_write_1h": 20, "output": 50,
            "reasoning_output": 20, "web_searches": 3, "service_tier": "priority",
        },
        id="Anthropic: input without the cache",
    ),
    pytest.param(
        of_messages,
        {"input_tokens": 40, "cache_creation_input_tokens": 30, "output_tokens": 5},
        {"input_uncached": 40, "cache_write_other": 30, "output": 5},
        id="Anthropic's form, without the times of the cache",
    ),
    pytest.param(
        of_messages,
        {
            "input_tokens": 40, "cache_creation_input_tokens": 30, "output_tokens": 5,
            "cache_creation": {"ephemeral_5m_input_tokens": 10},
        },
        {"input_uncached": 40, "cache_write_5m": 10, "cache_write_other": 20, "output": 5},
        id="a part of the cache with its time",
    ),
    pytest.param(
        of_messages,
        {"input_tokens": 4, "output_tokens": 5, "cache_creation": 7, "service_tier": ["x"], "cost": "free"},
        {"input_uncached": 4, "output": 5},
        id="what is nothing of the kind",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("read", "reported", "expected"), DIALECTS)
def test_each_token_is_counted_once_in_every_dialect(
    read: Any, reported: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert read(reported) == TokenUsage(**expected)


def test_a_total_is_the_sum_of_the_kinds() -> None:
    usage = TokenUsage(**dict(zip(KINDS, (1, 2, 4, 8, 16, 32), strict=True)), reasoning_output=30)
    assert usage.total == 63


@pytest.mark.parametrize(
    ("written", "nano"),
    [(0.1, 10**8), ("0.000000001", 1), (0, 0), (3, 3 * 10**9), (-1, None), ("x", None), (True, None),
     (float("nan"), None), (float("inf"), None), (None, None), ({}, None)],
)  # fmt: skip
def test_a_providers_own_cost_is_read_to_the_billionth_or_not_at_all(written: Any, nano: int | None) -> None:
    assert nanousd(written) == nano
