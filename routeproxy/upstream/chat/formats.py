"""The formats that we speak ourselves: which one a target is spoken to in, how a chat request is written in
it, and how an answer in it is read. One value a format; no I/O."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from routeproxy.chat.completion import Chunk
from routeproxy.chat.request import ChatRequest, encode_request
from routeproxy.policy.targets import Target
from routeproxy.upstream.chat.completions import ChatCompletionsDecoder
from routeproxy.upstream.chat.endpoints import Path, deployment_of
from routeproxy.upstream.chat.gemini import GeminiDecoder
from routeproxy.upstream.chat.gemini_request import gemini_request
from routeproxy.upstream.chat.model_facts import profile_within_limits
from routeproxy.upstream.chat.ollama import OllamaDecoder
from routeproxy.upstream.chat.ollama_request import ollama_request
from routeproxy.upstream.chat.profiles import uses_responses
from routeproxy.upstream.chat.responses import ResponsesDecoder
from routeproxy.upstream.chat.responses_request import responses_request


class ResponseDecoder(Protocol):
    """Reads one answer. Each method raises `ValueError` for what can't be read."""

    streams_json: bool
    """It streams JSON, so that what begins like that may be a stream."""

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


CHAT_COMPLETIONS = Format(
    encode=lambda chat, target, summaries: encode_request(chat, deployment_of(target)),
    decoder=ChatCompletionsDecoder,
)
RESPONSES = Format(path="responses", encode=_encode_responses, decoder=ResponsesDecoder)
GEMINI = Format(
    path="generateContent",
    stream_path="streamGenerateContent",
    encode=lambda chat, target, summaries: gemini_request(chat, deployment_of(target)),
    decoder=GeminiDecoder,
)
_FORMATS: Mapping[str, Format] = {
    "ollama": Format(
        encode=lambda chat, target, summaries: ollama_request(chat, deployment_of(target)),
        decoder=OllamaDecoder,
    ),
    "gemini": GEMINI,
    "vertex_ai": GEMINI,
}
"""By type of provider; the rest speaks chat completions."""

_DECODERS: Mapping[str, Callable[[], ResponseDecoder]] = {
    "/chat/completions": ChatCompletionsDecoder,
    "/text/chat": ChatCompletionsDecoder,  # watsonx
    "/text/chat_stream": ChatCompletionsDecoder,
    "/responses": ResponsesDecoder,
    ":generateContent": GeminiDecoder,
    ":streamGenerateContent": GeminiDecoder,
    "/api/chat": OllamaDecoder,
}
"""By how the path ends at which an answer is asked for, whoever writes the request."""


def decoder_for(path: str) -> ResponseDecoder | None:
    """A reader of what is answered at this path; `None` if that has no format of ours."""
    path = path.rstrip("/")
    return next((decoder() for end, decoder in _DECODERS.items() if path.endswith(end)), None)
