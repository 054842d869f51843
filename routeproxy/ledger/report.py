"""What was used, as it is shown: a table for a terminal, rows for CSV, a document for JSON."""

import csv
from collections.abc import Container, Mapping, Sequence
from decimal import Decimal
from typing import Any, TextIO

from routeproxy.ledger.reprice import Repriced
from routeproxy.ledger.usage import Question, Usage, UsageRow, dollars


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
    lines += ["", *aligned([[*names, *HEADINGS], *shown], range(len(names)))]
    if left:
        lines.append(f"and {left:,} more that cost less")
    return "\n".join([*lines, *notes_of(usage)])


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
    if 0 < amount < Decimal("0.0001"):
        return "<0.0001"
    return f"{amount:,.2f}" if not amount or amount >= 1 else f"{amount:,.4f}"


def aligned(rows: Sequence[Sequence[str]], texts: Container[int]) -> list[str]:
    """`texts`: the columns that begin at the left; the others are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index in texts else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


SOURCES = {
    "partial": "of answers that did not come to their end: at least so much",
    "estimated": "estimated by bytes, since no back end told them",
    "none": "of which nothing is known",
}


def notes_of(usage: Usage) -> list[str]:
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
    number = f"{usage.open:,} request{'' if usage.open == 1 else 's'}"
    return f"{before}open: {number}, under way or with a server that was killed: in no sum"


def repriced_rows(found: Mapping[tuple[str, ...], Repriced], question: Question) -> list[dict[str, Any]]:
    return [
        {
            **dict(zip(question.by, by, strict=True)),
            "cost_usd": f"{dollars(sums.before):f}",
            "repriced_usd": f"{dollars(sums.after):f}",
            "unpriced_tokens": sums.unpriced_before,
            "unpriced_tokens_repriced": sums.unpriced_after,
        }
        for by, sums in sorted(found.items())
    ]


def repriced_table(found: Mapping[tuple[str, ...], Repriced], question: Question) -> str:
    """Of the rows that are still there: sums of older ones can't be told apart any more."""
    heading = f"{question.since:%Y-%m-%d %H:%M} to {question.until:%Y-%m-%d %H:%M}, {question.zone}"
    if not found:
        return f"{heading}\nno attempts"
    headings = ["cost USD", "repriced", "difference", "unpriced tokens", "repriced"]
    total, rows = Repriced(), [[*question.by, *headings]]
    for by, sums in sorted(found.items(), key=lambda item: -item[1].after):
        rows.append([*(value or "-" for value in by), *_repriced_cells(sums)])
        for name in total.__struct_fields__:
            setattr(total, name, getattr(total, name) + getattr(sums, name))
    if question.by:
        rows.append(["all", *[""] * (len(question.by) - 1), *_repriced_cells(total)])
    return "\n".join([heading, "", *aligned(rows, range(len(question.by)))])


def _repriced_cells(sums: Repriced) -> list[str]:
    difference = dollars(sums.after - sums.before)
    tokens = (sums.unpriced_before, sums.unpriced_after)
    return [
        f"{dollars(sums.before):,.4f}",
        f"{dollars(sums.after):,.4f}",
        f"{difference:+,.4f}",
        *(f"{count:,}" if count else "-" for count in tokens),
    ]
