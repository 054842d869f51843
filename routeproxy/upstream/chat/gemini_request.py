"""A chat request as a request of Gemini's own API (ai.google.dev/api/generate-content). No I/O here. (Its
answers: `gemini.py`.)

What it takes of our parameters, and how, is what LiteLLM 1.110.2 sends, which is in the field; where that is
not done here, it says so.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from routeproxy.chat.request import (
    Assistant,
    ChatRequest,
    FilePart,
    Function,
    FunctionChoice,
    ImagePart,
    Part,
    ResponseFormat,
    System,
    TextPart,
    ToolCall,
    ToolMessage,
    User,
)
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.params import merge

Json = dict[str, Any]

GENERATION_CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "stop": "stopSequences",
    "max_tokens": "maxOutputTokens",
}
"""Chat's parameter → that of `generationConfig`."""

CALLING_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}

THINKING_BUDGETS = {"low": 1024, "medium": 2048, "high": 4096}
"""Tokens to think with, by effort, for models before Gemini 3. Later ones take efforts as levels. (How each
is told not to think: `profiles.py`.)"""

_BEFORE_3 = re.compile(r"gemini-([12](\.\d+)?|exp|(pro|flash)(?!-(lite-)?latest$))(-|$)|gemma-")

NO_SIGNATURE = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
"""`skip_thought_signature_validator`, for a call whose thought signature is not known: from Gemini 3 on the
first call of a turn must have one (ai.google.dev/gemini-api/docs/thought-signatures)."""


def gemini_request(chat: ChatRequest, model: str) -> bytes:
    """The body. Raises `UpstreamFailure` of class `capability` for what Gemini does not take."""
    system = [message.content for message in chat.messages if isinstance(message, System)]
    body: Json = {"contents": _contents(chat, modern=not _BEFORE_3.match(model.lower()))}
    if system:
        body["systemInstruction"] = {"parts": [{"text": text} for text in system]}
    if tools := list(_tools(chat)):
        body["tools"] = tools
    if config := _tool_config(chat):
        body["toolConfig"] = config
    if config := _generation_config(chat, model.lower()):
        body["generationConfig"] = config
    return msgspec.json.encode(merge(body, chat.thinking_off or {}))


def _tools(chat: ChatRequest) -> Iterator[Json]:
    if chat.tools is not UNSET:
        yield {"functionDeclarations": [_declaration(tool.function) for tool in chat.tools]}
    if chat.web_search is not UNSET:
        blocked = chat.web_search.blocked_domains
        yield {"googleSearch": {"excludeDomains": blocked} if blocked else {}}


def _tool_config(chat: ChatRequest) -> Json:
    config: Json = {}
    if chat.tool_choice is not UNSET:
        config["functionCallingConfig"] = _calling_config(chat.tool_choice)
    if chat.tools is not UNSET and chat.web_search is not UNSET:
        # Without it the two together are refused (ai.google.dev/gemini-api/docs/tool-combination).
        config["includeServerSideToolInvocations"] = True
    return config


def _declaration(function: Function) -> Json:
    """LiteLLM rewrites schemas into Google's older form, which has no `null`, no lists of types, no empty
    objects. `parametersJsonSchema` takes them as they are."""
    declaration: Json = {"name": function.name}
    if function.description is not UNSET:
        declaration["description"] = function.description
    if function.parameters is not UNSET:
        declaration["parametersJsonSchema"] = function.parameters
    return declaration


def _calling_config(choice: str | FunctionChoice) -> Json:
    if isinstance(choice, FunctionChoice):
        return {"mode": "ANY", "allowedFunctionNames": [choice.function.name]}
    return {"mode": CALLING_MODES.get(choice, "AUTO")}


def _generation_config(chat: ChatRequest, model: str) -> Json:
    config: Json = {
        name: value
        for field, name in GENERATION_CONFIG.items()
        if (value := getattr(chat, field)) is not UNSET
    }
    if chat.response_format is not UNSET:
        config["responseMimeType"] = "application/json"
        if isinstance(chat.response_format, ResponseFormat):
            config["responseJsonSchema"] = chat.response_format.json_schema.schema
    if chat.reasoning_effort is not UNSET:
        config["thinkingConfig"] = _thinking_config(chat.reasoning_effort, model)
    return config


def _thinking_config(effort: str, model: str) -> Json:
    amount = (
        {"thinkingBudget": THINKING_BUDGETS[effort]} if _BEFORE_3.match(model) else {"thinkingLevel": effort}
    )
    return {**amount, "includeThoughts": True}


def _contents(chat: ChatRequest, *, modern: bool) -> list[Json]:
    """`modern`: from Gemini 3 on calls have ids and signatures."""
    names: dict[str, str] = {}
    contents: list[tuple[object, Json]] = []
    for message in chat.messages:
        match message:
            case System():
                continue
            case User(content=content):
                kind, role, parts = "user", "user", [_part(part) for part in _parts_of(content)]
            case ToolMessage():
                kind, role, parts = "tool", "user", [_function_response(message, names, modern=modern)]
            case Assistant():
                kind, role, parts = "model", "model", list(_assistant_parts(message, modern=modern))
                names |= {call.id: call.function.name for call in message.tool_calls or ()}
        if contents and contents[-1][0] == kind:
            contents[-1][1]["parts"] += parts
        else:
            contents.append((kind, {"role": role, "parts": parts}))
    return [content for _, content in contents]


def _parts_of(content: str | Sequence[Part]) -> Sequence[Part]:
    return (TextPart(content),) if isinstance(content, str) else content


def _part(part: Part) -> Json:
    match part:
        case TextPart(text=text):
            return {"text": text}
        case ImagePart(image_url=image):
            return _inline_data(image.url, "image_block")
        case FilePart(file=file):
            return _inline_data(str(file.file_data or ""), "document_block")


def _inline_data(url: str, block: str) -> Json:
    scheme, _, data = url.partition(";base64,")
    if not scheme.startswith("data:") or not data:
        raise UpstreamFailure("capability", f"capability_rejected: {block} (Gemini takes no links here)")
    return {"inlineData": {"mimeType": scheme.removeprefix("data:"), "data": data}}


def _assistant_parts(message: Assistant, *, modern: bool) -> Iterator[Json]:
    if message.reasoning_content is not UNSET and message.reasoning_content:
        yield {"text": message.reasoning_content, "thought": True}
    if message.content:
        signatures = _fields(message.provider_specific_fields).get("thought_signatures")
        signed = {"thoughtSignature": signatures[0]} if isinstance(signatures, list) and signatures else {}
        yield {"text": message.content, **signed}
    for position, call in enumerate(message.tool_calls or ()):
        yield _function_call(call, modern=modern, first=position == 0)


def _function_call(call: ToolCall, *, modern: bool, first: bool) -> Json:
    # LiteLLM makes `{"type": "object"}` of no arguments, and tools then get that for an argument.
    arguments = call.function.arguments.strip() or "{}"
    function_call: Json = {"name": call.function.name, "args": Raw(arguments.encode())}
    google = _fields(call.extra_content).get("google", {})
    signature = _fields(call.provider_specific_fields).get("thought_signature") or google.get(
        "thought_signature"
    )
    if modern:
        function_call["id"] = call.id
        signature = signature or (NO_SIGNATURE if first else None)
    return {"functionCall": function_call, **({"thoughtSignature": signature} if signature else {})}


def _fields(provider_specific: Raw | Any) -> Json:
    return msgspec.json.decode(provider_specific, type=Json) if isinstance(provider_specific, Raw) else {}


def _function_response(message: ToolMessage, names: Mapping[str, str], *, modern: bool) -> Json:
    """`names`: the functions, by the ids of the calls so far."""
    parts = _parts_of(message.content)
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    attached = [_part(part) for part in parts if not isinstance(part, TextPart)]
    response: Json = {"name": names.get(message.tool_call_id, ""), "response": _response_object(text)}
    if modern:
        response["id"] = message.tool_call_id
    if attached:
        response["parts"] = attached
    return {"functionResponse": response}


def _response_object(text: str) -> Any:
    """An object, whatever the tool answered."""
    if text.lstrip().startswith("{"):
        try:
            msgspec.json.decode(text, type=dict[str, Raw])
        except (*UNREADABLE, UnicodeEncodeError):
            pass
        else:
            return Raw(text.encode())
    return {"content": text}
