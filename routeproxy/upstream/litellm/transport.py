"""What LiteLLM's requests travel on: httpx transports over our own client. Where the bytes go, with which key
and headers, and what came back when it went wrong are decided and seen here, whatever LiteLLM makes of
them."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from routeproxy.chat.completion import Chunk
from routeproxy.exchange import Call
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.policy.providers import Provider
from routeproxy.upstream.chat.endpoints import endpoint_of, lay_over, with_additions
from routeproxy.upstream.failures import UpstreamFailure, not_a_completion, page_instead
from routeproxy.upstream.http.client import Client, Response, read_failure
from routeproxy.upstream.http.headers import BODY_FRAMING, HOP_BY_HOP, outgoing_headers
from routeproxy.upstream.litellm.half_characters import HalfCharacters, unfinished
from routeproxy.upstream.litellm.providers import NO_KEY, LiteLLMProvider

CREDENTIALS = ("authorization", "api-key", "x-api-key", "x-goog-api-key")

# What LiteLLM and OpenAI's client say of themselves, or find for themselves in the environment, besides what
# is of their connection.
_LIBRARY_HEADERS = HOP_BY_HOP | {
    "accept-encoding",
    "content-length",
    "host",
    "http-referer",
    "openai-organization",
    "openai-project",
    "user-agent",
    "x-title",
}

_FINISH_REASON = re.compile(
    rb'(?<!\\)"(?:finish_reason|finishReason|done_reason|done)"\s*:\s*(?:"(\w+)"|true)'
)
_LONGEST_FINISH_REASON = 80

current_transport: ContextVar["LiteLLMTransport | None"] = ContextVar("current_transport", default=None)
"""That of the call on whose behalf LiteLLM is at work. A variable of the context, because few of its paths
pass a client on to the end."""


class Outcome:
    """What was seen of a request, whatever LiteLLM makes of it."""

    def __init__(self) -> None:
        self.failure: UpstreamFailure | None = None
        self.answered = False
        """It got an answer that was no error."""
        self.finish_reason: str | None = None
        """As the back end wrote it: LiteLLM rewrites those that it does not know."""
        self.chunks: tuple[Chunk, ...] = ()
        """The answer, where the back end streamed it unasked."""
        self.half_characters = HalfCharacters()

    def fail(self, failure: UpstreamFailure, error: type[httpx.TransportError]) -> httpx.TransportError:
        """The exception by which LiteLLM is to hear of it."""
        self.failure = failure
        return error(failure.message)


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
        additions: Mapping[str, Any] | None = None,
        signature: Mapping[str, str] = {},
    ) -> None:
        """`body` goes out in place of what LiteLLM writes. `stream`: whether the answer was asked for as
        one. `additions`: fields to lay over the body, in the back end's own shape. `signature`: headers that
        we sign the request with, where LiteLLM does not."""
        self._client = client
        self._call = call
        self._litellm_provider = litellm_provider
        self._body = body
        self._stream = stream
        self._additions = additions
        self._signature = signature
        self._responses: list[Response] = []
        self.outcome = Outcome()
        """Of the last request."""

    @property
    def shows_finish_reason(self) -> bool:
        return self._litellm_provider.shows_finish_reason

    async def send(self, request: httpx.Request) -> httpx.Response:
        """What LiteLLM gets to read. Raises `httpx.TransportError`."""
        provider = self.provider_for(request)
        outcome = self.outcome = Outcome()
        body = await request.aread()
        try:
            response = await self._client.post(
                provider,
                str(request.url),
                body=self._completed_body(body, request.url.path),
                headers=self.headers(request.headers),
                connect=self._call.target.timeouts.connect,
            )
            self._responses.append(response)
            if not response.ok:
                outcome.failure, error_body = await read_failure(response, self._call.target.model)
                return _httpx_response(response, request, content=error_body)
            outcome.answered = True
            form = "json" if response.content_type == _BINARY else await response.form()
            if form == "page":
                raise page_instead(self._call.target.provider.name)
        except UpstreamFailure as failure:
            # Not a ConnectError: LiteLLM would try that one again by itself.
            raise outcome.fail(failure, httpx.TransportError) from failure
        if request.url.path.endswith("/chat/completions"):
            if form == "events" and not self._stream:
                return await self._collect_stream(response, request)
            if self._stream and form == "json":
                return await self._as_stream(response, request)
        return _httpx_response(response, request, stream=_Body(outcome, response))

    async def _collect_stream(self, response: Response, request: httpx.Request) -> httpx.Response:
        """A stream where none was asked for. LiteLLM can't read it, and gets something else to read."""
        lines = (await self._read_all(response)).splitlines()
        events = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        chunks = (chunk for data in events if (chunk := _chunk_in(data)) is not None)
        self.outcome.chunks = tuple(map(self.outcome.half_characters.restore, chunks))
        return httpx.Response(200, json=_STAND_IN, request=request)

    async def _as_stream(self, response: Response, request: httpx.Request) -> httpx.Response:
        """A whole completion where a stream was asked for: a stream of one chunk."""
        body = b" ".join((await self._read_all(response)).splitlines())
        try:
            msgspec.json.decode(body, type=msgspec.Raw)
        except msgspec.DecodeError:
            failure = not_a_completion(self._call.target.provider.name)
            raise self.outcome.fail(failure, httpx.RemoteProtocolError) from None
        return httpx.Response(
            200,
            headers={"content-type": "text/event-stream"},
            content=b"data: %b\n\ndata: [DONE]\n\n" % body,
            request=request,
        )

    async def _read_all(self, response: Response) -> bytes:
        return b"".join([data async for data in _Body(self.outcome, response)])

    def close(self) -> None:
        for response in self._responses:
            response.close()

    # --- where a request may go

    def provider_for(self, request: httpx.Request) -> Provider:
        """The provider at the address that is asked, which must be its own. Nothing is fetched, such as the
        picture behind a URL in the prompt: that request would carry the provider's headers. Raises
        `httpx.TransportError`."""
        provider, url = self._call.target.provider, request.url
        if request.method != "POST":
            raise self._refuse(f"{request.method} {url.path} is not sent for a chat")
        if provider.base_url is None:
            self._check_address(provider, url)
            return msgspec.structs.replace(provider, base_url=str(url))
        own = urlsplit(provider.base_url)
        if (own.scheme, own.netloc) != (url.scheme, url.netloc.decode()):
            raise self._refuse(f"a request would have gone to {url.host}, which is not its base_url")
        return provider

    def _check_address(self, provider: Provider, url: httpx.URL) -> None:
        hosts = self._litellm_provider.hosts
        if hosts and not any(f".{url.host}".endswith(f".{host}") for host in hosts):
            raise self._refuse(f"a request would have gone to {url.host}, which is not {' or '.join(hosts)}")
        option, pattern = self._litellm_provider.location or ("", "")
        location = provider.options.get(option)
        if location is not None and pattern.format(location) not in f"{url.host}{url.path}":
            why = f"LiteLLM would have asked {url.host}{url.path}, which is not in {option} `{location}`"
            raise self._refuse(why)

    def _refuse(self, why: str) -> httpx.TransportError:
        self.outcome.failure = UpstreamFailure(
            "connection", f"the back end {self._call.target.provider.name}: {why}"
        )
        return httpx.UnsupportedProtocol(why)

    # --- what goes out

    def headers(self, written: httpx.Headers) -> dict[str, str]:
        """What goes out in place of the headers that LiteLLM has `written`."""
        call, sends_key = self._call, self._litellm_provider.sends_key
        protocol = {
            name: value
            for name, value in written.items()
            if name not in _LIBRARY_HEADERS and not name.startswith("x-stainless-")
        }
        for name in CREDENTIALS:
            if name in protocol and (sends_key or NO_KEY in protocol[name]):
                del protocol[name]
        # In the header where the back end looks for the key. LiteLLM shows Azure a key as a Bearer token once
        # it has seen that somebody had none.
        credentials = dict(self._signature)
        if sends_key and call.key is not None:
            credentials = endpoint_of(call.target.provider).credentials(call.key)
        return outgoing_headers(call, protocol=protocol, credentials=credentials)

    def _completed_body(self, body: bytes, path: str) -> bytes:
        """What goes out in place of the `body` that LiteLLM has written, with what we and then the rules add
        to it in the back end's own shape."""
        body = self._body or body
        if not body.startswith(b"{"):
            return body
        # Nothing refers to a response later, and it is somebody's conversation.
        more = [{"store": False}] if path.endswith("/responses") else []
        if self._additions and self._body is None:
            body = lay_over(body, [self._additions])
        return with_additions(body, self._call, *more)


_STAND_IN = {"id": "-", "object": "chat.completion", "created": 0, "model": "-", "choices": []}

_decode_chunk = msgspec.json.Decoder(Chunk).decode


def _chunk_in(data: bytes) -> Chunk | None:
    try:
        return _decode_chunk(data)
    except UNREADABLE:
        return None  # `[DONE]`, for one


def _httpx_response(
    response: Response,
    request: httpx.Request,
    *,
    content: bytes | None = None,
    stream: httpx.AsyncByteStream | None = None,
) -> httpx.Response:
    # The body is out of its encoding and its chunks by now.
    headers = [(name, value) for name, value in response.headers if name not in BODY_FRAMING]
    return httpx.Response(response.status, headers=headers, content=content, stream=stream, request=request)


# --- the body of an answer

# JSON allows these as they are, and LiteLLM takes them for ends of lines: it drops them, or the whole chunk.
_LINE_ENDS = re.compile(rb"\xe2\x80[\xa8\xa9]|\xc2\x85")
_LINE_END_STARTS = (b"\xe2\x80", b"\xe2", b"\xc2")
_BINARY = "application/vnd.amazon.eventstream"


def _unfinished(data: bytes) -> bytes:
    for start in _LINE_END_STARTS:
        if data.endswith(start):
            return start
    return data[len(data) - unfinished(data) :]


def _escape(line_end: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(line_end[0].decode())


class _Body(httpx.AsyncByteStream):
    """The body of an answer, whose finish reasons are noted on the way."""

    def __init__(self, outcome: Outcome, response: Response) -> None:
        self._outcome = outcome
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        before = held = b""
        is_text = self._response.content_type != _BINARY
        try:
            while data := await self._response.read():
                for reason in _FINISH_REASON.findall(before + data):
                    self._outcome.finish_reason = reason.decode() or self._outcome.finish_reason or "stop"
                before = data[-_LONGEST_FINISH_REASON:]
                if is_text:
                    data = held + data
                    held = _unfinished(data)
                    data = _LINE_ENDS.sub(_escape, data[: len(data) - len(held)])
                    data = self._outcome.half_characters.hide(data)
                yield data
            if held:
                yield held
        except UpstreamFailure as failure:
            raise self._outcome.fail(failure, httpx.ReadError) from failure

    async def aclose(self) -> None:
        self._response.close()


# --- httpx's transports


class DispatchingTransport(httpx.AsyncBaseTransport):
    """The one transport of all clients that LiteLLM uses: each request goes to the transport of its call."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        transport = current_transport.get()
        if transport is None:
            raise httpx.UnsupportedProtocol("no call asked for this")
        return await transport.send(request)


class SyncDispatchingTransport(httpx.BaseTransport):
    """For what LiteLLM asks without awaiting: on the event loop that would stop every other request, so it is
    refused there."""

    def __init__(self) -> None:
        self._http = httpx.HTTPTransport(trust_env=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        transport = current_transport.get()
        if transport is None or _on_event_loop():
            raise httpx.UnsupportedProtocol("this would stop the event loop")
        transport.provider_for(request)
        headers = transport.headers(request.headers) | {"host": request.headers["host"]}
        return self._http.handle_request(
            httpx.Request(request.method, request.url, headers=headers, content=request.read())
        )


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
