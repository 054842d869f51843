"""The one reader of what `Host` and an origin name: a host and a port, or nothing."""

import ipaddress
import re
import socket
from contextlib import suppress
from functools import lru_cache

from msgspec import Struct

_HOST = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::([0-9]{0,5}))?")
_NAME = re.compile(r"(?!.{254})[a-z0-9_][a-z0-9_-]{0,62}(\.[a-z0-9_][a-z0-9_-]{0,62})*")
_NUMBERS = re.compile(r"[0-9][0-9a-fx.]*")


class Authority(Struct, frozen=True):
    """The host and the port of a `Host` header or of an origin."""

    host: str
    """In lower case, without brackets and final dot."""
    port: str
    """Empty: the usual one."""
    is_address: bool

    def __str__(self) -> str:
        """As it stands in an address; nothing in it means anything to a shell."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host


@lru_cache(256)
def authority_of(text: str) -> Authority | None:
    """Reads `name`, `name:port`, an IPv4 address or an IPv6 address in brackets; `None` for anything else."""
    text = text.lower()
    with suppress(ValueError):  # without brackets: no name can look like that
        return Authority(str(ipaddress.IPv6Address(text)), "", is_address=True)
    if not (match := _HOST.fullmatch(text)):
        return None
    host, port = match[1], match[2] or ""
    if host.startswith("["):
        try:
            return Authority(str(ipaddress.IPv6Address(host[1:-1])), port, is_address=True)
        except ValueError:
            return None
    host = host.removesuffix(".")
    if _is_ipv4(host):
        return Authority(host, port, is_address=True)
    return Authority(host, port, is_address=False) if _NAME.fullmatch(host) else None


def _is_ipv4(host: str) -> bool:
    """`127.1` and `0x7f.1` are addresses too, and no name of the DNS ends in a number."""
    if not _NUMBERS.fullmatch(host):
        return False
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return True
