"""Tries one of `[[tests]]`: the same decision that serves, held against what the test expects."""

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.facts import requested_model_problem
from routeproxy.policy.questions import Case, Expected


class Difference(Struct, frozen=True):
    what: str
    """`rule`, `targets`, …"""
    expected: str
    got: str

    def __str__(self) -> str:
        if self.what == "never":
            return f"never {self.expected}, got {self.got}"
        return f"expected {self.what} {self.expected}, got {self.got}"


class Outcome(Struct, frozen=True, kw_only=True):
    case: Case
    decision: Decision | None
    """`None`: the request was refused before any rule was asked."""
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        return not self.differences


def run_case(policy: Policy, case: Case, count: Callable[[bytes], int]) -> Outcome:
    try:
        facts = policy.facts_of(case.question, count)
    except InvalidRequest as refused:
        return _refused(case, refused.message)
    if problem := requested_model_problem(facts.requested):
        return _refused(case, problem)
    decision = policy.decide(facts)
    found = [
        *(_unlike(case.expect, decision) if case.expect is not None else ()),
        *_reached(case, decision),
    ]
    return Outcome(case=case, decision=decision, differences=tuple(found))


def _refused(case: Case, why: str) -> Outcome:
    difference = Difference("a decision", "by the rules", f"a refusal before any rule: {why}")
    return Outcome(case=case, decision=None, differences=(difference,))


def _unlike(expect: Expected, decision: Decision) -> Iterator[Difference]:
    got: dict[str, Any] = {
        "rule": decision.rule,
        "targets": tuple(target.name for target in decision.targets),
        "fallback": decision.fallback.enabled and len(decision.targets) > 1,
    }
    for what, value in got.items():
        wanted = getattr(expect, what)
        if wanted is not None and wanted != value:
            yield Difference(what, _shown(wanted), _shown(value))
    yield from _denied(expect, decision)
    for target in decision.targets if expect.transforms else ():
        for name, wanted in (expect.transforms or {}).items():
            value = getattr(target.transforms, name)
            if value != wanted:
                yield Difference(f"transforms.{name}", _shown(wanted), f"{_shown(value)} for {target.name}")


def _denied(expect: Expected, decision: Decision) -> Iterator[Difference]:
    got = decision.deny.message if decision.deny else None
    match expect.denied:
        case None:
            return
        case bool(wanted):
            if wanted is not (got is not None):
                yield Difference("denied", _shown(wanted), _shown(got if got is not None else False))
        case words:
            if got != words:
                yield Difference("denied", _shown(words), _shown(got if got is not None else False))


def _reached(case: Case, decision: Decision) -> Iterator[Difference]:
    if case.never is None:
        return
    for target in decision.targets:
        for reached in target.reached:
            if why := case.never.never(reached):
                yield Difference("never", case.never.words, f"`{reached.name}`: {why}")


def _shown(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case tuple():
            return f"[{', '.join(f'`{item}`' for item in value)}]"
    return f"`{value}`"
