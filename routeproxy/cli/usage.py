"""`routeproxy usage`: what was used, by whom, of what, and what it cost, out of the ledger."""

import asyncio
import csv
import datetime
import re
import sys
from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from msgspec.structs import replace

from routeproxy.cli.options import JsonOption, LiteralKeysOption, new_app
from routeproxy.cli.running import run_and_exit, sources_of
from routeproxy.ledger.focus import COLUMNS as FOCUS_COLUMNS
from routeproxy.ledger.focus import focus_rows
from routeproxy.ledger.opening import open_store
from routeproxy.ledger.reconcile import Difference, Invoice, reconciled
from routeproxy.ledger.store import LedgerUnavailable, Store
from routeproxy.ledger.usage import BY, FILTERS, Question, Usage, UsageRow, usage_of
from routeproxy.ledger.writer import pseudonym_of
from routeproxy.policy.decide import Policy
from routeproxy.policy.ledger import LedgerSettings
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
        question = replace(question, only=_as_known(question.only, policy))
        usage = asyncio.run(_ask(policy, question))
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
        usage = asyncio.run(_ask(policy, question))
        differences = reconciled(usage, read)
        if json:
            print(dumps([difference.document for difference in differences], indent=2))
        else:
            print(differences_table(differences, usage))
        return int(any(not difference.agrees for difference in differences))

    run_and_exit(run)


def known_name(user: str, settings: LedgerSettings) -> str:
    """What the ledger calls a user. Raises `ValueError` where that can't be told."""
    if settings.users != "pseudonym" or settings.pseudonym_key is None:
        return user
    key = SecretFiles().value(settings.pseudonym_key)
    if key is None:
        reference = settings.pseudonym_key.reference
        raise ValueError(f"users are known by a keyed hash, and its key {reference} is not set")
    return pseudonym_of(user, key.encode("utf-8", "surrogatepass"))


def _as_known(only: Mapping[str, str], policy: Policy) -> Mapping[str, str]:
    """A user may be asked for by the name that the ledger only knows the hash of."""
    if "user" not in only or policy.ledger is None:
        return only
    return {**only, "user": known_name(only["user"], policy.ledger)}


async def _ask(policy: Policy, question: Question) -> Usage:
    store = await opened(policy)
    try:
        return await usage_of(store, question)
    except LedgerUnavailable as unavailable:
        raise ValueError(f"the ledger can't be read: {unavailable}") from None
    finally:
        await store.aclose()


async def opened(policy: Policy, *, read_only: bool = True) -> Store:
    """Raises `ValueError` where there is no ledger, or it can't be used."""
    if policy.ledger is None:
        raise ValueError(f"{policy.source} has no `[ledger]`, so nothing was written down")
    try:
        return await open_store(policy.ledger, SecretFiles().value, read_only=read_only)
    except LedgerUnavailable as unavailable:
        raise ValueError(f"the ledger can't be used: {unavailable}") from None


# --- the question


def asked(
    by: str,
    since: str | None,
    until: str | None,
    month: str | None,
    only: Sequence[str],
    time_zone: str,
    now: datetime.datetime | None = None,
) -> Question:
    """What the options mean. Raises `ValueError`."""
    zone = zone_of(time_zone)
    now = now or datetime.datetime.now(zone)
    names = tuple(name.strip() for name in by.split(",") if name.strip())
    for name in names:
        if name.partition(":")[0] not in BY or (":" in name and not name.startswith("label:")):
            raise ValueError(f"--by {name}: expected some of {', '.join(BY)}, or label:NAME")
    if month is not None:
        if since or until:
            raise ValueError("--month says both ends: leave out --since and --until")
        begin, end = _month(month, zone)
    else:
        begin, end = _begin(since or "30d", now, zone), _end(until, now, zone)
    if begin >= end:
        raise ValueError(f"nothing lies between {begin:%Y-%m-%d %H:%M} and {end:%Y-%m-%d %H:%M}")
    return Question(by=names, since=begin, until=end, only=dict(map(_filter, only)))


def zone_of(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        words = f"--time-zone {name}: there is no such zone; expected one like Europe/Berlin"
        raise ValueError(words) from None


def begin_of(day: datetime.date, zone: ZoneInfo) -> datetime.datetime:
    return datetime.datetime.combine(day, datetime.time(), zone)


def _begin(written: str, now: datetime.datetime, zone: ZoneInfo) -> datetime.datetime:
    """The beginning of a day, or of an hour."""
    if found := re.fullmatch(r"(\d{1,6})([hdw])", written):
        number, unit = int(found[1]), found[2]
        if unit == "h":
            past = now - datetime.timedelta(hours=number)
            return past.replace(minute=0, second=0, microsecond=0)
        return begin_of(now.date() - datetime.timedelta(days=number * (7 if unit == "w" else 1)), zone)
    return _day(written, "--since", zone)


def _end(written: str | None, now: datetime.datetime, zone: ZoneInfo) -> datetime.datetime:
    if written is not None:
        return _day(written, "--until", zone)
    return begin_of(now.date() + datetime.timedelta(days=1), zone)


def _day(written: str, option: str, zone: ZoneInfo) -> datetime.datetime:
    try:
        return begin_of(datetime.date.fromisoformat(written), zone)
    except ValueError:
        words = f"{option} {written}: expected a day such as 2026-11-01, or 30d or 12h ago"
        raise ValueError(words) from None


def _month(written: str, zone: ZoneInfo) -> tuple[datetime.datetime, datetime.datetime]:
    if not re.fullmatch(r"[1-9]\d{3}-(0[1-9]|1[0-2])", written):
        raise ValueError(f"--month {written}: expected one such as 2026-11")
    begin = datetime.date.fromisoformat(f"{written}-01")
    end = (begin + datetime.timedelta(days=32)).replace(day=1)
    return begin_of(begin, zone), begin_of(end, zone)


def _filter(written: str) -> tuple[str, str]:
    name, equals, value = written.partition("=")
    if not equals or name not in FILTERS:
        raise ValueError(f"--only {written}: expected NAME=VALUE with one of {', '.join(FILTERS)}")
    return name, value


# --- the answer


def document(usage: Usage, top: int | None) -> dict[str, Any]:
    question = usage.question
    return {
        "since": question.since.isoformat(),
        "until": question.until.isoformat(),
        "time_zone": str(question.zone),
        "by": list(question.by),
        "only": dict(question.only),
        "rows": flat_rows(usage, top),
        "total": _flat(usage.total, ()),
        "by_usage_source": {
            source or "no attempt": _flat(UsageRow(by=(), sums=sums), ())
            for source, sums in usage.by_source.items()
        },
        "late": _flat(UsageRow(by=(), sums=usage.late), ()),
        "open_requests": usage.open,
    }


def flat_rows(usage: Usage, top: int | None = None) -> list[dict[str, Any]]:
    return [_flat(row, usage.question.by) for row in usage.rows[:top]]


def _flat(row: UsageRow, by: Sequence[str]) -> dict[str, Any]:
    sums = row.sums
    counts = {name: getattr(sums, name) for name in sums.__struct_fields__ if name != "cost_nanousd"}
    return {
        **dict(zip(by, row.by, strict=True)),
        **counts,
        "cache_ratio": round(row.cached, 4) if row.cached is not None else None,
        "cost_usd": None if _is_unknown(row) else f"{row.dollars:f}",
    }


def _is_unknown(row: UsageRow) -> bool:
    """Whether nothing of its cost is known, though there is something to pay for."""
    return row.sums.unpriced_tokens > 0 and row.sums.cost_nanousd == 0


def write_csv(rows: Sequence[dict[str, Any]], out: TextIO) -> None:
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


HEADINGS = ("requests", "failures", "input", "cached", "output", "cost USD", "unpriced tokens")


def table(usage: Usage, top: int | None = None) -> str:
    question = usage.question
    lines = [f"{question.since:%Y-%m-%d %H:%M} to {question.until:%Y-%m-%d %H:%M}, {question.zone}"]
    if question.only:
        lines[0] += ", only " + ", ".join(f"{name}={value}" for name, value in question.only.items())
    if not usage.rows or not usage.total.sums.requests:
        return "\n".join([*lines, "no requests" + _open_words(usage, "; ")])
    shown = [[*(value or "-" for value in row.by), *_cells(row)] for row in usage.rows[:top]]
    names = [*question.by]
    left = len(usage.rows) - len(shown)
    if question.by:
        shown.append(["all", *[""] * (len(names) - 1), *_cells(usage.total)])
    lines += ["", *_columns([[*names, *HEADINGS], *shown], len(names))]
    if left:
        lines.append(f"and {left:,} more that cost less")
    return "\n".join([*lines, *_notes(usage)])


def _cells(row: UsageRow) -> list[str]:
    sums = row.sums
    return [
        f"{sums.requests:,}",
        f"{sums.failures:,}",
        f"{row.input:,}",
        f"{row.cached:.0%}" if row.cached is not None else "-",
        f"{sums.output:,}",
        "unknown" if _is_unknown(row) else money(row),
        f"{sums.unpriced_tokens:,}" if sums.unpriced_tokens else "-",
    ]


def money(row: UsageRow) -> str:
    """To the cent; below one as far as it goes."""
    amount = row.dollars
    return f"{amount:,.2f}" if not amount or amount >= 1 else f"{amount:,.4f}"


def _columns(rows: Sequence[Sequence[str]], texts: int) -> list[str]:
    """`texts`: how many columns begin at the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < texts else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


SOURCES = {
    "partial": "of answers that did not come to their end: at least so much",
    "estimated": "estimated by bytes, since no back end told them",
    "none": "of which nothing is known",
}


def _notes(usage: Usage) -> list[str]:
    """What a sum hides, a line each."""
    notes = []
    for source, words in SOURCES.items():
        if sums := usage.by_source.get(source):
            row = UsageRow(by=(), sums=sums)
            tokens = row.input + sums.output
            cost = f", {money(row)} USD" if sums.cost_nanousd else ""
            notes.append(f"{source}: {sums.attempts:,} attempts, {tokens:,} tokens{cost}, {words}")
    total, late = usage.total.sums, usage.late
    if total.unpriced_tokens:
        notes.append(f"price unknown: {total.unpriced_tokens:,} tokens, in no sum of costs")
    if late.attempts or late.requests:
        cost = money(UsageRow(by=(), sums=late))
        notes.append(f"late: {late.requests:,} requests, {cost} USD, written an hour or more afterwards")
    if usage.open:
        notes.append(_open_words(usage))
    return ["", *notes] if notes else []


def _open_words(usage: Usage, before: str = "") -> str:
    if not usage.open:
        return ""
    return f"{before}open: {usage.open:,} requests, under way or with a server that was killed: in no sum"


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
    return "\n".join([*_columns(rows, 2), "", summary, *_notes(usage)])
