"""A `match` or `when` table becomes checks."""

from collections.abc import Iterator, Sequence
from operator import attrgetter
from re import findall, sub

from routeproxy.policy.compile.headers import check_header_names
from routeproxy.policy.conditions import (
    EFFORT,
    MODEL,
    SYSTEM,
    TEAM,
    USER,
    AnyOf,
    Begins,
    Check,
    Contains,
    Equals,
    ExpensiveFlag,
    Flag,
    HasTool,
    Matches,
    NoneOf,
    Present,
    Subject,
    TokensWithin,
    Within,
    cost,
    globbed,
    header,
    quoted,
)
from routeproxy.policy.facts import ascii_lower
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import HeaderTable, MatchTable, RangeTable, TextTable
from routeproxy.policy.file.values import listed
from routeproxy.policy.patterns import glob, hint_for, regex
from routeproxy.policy.problems import Code, KeyPath, closest
from routeproxy.policy.secrets import SECRET_HEADERS

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

_NUMBERS: dict[str, type[Within]] = {"input_tokens": TokensWithin, "max_tokens": Within}
_FLAGS: dict[str, tuple[type[Flag], str]] = {
    "stream": (Flag, "stream"),
    "thinking": (Flag, "thinking"),
    "url_target": (Flag, "has_url_target"),
    "images": (ExpensiveFlag, "images"),
    "documents": (ExpensiveFlag, "documents"),
}


def compile_match(table: MatchTable, path: KeyPath, report: Report) -> tuple[Check, ...]:
    """The checks of one table, cheapest first. They all have to hold."""
    return tuple(sorted(_checks(table, path, report), key=cost))


def _checks(table: MatchTable, path: KeyPath, report: Report) -> Iterator[Check]:
    if table.team is not None:
        yield Equals(TEAM, listed(table.team))
    if table.model is not None:
        yield from _text(MODEL, table.model, Contains, (*path, "model"), report, lower=True)
    yield from _headers(table, (*path, "headers"), report)
    for fact, number_check in _NUMBERS.items():
        if (range := getattr(table, fact)) is not None:
            _check_range(range, (*path, fact), report)
            yield number_check(fact, attrgetter(fact), range.min, range.max)
    for fact, (flag_check, attribute) in _FLAGS.items():
        if (wanted := getattr(table, fact)) is not None:
            yield flag_check(fact, attrgetter(attribute), wanted)
    if isinstance(table.tools, bool):
        yield Flag("tools", attrgetter("has_tools"), table.tools)
    elif table.tools is not None:
        globs = listed(table.tools)
        yield HasTool(globs, tuple(map(glob, globs)))
    if table.effort is not None:
        yield _effort(listed(table.effort), (*path, "effort"), report)
    if table.system is not None:
        yield from _text(SYSTEM, table.system, Contains, (*path, "system"), report, lower=True)
    if table.user is not None:
        yield from _text(USER, table.user, Equals, (*path, "user"), report)
    if table.any is not None:
        yield _nested(AnyOf, table.any, (*path, "any"), report)
    if isinstance(table.not_, MatchTable):
        yield _not_one(table.not_, (*path, "not"), report)
    elif table.not_ is not None:
        yield _nested(NoneOf, table.not_, (*path, "not"), report)


def _nested(
    kind: type[AnyOf] | type[NoneOf], tables: Sequence[MatchTable], path: KeyPath, report: Report
) -> AnyOf | NoneOf:
    choices = tuple(compile_match(table, (*path, index), report) for index, table in enumerate(tables))
    return kind(choices, max(cost(check) for checks in choices for check in checks) if any(choices) else 0)


def _not_one(table: MatchTable, path: KeyPath, report: Report) -> NoneOf:
    count = sum(getattr(table, name) is not None for name in table.__struct_fields__ if name != "headers")
    if count + len(table.headers or ()) > 1:
        report.error(
            Code.CONTRADICTION,
            path,
            "`not` holds exactly one condition",
            hint="`not = [{ … }, { … }]` means none of these; with one table, not all that it says at once",
            key=True,
        )
    checks = compile_match(table, path, report)
    return NoneOf((checks,), max(map(cost, checks), default=0))


def _headers(table: MatchTable, path: KeyPath, report: Report) -> Iterator[Check]:
    headers = table.headers or {}
    check_header_names(headers, path, report)
    for name, wanted in headers.items():
        here = (*path, name)
        if name.lower() in SECRET_HEADERS:
            message = f"`{name}` can't be matched: it carries a secret"
            report.error(
                Code.FORBIDDEN,
                here,
                message,
                hint="give the client a header of its own to be told by",
                key=True,
            )
        yield from _text(header(name.lower()), wanted, Equals, here, report)


def _check_range(range: RangeTable, path: KeyPath, report: Report) -> None:
    if range.min is not None and range.max is not None and range.min > range.max:
        message = f"nothing is at least {range.min:,} and at most {range.max:,}"
        report.error(Code.CONTRADICTION, path, message, key=True)


def _effort(values: tuple[str, ...], path: KeyPath, report: Report) -> Check:
    for value in values:
        if value not in EFFORTS:
            near = closest(value, EFFORTS)
            message = f"no client is known to ask for the effort `{value}`"
            report.warn(Code.NEVER_TRUE, path, message, hint=f"did you mean `{near}`?" if near else None)
    return Equals(EFFORT, values)


def _text(
    subject: Subject,
    wanted: str | list[str] | TextTable,
    plain: type[Equals] | type[Contains],
    path: KeyPath,
    report: Report,
    *,
    lower: bool = False,
) -> Iterator[Check]:
    fold = ascii_lower if lower else str
    if subject is MODEL:
        _check_model_names(wanted, path, report)
    if not isinstance(wanted, TextTable):
        yield plain(subject, tuple(map(fold, listed(wanted))))
        return
    for key, check in (("equals", Equals), ("prefix", Begins), ("contains", Contains)):
        if values := getattr(wanted, key):
            yield check(subject, tuple(map(fold, listed(values))))
    if wanted.glob:
        globs = tuple(map(fold, listed(wanted.glob)))
        yield globbed(subject, globs)
    if wanted.regex:
        yield _regexes(subject, wanted.regex, (*path, "regex"), report, lower)
    if isinstance(wanted, HeaderTable) and wanted.present is not None:
        others = [key for key in ("equals", "prefix", "contains", "glob", "regex") if getattr(wanted, key)]
        if others and not wanted.present:
            message = f"never true: a missing {subject.name} has nothing for `{others[0]}`"
            report.error(Code.CONTRADICTION, (*path, "present"), message, key=True)
        yield Present(subject, wanted.present)


def _check_model_names(wanted: str | list[str] | TextTable, path: KeyPath, report: Report) -> None:
    by_key = {"": wanted} if not isinstance(wanted, TextTable) else {}
    if isinstance(wanted, TextTable):
        by_key = {key: getattr(wanted, key) for key in ("equals", "prefix", "contains", "glob")}
    for key, values in by_key.items():
        for value in listed(values) if values is not None else ():
            if odd := findall(r"[^A-Za-z0-9_.:@/+\[\]*?-]", value):
                message = f"never true: no requested model has {quoted(odd[0])} in its name"
                report.warn(Code.NEVER_TRUE, (*path, key) if key else path, message)


def _regexes(subject: Subject, wanted: str | list[str], path: KeyPath, report: Report, lower: bool) -> Check:
    patterns = []
    for index, pattern in enumerate(listed(wanted)):
        here = path if isinstance(wanted, str) else (*path, index)
        try:
            patterns.append(regex(pattern))
        except ValueError as error:
            report.error(Code.BAD_PATTERN, here, f"not a regex: {error}", hint=hint_for(pattern))
            continue
        if lower and (capital := _capital(pattern)):
            message = f"`{capital}` never matches: {subject.name} is compared in lower case"
            report.warn(Code.NEVER_TRUE, here, message)
    return Matches(subject, listed(wanted), tuple(patterns), "regex")


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


def nested(match: MatchTable, path: KeyPath) -> Iterator[tuple[MatchTable, KeyPath]]:
    """`match` and every table in it, with its place."""
    yield match, path
    for index, inner in enumerate(match.any or ()):
        yield from nested(inner, (*path, "any", index))
    if isinstance(match.not_, MatchTable):
        yield from nested(match.not_, (*path, "not"))
    for index, inner in enumerate(match.not_ if isinstance(match.not_, list) else ()):
        yield from nested(inner, (*path, "not", index))
