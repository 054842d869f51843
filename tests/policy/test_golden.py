"""What the commands say about a folder of policies, good and bad: all of it, word for word.

Each folder below `golden/` that has a `rules.toml` is a policy. The `#$` lines at its top are the commands,
`golden.txt` beside it is what they print. After a change that is meant, write them anew and read the difference:

    UPDATE_GOLDEN=1 pytest tests/policy/test_golden.py

Without that variable nothing is written.
"""

import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path

import pytest
from typer.testing import CliRunner

from routeproxy.cli import app
from routeproxy.policy.problems import Code

GOLDEN = Path(__file__).parent / "golden"
POLICIES = sorted(file.parent for file in GOLDEN.rglob("rules.toml"))
UPDATE = bool(os.environ.get("UPDATE_GOLDEN"))

KEYS = {
    "ANTHROPIC_API_KEY": "key of anthropic",
    "CORP_API_KEY": "key of corp",
    "OPENAI_API_KEY": "key of openai",
    "PAYMENTS_KEY": "key of payments",
    "PAYMENTS_OPENAI_KEY": "key of payments at openai",
    "RESEARCH_KEY": "key of research",
}
"""All of the environment that the commands see."""


def _link_out_of_the_folder(folder: Path) -> None:
    outside = folder.parent / "outside.toml"
    outside.write_text('team = "payments"\n', encoding="utf-8")
    (folder / "teams").mkdir()
    (folder / "teams" / "payments.toml").symlink_to(outside)


PREPARED: Mapping[str, Callable[[Path], None]] = {
    "layers/file_that_is_a_link_out_of_the_folder": _link_out_of_the_folder,
    "warned/key_file_that_everybody_can_read": lambda folder: (folder / "corp.key").chmod(0o644),
}
"""What a checkout does not keep."""


def named(policy: Path) -> str:
    return policy.relative_to(GOLDEN).as_posix()


def session(folder: Path) -> str:
    """What a terminal in `folder` shows when its commands are run there."""
    rules = (folder / "rules.toml").read_text(encoding="utf-8", errors="replace")
    commands = [line.removeprefix("#$ ") for line in rules.splitlines() if line.startswith("#$ ")]
    with chdir(folder):
        return "\n".join(map(_run, commands))


def _run(command: str) -> str:
    result = CliRunner().invoke(app, shlex.split(command), env={**dict.fromkeys(os.environ), **KEYS})
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    output = re.sub(r"\b[0-9a-f]{12}\b", "…", result.output)
    return f"$ routeproxy {command}\n{output}[exit code {result.exit_code}]\n"


@pytest.mark.parametrize("policy", POLICIES, ids=named)
def test_the_commands_say_what_they_said(policy: Path, tmp_path: Path) -> None:
    folder = tmp_path / policy.name
    shutil.copytree(policy, folder)
    if prepare := PREPARED.get(named(policy)):
        prepare(folder)
    said = session(folder)
    golden = policy / "golden.txt"
    if UPDATE:
        golden.write_text(said, encoding="utf-8")
    assert said == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("code", Code)
def test_every_problem_that_can_be_reported_is_shown(code: Code) -> None:
    assert any(f"{code.value}: " in file.read_text(encoding="utf-8") for file in GOLDEN.rglob("golden.txt"))
