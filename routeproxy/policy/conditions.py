"""The checks of conditions: small objects that say whether a request meets one, and afterwards why it didn't.

Nothing is put into words while deciding: a check that missed is kept, and asked for its words later. No
tables are known here.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from msgspec import Struct
from msgspec.structs import replace

from routeproxy.policy.fact_table import Fact
from routeproxy.policy.facts import Facts
from routeproxy.policy.patterns import Search, glob
from routeproxy.policy.problems import visible


class Check(Struct, frozen=True):
    """One condition. Those of lower cost are asked first."""

    def holds(self, facts: Facts) -> bool:
        raise NotImplementedError

    @property
    def cost(self) -> int:
        """0: free. 1: reads text or the conversation. 2: counts tokens."""
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

    subject: Fact

    @property
    def fact(self) -> str:
        """The name of the fact."""
        return self.subject.name

    @property
    def cost(self) -> int:
        return self.subject.cost

    def holds(self, facts: Facts) -> bool:
        return self.accepts(self.subject.read(facts))

    def accepts(self, value: Any) -> bool:
        """Whether it holds for this value of its fact; `None`: the request doesn't have it."""
        raise NotImplementedError

    def observed(self, facts: Facts) -> str:
        """What the request has: "model is `claude-opus-4-8`"."""
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


class TextCheck(Single, frozen=True):
    """A comparison of a text with values, of which one is enough."""

    values: tuple[str, ...]
    infinitive: ClassVar[str]
    verb: ClassVar[str]

    def observed(self, facts: Facts) -> str:
        text = self.subject.read(facts)
        if text is None:
            return f"{self.fact} is {self.subject.absent}"
        if not self.subject.shown:
            return f"{self.fact} is {len(text):,} characters of text"
        return f"{self.fact} is {quoted(text)}"

    @property
    def demand(self) -> str:
        return f"{self.infinitive} {_shortened(self.values)}"

    @property
    def words(self) -> str:
        return f"{self.fact} {self.verb} {_whole(self.values)}"


class Equals(TextCheck, frozen=True):
    infinitive, verb = "be", "is"

    def accepts(self, value: str | None) -> bool:
        return value in self.values


class Begins(TextCheck, frozen=True):
    infinitive, verb = "begin with", "begins with"

    def accepts(self, value: str | None) -> bool:
        return value is not None and value.startswith(self.values)


class Contains(TextCheck, frozen=True):
    infinitive, verb = "contain", "contains"

    def accepts(self, value: str | None) -> bool:
        if value is not None:
            for part in self.values:
                if part in value:
                    return True
        return False


class Matches(TextCheck, frozen=True):
    """Globs and regexes, both in linear time."""

    patterns: tuple[Search, ...]
    syntax: Literal["glob", "regex"]
    infinitive, verb = "match", "matches"

    @property
    def words(self) -> str:
        return f"{self.fact} matches the {self.syntax} {_whole(self.values)}"

    def accepts(self, value: str | None) -> bool:
        if value is None:
            return False
        # A lone surrogate can't come in by JSON or a header; if one does, it is a character like any other.
        text = value.encode("utf-8", "replace")
        return any(search(text) for search in self.patterns)


def matches_glob(subject: Fact, globs: tuple[str, ...]) -> Matches:
    return Matches(subject, globs, tuple(map(glob, globs)), "glob")


class Present(Single, frozen=True):
    value: bool

    def accepts(self, value: str | None) -> bool:
        return (value is not None) is self.value

    def observed(self, facts: Facts) -> str:
        return f"{self.fact} is {'missing' if self.subject.read(facts) is None else 'present'}"

    @property
    def demand(self) -> str:
        return "be present" if self.value else "be missing"

    @property
    def words(self) -> str:
        return f"{self.fact} is {'present' if self.value else 'missing'}"


# --- numbers, yes and no, tools


class Within(Single, frozen=True):
    """A range of a number. Both ends belong to it; an absent number is in no range."""

    min: int | None
    max: int | None

    def accepts(self, value: int | None) -> bool:
        return (
            value is not None
            and (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
        )

    def observed(self, facts: Facts) -> str:
        value = self.subject.read(facts)
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
    """A range of the input tokens, which are counted only if an upper bound of them does not settle it."""

    def holds(self, facts: Facts) -> bool:
        if facts.counted is None and facts.fewer_tokens_than(settled_below(self.min, self.max)):
            return self.min is None or self.min <= 1
        return super().holds(facts)


def settled_below(min: int | None, max: int | None) -> int:
    """A request of surely fewer tokens than this is in a range, or is not, without being counted."""
    if min is not None and min > 1:
        return min
    return max + 1 if max is not None else 0


class Flag(Single, frozen=True):
    value: bool

    def accepts(self, value: bool) -> bool:
        return value is self.value

    def observed(self, facts: Facts) -> str:
        return f"{self.fact} is {_true(self.subject.read(facts))}"

    @property
    def demand(self) -> str:
        return f"be {_true(self.value)}"

    @property
    def words(self) -> str:
        return f"{self.fact} is {_true(self.value)}"


class HasTool(Single, frozen=True):
    """At least one tool whose name or type one of the globs matches."""

    globs: tuple[str, ...]
    patterns: tuple[Search, ...]

    def accepts(self, value: tuple[str, ...]) -> bool:
        words = [word.encode("utf-8", "replace") for word in value]
        return any(matches(word) for matches in self.patterns for word in words)

    def observed(self, facts: Facts) -> str:
        names = ", ".join(map(quoted, facts.tool_names[:5]))
        return f"the request has the tools {names}" if names else "the request has no tools"

    @property
    def demand(self) -> str:
        return f"have one like {_shortened(self.globs)}"

    @property
    def words(self) -> str:
        return f"a tool matches the glob {_whole(self.globs)}"


def has_tool(subject: Fact, globs: tuple[str, ...]) -> HasTool:
    return HasTool(subject, globs, tuple(map(glob, globs)))


# --- a share of all


class Share(Check, frozen=True):
    """A part of all sessions. Any request may be in it or not: nothing is proved of it."""

    percent: float
    rule: str = ""
    """Whose share it is: those of other rules are others."""

    def holds(self, facts: Facts) -> bool:
        share = facts.share(self.rule)
        return share is not None and share < self.percent

    @property
    def cost(self) -> int:
        return 0

    def _observed(self, facts: Facts) -> str:
        share = facts.share(self.rule)
        return "no session is stated" if share is None else f"its session stands at {share:.1f} %"

    def miss(self, facts: Facts) -> str:
        return f"{self._observed(facts)}, needs to be below {self.percent:g} %"

    def hit(self, facts: Facts) -> str:
        return f"{self._observed(facts)}, must not be below {self.percent:g} %"

    @property
    def words(self) -> str:
        return f"{self.percent:g} % of sessions"


def of_rule(checks: tuple[Check, ...], rule: str) -> tuple[Check, ...]:
    """`checks`, in which each share is that of `rule`."""
    return tuple(_of_rule(check, rule) for check in checks)


def _of_rule(check: Check, rule: str) -> Check:
    match check:
        case Share():
            return replace(check, rule=rule)
        case AnyOf():
            return replace(check, choices=tuple(of_rule(checks, rule) for checks in check.choices))
        case NoneOf():
            return replace(check, tables=tuple(of_rule(checks, rule) for checks in check.tables))
    return check


# --- any and not


class AnyOf(Check, frozen=True):
    """At least one of several tables holds, all checks of it."""

    choices: tuple[tuple[Check, ...], ...]

    def holds(self, facts: Facts) -> bool:
        return any(first_miss(checks, facts) is None for checks in self.choices)

    @property
    def cost(self) -> int:
        return _highest_cost(self.choices)

    def miss(self, facts: Facts) -> str:
        return f"none of `any` holds: {_misses(self.choices, facts)}"

    def hit(self, facts: Facts) -> str:
        return _hits(self.choices, facts)

    @property
    def words(self) -> str:
        return f"any of ({_tables_in_words(self.choices)})"


class NoneOf(Check, frozen=True):
    """None of several tables holds."""

    tables: tuple[tuple[Check, ...], ...]

    def holds(self, facts: Facts) -> bool:
        return all(first_miss(checks, facts) is not None for checks in self.tables)

    @property
    def cost(self) -> int:
        return _highest_cost(self.tables)

    def miss(self, facts: Facts) -> str:
        return _hits(self.tables, facts)

    def hit(self, facts: Facts) -> str:
        return _misses(self.tables, facts)

    @property
    def words(self) -> str:
        return f"none of ({_tables_in_words(self.tables)})"


def first_miss(checks: tuple[Check, ...], facts: Facts) -> Check | None:
    """The first of `checks` that does not hold."""
    for check in checks:
        if not check.holds(facts):
            return check
    return None


def _highest_cost(tables: Sequence[tuple[Check, ...]]) -> int:
    return max((check.cost for checks in tables for check in checks), default=0)


# --- in words


def in_words(checks: Sequence[Check]) -> str:
    """The requests that meet all of them: "requests where model contains `haiku`"."""
    return f"requests where {_together(checks)}" if checks else "every request"


def _together(checks: Sequence[Check]) -> str:
    return " and ".join(check.words for check in checks)


def _tables_in_words(tables: Sequence[tuple[Check, ...]]) -> str:
    return "; ".join(map(_together, tables))


def _misses(tables: tuple[tuple[Check, ...], ...], facts: Facts) -> str:
    """Why none of `tables` holds."""
    missed = [first_miss(checks, facts) for checks in tables]
    return "; ".join(check.miss(facts) for check in missed if check is not None)


def _hits(tables: tuple[tuple[Check, ...], ...], facts: Facts) -> str:
    """All of the first of `tables` that holds."""
    holding = next((checks for checks in tables if first_miss(checks, facts) is None), ())
    return " and ".join(check.hit(facts) for check in holding)


def quoted(text: str) -> str:
    """In backquotes, shortened to 80 characters."""
    text = visible(text)
    return f"`{text}`" if len(text) <= 80 else f"`{text[:80]}…`"


def _shortened(values: tuple[str, ...]) -> str:
    return " or ".join(map(quoted, values))


def _whole(values: tuple[str, ...]) -> str:
    return " or ".join(f"`{visible(value)}`" for value in values)


def _true(value: bool) -> str:
    return "true" if value else "false"
