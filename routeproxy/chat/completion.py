"""Chat completions, whole or in chunks.

One struct serves both: a whole completion is a chunk whose choices carry `message` where a chunk carries
`delta`. Fields that back ends are known to fill with the wrong type (`arguments` as an object, `name` as
null, `content` as a list of parts) are `Any`: the reader of these structs must cope, never raise (wire.md
§2.5).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct


class FunctionDelta(Struct, frozen=True):
    name: Any = None
    arguments: Any = None


class ToolCallDelta(Struct, frozen=True):
    index: Any = None
    id: Any = None
    function: FunctionDelta | None = None
    extra_content: Any = None
    """Gemini's OpenAI-compatible API puts thought signatures here."""
    provider_specific_fields: Any = None
    """LiteLLM's place for the same."""


class Page(Struct, frozen=True):
    """What a search found. Its URL is the back end's own."""

    url: str
    title: str | None = None


class PageCitation(Struct, frozen=True):
    page: Page
    cited_text: str = ""
    """The part of the answer that rests on the page, where that is told."""


class WebSearchCall(Struct, frozen=True, kw_only=True):
    """A search that the back end made itself."""

    query: str | None
    """`None` where that is not told."""
    pages: tuple[Page, ...] | None
    """`None` where it is not told what was found: then only the citations tell."""
    failed: bool = False
    count: int = 1
    """How many searches it stands for."""


class Delta(Struct, frozen=True):
    """`delta` of a chunk, `message` of a whole completion."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    thinking_blocks: Any = None
    refusal: Any = None
    tool_calls: tuple[ToolCallDelta, ...] | None = None
    function_call: FunctionDelta | None = None
    provider_specific_fields: Any = None
    annotations: Any = None
    images: Any = None
    """OpenRouter's place for them."""
    audio: Any = None
    web_searches: Any = None
    """`WebSearchCall`s, in no back end's chat completions: readers of other formats put them here."""
    citations: Any = None
    """`PageCitation`s of the text so far, likewise."""


class Choice(Struct, frozen=True):
    index: Any = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: Any = None
    stop_reason: Any = None
    """vLLM: the stop string that matched."""
    matched_stop: Any = None
    """SGLang: the same, or the number of a token."""
    stop_str: Any = None
    """TabbyAPI: the same."""
    usage: Any = None
    """Moonshot's place for it."""
    error: Any = None
    """OpenRouter's place for what failed behind it."""


class PromptTokensDetails(Struct, frozen=True):
    cached_tokens: Any = None
    cache_write_tokens: Any = None
    cache_creation_tokens: Any = None
    created_cache_tokens: Any = None
    """vLLM's name for the same."""


class CompletionTokensDetails(Struct, frozen=True):
    reasoning_tokens: Any = None


class CompletionUsage(Struct, frozen=True):
    """Tokens. `prompt_tokens` includes the cached ones, `completion_tokens` the reasoning."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None
    prompt_cache_hit_tokens: Any = None
    """DeepSeek's name for cached tokens."""
    cache_creation_input_tokens: Any = None
    cache_read_input_tokens: Any = None
    cached_tokens: Any = None
    """Moonshot's place for them."""
    cost: Any = None
    """OpenRouter's: US dollars."""


class Chunk(Struct, frozen=True):
    choices: tuple[Choice, ...] = ()
    usage: CompletionUsage | None = None
    model: Any = None
    error: Any = None
    """Set by back ends that report a failure inside a 200."""
    x_groq: Any = None
    """Groq's own: its usage, and why it stopped early."""
    service_tier: Any = None


def coalesce_chunks(chunks: Sequence[Chunk]) -> Iterable[Chunk]:
    """The same completion in fewer chunks: neighbours that hold nothing but text become one."""
    return _coalesce(chunks) if len(chunks) > 1 else chunks


def _coalesce(chunks: Sequence[Chunk]) -> Iterator[Chunk]:
    texts: list[str] = []
    model = None
    for chunk in chunks:
        text = only_text(chunk)
        if text:
            model = chunk.model if not texts else model
            texts.append(text)
            if text[-1] < _SURROGATES:  # else it may be half a character: both halves are joined elsewhere
                continue
        if texts:
            yield _text_chunk("".join(texts), model)
            texts = []
        if not text:
            yield chunk
    if texts:
        yield _text_chunk("".join(texts), model)


_SURROGATES = "\ud800"


def only_text(chunk: Chunk) -> str | None:
    """The text of a chunk that holds nothing else."""
    if chunk.usage is not None or chunk.error is not None or len(chunk.choices) != 1:
        return None
    (choice,) = chunk.choices
    delta = choice.delta
    if choice.index or choice.finish_reason is not None or choice.stop_reason is not None or delta is None:
        return None
    content = delta.content
    return content if content.__class__ is str and delta == Delta(content) else None


def _text_chunk(text: str, model: Any) -> Chunk:
    return Chunk((Choice(delta=Delta(text)),), model=model)
