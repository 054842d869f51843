"""A chat request as a request of Ollama's own chat API (docs.ollama.com/api/chat), for its OpenAI-compatible
one takes no `num_ctx` and cuts long prompts without a word. No I/O here. (Its answers: `ollama.py`.)"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from routeproxy.chat.request import (
    Assistant,
    ChatMessage,
    ChatRequest,
    FilePart,
    ImagePart,
    Part,
    ResponseFormat,
    System,
    TextPart,
    ToolCall,
    ToolMessage,
    User,
)
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.params import merge

Json = dict[str, Any]

OPTIONS = {
    "max_tokens": "num_predict",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop",
}
"""Chat's parameter → the model option."""

MODELS_WITH_LEVELS = "gpt-oss"
"""In these models' names. Their `think` is a level, that of others a yes or no."""


def ollama_request(chat: ChatRequest, model: str) -> bytes:
    """The body. Raises `UpstreamFailure` of class `capability` for what Ollama does not take."""
    names = {call.id: call.function.name for message in chat.messages for call in _tool_calls(message)}
    body: Json = {
        "model": model,
        "messages": [_message(message, names) for message in chat.messages],
        "stream": chat.stream is True,
    }
    options = {name: value for field, name in OPTIONS.items() if (value := getattr(chat, field)) is not UNSET}
    if options:
        body["options"] = options
    if chat.tools is not UNSET:
        body["tools"] = chat.tools
    if chat.response_format is not UNSET:
        format = chat.response_format
        body["format"] = format.json_schema.schema if isinstance(format, ResponseFormat) else "json"
    if chat.reasoning_effort is not UNSET:
        body["think"] = chat.reasoning_effort if MODELS_WITH_LEVELS in model else True
    return msgspec.json.encode(merge(body, chat.thinking_off or {}))


def _message(message: ChatMessage, names: Mapping[str, str]) -> Json:
    """`names`: the functions, by the ids of their calls."""
    match message:
        case System(content=content):
            return {"role": "system", "content": content}
        case User(content=content):
            return {"role": "user", **_content(content)}
        case ToolMessage(tool_call_id=id, content=content):
            return {"role": "tool", **_content(content), "tool_name": names.get(id, ""), "tool_call_id": id}
        case Assistant(content=content, reasoning_content=reasoning):
            assistant: Json = {"role": "assistant", "content": content or ""}
            if reasoning is not UNSET:
                assistant["thinking"] = reasoning
            if calls := _tool_calls(message):
                assistant["tool_calls"] = [_function_call(call) for call in calls]
            return assistant


def _tool_calls(message: ChatMessage) -> tuple[ToolCall, ...]:
    return (message.tool_calls or ()) if isinstance(message, Assistant) else ()


def _function_call(call: ToolCall) -> Json:
    """Arguments are an object here."""
    function = {"name": call.function.name, "arguments": Raw(call.function.arguments.encode())}
    return {"id": call.id, "function": function}


def _content(content: str | Sequence[Part]) -> Json:
    if isinstance(content, str):
        return {"content": content}
    text = "\n".join(part.text for part in content if isinstance(part, TextPart))
    images = [_image_data(part.image_url.url) for part in content if isinstance(part, ImagePart)]
    if any(isinstance(part, FilePart) for part in content):
        raise UpstreamFailure("capability", "capability_rejected: document_block (Ollama takes no files)")
    return {"content": text, **({"images": images} if images else {})}


def _image_data(url: str) -> str:
    scheme, _, data = url.partition(";base64,")
    if not scheme.startswith("data:") or not data:
        raise UpstreamFailure("capability", "capability_rejected: image_block (Ollama takes no image URLs)")
    return data
