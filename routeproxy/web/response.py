"""Our ASGI response. It owns the wait as well as the writing: a client that leaves is noticed at once, before
and after the first token, and the back end is let go with it. (Litestar's own start the response before the
back end has answered, and cancel the release of its connection when a client leaves.)"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal, NamedTuple

import msgspec
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from routeproxy.exchange import Exchange
from routeproxy.large_bodies import read_beside
from routeproxy.messages.errors import ApiError
from routeproxy.messages.events import Ping, error_event
from routeproxy.messages.reply import Message
from routeproxy.observe import Observer
from routeproxy.output import Content, Relayed, TokenCount, Write
from routeproxy.policy.explain import Explanation
from routeproxy.redaction import mask
from routeproxy.tracebacks import forget_tracebacks
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.web.headers import answer_headers, encoded
from routeproxy.web.protocols import ClientProtocol

log = logging.getLogger("routeproxy.web.streaming")

CLIENT_CLOSED_REQUEST = 499
"""What the log shows of a client that left before its answer began. nginx says so too, and nobody gets to see
it."""

DISCONNECT_SIGNAL = "routeproxy.leaving"
"""The ASGI extension of our own server that is a `DisconnectSignal`."""

SHUTDOWN = 2.0
"""Seconds in which a client must take the end of its answer when the server stops."""


class StreamTimings(Struct, frozen=True):
    """Seconds of silence before something is said."""

    hold: float = 8.0
    """A stream's 200 waits so long for the back end: until then a failure can still be an HTTP status, which
    clients retry."""
    ping: float = 10.0
    body: float = 8.0
    """So long a body may wait for the memory that it takes, before it is read."""


class Refusal(NamedTuple):
    """How the connection itself has answered a request: what came of its body was no HTTP."""

    status: int
    error: str
    request_id: str


class DisconnectSignal:
    """Calls its listeners when the client is gone: a task that waits for the server to say so would be made
    and cancelled for every request."""

    def __init__(self) -> None:
        self.is_gone = False
        self.is_body_waiting = False
        """Nothing is read of the request's body, since others' take the memory: its time does not run."""
        self.refusal: Refusal | None = None
        self.listeners: set[Callable[[], None]] = set()

    def fire(self) -> None:
        self.is_gone = True
        for listener in tuple(self.listeners):
            listener()


class InFlight:
    """The answers that are being written, so that a shutdown can wait for them, and end them properly."""

    def __init__(self, *, of_a_session: bool = False) -> None:
        """`of_a_session`: the server ends with the client for which it was started."""
        self.of_a_session = of_a_session
        self.draining = False
        self.responses: set[ExchangeResponse] = set()

    def end_all(self) -> None:
        """Every answer that is still open ends now, with an `error` event or a 503."""
        for response in tuple(self.responses):
            response.stop("shutdown")


Responder = Callable[[Exchange, Write], Awaitable[None]]
"""Writes the answer to an exchange. Raises `ApiError`."""


class ExchangeResponse:
    """What `responder` writes, in the client's protocol, on its way to the client. The observer hears of the
    end of the request after the last byte or the client's leave."""

    def __init__(
        self,
        exchange: Exchange,
        responder: Responder,
        protocol: ClientProtocol,
        *,
        in_flight: InFlight,
        observer: Observer,
        timings: StreamTimings,
    ) -> None:
        self._exchange = exchange
        self._responder = responder
        self._protocol = protocol
        self._in_flight = in_flight
        self._observer = observer
        self._timings = timings
        self._state: Literal["waiting", "streaming", "complete"] = "waiting"
        self._stopped_by: Literal["client", "shutdown"] | None = None
        self._ping: asyncio.Task[None] | None = None
        self._is_sending = False
        """A ping must not come between the headers and the first event, nor queue behind what a slow client
        does not read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._send = send
        self._last_write = loop.time()
        task = self._task = asyncio.current_task()
        assert task is not None
        self._in_flight.responses.add(self)
        stop_listening = self._listen_for_disconnect(scope, receive)
        self._timer = loop.call_later(self._timings.hold, self._on_timer, self._timings.hold)
        try:
            try:
                await self._respond()
            except asyncio.CancelledError:
                if self._stopped_by is None:
                    raise
                task.uncancel()
            if self._stopped_by is not None and self._state != "complete":
                await self._on_stopped()
        finally:
            self._task = None
            stop_listening()
            self._timer.cancel()
            if self._ping is not None:
                self._ping.cancel()
            self._in_flight.responses.discard(self)
            self._observer.request_done(self._exchange)

    def stop(self, by: Literal["client", "shutdown"]) -> None:
        """Lets the back end go and ends the answer, once."""
        if self._task is not None and self._stopped_by is None:
            self._stopped_by = by
            self._task.cancel()

    async def _respond(self) -> None:
        try:
            await self._responder(self._exchange, self._write)
        except Exception as error:
            if self._stopped_by is not None:
                return  # it fell over its own cancellation, for which nobody waits
            if not isinstance(error, ApiError):
                log.exception("%s: this is a bug in routeproxy", self._exchange.request_id)
                error = ApiError(500, "routeproxy failed on this request; its log says why")
            forget_tracebacks(error)
            await self._send_error(error)
        else:
            await self._send_end()

    # --- a client that leaves, a server that stops, silence

    def _listen_for_disconnect(self, scope: Scope, receive: Receive) -> Callable[[], object]:
        """From here on a client that leaves is noticed. Returns what ends that."""
        signal = (scope.get("extensions") or {}).get(DISCONNECT_SIGNAL)
        if not isinstance(signal, DisconnectSignal):
            return self._loop.create_task(self._receive_disconnect(receive)).cancel
        signal.listeners.add(self._on_disconnect)
        if signal.is_gone:
            self._on_disconnect()
        return partial(signal.listeners.discard, self._on_disconnect)

    async def _receive_disconnect(self, receive: Receive) -> None:
        """Beside the answer, where the server has no other way to tell that the client leaves."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._on_disconnect()

    def _on_disconnect(self) -> None:
        self.stop("client")

    def _on_timer(self, silence: float) -> None:
        """Fills `silence` seconds without a word with a ping."""
        now = self._loop.time()
        if now - self._last_write >= silence:
            if self._exchange.stream and (self._ping is None or self._ping.done()):
                self._ping = self._loop.create_task(self._send_ping())
            self._last_write = now
        silence = self._timings.ping
        self._timer = self._loop.call_at(self._last_write + silence, self._on_timer, silence)

    async def _send_ping(self) -> None:
        # Looked at here, and not by the timer: the answer may have ended since.
        if self._state != "complete" and not self._is_sending:
            await self._send_part(self._protocol.encode_events((Ping(),)))

    async def _ping_sent(self, ping: asyncio.Task[None]) -> None:
        """A slow client may still have to take it."""
        await asyncio.wait((ping,))
        self._ping = None

    async def _on_stopped(self) -> None:
        if self._stopped_by == "client":
            self._exchange.client_left = True
            self._exchange.status = self._exchange.status or CLIENT_CLOSED_REQUEST
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN):
                error = ApiError(503, "routeproxy is shutting down", headers={"retry-after": "1"})
                await self._send_error(error)

    # --- writing

    async def _write(self, contents: Sequence[Content]) -> None:
        self._last_write = self._loop.time()
        if self._ping is not None:
            await self._ping_sent(self._ping)
        exchange = self._exchange
        if exchange.stream:
            await self._send_part(self._encoded(contents))
            return
        size = sum(content.size for content in contents if isinstance(content, Message))
        data = await read_beside(size, exchange.inbound.caller, self._encoded, contents)
        del contents
        headers = [*self._protocol.reply_headers, *answer_headers(exchange)]
        if exchange.first_content_at is not None:
            exchange.forget_text()  # a client that reads slowly keeps its answer, and no more
        await self._send_whole(200, headers, data)

    def _encoded(self, contents: Sequence[Content]) -> bytes:
        if len(contents) == 1:  # as for most events of a stream
            data = self._encode(contents[0])
        else:
            data = b"".join([self._encode(content) for content in contents])
        return mask(data, self._exchange.masked) if self._exchange.masked else data

    def _encode(self, content: Content) -> bytes:
        protocol = self._protocol
        if content.__class__ is list:  # as most are: the events of a stream
            return protocol.encode_events(content)
        exchange = self._exchange
        match content:
            case Relayed():
                if exchange.stream:
                    return protocol.relay_events(content)
                if exchange.endpoint == "count_tokens":
                    return protocol.relay_token_count(content)
                return protocol.relay_message(content)
            case Message():
                return protocol.encode_message(content)
            case TokenCount():
                return protocol.encode_token_count(content)
            case Explanation():
                return msgspec.json.encode(content)
        return protocol.encode_events(content)

    async def _send_part(self, data: bytes) -> None:
        self._is_sending = True
        try:
            if self._state == "waiting":
                self._state = "streaming"
                await self._send_start(200, [*self._protocol.stream_headers, *answer_headers(self._exchange)])
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            self._is_sending = False

    async def _send_end(self) -> None:
        if self._state == "streaming":
            if self._ping is not None:
                await self._ping_sent(self._ping)
            self._state = "complete"
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_error(self, error: ApiError) -> None:
        exchange = self._exchange
        exchange.error = error.type
        if self._state == "streaming":
            await self._write([[error_event(error.type, error.message, exchange.shown_id)]])
            await self._send_end()
        elif self._state == "waiting":
            await self._send_whole(*error_answer(error, exchange, self._protocol))

    async def _send_whole(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self._state = "complete"
        await self._send_start(status, [*headers, ("content-length", str(len(body)))])
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _send_start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self._exchange.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": encoded(headers)})


def error_answer(
    error: ApiError, exchange: Exchange, protocol: ClientProtocol
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of an answer that is an error."""
    if isinstance(error, UpstreamFailure) and error.relay is not None and protocol.relays_errors:
        relay = error.relay
        return relay.status, [("content-type", relay.content_type), *answer_headers(exchange)], relay.body
    body = protocol.encode_error(error, exchange.request_id)
    headers = [*protocol.reply_headers, *answer_headers(exchange), *error.headers.items()]
    return error.status, headers, body
