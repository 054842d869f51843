"""Rules that no request gets to: what is reported is so, and thousands of rules are examined in good time."""

import sys
from collections.abc import Callable, Sequence

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
            [{"model": {"regex": "^gpt-[0-9]+$"}}, {"model": {"regex": "^claude-(opus|haiku)-v1$"}}],
            [],
            id="regexes that take other texts",
        ),
        pytest.param(
            [{"model": {"regex": "v1"}}, {"model": {"regex": "x{3}$"}}, {"model": {"regex": "v1"}}],
            ["r2: no request gets here: `r0` above takes all that this rule would"],
            id="the same regex once more",
        ),
        pytest.param(
            [{"headers": {"x-app": "a"}}, {"model": {"regex": "[0-9]-v1$"}, "headers": {"x-app": "a"}}],
            ["r1: no request gets here: `r0` above takes all that this rule would"],
            id="a regex with a header that is taken",
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
    budget = Budget(3)
    assert found(policy, budget) == [
        "r2: whether requests get here was not found out: the rules above are too many together"
    ]


def test_thousands_of_regexes_are_examined_whether_or_not_some_take_what_others_would() -> None:
    apart = [{"model": {"regex": f"^claude-(opus|haiku)-[0-9]+-v{n}$"}} for n in range(600)]
    alike = [{"model": {"regex": f"(?i)gpt-{n}(-mini)?"}} for n in range(600)]
    assert found(policy_of(*apart, *alike)) == []


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


def chain(number: int) -> str:
    """`x0-a`, `x0-ab`, … up to 50 letters, then `x1-a`."""
    return f"x{number // 50}-" + ("abcdefghij" * 5)[: number % 50 + 1]


KINDS: dict[str, Callable[[int], Table]] = {
    "none like another": lambda n: {"model": f"model-{n:05d}x"},
    "numbers that begin like others": lambda n: {"model": f"a{n}"},
    "repeated parts": lambda n: {"model": f"m-{'ab' * (n % 7)}{n}"},
    "each in the next": lambda n: {"model": chain(n)},
    "each in the one before": lambda n: {"model": chain(299 - n)},
    "each ends with the one before": lambda n: {"model": chain(n)[::-1]},
    "regexes": lambda n: {"model": {"regex": f"^claude-(opus|haiku)-[0-9]+-v{n}$"}},
    "regexes that take what others would": lambda n: {"model": {"regex": f"(?i)gpt-{n}"}},
    "regexes with a header": lambda n: {"model": {"regex": f"[a-z]v{n}"}, "headers": {"x-a": f"{n % 7}"}},
    "globs": lambda n: {"model": {"glob": f"claude-*-v{n}-*"}},
    "ranges that overlap": lambda n: {"input_tokens": {"min": 3 * n, "max": 3 * n + 50}},
    "headers of their own": lambda n: {"headers": {f"x-h{n}": "1"}},
    "one of three": lambda n: {
        "any": [{"model": f"q{n}-"}, {"headers": {"x-q": f"{n}"}}, {"max_tokens": {"max": n}}]
    },
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_twice_as_many_rules_are_twice_the_work(kind: Callable[[int], Table]) -> None:
    few, many = (work_for([kind(number) for number in range(count)]) for count in (150, 300))
    assert many < 2.5 * few
