"""A chat request as a request of OpenAI's Responses API. No I/O here. (Its answers: `responses.py`.)

The sources: the reference as the `openai` package has it (`types/responses`), and what its users ran into,
which is named where it counts.
"""

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, Raw, UnsetType

from routeproxy.chat import responses as wire
from routeproxy.chat.request import (
    Assistant,
    ChatMessage,
    ChatRequest,
    FilePart,
    Function,
    FunctionChoice,
    ImagePart,
    JsonObjectFormat,
    Part,
    ResponseFormat,
    System,
    TextPart,
    ToolMessage,
    User,
    WebSearch,
    plain_text,
)
from routeproxy.chat.responses import InputItem, InputPart

MIN_OUTPUT_TOKENS = 16
"""A lower `max_output_tokens` is refused."""
_REASONING_ITEMS = "reasoning.encrypted_content"
_SEARCH_SOURCES = "web_search_call.action.sources"

_encode = msgspec.json.Encoder().encode


def responses_request(
    chat: ChatRequest, model: str, *, reasons: bool = True, summaries: bool = True
) -> bytes:
    """The body. `reasons`: whether the model does; one that does not refuses every mention of it
    (pydantic-ai#3326, roackb2/heddle#227). `summaries`: whether its provider gives us those of its reasoning.

    The conversation is sent whole each time and nothing is stored, so what must outlive a turn of the model's
    reasoning comes back in `Assistant.reasoning_details`. Stop strings are not sent: the API knows none.
    """
    instructions, messages = _instructions(chat.messages)
    return _encode(
        wire.ResponsesRequest(
            model=model,
            instructions=instructions,
            input=tuple(item for message in messages for item in _items(message, reasons)),
            tools=_tools(chat),
            tool_choice=_tool_choice(chat),
            max_tool_calls=UNSET if chat.web_search is UNSET else chat.web_search.max_uses,
            parallel_tool_calls=chat.parallel_tool_calls,
            max_output_tokens=_max_output_tokens(chat),
            temperature=chat.temperature,
            top_p=chat.top_p,
            reasoning=_reasoning(_effort(chat), reasons, summaries),
            include=_include(chat, reasons),
            text=_text_format(chat.response_format),
            service_tier=chat.service_tier,
            user=chat.user,
            prompt_cache_key=chat.prompt_cache_key,
            stream=chat.stream,
        )
    )


def _instructions(
    messages: tuple[ChatMessage, ...],
) -> tuple[str | Raw | UnsetType, tuple[ChatMessage, ...]]:
    """The system prompt, and the messages after it. `instructions` is the API's own place for it, and the
    only one that all back ends take (CliRelay#820)."""
    if messages and isinstance(system := messages[0], System):
        return plain_text(system.content), messages[1:]
    return UNSET, messages


def _items(message: ChatMessage, reasons: bool) -> Iterator[InputItem]:
    match message:
        case System(content=content):
            # Not `system`, which Codex's back end refuses; OpenAI takes both for the same (codex2api#409).
            yield wire.Message("developer", (wire.InputText(plain_text(content)),))
        case User(content=content):
            yield wire.Message("user", _parts(content))
        case Assistant():
            yield from _assistant_items(message, reasons)
        case ToolMessage(tool_call_id=id, content=content):
            yield wire.FunctionCallOutput(id, content if isinstance(content, str) else _parts(content))


def _assistant_items(message: Assistant, reasons: bool) -> Iterator[InputItem]:
    """Reasoning before what it led to, text before calls (continuedev#11994)."""
    phase: str | UnsetType = UNSET
    if message.reasoning_details is not UNSET and reasons:
        for item in msgspec.json.decode(message.reasoning_details):
            match item:
                case {"type": "reasoning" | "web_search_call"}:
                    yield item
                case {"type": "message", "phase": str(phase)}:
                    pass
    if message.content:
        yield wire.Message("assistant", (wire.OutputText(plain_text(message.content)),), phase)
    for call in message.tool_calls or ():
        yield wire.FunctionCall(call.id, call.function.name, call.function.arguments)


def _parts(content: str | tuple[Part, ...]) -> tuple[InputPart, ...]:
    return (wire.InputText(content),) if isinstance(content, str) else tuple(map(_part, content))


def _part(part: Part) -> InputPart:
    match part:
        case TextPart(text=text):
            return wire.InputText(text)
        case ImagePart(image_url=image):
            return wire.InputImage(image.url)
        case FilePart(file=file):
            return wire.InputFile(file.filename, file.file_data, file.file_id, file.file_url)


def _tools(chat: ChatRequest) -> tuple[wire.FunctionTool | wire.WebSearchTool, ...] | UnsetType:
    functions = () if chat.tools is UNSET else tuple(_tool(tool.function) for tool in chat.tools)
    searches = () if chat.web_search is UNSET else (_search_tool(chat.web_search),)
    return (*functions, *searches) or UNSET


def _search_tool(search: WebSearch) -> wire.WebSearchTool:
    domains = search.allowed_domains
    return wire.WebSearchTool(
        filters=wire.SearchFilters(domains) if domains else UNSET, user_location=search.user_location
    )


def _include(chat: ChatRequest, reasons: bool) -> tuple[str, ...] | UnsetType:
    """What the API leaves out of its answer unless it is asked for."""
    reasoning = (_REASONING_ITEMS,) if reasons else ()
    sources = () if chat.web_search is UNSET else (_SEARCH_SOURCES,)
    return (*reasoning, *sources) or UNSET


def _tool(function: Function) -> wire.FunctionTool:
    return wire.FunctionTool(
        name=function.name,
        description=function.description,
        parameters=None if function.parameters is UNSET else function.parameters,
        strict=function.strict is True,
    )


def _tool_choice(chat: ChatRequest) -> str | wire.FunctionChoice | wire.WebSearchChoice | UnsetType:
    if chat.web_search is not UNSET and chat.web_search.forced:
        # Servers that do not know the choice know this one, and it means the same.
        return "required" if chat.tools is UNSET else wire.WebSearchChoice()
    choice = chat.tool_choice
    return wire.FunctionChoice(choice.function.name) if isinstance(choice, FunctionChoice) else choice


def _effort(chat: ChatRequest) -> str | UnsetType:
    """`minimal` is refused beside a web search (codex#3559)."""
    is_too_low = chat.web_search is not UNSET and chat.reasoning_effort == "minimal"
    return "low" if is_too_low else chat.reasoning_effort


def _max_output_tokens(chat: ChatRequest) -> int | UnsetType:
    limit = chat.max_tokens if chat.max_completion_tokens is UNSET else chat.max_completion_tokens
    return limit if limit is UNSET else max(limit, MIN_OUTPUT_TOKENS)


def _reasoning(effort: str | UnsetType, reasons: bool, summaries: bool) -> wire.Reasoning | UnsetType:
    """With a summary: it is all that is shown of the reasoning, and comes only if requested."""
    summary = "auto" if summaries and effort != "none" else UNSET
    if not reasons or (effort is UNSET and summary is UNSET):
        return UNSET
    return wire.Reasoning(effort, summary)


def _text_format(format: ResponseFormat | JsonObjectFormat | UnsetType) -> wire.Text | UnsetType:
    if format is UNSET:
        return UNSET
    if isinstance(format, JsonObjectFormat):
        return wire.Text(wire.JsonObject())
    schema = format.json_schema
    return wire.Text(wire.JsonSchema(schema.name, schema.schema, schema.strict))
