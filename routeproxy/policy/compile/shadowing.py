"""Which rules stand above a denial and may take what it is to deny."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from heapq import merge

from routeproxy.policy.conditions import Check, Equals, Flag, Within
from routeproxy.policy.decide import Rule


class AcceptingRules:
    """Those of `rules` that don't deny, found by the values that they want: 5,000 denials below as many of
    them would make 25 million pairs."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._all = [number for number, rule in enumerate(rules) if rule.deny is None]
        self._wanting: defaultdict[str, defaultdict[str | bool, list[int]]]
        self._wanting = defaultdict(lambda: defaultdict(list))
        for number in self._all:
            for fact, values in _wanted(rules[number].checks):
                for value in values:
                    self._wanting[fact][value].append(number)
        self._indifferent = {
            fact: sorted({*self._all}.difference(*by_value.values()))
            for fact, by_value in self._wanting.items()
        }
        """By fact, those that want no value of it."""

    def first_above(self, denial: int) -> Rule | None:
        """The first that may take something of what the rule of this number would."""
        checks = self._rules[denial].checks
        for number in self._near(checks):
            if number > denial:
                break
            if not disjoint(self._rules[number].checks, checks):
                return self._rules[number]
        return None

    def _near(self, checks: tuple[Check, ...]) -> Iterable[int]:
        """In order, those that don't want another value of the fact that tells most of them apart."""
        ways = [[self._all]]
        for fact, values in _wanted(checks):
            if (by_value := self._wanting.get(fact)) is not None:
                ways.append([self._indifferent[fact], *(by_value.get(value, []) for value in values)])
        return merge(*min(ways, key=lambda lists: sum(map(len, lists))))


def _wanted(checks: tuple[Check, ...]) -> Iterable[tuple[str, Sequence[str | bool]]]:
    for check in checks:
        match check:
            case Equals():
                yield check.fact, check.values
            case Flag():
                yield check.fact, (check.wanted,)


def disjoint(some: tuple[Check, ...], others: tuple[Check, ...]) -> bool:
    """Whether no request can pass both, as far as can be seen at a glance."""
    return any(_excludes(one, other) for one in some for other in others)


def _excludes(one: Check, other: Check) -> bool:
    match one, other:
        case Equals(), Equals():
            return one.subject.name == other.subject.name and not set(one.values) & set(other.values)
        case Flag(), Flag():
            return one.fact == other.fact and one.wanted is not other.wanted
        case Within(), Within() if one.fact == other.fact:
            return _below(one.max, other.min) or _below(other.max, one.min)
    return False


def _below(top: int | None, bottom: int | None) -> bool:
    return top is not None and bottom is not None and top < bottom
