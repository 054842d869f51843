"""Which rules no request gets to: their conditions exclude each other, or the rules above take all.

Most rules are settled by a request that is made up for them and gets there. For one that gets elsewhere only
the rules above that take it too are looked at: whichever takes all that the rule would takes this one. So a
file of thousands of rules is not held against itself pair by pair.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.decide import Policy, Rule
from routeproxy.policy.problems import Code
from routeproxy.policy.verify.callers import callers_of
from routeproxy.policy.verify.counterexamples import HypotheticalRequests
from routeproxy.policy.verify.solver import Budget, Solver, negate, refutes

MOST_REQUESTS = 4
"""Made up for one rule. Where the first ones don't get there, later ones hardly do."""

MOST_RULES_ABOVE = 64
"""Held against one rule, each by itself."""


MOST_ROUNDS = 16
"""In which one more rule above is avoided."""


class UnreachableRule(NamedTuple):
    rule: Rule
    code: Code
    message: str
    hint: str | None = None


class UnreachableRules:
    """Iterates over the rules of a policy that no request gets to."""

    def __init__(self, policy: Policy, budget: Budget | None = None) -> None:
        self._policy = policy
        self._callers = callers_of(policy)
        self._requests = HypotheticalRequests(policy)
        self._negations = [negate(rule.checks) for rule in policy.rules]
        self._budget = budget or Budget()
        """For all searches over many rules at once."""

    def __iter__(self) -> Iterator[UnreachableRule]:
        for place, rule in enumerate(self._policy.rules):
            if not rule.checks:
                return  # it takes all that gets there, which is reported where it stands
            found = self._examine(place, rule)
            if self._budget.steps < 0:
                message = "whether requests get here was not found out: the rules above are too many together"
                yield UnreachableRule(rule, Code.UNREACHABLE, message, "nor was it for the rules below")
                return
            if found is not None:
                yield found

    def _examine(self, place: int, rule: Rule) -> UnreachableRule | None:
        above = self._rules_in_the_way(place, rule)
        if above is None:
            return None
        if Solver(self._callers, ()).solve(rule.checks) is None:
            message = "no request can meet all conditions of this rule: they exclude each other"
            return UnreachableRule(rule, Code.NEVER_TRUE, message)
        for number in above:
            if refutes(self._callers, rule.checks, [self._negations[number]], self._budget):
                taker = self._policy.rules[number]
                message = f"no request gets here: `{taker.name}` above takes all that this rule would"
                return UnreachableRule(rule, Code.UNREACHABLE, message, f"it stands in {taker.where}")
        if self._is_reached_around_others(place, rule):
            return None
        if refutes(self._callers, rule.checks, self._negations[:place], self._budget):
            message = "no request gets here: the rules above together take all that this one would"
            return UnreachableRule(rule, Code.UNREACHABLE, message)
        return None

    def _rules_in_the_way(self, place: int, rule: Rule) -> Sequence[int] | None:
        """The rules above of which one may take all that `rule` would, in order. `None`: a request gets to
        `rule`."""
        above: Sequence[int] | None = None
        for request in islice(self._requests.meeting(rule.checks), MOST_REQUESTS):
            try:
                facts = self._policy.facts_of(request)
                decision = self._policy.decide(facts)
            except InvalidRequest:
                continue
            if decision.rule == rule.name:
                return None
            if rule.first_miss(facts) is not None:
                continue
            if above is None:
                takers = islice(self._policy.taken_by(facts), MOST_RULES_ABOVE)
                above = [number for number in takers if number < place]
            else:
                above = [number for number in above if self._policy.rules[number].first_miss(facts) is None]
        return range(place) if above is None else above

    def _is_reached_around_others(self, place: int, rule: Rule) -> bool:
        """Whether a request gets to `rule` that is made up so that it misses the rules which took the ones
        before. `False`: none was found."""
        takers: list[int] = []
        while len(takers) < MOST_ROUNDS:
            clauses = [self._negations[number] for number in takers]
            assignment = Solver(self._callers, clauses, self._budget).solve(rule.checks)
            request = next(self._requests.satisfying(assignment, ()), None) if assignment else None
            if request is None:
                return False
            try:
                facts = self._policy.facts_of(request)
                decision = self._policy.decide(facts)
            except InvalidRequest:
                return False
            if decision.rule == rule.name:
                return True
            taker = next(self._policy.taken_by(facts))
            if taker >= place or taker in takers:
                return False
            takers.append(taker)
        return False
