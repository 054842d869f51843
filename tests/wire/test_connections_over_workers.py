"""Connections of clients over the workers of a server: spread evenly, and answered by another where their
worker is gone."""

import http.client
import os
import signal
import sys
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.running import ECHO, Served, serving, until

RULES = f'[server]\nport = 0\nadmin_keys = ["env:OPS"]\n{ECHO}'
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="spread by Linux")


@pytest.fixture(params=[2, 4])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "rules.toml").write_text(RULES)
    flags = ("--rules", "rules.toml", "--workers", str(request.param))
    with serving(tmp_path, *flags, environ={"OPS": "key-of-ops"}) as server:
        until(lambda: len(answering(server, 64)) == request.param, 20)
        yield server


def answering(server: Served, number: int) -> Counter[int]:
    """By worker, how many of so many connections that are open at once it answers."""
    address = urllib.parse.urlsplit(server.url)
    found: Counter[int] = Counter()
    with ExitStack() as open_ones:
        connections = []
        for _ in range(number):
            connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
            open_ones.enter_context(closing(connection))
            connection.connect()
            connections.append(connection)
        for connection in connections:
            connection.request("GET", "/-/status", headers={"x-api-key": "key-of-ops"})
            answer = connection.getresponse()
            assert answer.status == 200
            found[int(answer.read().partition(b'"process":')[2].split(b"}")[0].split(b",")[0])] += 1
    return found


def test_connections_are_spread_evenly(server: Served) -> None:
    workers = len(server.workers)
    found = answering(server, 96)
    assert len(found) == workers
    assert min(found.values()) >= 96 / workers / 4


def test_what_comes_to_a_worker_that_is_gone_is_answered_by_another(server: Served) -> None:
    victim = next(iter(server.workers))
    os.kill(victim, signal.SIGKILL)
    found = answering(server, 32)  # the one that takes its place is still starting
    assert sum(found.values()) == 32
    assert victim not in found


def test_the_port_of_another_server_is_refused(server: Served, tmp_path: Path) -> None:
    port = urllib.parse.urlsplit(server.url).port
    other = tmp_path / "other"
    other.mkdir()
    (other / "rules.toml").write_text(RULES)
    flags = ("--rules", "rules.toml", "--workers", "2", "--port", str(port))
    with serving(other, *flags, environ={"OPS": "key-of-ops"}) as second:
        assert second.exit_code(20) != 0
        assert "another program has it" in second.stderr
