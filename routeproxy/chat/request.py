"""A request for chat completions, field by field as in OpenAI's reference. A field that is `UNSET` is not
sent."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace


class TextPart(Struct, frozen=True, tag="text"):
    text: str
    cache_control: Raw | UnsetType = UNSET
    """OpenRouter's, on any part and on tools: the prompt is cached up to here."""


class ImageUrl(Struct, frozen=True):
    url: str


class ImagePart(Struct, frozen=True, tag="image_url"):
    image_url: ImageUrl
    cache_control: Raw | UnsetType = UNSET


class FileData(Struct, frozen=True):
    filename: str | UnsetType = UNSET
    file_data: str | UnsetType = UNSET
    """A data URI."""
    file_id: str | UnsetType = UNSET
    file_url: str | UnsetType = UNSET
    """Only Responses takes one."""


class FilePart(Struct, frozen=True, tag="file"):
    file: FileData
    cache_control: Raw | UnsetType = UNSET


Part = TextPart | ImagePart | FilePart


class FunctionCall(Struct, frozen=True):
    name: str
    arguments: str
    """JSON text, in a string."""


class ToolCall(Struct, frozen=True, kw_only=True, tag="function"):
    id: str
    function: FunctionCall
    provider_specific_fields: Raw | UnsetType = UNSET
    """LiteLLM's place for the thought signature of this call."""
    extra_content: Raw | UnsetType = UNSET
    """Google's own place for the same, in its OpenAI-compatible API."""


class System(Struct, frozen=True, tag_field="role", tag="system"):
    content: str | Raw | tuple[TextPart, ...]
    """The text, or JSON text; parts only where one is marked for a cache."""


class User(Struct, frozen=True, tag_field="role", tag="user"):
    content: str | tuple[Part, ...]


class Assistant(Struct, frozen=True, tag_field="role", tag="assistant"):
    content: str | tuple[TextPart, ...] | None
    """Parts only where one is marked for a cache."""
    tool_calls: tuple[ToolCall, ...] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning_details: Raw | UnsetType = UNSET
    """OpenRouter's, or the reasoning items of Responses: carried back as they came."""
    provider_specific_fields: Raw | UnsetType = UNSET
    """LiteLLM's own place for what a provider wants back: Gemini's thought signatures."""


class ToolMessage(Struct, frozen=True, tag_field="role", tag="tool"):
    tool_call_id: str
    content: str | tuple[Part, ...]


ChatMessage = System | User | Assistant | ToolMessage


class Function(Struct, frozen=True):
    name: str
    description: Raw | UnsetType = UNSET
    parameters: Raw | UnsetType = UNSET
    strict: bool | UnsetType = UNSET


class FunctionTool(Struct, frozen=True, tag="function"):
    function: Function
    cache_control: Raw | UnsetType = UNSET


class WebSearch(Struct, frozen=True, kw_only=True):
    """A search that the back end makes itself. Chat completions know none: where a format does, it is written
    there in its own words."""

    forced: bool = False
    allowed_domains: tuple[str, ...] = ()
    blocked_domains: tuple[str, ...] = ()
    user_location: Mapping[str, Raw] | UnsetType = UNSET
    """As Anthropic has it, which is as OpenAI has it."""
    max_uses: int | UnsetType = UNSET


class Place(Struct, frozen=True, tag="approximate"):
    approximate: Mapping[str, Raw]


class WebSearchOptions(Struct, frozen=True):
    """For OpenAI's models that search with every request."""

    user_location: Place


class NamedFunction(Struct, frozen=True):
    name: str


class FunctionChoice(Struct, frozen=True, tag="function"):
    function: NamedFunction


class JsonSchema(Struct, frozen=True):
    name: str
    schema: Raw
    strict: bool


class ResponseFormat(Struct, frozen=True, tag="json_schema"):
    json_schema: JsonSchema


class JsonObjectFormat(Struct, frozen=True, tag="json_object"):
    """Any JSON object: what older back ends know of structured outputs."""


class StreamOptions(Struct, frozen=True):
    include_usage: bool = True


class ChatRequest(Struct, frozen=True, kw_only=True):
    model: str | UnsetType = UNSET
    messages: tuple[ChatMessage, ...]
    tools: tuple[FunctionTool, ...] | UnsetType = UNSET
    web_search: WebSearch | UnsetType = UNSET
    web_search_options: WebSearchOptions | UnsetType = UNSET
    tool_choice: str | FunctionChoice | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    max_tokens: int | UnsetType = UNSET
    max_completion_tokens: int | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    top_k: int | UnsetType = UNSET
    stop: tuple[str, ...] | UnsetType = UNSET
    reasoning_effort: str | UnsetType = UNSET
    thinking_off: Mapping[str, Any] | UnsetType = UNSET
    """The fields by which this very back end is told not to think, besides `reasoning_effort`. They go into
    its body as they are: no parameter for that is understood everywhere."""
    response_format: ResponseFormat | JsonObjectFormat | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    user: str | UnsetType = UNSET
    prompt_cache_key: str | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    stream_options: StreamOptions | UnsetType = UNSET


def plain_text(content: str | Raw | tuple[TextPart, ...]) -> str | Raw:
    """The text, for formats that know no marks of a cache."""
    return "\n\n".join(part.text for part in content) if isinstance(content, tuple) else content


def encode_request(chat: ChatRequest, model: str) -> bytes:
    """The JSON body of `chat` for `model`."""
    if chat.web_search is not UNSET:
        # Whoever searches over chat completions does so with every request; only the place can be told.
        chat = replace(chat, web_search=UNSET, web_search_options=_search_options(chat.web_search))
    if not chat.thinking_off:
        return msgspec.json.encode(replace(chat, model=model))
    body = msgspec.json.encode(replace(chat, model=model, thinking_off=UNSET))
    return body[:-1] + b"," + msgspec.json.encode(chat.thinking_off)[1:]


def _search_options(search: WebSearch) -> WebSearchOptions | UnsetType:
    if search.user_location is UNSET:
        return UNSET
    place = {name: value for name, value in search.user_location.items() if name != "type"}
    return WebSearchOptions(Place(place))
