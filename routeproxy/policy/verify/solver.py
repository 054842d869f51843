"""A solver for conditions: DPLL with unit propagation over clauses in disjunctive normal form.

A *constraint* is one condition on one fact that holds, or that does not. An *alternative* is a conjunction of
constraints: what a literal is in plain DPLL. A *clause* is a disjunction of alternatives, and one of them has
to hold. An *assignment* is the constraints asserted so far; whether they can hold together is not decided
here but by `Callers.satisfiable`, the theory. *Unit propagation* asserts the alternative of a clause that has
no other one left, until no clause is like that. A *branch* is the assignment with one alternative of the
shortest clause that is left. Clauses are not learned: rules that people can read need few branches.

Sound, not complete: "unsatisfiable" is always right, while an assignment may belong to no request. To leave
out a clause or a constraint only makes more requests possible. That is how all bounds here keep it sound.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from routeproxy.policy.conditions import AnyOf, Check, NoneOf, Share, Single
from routeproxy.policy.verify.callers import Callers
from routeproxy.policy.verify.satisfiability import Assignment, Constraint

MOST_STEPS = 1_000_000
"""Of one budget. A step is one constraint that is held against others, one or two microseconds. People can't
read a policy that needs more, and one that is made to need more must not hold up a reload."""

MOST_ALTERNATIVES = 1_000
"""Of a clause that is made by distributing several clauses."""

Alternative = tuple[Constraint, ...]
"""Constraints that hold together."""
Clause = tuple[Alternative, ...]
"""Alternatives of which at least one holds."""


class Budget:
    """The steps that are left. A proof shares one budget over all its rules and invariants."""

    def __init__(self, steps: int = MOST_STEPS) -> None:
        self.steps = steps


class Solver:
    """Looks for an assignment that satisfies checks and clauses at once, without recursion."""

    def __init__(self, callers: Callers, clauses: Sequence[Clause], budget: Budget | None = None) -> None:
        self._callers = callers
        self._clauses = clauses
        self._budget = budget or Budget()
        self.branches = 0
        """How many were looked at."""

    def solve(self, checks: Sequence[Check]) -> Assignment | None:
        """An assignment that may satisfy all `checks` and clauses. `None`: no request satisfies them.

        It may be empty, so it is not to be tested for truth. When the budget is used up, it is whatever
        assignment was not refuted until then.
        """
        constraints, clauses = to_clauses(checks)
        clauses = (*clauses, *self._clauses)
        # Clauses without a choice, all at once: one by one each would be held against those before.
        units = [constraint for clause in clauses if len(clause) == 1 for constraint in clause[0]]
        assignment = self._extend({}, [*constraints, *units])
        if assignment is None:
            self.branches = int(bool(units))
            return None
        choices = tuple(clause for clause in clauses if len(clause) != 1)
        branches: list[tuple[Assignment, tuple[Clause, ...]]] = [(assignment, choices)]
        while branches:
            assignment, clauses = branches.pop()
            self.branches += 1
            propagated = self._propagate(assignment, clauses)
            if self._budget.steps < 0:
                return assignment
            if propagated is None:
                continue
            assignment, clauses = propagated
            if not clauses:
                return assignment
            shortest = min(clauses, key=len)
            rest = tuple(clause for clause in clauses if clause is not shortest)
            branches += [(extended, rest) for extended in self._extensions(assignment, shortest)]
        return None

    def _propagate(
        self, assignment: Assignment, clauses: tuple[Clause, ...]
    ) -> tuple[Assignment, tuple[Clause, ...]] | None:
        """Unit propagation: the assignment, and the clauses that leave a choice. `None`: a conflict."""
        while True:
            undecided: list[Clause] = []
            extended = False
            for clause in clauses:
                if () in clause:
                    continue
                extensions = list(islice(self._extensions(assignment, clause), 2))
                if not extensions:
                    return None
                if len(extensions) == 1:
                    assignment, extended = extensions[0], True
                else:
                    undecided.append(clause)
            clauses = tuple(undecided)
            if not extended or self._budget.steps < 0:
                return assignment, clauses

    def _extensions(self, assignment: Assignment, clause: Clause) -> Iterator[Assignment]:
        """`assignment` with each alternative of `clause` that it allows."""
        for alternative in clause:
            if (extended := self._extend(assignment, alternative)) is not None:
                yield extended

    def _extend(self, assignment: Assignment, constraints: Sequence[Constraint]) -> Assignment | None:
        """`assignment` with `constraints`; `None` if they can't hold together."""
        extended = dict(assignment)
        added: dict[str, dict[Constraint, None]] = {}
        for constraint in constraints:
            fact = constraint.fact
            if constraint not in extended.get(fact, ()):
                added.setdefault(fact, {})[constraint] = None
        for fact, more in added.items():
            extended[fact] = (*extended.get(fact, ()), *more)
        changed = added.keys()
        self._budget.steps -= 1 + sum(len(extended[fact]) for fact in changed)
        return extended if self._callers.satisfiable(extended, changed) else None


def refutes(
    callers: Callers, checks: Sequence[Check], clauses: Sequence[Clause], budget: Budget | None = None
) -> bool:
    """Whether `clauses` leave no request that meets all `checks`."""
    return bool(clauses) and Solver(callers, clauses, budget).solve(checks) is None


# --- from checks to clauses


def to_clauses(checks: Sequence[Check]) -> tuple[list[Constraint], tuple[Clause, ...]]:
    """Constraints and clauses that hold together exactly when all `checks` hold."""
    constraints: list[Constraint] = []
    clauses: list[Clause] = []
    for check in checks:
        match check:
            case AnyOf(choices=choices):
                clauses.append(tuple(alternative for choice in choices for alternative in _dnf(choice)))
            case NoneOf(tables=tables):
                clauses += map(negate, tables)
            case Single():
                constraints.append(Constraint(check, True))
    return constraints, tuple(clauses)


def negate(checks: Sequence[Check]) -> Clause:
    """The clause that holds when not all `checks` hold."""
    alternatives: list[Alternative] = []
    for check in checks:
        match check:
            case AnyOf(choices=choices):
                alternatives += _distribute(map(negate, choices))
            case NoneOf(tables=tables):
                for table in tables:
                    alternatives += _dnf(table)
            case Single():
                alternatives.append((Constraint(check, False),))
            case Share():
                alternatives.append(())  # some sessions are outside of it, whatever else they are
    return tuple(alternatives)


def _dnf(checks: Sequence[Check]) -> Clause:
    """The clause that holds when all `checks` hold."""
    constraints, clauses = to_clauses(checks)
    return _distribute([*(((constraint,),) for constraint in constraints), *clauses])


def _distribute(clauses: Iterable[Clause]) -> Clause:
    """One clause for all of `clauses` together. A clause that would make too many alternatives is left out,
    which is sound."""
    product: list[Alternative] = [()]
    for clause in clauses:
        if len(product) * len(clause) > MOST_ALTERNATIVES:
            continue
        product = [(*before, *alternative) for before in product for alternative in clause]
    return tuple(product)


# --- the facts in them


def facts_of_checks(checks: Sequence[Check]) -> Iterator[str]:
    return (check.fact for check in single_checks(checks))


def facts_of_clause(clause: Clause) -> set[str]:
    return {constraint.fact for alternative in clause for constraint in alternative}


def single_checks(checks: Sequence[Check]) -> Iterator[Single]:
    """`checks`, and in place of an `any` or a `not` the checks in it."""
    for check in checks:
        match check:
            case AnyOf(choices=tables) | NoneOf(tables=tables):
                for table in tables:
                    yield from single_checks(table)
            case Single():
                yield check
