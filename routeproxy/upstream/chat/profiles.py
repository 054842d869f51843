"""What each kind of back end and each model takes: one table, whose rows name their source, and what the
rules lay over it. Nothing is withheld but for a known "no"."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from msgspec import Struct

from routeproxy.policy.providers import ModelFacts
from routeproxy.policy.targets import Target
from routeproxy.translate.profile import ModelProfile


class Limits(Struct, frozen=True):
    """What a table of models says of a model. What it does not say is unknown, and so no limit."""

    max_output_tokens: int | None = None
    vision: bool = True


class Quirk(Struct, frozen=True):
    """A row: for providers of these types (none named: of any), and models whose name matches, prefix and
    case apart."""

    types: tuple[str, ...]
    models: str
    changes: Mapping[str, Any]
    source: str

    def matches(self, type: str, model: str) -> bool:
        return (not self.types or type in self.types) and re.search(self.models, model) is not None


ANY = r""
GOOGLE = ("gemini", "vertex_ai", "vertex_ai_beta")
AWS = ("bedrock", "bedrock_mantle", "sagemaker_chat")
OPENAI = ("openai", "azure")

# Rows are laid over each other in this order, so the special stand after the general.
QUIRKS: tuple[Quirk, ...] = (
    # --- by provider
    Quirk(
        OPENAI,
        ANY,
        {
            "max_tokens_field": "max_completion_tokens",
            "priority_tier": True,
            "prompt_cache_key": True,
            "takes_reasoning": False,
        },
        "platform.openai.com/docs/api-reference/chat/create: max_tokens is deprecated, reasoning unknown",
    ),
    Quirk(
        GOOGLE,
        ANY,
        {
            "family": "gemini",
            "schemas": "gemini",
            "tool_names": "gemini",
            "images_in_tool_messages": True,
            "mid_system": "user",
            "parallel_tool_calls": False,
            "stop_limit": 5,
            "structured_outputs_with_tools": False,
            "top_k": True,
            "user": False,
        },
        "ai.google.dev/api/generate-content; LiteLLM vertex_ai/gemini hoists every system message",
    ),
    Quirk(
        GOOGLE,
        r"^gemini-[12]\b",
        {"images_in_tool_messages": False},
        "ai.google.dev/gemini-api/docs/function-calling: functionResponse.parts since Gemini 3",
    ),
    Quirk(
        GOOGLE,
        r"^claude",
        {
            "family": "anthropic",
            "schemas": "openai",
            "tool_names": "openai",
            "parallel_tool_calls": True,
            "stop_limit": None,
            "structured_outputs_with_tools": True,
        },
        "Claude on Vertex speaks Messages",
    ),
    Quirk(
        AWS,
        ANY,
        {
            "images_in_tool_messages": True,
            "mid_system": "user",
            "parallel_tool_calls": False,
            "top_k": True,
            "user": False,
        },
        "Converse: system apart from the messages; LiteLLM bedrock/chat/converse_transformation.py",
    ),
    Quirk(AWS, r"claude", {"family": "anthropic", "stop_limit": None}, "Claude on Bedrock"),
    Quirk(
        ("ollama",),
        ANY,
        {
            "efforts": (),
            "files": False,
            "parallel_tool_calls": False,
            "stop_limit": None,
            "tool_choice_required": False,
            "top_k": True,
            "user": False,
        },
        "docs.ollama.com/api/chat: options.stop, options.top_k; `think` is a 400 for a model that cannot, "
        "and the others think unasked; LiteLLM ollama_chat drops tool_choice",
    ),
    Quirk(
        ("ollama",),
        r"^(deepseek-(r1|v3\.\d)|gpt-oss|magistral|qwen3(?!\.)(?!.*(coder|embed|instruct|next|vl)))",
        {"efforts": ("none", "low", "medium", "high")},
        "docs.ollama.com/capabilities/thinking: those that take `think`",
    ),
    Quirk(
        (
            "together_ai",
            "hosted_vllm",
            "vllm",
            "fireworks_ai",
            "deepinfra",
            "huggingface",
            "lm_studio",
            "llamafile",
        ),
        ANY,
        {"top_k": True},
        "their API references name top_k beside OpenAI's parameters",
    ),
    Quirk(
        ("openrouter",),
        ANY,
        {
            "family": "openrouter",
            "efforts": ("none", "minimal", "low", "medium", "high", "xhigh"),
            "top_k": True,
        },
        "openrouter.ai/docs/api-reference/parameters and /use-cases/reasoning-tokens",
    ),
    Quirk(
        ("mistral", "codestral"),
        ANY,
        {"efforts": (), "stop_limit": None, "user": False},
        "docs.mistral.ai/api: fields that it does not know are 422",
    ),
    Quirk(
        ("mistral",),
        r"^(magistral|mistral-(small|medium)-(latest|26|27))",
        {"efforts": ("none", "high")},
        "docs.mistral.ai/capabilities/reasoning",
    ),
    Quirk(
        ("groq", "cerebras"),
        ANY,
        {"efforts": (), "takes_reasoning": False},
        "console.groq.com/docs/openai: unsupported message fields are 400, as is reasoning_effort for most",
    ),
    Quirk(
        ("deepseek",),
        ANY,
        {"efforts": ("none", "high"), "stop_limit": 16},
        "api-docs.deepseek.com; LiteLLM deepseek/chat: any effort turns thinking on",
    ),
    Quirk(("perplexity",), ANY, {"tools": False}, "docs.perplexity.ai/api-reference: no tools"),
    Quirk(
        ("xai",),
        r"^grok-([4-9]|code|build)",
        {"efforts": (), "stop_limit": 0},
        "docs.x.ai/docs/guides/reasoning: stop and reasoning_effort are refused",
    ),
    Quirk(("xai",), r"^grok-[23]", {"efforts": ()}, "the same: these do not reason"),
    Quirk(("xai",), r"^grok-3-mini", {"efforts": ("low", "high"), "stop_limit": 0}, "the same, but for mini"),
    Quirk(GOOGLE, r"^(gemma|learnlm)", {"efforts": ()}, "ai.google.dev: asking them to think is a 400"),
    # --- by model, wherever it is served
    Quirk(
        (),
        r"^(gpt-3|gpt-4-(0|1106-preview|32k|turbo-preview)|o1-(mini|preview)|o3-mini|gpt-oss)",
        {"vision": False},
        "platform.openai.com/docs/models: text in, text out",
    ),
    Quirk(("openai",), r"^gpt-4$", {"vision": False}, "the same; elsewhere it names any deployment"),
    Quirk(
        (),
        r"^(deepseek-(chat|reasoner|coder|r1|v2|v3)|kimi-k2(?![.\d])|glm-4\.[567](?!v)"
        r"|codestral|codellama|mixtral|qwq|qwen\d?(\.\d)?-?coder"
        r"|(meta-)?llama-?v?[23](?!\d)(?![.p-][24])(?!.*(vision|-vl)))",
        {"vision": False},
        'their model cards: text in, text out; `supports = ["vision"]` where a card is out of date',
    ),
    Quirk((), r"^(gpt-3|gpt-4|chatgpt-)", {"efforts": ()}, "these do not reason: reasoning_effort is 400"),
    Quirk(
        (),
        r"^o[134](-|$)",
        {
            "efforts": ("low", "medium", "high"),
            "max_tokens_field": "max_completion_tokens",
            "parallel_tool_calls": False,
            "sampling": False,
            "stop_limit": 0,
        },
        "platform.openai.com/docs/guides/reasoning: unsupported parameters",
    ),
    Quirk(
        (),
        r"^gpt-([5-9]|\d\d)",
        {
            "efforts": ("minimal", "low", "medium", "high"),
            "max_tokens_field": "max_completion_tokens",
            "sampling": False,
            "stop_limit": 0,
        },
        "platform.openai.com/docs/guides/latest-model: temperature, top_p, stop are refused",
    ),
    Quirk((), r"^gpt-5(\.1)?-codex", {"efforts": ("low", "medium", "high")}, "the same, for codex models"),
    Quirk((), r"^gpt-5-pro", {"efforts": ("high",)}, "the same: gpt-5-pro knows no other effort"),
    Quirk(
        (),
        r"^gpt-5\.1(?!-codex)",
        {"efforts": ("none", "low", "medium", "high")},
        "the same, from 5.1 on: none instead of minimal",
    ),
    Quirk(
        (),
        r"^gpt-(5\.[2-9]|[6-9]|\d\d)",
        {"efforts": ("none", "low", "medium", "high", "xhigh")},
        "the same, from 5.2 on: xhigh",
    ),
    Quirk(
        (), r"^gpt-5\.\d+-pro", {"efforts": ("medium", "high", "xhigh")}, "the same, for 5.2-pro and later"
    ),
    Quirk(
        (),
        r"^gpt-5(\.\d+)?-(chat|search)",
        {"efforts": (), "sampling": True},
        "the chat variants do not reason",
    ),
    Quirk((), r"^gpt-oss", {"efforts": ("low", "medium", "high")}, "the model card of gpt-oss"),
    Quirk(
        (),
        r"deepseek|kimi|moonshot",
        {"replays_reasoning": True},
        "api-docs.deepseek.com/guides/thinking_mode, platform.moonshot.ai: required beside tool_calls",
    ),
    Quirk(
        (),
        r"mistral|mixtral|codestral|ministral|magistral|devstral|pixtral",
        {"tool_call_ids": "mistral"},
        "mistral-common: a tool call id is nine letters and digits",
    ),
)

OVER_RESPONSES: Mapping[str, Any] = {"images_in_tool_messages": True, "stop_limit": 0, "top_k": False}
"""Responses knows no stop strings, and takes images where tools answer (wire.md §1.2, §1.3)."""

GOOGLES_OWN_OPENAI = re.compile(r"^https://[\w.-]*\bgoogleapis\.com/.*\bopenai")
"""Google's OpenAI-compatible API: its thought signatures have a place of their own."""


# --- Responses

_REASONING = re.compile(r"^(o[134](-|$)|gpt-([5-9]|\d\d)|codex)")
_NOT_REASONING = re.compile(r"^gpt-5(\.\d+)?-(chat|search)")
_HAVE_RESPONSES = {"openai": "https://api.openai.com/v1", "azure": None}
"""The types that are known to have Responses: at this address, or wherever they are."""


def uses_responses(target: Target) -> bool:
    """Whether we ask over Responses: where the rules say so, and else for models that reason, which keep
    their thoughts from one turn to the next only there (platform.openai.com/docs/guides/reasoning)."""
    provider = target.provider
    if provider.api is not None or provider.engine != "direct":
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
    yield from _matching_quirks(provider.type, _bare_name(target))
    if provider.type == "openai_compatible" and GOOGLES_OWN_OPENAI.match(provider.base_url or ""):
        changes = {"family": "gemini", "schemas": "gemini", "thought_signatures": "extra_content"}
        yield Layer("its address is Google's OpenAI-compatible API", changes)
    if uses_responses(target):
        # Reasoning comes sealed for the account, the region or the model that wrote it, and any other refuses
        # the whole request for it (codex#17541, opencode#29879): so the family is the target itself.
        changes = {**OVER_RESPONSES, "family": f"openai_responses {target.name}"}
        yield Layer("it is asked over Responses", changes)
    if limits is not None:
        yield Layer("the table of models", _known_limits(limits))
    yield Layer(f"`supports` of provider {provider.name}", dict.fromkeys(provider.supports, True))
    yield Layer(f"`models` of provider {provider.name}", _stated(provider.facts_of(target.model)))
    yield Layer(f"`transforms` of {target.name}", {"strip_attribution": target.transforms.strip_attribution})
    for name in ("mid_system", "without_vision"):
        if (value := getattr(provider, name)) is not None:
            yield Layer(f"`{name}` of provider {provider.name}", {name: value})


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
        stated["efforts"] = ()
    return {name: value for name, value in stated.items() if value is not None}
