"""Can some request meet these conditions? Conditions of one fact are judged together, facts apart.

A "no" is always right: it is what the proof of invariants rests on. A "perhaps" may be wrong: globs, regexes
and texts that are only partly known are not solved, and nothing is guessed of them. These close a case, and
nothing else does:

(a) teams, yes and no, and numbers, exactly; (b) a text that equals a value, tried with the server's own
matchers; (c) a fact that is absent, against whatever asks for something of it; (d) a condition and its own
negation; (e) `contains a` without `contains b`, `prefix a` without `prefix b` or `contains b`, where a has b
in it; (f) two prefixes of which neither begins the other. What a glob says literally counts as its prefix and
its parts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """A condition of one fact that holds, or does not."""

    check: Single
    holds: bool

    @property
    def fact(self) -> str:
        return self.check.fact


Assignment = Mapping[str, tuple[Constraint, ...]]
"""What is asked of each fact."""

NEVER_ABSENT = frozenset(fact.name for fact in FACTS if not fact.optional)


class Callers:
    """Who may ask, and which headers are their team's word."""

    def __init__(self, stamped: Mapping[str | None, Mapping[str, str]]) -> None:
        """By team (`None`: nobody's), the headers that it puts in place of the client's."""
        self._stamped = stamped
        self._tied = frozenset(f"header {name}" for headers in stamped.values() for name in headers)
        """The facts that depend on the team."""

    def possible(self, known: Assignment, changed: Iterable[str]) -> bool:
        """Whether a request may meet `known`, if all but the `changed` facts were possible before."""
        changed = set(changed)
        if changed & self._tied or "team" in changed:
            if next(self.teams(known), _NOBODY) is _NOBODY:
                return False
            changed -= self._tied | {"team"}
        return all(possible(known[fact]) for fact in changed)

    def teams(self, known: Assignment) -> Iterator[str | None]:
        """Those that may send such a request."""
        for team, headers in self._stamped.items():
            if not _holds(known.get("team", ()), team):
                continue
            if all(self._header_possible(fact, headers, known) for fact in self._tied & known.keys()):
                yield team

    def _header_possible(self, fact: str, headers: Mapping[str, str], known: Assignment) -> bool:
        value = headers.get(fact.removeprefix("header "))
        return possible(known[fact]) if value is None else _holds(known[fact], value)


_NOBODY = object()


def possible(constraints: Sequence[Constraint]) -> bool:
    """Whether one fact may be so, as far as can be seen."""
    match constraints[0].check:
        case Within() as check:
            return number(constraints, may_be_absent=check.fact not in NEVER_ABSENT) is not False
        case Flag() | HasTool():
            return _flag(constraints)
    return _text(constraints)


# --- numbers, yes and no


def number(constraints: Sequence[Constraint], *, may_be_absent: bool) -> int | bool | None:
    """A number that they allow; `None`: it may be absent; `False`: there is none."""
    wanted = [constraint.check for constraint in constraints if constraint.holds]
    if not wanted and may_be_absent:
        return None
    # The least number that all of them allow is 0, or the first one of a range, or the first behind one.
    starts = {0}
    for check, _ in constraints:
        assert isinstance(check, Within)
        starts |= {check.min or 0} | ({check.max + 1} if check.max is not None else set())
    for start in sorted(starts):
        if all(_within(constraint.check, start) is constraint.holds for constraint in constraints):
            return start
    return False


def _within(check: Single, value: int) -> bool:
    assert isinstance(check, Within)
    return (check.min is None or value >= check.min) and (check.max is None or value <= check.max)


def flag(constraints: Sequence[Constraint]) -> bool | None:
    """The value that they allow: `True`, `False`, or `None` if there is none."""
    allowed = {True, False}
    for check, holds in constraints:
        if isinstance(check, Flag):
            allowed &= {check.value is holds}
        elif holds:  # some tool of that name is a tool
            allowed &= {True}
    return min(allowed) if allowed else None


def _flag(constraints: Sequence[Constraint]) -> bool:
    if flag(constraints) is None:
        return False
    refused = {
        glob
        for check, holds in constraints
        if isinstance(check, HasTool) and not holds
        for glob in check.globs
    }
    return not any(
        holds and isinstance(check, HasTool) and refused.issuperset(check.globs)
        for check, holds in constraints
    )


# --- texts


def _holds(constraints: Sequence[Constraint], value: str | None) -> bool:
    return all(constraint.check.accepts(value) is constraint.holds for constraint in constraints)


def _text(constraints: Sequence[Constraint]) -> bool:
    if constraints[0].fact not in NEVER_ABSENT and _holds(constraints, None):
        return True
    asked = [constraint.check for constraint in constraints if constraint.holds]
    refused = [constraint.check for constraint in constraints if not constraint.holds]
    if any(isinstance(check, Present) and check.value is not holds for check, holds in constraints):
        return False  # it has to be absent, and can't be
    for check in asked:
        if isinstance(check, Equals):
            return any(_holds(constraints, value) for value in check.values)
    texts = [check for check in asked if isinstance(check, TextCheck)]
    if any(all(_caught(check, value, refused) for value in check.values) for check in texts):
        return False
    prefixes = [check.values for check in texts if isinstance(check, Begins)]
    return all(
        any(a.startswith(b) or b.startswith(a) for a in some for b in others)
        for place, some in enumerate(prefixes)
        for others in prefixes[:place]
    )


def runs(glob: str) -> list[str]:
    """What every text that matches it has in it, the first at its beginning."""
    return glob.replace("?", "*").split("*")


def _caught(check: TextCheck, value: str, refused: Sequence[Single]) -> bool:
    """Whether what meets `check` by this value meets something that is refused."""
    for other in refused:
        match check, other:
            case (Begins(), Begins()):
                caught = value.startswith(other.values)
            case (Begins() | Contains(), Contains()):
                caught = any(part in value for part in other.values)
            case (Matches(), Matches()):
                caught = check.syntax == other.syntax and value in other.values
            case (Matches(syntax="glob"), Contains()):
                caught = any(part in run for run in runs(value) for part in other.values)
            case (Matches(syntax="glob"), Begins()):
                caught = runs(value)[0].startswith(other.values)
            case _:
                caught = False
        if caught:
            return True
    return False


# --- an example


def sample(constraints: Sequence[Constraint], pool: Iterable[str]) -> str | bool | None:
    """A text that they allow, from what they name themselves and from `pool`; `None`: absent will do;
    `False`: none was found."""
    if constraints[0].fact not in NEVER_ABSENT and _holds(constraints, None):
        return None
    candidates = dict.fromkeys(_own_candidates(constraints))
    return next((text for text in (*candidates, *pool) if _holds(constraints, text)), False)


def _own_candidates(constraints: Sequence[Constraint]) -> Iterator[str]:
    asked = [check for check, holds in constraints if holds and isinstance(check, TextCheck)]
    begins = [value for check in asked if isinstance(check, Begins) for value in check.values] or [""]
    parts = "".join(check.values[0] for check in asked if isinstance(check, Contains))
    for check in asked:
        for value in check.values:
            yield value.replace("*", "").replace("?", "x")
            yield value.replace("*", "x").replace("?", "x")
    for begin in begins:
        yield from (begin + parts, f"{begin}-{parts}", f"{begin}{parts}x")
    yield "x"
