"""The least hop that Python can be, in a process of its own: `python -m hop.relay PORT BACK_END_PORT`.

Bytes go both ways as they come, each client with a connection of its own to the back end; no HTTP is parsed.
"""

import asyncio
import sys
from typing import cast

import uvloop


class Side(asyncio.Protocol):
    """One end of a pair. What it receives is written to the other, once there is one."""

    transport: asyncio.Transport

    def __init__(self, other: "Side | None" = None) -> None:
        self.other = other
        self._early: list[bytes] = []

    def meet(self, other: "Side") -> None:
        self.other = other
        other.transport.write(b"".join(self._early))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, problem: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()


class Client(Side):
    """The side that asks."""

    def __init__(self, port: int, tasks: asyncio.TaskGroup) -> None:
        super().__init__()
        self._port = port
        self._tasks = tasks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connecting = self._tasks.create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, other = await loop.create_connection(lambda: Side(self), "127.0.0.1", self._port)
        except OSError:
            self.transport.close()
            return
        self.meet(other)
        if self.transport.is_closing():
            other.transport.close()


async def serve(port: int, back_end: int) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        server = await loop.create_server(lambda: Client(back_end, tasks), "127.0.0.1", port, backlog=4096)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
