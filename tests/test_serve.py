"""`routeproxy serve` from its start to its first answer: what it prints, where it listens, what stops it from
starting."""

import json
import re
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest

from routeproxy.serve import startup_lines
from routeproxy.sources import Options, Sources
from tests.budgets import seconds
from tests.running import ECHO, request, serving, until

RULES = """\
[providers.echo]

[providers.claude]
type = "anthropic"
api_key = "env:CLAUDE_KEY"

[providers.corp]
type = "openai_compatible"
base_url = "https://llm.corp.example/v1"
api_key = "env:CORP_KEY"
zone = "private"

[default]
targets = ["echo/*", "claude/*", "corp/m"]
"""


def sources(
    folder: Path, text: str = ECHO, environ: dict[str, str] | None = None, **options: object
) -> Sources:
    path = folder / "rules.toml"
    path.write_text(text)
    return Sources(Options(rules=path, **options), environ or {})  # type: ignore[arg-type]


def start_up(where: Sources, host: str = "127.0.0.1", port: int = 8082) -> str:
    return "\n".join(startup_lines(where.load(), host, port, where))


# --- what it says


def test_the_address_to_open_comes_first(tmp_path: Path) -> None:
    where = sources(tmp_path)
    assert start_up(where).splitlines()[0].endswith(": http://127.0.0.1:8082")
    assert start_up(where, "::1", 80).splitlines()[0].endswith(": http://[::1]:80")
    everywhere = start_up(where, "0.0.0.0", 80).splitlines()[0]
    assert everywhere.endswith(": http://127.0.0.1:80 (listening on all addresses, 0.0.0.0)")


@pytest.mark.parametrize(
    ("host", "port", "lines"),
    [
        pytest.param(
            "127.0.0.1", 8082,
            [
                "  start Claude Code with `routeproxy claude`, or with",
                "ANTHROPIC_BASE_URL=http://127.0.0.1:8082 ANTHROPIC_AUTH_TOKEN=anything claude",
            ],
            id="the default",
        ),
        pytest.param(
            "::1", 9000,
            [
                "  start Claude Code with `routeproxy claude --url http://[::1]:9000`, or with",
                "ANTHROPIC_BASE_URL='http://[::1]:9000' ANTHROPIC_AUTH_TOKEN=anything claude",
            ],
            id="elsewhere",
        ),
    ],
)  # fmt: skip
def test_it_ends_with_the_line_that_starts_claude_code(
    tmp_path: Path, host: str, port: int, lines: list[str]
) -> None:
    assert start_up(sources(tmp_path, RULES), host, port).splitlines()[-2:] == lines


TEAM = f'[teams.payments]\nkeys = ["env:PAYMENTS_KEY"]\n{ECHO}'
LOGIN = """\
[providers.anthropic]
api_key = "client"

[default]
targets = "anthropic/*"
"""


@pytest.mark.parametrize(
    ("text", "environ", "last"),
    [
        pytest.param(TEAM, {"PAYMENTS_KEY": "k" * 40}, "ANTHROPIC_AUTH_TOKEN=YOUR_KEY", id="keys of teams"),
        pytest.param(ECHO, {"ANTHROPIC_AUTH_TOKEN": "sesame"}, "ANTHROPIC_AUTH_TOKEN=YOUR_KEY", id="a token"),
        pytest.param(LOGIN, {}, "ANTHROPIC_BASE_URL=http://127.0.0.1:80", id="the client's own login"),
        pytest.param(
            LOGIN,
            {"ANTHROPIC_AUTH_TOKEN": "sesame"},
            "ANTHROPIC_CUSTOM_HEADERS='x-api-key: YOUR_KEY'",
            id="the client's own login, and a key",
        ),
    ],
)
def test_the_line_has_a_place_for_the_key_that_is_needed(
    tmp_path: Path, text: str, environ: dict[str, str], last: str
) -> None:
    assert start_up(sources(tmp_path, text, environ), port=80).endswith(f"{last} claude")


def test_it_names_the_rules_and_their_version(tmp_path: Path) -> None:
    where = sources(tmp_path)
    assert f"rules      {tmp_path}/rules.toml, version {where.load().version}, 0 rules" in start_up(where)


def test_it_names_providers_and_whether_their_key_is_set_but_never_the_key(tmp_path: Path) -> None:
    shown = start_up(sources(tmp_path, RULES, {"CORP_KEY": "sk-secret"}))
    assert "echo  echo  -  zone local  needs no key" in shown
    assert "claude  anthropic  https://api.anthropic.com  zone public  key env:CLAUDE_KEY is NOT SET" in shown
    assert (
        "corp  openai_compatible  https://llm.corp.example/v1  zone private  key env:CORP_KEY is set" in shown
    )
    assert "sk-secret" not in shown


def test_it_shows_the_warnings_of_the_rules(tmp_path: Path) -> None:
    text = RULES + '[teams.ops]\nkeys = ["env:OPS_KEY"]\n'
    assert "warning    " in (shown := start_up(sources(tmp_path, text)))
    assert "OPS_KEY" in shown.partition("warning    ")[2]


@pytest.mark.parametrize(
    ("host", "environ", "warned"),
    [
        ("127.0.0.1", {}, False),
        ("127.0.0.2", {}, False),
        ("::1", {}, False),
        ("localhost", {}, False),
        ("0.0.0.0", {}, True),
        ("192.168.1.7", {}, True),
        ("::", {}, True),
        ("0.0.0.0", {"ANTHROPIC_AUTH_TOKEN": "sesame"}, False),
    ],
)
def test_an_open_door_to_the_network_is_a_warning(
    tmp_path: Path, host: str, environ: dict[str, str], warned: bool
) -> None:
    assert ("anybody who can reach" in start_up(sources(tmp_path, ECHO, environ), host)) is warned


def test_the_clients_key_is_never_shown(tmp_path: Path) -> None:
    shown = start_up(sources(tmp_path, ECHO, {"ANTHROPIC_AUTH_TOKEN": "sesame"}))
    assert "clients    must show ANTHROPIC_AUTH_TOKEN" in shown
    assert "sesame" not in shown


# --- where it listens


@pytest.mark.parametrize(
    ("server", "environ", "flags", "address"),
    [
        pytest.param("", {}, {}, ("127.0.0.1", 8082), id="nobody says"),
        pytest.param("", {"HOST": "0.0.0.0", "PORT": "9000"}, {}, ("0.0.0.0", 9000), id="variables"),
        pytest.param(
            'host = "::1"\nport = 8000',
            {"HOST": "0.0.0.0", "PORT": "9"},
            {},
            ("::1", 8000),
            id="the file wins",
        ),
        pytest.param(
            "port = 8082", {"PORT": "9000"}, {}, ("127.0.0.1", 8082), id="the file states the default"
        ),
        pytest.param('host = "::1"', {"PORT": "9000"}, {}, ("::1", 9000), id="one from each"),
        pytest.param("port = 8000", {}, {"host": "::", "port": 0}, ("::", 0), id="flags win"),
    ],
)
def test_flags_win_then_the_file_then_variables(
    tmp_path: Path, server: str, environ: dict[str, str], flags: dict[str, object], address: tuple[str, int]
) -> None:
    where = sources(tmp_path, f"[server]\n{server}\n{ECHO}" if server else ECHO, environ, **flags)
    found = where.address(where.load())
    assert (found.host, found.port) == address


def test_without_rules_variables_say_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"PREFERRED_PROVIDER": "openai", "OPENAI_API_KEY": "k", "HOST": "0.0.0.0", "PORT": "9000"}
    where = Sources(Options(), environ)
    found = where.address(where.load())
    assert (found.host, found.port) == ("0.0.0.0", 9000)


def test_it_is_ready_soon(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(ECHO)
    started = time.monotonic()
    with serving(tmp_path, "--port", "0") as server:
        assert server.post(request()).status_code == 200
        print(f"ready after {time.monotonic() - started:.2f} s")


def test_the_rules_may_stand_bare_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(ECHO)
    with serving(tmp_path, "mine.toml", "--port", "0") as server:
        assert server.get("/").json()["rules"] == "mine.toml"
        # The port that it got, not the one that it was told.
        assert f"\nANTHROPIC_BASE_URL={server.url} ANTHROPIC_AUTH_TOKEN=anything claude\n" in server.stderr


def test_several_workers_say_once_how_to_start_claude_code(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(ECHO)
    with serving(tmp_path, "rules.toml", "--port", "0", "--workers", "2") as server:
        until(lambda: len(server.workers) == 2, 10)
        assert server.post(request()).status_code == 200
        assert server.stderr.count("ANTHROPIC_BASE_URL=") == 1


def test_rules_in_the_working_folder_are_found(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(ECHO)
    with serving(tmp_path, "--port", "0", "--log-level", "debug", "--reload") as server:
        assert server.get("/").json()["rules"] == "rules.toml"
        assert server.post(request()).status_code == 200
        until(lambda: "POST /v1/messages 200" in server.stderr)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(("flags", "environ"), [(["--log-format", "json"], {}), ([], {"LOG_FORMAT": "json"})])
def test_with_json_all_that_is_said_is_json(
    tmp_path: Path, flags: list[str], environ: dict[str, str], workers: str
) -> None:
    (tmp_path / "rules.toml").write_text(ECHO)
    flags = ["--port", "0", "--workers", workers, *flags]
    with serving(tmp_path, *flags, environ={"LOG_LEVEL": "WARNING", **environ}) as server:
        address = until(lambda: re.search(r"http://[\d.:]+", server.stderr), 10)
        assert address is not None
        with httpx.Client(timeout=seconds(30)) as client:
            client.post(f"{address[0]}/v1/messages", json=request())
        (tmp_path / "rules.toml").write_text("rubbish")
        until(lambda: "were not reloaded" in server.stderr, 5)
        server.send_signal(signal.SIGTERM)
        assert server.exit_code(10) == 0
    lines = [json.loads(line) for line in server.stderr.splitlines()]
    assert lines[0]["message"].startswith("routeproxy ")
    assert {line["logger"] for line in lines} == {"routeproxy.serve", "routeproxy.policy.live"}


# --- what stops it


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(ECHO)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with serving(tmp_path, "--port", str(port)) as server:
            assert server.exit_code() == 2
            assert f"cannot listen on 127.0.0.1:{port} (--port): another program has it" in server.stderr
            assert "Traceback" not in server.stderr


@pytest.mark.parametrize(
    ("text", "flags", "environ", "code", "words"),
    [
        pytest.param("[default]\ntargets = ['nobody/x']", [], {}, 1, "rules.toml:2:12: error", id="rules"),
        pytest.param(None, ["--rules", "nowhere.toml"], {}, 2, "nowhere.toml: No such file", id="no file"),
        pytest.param(None, ["--rules", "."], {}, 2, ".: it is a folder, and no file", id="a folder"),
        pytest.param("\xff", [], {}, 2, "not UTF-8", id="no text"),
        pytest.param(
            ECHO,
            ["--host", "no.such.host.invalid", "--insecure"],
            {},
            2,
            "--host is `no.such.host.invalid`, a name that this machine can't find",
            id="host",
        ),
        pytest.param(ECHO, ["--host", "0.0.0.0"], {}, 2, "anybody who can reach 0.0.0.0", id="no keys"),
        pytest.param(ECHO, [], {"LOG_LEVEL": "loud"}, 2, "LOG_LEVEL is `LOUD`", id="a bad level"),
        pytest.param(ECHO, [], {"LOG_FORMAT": "xml"}, 2, "LOG_FORMAT is `xml`", id="a bad form"),
        pytest.param(ECHO, ["--log-format", "xml"], {}, 2, "--log-format", id="a bad form, as an option"),
        pytest.param(ECHO, [], {"PORT": "http"}, 2, "PORT is `http`", id="a bad port"),
        pytest.param(ECHO, ["--host", ""], {}, 2, "routeproxy: --host is empty", id="an empty host"),
        pytest.param(
            ECHO, ["--host", "http://[::1]:9"], {}, 2, "a URL: write --host ::1 and --port 9", id="a URL"
        ),
        pytest.param(
            ECHO, [], {"HOST": "1.2.3.4:9"}, 2, "HOST is `1.2.3.4:9`, an address with a port", id="HOST"
        ),
        pytest.param(
            ECHO, ["--host", "203.0.113.9", "--insecure"], {}, 2, "(--host): 203.0.113.9 is no", id="not here"
        ),
        pytest.param(
            f"[server]\nhost = '256.1.1.1'\n{ECHO}",
            [],
            {},
            2,
            "[server] host of rules.toml is",
            id="in rules",
        ),
        pytest.param(None, [], {"PREFERRED_PROVIDER": "nobody"}, 1, "PREFERRED_PROVIDER", id="environment"),
    ],
)
def test_what_it_cannot_serve_is_said_in_a_line(
    tmp_path: Path, text: str | None, flags: list[str], environ: dict[str, str], code: int, words: str
) -> None:
    if text is not None:
        (tmp_path / "rules.toml").write_text(text, encoding="latin-1")
    with serving(tmp_path, *flags, environ=environ) as server:
        assert server.exit_code() == code
    assert words in server.stderr
    assert "Traceback" not in server.stderr
