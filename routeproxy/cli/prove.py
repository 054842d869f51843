"""`routeproxy prove`: what holds of all requests, over which rules, and on whose word it rests."""

from collections.abc import Callable
from typing import Any, TextIO

import msgspec

from routeproxy.policy.conditions import in_words
from routeproxy.policy.decide import Policy
from routeproxy.policy.verify.proof import Finding, Proof, Proved, prove


def run_prove(load: Callable[[], Policy], *, json: bool = False, out: TextIO) -> int:
    """0: all is proved. 1: something is not.

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
        lines += [*_one(proved), *(line for open in _open_of(proof, proved) for line in _why(open)), ""]
    held = sum(proved.holds for proved in proof.invariants)
    if proof.invariants:
        lines.append(f"{held} of {len(proof.invariants)} proved")
    return "\n".join(lines)


def _one(proved: Proved) -> list[str]:
    invariant = proved.invariant
    mark = "✓" if proved.holds else "✗"
    lines = [
        f"{mark} {invariant.name}  {invariant.where}",
        f"    {in_words(invariant.when)}: {invariant.words}",
        f"    {_looked_at(proved)}",
    ]
    if proved.rests_on:
        lines.append(f"    rests on the client's word: {', '.join(proved.rests_on)}")
    elif invariant.when:
        lines.append("    rests on authenticated facts only")
    if proved.shut_out and invariant.when:
        lines.append(f"    other requests may reach {', '.join(proved.shut_out)}")
    return lines


def _looked_at(proved: Proved) -> str:
    if not proved.shut_out:
        return "no rule has a forbidden target"
    rules = "1 rule has" if proved.rules == 1 else f"{proved.rules} rules have"
    branches = "1 case" if proved.branches == 1 else f"{proved.branches:,} cases"
    return f"{rules} forbidden targets; {branches} looked at"


def _open_of(proof: Proof, proved: Proved) -> list[Finding]:
    return [open for open in proof.open if open.invariant is proved.invariant]


def _why(open: Finding) -> list[str]:
    return [
        f"    {open.rule.where}: {open.message}",
        f"        expected {open.way_out}",
    ]


def _document(proof: Proof) -> dict[str, Any]:
    """For auditors: a shape that stays."""
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
                        "rule": open.rule.name,
                        "where": open.rule.where,
                        "target": open.reached.name,
                        "why": open.why,
                        "message": open.message,
                        "counter_example": _question(open),
                    }
                    for open in _open_of(proof, proved)
                ],
            }
            for proved in proof.invariants
        ],
    }


def _question(open: Finding) -> dict[str, Any] | None:
    if open.counter_example is None:
        return None
    return {name: value for name, value in open.counter_example.stated.items() if value != 0}
