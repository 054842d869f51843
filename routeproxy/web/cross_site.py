"""What a server that asks for no key refuses: requests to a host that is not its own, and requests that a
browser sends for a page of another site. Where a key is needed, no page has it, and nothing is looked at.

A page that somebody opens may send requests to any address, this machine's among them, and its own name may
be made to lead here (DNS rebinding): then it reads the answers too. No page can choose `Host`, `Origin` or
`Sec-Fetch-…`, which the browser writes; `X-Forwarded-Host` is anybody's word, so it says nothing here."""

import logging
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from litestar.types import HTTPScope

from routeproxy.messages.errors import NO_RETRY, ApiError
from routeproxy.upstream.guard import LivePolicy
from routeproxy.web.auth import Authenticator
from routeproxy.web.authority import Authority, authority_of

log = logging.getLogger("routeproxy.web.cross_site")

PROBES = frozenset({"/healthz", "/readyz"})
"""Answered whatever the host: orchestrators ask by names of their own."""

_LOOKED_AT = frozenset({b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest"})

_OWN_SITE = frozenset({"same-origin", "none"})
"""Values of `Sec-Fetch-Site`: a page of ours, or somebody who typed the address."""

_NAVIGATION = {"sec-fetch-mode": ["navigate"], "sec-fetch-dest": ["document"]}
"""Somebody follows a link: the page with the link sees nothing of what it leads to."""

_DEFAULT_PORTS = {"http": "80", "https": "443"}

REPORTED = 100
"""Hosts and origins whose refusal is logged; each once, so that a page can't fill the log."""


class CrossSiteGuard:
    """Refuses what strangers' pages send, while anybody may ask without a key."""

    def __init__(
        self,
        rules: LivePolicy,
        authenticator: Authenticator,
        bound_host: str,
        is_named: Callable[[str], bool] | None,
    ) -> None:
        """`bound_host`: what the server was told to listen on, an address or a name of its own. `is_named`:
        whether the rules name an origin; `None`: they name none."""
        self._rules = rules
        self._authenticator = authenticator
        self._bound = authority_of(bound_host)
        self._is_named = is_named
        self._names_all = is_named is not None and is_named("null")
        self._reported: set[str] = set()

    def refusal(self, scope: HTTPScope) -> ApiError | None:
        """Why this request is not answered; `None`: it is. The body is not waited for."""
        if self._authenticator.needs_key or scope["path"] in PROBES:
            return None
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            if name in _LOOKED_AT:
                headers.setdefault(name.decode(), []).append(value.decode("latin-1"))
        words = self._host_problem(headers, scope) or self._site_problem(headers, scope)
        if words is None:
            return None
        if words not in self._reported and len(self._reported) < REPORTED:
            self._reported.add(words)
            log.warning("refused: %s", words)
        # Not 421, which would be the word for it: browsers and Node ask once more when they get it.
        return ApiError(403, words, headers=NO_RETRY)

    def _host_problem(self, headers: Mapping[str, list[str]], scope: HTTPScope) -> str | None:
        lines = headers.get("host", [])
        if not lines and scope["http_version"] == "1.0":
            return None  # every browser says it
        if len(lines) != 1:
            return f"expected one Host header, there {'are several' if lines else 'is none'}"
        host = authority_of(lines[0])
        if host is None:
            return f"Host `{_shown(lines[0])}` can't be read as a name or an address, and a port"
        if self._is_own(host):
            return None
        return (
            f"Host `{host.host}`: this server, which asks for no key, answers to localhost, to IP addresses "
            f'and to the names in its rules. If this is one, write `hosts = ["{host.host}"]` under [server], '
            "or have clients show a key, such as ANTHROPIC_AUTH_TOKEN"
        )

    def _is_own(self, authority: Authority) -> bool:
        host = authority.host
        return (
            authority.is_address
            or host == "localhost"
            or host.endswith(".localhost")
            or host in self._rules.policy.server.hosts
            or (self._bound is not None and host == self._bound.host)
        )

    def _site_problem(self, headers: Mapping[str, list[str]], scope: HTTPScope) -> str | None:
        origins, sites = headers.get("origin", []), headers.get("sec-fetch-site", [])
        if not (origins or sites) or self._names_all:
            return None
        if origins and self._is_named is not None and all(map(self._is_named, origins)):
            return None
        (host, *_) = [*headers.get("host", []), ""]
        for origin in origins:
            if not _is_origin_of(origin, host):
                return _refused_origin(origin)
        if _OWN_SITE.issuperset(sites) or (not origins and _is_navigation(headers, scope)):
            return None
        return (
            f"a page elsewhere sent this (Sec-Fetch-Site: {_shown(', '.join(sites))}): this server, which "
            "asks for no key, takes requests of pages only where `cors_origins` under [server] names them"
        )


def _refused_origin(origin: str) -> str:
    words = (
        f"a page of `{_shown(origin)}` sent this: this server, which asks for no key, takes requests of "
        "pages elsewhere only where its rules name them, "
    )
    if urlsplit(origin).scheme in _DEFAULT_PORTS:
        return f'{words}by `cors_origins = ["{_shown(origin)}"]` under [server]'
    return f'{words}and this one has no name; `cors_origins = ["*"]` under [server] lets in all'


def _is_origin_of(origin: str, host: str) -> bool:
    """Whether a page of `origin` came from this `host`. What stands in front may have ended TLS, so the
    scheme only says which port is left out."""
    scheme, _, rest = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    page, own = authority_of(rest), authority_of(host)
    if port is None or page is None or own is None:
        return False
    return (page.host, page.port or port) == (own.host, own.port or port)


def _is_navigation(headers: Mapping[str, list[str]], scope: HTTPScope) -> bool:
    return scope["method"] == "GET" and all(
        headers.get(name) == values for name, values in _NAVIGATION.items()
    )


def _shown(text: str) -> str:
    """At most 200 printable characters."""
    return "".join(c if c.isascii() and c.isprintable() and c not in '`"' else "?" for c in text[:200])
