"""What the commands say about a folder of policies, good and bad: all of it, word for word.

Each folder below `golden/` with a `rules.toml` is a policy. The `#$` lines at its top are the commands, and
`golden.txt` beside it is what they print. After a change that is meant, write them anew and read the diff:

    UPDATE_GOLDEN=1 pytest tests/policy/test_golden.py

Without that variable nothing is written.
"""

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from routeproxy.cli import app
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.file.includes import Disk
from routeproxy.policy.problems import Code, RulesRefused
from routeproxy.policy.verify.diff import compare_policies

GOLDEN = Path(__file__).parent / "golden"
POLICIES = sorted(file.parent for file in GOLDEN.rglob("rules.toml"))
UPDATE = bool(os.environ.get("UPDATE_GOLDEN"))

KEYS = {
    "ANTHROPIC_API_KEY": "key of anthropic",
    "CORP_API_KEY": "key of corp",
    "HOME": "/nowhere",
    "OPENAI_API_KEY": "key of openai",
    "PAYMENTS_KEY": "key of payments",
    "PAYMENTS_OPENAI_KEY": "key of payments at openai",
    "RESEARCH_KEY": "key of research",
}
"""The whole environment of the commands."""


def named(policy: Path) -> str:
    return policy.relative_to(GOLDEN).as_posix()


# --- what the commands say


def _link_out_of_the_folder(folder: Path) -> None:
    outside = folder.parent / "outside.toml"
    outside.write_text('team = "payments"\n', encoding="utf-8")
    (folder / "teams").mkdir()
    (folder / "teams" / "payments.toml").symlink_to(outside)


PREPARED: Mapping[str, Callable[[Path], None]] = {
    "layers/file_that_is_a_link_out_of_the_folder": _link_out_of_the_folder,
    "warned/certificates_that_cannot_be_read": lambda folder: os.mkfifo(folder / "pipe"),
    "warned/key_file_that_everybody_can_read": lambda folder: (folder / "corp.key").chmod(0o644),
}
"""What a checkout may not keep."""


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


def session(folder: Path) -> str:
    """What a terminal in `folder` shows when its commands are run."""
    lines = (folder / "rules.toml").read_text(encoding="utf-8").splitlines()
    commands = [line.removeprefix("#$ ") for line in lines if line.startswith("#$ ")]
    assert commands, "a policy begins with `#$` lines, the commands to run"
    with chdir(folder):
        return "\n".join(map(_run, commands))


def _run(command: str) -> str:
    nothing_else: dict[str, str | None] = dict.fromkeys(os.environ)
    result = CliRunner().invoke(app, shlex.split(command), env=nothing_else | KEYS)
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    # A version changes with every key that the language gets.
    output = re.sub(r"\b[0-9a-f]{12}\b", "…", result.output)
    return f"$ routeproxy {command}\n{output}[exit code {result.exit_code}]\n"


@pytest.mark.parametrize("code", Code)
def test_every_problem_that_can_be_reported_is_shown(code: Code) -> None:
    assert any(f" {code.value}: " in file.read_text(encoding="utf-8") for file in GOLDEN.rglob("golden.txt"))


# --- a file that is read while it is written


def compiled(content: bytes, folder: Path) -> Policy | None:
    """`None`: refused."""
    try:
        return compile_rules(
            content.decode(), path=Path("rules.toml"), environ=KEYS, folder=Disk(folder), skip_tests=True
        )
    except (RulesRefused, UnicodeDecodeError):
        return None


GOOD = [
    policy
    for policy in POLICIES
    if compiled((policy / "rules.toml").read_bytes(), policy) and policy.name != "default_above_the_rules"
]
"""All of these have `[default]` below what it is the rest of: server, providers, teams, rules."""


@pytest.mark.parametrize("policy", GOOD, ids=named)
def test_a_file_that_is_cut_short_is_refused_or_lacks_only_what_follows_the_targets_of_its_default(
    policy: Path,
) -> None:
    """What may be missing: further lines of `[default]` (the others of its targets are tried before its
    `fallback = false` is there), invariants, tests. With `[default]` above its rules nothing could be
    promised."""
    content = (policy / "rules.toml").read_bytes()
    whole = compiled(content, policy)
    assert whole is not None
    for rest in cut_short(content, policy.name):
        if (cut := compiled(rest, policy)) is None:
            continue
        assert b"\n[default]\n" in rest
        missing = compare_policies(whole, cut)
        assert [
            words for words in missing if not words.startswith(("default: ", "invariant ", "test "))
        ] == []
        for case in whole.tests:
            before, now = (one.decide(one.facts_of(case.question)) for one in (whole, cut))
            assert rule_and_list(now) == rule_and_list(before)


def cut_short(whole: bytes, seed: str) -> Iterator[bytes]:
    """What may be there of a file: it ends behind one of its lines, or anywhere, or in zeros as after a
    crash."""
    ends = [match.end() for match in re.finditer(rb"\n", whole)][:-1]
    random = Random(seed)
    for end in (0, *ends, *(random.randrange(len(whole)) for _ in range(200))):
        yield whole[:end]
    yield from (whole[:end].ljust(len(whole), b"\0") for end in ends)


def rule_and_list(decision: Decision) -> tuple[str, list[str]]:
    return decision.rule, [target.name for target in decision.asked_rules[-1].targets]
