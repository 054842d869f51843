"""`routeproxy prove`: what holds of all requests, over which rules, and on whose word it rests."""

import sys
from collections.abc import Callable
from typing import Any, TextIO

import msgspec

from routeproxy.cli.options import (
    JsonOption,
    LiteralKeysOption,
    RulesArgument,
    RulesOption,
    new_app,
)
from routeproxy.cli.running import chosen_sources, run_and_exit
from routeproxy.policy.conditions import in_words
from routeproxy.policy.decide import Policy
from routeproxy.policy.verify.proof import Finding, Proof, Verdict, prove

app = new_app()


@app.command()
def command(
    file: RulesArgument = None,
    json: JsonOption = False,
    rules: RulesOption = None,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Prove the invariants of a rules file over all requests, or say which request breaks one.

    Exit code 0: all are proved; 1: some are not; 2: the file cannot be read.
    """
    load = chosen_sources(file, rules, allow_literal_keys=allow_literal_keys).unproved
    run_and_exit(lambda: run_prove(load, json=json, out=sys.stdout))


def run_prove(load: Callable[[], Policy], *, json: bool = False, out: TextIO) -> int:
    """0: all is proved. 1: something is not.

    `load` does not prove anything itself, so that the findings can be shown beside what holds.
    """
    proof = prove(load())
    if json:
        print(msgspec.json.format(msgspec.json.encode(_document(proof))).decode(), file=out)
    else:
        print(_text(proof), file=out)
    return 1 if proof.findings else 0


def _text(proof: Proof) -> str:
    rules = {1: "no rules", 2: "1 rule"}.get(proof.rules, f"{proof.rules - 1} rules")
    lines = [f"{proof.source}, version {proof.version}, {rules} and a default", ""]
    if not proof.verdicts:
        lines.append("no invariants: `[[invariants]]` and `[teams.NAME] targets` say what must never be")
    for verdict in proof.verdicts:
        lines += _verdict_lines(verdict)
        lines += [line for finding in _findings_of(proof, verdict) for line in _finding_lines(finding)]
        lines.append("")
    proved = sum(verdict.holds for verdict in proof.verdicts)
    if proof.verdicts:
        lines.append(f"{proved} of {len(proof.verdicts)} proved")
    return "\n".join(lines)


def _verdict_lines(verdict: Verdict) -> list[str]:
    invariant = verdict.invariant
    mark = "✓" if verdict.holds else "✗"
    lines = [
        f"{mark} {invariant.name}  {invariant.where}",
        f"    {in_words(invariant.when)}: {invariant.words}",
        f"    {_coverage(verdict)}",
    ]
    if verdict.client_facts:
        lines.append(f"    rests on the client's word: {', '.join(verdict.client_facts)}")
    elif invariant.when:
        lines.append("    rests on authenticated facts only")
    if verdict.forbidden_targets and invariant.when:
        lines.append(f"    other requests may reach {', '.join(verdict.forbidden_targets)}")
    return lines


def _coverage(verdict: Verdict) -> str:
    if not verdict.forbidden_targets:
        return "no rule has a forbidden target"
    rules = "1 rule has" if verdict.rules == 1 else f"{verdict.rules} rules have"
    branches = "1 case" if verdict.branches == 1 else f"{verdict.branches:,} cases"
    return f"{rules} forbidden targets; {branches} looked at"


def _findings_of(proof: Proof, verdict: Verdict) -> list[Finding]:
    return [finding for finding in proof.findings if finding.invariant is verdict.invariant]


def _finding_lines(finding: Finding) -> list[str]:
    return [
        f"    {finding.rule.where}: {finding.message}",
        f"        expected {finding.expected}",
    ]


def _document(proof: Proof) -> dict[str, Any]:
    """For auditors: a shape that stays."""
    return {
        "source": proof.source,
        "version": proof.version,
        "rules": proof.rules,
        "proved": not proof.findings,
        "invariants": [
            {
                "name": verdict.invariant.name,
                "where": verdict.invariant.where,
                "when": in_words(verdict.invariant.when),
                "promise": verdict.invariant.words,
                "proved": verdict.holds,
                "rests_on_client": verdict.client_facts,
                "reached_by_others": verdict.forbidden_targets if verdict.invariant.when else (),
                "rules_with_forbidden_targets": verdict.rules,
                "cases": verdict.branches,
                "open": [
                    {
                        "rule": finding.rule.name,
                        "where": finding.rule.where,
                        "target": finding.reached.name,
                        "why": finding.why,
                        "message": finding.message,
                        "counter_example": _counterexample(finding),
                    }
                    for finding in _findings_of(proof, verdict)
                ],
            }
            for verdict in proof.verdicts
        ],
    }


def _counterexample(finding: Finding) -> dict[str, Any] | None:
    if finding.counterexample is None:
        return None
    return {name: value for name, value in finding.counterexample.stated.items() if value != 0}
