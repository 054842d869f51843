"""OpenAI's Responses API as its reference has it: a request, field by field, and the fields of a response
that are read. A field that is `UNSET` is not sent."""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import UNSET, Raw, Struct, UnsetType

# The request


class InputText(Struct, frozen=True, tag="input_text"):
    text: str | Raw


class InputImage(Struct, frozen=True, tag="input_image"):
    image_url: str
    """A URL or a data URI."""
    detail: str = "auto"
    """Servers that check by the reference's types miss it otherwise."""


class InputFile(Struct, frozen=True, tag="input_file"):
    filename: str | UnsetType = UNSET
    file_data: str | UnsetType = UNSET
    """A data URI."""
    file_id: str | UnsetType = UNSET
    file_url: str | UnsetType = UNSET


InputPart = InputText | InputImage | InputFile


class OutputText(Struct, frozen=True, tag="output_text"):
    text: str | Raw


class Message(Struct, frozen=True, tag="message"):
    role: Literal["user", "assistant", "developer"]
    content: tuple[InputPart | OutputText, ...]
    phase: str | UnsetType = UNSET
    """Of an assistant's message: `commentary` or `final_answer`."""


class FunctionCall(Struct, frozen=True, tag="function_call"):
    """It has no `id`: by that the API would look for the reasoning item that it once stored beside it."""

    call_id: str
    name: str
    arguments: str
    """JSON text, in a string."""


class FunctionCallOutput(Struct, frozen=True, tag="function_call_output"):
    call_id: str
    output: str | tuple[InputPart, ...]


InputItem = Message | FunctionCall | FunctionCallOutput | dict[str, Any]
"""A `dict` is an item as it was received: reasoning, or a web search that it led to."""


class FunctionTool(Struct, frozen=True, kw_only=True, tag="function"):
    name: str
    description: Raw | UnsetType = UNSET
    parameters: Raw | None = None
    strict: bool = False
    """Always sent: the API's own default is true."""


class SearchFilters(Struct, frozen=True):
    allowed_domains: tuple[str, ...]


class WebSearchTool(Struct, frozen=True, kw_only=True, tag="web_search"):
    filters: SearchFilters | UnsetType = UNSET
    user_location: Mapping[str, Raw] | UnsetType = UNSET


class FunctionChoice(Struct, frozen=True, tag="function"):
    name: str


class WebSearchChoice(Struct, frozen=True, tag="web_search"): ...


class JsonSchema(Struct, frozen=True, tag="json_schema"):
    name: str
    schema: Raw
    strict: bool


class JsonObject(Struct, frozen=True, tag="json_object"):
    pass


class Text(Struct, frozen=True):
    format: JsonSchema | JsonObject


class Reasoning(Struct, frozen=True):
    effort: str | UnsetType = UNSET
    summary: str | UnsetType = UNSET


class ResponsesRequest(Struct, frozen=True, kw_only=True):
    model: str
    instructions: str | Raw | UnsetType = UNSET
    input: tuple[InputItem, ...]
    tools: tuple[FunctionTool | WebSearchTool, ...] | UnsetType = UNSET
    tool_choice: str | FunctionChoice | WebSearchChoice | UnsetType = UNSET
    max_tool_calls: int | UnsetType = UNSET
    """Of the tools that run at OpenAI, all together."""
    parallel_tool_calls: bool | UnsetType = UNSET
    max_output_tokens: int | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    reasoning: Reasoning | UnsetType = UNSET
    include: tuple[str, ...] | UnsetType = UNSET
    text: Text | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    user: str | UnsetType = UNSET
    prompt_cache_key: str | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    store: bool = False


# The response. Whatever is `Any` may have any type: the reader must cope, never raise.


class Response(Struct, frozen=True):
    status: Any = None
    error: Any = None
    incomplete_details: Any = None
    model: Any = None
    output: Any = None
    usage: Any = None
    service_tier: Any = None


class Event(Struct, frozen=True):
    """An event of a streamed response. One struct has the fields of all events that we read."""

    type: Any = None
    item_id: Any = None
    output_index: Any = None
    content_index: Any = None
    summary_index: Any = None
    delta: Any = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    item: Any = None
    annotation: Any = None
    response: Response | None = None
    code: Any = None
    message: Any = None
    error: Any = None
    """Not the API's own: some back ends wrap `code` and `message` in it."""
