"""Our own HTTP client: connections kept open for all providers, and what their exceptions mean. It follows no
redirect, keeps no cookie, and connects to no address outside for a provider whose zone is local."""

import asyncio
import math
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from string import punctuation
from typing import Any, NamedTuple, cast
from urllib.parse import quote, unquote, urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

import routeproxy
from routeproxy.descriptors import most_clients, notice_silent_end
from routeproxy.files import FileStamp, read_file, stamp_of
from routeproxy.policy.providers import Provider
from routeproxy.redaction import redact_bytes
from routeproxy.upstream.deadline import BACK_END_CLOCK
from routeproxy.upstream.errors.classify import classify_response
from routeproxy.upstream.errors.connecting import cause_of
from routeproxy.upstream.failures import Kind, UpstreamFailure, failed_at, redirect_refused
from routeproxy.upstream.http.addresses import NotLocal, ProxyEnvironment, is_local
from routeproxy.upstream.http.body_form import BYTE_ORDER_MARK, Form, form_of, is_form_open
from routeproxy.upstream.http.connection import (
    ClientConnection,
    Decompressor,
    ResponseReader,
    UnsupportedEncoding,
)
from routeproxy.upstream.http.headers import secrets_in
from routeproxy.upstream.http.sockets import Delivery, SilenceWatch, has_something_to_say

KEEP_ALIVE = 60.0
"""Seconds that an idle connection is kept: a person's pause between two turns should not cost a handshake."""

SILENTLY_GONE = 20
"""Seconds in which nobody confirms what was sent: a firewall has dropped the connection."""

LONGEST_ERROR_BODY = 2**20
"""Bytes. What a longer one says beyond them is not read."""


class NoCertificates(OSError):
    """A `ca_file` that cannot be read."""


class BadHeader(OSError):
    """A header that would be two."""


TRANSPORT_ERRORS = (aiohttp.ClientError, OSError)

# The first row that fits counts, so the special stand before the general.
MEANINGS: tuple[tuple[type[BaseException], Kind, str], ...] = (
    (NotLocal, "connection", "has an address that is neither loopback nor private, and its zone is local"),
    (NoCertificates, "connection", "has a ca_file that cannot be read"),
    (BadHeader, "connection", "was to get a header with a line break in it"),
    (UnsupportedEncoding, "connection", "packed its answer in a way that nobody asked for"),
    (aiohttp.ConnectionTimeoutError, "timeout_connect", "could not be reached in time"),
    (aiohttp.ServerTimeoutError, "timeout_idle", "went silent"),
    (aiohttp.ClientProxyConnectionError, "connection", "could not be reached, nor could its proxy"),
    (aiohttp.ClientHttpProxyError, "connection", "could not be reached"),
    (aiohttp.ClientConnectorError, "connection", "could not be reached"),
    (aiohttp.ServerDisconnectedError, "connection", "closed the connection without an answer"),
    (aiohttp.ClientOSError, "connection", "closed the connection"),
    (aiohttp.ClientPayloadError, "connection", "closed the connection before completing its answer"),
    (aiohttp.InvalidURL, "connection", "has a base_url that is not a URL"),
    (aiohttp.ClientError, "connection", "answered with something that is not HTTP"),
    (TimeoutError, "timeout_idle", "went silent"),
    (OSError, "connection", "could not be reached"),
)


ANSWERS_OF_PROXIES: Mapping[int, str] = {
    403: "its proxy does not let it through",
    407: "its proxy wants credentials",
    502: "its proxy could not reach it",
    503: "its proxy could not reach it",
    504: "its proxy got no answer from it",
}


class Address(NamedTuple):
    """Where a request was to go, for an operator to read: no path, no credentials."""

    host: str
    port: int
    is_secure: bool
    proxy: str | None
    """Host and port of the proxy on the way."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" + (f" by way of the proxy {self.proxy}" if self.proxy else "")


def failure_of(error: BaseException, provider: str, address: Address | None = None) -> UpstreamFailure:
    """The failure that an exception of this client stands for. Its own words stay out: they may hold a URL,
    and a URL may hold a key. `address` is for operators."""
    wrapped = getattr(error, "os_error", error)  # of a connector's
    kind: Kind = "server_error"
    words = "could not be asked"
    for type_of_error, kind_of_type, words_of_type in MEANINGS:
        if isinstance(error, type_of_error) or isinstance(wrapped, type_of_error):
            kind, words = kind_of_type, words_of_type
            break
    if (cause := _cause_of(error, wrapped, is_secure=address is not None and address.is_secure)) is not None:
        words = f"{words}: {cause}"
    return failed_at(kind, provider, words, address, shows_address=isinstance(error, _NEVER_REACHED))


_NEVER_REACHED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)


def _cause_of(error: BaseException, wrapped: BaseException, *, is_secure: bool) -> str | None:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        status = getattr(error, "status", 0)
        return ANSWERS_OF_PROXIES.get(status, f"its proxy answered {status}")
    if isinstance(wrapped, NotLocal | NoCertificates | BadHeader | UnsupportedEncoding | TimeoutError):
        return None
    is_of_proxy = isinstance(error, aiohttp.ClientProxyConnectionError)
    connects = isinstance(error, aiohttp.ClientConnectorError) and not is_of_proxy
    return cause_of(error, in_handshake=connects and is_secure)


# --- the response


class Response:
    """A back end's answer, whose head has come and whose body is still on its way. Reading that raises
    `UpstreamFailure`."""

    def __init__(
        self, request: "OutgoingRequest", connection: aiohttp.connector.Connection, reader: ResponseReader
    ) -> None:
        self.provider = request.provider
        """Its name."""
        self.secrets = request.secrets
        """What was shown to whoever answers, who may say it back."""
        self._address = request.route.address
        self._connection = connection
        self._reader = reader
        self.status = reader.status
        self.headers = reader.headers
        """Names are in lower case."""
        self.content_type = reader.header("content-type").partition(";")[0].strip()
        """In lower case, without parameters."""
        self._peeked = b""
        self._clock = BACK_END_CLOCK.get()
        encoding = reader.header("content-encoding")
        self._body = reader if encoding in ("", "identity") else Decompressor(reader, encoding)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    async def read(self) -> bytes:
        """What has come of the body since; empty at its end."""
        if self._peeked:
            data, self._peeked = self._peeked, b""
            return data
        try:
            data = await self._body.read()
        except TRANSPORT_ERRORS as error:
            raise failure_of(error, self.provider, self._address) from error
        if self._clock is not None:
            self._clock.bytes_came()
        return data

    async def form(self) -> Form:
        """What the body is. Waits for its first byte, and `read` brings it all the same."""
        start = b""
        while is_form_open(start) and (data := await self.read()):
            start += data
        self._peeked = start = start.removeprefix(BYTE_ORDER_MARK)
        return form_of(start, self.content_type)

    async def read_all(self, limit: int) -> bytes:
        """The whole body. Raises `UpstreamFailure` where it is longer than `limit` bytes."""
        parts, size = [], 0
        while data := await self.read():
            parts.append(data)
            size += len(data)
            if size > limit:
                raise failure_of(aiohttp.ClientPayloadError("too long"), self.provider, self._address)
        return b"".join(parts)

    async def drain(self) -> None:
        """The answer is over, and its connection's framing may need another moment: then it can carry the
        next request."""
        if self._reader.at_end:
            return
        with suppress(*TRANSPORT_ERRORS):
            async with asyncio.timeout(0.05):
                while await self._reader.read():
                    pass

    def close(self) -> None:
        """Lets the connection go: to its pool if it can carry more, else for good."""
        if self._clock is not None:
            self._clock.request_over()
        transport = self._connection.transport
        if transport is not None and transport.get_write_buffer_size():
            transport.abort()  # it was answered before it was asked in full: the rest need not go out
            self._connection.close()
        else:
            self._connection.release()


async def read_failure(response: Response, model: str = "") -> tuple[UpstreamFailure, bytes]:
    """The failure that an answer outside 2xx stands for, and its body, of which a redirect's is not read.
    `model`: the one that was asked for, where the error may name it."""
    if 300 <= response.status < 400:
        return redirect_refused(response.provider), b""
    body = b""
    while len(body) < LONGEST_ERROR_BODY and (data := await response.read()):
        body += data
    body = redact_bytes(body, response.secrets)
    failure = classify_response(
        response.status,
        dict(response.headers),
        body.decode("utf-8", "replace"),
        provider=response.provider,
        model=model,
    )
    return failure, body


# --- the client


class Authorities(NamedTuple):
    """Whose certificates are trusted."""

    file: str
    stamp: FileStamp


class Route(NamedTuple):
    """How requests to one address travel."""

    request: aiohttp.ClientRequest
    """What aiohttp finds a connection by: the address, the proxy, the certificates."""
    headers: dict[str, str]
    """Those of every request that travels here."""
    before_path: str
    """What stands before the path: an HTTP proxy is told the whole URL."""
    address: Address
    secrets: frozenset[str]
    """What the proxy is shown."""


class OutgoingRequest(NamedTuple):
    provider: str
    """Its name."""
    method: str
    route: Route
    target: str
    """Path and query, as HTTP's request line has them."""
    headers: Mapping[str, str]
    body: bytes
    connect_timeout: float
    secrets: frozenset[str] = frozenset()
    """Of the headers, and of the proxy on the way."""

    def head(self) -> bytes:
        route = self.route
        # What a proxy wants to hear is only known once aiohttp has connected to it.
        always = _headers_of(route.request) if route.before_path else route.headers
        headers = {**always, **self.headers}
        if self.body or self.method == "POST":
            headers["content-length"] = str(len(self.body))
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
            raise BadHeader
        return f"{self.method} {route.before_path}{self.target} HTTP/1.1\r\n{lines}\r\n".encode()


class Client:
    """One for all providers. Connections are aiohttp's, with its pools, TLS and proxies; requests are written
    and answers are read here, since its sessions take four times as long for that, for what no back end
    needs: cookies, redirects, traces."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """`environ` is where proxies may be named; the process's own if it is left out."""
        self.use_environment(os.environ if environ is None else environ)
        self._most = most_clients()
        """Connections. Idle ones make room for others: each client is to have one."""
        self._connectors: dict[tuple[bool, bool], _Connector] = {}
        self._routes: dict[tuple[str, str, str | None, Authorities | None], Route] = {}
        self._contexts: dict[Authorities, ssl.SSLContext] = {}

    def use_environment(self, environ: Mapping[str, str]) -> None:
        """From now on these name the proxies."""
        self._proxies = ProxyEnvironment(environ)

    async def post(
        self, provider: Provider, url: str, *, body: bytes, headers: Mapping[str, str], connect: float
    ) -> Response:
        """The answer, whatever its status, to be closed. Raises `UpstreamFailure`.

        `url` goes out as it is: a client's query is not ours to tidy up. Names of `headers` are in lower
        case. `connect`: seconds until there is a connection."""
        return await self.request(provider, url, method="POST", body=body, headers=headers, connect=connect)

    async def request(
        self,
        provider: Provider,
        url: str,
        *,
        method: str,
        body: bytes,
        headers: Mapping[str, str],
        connect: float,
    ) -> Response:
        """The same, with another method."""
        address: Address | None = None
        try:
            scheme, netloc, path, query, _ = urlsplit(url)
            target = _printable(f"{path or '/'}?{query}" if query else path or "/")
            route = self._route(provider, scheme, netloc)
            address = route.address
            secrets = secrets_in(headers, provider) | route.secrets
            request = OutgoingRequest(provider.name, method, route, target, headers, body, connect, secrets)
            return await self._send(request, local_only=provider.zone == "local")
        except TRANSPORT_ERRORS as error:
            raise failure_of(error, provider.name, address) from error

    async def _send(self, request: OutgoingRequest, *, local_only: bool) -> Response:
        try:
            return await _send_through(self._connector(local_only), request)
        except _NeverReceived:
            # A connection that idled in our pool was closed by its other end, and our request crossed that on
            # its way. The back end is well, and can't have begun to work: so this is not an attempt that
            # failed. Any idle connection may be stale: take a new one.
            return await _send_through(self._connector(local_only, fresh=True), request)

    def _connector(self, local_only: bool, *, fresh: bool = False) -> "_Connector":
        if (local_only, fresh) not in self._connectors:
            pool: dict[str, Any] = {"force_close": True} if fresh else {"keepalive_timeout": KEEP_ALIVE}
            socket_factory = _open_local_socket if local_only else _open_socket
            self._connectors[local_only, fresh] = _Connector(
                self._make_room, socket_factory=socket_factory, **pool
            )
        return self._connectors[local_only, fresh]

    def _make_room(self) -> None:
        """For a connection about to be made, at the cost of that which has idled longest."""
        connectors = self._connectors.values()
        if sum(connector.open_connections for connector in connectors) > self._most:
            longest = min(connectors, key=lambda connector: connector.idle_since)
            longest.close_longest_idle()

    def _route(self, provider: Provider, scheme: str, netloc: str) -> Route:
        proxy = self._proxies.proxy_for(provider)
        # Looked at anew for each request: one that was taken out must not be trusted any longer.
        authorities = Authorities(provider.ca_file, stamp_of(provider.ca_file)) if provider.ca_file else None
        key = scheme, netloc, proxy, authorities
        if key not in self._routes:
            request = aiohttp.ClientRequest(
                "POST",
                URL(f"{scheme}://{netloc}"),
                headers={"user-agent": f"routeproxy/{routeproxy.__version__}"},
                skip_auto_headers=("accept-encoding", "content-type"),
                loop=asyncio.get_running_loop(),
                proxy=URL(proxy) if proxy else None,
                ssl=self._tls_context(authorities) if authorities else True,
            )
            relayed = proxy is not None and not request.is_ssl()
            before_path = str(request.url.origin()) if relayed else ""
            password = urlsplit(proxy).password if proxy else None
            secrets = frozenset([unquote(password)] if password else [])
            self._routes[key] = Route(
                request, _headers_of(request), before_path, _address_of(request), secrets
            )
        return self._routes[key]

    def _tls_context(self, authorities: Authorities) -> ssl.SSLContext:
        if authorities not in self._contexts:
            file = authorities.file
            self._forget(file)
            try:
                read_file(file)  # OpenSSL would wait for a pipe
                self._contexts[authorities] = ssl.create_default_context(cafile=file)
            except OSError as error:  # an ssl.SSLError is one too
                raise NoCertificates(file) from error
        return self._contexts[authorities]

    def _forget(self, ca_file: str) -> None:
        """What it held before."""
        for authorities in [known for known in self._contexts if known.file == ca_file]:
            del self._contexts[authorities]
        for key in [key for key in self._routes if key[3] is not None and key[3].file == ca_file]:
            del self._routes[key]

    async def aclose(self) -> None:
        for connector in self._connectors.values():
            await connector.close()
        self._connectors.clear()
        self._routes.clear()


class _Connector(aiohttp.TCPConnector):
    def __init__(self, make_room: Callable[[], None], **settings: Any) -> None:
        super().__init__(limit=0, **settings)
        self._make_room = make_room
        self._factory = cast(Any, partial(ClientConnection, loop=self._loop))

    @property
    def open_connections(self) -> int:
        """Those at work, those that are being made, and those that idle."""
        return len(self._acquired) + sum(map(len, self._conns.values()))

    @property
    def idle_since(self) -> float:
        """When that which idles longest began to; infinite if none does."""
        return min((idle[0][1] for idle in self._conns.values() if idle), default=math.inf)

    def close_longest_idle(self) -> None:
        idle = [connections for connections in self._conns.values() if connections]
        if idle:
            min(idle, key=lambda connections: connections[0][1]).popleft()[0].close()

    async def _create_connection(self, *arguments: Any) -> ResponseHandler:
        self._make_room()
        return await super()._create_connection(*arguments)


class _NeverReceived(Exception):
    """A connection of the pool broke before its back end can have had the whole request."""


async def _send_through(connector: aiohttp.TCPConnector, request: OutgoingRequest) -> Response:
    """Raises `_NeverReceived`, or what aiohttp raises."""
    connection, protocol, transport = await _connected(connector, request)
    delivery = Delivery(transport) if protocol.was_used else None
    watch = None
    try:
        reader = protocol.expect_response()
        head = request.head()
        transport.writelines([head, request.body])
        watch = SilenceWatch(transport, SILENTLY_GONE, reader.feed_end)
        if (clock := BACK_END_CLOCK.get()) is not None:
            clock.request_sent()
            if transport.get_write_buffer_size():
                protocol.on_sent = clock.request_sent  # again, once the rest of a long one is on its way
        try:
            await reader.read_head()
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            size = len(head) + len(request.body)
            if delivery is None or reader.has_begun or delivery.may_have_brought(size):
                raise
            raise _NeverReceived from None
        return Response(request, connection, reader)
    except BaseException:
        connection.close()
        raise
    finally:
        if watch is not None:
            watch.close()
        if delivery is not None:
            delivery.close()


async def _connected(
    connector: aiohttp.TCPConnector, request: OutgoingRequest
) -> tuple[aiohttp.connector.Connection, ClientConnection, asyncio.Transport]:
    """A connection that nothing speaks against: of those in the pool one on which nothing has come, else a
    new one."""
    while True:
        try:
            timeout = _connect_timeout(request.connect_timeout)
            connection = await connector.connect(request.route.request, [], timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error
        protocol, transport = connection.protocol, connection.transport
        assert isinstance(protocol, ClientConnection)
        if transport is None or transport.is_closing():
            is_sound = False
        else:
            is_sound = not (protocol.was_used and has_something_to_say(transport))
        if is_sound:
            assert transport is not None
            return connection, protocol, transport
        connection.close()
        if not protocol.was_used:
            raise aiohttp.ServerDisconnectedError


@lru_cache
def _connect_timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=seconds)


def _address_of(request: aiohttp.ClientRequest) -> Address:
    url, proxy = request.url, request.proxy
    by_way_of = f"{proxy.host}:{proxy.port}" if proxy is not None else None
    return Address(url.host or "", url.port or 0, request.is_ssl(), by_way_of)


def _headers_of(request: aiohttp.ClientRequest) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _printable(target: str) -> str:
    """Nothing in it may end the line that it stands in."""
    return target if _PRINTABLE.fullmatch(target) else quote(target, safe=punctuation)


_PRINTABLE = re.compile(r"[!-~]+")


# --- sockets


def _open_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, *_ = address
    opened = socket.socket(family, kind, protocol)
    notice_silent_end(opened)
    return opened


def _open_local_socket(address: tuple[Any, ...]) -> socket.socket:
    # zone = "local" is a promise about where the bytes go, so it is checked on the address that is connected
    # to, not on a name.
    host = address[4][0]
    if not is_local(host):
        raise NotLocal(f"{host} is neither loopback nor private")
    return _open_socket(address)
