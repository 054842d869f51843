"""The formats that we speak ourselves: which one a target is spoken to in, how a chat request is written in
it, and how an answer in it is read. One value a format; no I/O."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from routeproxy.chat.completion import Chunk
from routeproxy.chat.request import ChatRequest, asking
from routeproxy.policy.decide import Target
from routeproxy.upstream.chat.completions import ChatCompletionsDecoder
from routeproxy.upstream.chat.endpoints import Path, deployment_of
from routeproxy.upstream.chat.gemini import GeminiDecoder, gemini_request
from routeproxy.upstream.chat.lenient import decode_object_leniently
from routeproxy.upstream.chat.model_facts import profile_within_limits
from routeproxy.upstream.chat.ollama import OllamaDecoder, ollama_request
from routeproxy.upstream.chat.profiles import uses_responses
from routeproxy.upstream.chat.responses import ResponsesStream, responses_request, responses_whole
from routeproxy.upstream.http.sse import EventDecoder


class ResponseDecoder(Protocol):
    """Reads one answer. Each method raises `ValueError` for what can't be read."""

    def feed(self, data: bytes) -> tuple[Sequence[Chunk], bool]:
        """The chunks that were in what was read, and whether the answer is over."""

    def end(self) -> tuple[Sequence[Chunk], bool]:
        """The same, when there is no more to read."""

    def decode_whole(self, body: bytes) -> Sequence[Chunk]:
        """An answer that was not streamed."""


class Format(Struct, frozen=True, kw_only=True):
    """One format: where it is spoken, how a request is written and how an answer is read."""

    path: Path = "chat/completions"
    """Where a request goes, below the provider's address."""
    stream_path: Path | None = None
    """Where it goes instead if its answer is to be streamed."""
    encode: Callable[[ChatRequest, Target, bool], bytes]
    """The body. The last argument: whether the provider summarises its reasoning for us. Raises
    `UpstreamFailure` of kind `capability`."""
    decoder: Callable[[], ResponseDecoder]


def format_of(target: Target) -> Format:
    """Responses where that is asked for or needed, else the provider's own."""
    return RESPONSES if uses_responses(target) else _FORMATS.get(target.provider.type, CHAT_COMPLETIONS)


def _encode_responses(chat: ChatRequest, target: Target, summaries: bool) -> bytes:
    reasons = bool(profile_within_limits(target).efforts)
    return responses_request(chat, model=deployment_of(target), reasons=reasons, summaries=summaries)


class ResponsesDecoder:
    """One answer in OpenAI's Responses: events, or one response where none was to be streamed."""

    def __init__(self) -> None:
        self._events = EventDecoder()
        self._stream = ResponsesStream()

    def feed(self, data: bytes) -> tuple[list[Chunk], bool]:
        return self._chunks_in(self._events.feed(data)), False

    def end(self) -> tuple[list[Chunk], bool]:
        return self._chunks_in(self._events.end()), False

    def decode_whole(self, body: bytes) -> list[Chunk]:
        decode_object_leniently(body)  # what is no object at all is no failed response either
        return responses_whole(body)

    def _chunks_in(self, events: list[bytes]) -> list[Chunk]:
        return [chunk for data in events for chunk in self._stream.feed(data)]


CHAT_COMPLETIONS = Format(
    encode=lambda chat, target, summaries: asking(deployment_of(target), chat),
    decoder=ChatCompletionsDecoder,
)
RESPONSES = Format(path="responses", encode=_encode_responses, decoder=ResponsesDecoder)
_FORMATS: Mapping[str, Format] = {
    "ollama": Format(
        encode=lambda chat, target, summaries: ollama_request(chat, deployment_of(target)),
        decoder=OllamaDecoder,
    ),
    "gemini": Format(
        path="generateContent",
        stream_path="streamGenerateContent",
        encode=lambda chat, target, summaries: gemini_request(chat, deployment_of(target)),
        decoder=GeminiDecoder,
    ),
}
"""By type of provider; the rest speaks chat completions."""
