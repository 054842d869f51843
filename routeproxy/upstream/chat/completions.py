"""Chat completions as OpenAI streams them: the chunks in what was read, as far as they can be read. What says
neither something of the answer nor something beside it that is known is refused: skipped, it would leave a
hole that nobody sees."""

from collections.abc import Mapping
from typing import Any

import msgspec

from routeproxy.chat.completion import Chunk, CompletionUsage, only_text
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.upstream.chat.coalesce import TextCoalescer
from routeproxy.upstream.chat.lenient import (
    check_chunk_shape,
    decode_object_leniently,
    reported_error,
    salvage_chunk,
    salvage_usage,
)
from routeproxy.upstream.http.sse import EventDecoder, event_data

DONE = b"[DONE]"

_decode_chunk = msgspec.json.Decoder(Chunk).decode


class ChatCompletionsDecoder:
    """One answer: events whose data are chunks, or one completion where none was to be streamed."""

    streams_json = False

    def __init__(self) -> None:
        self._events = EventDecoder(TextCoalescer(_has_no_content).coalesce)

    def feed(self, data: bytes) -> tuple[list[Chunk], bool]:
        return _chunks_in(self._events.feed(data))

    def end(self) -> tuple[list[Chunk], bool]:
        return _chunks_in(self._events.end())

    def decode_whole(self, body: bytes) -> list[Chunk]:
        chunk = chunk_in(body)
        if not chunk.choices and not chunk.error:
            raise ValueError("neither choices nor an error")
        return [chunk]


def chunk_in(data: bytes) -> Chunk:
    """Raises `ValueError` for what is no chunk. A field of one is read as far as it can be."""
    try:
        chunk = _decode_chunk(data)
    except UNREADABLE:
        if error := reported_error(data):
            return Chunk(error=error)
        fields = decode_object_leniently(data)
        check_chunk_shape(fields)
        chunk = salvage_chunk(fields)
    choices = chunk.choices
    if choices and choices[0].finish_reason is None and choices[0].error is None:  # as nearly all
        return chunk
    return _last_chunk(chunk) if choices else _chunk_without_choices(chunk, data)


def _last_chunk(chunk: Chunk) -> Chunk:
    """With what some back ends put in other places than OpenAI."""
    choice, groq = chunk.choices[0], chunk.x_groq if isinstance(chunk.x_groq, dict) else {}
    return msgspec.structs.replace(
        chunk,
        usage=chunk.usage or _usage(choice.usage) or _usage(groq.get("usage")),
        error=chunk.error or choice.error or groq.get("error"),
    )


def _usage(reported: object) -> CompletionUsage | None:
    return salvage_usage(reported) if isinstance(reported, dict) else None


def _chunk_without_choices(chunk: Chunk, data: bytes) -> Chunk:
    """Raises `ValueError` for what is neither usage nor an annotation."""
    if error := reported_error(data) or chunk.error:  # its code may stand beside it
        return Chunk(error=error)
    fields = decode_object_leniently(data)
    if chunk.usage is None and fields.get("choices") != [] and not _is_beside_the_answer(fields):
        raise ValueError("neither choices nor usage nor an annotation")
    groq = chunk.x_groq if isinstance(chunk.x_groq, dict) else {}
    return msgspec.structs.replace(
        chunk, usage=chunk.usage or _usage(groq.get("usage")), error=groq.get("error")
    )


_BESIDE_THE_ANSWER = frozenset(
    {
        # of any chunk
        *("id", "object", "created", "model", "system_fingerprint", "service_tier", "choices", "usage"),
        *("provider", "obfuscation", "timings", "stats", "cost", "x_groq", "request_id"),
        "prompt_filter_results",  # Azure
        *("citations", "search_results", "related_questions", "annotations", "web_search"),  # Perplexity, GLM
        *("sources", "event", "selected_model_id"),  # Open WebUI
        *("copilot_references", "copilot_errors", "copilot_confirmation"),
        *("prompt_logprobs", "prompt_token_ids", "kv_transfer_params"),  # vLLM
    }
)
"""Fields that real servers send in objects without choices, and in which nothing of the answer stands. `{}`
has none, and keeps a connection alive."""
_SIGNS_OF_LIFE = ("ping", "keepalive", "keep-alive", "heartbeat")


def _is_beside_the_answer(fields: Mapping[str, Any]) -> bool:
    return fields.get("type") in _SIGNS_OF_LIFE or all(
        name in _BESIDE_THE_ANSWER or value is None for name, value in fields.items()
    )


def _chunks_in(events: list[bytes]) -> tuple[list[Chunk], bool]:
    """The chunks, and whether the answer is over."""
    chunks: list[Chunk] = []
    for data in events:
        if data.startswith(DONE):
            return chunks, True
        chunks.append(chunk := chunk_in(data))
        if chunk.error:
            break  # whatever follows an error, it is no answer
    return chunks, False


def _has_no_content(event: bytes) -> bool:
    """Whether an event is a chunk of text and the text is empty."""
    try:
        return only_text(chunk_in(event_data(event))) == ""
    except ValueError:
        return False
