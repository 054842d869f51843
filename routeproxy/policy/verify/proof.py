"""The proof that no request reaches a target which an invariant forbids, rule by rule.

For each rule with such a target: the invariant's `when`, the rule's `match`, and the `match` of no rule above
can't all hold at once. Rules that are for other teams than `when` are passed over. The proof is sound and
conservative: what is not proved is refused, with a request that breaks it or with "not proved". Whatever is
left out of the conditions (a rule above, a team's `models`) only makes more requests possible, so to leave
out is always sound.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from heapq import merge
from itertools import chain, groupby, takewhile

from msgspec import Struct

from routeproxy.policy.conditions import Check, Equals
from routeproxy.policy.decide import Policy, Rule, Team
from routeproxy.policy.fact_table import TEAM, header_of
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.invariants import Invariant
from routeproxy.policy.targets import ReachedTarget
from routeproxy.policy.verify.callers import callers_of, team_headers
from routeproxy.policy.verify.counterexamples import describe_request, find_counterexample, violations
from routeproxy.policy.verify.satisfiability import Assignment
from routeproxy.policy.verify.solver import (
    Budget,
    Clause,
    Solver,
    facts_of_checks,
    facts_of_clause,
    negate,
)

MOST_FINDINGS = 20
"""For each invariant: whoever mends these has understood the rest."""


class Finding(Struct, frozen=True, kw_only=True):
    """A rule that could not be proved to keep an invariant."""

    invariant: Invariant
    rule: Rule
    reached: ReachedTarget
    why: str
    """Why the target is forbidden: `its zone is `public``"""
    counterexample: HypotheticalRequest | None
    """A request that breaks the invariant. `None`: none was found, and none was ruled out."""

    @property
    def by_safeguards(self) -> bool:
        """Whether only the target that judges tool uses is the forbidden one."""
        safeguards = self.rule.safeguards
        if safeguards is None or self.reached not in safeguards.target.reached:
            return False
        return not any(self.reached in target.reached for target in self.rule.reachable)

    @property
    def message(self) -> str:
        judges = " (its safeguards)" if self.by_safeguards else ""
        target = f"`{self.reached.name}`{judges}: {self.why}"
        if self.counterexample is not None:
            request = describe_request(self.counterexample)
            return f"`{self.invariant.name}` is broken: {request} may reach {target}"
        names = f"`{self.rule.name}` and `{self.invariant.name}`"
        return f"not proved: {names} may overlap, and this may reach {target}"

    @property
    def expected(self) -> str:
        """What the rules file would have to say instead."""
        if self.by_safeguards:
            return f"safeguards that fit `{self.invariant.words}`, or `safeguards = false` in this rule"
        if self.counterexample is not None:
            return f"targets that fit `{self.invariant.words}`, or a rule above that takes such requests"
        if "not stated" in self.why:
            return (
                f"what `[providers.{self.reached.provider}]` says of it, or its `models` if there are several"
            )
        return "equal values in both, or a `not` in this rule's `match`"


class Verdict(Struct, frozen=True, kw_only=True):
    """What is known of one invariant."""

    invariant: Invariant
    holds: bool
    client_facts: tuple[str, ...]
    """The facts of `when` that clients state themselves: a client that leaves them out is not bound. Empty:
    all of them are authenticated."""
    forbidden_targets: tuple[str, ...]
    """Forbidden targets that some rule has, for requests that the invariant is not about."""
    rules: int
    """How many rules have such a target."""
    branches: int
    """How many branches the solver looked at."""


class Proof(Struct, frozen=True, kw_only=True):
    """What is known of all invariants of a policy."""

    version: str
    source: str
    rules: int
    """How many rules the policy has, with the default."""
    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...]


def prove(policy: Policy) -> Proof:
    """Proves each invariant of `policy` for all requests, within one budget."""
    budget = Budget()
    rules = _Rules(policy)
    results = [_Prover(policy, rules, invariant, budget).run() for invariant in policy.invariants]
    return Proof(
        version=policy.version,
        source=policy.source,
        rules=len(policy.rules) + 1,
        verdicts=tuple(verdict for verdict, _ in results),
        findings=tuple(finding for _, findings in results for finding in findings),
    )


class _Rules:
    """The rules of a policy and the gates of its teams, as all proofs of its invariants see them: there may
    be thousands of each."""

    def __init__(self, policy: Policy) -> None:
        self.callers = callers_of(policy)
        self._rules = (*policy.rules, policy.default)
        self._teams = [_teams_in(rule.checks) for rule in self._rules]
        self._gates = {team.name: gate_clause(team) for team in policy.teams.values() if team.gate}
        self._by_contacted: dict[tuple[int, ...], list[int]] = {}
        """By the ids of the targets that they may contact, the numbers of the rules."""
        self._by_team: dict[str, list[int]] = {}
        """By a team, the numbers of the rules that are for this team, perhaps among others."""
        self._of_no_team: list[int] = []
        """The numbers of the other rules."""
        for number, (rule, teams) in enumerate(zip(self._rules, self._teams, strict=True)):
            self._by_contacted.setdefault(tuple(map(id, rule.contacted)), []).append(number)
            if teams is None:
                self._of_no_team.append(number)
            for team in teams or ():
                self._by_team.setdefault(team, []).append(number)
        self._by_facts: dict[frozenset[str], list[int]] = {}
        """By the facts that their conditions look at, the numbers of the rules."""
        for number, rule in enumerate(self._rules if policy.invariants else ()):
            facts = frozenset(facts_of_checks(rule.checks))
            self._by_facts.setdefault(facts, []).append(number)
        rules = self._rules
        self.clause_of = cache(lambda number: negate(rules[number].checks))
        """The clause for: the rule of this number doesn't take the request."""

    def __len__(self) -> int:
        return len(self._rules)

    def __getitem__(self, number: int) -> Rule:
        return self._rules[number]

    def with_forbidden_targets(self, invariant: Invariant) -> Iterator[tuple[list[ReachedTarget], list[int]]]:
        """Targets that `invariant` forbids, with the numbers of the rules that have them."""
        for numbers in self._by_contacted.values():
            contacted = self._rules[numbers[0]].contacted
            if forbidden := [reached for reached, _ in violations(invariant, contacted)]:
                yield forbidden, numbers

    def is_relevant(self, number: int, when: Sequence[Check]) -> bool:
        """Whether the rule of this number isn't for other teams alone than `when` is about."""
        teams, meant = self._teams[number], _teams_in(when)
        return teams is None or meant is None or not set(meant).isdisjoint(teams)

    def relevant_to(self, when: Sequence[Check], last: int) -> Iterator[int]:
        """In order, the numbers of the rules that are, up to the `last`."""
        teams = _teams_in(when)
        lists = [self._of_no_team, *(self._by_team.get(team, ()) for team in teams or ())]
        numbers = range(last + 1) if teams is None else (number for number, _ in groupby(merge(*lists)))
        return takewhile(lambda number: number <= last, numbers)

    def of_facts_among(self, facts: frozenset[str]) -> set[int]:
        """The numbers of the rules whose conditions look at no other facts."""
        of_facts = (numbers for looked_at, numbers in self._by_facts.items() if facts >= looked_at)
        return set(chain.from_iterable(of_facts))

    def gates_of(self, when: Sequence[Check]) -> Iterator[Clause]:
        """Clauses for: no gate of a team that `when` is about has taken the request."""
        teams = _teams_in(when)
        for team in self._gates if teams is None else teams:
            if team in self._gates:
                yield self._gates[team]


def _teams_in(checks: Sequence[Check]) -> tuple[str, ...] | None:
    """The teams of which `checks` want one; `None`: they don't say."""
    for check in checks:
        if isinstance(check, Equals) and check.subject is TEAM:
            return tuple(dict.fromkeys(check.values))
    return None


class _Prover:
    """Proves one invariant for all rules."""

    def __init__(self, policy: Policy, rules: _Rules, invariant: Invariant, budget: Budget) -> None:
        self._policy = policy
        self._all_rules = rules
        self._invariant = invariant
        self._budget = budget
        self._when_facts = frozenset(facts_of_checks(invariant.when))
        self._not_taken: dict[frozenset[str], list[Clause]] = {}
        """By the facts in them, clauses for: no team's gate and no rule above has taken the request."""
        for clause in rules.gates_of(invariant.when):
            self._exclude(clause)
        self._forbidden_targets: dict[str, None] = {}
        self._rules = 0
        """How many rules have a forbidden target."""
        self._branches = 0

    def run(self) -> tuple[Verdict, list[Finding]]:
        findings = self._findings()
        verdict = Verdict(
            invariant=self._invariant,
            holds=not findings,
            client_facts=tuple(self._client_facts()),
            forbidden_targets=tuple(self._forbidden_targets),
            rules=self._rules,
            branches=self._branches,
        )
        return verdict, findings

    def _findings(self) -> list[Finding]:
        findings: list[Finding] = []
        when = self._invariant.when
        reaching: set[int] = set()
        """The numbers of the rules that have to be proved."""
        for forbidden, numbers in self._all_rules.with_forbidden_targets(self._invariant):
            self._forbidden_targets |= dict.fromkeys(reached.name for reached in forbidden)
            self._rules += len(numbers)
            reaching.update(number for number in numbers if self._all_rules.is_relevant(number, when))
        last = max(reaching, default=-1)
        may_take_all = self._all_rules.of_facts_among(self._when_facts)
        passed_over = {number for number in may_take_all if not self._all_rules.is_relevant(number, when)}
        for number in self._all_rules.relevant_to(when, last):
            if number in reaching and len(findings) < MOST_FINDINGS:
                findings += filter(None, [self._finding(self._all_rules[number])])
            self._exclude(self._all_rules.clause_of(number))
            if number in may_take_all and self._takes_all(number):
                all_taken = number
                break
        else:
            below = sorted(number for number in may_take_all - passed_over if number > last)
            all_taken = next(filter(self._takes_all, below), len(self._all_rules))
        # Each was looked at, if only for its team.
        self._branches += sum(number <= all_taken for number in passed_over)
        return findings

    def _takes_all(self, number: int) -> bool:
        """Whether the rule of this number takes all requests that `when` is about: none of them gets to the
        rules below."""
        return self._solve(self._invariant.when, [self._all_rules.clause_of(number)]) is None

    def _exclude(self, clause: Clause) -> None:
        """Adds a clause that holds for all rules below."""
        self._not_taken.setdefault(frozenset(facts_of_clause(clause)), []).append(clause)

    def _finding(self, rule: Rule) -> Finding | None:
        checks = (*self._invariant.when, *rule.checks)
        facts = frozenset(facts_of_checks(checks))
        # The rules above that speak of the same facts settle it nearly always, and the others are many.
        related = chain(*(clauses for spoken_of, clauses in self._not_taken.items() if facts >= spoken_of))
        assignment: Assignment = {}
        for clauses in (related, chain(*self._not_taken.values())):
            solution = self._solve(checks, clauses)
            if solution is None:
                return None
            assignment = solution
        counterexample = find_counterexample(self._policy, self._invariant, rule, assignment)
        if counterexample is not None:
            request, violation = counterexample
        else:
            request, violation = None, next(violations(self._invariant, rule.contacted))
        return Finding(
            invariant=self._invariant,
            rule=rule,
            reached=violation.reached,
            why=violation.why,
            counterexample=request,
        )

    def _solve(self, checks: Sequence[Check], clauses: Iterable[Clause]) -> Assignment | None:
        solver = Solver(self._all_rules.callers, sorted(clauses, key=len), self._budget)
        assignment = solver.solve(checks)
        self._branches += solver.branches
        return assignment

    def _client_facts(self) -> Iterator[str]:
        """The team is authenticated, and so is a header that the policy states for every caller."""
        for fact in sorted(self._when_facts - {"team"}):
            header = header_of(fact)
            if header is None or any(header not in stated for stated in team_headers(self._policy).values()):
                yield fact


def gate_clause(team: Team) -> Clause:
    """A clause for: the team's gate does not refuse the request."""
    assert team.gate is not None
    return negate((Equals(TEAM, (team.name,)), *team.gate.checks))
