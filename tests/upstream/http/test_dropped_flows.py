"""Connections that are gone without a word, as where a firewall has forgotten them: nobody waits for minutes.
And back ends that take nothing for long, but are there."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import uvloop

from routeproxy import descriptors
from routeproxy.listening import CLIENT_GONE, Address, listen
from routeproxy.policy.providers import Provider
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.http import client as http_client
from routeproxy.upstream.http.client import Client
from tests.backend import HANG, BackEnd, messages_stream, streamed
from tests.budgets import seconds
from tests.running import connect, receive_until, request, request_bytes, running, until
from tests.sockets import drop
from tests.upstream.http.test_stale import LARGE, SMALL, Connection, Fate, RawBackEnd

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="what the system tells of a connection is Linux's"
)

LIMIT = 1
PROVIDER = Provider(name="p", type="anthropic")


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "SILENTLY_GONE", LIMIT)
    for name, value in {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2}.items():
        monkeypatch.setitem(descriptors.PROBES, name, value)


async def asked(back_end: RawBackEnd, sizes: tuple[int, ...], to: Provider = PROVIDER) -> list[str]:
    """What becomes of requests of these sizes, one after the other."""
    client, outcomes = Client({}), []
    for size in sizes:
        try:
            async with asyncio.timeout(seconds(15)):
                response = await client.post(to, back_end.url, body=b"x" * size, headers={}, connect=5)
                outcomes.append((await response.read_all(100)).decode())
                response.close()
        except UpstreamFailure as failure:
            outcomes.append(f"{failure.kind}: {failure.message}")
        back_end.next_one.set()
    back_end.close()
    await client.aclose()
    await asyncio.sleep(0.1)  # both sides say goodbye where there is TLS
    return outcomes


def ask(fate: Fate, *sizes: int) -> tuple[list[str], RawBackEnd, float]:
    back_end = RawBackEnd(fate)
    started = time.monotonic()
    try:
        outcomes = uvloop.run(asked(back_end, sizes))
    finally:
        back_end.close()
    return outcomes, back_end, time.monotonic() - started


def is_forgotten(connection: Connection) -> None:
    drop(connection.socket)


def is_forgotten_after_reading(connection: Connection) -> None:
    assert connection.read_request()
    drop(connection.socket)


def is_forgotten_in_mid_request(connection: Connection) -> None:
    connection.socket.recv(65_536)
    drop(connection.socket)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_kept_connection_that_was_forgotten_is_a_new_connection(size: int) -> None:
    outcomes, back_end, took = ask(is_forgotten, SMALL, size)
    assert outcomes == ["hi", "hi"]
    assert (back_end.requests, back_end.connections) == (2, 2)
    assert took < LIMIT + seconds(2)


def test_one_that_was_forgotten_in_the_middle_of_a_request_is_a_new_connection_too() -> None:
    outcomes, back_end, _ = ask(is_forgotten_in_mid_request, SMALL, LARGE)
    assert outcomes == ["hi", "hi"]
    assert (back_end.requests, back_end.connections) == (2, 2)


def test_one_that_was_forgotten_after_its_request_was_read_is_a_failure_and_never_asked_again() -> None:
    outcomes, back_end, took = ask(is_forgotten_after_reading, SMALL, SMALL)
    assert outcomes[1].startswith("connection: "), outcomes
    assert back_end.connections == 1
    assert took < 3 + seconds(3), "two probes, a second each, after one of idling"


def test_a_kept_connection_with_tls_that_was_forgotten_is_a_new_connection_too(
    certificate: tuple[Path, Path],
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    back_end = RawBackEnd(is_forgotten, context)
    trusting = Provider(name="p", type="anthropic", ca_file=str(certificate[0]))
    try:
        assert uvloop.run(asked(back_end, (SMALL, SMALL), trusting)) == ["hi", "hi"]
    finally:
        back_end.close()
    assert (back_end.requests, back_end.connections) == (2, 2)


class Unread(RawBackEnd):
    """Accepts, and reads nothing for a while, as where a model is being loaded."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        super().__init__(lambda _: None)

    def _serve(self, accepted: socket.socket, is_first: bool) -> None:
        time.sleep(self._pause)
        super()._serve(accepted, is_first)


def test_a_back_end_that_reads_nothing_for_long_is_waited_for() -> None:
    back_end = Unread(3 * LIMIT)
    try:
        assert uvloop.run(asked(back_end, (2 * LARGE,))) == ["hi"]
    finally:
        back_end.close()
    assert (back_end.requests, back_end.connections) == (1, 1)


RULES = """
[providers.claude]
type = "anthropic"
base_url = "{}"
api_key = "none"
zone = "private"

[default]
targets = ["claude/*"]
"""


def test_a_client_that_was_forgotten_lets_its_back_end_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routeproxy.listening.CLIENT_GONE", 1)
    with (
        BackEnd(streamed(*messages_stream()[:4], HANG)) as back_end,
        running(RULES.format(back_end.url), tmp_path) as proxy,
        connect(proxy.url) as sock,
    ):
        sock.sendall(request_bytes(request(stream=True)))
        receive_until(sock, b"text_delta")
        drop(sock)
        until(lambda: back_end.left_at, 6)


# --- at the sockets themselves

EVERY = {"SO_KEEPALIVE": 1, **descriptors.PROBES}


def options(sock: socket.socket) -> dict[str, int]:
    level: Callable[[str], int] = lambda name: (  # noqa: E731
        socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
    )
    names = (*EVERY, "TCP_USER_TIMEOUT")
    return {name: sock.getsockopt(level(name), getattr(socket, name)) for name in names}


def test_connections_of_clients_have_keep_alive_and_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with listen(Address("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert options(accepted) == {**EVERY, "TCP_USER_TIMEOUT": 1000 * CLIENT_GONE}
            assert CLIENT_GONE == 60


@pytest.mark.parametrize("zone", ["public", "local"])
def test_connections_to_back_ends_have_keep_alive(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.undo()

    async def found(url: str) -> dict[str, int]:
        client = Client({})
        provider = Provider(name="p", type="anthropic", zone=cast("object", zone))  # type: ignore[arg-type]
        response = await client.post(provider, url, body=b"", headers={}, connect=5)
        transport = response._connection.transport
        assert transport is not None
        of_socket = options(transport.get_extra_info("socket"))
        response.close()
        await client.aclose()
        return of_socket

    with BackEnd(streamed(*messages_stream())) as back_end:
        assert asyncio.run(found(back_end.url)) == {**EVERY, "TCP_USER_TIMEOUT": 0}
    assert http_client.SILENTLY_GONE == 20
