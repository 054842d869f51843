"""A shadow rule decides nothing; what it would have done is recorded (docs/rules.md, "shadow")."""

from typing import Any

import pytest

from routeproxy.policy.explain import explain
from routeproxy.policy.logged import logged_facts
from routeproxy.policy.shadow import shadow_outcomes
from routeproxy.policy.verify.diff import compare_policies
from tests.policy.asking import PROVIDERS, brief, policy, problems, request

BELOW = """
[[rules]]
name = "haiku"
match.model = "haiku"
targets = "openai/gpt-5-mini"
[default]
targets = "echo/default"
"""


def shadowed(rule: str, below: str = BELOW) -> Any:
    return policy(f'{PROVIDERS}\n[[rules]]\nname = "tried"\nshadow = true\n{rule}\n{below}')


def would_have(rule: str, below: str = BELOW, model: str = "m", **facts: Any) -> dict[str, str]:
    by = shadowed(rule, below)
    decision = by.decide(request(model, **facts))
    assert decision.rule != "tried"
    return dict(shadow_outcomes(by, decision))


GEMINI = 'match.model = "haiku"\ntargets = ["gemini/gemini-2.5-flash", "echo/x"]'


def test_what_it_would_have_done_is_told_of_the_requests_that_it_would_have_taken() -> None:
    assert would_have(GEMINI, model="claude-haiku") == {"tried": "gemini/gemini-2.5-flash, echo/x"}
    assert would_have(GEMINI) == {}
    assert would_have('match.model = "haiku"\ndeny = "no"', model="haiku") == {"tried": "denied"}


def test_below_the_rule_that_takes_a_request_it_would_have_done_nothing() -> None:
    rule = '[[rules]]\nname = "tried"\nshadow = true\ntargets = "echo/x"\n[default]\ntargets = "echo/default"'
    by = policy(f"{PROVIDERS}\n{BELOW.partition('[default]')[0]}\n{rule}")
    assert shadow_outcomes(by, by.decide(request("haiku"))) == {}
    assert shadow_outcomes(by, by.decide(request("opus"))) == {"tried": "echo/x"}


def test_it_hides_no_rule_below_it_and_is_no_fault_of_the_proof() -> None:
    text = f"""{PROVIDERS}
[[invariants]]
name = "never outside"
never.provider = "openai"
[[rules]]
name = "tried"
shadow = true
targets = "openai/gpt-5"
[[rules]]
name = "real"
match.model = "m"
targets = "echo/x"
[default]
targets = "echo/default"
"""
    assert [problem for problem in problems(text) if problem.severity == "error"] == []
    assert not [problem for problem in map(brief, problems(text)) if "no request gets here" in problem]
    assert policy(text).decide(request("m")).rule == "real"


def test_a_header_that_only_it_looks_at_is_recorded_and_refuses_nobody() -> None:
    rule = 'match.headers.x-a = "1"\ntargets = "echo/x"'
    by = shadowed(rule)
    twice = {"x-a": ("1", "2")}
    by.check_headers(twice)
    decision = by.decide(request("m", headers=twice))
    assert shadow_outcomes(by, decision) == {"tried": "unknown"}
    once = request("m", headers={"x-a": ("1",)})
    assert logged_facts(once, by)["headers"] == {"x-a": "1"}
    assert shadow_outcomes(by, by.decide(once)) == {"tried": "echo/x"}


def test_explain_shows_it_and_diff_names_it() -> None:
    by, without = shadowed(GEMINI), policy(f"{PROVIDERS}\n{BELOW}")
    words = str(explain(by.decide(request("haiku")), by))
    assert "shadow: tried would have taken it: gemini/gemini-2.5-flash, echo/x" in words
    added = "shadow rule `tried` added: it would take requests where model contains `haiku`, "
    assert compare_policies(without, by) == [f"{added}to gemini/gemini-2.5-flash, echo/x"]
    assert compare_policies(by, without) == ["shadow rule `tried` removed"]
    assert by.version != without.version


def test_its_own_faults_are_faults() -> None:
    text = f'{PROVIDERS}\n[[rules]]\nshadow = true\ntargets = "nobody/x"\n{BELOW}'
    assert any("nobody" in problem for problem in map(brief, problems(text)))


@pytest.mark.parametrize("table", ['[default]\nshadow = true\ntargets = "echo/x"'])
def test_the_default_is_none(table: str) -> None:
    assert any("unknown key `shadow`" in problem for problem in map(brief, problems(f"{PROVIDERS}\n{table}")))
