"""A back end that does nothing but answer, in a process of its own: `python -m hop.back_end PORT`.

It speaks chat completions under `…/chat/completions` and Messages under `…/messages`, never looks into a
request, and answers all of them by one script. `PUT /script` takes the next script, `GET /asked` tells what
was asked last.
"""

import asyncio
import json
import sys
import time
from typing import cast

import httptools
import uvloop

from hop.scripts import STAMP, Chat, Frames, Messages, Script, piece

FRAMES: dict[bytes, Frames] = {b"/chat/completions": Chat(), b"/messages": Messages()}


class Stage:
    """What all connections have in common: the script, and its answers ready to be written."""

    def __init__(self) -> None:
        self.asked = b""
        self._streams = 0
        self.follow(Script())

    def follow(self, script: Script) -> None:
        self.script = script
        self.events: dict[bytes, list[bytes]] = {}
        self.answers: dict[bytes, bytes] = {}
        for path, frames in FRAMES.items():
            texts = [] if script.stamped else [piece(number).encode() for number in range(script.events)]
            self.events[path] = [frames.event(text) for text in texts]
            stream = b"".join([frames.opening, *self.events[path], frames.closing])
            self.answers[path] = stream if script.streamed else frames.whole

    def offset(self) -> float:
        """A part of the gap that spreads many streams evenly over it."""
        self._streams += 1
        return self._streams * 0.618034 % 1


class Conversation(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path, self._url = self._url.partition(b"?")[0], b""
        body, self._body = self._body, []
        for ending in FRAMES:
            if path.endswith(ending):
                self._stage.asked = b"".join(body)
                self._answer(ending)
                return
        self._told(path, b"".join(body))

    def _answer(self, path: bytes) -> None:
        script = self._stage.script
        if script.gap:
            self._loop.call_later(script.delay, self._open, path, script, self._stage.events[path])
        elif script.delay:
            self._loop.call_later(script.delay, self.transport.write, self._stage.answers[path])
        else:
            self.transport.write(self._stage.answers[path])

    def _open(self, path: bytes, script: Script, events: list[bytes]) -> None:
        if not script.stamped:
            self.transport.write(FRAMES[path].opening + events[0])
            self._loop.call_later(script.gap, self._say, path, script, events, 1)
            return
        self.transport.write(FRAMES[path].opening)
        self._loop.call_later(self._stage.offset() * script.gap, self._say, path, script, events, 0)

    def _say(self, path: bytes, script: Script, events: list[bytes], number: int) -> None:
        if self.transport.is_closing():
            return
        if number == script.events:
            self.transport.write(FRAMES[path].closing)
            return
        self._loop.call_later(script.gap, self._say, path, script, events, number + 1)
        if script.stamped:
            self.transport.write(FRAMES[path].event(STAMP % time.monotonic_ns()))
        else:
            self.transport.write(events[number])

    def _told(self, path: bytes, body: bytes) -> None:
        status, said = b"200 OK", b""
        if path == b"/script":
            self._stage.follow(Script(**json.loads(body)))
        elif path == b"/asked":
            said = self._stage.asked
        else:
            status = b"404 Not Found"
        self.transport.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(said), said))


async def serve(port: int) -> None:
    stage = Stage()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Conversation(stage), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
