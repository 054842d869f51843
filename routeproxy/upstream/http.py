"""Our own HTTP client: sessions kept open for all providers, and what their exceptions mean."""

import asyncio
import io
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

import routeproxy
from routeproxy.exchange import Inbound
from routeproxy.policy.decide import Provider
from routeproxy.upstream.failures import Kind, UpstreamFailure

KEEP_ALIVE = 60.0
"""Seconds that an idle connection is kept: a person's pause between two turns should not cost a handshake."""

AT_ONCE = 1.0
"""Seconds within which a connection shows that it was dead already. Who goes later has begun to work."""

LARGE_BODY = 2**20
"""Bytes. Above this a body is written piece by piece, with turns for others in between."""


class NotLocal(OSError):
    """An address outside, for a provider that is promised to be inside."""


class NoCertificates(OSError):
    """A `ca_file` that cannot be read."""


# The first row that fits counts, so the special stand before the general.
KINDS: tuple[tuple[type[BaseException], Kind, str], ...] = (
    (NotLocal, "connection", "has an address that is neither loopback nor private, and its zone is local"),
    (NoCertificates, "connection", "has a ca_file that cannot be read"),
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


class Client:
    """Sessions are made on first use, on the loop that uses them. Those for `zone = "local"` connect to
    nothing else."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._proxies = _proxies(os.environ if environ is None else environ)
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    @asynccontextmanager
    async def post(
        self, provider: Provider, url: str, *, body: bytes, headers: Mapping[str, str], connect: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, whatever its status. Leaving the context lets the connection go, back to its pool if it
        can carry more."""
        options = self._options(provider, connect) | {"headers": headers}
        sockets: list[int] = []
        _sockets.set(sockets)
        began = time.monotonic()
        address = URL(url, encoded=True)  # as it is: a client's query is not ours to tidy up
        try:
            response = await self._session(provider).post(address, data=_payload(body), **options)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            reused = not sockets and not isinstance(error, aiohttp.ClientConnectorError)
            if not reused or time.monotonic() - began > AT_ONCE:
                raise
            # A connection that idled in our pool was closed by its other end, and our request crossed that on
            # its way. The back end is well, and has not answered a byte: so this is not an attempt that
            # failed. Any idle connection may be stale: take a new one.
            response = await self._session(provider, fresh=True).post(address, data=_payload(body), **options)
        async with response:
            yield response

    def _session(self, provider: Provider, *, fresh: bool = False) -> aiohttp.ClientSession:
        local = provider.zone == "local"
        if (local, fresh) not in self._sessions:
            pool: dict[str, Any] = {"force_close": True} if fresh else {"keepalive_timeout": KEEP_ALIVE}
            self._sessions[local, fresh] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, socket_factory=_local_socket if local else _socket, **pool
                ),
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"user-agent": f"routeproxy/{routeproxy.__version__}"},
                read_bufsize=2**18,
            )
        return self._sessions[local, fresh]

    def _options(self, provider: Provider, connect: float) -> dict[str, Any]:
        """How a request to this provider travels: proxy, certificates, time to connect. Never along a
        redirect."""
        options: dict[str, Any] = {
            "allow_redirects": False,
            "timeout": aiohttp.ClientTimeout(total=None, connect=connect),
        }
        if proxy := self.proxy_for(provider):
            options["proxy"] = proxy
        if provider.ca_file:
            options["ssl"] = self._trusting(provider.ca_file)
        return options

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
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()


async def read_whole(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body. Raises `aiohttp.ClientPayloadError` beyond `most` bytes."""
    parts, size = [], 0
    async for data in response.content.iter_any():
        parts.append(data)
        size += len(data)
        if size > most:
            raise aiohttp.ClientPayloadError("too long")
    return b"".join(parts)


async def drained(response: aiohttp.ClientResponse) -> None:
    """The answer is over, the connection's part in it may need another moment: then it can carry the next
    request."""
    if response.content.at_eof():
        return
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(0.05):
            while not response.content.at_eof():
                await response.content.readany()


def lowered(response: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    """Its headers, names in lower case."""
    return [(name.lower(), value) for name, value in response.headers.items()]


def _payload(body: bytes) -> bytes | io.BytesIO:
    return body if len(body) <= LARGE_BODY else io.BytesIO(body)


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
