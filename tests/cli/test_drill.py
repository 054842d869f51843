"""`routeproxy drill` (docs/drills.md)."""

import json
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from routeproxy.cli.drill import run_drill
from routeproxy.drill.back_end import Asked
from routeproxy.drill.chains import chains_of, policy_of
from routeproxy.drill.rehearsal import Got, judge
from routeproxy.drill.scenarios import ours
from tests.policy.asking import policy

RULES = """\
[providers.openai]
[providers.gemini]
[providers.bedrock]
aws_region_name = "us-east-1"
[providers.echo]
[teams.some]
keys = "env:SOME_KEY"

[[rules]]
name = "two"
match.team = "some"
targets = ["openai/gpt-4.1", "gemini/gemini-2.5-pro"]

[[rules]]
name = "two again"
match.model = "haiku"
targets = ["openai/gpt-4.1", "gemini/gemini-2.5-pro"]

[[rules]]
name = "one"
match.model = "sonnet"
targets = "openai/*"

[[rules]]
name = "aws"
match.model = "opus"
targets = ["bedrock/x.y", "openai/gpt-4.1"]

[[rules]]
name = "nobody"
match.model = "fable"
deny = "no"

[default]
targets = "echo/x"
"""


def drilled(*only: str, **options: Any) -> tuple[int, str]:
    out = StringIO()
    code = run_drill(policy(RULES, {}), only, out=out, **options)
    return code, out.getvalue()


def test_each_chain_is_rehearsed_once_for_all_rules_that_have_it() -> None:
    assert [
        ([rule.name for rule in chain.rules], chain.why_not) for chain in chains_of(policy(RULES, {}))
    ] == [
        (["two", "two again"], ""),
        (["one"], ""),
        (["aws"], "type bedrock is asked in a format that LiteLLM alone writes"),
        (["default"], "`echo` answers from within, and never fails"),
    ]


def test_what_is_rehearsed_leads_to_this_machine_and_has_no_key() -> None:
    compiled = policy(RULES, {"OPENAI_API_KEY": "sk-canary-0123456789"})
    for chain in chains_of(compiled):
        if chain.why_not:
            continue
        copied = policy_of(compiled, chain, ["http://127.0.0.1:1"] * len(chain.formats))
        for target in copied.default.targets:
            provider = target.provider
            assert provider.base_url == "http://127.0.0.1:1/v1"
            assert (provider.keys, provider.headers, provider.proxy, provider.secret_values) == (
                (),
                {},
                None,
                (),
            )


def test_what_is_no_better_than_safe_says_what_would_be() -> None:
    code, text = drilled("two", "08", "12")
    assert code == 0
    assert "two, two again: openai/gpt-4.1 → gemini/gemini-2.5-pro" in text
    assert "streamed: 0 pass, 0 partial, 2 safe, 0 fail" in text
    assert '`hold = "whole"` keeps a stream' in text
    assert '`fallback.also = ["context_overflow"]`' in text
    assert "one: " not in text


def rows(rules: str, *numbers: str) -> dict[str, dict[str, Any]]:
    """Of the first chain, streamed, by number."""
    out = StringIO()
    run_drill(policy(rules, {}), numbers, json=True, out=out)
    return {row["number"]: row for row in json.loads(out.getvalue())["chains"][0]["scenarios"]}


@pytest.mark.parametrize("number", ["23", "24", "25", "26"])
def test_names_that_are_none_slow_answers_reloads_and_clients_that_leave_are_survived(number: str) -> None:
    code, text = drilled("two", number, verbose=True)
    assert code == 0
    assert text.count(f"pass    {number} ") == 2, text


BREAKER = """
[providers.openai]
{health}
[providers.gemini]
[default]
targets = ["openai/gpt-4.1", "gemini/gemini-2.5-pro"]
"""


def test_a_target_that_is_down_is_asked_a_few_times_and_again_once_it_is_well() -> None:
    row = rows(BREAKER.format(health=""), "27")["27"]
    assert (row["verdict"], set(row["outcomes"]), row["asked"][-1]) == ("pass", {"complete"}, 1)


def test_a_target_whose_health_nobody_keeps_is_asked_each_time_and_the_drill_says_so() -> None:
    row = rows(BREAKER.format(health="health = false"), "27")["27"]
    assert (row["verdict"], row["asked"].count(1)) == ("partial", 61)
    assert "`health = false`" in row["hint"]


def test_a_client_that_leaves_and_a_back_end_that_is_not_let_go_is_a_failure() -> None:
    (scenario,) = [one for one in ours() if one.leaves]
    left = [Got(200, {}, b"", 5.0, None, left=True)]
    assert judge(scenario, left, [Asked("1", 0.0, was_let_go=True)], alone=False) == "pass"
    assert judge(scenario, left, [Asked("1", 0.0)], alone=False) == "fail"
    assert judge(scenario, left, [Asked("1", 0.0, was_let_go=True), Asked("2", 1.0)], alone=False) == "fail"


def test_a_chain_of_one_gets_what_one_can_get() -> None:
    code, text = drilled("one", "02")
    assert code == 0
    assert "one target: nobody else is asked" in text
    assert "error rate_limit_error at once; asked: target 1 1 ×" in text


def test_json_has_all_of_it() -> None:
    _, text = drilled("05", json=True)
    document = json.loads(text)
    assert document["not_rehearsed"][0]["targets"] == "bedrock/x.y → openai/gpt-4.1"
    first = document["chains"][0]
    assert (first["rules"], first["stream"]) == (["two", "two again"], True)
    (scenario,) = first["scenarios"]
    assert (scenario["verdict"], scenario["outcomes"], scenario["asked"]) == ("pass", ["complete"], [1, 2])


def test_junit_is_a_report_for_ci(tmp_path: Path) -> None:
    report = tmp_path / "drill.xml"
    drilled("one", "04", junit=report)
    root = ElementTree.parse(report).getroot()
    assert root.attrib["tests"] == "2"
    assert [case.attrib["name"] for case in root.iter("testcase")] == [
        "04 503 always, streamed",
        "04 503 always, whole",
    ]


def test_a_name_of_nothing_is_told_so() -> None:
    with pytest.raises(ValueError, match="neither a rule nor a scenario is called dreams"):
        drilled("dreams")


def test_what_passed_is_shown_if_asked_for() -> None:
    assert "pass    05 reset once" in drilled("two", "05", verbose=True)[1]
    assert "05" not in drilled("two", "05")[1]
