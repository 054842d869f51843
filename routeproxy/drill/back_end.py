"""A back end on loopback that answers as it is told, in real bytes: heads, chunks, pauses, cuts, resets."""

import asyncio
import json
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec import Struct

from routeproxy.drill.formats import ERRORS, TEXT, WORDS, Format, pieces

REASONS: Mapping[int, str] = {
    200: "OK",
    400: "Bad Request",
    429: "Too Many Requests",
    500: "Internal Server Error",
}


class Asked(Struct):
    """One request that a back end got."""

    target: str
    at: float
    """On the loop's clock."""
    was_let_go: bool = False
    """Whether its connection was closed while the back end had more to say."""


class Answer:
    """One answer on its way, in the format that the client asked for."""

    def __init__(
        self,
        format: Format,
        *,
        stream: bool,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int = 0,
        asked: Asked | None = None,
    ) -> None:
        self.format = format
        self.stream = stream
        self.number = number
        """How many requests this back end had before this one."""
        self._asked = asked
        self._reader = reader
        self._writer = writer
        self._chunked = False

    async def fail(self, status: int, **headers: str) -> None:
        type, message = ERRORS[status]
        await self.send_body(status, self.format.error(status, type, message), **headers)

    async def send_body(
        self, status: int, body: bytes, *, content_type: str = "application/json", **headers: str
    ) -> None:
        self._head(status, content_type, **headers, content_length=str(len(body)))
        self._writer.write(body)
        await self._writer.drain()

    async def begin(self, words: int = 0) -> None:
        """The head, and of a stream its first words; of a whole answer, as much of its body."""
        if self.stream:
            self._head(200, self.format.stream_type, transfer_encoding="chunked")
            self._chunked = True
            for piece in pieces(self.format, words):
                await self.write(piece)
            return
        body = self.format.whole(TEXT)
        self._head(200, "application/json", content_length=str(len(body)))
        self._sent = len(body) * words // len(WORDS)
        self._writer.write(body[: self._sent])
        await self._writer.drain()

    async def complete(self, words: int = 0, *, marked: bool = True, every: float = 0.0) -> None:
        """The rest, after so many words. `marked`: with the mark of the end. `every`: seconds between two
        words, or as many pieces of a whole answer."""
        if not self.stream:
            rest = self.format.whole(TEXT)[self._sent :]
            length = len(rest) // (len(WORDS) - words) + 1 if every else len(rest)
            for start in range(0, len(rest), length):
                await asyncio.sleep(every)
                await self.write_raw(rest[start : start + length])
            return
        for word in WORDS[words:]:
            await asyncio.sleep(every)
            await self.write(self.format.word(word))
        await self.write(self.format.finish())
        if marked:
            await self.write(self.format.end())
            self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    async def answer(self) -> None:
        await self.begin()
        await self.complete()

    async def write(self, data: bytes) -> None:
        if not data:
            return
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        await self._writer.drain()

    async def write_raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def wait_until_let_go(self, seconds: float) -> None:
        """Until nobody reads the answer any more, but not for longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                with suppress(ConnectionError):
                    while await self._reader.read(65_536):
                        pass
                if self._asked is not None:
                    self._asked.was_let_go = True

    def cut(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def _head(self, status: int, content_type: str, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}", f"content-type: {content_type}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())


Behaviour = Callable[[Answer], Awaitable[None]]


async def well(answer: Answer) -> None:
    """As it should be."""
    await answer.answer()


class BackEnd:
    """Listens on a free port while the block runs. Each connection carries one request after the other."""

    def __init__(self, name: str, format: Format, behaviour: Behaviour, log: list[Asked]) -> None:
        self._name = name
        self._format = format
        self._behaviour = behaviour
        self._log = log
        self._count = 0
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "BackEnd":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                path = head.split(" ", 2)[1]
                stated = re.search(r"(?im)^content-length: *(\d+)", head)
                length = int(stated[1]) if stated else 0
                body = await reader.readexactly(length)
                answer = partial(Answer, self._format, reader=reader, writer=writer)
                if head.startswith("GET "):  # a question about the server itself
                    await answer(stream=False).send_body(404, b"{}")
                    continue
                if path.endswith("/api/show"):
                    await answer(stream=False).send_body(200, b"{}")
                    continue
                is_stream = self._format.asks_for_stream(path, json.loads(body or b"{}"))
                self._log.append(asked := Asked(self._name, asyncio.get_running_loop().time()))
                number, self._count = self._count, self._count + 1
                await self._behaviour(answer(stream=is_stream, number=number, asked=asked))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
