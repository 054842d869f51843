"""What is in force: the rules in their order, with what they took; proofs and tests."""

import asyncio
import datetime
from collections.abc import Mapping

from msgspec import Struct

from routeproxy import tokens
from routeproxy.ledger.last_hits import last_hits
from routeproxy.ledger.store import Store
from routeproxy.ledger.usage import Usage, UsageRow, usage_of
from routeproxy.policy.conditions import Check, in_words
from routeproxy.policy.decide import Policy, Rule
from routeproxy.policy.verify.proof import Proof, Verdict, prove
from routeproxy.policy.verify.run_case import Outcome, run_case
from routeproxy.web.pages.content import (
    Cell,
    Column,
    Figure,
    Figures,
    Part,
    Table,
    View,
    Words,
    cost,
    moment,
    number,
)
from routeproxy.web.pages.desk import NO_LEDGER, PERIODS, Asked, Desk


class _Hits(Struct, frozen=True):
    usage: Usage
    last: Mapping[str, datetime.datetime]

    def of(self, rule: str) -> UsageRow | None:
        return next((row for row in self.usage.rows if row.by == (rule,)), None)


async def rules_view(desk: Desk, asked: Asked, assurances: "Assurances") -> View:
    policy = desk.policy
    hits = None
    if policy.ledger is not None and asked.viewer.reads_usage:
        question = asked.question("rule")

        async def work(store: Store) -> _Hits:
            last = await last_hits(store, question.since, question.until)
            return _Hits(await usage_of(store, question), last)

        hits = await desk.questions.ask(work)
    assurance = await asyncio.to_thread(assurances.of, policy)
    proof, outcomes = assurance.proof, assurance.outcomes
    parts: list[Part] = [_figures(desk, hits, proof, outcomes)]
    if desk.control is not None and (problem := desk.control.problem):
        title = "The rules on disk are not in force"
        parts.append(Words(title=title, lines=tuple(problem.splitlines()), tone="bad"))
    if hits is not None:
        parts.append(asked.choices())
    elif asked.viewer.reads_usage:
        parts.append(NO_LEDGER)
    parts += [
        _rules_table(policy, hits, asked),
        *_shadow_table(policy),
        _proof_table(proof),
        _tests_table(outcomes),
    ]
    return View(
        title="Rules",
        lead="The first rule that matches decides; the default takes the rest.",
        parts=tuple(parts),
    )


def _figures(desk: Desk, hits: _Hits | None, proof: Proof, outcomes: tuple[Outcome, ...]) -> Figures:
    proved = sum(verdict.holds for verdict in proof.verdicts)
    passed = sum(outcome.passed for outcome in outcomes)
    since = f"since {desk.control.since:%Y-%m-%d %H:%M} UTC" if desk.control is not None else ""
    figures = [
        Figure("Version in force", desk.policy.version, since),
        Figure(
            "Promises proved",
            f"{proved} of {len(proof.verdicts)}" if proof.verdicts else "none made",
            tone="good"
            if proof.verdicts and proved == len(proof.verdicts)
            else "bad"
            if proof.verdicts
            else "",
        ),
        Figure(
            "Tests passed",
            f"{passed} of {len(outcomes)}" if outcomes else "none written",
            tone="good" if outcomes and passed == len(outcomes) else "bad" if outcomes else "",
        ),
    ]
    if hits is not None:
        total = hits.usage.total
        figures.append(
            Figure("Requests", f"{total.sums.requests:,}", f"{total.sums.errors:,} came to an error")
        )
    return Figures(tuple(figures))


def _rules_table(policy: Policy, hits: _Hits | None, asked: Asked) -> Table:
    columns = [Column("#", "narrow"), Column("Rule"), Column("Takes"), Column("Goes to")]
    if hits is not None:
        counted = ("Hits", "Failures", "Fallbacks", "Cost, USD")
        columns += [Column("Last hit", "narrow"), *(Column(title, "number") for title in counted)]
    rows = []
    most = max((row.sums.requests for row in hits.usage.rows), default=0) if hits is not None else 0
    for place, rule in enumerate((*policy.rules, policy.default), 1):
        is_default = rule is policy.default
        name = Cell(rule.name, note=rule.where)
        takes = "whatever no rule takes" if is_default else _where(rule.checks)
        cells = [Cell("" if is_default else str(place)), name, Cell(takes), _goes_to(rule)]
        if hits is not None:
            cells += _hit_cells(rule, hits, asked, most)
        rows.append(tuple(cells))
    return Table(
        name="rules",
        title="Rules in their order",
        columns=tuple(columns),
        rows=tuple(rows),
        empty="There are none.",
        lead="The last hit is told to the hour, or for long periods to the day. A fallback is an attempt "
        "after the first; failures are those of attempts."
        if hits is not None
        else "",
    )


def _hit_cells(rule: Rule, hits: _Hits, asked: Asked, most: int) -> list[Cell]:
    row = hits.of(rule.name)
    if row is None:
        dead = Cell("none", note=f"in {PERIODS[asked.period]}", tone="warn", value="")
        nothing = Cell("–", tone="quiet", value="0")
        return [dead, nothing, nothing, nothing, nothing]
    sums = row.sums
    return [
        moment(hits.last.get(rule.name)),
        number(sums.requests, share=sums.requests / most if most else None),
        number(sums.failures, tone="warn" if sums.failures else "quiet"),
        number(max(0, sums.attempts - sums.requests), tone="quiet" if sums.attempts <= sums.requests else ""),
        cost(row),
    ]


def _where(checks: tuple[Check, ...]) -> str:
    return in_words(checks).removeprefix("requests where ")


def _goes_to(rule: Rule) -> Cell:
    if rule.deny is not None:
        return Cell(f"nobody: {rule.deny.status}", note=rule.deny.message, tone="warn")
    names = [target.name for target in rule.reachable]
    return Cell(", then ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""))


def _shadow_table(policy: Policy) -> list[Part]:
    if not policy.shadow_rules:
        return []
    rows = tuple(
        (
            Cell(shadow.rule.name, note=shadow.rule.where),
            Cell(_where(shadow.rule.checks)),
            _goes_to(shadow.rule),
        )
        for shadow in policy.shadow_rules
    )
    columns = (Column("Rule"), Column("Would take"), Column("Would go to"))
    return [
        Table(name="shadows", title="Shadow rules", columns=columns, rows=rows, empty="",
              lead="They decide nothing; what they would have done stands with each request.")
    ]  # fmt: skip


def _proof_table(proof: Proof) -> Table:
    rows = []
    for verdict in proof.verdicts:
        invariant = verdict.invariant
        cells = (
            Cell("proved", tone="good") if verdict.holds else Cell("not proved", tone="bad"),
            Cell(invariant.name, note=invariant.where),
            Cell(_where(invariant.when)),
            Cell(invariant.words),
            _rests_on(verdict),
        )
        rows.append(cells)
    return Table(
        name="promises",
        title="Promises",
        columns=(Column("State", "narrow"), *map(Column, ("Invariant", "Of", "Promise", "Rests"))),
        rows=tuple(rows),
        empty="No invariants: [[invariants]] and [teams.NAME] targets say what must never be.",
    )


def _rests_on(verdict: Verdict) -> Cell:
    if verdict.client_facts:
        return Cell(f"on the client’s word: {', '.join(verdict.client_facts)}", tone="warn")
    return Cell("on keys and our own facts" if verdict.invariant.when else "on nothing", tone="quiet")


def _tests_table(outcomes: tuple[Outcome, ...]) -> Table:
    rows = tuple(
        (
            Cell("passed", tone="good") if outcome.passed else Cell("failed", tone="bad"),
            Cell(outcome.case.name, note=outcome.case.where),
        )
        for outcome in outcomes
    )
    return Table(
        name="tests",
        title="Tests",
        columns=(Column("State", "narrow"), Column("Test")),
        rows=rows,
        empty="No tests: [[tests]] says what must become of a request.",
    )


class Assurance(Struct, frozen=True):
    """What is known of the rules in force without a request."""

    proof: Proof
    outcomes: tuple[Outcome, ...]
    """Of their tests."""


class Assurances:
    """That of the policy in force: worked out once, since it may take a while."""

    def __init__(self) -> None:
        self._last: tuple[Policy, Assurance] | None = None

    def of(self, policy: Policy) -> Assurance:
        if self._last is None or self._last[0] is not policy:
            outcomes = tuple(run_case(policy, case, tokens.count) for case in policy.tests)
            self._last = policy, Assurance(prove(policy), outcomes)
        return self._last[1]
