"""`[[rules]]` and `[default]`, with the rules of included files where they are included: each by itself, and
what one of them keeps from another by standing above it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from routeproxy.policy.compile.actions import ActionsCompiler
from routeproxy.policy.compile.assertions import check_teams
from routeproxy.policy.compile.match import compile_match, nested_tables
from routeproxy.policy.compile.shadowing import AcceptingRules, disjoint
from routeproxy.policy.conditions import Check, Equals, of_rule
from routeproxy.policy.decide import Rule, ShadowRule
from routeproxy.policy.fact_table import FACTS, TEAM
from routeproxy.policy.facts import requested_model_problem
from routeproxy.policy.file.includes import Folder, Layer, read_layers
from routeproxy.policy.file.report import Report, unnamed_rule
from routeproxy.policy.file.tables import ActionTable, MatchTable, RuleTable, TeamTable, TextTable
from routeproxy.policy.file.values import listed
from routeproxy.policy.problems import Code, KeyPath

WrittenMatches = dict[tuple[int, KeyPath], tuple[str | None, MatchTable | None]]
"""By the place of a rule (the number of its file, and its path there), the team that the file belongs to, and
the rule's conditions as they are written."""


class RulesCompiler:
    """Compiles the rules of one rules file, and of the files that it includes."""

    def __init__(
        self, actions: ActionsCompiler, teams: Mapping[str, TeamTable], folder: Folder, beside: Path
    ) -> None:
        """`actions` are those of the rules file, which stands in the folder `beside`."""
        self.actions = actions
        self.teams = teams
        self.folder = folder
        self.beside = beside
        self.layers: list[Layer] = []
        """The included files, as far as they were read; a layer's number is its place here, from 1."""
        self.matches: WrittenMatches = {}
        self.shadow_rules: tuple[ShadowRule, ...] = ()
        """Those of the rules that were compiled that decide nothing."""
        self._shadows: set[tuple[int, KeyPath]] = set()
        """Their places: the number of the file, and the path there."""
        self._includes: list[int] = []
        """The indexes of the rules that include files."""

    @property
    def reports(self) -> list[Report]:
        """By the number of the file."""
        return [self.actions.report, *(layer.report for layer in self.layers)]

    def compile_rules(self, tables: list[RuleTable]) -> tuple[Rule, ...]:
        rules: list[Rule] = []
        for index, table in enumerate(tables):
            path: KeyPath = ("rules", index)
            if table.include is None:
                rules.append(self._compile_rule(table, path, self.actions, None))
            else:
                self._includes.append(index)
                rules += self._compile_included(table.include, table, path)
        self._check_names(rules)
        reports = self.reports
        counting = [rule for rule in rules if not self._is_shadow(rule)]
        if not any(report.faulty(("rules",)) for report in reports):
            self._check_order(counting, reports)
        self.shadow_rules = tuple(self._shadow_rules(rules))
        return tuple(counting)

    def _is_shadow(self, rule: Rule) -> bool:
        return (rule.file, rule.path) in self._shadows

    def _shadow_rules(self, rules: Sequence[Rule]) -> Iterator[ShadowRule]:
        place = 0
        for rule in rules:
            if self._is_shadow(rule):
                _, match = self.matches[rule.file, rule.path]
                yield ShadowRule(rule, place, frozenset(_headers_in(match)))
            else:
                place += 1

    def compile_default(self, table: ActionTable | None) -> Rule:
        if table is not None:
            return self.actions.compile_rule(table, ("default",), "default", ())
        report = self.actions.report
        if not report.faulty(("default",)):
            message = "`[default]` is missing"
            hint = "it says what becomes of a request that no rule takes: `targets = …` or `deny = …`"
            report.error(Code.MISSING, (), message, hint=hint)
        return Rule(name="default", where="", path=("default",))

    def _compile_rule(
        self, table: RuleTable, path: KeyPath, actions: ActionsCompiler, team: str | None
    ) -> Rule:
        """`team` is the team that the file belongs to."""
        index = int(path[-1])
        self.matches[actions.file, path] = team, table.match
        if table.shadow:
            self._shadows.add((actions.file, path))
        checks: tuple[Check, ...] = ()
        if table.match is not None:
            here = (*path, "match")
            for match, at in nested_tables(table.match, here):
                if match.team is not None:
                    check_teams(match.team, self.teams, (*at, "team"), actions.report)
            checks = compile_match(table.match, here, actions.report)
        if team is not None:
            checks = (Equals(TEAM, (team,)), *checks)
        unnamed = unnamed_rule(index) if team is None else f"{actions.label} {unnamed_rule(index)}"
        name = table.name or unnamed
        rule = actions.compile_rule(table, path, name, of_rule(checks, name))
        names = tuple(_stated_models(table.match)) if table.match is not None else ()
        return replace(rule, stated_models=names) if names else rule

    # --- included files

    def _compile_included(self, include: str, table: RuleTable, path: KeyPath) -> Iterator[Rule]:
        report = self.actions.report
        for key in RuleTable.__struct_fields__:
            if key != "include" and getattr(table, key) is not None:
                message = f"`{key}` means nothing beside `include`: the included rules say what they do"
                report.error(Code.CONTRADICTION, (*path, key), message, key=True)
        for layer in read_layers(include, (*path, "include"), report, self.folder, self.beside):
            self.layers.append(layer)
            self._check_team_of(layer)
            inherited = self.actions.safeguards.inherited
            number = len(self.layers)
            actions = ActionsCompiler(layer.report, layer.label, self.actions.names, number, inherited)
            for index, rule in enumerate(layer.file.rules):
                here: KeyPath = ("rules", index)
                if rule.include is not None:
                    message = "an included file can't include others"
                    layer.report.error(Code.FORBIDDEN, (*here, "include"), message, key=True)
                    continue
                yield self._compile_rule(rule, here, actions, layer.team)

    def _check_team_of(self, layer: Layer) -> None:
        if not layer.team:
            return
        table = self.teams.get(layer.team)
        if table is None:
            message = f"there is no team `{layer.team}`"
            layer.report.unknown(Code.UNDEFINED, ("team",), message, layer.team, self.teams)
        elif table.targets is None:
            message = f"`[teams.{layer.team}]` has no `targets`, so nothing bounds what this file may reach"
            hint = f"the team stands in {self.actions.place_of(('teams', layer.team))}"
            layer.report.error(Code.MISSING, ("team",), message, hint=hint)

    # --- names and order

    def _check_names(self, rules: Sequence[Rule]) -> None:
        reports = self.reports
        first_of_name: dict[str, Rule] = {}
        for rule in rules:
            report, path = reports[rule.file], (*rule.path, "name")
            if rule.name == "default":
                report.error(Code.DUPLICATE, path, "the name `default` belongs to `[default]`")
            elif (first := first_of_name.get(rule.name)) is not None:
                line = first.where.rpartition(":")[2]
                where = f"in line {line}" if first.file == rule.file else f"in {first.where}"
                message = f"two rules are called `{rule.name}`"
                report.error(Code.DUPLICATE, path, message, hint=f"the other stands {where}")
            elif not rule.name.isprintable():
                report.error(Code.WRONG_VALUE, path, "a rule's name is one line of printable characters")
            first_of_name.setdefault(rule.name, rule)

    def _check_order(self, rules: Sequence[Rule], reports: Sequence[Report]) -> None:
        takes_all: Rule | None = None
        accepting = AcceptingRules(rules)
        for number, rule in enumerate(rules):
            report = reports[rule.file]
            if takes_all is not None:
                message = f"no request gets here: `{takes_all.name}` above has no `match` and takes them all"
                report.warn(Code.UNREACHABLE, rule.path, message)
            elif rule.deny and rule.file == 0:
                if above := accepting.first_above(number):
                    message = f"this rule can't deny what `{above.name}` above it has taken"
                    report.warn(Code.UNREACHABLE, rule.path, message, hint="denials go first")
                elif line := self._include_above(rule):
                    message = f"a file that line {line} includes may take what this rule is to deny"
                    hint = "a denial that binds teams stands above the `include`"
                    report.warn(Code.UNREACHABLE, rule.path, message, hint=hint)
            if not rule.checks:
                takes_all = takes_all or rule

    def _include_above(self, rule: Rule) -> int | None:
        """The line of an `include` above, whose files may at any time hold rules for the same team."""
        for index in self._includes:
            if index < int(rule.path[1]) and any(
                not disjoint((Equals(TEAM, (name,)),), rule.checks)
                for name, team in self.teams.items()
                if team.targets is not None
            ):
                return self.actions.report.map.value(("rules", index)).line
        return None


def _headers_in(match: MatchTable | None) -> Iterator[str]:
    """The headers that conditions look at, in lower case, whichever way they are written."""
    for table, _ in nested_tables(match, ()) if match is not None else ():
        yield from (name.lower() for name in table.headers or ())
        for fact in FACTS:
            if fact.header is not None and getattr(table, fact.name, None) is not None:
                yield fact.header
        if table.percent is not None:
            yield "x-claude-code-session-id"


def _stated_models(match: MatchTable) -> Iterator[str]:
    """The names of models that a rule states whole."""
    if isinstance(match.model, TextTable) and match.model.equals:
        names = listed(match.model.equals)
        yield from (name for name in names if requested_model_problem(name) is None)
    for inner in match.any or ():
        yield from _stated_models(inner)
