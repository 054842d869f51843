"""Our own HTTP client: one session kept open for all providers, and what its exceptions mean."""

import ipaddress
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from routeproxy.policy.decide import Provider
from routeproxy.upstream.failures import Kind, UpstreamFailure

KINDS: tuple[tuple[type[BaseException], Kind, str], ...] = (
    (aiohttp.ConnectionTimeoutError, "timeout_connect", "could not be reached in time"),
    (aiohttp.SocketTimeoutError, "timeout_idle", "went silent"),
    (aiohttp.ServerTimeoutError, "timeout_idle", "went silent"),
    (aiohttp.ClientConnectorCertificateError, "connection", "has a certificate that is not trusted"),
    (aiohttp.ClientSSLError, "connection", "could not be reached over TLS"),
    (aiohttp.ClientConnectorError, "connection", "could not be reached"),
    (aiohttp.ServerDisconnectedError, "connection", "closed the connection"),
    (aiohttp.ClientPayloadError, "connection", "closed the connection before completing its answer"),
    (aiohttp.InvalidURL, "connection", "has a base_url that is not a URL"),
    (aiohttp.ClientError, "connection", "could not be spoken to"),
    (OSError, "connection", "could not be reached"),
)


def failure_of(error: BaseException, provider: str) -> UpstreamFailure:
    """What an exception of this client means."""
    for kind_of_error, kind, words in KINDS:
        if isinstance(error, kind_of_error):
            return UpstreamFailure(kind, f"the back end {provider} {words}")
    return UpstreamFailure("server_error", f"the back end {provider} could not be asked")


class Client:
    """Sessions are made on first use, on the loop that uses them: one for `zone = "local"`, one for the rest."""

    def __init__(self) -> None:
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    def session(self, provider: Provider) -> aiohttp.ClientSession:
        local = provider.zone == "local"
        if local not in self._sessions:
            self._sessions[local] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, socket_factory=_local_socket if local else None),
                timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent",),
                read_bufsize=2**18,
            )
        return self._sessions[local]

    def options(self, provider: Provider, connect: float) -> dict[str, Any]:
        """How a request to this provider travels: proxy, certificates, time to connect. Never along a redirect."""
        options: dict[str, Any] = {
            "allow_redirects": False,
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=None),
        }
        if proxy := proxy_for(provider):
            options["proxy"] = proxy
        if provider.ca_file:
            if provider.ca_file not in self._contexts:
                self._contexts[provider.ca_file] = ssl.create_default_context(cafile=provider.ca_file)
            options["ssl"] = self._contexts[provider.ca_file]
        return options

    async def aclose(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()


def proxy_for(provider: Provider, environment: Mapping[str, str] | None = None) -> str | None:
    """The provider's own `proxy`; from the environment only for public providers, since the others are inside."""
    if provider.proxy:
        return provider.proxy
    if provider.zone != "public" or not provider.base_url:
        return None
    url = urlsplit(provider.base_url)
    if not url.hostname or urllib.request.proxy_bypass(url.netloc):
        return None
    return (urllib.request.getproxies() if environment is None else environment).get(url.scheme)


def _local_socket(address: tuple[Any, ...]) -> socket.socket:
    # zone = "local" is a promise about where the bytes go, so it is checked on the address that is connected to, not on a name.
    family, kind, protocol, _, where = address
    if not is_local(where[0]):
        raise OSError(f"{where[0]} is not a loopback or private address, and the provider's zone is local")
    return socket.socket(family, kind, protocol)


def is_local(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return ip.is_loopback or (ip.is_private and not ip.is_unspecified) or ip.is_link_local
