"""`routeproxy usage`: what was used, by whom, of what, and what it cost, out of the ledger."""

import asyncio
import datetime
import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Annotated, Literal, TextIO

import typer

from routeproxy.cli.options import JsonOption, LiteralKeysOption, new_app
from routeproxy.cli.running import run_and_exit, sources_of
from routeproxy.ledger.asking import ask_ledger
from routeproxy.ledger.asking import reprice as repriced_at
from routeproxy.ledger.focus import COLUMNS as FOCUS_COLUMNS
from routeproxy.ledger.focus import focus_rows
from routeproxy.ledger.question import asked, begin_of, zone_of
from routeproxy.ledger.reconcile import Difference, Invoice, reconciled
from routeproxy.ledger.report import (
    aligned,
    document,
    flat_rows,
    notes_of,
    repriced_rows,
    repriced_table,
    table,
    write_csv,
)
from routeproxy.ledger.usage import BY, FILTERS, Question, Usage
from routeproxy.policy.decide import Policy
from routeproxy.sources import find_rules
from routeproxy.upstream.keys import SecretFiles

app = new_app(invoke_without_command=True)

RulesFileOption = Annotated[
    Path | None,
    typer.Option(
        "--rules",
        metavar="FILE",
        help="The rules file that names the ledger; left out, ./rules.toml.",
        show_default=False,
    ),
]
MonthOption = Annotated[
    str | None,
    typer.Option("--month", metavar="YYYY-MM", help="This month.", show_default=False),
]
ZoneOption = Annotated[
    str, typer.Option("--time-zone", metavar="ZONE", help="Whose days and months: Europe/Berlin.")
]


ByOption = Annotated[
    str,
    typer.Option("--by", metavar="LIST", help=f"Some of {', '.join(BY)}; label:NAME is one label."),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="30d, 12h or 2026-11-01; left out, 30d.", show_default=False
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option(
        "--until", metavar="DATE", help="The day after the last; left out, now.", show_default=False
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="NAME=VALUE",
        help=f"Only where this is so: one of {', '.join(FILTERS)}; may be repeated.",
        show_default=False,
    ),
]
TopOption = Annotated[
    int | None, typer.Option("--top", metavar="N", help="The N that cost most.", min=1, show_default=False)
]
UnusedOption = Annotated[
    bool, typer.Option("--unused", help="With --by rule: the rules that took no request.")
]
RepriceOption = Annotated[
    Path | None,
    typer.Option(
        "--reprice", metavar="FILE", help="Beside it what the prices of this rules file come to.",
        show_default=False,
    ),
]  # fmt: skip
FormatOption = Annotated[
    Literal["focus"] | None,
    typer.Option("--format", help="FinOps FOCUS columns, as CSV.", show_default=False),
]


@app.callback()
def command(
    context: typer.Context,
    by: ByOption = "team",
    since: SinceOption = None,
    until: UntilOption = None,
    month: MonthOption = None,
    only: OnlyOption = None,
    top: TopOption = None,
    unused: UnusedOption = False,
    reprice: RepriceOption = None,
    time_zone: ZoneOption = "UTC",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json: JsonOption = False,
    format: FormatOption = None,
    rules: RulesFileOption = None,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Say what was used, by whom, of what, and what it cost.

    Costs are US dollars. What nobody knows the price of is in no sum: it stands below, with its tokens. Exit
    code 2: the ledger can't be read.
    """
    if context.invoked_subcommand is not None:
        return

    def run() -> int:
        policy = sources_of(find_rules(rules), allow_literal_keys=allow_literal_keys).load()
        wanted = ",".join(FOCUS_COLUMNS) if format == "focus" else by
        question = asked(wanted, since, until, month, only or (), time_zone)
        if reprice is not None:
            other = sources_of(reprice, allow_literal_keys=allow_literal_keys).load()
            found = asyncio.run(repriced_at(policy, question, other.providers, SecretFiles().value))
            print(
                dumps(repriced_rows(found, question), indent=2) if json else repriced_table(found, question)
            )
            return 0
        usage = asyncio.run(ask_ledger(policy, question, SecretFiles().value))
        if unused:
            print_unused(usage, policy, sys.stdout)
        elif format == "focus":
            write_csv(focus_rows(usage), sys.stdout)
        elif json:
            print(dumps(document(usage, top), indent=2))
        elif as_csv:
            write_csv(flat_rows(usage, top), sys.stdout)
        else:
            print(table(usage, top))
        return 0

    run_and_exit(run)


@app.command(short_help="Hold the ledger against a provider's invoice.")
def reconcile(
    provider: Annotated[
        str, typer.Option("--provider", metavar="NAME", help="The provider of the rules file.")
    ],
    invoice: Annotated[
        Path,
        typer.Option("--invoice", metavar="FILE", help="CSV with a day, a model and a cost in US dollars."),
    ],
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="What its columns are called: day=Date,model=Model,cost=Amount.",
            show_default=False,
        ),
    ] = None,
    time_zone: ZoneOption = "UTC",
    json: JsonOption = False,
    rules: RulesFileOption = None,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Print by model and day what the ledger has, what the invoice has, and the difference.

    Exit code 0: they agree to the cent; 1: they don't; 2: something can't be read.
    """

    def run() -> int:
        policy = sources_of(find_rules(rules), allow_literal_keys=allow_literal_keys).load()
        if provider not in policy.providers:
            raise ValueError(f"there is no provider `{provider}`; known: {', '.join(policy.providers)}")
        with invoice.open(encoding="utf-8-sig", newline="") as file:
            read = Invoice.read(file, str(invoice), named_columns(columns))
        zone = zone_of(time_zone)
        question = Question(
            by=("day", "model"),
            since=begin_of(read.first, zone),
            until=begin_of(read.last + datetime.timedelta(days=1), zone),
            only={"provider": provider},
        )
        usage = asyncio.run(ask_ledger(policy, question, SecretFiles().value))
        differences = reconciled(usage, read)
        if json:
            print(dumps([difference.document for difference in differences], indent=2))
        else:
            print(differences_table(differences, usage))
        return int(any(not difference.agrees for difference in differences))

    run_and_exit(run)


def print_unused(usage: Usage, policy: Policy, out: TextIO) -> None:
    if "rule" not in usage.question.by:
        raise ValueError("--unused is about rules: write `--by rule --unused`")
    used = {row.by[usage.question.by.index("rule")] for row in usage.rows}
    unused = [rule for rule in (*policy.rules, policy.default) if rule.name not in used]
    for rule in unused:
        print(f"{rule.where}: {rule.name}", file=out)
    if not unused:
        print("every rule took a request", file=out)


# --- invoices


def named_columns(written: str | None) -> dict[str, str]:
    """Raises `ValueError`."""
    found = {}
    for part in (written or "").split(","):
        if part.strip():
            name, equals, column = part.strip().partition("=")
            if not equals or name not in ("day", "model", "cost"):
                raise ValueError(f"--columns {part}: expected day=…, model=… or cost=…")
            found[name] = column
    return found


def differences_table(differences: Sequence[Difference], usage: Usage) -> str:
    if not differences:
        return "neither the ledger nor the invoice has anything for these days"
    rows = [["day", "model", "ledger", "invoice", "difference", ""]]
    for each in differences:
        amounts = [f"{each.ledger:,.4f}", f"{each.invoice:,.4f}", f"{each.amount:+,.4f}"]
        rows.append([each.day, each.model, *amounts, each.words])
    total = sum(each.amount for each in differences)
    agreeing = sum(each.agrees for each in differences)
    summary = f"in all {total:+,.4f} USD; {agreeing} of {len(differences)} agree"
    return "\n".join([*aligned(rows, {0, 1, 5}), "", summary, *notes_of(usage)])
