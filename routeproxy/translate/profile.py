"""What one chat back end takes and what it refuses: quirks as data, so that no provider is named in the
translator.

`upstream/` fills a `ModelProfile` from its table of providers and models; `translate/` only reads it. The
defaults are those of an OpenAI-compatible server about which nothing is known: assumed able, and unlimited
(wire.md, "Decided").
"""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

Effort = Literal["low", "medium", "high", "xhigh", "max"]
"""How much a model is asked to think. To think at all or not is another question: `thinking_off`."""


class SearchSupport(Struct, frozen=True, kw_only=True):
    """What a back end's own web search takes."""

    beside_tools: bool = True
    """It can be offered together with the client's tools."""
    forced: bool = False
    allowed_domains: bool = False
    """Whole domains, with all below them."""
    blocked_domains: bool = False
    """Likewise."""
    max_uses: bool = False
    user_location: bool = False


class ModelProfile(Struct, frozen=True, kw_only=True):
    family: str = "openai"
    """Whose reasoning it takes back: another family drops a signature minted for this one (wire.md §1.6)."""

    # messages
    mid_system: Literal["keep", "user"] = "keep"
    """Whether a system turn in mid-conversation stays one, or becomes user text in `<system-reminder>`."""
    system_role: bool = True
    """Otherwise the system prompt stands at the beginning of the first user message."""
    user_after_tool: bool = True
    """Otherwise what a user says after tool results goes into the last of them (Mistral's order of roles)."""
    null_content: bool = True
    """Takes `content: null` where an assistant turn is nothing but calls; otherwise that is an empty text."""
    vision: bool = True
    without_vision: Literal["placeholder", "refuse"] = "placeholder"
    images_in_tool_messages: bool = False
    """OpenAI's tool messages are text only: images then follow in a user message."""
    files: bool = True
    """Takes `{type: file}` parts. Otherwise a PDF is handled as an image is without vision."""
    file_urls: Literal["link", "fetched"] = "link"
    """A document that is given by its URL: a link in a text, or fetched by the back end."""
    replays_reasoning: bool = False
    """DeepSeek, Kimi: `reasoning_content` must be there on each assistant turn with tool calls, if only as an
    empty string."""
    takes_reasoning: bool = True
    """Takes its own `reasoning_content` back; other back ends refuse the unknown field."""
    thought_signatures: Literal["provider_specific_fields", "extra_content"] = "provider_specific_fields"
    """Where a tool call's thought signature goes back: LiteLLM's place, or that of Google's OpenAI-compatible
    API."""
    prefill: bool = False
    """Continues an assistant message that ends the conversation."""
    empty_tool_result: str = ""
    """The text of an empty one: some back ends refuse an empty text."""
    tool_call_ids: Literal["any", "openai", "mistral"] = "openai"
    """`openai`: at most 40 characters. `mistral`: exactly nine letters and digits."""
    strip_attribution: bool = True
    cache_marks: bool = False
    """Takes Anthropic's `cache_control` on parts of messages and on tools: Claude and Gemini behind
    OpenRouter."""

    # tools
    schemas: Literal["openai", "gemini"] = "openai"
    tool_names: Literal["openai", "gemini"] = "openai"
    """Both: 64 characters of `A-Z a-z 0-9 _ -`; `gemini` must begin with a letter or an underscore."""
    tool_choice_required: bool = True
    """Otherwise `any` becomes `auto`, with a warning."""
    named_tool_choice: bool = True
    """Takes `tool_choice` with the name of a tool. Otherwise it is given only that tool, and has to call
    one."""
    tools: bool = True
    parallel_tool_calls: bool = True
    """Takes the parameter of this name."""
    web_search: SearchSupport | None = None
    """`None`: the back end has no search of its own."""

    # parameters
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    max_output_tokens: int | None = None
    """The model's own limit, if known: larger requests are cut to it."""
    sampling: bool = True
    """Takes `temperature` and `top_p`. OpenAI's reasoning models don't."""
    top_k: bool = False
    stop_limit: int | None = 4
    """How many stop strings it takes; the answer is searched for the others. `None`: any number."""
    efforts: tuple[Effort, ...] = ("low", "medium", "high")
    """What `reasoning_effort` takes, in rising order. Empty: the model does not reason, so nothing is
    sent."""
    thinking_off: Mapping[str, Any] = {}
    """The fields by which this back end is told not to think, in its own format. Empty: there is none, or
    none is known, so nothing is sent."""
    thinks_always: bool = False
    """It is known to think whatever it is told; `thinking_off` makes it think as little as it can."""
    structured_outputs: bool = True
    """Takes a JSON schema for its answer; otherwise the schema goes into the prompt."""
    json_mode: bool = False
    """Without `structured_outputs`: takes `response_format: json_object` beside the schema in the prompt."""
    structured_outputs_with_tools: bool = True
    """Otherwise the schema goes into the prompt when there are tools (Gemini)."""
    priority_tier: bool = False
    """`service_tier: "priority"` exists (for `speed: "fast"`)."""
    user: bool = True
    """Takes the field `user`."""
    prompt_cache_key: bool = False
    """Takes the field of this name: the session, so that a conversation meets its own cache."""
