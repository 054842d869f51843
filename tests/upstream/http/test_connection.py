"""How an answer of a back end is read off its connection: whatever comes, in whatever pieces."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.upstream.http.connection import (
    MOST_BUFFERED,
    MOST_READ,
    ClientConnection,
    Decompressor,
    ResponseReader,
    UnsupportedEncoding,
)
from tests.backend import CUT, RESET, BackEnd, json_answer
from tests.running import running
from tests.wire.asking import answers, ask, message

CLOSED, BROKEN = "closed", "broken"
"""What may happen to a connection after the last piece."""


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.paused: list[bool] = []

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused.append(True)

    def resume_reading(self) -> None:
        self.paused.append(False)


async def _came(pieces: Sequence[bytes | str]) -> tuple[Any, ...]:
    handler, transport = ClientConnection(asyncio.get_running_loop()), FakeTransport()
    handler.connection_made(transport)
    incoming = handler.expect_response()
    body: list[bytes] = []

    async def read() -> str:
        try:
            await incoming.read_head()
            encoding = incoming.header("content-encoding")
            source = Decompressor(incoming, encoding) if encoding else incoming
            while data := await source.read():
                body.append(data)
        except (aiohttp.ClientError, UnsupportedEncoding) as error:
            return type(error).__name__
        return ""

    reading = asyncio.get_running_loop().create_task(read())
    for piece in [*pieces, b""]:
        await asyncio.sleep(0)  # so that what came before is read before this
        if not isinstance(piece, bytes):
            handler.connection_lost(ConnectionResetError(104, "reset") if piece is BROKEN else None)
        elif piece:
            handler.data_received(piece)
    for _ in range(10):
        await asyncio.sleep(0)
    outcome = reading.result() if reading.done() else "waits"
    reading.cancel()
    return incoming.status, b"".join(body), outcome or ("closed" if handler.should_close else "reused")


def came(*pieces: bytes | str) -> tuple[Any, ...]:
    """Status, body, and what becomes of the connection, or what went wrong."""
    return asyncio.run(_came(pieces))


OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"content-length: 0\r\n\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
PLAIN = b"event: ping\n\n" * 50
GZIP = gzip.compress(PLAIN)
RAW_DEFLATE = zlib.compressobj(wbits=-15)
BARE = RAW_DEFLATE.compress(PLAIN) + RAW_DEFLATE.flush()


def packed(encoding: bytes, body: bytes) -> bytes:
    return OK + b"content-encoding: %b\r\ncontent-length: %d\r\n\r\n%b" % (encoding, len(body), body)


ANSWERS = [
    pytest.param([OK + b"content-length: 2\r\n\r\nhi"], (200, b"hi", "reused"), id="a length"),
    pytest.param(
        [CHUNKED + b"2\r\nhi\r\n3;x=y\r\n, y\r\n0\r\ntrailer: t\r\n\r\n"],
        (200, b"hi, y", "reused"),
        id="chunks",
    ),
    pytest.param([CHUNKED + b"2\r\nhi\r\n"], (200, b"hi", "waits"), id="chunks that go on"),
    pytest.param([CHUNKED + b"2\r\nhi\r\n", CLOSED], (200, b"hi", "ClientPayloadError"), id="chunks cut"),
    pytest.param(
        [OK + b"content-length: 9\r\n\r\nhi", CLOSED],
        (200, b"hi", "ClientPayloadError"),
        id="shorter than said",
    ),
    pytest.param([OK + b"\r\nhi", CLOSED], (200, b"hi", "closed"), id="until the connection ends"),
    pytest.param(
        [OK + b"\r\nhi", BROKEN], (200, b"hi", "ClientPayloadError"), id="until the connection breaks"
    ),
    pytest.param(
        [OK + b"transfer-encoding: odd\r\n\r\nhi", CLOSED], (200, b"hi", "closed"), id="another coding"
    ),
    pytest.param([CLOSED], (0, b"", "ServerDisconnectedError"), id="nothing"),
    pytest.param([BROKEN], (0, b"", "ClientOSError"), id="a broken connection"),
    pytest.param([OK, CLOSED], (0, b"", "ServerDisconnectedError"), id="half a head"),
    pytest.param([b"SSH-2.0-OpenSSH_9\r\n"], (0, b"", "ClientError"), id="something else"),
    pytest.param([OK + b"x: " + b"y" * 70_000], (0, b"", "ClientError"), id="a head without an end"),
    pytest.param([OK + b"x: a\0b\r\n\r\n"], (0, b"", "ClientError"), id="a control character in a header"),
    pytest.param([CHUNKED + b"zz\r\n"], (200, b"", "ClientError"), id="a chunk without a size"),
    pytest.param(
        [CHUNKED + b"f" * 18 + b"\r\nhi"], (200, b"", "ClientError"), id="a size beyond all numbers"
    ),
    pytest.param(
        [CHUNKED + b"2;" + b"x" * 70_000], (200, b"", "ClientError"), id="an extension without an end"
    ),
    pytest.param(
        [CHUNKED + b"2\r\nhi\r\n0\r\n" + b"x: y\r\n" * 12_000],
        (200, b"hi", "ClientError"),
        id="trailers without an end",
    ),
    pytest.param(
        [CHUNKED + b"2\r\nhi\r\n0\r\nx: " + b"y" * 70_000],
        (200, b"hi", "ClientError"),
        id="a trailer without an end",
    ),
    pytest.param([CHUNKED + b"1\r\na\r\n" * 30_000], (200, b"a" * 30_000, "waits"), id="chunks of a byte"),
    pytest.param(
        [b"HTTP/1.1 100 Continue\r\n\r\n" * 4000], (0, b"", "ClientError"), id="told to go on without an end"
    ),
    pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n"], (0, b"", "waits"), id="told to go on, and nothing"),
    pytest.param(
        [OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"],
        (0, b"", "ClientError"),
        id="a length and chunks",
    ),
    pytest.param(
        [OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi!"], (0, b"", "ClientError"), id="two lengths"
    ),
    pytest.param(
        [OK + b"content-length: -2\r\n\r\nhi"], (0, b"", "ClientError"), id="a length below nothing"
    ),
    pytest.param([OK + b"x-a: 1\r\n 2\r\n" + EMPTY], (200, b"", "reused"), id="a folded header"),
    pytest.param(
        [OK + b"content-length: 2\r\nconnection: close\r\n\r\nhi"], (200, b"hi", "closed"), id="the last one"
    ),
    pytest.param([b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi"], (200, b"hi", "closed"), id="HTTP/1.0"),
    pytest.param([b"HTTP/1.1 204 Nothing\r\n\r\n"], (204, b"", "reused"), id="no body"),
    pytest.param(
        [b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", OK, EMPTY],
        (200, b"", "reused"),
        id="informational ones before it",
    ),
    pytest.param(
        [b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nPRI"],
        (101, b"", "closed"),
        id="another protocol",
    ),
    pytest.param([b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi"], (200, b"hi", "reused"), id="bare line feeds"),
    pytest.param(
        [OK + b"content-length: 2\r\n\r\nhi" + OK + b"content-length: 1\r\n\r\n!"],
        (200, b"hi", "closed"),
        id="a second one that nobody asked for",
    ),
    pytest.param([OK + b"content-length: 2\r\n\r\nhi", b"!"], (200, b"hi", "closed"), id="more than it said"),
    pytest.param([packed(b"gzip", GZIP)], (200, PLAIN, "reused"), id="gzip"),
    pytest.param([packed(b"GZIP", GZIP)], (200, PLAIN, "reused"), id="gzip in capitals"),
    pytest.param([packed(b"deflate", zlib.compress(PLAIN))], (200, PLAIN, "reused"), id="deflate"),
    pytest.param([packed(b"deflate", BARE)], (200, PLAIN, "reused"), id="deflate without its header"),
    pytest.param([packed(b"gzip", GZIP[:-9])], (200, PLAIN, "ClientPayloadError"), id="half of a gzip"),
    pytest.param([packed(b"gzip", b"not gzip")], (200, b"", "UnsupportedEncoding"), id="no gzip"),
    pytest.param([packed(b"deflate", b"not deflate")], (200, b"", "UnsupportedEncoding"), id="no deflate"),
    pytest.param(
        [packed(b"br", b"odd")], (200, b"", "UnsupportedEncoding"), id="an encoding that nobody asked for"
    ),
]


@pytest.mark.parametrize(("pieces", "outcome"), ANSWERS)
def test_an_answer_is_read(pieces: list[bytes | str], outcome: tuple[Any, ...]) -> None:
    assert came(*pieces) == outcome


def cut_at(text: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place % len(text) for place in places}), len(text)]
    return [text[start:end] for start, end in pairwise(bounds) if start < end]


@pytest.mark.parametrize("chunk", [1, 100, MOST_READ, 3 * MOST_READ, 9 * MOST_READ])
def test_a_long_answer_is_read_in_parts_of_bounded_size(chunk: int) -> None:
    text = bytes(range(256)) * (4 * MOST_READ // 256)
    chunks = [text[at : at + chunk] for at in range(0, len(text), chunk)]

    async def read() -> list[bytes]:
        handler, transport = ClientConnection(asyncio.get_running_loop()), FakeTransport()
        handler.connection_made(transport)
        incoming = handler.expect_response()
        handler.data_received(CHUNKED)
        handler.data_received(b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks) + b"0\r\n\r\n")
        return [part async for part in until_end(incoming)]

    parts = asyncio.run(read())
    assert b"".join(parts) == text
    assert max(map(len, parts)) <= 2 * MOST_READ


async def until_end(incoming: ResponseReader) -> AsyncIterator[bytes]:
    while data := await incoming.read():
        yield data


@pytest.mark.parametrize(("pieces", "outcome"), ANSWERS)
def test_an_answer_is_the_same_byte_by_byte(pieces: list[bytes | str], outcome: tuple[Any, ...]) -> None:
    single = [
        one
        for piece in pieces
        for one in ([piece[at : at + 1] for at in range(len(piece))] if isinstance(piece, bytes) else [piece])
    ]
    assert came(*single) == outcome


@given(st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from([b"gzip", b"deflate", b"identity"]))
def test_an_answer_is_the_same_however_it_is_cut(places: list[int], encoding: bytes) -> None:
    body = {b"gzip": GZIP, b"deflate": BARE}.get(encoding, PLAIN)
    head = CHUNKED[:-2] + (b"" if encoding == b"identity" else b"content-encoding: %b\r\n" % encoding)
    text = head + b"\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in cut_at(body, places))
    assert came(*cut_at(text + b"0\r\n\r\n", places)) == (200, PLAIN, "reused")


def test_no_more_is_read_than_is_taken() -> None:
    async def reading() -> list[bool]:
        handler, transport = ClientConnection(asyncio.get_running_loop()), FakeTransport()
        handler.connection_made(transport)
        incoming = handler.expect_response()
        handler.data_received(OK + b"\r\n")
        for _ in range(3):
            handler.data_received(b"x" * (MOST_BUFFERED // 2 + 1))
        came = [len(await incoming.read())]
        while sum(came) < (MOST_BUFFERED // 2 + 1) * 3:
            came.append(len(await incoming.read()))
        assert sum(came) == (MOST_BUFFERED // 2 + 1) * 3
        assert max(came) <= 2 * MOST_READ
        handler.data_received(b"x")
        return transport.paused

    assert asyncio.run(reading()) == [True, False]


def test_what_is_packed_a_thousand_times_comes_in_pieces() -> None:
    async def largest() -> tuple[int, int]:
        handler = ClientConnection(asyncio.get_running_loop())
        handler.connection_made(FakeTransport())
        incoming = handler.expect_response()
        handler.data_received(packed(b"gzip", gzip.compress(bytes(20_000_000))))
        source, sizes = Decompressor(incoming, "gzip"), []
        while data := await source.read():
            sizes.append(len(data))
        return max(sizes), sum(sizes)

    most, total = asyncio.run(largest())
    assert most <= MOST_BUFFERED
    assert total == 20_000_000


def test_who_speaks_before_being_asked_is_not_asked() -> None:
    async def asking() -> None:
        handler = ClientConnection(asyncio.get_running_loop())
        handler.connection_made(FakeTransport())
        handler.data_received(OK + EMPTY)
        handler.expect_response()

    with pytest.raises(aiohttp.ClientError):
        asyncio.run(asking())


CLAUDE = """
[providers.claude]
type = "anthropic"
api_key = "none"
base_url = "{}"
[default]
targets = "claude/m"
"""
SAID = {
    "a message in pieces without a length": (
        [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n", b'{"type":"message",'],
        [b'"content":[{"type":"text","text":"fine"}],"usage":{"output_tokens":1}}', CUT],
        "fine",
    ),
    "the same, broken off": (
        [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n", b'{"type":"message",'],
        [RESET],
        "the back end claude closed the connection before completing its answer",
    ),
    "an answer in an encoding that nobody asked for": (
        [b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 3\r\n\r\n"],
        [b"odd"],
        "the back end claude packed its answer in a way that nobody asked for",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_over_the_wire(case: str, tmp_path: Any) -> None:
    begins, ends, expected = SAID[case]
    with (
        BackEnd(json_answer(message("fine"))) as back_end,
        running(CLAUDE.format(back_end.url), tmp_path) as proxy,
    ):
        answers(back_end, [*begins, *ends])
        reply = ask(proxy)
    assert (reply.error[2] if reply.status != 200 else reply.text) == expected
