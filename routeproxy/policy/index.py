"""Which rules may take a request, found without asking each of them.

A rule holds only if all of its checks do, so it is enough to look it up by one of them, its guard. A rule is
left out only if its guard is certainly false; whether the rest holds is not asked here. Nor is a fact read
that costs something, until a rule was asked that reads it: an earlier one might take the request.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import accumulate, chain
from operator import or_
from re import escape
from typing import NamedTuple, TypeGuard

from routeproxy.policy.conditions import (
    AnyOf,
    Begins,
    Check,
    Contains,
    Equals,
    Flag,
    HasTool,
    Matches,
    Present,
    TokensWithin,
    Within,
    settled_below,
)
from routeproxy.policy.facts import Facts
from routeproxy.policy.patterns import as_regex, search_of

FEW = 8
"""So few rules are asked one by one: that takes 0.5 to 4 µs, and looking up among any number 1 to 4 µs."""

LONG = 1_000
"""No regex of more characters is looked up: what RE2 prepares takes the square of that, 1 s for 100,000."""

Plain = Equals | Begins | Contains | Matches | Flag | Present | Within | HasTool
"""The checks that can be guards, each alone or those in the branches of an `any` together."""


class Range(NamedTuple):
    min: int | None
    max: int | None


Word = str | bool | bytes | Range | None
"""What a fact has to be, a range that it has to be in, or, in bytes, a regex that has to be found in it."""

Key = tuple[str, Word]
"""A fact and the word."""


class Index:
    """Built once for the rules of a policy, each given by its checks."""

    def __init__(self, checks_of_rules: Sequence[tuple[Check, ...]], *, few: int = FEW) -> None:
        self._facts: dict[str, _Fact] = {}
        self._numbers: dict[str, _Ranges] = {}
        self._dear: list[_Texts | _Tokens] = []
        """The rules that are looked up by a fact which costs something."""
        self._unguarded: Sequence[int] = range(len(checks_of_rules))
        """The rules that may hold for any request."""
        if len(checks_of_rules) > few:
            unguarded = self._put_under_guards(checks_of_rules)
            self._unguarded = sorted(self._put_behind_dear_ones(checks_of_rules, unguarded, few))

    def candidates(self, facts: Facts) -> Iterable[int]:
        """The numbers of the rules that may hold, in the order of the file. Whoever takes the next one has
        asked the one before."""
        found: set[int] = set()
        found.update(*(rules for fact in self._facts.values() for rules in fact.rules(facts)))
        ordered: Iterable[int] = sorted(found)
        if self._numbers or self._dear:
            numbers = (_bits(ranges.holding(ranges.read(facts))) for ranges in self._numbers.values())
            ordered = merge(ordered, *numbers, *(dear.rules(facts) for dear in self._dear))
        elif not found:
            return self._unguarded
        return _merged(self._unguarded, ordered)

    def _put_under_guards(self, checks_of_rules: Sequence[tuple[Check, ...]]) -> set[int]:
        """Returns the rules that have none."""
        readers = {}
        sharing: Counter[Key] = Counter()
        for check in chain(*map(_plain, checks_of_rules)):
            readers[check.fact] = check.subject.read
            for key in _keys(check):
                # Most requests are in most ranges.
                sharing[key] += len(checks_of_rules) if isinstance(check, Within) else 1
        unguarded = set()
        for rule, checks in enumerate(checks_of_rules):
            guard = _guard(checks, sharing)
            if guard is None:
                unguarded.add(rule)
            for fact, word in guard or ():
                if isinstance(word, Range):
                    self._numbers.setdefault(fact, _Ranges(readers[fact])).add(word, rule)
                else:
                    self._facts.setdefault(fact, _Fact(readers[fact])).add(word, rule)
        for ranges in self._numbers.values():
            ranges.finish()
        return unguarded.union(*(fact.finish() for fact in self._facts.values()))

    def _put_behind_dear_ones(
        self, checks_of_rules: Sequence[tuple[Check, ...]], unguarded: set[int], few: int
    ) -> set[int]:
        """Returns the rules that don't begin with a fact which costs something, or are few."""
        by_fact: dict[str, dict[int, Plain]] = {}
        for rule in sorted(unguarded):
            first = next(iter(checks_of_rules[rule]), None)
            if first is not None and first.cost and _is_word(first):
                by_fact.setdefault(first.fact, {})[rule] = first
        for group in by_fact.values():
            if len(group) > few:
                tokens = all(isinstance(check, TokensWithin) for check in group.values())
                dear = _Tokens(group) if tokens else _Texts(group)  # type: ignore[arg-type]
                self._dear.append(dear)
                unguarded = unguarded - group.keys() | dear.left_over
        return unguarded


class _Fact:
    """The rules whose guards look at one fact."""

    def __init__(self, read: Callable[[Facts], str | bool | tuple[str, ...] | None]) -> None:
        self._read = read
        self._by_value: dict[object, list[int]] = {}
        self._by_regex: dict[bytes, list[int]] = {}
        self._searches: list[tuple[Callable[[bytes], list[int]], list[list[int]]]] = []

    def add(self, word: str | bool | bytes | None, rule: int) -> None:
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
        if self._searches:
            for text in value if isinstance(value, tuple) else (value,):
                yield from self._found_in(text)

    def _found_in(self, text: str | bool | None) -> Iterator[list[int]]:
        if isinstance(text, str):
            encoded = text.encode("utf-8", "replace")
            for search, rules in self._searches:
                for number in search(encoded):
                    yield rules[number]


class _Ranges:
    """The rules whose guards are ranges of one number. A set of rules is an integer with a bit for each."""

    def __init__(self, read: Callable[[Facts], int | None]) -> None:
        self.read = read
        self._from: dict[int | None, int] = {}
        self._to: dict[int | None, int] = {}
        """The rules by the lower and by the upper end of their ranges."""
        self._lows, self._highs = list[int](), list[int]()
        self._above, self._below = list[int](), list[int]()

    def add(self, range: Range, rule: int) -> None:
        self._from[range.min] = self._from.get(range.min, 0) | 1 << rule
        self._to[range.max] = self._to.get(range.max, 0) | 1 << rule

    def finish(self) -> None:
        self._lows, self._above = _ends(self._from)
        # Seen from the other side, an upper end is a lower one.
        upper = {None if end is None else -end: rules for end, rules in self._to.items()}
        self._highs, self._below = _ends(upper)

    def holding(self, value: int | None) -> int:
        if value is None:
            return 0
        return self._above[bisect_right(self._lows, value)] & self._below[bisect_right(self._highs, -value)]


def _ends(rules: Mapping[int | None, int]) -> tuple[list[int], list[int]]:
    """The ends of ranges in order, and the rules that begin before the first, up to the first, and so on."""
    ends = sorted(end for end in rules if end is not None)
    return ends, [*accumulate((rules[end] for end in ends), or_, initial=rules.get(None, 0))]


def _bits(rules: int) -> Iterator[int]:
    while rules:
        lowest = rules & -rules
        yield lowest.bit_length() - 1
        rules ^= lowest


class _Texts:
    """Rules that begin with a condition on the system text, on tools, or on images or documents. The first of
    them is always asked. From then on the fact is there to look the others up by."""

    def __init__(self, checks: Mapping[int, Plain]) -> None:
        self._first, *others = checks
        self._fact = _Fact(checks[self._first].subject.read)
        for rule in others:
            for _, word in _keys(checks[rule]):
                self._fact.add(word, rule)  # type: ignore[arg-type]
        self.left_over = frozenset(self._fact.finish())

    def rules(self, facts: Facts) -> Iterator[int]:
        yield self._first
        yield from sorted(set(chain.from_iterable(self._fact.rules(facts))))


class _Tokens:
    """Rules that begin with a range of `input_tokens`, so many that asking each would take longer than
    counting. Nothing is counted that would not be by asking one after the other."""

    left_over: frozenset[int] = frozenset()

    def __init__(self, checks: Mapping[int, TokensWithin]) -> None:
        self._first, *others = checks
        self._ranges = _Ranges(checks[self._first].subject.read)
        counted: dict[int | None, int] = {}
        self._small = 0
        """The rules that hold for whatever is surely small."""
        for rule in others:
            check = checks[rule]
            self._ranges.add(Range(check.min, check.max), rule)
            told = settled_below(check.min, check.max)
            counted[told] = counted.get(told, 0) | 1 << rule
            self._small |= (check.min is None or check.min <= 1) << rule
        self._ranges.finish()
        self._told, self._counted = _ends(counted)

    def rules(self, facts: Facts) -> Iterator[int]:
        yield self._first
        rest = -1
        if facts.counted is None:
            sure = bisect_left(self._told, True, key=facts.fewer_tokens_than)
            have_to_count = self._counted[sure]
            counts_first = have_to_count & -have_to_count
            yield from _bits(self._small & ~have_to_count & (counts_first - 1))
            if not counts_first:
                return
            yield counts_first.bit_length() - 1
            rest = -counts_first << 1
        yield from _bits(self._ranges.holding(facts.input_tokens) & rest)


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
    return _is_word(check) and not check.cost


def _is_word(check: Check) -> TypeGuard[Plain]:
    """Whether words can be told of which one is right wherever it holds."""
    if isinstance(check, Begins | Contains | Matches) and any(len(value) > LONG for value in check.values):
        return False
    return isinstance(check, Plain)


def _keys(check: Plain) -> list[Key]:
    """The check holds only if one of the words is right."""
    words: Iterable[Word]
    match check:
        case Flag():
            words = [check.wanted]
        case Present():
            words = [rb"\A" if check.wanted else None]
        case Within():
            words = [Range(check.min, check.max)]
        case HasTool():
            words = [as_regex(glob).encode() for glob in check.globs]
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


def _merged(some: Sequence[int], others: Iterable[int]) -> Iterator[int]:
    """Both in order, each number once. Whoever asks is mostly content with the first."""
    start = 0
    last = -1
    for number in others:
        if number == last:
            continue
        stop = bisect_left(some, number, start)
        yield from some[start:stop]
        yield number
        last = number
        start = bisect_right(some, number, stop)
    yield from some[start:]
