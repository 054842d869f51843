"""Which rules may take a request, found without asking each of them.

A rule takes a request only if all of its checks hold, so it is enough to look the rule up by one of them, its
guard. A rule is left out only if its guard is certainly false; whether the rest holds is not asked here. Nor
is a fact read that costs something, until a rule was asked that reads it: an earlier rule might take the
request.

An example, as if it were thousands of rules:

    0  match = { headers.x-team = "a", model = "haiku" }
    1  match = { headers.x-team = "b", model = "haiku" }
    2  match = { max_tokens = { min = 100, max = 200 } }
    3  match = { not.model = "opus" }
    4  match = { system = "reviewer" }
    5  match = { system = "translator" }

*Guards.* `haiku` is shared by two rules, `a` and `b` by one each, so `x-team` guards rules 0 and 1: a
dictionary leads from `b` to rule 1. What is more than a word (a prefix, a pattern) is a regex, and one search
finds all regexes that are in a text; a part of a model's name is found by a piece of it that few other parts
have. Nothing has to be there where a `not` holds, so rule 3 has no guard, and is a candidate for every
request.

*Bitsets.* Rule 2 is guarded by its range. A set of rules is an integer with a bit for each: before 100 no
range has begun, from there on rule 2 has (`0b000100`), and from 201 on it has ended. For a number, bisection
finds the set of the ranges that have begun and the set of those that have not ended, and rule 2 is in both.

*Cost.* The system text costs something, so it guards nothing. Rule 4, the first that begins with it, is
always a candidate. Once it was asked, the text is there, and the rest of such rules are looked up by it like
any others.

*Narrowing.* Of many rules that one word leads to, each with a range besides, those are left out whose range
doesn't hold, once the number is known.

A request with `x-team: b`, 150 for `max_tokens` and `translator` in its system text has the candidates 1, 2,
3, 4 and 5. They come one by one, in the order of the file, until one of them takes it.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import accumulate, chain
from operator import or_
from re import escape
from typing import Any, NamedTuple, TypeGuard

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
from routeproxy.policy.fact_table import INPUT_TOKENS, MODEL, Fact
from routeproxy.policy.facts import Facts
from routeproxy.policy.patterns import as_regex, is_glob, search_of

FEW = 8
"""So few rules are asked one by one: that takes 0.5 to 4 µs, and a lookup among any number 1 to 4 µs."""

PIECE = 16
"""So many characters have the longest pieces by which parts of a text are found."""

PLACES = 24
"""So many pieces of a part are compared, to find the one that the fewest others have."""

MOST_SHARING = 32
"""Of one piece. Parts of which every piece is shared by more are searched for by the engine."""

MOST_TOGETHER = 1_000
"""Regexes of one search: to prepare it takes 0.05 s, in which no other thread can run."""

LONG = 1_000
"""No regex of more characters is looked up: what RE2 prepares takes the square of that, 1 s for 100,000."""

Plain = Equals | Begins | Contains | Matches | Flag | Present | Within | HasTool
"""The checks that can be guards, each alone or those in the branches of an `any` together."""

Read = Callable[[Facts], Any]
"""The value of a fact."""


class Range(NamedTuple):
    min: int | None
    max: int | None


class Part(NamedTuple):
    """A text that another one has in it."""

    text: str


Word = str | bool | bytes | Part | Range | None
"""What a fact has to be: a value, or in a range, or a text in which a part or (bytes) a regex is found."""

Key = tuple[str, Word]
"""The name of a fact, and a word."""


class Index:
    """Built once for the rules of a policy, each given by its checks."""

    def __init__(self, checks_of_rules: Sequence[tuple[Check, ...]], *, few: int = FEW) -> None:
        self._words: dict[str, _Words] = {}
        """By the name of a fact, the rules that it guards by words."""
        self._by_header: dict[str, _Words] = {}
        """By the name of a header, the rules that it guards wherever it is there: there may be thousands."""
        self._ranges: dict[str, _Ranges] = {}
        """By the name of a fact, the rules that it guards by ranges."""
        self._expensive: list[_ExpensiveWords | _ExpensiveTokens] = []
        """The rules that are looked up by a fact which costs something."""
        self._narrowing = _Narrowing(checks_of_rules) if len(checks_of_rules) > few else None
        self._unguarded: Sequence[int] = range(len(checks_of_rules))
        """The rules that are candidates for every request."""
        if len(checks_of_rules) > few:
            unguarded = self._put_under_guards(checks_of_rules)
            self._unguarded = sorted(self._put_behind_expensive(checks_of_rules, unguarded, few))

    def candidates(self, facts: Facts) -> Iterable[int]:
        """The numbers of the rules that may take the request, in the order of the file. Whoever takes the
        next number has asked the rule before."""
        by_words: set[int] = set()
        by_words.update(*(rules for words in self._words.values() for rules in words.rules(facts)))
        for name in facts.headers if self._by_header else ():
            if name in self._by_header:
                by_words.update(*self._by_header[name].rules(facts))
        numbers: Iterable[int] = sorted(by_words)
        if self._narrowing and len(by_words) > FEW:
            numbers = self._narrowing.narrowed(sorted(by_words), facts)
        if self._ranges or self._expensive:
            by_ranges = (_numbers_of(ranges.holding(ranges.read(facts))) for ranges in self._ranges.values())
            numbers = merge(numbers, *by_ranges, *(group.rules(facts) for group in self._expensive))
        elif not by_words:
            return self._unguarded
        return _merged(self._unguarded, numbers)

    def _put_under_guards(self, checks_of_rules: Sequence[tuple[Check, ...]]) -> set[int]:
        """Returns the rules that have no guard."""
        subjects: dict[str, Fact] = {}
        sharing: Counter[Key] = Counter()
        for check in chain(*map(_plain_checks, checks_of_rules)):
            subjects[check.fact] = check.subject
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
                    self._ranges.setdefault(fact, _Ranges(subjects[fact].read)).add(word, rule)
                else:
                    self._words.setdefault(fact, _Words(subjects[fact])).add(word, rule)
        for ranges in self._ranges.values():
            ranges.finish()
        left_over = [*chain(*(words.finish() for words in self._words.values()))]
        for fact, words in [*self._words.items()]:
            header = subjects[fact].header
            if header is not None and not words.has_absent:
                self._by_header[header] = self._words.pop(fact)
        return unguarded.union(left_over)

    def _put_behind_expensive(
        self, checks_of_rules: Sequence[tuple[Check, ...]], unguarded: set[int], few: int
    ) -> set[int]:
        """Returns the rules that don't begin with a fact which costs something, or are few."""
        # Whether there are tools, and which, are two things to look at of one fact.
        by_fact: dict[tuple[str, Read], dict[int, Plain]] = {}
        for rule in sorted(unguarded):
            first = next(iter(checks_of_rules[rule]), None)
            if first is not None and first.cost and _has_keys(first):
                by_fact.setdefault((first.fact, first.subject.read), {})[rule] = first
        for checks in by_fact.values():
            if len(checks) > few:
                tokens = all(isinstance(check, TokensWithin) for check in checks.values())
                group = _ExpensiveTokens(checks) if tokens else _ExpensiveWords(checks)  # type: ignore[arg-type]
                self._expensive.append(group)
                unguarded = unguarded - checks.keys() | group.left_over
        return unguarded


class _Words:
    """Rules that are looked up by words of one fact."""

    def __init__(self, subject: Fact) -> None:
        self._read: Read = subject.read
        self._is_short = subject is MODEL
        """Whether the texts are: no rule is asked about a model's name of more than 256 characters."""
        self._by_value: dict[object, list[int]] = {}
        self._by_regex: dict[bytes, list[int]] = {}
        self._by_part: dict[str, list[int]] = {}
        self._searches: list[tuple[Callable[[bytes], list[int]], list[list[int]]]] = []
        """Searches for many regexes each, and the rules of each regex."""
        self._parts: _Parts | None = None

    @property
    def has_absent(self) -> bool:
        """Whether a request without the fact is right for some rule."""
        return None in self._by_value

    def add(self, word: str | bool | bytes | Part | None, rule: int) -> None:
        if isinstance(word, bytes):
            self._by_regex.setdefault(word, []).append(rule)
        elif isinstance(word, Part):
            self._by_part.setdefault(word.text, []).append(rule)
        else:
            self._by_value.setdefault(word, []).append(rule)

    def finish(self) -> Iterator[int]:
        """Returns the rules that can't be looked up after all: the engine has no room for their regexes."""
        regexes = list(self._by_regex)
        for search, numbers in _searches(regexes):
            rules = [self._by_regex[regexes[number]] for number in numbers]
            if search is None:
                yield from chain(*rules)
            else:
                self._searches.append((search, rules))
        if self._by_part:
            self._parts = _Parts(list(self._by_part), in_short_texts=self._is_short)

    def rules(self, facts: Facts) -> Iterator[list[int]]:
        """The rules of which a word is right, some of them twice."""
        value = self._read(facts)
        if value in self._by_value:
            yield self._by_value[value]
        if self._searches or self._parts is not None:
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str):
                    yield from self._found_in(text)

    def _found_in(self, text: str) -> Iterator[list[int]]:
        if self._searches:
            encoded = _encoded(text)
            for search, rules in self._searches:
                for number in search(encoded):
                    yield rules[number]
        if self._parts is not None:
            for part in self._parts.found_in(text):
                yield self._by_part[part]


class _Parts:
    """Finds which of many parts a text has in it. One that begins or ends with another part is looked for
    only where that one was found: of long chains (`a`, `ab`, `abc`, …) the engine would search for each."""

    def __init__(self, parts: Sequence[str], *, in_short_texts: bool) -> None:
        shorter = _ends_of([part[::-1] for part in parts])
        shorter = {part[::-1]: end[::-1] for part, end in shorter.items()} | _ends_of(parts)
        longer: dict[str | None, list[str]] = {}
        for part in parts:
            longer.setdefault(shorter.get(part), []).append(part)
        self._longer = {
            part: _FewParts(of_part, in_short_texts=in_short_texts) for part, of_part in longer.items()
        }
        """By part, those that begin or end with it; by `None`, those that are looked for first."""

    def found_in(self, text: str) -> Iterator[str]:
        left: list[str | None] = [None]
        while left:
            if (parts := self._longer.get(left.pop())) is not None:
                for part in parts.found_in(text):
                    yield part
                    left.append(part)


class _FewParts:
    """Parts of which none is another's beginning or end."""

    def __init__(self, parts: list[str], *, in_short_texts: bool) -> None:
        self._by_search: list[tuple[Callable[[bytes], list[int]], list[str]]] = []
        self._by_piece: dict[int, dict[str, list[str]]] = {}
        """By the length of a piece and the piece, parts that have it in them."""
        self._one_by_one: list[str] = []
        if len(parts) <= FEW:
            self._one_by_one = parts
            return
        if in_short_texts:
            self._by_piece, parts = _by_rarest_piece(parts)
        for search, numbers in _searches([_literal(part) for part in parts]):
            some = [parts[number] for number in numbers]
            if search is None:
                self._one_by_one += some
            else:
                self._by_search.append((search, some))

    def found_in(self, text: str) -> Iterator[str]:
        for part in self._one_by_one:
            if part in text:
                yield part
        for length, parts_of in self._by_piece.items():
            pieces = {text[start : start + length] for start in range(len(text) - length + 1)}
            for piece in parts_of.keys() & pieces:
                for part in parts_of[piece]:
                    if part in text:
                        yield part
        if self._by_search:
            encoded = _encoded(text)
            for search, parts in self._by_search:
                for number in search(encoded):
                    yield parts[number]


def _by_rarest_piece(parts: list[str]) -> tuple[dict[int, dict[str, list[str]]], list[str]]:
    """By the length of a piece and the piece, the parts that have it and hardly any other's; and the parts
    that are left over."""
    by_length: dict[int, list[str]] = {}
    for part in parts:
        by_length.setdefault(min(PIECE, 1 << (len(part).bit_length() - 1)), []).append(part)
    by_piece: dict[int, dict[str, list[str]]] = {}
    left_over: list[str] = []
    for length, some in by_length.items():
        pieces_of = {part: _pieces(part, length) for part in some}
        sharing = Counter(chain.from_iterable(pieces_of.values()))
        parts_of: dict[str, list[str]] = {}
        for part, pieces in pieces_of.items():
            parts_of.setdefault(min(pieces, key=sharing.__getitem__), []).append(part)
        left_over += chain(*(sharers for sharers in parts_of.values() if len(sharers) > MOST_SHARING))
        by_piece[length] = {
            piece: sharers for piece, sharers in parts_of.items() if len(sharers) <= MOST_SHARING
        }
    return by_piece, left_over


def _pieces(part: str, length: int) -> list[str]:
    """Pieces of this length, from all over the part."""
    last = len(part) - length
    return [part[start : start + length] for start in range(0, last + 1, last // PLACES + 1)]


def _ends_of(texts: Iterable[str]) -> dict[str, str]:
    """By a text, the longest other that it begins with."""
    beginnings: dict[str, str] = {}
    open_texts: list[str] = []
    for text in sorted(texts):
        while open_texts and not text.startswith(open_texts[-1]):
            open_texts.pop()
        if open_texts:
            beginnings[text] = open_texts[-1]
        open_texts.append(text)
    return beginnings


def _searches(regexes: list[bytes]) -> Iterator[tuple[Callable[[bytes], list[int]] | None, Sequence[int]]]:
    """Searches for all `regexes`, each with the numbers of those that it finds. `None` instead of a search:
    the engine has no room even for this one."""
    parts = [
        range(start, min(start + MOST_TOGETHER, len(regexes)))
        for start in range(0, len(regexes), MOST_TOGETHER)
    ][::-1]
    while parts:
        numbers = parts.pop()
        search = search_of([regexes[number] for number in numbers])
        if search is None and len(numbers) > 1:
            half = len(numbers) // 2
            parts += [numbers[half:], numbers[:half]]
        else:
            yield search, numbers


class _Ranges:
    """Rules that are looked up by ranges of one number. A set of rules is an integer with a bit for each."""

    def __init__(self, read: Read) -> None:
        self.read = read
        self.ranged = 0
        """The set of the rules that have a range."""
        self._by_min: dict[int | None, int] = {}
        self._by_max: dict[int | None, int] = {}
        self._lows, self._highs = list[int](), list[int]()
        self._begun, self._not_ended = list[int](), list[int]()

    def add(self, range: Range, rule: int) -> None:
        self.ranged |= 1 << rule
        self._by_min[range.min] = self._by_min.get(range.min, 0) | 1 << rule
        self._by_max[range.max] = self._by_max.get(range.max, 0) | 1 << rule

    def finish(self) -> None:
        self._lows, self._begun = _cumulated(self._by_min)
        # Seen from the other side, an upper end is a lower one.
        by_negated_max = {None if end is None else -end: rules for end, rules in self._by_max.items()}
        self._highs, self._not_ended = _cumulated(by_negated_max)

    def holding(self, number: int | None) -> int:
        """The set of the rules whose ranges the number is in."""
        if number is None:
            return 0
        begun = self._begun[bisect_right(self._lows, number)]
        return begun & self._not_ended[bisect_right(self._highs, -number)]


class _Narrowing:
    """Leaves out rules whose ranges don't hold. Nothing is counted for it: a range of tokens is looked at
    when some rule has had them counted."""

    def __init__(self, checks_of_rules: Sequence[tuple[Check, ...]]) -> None:
        self._ranges: dict[str, _Ranges] = {}
        """By the name of a fact, the rules that want it to be in a range, whatever else they want."""
        self._bytes = len(checks_of_rules) // 8 + 1
        for rule, checks in enumerate(checks_of_rules):
            for check in checks if len(checks) > 1 else ():
                if isinstance(check, Within) and (not check.cost or check.subject is INPUT_TOKENS):
                    ranges = self._ranges.setdefault(check.fact, _Ranges(check.subject.read))
                    ranges.add(Range(check.min, check.max), rule)
        for ranges in self._ranges.values():
            ranges.finish()

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def narrowed(self, numbers: Sequence[int], facts: Facts) -> Iterator[int]:
        """`numbers` without rules that can't take the request. Whoever takes the next has asked the rule
        before."""
        asked = 0
        counts = INPUT_TOKENS.name in self._ranges
        while counts and facts.counted is None and asked < len(numbers):
            yield numbers[asked]
            asked += 1
        if asked < len(numbers):
            possible = self._possible(facts).to_bytes(self._bytes, "little")
            yield from (number for number in numbers[asked:] if possible[number >> 3] >> (number & 7) & 1)

    def _possible(self, facts: Facts) -> int:
        """The set of the rules of which all ranges hold."""
        possible = (1 << 8 * self._bytes) - 1
        for ranges in self._ranges.values():
            possible &= ~ranges.ranged | ranges.holding(ranges.read(facts))
        return possible


def _cumulated(rules: Mapping[int | None, int]) -> tuple[list[int], list[int]]:
    """The ends of ranges in order, and the sets of rules that begin before the first, up to the first, and so
    on."""
    ends = sorted(end for end in rules if end is not None)
    return ends, [*accumulate((rules[end] for end in ends), or_, initial=rules.get(None, 0))]


def _numbers_of(rules: int) -> Iterator[int]:
    """The numbers of the rules in a set, in order."""
    while rules:
        lowest = rules & -rules
        yield lowest.bit_length() - 1
        rules ^= lowest


class _ExpensiveWords:
    """Rules that begin with a condition on the system text, on tools, or on images or documents. The first of
    them is always asked. From then on the fact is there to look the others up by."""

    def __init__(self, checks: Mapping[int, Plain]) -> None:
        self._first, *others = checks
        self._words = _Words(checks[self._first].subject)
        for rule in others:
            for _, word in _keys(checks[rule]):
                self._words.add(word, rule)  # type: ignore[arg-type]
        self.left_over = frozenset(self._words.finish())
        """The rules that can't be looked up."""

    def rules(self, facts: Facts) -> Iterator[int]:
        yield self._first
        yield from sorted(set(chain.from_iterable(self._words.rules(facts))))


class _ExpensiveTokens:
    """Rules that begin with a range of `input_tokens`, so many that asking each would take longer than
    counting. Nothing is counted that would not be by asking one rule after the other."""

    left_over: frozenset[int] = frozenset()

    def __init__(self, checks: Mapping[int, TokensWithin]) -> None:
        self._first, *others = checks
        self._ranges = _Ranges(checks[self._first].subject.read)
        self._small = 0
        """The set of the rules that take whatever is surely small."""
        by_limit: dict[int | None, int] = {}
        for rule in others:
            check = checks[rule]
            self._ranges.add(Range(check.min, check.max), rule)
            limit = settled_below(check.min, check.max)
            by_limit[limit] = by_limit.get(limit, 0) | 1 << rule
            self._small |= (check.min is None or check.min <= 1) << rule
        self._ranges.finish()
        self._limits, self._counting = _cumulated(by_limit)
        """By the limit up to which a request is not surely small, the set of the rules that have to count."""

    def rules(self, facts: Facts) -> Iterator[int]:
        yield self._first
        rest = -1
        if facts.counted is None:
            settled = bisect_left(self._limits, True, key=facts.fewer_tokens_than)
            counting = self._counting[settled]
            first_to_count = counting & -counting
            yield from _numbers_of(self._small & ~counting & (first_to_count - 1))
            if not first_to_count:
                return
            yield first_to_count.bit_length() - 1
            rest = -first_to_count << 1
        yield from _numbers_of(self._ranges.holding(facts.input_tokens) & rest)


# --- guards


def _guard(checks: tuple[Check, ...], sharing: Mapping[Key, int]) -> list[Key] | None:
    """The keys of which one is right wherever all of `checks` hold: those that the fewest rules share."""
    guards: list[list[Key]] = []
    for check in checks:
        if isinstance(check, AnyOf):
            branches = [_guard(choice, sharing) for choice in check.choices]
            if None not in branches:
                guards.append(list(chain(*filter(None, branches))))
        elif _is_plain(check):
            guards.append(_keys(check))
    return min(guards, key=lambda keys: sum(sharing[key] for key in keys), default=None)


def _plain_checks(checks: tuple[Check, ...]) -> Iterator[Plain]:
    """Those of `checks`, and in the branches of an `any`, that can be guards."""
    for check in checks:
        if isinstance(check, AnyOf):
            yield from chain(*map(_plain_checks, check.choices))
        elif _is_plain(check):
            yield check


def _is_plain(check: Check) -> TypeGuard[Plain]:
    return _has_keys(check) and not check.cost


def _has_keys(check: Check) -> TypeGuard[Plain]:
    """Whether there are keys of which one is right wherever it holds."""
    if isinstance(check, Begins | Contains | Matches) and any(len(value) > LONG for value in check.values):
        return False
    return isinstance(check, Plain)


def _keys(check: Plain) -> list[Key]:
    """The check holds only if one of the keys is right."""
    words: Iterable[Word]
    match check:
        case Flag():
            words = [check.value]
        case Present():
            words = [rb"\A" if check.value else None]
        case Within():
            words = [Range(check.min, check.max)]
        case HasTool():
            words = [as_regex(glob).encode() for glob in check.globs]
        case Equals():
            words = check.values
        case Begins():
            words = [rb"\A" + _literal(value) for value in check.values]
        case Contains():
            words = map(Part, check.values)
        case Matches() if check.syntax == "glob" and all(map(_is_part, check.values)):
            words = [Part(glob[1:-1]) for glob in check.values]
        case Matches() if check.syntax == "glob":
            words = [as_regex(glob).encode() for glob in check.values]
        case Matches():
            words = [regex.encode() for regex in check.values]
    return [(check.fact, word) for word in words]


def _is_part(glob: str) -> bool:
    """Whether it matches every text that has something in it."""
    return len(glob) > 2 and glob[0] == glob[-1] == "*" and not is_glob(glob[1:-1])


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _literal(text: str) -> bytes:
    return escape(text.encode("utf-8", "replace"))


def _merged(known: Sequence[int], numbers: Iterable[int]) -> Iterator[int]:
    """Both in order, each number once. `numbers` are taken one by one: whoever asks is mostly content with
    the first."""
    start = 0
    last = -1
    for number in numbers:
        if number == last:
            continue
        stop = bisect_left(known, number, start)
        yield from known[start:stop]
        yield number
        last = number
        start = bisect_right(known, number, stop)
    yield from known[start:]
