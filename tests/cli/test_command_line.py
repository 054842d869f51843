"""The command line as a user meets it: what it prints, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import routeproxy
from routeproxy.cli import app
from tests.running import ECHO

RULES = """\
[providers.echo]

[providers.claude]
type = "anthropic"
api_key = "env:CLAUDE_KEY"

[[rules]]
name = "pictures"
match.images = true
deny = "no pictures"

[[rules]]
name = "payments"
match.headers.x-team = "payments"
match.input_tokens.min = 60_000
targets = ["claude/claude-opus-4-8"]

[default]
targets = ["echo/*"]
"""

BROKEN = '[providers.echo]\n[default]\ntargets = ["ecko/one"]\ndeni = "x"\n'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "HOST",
        "PORT",
        "ANTHROPIC_AUTH_TOKEN",
        "CLAUDE_KEY",
        "LOG_LEVEL",
        "PREFERRED_PROVIDER",
        "OPENAI_API_KEY",
    ):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def written(text: str, name: str = "rules.toml") -> str:
    Path(name).write_text(text)
    return name


def test_the_version() -> None:
    ran = run("--version")
    assert (ran.exit_code, ran.stdout) == (0, f"routeproxy {routeproxy.__version__}\n")


def test_the_module_is_the_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "routeproxy", "--version"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, f"routeproxy {routeproxy.__version__}\n")


def test_help_names_every_command() -> None:
    output = run("--help").stdout
    assert all(f"\n  {command} " in output for command in ("serve", "check", "explain"))
    assert "..." not in output.partition("Commands:")[2]


@pytest.mark.parametrize("command", ["serve", "check", "explain"])
def test_help_of_a_command_tells_its_options(command: str) -> None:
    ran = run(command, "--help")
    assert ran.exit_code == 0
    assert "int range" not in ran.stdout
    assert "--reload" not in ran.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--port", "70000"],
        ["serve", "--workers", "0"],
        ["serve", "--log-level", "loud"],
        ["serve", "--nonsense"],
        ["check", "rules.toml", "--format", "xml"],
        ["explain"],
        ["nonsense"],
    ],
)
def test_a_wrong_use_exits_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


# --- check


def test_check_takes_good_rules() -> None:
    ran = run("check", written(ECHO))
    assert ran.exit_code == 0
    assert "no rules and a default, version " in ran.stdout


def test_check_shows_every_problem_with_its_place() -> None:
    ran = run("check", written(BROKEN))
    assert ran.exit_code == 1
    assert "rules.toml:3:12: error" in ran.stdout
    assert "rules.toml:4:1: error" in ran.stdout


def test_check_counts_warnings_as_problems_when_told_to() -> None:
    rules = written(RULES)
    assert run("check", rules).exit_code == 0
    assert run("check", rules, "--strict").exit_code == 1


def test_check_reads_the_env_file_beside_the_rules() -> None:
    Path(".env").write_text("CLAUDE_KEY=set\n")
    assert run("check", written(RULES), "--strict").exit_code == 0


def test_check_can_speak_to_programs() -> None:
    report = json.loads(run("check", written(BROKEN), "--format", "json").stdout)
    assert report["ok"] is False
    assert [problem["location"]["line"] for problem in report["problems"]] == [3, 4]


def test_check_of_a_file_that_is_not_there_exits_2() -> None:
    ran = run("check", "nowhere.toml")
    assert (ran.exit_code, ran.stderr) == (2, "routeproxy: nowhere.toml: No such file or directory\n")


# --- which rules


@pytest.mark.parametrize(
    "command",
    [["check"], ["test"], ["prove"], ["explain", "--model", "claude-opus-4-8"]],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["mine.toml"], id="bare"),
        pytest.param(["--rules", "mine.toml"], id="by its option"),
        pytest.param(["mine.toml", "--rules", "./mine.toml"], id="both, the same"),
    ],
)
def test_every_command_takes_the_rules_bare_and_by_their_option(command: list[str], words: list[str]) -> None:
    written(BROKEN)  # what is there without a name is not looked at
    written(RULES, "mine.toml")
    ran = run(*command, *words)
    assert (ran.exit_code, "mine.toml" in ran.stdout) == (0, True), ran.output


@pytest.mark.parametrize(
    "command",
    [["serve"], ["check"], ["test"], ["prove"], ["explain", "--model", "m"]],
    ids=lambda words: words[0],
)
def test_two_rules_files_are_one_too_many(command: list[str]) -> None:
    written(RULES, "one.toml")
    written(RULES, "two.toml")
    ran = run(*command, "one.toml", "--rules", "two.toml")
    assert ran.exit_code == 2
    assert "two rules files: one.toml, and two.toml by --rules; expected one of them" in ran.stderr


@pytest.mark.parametrize(
    "command", [["check"], ["test"], ["prove"], ["explain", "--model", "m"]], ids=lambda words: words[0]
)
def test_every_command_takes_the_rules_that_are_here(command: list[str]) -> None:
    written(RULES)
    ran = run(*command)
    assert (ran.exit_code, "rules.toml" in ran.stdout) == (0, True), ran.output


def test_check_without_a_file_is_of_what_the_environment_describes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("check").stdout.endswith("; 1 warning\n")
    assert "OPENAI_API_KEY is not set" in run("check").stdout
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert run("check", "--strict").exit_code == 0
    monkeypatch.setenv("PREFERRED_PROVIDER", "nobody")
    assert run("check").exit_code == 1


# --- explain


def test_explain_names_the_rule_and_why_not_those_above() -> None:
    rules = written(RULES)
    ran = run(
        "explain",
        "--rules",
        rules,
        "--model",
        "claude-opus-4-8",
        "--header",
        "X-Team: payments",
        "--tokens",
        "58211",
    )
    assert ran.exit_code == 0
    assert "input_tokens is 58211 needs at least 60000" in ran.stdout.replace(",", "")
    assert "1. echo/claude-opus-4-8" in ran.stdout


def test_explain_takes_several_headers_and_other_facts() -> None:
    facts = [
        "--header",
        "x-a: 1",
        "--header",
        "x-team: payments",
        "--tokens",
        "70000",
        "--stream",
        "--tool",
        "Bash",
    ]
    ran = run("explain", "--rules", written(RULES), "--model", "m", *facts)
    assert "1. claude/claude-opus-4-8" in ran.stdout
    assert "NOT SET" in ran.stdout


def test_explain_shows_a_denial() -> None:
    ran = run("explain", "--rules", written(RULES), "--model", "m", "--images")
    assert (ran.exit_code, "denied with 400: no pictures" in ran.stdout) == (0, True)


def test_explain_can_speak_to_programs() -> None:
    document = json.loads(run("explain", "--rules", written(RULES), "--model", "m", "--json").stdout)
    assert document["explanation"]["rule"] == "default"


def test_explain_without_rules_explains_those_that_are_here() -> None:
    written(RULES)
    assert "pictures" in run("explain", "--model", "m", "--images").stdout


def test_explain_without_any_rules_explains_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFERRED_PROVIDER", "openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    ran = run("explain", "--model", "claude-haiku-4-5")
    assert ran.exit_code == 0
    assert "openai/gpt-4.1-mini" in ran.stdout
    assert "sk-secret" not in ran.stdout


def test_explain_of_broken_rules_exits_1_and_of_none_2() -> None:
    assert run("explain", "--rules", written(BROKEN), "--model", "m").exit_code == 1
    assert run("explain", "--rules", "nowhere.toml", "--model", "m").exit_code == 2
    assert run("explain", "--rules", written(RULES), "--model", "m", "--header", "nonsense").exit_code == 2
