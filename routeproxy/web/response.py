"""Our ASGI response. It owns the wait as well as the writing: a client that leaves is noticed at once, before
and after the first token, and the back end is let go with it (style.md §2.3 has what goes wrong with
Litestar's own)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Literal

from litestar.types import Receive, Scope, Send
from msgspec import Struct

from routeproxy.exchange import Exchange, Write
from routeproxy.messages.errors import ApiError, error_body
from routeproxy.messages.events import PING, error_event, frame
from routeproxy.upstream.failures import UpstreamFailure

log = logging.getLogger("routeproxy.web.streaming")

STREAM_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)
JSON_HEADERS = (("content-type", "application/json"),)

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


class DisconnectSignal:
    """Tells who listens that the client is gone: a task that waits for the server to say so would be made and
    cancelled for every request."""

    def __init__(self) -> None:
        self.gone = False
        self.listeners: set[Callable[[], None]] = set()

    def tell(self) -> None:
        self.gone = True
        for listener in tuple(self.listeners):
            listener()


class InFlight:
    """The answers that are being written, so that a shutdown can wait for them, and end them properly."""

    def __init__(self) -> None:
        self.draining = False
        self.answers: set[ExchangeResponse] = set()

    def end_all(self) -> None:
        """Every answer that is still open ends now, with an `error` event or a 503."""
        for answer in tuple(self.answers):
            answer.stop("shutdown")


Responder = Callable[[Exchange, Write], Awaitable[None]]
"""Writes the answer to an exchange. Raises `ApiError`."""


class ExchangeResponse:
    """What `answering` writes, on its way to the client. `done` is called once, after the last byte or
    the client's leave."""

    def __init__(
        self,
        exchange: Exchange,
        answering: Responder,
        live: InFlight,
        done: Callable[[Exchange], None],
        patience: StreamTimings,
    ) -> None:
        self._exchange = exchange
        self._answering = answering
        self._live = live
        self._done = done
        self._patience = patience
        self._state: Literal["waiting", "streaming", "complete"] = "waiting"
        self._stopped_by: Literal["client", "shutdown"] | None = None
        self._ping: asyncio.Task[None] | None = None
        self._writing = False
        """A ping must not come between the headers and the first frame, nor queue behind what a slow client
        does not read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._send = send
        self._last_write = loop.time()
        task = self._task = asyncio.current_task()
        assert task is not None
        self._live.answers.add(self)
        stop_listening = self._listen(scope, receive)
        self._timer = loop.call_later(self._patience.hold, self._look_at_the_time, self._patience.hold)
        try:
            try:
                await self._pump()
            except asyncio.CancelledError:
                if self._stopped_by is None:
                    raise
                task.uncancel()
            if self._stopped_by is not None and self._state != "complete":
                await self._stopped()
        finally:
            self._task = None
            stop_listening()
            self._timer.cancel()
            if self._ping is not None:
                self._ping.cancel()
            self._live.answers.discard(self)
            self._done(self._exchange)

    def stop(self, by: Literal["client", "shutdown"]) -> None:
        """Lets the back end go and ends the answer, once."""
        if self._task is not None and self._stopped_by is None:
            self._stopped_by = by
            self._task.cancel()

    async def _pump(self) -> None:
        try:
            await self._answering(self._exchange, self._write)
        except Exception as error:
            if self._stopped_by is not None:
                return  # it fell over its own cancellation, for which nobody waits
            if not isinstance(error, ApiError):
                log.exception("%s: this is a bug in routeproxy", self._exchange.request_id)
                error = ApiError(500, "routeproxy failed on this request; its log says why")
            await self._fail(error)
        else:
            await self._end()

    def _listen(self, scope: Scope, receive: Receive) -> Callable[[], object]:
        """From here on it is heard if the client leaves. Returns what ends that."""
        leaving = (scope.get("extensions") or {}).get(DISCONNECT_SIGNAL)
        if not isinstance(leaving, DisconnectSignal):
            return self._loop.create_task(self._watch(receive)).cancel
        leaving.listeners.add(self._left)
        if leaving.gone:
            self._left()
        return partial(leaving.listeners.discard, self._left)

    async def _watch(self, receive: Receive) -> None:
        """Beside the pump: notices that the client leaves, where the server has no other way to tell."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._left()

    def _left(self) -> None:
        self.stop("client")

    def _look_at_the_time(self, patience: float) -> None:
        """Fills silence with pings."""
        now = self._loop.time()
        if now - self._last_write >= patience:
            if self._exchange.stream and (self._ping is None or self._ping.done()):
                self._ping = self._loop.create_task(self._say_that_it_goes_on())
            self._last_write = now
        patience = self._patience.ping
        self._timer = self._loop.call_at(self._last_write + patience, self._look_at_the_time, patience)

    async def _say_that_it_goes_on(self) -> None:
        # Asked here, and not by the timer: the answer may have ended since.
        if self._state != "complete" and not self._writing:
            await self._put(PING)

    async def _stopped(self) -> None:
        if self._stopped_by == "client":
            self._exchange.client_left = True
            self._exchange.status = self._exchange.status or CLIENT_CLOSED_REQUEST
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN):
                await self._fail(ApiError(503, "routeproxy is shutting down", headers={"retry-after": "1"}))

    # --- writing

    async def _write(self, data: bytes) -> None:
        self._last_write = self._loop.time()
        await self._after_ping()
        if self._state == "streaming" or self._exchange.stream:
            await self._put(data)
        else:
            await self._whole(200, [*JSON_HEADERS, *self._exchange.headers()], data)

    async def _after_ping(self) -> None:
        """A slow client may still have to take it."""
        if self._ping is not None:
            await asyncio.wait((self._ping,))
            self._ping = None

    async def _put(self, data: bytes) -> None:
        self._writing = True
        try:
            if self._state == "waiting":
                self._state = "streaming"
                await self._start(200, [*STREAM_HEADERS, *self._exchange.headers()])
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            self._writing = False

    async def _end(self) -> None:
        if self._state == "streaming":
            await self._after_ping()
            self._state = "complete"
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _fail(self, error: ApiError) -> None:
        exchange = self._exchange
        exchange.error = error.type
        if self._state == "streaming":
            await self._write(frame(error_event(error.type, error.message, exchange.shown_id)))
            await self._end()
        elif self._state == "waiting":
            await self._whole(*error_answer(error, exchange))

    async def _whole(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self._state = "complete"
        await self._start(status, [*headers, ("content-length", str(len(body)))])
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self._exchange.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": encoded(headers)})


def error_answer(error: ApiError, exchange: Exchange) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of an answer that is an error."""
    if isinstance(error, UpstreamFailure) and error.relay is not None:
        relay = error.relay
        return relay.status, [("content-type", relay.content_type), *exchange.headers()], relay.body
    body = error_body(error, exchange.request_id)
    return error.status, [*JSON_HEADERS, *exchange.headers(), *error.headers.items()], body


def encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]
