"""Parameters that would take a request past its targets: nobody may set some, an included file none."""

from pathlib import Path

import pytest

from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.problems import RulesRefused

MAIN = """
[providers.echo]
[teams.t]
targets = "echo/*"
[[rules]]
include = "team.toml"
[default]
targets = "echo/a"
"""
TEAM = """
team = "t"
[[rules]]
name = "own"
targets = "echo/a"
params.set.{}
"""


def said(folder: Path, main: str, team: str) -> list[str]:
    (folder / "team.toml").write_text(team)
    try:
        compile_rules(main, path=folder / "rules.toml", environ={})
    except RulesRefused as refused:
        return [problem.message for problem in refused.problems]
    return []


def test_no_rule_names_fallbacks_of_its_own(tmp_path: Path) -> None:
    main = MAIN + 'params.set.fallbacks = [{ model = "other" }]\n'
    assert "`fallbacks` is not a rule's to change" in said(tmp_path, main, TEAM.format("top_k = 1"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mcp_servers", '[{ type = "url", name = "m", url = "https://example.com" }]'),
        ("inference_geo", '"us"'),
        ("container", '"c"'),
    ],
)
def test_an_included_file_sends_nothing_elsewhere(tmp_path: Path, name: str, value: str) -> None:
    refused = said(tmp_path, MAIN, TEAM.format(f"{name} = {value}"))
    assert f"an included file can't have `{name}`: it can only narrow" in refused


def test_an_included_file_may_set_what_stays_here(tmp_path: Path) -> None:
    assert said(tmp_path, MAIN, TEAM.format("top_k = 1")) == []
