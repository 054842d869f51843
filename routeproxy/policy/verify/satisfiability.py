"""The theory of one fact: whether some value of it can meet all constraints on it.

A "no" is always right: the proof of invariants rests on it. A "yes" may be wrong: globs, regexes and texts
that are only partly known are not solved, and nothing is guessed about them. Constraints are found to exclude
each other by these arguments and no others:

(a) teams, yes and no, and numbers, exactly; (b) a text that equals a value, tried with the server's own
matchers; (c) a fact that is absent, against every constraint that needs a value; (d) a condition and its own
negation; (e) `contains a` without `contains b`, `prefix a` without `prefix b` or `contains b`, where a has b
in it; (f) two prefixes of which neither begins the other. The literal parts of a glob count as its prefix and
as parts that the text contains.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from routeproxy.policy.conditions import (
    Begins,
    Contains,
    Equals,
    Flag,
    HasTool,
    Matches,
    Present,
    Single,
    TextCheck,
    Within,
)
from routeproxy.policy.fact_table import FACTS


class Constraint(NamedTuple):
    """A condition on one fact that holds, or that does not."""

    check: Single
    holds: bool

    @property
    def fact(self) -> str:
        return self.check.fact


Assignment = Mapping[str, tuple[Constraint, ...]]
"""The constraints on each fact, at least one for each."""

NEVER_ABSENT = frozenset(fact.name for fact in FACTS if not fact.optional)


def satisfiable(constraints: Sequence[Constraint]) -> bool:
    """Whether some value of their fact may meet all `constraints`, which are at least one."""
    match constraints[0].check:
        case Within():
            return allows_absence(constraints) or least_number(constraints) is not None
        case Flag() | HasTool():
            return _flag_satisfiable(constraints)
    return _text_satisfiable(constraints)


def allows_absence(constraints: Sequence[Constraint]) -> bool:
    """Whether a request without their fact meets all `constraints`."""
    return constraints[0].fact not in NEVER_ABSENT and holds(constraints, None)


def holds(constraints: Sequence[Constraint], value: str | None) -> bool:
    """Whether `value`, of whatever fact they are about, meets all `constraints`."""
    return all(constraint.check.accepts(value) is constraint.holds for constraint in constraints)


# --- numbers, yes and no


def least_number(constraints: Sequence[Constraint]) -> int | None:
    """The least number that meets all `constraints`, each of them a range."""
    number, most = 0, math.inf
    excluded: list[tuple[int, float]] = []
    for check, positive in constraints:
        assert isinstance(check, Within)
        first, last = check.min or 0, math.inf if check.max is None else check.max
        if positive:
            number, most = max(number, first), min(most, last)
        else:
            excluded.append((first, last))
    for first, last in sorted(excluded):
        if first <= number <= last:
            if last == math.inf:
                return None
            number = int(last) + 1
    return number if number <= most else None


def allowed_flag(constraints: Sequence[Constraint]) -> bool | None:
    """A value that meets all `constraints`, each of them on a flag or on tools; `None`: there is none."""
    allowed = {True, False}
    for check, positive in constraints:
        if isinstance(check, Flag):
            allowed &= {check.value is positive}
        elif positive:  # a tool of a certain name is a tool
            allowed &= {True}
    return min(allowed) if allowed else None


def _flag_satisfiable(constraints: Sequence[Constraint]) -> bool:
    if allowed_flag(constraints) is None:
        return False
    excluded = {
        glob
        for check, positive in constraints
        if isinstance(check, HasTool) and not positive
        for glob in check.globs
    }
    return not any(
        positive and isinstance(check, HasTool) and excluded.issuperset(check.globs)
        for check, positive in constraints
    )


# --- texts


def _text_satisfiable(constraints: Sequence[Constraint]) -> bool:
    if allows_absence(constraints):
        return True
    if any(isinstance(check, Present) and check.value is not positive for check, positive in constraints):
        return False  # it has to be absent, and can't be
    required = [constraint.check for constraint in constraints if constraint.holds]
    excluded = [constraint.check for constraint in constraints if not constraint.holds]
    for check in required:
        if isinstance(check, Equals):
            return any(holds(constraints, value) for value in check.values)
    texts = [check for check in required if isinstance(check, TextCheck)]
    if any(all(_is_excluded(check, value, excluded) for value in check.values) for check in texts):
        return False
    prefixes = [check.values for check in texts if isinstance(check, Begins)]
    return all(
        any(a.startswith(b) or b.startswith(a) for a in some for b in others)
        for place, some in enumerate(prefixes)
        for others in prefixes[:place]
    )


def _is_excluded(check: TextCheck, value: str, excluded: Sequence[Single]) -> bool:
    """Whether every text that meets `check` by this value meets one of the `excluded` checks as well."""
    for excluded_check in excluded:
        match check, excluded_check:
            case (Begins(), Begins(values=prefixes)):
                implied = value.startswith(prefixes)
            case (Begins() | Contains(), Contains(values=parts)):
                implied = any(part in value for part in parts)
            case (Matches(syntax=syntax), Matches(syntax=other_syntax, values=patterns)):
                implied = syntax == other_syntax and value in patterns
            case (Matches(syntax="glob"), Contains(values=parts)):
                implied = any(part in run for run in _literal_runs(value) for part in parts)
            case (Matches(syntax="glob"), Begins(values=prefixes)):
                implied = _literal_runs(value)[0].startswith(prefixes)
            case _:
                implied = False
        if implied:
            return True
    return False


def _literal_runs(glob: str) -> list[str]:
    """The parts that every text matching `glob` contains. The first one is its prefix."""
    return glob.replace("?", "*").split("*")
