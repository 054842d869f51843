"""Ollama's own chat API in terms of chat completions (docs.ollama.com/api/chat). Its OpenAI-compatible one
can't be told `num_ctx`, and cuts long prompts without a word."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct

from routeproxy.chat.completion import Choice, Chunk, CompletionUsage, Delta, ToolCallDelta
from routeproxy.chat.request import (
    Assistant,
    ChatMessage,
    ChatRequest,
    FilePart,
    ImagePart,
    Part,
    System,
    TextPart,
    ToolCall,
    ToolMessage,
    User,
)
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.upstream.chat.lenient import decode_object_leniently, whole_call
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.http.sse import LineDecoder

OPTIONS = {
    "max_tokens": "num_predict",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop",
}
"""Chat's parameter → the model option."""

LEVELS = "gpt-oss"
"""Of these models `think` is a level, of the others a yes or no."""


def ollama_request(chat: ChatRequest, model: str) -> bytes:
    """Raises `UpstreamFailure` of class `capability` for what Ollama can't be given."""
    names = {call.id: call.function.name for message in chat.messages for call in _calls(message)}
    body: dict[str, Any] = {
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
        body["format"] = chat.response_format.json_schema.schema
    if chat.reasoning_effort is not UNSET:
        effort = chat.reasoning_effort
        body["think"] = effort if LEVELS in model and effort != "none" else effort != "none"
    return msgspec.json.encode(body)


def _message(message: ChatMessage, names: dict[str, str]) -> dict[str, Any]:
    match message:
        case System(content=content):
            return {"role": "system", "content": content}
        case User(content=content):
            return {"role": "user", **_content(content)}
        case ToolMessage(tool_call_id=id, content=content):
            return {"role": "tool", **_content(content), "tool_name": names.get(id, "")}
        case Assistant(content=content, reasoning_content=thinking):
            said: dict[str, Any] = {"role": "assistant", "content": content or ""}
            if thinking is not UNSET:
                said["thinking"] = thinking
            if calls := _calls(message):
                said["tool_calls"] = [_call(call) for call in calls]
            return said


def _calls(message: ChatMessage) -> tuple[ToolCall, ...]:
    return (message.tool_calls or ()) if isinstance(message, Assistant) else ()


def _call(call: ToolCall) -> dict[str, Any]:
    """Arguments are an object here."""
    return {"function": {"name": call.function.name, "arguments": Raw(call.function.arguments.encode())}}


def _content(content: str | Sequence[Part]) -> dict[str, Any]:
    if isinstance(content, str):
        return {"content": content}
    texts = [part.text for part in content if isinstance(part, TextPart)]
    images = [_image(part.image_url.url) for part in content if isinstance(part, ImagePart)]
    if any(isinstance(part, FilePart) for part in content):
        raise UpstreamFailure("capability", "capability_rejected: document_block (Ollama takes no files)")
    return {"content": "\n".join(texts), **({"images": images} if images else {})}


def _image(url: str) -> str:
    scheme, _, data = url.partition(";base64,")
    if not scheme.startswith("data:") or not data:
        raise UpstreamFailure("capability", "capability_rejected: image_block (Ollama takes no image URLs)")
    return data


# --- the answer


class _Function(Struct, frozen=True):
    name: Any = None
    arguments: Raw = Raw(b"{}")
    """The text of the object as it came: a client may go by the order of its keys."""


class _Call(Struct, frozen=True):
    id: Any = None
    function: _Function | None = None


class _Message(Struct, frozen=True):
    content: Any = None
    thinking: Any = None
    tool_calls: tuple[_Call, ...] | None = None


class _Line(Struct, frozen=True):
    message: _Message | None = None
    model: Any = None
    done: Any = None
    done_reason: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None


_line = msgspec.json.Decoder(_Line)


def _line_in(data: bytes) -> _Line:
    """Raises `ValueError` for what is no JSON object."""
    try:
        return _line.decode(data)
    except UNREADABLE:
        return _salvaged(decode_object_leniently(data))


def _salvaged(found: Mapping[str, Any]) -> _Line:
    message = found.get("message")
    message = message if isinstance(message, dict) else {}
    calls = message.get("tool_calls")
    return _Line(
        **{name: found.get(name) for name in _Line.__struct_fields__ if name != "message"},
        message=_Message(
            content=message.get("content"),
            thinking=message.get("thinking"),
            tool_calls=tuple(map(_salvaged_call, calls)) if isinstance(calls, list) else None,
        ),
    )


def _salvaged_call(found: Any) -> _Call:
    function = found.get("function") if isinstance(found, dict) else None
    if not isinstance(function, dict):
        return _Call()
    arguments = json.dumps(function.get("arguments") or {}).encode()
    return _Call(found.get("id"), _Function(function.get("name"), Raw(arguments)))


class OllamaDecoder:
    """One answer: lines of JSON, or one line where none was to be streamed."""

    def __init__(self) -> None:
        self._lines = LineDecoder()
        self._calls = 0

    def feed(self, data: bytes) -> tuple[list[Chunk], bool]:
        """What was said, and whether that was the end. Raises `ValueError` for what can't be read."""
        return self._read(self._lines.feed(data))

    def end(self) -> tuple[list[Chunk], bool]:
        return self._read(self._lines.end())

    def decode_whole(self, body: bytes) -> list[Chunk]:
        return self._read([body])[0]

    def _read(self, lines: list[bytes]) -> tuple[list[Chunk], bool]:
        read = [_line_in(line) for line in lines]
        return [self._chunk(line) for line in read], any(line.done is True for line in read)

    def _chunk(self, line: _Line) -> Chunk:
        message = line.message or _Message()
        delta = Delta(
            content=message.content,
            reasoning_content=message.thinking,
            tool_calls=tuple(map(self._call, message.tool_calls)) if message.tool_calls else None,
        )
        # An answer without a reason for its end is whole all the same: it says that it is done.
        finish = (line.done_reason or "stop") if line.done is True else None
        usage = None
        if line.eval_count is not None or line.prompt_eval_count is not None:
            usage = CompletionUsage(prompt_tokens=line.prompt_eval_count, completion_tokens=line.eval_count)
        return Chunk((Choice(delta=delta, finish_reason=finish),), usage, line.model, line.error)

    def _call(self, call: _Call) -> ToolCallDelta:
        index, self._calls = self._calls, self._calls + 1
        function = call.function or _Function()
        return whole_call(index, call.id, function.name, bytes(function.arguments).decode())
