"""Our ASGI response. It owns the wait as well as the writing: a client that leaves is noticed at once, before and after the first token,
and the back end is let go with it (style.md §2.3 has what goes wrong with Litestar's own)."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing

from litestar.types import Receive, Scope, Send

from routeproxy.exchange import Exchange, Part
from routeproxy.messages.errors import ApiError, error_body
from routeproxy.messages.events import PING, error_event, frame
from routeproxy.upstream.failures import UpstreamFailure

log = logging.getLogger(__name__)

HOLD = 8.0
"""Seconds that a stream's 200 waits for the back end: until then a failure can still be an HTTP status, which clients retry."""
PING_EVERY = 10.0
"""Seconds of silence before a `ping`."""

STREAM_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)
JSON_HEADERS = (("content-type", "application/json"),)


class Live:
    """The answers that are being written, so that a shutdown can end them properly."""

    def __init__(self) -> None:
        self.draining = False
        self._over: asyncio.Future[None] | None = None
        self._count = 0

    @property
    def over(self) -> asyncio.Future[None]:
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
        return self._over

    def __len__(self) -> int:
        return self._count

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    def end_all(self) -> None:
        """Every answer that is still open ends now, with an `error` event or a 503."""
        if not self.over.done():
            self.over.set_result(None)


class Answer:
    """`parts` written to the client as they come. `done` is called once, after the last byte or the client's leave."""

    def __init__(
        self, exchange: Exchange, parts: AsyncIterator[Part], live: Live, done: Callable[[Exchange], None]
    ) -> None:
        self._exchange = exchange
        self._parts = parts
        self._live = live
        self._done = done
        self._started = False
        self._last_write = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        with self._live.one_more():
            try:
                async with asyncio.TaskGroup() as tasks:
                    left = tasks.create_task(_client_leaves(receive))
                    pump = tasks.create_task(self._pump())
                    await self._watch(left, pump)
                    pump.cancel()
                    left.cancel()
            finally:
                self._done(self._exchange)

    async def _pump(self) -> None:
        try:
            async with aclosing(self._parts) as parts:  # type: ignore[type-var]
                async for part in parts:
                    if part.data:
                        await self._write(part.data)
        except ApiError as error:
            await self._fail(error)
        except Exception:
            log.exception("%s: this is a bug in routeproxy", self._exchange.request_id)
            await self._fail(ApiError(500, "routeproxy failed on this request; its log says why"))
        else:
            await self._end()

    async def _watch(self, left: "asyncio.Task[None]", pump: "asyncio.Task[None]") -> None:
        """Returns when the answer is written or nobody wants it any more. Meanwhile silence is filled with pings."""
        patience = HOLD
        while True:
            silence = time.monotonic() - self._last_write
            timeout = max(0.0, patience - silence) if self._exchange.stream else None
            done, _ = await asyncio.wait(
                {left, pump, self._live.over}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if pump in done:
                return
            if left in done:
                self._exchange.client_left = True
                return
            if self._live.over in done:
                pump.cancel()
                await asyncio.wait({pump})
                await self._fail(ApiError(503, "routeproxy is shutting down"))
                return
            if time.monotonic() - self._last_write >= patience:
                await self._write(PING)
            patience = PING_EVERY

    # --- writing

    async def _write(self, data: bytes) -> None:
        self._last_write = time.monotonic()
        if self._exchange.stream:
            if not self._started:
                await self._start(200, [*STREAM_HEADERS, *self._exchange.headers()])
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        else:
            await self._whole(200, [*JSON_HEADERS, *self._exchange.headers()], data)

    async def _end(self) -> None:
        if self._started and self._exchange.stream:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _fail(self, error: ApiError) -> None:
        exchange = self._exchange
        exchange.error = error.type
        if self._started:
            if exchange.stream:
                await self._write(frame(error_event(error.type, error.message, exchange.request_id)))
                await self._end()
            return
        await self._whole(*error_answer(error, exchange))

    async def _whole(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        await self._start(status, [*headers, ("content-length", str(len(body)))])
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self._started = True
        self._exchange.status = status
        encoded = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})


def error_answer(error: ApiError, exchange: Exchange) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of an answer that is an error."""
    if isinstance(error, UpstreamFailure) and error.relay is not None:
        relay = error.relay
        return relay.status, [("content-type", relay.content_type), *exchange.headers()], relay.body
    body = error_body(error, exchange.request_id)
    return error.status, [*JSON_HEADERS, *exchange.headers(), *error.headers.items()], body


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
