"""What a server bears before anybody shows a key: bytes and lines of headers, and the time that a request
takes."""

import json
import re
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from routeproxy.descriptors import raise_limit
from routeproxy.web import http_protocol
from tests.budgets import seconds
from tests.running import (
    ECHO,
    Running,
    connect,
    receive_until,
    request,
    request_bytes,
    running,
    serving,
    until,
)

RULES = ECHO + '[server]\nheader_timeout = "1s"\nbody_timeout = "1s"\nkeep_alive = "1s"\n'
HEAD = b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(ECHO, tmp_path_factory.mktemp("patient")) as server:
        yield server


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(RULES, tmp_path_factory.mktemp("hurried")) as server:
        yield server


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["type"]


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(HEAD + b"x: 1\r\n" * 40_000 + b"\r\n", id="40,000 equal lines"),
        pytest.param(HEAD + b"".join(b"x-%d: 1\r\n" % number for number in range(201)), id="201 lines"),
        pytest.param(HEAD + b"cookie: " + b"a" * 65_536 + b"\r\n\r\n", id="a huge cookie"),
        pytest.param(HEAD + b"cookie: " + b"a" * 2**20, id="a value that does not end"),
        pytest.param(HEAD + b"a" * 2**20, id="a name that does not end"),
        pytest.param(b"GET /" + b"a" * 2**20, id="a first line that does not end"),
        pytest.param(CHUNKED + b"0\r\n" + b"x: 1\r\n" * 300 + b"\r\n", id="300 trailers"),
    ],
)
def test_headers_beyond_64_kb_or_200_lines_are_answered_431_and_closed(patient: Running, head: bytes) -> None:
    with connect(patient.url) as sock:
        sock.sendall(head)
        assert error_of(receive_until(sock)) == (431, "invalid_request_error")


def test_200_lines_and_nearly_64_kb_are_served(patient: Running) -> None:
    lines = {f"x_{number}": "v" * 300 for number in range(190)}
    assert patient.post(request(), **lines).status_code == 200


def test_a_trailer_is_no_header(patient: Running) -> None:
    body = json.dumps(request()).encode()
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    with connect(patient.url) as sock:
        sock.sendall(CHUNKED + chunk + b"x-routeproxy-no-fallback: maybe\r\n\r\n")
        assert receive_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_body_in_chunks_of_one_byte_is_served(patient: Running) -> None:
    body = json.dumps(request("a" * 100_000)).encode()
    with connect(patient.url) as sock:
        sock.sendall(CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert receive_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_chunk_whose_extension_does_not_end_is_refused(patient: Running) -> None:
    with connect(patient.url) as sock:
        sock.sendall(CHUNKED + b"1;" + b"x" * 2**20)
        assert error_of(receive_until(sock)) == (400, "invalid_request_error")


LATE = {
    "half a header": (HEAD, [408]),
    "half a body": (HEAD + b"content-length: 100\r\n\r\n{", [408]),
    "half a chunk": (CHUNKED + b"64\r\n{", [408]),
    "half an extension": (CHUNKED + b"64;x", [408]),
    "half a trailer": (CHUNKED + b"1\r\n{\r\n0\r\nx", [408]),
    "no body after 100": (HEAD + b"expect: 100-continue\r\ncontent-length: 9\r\n\r\n", [100, 408]),
    "nothing": (b"", []),
    "a line": (b"\r\n", []),
    "one request": (request_bytes(b"", "/healthz", "GET"), [200]),
    "one request and half of another": (request_bytes(b"", "/healthz", "GET") + HEAD, [200, 408]),
}
"""What is sent and never goes on, and what is answered until the connection ends."""


def test_who_does_not_go_on_is_answered_408_or_not_at_all_and_closed(hurried: Running) -> None:
    """All at once: each takes as long as its limit."""
    socks = {name: connect(hurried.url) for name in LATE}
    for name, (sent, _) in LATE.items():
        socks[name].settimeout(seconds(10))
        socks[name].sendall(sent)
    heard = {name: receive_until(sock) for name, sock in socks.items()}
    for sock in socks.values():
        sock.close()
    statuses = {name: [int(found) for found in STATUS.findall(answer)] for name, answer in heard.items()}
    assert statuses == {name: expected for name, (_, expected) in LATE.items()}
    assert all(answer.count(b"timeout_error") == (408 in statuses[name]) for name, answer in heard.items())


def test_a_body_has_five_minutes_in_all_however_steadily_it_comes(
    hurried: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert http_protocol.BODY_AT_MOST == 300
    monkeypatch.setattr(http_protocol, "BODY_AT_MOST", 0.5)
    assert drip(hurried, HEAD + b"content-length: 100000\r\n\r\n") == (408, "timeout_error")


def drip(server: Running, beginning: bytes) -> tuple[int, str]:
    """The answer to what never stops coming, a byte at a time."""
    with connect(server.url) as sock:
        sock.settimeout(0.1)
        sock.sendall(beginning)
        answer, limit = b"", time.monotonic() + seconds(10)
        while not answer and time.monotonic() < limit:
            sock.sendall(b"a")
            with suppress(TimeoutError):
                answer = sock.recv(65_536)
        return error_of(answer)


def test_a_header_that_comes_byte_by_byte_gets_no_more_time(hurried: Running) -> None:
    assert drip(hurried, HEAD + b"x: ") == (408, "timeout_error")


def test_the_limits_follow_a_reload(tmp_path: Path) -> None:
    with running(ECHO, tmp_path) as server:
        server.rules.write_text(RULES)
        until(lambda: server.app.settings.header_timeout == 1, 5)
        with connect(server.url) as sock:
            sock.settimeout(seconds(8))
            sock.sendall(HEAD)
            assert error_of(receive_until(sock)) == (408, "timeout_error")


def test_beyond_the_room_clients_hear_529_and_the_log_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("routeproxy.processes.most_clients", lambda: 2)
    with running(ECHO, tmp_path) as server:
        held = [connect(server.url) for _ in range(2)]
        until(lambda: server.post(request()).status_code == 529)
        answer = server.post(request())
        assert (answer.headers["retry-after"], answer.json()["error"]["type"]) == ("1", "overloaded_error")
        for sock in held:
            sock.close()
        until(lambda: server.post(request()).status_code == 200, 8)
    assert len([line for line in caplog.messages if "529" in line and "descriptors" in line]) == 1


def test_many_beyond_the_room_hear_529(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than may take their time."""
    monkeypatch.setattr("routeproxy.processes.most_clients", lambda: 2)
    with running(ECHO, tmp_path) as server:
        socks = [connect(server.url) for _ in range(60)]
        heard = [receive_until(sock) for sock in socks[2:]]
        for sock in socks:
            sock.close()
    assert all(error_of(answer) == (529, "overloaded_error") for answer in heard)


def test_sixty_four_descriptors_serve_a_client_beside_two_hundred(tmp_path: Path) -> None:
    """As many as there is room for, and everybody else hears why."""
    (tmp_path / "rules.toml").write_text(ECHO)
    with serving(tmp_path, "--rules", "rules.toml", "--port", "0", descriptors=64) as server:
        until(lambda: server.post(request()).status_code == 200, 10)
        held = [connect(server.url) for _ in range(200)]
        statuses = {server.post(request()).status_code for _ in range(5)}
        assert statuses <= {200, 529}
        for sock in held:
            sock.close()
        until(lambda: server.post(request()).status_code == 200, 8)
        assert server.stderr.count("descriptors") == 1


def test_the_limit_of_descriptors_is_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
        raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(before[1], 1_048_576)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
