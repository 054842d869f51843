"""Chat back ends, spoken to directly: our request goes out as it was translated, and each read of the answer
becomes its chunks. No library decides what is sent or makes up what came."""

from collections.abc import Sequence

from routeproxy.chat.completion import Chunk
from routeproxy.chat.request import ChatRequest
from routeproxy.exchange import Call
from routeproxy.policy.targets import Target
from routeproxy.translate.profile import ModelProfile
from routeproxy.upstream.chat.endpoints import deployment_of, endpoint_of, with_additions
from routeproxy.upstream.chat.formats import RESPONSES, Format, ResponseDecoder, format_of
from routeproxy.upstream.chat.model_facts import profile_within_limits
from routeproxy.upstream.errors.classify import classify_error_object
from routeproxy.upstream.failures import UpstreamFailure, not_a_completion
from routeproxy.upstream.http.client import Client, Response, read_failure
from routeproxy.upstream.http.headers import outgoing_headers
from routeproxy.upstream.keys import needed_key

LONGEST_REPLY = 2**26
"""Bytes. What is longer is no answer to a person's question."""

NO_SUMMARIES = b"reasoning.summary"
"""What OpenAI's refusal names."""


class DirectBackEnd:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._without_summaries: set[str] = set()
        """The providers that summarise no reasoning for us: OpenAI does for verified organisations only."""

    def profile(self, target: Target) -> ModelProfile:
        return profile_within_limits(target)

    async def open(self, chat: ChatRequest, call: Call) -> "ChunkStream":
        format = format_of(call.target)
        provider = call.target.provider.name
        summaries = provider not in self._without_summaries
        response = await self._post(chat, call, format, summaries=summaries)
        if response.ok:
            return ChunkStream(response, format.decoder(), call.target)
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
        key = needed_key(call)
        headers = outgoing_headers(
            call,
            protocol={"content-type": "application/json"},
            credentials=endpoint.credentials(key) if key is not None else {},
        )
        return await self._client.post(
            provider,
            endpoint.url(provider, deployment_of(target), path),
            body=with_additions(format.encode(chat, target, summaries), call),
            headers=headers,
            connect=target.timeouts.connect,
        )


class ChunkStream:
    """The chunks of an answer, as many at a time as one read brought."""

    def __init__(self, response: Response, decoder: ResponseDecoder, target: Target) -> None:
        self._response = response
        self._is_whole = response.content_type == "application/json"
        self._decoder = decoder
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
                self._failure = classify_error_object(
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
                return self._decoder.decode_whole(await self._response.read_all(LONGEST_REPLY))
            if data := await self._response.read():
                chunks, self.done = self._decoder.feed(data)
                self._over = self.done
                return chunks
            self._over = True
            chunks, self.done = self._decoder.end()
        except ValueError as error:
            raise not_a_completion(self._target.provider.name) from error
        return chunks
