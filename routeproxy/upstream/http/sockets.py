"""What the operating system knows of a connection that we have not heard yet, or never will: whether its
other end has spoken or closed it, and how much of what was sent has arrived."""

import asyncio
import errno
import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

_BYTES_ACKED = struct.Struct("Q")
_OFFSET = 120
"""Of `tcpi_bytes_acked` in Linux's `tcp_info`."""

_STATE = struct.Struct("2x B B 20x I 28x I 60x Q")
"""Its beginning: retransmissions without progress, probes of a closed window without an answer, segments that
are not confirmed, the time since anything came (milliseconds), bytes that were confirmed."""

_SPOKEN_OR_CLOSED: int = select.POLLIN | getattr(select, "POLLRDHUP", 0)


def has_something_to_say(transport: asyncio.Transport) -> bool:
    """Whether bytes, an end or an error wait to be read. The event loop may have had no time to look."""
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, _SPOKEN_OR_CLOSED)
    return bool(poll.poll(0))


class SilenceWatch:
    """Looks, while an answer is waited for, whether the other end confirms what was sent. A firewall that has
    dropped a connection says nothing; a back end that reads nothing for minutes, as its model loads, is there
    all the same, which the system's own limit (`TCP_USER_TIMEOUT`) does not tell apart."""

    def __init__(
        self, transport: asyncio.Transport, seconds: float, on_gone: Callable[[OSError], None]
    ) -> None:
        """Calls `on_gone` once nobody has been there for `seconds`."""
        self._transport = transport
        self._seconds = seconds
        self._on_gone = on_gone
        self._confirmed: int | None = None
        """Bytes."""
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        """The last progress."""
        self._timer = self._loop.call_later(seconds / 8, self._look)

    def _look(self) -> None:
        if self._transport.is_closing():
            return
        if self._is_gone():
            self._on_gone(OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(self._seconds / 8, self._look)

    def _is_gone(self) -> bool:
        """Whether what was sent has been repeated for so long and is not confirmed, or probes have no answer.
        Who is there does both, though not at once."""
        info = _tcp_info(self._transport.get_extra_info("socket"))
        if len(info) < _STATE.size:
            return False
        resent, probed, unconfirmed, silence_ms, confirmed = _STATE.unpack_from(info)
        if confirmed != self._confirmed:
            if self._confirmed is not None:
                self._since = self._loop.time()
            self._confirmed = confirmed
        if probed >= 2 and silence_ms >= self._seconds * 1000:
            return True
        is_repeated = resent >= 2 and unconfirmed > 0
        return is_repeated and self._loop.time() - self._since >= self._seconds

    def close(self) -> None:
        self._timer.cancel()


def _tcp_info(sock: socket.socket) -> bytes:
    """Linux's `tcp_info`; empty where the system does not tell."""
    if sys.platform != "linux":
        return b""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except OSError:
        return b""


class Delivery:
    """What arrives at the other end of a connection, from now on. To be closed."""

    def __init__(self, transport: asyncio.Transport) -> None:
        # Of its own, since it is looked at when the transport has closed the connection's.
        self._socket: socket.socket | None = None
        with suppress(OSError):  # too many files are open
            self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        self._acked_before = self._acked()

    def may_have_brought(self, size: int) -> bool:
        """Whether `size` bytes may have come to the program at the other end. They have not if its system has
        not confirmed them all: what it confirms only after it was read, it confirms within 40 ms."""
        acked, before = self._acked(), self._acked_before
        return acked is None or before is None or acked - before >= size

    def _acked(self) -> int | None:
        """Bytes; `None` where the system does not tell."""
        info = _tcp_info(self._socket) if self._socket is not None else b""
        if len(info) < _OFFSET + _BYTES_ACKED.size:
            return None
        acked: int = _BYTES_ACKED.unpack_from(info, _OFFSET)[0]
        return acked

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
