"""What a rules file asserts of itself: `[[invariants]]` and `[[tests]]` become invariants and cases."""

from collections.abc import Collection, Iterator
from typing import Any

from msgspec.structs import asdict

from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import decode_envelope
from routeproxy.policy.compile.headers import check_header_names
from routeproxy.policy.compile.match import compile_match, nested_tables
from routeproxy.policy.compile.targets import NameTable
from routeproxy.policy.fact_table import FACTS, Fact, header_fact
from routeproxy.policy.facts import as_line, requested_model_problem
from routeproxy.policy.file.includes import Folder, relative_problem
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import (
    CaseTable,
    ExpectTable,
    InvariantTable,
    MatchTable,
    ReachTable,
    RequestTable,
)
from routeproxy.policy.file.values import listed
from routeproxy.policy.hypothetical import Case, Expected, HypotheticalRequest
from routeproxy.policy.invariants import Invariant, TargetCondition
from routeproxy.policy.patterns import covers
from routeproxy.policy.problems import Code, KeyPath


class AssertionsCompiler:
    """Compiles the assertions of one file."""

    def __init__(
        self,
        report: Report,
        label: str,
        names: NameTable,
        teams: Collection[str],
        rules: Collection[str],
        file: int = 0,
    ) -> None:
        """`label` is what the file is called in places, `file` its number; `teams` and `rules` are the names
        that there are."""
        self.report = report
        self.label = label
        self.names = names
        self.teams = teams
        self.rules = rules
        self.file = file

    # --- invariants

    def compile_invariants(self, tables: list[InvariantTable]) -> Iterator[Invariant]:
        names: dict[str, int] = {}
        for index, table in enumerate(tables):
            path: KeyPath = ("invariants", index)
            name = self._check_name(table.name, f"invariant {index + 1}", names, path)
            yield self._compile_invariant(table, name, path)

    def _compile_invariant(self, table: InvariantTable, name: str, path: KeyPath) -> Invariant:
        if table.never is None and table.only is None and not self.report.faulty(path):
            message = "an invariant says what a target must never be, or only"
            self.report.error(Code.MISSING, path, message, expected='`never.zone = "public"` or the like')
        if table.when is not None:
            for match, at in nested_tables(table.when, (*path, "when")):
                self._check_when(match, at)
        self._check_target_condition(table.never, (*path, "never"))
        self._check_target_condition(table.only, (*path, "only"))
        if table.only is not None and table.only.record is not None:
            message = "nothing has to be recorded: `record` can only be what must never be"
            self.report.error(Code.WRONG_VALUE, (*path, "only", "record"), message, key=True)
        return Invariant(
            name=name,
            where=f"{self.label}:{self.report.map.value(path).line}",
            path=path,
            when=compile_match(table.when, (*path, "when"), self.report) if table.when else (),
            never=compile_target_condition(table.never) if table.never else None,
            only=compile_target_condition(table.only) if table.only else None,
        )

    def _check_when(self, match: MatchTable, path: KeyPath) -> None:
        if match.team is not None:
            check_teams(match.team, self.teams, (*path, "team"), self.report)
        if match.percent is not None:
            message = "`percent` can't be part of an invariant: any request may be in a share, or not"
            self.report.error(Code.FORBIDDEN, (*path, "percent"), message, key=True)
        for fact in FACTS:
            if not fact.provable and getattr(match, fact.name, None) is not None:
                message = f"`{fact.name}` can't be part of an invariant: nothing could be proved of it"
                *others, last = (fact.name for fact in FACTS if fact.in_match and fact.provable)
                hint = f"say it by {', '.join(others)} or {last}"
                self.report.error(Code.FORBIDDEN, (*path, fact.name), message, hint=hint, key=True)

    def _check_target_condition(self, table: ReachTable | None, path: KeyPath) -> None:
        for key in ("provider", "target"):
            written = getattr(table, key, None)
            for index, value in enumerate(listed(written) if written is not None else ()):
                here = (*path, key) if isinstance(written, str) else (*path, key, index)
                self._check_provider_or_target(value, here)

    def _check_provider_or_target(self, value: str, path: KeyPath) -> None:
        known = self.names.written("providers")
        provider, slash, _ = value.partition("/")
        if path[-1] == "target" or path[-2] == "target":
            if not slash:
                message = f"`{value}` is not a target: an alias may change, so write `provider/model`"
                self.report.error(Code.WRONG_VALUE, path, message, expected="a glob such as `corp/*`")
                return
            if any(covers(provider, name) for name in known):
                return
        elif value in known:
            return
        self.report.unknown(Code.UNDEFINED, path, f"there is no provider `{provider}`", provider, known)

    # --- tests

    def compile_cases(
        self, tables: list[CaseTable], folder: Folder, team: str | None = None
    ) -> Iterator[Case]:
        """`team` is the team that the file belongs to."""
        names: dict[str, int] = {}
        for index, table in enumerate(tables):
            path: KeyPath = ("tests", index)
            name = self._check_name(table.name, f"test {index + 1}", names, path)
            expect = self._compile_expected(table.expect, (*path, "expect")) if table.expect else None
            question = self._compile_request(table.request, (*path, "request"), folder, team)
            if table.expect is None and table.never is None and not self.report.faulty(path):
                message = "a test says what it expects, or what must never be"
                self.report.error(Code.MISSING, path, message, expected="`expect = { … }` or `never = { … }`")
            self._check_target_condition(table.never, (*path, "never"))
            if question is not None:
                yield Case(
                    name=name,
                    where=f"{self.label}:{self.report.map.value(path).line}",
                    file=self.file,
                    path=path,
                    question=question,
                    expect=expect,
                    never=compile_target_condition(table.never) if table.never else None,
                )

    def _compile_request(
        self, table: RequestTable | None, path: KeyPath, folder: Folder, team: str | None
    ) -> HypotheticalRequest | None:
        if table is None or (table.model is None and table.body is None and table.url_target is None):
            if not self.report.faulty(path):
                message = "a test has a request, which asks for a model"
                self.report.error(Code.MISSING, path, message, expected='`request = { model = "…" }`')
            return None
        if table.team is not None:
            check_teams(table.team, self.teams, (*path, "team"), self.report)
            if team not in (None, table.team):
                message = f"the tests of an included file are its team's: `{team}`"
                self.report.error(Code.CONTRADICTION, (*path, "team"), message)
        if table.model is not None and (problem := requested_model_problem(table.model)):
            self.report.error(Code.WRONG_VALUE, (*path, "model"), problem)
        check_header_names(list(table.headers or {}), (*path, "headers"), self.report)
        for name in table.headers or {}:
            fact = header_fact(name.lower())
            if getattr(table, fact.name, None) is not None:
                message = f"`{name}` and `{fact.name}` are one header"
                self.report.error(Code.DUPLICATE, (*path, "headers", name), message, key=True)
        stated = {fact.name: _stated_value(fact, getattr(table, fact.name)) for fact in FACTS}
        body = self._read_body(table.body, (*path, "body"), folder) if table.body is not None else None
        for fact in FACTS if table.body is not None else ():
            if fact.state is not None and getattr(table, fact.name) is not None:
                message = f"`{fact.name}` is what the body says"
                self.report.error(Code.CONTRADICTION, (*path, fact.name), message, key=True)
        if stated["team"] is None:
            stated["team"] = team
        return HypotheticalRequest(body=body, **stated) if not self.report.faulty(path) else None

    def _read_body(self, name: str, path: KeyPath, folder: Folder) -> bytes | None:
        if problem := relative_problem(name):
            self.report.error(Code.FORBIDDEN, path, f"`body` {problem}")
            return None
        try:
            body = folder.read(name)
            decode_envelope(body)
        except OSError as error:
            self.report.error(Code.UNDEFINED, path, f"`{name}` can't be read: {error.strerror or error}")
            return None
        except InvalidRequest as refused:
            self.report.error(Code.WRONG_VALUE, path, f"`{name}` is not a request: {refused.message}")
            return None
        return body

    def _compile_expected(self, table: ExpectTable, path: KeyPath) -> Expected:
        known = (*self.rules, "default")
        if table.rule is not None and table.rule not in known and not _is_gate(table.rule, self.teams):
            message = f"there is no rule `{table.rule}`"
            self.report.unknown(Code.UNDEFINED, (*path, "rule"), message, table.rule, known)
        transforms = asdict(table.transforms) if table.transforms is not None else None
        return Expected(
            rule=table.rule,
            targets=listed(table.targets) if table.targets is not None else None,
            fallback=table.fallback,
            denied=table.denied,
            transforms=transforms and {key: value for key, value in transforms.items() if value is not None},
        )

    def _check_name(self, written: str | None, otherwise: str, names: dict[str, int], path: KeyPath) -> str:
        name = written or otherwise
        if (first := names.setdefault(name, int(path[-1]))) != path[-1]:
            line = self.report.map.value((path[0], first)).line
            message = f"two {path[0]} are called `{name}`"
            self.report.error(
                Code.DUPLICATE, (*path, "name"), message, hint=f"the other stands in line {line}"
            )
        return name


def check_teams(written: str | list[str], teams: Collection[str], path: KeyPath, report: Report) -> None:
    """Reports those of the `written` names that none of `teams` has."""
    for index, name in enumerate(listed(written)):
        if name not in teams:
            here = path if isinstance(written, str) else (*path, index)
            report.unknown(Code.UNDEFINED, here, f"there is no team `{name}`", name, teams)


def compile_target_condition(table: ReachTable) -> TargetCondition:
    return TargetCondition(
        **{key: listed(value) for key, value in asdict(table).items() if value is not None}
    )


def _is_gate(rule: str, teams: Collection[str]) -> bool:
    return any(rule == f"[teams.{team}] models" for team in teams)


def _stated_value(fact: Fact, written: Any) -> Any:
    """What a request states of a fact, by what stands in its table."""
    match fact.kind:
        case "tools" if isinstance(written, bool):
            return ("tool",) if written else ()
        case "tools" if written is not None:
            return listed(written)
        case "headers" if written is not None:
            return {name.lower(): (as_line(value.strip(" \t")),) for name, value in written.items()}
    return written
