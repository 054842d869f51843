"""The TCP connections of this machine, as Linux tells them, and one that is dropped without a word."""

import ctypes
import socket
import struct
from pathlib import Path
from urllib.parse import urlsplit

_LISTENS, _TIME_WAIT = "0A", "06"


def open_connections(*urls: str) -> list[str]:
    """Those from or to the ports of `urls`, whichever end still has them open, as `local remote state`."""
    ports = {urlsplit(url).port for url in urls}
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if state not in (_LISTENS, _TIME_WAIT) and {_port(local), _port(remote)} & ports:
            found.append(f"{_port(local)} {_port(remote)} {state}")
    return found


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


_SO_ATTACH_FILTER = 26
_TAKE_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)
"""A packet filter of one instruction: return 0 bytes."""


def drop(sock: socket.socket) -> None:
    """From now on nothing reaches this end of the connection, and it confirms nothing: as where a firewall
    has forgotten the connection."""
    program = ctypes.create_string_buffer(_TAKE_NOTHING)
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))
