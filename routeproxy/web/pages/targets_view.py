"""Targets and keys: whether they answer, and what they were asked lately."""

from routeproxy.ledger.usage import UsageRow
from routeproxy.policy.explain import HEALTHY
from routeproxy.web.admin import target_states
from routeproxy.web.pages.content import Cell, Column, Part, Table, View, cost, number, percent
from routeproxy.web.pages.desk import NO_LEDGER, Asked, Desk


async def targets_view(desk: Desk, asked: Asked) -> View:
    used: dict[str, UsageRow] | None = None
    if desk.policy.ledger is not None and asked.viewer.reads_usage:
        usage = await desk.questions.usage(asked.question("provider,model"))
        used = {"/".join(row.by): row for row in usage.rows if row.by[0]}
    parts: list[Part] = []
    if used is not None:
        parts.append(asked.choices())
    elif asked.viewer.reads_usage:
        parts.append(NO_LEDGER)
    parts += [_targets_table(desk, used), _keys_table(desk), _limits_table(desk)]
    return View(
        title="Targets",
        lead="Whom the rules may ask. What has failed lately is left alone for a while.",
        parts=tuple(parts),
    )


def _targets_table(desk: Desk, used: dict[str, UsageRow] | None) -> Table:
    states = target_states(desk.proxy)
    names = [*states, *(name for name in used or () if name not in states)]
    rows = []
    for name in names:
        cells = [_state(states.get(name)), Cell(name), _zone(desk, name)]
        if used is not None:
            cells += _used_cells(used.get(name))
        rows.append(tuple(cells))
    columns = [Column("State", "narrow"), Column("Target"), Column("Zone")]
    if used is not None:
        titles = ("Attempts", "Failures", "Failing", "From cache", "Cost, USD")
        columns += [Column(title, "number") for title in titles]
    return Table(
        name="targets",
        title="Targets",
        columns=tuple(columns),
        rows=tuple(rows),
        empty="The rules name none.",
    )


def _state(words: str | None) -> Cell:
    """`None`: no rule names the target, it was asked by the name that a client wrote."""
    if words is None:
        return Cell("not in a rule", tone="quiet")
    return Cell("may be asked", tone="good") if words == HEALTHY else Cell(words, tone="bad")


def _zone(desk: Desk, name: str) -> Cell:
    provider = desk.policy.providers.get(name.partition("/")[0])
    return Cell(provider.zone) if provider is not None else Cell("not in the rules", tone="quiet")


def _used_cells(row: UsageRow | None) -> list[Cell]:
    nothing = Cell("–", tone="quiet", value="0")
    if row is None:
        return [nothing] * 5
    sums = row.sums
    return [
        number(sums.attempts),
        number(sums.failures, tone="warn" if sums.failures else "quiet"),
        percent(sums.failures / sums.attempts if sums.attempts else None),
        percent(row.cached),
        cost(row),
    ]


def _keys_table(desk: Desk) -> Table:
    rows = []
    for provider in desk.policy.providers.values():
        if provider.client_key:
            rows.append((Cell("the client’s own login", tone="quiet"), Cell(provider.name), Cell("")))
        for key, words in zip(provider.keys, desk.proxy.states_of_keys(provider), strict=True):
            state = Cell("may be used", tone="good") if words == HEALTHY else Cell(words, tone="bad")
            shown = "written in the file" if key.kind == "literal" else key.reference
            rows.append((state, Cell(provider.name), Cell(shown)))
    return Table(
        name="keys",
        title="Keys of providers",
        columns=(Column("State", "narrow"), Column("Provider"), Column("Where it stands")),
        rows=tuple(rows),
        empty="No provider has one.",
    )


def _limits_table(desk: Desk) -> Table:
    rows = tuple((Cell(name), number(count)) for name, count in desk.proxy.waiting().items())
    return Table(
        name="waiting",
        title="Requests that wait for a place",
        columns=(Column("Limit"), Column("Waiting", "number")),
        rows=rows,
        empty="None: nothing is at its limit.",
    )
