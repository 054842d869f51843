"""Where the server listens: who stated the address, why it is none, and the socket there."""

import errno
import os
import socket
import sys
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from routeproxy.descriptors import notice_silent_end
from routeproxy.policy.compile.listen_host import listen_host_problem

BACKLOG = 2048
CLIENT_GONE = 60
"""Seconds in which a client takes nothing of its answer."""
ALL_ADDRESSES: Mapping[str, str] = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}
"""What stands for every address of the machine, with one of them that a client there can open."""
EXPECTED = "expected an address of this machine, as 127.0.0.1 or ::1, or 0.0.0.0 for all of them"


class Origin(Struct, frozen=True):
    """Who stated a host or a port."""

    words: str
    """`--host`, `HOST in .env`, `[server] host of rules.toml`."""
    kind: Literal["flag", "variable", "dotenv", "key", "default"] = "flag"


_WRITTEN: Mapping[str, tuple[str, str]] = {
    "flag": ("--host {}", "--port {}"),
    "variable": ("HOST={}", "PORT={}"),
    "dotenv": ("HOST={}", "PORT={}"),
    "key": ('host = "{}"', "port = {}"),
    "default": ("--host {}", "--port {}"),
}
"""How a host and a port are written where they are stated."""
DEFAULT = Origin("the default", "default")
"""Nobody stated it."""


class Address(Struct, frozen=True):
    """A host and a port to listen on; port 0 stands for a free one."""

    host: str
    port: int
    host_from: Origin = DEFAULT
    port_from: Origin = DEFAULT

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


def url_of(host: str, port: int) -> str:
    """The URL by which a client on this machine reaches a server that listens there."""
    return f"http://{_bracketed(ALL_ADDRESSES.get(host, host))}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def check_address(address: Address) -> None:
    """Raises `ValueError` with where it was stated, what is wrong and what to write, for a host that is
    neither an IP address nor a name."""
    problem = listen_host_problem(address.host)
    if problem is None:
        return
    what, host, port = problem
    origin = address.host_from
    subject = (
        f"{origin.words} is `{address.host}`, {what}" if address.host.strip() else f"{origin.words} is {what}"
    )
    if host and listen_host_problem(host) is not None:
        host, port = "", ""
    written = _WRITTEN[origin.kind]
    meant = " and ".join([written[0].format(host)] * bool(host) + [written[1].format(port)] * bool(port))
    raise ValueError(f"{subject}: {f'write {meant}' if meant else EXPECTED}")


def listen(address: Address) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `ValueError` for what is no address, and `OSError`
    for one that can't be had; both say who stated it and what to do."""
    check_address(address)
    family, place = resolve(address)
    return _listening(address, family, place)


def listen_for_workers(address: Address, number: int) -> list[socket.socket]:
    """A listening socket for each worker, over which the system spreads connections evenly; where it does not
    know how, one that all share: then whoever is quickest gets most. Raises as `listen` does."""
    first = listen(address)
    if number == 1 or not sys.platform.startswith("linux"):
        return [first]
    # That nobody else has the port is known now; sockets that share it would not have told.
    family, place = first.family, first.getsockname()
    first.close()
    return [_listening(address, family, place, is_one_of_several=True) for _ in range(number)]


def _listening(
    address: Address, family: int, place: tuple[object, ...], *, is_one_of_several: bool = False
) -> socket.socket:
    try:
        sock = socket.socket(family)
    except OSError as error:
        raise OSError(_cannot(address, error)) from error
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_one_of_several:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    notice_silent_end(sock, CLIENT_GONE)
    try:
        if address.host == "::":  # all of them, as 0.0.0.0 is of its family
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(place)
        sock.listen(BACKLOG)  # a client that comes before the server is ready waits, and is not refused
    except OSError as error:
        sock.close()
        raise OSError(_cannot(address, error)) from error
    return sock


def resolve(address: Address) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    """The address as a socket takes it. Raises `OSError` for a name that leads nowhere."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # a name of letters that no name can have is an error of its encoding
        raise OSError(
            f"{address.host_from.words} is `{address.host}`, a name that this machine can't find an address "
            f"for: {EXPECTED}"
        ) from None
    # A name that has both is opened as IPv4, which every client tries.
    family, *_, place = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, place


def _cannot(address: Address, error: OSError) -> str:
    host, port = address.host_from, address.port_from
    reason = _REASONS.get(error.errno or 0)
    why = reason.format(address=address) if reason else os.strerror(error.errno or 0)
    stated = {origin.words: None for origin in (host, port) if origin.kind != "default"}
    places = f" ({' and '.join(stated)})" if stated else ""
    return f"cannot listen on {address}{places}: {why}"


_OTHER_PORT = "Choose another with --port; --port 0 takes a free one"
_REASONS: Mapping[int, str] = {
    errno.EADDRINUSE: f"another program has it. {_OTHER_PORT}",
    errno.EACCES: "ports below 1024 are kept for programs with more rights. Choose another with --port",
    errno.EPERM: "this machine's rules forbid it. Choose another with --port",
    errno.EADDRNOTAVAIL: "{address.host} is no address of this machine. 127.0.0.1 is for this machine alone, "
    "0.0.0.0 stands for all of its addresses",
    errno.EAFNOSUPPORT: "this machine has no IPv6. Choose an IPv4 address with --host, such as 127.0.0.1",
    errno.EINVAL: "{address.host} needs the network interface that it belongs to, written behind a `%`",
}
"""Why a socket can't be had, and what to do, by the error's number."""
