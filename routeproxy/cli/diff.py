"""`routeproxy diff`: what changes for whom, from one rules file to another."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple, TextIO

import msgspec
import typer

from routeproxy import tokens
from routeproxy.cli.logged import replay_log, say_what_is_unread
from routeproxy.cli.options import JsonOption, LiteralKeysOption, new_app
from routeproxy.cli.running import run_and_exit, sources_of
from routeproxy.ledger import price_table
from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.decide import Policy
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.verify.diff import compare_policies, describe_decision
from routeproxy.replay.replay import Replay
from routeproxy.replay.report import Heading, json_report, short_report
from routeproxy.telemetry.decisions import Reading
from routeproxy.upstream.chat.model_facts import known_facts

app = new_app()


@app.command()
def command(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The rules as they are.", show_default=False)],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The rules to be.", show_default=False)],
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A decision log: its requests are replayed, and shown where they differ.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Say what changes for whom from one rules file to another, and which tests and logged requests come out
    otherwise.

    Exit code 0: nothing; 1: something, or one has errors; 2: a file cannot be read.
    """
    before, after = (sources_of(file, allow_literal_keys=allow_literal_keys).unproved for file in (old, new))
    run_and_exit(lambda: run_diff(before, after, log=log, json=json, out=sys.stdout))


def run_diff(
    old: Callable[[], Policy],
    new: Callable[[], Policy],
    *,
    log: Path | None = None,
    json: bool = False,
    out: TextIO,
) -> int:
    """0: both decide alike. 1: they do not."""
    before, after = old(), new()
    differences, changes = compare_policies(before, after), list(_changed_tests(before, after))
    heading = Heading(requests=str(log), rules=f"{after.source} {after.version}", knows_caches=False)
    replay = Replay(after, price_table.load(), known_facts, before=before)
    reading = Reading(log) if log is not None else None
    if reading is not None:
        replay_log(replay, reading)
    found = replay.result
    changes += [Change(f"{one.id} of {one.time}", one.before, one.after) for one in found.changes]
    if json:
        document: dict[str, object] = {
            "old": before.version,
            "new": after.version,
            "differences": differences,
            "requests": [{"request": one.name, "before": one.before, "after": one.after} for one in changes],
        }
        if reading is not None:
            document["unreadable_lines"] = reading.unreadable
            document["replay"] = json_report(found, heading)
        print(msgspec.json.format(msgspec.json.encode(document)).decode(), file=out)
    else:
        print("\n".join(_text(before, after, differences, changes)), file=out)
        if reading is not None:
            print("\n".join(["", *short_report(found)]), file=out)
    if reading is not None:
        say_what_is_unread(reading)
    return 1 if differences or changes else 0


class Change(NamedTuple):
    """A test or a request that comes out otherwise."""

    name: str
    before: str
    after: str


def _text(before: Policy, after: Policy, differences: list[str], changes: list[Change]) -> Iterator[str]:
    if before.version == after.version:
        yield f"no difference: both are version {after.version}"
        return
    yield f"{before.source} {before.version} → {after.source} {after.version}"
    yield from (f"  {line}" for line in differences)
    if not differences:
        yield "  nothing that decides a request"
    if changes:
        yield ""
    for change in changes:
        yield f"{change.name}"
        yield f"  before  {change.before}"
        yield f"  after   {change.after}"


def _changed_tests(before: Policy, after: Policy) -> Iterator[Change]:
    """Each test of either that comes out otherwise."""
    tests = {case.name: case.question for case in (*before.tests, *after.tests)}
    for name, question in tests.items():
        was, now = (_outcome(question, policy) for policy in (before, after))
        if was != now:
            yield Change(f"test `{name}`", was, now)


def _outcome(question: HypotheticalRequest, policy: Policy) -> str:
    try:
        return describe_decision(policy.decide(policy.facts_of(question, tokens.count)))
    except InvalidRequest as refused:
        return f"refused before any rule: {refused.message}"
