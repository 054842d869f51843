"""Rules that no request gets to: what is reported is so, and thousands of rules are examined in good time."""

import sys
from collections.abc import Sequence

import pytest
from hypothesis import given, reject

from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.compile.unreachable import UnreachableRules
from routeproxy.policy.decide import Policy
from routeproxy.policy.problems import RulesRefused
from routeproxy.policy.verify.solver import Budget
from tests.budgets import examples
from tests.policy.policies import Dice, Table, Written, compiled, dice, file_of, requests


def policy_of(*matches: Table) -> Policy:
    """One rule for each match, `r0` first."""
    rules = [{"name": f"r{number}", "match": match, "targets": "p/m"} for number, match in enumerate(matches)]
    provider = {"type": "openai", "api_key": "none", "base_url": "http://127.0.0.1:1/v1"}
    return compiled(Written({"providers": {"p": provider}, "rules": rules, "default": {"targets": "p/m"}}))


def found(policy: Policy, budget: Budget | None = None) -> list[str]:
    return [f"{rule.name}: {message}" for rule, _, message, _ in UnreachableRules(policy, budget)]


def models(*parts: str) -> list[Table]:
    return [{"model": part} for part in parts]


@pytest.mark.parametrize(
    ("matches", "expected"),
    [
        pytest.param(models("opus", "sonnet", "haiku"), [], id="other words"),
        pytest.param(models("opus-4", "opus"), [], id="the narrower one first"),
        pytest.param(
            models("opus", "sonnet", "opus-4"),
            ["r2: no request gets here: `r0` above takes all that this rule would"],
            id="the wider one first",
        ),
        pytest.param(
            models("a", "b", "ab"),
            ["r2: no request gets here: `r0` above takes all that this rule would"],
            id="the first of two wider ones is named",
        ),
        pytest.param(
            [{"max_tokens": {"min": 10}}, {"max_tokens": {"max": 20}}, {"max_tokens": {"min": 5, "max": 30}}],
            ["r2: no request gets here: the rules above together take all that this one would"],
            id="two ranges that meet",
        ),
        pytest.param(
            [{"stream": True}, {"stream": False}, {"model": "opus"}],
            ["r2: no request gets here: the rules above together take all that this one would"],
            id="streamed or not",
        ),
        pytest.param(
            [{"model": {"prefix": "a"}, "not": {"model": "a"}}, {"model": "b"}],
            ["r0: no request can meet all conditions of this rule: they exclude each other"],
            id="a condition and its negation",
        ),
    ],
)
def test_a_rule_that_nothing_gets_to_is_reported_with_the_rules_that_take_its_requests(
    matches: Sequence[Table], expected: list[str]
) -> None:
    assert found(policy_of(*matches)) == expected


def test_ranges_that_overlap_leave_each_other_something() -> None:
    ranges = [{"max_tokens": {"min": number, "max": number + 5}} for number in range(800)]
    assert found(policy_of(*ranges)) == []


def test_what_was_not_found_out_is_said() -> None:
    policy = policy_of({"stream": True}, {"stream": False}, {"model": "opus"}, {"model": "sonnet"})
    budget = Budget()
    budget.steps = 3
    assert found(policy, budget) == [
        "r2: whether requests get here was not found out: the rules above are too many together"
    ]


@examples(60)
@given(dice)
def test_no_request_gets_to_a_rule_that_is_reported(thrown: Dice) -> None:
    written = file_of(thrown)
    try:
        policy = compiled(written)
    except RulesRefused:
        reject()
    reported = {
        rule.name for rule, _, message, _ in UnreachableRules(policy) if "not found out" not in message
    }
    for asked in requests(thrown, written, 40):
        try:
            decision = policy.decide(policy.facts_of(asked.question))
        except InvalidRequest:
            continue
        assert decision.rule not in reported


def work_for(matches: list[Table]) -> int:
    """How many functions of ours are called."""
    policy = policy_of(*matches)
    policy.prepare()
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        list(UnreachableRules(policy))
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("model-{0:05d}x", id="none like another"),
        pytest.param("a{0}", id="numbers that begin like others"),
        pytest.param("m-{1}{0}", id="repeated parts"),
    ],
)
def test_twice_as_many_rules_are_twice_the_work(name: str) -> None:
    few, many = (
        work_for(models(*(name.format(number, "ab" * (number % 7)) for number in range(count))))
        for count in (300, 600)
    )
    assert many < 2.5 * few
