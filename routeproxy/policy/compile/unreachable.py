"""Which rules no request gets to: their conditions exclude each other, or the rules above take all.

Most rules are settled by a request that says what their conditions name and gets there. For one that gets
elsewhere the next request, which the solver makes up, misses the rules that took it, and so on, until a
request gets there or there is none left: the solver then has said that these rules take all. So a file of
thousands of rules is not held against itself pair by pair.
Where no request can be made up, all rules above are looked at, as long as the budget lasts.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.conditions import Matches, Single, TextCheck
from routeproxy.policy.decide import Policy, Rule
from routeproxy.policy.facts import Facts
from routeproxy.policy.problems import Code
from routeproxy.policy.verify.callers import Callers, callers_of
from routeproxy.policy.verify.counterexamples import HypotheticalRequests
from routeproxy.policy.verify.proof import gate_clause
from routeproxy.policy.verify.satisfiability import Assignment
from routeproxy.policy.verify.solver import Budget, Clause, Solver, negate, refutes, single_checks

MOST_ROUNDS = 16
"""In which more rules above are avoided."""

MOST_TAKERS = 64
"""Of the rules that take one request, so many are avoided by the next."""

MOST_REQUESTS = 4
"""That are made up in one round. Where the first ones don't meet a rule, later ones hardly do."""

MOST_TEXTS = 16
"""Of those that other rules name: to try all for each rule would be quadratic."""

STEPS = 50_000
"""Of the solver, for all rules of a policy together: some tenths of a second."""

STEPS_FOR_RULE = 30
"""More of them for each rule."""


class UnreachableRule(NamedTuple):
    rule: Rule
    code: Code
    message: str
    hint: str | None = None


class Outcome(Enum):
    """What else may come of a search."""

    REACHED = auto()
    """A request gets to the rule."""
    NO_REQUEST = auto()
    """None could be made up that meets the rule."""
    UNDECIDED = auto()
    """Whether a request gets to the rule was not found out."""


class UnreachableRules:
    """Iterates over the rules of a policy that no request gets to."""

    def __init__(self, policy: Policy, budget: Budget | None = None) -> None:
        self._policy = policy
        self._callers = callers_of(policy)
        self._requests = HypotheticalRequests(policy, MOST_TEXTS)
        self._negation = cache(lambda number: negate(policy.rules[number].checks))
        self._budget = budget or Budget(STEPS + STEPS_FOR_RULE * len(policy.rules))
        """For all rules together."""
        self._above = _RulesAbove(policy.rules, self._callers, self._negation)

    def __iter__(self) -> Iterator[UnreachableRule]:
        undecided: list[Rule] = []
        for place, rule in enumerate(self._policy.rules):
            if not rule.checks:
                break  # it takes all that gets there, which is reported where it stands
            found = self._examine(place, rule)
            if found is Outcome.UNDECIDED:
                undecided.append(rule)
            elif isinstance(found, UnreachableRule):
                yield found
        if undecided:
            message = "whether requests get here was not found out: the rules above are too many together"
            more = len(undecided) - 1
            hint = f"nor was it for {more} of the rules below" if more else None
            yield UnreachableRule(undecided[0], Code.UNREACHABLE, message, hint)

    def _examine(self, place: int, rule: Rule) -> UnreachableRule | Outcome:
        if self._is_plainly_reached(place, rule):
            return Outcome.REACHED
        takers: list[int] = []
        """The rules above that took a request which was made up for this one."""
        gates: dict[str, Clause] = {}
        """By team, clauses for: what the team may ask for doesn't exclude the request."""
        for _ in range(MOST_ROUNDS):
            clauses = [*map(self._negation, takers), *gates.values()]
            if clauses and self._budget.steps < 0:
                return Outcome.UNDECIDED
            assignment = Solver(self._callers, clauses, self._budget).solve(rule.checks)
            if assignment is None:
                return self._unreachable(rule, takers, tuple(gates))
            facts = self._facts_of_misled(place, rule, assignment)
            if facts is Outcome.REACHED:
                return facts
            if isinstance(facts, Outcome):
                break
            more = islice(self._policy.taken_by(facts), MOST_TAKERS)
            added = [number for number in more if number < place and number not in takers]
            if added and not takers and self._takes_all(added[0], rule):
                return self._unreachable(rule, added[:1], ())
            takers += added
            if not added:
                team = self._policy.teams.get(facts.team or "")
                if team is None or team.gate is None or team.name in gates:
                    break
                gates[team.name] = gate_clause(team)
        return self._hold_against_all_above(place, rule)

    def _is_plainly_reached(self, place: int, rule: Rule) -> bool:
        """Whether the request gets to `rule` that says what its conditions name. Most do, and what the solver
        takes for each rule is saved."""
        request = self._requests.plain(rule.checks)
        if request is None:
            return False
        try:
            facts = self._policy.facts_of(request)
            return rule.first_miss(facts) is None and self._policy.taker(facts) == place
        except InvalidRequest:
            return False

    def _facts_of_misled(self, place: int, rule: Rule, assignment: Assignment) -> Facts | Outcome:
        """The facts of a request that meets `rule` and gets elsewhere."""
        for request in islice(self._requests.satisfying(assignment, ()), MOST_REQUESTS):
            try:
                facts = self._policy.facts_of(request)
                if rule.first_miss(facts) is None:
                    return Outcome.REACHED if self._policy.taker(facts) == place else facts
            except InvalidRequest:
                continue
        return Outcome.NO_REQUEST

    def _takes_all(self, number: int, rule: Rule) -> bool:
        """Whether the rule of this number takes all that `rule` would."""
        return refutes(self._callers, rule.checks, [self._negation(number)], self._budget)

    def _hold_against_all_above(self, place: int, rule: Rule) -> UnreachableRule | Outcome:
        clauses = self._above.relevant_to(place)
        if self._budget.steps < 0:
            return Outcome.UNDECIDED
        refuted = refutes(self._callers, rule.checks, clauses, self._budget)
        if not refuted:
            return Outcome.UNDECIDED if self._budget.steps < 0 else Outcome.REACHED
        return self._unreachable(rule, range(place), ())

    def _unreachable(self, rule: Rule, takers: Sequence[int], gates: Sequence[str]) -> UnreachableRule:
        """`takers` take and `gates` exclude all that `rule` would take."""
        if not takers and not gates:
            message = "no request can meet all conditions of this rule: they exclude each other"
            return UnreachableRule(rule, Code.NEVER_TRUE, message)
        excluding = " or ".join(f"`[teams.{team}] models`" for team in gates)
        if not takers:
            message = f"no request gets here: {excluding} excludes all that this rule would take"
            return UnreachableRule(rule, Code.UNREACHABLE, message)
        if excluding:
            message = f"no request gets here: what the rules above don't take, {excluding} excludes"
            return UnreachableRule(rule, Code.UNREACHABLE, message)
        for number in sorted(takers):
            if len(takers) == 1 or self._takes_all(number, rule):
                taker = self._policy.rules[number]
                message = f"no request gets here: `{taker.name}` above takes all that this rule would"
                return UnreachableRule(rule, Code.UNREACHABLE, message, f"it stands in {taker.where}")
        message = "no request gets here: the rules above together take all that this one would"
        return UnreachableRule(rule, Code.UNREACHABLE, message)


class _RulesAbove:
    """The rules above one, as clauses for: none of them takes the request. Few rules ever ask for them."""

    def __init__(self, rules: Sequence[Rule], callers: Callers, negation: Callable[[int], Clause]) -> None:
        """`negation` gives the clause of a rule by its number."""
        self._rules = rules
        self._callers = callers
        self._negation = negation
        self._count = 0
        """So many rules were added, the first ones."""
        self._clauses: list[Clause] = []
        self._of_text: dict[str, list[Clause]] = {}
        """By a text that the rule looks at: where nothing is wanted of that text, its clause holds."""
        self._of_pattern: dict[tuple[str, str], list[Clause]] = {}
        """Those of `_of_text` of which the text has to match a regex, by it too."""

    def _add(self, rule: Rule, clause: Clause) -> None:
        texts = [
            check
            for check in rule.checks
            if isinstance(check, TextCheck) and not self._callers.state(check.fact)
        ]
        if not texts:
            self._clauses.append(clause)
            return
        check = next(filter(_is_regex, texts), texts[0])
        self._of_text.setdefault(check.fact, []).append(clause)
        for value in check.values if _is_regex(check) else ():
            self._of_pattern.setdefault((check.fact, value), []).append(clause)

    def relevant_to(self, place: int) -> Sequence[Clause]:
        """Those of which one may keep something from the rule at `place`, which is none above the last that
        was asked about. What a regex has in it nobody looks at, so only the same regex is known to take the
        same texts, and there may be thousands of others."""
        for number in range(self._count, place):
            self._add(self._rules[number], self._negation(number))
        self._count = place
        clauses = [*self._clauses]
        by_fact: dict[str, list[Any]] = {}
        for check in single_checks(self._rules[place].checks):
            by_fact.setdefault(check.fact, []).append(check)
        for fact, checks in by_fact.items():
            if all(map(_is_regex, checks)):
                for value in dict.fromkeys(value for check in checks for value in check.values):
                    clauses += self._of_pattern.get((fact, value), ())
            else:
                clauses += self._of_text.get(fact, ())
        return clauses


def _is_regex(check: Single) -> bool:
    return isinstance(check, Matches) and check.syntax == "regex"
