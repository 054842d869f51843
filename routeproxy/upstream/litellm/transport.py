"""What LiteLLM's requests travel on: httpx transports over our own client. Where the bytes go, with which key
and headers, and what came back when it went wrong are decided and seen here, whatever LiteLLM makes of
them."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextvars import ContextVar
from urllib.parse import urlsplit

import httpx
import msgspec

from routeproxy.chat.completion import Chunk
from routeproxy.exchange import Call
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.policy.providers import Provider
from routeproxy.upstream.chat.endpoints import endpoint_of, with_additions
from routeproxy.upstream.failures import UpstreamFailure, from_response, not_a_completion, redirected
from routeproxy.upstream.http.client import Client, Response, forwarded
from routeproxy.upstream.litellm.providers import NO_KEY, LiteLLMProvider

CREDENTIALS = ("authorization", "api-key", "x-api-key", "x-goog-api-key")
LONGEST_ERROR_BODY = 2**18

# What LiteLLM and OpenAI's client say of themselves, or find for themselves in the environment.
_OF_THE_LIBRARIES = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "host",
        "http-referer",
        "openai-organization",
        "openai-project",
        "transfer-encoding",
        "user-agent",
        "x-title",
    }
)
# Headers of a connection, not of a request: a rule that forwards them would break the one that we make.
_DECODED_BY_NOW = frozenset({"content-encoding", "content-length", "transfer-encoding"})

_FINISH_REASON = re.compile(
    rb'(?<!\\)"(?:finish_reason|finishReason|done_reason|done)"\s*:\s*(?:"(\w+)"|true)'
)
_LONGEST_FINISH_REASON = 80

current: ContextVar["LiteLLMTransport | None"] = ContextVar("current", default=None)
"""The call on whose behalf LiteLLM is at work. A variable of the context, because few of its paths pass a
client on to the end."""


class LiteLLMTransport:
    """The requests of one call. `close` closes whatever is still open of them."""

    def __init__(
        self,
        client: Client,
        call: Call,
        litellm_provider: LiteLLMProvider,
        body: bytes | None,
        *,
        stream: bool,
    ) -> None:
        """`stream`: whether the answer was asked for as one."""
        self._client = client
        self._call = call
        self._litellm_provider = litellm_provider
        self._body = body
        self._stream = stream
        self._answers: list[Response] = []
        self.failure: UpstreamFailure | None = None
        """What went wrong with the last request, if anything did."""
        self.finish_reason: str | None = None
        """As the back end wrote it: LiteLLM rewrites those that it does not know."""
        self.answered = False
        """The last request got an answer that was no error."""
        self.chunks: tuple[Chunk, ...] = ()
        """The answer, where the back end streamed it unasked."""

    async def send(self, request: httpx.Request) -> httpx.Response:
        provider = self.provider_for(request)
        self.failure = self.finish_reason = None
        self.answered = False
        body = await request.aread()
        try:
            answer = await self._client.post(
                provider,
                str(request.url),
                body=self._completed(body, request.url.path),
                headers=self.headers(request.headers),
                connect=self._call.target.timeouts.connect,
            )
            self._answers.append(answer)
            if not 200 <= answer.status < 300:
                return await self._failed(answer, request)
            self.answered = True
        except UpstreamFailure as error:
            # Not a ConnectError: LiteLLM would try that one again by itself.
            raise self.broken(error, httpx.TransportError) from error
        if request.url.path.endswith("/chat/completions"):
            streams = answer.content_type == "text/event-stream"
            if streams and not self._stream:
                return await self._added_up(answer, request)
            if self._stream and answer.content_type == "application/json":
                return await self._played(answer, request)
        return httpx.Response(
            answer.status, headers=_headers_of(answer), stream=_Body(self, answer), request=request
        )

    async def _added_up(self, answer: Response, request: httpx.Request) -> httpx.Response:
        """A stream where none was asked for. LiteLLM can't read it, and gets something else to read."""
        lines = (await self._whole(answer)).splitlines()
        data = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        self.chunks = tuple(chunk for one in data if (chunk := _chunk_in(one)) is not None)
        return httpx.Response(200, json=_STAND_IN, request=request)

    async def _played(self, answer: Response, request: httpx.Request) -> httpx.Response:
        """A whole completion where a stream was asked for: a stream of one chunk."""
        body = b" ".join((await self._whole(answer)).splitlines())
        try:
            msgspec.json.decode(body, type=msgspec.Raw)
        except msgspec.DecodeError:
            self.failure = not_a_completion(self._call.target.provider.name)
            raise httpx.RemoteProtocolError(self.failure.message) from None
        return httpx.Response(
            200,
            headers={"content-type": "text/event-stream"},
            content=b"data: %b\n\ndata: [DONE]\n\n" % body,
            request=request,
        )

    async def _whole(self, answer: Response) -> bytes:
        return b"".join([data async for data in _Body(self, answer)])

    @property
    def tells_its_end(self) -> bool:
        return self._litellm_provider.tells_its_end

    def close(self) -> None:
        for answer in self._answers:
            answer.close()

    def provider_for(self, request: httpx.Request) -> Provider:
        """The provider at the address that is asked, which must be its own. Nothing is fetched, such as the
        picture behind a URL in the prompt: that request would carry the provider's headers."""
        provider, url = self._call.target.provider, request.url
        if request.method != "POST":
            raise self._refused(f"{request.method} {url.path} is not sent for a chat")
        if provider.base_url is None:
            self._check_place(provider, url)
            return msgspec.structs.replace(provider, base_url=str(url))
        own = urlsplit(provider.base_url)
        if (own.scheme, own.netloc) != (url.scheme, url.netloc.decode()):
            raise self._refused(f"a request would have gone to {url.host}, which is not its base_url")
        return provider

    def _check_place(self, provider: Provider, url: httpx.URL) -> None:
        hosts = self._litellm_provider.hosts
        if hosts and not any(f".{url.host}".endswith(f".{host}") for host in hosts):
            raise self._refused(f"a request would have gone to {url.host}, which is not {' or '.join(hosts)}")
        option, shown = self._litellm_provider.place or ("", "")
        stated = provider.options.get(option)
        if stated is not None and shown.format(stated) not in f"{url.host}{url.path}":
            why = f"LiteLLM would have asked {url.host}{url.path}, which is not in {option} `{stated}`"
            raise self._refused(why)

    def broken(self, failure: UpstreamFailure, kind: type[httpx.TransportError]) -> httpx.TransportError:
        self.failure = failure
        return kind(failure.message)

    def _refused(self, why: str) -> httpx.TransportError:
        self.failure = UpstreamFailure("connection", f"the back end {self._call.target.provider.name}: {why}")
        return httpx.UnsupportedProtocol(why)

    def headers(self, written: httpx.Headers) -> dict[str, str]:
        call, provider = self._call, self._call.target.provider
        headers = {
            name: value
            for name, value in written.items()
            if name not in _OF_THE_LIBRARIES and not name.startswith("x-stainless-")
        }
        for name in CREDENTIALS:
            if name in headers and (self._litellm_provider.sends_key or NO_KEY in headers[name]):
                del headers[name]
        if self._litellm_provider.sends_key and call.key is not None:
            # In the header where the back end looks for it. LiteLLM 1.110 shows Azure a key as a Bearer token
            # once it has seen that somebody had none.
            name, value = endpoint_of(provider).credentials(call.key)
            headers[name] = value
        headers["accept-encoding"] = "identity"
        if organization := provider.options.get("organization"):
            headers["openai-organization"] = organization
        headers |= forwarded(provider, call.exchange.inbound)
        return headers | {name.lower(): value for name, value in provider.headers.items()}

    def _completed(self, body: bytes, path: str) -> bytes:
        """`body` with what the rules add to it, in the back end's own shape."""
        target, decision = self._call.target, self._call.exchange.decision
        fallback = decision is None or decision.fallback.enabled
        speech = endpoint_of(target.provider)
        added = speech.additions(target.provider, target.params.extra_body, fallback=fallback)
        if path.endswith("/responses"):
            added.append({"store": False})  # nothing refers to it later, and it is somebody's conversation
        body = self._body or body
        return with_additions(body, added) if body.startswith(b"{") else body

    async def _failed(self, answer: Response, request: httpx.Request) -> httpx.Response:
        target = self._call.target
        body = b""
        if 300 <= answer.status < 400:
            self.failure = redirected(target.provider.name)
        else:
            while len(body) < LONGEST_ERROR_BODY and (data := await answer.read()):
                body += data
            self.failure = from_response(
                answer.status,
                dict(answer.headers),
                body.decode("utf-8", "replace"),
                provider=target.provider.name,
                model=target.model,
            )
        return httpx.Response(answer.status, headers=_headers_of(answer), content=body, request=request)


_STAND_IN = {"id": "-", "object": "chat.completion", "created": 0, "model": "-", "choices": []}

_chunk = msgspec.json.Decoder(Chunk)


def _chunk_in(data: bytes) -> Chunk | None:
    try:
        return _chunk.decode(data)
    except UNREADABLE:
        return None  # `[DONE]`, for one


# JSON allows these as they are, and LiteLLM takes them for ends of lines: it drops them, or the whole chunk.
_LINE_ENDS = re.compile(rb"\xe2\x80[\xa8\xa9]|\xc2\x85")
_BEGUN = (b"\xe2\x80", b"\xe2", b"\xc2")
_BINARY = "application/vnd.amazon.eventstream"


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode())


class _Body(httpx.AsyncByteStream):
    def __init__(self, wire: LiteLLMTransport, answer: Response) -> None:
        self._wire = wire
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        before = held = b""
        text = self._answer.content_type != _BINARY
        try:
            while data := await self._answer.read():
                for reason in _FINISH_REASON.findall(before + data):
                    self._wire.finish_reason = reason.decode() or self._wire.finish_reason or "stop"
                before = data[-_LONGEST_FINISH_REASON:]
                if text:
                    data = held + data
                    held = next((begun for begun in _BEGUN if data.endswith(begun)), b"")
                    data = _LINE_ENDS.sub(_escaped, data[: len(data) - len(held)])
                yield data
            if held:
                yield held
        except UpstreamFailure as error:
            raise self._wire.broken(error, httpx.ReadError) from error

    async def aclose(self) -> None:
        self._answer.close()


class Transport(httpx.AsyncBaseTransport):
    """The one transport of all clients that LiteLLM uses: each request goes to the wire of its call."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        wire = current.get()
        if wire is None:
            raise httpx.UnsupportedProtocol("no call asked for this")
        return await wire.send(request)


class SyncTransport(httpx.BaseTransport):
    """For what LiteLLM asks without awaiting: on the event loop that would stop every other request, so it is
    refused there."""

    def __init__(self) -> None:
        self._transport = httpx.HTTPTransport(trust_env=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        wire = current.get()
        if wire is None or _on_a_loop():
            raise httpx.UnsupportedProtocol("this would stop the event loop")
        wire.provider_for(request)
        headers = wire.headers(request.headers) | {"host": request.headers["host"]}
        return self._transport.handle_request(
            httpx.Request(request.method, request.url, headers=headers, content=request.read())
        )


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _headers_of(answer: Response) -> list[tuple[str, str]]:
    return [(name, value) for name, value in answer.headers if name not in _DECODED_BY_NOW]
