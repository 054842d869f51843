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


def run(reported: list[Problem]) -> dict[str, Any]:
    log = json.loads(sarif(reported))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    assert isinstance(run, dict)
    return run


def result(reported: Problem) -> dict[str, Any]:
    (result,) = run([reported])["results"]
    assert isinstance(result, dict)
    return result


def region(reported: Problem) -> dict[str, Any]:
    (location,) = result(reported)["locations"]
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


@pytest.mark.parametrize("render", [sarif, github])
@pytest.mark.parametrize(
    "line",
    [
        'api_key = "sk-hidden"',
        'apikey = "sk-hidden"',
        "api_key = sk-hidden",
        'base_url = "http://me:sk-hidden@x"',
    ],
)
def test_no_line_of_the_file_is_repeated(render: Any, line: str) -> None:
    reported = problems(f'[providers.anthropic]\n{line}  # a comment\n[default]\ndeny = "no"\n')
    assert reported
    assert "hidden" not in render(reported)
    assert "a comment" not in render(reported)


# --- SARIF


def test_sarif_has_one_run_of_this_tool_with_the_rules_it_used() -> None:
    reported = problems(TYPO)
    driver = run(reported)["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("routeproxy", routeproxy.__version__)
    assert driver["rules"] == [
        {"id": "RP002", "shortDescription": {"text": "An unknown key."}},
        {"id": "RP007", "shortDescription": {"text": "A name of something that does not exist."}},
        {"id": "RP101", "shortDescription": {"text": "Targets that are never used."}},
    ]


def test_each_result_points_at_its_rule_and_its_place() -> None:
    report = run(problems(TYPO))
    rules = report["tool"]["driver"]["rules"]
    assert [(result["ruleId"], result["level"]) for result in report["results"]] == [
        ("RP002", "error"),
        ("RP101", "warning"),
        ("RP007", "error"),
    ]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in report["results"])
    assert report["results"][0]["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "rules.toml"},
                "region": {"startLine": 4, "startColumn": 7, "endColumn": 12},
            }
        }
    ]


def test_the_message_says_how_to_put_it_right() -> None:
    reported = problem(expected="`a` or `b`", hint="try `a`", rule="mine")
    assert result(reported)["message"] == {
        "text": "it is wrong\nin rule `mine`\nexpected `a` or `b`\ntry `a`"
    }


def test_no_problems_are_a_run_without_results() -> None:
    report = run([])
    assert (report["results"], report["tool"]["driver"]["rules"]) == ([], [])


def test_a_problem_of_the_environment_has_no_place() -> None:
    report = result(NOWHERE)
    assert (report["locations"], report["message"]) == ([], {"text": "PORT is not set"})


def test_columns_count_characters_however_wide_they_are() -> None:
    line = '\tbig = { params.set.speed = "𝄞 für",\ttarget = "öl/x" }'
    (reported,) = problems(f'[aliases]\n{line}\n[default]\ndeny = "no"\n')
    marked = region(reported)
    assert line[marked["startColumn"] - 1 : marked["endColumn"] - 1] == '"öl/x"'
    assert run([reported])["columnKind"] == "unicodeCodePoints"


@pytest.mark.parametrize(
    ("file", "expected"),
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
def test_files_are_uris(file: str, expected: str) -> None:
    assert uri(file) == expected


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
