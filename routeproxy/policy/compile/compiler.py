"""Rules text to `Policy`, or every reason why not.

All that can be wrong with a rules file is found here, before anything of it takes effect: what it says, what
it includes, what its invariants forbid, what its tests expect.
"""

import datetime
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict, replace

from routeproxy.gc_pause import paused
from routeproxy.policy.compile.actions import Actions, NameTable
from routeproxy.policy.compile.assertions import AssertionsCompiler, nested
from routeproxy.policy.compile.headers import check_header_names
from routeproxy.policy.compile.match import compile_match
from routeproxy.policy.compile.providers import compile_provider
from routeproxy.policy.compile.secrets import SecretsCompiler
from routeproxy.policy.compile.shadowing import AcceptingRules, disjoint
from routeproxy.policy.compile.teams import Teams
from routeproxy.policy.conditions import TEAM, Check, Equals
from routeproxy.policy.decide import Policy, Rule, Team
from routeproxy.policy.facts import requested_model_problem
from routeproxy.policy.file.includes import Disk, Folder, Layer, read_layers
from routeproxy.policy.file.reader import read
from routeproxy.policy.file.report import Report, unnamed_rule
from routeproxy.policy.file.tables import (
    ActionTable,
    MatchTable,
    ProviderTable,
    RulesFile,
    RuleTable,
    ServerTable,
    Targets,
    TeamTable,
    TextTable,
)
from routeproxy.policy.file.values import listed, seconds
from routeproxy.policy.invariants import Invariant
from routeproxy.policy.problems import Code, KeyPath, Problem, RulesRefused
from routeproxy.policy.providers import Provider
from routeproxy.policy.questions import Case
from routeproxy.policy.secrets import ClientKey, Secret
from routeproxy.policy.server import ServerSettings
from routeproxy.policy.verify.proof import prove
from routeproxy.policy.verify.run_case import run_case


def compile_rules(
    text: str,
    *,
    path: Path,
    environ: Mapping[str, str],
    allow_literal_keys: bool = False,
    folder: Folder | None = None,
    count: Callable[[bytes], int] = lambda body: len(body) // 4,
    skip_tests: bool = False,
) -> Policy:
    """The policy that `text` describes, proved and tested. Raises `RulesRefused` with all its problems;
    warnings stay with it.

    `environ` answers `env:NAME`. Of `folder`, that of the file, only what the text includes is read; a
    `file:` key is opened when it is used. `count` gives the tokens of a test's body.
    """
    compilation = Compilation(text, path, environ, allow_literal_keys, folder)
    with paused():
        return compilation.policy(count, test=not skip_tests)


class Compilation:
    """One rules file on its way, with a report for it and each file that it includes."""

    def __init__(
        self,
        text: str,
        path: Path,
        environ: Mapping[str, str],
        allow_literal_keys: bool = False,
        folder: Folder | None = None,
    ) -> None:
        self.path = path
        self.environ = environ
        self.folder = folder or Disk(path.parent)
        self.report = Report(text.removeprefix("\ufeff"), str(path))
        self.secrets = SecretsCompiler(self.report, environ, allow_literal_keys)
        self.layers: list[Layer] = []
        self.matches: dict[tuple[int, KeyPath], tuple[str | None, MatchTable | None]] = {}
        """By the place of a rule, the team that its file belongs to, and what it takes."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(problem for report in self.reports for problem in report.problems)

    @property
    def reports(self) -> list[Report]:
        """By the number of the file."""
        return [self.report, *(layer.report for layer in self.layers)]

    def policy(
        self,
        count: Callable[[bytes], int],
        *,
        prove: bool = True,
        test: bool = True,
        also: "Lint | None" = None,
    ) -> Policy:
        """Raises `RulesRefused`. `also` finds more to warn of."""
        policy = self._compiled()
        if policy is not None:
            if prove:
                self._prove(policy)
            if test:
                self._test(policy, count)
            if also is not None:
                also(self, policy)
        if policy is None or any(report.failed for report in self.reports):
            raise RulesRefused(self.problems)
        policy = replace(policy, warnings=self.problems)
        policy.prepare()
        return policy

    def _compiled(self) -> Policy | None:
        report = self.report
        file = self.file = read(report.parse(), report, RulesFile)
        book = self.book = NameTable(report.document, file.providers)
        self.actions = Actions(report, self.path.name, book)
        teams = Teams(report, self.actions, self.secrets)
        server = self._server(file.server, teams)
        for name, provider_table in file.providers.items():
            self._provider(name, provider_table)
        for name, written in file.aliases.items():
            self._alias(name, written)
        compiled_teams = {name: teams.team(name, table) for name, table in file.teams.items()}
        rules = self._rules(file.rules)
        default = self._default(file.default)
        named = [rule.name for rule in rules]
        promises = AssertionsCompiler(report, self.path.name, book, file.teams, named)
        implied = [teams.invariant(name, table) for name, table in file.teams.items()]
        invariants = (
            *(invariant for invariant in implied if invariant),
            *promises.invariants(file.invariants),
        )
        tests = (*promises.cases(file.tests, self.folder), *self._tests_of_layers(named))
        if any(one.failed for one in self.reports):
            return None
        return Policy(
            version=self._version(server, compiled_teams, rules, default, invariants),
            source=str(self.path),
            server=server,
            providers=book.providers,
            teams=compiled_teams,
            rules=rules,
            default=default,
            invariants=invariants,
            tests=tests,
            counts_tokens=any(match.input_tokens is not None for match in self._matches()),
            reads_headers=frozenset(
                name.lower() for match in self._matches() for name in match.headers or ()
            ),
            reads_user=any(match.user is not None for match in self._matches()),
        )

    def _tables(self) -> Iterator[RuleTable]:
        yield from self.file.rules
        for layer in self.layers:
            yield from layer.file.rules

    def _matches(self) -> Iterator[MatchTable]:
        tops = [table.match for table in self._tables()] + [one.when for one in self.file.invariants]
        for top in tops:
            for match, _ in nested(top, ()) if top else ():
                yield match

    # --- server, providers, aliases

    def _server(self, table: ServerTable, teams: Teams) -> ServerSettings:
        for index, model in enumerate(table.models or ()):
            if problem := requested_model_problem(model):
                self.report.error(Code.WRONG_VALUE, ("server", "models", index), problem)
        for index, origin in enumerate(table.cors_origins or ()):
            scheme, _, host = origin.partition("://")
            if origin != "*" and (scheme not in {"http", "https"} or not host or "/" in host):
                path = ("server", "cors_origins", index)
                self.report.error(
                    Code.WRONG_VALUE,
                    path,
                    f"`{origin}` is not an origin",
                    expected='`"https://host"` or `"*"`',
                )
        team_keys = any(team.keys is not None for team in self.file.teams.values())
        if table.require_key and not team_keys and not self.environ.get("ANTHROPIC_AUTH_TOKEN"):
            message = "a key is required, but `ANTHROPIC_AUTH_TOKEN` is not set: nobody gets in"
            self.report.warn(Code.UNSET_VARIABLE, ("server", "require_key"), message)
        return ServerSettings(
            host=table.host,
            port=table.port,
            max_body_mb=table.max_body_mb,
            url_targets=table.url_targets,
            no_fallback_header=table.no_fallback_header,
            require_key=team_keys if table.require_key is None else table.require_key,
            admin_keys=tuple(teams.keys(table.admin_keys, ("server", "admin_keys")))
            if table.admin_keys is not None
            else (),
            models=tuple(table.models or ()),
            signing_key=self._signing_key(table.signing_key),
            decision_log=table.decision_log,
            cors_origins=tuple(table.cors_origins or ()),
            drain=seconds(table.drain),
        )

    def _signing_key(self, written: str | None) -> Secret | None:
        if written is None:
            return None
        path = ("server", "signing_key")
        found = self.secrets.secret(written, path)
        return None if found.kind == "none" else found

    def _provider(self, name: str, table: ProviderTable) -> None:
        path: KeyPath = ("providers", name)
        self.actions.check_params(table.params, (*path, "params"))
        self.actions.check_times(table.timeouts, (*path, "timeouts"))
        check_header_names(table.headers or {}, (*path, "headers"), self.report)
        if provider := compile_provider(name, table, self.report, self.secrets):
            self.book.providers[name] = provider

    def _alias(self, name: str, written: Targets) -> None:
        path: KeyPath = ("aliases", name)
        if "/" in name:
            message = f"`{name}` can't be an alias: with a `/` it reads as a provider and its model"
            self.report.error(Code.WRONG_VALUE, path, message, key=True)
        self.book.aliases[name] = tuple(self.actions.entries(written, path, in_alias=True))

    # --- rules

    def _rules(self, tables: list[RuleTable]) -> tuple[Rule, ...]:
        rules: list[Rule] = []
        seen: dict[str, Rule] = {}
        self.includes = [index for index, table in enumerate(tables) if table.include is not None]
        for index, table in enumerate(tables):
            path: KeyPath = ("rules", index)
            if table.include is not None:
                for rule in self._included(table, path):
                    self._check_name(rule, seen)
                    rules.append(rule)
                continue
            rule = self._rule(table, path, self.actions, None)
            self._check_name(rule, seen)
            rules.append(rule)
        if not any(report.faulty(("rules",)) for report in self.reports):
            self._check_order(rules)
        return tuple(rules)

    def _rule(self, table: RuleTable, path: KeyPath, actions: Actions, team: str | None) -> Rule:
        """`team` is the one that the file belongs to."""
        index = int(path[-1])
        self.matches[actions.file, path] = team, table.match
        checks: tuple[Check, ...] = ()
        if table.match is not None:
            promises = AssertionsCompiler(actions.report, "", self.book, self.file.teams, ())
            for match, at in nested(table.match, (*path, "match")):
                promises.check_teams(match, at)
            checks = compile_match(table.match, (*path, "match"), actions.report)
        if team is not None:
            checks = (Equals(TEAM, (team,)), *checks)
        unnamed = unnamed_rule(index) if team is None else f"{actions.label} {unnamed_rule(index)}"
        rule = actions.rule(table, path, table.name or unnamed, checks)
        stated = tuple(_stated(table.match)) if table.match is not None else ()
        return replace(rule, states=stated) if stated else rule

    def _included(self, table: RuleTable, path: KeyPath) -> Iterator[Rule]:
        for key in RuleTable.__struct_fields__:
            if key != "include" and getattr(table, key) is not None:
                message = f"`{key}` means nothing beside `include`: the included rules say what they do"
                self.report.error(Code.CONTRADICTION, (*path, key), message, key=True)
        at = (*path, "include")
        for layer in read_layers(table.include or "", at, self.report, self.folder, self.path.parent):
            self.layers.append(layer)
            self._check_team_of(layer)
            actions = Actions(layer.report, layer.label, self.book, len(self.layers))
            for index, rule in enumerate(layer.file.rules):
                here: KeyPath = ("rules", index)
                if rule.include is not None:
                    message = "an included file can't include others"
                    layer.report.error(Code.FORBIDDEN, (*here, "include"), message, key=True)
                    continue
                yield self._rule(rule, here, actions, layer.team)

    def _check_team_of(self, layer: Layer) -> None:
        if not layer.team:
            return
        table = self.file.teams.get(layer.team)
        if table is None:
            known = self.file.teams
            what = f"there is no team `{layer.team}`"
            layer.report.unknown(Code.UNDEFINED, ("team",), what, layer.team, known)
        elif table.targets is None:
            message = f"`[teams.{layer.team}]` has no `targets`, so nothing bounds what this file may reach"
            hint = f"the team stands in {self._place(('teams', layer.team))}"
            layer.report.error(Code.MISSING, ("team",), message, hint=hint)

    def _place(self, path: KeyPath) -> str:
        return f"{self.path.name}:{self.report.map.value(path).line}"

    def _check_name(self, rule: Rule, seen: dict[str, Rule]) -> None:
        report, path = self.reports[rule.file], (*rule.path, "name")
        if rule.name == "default":
            report.error(Code.DUPLICATE, path, "the name `default` belongs to `[default]`")
        elif rule.name in seen:
            other = seen[rule.name]
            line = other.where.rpartition(":")[2]
            where = f"in line {line}" if other.file == rule.file else f"in {other.where}"
            message = f"two rules are called `{rule.name}`"
            report.error(Code.DUPLICATE, path, message, hint=f"the other stands {where}")
        elif not rule.name.isprintable():
            report.error(Code.WRONG_VALUE, path, "a rule's name is one line of printable characters")
        seen.setdefault(rule.name, rule)

    def _check_order(self, rules: list[Rule]) -> None:
        takes_all: Rule | None = None
        accepting = AcceptingRules(rules)
        for number, rule in enumerate(rules):
            report, path = self.reports[rule.file], rule.path
            if takes_all is not None:
                message = f"no request gets here: `{takes_all.name}` above has no `match` and takes them all"
                report.warn(Code.UNREACHABLE, path, message)
            elif rule.deny and rule.file == 0:
                if taken := accepting.first_above(number):
                    message = f"this rule can't deny what `{taken.name}` above it has taken"
                    report.warn(Code.UNREACHABLE, path, message, hint="denials go first")
                elif include := self._include_above(rule):
                    message = f"a file that line {include} includes may take what this rule is to deny"
                    hint = "a denial that binds teams stands above the `include`"
                    report.warn(Code.UNREACHABLE, path, message, hint=hint)
            if not rule.checks:
                takes_all = takes_all or rule

    def _include_above(self, rule: Rule) -> int | None:
        """The line of an `include` above, whose files may at any time hold rules for the same team."""
        for index in self.includes:
            if index < int(rule.path[1]) and any(
                not disjoint((Equals(TEAM, (name,)),), rule.checks)
                for name, team in self.file.teams.items()
                if team.targets is not None
            ):
                return self.report.map.value(("rules", index)).line
        return None

    def _default(self, table: ActionTable | None) -> Rule:
        if table is None:
            if not self.report.faulty(("default",)):
                self.report.error(
                    Code.MISSING,
                    (),
                    "`[default]` is missing",
                    hint="it says what becomes of a request that no rule takes: `targets = …` or `deny = …`",
                )
            return Rule(name="default", where="", path=("default",))
        return self.actions.rule(table, ("default",), "default", ())

    def _tests_of_layers(self, rules: list[str]) -> Iterator[Case]:
        for number, layer in enumerate(self.layers, 1):
            promises = AssertionsCompiler(
                layer.report, layer.label, self.book, self.file.teams, rules, number
            )
            yield from promises.cases(layer.file.tests, self.folder, layer.team)

    # --- proof and tests

    def _prove(self, policy: Policy) -> None:
        for finding in prove(policy).open:
            rule, invariant = finding.rule, finding.invariant
            code = Code.BROKEN_INVARIANT if finding.counter_example else Code.NOT_PROVED
            hint = f"the invariant stands in {invariant.where}"
            at = (*rule.path, "targets")
            self.reports[rule.file].error(code, at, finding.message, expected=finding.way_out, hint=hint)

    def _test(self, policy: Policy, count: Callable[[bytes], int]) -> None:
        for case in policy.tests:
            outcome = run_case(policy, case, count)
            if outcome.differences:
                words = "; ".join(map(str, outcome.differences))
                message = f"the test `{case.name}` fails: {words}"
                hint = "`routeproxy test` shows why"
                self.reports[case.file].error(Code.TEST_FAILED, case.path, message, hint=hint)

    # --- the version

    def _version(
        self,
        server: ServerSettings,
        teams: Mapping[str, Team],
        rules: tuple[Rule, ...],
        default: Rule,
        invariants: tuple[Invariant, ...],
    ) -> str:
        file = self.file
        meaning = {
            "server": {
                **asdict(server),
                "signing_key": server.signing_key and server.signing_key.reference,
                "admin_keys": [_key_meaning(key) for key in server.admin_keys],
            },
            "providers": {
                name: self._provider_meaning(provider) for name, provider in self.book.providers.items()
            },
            "teams": {name: _team_meaning(team, file.teams[name]) for name, team in teams.items()},
            "rules": [_rule_meaning(rule, *self.matches[rule.file, rule.path]) for rule in rules],
            "default": _rule_meaning(default, None, None),
            "invariants": [(invariant.name, invariant.never, invariant.only) for invariant in invariants],
            "when": [table.when for table in file.invariants],
        }
        return hashlib.sha256(msgspec.json.encode(meaning, order="deterministic")).hexdigest()[:12]

    def _provider_meaning(self, provider: Provider) -> dict[str, Any]:
        table = self.file.providers[provider.name]
        return {
            **asdict(provider),
            "keys": [key.reference for key in provider.keys],
            "base_url": table.base_url or provider.base_url,
            "headers": table.headers,
        }


Lint = Callable[[Compilation, Policy], None]


def _team_meaning(team: Team, table: TeamTable) -> dict[str, Any]:
    return {
        "keys": [_key_meaning(key) for key in team.keys],
        "models": table.models,
        "targets": table.targets,
        "request_headers": team.request_headers,
        "provider_keys": {
            name: [key.reference for key in provider.keys] for name, provider in team.providers.items()
        },
        "explain": team.explain,
    }


def _key_meaning(key: ClientKey) -> tuple[str, str, datetime.date | None]:
    return key.name, key.secret.reference, key.expires


def _rule_meaning(rule: Rule, team: str | None, match: MatchTable | None) -> dict[str, Any]:
    return {
        "name": rule.name,
        "team": team,
        "match": match,
        "deny": rule.deny,
        "targets": [{**asdict(target), "provider": target.provider.name} for target in rule.targets],
        "fallback": rule.fallback,
        "retry": rule.retry,
        "deadline": rule.deadline,
    }


def _stated(match: MatchTable) -> Iterator[str]:
    """The model names that a rule states whole."""
    if isinstance(match.model, TextTable) and match.model.equals:
        names = listed(match.model.equals)
        yield from (name for name in names if requested_model_problem(name) is None)
    for inner in match.any or ():
        yield from _stated(inner)
