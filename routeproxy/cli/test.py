"""`routeproxy test`: the tests that stand in a rules file, run by the code that serves."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TextIO

import typer
from msgspec import Struct

from routeproxy import tokens
from routeproxy.cli.junit import JUnitSuite
from routeproxy.cli.options import LiteralKeysOption, RulesArgument, RulesOption, new_app
from routeproxy.cli.running import chosen_sources, run_and_exit
from routeproxy.policy.decide import Policy
from routeproxy.policy.explain import explain
from routeproxy.policy.verify.run_case import Outcome, run_case

app = new_app()


@app.command()
def command(
    file: RulesArgument = None,
    coverage: Annotated[bool, typer.Option("--coverage", help="Say which rules no test reaches.")] = False,
    min_coverage: Annotated[
        int,
        typer.Option(min=0, max=100, metavar="PERCENT", help="Fail if fewer of the rules are reached."),
    ] = 0,
    junit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the results as JUnit XML too.", show_default=False),
    ] = None,
    rules: RulesOption = None,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Run the tests that stand in a rules file, and say why one fails.

    Exit code 0: all pass; 1: some don't, or the rules have errors; 2: the file cannot be read.
    """
    load = chosen_sources(file, rules, allow_literal_keys=allow_literal_keys).unproved
    run_and_exit(
        lambda: run_test(
            load, coverage=coverage, min_coverage=min_coverage, junit=junit, out=sys.stdout, err=sys.stderr
        )
    )


class Coverage(Struct, frozen=True):
    """Which rules the tests of a file reach, by name, `default` among them."""

    reached: tuple[str, ...]
    """The rules that took the request of some test."""
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
    """Exit code 0: all tests passed; 1: some failed, or too few rules are covered.

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
    reached = {outcome.decision.rule for outcome in outcomes if outcome.decision is not None}
    return Coverage(
        tuple(name for name in names if name in reached), tuple(name for name in names if name not in reached)
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
        # The first line of an explanation names the file once more.
        lines += str(explain(outcome.decision, policy)).splitlines()[2:]
        lines.append("")
    return lines


def _summary(outcomes: Sequence[Outcome], policy: Policy) -> str:
    if not outcomes:
        return f"{policy.source}: no tests. A test is `[[tests]]` with `request` and `expect` or `never`."
    failed = sum(not outcome.passed for outcome in outcomes)
    passed = len(outcomes) - failed
    counts = f"{passed} passed" + (f", {failed} failed" if failed else "")
    return f"{policy.source}: {counts}, version {policy.version}"


def _coverage(covered: Coverage) -> str:
    all_rules = len(covered.reached) + len(covered.missed)
    lines = [f"coverage: {len(covered.reached)} of {all_rules} rules (with the default), {covered.percent} %"]
    return "\n".join([*lines, *(f"  no test reaches `{name}`" for name in covered.missed)])


def _junit(outcomes: Sequence[Outcome], policy: Policy) -> str:
    suite = JUnitSuite(policy.source)
    for outcome in outcomes:
        file, _, line = outcome.case.where.rpartition(":")
        attributes = {"classname": policy.source, "name": outcome.case.name, "file": file, "line": line}
        if outcome.passed:
            suite.add(attributes)
        else:
            message = "; ".join(map(str, outcome.differences))
            suite.add_failure(attributes, message, "\n".join(_failure(outcome, policy)))
    return str(suite)
