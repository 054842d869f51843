"""The parts of a reply: the message, its content blocks, its usage. The same structs serve whole replies and
stream events."""

from typing import Literal, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from routeproxy.messages.safeguards import SafeguardResult

StopReason = Literal[
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "compaction",
    "refusal",
    "model_context_window_exceeded",
]

EMPTY_OBJECT = Raw(b"{}")


OUR_MARK = "rp1"
"""What stands where Anthropic seals what its web search found, in results and citations of other searches."""
OUR_SEARCH = "srvtoolu_rp1_"
"""How the id of such a search begins."""


class WebSearchCitation(Struct, frozen=True, tag="web_search_result_location"):
    """A page that the text rests on."""

    url: str
    title: str | None
    cited_text: str
    """The part of the answer that the back end says rests on the page."""
    encrypted_index: str = OUR_MARK


class TextBlock(Struct, frozen=True, tag="text"):
    text: str
    citations: tuple[WebSearchCitation, ...] | UnsetType = UNSET


class ThinkingBlock(Struct, frozen=True, tag="thinking"):
    thinking: str
    signature: str


class ToolUseBlock(Struct, frozen=True, tag="tool_use"):
    id: str
    name: str
    input: Raw = EMPTY_OBJECT
    """JSON text, always an object."""


class ServerToolUseBlock(Struct, frozen=True, tag="server_tool_use"):
    """A tool that the back end ran itself."""

    id: str
    name: str
    input: Raw = EMPTY_OBJECT


class WebSearchResult(Struct, frozen=True, tag="web_search_result"):
    url: str
    title: str
    page_age: str | None = None
    encrypted_content: str = OUR_MARK
    """It looks sealed, as Anthropic's does: Claude Code takes what does not for the page's text."""


class WebSearchError(Struct, frozen=True, tag="web_search_tool_result_error"):
    error_code: str


class WebSearchResultBlock(Struct, frozen=True, tag="web_search_tool_result"):
    tool_use_id: str
    content: tuple[WebSearchResult, ...] | WebSearchError


ReplyBlock = TextBlock | ThinkingBlock | ToolUseBlock | ServerToolUseBlock | WebSearchResultBlock


class OutputTokensDetails(Struct, frozen=True):
    thinking_tokens: int


class ServerToolUsage(Struct, frozen=True, kw_only=True):
    web_search_requests: int
    web_fetch_requests: int = 0


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens. A count that is not known is left out: a 0 would overwrite the client's count (wire.md
    §2.4)."""

    input_tokens: int | UnsetType = UNSET
    cache_creation_input_tokens: int | UnsetType = UNSET
    cache_read_input_tokens: int | UnsetType = UNSET
    output_tokens: int
    output_tokens_details: OutputTokensDetails | UnsetType = UNSET
    server_tool_use: ServerToolUsage | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    speed: str | UnsetType = UNSET

    def updated(self, later: "Usage") -> "Usage":
        """This usage with the counts of `later`, which count everything so far."""
        return Usage(
            input_tokens=_first_known(later.input_tokens, self.input_tokens),
            cache_creation_input_tokens=_first_known(
                later.cache_creation_input_tokens, self.cache_creation_input_tokens
            ),
            cache_read_input_tokens=_first_known(later.cache_read_input_tokens, self.cache_read_input_tokens),
            output_tokens=later.output_tokens,
            output_tokens_details=_first_known(later.output_tokens_details, self.output_tokens_details),
            server_tool_use=_first_known(later.server_tool_use, self.server_tool_use),
            service_tier=_first_known(later.service_tier, self.service_tier),
            speed=_first_known(later.speed, self.speed),
        )


T = TypeVar("T")


def _first_known(count: T | UnsetType, fallback: T | UnsetType) -> T | UnsetType:
    return fallback if count is UNSET else count


class StopDetails(Struct, frozen=True, tag="refusal"):
    category: str | None = None
    explanation: str | None = None


class Message(Struct, frozen=True, kw_only=True, tag="message"):
    id: str
    role: Literal["assistant"] = "assistant"
    model: str
    content: tuple[ReplyBlock, ...] = ()
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None
    usage: Usage
    safeguard_results: tuple[SafeguardResult, ...] | UnsetType = UNSET

    @property
    def size(self) -> int:
        """About how many bytes its JSON has."""
        texts = (getattr(block, name, "") for block in self.content for name in ("text", "thinking", "input"))
        return sum(len(memoryview(text) if isinstance(text, Raw) else text) for text in texts)


_encoder = msgspec.json.Encoder()


def encode(value: Struct) -> bytes:
    """JSON, in UTF-8. Lone surrogates (half an emoji) are legal only as escapes: a value with one is
    ASCII."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return _encode_with_lone_surrogates(value)


def _encode_with_lone_surrogates(value: Struct) -> bytes:
    import json

    def decode_raw(part: object) -> object:
        if isinstance(part, Raw):
            return json.loads(bytes(part))
        raise TypeError(f"cannot encode {type(part).__name__}")

    builtins = msgspec.to_builtins(value, builtin_types=(Raw,))
    return json.dumps(builtins, separators=(",", ":"), default=decode_raw).encode()
