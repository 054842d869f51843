"""Requests of late, and what is known of one."""

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from routeproxy.ledger.past import past_request, past_requests
from routeproxy.ledger.rows import RequestRow
from routeproxy.ledger.store import Store
from routeproxy.messages.errors import ApiError, InvalidRequest
from routeproxy.messages.token_usage import NANO
from routeproxy.policy.explain import explain
from routeproxy.policy.logged import SESSION_IN_BODY
from routeproxy.policy.recorded import RecordedDecisions, RecordedRequest, Undecidable
from routeproxy.web.pages.content import (
    Cell,
    Choice,
    Choices,
    Column,
    Figure,
    Figures,
    Part,
    Table,
    View,
    Words,
    in_dollars,
    moment,
)
from routeproxy.web.pages.desk import NO_LEDGER, Asked, Desk

SHOWN = 50
LOOKED_BACK = datetime.timedelta(days=90)


async def requests_view(desk: Desk, asked: Asked) -> View:
    lead = "The latest first. Each leads to why it went where it did."
    if desk.policy.ledger is None:
        return View(title="Requests", lead=lead, parts=(NO_LEDGER,))
    until = _until(asked)

    async def work(store: Store) -> list[RequestRow]:
        found = past_requests(
            store, until - LOOKED_BACK, until, latest_first=True, team=asked.viewer.team, most=SHOWN
        )
        return [row async for row in found]

    rows = await desk.questions.ask(work)
    if asked.viewer.reads_people:
        desk.observer.admin_action("view requests", asked.viewer.caller.key_name, "shown")
    return View(title="Requests", lead=lead, parts=(_table(rows, asked), *_pages(rows, asked)))


def _until(asked: Asked) -> datetime.datetime:
    """Now, or where the page before ended. Raises `ApiError`."""
    written = asked.query.get("until")
    if written is None:
        return datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1)
    try:
        return datetime.datetime.fromtimestamp(int(written) / 10**6, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        raise ApiError(400, "until: expected microseconds since 1970") from None


def _pages(rows: list[RequestRow], asked: Asked) -> list[Part]:
    choices = []
    if "until" in asked.query:
        choices.append(Choice("Latest", asked.path, False))
    if len(rows) == SHOWN:
        choices.append(Choice("Older", asked.link(until=str(rows[-1].at)), False))
    return [Choices(title="Pages", choices=tuple(choices))] if choices else []


def _table(rows: list[RequestRow], asked: Asked) -> Table:
    people = asked.viewer.reads_people
    columns = [
        Column("Time", "narrow"),
        Column("Status", "narrow"),
        Column("Model asked for", "narrow"),
        Column("Rule"),
        Column("Answered by", "narrow"),
    ]
    columns += [Column("Team"), *([Column("User")] if people else [])]
    columns += [Column("Took, s", "number"), Column("Cost, USD", "number")]
    return Table(
        name="requests",
        title="Requests of late",
        columns=tuple(columns),
        rows=tuple(_row(row, people=people) for row in rows),
        empty="None in the ledger of the last 90 days.",
    )


def _row(row: RequestRow, *, people: bool) -> tuple[Cell, ...]:
    when = moment(_time(row.at))
    cells = [
        Cell(when.text, time=when.time, href=f"/-/requests/{row.id}", value=when.time),
        _status(row),
        Cell(row.requested_model or "–"),
        Cell(row.rule or "none", tone="" if row.rule else "quiet"),
        _answered_by(row),
        Cell(row.team or "–", tone="" if row.team else "quiet"),
    ]
    if people:
        cells.append(
            Cell(_shortened(row.user or "–"), value=row.user or "", tone="" if row.user else "quiet")
        )
    cost = _cost(row)
    return (
        *cells,
        Cell(f"{row.duration / 10**6:.1f}", value=f"{row.duration / 10**6:.3f}"),
        Cell(in_dollars(cost), value=f"{cost:f}")
        if cost is not None
        else Cell("not known", tone="warn", value=""),
    )


def _shortened(text: str) -> str:
    return text if len(text) <= 16 else f"{text[:12]}…"


def _status(row: RequestRow) -> Cell:
    if row.client_left:
        return Cell("client left", tone="quiet")
    if row.denied:
        return Cell(f"{row.status} denied", tone="warn")
    if row.error is not None or row.status >= 400:
        return Cell(f"{row.status}", note=row.error or "", tone="bad")
    return Cell(str(row.status), tone="good")


def _answered_by(row: RequestRow) -> Cell:
    asked = [f"{attempt.provider}/{attempt.model}" for attempt in row.attempts if attempt.purpose == "answer"]
    if not asked:
        return Cell("nobody", tone="quiet")
    before = f"after {', '.join(asked[:-1])}" if len(asked) > 1 else ""
    return Cell(asked[-1], note=before)


def _cost(row: RequestRow) -> Decimal | None:
    """`None`: of some attempt nobody knows it."""
    costs = [attempt.cost_nanousd for attempt in row.attempts if attempt.price_source]
    if None in costs:
        return None
    return Decimal(sum(cost for cost in costs if cost is not None)) / NANO


def _time(microseconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(microseconds / 10**6, datetime.UTC)


# --- one request


async def request_view(desk: Desk, asked: Asked, request_id: str) -> View:
    """Raises `ApiError` where there is none that this viewer may see."""
    viewer = asked.viewer
    row = None
    if desk.policy.ledger is not None and request_id.isalnum():
        row = await desk.questions.ask(lambda store: past_request(store, request_id))
    if row is None or (viewer.team is not None and row.team != viewer.team):
        raise ApiError(404, f"the ledger has no request {request_id[:64]}")
    if viewer.reads_people:
        desk.observer.admin_action(f"view request {row.id}", viewer.caller.key_name, "shown")
    return View(
        title=f"Request req_{row.id}",
        lead="What was decided then, what became of it, and what the rules of now would make of it.",
        parts=(
            _figures_of(row, people=viewer.reads_people),
            _attempts_table(row),
            *_words_of(row),
            _facts_table(row, people=viewer.reads_people),
            *([_decided_now(desk, row)] if viewer.may_explain else []),
        ),
    )


def _figures_of(row: RequestRow, *, people: bool) -> Figures:
    status = _status(row)
    cost = _cost(row)
    figures = [
        Figure("Status", status.text, status.note, status.tone),
        Figure("Rule", row.rule or "none", f"version {row.version}"),
        Figure("Took", f"{row.duration / 10**6:.2f} s", _waited(row)),
        Figure("Cost", f"{in_dollars(cost)} USD" if cost is not None else "not known"),
        Figure("When", f"{_time(row.at):%Y-%m-%d %H:%M:%S} UTC", f"team {row.team}" if row.team else ""),
    ]
    if people and (row.user or row.session):
        figures.append(Figure("User", row.user or "not known", f"session {row.session or 'not known'}"))
    return Figures(tuple(figures))


def _waited(row: RequestRow) -> str:
    first = (
        f"first words after {row.first_content / 10**6:.2f} s"
        if row.first_content is not None
        else "no words"
    )
    return f"{first}, waited {row.queued / 10**6:.2f} s" if row.queued else first


def _attempts_table(row: RequestRow) -> Table:
    rows = []
    for attempt in row.attempts:
        outcome = attempt.failure or ("let go" if attempt.let_go else "answered")
        tokens = attempt.tokens
        cost = attempt.cost_nanousd
        rows.append(
            (
                Cell(f"{attempt.provider}/{attempt.model}", note=attempt.served_model or ""),
                Cell(outcome, tone="bad" if attempt.failure else "quiet" if attempt.let_go else "good"),
                Cell(f"{attempt.duration / 10**6:.2f}"),
                Cell(f"{tokens.total:,}" if attempt.usage_source != "none" else "not known"),
                Cell(attempt.usage_source, tone="" if attempt.usage_source == "reported" else "warn"),
                Cell(in_dollars(Decimal(cost) / NANO) if cost is not None else "not known"),
                Cell(attempt.price_source or "–", tone="quiet"),
            )
        )
    return Table(
        name="attempts",
        title="Whom it asked",
        columns=(
            *(Column("Target"), Column("Outcome"), Column("Took, s", "number"), Column("Tokens", "number")),
            *(Column("Told"), Column("Cost, USD", "number"), Column("Price from")),
        ),
        rows=tuple(rows),
        empty="Nobody.",
    )


def _words_of(row: RequestRow) -> list[Part]:
    parts: list[Part] = []
    if row.skipped:
        lines = tuple(f"{name}: {why}" for name, why in row.skipped.items())
        parts.append(Words(title="Passed over", lines=lines))
    if row.shadow:
        lines = tuple(f"{name}: {outcome}" for name, outcome in row.shadow.items())
        parts.append(Words(title="What shadow rules would have done", lines=lines))
    dropped = [f"{attempt.provider}/{attempt.model}: {loss} × {count}" for attempt in row.attempts
               for loss, count in attempt.dropped.items()]  # fmt: skip
    if dropped:
        parts.append(Words(title="What could not be carried over", lines=tuple(dropped)))
    return parts


def _facts_table(row: RequestRow, *, people: bool) -> Table:
    hidden = () if people else ("session", "user", SESSION_IN_BODY)
    facts = _flat({name: value for name, value in row.facts.items() if name not in hidden})
    return Table(
        name="facts",
        title="What rules could look at",
        columns=(Column("Fact"), Column("Value")),
        rows=tuple((Cell(name), Cell(value)) for name, value in facts.items()),
        empty="Nothing was recorded.",
    )


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat |= {f"{name} {key}": _in_words(text) for key, text in value.items()}
        elif isinstance(value, list | tuple):
            flat[name.replace("_", " ")] = ", ".join(map(str, value))
        else:
            flat[name.replace("_", " ")] = _in_words(value)
    return flat


def _in_words(value: Any) -> str:
    if value is None:
        return "not there"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _decided_now(desk: Desk, row: RequestRow) -> Words:
    title = f"By the rules of now, version {desk.policy.version}"
    try:
        recorded = RecordedRequest(row.facts, request_id=f"req_{row.id}")
        outcome = RecordedDecisions(desk.policy).decide(recorded)
    except (ValueError, InvalidRequest) as refused:
        return Words(title=title, text=f"It would be refused before any rule: {refused}", tone="warn")
    if isinstance(outcome, Undecidable):
        text = f"Nobody can tell: that hangs on “{outcome.fact}”, which was not recorded."
        return Words(title=title, text=text, tone="warn")
    return Words(title=title, lines=tuple(str(explain(outcome, desk.policy)).splitlines()[2:]))
