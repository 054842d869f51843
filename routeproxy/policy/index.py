"""Which rules may take a request, found without asking each of them.

A rule holds only if all of its checks do, so it is enough to look it up by one of them, its guard. A rule is
left out only if its guard is certainly false; whether the rest holds is not asked here. Nor is any fact read
that costs something: it might be worked out for a request that an earlier rule takes.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from re import escape
from typing import TypeGuard

from routeproxy.policy.conditions import AnyOf, Begins, Check, Contains, Equals, Flag, Matches, cost
from routeproxy.policy.facts import Facts
from routeproxy.policy.patterns import as_regex, search_of

FEW = 8
"""So few rules are asked one by one: that takes 0.5 to 4 µs, and looking up among any number 1 to 4 µs."""

LONG = 1_000
"""No regex of more characters is looked up: what RE2 prepares takes the square of that, 1 s for 100,000."""

Plain = Equals | Begins | Contains | Matches | Flag
"""The checks that can be guards, each alone or those in the branches of an `any` together."""

Word = str | bool | bytes
"""What a fact has to be or, in bytes, a regex that has to be found in it."""

Key = tuple[str, Word]
"""A fact and the word."""


class Index:
    """Built once for the rules of a policy, each given by its checks."""

    def __init__(self, checks_of_rules: Sequence[tuple[Check, ...]], *, few: int = FEW) -> None:
        self._facts: dict[str, _Fact] = {}
        self._unguarded: Sequence[int] = range(len(checks_of_rules))
        """The rules that may hold for any request."""
        if len(checks_of_rules) > few:
            self._unguarded = sorted(self._put_under_guards(checks_of_rules))

    def candidates(self, facts: Facts) -> Iterable[int]:
        """The numbers of the rules that may hold, in the order of the file."""
        found: set[int] = set()
        found.update(*(rules for fact in self._facts.values() for rules in fact.rules(facts)))
        return _merged(self._unguarded, sorted(found)) if found else self._unguarded

    def _put_under_guards(self, checks_of_rules: Sequence[tuple[Check, ...]]) -> set[int]:
        """Returns the rules that have none."""
        readers = {}
        sharing: Counter[Key] = Counter()
        for check in chain(*map(_plain, checks_of_rules)):
            readers[check.fact] = check.read if isinstance(check, Flag) else check.subject.read
            for key in _keys(check):
                sharing[key] += 1
        unguarded = set()
        for rule, checks in enumerate(checks_of_rules):
            guard = _guard(checks, sharing)
            if guard is None:
                unguarded.add(rule)
            for fact, word in guard or ():
                self._facts.setdefault(fact, _Fact(readers[fact])).add(word, rule)
        return unguarded.union(*(fact.finish() for fact in self._facts.values()))


class _Fact:
    """The rules whose guards look at one fact."""

    def __init__(self, read: Callable[[Facts], str | bool | None]) -> None:
        self._read = read
        self._by_value: dict[str | bool | None, list[int]] = {}
        self._by_regex: dict[bytes, list[int]] = {}
        self._searches: list[tuple[Callable[[bytes], list[int]], list[list[int]]]] = []

    def add(self, word: Word, rule: int) -> None:
        if isinstance(word, bytes):
            self._by_regex.setdefault(word, []).append(rule)
        else:
            self._by_value.setdefault(word, []).append(rule)

    def finish(self) -> Iterator[int]:
        """Returns the rules that can't be looked up after all: the engine has no room for their regexes."""
        return self._search_for(list(self._by_regex)) if self._by_regex else iter(())

    def _search_for(self, regexes: list[bytes]) -> Iterator[int]:
        rules = [self._by_regex[regex] for regex in regexes]
        if search := search_of(regexes):
            self._searches.append((search, rules))
        elif len(regexes) == 1:
            yield from rules[0]
        else:
            half = len(regexes) // 2
            yield from self._search_for(regexes[:half])
            yield from self._search_for(regexes[half:])

    def rules(self, facts: Facts) -> Iterator[list[int]]:
        """Those whose guards hold, some of them twice."""
        value = self._read(facts)
        if value in self._by_value:
            yield self._by_value[value]
        if self._searches and isinstance(value, str):
            text = value.encode("utf-8", "replace")
            for search, rules in self._searches:
                for number in search(text):
                    yield rules[number]


# --- guards


def _guard(checks: tuple[Check, ...], sharing: Mapping[Key, int]) -> list[Key] | None:
    """Keys of which one is there wherever all of `checks` hold: those that the fewest rules share."""
    guards: list[list[Key]] = []
    for check in checks:
        if isinstance(check, AnyOf):
            branches = [_guard(choice, sharing) for choice in check.choices]
            if None not in branches:
                guards.append(list(chain(*filter(None, branches))))
        elif _is_plain(check):
            guards.append(_keys(check))
    return min(guards, key=lambda keys: sum(sharing[key] for key in keys), default=None)


def _plain(checks: tuple[Check, ...]) -> Iterator[Plain]:
    for check in checks:
        if isinstance(check, AnyOf):
            yield from chain(*map(_plain, check.choices))
        elif _is_plain(check):
            yield check


def _is_plain(check: Check) -> TypeGuard[Plain]:
    if isinstance(check, Begins | Contains | Matches) and any(len(value) > LONG for value in check.values):
        return False
    return isinstance(check, Plain) and not cost(check)


def _keys(check: Plain) -> list[Key]:
    """The check holds only if one of the words is right."""
    words: Iterable[Word]
    match check:
        case Flag():
            words = [check.wanted]
        case Equals():
            words = check.values
        case Begins():
            words = [rb"\A" + _literal(value) for value in check.values]
        case Contains():
            words = map(_literal, check.values)
        case Matches() if check.syntax == "glob":
            words = [as_regex(glob).encode() for glob in check.values]
        case Matches():
            words = [regex.encode() for regex in check.values]
    return [(check.fact, word) for word in words]


def _literal(text: str) -> bytes:
    return escape(text.encode("utf-8", "replace"))


def _merged(some: Sequence[int], others: Sequence[int]) -> Iterator[int]:
    """Both in order, each number once. Whoever asks is mostly content with the first."""
    start = 0
    for number in others:
        stop = bisect_left(some, number, start)
        yield from some[start:stop]
        yield number
        start = bisect_right(some, number, stop)
    yield from some[start:]
