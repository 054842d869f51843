"""Back ends that speak chat completions, spoken to directly: our request goes out as it was translated, and
each read of the answer becomes its chunks. No library decides what is sent or makes up what came."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from routeproxy.chat.completion import Chunk, only_text
from routeproxy.chat.request import ChatRequest, asking
from routeproxy.exchange import Call
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.policy.decide import Target
from routeproxy.translate.profile import ModelProfile
from routeproxy.upstream.chat.coalesce import TextCoalescer
from routeproxy.upstream.chat.endpoints import Path, endpoint_of, with_additions
from routeproxy.upstream.chat.gemini import GeminiDecoder
from routeproxy.upstream.chat.gemini_request import gemini_request
from routeproxy.upstream.chat.model_table import profile_within_limits
from routeproxy.upstream.chat.ollama import OllamaDecoder
from routeproxy.upstream.chat.ollama_request import ollama_request
from routeproxy.upstream.chat.profiles import over_responses, profile_of
from routeproxy.upstream.chat.responses import ResponsesDecoder
from routeproxy.upstream.chat.responses_request import responses_request
from routeproxy.upstream.failover import needed_key
from routeproxy.upstream.failures import (
    UpstreamFailure,
    from_error_in_stream,
    from_response,
    not_a_completion,
    redirected,
)
from routeproxy.upstream.http.client import Client, Response, forwarded
from routeproxy.upstream.http.sse import Events, data_of
from routeproxy.upstream.litellm.chunks import decode_object_leniently, salvage_chunk

LONGEST_ERROR = 2**18
LONGEST_REPLY = 2**26
"""Bytes. What is longer is no answer to a person's question."""


class ResponseDecoder(Protocol):
    """How one answer is worded. No I/O."""

    def feed(self, data: bytes) -> tuple[Sequence[Chunk], bool]:
        """The chunks that were in what was read, and whether the answer is over. Raises `ValueError` for what
        can't be read."""

    def end(self) -> tuple[Sequence[Chunk], bool]:
        """The same, when there is no more to read."""

    def whole(self, body: bytes) -> Sequence[Chunk]:
        """An answer that was not streamed."""


class DirectBackEnd:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._without_summaries: set[str] = set()
        """The providers that summarise no reasoning for us: OpenAI does for verified organisations only."""

    def profile(self, target: Target) -> ModelProfile:
        return profile_within_limits(target)

    async def open(self, chat: ChatRequest, call: Call) -> "ChunkStream":
        provider = call.target.provider.name
        summaries = provider not in self._without_summaries
        asked = _asked(chat, call, summaries=summaries)
        response = await self._post(call, asked)
        if 200 <= response.status < 300:
            return ChunkStream(response, asked.words, call.target)
        body = await _error_in(response)
        if not (summaries and asked.over_responses and response.status == 400 and NO_SUMMARIES in body):
            raise _failure(response, body, call)
        self._without_summaries.add(provider)
        return await self.open(chat, call)

    async def _post(self, call: Call, asked: "_Asked") -> Response:
        return await self._client.post(
            call.target.provider,
            asked.url,
            body=asked.body,
            headers=_headers(call, needed_key(call)),
            connect=call.target.timeouts.connect,
        )


# --- the request


class _Asked(NamedTuple):
    """Where to, what, and how the answer is read."""

    url: str
    body: bytes
    words: ResponseDecoder
    over_responses: bool = False


def _asked(chat: ChatRequest, call: Call, *, summaries: bool) -> _Asked:
    target, provider, decision = call.target, call.target.provider, call.exchange.decision
    speech = endpoint_of(provider)
    model = str(provider.options.get("deployment", target.model))
    words: ResponseDecoder
    path: Path = "chat/completions"
    if responses := over_responses(target):
        path = "responses"
        reasons = bool(profile_of(target).efforts)
        body = responses_request(chat, model, reasons=reasons, summaries=summaries)
        words = ResponsesDecoder()
    elif provider.type == "ollama":
        body, words = ollama_request(chat, model), OllamaDecoder()
    elif provider.type == "gemini":
        path = "streamGenerateContent" if chat.stream else "generateContent"
        body, words = gemini_request(chat, model), GeminiDecoder()
    else:
        body = asking(model, chat)
        words = ChatCompletionsDecoder()
    fallback = decision is None or decision.fallback.enabled
    additions = speech.additions(provider, target.params.extra_body, fallback=fallback)
    url = speech.url(provider, model, path)
    return _Asked(url, with_additions(body, additions), words, responses)


def _headers(call: Call, key: str | None) -> dict[str, str]:
    provider = call.target.provider
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    if key is not None:
        name, value = endpoint_of(provider).credentials(key)
        headers[name] = value
    if organization := provider.options.get("organization"):
        headers["openai-organization"] = str(organization)
    headers |= forwarded(provider, call.exchange.inbound)
    return headers | {name.lower(): value for name, value in provider.headers.items()}


NO_SUMMARIES = b"reasoning.summary"
"""What OpenAI's refusal names."""


async def _error_in(response: Response) -> bytes:
    try:
        return b"" if 300 <= response.status < 400 else await response.whole(LONGEST_ERROR)
    finally:
        response.close()


def _failure(response: Response, body: bytes, call: Call) -> UpstreamFailure:
    target = call.target
    if 300 <= response.status < 400:
        return redirected(target.provider.name)
    return from_response(
        response.status,
        dict(response.headers),
        body.decode("utf-8", "replace"),
        provider=target.provider.name,
        model=target.model,
    )


# --- the answer


class ChunkStream:
    """The chunks of an answer, those of one read at a time. It is over with `StopAsyncIteration`."""

    def __init__(self, response: Response, words: ResponseDecoder, target: Target) -> None:
        self._response = response
        self._is_whole = response.content_type == "application/json"
        self._words = words
        self._target = target
        self._over = False
        self._failure: UpstreamFailure | None = None
        self.done = False
        """The back end said that it was done, so its answer is whole."""

    def __aiter__(self) -> "ChunkStream":
        return self

    async def aclose(self) -> None:
        try:
            if self.done:
                await self._response.drain()
        finally:
            self._response.close()

    async def __anext__(self) -> Sequence[Chunk]:
        if self._failure is not None:
            raise self._failure
        if self._over:
            raise StopAsyncIteration
        return self._until_error(await self._read())

    def _until_error(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """What came before a failure is shown before it."""
        for place, chunk in enumerate(chunks):
            if chunk.error:
                self._failure = from_error_in_stream(
                    chunk.error, provider=self._target.provider.name, model=self._target.model
                )
                if not place:
                    raise self._failure
                return chunks[:place]
        return chunks

    async def _read(self) -> Sequence[Chunk]:
        try:
            if self._is_whole:
                self._over = True
                return self._words.whole(await self._response.whole(LONGEST_REPLY))
            if data := await self._response.read():
                chunks, self.done = self._words.feed(data)
                self._over = self.done
                return chunks
            self._over = True
            chunks, self.done = self._words.end()
        except ValueError as error:
            raise not_a_completion(self._target.provider.name) from error
        return chunks


_chunk = msgspec.json.Decoder(Chunk)

DONE = b"[DONE]"


class ChatCompletionsDecoder:
    """Chat completions as OpenAI streams them."""

    def __init__(self) -> None:
        self._events = Events(TextCoalescer(_says_nothing).together)

    def feed(self, data: bytes) -> tuple[list[Chunk], bool]:
        return _chunks(self._events.feed(data))

    def end(self) -> tuple[list[Chunk], bool]:
        return _chunks(self._events.end())

    def whole(self, body: bytes) -> list[Chunk]:
        chunk = chunk_in(body)
        if not chunk.choices and not chunk.error:
            raise ValueError("neither choices nor an error")
        return [chunk]


def _chunks(events: list[bytes]) -> tuple[list[Chunk], bool]:
    chunks: list[Chunk] = []
    for data in events:
        if data.startswith(DONE):
            return chunks, True
        chunks.append(chunk_in(data))
    return chunks, False


def _says_nothing(frame: bytes) -> bool:
    try:
        return only_text(chunk_in(data_of(frame))) == ""
    except ValueError:
        return False


def chunk_in(data: bytes) -> Chunk:
    """Raises `ValueError` for what is no JSON object; whatever is in one is read as far as it can be."""
    try:
        return _chunk.decode(data)
    except UNREADABLE:
        return salvage_chunk(decode_object_leniently(data))
