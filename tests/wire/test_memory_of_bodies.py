"""Bodies that don't fit into `[server] body_memory_mb` wait unread, and then are refused."""

import gzip
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from routeproxy.web.response import StreamTimings
from tests.backend import HANG, BackEnd, Received, Script, json_answer, messages_stream, streamed
from tests.budgets import seconds
from tests.running import Running, connect, receive_until, request, request_bytes, running, until
from tests.wire.asking import message

RULES = """
[server]
max_body_mb = 3
body_memory_mb = 4

[providers.seen]
type = "anthropic"
base_url = "{url}"
api_key = "none"

[default]
targets = "seen/any"
"""

LARGE = 1_300_000
"""Bytes. One of them fits beside small bodies, two don't."""


LONG_ANSWER = 7
"""Tokens, for which an answer comes that no socket's buffers hold."""


def script(received: Received) -> Script:
    """What is not streamed is answered, and no stream ends."""
    if received.json.get("stream"):
        return streamed(*messages_stream()[:4], HANG)
    long = received.json["max_tokens"] == LONG_ANSWER
    return json_answer(message("x" * 16_000_000) if long else message())


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd(script) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, back_end: BackEnd) -> Iterator[Running]:
    """A server where a body may wait long."""
    timings = StreamTimings(body=seconds(20))
    with running(RULES.format(url=back_end.url), tmp_path_factory.mktemp("rules"), timings=timings) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, back_end: BackEnd) -> Iterator[Running]:
    """A server where it may not."""
    timings = StreamTimings(body=0.3)
    with running(RULES.format(url=back_end.url), tmp_path_factory.mktemp("rules"), timings=timings) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _afresh(back_end: BackEnd) -> None:
    back_end.requests.clear()


def large(**fields: object) -> bytes:
    return json.dumps(request("x" * LARGE, **fields)).encode()


@contextmanager
def holding(proxy: Running, *, in_chunks: bool = False) -> Iterator[socket.socket]:
    """A client whose large body has come so far, and takes its room until it leaves."""
    head, _, _ = request_bytes(large(), expect="100-continue").partition(b"\r\n\r\n")
    if in_chunks:
        head = re.sub(rb"content-length: \d+", b"transfer-encoding: chunked", head)
    with connect(proxy.url) as client:
        client.sendall(head + b"\r\n\r\n")
        receive_until(client, b"HTTP/1.1 100 Continue\r\n\r\n")
        if in_chunks:
            client.sendall(b"%x\r\n%b\r\n" % (LARGE, b"x" * LARGE))
        yield client


def chunked(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 50_000):
        yield body[start : start + 50_000]


@pytest.mark.parametrize("in_chunks", [False, True], ids=["of known length", "in chunks"])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_body_that_finds_no_room_is_told_to_come_again(
    hasty: Running, encoding: str, in_chunks: bool
) -> None:
    body = gzip.compress(large()) if encoding == "gzip" else large()

    def asked() -> httpx.Response | None:
        content = chunked(body) if in_chunks else body
        headers = {"content-encoding": encoding}
        answer = httpx.post(hasty.url + "/v1/messages", content=content, headers=headers, timeout=seconds(10))
        return answer if answer.status_code != 200 else None

    # Of those that grow one may go beyond the budget; it takes a moment to come so far.
    with holding(hasty), holding(hasty, in_chunks=True):
        answer = until(asked, 5)
    assert (answer.status_code, answer.headers["retry-after"]) == (529, "5")
    assert answer.json()["error"] == {
        "type": "overloaded_error",
        "message": "routeproxy holds as many large requests as it can at once; try again",
    }


def test_small_bodies_go_by_while_large_ones_wait(patient: Running) -> None:
    with holding(patient) as first, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(patient.post, large())
        assert [patient.post(request()).status_code for _ in range(3)] == [200, 200, 200]
        assert not waiting.done()
        first.close()
        assert waiting.result().status_code == 200


def test_what_waits_is_not_asked_to_go_on(patient: Running) -> None:
    """`expect: 100-continue`"""
    head, _, body = request_bytes(large(), expect="100-continue").partition(b"\r\n\r\n")
    with holding(patient) as first, connect(patient.url) as client:
        client.sendall(head + b"\r\n\r\n")
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(seconds(5))
        first.close()
        assert receive_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.sendall(body)
        assert receive_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("rest", [b"", large()[:40_000]], ids=["before its body", "within it"])
def test_a_client_that_leaves_while_it_waits_is_let_go(
    patient: Running, caplog: pytest.LogCaptureFixture, rest: bytes
) -> None:
    head, _, _ = request_bytes(large()).partition(b"\r\n\r\n")
    with caplog.at_level("INFO", "routeproxy.requests"), holding(patient):
        with connect(patient.url) as client:
            client.sendall(head + b"\r\n\r\n" + rest)
        until(lambda: [line for line in caplog.messages if " 499 " in line or "499" in line], 5)


def test_the_first_content_of_an_answer_makes_room(patient: Running) -> None:
    with connect(patient.url) as client:
        client.sendall(request_bytes(large(stream=True)))
        receive_until(client, b"text_delta")  # and it has not ended
        assert patient.post(large()).status_code == 200


def test_a_whole_answer_makes_room_before_it_is_read(patient: Running, back_end: BackEnd) -> None:
    with connect(patient.url) as client:
        client.sendall(request_bytes(large(max_tokens=LONG_ANSWER)))
        until(lambda: back_end.requests, 10)
        assert patient.post(large()).status_code == 200
        assert receive_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        pytest.param(large(), {}, 200, id="answered"),
        pytest.param(large()[:-1], {}, 400, id="no JSON"),
        pytest.param(b"x" * (3 * 2**20 + 1), {}, 413, id="too large"),
        pytest.param(chunked(b"x" * (3 * 2**20 + 1)), {}, 413, id="too large, in chunks"),
        pytest.param(gzip.compress(b"x" * 2**22), {"content-encoding": "gzip"}, 413, id="decompressed"),
        pytest.param(gzip.compress(large())[:-9], {"content-encoding": "gzip"}, 400, id="half a gzip"),
        pytest.param(large(), {"content-encoding": "br"}, 400, id="no encoding"),
    ],
)
def test_however_a_request_ends_its_room_is_free_again(
    hasty: Running, content: bytes | Iterator[bytes], headers: dict[str, str], status: int
) -> None:
    content = content if isinstance(content, bytes) else b"".join(content)
    for _ in range(3):
        answer = httpx.post(hasty.url + "/v1/messages", content=content, headers=headers, timeout=seconds(10))
        assert answer.status_code == status


def test_a_reload_gives_more_room(back_end: BackEnd, tmp_path: Path) -> None:
    with running(RULES.format(url=back_end.url), tmp_path, timings=StreamTimings(body=0.1)) as proxy:
        with holding(proxy):
            assert proxy.post(large()).status_code == 529
            text = proxy.rules.read_text()
            proxy.rules.write_text(text.replace("body_memory_mb = 4", "body_memory_mb = 8"))
            until(lambda: proxy.post(large()).status_code == 200, 10)
