"""`routeproxy prove`: what holds of all requests, over which rules, and on whose word it rests."""

import sys
from collections.abc import Callable
from typing import Any, TextIO

import msgspec

from routeproxy.cli.options import FileArgument, JsonOption, LiteralKeysOption, new_app
from routeproxy.cli.running import run_and_exit, sources_of
from routeproxy.policy.conditions import in_words
from routeproxy.policy.decide import Policy
from routeproxy.policy.verify.proof import Finding, Proof, Proved, prove

app = new_app()


@app.command()
def command(
    file: FileArgument, json: JsonOption = False, allow_literal_keys: LiteralKeysOption = False
) -> None:
    """Prove the invariants of a rules file over all requests, or say which request breaks one.

    Exit code 0: all are proved; 1: some are not; 2: the file cannot be read.
    """
    load = sources_of(file, allow_literal_keys=allow_literal_keys).unproved
    run_and_exit(lambda: run_prove(load, json=json, out=sys.stdout))


def run_prove(load: Callable[[], Policy], *, json: bool = False, out: TextIO) -> int:
    """Exit code 0: all invariants are proved; 1: some are not.

    `load` does not prove anything itself, so that what is open can be shown beside what holds.
    """
    proof = prove(load())
    if json:
        print(msgspec.json.format(msgspec.json.encode(_document(proof))).decode(), file=out)
    else:
        print(_text(proof), file=out)
    return 1 if proof.open else 0


def _text(proof: Proof) -> str:
    rules = {1: "no rules", 2: "1 rule"}.get(proof.rules, f"{proof.rules - 1} rules")
    lines = [f"{proof.source}, version {proof.version}, {rules} and a default", ""]
    if not proof.invariants:
        lines.append("no invariants: `[[invariants]]` and `[teams.NAME] targets` say what must never be")
    for proved in proof.invariants:
        findings = _findings_of(proof, proved)
        lines += [
            *_invariant_lines(proved),
            *(line for finding in findings for line in _finding_lines(finding)),
            "",
        ]
    held = sum(proved.holds for proved in proof.invariants)
    if proof.invariants:
        lines.append(f"{held} of {len(proof.invariants)} proved")
    return "\n".join(lines)


def _invariant_lines(proved: Proved) -> list[str]:
    invariant = proved.invariant
    mark = "✓" if proved.holds else "✗"
    lines = [
        f"{mark} {invariant.name}  {invariant.where}",
        f"    {in_words(invariant.when)}: {invariant.words}",
        f"    {_effort(proved)}",
    ]
    if proved.rests_on:
        lines.append(f"    rests on the client's word: {', '.join(proved.rests_on)}")
    elif invariant.when:
        lines.append("    rests on authenticated facts only")
    if proved.shut_out and invariant.when:
        lines.append(f"    other requests may reach {', '.join(proved.shut_out)}")
    return lines


def _effort(proved: Proved) -> str:
    if not proved.shut_out:
        return "no rule has a forbidden target"
    rules = "1 rule has" if proved.rules == 1 else f"{proved.rules} rules have"
    branches = "1 case" if proved.branches == 1 else f"{proved.branches:,} cases"
    return f"{rules} forbidden targets; {branches} looked at"


def _findings_of(proof: Proof, proved: Proved) -> list[Finding]:
    return [finding for finding in proof.open if finding.invariant is proved.invariant]


def _finding_lines(finding: Finding) -> list[str]:
    return [
        f"    {finding.rule.where}: {finding.message}",
        f"        expected {finding.way_out}",
    ]


def _document(proof: Proof) -> dict[str, Any]:
    """The proof as `--json` prints it, for auditors: keys may be added, none goes."""
    return {
        "source": proof.source,
        "version": proof.version,
        "rules": proof.rules,
        "proved": not proof.open,
        "invariants": [
            {
                "name": proved.invariant.name,
                "where": proved.invariant.where,
                "when": in_words(proved.invariant.when),
                "promise": proved.invariant.words,
                "proved": proved.holds,
                "rests_on_client": proved.rests_on,
                "reached_by_others": proved.shut_out if proved.invariant.when else (),
                "rules_with_forbidden_targets": proved.rules,
                "cases": proved.branches,
                "open": [
                    {
                        "rule": finding.rule.name,
                        "where": finding.rule.where,
                        "target": finding.reached.name,
                        "why": finding.why,
                        "message": finding.message,
                        "counter_example": _counter_example(finding),
                    }
                    for finding in _findings_of(proof, proved)
                ],
            }
            for proved in proof.invariants
        ],
    }


def _counter_example(finding: Finding) -> dict[str, Any] | None:
    """The facts of a request that breaks the invariant, without those that are absent."""
    if finding.counter_example is None:
        return None
    facts = msgspec.structs.asdict(finding.counter_example)
    return {name: value for name, value in facts.items() if value not in (None, False, (), {})}
