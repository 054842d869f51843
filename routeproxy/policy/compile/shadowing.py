"""Which rules stand above a denial and may take what it is to deny, as far as can be seen at a glance. What
can only be proved is not looked for here."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from heapq import merge

from routeproxy.policy.conditions import Check, Equals, Flag, Within
from routeproxy.policy.decide import Rule


class AcceptingRules:
    """Those of `rules` that don't deny, found by the values that they ask for: 5,000 denials below as many of
    them would make 25 million pairs."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._all = [number for number, rule in enumerate(rules) if rule.deny is None]
        self._by_value: defaultdict[str, defaultdict[str | bool, list[int]]]
        self._by_value = defaultdict(lambda: defaultdict(list))
        """By fact and value, the rules that ask for this value."""
        for number in self._all:
            for fact, values in _values_by_fact(rules[number].checks):
                for value in values:
                    self._by_value[fact][value].append(number)
        self._without_value = {
            fact: sorted({*self._all}.difference(*by_value.values()))
            for fact, by_value in self._by_value.items()
        }
        """By fact, the rules that ask for no value of it."""

    def first_above(self, denial: int) -> Rule | None:
        """The first rule that may take something of what the rule of this number would."""
        checks = self._rules[denial].checks
        for number in self._possible(checks):
            if number > denial:
                break
            if not disjoint(self._rules[number].checks, checks):
                return self._rules[number]
        return None

    def _possible(self, checks: tuple[Check, ...]) -> Iterable[int]:
        """In order, the rules that don't ask for another value of the fact that tells most of them apart."""
        choices = [[self._all]]
        for fact, values in _values_by_fact(checks):
            if (by_value := self._by_value.get(fact)) is not None:
                choices.append([self._without_value[fact], *(by_value.get(value, []) for value in values)])
        return merge(*min(choices, key=lambda lists: sum(map(len, lists))))


def _values_by_fact(checks: tuple[Check, ...]) -> Iterable[tuple[str, Sequence[str | bool]]]:
    """The facts that must have one of some values."""
    for check in checks:
        match check:
            case Equals():
                yield check.fact, check.values
            case Flag():
                yield check.fact, (check.value,)


def disjoint(first: tuple[Check, ...], second: tuple[Check, ...]) -> bool:
    """Whether no request can pass both, as far as can be seen at a glance."""
    return any(_exclude_each_other(a, b) for a in first for b in second)


def _exclude_each_other(a: Check, b: Check) -> bool:
    match a, b:
        case Equals(), Equals():
            return a.fact == b.fact and not set(a.values) & set(b.values)
        case Flag(), Flag():
            return a.fact == b.fact and a.value is not b.value
        case Within(), Within() if a.fact == b.fact:
            return _is_below(a.max, b.min) or _is_below(b.max, a.min)
    return False


def _is_below(top: int | None, bottom: int | None) -> bool:
    return top is not None and bottom is not None and top < bottom
