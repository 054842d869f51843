"""The proof that no request reaches a target which an invariant forbids, rule by rule.

For each rule with such a target: the invariant's `when`, the rule's `match`, and the `match` of no rule above
can't all hold at once. The proof is sound and conservative: what is not proved is refused, with a request
that breaks it or with "not proved". Whatever is left out of the conditions (a rule above, a team's `models`)
only makes more requests possible, so to leave out is always sound.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

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
    results = [_Prover(policy, invariant, budget).run() for invariant in policy.invariants]
    return Proof(
        version=policy.version,
        source=policy.source,
        rules=len(policy.rules) + 1,
        verdicts=tuple(verdict for verdict, _ in results),
        findings=tuple(finding for _, findings in results for finding in findings),
    )


class _Prover:
    """Proves one invariant for all rules."""

    def __init__(self, policy: Policy, invariant: Invariant, budget: Budget) -> None:
        self._policy = policy
        self._invariant = invariant
        self._budget = budget
        self._callers = callers_of(policy)
        self._when_facts = frozenset(facts_of_checks(invariant.when))
        self._not_taken: dict[frozenset[str], list[Clause]] = {}
        """By the facts in them, clauses for: no team's gate and no rule above has taken the request."""
        for team in policy.teams.values():
            if team.gate is not None:
                self._exclude(gate_clause(team))
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
        all_taken = False
        for rule in (*self._policy.rules, self._policy.default):
            forbidden = [reached for reached, _ in violations(self._invariant, rule.contacted)]
            self._forbidden_targets |= dict.fromkeys(reached.name for reached in forbidden)
            self._rules += bool(forbidden)
            if all_taken:
                continue
            if forbidden and len(findings) < MOST_FINDINGS and (finding := self._finding(rule)):
                findings.append(finding)
            clause = negate(rule.checks)
            # If this rule takes all requests that `when` is about, none of them gets to the rules below.
            if self._when_facts.issuperset(self._exclude(clause)):
                all_taken = self._solve(self._invariant.when, [clause]) is None
        return findings

    def _exclude(self, clause: Clause) -> frozenset[str]:
        """Adds a clause that holds for all rules below. Returns its facts."""
        facts = frozenset(facts_of_clause(clause))
        self._not_taken.setdefault(facts, []).append(clause)
        return facts

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
        solver = Solver(self._callers, sorted(clauses, key=len), self._budget)
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
