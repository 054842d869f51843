"""`routeproxy replay`: past requests through other rules."""

import asyncio
import datetime
import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Literal, TextIO

import typer

from routeproxy.cli.logged import replay_log, say_what_is_unread
from routeproxy.cli.options import JsonOption, LiteralKeysOption, new_app
from routeproxy.cli.running import run_and_exit, sources_of
from routeproxy.ledger import price_table
from routeproxy.ledger.asking import opened
from routeproxy.ledger.past import past_requests
from routeproxy.ledger.question import beginning, ending, zone_of
from routeproxy.ledger.store import LedgerUnavailable
from routeproxy.policy.decide import Policy
from routeproxy.replay.costs import Factor
from routeproxy.replay.past import past_of_row
from routeproxy.replay.replay import Replay, Replayed
from routeproxy.replay.report import Heading, json_report, markdown_report, text_report
from routeproxy.sources import find_rules
from routeproxy.telemetry.decisions import Reading
from routeproxy.upstream.chat.model_facts import known_facts
from routeproxy.upstream.keys import SecretFiles

app = new_app()


@app.command()
def command(
    rules: Annotated[
        Path, typer.Option("--rules", metavar="NEW", help="The rules to try.", show_default=False)
    ],
    log: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A decision log, whose requests are decided.", show_default=False),
    ] = None,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="The requests of the ledger that the rules in force name.")
    ] = False,
    in_force: Annotated[
        Path | None,
        typer.Option(
            "--in-force",
            metavar="FILE",
            help="The rules that name the ledger; left out, ./rules.toml.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Of the ledger: 14d, 12h or 2026-11-01.")
    ] = "14d",
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="DATE", help="Of the ledger: the day after the last.", show_default=False
        ),
    ] = None,
    tokenizer_factor: Annotated[
        str,
        typer.Option(
            "--tokenizer-factor",
            metavar="RANGE",
            help="How many tokens another model makes of one.",
        ),
    ] = "0.8-1.25",
    max_undecidable: Annotated[
        str | None,
        typer.Option(
            "--max-undecidable",
            metavar="SHARE",
            help="Fail if more can't be decided, such as 1%.",
            show_default=False,
        ),
    ] = None,
    names: Annotated[bool, typer.Option("--list", help="Name the requests that come out otherwise.")] = False,
    format: Annotated[
        Literal["text", "markdown"], typer.Option("--format", help="For people, or for a pull request.")
    ] = "text",
    json: JsonOption = False,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Decide past requests by other rules: who moves where, what would break, and what it would have cost.

    Nobody is asked. Exit code 0: it was done; 1: an invariant of the new rules would be broken, more is
    undecidable than --max-undecidable says, or the new rules have errors; 2: something can't be read.
    """

    def run() -> int:
        if (log is None) == (not ledger):
            raise ValueError("name what to replay: either --log FILE or --ledger")
        most = _share(max_undecidable) if max_undecidable is not None else None
        policy = sources_of(rules, allow_literal_keys=allow_literal_keys).unproved()
        factor = Factor.parsed(tokenizer_factor)
        replay = Replay(policy, price_table.load(), known_facts, factor=factor)
        if log is not None:
            source, reading = str(log), Reading(log)
            replay_log(replay, reading)
            say_what_is_unread(reading)
        else:
            file = find_rules(in_force)
            owner = sources_of(file, allow_literal_keys=allow_literal_keys).unproved()
            source = _replay_ledger(replay, owner, since, until)
        heading = Heading(
            requests=source,
            rules=f"{policy.source} {policy.version}",
            factor=factor,
            knows_caches=log is None,
        )
        show(replay.result, heading, format=format, json=json, names=names, out=sys.stdout)
        return exit_code(replay.result, most)

    run_and_exit(run)


def show(found: Replayed, heading: Heading, *, format: str, json: bool, names: bool, out: TextIO) -> None:
    if json:
        print(dumps(json_report(found, heading), indent=2, ensure_ascii=False), file=out)
    elif format == "markdown":
        print(markdown_report(found, heading), file=out)
    else:
        print(text_report(found, heading, names=names), file=out)


def exit_code(found: Replayed, most_undecidable: float | None) -> int:
    share = found.not_decided / found.requests if found.requests else 0.0
    return int(bool(found.broken) or (most_undecidable is not None and share > most_undecidable))


def _replay_ledger(replay: Replay, owner: Policy, since: str, until: str | None) -> str:
    """What was replayed, in words. Raises `ValueError`."""
    zone = zone_of("UTC")
    now = datetime.datetime.now(zone)
    begin, end = beginning(since, now, zone), ending(until, now, zone)

    async def read() -> None:
        store = await opened(owner, SecretFiles().value)
        try:
            async for row in past_requests(store, begin, end):
                try:
                    past = past_of_row(row)
                except ValueError:
                    replay.add_unreadable()
                else:
                    if past is not None:
                        replay.add(past)
        except LedgerUnavailable as unavailable:
            raise ValueError(f"the ledger can't be read: {unavailable}") from None
        finally:
            await store.aclose()

    asyncio.run(read())
    return f"the ledger, since {begin:%Y-%m-%d %H:%M} UTC"


def _share(written: str) -> float:
    """`1%` or `0.01`. Raises `ValueError`."""
    try:
        share = float(written.removesuffix("%")) / (100 if written.endswith("%") else 1)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise ValueError(f"--max-undecidable {written}: expected a share such as 1% or 0.01")
    return share
