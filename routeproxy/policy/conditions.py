"""One `match` table becomes a few checks: small objects that say yes or no, and afterwards why it was no.

Nothing is put into words while deciding: a check that missed is kept, and asked for its words later.
"""

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import ClassVar, Literal

from msgspec import Struct

from routeproxy.policy.facts import Facts
from routeproxy.policy.patterns import Search, glob


class Check(Struct, frozen=True):
    """One condition. Those of lower cost are asked first."""

    cost: ClassVar[int] = 0
    """0: free. 1: reads text or the conversation. 2: counts tokens."""

    def __call__(self, facts: Facts) -> bool:
        raise NotImplementedError

    def miss(self, facts: Facts) -> str:
        """Why it does not hold: "input_tokens is 58,211, needs at least 60,000"."""
        raise NotImplementedError

    def hit(self, facts: Facts) -> str:
        """Why a `not` around it does not hold."""
        raise NotImplementedError

    @property
    def words(self) -> str:
        """What it asks of a request, in full: "model contains `haiku`"."""
        raise NotImplementedError


class Single(Check, frozen=True):
    """A check of one fact."""

    @property
    def fact(self) -> str:
        raise NotImplementedError

    def observed(self, facts: Facts) -> str:
        """What was found: "model is `claude-opus-4-8`"."""
        raise NotImplementedError

    @property
    def demand(self) -> str:
        """What is asked for, to stand behind "needs to" and "must not": "contain `haiku`"."""
        raise NotImplementedError

    def miss(self, facts: Facts) -> str:
        return f"{self.observed(facts)}, needs to {self.demand}"

    def hit(self, facts: Facts) -> str:
        return f"{self.observed(facts)}, must not {self.demand}"


# --- text


class Subject(Struct, frozen=True):
    """A text that rules look at: `None` when the request doesn't have it."""

    name: str
    read: Callable[[Facts], str | None]
    cost: int = 0
    shown: bool = True
    """Long texts are not repeated in explanations."""
    absent: str = "missing"


MODEL = Subject("model", attrgetter("model"))
TEAM = Subject("team", attrgetter("team"), absent="nobody's")
SYSTEM = Subject("system", attrgetter("system"), cost=1, shown=False)
USER = Subject("user", attrgetter("user"))
EFFORT = Subject("effort", attrgetter("effort"))


def header(name: str) -> Subject:
    return Subject(f"header {name}", partial(_header, name))


def _header(name: str, facts: Facts) -> str | None:
    return facts.header(name)


class TextCheck(Single, frozen=True):
    subject: Subject
    values: tuple[str, ...]
    verb: ClassVar[str]
    says: ClassVar[str]
    """The verb as it is said of a request."""

    @property
    def fact(self) -> str:
        return self.subject.name

    def observed(self, facts: Facts) -> str:
        value = self.subject.read(facts)
        if value is None:
            return f"{self.subject.name} is {self.subject.absent}"
        if not self.subject.shown:
            return f"{self.subject.name} is {len(value):,} characters of text"
        return f"{self.subject.name} is {quoted(value)}"

    @property
    def demand(self) -> str:
        return f"{self.verb} {_any_of(self.values)}"

    @property
    def words(self) -> str:
        return f"{self.fact} {self.says} {_whole(self.values)}"


class Equals(TextCheck, frozen=True):
    verb, says = "be", "is"

    def __call__(self, facts: Facts) -> bool:
        return self.subject.read(facts) in self.values


class Begins(TextCheck, frozen=True):
    verb, says = "begin with", "begins with"

    def __call__(self, facts: Facts) -> bool:
        value = self.subject.read(facts)
        return value is not None and value.startswith(self.values)


class Contains(TextCheck, frozen=True):
    verb, says = "contain", "contains"

    def __call__(self, facts: Facts) -> bool:
        value = self.subject.read(facts)
        if value is not None:
            for part in self.values:
                if part in value:
                    return True
        return False


class Matches(TextCheck, frozen=True):
    """Globs and regexes, both in linear time."""

    patterns: tuple[Search, ...]
    syntax: Literal["glob", "regex"]
    verb, says = "match", "matches"

    @property
    def words(self) -> str:
        return f"{self.fact} matches the {self.syntax} {_whole(self.values)}"

    def __call__(self, facts: Facts) -> bool:
        value = self.subject.read(facts)
        if value is None:
            return False
        # A lone surrogate can't come in by JSON or a header; if one does, it is a character like any other.
        text = value.encode("utf-8", "replace")
        return any(search(text) for search in self.patterns)


class Present(Single, frozen=True):
    subject: Subject
    wanted: bool

    @property
    def fact(self) -> str:
        return self.subject.name

    def __call__(self, facts: Facts) -> bool:
        return (self.subject.read(facts) is not None) is self.wanted

    def observed(self, facts: Facts) -> str:
        return f"{self.subject.name} is {'missing' if self.subject.read(facts) is None else 'present'}"

    @property
    def demand(self) -> str:
        return "be present" if self.wanted else "be missing"

    @property
    def words(self) -> str:
        return f"{self.fact} is {'present' if self.wanted else 'missing'}"


# --- numbers, yes and no, tools


class Within(Single, frozen=True):
    """Both ends belong to it. An absent number is in no range."""

    fact: str
    read: Callable[[Facts], int | None]
    min: int | None
    max: int | None

    def __call__(self, facts: Facts) -> bool:
        value = self.read(facts)
        return (
            value is not None
            and (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
        )

    def observed(self, facts: Facts) -> str:
        value = self.read(facts)
        return f"{self.fact} is {'not given' if value is None else f'{value:,}'}"

    @property
    def demand(self) -> str:
        return f"be {self._bounds}"

    @property
    def words(self) -> str:
        return f"{self.fact} is {self._bounds}"

    def miss(self, facts: Facts) -> str:
        return f"{self.observed(facts)}, needs {self._bounds}"

    @property
    def _bounds(self) -> str:
        bounds = [f"at least {self.min:,}"] if self.min is not None else []
        bounds += [f"at most {self.max:,}"] if self.max is not None else []
        return " and ".join(bounds)


class TokensWithin(Within, frozen=True):
    cost = 2

    def __call__(self, facts: Facts) -> bool:
        if facts.counted is None and facts.fewer_tokens_than(told_below(self.min, self.max)):
            return self.min is None or self.min <= 1
        return super().__call__(facts)


def told_below(min: int | None, max: int | None) -> int:
    """A request of surely fewer tokens than this is in a range, or is not, without being counted."""
    if min is not None and min > 1:
        return min
    return max + 1 if max is not None else 0


class Flag(Single, frozen=True):
    fact: str
    read: Callable[[Facts], bool]
    wanted: bool

    def __call__(self, facts: Facts) -> bool:
        return self.read(facts) is self.wanted

    def observed(self, facts: Facts) -> str:
        return f"{self.fact} is {_true(self.read(facts))}"

    @property
    def demand(self) -> str:
        return f"be {_true(self.wanted)}"

    @property
    def words(self) -> str:
        return f"{self.fact} is {_true(self.wanted)}"


class ExpensiveFlag(Flag, frozen=True):
    cost = 1


class HasTool(Single, frozen=True):
    """At least one tool whose name or type one of the globs matches."""

    globs: tuple[str, ...]
    patterns: tuple[Search, ...]
    cost = 1

    @property
    def fact(self) -> str:
        return "tools"

    def __call__(self, facts: Facts) -> bool:
        words = [word.encode("utf-8", "replace") for word in facts.tools]
        return any(match(word) for match in self.patterns for word in words)

    def observed(self, facts: Facts) -> str:
        names = ", ".join(quoted(tool.name or tool.type or "") for tool in (facts.envelope.tools or ())[:5])
        return f"the request has the tools {names}" if names else "the request has no tools"

    @property
    def demand(self) -> str:
        return f"have one like {_any_of(self.globs)}"

    @property
    def words(self) -> str:
        return f"a tool matches the glob {_whole(self.globs)}"


# --- any and not


class AnyOf(Check, frozen=True):
    choices: tuple[tuple[Check, ...], ...]
    highest_cost: int

    def __call__(self, facts: Facts) -> bool:
        return any(first_miss(checks, facts) is None for checks in self.choices)

    def miss(self, facts: Facts) -> str:
        return f"none of `any` holds: {_misses(self.choices, facts)}"

    def hit(self, facts: Facts) -> str:
        return _hits(self.choices, facts)

    @property
    def words(self) -> str:
        return f"any of ({_tables(self.choices)})"


class NoneOf(Check, frozen=True):
    tables: tuple[tuple[Check, ...], ...]
    highest_cost: int

    def __call__(self, facts: Facts) -> bool:
        return all(first_miss(checks, facts) is not None for checks in self.tables)

    def miss(self, facts: Facts) -> str:
        return _hits(self.tables, facts)

    def hit(self, facts: Facts) -> str:
        return _misses(self.tables, facts)

    @property
    def words(self) -> str:
        return f"none of ({_tables(self.tables)})"


def in_words(checks: Sequence[Check]) -> str:
    """The requests that meet all of them: "requests where model contains `haiku`"."""
    return f"requests where {_together(checks)}" if checks else "every request"


def _together(checks: Sequence[Check]) -> str:
    return " and ".join(check.words for check in checks)


def _tables(tables: Sequence[tuple[Check, ...]]) -> str:
    return "; ".join(map(_together, tables))


def _misses(tables: tuple[tuple[Check, ...], ...], facts: Facts) -> str:
    """Why none of `tables` holds."""
    missed = [first_miss(checks, facts) for checks in tables]
    return "; ".join(check.miss(facts) for check in missed if check is not None)


def _hits(tables: tuple[tuple[Check, ...], ...], facts: Facts) -> str:
    """All of the first of `tables` that holds."""
    holding = next((checks for checks in tables if first_miss(checks, facts) is None), ())
    return " and ".join(check.hit(facts) for check in holding)


def first_miss(checks: tuple[Check, ...], facts: Facts) -> Check | None:
    for check in checks:
        if not check(facts):
            return check
    return None


def cost(check: Check) -> int:
    match check:
        case TextCheck() | Present():
            return check.subject.cost
        case AnyOf() | NoneOf():
            return check.highest_cost
    return check.cost


def globbed(subject: Subject, globs: tuple[str, ...]) -> Matches:
    return Matches(subject, globs, tuple(map(glob, globs)), "glob")


def quoted(value: str) -> str:
    shown = visible(value)
    return f"`{shown}`" if len(shown) <= 80 else f"`{shown[:80]}…`"


def _whole(values: tuple[str, ...]) -> str:
    return " or ".join(f"`{visible(value)}`" for value in values)


def visible(text: str) -> str:
    """With escapes for what can't be seen: two values that look alike must not."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _any_of(values: tuple[str, ...]) -> str:
    return " or ".join(map(quoted, values))


def _true(value: bool) -> str:
    return "true" if value else "false"
