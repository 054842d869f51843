"""Back ends that can't be reached: the log names host, port and why, whichever engine asked, and so does the
answer of a server that needs no keys. Where keys are needed, addresses are the operator's alone."""

import errno
import os
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import aiohttp
import httpcore
import httpx
import pytest
import requests
import urllib3

from routeproxy.upstream.errors.connecting import cause_of
from tests.running import Running, running
from tests.wire.asking import ask

RULES = """
[providers.corp]
type = "{type}"
base_url = "{url}"
api_key = "none"
engine = "{engine}"
zone = "private"
timeouts = {{ connect = "2s" }}
{more}
[default]
targets = ["corp/m"]
"""

ENGINES = [
    pytest.param("openai_compatible", "direct", id="our own engine"),
    pytest.param("openai_compatible", "litellm", id="LiteLLM"),
    pytest.param("anthropic", "direct", id="pass-through"),
]


def served(folder: Path, type: str, engine: str, url: str, more: str = "") -> AbstractContextManager[Running]:
    """A routeproxy that needs no keys."""
    return running(RULES.format(type=type, engine=engine, url=url, more=more), folder)


# --- what listens


@contextmanager
def listening(on_connection: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of something that does this with each connection."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            on_connection(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def resets(connection: socket.socket) -> None:
    connection.recv(100)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hangs_up(connection: socket.socket) -> None:
    connection.recv(100)


def is_silent(connection: socket.socket) -> None:
    connection.settimeout(20)
    while connection.recv(65536):
        pass


def speaks_http(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


def answers(status: str) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())

    return answer


HANDSHAKE = "it closed the connection during the TLS handshake"


@pytest.mark.parametrize(("type", "engine"), ENGINES)
@pytest.mark.parametrize(
    ("listener", "words"),
    [
        pytest.param(resets, f"could not be reached: {HANDSHAKE}", id="reset in the handshake"),
        pytest.param(hangs_up, f"could not be reached: {HANDSHAKE}", id="closed in the handshake"),
        pytest.param(is_silent, "could not be reached in time", id="silence in the handshake"),
        pytest.param(speaks_http, "could not be reached: what answers there does not speak TLS", id="plain"),
    ],
)
def test_what_is_no_tls(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    type: str,
    engine: str,
    listener: Callable[[socket.socket], None],
    words: str,
) -> None:
    with listening(listener) as address, served(tmp_path, type, engine, f"https://{address}") as proxy:
        answered = ask(proxy).error[2]
    assert answered == f"the back end corp ({address}) {words}"
    assert f": {answered}" in failures(caplog)


@pytest.mark.parametrize(("type", "engine"), ENGINES)
@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("407 Proxy Authentication Required", "its proxy wants credentials"),
        ("403 Forbidden", "its proxy does not let it through"),
        ("502 Bad Gateway", "its proxy could not reach it"),
        ("400 Bad Request", "its proxy answered 400"),
    ],
)
def test_a_proxy_that_refuses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, type: str, engine: str, status: str, why: str
) -> None:
    with listening(answers(status)) as way:
        more = f'proxy = "http://user:canary@{way}"'
        with served(tmp_path, type, engine, "https://api.example/v1", more) as proxy:
            answered = ask(proxy).error[2]
    assert answered == (
        f"the back end corp (api.example:443 by way of the proxy {way}) could not be reached: {why}"
    )
    assert f": {answered}" in failures(caplog)
    assert "canary" not in caplog.text


@pytest.mark.parametrize(("type", "engine"), ENGINES)
def test_a_proxy_that_is_not_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, type: str, engine: str
) -> None:
    way = f"127.0.0.1:{unused_port()}"
    with served(tmp_path, type, engine, "https://api.example", f'proxy = "http://{way}"') as proxy:
        answered = ask(proxy).error[2]
    assert answered == (
        f"the back end corp (api.example:443 by way of the proxy {way}) could not be reached, nor could its "
        "proxy: connection refused"
    )
    assert f": {answered}" in failures(caplog)


TEAM = '[teams.payments]\nkeys = { name = "laptop", key = "env:KEY" }\n'


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(TEAM, id="of teams"),
        pytest.param(f"{TEAM}[server]\nrequire_key = false\n", id="of teams, for those who have one"),
        pytest.param('[server]\nadmin_keys = { name = "ops", key = "env:KEY" }\n', id="of admins"),
        pytest.param("[server]\nrequire_key = true\n", id="required"),
    ],
)
@pytest.mark.parametrize(("type", "engine"), ENGINES)
def test_where_there_are_keys_addresses_are_for_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, type: str, engine: str, keys: str
) -> None:
    address = f"127.0.0.1:{unused_port()}"
    environ = {"KEY": "secret"}
    if "require_key = true" in keys:
        keys, environ = "", {"ANTHROPIC_AUTH_TOKEN": "secret"}
    rules = RULES.format(type=type, engine=engine, url=f"http://{address}/secret-path", more="")
    with running(rules + keys, tmp_path, environ) as proxy:
        shown = {} if "admin" in keys else {"x-api-key": "secret"}
        reply = ask(proxy, headers=shown)
        assert reply.error[2] == "the back end corp could not be reached: connection refused"
        assert address not in f"{reply.headers}{reply.body!r}"
        counted = proxy.post({"model": "m", "messages": []}, "/v1/messages/count_tokens", **shown)
        assert address not in f"{counted.headers}{counted.text}"
    assert f": the back end corp ({address}) could not be reached: connection refused" in failures(caplog)
    assert "secret-path" not in caplog.text


def unused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def failures(log: pytest.LogCaptureFixture) -> str:
    return "\n".join(one.getMessage() for one in log.records if one.name == "routeproxy.upstream.chain")


# --- each cause, through each library


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def certificate(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    return error


def tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] of OpenSSL's (_ssl.c:1)")
    error.reason = reason
    return error


CAUSES = [
    (os_error(errno.ECONNREFUSED), "connection refused"),
    (os_error(errno.ECONNRESET), "the connection was reset"),
    (ConnectionResetError(), "the connection was reset"),
    (os_error(errno.ETIMEDOUT), "nothing answers at its address"),
    (os_error(errno.ENETUNREACH), "there is no way to its network"),
    (os_error(errno.EHOSTUNREACH), "there is no way to its host"),
    (os_error(errno.EAFNOSUPPORT), "this machine can't use addresses of its family"),
    (os_error(errno.EADDRNOTAVAIL), "this machine has no address to ask from"),
    (os_error(errno.EMFILE), "no file descriptor is left on this machine"),
    (os_error(errno.EPERM), "this machine does not allow it"),
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "there is no such name"),
    (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "no name server answers"),
    (socket.gaierror(socket.EAI_FAIL, "Non-recoverable"), "its name could not be looked up"),
    (socket.gaierror(socket.EAI_FAMILY, "x"), "its name has no address that this machine can use"),
    (certificate(10), "its certificate has expired"),
    (certificate(9), "its certificate is not valid yet"),
    (certificate(18), "its certificate is not trusted (`ca_file` names whom to trust)"),
    (certificate(20), "its certificate is not trusted (`ca_file` names whom to trust)"),
    (certificate(62), "its certificate is for another name"),
    (certificate(64), "its certificate is for another name"),
    (tls("WRONG_VERSION_NUMBER"), "what answers there does not speak TLS"),
    (tls("TLSV1_ALERT_PROTOCOL_VERSION"), "it speaks no version of TLS that is safe"),
    (tls("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "it wants a certificate of its client"),
    (tls("SOMETHING_NEW"), "the TLS handshake failed"),
    (
        OSError("Multiple exceptions: [Errno 101] Connect call failed, [Errno 111] Connect call failed"),
        "there is no way to its network, connection refused",
    ),
    (OSError("who knows"), None),
    (ValueError("[Errno 111]"), None),
]


def caused(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


LIBRARIES: dict[str, Callable[[BaseException], BaseException]] = {
    "bare": lambda error: error,
    "aiohttp": lambda error: (
        aiohttp.ClientConnectorError(None, error)  # type: ignore[arg-type]
        if isinstance(error, OSError)
        else caused(aiohttp.ClientError(), error)
    ),
    "httpx": lambda error: caused(
        httpx.ConnectError("All connection attempts failed"), caused(httpcore.ConnectError(), error)
    ),
    "requests": lambda error: caused(
        requests.exceptions.ConnectionError("x"),
        caused(urllib3.exceptions.MaxRetryError(None, "/", None), error),  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize(("error", "words"), CAUSES, ids=lambda one: one if isinstance(one, str) else None)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_cause_has_words_of_its_own(library: str, error: BaseException, words: str | None) -> None:
    assert cause_of(LIBRARIES[library](error)) == words


def test_causes_that_lead_to_each_other_end() -> None:
    one, other = ValueError(), ValueError()
    one.__cause__, other.__cause__ = other, one
    assert cause_of(one) is None
