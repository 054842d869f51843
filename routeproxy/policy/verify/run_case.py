"""Runs one of `[[tests]]`: compares the decision, which the code that serves makes, with what is expected."""

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.facts import requested_model_problem
from routeproxy.policy.hypothetical import Case, Expected


class Difference(Struct, frozen=True):
    """One way in which a decision is not what its test expects, in words."""

    what: str
    """`rule`, `targets`, …"""
    expected: str
    got: str

    def __str__(self) -> str:
        if self.what == "never":
            return f"never {self.expected}, got {self.got}"
        return f"expected {self.what} {self.expected}, got {self.got}"


class Outcome(Struct, frozen=True, kw_only=True):
    """The result of one test case."""

    case: Case
    decision: Decision | None
    """`None`: the request was refused before any rule was asked."""
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        return not self.differences


def run_case(policy: Policy, case: Case, count: Callable[[bytes], int]) -> Outcome:
    """`count` gives the input tokens of a body; it is called only if a rule asks for them."""
    try:
        facts = policy.facts_of(case.question, count)
    except InvalidRequest as refusal:
        return _refused(case, refusal.message)
    if problem := requested_model_problem(facts.requested):
        return _refused(case, problem)
    decision = policy.decide(facts)
    differences = [
        *(_compare(case.expect, decision) if case.expect is not None else ()),
        *_find_forbidden(case, decision),
    ]
    return Outcome(case=case, decision=decision, differences=tuple(differences))


def _refused(case: Case, reason: str) -> Outcome:
    difference = Difference("a decision", "by the rules", f"a refusal before any rule: {reason}")
    return Outcome(case=case, decision=None, differences=(difference,))


def _compare(expected: Expected, decision: Decision) -> Iterator[Difference]:
    fields: dict[str, Any] = {
        "rule": decision.rule,
        "targets": tuple(target.name for target in decision.targets),
        "fallback": decision.fallback.enabled and len(decision.targets) > 1,
    }
    for name, value in fields.items():
        expected_value = getattr(expected, name)
        if expected_value is not None and expected_value != value:
            yield Difference(name, _format(expected_value), _format(value))
    yield from _compare_denial(expected, decision)
    for target in decision.targets if expected.transforms else ():
        for name, expected_value in (expected.transforms or {}).items():
            value = getattr(target.transforms, name)
            if value != expected_value:
                got = f"{_format(value)} for {target.name}"
                yield Difference(f"transforms.{name}", _format(expected_value), got)


def _compare_denial(expected: Expected, decision: Decision) -> Iterator[Difference]:
    message = decision.deny.message if decision.deny else None
    match expected.denied:
        case None:
            return
        case bool(denied):
            differs = denied is not (message is not None)
        case expected_message:
            differs = message != expected_message
    if differs:
        yield Difference(
            "denied", _format(expected.denied), _format(message if message is not None else False)
        )


def _find_forbidden(case: Case, decision: Decision) -> Iterator[Difference]:
    if case.never is None:
        return
    for target in decision.contacted:
        for reached in target.reached:
            if reason := case.never.never(reached):
                yield Difference("never", case.never.words, f"`{reached.name}`: {reason}")


def _format(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case tuple():
            return f"[{', '.join(f'`{item}`' for item in value)}]"
    return f"`{value}`"
