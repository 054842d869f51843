"""The answers of Ollama's own chat API (docs.ollama.com/api/chat) as chunks of a chat completion. No I/O
here. (Its requests: `ollama_request.py`.)"""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from routeproxy.chat.completion import Choice, Chunk, CompletionUsage, Delta, ToolCallDelta
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.upstream.chat.lenient import decode_object_leniently, reported_error, whole_call
from routeproxy.upstream.http.sse import LineDecoder


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
    """An answer, or the next part of one."""

    message: _Message | None = None
    model: Any = None
    done: Any = None
    done_reason: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None


class OllamaDecoder:
    """One answer: lines of JSON, or one line where none was to be streamed."""

    streams_json = True

    def __init__(self) -> None:
        self._lines = LineDecoder()
        self._call_count = 0

    def feed(self, data: bytes) -> tuple[list[Chunk], bool]:
        """The chunks, and whether the answer is over. Raises `ValueError` for what cannot be read."""
        return self._read(self._lines.feed(data))

    def end(self) -> tuple[list[Chunk], bool]:
        return self._read(self._lines.end())

    def decode_whole(self, body: bytes) -> list[Chunk]:
        try:
            return self._read([body])[0]
        except ValueError:  # lines, although none were asked for
            return [*self.feed(body)[0], *self.end()[0]]

    def _read(self, lines: list[bytes]) -> tuple[list[Chunk], bool]:
        decoded: list[_Line] = []
        for line in lines:
            decoded.append(read := _decode_line(line))
            if read.error or read.done is True:
                break  # whatever follows an error or the end, it is no answer
        return [self._chunk(line) for line in decoded], any(line.done is True for line in decoded)

    def _chunk(self, line: _Line) -> Chunk:
        message = line.message or _Message()
        delta = Delta(
            content=message.content,
            reasoning_content=message.thinking,
            tool_calls=tuple(map(self._tool_call, message.tool_calls)) if message.tool_calls else None,
        )
        # Ollama has no reason to give (`DoneReasonConnectionClosed`) where its runner was cut off.
        finish_reason = line.done_reason if line.done is True else None
        usage = None
        if line.eval_count is not None or line.prompt_eval_count is not None:
            usage = CompletionUsage(prompt_tokens=line.prompt_eval_count, completion_tokens=line.eval_count)
        return Chunk((Choice(delta=delta, finish_reason=finish_reason),), usage, line.model, line.error)

    def _tool_call(self, call: _Call) -> ToolCallDelta:
        index, self._call_count = self._call_count, self._call_count + 1
        function = call.function or _Function()
        return whole_call(index, call.id, function.name, bytes(function.arguments).decode())


_line_decoder = msgspec.json.Decoder(_Line)


def _decode_line(data: bytes) -> _Line:
    """Raises `ValueError` for what is no part of an answer."""
    try:
        line = _line_decoder.decode(data)
    except UNREADABLE:
        line = _salvage_line(decode_object_leniently(data))
    if line.message is not None or line.done is True or line.error:
        return line
    if error := reported_error(data):
        return _Line(error=error)
    if decode_object_leniently(data):
        raise ValueError("neither a message nor the end of one")
    return line


def _salvage_line(fields: Mapping[str, Any]) -> _Line:
    message = fields.get("message") or {}
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(calls, list | None):
        raise ValueError("no message of Ollama's")
    return _Line(
        **{name: fields.get(name) for name in _Line.__struct_fields__ if name != "message"},
        message=_Message(
            content=message.get("content"),
            thinking=message.get("thinking"),
            tool_calls=tuple(map(_salvage_call, calls)) if calls else None,
        ),
    )


def _salvage_call(call: Any) -> _Call:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return _Call()
    arguments = json.dumps(function.get("arguments") or {}).encode()
    return _Call(call.get("id"), _Function(function.get("name"), Raw(arguments)))
