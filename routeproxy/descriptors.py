"""File descriptors: as many as the system lets us have, and how many clients they are good for; and the
options of a socket whose other end may be gone without a word."""

import os
import socket
from contextlib import suppress

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

MOST = 1_048_576
"""Descriptors. A hard limit may be infinite, and there are libraries that walk through all up to the soft."""

PROBES = {"TCP_KEEPIDLE": 8, "TCP_KEEPINTVL": 4, "TCP_KEEPCNT": 3}
"""How TCP finds out whether an idle connection still has another end: seconds, seconds, and a number."""

SPARE = 32
"""For files, the watch on the rules, threads, and connections that are told that there is no room."""


OF_CLIENT = 3.125
"""Descriptors: its connection, one to a back end, a second of that while an answer to it is waited for, and
an eighth of one for clients that are told that there is no room."""


def raise_limit() -> None:
    """Raises the soft limit to the hard one."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with suppress(OSError, ValueError):  # some systems have a lower one that they do not name
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_clients() -> int:
    """Connections of clients, and as many to back ends."""
    soft = MOST if resource is None else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if resource is not None and soft == resource.RLIM_INFINITY:
        soft = MOST
    return max(int((soft - _open_now() - SPARE) / OF_CLIENT), 1)


def _open_now() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder))
    return SPARE


def notice_silent_end(sock: socket.socket, user_timeout: int | None = None) -> None:
    """Ends a connection whose other end is gone without a word, by three probes; with `user_timeout`, also
    after so many seconds in which it took nothing. What it accepts inherits that."""
    options = dict(PROBES)
    if user_timeout is not None:
        options["TCP_USER_TIMEOUT"] = user_timeout * 1000
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        if (option := getattr(socket, name, None)) is not None:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
