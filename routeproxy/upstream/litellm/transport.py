"""What LiteLLM's requests travel on: httpx transports over our own client. Where the bytes go, with which key
and headers, and what came back when it went wrong are decided and seen here, whatever LiteLLM makes of
them."""

import asyncio
import re
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from routeproxy.exchange import Call
from routeproxy.policy.providers import Provider
from routeproxy.upstream.chat.direct import ChunkStream
from routeproxy.upstream.chat.endpoints import endpoint_of, lay_over, with_additions
from routeproxy.upstream.chat.formats import ResponseDecoder, decoder_for
from routeproxy.upstream.failures import UpstreamFailure, page_instead
from routeproxy.upstream.http.client import Client, Response, read_failure
from routeproxy.upstream.http.dry_client import DryClient
from routeproxy.upstream.http.headers import BODY_FRAMING, HOP_BY_HOP, outgoing_headers
from routeproxy.upstream.litellm.half_characters import HalfCharacters, unfinished
from routeproxy.upstream.litellm.providers import NO_KEY, LiteLLMProvider

CREDENTIALS = ("authorization", "api-key", "x-api-key", "x-goog-api-key")

PROTOCOL_HEADERS = frozenset(
    {"accept", "content-type", "request-source", "x-novita-source", "x-pplx-integration"}
)
"""Headers that LiteLLM may write of itself where the key is ours to send: more might come out of the
environment."""

# Of those that sign in: what LiteLLM and OpenAI's client say of themselves, or find for themselves in the
# environment, besides what is of their connection.
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
    rb'(?<!\\)"(?:finish_reason|finishReason|stop_reason|stopReason|done_reason|done)"\s*:\s*(?:"(\w+)"|true)'
)
_LONGEST_FINISH_REASON = 80

_current_transport: ContextVar["weakref.ref[LiteLLMTransport] | None"] = ContextVar(
    "current_transport", default=None
)
"""That of the call on whose behalf LiteLLM is at work. A variable of the context, because few of its paths
pass a client on to the end. Connections and timers that are made meanwhile keep their context as long as they
last, so it only refers to the transport: they would keep the call, and with it a request's body."""


def set_current_transport(transport: "LiteLLMTransport") -> None:
    _current_transport.set(weakref.ref(transport))


def current_transport() -> "LiteLLMTransport | None":
    """`None`: no call asks, or it is over."""
    reference = _current_transport.get()
    return None if reference is None else reference()


def is_nobody_to_be_asked() -> bool:
    """Whether LiteLLM is at work for a dry run, or still is for a call that is over."""
    reference = _current_transport.get()
    return reference is not None and ((transport := reference()) is None or transport.is_dry)


class Outcome:
    """What was seen of a request, whatever LiteLLM makes of it."""

    def __init__(self) -> None:
        self.failure: UpstreamFailure | None = None
        self.answered = False
        """It got an answer that was no error."""
        self.finish_reason: str | None = None
        """As the back end wrote it: LiteLLM rewrites those that it does not know."""
        self.half_characters = HalfCharacters()


# These two are no `Exception`s, since LiteLLM catches those, asks again, and says them in its own words.


class Answered(BaseException):
    """The answer is in a format of ours, so LiteLLM hears no more of it."""

    def __init__(self, chunks: ChunkStream) -> None:
        super().__init__()
        self.chunks = chunks


class Failed(BaseException):
    """The request failed, so LiteLLM hears no more of it."""

    def __init__(self, failure: UpstreamFailure) -> None:
        super().__init__()
        self.failure = failure


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
        decoder_for: Callable[[str], ResponseDecoder | None] = decoder_for,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`body` goes out in place of what LiteLLM writes. `stream`: whether the answer was asked for as
        one. `additions`: fields to lay over the body, in the back end's own shape. `signature`: headers that
        we sign the request with, where LiteLLM does not. `decoder_for`: the reader of what is answered at a
        path, where that is not LiteLLM's to read. `loop`: where requests are made that LiteLLM makes in a
        thread."""
        self._client = client
        self._call = call
        self._litellm_provider = litellm_provider
        self._body = body
        self._stream = stream
        self._additions = additions
        self._signature = signature
        self._decoder_for = decoder_for
        self._loop = loop
        self._responses: list[Response] = []
        self.outcome = Outcome()
        """Of the last request."""

    @property
    def is_dry(self) -> bool:
        """Nobody is to be asked, for a token neither."""
        return isinstance(self._client, DryClient)

    @property
    def shows_finish_reason(self) -> bool:
        return self._litellm_provider.shows_finish_reason

    async def send(self, request: httpx.Request) -> httpx.Response:
        """What LiteLLM gets to read: answers of formats that are not ours. Raises `Answered` for all others,
        and `Failed`."""
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
            self._call.exchange.keep_secret(response.secrets)
            if not response.ok:
                failure, _ = await read_failure(response, self._call.target.model)
                raise failure
            outcome.answered = True
            if response.content_type != _BINARY and await response.form() == "page":
                raise page_instead(self._call.target.provider.name)
        except UpstreamFailure as failure:
            raise Failed(failure) from failure
        if (decoder := self._decoder_for(request.url.path)) is not None:
            raise Answered(ChunkStream(response, decoder, self._call.target, stream=self._stream))
        return _httpx_response(response, request, stream=_Body(outcome, response))

    async def send_whole(self, request: httpx.Request) -> httpx.Response:
        """The same, read to its end."""
        response = await self.send(request)
        body = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=body, request=request)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which the call is made."""
        assert self._loop is not None
        return self._loop

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
            raise self._refuse(f"{request.method} {url.path} is not sent for a chat", self._refused_link(url))
        if provider.base_url is None:
            self._check_address(provider, url)
            return msgspec.structs.replace(provider, base_url=str(url))
        own = urlsplit(provider.base_url)
        if (own.scheme, own.netloc) != (url.scheme, url.netloc.decode()):
            raise self._refuse(f"a request would have gone to {url.host}, which is not its base_url")
        return provider

    def _check_address(self, provider: Provider, url: httpx.URL) -> None:
        hosts = self._litellm_provider.hosts
        if not any(f".{url.host}".endswith(f".{host}") for host in hosts):
            raise self._refuse(f"a request would have gone to {url.host}, which is not {' or '.join(hosts)}")
        option, pattern = self._litellm_provider.location or ("", "")
        location = provider.options.get(option)
        if location is not None and pattern.format(location) not in f"{url.host}{url.path}":
            why = f"LiteLLM would have asked {url.host}{url.path}, which is not in {option} `{location}`"
            raise self._refuse(why)

    def _refused_link(self, url: httpx.URL) -> UpstreamFailure | None:
        """That of a picture which the client gave by its URL, and which LiteLLM would fetch."""
        if not url.host or url.host.encode() not in self._call.exchange.inbound.body:
            return None
        provider = self._call.target.provider.name
        return UpstreamFailure(
            "capability", f"capability_rejected: image_block ({provider} takes no links here)"
        )

    def _refuse(self, why: str, failure: UpstreamFailure | None = None) -> httpx.TransportError:
        provider = self._call.target.provider.name
        self.outcome.failure = failure or UpstreamFailure(
            "connection",
            f"the back end {provider}: a request would have gone elsewhere",
            operator_message=f"the back end {provider}: {why}",
            shows_address=True,
        )
        return httpx.UnsupportedProtocol(why)

    # --- what goes out

    def headers(self, written: httpx.Headers) -> dict[str, str]:
        """What goes out in place of the headers that LiteLLM has `written`."""
        call, sends_key = self._call, self._litellm_provider.sends_key
        if sends_key:
            protocol = {name: value for name, value in written.items() if name in PROTOCOL_HEADERS}
        else:
            protocol = {
                name: value
                for name, value in written.items()
                if name not in _LIBRARY_HEADERS
                and not name.startswith("x-stainless-")
                and not (name in CREDENTIALS and NO_KEY in value)
            }
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


def _httpx_response(
    response: Response,
    request: httpx.Request,
    *,
    stream: httpx.AsyncByteStream,
) -> httpx.Response:
    # The body is out of its encoding and its chunks by now.
    headers = [(name, value) for name, value in response.headers if name not in BODY_FRAMING]
    return httpx.Response(response.status, headers=headers, stream=stream, request=request)


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
            raise Failed(failure) from failure

    async def aclose(self) -> None:
        self._response.close()


# --- httpx's transports


class DispatchingTransport(httpx.AsyncBaseTransport):
    """The one transport of all clients that LiteLLM uses: each request goes to the transport of its call."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        transport = current_transport()
        if transport is None:
            raise httpx.UnsupportedProtocol("no call asked for this")
        return await transport.send(request)


class SyncDispatchingTransport(httpx.BaseTransport):
    """For what LiteLLM asks in a thread, without awaiting: the loop asks in its place. On the event loop that
    would stop every other request, so it is refused there."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        transport = current_transport()
        if transport is None or _on_event_loop():
            raise httpx.UnsupportedProtocol("this would stop the event loop")
        transport.provider_for(request)
        request.read()
        return asyncio.run_coroutine_threadsafe(transport.send_whole(request), transport.loop).result()


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
