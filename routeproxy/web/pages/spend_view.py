"""What was used and what it cost, by team, model, class and day."""

from collections.abc import Sequence
from decimal import Decimal

from routeproxy.ledger.store import Store
from routeproxy.ledger.usage import Usage, UsageRow, summed_by, usage_of
from routeproxy.web.pages.content import (
    Bar,
    Cell,
    Chart,
    Column,
    Figure,
    Figures,
    Table,
    View,
    Words,
    cost,
    in_dollars,
    number,
    percent,
    tokens,
)
from routeproxy.web.pages.desk import NO_LEDGER, Asked, Desk

TABLES = (
    ("team", ("team",), "By team", "Team"),
    ("model", ("provider", "model"), "By model", "Model"),
    ("class", ("request_class",), "By class of request", "Class"),
)
MOST_ROWS = 100


async def spend_view(desk: Desk, asked: Asked) -> View:
    lead = "From the ledger. What nobody knows the price of is in no sum, and stands beside it."
    if desk.policy.ledger is None:
        return View(title="Spend", lead=lead, parts=(NO_LEDGER,))

    async def work(store: Store) -> tuple[Usage, Usage]:
        by_all = await usage_of(store, asked.question("team,provider,model,request_class"))
        return by_all, await usage_of(store, asked.question("day"))

    by_all, by_day = await desk.questions.ask(work)
    tables = [table for table in TABLES if asked.viewer.team is None or table[0] != "team"]
    return View(
        title="Spend",
        lead=lead,
        parts=(
            asked.choices(),
            _figures(by_day),
            _chart(by_day.rows),
            *(_table(summed_by(by_all, by), name, title, heading) for name, by, title, heading in tables),
            _table(list(reversed(by_day.rows)), "day", "By day", "Day, UTC"),
            *_not_reported(by_day),
        ),
    )


def _figures(usage: Usage) -> Figures:
    total = usage.total
    unpriced = total.sums.unpriced_tokens
    return Figures(
        (
            Figure("Cost", f"{cost(total).text} USD", "of what has a price"),
            Figure("Requests", f"{total.sums.requests:,}", f"{total.sums.errors:,} came to an error"),
            Figure("From cache", percent(total.cached).text, "of all input tokens"),
            Figure(
                "Without a price",
                f"{tokens(unpriced).text} tokens" if unpriced else "nothing",
                tone="warn" if unpriced else "good",
            ),
        )
    )


def _chart(rows: Sequence[UsageRow]) -> Chart:
    highest = max((row.dollars for row in rows), default=Decimal(0))
    return Chart(
        title="Cost by day, USD",
        top=in_dollars(highest) if highest else "nothing",
        bars=tuple(
            Bar(
                row.by[0],
                f"{row.by[0]}: {in_dollars(row.dollars)} USD, {row.sums.requests:,} requests",
                float(row.dollars / highest) if highest else 0.0,
            )
            for row in rows
        ),
    )


def _table(found: Sequence[UsageRow], name: str, title: str, heading: str) -> Table:
    numbers = ("Requests", "Errors", "Input", "From cache", "Output", "Cost, USD", "Unpriced tokens")
    rows = found if name == "day" else found[:MOST_ROWS]
    most = max((row.dollars for row in rows), default=Decimal(0))
    return Table(
        name=name,
        title=title,
        columns=(Column(heading), *(Column(each, "number") for each in numbers)),
        rows=tuple(_row(row, float(row.dollars / most) if most else 0.0) for row in rows),
        empty="Nothing was used in this time.",
        lead=f"The {MOST_ROWS} that cost most of {len(found):,}." if len(found) > len(rows) else "",
    )


def _row(row: UsageRow, share: float) -> tuple[Cell, ...]:
    sums = row.sums
    name = "/".join(part for part in row.by if part)
    unpriced = tokens(sums.unpriced_tokens) if sums.unpriced_tokens else Cell("–", tone="quiet", value="0")
    return (
        Cell(name) if name else Cell("none", tone="quiet", value=""),
        number(sums.requests),
        number(sums.errors, tone="" if sums.errors else "quiet"),
        tokens(row.input),
        percent(row.cached),
        tokens(sums.output),
        cost(row, share),
        unpriced,
    )


SOURCES = {
    "partial": "are a lower bound: the answer was cut off, or its client left",
    "estimated": "are estimated by bytes: the back end told nothing",
    "none": "tell of no tokens at all",
}


def _not_reported(usage: Usage) -> list[Words]:
    lines = [
        f"{sums.attempts:,} attempts {words}"
        for source, words in SOURCES.items()
        if (sums := usage.by_source.get(source)) is not None and sums.attempts
    ]
    if usage.late.requests:
        lines.append(f"{usage.late.requests:,} requests were written down long after they happened")
    if usage.open:
        lines.append(f"{usage.open:,} requests are under way, or their server did not live to see their end")
    if not lines:
        lines = ["Back ends have reported the tokens of every attempt."]
    return [Words(title="What is not reported", lines=tuple(lines))]
