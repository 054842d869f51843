"""What LiteLLM's requests travel on: httpx transports over our own client. Where the bytes go, with which key and headers, and what came
back when it went wrong are decided and seen here, whatever LiteLLM makes of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextvars import ContextVar
from urllib.parse import urlsplit

import aiohttp
import httpx
import msgspec
from yarl import URL

from routeproxy import __version__
from routeproxy.exchange import Call
from routeproxy.policy.decide import Provider
from routeproxy.upstream.failures import UpstreamFailure, from_response
from routeproxy.upstream.http import Client, failure_of
from routeproxy.upstream.params import merged
from routeproxy.upstream.providers import NO_KEY, Manner

CREDENTIALS = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key"})
LONGEST_ERROR_BODY = 2**18

# What LiteLLM and OpenAI's client say of themselves, and what they find for themselves in the environment.
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
_DECODED_BY_NOW = frozenset({"content-encoding", "content-length", "transfer-encoding"})


current: ContextVar["Wire | None"] = ContextVar("current", default=None)
"""The call on whose behalf LiteLLM is at work. A variable of the context, because few of its paths pass a client on to the end."""


class Wire:
    """The requests of one call. `let_go` closes whatever is still open of them."""

    def __init__(self, client: Client, call: Call, manner: Manner) -> None:
        self._client = client
        self._call = call
        self._manner = manner
        self._answers: list[aiohttp.ClientResponse] = []
        self.failure: UpstreamFailure | None = None
        """What went wrong with the last request, if anything did."""

    async def send(self, request: httpx.Request) -> httpx.Response:
        target = self._call.target
        provider = self.at(request.url)
        self.failure = None
        body = await request.aread()
        try:
            answer = await self._client.session(provider).request(
                request.method,
                URL(str(request.url), encoded=True),
                data=self._completed(body) or None,
                headers=self._headers(request.headers),
                **self._client.options(provider, target.timeouts.connect),
            )
            self._answers.append(answer)
            if not 200 <= answer.status < 300:
                return await self._refused(answer, request)
        except (aiohttp.ClientError, OSError) as error:
            # Not a ConnectError: LiteLLM would try that one again by itself.
            raise self.broken(error, httpx.TransportError) from error
        return httpx.Response(
            answer.status, headers=_headers_of(answer), stream=_Body(self, answer), request=request
        )

    def let_go(self) -> None:
        for answer in self._answers:
            answer.close()
        self._answers.clear()

    def at(self, url: httpx.URL) -> Provider:
        """The provider, at the address that is really asked, which must be its own."""
        provider = self._call.target.provider
        if provider.base_url is None:
            return msgspec.structs.replace(provider, base_url=str(url))
        own = urlsplit(provider.base_url)
        if (own.scheme, own.netloc) != (url.scheme, url.netloc.decode()):
            self.failure = UpstreamFailure(
                "connection", f"a request for {provider.name} would have gone to {url.host}, which is not its base_url"
            )
            raise httpx.UnsupportedProtocol("not the provider's own address")
        return provider

    def _headers(self, written: httpx.Headers) -> dict[str, str]:
        call, provider = self._call, self._call.target.provider
        headers = {
            name: value
            for name, value in written.items()
            if name not in _OF_THE_LIBRARIES and not name.startswith("x-stainless-")
        }
        if self._manner.sends_key:
            for name in CREDENTIALS & headers.keys():
                if call.key is None or call.key not in headers[name]:
                    del headers[name]
        elif call.key is None:
            headers = {name: value for name, value in headers.items() if NO_KEY not in value}
        if organization := provider.options.get("organization"):
            headers["openai-organization"] = str(organization)
        headers |= {"user-agent": f"routeproxy/{__version__}", "accept-encoding": "identity"}
        inbound = call.exchange.inbound.headers
        headers |= {name: ",".join(inbound[name]) for name in provider.forward if name in inbound and name not in _HOP}
        return headers | {name.lower(): value for name, value in provider.headers.items()}

    def _completed(self, body: bytes) -> bytes:
        """`body` with what the rules add to it, in the back end's own shape."""
        target = self._call.target
        options = self._manner.body_of(target.provider.options)
        decision = self._call.exchange.decision
        hard = self._manner.without_fallback if decision is not None and not decision.fallback.enabled else {}
        if not (target.params.extra_body or options or hard) or not body.startswith(b"{"):
            return body
        completed = merged(merged(merged(json.loads(body), options), target.params.extra_body), hard)
        return msgspec.json.encode({name: value for name, value in completed.items() if value is not None or name not in hard})

    async def _refused(self, answer: aiohttp.ClientResponse, request: httpx.Request) -> httpx.Response:
        target = self._call.target
        if 300 <= answer.status < 400:
            words = f"the back end {target.provider.name} answered with a redirect, which is never followed"
            self.failure = UpstreamFailure("connection", words)
            answer.close()
            return httpx.Response(answer.status, headers=_headers_of(answer), content=b"", request=request)
        body = await answer.content.read(LONGEST_ERROR_BODY)
        while not answer.content.at_eof() and len(body) < LONGEST_ERROR_BODY:
            body += await answer.content.read(LONGEST_ERROR_BODY)
        self.failure = from_response(
            answer.status,
            {name.lower(): value for name, value in answer.headers.items()},
            body.decode("utf-8", "replace"),
            provider=target.provider.name,
            model=target.model,
        )
        return httpx.Response(answer.status, headers=_headers_of(answer), content=body, request=request)

    def broken(self, error: BaseException, kind: type[httpx.TransportError]) -> httpx.TransportError:
        self.failure = failure_of(error, self._call.target.provider.name)
        return kind(self.failure.message)


class _Body(httpx.AsyncByteStream):
    def __init__(self, wire: Wire, answer: aiohttp.ClientResponse) -> None:
        self._wire = wire
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._answer.content.iter_any():
                yield data
        except (aiohttp.ClientError, OSError) as error:
            raise self._wire.broken(error, httpx.ReadError) from error

    async def aclose(self) -> None:
        self._answer.close()


class Transport(httpx.AsyncBaseTransport):
    """The one transport of all clients that LiteLLM uses: each request goes to the wire of its call."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        wire = current.get()
        if wire is None:
            raise httpx.UnsupportedProtocol("nobody asked for this")
        return await wire.send(request)


class SyncTransport(httpx.BaseTransport):
    """For what LiteLLM asks without awaiting: on the event loop that would stop every other request, so it is refused there."""

    def __init__(self) -> None:
        self._transport = httpx.HTTPTransport(trust_env=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        wire = current.get()
        if wire is None or _on_a_loop():
            raise httpx.UnsupportedProtocol("this would stop the event loop")
        wire.at(request.url)
        return self._transport.handle_request(request)


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# Headers of a connection, not of a request: a rule that forwards them would break the one that we make.
_HOP = frozenset(
    "accept-encoding connection content-encoding content-length expect host keep-alive te transfer-encoding upgrade".split()
)


def _headers_of(answer: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    return [(name, value) for name, value in answer.headers.items() if name.lower() not in _DECODED_BY_NOW]

