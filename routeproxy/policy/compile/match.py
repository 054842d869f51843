"""A table of conditions (`match`, `when`) becomes checks, each kind of facts in its own way."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from re import compile, sub
from typing import Any

from routeproxy.policy.compile.headers import check_header_names
from routeproxy.policy.conditions import (
    AnyOf,
    Begins,
    Check,
    Contains,
    Equals,
    Flag,
    Matches,
    NoneOf,
    Present,
    Share,
    TokensWithin,
    Within,
    has_tool,
    matches_glob,
    quoted,
)
from routeproxy.policy.fact_table import BY_NAME, HAS_TOOLS, INPUT_TOKENS, MODEL, Fact, Kind, header_fact
from routeproxy.policy.facts import ascii_lower
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import HeaderTable, MatchTable, RangeTable, TextTable
from routeproxy.policy.file.values import listed
from routeproxy.policy.patterns import hint_for, regex
from routeproxy.policy.problems import Code, KeyPath, closest
from routeproxy.policy.secrets import SECRET_HEADERS

Written = Any
"""What a key of the table holds: its type is that of `MatchTable`."""

_FACTS = tuple(BY_NAME[key] for key in MatchTable.__struct_fields__ if key in BY_NAME)
"""In the order of the table: so are conditions asked that cost the same."""


def compile_match(table: MatchTable, path: KeyPath, report: Report) -> tuple[Check, ...]:
    """The checks of one table, cheapest first. They all have to hold."""
    return tuple(sorted(_compile_checks(table, path, report), key=_cost))


_cost = attrgetter("cost")


def nested_tables(match: MatchTable, path: KeyPath) -> Iterator[tuple[MatchTable, KeyPath]]:
    """`match` and every table in it, with its place."""
    yield match, path
    for index, inner in enumerate(match.any or ()):
        yield from nested_tables(inner, (*path, "any", index))
    if isinstance(match.not_, MatchTable):
        yield from nested_tables(match.not_, (*path, "not"))
    for index, inner in enumerate(match.not_ if isinstance(match.not_, list) else ()):
        yield from nested_tables(inner, (*path, "not", index))


def _compile_checks(table: MatchTable, path: KeyPath, report: Report) -> Iterator[Check]:
    for fact in _FACTS:
        if (written := getattr(table, fact.name)) is not None:
            yield from _COMPILERS[fact.kind](fact, written, (*path, fact.name), report)
    if table.percent is not None:
        if not 0 < table.percent <= 100:
            message = f"`percent` is {table.percent}: a share is above 0 and at most 100"
            report.error(Code.WRONG_VALUE, (*path, "percent"), message)
        yield Share(float(table.percent))
    if table.any is not None:
        yield AnyOf(_compile_tables(table.any, (*path, "any"), report))
    if isinstance(table.not_, MatchTable):
        yield _compile_not(table.not_, (*path, "not"), report)
    elif table.not_ is not None:
        yield NoneOf(_compile_tables(table.not_, (*path, "not"), report))


def _compile_tables(
    tables: Sequence[MatchTable], path: KeyPath, report: Report
) -> tuple[tuple[Check, ...], ...]:
    return tuple(compile_match(table, (*path, index), report) for index, table in enumerate(tables))


def _compile_not(table: MatchTable, path: KeyPath, report: Report) -> NoneOf:
    count = sum(getattr(table, key) is not None for key in table.__struct_fields__ if key != "headers")
    if count + len(table.headers or ()) > 1:
        report.error(
            Code.CONTRADICTION,
            path,
            "`not` holds exactly one condition",
            hint="`not = [{ … }, { … }]` means none of these; with one table, not all that it says at once",
            key=True,
        )
    return NoneOf((compile_match(table, path, report),))


# --- one fact


def _compile_word(fact: Fact, written: Written, path: KeyPath, report: Report) -> Iterator[Check]:
    words = listed(written)
    for word in words:
        if fact.known and word not in fact.known:
            near = closest(word, fact.known)
            message = f"no client is known to ask for the {fact.name} `{word}`"
            report.warn(Code.NEVER_TRUE, path, message, hint=f"did you mean `{near}`?" if near else None)
    yield Equals(fact, words)


def _compile_number(fact: Fact, written: RangeTable, path: KeyPath, report: Report) -> Iterator[Check]:
    least, most = written.min, written.max
    if least is not None and most is not None and least > most:
        message = f"nothing is at least {least:,} and at most {most:,}"
        report.error(Code.CONTRADICTION, path, message, key=True)
    within = TokensWithin if fact is INPUT_TOKENS else Within
    yield within(fact, least, most)


def _compile_flag(fact: Fact, written: bool, path: KeyPath, report: Report) -> Iterator[Check]:
    yield Flag(fact, written)


def _compile_tools(fact: Fact, written: Written, path: KeyPath, report: Report) -> Iterator[Check]:
    yield Flag(HAS_TOOLS, written) if isinstance(written, bool) else has_tool(fact, listed(written))


def _compile_headers(
    fact: Fact, written: Mapping[str, Written], path: KeyPath, report: Report
) -> Iterator[Check]:
    check_header_names(written, path, report)
    for name, comparison in written.items():
        here = (*path, name)
        if name.lower() in SECRET_HEADERS:
            message = f"`{name}` can't be matched: it carries a secret"
            hint = "give the client a header of its own to be told by"
            report.error(Code.FORBIDDEN, here, message, hint=hint, key=True)
        yield from _compile_text(header_fact(name.lower()), comparison, here, report)


def _compile_text(fact: Fact, written: Written, path: KeyPath, report: Report) -> Iterator[Check]:
    if fact is MODEL:
        _check_model_names(written, path, report)
    if not isinstance(written, TextTable):
        plain = Contains if fact.plain == "contains" else Equals
        yield plain(fact, _values(fact, written))
        return
    for key, check in (("equals", Equals), ("prefix", Begins), ("contains", Contains)):
        if values := getattr(written, key):
            yield check(fact, _values(fact, values))
    if written.glob:
        yield matches_glob(fact, _values(fact, written.glob))
    if written.regex:
        yield _compile_regexes(fact, written.regex, (*path, "regex"), report)
    if isinstance(written, HeaderTable) and written.present is not None:
        comparisons = [key for key in TextTable.__struct_fields__ if getattr(written, key)]
        if comparisons and not written.present:
            message = f"never true: a missing {fact.name} has nothing for `{comparisons[0]}`"
            report.error(Code.CONTRADICTION, (*path, "present"), message, key=True)
        yield Present(fact, written.present)


_COMPILERS: Mapping[Kind, Callable[[Fact, Any, KeyPath, Report], Iterator[Check]]] = {
    "word": _compile_word,
    "text": _compile_text,
    "number": _compile_number,
    "flag": _compile_flag,
    "presence": _compile_flag,
    "tools": _compile_tools,
    "headers": _compile_headers,
}


# --- texts


def _values(fact: Fact, written: str | list[str]) -> tuple[str, ...]:
    return tuple(map(ascii_lower if fact.folded else str, listed(written)))


_IN_NO_MODELS_NAME = compile(r"[^A-Za-z0-9_.:@/+\[\]*?-]")


def _check_model_names(written: Written, path: KeyPath, report: Report) -> None:
    by_path: dict[KeyPath, Any] = {path: written}
    if isinstance(written, TextTable):
        by_path = {(*path, key): getattr(written, key) for key in ("equals", "prefix", "contains", "glob")}
    for at, values in by_path.items():
        for value in listed(values) if values is not None else ():
            if odd := _IN_NO_MODELS_NAME.search(value):
                message = f"never true: no requested model has {quoted(odd[0])} in its name"
                report.warn(Code.NEVER_TRUE, at, message)


def _compile_regexes(fact: Fact, written: str | list[str], path: KeyPath, report: Report) -> Matches:
    patterns = []
    for index, pattern in enumerate(listed(written)):
        here = path if isinstance(written, str) else (*path, index)
        try:
            patterns.append(regex(pattern))
        except ValueError as error:
            report.error(Code.BAD_PATTERN, here, f"not a regex: {error}", hint=hint_for(pattern))
            continue
        if fact.folded and (capital := _capital(pattern)):
            message = f"`{capital}` never matches: {fact.name} is compared in lower case"
            report.warn(Code.NEVER_TRUE, here, message)
    return Matches(fact, listed(written), tuple(patterns), "regex")


def _capital(pattern: str) -> str | None:
    """A capital letter that the pattern asks for literally, if nothing makes it fold case."""
    if "(?i" in pattern:
        return None
    plain = sub(
        r"\\[pP]\{[^}]*\}|\\[QE]|\\x\{[^}]*\}|\\x..|\\.|\(\?P?<[^>]*>|\[\[:\w+:\]\]|\(\?[a-zA-Z]+",
        "",
        pattern,
    )
    return next((char for char in plain if char.isascii() and char.isupper()), None)
