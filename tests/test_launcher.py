"""`routeproxy claude`, with a scripted Claude Code: which server it is pointed at, what it is given, and what
becomes of the server that was started for it."""

import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from routeproxy import launcher
from routeproxy.sources import Options, Sources
from tests.budgets import seconds
from tests.running import ECHO, get, running, serving, until

CLIENT = """\
#!{python}
import json, os, signal, sys, time, urllib.request

def ask():
    body = json.dumps({{"model": "echo", "max_tokens": 9, "messages": [{{"role": "user", "content": "Hi"}}]}})
    headers = {{"content-type": "application/json"}}
    if token := os.environ.get("ANTHROPIC_AUTH_TOKEN"):
        headers["authorization"] = "Bearer " + token
    if key := os.environ.get("ANTHROPIC_API_KEY"):
        headers["x-api-key"] = key
    url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
    request = urllib.request.Request(url, body.encode(), headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)["content"][0]["text"]

def report(**more):
    known = dict(arguments=sys.argv[1:], environ=dict(os.environ), answer=ask(), pid=os.getpid(), **more)
    with open("report.new", "w") as file:
        json.dump(known, file)
    os.rename("report.new", "report.json")

match sys.argv[-1]:
    case "wait":
        report()
        while True:
            time.sleep(1)
    case "hold on":
        signal.signal(signal.SIGINT, lambda *_: (report(interrupted=True), sys.exit(3)))
        report(interrupted=False)
        while True:
            time.sleep(1)
    case "terminal":
        print("tty", sys.stdin.isatty(), sys.stdout.isatty(), *os.get_terminal_size())
    case "read":
        print("read " + sys.stdin.read())
    case _:
        report()
sys.exit(7)
"""
TEAM = f"""\
[teams.payments]
keys = ["env:TEAM_KEY"]
{ECHO}"""
KEY = "k" * 40


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with rules, a home and a scripted Claude Code."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "home" / ".claude").mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    client = tmp_path / "bin" / "claude"
    client.write_text(CLIENT.format(python=sys.executable))
    client.chmod(0o755)
    (tmp_path / "rules.toml").write_text(ECHO)
    return tmp_path


def environment(folder: Path, **more: str) -> dict[str, str]:
    """All the variables that the command sees; its port is one that is free."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    return {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "logs"),
        "PYTHONPATH": os.getcwd(),
        "PORT": str(port),
        **more,
    }


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "routeproxy", "claude", *words]


def claude(
    folder: Path, *words: str, environ: Mapping[str, str] | None = None, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*words), cwd=folder, env=environment(folder, **(environ or {})), input=stdin,
        capture_output=True, text=True, timeout=seconds(60), check=False,
    )  # fmt: skip


@contextmanager
def started(
    folder: Path, *words: str, environ: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """The command in a group of its own, as a shell starts it."""
    with (folder / "stderr.txt").open("wb") as stderr:
        process = subprocess.Popen(
            command(*words), cwd=folder, env=environment(folder, **(environ or {})),
            stdin=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def report(folder: Path) -> dict[str, Any]:
    """What the scripted client saw."""
    file = folder / "report.json"
    until(file.exists, 30)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def was_started(folder: Path) -> bool:
    return (folder / "report.json").exists()


def answers(url: str) -> bool:
    try:
        return get(url, "/readyz").status_code == 200
    except OSError:
        return False
    except Exception as error:
        assert type(error).__module__.startswith("httpx"), error  # noqa: PT017
        return False


# --- a server for the session


def test_without_a_server_it_starts_one_that_ends_with_it(here: Path) -> None:
    ran = claude(here, "-p", "Say hi", "--model", "opus", "--", "--help", "--url", "x")
    seen = report(here)
    assert ran.returncode == 7, ran.stderr
    assert ran.stdout == ""
    assert seen["arguments"] == ["-p", "Say hi", "--model", "opus", "--", "--help", "--url", "x"]
    assert seen["answer"] == "Hi"
    assert seen["environ"]["ANTHROPIC_AUTH_TOKEN"] == "anything"
    (log,) = (here / "logs").glob("*.log")
    assert "POST /v1/messages 200" in log.read_text()
    assert f"for this session, log {log}\n" in ran.stderr
    assert (
        f"serving rules.toml, version {get_version(log)}, at {seen['environ']['ANTHROPIC_BASE_URL']}"
        in ran.stderr
    )
    until(lambda: not answers(seen["environ"]["ANTHROPIC_BASE_URL"]), 5)


@pytest.mark.parametrize(
    ("variables", "dotenv"),
    [
        pytest.param({"LOG_FORMAT": "json"}, "", id="a log in JSON"),
        pytest.param({"LOG_LEVEL": "ERROR"}, "", id="a log of errors"),
        pytest.param({}, "no assignment\nLOG_FORMAT=json\n", id="a .env with an odd line"),
    ],
)
def test_it_knows_when_its_server_is_ready_whatever_the_log_says(
    here: Path, variables: dict[str, str], dotenv: str
) -> None:
    (here / ".env").write_text(dotenv)
    assert claude(here, environ=variables).returncode == 7
    assert report(here)["answer"] == "Hi"


def get_version(log: Path) -> str:
    return log.read_text().partition("version ")[2].partition(",")[0]


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        pytest.param([], [], id="none"),
        pytest.param(["--", "--version"], ["--version"], id="after --"),
        pytest.param(["--", "--", "x"], ["--", "x"], id="its own --"),
        pytest.param(["--rules", "rules.toml", "-c"], ["-c"], id="after ours"),
        pytest.param(["--rules=rules.toml", "-h"], ["-h"], id="-h is its"),
        pytest.param(["", "--rules", "y"], ["", "--rules", "y"], id="an empty word"),
        pytest.param(["mcp", "list"], ["mcp", "list"], id="its commands"),
    ],
)
def test_from_the_first_word_that_is_not_ours_on_all_are_claude_codes(
    here: Path, words: list[str], arguments: list[str]
) -> None:
    assert claude(here, *words).returncode == 7
    assert report(here)["arguments"] == arguments


def test_standard_input_is_claude_codes(here: Path) -> None:
    assert claude(here, "read", stdin="a prompt").stdout == "read a prompt\n"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_a_broken_pipe_is_what_it_is_elsewhere(here: Path) -> None:
    (here / "bin" / "claude").write_text("#!/bin/sh\ngrep SigIgn /proc/self/status\n")
    ignored = int(claude(here).stdout.split()[1], 16)
    assert not ignored & 1 << (signal.SIGPIPE - 1)


def test_the_terminal_is_claude_codes(here: Path) -> None:
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
    process = subprocess.Popen(
        command("terminal"), cwd=here, env=environment(here), stdin=child, stdout=child,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    os.close(child)
    assert process.wait(seconds(60)) == 7
    assert os.read(parent, 1000).decode().strip() == "tty True True 111 33"
    os.close(parent)


def test_ctrl_c_is_for_claude_code_and_the_server_goes_on(here: Path) -> None:
    with started(here, "hold on") as process:
        url = report(here)["environ"]["ANTHROPIC_BASE_URL"]
        (here / "report.json").unlink()
        os.killpg(process.pid, signal.SIGINT)
        seen = report(here)  # it has asked the server once more
        assert (seen["interrupted"], seen["answer"]) == (True, "Hi")
        assert process.wait(seconds(10)) == 3
    until(lambda: not answers(url), 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_the_server_ends_however_claude_code_does(here: Path, number: signal.Signals) -> None:
    with started(here, "wait") as process:
        seen = report(here)
        assert seen["pid"] == process.pid
        process.send_signal(number)
        assert process.wait(seconds(10)) == -number
    until(lambda: not answers(seen["environ"]["ANTHROPIC_BASE_URL"]), 5)


def test_two_sessions_share_no_server(here: Path) -> None:
    with started(here, "wait") as first:
        url = report(here)["environ"]["ANTHROPIC_BASE_URL"]
        (here / "report.json").unlink()
        port = url.rpartition(":")[2]
        ran = claude(here, environ={"PORT": port})
        assert f"port {port} is something else's: another is taken" in ran.stderr
        assert report(here)["environ"]["ANTHROPIC_BASE_URL"] != url
        assert first.poll() is None
        assert answers(url)


def test_a_port_that_is_something_elses_is_left_to_it(here: Path) -> None:
    with web_site() as port:
        ran = claude(here, environ={"PORT": str(port)})
    seen = report(here)
    assert (ran.returncode, seen["answer"]) == (7, "Hi")
    assert not seen["environ"]["ANTHROPIC_BASE_URL"].endswith(f":{port}")


@contextmanager
def web_site() -> Iterator[int]:
    """The port of a server that answers everything with a page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"message": "Hello"}')

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


# --- a server that runs


def test_a_server_that_runs_is_used_and_goes_on(here: Path) -> None:
    with serving(here, "--port", "0") as server:
        port = server.url.rpartition(":")[2]
        ran = claude(here, "-p", "Hi", environ={"PORT": port})
        assert ran.stderr.startswith(f"routeproxy: using the server at {server.url} (rules.toml, version ")
        assert ran.returncode == 7
        assert report(here)["environ"]["ANTHROPIC_BASE_URL"] == server.url
        assert answers(server.url)
    assert list((here / "logs").glob("*.log")) == []


@pytest.mark.parametrize("way", ["--url", "ROUTEPROXY_URL", "with a path"])
def test_the_server_may_be_named(here: Path, tmp_path_factory: pytest.TempPathFactory, way: str) -> None:
    (here / "rules.toml").write_text("broken")  # nobody looks at it
    with running(ECHO, tmp_path_factory.mktemp("rules")) as server:
        words = {"--url": ["--url", server.url], "with a path": [f"--url={server.url}/v1/"]}.get(way, [])
        environ = {"ROUTEPROXY_URL": server.url} if not words else {}
        assert claude(here, *words, environ=environ).returncode == 7
    assert report(here)["environ"]["ANTHROPIC_BASE_URL"] == server.url


def test_a_server_with_other_rules_is_no_substitute_for_rules_that_were_named(here: Path) -> None:
    with serving(here, "--port", "0") as server:
        port = server.url.rpartition(":")[2]
        (here / "mine.toml").write_text(ECHO.replace("echo/*", "echo/mine"))
        ran = claude(here, "--rules", "mine.toml", environ={"PORT": port})
        assert f"the server at {server.url} has other rules (rules.toml, version" in ran.stderr
        assert report(here)["environ"]["ANTHROPIC_BASE_URL"] != server.url
        (here / "report.json").unlink()
        claude(here, "--rules", "rules.toml", environ={"PORT": port})
        assert report(here)["environ"]["ANTHROPIC_BASE_URL"] == server.url


def test_the_port_of_a_folders_env_file_may_be_another_programs(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the usual one is looked at, too; here it is one that is free."""
    monkeypatch.chdir(here)
    lines: list[str] = []
    with web_site() as port, running(ECHO, here) as usual:
        monkeypatch.setattr(launcher, "DEFAULT_URL", usual.url)
        (here / ".env").write_text(f"PORT={port}\n")
        wishes = launcher.Wishes(sources=Sources(Options(), {}))
        found = launcher._running_server(wishes, lines.append)
        assert found is not None
        assert found.url == usual.url
        elsewhere = launcher.Wishes(sources=Sources(Options(), {"PORT": str(port)}))
        assert launcher._running_server(elsewhere, lines.append) is None  # that is no folder's word


def test_an_empty_address_is_refused(here: Path) -> None:
    ran = claude(here, "--url", "")
    assert ran.stderr == "routeproxy: --url is empty: expected one such as http://127.0.0.1:8082\n"


# --- when it is not started


@pytest.mark.parametrize(
    ("words", "environ", "said"),
    [
        pytest.param(
            ["--url", "http://127.0.0.1:9"], {}, "where nothing answers (connection refused)", id="nobody"
        ),
        pytest.param(
            [],
            {"ROUTEPROXY_URL": "http://127.0.0.1:9"},
            "ROUTEPROXY_URL is http://127.0.0.1:9, where",
            id="variable",
        ),
        pytest.param(
            ["--url", "127.0.0.1:8082"],
            {},
            "--url is `127.0.0.1:8082`, which is no address of a server",
            id="no URL",
        ),
        pytest.param(["--url", "http://no.such.host.invalid"], {}, "(its host is not known)", id="no host"),
        pytest.param(["--rules", "nowhere.toml"], {}, "nowhere.toml: No such file", id="no rules"),
        pytest.param([], {"PORT": "http"}, "PORT is `http`; expected a number", id="no port"),
        pytest.param(["--key", "env:NO_SUCH_KEY"], {}, "--key env:NO_SUCH_KEY: the variable", id="no key"),
        pytest.param(
            ["--key", "sk-secret"], {}, "--key names where the key stands: expected env:", id="a key"
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    here: Path, words: list[str], environ: dict[str, str], said: str
) -> None:
    ran = claude(here, *words, environ=environ)
    assert (ran.returncode, was_started(here)) == (2, False)
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "sk-secret" not in ran.stderr


def test_something_else_at_the_url_is_called_that(here: Path) -> None:
    with web_site() as port:
        ran = claude(here, "--url", f"http://127.0.0.1:{port}")
    assert (ran.returncode, was_started(here)) == (2, False)
    assert f"--url is http://127.0.0.1:{port}, where something answers that is no routeproxy" in ran.stderr


def test_broken_rules_are_said_as_check_says_them(here: Path) -> None:
    (here / "rules.toml").write_text(ECHO.replace("echo/*", "ecko/*"))
    ran = claude(here)
    checked = subprocess.run(
        [sys.executable, "-m", "routeproxy", "check"],
        cwd=here,
        env=environment(here),
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, was_started(here)) == (2, False)
    assert "rules.toml:4:12: error RP007" in ran.stderr
    assert ran.stderr.strip() in checked.stdout
    assert list((here / "logs").iterdir()) == []


def test_what_only_serve_finds_is_said_too(here: Path) -> None:
    ran = claude(here, environ={"LOG_LEVEL": "loud"})
    assert (ran.returncode, was_started(here)) == (2, False)
    assert ran.stderr.startswith("routeproxy: LOG_LEVEL is `LOUD`")


def test_without_claude_code_it_says_how_to_install_it_and_how_to_use_another_client(here: Path) -> None:
    ran = claude(here, environ={"PATH": str(here / "home")})
    assert ran.returncode == 2
    assert ran.stderr == (
        "routeproxy: Claude Code is not installed: there is no `claude` in PATH. Install it with\n"
        "    npm install -g @anthropic-ai/claude-code\n"
        "Any other Anthropic client takes these variables, once `routeproxy serve` runs:\n"
        "    ANTHROPIC_BASE_URL=http://127.0.0.1:8082 ANTHROPIC_AUTH_TOKEN=anything\n"
    )


def test_a_program_that_can_not_run_leaves_no_server(here: Path) -> None:
    (here / "bin" / "claude").write_bytes(b"\x00\x01")
    ran = claude(here)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    url = ran.stderr.partition(", at ")[2].partition(" for this")[0]
    assert not answers(url)


# --- keys


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        pytest.param(["--key", "env:MINE"], {"MINE": KEY}, id="--key env"),
        pytest.param(["--key", "file:key"], {}, id="--key file"),
        pytest.param([], {"ANTHROPIC_AUTH_TOKEN": KEY}, id="the token"),
        pytest.param([], {"ANTHROPIC_API_KEY": KEY}, id="the API key"),
    ],
)
def test_a_key_that_is_needed_is_found(here: Path, words: list[str], environ: dict[str, str]) -> None:
    (here / "rules.toml").write_text(TEAM)
    (here / "key").write_text(f"{KEY}\n")
    ran = claude(here, *words, environ={"TEAM_KEY": KEY} | environ)
    assert ran.returncode == 7, ran.stderr
    assert report(here)["answer"] == "Hi"
    assert KEY not in ran.stderr


def test_the_token_of_the_env_file_is_shown_to_the_server_that_asks_for_it(here: Path) -> None:
    (here / ".env").write_text("ANTHROPIC_AUTH_TOKEN=sesame\n")
    assert claude(here).returncode == 7
    assert report(here)["environ"]["ANTHROPIC_AUTH_TOKEN"] == "sesame"


@pytest.mark.parametrize(
    ("words", "environ", "expected"),
    [
        pytest.param([], {}, "needs a key (invalid x-api-key): expected a key of a team", id="none"),
        pytest.param(
            ["--key", "env:MINE"], {"MINE": "other"}, "expected that of --key env:MINE to", id="--key"
        ),
        pytest.param(
            [], {"ANTHROPIC_AUTH_TOKEN": "other"}, "Set ANTHROPIC_AUTH_TOKEN to the key", id="token"
        ),
    ],
)
def test_a_key_that_opens_nothing_is_said_before_claude_code_starts(
    here: Path, words: list[str], environ: dict[str, str], expected: str
) -> None:
    (here / "rules.toml").write_text(TEAM)
    ran = claude(here, *words, environ={"TEAM_KEY": KEY} | environ)
    assert (ran.returncode, was_started(here)) == (2, False)
    assert expected in ran.stderr


def test_a_login_that_a_provider_is_handed_stays_claude_codes(here: Path) -> None:
    (here / "rules.toml").write_text(f'[providers.anthropic]\napi_key = "client"\n{ECHO}')
    assert claude(here, environ={"ANTHROPIC_API_KEY": "sk-ant-mine"}).returncode == 7
    environ = report(here)["environ"]
    assert "ANTHROPIC_AUTH_TOKEN" not in environ
    assert environ["ANTHROPIC_API_KEY"] == "sk-ant-mine"


# --- what would lead past the server


def test_what_leads_elsewhere_is_kept_from_claude_code(here: Path) -> None:
    elsewhere = {
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "CLAUDE_CODE_USE_VERTEX": "true",
        "ANTHROPIC_API_KEY": "sk-x",
    }
    ran = claude(here, environ=elsewhere | {"CLAUDE_CODE_USE_FOUNDRY": "0"})
    environ = report(here)["environ"]
    assert elsewhere.keys() & environ.keys() == set()
    for name in elsewhere:
        assert f"routeproxy: warning: {name} is kept from Claude Code" in ran.stderr
    assert "FOUNDRY" not in ran.stderr
    assert "sk-x" not in ran.stderr


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "https_proxy"])
def test_a_server_on_this_machine_is_not_asked_through_a_proxy(here: Path, variable: str) -> None:
    claude(here, environ={variable: "http://127.0.0.1:9", "NO_PROXY": "corp.example"})
    assert report(here)["environ"]["NO_PROXY"] == "corp.example,127.0.0.1"


SETTINGS = {
    "env": {"ANTHROPIC_BASE_URL": "http://elsewhere.example", "CLAUDE_CODE_USE_BEDROCK": "1", "OTHER": "x"}
}


@pytest.mark.parametrize(
    "file", ["home/.claude/settings.json", ".claude/settings.json", ".claude/settings.local.json"]
)
def test_settings_that_lead_elsewhere_do_not_count_in_this_session(here: Path, file: str) -> None:
    (here / file).parent.mkdir(exist_ok=True)
    (here / file).write_text(json.dumps(SETTINGS))
    ran = claude(here, "-p", "Hi")
    seen = report(here)
    flag, settings, *rest = seen["arguments"]
    assert (flag, rest) == ("--settings", ["-p", "Hi"])
    assert json.loads(settings) == {
        "env": {"ANTHROPIC_BASE_URL": seen["environ"]["ANTHROPIC_BASE_URL"], "CLAUDE_CODE_USE_BEDROCK": ""}
    }
    assert f"{file} sets ANTHROPIC_BASE_URL, which does not count in this session" in ran.stderr


def test_settings_that_were_given_are_not_touched_but_warned_of(here: Path) -> None:
    (here / "home/.claude/settings.json").write_text(json.dumps(SETTINGS))
    ran = claude(here, "--settings", "{}", "-p", "Hi")
    assert report(here)["arguments"] == ["--settings", "{}", "-p", "Hi"]
    assert "sets ANTHROPIC_BASE_URL, which wins, since a --settings was given" in ran.stderr


@pytest.mark.parametrize(
    "text",
    ['{"env": {"OTHER": "x"}}', "{}", "[]", "no JSON", '{"env": null}'],
    ids=["other", "{}", "[]", "no", "null"],
)
def test_settings_that_say_nothing_of_it_change_nothing(here: Path, text: str) -> None:
    (here / "home/.claude/settings.json").write_text(text)
    ran = claude(here, "-p", "Hi")
    assert report(here)["arguments"] == ["-p", "Hi"]
    assert "warning" not in ran.stderr
