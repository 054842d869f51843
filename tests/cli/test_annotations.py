"""Problems as SARIF and as GitHub's workflow commands."""

import json
from pathlib import Path
from typing import Any

import pytest

import routeproxy
from routeproxy.cli.annotations import MEANINGS, github, sarif
from routeproxy.policy.problems import Code, Location, Problem
from tests.policy.asking import problems

TYPO = """\
[providers.openai]
[[rules]]
name = "background work"
match.modle = "haiku"
targets = ["openai/x", "openai/y"]
fallback = false
[default]
targets = "opneai/x"
"""
NOWHERE = Problem(code=Code.UNSET_VARIABLE, severity="warning", path=("PORT",), message="PORT is not set")


def problem(file: str = "rules.toml", message: str = "it is wrong", **more: Any) -> Problem:
    place = Location(file, 3, 5, 9, "the line")
    return Problem(
        code=Code.WRONG_VALUE, severity="error", path=("x",), message=message, location=place, **more
    )


def run(found: list[Problem]) -> dict[str, Any]:
    log = json.loads(sarif(found))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    assert isinstance(run, dict)
    return run


def result(found: Problem) -> dict[str, Any]:
    (result,) = run([found])["results"]
    assert isinstance(result, dict)
    return result


def region(found: Problem) -> dict[str, Any]:
    (location,) = result(found)["locations"]
    region = location["physicalLocation"]["region"]
    assert isinstance(region, dict)
    return region


def uri(file: str) -> str:
    (location,) = result(problem(file))["locations"]
    return str(location["physicalLocation"]["artifactLocation"]["uri"])


# --- both


def test_every_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Code)
    assert len(set(MEANINGS.values())) == len(Code)


@pytest.mark.parametrize("shown", [sarif, github])
@pytest.mark.parametrize(
    "line",
    [
        'api_key = "sk-hidden"',
        'apikey = "sk-hidden"',
        "api_key = sk-hidden",
        'base_url = "http://me:sk-hidden@x"',
    ],
)
def test_no_line_of_the_file_is_repeated(shown: Any, line: str) -> None:
    found = problems(f'[providers.anthropic]\n{line}  # a comment\n[default]\ndeny = "no"\n')
    assert found
    assert "hidden" not in shown(found)
    assert "a comment" not in shown(found)


# --- SARIF


def test_sarif_has_one_run_of_this_tool_with_the_rules_it_used() -> None:
    found = problems(TYPO)
    driver = run(found)["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("routeproxy", routeproxy.__version__)
    assert driver["rules"] == [
        {"id": "RP002", "shortDescription": {"text": "An unknown key."}},
        {"id": "RP007", "shortDescription": {"text": "A name of something that does not exist."}},
        {"id": "RP101", "shortDescription": {"text": "Targets that are never used."}},
    ]


def test_each_result_points_at_its_rule_and_its_place() -> None:
    shown = run(problems(TYPO))
    rules = shown["tool"]["driver"]["rules"]
    assert [(one["ruleId"], one["level"]) for one in shown["results"]] == [
        ("RP002", "error"),
        ("RP101", "warning"),
        ("RP007", "error"),
    ]
    assert all(rules[one["ruleIndex"]]["id"] == one["ruleId"] for one in shown["results"])
    assert shown["results"][0]["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "rules.toml"},
                "region": {"startLine": 4, "startColumn": 7, "endColumn": 12},
            }
        }
    ]


def test_the_message_says_how_to_put_it_right() -> None:
    found = problem(expected="`a` or `b`", hint="try `a`", rule="mine")
    assert result(found)["message"] == {"text": "it is wrong\nin rule `mine`\nexpected `a` or `b`\ntry `a`"}


def test_no_problems_are_a_run_without_results() -> None:
    shown = run([])
    assert (shown["results"], shown["tool"]["driver"]["rules"]) == ([], [])


def test_a_problem_of_the_environment_has_no_place() -> None:
    shown = result(NOWHERE)
    assert (shown["locations"], shown["message"]) == ([], {"text": "PORT is not set"})


def test_columns_count_characters_however_wide_they_are() -> None:
    line = '\tbig = { params.set.speed = "𝄞 für",\ttarget = "öl/x" }'
    (found,) = problems(f'[aliases]\n{line}\n[default]\ndeny = "no"\n')
    shown = region(found)
    assert line[shown["startColumn"] - 1 : shown["endColumn"] - 1] == '"öl/x"'
    assert run([found])["columnKind"] == "unicodeCodePoints"


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        pytest.param("rules.toml", "rules.toml", id="as it is"),
        pytest.param("./conf/rules.toml", "conf/rules.toml", id="a folder"),
        pytest.param("my rules/50%.toml", "my%20rules/50%25.toml", id="a space and a percent sign"),
        pytest.param("c:rules.toml", "c%3Arules.toml", id="a colon is no scheme"),
        pytest.param("é.toml", "%C3%A9.toml", id="beyond ASCII"),
        pytest.param("\udcff.toml", "%FF.toml", id="not UTF-8"),
        pytest.param("/else where/rules.toml", "file:///else%20where/rules.toml", id="elsewhere"),
    ],
)
def test_files_are_uris(file: str, shown: str) -> None:
    assert uri(file) == shown


def test_a_file_below_this_folder_is_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = str(tmp_path / "conf" / "rules.toml")
    assert uri(file) == "conf/rules.toml"
    assert "file=conf/rules.toml," in github([problem(file)])


# --- GitHub


def test_github_gets_a_command_a_line() -> None:
    first, second, third = github(problems(TYPO)).split("\n")
    assert first.startswith(
        "::error file=rules.toml,line=4,col=7,endColumn=12,title=RP002::"
        "unknown key `modle`; did you mean `model`?%0Ain rule `background work`%0Aexpected one of "
    )
    assert second.startswith("::warning file=rules.toml,line=6,col=12,endColumn=17,title=RP101::")
    assert third.startswith("::error file=rules.toml,line=8,")


def test_no_problems_are_no_commands() -> None:
    assert github([]) == ""


def test_a_command_without_a_place() -> None:
    assert github([NOWHERE]) == "::warning title=RP103::PORT is not set"


def test_what_would_end_a_property_or_a_command_is_escaped() -> None:
    assert github([problem("a,b:c%.toml", "50%, say: yes\r\nor no")]) == (
        "::error file=a%2Cb%3Ac%25.toml,line=3,col=5,endColumn=9,title=RP003::50%25, say: yes%0D%0Aor no"
    )
