"""HTTP/1.1 as uvicorn speaks it, but for offers that it must not hear, how often it writes, how it tells that
a client is gone, how much and how long it waits for a request, what HTTP/1.0 can read, and what becomes of
bytes that are no HTTP."""

import asyncio
import logging
import math
import re
import select
import time
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from routeproxy.exchange import SmallRequest, new_request_id
from routeproxy.messages.errors import ApiError, error_body
from routeproxy.observe import Observer
from routeproxy.policy.server import ServerSettings
from routeproxy.web.response import DISCONNECT_SIGNAL, DisconnectSignal, Refusal

log = logging.getLogger("routeproxy.web.connections")

TELL_EVERY = 60.0
"""Seconds between lines that say that there is no room."""

LOOK_EVERY = 0.25
"""Seconds between looks at a client of which nothing is read for now: its leave stands behind what it
sent."""

AT_MOST = 65_536
"""Bytes that wait for what else is written in this turn of the event loop."""

MOST_HEAD = 65_536
"""Bytes of a request's first line, headers and trailers together, which are read before anybody shows a
key."""

MOST_LINES = 200
"""Of headers and trailers together."""

MOST_FRAMING = 9
"""Bytes around each byte of a chunked body, beyond what a head may have. Chunks of a single byte have
five."""

BODY_AT_MOST = 300.0
"""Seconds that a body may take in all, while it is read."""

LEAST_TOLD = 16
"""Connections beyond the room that are told so and may take their time, at least; an eighth of the room where
that is more. Others are told and closed at once, which what they still send may take from them."""

MOST_PIPELINED = 16
"""Requests that may wait while the one before them is answered. One read can bring thousands."""

LINGER = 2.0
"""Seconds in which a refused client may go on sending: closing on what it still sends would take the answer
from it."""

_ABSOLUTE = re.compile(rb"[a-z][a-z0-9+.-]*://([^/?#]*)", re.IGNORECASE)
"""A request's target as proxies get it, and the host in it."""

_OFFER = re.compile(rb"(?im)^upgrade:[^\n]*\n")
"""The line of a header that offers to go on in another protocol."""
_BEGUN_OFFER = re.compile(rb"(?i)u(?:p(?:g(?:r(?:a(?:d(?:e(?::[^\n]*)?)?)?)?)?)?)?")
"""What may become one with the next read."""


class HttpProtocol(HttpToolsProtocol):
    """A client that ends its side of the connection has left, whether or not it would go on reading: no
    client of the API does that, and the two look the same (docs/internals/architecture.md)."""

    def __init__(self, *args: Any, room: "Room", **kwargs: Any) -> None:
        self._parts: list[bytes] = []
        # httptools calls it for each chunk, of which one read may bring 40,000: in Python they would take a
        # twentieth of a second.
        self.on_body = self._parts.append  # type: ignore[assignment]
        super().__init__(*args, **kwargs)
        self._room = room

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self.disconnect_signal = DisconnectSignal()
        self._in_head = False
        self._refused = False
        self._is_last_request_read = False
        """Those that wait are answered, and then the connection ends: more have come than may wait, or
        something that is refused after them."""
        self._last_refusal: ApiError | None = None
        self._reading = 0
        self._ended_line = False
        """The last read ended a line."""
        self._begun_offer = b""
        """The end of the last read, if it may be the beginning of an offer."""
        self._fed = 0
        """Bytes that came of this message, after the read in which it began."""
        self._body = 0
        self._head = 0
        self._lines = 0
        self._waited = 0.0
        """Seconds in this state: for a head, for a body, for the next request. `check_time` adds to it."""
        self._silent = 0.0
        """Seconds since the last byte, counted likewise: so no event looks at a clock."""
        self._excess: ApiError | None = None
        self._answered: RequestResponseCycle | None = None
        """What is answered, or was last: `cycle` is a request that came after it where a client does not wait
        for its answer."""
        self.flow = WatchfulFlow(self.transport, self.loop)
        self.transport = cast(asyncio.Transport, CoalescingTransport(self.transport, self.loop))
        connections = len(self.connections)
        if connections > self._room.most:
            self._room.tell_that_it_is_full()
            headers = {"retry-after": "1"}
            self._refuse(ApiError(529, "this server has no room for a connection", headers=headers))
            if connections > self._room.most + self._room.told:
                self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._refused or self._is_last_request_read:
            return
        self._silent = 0.0
        self._reading = len(data)
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserUpgrade:
            pass  # nothing else than HTTP is spoken here, which the answer shows
        except httptools.HttpParserError:
            self._parts.clear()
            if self._is_last_request_read:
                return
            self._refuse(self._excess or ApiError(400, "what came is not HTTP, or not what HTTP allows"))
            return
        self._pass_body()
        self._fed += self._reading
        if self._fed > MOST_HEAD + MOST_FRAMING * self._body:
            # A name or a value that does not end, or chunks that hold next to nothing.
            self._refuse(_too_long() if self._in_head else ApiError(400, "the body has hardly any content"))

    def _parse(self, data: bytes) -> None:
        """Java's client offers to go on in HTTP/2, others in TLS, which a server may ignore. The parser would
        take what comes after the headers for the other protocol, and the body would be lost: so it does not
        get these headers."""
        begins_line, data, self._begun_offer = self._ended_line, self._begun_offer + data, b""
        last = data.rfind(b"\n") + 1
        self._ended_line = begins_line if not data else last == len(data)
        begun = b""
        if (last or begins_line) and _BEGUN_OFFER.fullmatch(data, last):
            begun, data = data[last:], data[:last]
        fed = 0
        if b"upgrade:" in data[:last].lower():
            for offer in _OFFER.finditer(data):
                self.parser.feed_data(data[fed : offer.start()])
                is_header = self._in_head and (offer.start() or begins_line)
                fed = offer.end() if is_header else offer.start()
        self.parser.feed_data(data[fed:] if fed else data)
        if begun and self._in_head:
            self._begun_offer, self._ended_line = begun, True
        elif begun:
            self.parser.feed_data(begun)

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines += 1
        self._count_head(len(name) + len(value) + 4)
        if self._in_head:
            super().on_header(name, value)
            if len(name) == 17 and name.lower() == b"transfer-encoding" and value.lower() != b"chunked":
                self._excess = ApiError(
                    400, "transfer-encoding: expected chunked, nothing else is undone here"
                )
                raise ValueError("a coding")
        # Else it is a trailer, which must not count as a header: nobody has looked at it before the body.

    def _count_head(self, size: int) -> None:
        self._head += size
        if self._head > MOST_HEAD or self._lines > MOST_LINES:
            self._excess = _too_long()
            raise ValueError("too long")  # ends the parser, and is not heard of any more

    def _pass_body(self) -> None:
        """What has come of the body in this read, in one piece."""
        if self._parts:
            body = b"".join(self._parts)
            self._parts.clear()
            self._body += len(body)
            HttpToolsProtocol.on_body(self, body)

    def check_time(self, elapsed: float, settings: ServerSettings) -> None:
        """Ends what takes too long to ask. Called every now and then, with the seconds since."""
        if self.transport.is_closing():
            return
        if self._refused:
            self._waited += elapsed
            if self._waited > LINGER:
                self.transport.abort()
            return
        cycle = self.cycle
        answered = cycle is None or cycle.response_complete
        if not answered and not cycle.more_body:
            return  # now we are asked
        is_paused = self.flow.read_paused or self.disconnect_signal.is_body_waiting
        if not answered and (is_paused or cycle.waiting_for_100_continue):
            return  # it waits for us
        self._waited += elapsed
        self._silent += elapsed
        if not answered:
            if self._silent > settings.body_timeout:
                self._refuse(ApiError(408, f"nothing came of the body for {settings.body_timeout:g} s"))
            elif self._waited > BODY_AT_MOST:
                self._refuse(ApiError(408, f"the body was not complete after {BODY_AT_MOST:g} s"))
        elif self._in_head:
            if self._waited > settings.header_timeout:
                message = f"the headers were not complete after {settings.header_timeout:g} s"
                self._refuse(ApiError(408, message))
        elif self._waited > (settings.header_timeout if cycle is None else settings.keep_alive):
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        """Answers what is no request and ends the connection: where the next request begins nobody knows.
        Requests before it are answered first."""
        if self._waits_behind_others(error):
            return
        cycle, request_id = self.cycle, new_request_id()
        if cycle is None or cycle.response_complete:
            if error.status != 529:  # the log has a line for all of these
                self._tell_of_refused(error, request_id)
        elif cycle.response_started:
            self.transport.close()  # the answer to this one has begun
            return
        else:
            self.disconnect_signal.refusal = Refusal(error.status, error.type, request_id)
        body = error_body(error, request_id)
        more = "".join(f"{name}: {value}\r\n" for name, value in error.headers.items())
        head = (
            f"HTTP/1.1 {error.status} {_phrase(error.status)}\r\ncontent-type: application/json\r\n{more}"
            f"content-length: {len(body)}\r\nrequest-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self._end()
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            self.disconnect_signal.fire()

    def _end(self) -> None:
        """Nothing more is written. What the client still sends is thrown away, for a while."""
        self.transport.flush()  # type: ignore[attr-defined]
        self.transport.write_eof()
        self._refused, self._waited = True, 0.0
        self.flow.resume_reading()

    def _waits_behind_others(self, error: ApiError) -> bool:
        """Whether whole requests are still to be answered, the last of which the refusal follows."""
        answered, cycle = self._answered, self.cycle
        if answered is None or answered.response_complete or (answered is cycle and cycle.more_body):
            return False
        if not self._is_last_request_read:
            self._is_last_request_read, self._last_refusal = True, error
            if cycle.more_body:
                self.pipeline.popleft()  # what it asks never came whole
        return True

    def _tell_of_refused(self, error: ApiError, request_id: str) -> None:
        """Method and path are those that were read, if the first line was."""
        url = (
            _ABSOLUTE.sub(b"", self.url) if self._in_head else b""
        )  # what stands before a host is a password
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
        if len(self.pipeline) >= MOST_PIPELINED:
            self._is_last_request_read = True
            raise ValueError("too many")  # ends the parser
        super().on_message_begin()
        self._in_head = True
        self._fed, self._body, self._head, self._lines = -self._reading, 0, 0, 0
        if self.cycle is not None:  # the first may take as long as its connection
            self._waited = 0.0
        self.scope["extensions"] = {DISCONNECT_SIGNAL: self.disconnect_signal}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        # A target with a host in it counts, and the header does not (RFC 9112, 3.2.2).
        if not self.url.startswith(b"/") and (target := _ABSOLUTE.match(self.url)):
            others = [(name, value) for name, value in self.headers if name != b"host"]
            self.headers[:] = [*others, (b"host", target[1])]
            if not self.url.startswith(b"/", target.end()):
                self.url = self.url[: target.end()] + b"/" + self.url[target.end() :]
        version = self.parser.get_http_version()
        if version != "1.1":
            if version != "1.0":
                raise ValueError("a version that nobody speaks")
            self.expect_100_continue = False  # it knows of no such answer
        super().on_headers_complete()
        self._in_head = False
        self._waited = 0.0

    def on_message_complete(self) -> None:
        self._pass_body()
        super().on_message_complete()
        # uvicorn stops reading in the middle of a large body, and goes on for who asks for more of it: but
        # after the last part nobody asks, and a client that leaves would not be heard.
        if not self.pipeline:
            self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(
            cycle, _until_closed(cycle, app) if cycle.scope["http_version"] == "1.0" else app
        )

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
        self.transport.end_answer()  # type: ignore[attr-defined]
        is_last = self._is_last_request_read and not self.pipeline
        super().on_response_complete()
        self._waited = 0.0
        if is_last and not self.transport.is_closing():
            if self._last_refusal is None:
                self._end()
            else:
                self.cycle = cast(RequestResponseCycle, self._answered)
                self._refuse(self._last_refusal)


class Room:
    """How many connections of clients there is room for."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.told = max(LEAST_TOLD, most // 8)
        self._told = -math.inf

    def tell_that_it_is_full(self) -> None:
        """Once, and again if it still is after a while."""
        now = time.monotonic()
        if now - self._told > TELL_EVERY:
            self._told = now
            log.error(
                "%d connections of clients are open, and the limit of file descriptors (ulimit -n) has room "
                "for no more: new ones are answered 529",
                self.most,
            )


def _until_closed(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    """`app`, whose answers of no known length end with the connection: HTTP/1.0 can't read chunks."""

    async def answer(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def send_unframed(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.body":
                cycle.chunked_encoding, cycle.expected_content_length = False, len(message.get("body", b""))
            else:
                cycle.chunked_encoding = True  # or uvicorn would say so in a header
            await send(message)

        await app(scope, receive, send_unframed)

    return answer


def _too_long() -> ApiError:
    return ApiError(431, f"Headers too large (max {MOST_HEAD // 1024} kB and {MOST_LINES} lines)")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # 529 is the API's own
        return "Overloaded"


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
    and end are three writes, and each costs as much as a tenth of a small request.

    What comes in the middle of an answer, and later than what was sent before, is sent at once: to wait for
    the end of the turn would cost each event of a stream a turn of its own."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._size = 0
        self._sent_at: float | None = None
        """When a part of the answer under way was sent, by the loop's clock, which stands still in a turn."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._waiting:
            now = self._loop.time()
            if self._sent_at is not None and self._sent_at < now:
                self._sent_at = now
                if not self._transport.is_closing():
                    self._transport.write(data)
                return
            self._loop.call_soon(self.flush)
        self._waiting.append(data)
        self._size += len(data)
        if self._size > AT_MOST:
            self.flush()

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def end_answer(self) -> None:
        """All of an answer was written: what comes now is another's."""
        self.flush()
        self._sent_at = None

    def flush(self) -> None:
        waiting, size = self._waiting, self._size
        self._waiting, self._size = [], 0
        if not size or self._transport.is_closing():
            return
        self._sent_at = self._loop.time()
        if size > AT_MOST:  # a copy of a long answer takes its time, and its memory
            for data in waiting:
                self._transport.write(data)
        else:
            self._transport.write(b"".join(waiting))
