"""A client that switches thinking off: what each back end is sent for it, over the engine that serves it."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from routeproxy.policy.provider_types import provider_type
from routeproxy.upstream.chat.profiles import profile_of
from routeproxy.upstream.failures import UpstreamFailure
from tests.backend import BackEnd, chunk, done, sse
from tests.translate.asking import ask as translate
from tests.translate.asking import user
from tests.upstream.litellm.asking import LITELLMS_WARNINGS, ask, call, target

pytestmark = LITELLMS_WARNINGS

DISABLED = {"thinking": {"type": "disabled"}}
TEMPLATE = {"chat_template_kwargs": {"enable_thinking": False}}
TEMPLATE_THINKING = {"chat_template_kwargs": {"thinking": False}}
REASONING = {"reasoning": {"enabled": False}}
NONE = {"reasoning_effort": "none"}
LOW = {"reasoning_effort": "low"}
NOTHING: Mapping[str, Any] = {}

SWITCHES = (
    "chat_template_kwargs",
    "disable_reasoning",
    "enable_thinking",
    "reasoning",
    "reasoning_effort",
    "think",
    "thinking",
)
"""The fields of all back ends that have to do with it, besides Gemini's `thinkingConfig`."""


def budget(tokens: int) -> Mapping[str, Any]:
    return {"thinkingConfig": {"thinkingBudget": tokens, "includeThoughts": False}}


def level(level: str) -> Mapping[str, Any]:
    return {"thinkingConfig": {"thinkingLevel": level, "includeThoughts": False}}


def sent(type: str, model: str, base_url: str | None = None, **more: Any) -> Mapping[str, Any]:
    """The switches in the body that goes out. `base_url`: the address that the profile goes by."""
    kind = provider_type(type)
    assert kind is not None
    by_engine = {engine: _sent(engine, type, model, base_url, **more) for engine in kind.engines}
    first, *others = by_engine.values()
    assert all(other == first for other in others), by_engine
    return first


def _sent(engine: Any, type: str, model: str, base_url: str | None, **more: Any) -> Mapping[str, Any]:
    with BackEnd(sse(chunk("a"), done())) as back_end:
        one = target(type, back_end.url, model, engine=engine, **more)
        profile = profile_of(target(type, base_url or back_end.url, model, engine=engine, **more))
        asked = translate(user("hi"), profile=profile, thinking={"type": "disabled"}, stream=True)
        with suppress(UpstreamFailure):  # no format but chat's can read this answer
            ask(call(one), asked.chat)
        return _switches(back_end.last.json)


def _switches(body: Mapping[str, Any]) -> Mapping[str, Any]:
    config = body.get("generationConfig", {})
    found = {name: body[name] for name in SWITCHES if name in body}
    return found | {name: config[name] for name in ("thinkingConfig",) if name in config}


@pytest.mark.parametrize(
    ("type", "model", "switch"),
    [
        # a server of which nothing is known: vLLM until 0.15 refuses `minimal`, and `none` until 0.12
        ("openai_compatible", "corp/large-3", NOTHING),
        ("hosted_vllm", "corp/large-3", NOTHING),
        ("openai_compatible", "Qwen/Qwen3-8B", TEMPLATE),
        ("openai_compatible", "Qwen/Qwen3.5-9B", TEMPLATE),
        ("hosted_vllm", "Qwen/Qwen3-8B", TEMPLATE),
        ("openai_compatible", "Qwen/Qwen3-30B-A3B-Instruct-2507", NOTHING),
        ("openai_compatible", "Qwen/Qwen3-30B-A3B-Thinking-2507", NOTHING),
        ("openai_compatible", "Qwen/Qwen2.5-7B-Instruct", NOTHING),
        ("openai_compatible", "zai-org/GLM-4.6", TEMPLATE),
        ("openai_compatible", "zai-org/GLM-5.3", NOTHING),
        ("openai_compatible", "deepseek-ai/DeepSeek-V3.1", TEMPLATE_THINKING),
        ("openai_compatible", "deepseek-ai/DeepSeek-R1", NOTHING),
        ("openai_compatible", "moonshotai/Kimi-K2.5", TEMPLATE_THINKING),
        ("openai_compatible", "MiniMaxAI/MiniMax-M2", NOTHING),
        (
            "openai_compatible",
            "MiniMaxAI/MiniMax-M3",
            {"chat_template_kwargs": {"thinking_mode": "disabled"}},
        ),
        ("openai_compatible", "openai/gpt-oss-20b", LOW),
        ("nvidia_nim", "nvidia/nemotron-3-nano-30b-a3b", TEMPLATE),
        ("nvidia_nim", "meta/llama-3.3-70b-instruct", NOTHING),
        # DeepSeek dies of `reasoning_effort: none` beside `thinking: disabled`
        ("deepseek", "deepseek-chat", DISABLED),
        ("deepseek", "deepseek-v4-pro", DISABLED),
        ("moonshot", "kimi-k2.6", DISABLED),
        ("moonshot", "kimi-k2.7-code", NOTHING),
        ("moonshot", "kimi-k3", LOW),
        ("moonshot", "moonshot-v1-8k", NOTHING),
        ("zai", "glm-4.6", DISABLED),
        ("zai", "glm-5.2", DISABLED),
        ("zai", "glm-5.3", LOW),
        ("minimax", "MiniMax-M3", DISABLED),
        ("minimax", "MiniMax-M2.5", NOTHING),
        ("minimax", "MiniMax-M3.1-Flash", NOTHING),
        ("dashscope", "qwen3.5-plus", {"enable_thinking": False}),
        ("dashscope", "qwen3-coder-plus", NOTHING),
        ("dashscope", "qwq-plus", NOTHING),
        # OpenAI
        ("openai", "gpt-4.1", NOTHING),
        ("openai", "nobody-knows", NOTHING),
        ("openai_compatible", "gpt-5-mini", {"reasoning_effort": "minimal"}),
        ("openai_compatible", "gpt-5.4", NONE),
        ("openai_compatible", "gpt-5-pro", NOTHING),
        ("openai_compatible", "gpt-5.3-codex", LOW),
        ("openai_compatible", "o3", LOW),
        # others that go by an effort, or have a switch of their own
        ("openrouter", "qwen/qwen3.5-397b", REASONING),
        ("openrouter", "anthropic/claude-sonnet-4.5", REASONING),
        ("openrouter", "openai/gpt-5-mini", {"reasoning_effort": "minimal"}),
        ("openrouter", "google/gemini-2.5-pro", {"reasoning": {"effort": "low"}}),
        ("openrouter", "minimax/minimax-m2", NOTHING),
        ("together_ai", "zai-org/GLM-5", REASONING),
        ("together_ai", "openai/gpt-oss-120b", LOW),
        ("together_ai", "meta-llama/Llama-3.3-70B", NOTHING),
        ("fireworks_ai", "accounts/fireworks/models/glm-5p2", NONE),
        ("mistral", "mistral-large-2411", NOTHING),
        ("mistral", "mistral-medium-latest", NONE),
        ("mistral", "magistral-medium-latest", NOTHING),
        ("groq", "qwen/qwen3-32b", NONE),
        ("groq", "openai/gpt-oss-120b", LOW),
        ("groq", "llama-3.3-70b-versatile", NOTHING),
        ("cerebras", "gpt-oss-120b", LOW),
        ("cerebras", "zai-glm-4.7", NONE),
        ("cerebras", "zai-glm-4.6", {"disable_reasoning": True}),
        ("xai", "grok-4", NOTHING),
        ("xai", "grok-4.3", NONE),
        ("xai", "grok-4.5", LOW),
        # Gemini: budgets, levels, and levels that not every generation has
        ("gemini", "gemini-2.0-flash", NOTHING),
        ("gemini", "gemini-2.5-flash", budget(0)),
        ("gemini", "gemini-2.5-flash-lite", budget(0)),
        ("gemini", "gemini-2.5-pro", budget(128)),
        ("gemini", "gemini-3-pro-preview", level("low")),
        ("gemini", "gemini-3-flash-preview", level("minimal")),
        ("gemini", "gemini-3.1-flash-lite", level("minimal")),
        ("gemini", "gemini-3.5-flash", level("minimal")),
        ("gemini", "gemini-3.7-flash", level("low")),
        ("gemini", "gemini-3.8-flash", level("low")),
        ("gemini", "gemini-4-argon", level("low")),
        ("gemini", "gemma-3-27b-it", NOTHING),
        # Ollama: `false` is for any model, but gpt-oss knows levels only
        ("ollama", "qwen3:8b", {"think": False}),
        ("ollama", "qwen3.5:9b", {"think": False}),
        ("ollama", "deepseek-r1:14b", {"think": False}),
        ("ollama", "llama3.3:70b", {"think": False}),
        ("ollama", "gpt-oss:20b", {"think": "low"}),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value),
)
def test_c22_thinking_is_switched_off_in_the_words_of_the_back_end(
    type: str, model: str, switch: Mapping[str, Any]
) -> None:
    assert sent(type, model) == switch


@pytest.mark.parametrize(
    ("base_url", "model", "switch"),
    [
        ("https://api.deepseek.com/v1", "deepseek-chat", DISABLED),
        ("https://api.z.ai/api/coding/paas/v4", "glm-4.6", DISABLED),
        ("https://open.bigmodel.cn/api/paas/v4", "glm-5", DISABLED),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "qwen3-max", {"enable_thinking": False}),
        ("https://openrouter.ai/api/v1", "z-ai/glm-4.6", REASONING),
        ("https://api.moonshot.cn/v1", "kimi-k2.6", DISABLED),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-2.5-flash-lite", NONE),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-3.7-flash", LOW),
        ("https://api.deepseek.com.evil.example/v1", "deepseek-chat", NOTHING),
    ],
)
def test_a_vendor_is_known_by_its_address_too(base_url: str, model: str, switch: Mapping[str, Any]) -> None:
    assert sent("openai_compatible", model, base_url) == switch


@pytest.mark.parametrize(
    ("model", "warned"), [("MiniMax-M2.5", True), ("MiniMax-M3", False)], ids=["cannot", "can"]
)
def test_who_cannot_be_switched_off_is_named(model: str, warned: bool) -> None:
    profile = profile_of(target("minimax", None, model))
    asked = translate(user("hi"), profile=profile, thinking={"type": "disabled"})
    assert ("this model cannot be told not to think" in asked.warnings) is warned


def test_over_responses_an_effort_switches_it_off() -> None:
    profile = profile_of(
        target("openai_compatible", "https://api.deepseek.com/v1", "deepseek-v4", api="responses")
    )
    assert profile.thinking_off == NONE


def test_rules_have_the_last_word() -> None:
    with BackEnd(sse(chunk("a"), done())) as back_end:
        one = target(
            "openai_compatible",
            back_end.url,
            "Qwen/Qwen3-8B",
            extra_body={"chat_template_kwargs": {"enable_thinking": True}},
        )
        asked = translate(user("hi"), profile=profile_of(one), thinking={"type": "disabled"}, stream=True)
        ask(call(one), asked.chat)
    assert back_end.last.json["chat_template_kwargs"] == {"enable_thinking": True}
