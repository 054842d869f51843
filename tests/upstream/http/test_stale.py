"""Connections of the pool that their other end gives up: by the socket a request that nobody can have had is
told from one that failed, however busy our own loop is meanwhile."""

import asyncio
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from routeproxy.policy.providers import Provider
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.http.client import Client
from tests.budgets import seconds

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"

Fate = Callable[["Connection"], None]
"""What becomes of a connection after its first answer."""


class Connection:
    def __init__(self, sock: socket.socket, next_one: threading.Event) -> None:
        self.socket = sock
        self.idles_no_more = next_one
        """The next request is about to be sent."""

    def read_request(self) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.socket.recv(65536)
            if not data:
                return False
            head += data
        head, _, body = head.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += self.socket.recv(65536)
        return True

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class RawBackEnd:
    """Answers once on each connection; `fate` is the first one's."""

    def __init__(self, fate: Fate, tls: ssl.SSLContext | None = None) -> None:
        self._fate, self._tls = fate, tls
        self.requests = 0
        """That were read whole."""
        self.connections = 0
        self.next_one = threading.Event()
        self.over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://localhost:{self._listener.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            is_first = self.connections == 1
            threading.Thread(target=self._serve, args=(accepted, is_first), daemon=True).start()

    def _serve(self, accepted: socket.socket, is_first: bool) -> None:
        if self._tls is not None:
            accepted = self._tls.wrap_socket(accepted, server_side=True)
        connection = Connection(accepted, self.next_one)
        with accepted:
            if connection.read_request():
                self.requests += 1
                accepted.sendall(ANSWER)
            if is_first:
                self._fate(connection)
            self.over.wait(seconds(10))

    def close(self) -> None:
        self.over.set()
        self._listener.close()


# --- fates


def closes(connection: Connection) -> None:
    connection.idles_no_more.wait(10)
    connection.close()


def resets(connection: Connection) -> None:
    connection.idles_no_more.wait(10)
    connection.reset()


def says_so_and_closes(connection: Connection) -> None:
    connection.idles_no_more.wait(10)
    connection.socket.sendall(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
    connection.close()


def closes_without_reading(connection: Connection) -> None:
    select.select([connection.socket], [], [], 10)
    connection.close()


def closes_in_mid_request(connection: Connection) -> None:
    connection.socket.recv(65536)
    time.sleep(0.2)
    connection.close()


def reads_and(ending: Fate, after: float = 0.0, says: bytes = b"") -> Fate:
    def fate(connection: Connection) -> None:
        assert connection.read_request()
        time.sleep(after)
        connection.socket.sendall(says)
        ending(connection)

    return fate


SMALL, LARGE = 300, 8_000_000

STALE = [
    pytest.param(closes, SMALL, id="closed while it idled"),
    pytest.param(resets, SMALL, id="reset while it idled"),
    pytest.param(says_so_and_closes, SMALL, id="a word of its own while it idled"),
    pytest.param(closes_without_reading, SMALL, id="closed as the request came"),
    pytest.param(closes_in_mid_request, LARGE, id="closed in the middle of the request"),
]

FAILED = [
    pytest.param(reads_and(Connection.close), SMALL, id="read and closed"),
    pytest.param(reads_and(Connection.close), LARGE, id="read and closed, a large one"),
    pytest.param(reads_and(Connection.close, 0.2), SMALL, id="read and closed a moment later"),
    pytest.param(reads_and(Connection.reset, 0.2), SMALL, id="read and reset a moment later"),
    pytest.param(reads_and(Connection.reset, 0.2), LARGE, id="read and reset, a large one"),
    pytest.param(reads_and(Connection.close, says=b"HTTP/1.1 2"), SMALL, id="half a status"),
    pytest.param(
        reads_and(Connection.close, says=b"HTTP/1.1 100 Continue\r\n\r\n"), SMALL, id="told to go on"
    ),
]


async def asked_twice(back_end: RawBackEnd, to: Provider, size: int, stall: float) -> str:
    """What becomes of the second request. The loop does nothing else for `stall` seconds between and after
    the two."""
    client = Client({})

    async def ask(body: bytes) -> str:
        async with asyncio.timeout(seconds(5)):
            response = await client.post(to, back_end.url, body=body, headers={}, connect=5)
            data = await response.read_all(100)
        response.close()
        return data.decode()

    try:
        assert await ask(b"first") == "hi"
        back_end.next_one.set()
        time.sleep(stall or 0.02)
        if stall:
            asyncio.get_running_loop().call_later(0.01, time.sleep, stall)
        return await ask(b"x" * size)
    except UpstreamFailure as failure:
        return failure.kind
    finally:
        back_end.close()
        await client.aclose()
        await asyncio.sleep(0.1)  # both sides say goodbye where there is TLS


@pytest.fixture(params=["plain", "TLS"])
def back_end_with(
    request: pytest.FixtureRequest, certificate: tuple[Path, Path]
) -> Iterator[Callable[[Fate], RawBackEnd]]:
    made: list[RawBackEnd] = []
    context = None
    if request.param == "TLS":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)

    def make(fate: Fate) -> RawBackEnd:
        made.append(RawBackEnd(fate, context))
        return made[-1]

    yield make
    for back_end in made:
        back_end.close()


@pytest.fixture(scope="module")
def trusting(certificate: tuple[Path, Path]) -> Provider:
    return Provider(name="p", type="anthropic", ca_file=str(certificate[0]))


@pytest.mark.parametrize("stall", [0.0, 0.3], ids=["idle", "a busy loop"])
@pytest.mark.parametrize(("fate", "size"), STALE)
def test_a_request_that_nobody_can_have_had_is_sent_on_a_new_connection(
    back_end_with: Callable[[Fate], RawBackEnd], trusting: Provider, fate: Fate, size: int, stall: float
) -> None:
    back_end = back_end_with(fate)
    assert uvloop.run(asked_twice(back_end, trusting, size, stall)) == "hi"
    assert (back_end.requests, back_end.connections) == (2, 2)


@pytest.mark.parametrize("stall", [0.0, 0.3], ids=["idle", "a busy loop"])
@pytest.mark.parametrize(("fate", "size"), FAILED)
def test_a_request_that_may_have_been_read_is_never_sent_twice(
    back_end_with: Callable[[Fate], RawBackEnd], trusting: Provider, fate: Fate, size: int, stall: float
) -> None:
    back_end = back_end_with(fate)
    assert uvloop.run(asked_twice(back_end, trusting, size, stall)) == "connection"
    assert back_end.connections == 1
