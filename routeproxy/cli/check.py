"""`routeproxy check`: is this rules file one that the server would take?

Like `nginx -t`, it starts nothing and contacts nobody. Beyond what `serve` warns of it looks for what can't
be meant: rules that are never reached, names that nothing uses, chains that get worse.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TextIO

import msgspec
import typer

from routeproxy.cli.annotations import github, sarif
from routeproxy.cli.options import LiteralKeysOption, RulesArgument, RulesOption, new_app
from routeproxy.cli.running import chosen_sources, run_and_exit
from routeproxy.policy.compile.lints import Lints
from routeproxy.policy.decide import Policy
from routeproxy.policy.problems import AcceptedProblem, Problem, RulesRefused
from routeproxy.sources import Sources
from routeproxy.upstream.chat.model_facts import known_facts

Format = Literal["text", "json", "sarif", "github"]

app = new_app()


@app.command()
def command(
    file: RulesArgument = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    format: Annotated[
        Format,
        typer.Option(help="For people, for programs, for code scanning, for annotations in GitHub Actions."),
    ] = "text",
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show the warnings that the file accepts, too, and why.")
    ] = False,
    rules: RulesOption = None,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Say whether the server would take this rules file, and what is wrong with it.

    Its invariants are proved and its tests run. Exit code 0: it would; 1: it has problems; 2: it cannot be
    read. Nothing is started, nobody contacted.
    """
    sources = chosen_sources(file, rules, allow_literal_keys=allow_literal_keys)
    run_and_exit(lambda: run_check(sources, strict=strict, format=format, verbose=verbose, out=sys.stdout))


def run_check(
    sources: Sources, *, strict: bool = False, format: Format = "text", verbose: bool = False, out: TextIO
) -> int:
    """Exit code 0: the file would be taken; 1: it has errors, or with `strict` warnings that it doesn't
    accept. `verbose`: text shows those that it accepts, which the other formats always have. Raises `OSError`
    or `ValueError` if there is nothing to read."""
    path = sources.rules or Path("environment")
    policy: Policy | None = None
    try:
        policy = sources.load(also=Lints(known_facts))
        problems, accepted = policy.warnings, policy.accepted
    except RulesRefused as refused:
        problems, accepted = refused.problems, refused.accepted
    if report := _report(format, path, policy, problems, accepted, verbose=verbose):
        print(report, file=out)
    return 1 if policy is None or (strict and problems) else 0


def _report(
    format: Format,
    path: Path,
    policy: Policy | None,
    problems: Sequence[Problem],
    accepted: Sequence[AcceptedProblem],
    *,
    verbose: bool,
) -> str:
    match format:
        case "text":
            return _text(path, policy, problems, accepted, verbose=verbose)
        case "json":
            return _json(path, policy, problems, accepted)
        case "sarif":
            return sarif([*problems, *accepted])
        case "github":
            return github([*problems, *accepted])


def _text(
    path: Path,
    policy: Policy | None,
    problems: Sequence[Problem],
    accepted: Sequence[AcceptedProblem],
    *,
    verbose: bool,
) -> str:
    errors = sum(problem.severity == "error" for problem in problems)
    counts = _join(
        ", ",
        _count(errors, "error"),
        _count(len(problems) - errors, "warning"),
        f"{len(accepted)} accepted" if accepted else "",
    )
    if policy is None:
        summary = counts
    else:
        rules = _count(len(policy.rules), "rule") or "no rules"
        promises = _join(
            " and ", _count(len(policy.invariants), "invariant"), _count(len(policy.tests), "test")
        )
        contents = f"{rules} and a default, version {policy.version}"
        summary = _join("; ", contents + (f", {promises} held" if promises else ""), counts)
    return "\n\n".join([*map(str, problems), *map(str, accepted if verbose else ()), f"{path}: {summary}"])


def _join(separator: str, *parts: str) -> str:
    """The parts that are not empty."""
    return separator.join(filter(None, parts))


def _count(number: int, noun: str) -> str:
    """The number with its noun; empty for 0."""
    return f"{number} {noun}{'' if number == 1 else 's'}" if number else ""


def _json(
    path: Path, policy: Policy | None, problems: Sequence[Problem], accepted: Sequence[AcceptedProblem]
) -> str:
    report = {
        "file": str(path),
        "ok": policy is not None,
        "version": policy.version if policy else None,
        "problems": problems,
        "accepted": accepted,
    }
    return msgspec.json.format(msgspec.json.encode(report)).decode()
