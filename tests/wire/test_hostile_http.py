"""Requests that no client of ours writes, but strangers, scanners and other people's proxies do: each has one
meaning or none, and none leaves a connection behind on which two sides disagree."""

import json
import logging
import socket
import time
from collections.abc import Iterator

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.running import ECHO, Running, connect, receive_until, request, running, until
from tests.wire.test_limits_on_connections import error_of

BODY = json.dumps(request("to be echoed")).encode()
STREAM = json.dumps(request("to be echoed", stream=True)).encode()
PROBE = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(ECHO, tmp_path_factory.mktemp("rules")) as server:
        yield server


def post(
    *lines: bytes,
    target: bytes = b"/v1/messages",
    version: bytes = b"HTTP/1.1",
    method: bytes = b"POST",
    body: bytes = BODY,
    length: bool = True,
) -> bytes:
    head = [b"%b %b %b" % (method, target, version), b"host: 127.0.0.1", b"content-type: application/json"]
    head += [b"content-length: %d" % len(body)] if length else []
    return b"\r\n".join([*head, *lines, b"", b""]) + body


def chunked(*lines: bytes, body: bytes) -> bytes:
    return post(b"transfer-encoding: chunked", *lines, body=body, length=False)


def in_one_chunk(extension: bytes = b"", end: bytes = b"0\r\n\r\n") -> bytes:
    return b"%x%b\r\n%b\r\n%b" % (len(BODY), extension, BODY, end)


def answer_to(proxy: Running, sent: bytes, *words: bytes) -> tuple[bytes, bytes]:
    """Head and body of the answer, which ends with these words or else with the connection."""
    with connect(proxy.url) as sock:
        sock.sendall(sent)
        head, _, body = receive_until(sock, *words).partition(b"\r\n\r\n")
    return head, body


LENGTH = b"content-length: %d" % len(BODY)

NO_HTTP = [
    pytest.param(post(b"transfer-encoding: chunked", body=in_one_chunk()), id="a length and chunks"),
    pytest.param(chunked(LENGTH, body=in_one_chunk()), id="chunks and a length"),
    pytest.param(post(b"content-length: 5"), id="two lengths"),
    pytest.param(post(LENGTH), id="one length twice"),
    pytest.param(post(b"content-length: 5, 5", length=False), id="a list of lengths"),
    pytest.param(post(b"content-length: -1", length=False), id="a length below nothing"),
    pytest.param(post(b"content-length: +9", length=False), id="a length with a sign"),
    pytest.param(post(b"content-length: 0x9", length=False), id="a length in another base"),
    pytest.param(post(b"content-length: " + b"9" * 30, length=False), id="a length beyond all numbers"),
    pytest.param(post(b"content-length : 9", length=False), id="a space before the colon"),
    pytest.param(chunked(b"transfer-encoding: chunked", body=in_one_chunk()), id="chunks twice"),
    pytest.param(post(b"transfer-encoding: gzip, chunked", body=in_one_chunk(), length=False), id="packed"),
    pytest.param(post(b"transfer-encoding: xchunked", body=in_one_chunk(), length=False), id="nearly chunks"),
    pytest.param(post(b"transfer-encoding: identity"), id="a coding that is none"),
    pytest.param(post(b"x-a: 1", b" 2"), id="a folded header"),
    pytest.param(post(b"x-a: 1\nx-b: 2"), id="a bare line feed in the headers"),
    pytest.param(post(b"x-a: 1\rx-b: 2"), id="a bare carriage return in the headers"),
    pytest.param(post().replace(b"\r\n", b"\n"), id="line feeds alone"),
    pytest.param(post(b"x-a: 1\x002"), id="NUL in a value"),
    pytest.param(post(b"x-\x00a: 1"), id="NUL in a name"),
    pytest.param(post("x-ü: 1".encode()), id="a name that is not ASCII"),
    pytest.param(post(b": 1"), id="a header without a name"),
    pytest.param(post(b"x a: 1"), id="a space in a name"),
    pytest.param(post(target=b"/v1/mess\x00ages"), id="NUL in the path"),
    pytest.param(post(target="/v1/messagesü".encode()), id="a path that is not ASCII"),
    pytest.param(post(target=b"v1/messages"), id="a path without its slash"),
    pytest.param(post(target=b"http://user:canary@[::1/v1/messages"), id="half an address"),
    pytest.param(post(target=b"127.0.0.1:443", method=b"CONNECT"), id="a tunnel"),
    pytest.param(post(method=b"FOO"), id="a method that nobody knows"),
    pytest.param(post(method=b"post"), id="a method in small letters"),
    pytest.param(post(method=b"A" * 5000), id="a method without an end"),
    pytest.param(post(version=b"HTTP/1.2"), id="HTTP/1.2"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
    pytest.param(b"GET /healthz\r\n\r\n", id="HTTP/0.9"),
    pytest.param(bytes.fromhex("16030100a5010000a10303") + b"x" * 100, id="TLS"),
    pytest.param(b"SSH-2.0-OpenSSH_9.0\r\n", id="SSH"),
    pytest.param(bytes(range(256)), id="garbage"),
    pytest.param(chunked(body=b"f" * 18 + b"\r\na"), id="a chunk beyond all numbers"),
    pytest.param(chunked(body=b"-1\r\na"), id="a chunk below nothing"),
    pytest.param(chunked(body=b"%x\r\n%bXX0\r\n\r\n" % (len(BODY), BODY)), id="a chunk that is longer"),
    pytest.param(chunked(body=in_one_chunk().replace(b"\r\n", b"\n")), id="chunks with line feeds alone"),
    pytest.param(chunked(body=in_one_chunk(end=b"0\r\ncontent-length: 5\r\n\r\n")), id="a length as trailer"),
    pytest.param(chunked(body=in_one_chunk(b";" + b"x" * 200_000)), id="an extension of 200 kB"),
]


@pytest.mark.parametrize("sent", NO_HTTP)
def test_what_has_no_meaning_or_two_is_a_400_and_the_end_of_the_connection(
    proxy: Running, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    caplog.set_level(logging.INFO, "routeproxy")
    head, body = answer_to(proxy, sent + PROBE)
    assert error_of(head + b"\r\n\r\n" + body) == (400, "invalid_request_error")
    assert b"HTTP/1.1" not in body, "what came after it is no request"
    (line,) = until(lambda: caplog.messages)
    assert " 400 " in line
    assert "canary" not in line


ANSWERED = [
    pytest.param(post(), 200, id="what clients write"),
    pytest.param(post(target=b"http://127.0.0.1/v1/messages"), 200, id="a proxy's target"),
    pytest.param(post(target=b"//v1/messages"), 200, id="a slash too many"),
    pytest.param(post(target=b"/v1/messages?" + b"a=1&" * 1000), 200, id="a long query"),
    pytest.param(post("x-a: ü€".encode()), 200, id="a value that is not ASCII"),
    pytest.param(post(b"connection: upgrade", b"upgrade: foo"), 200, id="an upgrade to anything"),
    pytest.param(post(b"Connection: Upgrade", b"Upgrade: TLS/1.2"), 200, id="an upgrade to TLS"),
    pytest.param(post(b"UPGRADE: WEBSOCKET", b"CONNECTION: UPGRADE"), 200, id="an upgrade in capitals"),
    pytest.param(post(b"Connection: uPgRaDe", b"uPgRaDe: x/1"), 200, id="an upgrade in other letters"),
    pytest.param(post(b"connection: upgrade", b"upgrade:"), 200, id="an upgrade to nothing"),
    pytest.param(post(b"connection: upgrade", b"upgrade: a", b"upgrade: b"), 200, id="two upgrades"),
    pytest.param(post(b"expect: 200-ok"), 200, id="an expectation that nobody knows"),
    pytest.param(chunked(body=in_one_chunk(b';a=b;c="d"', b"0;x=y\r\nx-t: 1\r\n\r\n")), 200, id="extensions"),
    pytest.param(chunked(body=in_one_chunk(b";" + b"x" * 60_000)), 200, id="an extension of 60 kB"),
    pytest.param(post(target=b"/../../v1/messages"), 404, id="folders above"),
    pytest.param(post(target=b"/v1/messages%00"), 404, id="NUL in the path, quoted"),
    pytest.param(post(target=b"/v1/messages%0d%0ax-a:%20b"), 404, id="line ends in the path, quoted"),
    pytest.param(post(target=b"/%ff%fe/v1/messages"), 404, id="no UTF-8 in the path, quoted"),
    pytest.param(post(target=b"/v1/%zz"), 404, id="a quote that is none"),
    pytest.param(post(target=b"*", method=b"OPTIONS"), 404, id="OPTIONS *"),
    pytest.param(post(target=b"http://127.0.0.1", method=b"GET"), 200, id="a proxy's target without a path"),
    pytest.param(post(method=b"TRACE"), 405, id="TRACE"),
    pytest.param(post(b"host: elsewhere.example"), 403, id="two hosts"),
]


@pytest.mark.parametrize(("sent", "status"), ANSWERED)
def test_what_has_one_meaning_is_answered_and_the_connection_kept(
    proxy: Running, caplog: pytest.LogCaptureFixture, sent: bytes, status: int
) -> None:
    caplog.set_level(logging.INFO, "routeproxy.requests")
    with connect(proxy.url) as sock:
        sock.sendall(sent + PROBE)
        heard = receive_until(sock, b"HTTP/1.1 %d" % status, b'"ok"')
    assert heard.count(b"HTTP/1.1 ") == 2
    assert heard.startswith(b"HTTP/1.1 %d " % status)
    assert all("\n" not in line and "\0" not in line for line in caplog.messages)


OFFERS = {
    "before a body": post(b"connection: upgrade", b"uPgrade: TLS/1.2", b"x-a: b", body=b"{}"),
    "as the last header": post(b"connection: upgrade", b"upgrade: h2c", body=b"{}"),
    "in front of chunks": chunked(b"connection: upgrade", b"upgrade: h2c", body=b"2\r\n{}\r\n0\r\n\r\n"),
    "without a body": b"GET /v1/x HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    "of nothing": post(body=b"{}\r\n"),
    "in a body": post(body=b"{}\r\nupgrade: h2c\r\n\r\nupgrade:\r\n"),
    "in a body and before it": post(
        b"connection: upgrade", b"upgrade: a", body=b"upgrade: b\r\nUpgrade: c\r\n"
    ),
    "in the middle of a line": post(b"x-upgrade: upgrade: a", body=b"{}"),
}


@pytest.mark.parametrize("sent", OFFERS.values(), ids=list(OFFERS))
def test_an_offer_of_another_protocol_is_not_heard_wherever_a_read_cuts_it(
    proxy: Running, sent: bytes
) -> None:
    status = b"HTTP/1.1 404" if sent.startswith(b"GET") else b"HTTP/1.1 400"
    with connect(proxy.url) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in range(1, len(sent)):
            sock.sendall(sent[:cut])
            time.sleep(0.001)
            sock.sendall(sent[cut:] + PROBE)
            heard = receive_until(sock, b'"ok"')
            assert heard.startswith(status), f"cut before {sent[cut : cut + 20]!r}"
            assert b"body is empty" not in heard
            assert heard.count(b"HTTP/1.1 ") == 2


# --- HTTP/1.0, as nginx speaks it to its back ends unless it is told otherwise


@pytest.mark.parametrize("more", [[], [b"connection: keep-alive"]], ids=["alone", "keep-alive"])
def test_http_1_0_gets_no_chunks_and_the_end_is_that_of_the_connection(
    proxy: Running, more: list[bytes]
) -> None:
    head, body = answer_to(proxy, post(*more, version=b"HTTP/1.0", body=STREAM))
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"transfer-encoding" not in head.lower()
    assert body.startswith(b"event: message_start\n")
    assert body.endswith(b'data: {"type":"message_stop"}\n\n')


def test_http_1_0_gets_a_whole_answer_with_its_length(proxy: Running) -> None:
    head, body = answer_to(proxy, post(version=b"HTTP/1.0"))
    assert b"content-length: %d\r\n" % len(body) in head + b"\r\n"
    assert json.loads(body)["content"][0]["text"]


def test_http_1_0_is_not_told_to_go_on(proxy: Running) -> None:
    head, _ = answer_to(proxy, post(b"expect: 100-continue", version=b"HTTP/1.0"))
    assert head.startswith(b"HTTP/1.1 200 OK")


# --- requests that don't wait for answers


def test_of_thousands_of_requests_at_once_seventeen_are_answered(proxy: Running) -> None:
    head, body = answer_to(proxy, PROBE * 5000)
    heard = head + b"\r\n\r\n" + body
    assert heard.count(b"HTTP/1.1 200 OK") == 17
    assert heard.endswith(b"}")


def test_seventeen_at_once_are_answered_and_the_connection_kept(proxy: Running) -> None:
    with connect(proxy.url) as sock:
        for _ in range(3):
            sock.sendall(PROBE * 17)
            heard = b""
            while heard.count(b'"ok"') < 17:
                heard += sock.recv(65_536)


def test_thousands_behind_one_that_takes_time_are_not_kept_in_memory(proxy: Running) -> None:
    with connect(proxy.url) as sock:
        sock.sendall(post() + PROBE * 3000)
        heard = receive_until(sock)
    assert heard.count(b"HTTP/1.1 200 OK") == 17
    assert b"to be echoed" in heard.partition(b'"ok"')[0]


# --- what costs the server more than the client


def test_a_body_in_tiny_chunks_is_looked_at_once_a_read(
    proxy: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    on_body = HttpToolsProtocol.on_body

    def counted(self: HttpToolsProtocol, body: bytes) -> None:
        seen.append(len(body))
        on_body(self, body)

    monkeypatch.setattr(HttpToolsProtocol, "on_body", counted)
    text = json.dumps(request("a" * 200_000)).encode()
    sent = chunked(body=b"".join(b"1\r\n%c\r\n" % byte for byte in text) + b"0\r\n\r\n")
    with connect(proxy.url) as sock:
        sock.sendall(sent)
        assert receive_until(sock, b"end_turn").startswith(b"HTTP/1.1 200")
    assert sum(seen) == len(text)
    assert len(seen) < 1000
