"""Chat back ends, spoken to directly: our request goes out as it was translated, and each read of the answer
becomes its chunks. No library decides what is sent or makes up what came."""

from collections.abc import Mapping, Sequence

from routeproxy.chat.completion import Chunk
from routeproxy.chat.request import ChatRequest
from routeproxy.exchange import Call
from routeproxy.large_bodies import read_beside
from routeproxy.policy.targets import Target
from routeproxy.translate.profile import ModelProfile
from routeproxy.upstream.chat.endpoints import Endpoint, deployment_of, endpoint_of, with_additions
from routeproxy.upstream.chat.formats import RESPONSES, Format, ResponseDecoder, format_of
from routeproxy.upstream.chat.model_facts import profile_within_limits
from routeproxy.upstream.chat.until_error import ChunksUntilError
from routeproxy.upstream.failures import UpstreamFailure, not_a_completion, page_instead
from routeproxy.upstream.google_tokens import GoogleTokens
from routeproxy.upstream.http.body_form import Form
from routeproxy.upstream.http.client import Client, Response, read_failure
from routeproxy.upstream.http.headers import outgoing_headers
from routeproxy.upstream.keys import needed_key

LONGEST_REPLY = 2**26
"""Bytes. What is longer is no answer to a person's question."""

NO_SUMMARIES = b"reasoning.summary"
"""What OpenAI's refusal names."""


class DirectBackEnd:
    def __init__(self, client: Client, google_tokens: GoogleTokens) -> None:
        self._client = client
        self._google_tokens = google_tokens
        self._without_summaries: set[str] = set()
        """The providers that summarise no reasoning for us: OpenAI does for verified organisations only."""

    def profile(self, target: Target) -> ModelProfile:
        return profile_within_limits(target)

    async def open(self, chat: ChatRequest, call: Call) -> ChunksUntilError:
        format = format_of(call.target)
        provider = call.target.provider.name
        summaries = provider not in self._without_summaries
        response = await self._post(chat, call, format, summaries=summaries)
        call.exchange.keep_secret(response.secrets)
        if response.ok:
            stream = ChunkStream(response, format.decoder(), call.target, stream=chat.stream is True)
            return ChunksUntilError(stream, call.target)
        try:
            failure, body = await read_failure(response, call.target.model)
        finally:
            response.close()
        if not (summaries and format is RESPONSES and response.status == 400 and NO_SUMMARIES in body):
            raise failure
        self._without_summaries.add(provider)
        return await self.open(chat, call)

    async def _post(self, chat: ChatRequest, call: Call, format: Format, *, summaries: bool) -> Response:
        target, provider = call.target, call.target.provider
        endpoint = endpoint_of(provider)
        path = format.stream_path if chat.stream is True and format.stream_path else format.path
        headers = outgoing_headers(
            call,
            protocol={"content-type": "application/json"},
            credentials=await self._credentials(call, endpoint),
        )
        inbound = call.exchange.inbound
        body = await read_beside(
            len(inbound.body), inbound.caller, _encoded, chat, call, format, summaries=summaries
        )
        return await self._client.post(
            provider,
            endpoint.url(provider, deployment_of(target), path),
            body=body,
            headers=headers,
            connect=target.timeouts.connect,
        )

    async def _credentials(self, call: Call, endpoint: Endpoint) -> Mapping[str, str]:
        key = needed_key(call)
        if key is not None:
            return endpoint.credentials(key)
        if endpoint.signs_in_to_google:
            return await self._google_tokens.headers(call.target.provider)
        return {}


def _encoded(chat: ChatRequest, call: Call, format: Format, *, summaries: bool) -> bytes:
    return with_additions(format.encode(chat, call.target, summaries), call)


class ChunkStream:
    """The chunks of an answer, as many at a time as one read brought."""

    def __init__(self, response: Response, decoder: ResponseDecoder, target: Target, *, stream: bool) -> None:
        """`stream`: whether it was asked for as one. What comes may be the other."""
        self._response = response
        self._streams_json = decoder.streams_json and stream
        self._form: Form | None = None
        """Not known before the first byte."""
        self._decoder = decoder
        self._target = target
        self._over = False
        self.done = False
        """The back end said that it was done, so its answer is whole."""
        self._last: Sequence[Chunk] = ()
        """The chunks of the last read, and of the one before."""
        self._before: Sequence[Chunk] = ()

    def __aiter__(self) -> "ChunkStream":
        return self

    def _has_finished(self) -> bool:
        """Whether the last thing that came was the finish reason: then the answer is whole, however the
        connection ends. Where the chunk before it had one too it says nothing, as with Gemini's first models,
        which gave one in each."""
        reasons = [choice.finish_reason for chunk in (*self._before, *self._last) for choice in chunk.choices]
        return bool(reasons) and bool(reasons[-1]) and not any(reasons[:-1])

    async def aclose(self) -> None:
        try:
            if self.done:
                await self._response.drain()
        finally:
            self._response.close()

    async def __anext__(self) -> Sequence[Chunk]:
        if self._over:
            raise StopAsyncIteration
        return await self._read()

    async def _read(self) -> Sequence[Chunk]:
        if self._form is None:
            self._form = await self._response.form()
            if self._form == "page":
                raise page_instead(self._target.provider.name)
        try:
            if self._form == "json" and not self._streams_json:
                self._over = True
                return self._decoder.decode_whole(await self._response.read_all(LONGEST_REPLY))
            if data := await self._response.read():
                chunks, self.done = self._decoder.feed(data)
                self._over = self.done
                self._before, self._last = self._last, chunks
                return chunks
            self._over = True
            chunks, self.done = self._decoder.end()
        except UpstreamFailure as failure:
            if failure.kind != "connection" or not self._has_finished():
                raise
            self._over = True
            return ()
        except (ValueError, RecursionError) as error:
            raise not_a_completion(self._target.provider.name) from error
        return chunks
