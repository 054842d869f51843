"""Our own HTTP client: connections kept open for all providers, and what their exceptions mean."""

import asyncio
import ipaddress
import os
import re
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache, partial
from string import punctuation
from typing import Any, NamedTuple, cast
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

import routeproxy
from routeproxy.exchange import Inbound
from routeproxy.policy.providers import Provider
from routeproxy.upstream.failures import Kind, UpstreamFailure
from routeproxy.upstream.http.connection import (
    ClientConnection,
    Decompressor,
    ResponseReader,
    UnsupportedEncoding,
)

KEEP_ALIVE = 60.0
"""Seconds that an idle connection is kept: a person's pause between two turns should not cost a handshake."""

AT_ONCE = 1.0
"""Seconds within which a connection shows that it was dead already. Who goes later has begun to work."""


class NotLocal(OSError):
    """An address outside, for a provider that is promised to be inside."""


class NoCertificates(OSError):
    """A `ca_file` that cannot be read."""


class BadHeader(OSError):
    """A header that would be two."""


# The first row that fits counts, so the special stand before the general.
KINDS: tuple[tuple[type[BaseException], Kind, str], ...] = (
    (NotLocal, "connection", "has an address that is neither loopback nor private, and its zone is local"),
    (NoCertificates, "connection", "has a ca_file that cannot be read"),
    (BadHeader, "connection", "was to get a header with a line break in it"),
    (UnsupportedEncoding, "connection", "packed its answer in a way that nobody asked for"),
    (aiohttp.ConnectionTimeoutError, "timeout_connect", "could not be reached in time"),
    (aiohttp.ServerTimeoutError, "timeout_idle", "went silent"),
    (aiohttp.ClientConnectorCertificateError, "connection", "has a certificate that is not trusted"),
    (aiohttp.ClientSSLError, "connection", "could not be reached over TLS"),
    (aiohttp.ClientProxyConnectionError, "connection", "could not be reached: its proxy does not answer"),
    (aiohttp.ClientHttpProxyError, "connection", "could not be reached: its proxy refused"),
    (aiohttp.ClientConnectorError, "connection", "could not be reached"),
    (aiohttp.ServerDisconnectedError, "connection", "closed the connection without an answer"),
    (aiohttp.ClientOSError, "connection", "closed the connection"),
    (aiohttp.ClientPayloadError, "connection", "closed the connection before completing its answer"),
    (aiohttp.InvalidURL, "connection", "has a base_url that is not a URL"),
    (aiohttp.ClientError, "connection", "answered with something that is not HTTP"),
    (TimeoutError, "timeout_idle", "went silent"),
    (OSError, "connection", "could not be reached"),
)


FOREIGN = (aiohttp.ClientError, OSError)


def failure_of(error: BaseException, provider: str) -> UpstreamFailure:
    """What an exception of this client means. Its own words stay out: they may hold a URL, and a URL may hold
    a key."""
    meant = getattr(error, "os_error", error)  # what stopped a connector
    for kind_of_error, kind, words in KINDS:
        if isinstance(error, kind_of_error) or isinstance(meant, kind_of_error):
            return UpstreamFailure(kind, f"the back end {provider} {words}")
    return UpstreamFailure("server_error", f"the back end {provider} could not be asked")


_NOT_FORWARDED = frozenset(
    {
        "authorization",
        "x-api-key",
        "cookie",
        "host",
        "content-length",
        "connection",
        "accept-encoding",
        "transfer-encoding",
        "content-encoding",
        "te",
        "trailer",
        "upgrade",
        "keep-alive",
        "expect",
    }
)
_NOT_FORWARDED_PREFIXES = ("x-routeproxy-", "x-forwarded-", "proxy-")


def forwarded(provider: Provider, inbound: Inbound) -> dict[str, str]:
    """The client's headers that the provider's `forward` names; never one of this hop's or ours."""
    return {
        name: line_of(inbound.headers[name])
        for name in provider.forward
        if name in inbound.headers
        and name not in _NOT_FORWARDED
        and not name.startswith(_NOT_FORWARDED_PREFIXES)
    }


def line_of(values: tuple[str, ...]) -> str:
    """Several lines of a header as one. It came as bytes, which we read as Latin-1 and the HTTP client writes
    as UTF-8."""
    joined = ",".join(values)
    if joined.isascii():
        return joined
    return joined.encode("latin-1").decode("utf-8", "replace")


class Response:
    """What a back end answers: its head is here, its body still on its way. Reading that raises
    `UpstreamFailure`."""

    def __init__(
        self,
        provider: str,
        connection: aiohttp.connector.Connection,
        incoming: ResponseReader,
    ) -> None:
        self._provider = provider
        self._connection = connection
        self._incoming = incoming
        self.status = incoming.status
        self.headers = incoming.headers
        """Names are in lower case."""
        self.content_type = incoming.header("content-type").partition(";")[0].strip()
        """In lower case, without parameters."""
        encoding = incoming.header("content-encoding")
        self._body = incoming if encoding in ("", "identity") else Decompressor(incoming, encoding)

    async def read(self) -> bytes:
        """What has come of the body; nothing is its end."""
        try:
            return await self._body.read()
        except FOREIGN as error:
            raise failure_of(error, self._provider) from error

    async def whole(self, most: int) -> bytes:
        """All of the body, which must not be longer than `most` bytes."""
        parts, size = [], 0
        while data := await self.read():
            parts.append(data)
            size += len(data)
            if size > most:
                raise failure_of(aiohttp.ClientPayloadError("too long"), self._provider)
        return b"".join(parts)

    async def drain(self) -> None:
        """The answer is over, the connection's part in it may need another moment: then it can carry the next
        request."""
        if self._incoming.at_end:
            return
        with suppress(*FOREIGN):
            async with asyncio.timeout(0.05):
                while await self._incoming.read():
                    pass

    def close(self) -> None:
        """Lets the connection go: to its pool if it can carry more, else for good."""
        transport = self._connection.transport
        if transport is not None and transport.get_write_buffer_size():
            transport.abort()  # it was answered before it was asked in full: the rest need not go out
            self._connection.close()
        else:
            self._connection.release()


class _Connector(aiohttp.TCPConnector):
    def __init__(self, **settings: Any) -> None:
        super().__init__(limit=0, **settings)
        self._factory = cast(Any, partial(ClientConnection, loop=self._loop))


class Route(NamedTuple):
    """How requests to one address travel."""

    request: aiohttp.ClientRequest
    """What aiohttp finds a connection by: the address, the proxy, the certificates."""
    headers: dict[str, str]
    """What all of them say."""
    before_path: str
    """An HTTP proxy is told the whole URL."""


class Client:
    """One for all providers. Connections are aiohttp's, with its pools, TLS and proxies; requests are written
    and answers are taken here, since its sessions take four times as long for that, for what no back end
    needs: cookies, redirects, traces. Those for `zone = "local"` connect to nothing else."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._proxies = _proxies(os.environ if environ is None else environ)
        self._connectors: dict[tuple[bool, bool], aiohttp.TCPConnector] = {}
        self._routes: dict[tuple[str, str, str | None, str | None], Route] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def post(
        self, provider: Provider, url: str, *, body: bytes, headers: Mapping[str, str], connect: float
    ) -> Response:
        """The answer, whatever its status. Raises `UpstreamFailure`.

        `url` goes out as it is: a client's query is not ours to tidy up. Names of `headers` are in lower
        case. `connect`: seconds."""
        try:
            return await self._post(provider, url, body, headers, connect)
        except FOREIGN as error:
            raise failure_of(error, provider.name) from error

    async def _post(
        self, provider: Provider, url: str, body: bytes, headers: Mapping[str, str], connect: float
    ) -> Response:
        scheme, netloc, path, query, _ = urlsplit(url)
        route = self._route(provider, scheme, netloc)
        target = _printable(f"{path or '/'}?{query}" if query else path or "/")
        sockets: list[int] = []
        _sockets.set(sockets)
        began = time.monotonic()
        asked = partial(_asked, provider.name, route, target, headers, body, connect)
        try:
            return await asked(self._connector(provider))
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            reused = not sockets and not isinstance(error, aiohttp.ClientConnectorError)
            if not reused or time.monotonic() - began > AT_ONCE:
                raise
            # A connection that idled in our pool was closed by its other end, and our request crossed that on
            # its way. The back end is well, and has not answered a byte: so this is not an attempt that
            # failed. Any idle connection may be stale: take a new one.
            return await asked(self._connector(provider, fresh=True))

    def _connector(self, provider: Provider, *, fresh: bool = False) -> aiohttp.TCPConnector:
        local = provider.zone == "local"
        if (local, fresh) not in self._connectors:
            pool: dict[str, Any] = {"force_close": True} if fresh else {"keepalive_timeout": KEEP_ALIVE}
            sockets = _local_socket if local else _socket
            self._connectors[local, fresh] = _Connector(socket_factory=sockets, **pool)
        return self._connectors[local, fresh]

    def _route(self, provider: Provider, scheme: str, netloc: str) -> Route:
        proxy = self.proxy_for(provider)
        key = scheme, netloc, proxy, provider.ca_file
        if key not in self._routes:
            request = aiohttp.ClientRequest(
                "POST",
                URL(f"{scheme}://{netloc}"),
                headers={"user-agent": f"routeproxy/{routeproxy.__version__}"},
                skip_auto_headers=("accept-encoding", "content-type"),
                loop=asyncio.get_running_loop(),
                proxy=URL(proxy) if proxy else None,
                ssl=self._trusting(provider.ca_file) if provider.ca_file else True,
            )
            relayed = proxy is not None and not request.is_ssl()
            before_path = str(request.url.origin()) if relayed else ""
            self._routes[key] = Route(request, _headers_of(request), before_path)
        return self._routes[key]

    def proxy_for(self, provider: Provider) -> str | None:
        """The provider's own `proxy`; the environment's only for public providers, since the others are
        inside."""
        if provider.proxy:
            return provider.proxy
        if provider.zone != "public" or not provider.base_url or not self._proxies:
            return None
        url = urlsplit(provider.base_url)
        if _bypassed(url.hostname or "", url.netloc, self._proxies.get("no", "")):
            return None
        return self._proxies.get(url.scheme) or self._proxies.get("all")

    def _trusting(self, ca_file: str) -> ssl.SSLContext:
        if ca_file not in self._contexts:
            try:
                self._contexts[ca_file] = ssl.create_default_context(cafile=ca_file)
            except OSError as error:  # an ssl.SSLError is one too
                raise NoCertificates(ca_file) from error
        return self._contexts[ca_file]

    async def aclose(self) -> None:
        for connector in self._connectors.values():
            await connector.close()
        self._connectors.clear()
        self._routes.clear()


async def _asked(
    provider: str,
    route: Route,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    connect: float,
    connector: aiohttp.TCPConnector,
) -> Response:
    try:
        connection = await connector.connect(route.request, [], _limits(connect))
    except TimeoutError as error:
        raise aiohttp.ConnectionTimeoutError from error
    try:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or transport.is_closing():
            raise aiohttp.ServerDisconnectedError
        assert isinstance(protocol, ClientConnection)
        incoming = protocol.expect()
        transport.writelines([_head(route, target, headers, len(body)), body])
        await incoming.head()
        return Response(provider, connection, incoming)
    except BaseException:
        connection.close()
        raise


@lru_cache
def _limits(connect: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect)


def _headers_of(request: aiohttp.ClientRequest) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _head(route: Route, target: str, headers: Mapping[str, str], length: int) -> bytes:
    # What a proxy wants to hear is only known once aiohttp has connected to it.
    always = _headers_of(route.request) if route.before_path else route.headers
    lines = {**always, **headers, "content-length": str(length)}
    text = "".join([f"{name}: {value}\r\n" for name, value in lines.items()])
    if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
        raise BadHeader
    return f"POST {route.before_path}{target} HTTP/1.1\r\n{text}\r\n".encode()


def _printable(target: str) -> str:
    """Nothing in it may end the line that it stands in."""
    return target if _TARGET.fullmatch(target) else quote(target, safe=punctuation)


_TARGET = re.compile(r"[!-~]+")


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """`HTTP_PROXY` and its like, by scheme; in lower case they win. Under CGI `HTTP_PROXY` is a client's
    header, not a setting."""
    found = {}
    for scheme in ("http", "https", "all", "no"):
        upper = (
            ""
            if scheme == "http" and "REQUEST_METHOD" in environ
            else environ.get(f"{scheme.upper()}_PROXY", "")
        )
        if value := environ.get(f"{scheme}_proxy", upper):
            found[scheme] = value
    return found if found.keys() - {"no"} else {}


def _bypassed(host: str, netloc: str, no_proxy: str) -> bool:
    """Whether `NO_PROXY` names this host: whole, by a domain above it, by its network, or with `*`."""
    for entry in filter(None, (entry.strip().lower() for entry in no_proxy.split(","))):
        name = entry.removeprefix("*").lstrip(".")
        if not name or name in (host, netloc) or host.endswith(f".{name}"):
            return True
        with suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
    return False


_LOCAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "127.0.0.0/8",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "169.254.0.0/16",
            "::1",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)


_sockets: ContextVar[list[int]] = ContextVar("sockets")
"""Those that were made for the request at hand. None: it travels on a connection that was there."""


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    _sockets.get().append(made.fileno())
    return made


def _local_socket(address: tuple[Any, ...]) -> socket.socket:
    # zone = "local" is a promise about where the bytes go, so it is checked on the address that is connected
    # to, not on a name.
    where = address[4][0]
    if not is_local(where):
        raise NotLocal(f"{where} is neither loopback nor private")
    return _socket(address)


def is_local(address: str) -> bool:
    """Loopback or private. Spelled out, since `is_private` means more than that, and not the same in every
    Python."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return any(ip in network for network in _LOCAL)
