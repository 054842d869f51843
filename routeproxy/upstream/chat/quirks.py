"""What each kind of back end and each model takes: the one table, whose rows name their source. Nothing is
withheld but for a known "no". (What else is laid over it: `profiles.py`.)"""

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct


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
NO_OUTPUT = "(no output)"
SERVERS = ("openai_compatible", "hosted_vllm", "vllm", "lm_studio", "llamafile", "nvidia_nim")
"""vLLM, SGLang, llama.cpp and what is built on them: a model's chat template gets `chat_template_kwargs`."""
GOOGLE = ("gemini", "vertex_ai", "vertex_ai_beta")
AWS = ("bedrock", "bedrock_mantle", "sagemaker_chat")
OPENAI = ("openai", "azure")
GOOGLES_OPENAI = "Google's OpenAI-compatible API"
"""Stands where a type does, for what is `openai_compatible` and Google's."""


def _effort_off(effort: str) -> Mapping[str, Any]:
    """Told by an effort not to think, or as little as it goes."""
    return {"thinking_off": {"reasoning_effort": effort}}


def _always_thinks(thinking_off: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """`thinking_off`: what makes it think as little as it can."""
    return {"thinks_always": True, "thinking_off": thinking_off or {}}


def _template_off(**arguments: Any) -> Mapping[str, Any]:
    return {"thinking_off": {"chat_template_kwargs": arguments}}


def _gemini_off(**config: Any) -> Mapping[str, Any]:
    return {"generationConfig": {"thinkingConfig": {**config, "includeThoughts": False}}}


_DISABLED = {"thinking_off": {"thinking": {"type": "disabled"}}}
_REASONING_DISABLED = {"thinking_off": {"reasoning": {"enabled": False}}}

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
        r"^(gemini-([3-9]|\d\d|(pro|flash|flash-lite)-latest)|claude)",
        {"images_in_tool_messages": True},
        "ai.google.dev/gemini-api/docs/function-calling: functionResponse.parts from Gemini 3 on",
    ),
    Quirk(
        GOOGLE,
        r"^gemini-(1|2\.0)",
        {"efforts": ()},
        "ai.google.dev/gemini-api/docs/models: before 2.5 they do not think, and thinkingConfig is a 400",
    ),
    Quirk(
        GOOGLE,
        r"^gemini-(2\.5-flash|robotics-er-1)",
        {"thinking_off": _gemini_off(thinkingBudget=0)},
        "ai.google.dev/gemini-api/docs/thinking: 0 switches it off; flash-lite has it off until a budget "
        "switches it on",
    ),
    Quirk(
        GOOGLE,
        r"^gemini-2\.5-pro",
        _always_thinks(_gemini_off(thinkingBudget=128)),
        "the same: cannot be switched off, 128 is the least",
    ),
    Quirk(
        GOOGLE,
        r"^gemini-([3-9]|\d\d|pro-latest|flash-latest)",
        _always_thinks(_gemini_off(thinkingLevel="low")),
        "ai.google.dev/gemini-api/docs/thinking: `low` is the least for Pro, and from 3.7 on for Flash, "
        "which calls `minimal` an error (oh-my-pi#10543, litellm#41201)",
    ),
    Quirk(
        GOOGLE,
        r"^gemini-(3(\.[0-6])?-flash|3[\d.]*-flash-(lite|image)|flash-lite-latest)",
        {"thinking_off": _gemini_off(thinkingLevel="minimal"), "thinks_always": False},
        "the same: Flash up to 3.6 and every Flash-Lite of 3 have `minimal`, with which they hardly think",
    ),
    Quirk(GOOGLE, r"^gemini-3-pro", {"efforts": ("low", "high")}, "the same: no `medium`"),
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
        (GOOGLES_OPENAI,),
        ANY,
        {"family": "gemini", "schemas": "gemini", "thought_signatures": "extra_content"},
        "ai.google.dev/gemini-api/docs/openai; its thought signatures have a place of their own",
    ),
    Quirk(
        (GOOGLES_OPENAI,),
        r"^gemini-2\.5-flash",
        _effort_off("none"),
        "the same: efforts amount to budgets and levels",
    ),
    Quirk(
        (GOOGLES_OPENAI,),
        r"^gemini-(2\.5-pro|[3-9]|\d\d)",
        _always_thinks({"reasoning_effort": "low"}),
        "the same",
    ),
    Quirk(
        (GOOGLES_OPENAI,),
        r"^gemini-3(\.[0-6])?-flash|^gemini-3[\d.]*-flash-lite",
        {**_effort_off("minimal"), "thinks_always": False},
        "the same",
    ),
    Quirk(
        AWS,
        ANY,
        {
            "empty_tool_result": NO_OUTPUT,
            "images_in_tool_messages": True,
            "mid_system": "user",
            "parallel_tool_calls": False,
            "top_k": True,
            "user": False,
        },
        "Converse: no empty texts, system apart from the messages; LiteLLM "
        "bedrock/chat/converse_transformation.py",
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
            "thinking_off": {"think": False},
            "tool_choice_required": False,
            "top_k": True,
            "user": False,
        },
        "docs.ollama.com/api/chat: options.stop, options.top_k; `think: true` is a 400 for a model that "
        "cannot, `think: false` is for none, and the others think unasked; LiteLLM ollama_chat drops "
        "tool_choice",
    ),
    Quirk(
        ("ollama",),
        r"^(deepseek-(r1|v3\.\d)|gpt-oss|magistral|qwen3(?!\.)(?!.*(coder|embed|instruct|next|vl)))",
        {"efforts": ("low", "medium", "high")},
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
            "efforts": ("low", "medium", "high", "xhigh"),
            "top_k": True,
            **_REASONING_DISABLED,
        },
        "openrouter.ai/docs/api-reference/parameters and /use-cases/reasoning-tokens",
    ),
    Quirk(
        ("openrouter",),
        r"^(claude|gemini|qwen)",
        {"cache_marks": True},
        "openrouter.ai/docs/features/prompt-caching: these cache up to `cache_control`, as Anthropic has it",
    ),
    Quirk(
        ("openrouter",),
        r"^gemini-(2\.5-pro|[3-9])",
        _always_thinks({"reasoning": {"effort": "low"}}),
        "the same: an endpoint whose reasoning is mandatory refuses to have it disabled",
    ),
    Quirk(
        ("openrouter",),
        r"^grok-(4(-0709|\.[5-9])?$|code|build)",
        _always_thinks(),
        "the same",
    ),
    Quirk(
        ("mistral", "codestral"),
        ANY,
        {"efforts": (), "mid_system": "user", "stop_limit": None, "user": False, "user_after_tool": False},
        "docs.mistral.ai/api: fields that it does not know are 422; mistral-common: after a tool only the "
        "assistant may speak, and a system turn may not be the last (avante.nvim#2562, zed#31491)",
    ),
    Quirk(
        ("mistral",),
        r"^(mistral-(small|medium)(-(latest|2[67]\d\d|3[-.]5))?$|mistral-(large-4|medium-3)|devstral-\w*-?latest)",
        {"efforts": ("high",), **_effort_off("none")},
        "docs.mistral.ai/capabilities/reasoning/adjustable, LiteLLM's table: none or high",
    ),
    Quirk(
        ("mistral",),
        r"^magistral",
        _always_thinks(),
        "docs.mistral.ai/capabilities/reasoning/native: always",
    ),
    Quirk(
        ("groq", "cerebras"),
        ANY,
        {"efforts": (), "takes_reasoning": False},
        "console.groq.com/docs/openai: unsupported message fields are 400, as is reasoning_effort for most",
    ),
    Quirk(
        ("groq",),
        r"^qwen-?3",
        _effort_off("none"),
        "console.groq.com/docs/reasoning: Qwen 3 takes none or default",
    ),
    Quirk(
        ("cerebras",),
        r"^(zai-glm-4\.[7-9]|zai-glm-[5-9]|qwen-3\.)",
        {"efforts": ("low", "medium", "high"), **_effort_off("none")},
        "inference-docs.cerebras.ai/capabilities/reasoning",
    ),
    Quirk(
        ("cerebras",),
        r"^zai-glm-4\.6",
        {"thinking_off": {"disable_reasoning": True}},
        "the same, before reasoning_effort",
    ),
    Quirk(
        ("deepseek",),
        ANY,
        {
            "efforts": ("low", "high", "max"),
            "json_mode": True,
            "stop_limit": 16,
            "structured_outputs": False,
            **_DISABLED,
        },
        "api-docs.deepseek.com/guides/thinking_mode: `reasoning_effort` is no switch, and beside `thinking: "
        "disabled` it is a 400; /guides/json_mode: json_object only",
    ),
    Quirk(
        ("moonshot",),
        r"^kimi-k2\.[56]",
        {"efforts": (), **_DISABLED},
        "platform.kimi.ai/docs/guide/use-kimi-k2-thinking-model; no graduated effort",
    ),
    Quirk(
        ("zai",),
        r"^glm-(4\.[5-9]|5(?!\.[3-9]))",
        _DISABLED,
        "docs.z.ai/guides/capabilities/thinking-mode: from 4.5 on, until 5.3",
    ),
    Quirk(
        ("zai",),
        ANY,
        {"empty_tool_result": NO_OUTPUT, "json_mode": True, "structured_outputs": False},
        "docs.z.ai/guides/capabilities/struct-output: json_object; an empty content is error 1213 (pi#3365)",
    ),
    Quirk(
        ("moonshot", "minimax"),
        ANY,
        {"empty_tool_result": NO_OUTPUT},
        "an empty content is a 400 (litellm#42186, pi#3365)",
    ),
    Quirk(
        ("xai",),
        ANY,
        {"empty_tool_result": NO_OUTPUT, "null_content": False},
        "langchain#34140: each message must have a content element, `null` is none",
    ),
    Quirk(
        (
            *("cerebras", "codestral", "dashscope", "deepinfra", "deepseek", "fireworks_ai", "groq"),
            *("hosted_vllm", "huggingface", "llamafile", "lm_studio", "minimax", "mistral", "moonshot"),
            *("nvidia_nim", "perplexity", "sambanova", "together_ai", "vllm", "volcengine", "xai", "zai"),
        ),
        ANY,
        {"files": False},
        "their API references know texts and images; a part of type `file` is a 400 (vLLM: unknown part)",
    ),
    Quirk(
        ("openai_compatible", "llamafile", "lm_studio", "ollama"),
        ANY,
        {"named_tool_choice": False},
        "llama.cpp tools/server/README.md: tool_choice is a word, and an object is ignored; LM Studio calls "
        "it an error. One tool that is required means the same everywhere",
    ),
    Quirk(
        ("minimax",),
        r"^minimax-m3(?!\.)",
        {"efforts": (), **_DISABLED},
        "platform.minimax.io: M3 can be disabled; what came before ignores that, and later it is a 400",
    ),
    Quirk(
        ("volcengine",),
        r"^(doubao-seed|deepseek-v[34]|kimi-k2-[56]|glm-)",
        _DISABLED,
        "volcengine.com/docs/82379/1449737: thinking.type",
    ),
    Quirk(
        ("dashscope",),
        r"^(qwen-?3|qwen-(plus|flash|turbo|max)|deepseek-v[34]|glm-(4\.[5-9]|5(?!\.[3-9]))|kimi-k2\.[56])"
        r"(?!.*(thinking|instruct|coder))",
        {"thinking_off": {"enable_thinking": False}},
        "help.aliyun.com/en/model-studio/deep-thinking: hybrid models",
    ),
    Quirk(
        ("together_ai",),
        r"^(deepseek-v[34]|glm-(4\.[5-9]|5(?!\.[3-9]))|kimi-k2\.[56]|qwen3\.|gemma-4|minimax-m3(?!\.))",
        _REASONING_DISABLED,
        "docs.together.ai/docs/inference/chat/reasoning: hybrid models",
    ),
    Quirk(
        ("together_ai",),
        r"^qwen3-(?!.*(thinking|instruct|coder|next))",
        _template_off(enable_thinking=False),
        "the same",
    ),
    Quirk(
        ("fireworks_ai",),
        r"^(deepseek-v|glm-(4p[5-9]|5(?!p[3-9]))|kimi-k2p[56]|qwen3(?!.*(thinking|instruct|coder)))",
        _effort_off("none"),
        "docs.fireworks.ai/guides/reasoning: reasoning_effort none",
    ),
    Quirk(
        ("deepinfra",),
        r"^(deepseek-v[34]|glm-(4\.[5-9]|5(?!\.[3-9]))|kimi-k2\.[56]|qwen3(?!.*(thinking|instruct|coder|next)))",
        _effort_off("none"),
        "docs.deepinfra.com/chat/reasoning: reasoning_effort none",
    ),
    Quirk(("perplexity",), ANY, {"tools": False}, "docs.perplexity.ai/api-reference: no tools"),
    Quirk(
        ("xai",),
        r"^grok-([4-9]|code|build)",
        {"efforts": (), "stop_limit": 0},
        "docs.x.ai/docs/guides/reasoning: stop and reasoning_effort are refused",
    ),
    Quirk(("xai",), r"^grok-[23]", {"efforts": ()}, "the same: these do not reason"),
    Quirk(
        ("xai",),
        r"^grok-3-mini",
        {"efforts": ("low", "high"), "stop_limit": 0, **_always_thinks({"reasoning_effort": "low"})},
        "the same, but for mini",
    ),
    Quirk(
        ("xai",),
        r"^grok-4\.3",
        {"efforts": ("low", "medium", "high"), **_effort_off("none")},
        "docs.x.ai/developers/model-capabilities/text/reasoning: 4.3 takes none",
    ),
    Quirk(
        ("xai",),
        r"^grok-(4\.[5-9](?!\d)|[5-9])",
        {"efforts": ("low", "medium", "high"), **_always_thinks({"reasoning_effort": "low"})},
        "the same: from 4.5 on it cannot be disabled",
    ),
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
            **_always_thinks({"reasoning_effort": "low"}),
        },
        "platform.openai.com/docs/guides/reasoning: unsupported parameters",
    ),
    Quirk(
        (),
        r"^gpt-([5-9]|\d\d)",
        {
            "efforts": ("low", "medium", "high"),
            "max_tokens_field": "max_completion_tokens",
            "sampling": False,
            "stop_limit": 0,
            **_effort_off("minimal"),
        },
        "platform.openai.com/docs/guides/latest-model: temperature, top_p, stop are refused",
    ),
    Quirk((), r"^gpt-5-pro", {"efforts": ("high",), **_always_thinks()}, "the same: it knows no other"),
    Quirk((), r"^gpt-5\.1", _effort_off("none"), "the same, from 5.1 on: none instead of minimal"),
    Quirk(
        (),
        r"^gpt-(5\.[2-9]|[6-9]|\d\d)",
        {"efforts": ("low", "medium", "high", "xhigh"), **_effort_off("none")},
        "the same, from 5.2 on: xhigh",
    ),
    Quirk(
        (),
        r"^gpt-5(\.\d+)?-codex",
        _always_thinks({"reasoning_effort": "low"}),
        "the same: codex models start at low",
    ),
    Quirk(
        (),
        r"^gpt-5\.\d+-pro",
        {"efforts": ("medium", "high", "xhigh"), **_always_thinks({"reasoning_effort": "medium"})},
        "the same, for 5.2-pro and later",
    ),
    Quirk(
        (),
        r"^gpt-6",
        {"efforts": ("low", "medium", "high", "xhigh", "max")},
        "the same, from 6 on: max",
    ),
    Quirk(
        (),
        r"^gpt-6(-astra|-rosalind|\.1-(sol|terra))",
        _always_thinks({"reasoning_effort": "low"}),
        "LiteLLM's table: no `none`",
    ),
    Quirk(
        (),
        r"^gpt-5(\.\d+)?-(chat|search)",
        {"efforts": (), "sampling": True, "thinking_off": {}},
        "the chat variants do not reason",
    ),
    Quirk(
        (),
        r"^gpt-oss",
        {"efforts": ("low", "medium", "high"), **_always_thinks({"reasoning_effort": "low"})},
        "the model card of gpt-oss",
    ),
    Quirk(
        ("ollama",),
        r"^gpt-oss",
        {"thinking_off": {"think": "low"}},
        "docs.ollama.com/capabilities/thinking: levels, and false is ignored",
    ),
    Quirk(
        SERVERS,
        r"(^|[_-])(qwen-?3|glm-(4\.[5-9]|5(?!\.[3-9]))|gemma-4|nemotron-3|ernie-4\.5|smollm3)"
        r"(?!.*(thinking|instruct|coder|next))",
        _template_off(enable_thinking=False),
        "docs.vllm.ai/en/latest/features/reasoning_outputs, qwen.readthedocs.io: a switch of the template",
    ),
    Quirk(
        SERVERS,
        r"^(deepseek-v(3\.[1-9]|[4-9])|kimi-k2\.[56]|granite-(3\.[23]|4))",
        _template_off(thinking=False),
        "the same, under another name",
    ),
    Quirk(
        SERVERS,
        r"^minimax-m3(?!\.)",
        _template_off(thinking_mode="disabled"),
        "docs.vllm.ai/en/latest/api/vllm/reasoning/minimax_m3_reasoning_parser",
    ),
    Quirk(
        (),
        r"^(deepseek-r1|qwq|minimax-m2|(qwen|kimi|glm|ernie).*-thinking|glm-5\.[3-9]|kimi-(k2\.7|k[3-9])"
        r"|minimax-m3\.)",
        _always_thinks(),
        "their model cards: always; z.ai and Kimi refuse to be told otherwise, MiniMax from 3.1 on too",
    ),
    Quirk(
        ("zai", "moonshot", "together_ai", "fireworks_ai", "openrouter", "mistral"),
        r"^(zai-)?(glm-5[.p-][3-9]|kimi-k[3-9])",
        {"efforts": ("low", "high", "max"), **_always_thinks({"reasoning_effort": "low"})},
        "docs.z.ai, platform.kimi.ai/docs/guide/use-thinking-effort: low is the least",
    ),
    Quirk(
        ("ollama",),
        r"^(deepseek-r1|qwq|kimi|glm|minimax|qwen.*thinking)",
        {"thinking_off": {"think": False}, "thinks_always": False},
        "docs.ollama.com/capabilities/thinking: its templates have a switch of their own, or ignore it",
    ),
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
    Quirk(
        SERVERS,
        r"mistral|mixtral|codestral|ministral|magistral|devstral|pixtral",
        {"mid_system": "user", "user_after_tool": False},
        "their chat templates: roles must alternate after one system message (crush#279, pi-neuralwatt#12)",
    ),
    Quirk(
        (*SERVERS, "ollama", "dashscope"),
        r"(^|[_-])qwen-?3\.[5-9]",
        {"mid_system": "user"},
        "their chat template: the system message must be at the beginning (vllm#41114, ollama#17774)",
    ),
    Quirk(
        SERVERS,
        r"(^|[_-])gemma-?([123](?!\d)|\d+b)",
        {"system_role": False, "mid_system": "user"},
        "their chat template knows no system role before Gemma 4",
    ),
    Quirk(
        (),
        r"^(gpt-3|gpt-4-(0|1106|turbo)|gpt-4$|gpt-4o-2024-05)",
        {"json_mode": True, "structured_outputs": False},
        "platform.openai.com/docs/guides/structured-outputs: from gpt-4o-2024-08-06 on",
    ),
)
