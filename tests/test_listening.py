"""Where a server may listen, and what is said of an address that is none: who stated it, what it is, what to
write."""

import errno
import os
import socket

import pytest

from routeproxy.listening import Address, Origin, check_address, listen, resolve, url_of

FLAG = Origin("--host")
EXPECTED = "expected an address of this machine, as 127.0.0.1 or ::1, or 0.0.0.0 for all of them"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "0.0.0.0", "::", "::1", "fe80::1%eth0", "localhost", "my_host.lan"]
)
def test_an_address_or_a_name_is_one(host: str) -> None:
    check_address(Address(host, 8082, FLAG))


@pytest.mark.parametrize(
    ("host", "words"),
    [
        pytest.param("", f"--host is empty: {EXPECTED}", id="empty"),
        pytest.param("  ", f"--host is empty: {EXPECTED}", id="blank"),
        pytest.param(
            "http://127.0.0.1:80",
            "--host is `http://127.0.0.1:80`, a URL: write --host 127.0.0.1 and --port 80",
            id="URL",
        ),
        pytest.param("https://box", "--host is `https://box`, a URL: write --host box", id="URL with a name"),
        pytest.param("http://", f"--host is `http://`, a URL: {EXPECTED}", id="URL of nobody"),
        pytest.param("http://[::1", f"--host is `http://[::1`, a URL: {EXPECTED}", id="half a URL"),
        pytest.param(
            "http://256.1.1.1", f"--host is `http://256.1.1.1`, a URL: {EXPECTED}", id="URL of no address"
        ),
        pytest.param(
            "1.2.3.4:80",
            "--host is `1.2.3.4:80`, an address with a port: write --host 1.2.3.4 and --port 80",
            id="with a port",
        ),
        pytest.param(
            "[::1]:80",
            "--host is `[::1]:80`, an address with a port: write --host ::1 and --port 80",
            id="IPv6 with a port",
        ),
        pytest.param("[::1]", "--host is `[::1]`, an address in brackets: write --host ::1", id="brackets"),
        pytest.param(
            "10.0.0.0/8", "--host is `10.0.0.0/8`, an address with a path or a mask: write --host 10.0.0.0",
            id="mask",
        ),
        pytest.param("8082", "--host is `8082`, a number: write --port 8082", id="port"),
        pytest.param("80820", f"--host is `80820`, a number: {EXPECTED}", id="number"),
        pytest.param("*", "--host is `*`, no address: write --host 0.0.0.0", id="all"),
        pytest.param(
            "256.1.1.1",
            f"--host is `256.1.1.1`, no IPv4 address, which has four numbers from 0 to 255: {EXPECTED}",
            id="256",
        ),
        pytest.param(
            "127.1",
            f"--host is `127.1`, no IPv4 address, which has four numbers from 0 to 255: {EXPECTED}",
            id="short",
        ),
        pytest.param("::g", f"--host is `::g`, no IPv6 address: {EXPECTED}", id="no IPv6"),
        pytest.param("a b", f"--host is `a b`, neither an address nor a name: {EXPECTED}", id="blank in it"),
        pytest.param(
            " ::1", f"--host is ` ::1`, no IPv6 address: {EXPECTED}", id="blank first"
        ),
        pytest.param("-x", f"--host is `-x`, neither an address nor a name: {EXPECTED}", id="hyphen"),
        pytest.param(
            "a" * 64, f"--host is `{'a' * 64}`, neither an address nor a name: {EXPECTED}", id="64 letters"
        ),
        pytest.param("a..b", f"--host is `a..b`, neither an address nor a name: {EXPECTED}", id="two dots"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_called_what_it_is(host: str, words: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        listen(Address(host, 8082, FLAG))
    assert str(refused.value) == words


@pytest.mark.parametrize(
    ("origin", "written"),
    [
        pytest.param(FLAG, "--host is `1.2.3.4:80`", id="flag"),
        pytest.param(Origin("HOST", "variable"), "write HOST=1.2.3.4 and PORT=80", id="variable"),
        pytest.param(Origin("HOST in .env", "variable"), "HOST in .env is `1.2.3.4:80`", id=".env"),
        pytest.param(
            Origin("[server] host of rules.toml", "key"), 'write host = "1.2.3.4" and port = 80', id="file"
        ),
    ],
)
def test_it_is_said_who_stated_it_and_what_to_write_there(origin: Origin, written: str) -> None:
    with pytest.raises(ValueError, match="an address with a port") as refused:
        check_address(Address("1.2.3.4:80", 8082, origin))
    assert written in str(refused.value)


@pytest.mark.parametrize("name", ["no.such.host.invalid", "xn--0"])
def test_a_name_without_an_address_is_called_that(name: str) -> None:
    with pytest.raises(OSError, match=f"--host is `{name}`, a name that this machine can't find an address"):
        resolve(Address(name, 0, FLAG))


def test_an_address_of_another_machine_is_called_that() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 203\.0\.113\.9:0 \(--host\): 203\.0\.113\.9 is no"):
        listen(Address("203.0.113.9", 0, FLAG))


def test_a_port_that_is_taken_is_called_that_and_who_stated_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port} \(PORT in \.env\): another program has it"):
            listen(Address("127.0.0.1", port, port_from=Origin("PORT in .env", "variable")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may take any port")
def test_a_port_below_1024_is_for_others() -> None:
    with pytest.raises(OSError, match="ports below 1024"):
        listen(Address("127.0.0.1", 1))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "ports below 1024 are kept for programs with more rights"),
        (errno.EAFNOSUPPORT, "this machine has no IPv6"),
        (errno.EMFILE, os.strerror(errno.EMFILE)),
    ],
)
def test_what_the_system_refuses_is_said_in_words(
    number: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "as the system says it")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(OSError, match=words):
        listen(Address("127.0.0.1", 1))


def test_all_addresses_of_ipv6_are_those_of_ipv4_too() -> None:
    with listen(Address("::", 0)) as sock:
        socket.create_connection(("127.0.0.1", sock.getsockname()[1])).close()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("box.lan", "http://box.lan:80"),
    ],
)
def test_the_url_is_one_that_this_machine_can_open(host: str, url: str) -> None:
    assert url_of(host, 80) == url
