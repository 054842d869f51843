"""What the operating system knows of a connection that we have not heard yet, or never will: whether its
other end has spoken or closed it, and how much of what was sent has arrived."""

import asyncio
import os
import select
import socket
import struct
import sys
from contextlib import suppress

_BYTES_ACKED = struct.Struct("Q")
_OFFSET = 120
"""Of `tcpi_bytes_acked` in Linux's `tcp_info`."""

_SPOKEN_OR_CLOSED: int = select.POLLIN | getattr(select, "POLLRDHUP", 0)


def has_something_to_say(transport: asyncio.Transport) -> bool:
    """Whether bytes, an end or an error wait to be read. The event loop may have had no time to look."""
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, _SPOKEN_OR_CLOSED)
    return bool(poll.poll(0))


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
        if self._socket is None or sys.platform != "linux":
            return None
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:
            return None
        if len(info) < _OFFSET + _BYTES_ACKED.size:
            return None
        acked: int = _BYTES_ACKED.unpack_from(info, _OFFSET)[0]
        return acked

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
