"""Answers as they come over our connections. The connections are aiohttp's, with its pools, its TLS and its
proxies; what back ends send on them is read here, with the parser that reads our clients too: aiohttp's calls
Python six times for each chunk of a stream, and that was a third of what a stream cost."""

import asyncio
import re
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import aiohttp
import httptools
from aiohttp.client_proto import ResponseHandler

from routeproxy.encodings import WBITS

LONGEST_HEAD = 65_536
"""Bytes."""

MOST_BUFFERED = 2**16
"""Bytes of a body that may wait to be read, before the connection is paused; also the most that one read
decompresses."""

MOST_READ = 2**15
"""Bytes of a body: one read brings at most twice as many. What is made of them waits for the client, and a
chunk takes twenty times its bytes."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""What a header of ours, to which some are copied, must not hold."""

MOST_FRAMING = 9
"""Bytes around each byte of a body, beyond what a head may have. Chunks of a single byte have five."""

SWITCHING_PROTOCOLS = 101
"""Of the informational answers the one that no other follows."""


class ClientConnection(ResponseHandler):
    """A connection. Until an answer to us is expected on it, aiohttp reads what comes, as what a proxy says
    to CONNECT."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._reader: ResponseReader | None = None
        self.on_sent: Callable[[], None] | None = None
        """Called once nearly all that was written is out."""

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.on_sent is not None:
            on_sent, self.on_sent = self.on_sent, None
            on_sent()

    def expect_response(self) -> "ResponseReader":
        """The next answer, which is all that may come from now on. Raises `aiohttp.ClientError` where
        something came before it was asked for."""
        assert self.transport is not None
        if self._tail:
            raise aiohttp.ClientError("it spoke before it was asked")
        self._reader = ResponseReader(self.transport, self._loop)
        return self._reader

    @property
    def was_used(self) -> bool:
        """It has carried a request already."""
        return self._reader is not None

    @property
    def should_close(self) -> bool:
        """Whether it can't carry another request."""
        return super().should_close or not (self._reader is not None and self._reader.reusable)

    def data_received(self, data: bytes) -> None:
        if self._reader is None:
            super().data_received(data)
        else:
            self._reader.feed(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._reader is not None:
            self._reader.feed_end(exc)


class ResponseReader:
    """One answer, fed by its connection. Whoever waits for what can't come any more gets an
    `aiohttp.ClientError`."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        """Names are in lower case."""
        self.complete = False
        self.reusable = False
        """It came whole, nothing came after it, and the back end keeps the connection open."""
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self.on_body = self._parts.append
        """httptools calls it for each chunk, of which a read may bring hundreds."""
        self._parser = httptools.HttpResponseParser(self)
        # As aiohttp has it: there are back ends that end lines with a bare line feed.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._head_complete = False
        self._head_size = 0
        self._framing = 0
        """Bytes that are no body, less those that what came of the body may have."""
        self._buffered = 0
        self._paused = False
        self._failure: Callable[[], aiohttp.ClientError] | None = None
        """Makes it anew each time: one that was raised holds the frames that it came through, which hold this
        reader and the request's body, and all of them would keep each other."""
        self._waiter: asyncio.Future[None] | None = None

    # --- reading

    async def read_head(self) -> None:
        """Returns once status and headers are there."""
        while not self._head_complete:
            await self._wait_for_data()

    async def read(self) -> bytes:
        """What has come of the body since; empty at its end."""
        while not self._parts:
            if self.complete:
                return b""
            await self._wait_for_data()
        data = self._take()
        self._buffered -= len(data)
        if self._paused and self._buffered <= MOST_BUFFERED:
            self._paused = False
            self._transport.resume_reading()
        return data

    def _take(self) -> bytes:
        if self._buffered <= MOST_READ:  # as most reads are
            data = b"".join(self._parts)
            self._parts.clear()
            return data
        size = count = 0
        while size < MOST_READ:
            size += len(self._parts[count])
            count += 1
        data = b"".join(self._parts[:count])
        del self._parts[:count]
        if len(data) > 2 * MOST_READ:
            self._parts.insert(0, data[MOST_READ:])
            data = data[:MOST_READ]
        return data

    def header(self, name: str) -> str:
        """The header's value in lower case; empty if it is not there."""
        return next((value.strip().lower() for known, value in self.headers if known == name), "")

    @property
    def has_begun(self) -> bool:
        """A byte of the answer has come."""
        return self._head_size > 0

    @property
    def at_end(self) -> bool:
        return self.complete and not self._parts

    async def _wait_for_data(self) -> None:
        if self._failure is not None:
            raise self._failure()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # --- feeding

    def feed(self, data: bytes) -> None:
        if self.complete:
            self.reusable = False
            self._transport.close()  # whatever this is, it must not be taken for the next answer
            return
        if not self._head_complete:
            self._head_size += len(data)
        parts_before = len(self._parts)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._finish(reusable=False)
        except httptools.HttpParserError:
            self._fail(lambda: aiohttp.ClientError("not HTTP"))
        if not self._head_complete and self._head_size > LONGEST_HEAD:
            self._fail(lambda: aiohttp.ClientError("not HTTP: its head does not end"))
        body = sum(map(len, self._parts[parts_before:]))
        self._framing += len(data) - body * (1 + MOST_FRAMING)
        if self._framing > LONGEST_HEAD and not self.complete:
            # Extensions of chunks or trailers, which nobody gets to see, may go on for ever.
            self._fail(lambda: aiohttp.ClientError("not HTTP: it is hardly anything but framing"))
        self._buffered += body
        if self._buffered > MOST_BUFFERED and not (self._paused or self.complete):
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def feed_end(self, error: BaseException | None) -> None:
        """The connection is gone; `error` says why, if it broke."""
        if self.complete:
            self.reusable = False
        elif self._head_complete and error is None and self._ends_with_connection():
            self._finish(reusable=False)
        elif self._head_complete:
            self._fail(lambda: aiohttp.ClientPayloadError("cut"))
        elif isinstance(error, OSError):
            self._fail(partial(_broken, error))
        else:
            self._fail(aiohttp.ServerDisconnectedError)
        self._wake()

    def _ends_with_connection(self) -> bool:
        coding = self.header("transfer-encoding")
        return not coding.endswith("chunked") if coding else not self.header("content-length")

    def _fail(self, failure: Callable[[], aiohttp.ClientError]) -> None:
        self.reusable = False
        if self._failure is None and not self.complete:
            self._failure = failure
            self._transport.close()

    def _finish(self, *, reusable: bool) -> None:
        self.complete = self._head_complete = True
        self.reusable = reusable

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- httptools' callbacks

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("an answer that nobody asked for")
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_complete:
            return  # of trailers there is no use
        text = value.decode("latin-1").strip()
        if not text.isprintable() and _CONTROL.search(text):
            raise ValueError("a control character in a header")
        self.headers.append((name.decode("latin-1").lower(), text))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.complete or (100 <= status < 200 and status != SWITCHING_PROTOCOLS):
            return
        self.status, self._head_complete = status, True

    def on_message_complete(self) -> None:
        if self._head_complete and not self.complete:
            self._finish(reusable=self._parser.should_keep_alive())


def _broken(error: OSError) -> aiohttp.ClientError:
    failure = aiohttp.ClientOSError(*error.args)
    failure.__cause__ = error  # TLS says there why
    return failure


# --- content encodings that came although none was asked for


class UnsupportedEncoding(OSError):
    """A body in a content encoding that was not asked for and can't be undone."""


class Decompressor:
    """A body out of its content encoding, a bounded piece at a time."""

    def __init__(self, reader: ResponseReader, encoding: str) -> None:
        """Raises `UnsupportedEncoding`, as `read` may too."""
        if encoding not in WBITS:
            raise UnsupportedEncoding
        self._reader = reader
        self._wbits = WBITS[encoding]
        self._decoder: Any = None

    async def read(self) -> bytes:
        """The next piece; empty at the end."""
        while True:
            packed = (self._decoder and self._decoder.unconsumed_tail) or await self._reader.read()
            if not packed:
                if self._decoder is not None and not self._decoder.eof:
                    raise aiohttp.ClientPayloadError("cut")
                return b""
            if data := self._decompress(packed):
                return data

    def _decompress(self, packed: bytes) -> bytes:
        if self._decoder is None:
            has_zlib_header = packed[0] & 15 == zlib.DEFLATED
            self._decoder = zlib.decompressobj(self._wbits[0 if has_zlib_header else -1])
        try:
            data: bytes = self._decoder.decompress(packed, MOST_BUFFERED)
        except zlib.error:
            raise UnsupportedEncoding from None
        return data
