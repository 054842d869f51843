"""What each kind of back end and each model takes: the table of `quirks.py`, and what a table of models and
the rules lay over it."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from msgspec import Struct

from routeproxy.policy.providers import ModelFacts, Provider
from routeproxy.policy.targets import Target
from routeproxy.translate.profile import ModelProfile
from routeproxy.upstream.chat.quirks import GOOGLES_OPENAI, QUIRKS
from routeproxy.upstream.chat.searches import find_searcher


class Limits(Struct, frozen=True):
    """What a table of models says of a model. What it does not say is unknown, and so no limit."""

    max_output_tokens: int | None = None
    vision: bool = True


OVER_RESPONSES: Mapping[str, Any] = {
    "cache_marks": False,
    "images_in_tool_messages": True,
    "stop_limit": 0,
    "top_k": False,
}
"""Responses knows no stop strings, and takes images where tools answer (wire.md §1.2, §1.3)."""

GOOGLES_OWN_OPENAI = re.compile(r"^https://[\w.-]*\bgoogleapis\.com/.*\bopenai")
"""Google's OpenAI-compatible API: its thought signatures have a place of their own."""

VENDORS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"^https://([\w-]+\.)*{host}(?=[:/]|$)"), type)
    for host, type in (
        (r"api\.cerebras\.ai", "cerebras"),
        (r"api\.deepinfra\.com", "deepinfra"),
        (r"api\.deepseek\.com", "deepseek"),
        (r"api\.fireworks\.ai", "fireworks_ai"),
        (r"api\.groq\.com", "groq"),
        (r"api\.minimaxi?\.(?:io|com|chat)", "minimax"),
        (r"api\.mistral\.ai", "mistral"),
        (r"api\.moonshot\.(?:ai|cn)", "moonshot"),
        (r"api\.openai\.com", "openai"),
        (r"api\.perplexity\.ai", "perplexity"),
        (r"api\.together\.(?:xyz|ai)", "together_ai"),
        (r"api\.x\.ai", "xai"),
        (r"api\.z\.ai", "zai"),
        (r"ark\.[\w-]+\.volces\.com", "volcengine"),
        (r"dashscope[\w-]*\.aliyuncs\.com", "dashscope"),
        (r"integrate\.api\.nvidia\.com", "nvidia_nim"),
        (r"open\.bigmodel\.cn", "zai"),
        (r"openrouter\.ai", "openrouter"),
    )
)
"""Vendors by their addresses, for those who reach them as `openai_compatible`: their models take and refuse
the same there."""


# --- Responses

_REASONING = re.compile(r"^(o[134](-|$)|gpt-([5-9]|\d\d)|codex)")
_NOT_REASONING = re.compile(r"^gpt-5(\.\d+)?-(chat|search)")
_HAVE_RESPONSES = {"openai": "https://api.openai.com/v1", "azure": None}
"""The types that are known to have Responses: at this address, or wherever they are."""


def uses_responses(target: Target) -> bool:
    """Whether we ask over Responses: where the rules say so, and else for models that reason, which keep
    their thoughts from one turn to the next only there (platform.openai.com/docs/guides/reasoning)."""
    provider = target.provider
    if provider.api is not None or target.engine != "direct":
        return provider.api == "responses"
    if provider.type not in _HAVE_RESPONSES:
        return False
    if _HAVE_RESPONSES[provider.type] not in (None, provider.base_url):
        return False
    model = _bare_name(target)
    return bool(_REASONING.match(model)) and not _NOT_REASONING.match(model)


def _bare_name(target: Target) -> str:
    """The model's name in lower case, without a prefix."""
    return str(target.provider.options.get("base_model") or target.model).lower().rpartition("/")[2]


# --- the profile of a target


class Layer(NamedTuple):
    """What one source says of a target."""

    source: str
    changes: Mapping[str, Any]
    """Fields of `ModelProfile`."""


class Setting(NamedTuple):
    """A field of a profile: its value, and who says so."""

    value: Any
    source: str


def profile_of(target: Target, limits: Limits | None = None) -> ModelProfile:
    """What the target takes and what it refuses. `limits`: what a table of models says of it."""
    changes: dict[str, Any] = {}
    for layer in _layers(target, limits):
        changes |= layer.changes
    return ModelProfile(**changes)


def explain_profile(target: Target, limits: Limits | None = None) -> dict[str, Setting]:
    """The same, by field, each with the source that has the last word on it."""
    nothing_known = ModelProfile()
    settings = {
        name: Setting(getattr(nothing_known, name), "nothing is known of it")
        for name in ModelProfile.__struct_fields__
    }
    for layer in _layers(target, limits):
        settings |= {name: Setting(value, layer.source) for name, value in layer.changes.items()}
    return settings


def _layers(target: Target, limits: Limits | None) -> Iterator[Layer]:
    """Later ones win, field by field."""
    provider = target.provider
    quirks = _matching_quirks(_vendor(provider), _bare_name(target))
    yield from quirks
    if uses_responses(target):
        # Reasoning comes sealed for the account, the region or the model that wrote it, and any other refuses
        # the whole request for it (codex#17541, opencode#29879): so the family is the target itself.
        family = f"openai_responses {target.name}"
        file_urls = "fetched" if provider.engine == "direct" else "link"
        changes = {**OVER_RESPONSES, "family": family, "file_urls": file_urls}
        yield Layer("it is asked over Responses", changes)
        if _is_switched_by_other_fields(quirks):
            changes = {"thinking_off": {"reasoning_effort": "none"}}
            yield Layer("over Responses an effort switches thinking off", changes)
    searcher = find_searcher(_vendor(provider), _bare_name(target), over_responses=uses_responses(target))
    if searcher is not None and provider.engine == "direct":
        yield Layer(searcher.source, {"web_search": searcher.support})
    if limits is not None:
        yield Layer("the table of models", _known_limits(limits))
    yield Layer(f"`supports` of provider {provider.name}", dict.fromkeys(provider.supports, True))
    yield Layer(f"`models` of provider {provider.name}", _stated(provider.facts_of(target.model)))
    yield Layer(f"`transforms` of {target.name}", {"strip_attribution": target.transforms.strip_attribution})
    for name in ("mid_system", "without_vision"):
        if (value := getattr(provider, name)) is not None:
            yield Layer(f"`{name}` of provider {provider.name}", {name: value})


def _is_switched_by_other_fields(quirks: tuple[Layer, ...]) -> bool:
    """Whether thinking is switched off by fields of chat completions."""
    switches = [quirk.changes["thinking_off"] for quirk in quirks if "thinking_off" in quirk.changes]
    return bool(switches and switches[-1] and "reasoning_effort" not in switches[-1])


def _vendor(provider: Provider) -> str:
    """The type of the provider, or the one that its address belongs to."""
    address = provider.base_url or ""
    if provider.type != "openai_compatible":
        return provider.type
    if GOOGLES_OWN_OPENAI.match(address):
        return GOOGLES_OPENAI
    return next((type for pattern, type in VENDORS if pattern.match(address)), provider.type)


@lru_cache(1024)
def _matching_quirks(type: str, model: str) -> tuple[Layer, ...]:
    """Kept, since to go through all rows takes as long as the rest of a request's translation."""
    return tuple(Layer(quirk.source, quirk.changes) for quirk in QUIRKS if quirk.matches(type, model))


def _known_limits(limits: Limits) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if limits.max_output_tokens is not None:
        changes["max_output_tokens"] = limits.max_output_tokens
    if not limits.vision:
        changes["vision"] = False
    return changes


def _stated(facts: ModelFacts) -> dict[str, Any]:
    """What the rules say of this very model, which nobody knows better."""
    stated = {name: getattr(facts, name) for name in ("vision", "tools", "max_output_tokens")}
    if facts.thinking is False:
        stated |= {"efforts": (), "thinking_off": {}, "thinks_always": False}
    return {name: value for name, value in stated.items() if value is not None}
