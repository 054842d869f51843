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
