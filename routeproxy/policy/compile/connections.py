"""What can't be an address, a proxy or a header: found when the rules are read, not when a request fails."""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

OF_A_CONNECTION = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers of a connection. HTTP libraries write them themselves, and proxies take them off."""

_ENDPOINTS = re.compile(
    r"(/chat/completions|/completions|/responses|/v1/messages|/messages|/embeddings|/models"
    r"|/api/chat|/api/generate|:(stream)?generatecontent)$",
    re.ASCII | re.IGNORECASE,
)
_LONGEST_LABEL = 63
_LONGEST_HOST = 253


def url_problem(url: str) -> str | None:
    """Why it can't be a `base_url`, to stand behind that word; `None` if it can."""
    parts = _split(url)
    if isinstance(parts, str):
        return parts
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "is not an address"
    if "@" in parts.netloc:
        return "holds a password: write it as `api_key`"
    if "?" in url or "#" in url:
        return "can't have a `?` or `#` part"
    if endpoint := _ENDPOINTS.search(parts.path.rstrip("/")):
        return f"is a whole endpoint: leave out `{endpoint[0]}`, which is added"
    return _host_problem(parts.hostname)


def proxy_problem(url: str) -> str | None:
    """Why it can't be a `proxy`, to stand behind that word; `None` if it can."""
    parts = _split(url)
    if isinstance(parts, str):
        return parts
    if parts.scheme.startswith("socks"):
        return "can't be a SOCKS proxy"
    if "://" not in url or parts.scheme not in {"http", "https"} or not parts.hostname:
        return "is not the address of a proxy"
    if parts.path.rstrip("/") or parts.query or parts.fragment:
        return "is a host and a port, without a path"
    return _host_problem(parts.hostname)


def is_loopback(host: str) -> bool:
    """Whether it is this machine for certain: a loopback address, or the name of that."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_below_localhost(host: str) -> bool:
    """Whether it is a name that should lead to this machine (RFC 6761), as every browser takes it."""
    return host.endswith(".localhost")


def is_always_own(host: str) -> bool:
    """Whether a server answers to it without a word in its rules: loopback names and IP addresses."""
    name = host.lower().removesuffix(".")
    if is_loopback(name) or is_below_localhost(name):
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def host_name_problem(host: str) -> str | None:
    """Why it can't be one of `hosts`, to stand behind it; `None` if it can."""
    if "/" in host:
        return "is an address, not a name"
    if "*" in host:
        return "has a wildcard: each name is written out"
    name, colon, port = host.rpartition(":")
    if colon and name and port.isdecimal():
        return "has a port: a name counts at every port"
    if ":" in host or _host_problem(host):
        return "can't be the name of a host"
    if not host.isascii():
        return f"is not how requests have it, which is `{host.encode('idna').decode()}`"
    return None


def _split(url: str) -> SplitResult | str:
    """The parts of an address, or why it has none."""
    if any(character.isspace() or not character.isprintable() for character in url):
        return "has a blank or a control character in it"
    if "\\" in url:
        return "has a `\\` in it: addresses have `/`"
    try:
        parts = urlsplit(url)
        if parts.port == 0:
            return "has no port 0"
        if parts.port is None and parts.netloc.endswith(":"):
            return "has a `:` without a port"
    except ValueError:
        return "is not an address: its port or its brackets can't be read"
    return parts


def _host_problem(host: str) -> str | None:
    if ":" in host:
        return None  # an IPv6 address, which `urlsplit` has checked
    try:
        encoded = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return f"has a host that can't be one: `{host[:80]}`"
    labels = encoded.removesuffix(".").split(".")
    if len(encoded) > _LONGEST_HOST or any(len(label) > _LONGEST_LABEL for label in labels):
        return "has a host that is too long: 63 letters between two dots, 253 in all"
    if not all(re.fullmatch(r"[A-Za-z0-9_-]+", label) for label in labels):
        return f"has a host that can't be one: `{host[:80]}`"
    if any(label[0] == "-" or label[-1] == "-" for label in labels):
        return f"has a host that can't be one: `{host[:80]}` has a `-` where a name can't"
    if labels[-1].isdecimal() and not is_always_own(encoded):
        return f"has a host that can't be one: `{host[:80]}` is no IPv4 address"
    return None


_OF_A_CODING = frozenset({"accept-encoding", "content-encoding"})
_REFERENCE = re.compile(
    r"(?<![A-Za-z0-9])(?i:env|file):[^\s,;)]+|\$\{\w+\}|\$[A-Z][A-Z0-9_]{2,}\b|%[A-Z][A-Z0-9_]{2,}%|\{\{.+\}\}",
    re.ASCII,
)
"""What may have been meant to stand for a variable or a file."""


def header_problem(name: str, value: str, *, refers: bool, ascii_only: bool = False) -> str | None:
    """Why it can't be sent. `refers`: the value is that of a variable, and is not repeated. `ascii_only`:
    who sends it can't send anything else."""
    if name.lower() in OF_A_CONNECTION or name.lower() == "proxy-authenticate":
        return f"`{name}` belongs to a connection, which writes it itself"
    if name.lower() in _OF_A_CODING:
        return f"`{name}` says how the bytes of a body travel, which is not for the rules to say"
    if not refers and (found := _REFERENCE.search(value)):
        # What stands beside it may be a key.
        return f"`{found[0]}` is sent as it stands: `env:NAME` counts only as the whole value"
    if not value.isprintable():
        return "a header's value is one line of printable characters"
    if ascii_only and not value.isascii():
        return "LiteLLM sends headers of ASCII only"
    return None
