"""`routeproxy drill`: what clients get while a rules file's first targets misbehave."""

import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TextIO

import msgspec
import typer

from routeproxy.cli.junit import JUnitSuite
from routeproxy.cli.options import JsonOption, LiteralKeysOption, RulesArgument, RulesOption, new_app
from routeproxy.cli.running import chosen_sources, run_and_exit
from routeproxy.drill.chains import Chain, chains_of, policy_of
from routeproxy.drill.clock import FastLoop
from routeproxy.drill.hints import hint
from routeproxy.drill.rehearsal import Row, rehearse
from routeproxy.drill.scenarios import Scenario, ours, sixteen
from routeproxy.policy.decide import Policy

SPEED = 20.0
"""Seconds of waiting that pass in one."""

app = new_app()


@app.command()
def command(
    file: RulesArgument = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="TEXT",
            help="A scenario's number or a part of its name, or of a rule's; may be repeated.",
            show_default=False,
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what passed, too.")] = False,
    json: JsonOption = False,
    junit: Annotated[
        Path | None,
        typer.Option("--junit", metavar="FILE", help="Write a report for CI.", show_default=False),
    ] = None,
    rules: RulesOption = None,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Rehearse what becomes of requests while back ends fail: refused, silent, slow, cut, broken.

    A misbehaving back end stands behind a copy of the rules, on this machine; no key is needed and nobody
    else is asked. Each chain of targets goes through all scenarios, on a clock that waits faster. Exit code
    0: nothing failed; 1: something did; 2: the file can't be read.
    """
    sources = chosen_sources(file, rules, allow_literal_keys=allow_literal_keys)
    run_and_exit(
        lambda: run_drill(sources.load(), only or (), verbose=verbose, json=json, junit=junit, out=sys.stdout)
    )


class Drilled(NamedTuple):
    chain: Chain
    stream: bool
    rows: Sequence[Row]


def run_drill(
    policy: Policy,
    only: Sequence[str] = (),
    *,
    verbose: bool = False,
    json: bool = False,
    junit: Path | None = None,
    out: TextIO,
) -> int:
    """Exit code 0: nothing failed; 1: something did. Raises `ValueError` where nothing is left of `only`."""
    chains = chains_of(policy)
    by_rule = [chain for chain in chains if any(_named(word, chain) for word in only)]
    by_scenario = {one.number for one in _all_scenarios() if any(_called(word, one) for word in only)}
    if only and not by_rule and not by_scenario:
        raise ValueError(f"neither a rule nor a scenario is called {' or '.join(only)}")
    drilled: list[Drilled] = []
    with _quiet():
        for chain in by_rule or chains:
            if not chain.why_not:
                drilled += _drilled(policy, chain, by_scenario)
    left_out = [chain for chain in by_rule or chains if chain.why_not]
    if json:
        print(
            msgspec.json.format(msgspec.json.encode(_document(policy, drilled, left_out))).decode(), file=out
        )
    else:
        print(_text(policy, drilled, left_out, verbose=verbose), file=out)
    if junit is not None:
        junit.write_text(_junit(policy, drilled), encoding="utf-8")
    return int(any(row.verdict == "fail" for one in drilled for row in one.rows))


def _named(word: str, chain: Chain) -> bool:
    return any(word in rule.name for rule in chain.rules)


def _called(word: str, scenario: Scenario) -> bool:
    return word == scenario.number or (not word.isdigit() and word in scenario.name)


def _drilled(policy: Policy, chain: Chain, numbers: set[str]) -> Iterator[Drilled]:
    for stream in (True, False):
        scenarios = [one for one in _all_scenarios() if _is_wanted(one, numbers, stream=stream)]
        if not scenarios:
            continue
        _progress(f"{chain.name}, {'streamed' if stream else 'whole'} …")
        with contextlib.closing(FastLoop(SPEED)) as loop:
            rows = loop.run_until_complete(
                rehearse(scenarios, chain.formats, lambda urls: policy_of(policy, chain, urls), stream=stream)
            )
        yield Drilled(chain, stream, rows)
    _progress("")


def _all_scenarios() -> Sequence[Scenario]:
    """Made anew at each call, since some remember when they began."""
    return (*sixteen(), *ours())


def _is_wanted(scenario: Scenario, numbers: set[str], *, stream: bool) -> bool:
    fits = scenario.only in (None, "stream" if stream else "whole")
    return fits and (not numbers or scenario.number in numbers)


def _progress(words: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{words}")
        sys.stderr.flush()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Failures are what a rehearsal is about: they don't go into the log."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _text(policy: Policy, drilled: Sequence[Drilled], left_out: Sequence[Chain], *, verbose: bool) -> str:
    lines = [f"{policy.source}, version {policy.version}"]
    chain: Chain | None = None
    for one in drilled:
        if one.chain is not chain:
            chain = one.chain
            lines += ["", f"{', '.join(rule.name for rule in chain.rules)}: {chain.name}"]
            if len(chain.rule.reachable) == 1:
                lines.append("  one target: nobody else is asked, whatever becomes of it")
        counts = Counter(row.verdict for row in one.rows)
        said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("pass", "partial", "safe", "fail"))
        lines.append(f"  {'streamed' if one.stream else 'whole'}: {said}")
        for row in one.rows:
            if row.verdict == "pass" and not verbose:
                continue
            lines.append(f"    {row.verdict:8}{row.scenario.number} {row.scenario.name}")
            lines.append(f"            {_what(row)}")
            if words := hint(row, one.chain.rule, stream=one.stream):
                lines.append(f"            {words}")
    if left_out:
        lines.append("")
        lines += [f"not rehearsed: {chain.name}: {chain.why_not}" for chain in left_out]
    return "\n".join(lines)


def _what(row: Row) -> str:
    outcomes = Counter(got.outcome for got in row.got)
    said = ", ".join(f"{count} × {outcome}" if count > 1 else outcome for outcome, count in outcomes.items())
    asked = Counter(asked.target for asked in row.asked)
    times = ", ".join(f"target {target} {count} ×" for target, count in sorted(asked.items()))
    seconds = max(got.seconds for got in row.got)
    when = f"after {seconds:.0f} s" if seconds >= 1 else "at once"
    return f"{said} {when}; asked: {times or 'nobody'}"


def _document(policy: Policy, drilled: Sequence[Drilled], left_out: Sequence[Chain]) -> dict[str, Any]:
    return {
        "source": policy.source,
        "version": policy.version,
        "chains": [
            {
                "rules": [rule.name for rule in one.chain.rules],
                "targets": [target.name for target in one.chain.rule.reachable],
                "stream": one.stream,
                "scenarios": [
                    {
                        "number": row.scenario.number,
                        "name": row.scenario.name,
                        "verdict": row.verdict,
                        "outcomes": [got.outcome for got in row.got],
                        "seconds": round(max(got.seconds for got in row.got), 1),
                        "asked": [int(asked.target) for asked in row.asked],
                        "hint": hint(row, one.chain.rule, stream=one.stream) or None,
                    }
                    for row in one.rows
                ],
            }
            for one in drilled
        ],
        "not_rehearsed": [{"targets": chain.name, "why": chain.why_not} for chain in left_out],
    }


def _junit(policy: Policy, drilled: Sequence[Drilled]) -> str:
    suite = JUnitSuite(f"drill of {policy.source}")
    for one in drilled:
        form = "streamed" if one.stream else "whole"
        for row in one.rows:
            name = f"{row.scenario.number} {row.scenario.name}, {form}"
            attributes = {"classname": one.chain.rule.name, "name": name}
            if row.verdict == "fail":
                suite.add_failure(attributes, _what(row))
            else:
                suite.add(attributes, f"{row.verdict}: {_what(row)}")
    return str(suite)
