"""Addresses, proxies and headers that can't be are found when the rules are read; those that can be pass."""

import pytest

from routeproxy.policy.compile.connections import header_problem, proxy_problem, url_problem


@pytest.mark.parametrize(
    "url",
    [
        "http://h/v1",
        "HTTP://h/v1",
        "https://h.example:8443/v1/",
        "http://127.0.0.1:11434",
        "http://[::1]:8000/v1",
        "http://[fe80::1%eth0]/v1",
        "http://my_service/v1",
        "http://h.example./v1",
        "http://münchen.example/v1",
        "http://4090.lan/v1",
    ],
)
def test_an_address_that_can_be_asked_is_one(url: str) -> None:
    assert url_problem(url) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://h/v1/chat/completions/", "whole endpoint"),
        ("http://h/v1/Responses", "whole endpoint"),
        ("http://h/v1 ", "blank"),
        ("http://h/v1\u00a0", "blank"),
        ("http://h/v1\n", "blank"),
        (f"http://{'a' * 64}.example/v1", "too long"),
        (f"http://{'a.' * 130}example/v1", "too long"),
        ("h/v1", "not an address"),
        ("//h/v1", "not an address"),
        ("ftp://h/v1", "not an address"),
        ("http:///v1", "not an address"),
        ("http://h:65536/v1", "port"),
        ("http://h:0/v1", "port 0"),
        ("http://h:/v1", "without a port"),
        ("https://https://h/v1", "without a port"),
        ("http://u:p@h/v1", "password"),
        ("http://@h/v1", "password"),
        ("http://h/v1#f", "part"),
        ("http://h/v1#", "part"),
        ("http://h/v1?", "part"),
        ("http://h\\v1", "`\\`"),
        ("http://h..x/v1", "can't be one"),
        ("http://h-/v1", "can't be one"),
        ("http://256.1.1.1/v1", "no IPv4 address"),
        ("http://1.2.3/v1", "no IPv4 address"),
        ("http://{host}/v1", "can't be one"),
    ],
)
def test_an_address_that_cannot_be_asked_is_none(url: str, words: str) -> None:
    assert words in (url_problem(url) or "")


@pytest.mark.parametrize("url", ["http://proxy:8080", "https://proxy", "http://u:p@proxy:1/"])
def test_a_proxy_that_can_be_used_is_one(url: str) -> None:
    assert proxy_problem(url) is None


@pytest.mark.parametrize(
    "url", ["proxy:8080", "proxy", "socks5://p:1", "SOCKS4a://p", "http://p:1/x", "http://p:99999", "env:P"]
)
def test_a_proxy_that_cannot_be_used_is_none(url: str) -> None:
    assert proxy_problem(url)


@pytest.mark.parametrize(
    "value", ["Bearer key", "a env b", "profile:a", "text/plain; q=1", "$5", "US$", "100%", "$x"]
)
def test_a_header_that_can_be_sent_is_one(value: str) -> None:
    assert header_problem("X-A", value, refers=False) is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TE", "trailers", "belongs to a connection"),
        ("proxy-Authenticate", "x", "belongs to a connection"),
        ("X-A", "Bearer env:KEY", "`env:KEY` is sent as it stands"),
        ("X-A", "Bearer_ENV:KEY", "`ENV:KEY` is sent as it stands"),
        ("X-A", "file:/key", "`file:/key` is sent as it stands"),
        ("X-A", "Bearer ${KEY}", "`${KEY}` is sent as it stands"),
        ("X-A", "Bearer $OUR_KEY", "`$OUR_KEY` is sent as it stands"),
        ("X-A", "%OUR_KEY%", "`%OUR_KEY%` is sent as it stands"),
        ("X-A", "{{ our_key }}", "`{{ our_key }}` is sent as it stands"),
        ("Accept-Encoding", "br", "how the bytes of a body travel"),
        ("content-encoding", "gzip", "how the bytes of a body travel"),
        ("X-A", "a\r\nb: c", "one line"),
    ],
)
def test_a_header_that_cannot_be_sent_is_none(name: str, value: str, words: str) -> None:
    assert words in (header_problem(name, value, refers=False) or "")


def test_a_header_that_is_not_ascii_is_one_but_for_litellm() -> None:
    assert header_problem("X-A", "Zürich", refers=False) is None
    assert "ASCII" in (header_problem("X-A", "Zürich", refers=False, ascii_only=True) or "")
