"""Who may ask a server that asks for no key: nobody by another's name, and no page of another site. A page
that somebody opens must not get at a back end that their keys pay for."""

import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.problems import RulesRefused
from tests.budgets import seconds
from tests.running import ECHO, Running, connect, receive_until, request, request_bytes, running, until
from tests.wire.test_bodies_that_come_late import Answer, edited

RULES = f"""
[server]
hosts = ["routeproxy", "Proxy.Corp.example."]
url_targets = true

{ECHO}
"""
NO_KEY = "this server, which asks for no key,"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(RULES, tmp_path_factory.mktemp("no-keys")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def with_pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    rules = RULES.replace("[server]", '[server]\ncors_origins = ["https://tools.example"]')
    with running(rules, tmp_path_factory.mktemp("pages")) as proxy:
        yield proxy


def ask(
    proxy: Running,
    *lines: str,
    path: str = "/v1/messages",
    method: str = "POST",
    version: str = "1.1",
    body: object = None,
) -> Answer:
    """Over a bare connection, with these header lines and no other."""
    content = b"" if method in ("GET", "HEAD", "OPTIONS") else request_bytes(body or request())
    content = content.partition(b"\r\n\r\n")[2]
    head = [f"{method} {path} HTTP/{version}", *lines, f"Content-Length: {len(content)}", "Connection: close"]
    with connect(proxy.url) as wire:
        wire.sendall("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + content)
        return Answer(receive_until(wire))


# --- the host


OWN = [
    "localhost",
    "localhost:8082",
    "LocalHost:1",
    "localhost.",
    "localhost:",
    "app.localhost:8082",
    "a.b.localhost",
    "127.0.0.1",
    "127.0.0.1:8082",
    "127.1",
    "0.0.0.0:8082",
    "192.168.1.20:8082",
    "203.0.113.7",
    "[::1]",
    "[::1]:8082",
    "[::ffff:127.0.0.1]:8082",
    "[fe80::1%25eth0]:8082",
    "routeproxy",
    "routeproxy:8082",
    "RouteProxy:80",
    "routeproxy.",
    "proxy.corp.example",
]


@pytest.mark.parametrize("host", OWN)
def test_a_server_without_keys_answers_to_its_own_names_and_to_addresses(proxy: Running, host: str) -> None:
    assert ask(proxy, f"Host: {host}").status == 200


OTHERS = [
    "evil.example",
    "evil.example:8082",
    "localhost.evil.example",
    "evillocalhost",
    "notlocalhost:8082",
    "127.0.0.1.evil.example",
    "127.0.0.1.nip.io:8082",
    "routeproxy.evil.example",
    "x.routeproxy",
    "corp.example",
    "host.docker.internal:8082",
]


@pytest.mark.parametrize("host", OTHERS)
def test_a_server_without_keys_refuses_names_that_are_not_its_own(proxy: Running, host: str) -> None:
    name = host.partition(":")[0]
    answer = ask(proxy, f"Host: {host}")
    assert answer.status == 403
    assert answer.json["error"] == {
        "type": "permission_error",
        "message": f"Host `{name}`: {NO_KEY} answers to localhost, to IP addresses and to the names in its "
        f'rules. If this is one, write `hosts = ["{name}"]` under [server], or have clients show a key, such '
        "as ANTHROPIC_AUTH_TOKEN",
    }
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["request-id"] == answer.json["request_id"]


@pytest.mark.parametrize(
    "host",
    [
        "user@localhost",
        "localhost@evil.example",
        "localhost:8082@evil.example",
        "localhost:80:90",
        "localhost:port",
        "[::1",
        "::1]",
        "[localhost]",
        "[127.0.0.1]",
        "localhost, evil.example",
        "localhost evil.example",
        "b\xfccher.example",
        "localhost..",
        ".localhost",
        "http://localhost",
        "localhost/",
        "",
        '"]`',
    ],
)
def test_what_is_no_host_is_refused(proxy: Running, host: str) -> None:
    status, message = ask(proxy, f"Host: {host}").error
    assert status == 403
    assert message.endswith("can't be read as a name or an address, and a port")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/messages",
        "/v1/messages?beta=true",
        "/v1/messages/count_tokens",
        "/v1/route",
        "/v1/models",
        "/v1/models/claude-sonnet-5",
        "/echo:m/v1/messages",
        "/echo:m",
        "/api/hello",
        "/api/event_logging/batch",
        "/-/status",
        "/-/reload",
        "/not/here",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_is_told_to_another_host_whatever_is_asked(proxy: Running, path: str, method: str) -> None:
    assert ask(proxy, "Host: evil.example", path=path, method=method).status == 403
    assert ask(proxy, "Host: localhost", path=path, method=method).status != 403


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize(
    "lines",
    [
        ("Host: a-pod.of.some.cluster",),
        (),
        ("Host: a", "Origin: https://b", "Sec-Fetch-Site: cross-site"),
    ],
)
def test_probes_are_answered_by_any_name(proxy: Running, path: str, lines: tuple[str, ...]) -> None:
    assert ask(proxy, *lines, path=path, method="GET").status == 200


@pytest.mark.parametrize(
    ("lines", "version", "problem"),
    [
        pytest.param((), "1.1", "expected one Host header, there is none", id="none"),
        pytest.param(
            ("Host: localhost", "Host: evil.example"),
            "1.1",
            "expected one Host header, there are several",
            id="two",
        ),
        pytest.param(
            ("Host: localhost", "host: localhost"),
            "1.1",
            "expected one Host header, there are several",
            id="twice",
        ),
        pytest.param((), "1.0", None, id="none, as HTTP/1.0 may"),
        pytest.param(("Host: localhost",), "1.0", None, id="HTTP/1.0"),
    ],
)
def test_one_host_is_expected(
    proxy: Running, lines: tuple[str, ...], version: str, problem: str | None
) -> None:
    answer = ask(proxy, *lines, version=version)
    assert (answer.status, answer.json.get("error", {}).get("message")) == (403 if problem else 200, problem)


def test_http_1_0_with_another_host_is_refused(proxy: Running) -> None:
    assert ask(proxy, "Host: evil.example", version="1.0").status == 403


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        pytest.param("http://localhost:8082/v1/messages", "evil.example", 200, id="ours in the target"),
        pytest.param("http://evil.example/v1/messages", "localhost", 403, id="another's in the target"),
        pytest.param("HTTP://evil.example/v1/messages", "localhost", 403, id="in capitals"),
        pytest.param("http://user@localhost/v1/messages", "localhost", 403, id="with a user"),
        pytest.param("http://evil.example/v1/messages?x=http://localhost/", "localhost", 403, id="a query"),
    ],
)
def test_the_host_of_an_absolute_target_is_the_one_that_counts(
    proxy: Running, target: str, host: str, status: int
) -> None:
    assert ask(proxy, f"Host: {host}", path=target).status == status


def test_a_connection_outlives_a_refusal_whose_body_nobody_reads(proxy: Running) -> None:
    with httpx.Client(base_url=proxy.url, timeout=seconds(30)) as client:
        for _ in range(2):
            refused = client.post("/v1/messages", json=request("x" * 2**22), headers={"host": "evil.example"})
            assert refused.status_code == 403
            assert client.post("/v1/messages", json=request()).status_code == 200


def test_what_a_proxy_says_of_the_host_is_not_believed(proxy: Running) -> None:
    forged = ("X-Forwarded-Host: localhost", "Forwarded: host=localhost", "X-Host: localhost")
    assert ask(proxy, "Host: evil.example", *forged).status == 403
    assert ask(proxy, "Host: localhost", "X-Forwarded-Host: evil.example").status == 200


def test_a_refusal_is_logged_once_with_what_to_write(
    proxy: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            ask(proxy, "Host: compose-name:8082")
    lines = [line for line in caplog.messages if "compose-name" in line]
    assert len(lines) == 1
    assert 'write `hosts = ["compose-name"]` under [server]' in lines[0]


def test_a_page_cannot_fill_the_log(proxy: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for number in range(150):
            assert ask(proxy, f"Host: n{number}.evil.example", path="/", method="GET").status == 403
    assert len([line for line in caplog.messages if ".evil.example" in line]) <= 100


def test_hosts_take_effect_at_once(tmp_path: Path) -> None:
    with running(f"[server]\nport = 0\n{ECHO}", tmp_path) as proxy:
        assert ask(proxy, "Host: routeproxy:8082").status == 403
        edited(proxy, ("port = 0", 'port = 0\nhosts = ["routeproxy"]'))()
        assert ask(proxy, "Host: routeproxy:8082").status == 200
        edited(proxy, ('hosts = ["routeproxy"]', 'hosts = ["other"]'))()
        assert ask(proxy, "Host: routeproxy:8082").status == 403


@pytest.mark.parametrize("named", ["proxy-host", "Proxy-Host"])
def test_a_name_that_the_server_was_told_to_listen_on_is_its_own(tmp_path: Path, named: str) -> None:
    with running(ECHO, tmp_path, host=named) as proxy:
        assert ask(proxy, "Host: proxy-host:8082").status == 200
        assert ask(proxy, "Host: other-host:8082").status == 403


# --- pages of other sites


def page(origin: str, site: str = "cross-site", mode: str = "cors", dest: str = "empty") -> tuple[str, ...]:
    """What a browser writes for a page of this origin."""
    lines = (f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}", f"Sec-Fetch-Dest: {dest}")
    return (f"Origin: {origin}", *lines) if origin else lines


REFUSED = [
    pytest.param(page("https://evil.example"), id="fetch"),
    pytest.param(
        (*page("https://evil.example", mode="no-cors"), "Content-Type: text/plain"), id="no preflight"
    ),
    pytest.param(("Origin: https://evil.example",), id="an old browser"),
    pytest.param(("Origin: null",), id="a file, or a sandboxed frame"),
    pytest.param(page("null"), id="the same, in a new browser"),
    pytest.param(page("https://evil.example", mode="navigate", dest="document"), id="a form"),
    pytest.param(page("http://localhost:3000", "same-site"), id="another port of this machine"),
    pytest.param(("Origin: http://localhost:3000",), id="the same, in an old browser"),
    pytest.param(page("http://localhost", "same-site"), id="the usual port"),
    pytest.param(page("http://127.0.0.1:8082", "cross-site"), id="another name of this machine"),
    pytest.param(page("http://x.localhost:8082", "same-site"), id="a name below ours"),
    pytest.param(page("", mode="no-cors", dest="image"), id="an image"),
    pytest.param(page("", "same-site", "no-cors", "script"), id="a script"),
    pytest.param(page("", mode="navigate", dest="iframe"), id="a frame"),
    pytest.param(("Sec-Fetch-Site: cross-site",), id="one word"),
    pytest.param(("Sec-Fetch-Site: something-new",), id="a word that nobody knows"),
    pytest.param(("Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"), id="two words"),
    pytest.param(("Origin: http://localhost:8082", "Origin: https://evil.example"), id="two origins"),
    pytest.param(page("chrome-extension://abcdefgh", "none"), id="an extension"),
    pytest.param(("Origin: http://localhost:8082/",), id="no origin at all"),
    pytest.param(("Origin: ",), id="an empty one"),
    pytest.param(("Origin: localhost:8082",), id="without a scheme"),
    pytest.param(("Origin: https://tools.example.evil",), id="a name that begins alike"),
]


@pytest.mark.parametrize("lines", REFUSED)
@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/messages/count_tokens", "/echo:m/v1/messages", "/v1/route"]
)
def test_no_page_of_another_site_may_ask(proxy: Running, lines: tuple[str, ...], path: str) -> None:
    answer = ask(proxy, "Host: localhost:8082", *lines, path=path)
    assert (answer.status, answer.json["error"]["type"]) == (403, "permission_error")
    assert "cors_origins" in answer.json["error"]["message"]
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("lines", REFUSED)
def test_with_cors_origins_other_pages_still_may_not(with_pages: Running, lines: tuple[str, ...]) -> None:
    answer = ask(with_pages, "Host: localhost:8082", *lines)
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/v1/models", "/-/status", "/api/hello", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "HEAD"])
def test_not_even_what_costs_nothing(proxy: Running, path: str, method: str) -> None:
    preflight = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-api-key")
    lines = ("Host: localhost:8082", *page("https://evil.example"), *preflight)
    sent = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "Connection: close"]) + "\r\n\r\n"
    with connect(proxy.url) as wire:
        wire.sendall(sent.encode())
        head = receive_until(wire).partition(b"\r\n\r\n")[0].lower()
    assert head.startswith(b"http/1.1 403 ")
    assert b"access-control-allow" not in head


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((), id="no browser"),
        pytest.param(("Sec-Fetch-Mode: cors",), id="Node"),
        pytest.param(page("", "none", "navigate", "document"), id="a typed address"),
        pytest.param(page("http://localhost:8082", "same-origin"), id="a page of ours"),
        pytest.param(page("", "same-origin"), id="a page of ours, GET"),
        pytest.param(("Origin: http://localhost:8082",), id="a page of ours, in an old browser"),
        pytest.param(("Origin: http://LOCALHOST:8082",), id="in capitals"),
        pytest.param(("Origin: https://localhost:8082",), id="TLS ends in front"),
        pytest.param(("Referer: https://evil.example/",), id="a referrer says nothing"),
        pytest.param(("Content-Type: text/plain",), id="curl"),
    ],
)
def test_own_pages_and_programs_may(proxy: Running, lines: tuple[str, ...]) -> None:
    assert ask(proxy, "Host: localhost:8082", *lines).status == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost", "http://localhost"),
        ("localhost", "http://localhost:80"),
        ("localhost:80", "http://localhost"),
        ("localhost", "https://localhost"),
        ("[::1]:8082", "http://[::1]:8082"),
        ("[0:0::1]:8082", "http://[::1]:8082"),
        ("192.168.1.5:8082", "http://192.168.1.5:8082"),
        ("routeproxy:8082", "http://routeproxy:8082"),
    ],
)
def test_a_page_is_ours_if_it_came_from_the_host_that_is_asked(
    proxy: Running, host: str, origin: str
) -> None:
    assert ask(proxy, f"Host: {host}", f"Origin: {origin}").status == 200


def test_a_page_of_a_name_that_was_made_to_lead_here_is_refused(proxy: Running) -> None:
    """DNS rebinding: for the browser it is all one origin."""
    rebound = page("http://evil.example:8082", "same-origin")
    assert ask(proxy, "Host: evil.example:8082", *rebound).status == 403


def test_a_link_from_elsewhere_may_be_followed(proxy: Running) -> None:
    """Whoever wrote it sees nothing of where it leads."""
    link = page("", "cross-site", "navigate", "document")
    assert ask(proxy, "Host: localhost:8082", *link, path="/", method="GET").status == 200
    assert ask(proxy, "Host: localhost:8082", *link, path="/api/event_logging/batch").status == 403


def test_a_page_that_the_rules_name_may_ask(with_pages: Running) -> None:
    answer = ask(with_pages, "Host: localhost:8082", *page("https://tools.example"))
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://tools.example")
    # It may still not ask by another name than the server's own.
    assert ask(with_pages, "Host: evil.example", *page("https://tools.example")).status == 403


def test_a_star_names_every_page(tmp_path: Path) -> None:
    rules = RULES.replace("[server]", '[server]\ncors_origins = ["*"]')
    with running(rules, tmp_path) as proxy:
        for lines in (page("https://any.example"), page("null"), page("", mode="no-cors", dest="image")):
            assert ask(proxy, "Host: localhost", *lines).status == 200
        assert ask(proxy, "Host: evil.example", *page("http://evil.example", "same-origin")).status == 403


# --- servers with keys


KEYED = [
    pytest.param(ECHO, {"ANTHROPIC_AUTH_TOKEN": "k"}, "k", id="a token"),
    pytest.param(f'[teams.a]\nkeys = "env:KEY"\n{ECHO}', {"KEY": "k"}, "k", id="a team"),
]


@pytest.mark.parametrize(("rules", "environ", "key"), KEYED)
def test_where_a_key_is_needed_the_key_is_all(
    tmp_path: Path, rules: str, environ: dict[str, str], key: str
) -> None:
    with running(rules, tmp_path, environ) as proxy:
        lines = ("Host: any.name", *page("https://any.example"))
        assert ask(proxy, *lines, f"X-Api-Key: {key}").status == 200
        assert ask(proxy, *lines).status == 401


def test_where_a_key_is_optional_strangers_pages_are_kept_out(tmp_path: Path) -> None:
    rules = f'[server]\nrequire_key = false\n[teams.a]\nkeys = "env:KEY"\n{ECHO}'
    with running(rules, tmp_path, {"KEY": "k"}) as proxy:
        assert ask(proxy, "Host: evil.example").status == 403
        assert ask(proxy, "Host: localhost", *page("https://evil.example")).status == 403
        assert ask(proxy, "Host: localhost").status == 200


def test_admin_keys_alone_leave_a_server_without_keys(tmp_path: Path) -> None:
    with running(f'[server]\nadmin_keys = "env:ADMIN"\n{ECHO}', tmp_path, {"ADMIN": "a"}) as proxy:
        assert ask(proxy, "Host: evil.example").status == 403
        assert ask(proxy, "Host: evil.example", "X-Api-Key: a", path="/-/status", method="GET").status == 403
        assert ask(proxy, "Host: localhost", "X-Api-Key: a", path="/-/status", method="GET").status == 200


def test_a_token_that_is_set_later_opens_to_every_name_and_back(tmp_path: Path) -> None:
    with running(ECHO, tmp_path) as proxy:
        assert ask(proxy, "Host: any.name").status == 403
        (tmp_path / ".env").write_text("ANTHROPIC_AUTH_TOKEN=k\n")
        until(lambda: ask(proxy, "Host: any.name").status == 401, 5)
        (tmp_path / ".env").write_text("")
        until(lambda: ask(proxy, "Host: any.name", "X-Api-Key: k").status == 403, 5)


# --- what the rules may say


@pytest.mark.parametrize(
    ("host", "words"),
    [
        pytest.param("routeproxy:8082", "has a port: a name counts at every port", id="a port"),
        pytest.param("http://routeproxy", "is an address, not a name", id="a scheme"),
        pytest.param("routeproxy/v1", "is an address, not a name", id="a path"),
        pytest.param("*", "has a wildcard: each name is written out", id="anything"),
        pytest.param("*.corp.example", "has a wildcard: each name is written out", id="a wildcard"),
        pytest.param(
            "b\xfccher.example", "is not how requests have it, which is `xn--bcher-kva.example`", id="IDN"
        ),
        pytest.param("user@routeproxy", "can't be the name of a host", id="a user"),
        pytest.param("route proxy", "can't be the name of a host", id="a blank"),
        pytest.param(" routeproxy", "can't be the name of a host", id="a blank in front"),
        pytest.param("a..b", "can't be the name of a host", id="an empty label"),
        pytest.param("x" * 64, "can't be the name of a host", id="a label that is too long"),
        pytest.param("a:b:c", "can't be the name of a host", id="colons"),
        pytest.param("\u2024", "can't be the name of a host", id="no name in any language"),
    ],
)
def test_an_entry_that_no_request_can_have_is_an_error(host: str, words: str) -> None:
    with pytest.raises(RulesRefused) as refused:
        compile_rules(f'[server]\nhosts = ["ok", "{host}"]\n{ECHO}', path=Path("rules.toml"), environ={})
    (problem,) = refused.value.problems
    assert str(problem).startswith(f"rules.toml:2:16: error RP003: `{host}` {words}")
    assert problem.expected == 'a name alone, as clients have it in their base URL: `"routeproxy"`'


@pytest.mark.parametrize("host", ["localhost", "x.localhost", "127.0.0.1", "::1", "[::1]", "10.0.0.7"])
def test_an_entry_that_needs_no_saying_is_a_warning(host: str) -> None:
    policy = compile_rules(f'[server]\nhosts = ["{host}"]\n{ECHO}', path=Path("rules.toml"), environ={})
    (warning,) = policy.warnings
    assert (warning.code, warning.message) == ("RP104", f"a server always answers to `{host}`")


@pytest.mark.parametrize("hosts", ['""', "[]", '[""]', '"routeproxy"', "[1]"])
def test_hosts_is_a_list_of_names(hosts: str) -> None:
    with pytest.raises(RulesRefused, match=r"`hosts`|is empty"):
        compile_rules(f"[server]\nhosts = {hosts}\n{ECHO}", path=Path("rules.toml"), environ={})
