"""Past requests, decided by other rules."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from msgspec import Struct, field

from routeproxy.ledger.price_table import PriceTable
from routeproxy.ledger.pricing import cost_of
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.token_usage import TokenUsage
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.invariants import Invariant
from routeproxy.policy.providers import ModelFacts
from routeproxy.policy.recorded import RecordedDecisions, RecordedRequest, Undecidable, applies
from routeproxy.policy.targets import Target, first_place
from routeproxy.policy.verify.diff import describe_decision
from routeproxy.replay.costs import USUAL_FACTOR, CostRange, Factor, cost_elsewhere
from routeproxy.replay.past import DENIED, NOBODY, PastRequest

REFUSED = "refused"
"""Before any rule: a header that rules read came twice with different values."""
MOST_NAMED = 1_000


class Sums(Struct):
    """Of requests that go the same way. Money is in billionths of a US dollar."""

    requests: int = 0
    sessions: set[str] = field(default_factory=set)
    before: int = 0
    after_low: int = 0
    after_high: int = 0
    unpriced: int = 0
    """Requests whose cost is not known before, after, or both: they are in neither sum."""

    def add(self, past: PastRequest, before: int | None, after: CostRange | None) -> None:
        self.requests += 1
        if past.session is not None:
            self.sessions.add(past.session)
        if before is None or after is None:
            self.unpriced += 1
        else:
            self.before += before
            self.after_low += after.low
            self.after_high += after.high


class Way(Struct, frozen=True, order=True):
    """Who goes from where to where."""

    team: str
    """Empty: nobody's."""
    before: str
    after: str


class Change(Struct, frozen=True):
    """A request that comes out otherwise."""

    id: str
    time: str
    before: str
    after: str


class Replayed(Struct, kw_only=True):
    requests: int = 0
    """All that were decided once, undecidable ones included."""
    undecidable: Counter[str] = field(default_factory=Counter)
    """By the fact that was not recorded, how many."""
    unreadable: int = 0
    moved: dict[Way, Sums] = field(default_factory=dict)
    stayed: Sums = field(default_factory=Sums)
    other_rule: int = 0
    """Of those that stayed, how many another rule takes now, or other targets follow."""
    broken: Counter[str] = field(default_factory=Counter)
    """By invariant of the new rules, the requests that would reach what it forbids."""
    not_judged: int = 0
    """Requests of which it can't be told whether an invariant speaks of them."""
    overflowing: Counter[str] = field(default_factory=Counter)
    """By target, the requests that would not fit in its context window."""
    tight: Counter[str] = field(default_factory=Counter)
    """The same of requests that may not fit, by the tokenizer."""
    unknown_windows: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    """How many come out otherwise, in whatever way."""
    changes: list[Change] = field(default_factory=list)
    """The first of them."""

    @property
    def not_decided(self) -> int:
        return self.undecidable.total() + self.unreadable

    @property
    def total(self) -> Sums:
        """Of all that were decided."""
        total = Sums()
        for sums in (self.stayed, *self.moved.values()):
            total.requests += sums.requests
            total.sessions |= sums.sessions
            total.before += sums.before
            total.after_low += sums.after_low
            total.after_high += sums.after_high
            total.unpriced += sums.unpriced
        return total


class Replay:
    """Takes requests one by one, in the order of their time."""

    def __init__(
        self,
        policy: Policy,
        table: PriceTable,
        facts_of: Callable[[Target], ModelFacts],
        *,
        before: Policy | None = None,
        factor: Factor = USUAL_FACTOR,
    ) -> None:
        """`before`: the rules that decide what was, in place of what was recorded."""
        self._policy = policy
        self._decisions = RecordedDecisions(policy)
        self._before = RecordedDecisions(before) if before is not None else None
        self._table = table
        self._facts_of = facts_of
        self._factor = factor
        self._windows: dict[str, int | None] = {}
        self._judged: dict[tuple[str, Hashable], str | None] = {}
        self._moved_sessions: set[tuple[str, str]] = set()
        self.result = Replayed()

    def add(self, past: PastRequest) -> None:
        result = self.result
        result.requests += 1
        was = self._was(past)
        after = _decided(self._decisions, past.request)
        for outcome in (was, after):
            if isinstance(outcome, Undecidable):
                result.undecidable[outcome.fact] += 1
                return
        assert not isinstance(was, Undecidable)
        assert not isinstance(after, Undecidable)
        if after is not None:
            self._judge(past, after)
        places, cost = _first_places(after), self._cost_before(past)
        if was.first == NOBODY or not {was.first, *past.passed_over}.isdisjoint(places):
            result.stayed.add(past, cost, CostRange(cost, cost) if cost is not None else None)
            is_otherwise = was.is_otherwise(after)
            result.other_rule += is_otherwise
        else:
            way = Way(team=past.team or "", before=was.first, after=_named(after))
            result.moved.setdefault(way, Sums()).add(past, cost, self._move(past, after))
            is_otherwise = True
        if is_otherwise:
            result.changed += 1
            if len(result.changes) < MOST_NAMED:
                result.changes.append(Change(past.id, past.time, was.words, _described(after)))

    def add_unreadable(self) -> None:
        """One of which what was recorded can't be read."""
        self.result.requests += 1
        self.result.unreadable += 1

    def _was(self, past: PastRequest) -> "_Was | Undecidable":
        if self._before is None:
            targets = past.targets
            words = f"{past.rule}: {', '.join(targets) if targets else past.first}"
            return _Was(past.rule, past.first, targets, words)
        decision = _decided(self._before, past.request)
        if isinstance(decision, Undecidable):
            return decision
        places = _first_places(decision)
        return _Was(
            decision.rule if decision is not None else REFUSED,
            past.first if past.first in places else places[0],
            None,
            _described(decision),
            is_whole=True,
        )

    def _move(self, past: PastRequest, after: Decision | None) -> CostRange | None:
        """What it would have cost there."""
        if after is None or after.deny is not None:
            return CostRange(0, 0)
        targets = first_place(after.targets)
        if past.tokens is None:
            return None
        loses: bool | None = None
        if past.session is not None:
            place = (past.session, _named(after))
            loses = place not in self._moved_sessions
            self._moved_sessions.add(place)
        self._measure(past.tokens, targets, past.model)
        return cost_elsewhere(
            past.tokens, targets, past.model, past.day, self._factor, self._table, loses_cache=loses
        )

    def _cost_before(self, past: PastRequest) -> int | None:
        """What was written down, or of a log, which says nothing of it, the price of the new rules."""
        if past.cost_is_recorded:
            return past.cost_nanousd
        if past.first == DENIED:
            return 0
        provider = self._policy.providers.get(past.provider or "")
        if past.tokens is None or provider is None or past.model is None:
            return None
        return cost_of(past.tokens, provider, past.model, past.day, self._table).nanousd

    def _measure(self, tokens: TokenUsage, targets: Sequence[Target], asked_model: str | None) -> None:
        """Whether it fits in the context windows."""
        for target in targets:
            if target.name not in self._windows:
                self._windows[target.name] = self._facts_of(target).context_window
            window = self._windows[target.name]
            if window is None:
                self.result.unknown_windows[target.name] += 1
                continue
            same = target.model == asked_model
            low, high = (1.0, 1.0) if same else (self._factor.low, self._factor.high)
            if tokens.total * low > window:
                self.result.overflowing[target.name] += 1
            elif tokens.total * high > window:
                self.result.tight[target.name] += 1

    def _judge(self, past: PastRequest, decision: Decision) -> None:
        """By the invariants of the new rules, for which a proof stands already unless they are not loaded as
        a server loads them."""
        facts = None
        for invariant in self._policy.invariants:
            if self._why_broken(invariant, decision) is None:
                continue
            facts = facts or past.request.facts(self._policy)
            concerns = applies(invariant.when, past.request, facts)
            if isinstance(concerns, Undecidable):
                self.result.not_judged += 1
            elif concerns:
                self.result.broken[invariant.name] += 1

    def _why_broken(self, invariant: Invariant, decision: Decision) -> str | None:
        key = invariant.name + invariant.where, tuple(target.name for target in decision.contacted)
        if key not in self._judged:
            reached = (one for target in decision.contacted for one in target.reached)
            self._judged[key] = next((why for one in reached if (why := invariant.broken_by(one))), None)
        return self._judged[key]


class _Was(Struct, frozen=True):
    """What became of a request, or what the rules before would make of it."""

    rule: str
    first: str
    targets: tuple[str, ...] | None
    """`None`: not recorded."""
    words: str
    is_whole: bool = False
    """`words` say all of the decision, as those of the new one do."""

    def is_otherwise(self, after: Decision | None) -> bool:
        if self.is_whole or after is None:
            return self.words != _described(after)
        names = tuple(target.name for target in after.targets)
        return after.rule != self.rule or (self.targets is not None and names != self.targets)


def _decided(by: RecordedDecisions, request: RecordedRequest) -> Decision | Undecidable | None:
    """`None`: it is refused before any rule is asked."""
    try:
        return by.decide(request)
    except InvalidRequest:
        return None


def _first_places(decision: Decision | None) -> tuple[str, ...]:
    """The targets of which one is asked first, or what becomes of it instead."""
    if decision is None:
        return (REFUSED,)
    if decision.deny is not None:
        return (DENIED,)
    return tuple(target.name for target in first_place(decision.targets))


def _named(decision: Decision | None) -> str:
    """Where it goes, in a word or two."""
    if decision is None or decision.deny is not None:
        return _first_places(decision)[0]
    pool = decision.targets[0].pool_name
    return f"pool {pool}" if pool is not None else decision.targets[0].name


def _described(decision: Decision | None) -> str:
    return describe_decision(decision) if decision is not None else "refused before any rule"
