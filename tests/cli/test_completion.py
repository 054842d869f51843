"""Completion of the command line: in a real bash as Tab would have it; the scripts of other shells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.budgets import seconds

PROGRAM = """\
#!{python}
import sys
sys.path.insert(0, {here!r})
from routeproxy.cli import main
main()
"""
TAB = """\
source <(_ROUTEPROXY_COMPLETE=source_bash routeproxy)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_routeproxy_completion routeproxy
printf '%s\\n' "${COMPREPLY[@]}"
"""


DEFAULT = '[default]\ntargets = "echo/large"\n'


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "routeproxy"
    program.write_text(PROGRAM.format(here=os.getcwd(), python=sys.executable))
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        pytest.param(["ch"], {"check"}, id="a command"),
        pytest.param(["claude", "--u"], {"--url"}, id="an option"),
        pytest.param(["serve", "--log-level", "D"], {"DEBUG"}, id="a value"),
        pytest.param(["explain", "--to"], {"--tokens", "--tool"}, id="a fact"),
        pytest.param(["keys", "n"], {"new"}, id="a command of a command"),
        pytest.param(["serve", "ru"], {""}, id="a file: bash's own completion"),
    ],
)
def test_tab_offers_what_may_follow(typed: list[str], offered: set[str], environ: dict[str, str]) -> None:
    ran = subprocess.run(
        ["bash", "-c", TAB, "bash", "routeproxy", *typed],
        env=environ, capture_output=True, text=True, timeout=seconds(30), check=True,
    )  # fmt: skip
    assert set(ran.stdout.removesuffix("\n").split("\n")) == offered


RULES = """\
[server]
url_targets = true
models = ["claude-opus-4-8"]
[providers.echo]
[teams.payments]
keys = ["env:PAYMENTS_KEY"]
[teams.research]
keys = ["env:RESEARCH_KEY"]
[[rules]]
match.model.equals = "gpt-4.1"
targets = ["echo/small", "echo/*"]
[default]
targets = ["echo/large"]
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        pytest.param(["explain", "--team", ""], {"payments", "research"}, id="teams"),
        pytest.param(["explain", "--team", "pay"], {"payments"}, id="a team"),
        pytest.param(["explain", "--model", ""], {"claude-opus-4-8", "gpt-4.1"}, id="models"),
        pytest.param(["explain", "--url-target", ""], {"echo/small", "echo/large"}, id="targets"),
        pytest.param(["explain", "--effort", "x"], {"xhigh"}, id="a level"),
        pytest.param(["explain", "--request-class", "s"], {"subagent", "side_reply"}, id="a class"),
        pytest.param(["keys", "new", "res"], {"research"}, id="whose key"),
        pytest.param(["explain", "other.toml", "--team", ""], {"ops"}, id="of the file that is named"),
        pytest.param(["explain", "--rules", "other.toml", "--team", ""], {"ops"}, id="by --rules"),
        pytest.param(["explain", "broken.toml", "--team", ""], {""}, id="a broken file has none"),
        pytest.param(["explain", "nowhere.toml", "--team", ""], {""}, id="nor has one that is not there"),
    ],
)
def test_tab_offers_the_names_of_the_rules(
    typed: list[str], offered: set[str], environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    other = RULES.replace("payments", "ops").partition("[teams.research]")[0] + DEFAULT
    (tmp_path / "other.toml").write_text(other)
    (tmp_path / "broken.toml").write_text(RULES + "[oops")
    ran = subprocess.run(
        ["bash", "-c", TAB, "bash", "routeproxy", *typed],
        env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=seconds(30), check=True,
    )  # fmt: skip
    assert set(ran.stdout.removesuffix("\n").split("\n")) == offered
    assert ran.stderr == ""


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o default -F _routeproxy_completion routeproxy"),
        ("zsh", "compdef _routeproxy_completion routeproxy"),
        ("fish", "complete --command routeproxy"),
    ],
)
def test_there_is_a_script_for_each_shell(shell: str, line: str, environ: dict[str, str]) -> None:
    ran = subprocess.run(
        ["routeproxy"],
        env=environ | {"_ROUTEPROXY_COMPLETE": f"source_{shell}"},
        executable=shutil.which("routeproxy", path=environ["PATH"]),
        capture_output=True, text=True, timeout=seconds(30), check=True,
    )  # fmt: skip
    assert line in ran.stdout
