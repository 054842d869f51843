"""Chat completions as OpenAI streams them: the chunks in what was read, as far as they can be read."""

import msgspec

from routeproxy.chat.completion import Chunk, only_text
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.upstream.chat.coalesce import TextCoalescer
from routeproxy.upstream.chat.lenient import decode_object_leniently, salvage_chunk
from routeproxy.upstream.http.sse import EventDecoder, event_data

DONE = b"[DONE]"

_decode_chunk = msgspec.json.Decoder(Chunk).decode


class ChatCompletionsDecoder:
    """One answer: events whose data are chunks, or one completion where none was to be streamed."""

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
    """Raises `ValueError` for what is no JSON object; whatever is in one is read as far as it can be."""
    try:
        return _decode_chunk(data)
    except UNREADABLE:
        return salvage_chunk(decode_object_leniently(data))


def _chunks_in(events: list[bytes]) -> tuple[list[Chunk], bool]:
    """The chunks, and whether the answer is over."""
    chunks: list[Chunk] = []
    for data in events:
        if data.startswith(DONE):
            return chunks, True
        chunks.append(chunk_in(data))
    return chunks, False


def _has_no_content(event: bytes) -> bool:
    """Whether an event is a chunk of text and the text is empty."""
    try:
        return only_text(chunk_in(event_data(event))) == ""
    except ValueError:
        return False
