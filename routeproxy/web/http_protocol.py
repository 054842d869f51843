"""HTTP/1.1 as uvicorn speaks it, but for one offer that it must not hear, how often it writes, how it tells
that a client is gone, and what becomes of bytes that are no HTTP."""

import asyncio
import re
import select
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from routeproxy.exchange import SmallRequest, new_request_id
from routeproxy.messages.errors import ApiError, error_body
from routeproxy.observe import Observer
from routeproxy.web.response import DISCONNECT_SIGNAL, DisconnectSignal, Refusal

LOOK_EVERY = 0.25
"""Seconds between looks at a client of which nothing is read for now: its leave stands behind what it
sent."""

AT_MOST = 65_536
"""Bytes that wait for what else is written in this turn of the event loop."""

_ABSOLUTE = re.compile(rb"[a-z][a-z0-9+.-]*://([^/?#]*)", re.IGNORECASE)
"""A request's target as proxies get it, and the host in it."""

_OFFER = re.compile(rb"\r\nupgrade: *h2c *(?=\r\n)", re.IGNORECASE)


class HttpProtocol(HttpToolsProtocol):
    """A client that ends its side of the connection has left, whether or not it would go on reading: no
    client of the API does that, and the two look the same (docs/internals/architecture.md)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self.disconnect_signal = DisconnectSignal()
        self._in_head = False
        self._answered: RequestResponseCycle | None = None
        """What is answered, or was last: `cycle` is a request that came after it where a client does not wait
        for its answer."""
        self.flow = WatchfulFlow(self.transport, self.loop)
        self.transport = cast(asyncio.Transport, CoalescingTransport(self.transport, self.loop))

    def data_received(self, data: bytes) -> None:
        """Java's client offers to go on in HTTP/2, which a server may ignore. uvicorn ignores the body as
        well, and the request waits for ever."""
        # No JSON holds a bare line end, so this is a header or nothing. Looking for the last takes no time.
        offers = data.find(b"h2c", 0, data.rfind(b"\r") + 1) >= 0
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(_OFFER.sub(b"", data) if offers else data)
        except httptools.HttpParserUpgrade:
            pass  # nothing else than HTTP is spoken here, which the answer shows
        except httptools.HttpParserError:
            self._refuse(ApiError(400, "what came is not HTTP, or not what HTTP allows"))

    def _refuse(self, error: ApiError) -> None:
        """Answers what is no request and ends the connection: where the next request begins nobody knows."""
        cycle, request_id = self.cycle, new_request_id()
        if cycle is None or cycle.response_complete:
            self._tell_of_refused(error, request_id)
        elif cycle.response_started or not cycle.more_body:
            self.transport.close()  # that answer is another request's
            return
        else:
            self.disconnect_signal.refusal = Refusal(error.status, error.type, request_id)
        body = error_body(error, request_id)
        head = (
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nrequest-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _tell_of_refused(self, error: ApiError, request_id: str) -> None:
        """Method and path are those that were read, if the first line was."""
        url = self.url if self._in_head else b""
        observer: Observer | None = getattr(self.config.loaded_app, "observer", None)
        if observer is not None:
            request = SmallRequest(
                method=self.parser.get_method().decode("ascii") if url else None,
                path=url.partition(b"?")[0].decode("latin-1") or None,
                request_id=request_id,
                status=error.status,
                error=error.type,
            )
            observer.small_request_done(request)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self.scope["extensions"] = {DISCONNECT_SIGNAL: self.disconnect_signal}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        # A target with a host in it counts, and the header does not (RFC 9112, 3.2.2).
        if not self.url.startswith(b"/") and (target := _ABSOLUTE.match(self.url)):
            others = [(name, value) for name, value in self.headers if name != b"host"]
            self.headers[:] = [*others, (b"host", target[1])]
        super().on_headers_complete()
        self._in_head = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        # uvicorn stops reading in the middle of a large body, and goes on for who asks for more of it: but
        # after the last part nobody asks, and a client that leaves would not be heard.
        if not self.pipeline:
            self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def eof_received(self) -> None:
        cycle = self._answered
        if cycle is not None and not cycle.response_complete:
            self.transport.abort()  # closing would wait for the client to take what is written already

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        cycle = self._answered
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self.disconnect_signal.fire()

    def on_response_complete(self) -> None:
        self.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()


class WatchfulFlow(FlowControl):
    """Ends the connection of a client that leaves while nothing is read of it: a body that nobody has asked
    for yet, or a next request before the answer to this one."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport)
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def pause_reading(self) -> None:
        super().pause_reading()
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        """Once more after reading goes on, rather than a timer cancelled for every part of a body."""
        self._timer = None
        if not self.read_paused or self._transport.is_closing():
            return
        if _has_left(self._transport):
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(LOOK_EVERY, self._look)


def _has_left(transport: asyncio.Transport) -> bool:
    """Whether the other end has ended its side, though what it sent before may not have been read."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), _LEFT)
    return bool(poll.poll(0))


_LEFT: int = getattr(select, "POLLRDHUP", 0)
"""Where the system has no word for that, what it always tells has to do: a connection that broke."""


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
