"""The proof that no request reaches a target which an invariant forbids, rule by rule.

For each rule with such a target: `when`, the rule's `match`, and the `match` of no rule above it can't all
hold at once. Sound and conservative: what is not shown is refused, with a request that breaks it or with "not
proved". Whatever is left out of the conditions (a rule above, a team's `models`) only makes more requests
possible, so leaving out is always sound.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from msgspec import Struct

from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.conditions import AnyOf, Check, Equals, NoneOf, Single, TextCheck
from routeproxy.policy.decide import Policy, Rule, Team
from routeproxy.policy.fact_table import BY_NAME, FACTS, MODEL, TEAM
from routeproxy.policy.facts import requested_model_problem
from routeproxy.policy.invariants import Invariant
from routeproxy.policy.questions import HypotheticalRequest
from routeproxy.policy.targets import ReachedTarget
from routeproxy.policy.verify.satisfiability import (
    NEVER_ABSENT,
    Assignment,
    Callers,
    Constraint,
    flag,
    number,
    sample,
)

MOST_STEPS = 1_000_000
"""Of one proof, over all its rules and invariants: conditions that are held against each other, one or two
microseconds each. A policy that needs more is not one that people can read, and one that is made to need more
must not hold up a reload."""

MOST_FINDINGS = 20
"""Of one invariant: whoever mends these has understood the rest."""

Alternative = tuple[Constraint, ...]
"""Conditions that hold together."""
Clause = tuple[Alternative, ...]
"""At least one of these."""


class Finding(Struct, frozen=True, kw_only=True):
    """What could not be proved."""

    invariant: Invariant
    rule: Rule
    reached: ReachedTarget
    why: str
    """`its zone is `public``"""
    counter_example: HypotheticalRequest | None
    """A request that breaks the invariant. `None`: none was found, and none was ruled out."""

    @property
    def message(self) -> str:
        target = f"`{self.reached.name}`: {self.why}"
        if self.counter_example is not None:
            asked = in_words(self.counter_example)
            return f"`{self.invariant.name}` is broken: {asked} may reach {target}"
        names = f"`{self.rule.name}` and `{self.invariant.name}`"
        return f"not proved: {names} may overlap, and this may reach {target}"

    @property
    def way_out(self) -> str:
        if self.counter_example is not None:
            return f"targets that fit `{self.invariant.words}`, or a rule above that takes such requests"
        if "not stated" in self.why:
            return (
                f"what `[providers.{self.reached.provider}]` says of it, or its `models` if there are several"
            )
        return "equal values in both, or a `not` in this rule's `match`"


class Proved(Struct, frozen=True, kw_only=True):
    """What is known of one invariant."""

    invariant: Invariant
    holds: bool
    rests_on: tuple[str, ...]
    """Facts of `when` that are the client's word: whoever leaves them out is not bound. Empty: all is
    authenticated."""
    shut_out: tuple[str, ...]
    """Forbidden targets that some rule has, for requests that the invariant is not about."""
    rules: int
    """How many rules have such a target."""
    branches: int


class Proof(Struct, frozen=True, kw_only=True):
    version: str
    source: str
    rules: int
    invariants: tuple[Proved, ...]
    open: tuple[Finding, ...]


def prove(policy: Policy) -> Proof:
    """What holds of all requests, and what does not."""
    budget = Budget()
    provers = [_Prover(policy, invariant, budget) for invariant in policy.invariants]
    opened = [prover.run() for prover in provers]
    return Proof(
        version=policy.version,
        source=policy.source,
        rules=len(policy.rules) + 1,
        invariants=tuple(prover.proved(not found) for prover, found in zip(provers, opened, strict=True)),
        open=tuple(one for found in opened for one in found),
    )


class Budget:
    """What is left of the steps that may be taken."""

    def __init__(self) -> None:
        self.steps = MOST_STEPS


class _Prover:
    """One invariant over all rules."""

    def __init__(self, policy: Policy, invariant: Invariant, budget: Budget) -> None:
        self.policy = policy
        self.budget = budget
        self.invariant = invariant
        self.callers = callers_of(policy)
        self.branches = 0
        self.with_forbidden = 0
        self.shut_out: dict[str, None] = {}
        self._facts = frozenset(facts_of(invariant.when))
        self._above: dict[frozenset[str], list[Clause]] = {}
        """What was not taken so far when a rule is asked, by the facts that it speaks of."""
        for team in policy.teams.values():
            if team.gate is not None:
                self._put(_gate(team))

    def run(self) -> list[Finding]:
        found: list[Finding] = []
        settled = False
        for rule in (*self.policy.rules, self.policy.default):
            forbidden = list(self._forbidden(rule))
            self.shut_out |= dict.fromkeys(reached.name for reached, _ in forbidden)
            self.with_forbidden += bool(forbidden)
            if settled:
                continue
            if forbidden and len(found) < MOST_FINDINGS and (one := self._one(rule, forbidden)):
                found.append(one)
            clause = negate(rule.checks)
            # Whether this rule takes all that `when` is about: then nothing of it gets below.
            if self._facts.issuperset(self._put(clause)):
                settled = self._possible(self.invariant.when, [clause]) is None
        return found

    def _put(self, clause: Clause) -> frozenset[str]:
        facts = frozenset(facts_in(clause))
        self._above.setdefault(facts, []).append(clause)
        return facts

    def proved(self, holds: bool) -> Proved:
        return Proved(
            invariant=self.invariant,
            holds=holds,
            rests_on=tuple(self._clients_word()),
            shut_out=tuple(self.shut_out),
            rules=self.with_forbidden,
            branches=self.branches,
        )

    def _forbidden(self, rule: Rule) -> Iterator[tuple[ReachedTarget, str]]:
        for target in rule.reachable:
            for reached in target.reached:
                if why := self.invariant.broken_by(reached):
                    yield reached, why

    def _one(self, rule: Rule, forbidden: list[tuple[ReachedTarget, str]]) -> Finding | None:
        asked = (*self.invariant.when, *rule.checks)
        facts = frozenset(facts_of(asked))
        # The rules that speak of the same facts settle it nearly always, and the others are many.
        near = chain(*(clauses for spoken, clauses in self._above.items() if facts >= spoken))
        branch: Assignment = {}
        for clauses in (near, chain(*self._above.values())):
            found = self._possible(asked, clauses)
            if found is None:
                return None
            branch = found
        example, reached, why = self._counter_example(rule, branch, forbidden)
        return Finding(invariant=self.invariant, rule=rule, reached=reached, why=why, counter_example=example)

    def _possible(self, asked: Sequence[Check], clauses: Iterable[Clause]) -> Assignment | None:
        """A case that stays open. It may be one without any condition, so it is not to be taken for a no."""
        search = Solver(self.callers, sorted(clauses, key=len), self.budget)
        branch = search.run(asked)
        self.branches += search.branches
        return branch

    def _clients_word(self) -> Iterator[str]:
        """A header that every possible caller's team states is not the client's to leave out."""
        for fact in sorted(self._facts - {"team"}):
            name = fact.removeprefix("header ")
            if fact.startswith("header ") and all(
                name in stamps for stamps in team_headers(self.policy).values()
            ):
                continue
            yield fact

    def _counter_example(
        self, rule: Rule, branch: Assignment, forbidden: list[tuple[ReachedTarget, str]]
    ) -> tuple[HypotheticalRequest | None, ReachedTarget, str]:
        """A request that this rule takes and that breaks the invariant, as the real decision shows."""
        for question in self._questions(branch, forbidden):
            try:
                decision = self.policy.decide(self.policy.facts_of(question))
            except InvalidRequest:
                continue
            if decision.rule == rule.name and self.invariant.applies(decision.facts):
                for target in decision.targets:
                    for reached in target.reached:
                        if why := self.invariant.broken_by(reached):
                            return question, reached, why
        return None, *forbidden[0]

    def _questions(
        self, branch: Assignment, forbidden: list[tuple[ReachedTarget, str]]
    ) -> Iterator[HypotheticalRequest]:
        named = [reached.model for reached, _ in forbidden]
        never = self.invariant.never
        named += [glob.partition("/")[2] for glob in (never.target if never and never.target else ())]
        own = [name.replace("*", star).replace("?", "x") for name in named for star in ("", "x")]
        for question in questions(self.policy, branch, own):
            by_url = "url_target" in question.stated
            if not by_url:
                yield question
            for reached, _ in forbidden if by_url else ():
                model = question.stated["model"]
                yield question.replace(url_target=f"{reached.provider}/{model}")


USUAL_MODELS = ("claude-opus-4-8", "claude-sonnet-5", "claude-haiku-4-5", "gpt-4.1", "x")


def requests_for(policy: Policy, checks: Sequence[Check]) -> Iterator[HypotheticalRequest]:
    """Requests that meet `checks`, as far as any can be made up."""
    branch = Solver(callers_of(policy), ()).run(checks)
    if branch is not None:
        yield from questions(policy, branch, ())


def questions(policy: Policy, branch: Assignment, models: Sequence[str]) -> Iterator[HypotheticalRequest]:
    """Requests of which all that is true, for `models` first. Where a target in the URL is asked for,
    `url_target` only says that there is one."""
    pool = _texts_in(policy)
    names = [name for name in (*models, *pool.get("model", ()), *USUAL_MODELS) if name]
    for team in callers_of(policy).teams(branch):
        stamps = team_headers(policy).get(team, {})
        said: dict[str, Any] = {"team": team}
        headers: dict[str, tuple[str, ...]] = {}
        for fact, constraints in branch.items():
            row = BY_NAME.get(fact)
            kind = row.kind if row is not None else "text"
            if kind in {"flag", "presence"}:
                said[fact] = flag(constraints)
            elif kind == "number":
                said[fact] = number(constraints, may_be_absent=fact not in NEVER_ABSENT)
            elif kind == "tools":
                said[fact] = tuple(_tools(constraints))
            elif fact not in {"team", "model"}:
                value = sample(constraints, pool.get(fact, ()))
                text = value if isinstance(value, str) else None
                if not fact.startswith("header "):
                    said[fact] = text
                elif text is not None and (name := fact.removeprefix("header ")) not in stamps:
                    headers[name] = (text.encode().decode("latin-1"),)
        by_url = said.pop("url_target", False)
        for model in _models(branch.get("model", ()), names):
            url_target = f"*/{model}" if by_url else None
            yield HypotheticalRequest(model=model, headers=headers, url_target=url_target, **said)


def _models(constraints: Sequence[Constraint], pool: Sequence[str]) -> Iterator[str]:
    if not constraints:
        yield from (
            name for name in dict.fromkeys((*USUAL_MODELS, *pool)) if not requested_model_problem(name)
        )
        return
    first = sample(constraints, pool)
    names = (*((first,) if isinstance(first, str) else ()), *pool)
    for name in dict.fromkeys(names):
        if not requested_model_problem(name) and sample(constraints, (name,)) is not False:
            yield name


def _tools(constraints: Sequence[Constraint]) -> Iterator[str]:
    named = [check.globs[0] for check, holds in constraints if holds and hasattr(check, "globs")]
    yield from (glob.replace("*", "x").replace("?", "x") for glob in named)
    if not named and flag(constraints):
        yield "tool"


def _texts_in(policy: Policy) -> Mapping[str, tuple[str, ...]]:
    """Every text that some condition names, by its fact."""
    found: dict[str, dict[str, None]] = {}
    checks = [check for rule in policy.rules for check in rule.checks]
    checks += [check for invariant in policy.invariants for check in invariant.when]
    for check in _leaves(checks):
        if isinstance(check, TextCheck):
            found.setdefault(check.fact, {}).update(dict.fromkeys(check.values))
    return {fact: tuple(texts) for fact, texts in found.items()}


# --- the search


class Solver:
    """Looks for a way to meet conditions and clauses at once, without recursion and within bounds."""

    def __init__(self, callers: Callers, clauses: Sequence[Clause], budget: Budget | None = None) -> None:
        self._callers = callers
        self._clauses = clauses
        self._budget = budget or Budget()
        self.branches = 0

    def run(self, asked: Sequence[Check]) -> Assignment | None:
        """What is asked of each fact in a case that stays open; `None`: there is no such case."""
        begin, clauses = to_clauses(asked)
        known = self._with({}, begin)
        if known is None:
            return None
        waiting: list[tuple[Assignment, tuple[Clause, ...]]] = [(known, (*clauses, *self._clauses))]
        while waiting:
            known, clauses = waiting.pop()
            self.branches += 1
            settled = self._settle(known, clauses)
            if self._budget.steps < 0:
                return known
            if settled is None:
                continue
            known, clauses = settled
            if not clauses:
                return known
            shortest = min(clauses, key=len)
            rest = tuple(clause for clause in clauses if clause is not shortest)
            waiting += [(more, rest) for more in self._possible(known, shortest)]
        return None

    def _settle(
        self, known: Assignment, clauses: tuple[Clause, ...]
    ) -> tuple[Assignment, tuple[Clause, ...]] | None:
        """What is left to choose, once what has no choice is done. `None`: nothing is left at all."""
        while True:
            left: list[Clause] = []
            grew = False
            for clause in clauses:
                if () in clause:
                    continue
                possible = list(islice(self._possible(known, clause), 2))
                if not possible:
                    return None
                if len(possible) == 1:
                    known, grew = possible[0], True
                else:
                    left.append(clause)
            clauses = tuple(left)
            if not grew or self._budget.steps < 0:
                return known, clauses

    def _possible(self, known: Assignment, clause: Clause) -> Iterator[Assignment]:
        """`known` with each of the alternatives that can be."""
        for alternative in clause:
            if (more := self._with(known, alternative)) is not None:
                yield more

    def _with(self, known: Assignment, more: Sequence[Constraint]) -> Assignment | None:
        """`known` and these; `None` if that can't be."""
        merged = dict(known)
        changed = set()
        for constraint in more:
            fact = constraint.fact
            before = merged.get(fact, ())
            if constraint not in before:
                merged[fact] = (*before, constraint)
                changed.add(fact)
        self._budget.steps -= 1 + sum(len(merged[fact]) for fact in changed)
        return merged if self._callers.possible(merged, changed) else None


def refutes(callers: Callers, asked: Sequence[Check], clauses: Sequence[Clause]) -> bool:
    """Whether no request meets all of `asked` and the clauses."""
    return bool(clauses) and Solver(callers, clauses).run(asked) is None


def to_clauses(checks: Sequence[Check]) -> tuple[list[Constraint], tuple[Clause, ...]]:
    """That all of `checks` hold: plain conditions, and choices."""
    constraints: list[Constraint] = []
    clauses: list[Clause] = []
    for check in checks:
        match check:
            case AnyOf(choices=choices):
                clauses += _some(choices)
            case NoneOf(tables=tables):
                clauses += [clause for table in tables for clause in (negate(table),)]
            case Single():
                constraints.append(Constraint(check, True))
    return constraints, tuple(clauses)


def negate(checks: Sequence[Check]) -> Clause:
    """That not all of `checks` hold: of at least one the contrary is true."""
    alternatives: list[Alternative] = []
    for check in checks:
        match check:
            case AnyOf(choices=choices):
                alternatives += _product(negate(choice) for choice in choices)
            case NoneOf(tables=tables):
                for table in tables:
                    alternatives += _product(_dnf(table))
            case Single():
                alternatives.append((Constraint(check, False),))
    return tuple(alternatives)


def _some(choices: Sequence[tuple[Check, ...]]) -> list[Clause]:
    return [tuple(way for choice in choices for way in _product(_dnf(choice)))]


def _dnf(checks: Sequence[Check]) -> Iterator[Clause]:
    """Each of `checks` as the ways in which it may hold."""
    constraints, clauses = to_clauses(checks)
    yield from (((constraint,),) for constraint in constraints)
    yield from clauses


def _product(clauses: Iterator[Clause]) -> list[Alternative]:
    """The ways in which all of them may hold. Too many are cut down by leaving conditions out, which is
    sound."""
    ways: list[Alternative] = [()]
    for clause in clauses:
        if len(ways) * len(clause) > MOST_WAYS:
            continue
        ways = [(*way, *alternative) for way in ways for alternative in clause]
    return ways


MOST_WAYS = 1_000


def facts_of(checks: Sequence[Check]) -> Iterator[str]:
    return (check.fact for check in _leaves(checks))


def facts_in(clause: Clause) -> set[str]:
    return {constraint.fact for alternative in clause for constraint in alternative}


def _leaves(checks: Sequence[Check]) -> Iterator[Single]:
    for check in checks:
        match check:
            case AnyOf(choices=tables) | NoneOf(tables=tables):
                for table in tables:
                    yield from _leaves(table)
            case Single():
                yield check


# --- who asks


def _gate(team: Team) -> Clause:
    """That a request is not one which the team may not send."""
    assert team.gate is not None
    return negate((Equals(TEAM, (team.name,)), *team.gate.checks))


def team_headers(policy: Policy) -> Mapping[str | None, Mapping[str, str]]:
    """By who may ask, the headers that are their team's word."""
    found: dict[str | None, Mapping[str, str]] = {
        name: team.request_headers for name, team in policy.teams.items()
    }
    # Where no team has a key everybody is nobody's, with `ANTHROPIC_AUTH_TOKEN` or without.
    if not policy.server.require_key or not any(team.keys for team in policy.teams.values()):
        found[None] = {}
    return found


def callers_of(policy: Policy) -> Callers:
    return Callers(team_headers(policy))


# --- in words


def in_words(question: HypotheticalRequest) -> str:
    """`a request for `claude-opus-4-8` by team `payments` with x-data-class: phi`"""
    stated = question.stated
    words = [f"a request for `{stated.get('model', '')}`"]
    if "url_target" in stated:
        words = [f"a request with the target `{stated['url_target']}` in its URL"]
    if question.team is not None:
        words.append(f"by team `{question.team}`")
    said = [f"`{name}: {lines[0]}`" for name, lines in stated.get("headers", {}).items()]
    others = [fact for fact in FACTS if fact.in_match and fact is not MODEL and fact is not TEAM]
    said += [fact.name for fact in others if fact.kind == "flag" and fact.name in stated]
    said += [
        f"{fact.name} {stated[fact.name]}"
        for fact in others
        if fact.kind in {"number", "word", "text"} and fact.shown and stated.get(fact.name)
    ]
    said += [
        f"the {fact.name} text `{stated[fact.name]}`"
        for fact in others
        if not fact.shown and stated.get(fact.name)
    ]
    said += [f"the tool `{name}`" for name in stated.get("tools", ())]
    return " ".join([*words, *(["with", ", ".join(said)] if said else [])])
