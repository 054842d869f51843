"""Conditions on `input_tokens`, where a bound may spare the counting but never change the answer."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from routeproxy.messages.request import decode_envelope
from routeproxy.policy.facts import Facts
from tests.policy.asking import rules

BODY = b'{"model": "m", "messages": []}'
NUMBERS = st.integers(0, 12)
RANGES = st.fixed_dictionaries({}, optional={"min": NUMBERS, "max": NUMBERS}).filter(
    lambda ends: ends and ends.get("min", 0) <= ends.get("max", 99)
)


def facts(count: Callable[[], int], is_below: Callable[[int], bool] | None = None) -> Facts:
    return Facts(decode_envelope(BODY), {}, count=count, is_below=is_below)


def one_rule(ends: dict[str, int], refused: dict[str, int] | None) -> str:
    lines = [f"match.input_tokens.{end} = {number}" for end, number in ends.items()]
    lines += [f"match.not.input_tokens.{end} = {number}" for end, number in (refused or {}).items()]
    return "\n".join(["[[rules]]", 'name = "sized"', *lines, 'targets = "openai/gpt-5"'])


@given(RANGES, st.none() | RANGES, st.integers(1, 14), st.integers(0, 9))
def test_a_bound_never_changes_a_decision(
    ends: dict[str, int], refused: dict[str, int] | None, tokens: int, unsure: int
) -> None:
    policy = rules(one_rule(ends, refused))
    counted = policy.decide(facts(lambda: tokens))
    bounded = policy.decide(facts(lambda: tokens, lambda limit: tokens + unsure < limit))
    assert bounded.rule == counted.rule


def test_a_short_request_is_sized_without_being_counted() -> None:
    def count() -> Any:
        raise AssertionError("it was counted")

    policy = rules(one_rule({"min": 60_000}, None))
    assert policy.decide(facts(count, lambda limit: limit > 100)).rule == "default"
