"""The real Claude Code, started by `routeproxy claude` from a folder with nothing but rules."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backend import BackEnd, chunk, done, sse
from tests.budgets import seconds
from tests.end_to_end.clients import CLAUDE_CODE, environment, needs_claude_code, newest_claude_code
from tests.end_to_end.test_claude_code import RULES, calls_bash, turns
from tests.running import get, until


def launch(folder: Path, program: str, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """`routeproxy claude` with these words, in `folder`, with a home and a free port of its own."""
    home, programs = folder / "home", folder / "bin"
    for made in (home, programs):
        made.mkdir(exist_ok=True)
    (programs / "claude").symlink_to(Path(program).resolve())
    environ = environment("", home) | {"PYTHONPATH": os.getcwd(), "PORT": "0", **variables}
    environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    for name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"):
        environ.pop(name)
    return subprocess.run(
        [sys.executable, "-m", "routeproxy", "claude", *words], cwd=folder, env=environ | variables,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds(90), check=False,
    )  # fmt: skip


def address_in(stderr: str) -> str:
    return stderr.partition(", at ")[2].partition(" for this session")[0]


def is_gone(url: str) -> bool:
    try:
        get(url, "/readyz")
    except Exception as error:
        return type(error).__name__ in {"ConnectError", "ReadError", "RemoteProtocolError"}
    return False


@needs_claude_code
def test_a_turn_with_a_tool_goes_round_through_a_server_for_the_session(tmp_path: Path) -> None:
    assert CLAUDE_CODE
    with BackEnd(calls_bash("echo hello-from-the-tool")) as back_end:
        (tmp_path / "rules.toml").write_text(RULES.format(url=back_end.url))
        words = ("-p", "Say hello with the shell", "--output-format", "json", "--allowedTools", "Bash")
        ran = launch(tmp_path, CLAUDE_CODE, *words)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert "The tools said: hello-from-the-tool" in result["result"]
    assert len(turns(back_end)) == 2
    until(lambda: is_gone(address_in(ran.stderr)), 5)


@pytest.mark.parametrize("client", ["installed", "newest"])
@needs_claude_code
def test_nothing_of_settings_variables_or_proxies_leads_past_the_server(tmp_path: Path, client: str) -> None:
    program = CLAUDE_CODE if client == "installed" else newest_claude_code()
    assert program
    elsewhere = {
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        "ANTHROPIC_AUTH_TOKEN": "another",
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "ANTHROPIC_BEDROCK_BASE_URL": "http://127.0.0.1:9",
        "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1",
    }
    (tmp_path / "home" / ".claude").mkdir(parents=True)
    (tmp_path / "home" / ".claude" / "settings.json").write_text(json.dumps({"env": elsewhere}))
    with BackEnd(lambda received: sse(chunk("Good "), chunk("morning"), done())) as back_end:
        (tmp_path / "rules.toml").write_text(RULES.format(url=back_end.url))
        variables = elsewhere | {"ANTHROPIC_API_KEY": "sk-ant-mine"}
        proxies = {
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1",
        }
        ran = launch(tmp_path, program, "-p", "Say good morning", **variables, **proxies)
    assert (ran.returncode, ran.stdout) == (0, "Good morning\n"), ran.stderr
    assert len(turns(back_end)) == 1
