"""Why a host is none that a server can listen on, whoever states it: a flag, a variable, a rules file."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

_NAME = re.compile(r"(?!-)[\w-]{1,63}(?<!-)(\.(?!-)[\w-]{1,63}(?<!-))*\.?")


def listen_host_problem(host: str) -> tuple[str, str, str] | None:
    """What a host is instead of an address, and the host and port that were meant, as far as can be seen."""
    return None if _is_ip_address(host) else next(_problems(host), None)


def _problems(host: str) -> Iterator[tuple[str, str, str]]:
    if not host.strip():
        yield "empty", "", ""
    if "://" in host:
        yield "a URL", *_parts(host)
    if re.fullmatch(r"\[.*\](:\d*)?", host):
        inner, port = _parts(f"http://{host}")
        yield "an address with a port" if port else "an address in brackets", inner, port
    if re.fullmatch(r"[^:/]+:\d+", host):
        yield "an address with a port", *_parts(f"http://{host}")
    if re.fullmatch(r"[^/]+/.*", host):
        yield "an address with a path or a mask", *_parts(f"http://{host}")
    if host.isdecimal():
        yield "a number", "", host if int(host) < 2**16 else ""
    if host == "*":
        yield "no address", "0.0.0.0", ""
    if re.fullmatch(r"[\d.]+", host):
        yield "no IPv4 address, which has four numbers from 0 to 255", "", ""
    if ":" in host:
        yield "no IPv6 address", "", ""
    if host != host.strip() or not _NAME.fullmatch(host) or len(host) > 253:
        yield "neither an address nor a name", "", ""


def _parts(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        return parts.hostname or "", str(parts.port or "")
    except ValueError:
        return "", ""


def _is_ip_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
