"""`routeproxy test`: the tests that stand in a rules file, run by the code that serves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO
from xml.etree import ElementTree

from msgspec import Struct

from routeproxy import tokens
from routeproxy.policy.decide import Policy
from routeproxy.policy.explain import explain
from routeproxy.policy.verify.run_case import Outcome, run_case


class Coverage(Struct, frozen=True):
    reached: tuple[str, ...]
    """The rules that took the request of some test, `default` among them."""
    missed: tuple[str, ...]

    @property
    def percent(self) -> int:
        """Rounded down, so that 100 means all."""
        return 100 * len(self.reached) // (len(self.reached) + len(self.missed))


def run_test(
    load: Callable[[], Policy],
    *,
    coverage: bool = False,
    min_coverage: int = 0,
    junit: Path | None = None,
    out: TextIO,
    err: TextIO,
) -> int:
    """0: all passed. 1: some failed, or too few rules are covered.

    `load` does not run the tests itself.
    """
    policy = load()
    outcomes = [run_case(policy, case, tokens.count) for case in policy.tests]
    print("\n".join([*_lines(outcomes, policy), _summary(outcomes, policy)]), file=out)
    covered = covered_by(outcomes, policy)
    if coverage or min_coverage:
        print(_coverage(covered), file=out)
    if junit is not None:
        junit.write_text(_junit(outcomes, policy), encoding="utf-8")
    if covered.percent < min_coverage:
        print(f"coverage is {covered.percent} %, needs at least {min_coverage} %", file=err)
        return 1
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def covered_by(outcomes: Sequence[Outcome], policy: Policy) -> Coverage:
    names = [*(rule.name for rule in policy.rules), policy.default.name]
    took = {outcome.decision.rule for outcome in outcomes if outcome.decision is not None}
    return Coverage(
        tuple(name for name in names if name in took), tuple(name for name in names if name not in took)
    )


def _lines(outcomes: Sequence[Outcome], policy: Policy) -> list[str]:
    lines = []
    for outcome in outcomes:
        mark = "✓" if outcome.passed else "✗"
        lines.append(f"{mark} {outcome.case.name}  {outcome.case.where}")
        if not outcome.passed:
            lines += [f"    {line}".rstrip() for line in _failure(outcome, policy)]
    return lines


def _failure(outcome: Outcome, policy: Policy) -> list[str]:
    lines = []
    for difference in outcome.differences:
        what = "" if difference.what == "never" else f"{difference.what} "
        lines.append(f"{'never' if difference.what == 'never' else 'expected':9}{what}{difference.expected}")
        lines.append(f"{'got':9}{what}{difference.got}")
    if outcome.decision is not None:
        lines.append("")
        # Its first line names the file once more.
        lines += str(explain(outcome.decision, policy)).splitlines()[2:]
        lines.append("")
    return lines


def _summary(outcomes: Sequence[Outcome], policy: Policy) -> str:
    if not outcomes:
        return f"{policy.source}: no tests. A test is `[[tests]]` with `request` and `expect` or `never`."
    failed = sum(not outcome.passed for outcome in outcomes)
    passed = len(outcomes) - failed
    found = f"{passed} passed" + (f", {failed} failed" if failed else "")
    return f"{policy.source}: {found}, version {policy.version}"


def _coverage(covered: Coverage) -> str:
    all_rules = len(covered.reached) + len(covered.missed)
    lines = [f"coverage: {len(covered.reached)} of {all_rules} rules (with the default), {covered.percent} %"]
    return "\n".join([*lines, *(f"  no test reaches `{name}`" for name in covered.missed)])


def _junit(outcomes: Sequence[Outcome], policy: Policy) -> str:
    failed = sum(not outcome.passed for outcome in outcomes)
    counts = {"tests": str(len(outcomes)), "failures": str(failed), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": policy.source, **counts})
    for outcome in outcomes:
        file, _, line = outcome.case.where.rpartition(":")
        named = {"classname": policy.source, "name": outcome.case.name, "file": file, "line": line}
        case = ElementTree.SubElement(suite, "testcase", named)
        if not outcome.passed:
            words = "; ".join(map(str, outcome.differences))
            failure = ElementTree.SubElement(case, "failure", {"message": words})
            failure.text = "\n".join(_failure(outcome, policy))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
