"""The answers of a back end in each format that routeproxy speaks: 60 words, streamed or whole, and errors in
the words of the APIs."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

WORDS = tuple(f"word-{number} " for number in range(1, 61))
TEXT = "".join(WORDS)

ERRORS: Mapping[int, tuple[str, str]] = {
    429: ("rate_limit_error", "Rate limit reached"),
    500: ("api_error", "Internal server error"),
    503: ("overloaded_error", "The service is unavailable"),
}
"""By status, the type and the words of an error."""
OVERFLOW = "prompt is too long: 250000 tokens > 200000 maximum"
FILTERED = "The response was filtered due to the prompt triggering the content management policy"


class Format(Protocol):
    """How one kind of back end answers."""

    stream_type: str

    def asks_for_stream(self, path: str, body: Mapping[str, Any]) -> bool: ...
    def begin(self) -> bytes: ...
    def word(self, word: str) -> bytes: ...
    def finish(self) -> bytes:
        """The finish reason and the usage, without the mark of the end."""

    def end(self) -> bytes: ...
    def whole(self, text: str) -> bytes: ...
    def error(self, status: int, type: str, message: str) -> bytes: ...
    def overflow(self) -> bytes: ...
    def filtered(self) -> bytes: ...


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _data(value: Any) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return b"event: " + str(value["type"]).encode() + b"\n" + _data(value)


class Chat:
    stream_type = "text/event-stream"

    def asks_for_stream(self, path: str, body: Mapping[str, Any]) -> bool:
        return bool(body.get("stream"))

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "drill"}
        return _data({**base, "choices": [choice], **more})

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def word(self, word: str) -> bytes:
        return self._chunk({"content": word})

    def finish(self) -> bytes:
        usage = {"prompt_tokens": 10, "completion_tokens": 60, "total_tokens": 70}
        return self._chunk({}, "stop", usage=usage)

    def end(self) -> bytes:
        return b"data: [DONE]\n\n"

    def whole(self, text: str) -> bytes:
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 10, "completion_tokens": 60, "total_tokens": 70}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        base = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "drill"}
        return _json({**base, "choices": [choice], "usage": usage})

    def error(self, status: int, type: str, message: str) -> bytes:
        return _json({"error": {"message": message, "type": type, "code": None, "param": None}})

    def overflow(self) -> bytes:
        message = "This model's maximum context length is 200000 tokens, and your messages have 250000."
        error = {"message": message, "type": "invalid_request_error", "code": "context_length_exceeded"}
        return _json({"error": {**error, "param": "messages"}})

    def filtered(self) -> bytes:
        error = {"message": FILTERED, "type": "invalid_request_error", "code": "content_filter"}
        return _json({"error": {**error, "param": "prompt"}})


class Responses(Chat):
    def begin(self) -> bytes:
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        part = {"type": "output_text", "text": "", "annotations": []}
        at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        return b"".join(
            (
                _event({"type": "response.created", "response": self._response("in_progress", [])}),
                _event({"type": "response.output_item.added", "output_index": 0, "item": item}),
                _event({"type": "response.content_part.added", **at, "part": part}),
            )
        )

    def _response(self, status: str, output: list[Any]) -> dict[str, Any]:
        base = {"id": "resp_1", "object": "response", "created_at": 1, "model": "drill", "error": None}
        usage = {"input_tokens": 10, "output_tokens": 60, "total_tokens": 70}
        return {**base, "status": status, "output": output, "usage": usage, "incomplete_details": None}

    def _item(self, text: str) -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": []}
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [part],
        }

    def word(self, word: str) -> bytes:
        at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        return _event({"type": "response.output_text.delta", **at, "delta": word})

    def finish(self) -> bytes:
        at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        done = {"type": "response.output_text.done", **at, "text": TEXT}
        item_done = {"type": "response.output_item.done", "output_index": 0, "item": self._item(TEXT)}
        response = self._response("completed", [self._item(TEXT)])
        return _event(done) + _event(item_done) + _event({"type": "response.completed", "response": response})

    def end(self) -> bytes:
        return b""

    def whole(self, text: str) -> bytes:
        return _json(self._response("completed", [self._item(text)]))


class Messages:
    stream_type = "text/event-stream"

    def asks_for_stream(self, path: str, body: Mapping[str, Any]) -> bool:
        return bool(body.get("stream"))

    def _message(self, content: list[Any], stop_reason: str | None) -> dict[str, Any]:
        base = {"id": "msg_1", "type": "message", "role": "assistant", "model": "drill"}
        usage = {"input_tokens": 10, "output_tokens": 60 if content else 1}
        return {**base, "content": content, "stop_reason": stop_reason, "stop_sequence": None, "usage": usage}

    def begin(self) -> bytes:
        block = {"type": "text", "text": ""}
        start = {"type": "content_block_start", "index": 0, "content_block": block}
        return _event({"type": "message_start", "message": self._message([], None)}) + _event(start)

    def word(self, word: str) -> bytes:
        delta = {"type": "text_delta", "text": word}
        return _event({"type": "content_block_delta", "index": 0, "delta": delta})

    def finish(self) -> bytes:
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        stop = _event({"type": "content_block_stop", "index": 0})
        return stop + _event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 60}})

    def end(self) -> bytes:
        return _event({"type": "message_stop"})

    def whole(self, text: str) -> bytes:
        return _json(self._message([{"type": "text", "text": text}], "end_turn"))

    def error(self, status: int, type: str, message: str) -> bytes:
        return _json({"type": "error", "error": {"type": type, "message": message}})

    def overflow(self) -> bytes:
        return self.error(400, "invalid_request_error", OVERFLOW)

    def filtered(self) -> bytes:
        return self.error(400, "invalid_request_error", "Output blocked by content filtering policy")


class Gemini:
    stream_type = "text/event-stream"

    def asks_for_stream(self, path: str, body: Mapping[str, Any]) -> bool:
        return "streamGenerateContent" in path

    def _response(self, text: str, finish: str | None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        usage = {"promptTokenCount": 10, "candidatesTokenCount": 60, "totalTokenCount": 70}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "drill", "responseId": "r"}

    def begin(self) -> bytes:
        return b""

    def word(self, word: str) -> bytes:
        return _data(self._response(word, None))

    def finish(self) -> bytes:
        return _data(self._response("", "STOP"))

    def end(self) -> bytes:
        return b""

    def whole(self, text: str) -> bytes:
        return _json(self._response(text, "STOP"))

    def error(self, status: int, type: str, message: str) -> bytes:
        names = {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 400: "INVALID_ARGUMENT"}
        return _json({"error": {"code": status, "message": message, "status": names.get(status, "UNKNOWN")}})

    def overflow(self) -> bytes:
        message = "The input token count (1250000) exceeds the maximum number of tokens allowed (1048576)."
        return self.error(400, "", message)

    def filtered(self) -> bytes:
        return _json({"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "drill"})


class Ollama:
    stream_type = "application/x-ndjson"

    def asks_for_stream(self, path: str, body: Mapping[str, Any]) -> bool:
        return body.get("stream") is not False

    def _line(self, text: str, *, done: bool) -> bytes:
        message = {"role": "assistant", "content": text}
        line = {"model": "drill", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": done}
        if done:
            line |= {"done_reason": "stop", "prompt_eval_count": 10, "eval_count": 60}
        return _json(line) + b"\n"

    def begin(self) -> bytes:
        return b""

    def word(self, word: str) -> bytes:
        return self._line(word, done=False)

    def finish(self) -> bytes:
        return self._line("", done=True)

    def end(self) -> bytes:
        return b""

    def whole(self, text: str) -> bytes:
        return self._line(text, done=True)

    def error(self, status: int, type: str, message: str) -> bytes:
        return _json({"error": message})

    def overflow(self) -> bytes:
        return _json({"error": "the input length exceeds the context length"})

    def filtered(self) -> bytes:
        return _json({"error": FILTERED})


FORMATS: Mapping[str, Format] = {
    "chat": Chat(),
    "responses": Responses(),
    "messages": Messages(),
    "gemini": Gemini(),
    "ollama": Ollama(),
}


def pieces(format: Format, count: int) -> Iterator[bytes]:
    """The beginning of a stream, and its first words."""
    yield format.begin()
    yield from map(format.word, WORDS[:count])
