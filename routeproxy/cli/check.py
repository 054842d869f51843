"""`routeproxy check`: is this rules file one that the server would take?

Like `nginx -t`, it starts nothing and contacts nobody. Beyond what `serve` warns of it looks for what can't
be meant: rules that are never reached, names that nothing uses, chains that get worse.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TextIO

import msgspec

from routeproxy.cli.annotations import github, sarif
from routeproxy.policy.compile.lints import Lints
from routeproxy.policy.decide import Policy
from routeproxy.policy.problems import Problem, RulesRefused
from routeproxy.sources import Sources
from routeproxy.upstream.chat.model_table import known_facts

Format = Literal["text", "json", "sarif", "github"]


def run_check(sources: Sources, *, strict: bool = False, format: Format = "text", out: TextIO) -> int:
    """0: it would be taken. 1: it has errors, or with `strict` warnings. Raises `OSError` or `ValueError` if
    there is nothing to read."""
    path = sources.rules
    assert path is not None
    policy: Policy | None = None
    try:
        policy = sources.load(also=Lints(known_facts))
        problems = policy.warnings
    except RulesRefused as refused:
        problems = refused.problems
    if report := _FORMATS[format](path, policy, problems):
        print(report, file=out)
    return 1 if policy is None or (strict and problems) else 0


def _text(path: Path, policy: Policy | None, problems: Sequence[Problem]) -> str:
    errors = sum(problem.severity == "error" for problem in problems)
    counted = [_counted(errors, "error"), _counted(len(problems) - errors, "warning")]
    found = ", ".join(part for part in counted if part)
    if policy is not None:
        rules = _counted(len(policy.rules), "rule") or "no rules"
        kept = [_counted(len(policy.invariants), "invariant"), _counted(len(policy.tests), "test")]
        held = " and ".join(part for part in kept if part)
        held = f", {held} held" if held else ""
        found = f"{rules} and a default, version {policy.version}{held}" + (f"; {found}" if found else "")
    return "\n\n".join([*map(str, problems), f"{path}: {found}"])


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}" if number else ""


def _json(path: Path, policy: Policy | None, problems: Sequence[Problem]) -> str:
    report = {
        "file": str(path),
        "ok": policy is not None,
        "version": policy.version if policy else None,
        "problems": problems,
    }
    return msgspec.json.format(msgspec.json.encode(report)).decode()


_FORMATS: Mapping[Format, Callable[[Path, Policy | None, Sequence[Problem]], str]] = {
    "text": _text,
    "json": _json,
    "sarif": lambda path, policy, problems: sarif(problems),
    "github": lambda path, policy, problems: github(problems),
}
