"""How our own client reaches a back end: through which proxy, trusting whom, to which addresses, and on which
connections."""

import asyncio
import os
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from routeproxy.policy.problems import RulesRefused
from routeproxy.policy.providers import Provider
from routeproxy.upstream.failures import LONGEST_MESSAGE
from routeproxy.upstream.http.addresses import ProxyEnvironment, is_local
from tests.backend import CUT, BackEnd, error, json_answer, messages_stream, pause, streamed
from tests.budgets import seconds
from tests.running import Running, request, running, until
from tests.wire.asking import answers, ask, message

Proxied = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def back_end() -> Iterator[BackEnd]:
    with BackEnd(json_answer(message("fine"))) as back_end:
        yield back_end


@pytest.fixture
def proxy_for(tmp_path: Path) -> Proxied:
    """A routeproxy whose only provider has these keys (TOML)."""

    @contextmanager
    def proxied(url: str, more: str = "", environ: Mapping[str, str] = {}) -> Iterator[Running]:
        provider = f'[providers.claude]\ntype = "anthropic"\napi_key = "none"\nbase_url = "{url}"\n{more}\n'
        with running(provider + '[default]\ntargets = ["claude/m"]', tmp_path, environ) as proxy:
            yield proxy

    return proxied


# --- connections in the pool


def test_a_connection_is_used_again_after_whole_answers_and_streams(
    back_end: BackEnd, proxy_for: Proxied
) -> None:
    with proxy_for(back_end.url) as proxy:
        for stream in (True, False, True):
            answers(back_end, streamed(*messages_stream("x")) if stream else json_answer(message("x")))
            assert ask(proxy, stream=stream).text == "x"
    assert back_end.connections == 1


def test_a_stream_whose_last_chunk_comes_a_moment_later_keeps_its_connection(
    back_end: BackEnd, proxy_for: Proxied
) -> None:
    answers(back_end, streamed(*messages_stream("x"), pause(0.01)))
    with proxy_for(back_end.url) as proxy:
        for _ in range(3):
            assert ask(proxy, stream=True).text == "x"
    assert back_end.connections == 1


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_an_answer_that_is_longer_than_what_may_wait_arrives_whole(
    back_end: BackEnd, proxy_for: Proxied, stream: bool
) -> None:
    """Reading is paused meanwhile, and taken up again."""
    pieces = [f"{number:06}" * 2000 for number in range(400)]
    text = "".join(pieces)
    script = streamed(*messages_stream(chunks=pieces)) if stream else json_answer(message(text))
    answers(back_end, script)
    with proxy_for(back_end.url) as proxy:
        for _ in range(2):
            assert ask(proxy, stream=stream).text == text
    assert back_end.connections == 1


def test_a_connection_that_its_other_end_closed_while_it_idled_fails_nobodys_request(
    back_end: BackEnd, proxy_for: Proxied
) -> None:
    answers(back_end, [*json_answer(message("fine")), pause(0.01), CUT], json_answer(message("fine")))
    with proxy_for(back_end.url) as proxy:
        assert ask(proxy).text == "fine"
        time.sleep(0.05)
        reply = ask(proxy)
    assert (reply.text, reply.said("attempts")) == ("fine", "1")
    assert (len(back_end.requests), back_end.connections) == (2, 2)


def test_a_request_that_was_read_and_not_answered_is_not_sent_again(
    back_end: BackEnd, proxy_for: Proxied
) -> None:
    """Not on another connection either: the back end may have begun to work."""
    answers(back_end, json_answer(message("fine")), [CUT], json_answer(message("fine")))
    with proxy_for(back_end.url) as proxy:
        assert ask(proxy).text == "fine"
        assert ask(proxy).status == 502
    assert len(back_end.requests) == 2


def test_what_a_back_end_says_after_its_answer_is_no_answer_to_the_next_request(
    back_end: BackEnd, proxy_for: Proxied
) -> None:
    stray = [pause(0.05), *json_answer(message("stray"))]
    answers(back_end, [*json_answer(message("first")), *stray], json_answer(message("second")))
    with proxy_for(back_end.url) as proxy:
        first = ask(proxy).text
        time.sleep(0.2)
        assert (first, ask(proxy).text) == ("first", "second")
    assert back_end.connections == 2


def test_a_new_connection_that_breaks_is_a_failure(back_end: BackEnd, proxy_for: Proxied) -> None:
    answers(back_end, [CUT])
    with proxy_for(back_end.url) as proxy:
        assert ask(proxy).error[2] == "the back end claude closed the connection without an answer"
    assert len(back_end.requests) == 1


class Hasty(socketserver.ThreadingTCPServer):
    """A back end that reads the head of a request, refuses it, and reads no more."""

    daemon_threads = True
    refusal = b'{"type":"error","error":{"type":"request_too_large","message":"too large"}}'

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Refuses)
        self.connections = 0
        self.over = threading.Event()


class _Refuses(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Hasty)
        self.server.connections += 1
        while self.rfile.readline().strip():
            pass
        head = "HTTP/1.1 413 Too Large\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.wfile.write((head % len(Hasty.refusal)).encode() + Hasty.refusal)
        self.server.over.wait(20)


def test_a_back_end_that_answers_before_it_was_asked_in_full_loses_the_connection(
    proxy_for: Proxied,
) -> None:
    """Its next request would begin in the middle of the last one."""
    body = request(messages=[{"role": "user", "content": "x" * 20_000_000}])
    with Hasty() as hasty:
        threading.Thread(target=hasty.serve_forever, daemon=True).start()
        with proxy_for(f"http://127.0.0.1:{hasty.server_address[1]}") as proxy:
            assert [proxy.post(body).status_code for _ in range(2)] == [413, 413]
        hasty.over.set()
        hasty.shutdown()
    assert hasty.connections == 2


@pytest.mark.parametrize(
    ("query", "received"),
    [("a=b&c=%20", "a=b&c=%20"), ("x=/?:@", "x=/?:@"), ("n=%C3%BC", "n=%C3%BC")],
)
def test_a_query_goes_out_as_it_came(
    back_end: BackEnd, proxy_for: Proxied, query: str, received: str
) -> None:
    with proxy_for(back_end.url) as proxy:
        assert proxy.post(request(), path=f"/v1/messages?{query}").status_code == 200
    assert back_end.last.path == f"/v1/messages?{received}"


def test_a_header_with_a_line_break_in_it_goes_nowhere(back_end: BackEnd, proxy_for: Proxied) -> None:
    with pytest.raises(RulesRefused, match="one line of printable characters"):
        with proxy_for(back_end.url, 'headers = { x-note = "a\\r\\nx-admin: 1" }'):
            pass
    assert back_end.requests == []


def test_a_header_in_other_letters_arrives(back_end: BackEnd, proxy_for: Proxied) -> None:
    with proxy_for(back_end.url, 'headers = { X-Note = "für Ägypten" }') as proxy:
        assert ask(proxy).status == 200
    assert ("x-note", "für Ägypten".encode().decode("latin-1")) in back_end.last.headers


def test_more_requests_than_a_pool_usually_holds_wait_for_no_free_connection(
    back_end: BackEnd, proxy_for: Proxied
) -> None:
    answers(back_end, [pause(1), *json_answer(message("fine"))])

    async def all_at_once(url: str) -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=seconds(20)) as client:
            asked = [client.post(url + "/v1/messages", json=request()) for _ in range(120)]
            return await asyncio.gather(*asked)

    with proxy_for(back_end.url) as proxy:
        replies = asyncio.run(all_at_once(proxy.url))
    assert {reply.status_code for reply in replies} == {200}
    assert back_end.connections == 120


def test_an_error_that_is_longer_than_what_is_read_of_it_keeps_its_status(
    back_end: BackEnd, proxy_for: Proxied
) -> None:
    answers(back_end, error(429, "slow " * 500_000))
    with proxy_for(back_end.url) as proxy:
        status, type, words = ask(proxy).error
    assert (status, type) == (429, "rate_limit_error")
    assert len(words) == LONGEST_MESSAGE


# --- addresses


ADDRESSES = [
    ("127.0.0.1", True),
    ("127.9.9.9", True),
    ("10.1.2.3", True),
    ("172.16.0.1", True),
    ("192.168.1.1", True),
    ("::1", True),
    ("fd00::1", True),
    ("fe80::1%eth0", True),
    ("::ffff:10.0.0.1", True),
    ("8.8.8.8", False),
    ("172.32.0.1", False),
    ("100.64.0.1", False),
    ("0.0.0.0", False),
    ("203.0.113.7", False),
    ("::", False),
    ("2606:4700::1111", False),
    ("::ffff:8.8.8.8", False),
    ("64:ff9b::8.8.8.8", False),
    ("198.18.0.1", False),
]


@pytest.mark.parametrize(("address", "local"), ADDRESSES)
def test_local_means_loopback_or_private(address: str, local: bool) -> None:
    assert is_local(address) is local


def test_a_local_provider_is_reached_at_a_local_address(back_end: BackEnd, proxy_for: Proxied) -> None:
    with proxy_for(f"http://localhost:{back_end.port}", 'zone = "local"') as proxy:
        assert ask(proxy).text == "fine"


def test_an_address_outside_is_never_connected_to_for_a_local_provider(proxy_for: Proxied) -> None:
    with proxy_for("http://203.0.113.7:9", 'zone = "local"\ntimeouts = { connect = "2s" }') as proxy:
        status, _, words = ask(proxy).error
    assert status == 502
    address = "claude (203.0.113.7:9)"
    assert words == (
        f"the back end {address} has an address that is neither loopback nor private, and its zone is local"
    )


def test_a_name_that_nobody_knows(proxy_for: Proxied) -> None:
    with proxy_for("http://nobody.invalid") as proxy:
        status, _, words = ask(proxy).error
    assert status == 502
    assert words in [
        f"the back end claude (nobody.invalid:80) could not be reached: {why}"
        for why in ("there is no such name", "no name server answers")  # on a machine that has none
    ]


def test_a_port_where_nobody_listens(proxy_for: Proxied) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with proxy_for(f"http://{address}") as proxy:
            words = f"the back end claude ({address}) could not be reached: connection refused"
            assert ask(proxy).error == (502, "api_error", words)


# --- proxies


def provider(url: str = "https://api.example/v1", zone: str = "public", proxy: str | None = None) -> Provider:
    return Provider(name="p", type="anthropic", base_url=url, zone=zone, proxy=proxy)  # type: ignore[arg-type]


IN_FRONT = {
    "HTTPS_PROXY": "http://out:3128",
    "HTTP_PROXY": "http://plain:3128",
    "NO_PROXY": "localhost, .corp.example,10.0.0.0/8",
}

PROXIES = [
    pytest.param(provider(), IN_FRONT, "http://out:3128", id="https"),
    pytest.param(provider("http://api.example"), IN_FRONT, "http://plain:3128", id="http"),
    pytest.param(provider(zone="private"), IN_FRONT, None, id="not for the private"),
    pytest.param(provider(zone="local"), IN_FRONT, None, id="nor the local"),
    pytest.param(provider(zone="private", proxy="http://own"), IN_FRONT, "http://own", id="its own"),
    pytest.param(provider(proxy="http://own"), IN_FRONT, "http://own", id="its own before the environment's"),
    pytest.param(provider("https://llm.corp.example"), IN_FRONT, None, id="a name under NO_PROXY"),
    pytest.param(provider("https://corp.example"), IN_FRONT, None, id="the very name"),
    pytest.param(
        provider("https://notcorp.example"), IN_FRONT, "http://out:3128", id="a name that only ends like it"
    ),
    pytest.param(provider("https://10.2.3.4:8443"), IN_FRONT, None, id="a network"),
    pytest.param(provider(), {**IN_FRONT, "NO_PROXY": "*"}, None, id="no proxy at all"),
    pytest.param(
        provider(), {**IN_FRONT, "https_proxy": "http://lower"}, "http://lower", id="lower case wins"
    ),
    pytest.param(provider(), {"ALL_PROXY": "http://all"}, "http://all", id="for all"),
    pytest.param(
        provider("http://api.example"),
        {**IN_FRONT, "REQUEST_METHOD": "GET"},
        None,
        id="a client's header under CGI",
    ),
    pytest.param(provider(), {}, None, id="none"),
]


@pytest.mark.parametrize(("asked", "environ", "expected"), PROXIES)
def test_which_proxy_is_taken(asked: Provider, environ: Mapping[str, str], expected: str | None) -> None:
    assert ProxyEnvironment(environ).proxy_for(asked) == expected


def test_a_request_travels_through_its_providers_proxy(back_end: BackEnd, proxy_for: Proxied) -> None:
    with proxy_for("http://api.example", f'proxy = "{back_end.url}"') as proxy:
        assert ask(proxy).text == "fine"
    assert back_end.last.path == "http://api.example/v1/messages"


def test_a_proxy_that_refuses_is_told_apart(back_end: BackEnd, proxy_for: Proxied) -> None:
    answers(back_end, [b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"])
    with proxy_for("https://api.example", f'proxy = "{back_end.url}"') as proxy:
        way = f"api.example:443 by way of the proxy 127.0.0.1:{back_end.port}"
        why = "could not be reached: its proxy wants credentials"
        assert ask(proxy).error[2] == f"the back end claude ({way}) {why}"
    assert (back_end.last.method, back_end.last.path) == ("CONNECT", "api.example:443")


def test_a_proxy_gets_the_credentials_of_its_address(back_end: BackEnd, proxy_for: Proxied) -> None:
    address = back_end.url.replace("http://", "http://user:secret@")
    with proxy_for("http://api.example", f'proxy = "{address}"') as proxy:
        for _ in range(2):  # on a new connection, and on one that was there
            assert ask(proxy).text == "fine"
            assert back_end.last.header("proxy-authorization") == "Basic dXNlcjpzZWNyZXQ="
    assert back_end.connections == 1


class Tunnel(socketserver.ThreadingTCPServer):
    """A proxy that does what CONNECT asks for."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Through)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Through(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Tunnel)
        request = self.rfile.readline().decode()
        while self.rfile.readline().strip():
            pass
        self.server.asked.append(request.strip())
        host, _, port = request.split()[1].rpartition(":")
        with socket.create_connection((host, int(port))) as there:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(there, self.connection), daemon=True)
            back.start()
            pump(self.connection, there)
            with suppress(OSError):
                there.shutdown(socket.SHUT_RDWR)  # else the other thread would read from it for ever
            back.join(5)


def pump(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)


# --- certificates


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[BackEnd]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with BackEnd(json_answer(message("fine")), tls=context) as back_end:
        yield back_end


def test_a_certificate_of_ones_own_authority_is_trusted(
    secure: BackEnd, certificate: tuple[Path, Path], proxy_for: Proxied
) -> None:
    with proxy_for(f"https://localhost:{secure.port}", f'ca_file = "{certificate[0]}"') as proxy:
        assert ask(proxy).text == "fine"


def test_a_secure_back_end_is_reached_through_a_tunnel(
    secure: BackEnd, certificate: tuple[Path, Path], proxy_for: Proxied
) -> None:
    with Tunnel() as tunnel:
        threading.Thread(target=tunnel.serve_forever, daemon=True).start()
        keys = f'ca_file = "{certificate[0]}"\nproxy = "{tunnel.url}"'
        with proxy_for(f"https://localhost:{secure.port}", keys) as proxy:
            for _ in range(2):
                assert ask(proxy).text == "fine"
        tunnel.shutdown()
    assert tunnel.asked == [f"CONNECT localhost:{secure.port} HTTP/1.1"]
    assert (secure.last.path, secure.last.header("host")) == ("/v1/messages", f"localhost:{secure.port}")


def test_without_it_the_connection_is_refused(secure: BackEnd, proxy_for: Proxied) -> None:
    with proxy_for(f"https://localhost:{secure.port}") as proxy:
        assert ask(proxy).error[2] == (
            f"the back end claude (localhost:{secure.port}) could not be reached: "
            "its certificate is not trusted (`ca_file` names whom to trust)"
        )
    assert secure.requests == []


def test_a_name_that_the_certificate_does_not_hold_is_refused(
    secure: BackEnd, certificate: tuple[Path, Path], proxy_for: Proxied
) -> None:
    with proxy_for(f"https://127.0.0.1:{secure.port}", f'ca_file = "{certificate[0]}"') as proxy:
        assert ask(proxy).error[2] == (
            f"the back end claude (127.0.0.1:{secure.port}) could not be reached: "
            "its certificate is for another name"
        )


def test_a_ca_file_that_is_replaced_counts_for_the_next_request(
    secure: BackEnd, certificate: tuple[Path, Path], proxy_for: Proxied, tmp_path: Path
) -> None:
    trusted = tmp_path / "ca.pem"
    made = certificate[0].read_bytes()
    with proxy_for(f"https://localhost:{secure.port}", f'ca_file = "{trusted}"') as proxy:
        assert ask(proxy).error[2] == "the back end claude has a ca_file that cannot be read"
        trusted.write_bytes(made)
        assert ask(proxy).text == "fine"
        trusted.write_bytes(own_authority(tmp_path))
        assert "its certificate is not trusted" in ask(proxy).error[2]  # although a connection idles
        fresh = tmp_path / "fresh.pem"
        fresh.write_bytes(made)
        fresh.replace(trusted)
        assert ask(proxy).text == "fine"
        trusted.unlink()
        os.mkfifo(trusted)
        assert ask(proxy).error[2] == "the back end claude has a ca_file that cannot be read"


def own_authority(folder: Path) -> bytes:
    """The certificate of an authority that signed nothing."""
    file = folder / "other.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "/dev/null"]
    command = ["openssl", "req", "-x509", *key, "-subj", "/CN=other", "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return file.read_bytes()


def test_a_proxy_in_a_changed_env_counts_without_a_restart(
    back_end: BackEnd, proxy_for: Proxied, tmp_path: Path
) -> None:
    with BackEnd(json_answer(message("by way of a proxy"))) as other, proxy_for(back_end.url) as proxy:
        assert ask(proxy).text == "fine"
        (tmp_path / ".env").write_text(f"HTTP_PROXY={other.url}\n")
        until(lambda: ask(proxy).text == "by way of a proxy", 3)
        assert other.last.path == f"{back_end.url}/v1/messages"
        (tmp_path / ".env").write_text(f"HTTP_PROXY={other.url}\nNO_PROXY=127.0.0.1\n")
        until(lambda: ask(proxy).text == "fine", 3)
        (tmp_path / ".env").write_text(f"HTTP_PROXY={other.url}\n")
        until(lambda: ask(proxy).text == "by way of a proxy", 3)
        (tmp_path / ".env").unlink()
        until(lambda: ask(proxy).text == "fine", 3)


def test_a_ca_file_that_is_not_there(back_end: BackEnd, proxy_for: Proxied, tmp_path: Path) -> None:
    with proxy_for(back_end.url, f'ca_file = "{tmp_path}/none.pem"') as proxy:
        assert ask(proxy).error[2] == "the back end claude has a ca_file that cannot be read"
    assert back_end.requests == []
