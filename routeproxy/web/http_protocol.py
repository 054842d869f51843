"""HTTP/1.1 as uvicorn speaks it, but for one offer that it must not hear, how often it writes, and how it
tells that a client is gone."""

import asyncio
import re
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from routeproxy.web.response import DISCONNECT_SIGNAL, DisconnectSignal

AT_MOST = 65_536
"""Bytes that wait for what else is written in this turn of the event loop."""

_OFFER = re.compile(rb"\r\nupgrade: *h2c *(?=\r\n)", re.IGNORECASE)


class HttpProtocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self.disconnect_signal = DisconnectSignal()
        self.transport = cast(asyncio.Transport, CoalescingTransport(self.transport, self.loop))

    def data_received(self, data: bytes) -> None:
        """Java's client offers to go on in HTTP/2, which a server may ignore. uvicorn ignores the body as
        well, and the request waits for ever."""
        # No JSON holds a bare line end, so this is a header or nothing. Looking for the last takes no time.
        offers = data.find(b"h2c", 0, data.rfind(b"\r") + 1) >= 0
        super().data_received(_OFFER.sub(b"", data) if offers else data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {DISCONNECT_SIGNAL: self.disconnect_signal}  # type: ignore[dict-item]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.disconnect_signal.fire()

    def on_response_complete(self) -> None:
        self.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()


class CoalescingTransport:
    """A transport that sends in one piece what one turn of the event loop writes: an answer's headers, body
    and end are three writes, and each costs as much as a tenth of a small request."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)
        self._size += len(data)
        if self._size > AT_MOST:
            self.flush()

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        if data and not self._transport.is_closing():
            self._transport.write(data)
