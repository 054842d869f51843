"""Which addresses may be connected to, and by way of which proxy: what the environment names, and what counts
as local. Nothing here connects to anything."""

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from routeproxy.policy.providers import Provider

# --- proxies


class ProxyEnvironment:
    """The proxies that `HTTP_PROXY` and its like name."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._proxies = _read_proxies(environ)

    def proxy_for(self, provider: Provider) -> str | None:
        """The provider's own `proxy`; the environment's only for public providers, since the others are
        inside."""
        if provider.proxy:
            return provider.proxy
        if provider.zone != "public" or not provider.base_url or not self._proxies:
            return None
        url = urlsplit(provider.base_url)
        if _is_bypassed(url.hostname or "", url.netloc, self._proxies.get("no", "")):
            return None
        return self._proxies.get(url.scheme) or self._proxies.get("all")


def _read_proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Proxies by scheme, with `all`, and with `no` for the hosts that need none. Variables in lower case win.
    Under CGI `HTTP_PROXY` is a client's header, not a setting."""
    proxies = {}
    for scheme in ("http", "https", "all", "no"):
        is_client_header = scheme == "http" and "REQUEST_METHOD" in environ
        default = "" if is_client_header else environ.get(f"{scheme.upper()}_PROXY", "")
        if value := environ.get(f"{scheme}_proxy", default):
            proxies[scheme] = value
    return proxies if proxies.keys() - {"no"} else {}


def _is_bypassed(host: str, netloc: str, no_proxy: str) -> bool:
    """Whether `NO_PROXY` names this host: whole, by a domain above it, by its network, or with `*`."""
    for entry in filter(None, (entry.strip().lower() for entry in no_proxy.split(","))):
        name = entry.removeprefix("*").lstrip(".")
        if not name or name in (host, netloc) or host.endswith(f".{name}"):
            return True
        with suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
    return False


# --- locality


class NotLocal(OSError):
    """An address outside, for a provider that is promised to be inside."""


_LOCAL_NETWORKS = tuple(
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
"""Loopback, private and link-local. Spelled out, since `is_private` means more than that, and not the same in
every Python."""


def is_local(address: str) -> bool:
    """Whether an IP address, a zone after `%` included, is loopback, private or link-local."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return any(ip in network for network in _LOCAL_NETWORKS)
