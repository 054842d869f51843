"""Warnings that a rules file accepts: whose they are, and that nothing else changes."""

from pathlib import Path

import pytest

from routeproxy.policy.compile.lints import Lints
from routeproxy.policy.decide import Policy
from routeproxy.policy.problems import ACCEPTABLE, Code
from routeproxy.sources import Options, Sources
from routeproxy.upstream.chat.model_facts import known_facts

RULES = """\
[providers.openai]
api_key = "none"
[aliases]
unused = "openai/a"
[[rules]]
include = "team.toml"
[default]
targets = ["openai/a", "openai/b"]
fallback = false
[teams.payments]
keys = "env:KEY"
targets = "openai/*"
"""
TEAM = """\
team = "payments"
[[rules]]
targets = ["openai/a", "openai/b"]
fallback = false
"""


def policy(folder: Path, rules: str = RULES, team: str = TEAM) -> Policy:
    file = folder / "rules.toml"
    file.write_text(rules, encoding="utf-8")
    (folder / "team.toml").write_text(team, encoding="utf-8")
    return Sources(Options(rules=file), {"KEY": "key"}).load(also=Lints(known_facts))


def codes(policy: Policy) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What counts and what is accepted, with the files."""
    counting, accepted = (
        [(Path(problem.location.file).name, problem.code.value) for problem in some if problem.location]
        for some in (policy.warnings, policy.accepted)
    )
    return counting, accepted


OF_RULES, OF_TEAM, UNUSED = ("rules.toml", "RP101"), ("team.toml", "RP101"), ("rules.toml", "RP107")
LINTS = '\n[lints]\naccept = { RP101 = "why" }\n'
OF_DEFAULT = 'fallback = false\naccept = { RP101 = "why" }\n'


@pytest.mark.parametrize(
    ("rules", "team", "counting", "accepted"),
    [
        pytest.param(RULES, TEAM, [UNUSED, OF_RULES, OF_TEAM], [], id="nobody accepts"),
        pytest.param(RULES + LINTS, TEAM, [UNUSED, OF_TEAM], [OF_RULES], id="the file"),
        pytest.param(RULES, TEAM + LINTS, [UNUSED, OF_RULES], [OF_TEAM], id="the included file"),
        pytest.param(RULES + LINTS, TEAM + LINTS, [UNUSED], [OF_RULES, OF_TEAM], id="both"),
        pytest.param(
            RULES.replace("fallback = false\n", OF_DEFAULT),
            TEAM.replace("fallback = false\n", OF_DEFAULT),
            [UNUSED],
            [OF_RULES, OF_TEAM],
            id="each rule",
        ),
        pytest.param(
            RULES.replace("fallback = false\n", OF_DEFAULT) + LINTS,
            TEAM,
            [UNUSED, ("rules.toml", "RP112"), OF_TEAM],
            [OF_RULES],
            id="the default, so that the file has nothing to accept",
        ),
    ],
)
def test_a_file_accepts_its_own_warnings_only(
    rules: str,
    team: str,
    counting: list[tuple[str, str]],
    accepted: list[tuple[str, str]],
    tmp_path: Path,
) -> None:
    assert codes(policy(tmp_path, rules, team)) == (counting, accepted)


def test_the_version_of_a_policy_is_the_same_whatever_it_accepts(tmp_path: Path) -> None:
    assert policy(tmp_path, RULES + LINTS, TEAM + LINTS).version == policy(tmp_path).version


def test_a_start_does_not_find_acceptances_of_what_check_alone_finds_without_use(tmp_path: Path) -> None:
    policy(tmp_path, RULES + LINTS.replace("RP101", "RP107"))
    started = Sources(Options(rules=tmp_path / "rules.toml"), {"KEY": "key"}).load()
    assert Code.UNUSED_ACCEPTANCE not in {warning.code for warning in started.warnings}


def test_the_docs_say_of_every_warning_what_it_means_and_what_to_do() -> None:
    docs = (Path(__file__).parents[3] / "docs" / "commands.md").read_text(encoding="utf-8")
    for code in Code:
        assert docs.count(f"\n| `{code.value}` | ") == (1 if code.value < "RP101" else 2)
    assert set(ACCEPTABLE) == {code for code in Code if "RP101" <= code.value <= "RP111"}
