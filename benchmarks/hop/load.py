"""The client: HTTP/1.1 connections that ask one thing after another and take the time.

It does as little as a client can, since it shares its core with the back end.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, cast

import httptools

from hop.scripts import WORD

LIMIT = 120.0
"""Seconds after which an answer is given up."""


class Refused(Exception):
    """A hop that gives no answer, or not the one that it should."""


class Answer(NamedTuple):
    status: int
    first: float
    """Seconds until text came."""
    whole: float
    """Seconds until the end."""
    body: bytes
    """Empty, unless it was to be kept."""


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, port: int, watch: Callable[[bytes], None] | None = None) -> None:
        self._port = port
        self._watch = watch
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[Answer] | None = None

    async def ask(self, request: bytes, *, keep: bool = False) -> Answer:
        """Raises `Refused` if there is no answer at all; one that is not 200 is an answer."""
        return await (await self.send(request, keep=keep))

    async def send(self, request: bytes, *, keep: bool = False) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            try:
                await loop.create_connection(lambda: self, "127.0.0.1", self._port)
            except OSError as error:
                raise Refused(f"no connection: {error}") from error
        assert self._transport is not None
        self._answered = loop.create_future()
        self._kept: list[bytes] | None = [] if keep else None
        self._tail = b""
        self._first: float | None = None
        self._began = time.perf_counter()
        self._transport.write(request)
        return self._answered

    def close(self) -> None:
        if self._answered is not None:
            self._answered.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._give_up(f"not HTTP: {error}")
            self.close()

    def connection_lost(self, problem: Exception | None) -> None:
        self._give_up(f"the connection was closed{f': {problem}' if problem else ''}")

    def on_body(self, body: bytes) -> None:
        if self._first is None:
            seen = self._tail + body
            if WORD in seen:
                self._first = time.perf_counter() - self._began
            self._tail = seen[1 - len(WORD) :]
        if self._watch is not None:
            self._watch(body)
        if self._kept is not None:
            self._kept.append(body)

    def on_message_complete(self) -> None:
        if self._answered is None or self._answered.done():
            return
        whole = time.perf_counter() - self._began
        first = whole if self._first is None else self._first
        body = b"".join(self._kept or [])
        self._answered.set_result(Answer(self._parser.get_status_code(), first, whole, body))

    def _give_up(self, why: str) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(Refused(why))


def http(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def once(port: int, request: bytes, *, limit: float = LIMIT) -> Answer:
    """An answer on a connection of its own, with its body."""
    connection = Connection(port)
    try:
        async with asyncio.timeout(limit):
            return await connection.ask(request, keep=True)
    except TimeoutError:
        raise Refused(f"no answer within {limit:.0f} s") from None
    finally:
        connection.close()


async def one_after_another(port: int, request: bytes, seconds: float, least: int) -> list[Answer]:
    """Asks for so long, and so often at least."""
    return await _asking(Connection(port), request, time.perf_counter() + seconds, least)


async def side_by_side(port: int, request: bytes, seconds: float, clients: int) -> list[Answer]:
    """So many clients at once, each of which asks again as soon as it was answered."""
    until = time.perf_counter() + seconds
    asking = [_asking(Connection(port), request, until, 1) for _ in range(clients)]
    ended = await asyncio.gather(*asking, return_exceptions=True)
    for end in ended:
        if isinstance(end, BaseException):
            raise end
    return [answer for end in ended if not isinstance(end, BaseException) for answer in end]


async def _asking(connection: Connection, request: bytes, until: float, least: int) -> list[Answer]:
    answers: list[Answer] = []
    try:
        async with asyncio.timeout(max(0.0, until - time.perf_counter()) + LIMIT):
            while len(answers) < least or time.perf_counter() < until:
                answer = await connection.ask(request)
                if answer.status != 200:
                    raise Refused(f"status {answer.status}")
                answers.append(answer)
    except TimeoutError:
        raise Refused(f"no answer within {LIMIT:.0f} s") from None
    finally:
        connection.close()
    return answers
