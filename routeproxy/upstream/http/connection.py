"""Answers as they come over our connections. The connections are aiohttp's, with its pools, its TLS and its
proxies; what back ends say on them is read here, with the parser that reads our clients too: aiohttp's calls
Python six times for each chunk of a stream, and that was a third of what a stream cost."""

import asyncio
import re
import zlib
from typing import Any

import aiohttp
import httptools
from aiohttp.client_proto import ResponseHandler

from routeproxy.encodings import WBITS

LONGEST_HEAD = 65_536
"""Bytes."""

AT_ONCE = 2**18
"""Bytes that may wait to be taken, before no more are read."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""What a header of ours, to which some are copied, must not hold."""

SWITCHING_PROTOCOLS = 101
"""Of the informational answers the one that no other follows."""


class ClientConnection(ResponseHandler):
    """A connection. Until an answer of ours is expected on it, aiohttp reads what comes, as what a proxy says
    to CONNECT."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._incoming: ResponseReader | None = None

    def expect(self) -> "ResponseReader":
        """The next answer, which is all that may come from now on."""
        assert self.transport is not None
        if self._tail:
            raise aiohttp.ClientError("it spoke before it was asked")
        self._incoming = ResponseReader(self.transport, self._loop)
        return self._incoming

    @property
    def should_close(self) -> bool:
        """Whether it can't carry another request."""
        return super().should_close or not (self._incoming is not None and self._incoming.reusable)

    def data_received(self, data: bytes) -> None:
        if self._incoming is None:
            super().data_received(data)
        else:
            self._incoming.feed(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._incoming is not None:
            self._incoming.lost(exc)


class ResponseReader:
    """One answer. What is waited for raises `aiohttp.ClientError` when it can't come any more."""

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
        self._begun = False
        self._head_size = 0
        self._size = 0
        self._paused = False
        self._failure: aiohttp.ClientError | None = None
        self._waiter: asyncio.Future[None] | None = None

    # --- what is taken of it

    async def head(self) -> None:
        """Returns once status and headers are there."""
        while not self._begun:
            await self._more()

    async def read(self) -> bytes:
        """What has come of the body; nothing is its end."""
        while not self._parts:
            if self.complete:
                return b""
            await self._more()
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def header(self, name: str) -> str:
        """Its value in lower case; nothing, if it is not there."""
        return next((value.strip().lower() for known, value in self.headers if known == name), "")

    @property
    def at_end(self) -> bool:
        return self.complete and not self._parts

    async def _more(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # --- what comes

    def feed(self, data: bytes) -> None:
        if self.complete:
            self.reusable = False
            self._transport.close()  # whatever this is, it must not be taken for the next answer
            return
        if not self._begun:
            self._head_size += len(data)
        before = len(self._parts)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end(reusable=False)
        except httptools.HttpParserError:
            self._fail(aiohttp.ClientError("not HTTP"))
        if not self._begun and self._head_size > LONGEST_HEAD:
            self._fail(aiohttp.ClientError("not HTTP: its head does not end"))
        self._size += sum(map(len, self._parts[before:]))
        if self._size > AT_ONCE and not (self._paused or self.complete):
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def lost(self, error: BaseException | None) -> None:
        """Nothing more will come."""
        if self.complete:
            self.reusable = False
        elif self._begun and error is None and self._ends_with_connection():
            self._end(reusable=False)
        elif self._begun:
            self._fail(aiohttp.ClientPayloadError("cut"))
        elif isinstance(error, OSError):
            self._fail(aiohttp.ClientOSError(*error.args))
        else:
            self._fail(aiohttp.ServerDisconnectedError())
        self._wake()

    def _ends_with_connection(self) -> bool:
        coding = self.header("transfer-encoding")
        return not coding.endswith("chunked") if coding else not self.header("content-length")

    def _fail(self, failure: aiohttp.ClientError) -> None:
        self.reusable = False
        if self._failure is None and not self.complete:
            self._failure = failure
            self._transport.close()

    def _end(self, *, reusable: bool) -> None:
        self.complete = self._begun = True
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
        if self._begun:
            return  # those after the body tell nobody anything
        text = value.decode("latin-1").strip()
        if not text.isprintable() and _CONTROL.search(text):
            raise ValueError("a control character in a header")
        self.headers.append((name.decode("latin-1").lower(), text))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.complete or (100 <= status < 200 and status != SWITCHING_PROTOCOLS):
            return
        self.status, self._begun = status, True

    def on_message_complete(self) -> None:
        if self._begun and not self.complete:
            self._end(reusable=self._parser.should_keep_alive())


# --- what was packed although nobody asked for it


class UnsupportedEncoding(OSError):
    """A body in a content encoding that was not asked for and can't be undone."""


class Decompressor:
    """A body out of its content encoding, a bounded piece at a time."""

    def __init__(self, incoming: ResponseReader, encoding: str) -> None:
        if encoding not in WBITS:
            raise UnsupportedEncoding
        self._incoming = incoming
        self._wbits = WBITS[encoding]
        self._decoder: Any = None

    async def read(self) -> bytes:
        while True:
            packed = (self._decoder and self._decoder.unconsumed_tail) or await self._incoming.read()
            if not packed:
                if self._decoder is not None and not self._decoder.eof:
                    raise aiohttp.ClientPayloadError("cut")
                return b""
            if plain := self._plain(packed):
                return plain

    def _plain(self, packed: bytes) -> bytes:
        if self._decoder is None:
            has_zlib_header = packed[0] & 15 == zlib.DEFLATED
            self._decoder = zlib.decompressobj(self._wbits[0 if has_zlib_header else -1])
        try:
            plain: bytes = self._decoder.decompress(packed, AT_ONCE)
        except zlib.error:
            raise UnsupportedEncoding from None
        return plain
