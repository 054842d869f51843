"""The requests that clients may send to `/v1/messages` and `/v1/messages/count_tokens`.

The same bytes are decoded in two ways. `Envelope` holds the few fields that a rule may look at and leaves the
rest as bytes: it is all that a pass-through needs, so a block type that was invented yesterday goes through.
`MessagesRequest` is the whole request, decoded only when a target does not speak Messages. Unknown *fields*
are ignored in both, an unknown *block type* is an error in the second.

`null` means absent everywhere (wire.md §1.1), so optional fields default to `None`.
"""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct
from msgspec.json import Decoder

from routeproxy.messages.decoding import decode_leniently

NULL = Raw(b"null")

OLDEST_VERSION = "2023-06-01"
"""The version that a missing `anthropic-version` stands for."""

UNTIL_NEXT_USER_MESSAGE = "next_user_message"

ATTRIBUTION = "x-anthropic-billing-header"
"""How Claude Code's first system block begins. Its nonce changes with every request."""

NonNegative = Annotated[int, Meta(ge=0)]


class ToolHead(Struct, frozen=True):
    """The fields of a tool that rules may look at."""

    name: str | None = None
    type: str | None = None


class ThinkingHead(Struct, frozen=True):
    """The field of `thinking` that rules may look at."""

    type: str


class OutputHead(Struct, frozen=True):
    """The field of `output_config` that rules may look at."""

    effort: str | None = None


class Metadata(Struct, frozen=True):
    user_id: str | None = None


class Envelope(Struct, frozen=True):
    """The fields of a request that rules may look at; everything else is still bytes."""

    model: str
    messages: Raw
    max_tokens: NonNegative | None = None
    stream: bool | None = None
    system: Raw = NULL
    tools: tuple[ToolHead, ...] | None = None
    thinking: ThinkingHead | None = None
    output_config: OutputHead | None = None
    metadata: Metadata | None = None


# --- sources of images and documents


class Base64Source(Struct, frozen=True, tag="base64"):
    media_type: str
    data: str


class UrlSource(Struct, frozen=True, tag="url"):
    url: str


class FileSource(Struct, frozen=True, tag="file"):
    file_id: str


class TextSource(Struct, frozen=True, tag="text"):
    data: str
    media_type: str = "text/plain"


class ContentSource(Struct, frozen=True, tag="content"):
    content: "str | tuple[Block, ...]"


ImageSource = Base64Source | UrlSource | FileSource
DocumentSource = Base64Source | UrlSource | FileSource | TextSource | ContentSource


# --- content blocks


class Text(Struct, frozen=True, tag="text"):
    text: str
    citations: tuple[Raw, ...] | None = None
    cache_control: Raw = NULL
    """As the client wrote it, here and on other blocks: for back ends that have the same marks."""


class Image(Struct, frozen=True, tag="image"):
    source: ImageSource
    cache_control: Raw = NULL


class CitationsConfig(Struct, frozen=True):
    enabled: bool | None = None


class Document(Struct, frozen=True, tag="document"):
    source: DocumentSource
    title: str | None = None
    context: str | None = None
    citations: CitationsConfig | None = None
    cache_control: Raw = NULL


class SearchResult(Struct, frozen=True, tag="search_result"):
    source: str
    title: str
    content: tuple[Text, ...]
    cache_control: Raw = NULL


class Thinking(Struct, frozen=True, tag="thinking"):
    thinking: str
    signature: str | None = None


class RedactedThinking(Struct, frozen=True, tag="redacted_thinking"):
    data: str = ""


class ToolUse(Struct, frozen=True, tag="tool_use"):
    id: str
    name: str
    input: Raw
    """The JSON text as the client wrote it: key order is part of a prompt cache's key."""
    cache_control: Raw = NULL


class ToolResult(Struct, frozen=True, tag="tool_result"):
    tool_use_id: str
    content: "str | tuple[Block, ...] | None" = None
    is_error: bool | None = None
    cache_control: Raw = NULL


class ToolReference(Struct, frozen=True, tag="tool_reference"):
    tool_name: str


class ServerToolUse(Struct, frozen=True, tag="server_tool_use"):
    id: str
    name: str
    input: Raw = NULL


class McpToolUse(Struct, frozen=True, tag="mcp_tool_use"):
    id: str
    name: str
    input: Raw = NULL


class ServerToolResult(Struct, frozen=True):
    """The result of a tool that Anthropic ran. History only: no client answers a `srvtoolu_…` id."""

    tool_use_id: str
    content: Raw = NULL


class WebSearchResult(ServerToolResult, frozen=True, tag="web_search_tool_result"): ...


class WebFetchResult(ServerToolResult, frozen=True, tag="web_fetch_tool_result"): ...


class CodeExecutionResult(ServerToolResult, frozen=True, tag="code_execution_tool_result"): ...


class BashCodeExecutionResult(ServerToolResult, frozen=True, tag="bash_code_execution_tool_result"): ...


class TextEditorCodeExecutionResult(
    ServerToolResult, frozen=True, tag="text_editor_code_execution_tool_result"
): ...


class ToolSearchResult(ServerToolResult, frozen=True, tag="tool_search_tool_result"): ...


class AdvisorResult(ServerToolResult, frozen=True, tag="advisor_tool_result"): ...


class McpToolResult(ServerToolResult, frozen=True, tag="mcp_tool_result"): ...


class Compaction(Struct, frozen=True, tag="compaction"):
    content: str | None = None
    tool_changes: "tuple[ToolAddition | ToolRemoval, ...] | None" = None
    """Those of the turns that it stands for."""


class Fallback(Struct, frozen=True, tag="fallback"): ...


class ContainerUpload(Struct, frozen=True, tag="container_upload"):
    file_id: str | None = None


class McpToolListing(Struct, frozen=True, tag="mcp_tool_listing"): ...


class BrowserState(Struct, frozen=True, tag="browser_state"):
    """What a browser looks like after a call: part of that call's result."""

    tabs: tuple[Raw, ...] = ()
    state_changes: tuple[Raw, ...] | None = None


# --- changes of the tools in mid-conversation (betas `mid-conversation-tool-changes`, `inline-tools`)


class ToolByName(Struct, frozen=True, tag="tool_reference"):
    """A tool of `tools`, or one that an earlier turn defined."""

    name: str


class McpToolByName(Struct, frozen=True, tag="mcp_tool_reference"):
    server_name: str
    name: str


class McpToolsetByName(Struct, frozen=True, tag="mcp_toolset_reference"):
    server_name: str


class ToolDefinition(Struct, frozen=True, tag="tool_definition"):
    """A tool that `tools` does not have."""

    definition: "Tool"


class ToolAddition(Struct, frozen=True, tag="tool_addition"):
    """From here on the model may see the tool."""

    tool: ToolByName | McpToolByName | McpToolsetByName | ToolDefinition


class ToolRemoval(Struct, frozen=True, tag="tool_removal"):
    tool: ToolByName | McpToolByName | McpToolsetByName


Block = (
    Text
    | Image
    | Document
    | SearchResult
    | Thinking
    | RedactedThinking
    | ToolUse
    | ToolResult
    | ToolReference
    | ServerToolUse
    | McpToolUse
    | WebSearchResult
    | WebFetchResult
    | CodeExecutionResult
    | BashCodeExecutionResult
    | TextEditorCodeExecutionResult
    | ToolSearchResult
    | AdvisorResult
    | McpToolResult
    | Compaction
    | Fallback
    | ContainerUpload
    | McpToolListing
    | BrowserState
    | ToolAddition
    | ToolRemoval
)


class OutputFormat(Struct, frozen=True):
    type: str
    schema: Raw = NULL


class OutputConfig(Struct, frozen=True):
    effort: str | None = None
    format: OutputFormat | None = None
    task_budget: Raw = NULL


class Turn(Struct, frozen=True):
    """One entry of `messages`. `role` may be `system` at any index (wire.md §0.3)."""

    role: str
    content: str | tuple[Block, ...] | None = None
    """Only a system turn may have none: it sets `output_config`."""
    output_config: OutputConfig | None = None
    clear_at: str | None = None
    """How long the text of a system turn holds; for good, unless it is `UNTIL_NEXT_USER_MESSAGE`."""


class Tool(Struct, frozen=True):
    name: str = ""
    """Sets of tools have none."""
    type: str | None = None
    """`None` and `custom`: a tool of the client. Any other type is a tool that Anthropic defines,
    `bash_20250124` for example."""
    description: Raw = NULL
    """A JSON string, as the client wrote it: half of what Claude Code sends, and nobody here reads it."""
    input_schema: Raw = NULL
    input_examples: tuple[Raw, ...] | None = None
    cache_control: Raw = NULL
    defer_loading: bool | None = None
    strict: bool | None = None
    allowed_domains: tuple[str, ...] | None = None
    """Of web search and web fetch, as the next three."""
    blocked_domains: tuple[str, ...] | None = None
    max_uses: int | None = None
    user_location: dict[str, Raw] | None = None


class ToolChoice(Struct, frozen=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(Struct, frozen=True):
    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: int | None = None
    display: str | None = None


class ContextManagement(Struct, frozen=True):
    edits: tuple[Raw, ...] | None = None


class SystemText(Struct, frozen=True, tag="text"):
    text: Raw
    """A JSON string, as the client wrote it."""
    cache_control: Raw = NULL


Turns = Annotated[tuple[Turn, ...], Meta(max_length=100_000)]
System = str | tuple[SystemText, ...]


class MessagesRequest(Struct, frozen=True):
    model: str
    messages: Turns
    max_tokens: NonNegative | None = None
    cache_control: Raw = NULL
    """A mark on whatever stands last."""
    system: System | None = None
    stream: bool | None = None
    stop_sequences: tuple[str, ...] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    tools: tuple[Tool, ...] | None = None
    tool_choice: ToolChoice | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None
    speed: str | None = None
    context_management: ContextManagement | None = None
    mcp_servers: Raw = NULL
    container: Raw = NULL
    compaction: Raw = NULL
    thread: Raw = NULL
    fallbacks: Raw = NULL


KNOWN_FIELDS = frozenset(MessagesRequest.__struct_fields__) | {
    "billing_policy",
    "diagnostics",
    "fallback_credit_token",
    "inference_geo",
}

_envelope: Decoder[Envelope] = Decoder(Envelope)
_request: Decoder[MessagesRequest] = Decoder(MessagesRequest)
_fields: Decoder[dict[str, Raw]] = Decoder(dict[str, Raw])


def decode_envelope(body: bytes) -> Envelope:
    """The fields of `body` that rules may look at. Raises `InvalidRequest` with the path of what is wrong."""
    return decode_leniently(_envelope, body)


def decode_request(body: bytes) -> MessagesRequest:
    """The whole request. Raises `InvalidRequest`, for an unknown block type with its position."""
    return decode_leniently(_request, body)


def field_names(body: bytes) -> tuple[str, ...]:
    """The names of the top-level fields that hold something, in the client's order."""
    fields: dict[str, Raw] = decode_leniently(_fields, body)
    return tuple(name for name, value in fields.items() if value != NULL)
