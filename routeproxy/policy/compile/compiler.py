"""Rules text to `Policy`, or every reason why not.

All that can be wrong with a rules file is found here, before anything of it takes effect: what it says, what
it includes, what its invariants forbid, what its tests expect.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from routeproxy.gc_pause import paused
from routeproxy.policy.compile.acceptances import Acceptances
from routeproxy.policy.compile.actions import ActionsCompiler
from routeproxy.policy.compile.assertions import AssertionsCompiler
from routeproxy.policy.compile.audit import compile_audit
from routeproxy.policy.compile.fingerprint import fingerprint
from routeproxy.policy.compile.headers import check_header_names
from routeproxy.policy.compile.health import check_health, compile_health
from routeproxy.policy.compile.ledger import compile_ledger
from routeproxy.policy.compile.match import nested_tables
from routeproxy.policy.compile.params import check_params
from routeproxy.policy.compile.providers import compile_provider
from routeproxy.policy.compile.rules import RulesCompiler
from routeproxy.policy.compile.secrets import SecretResolver
from routeproxy.policy.compile.server import compile_server
from routeproxy.policy.compile.targets import NameTable, check_timeouts
from routeproxy.policy.compile.teams import TeamsCompiler
from routeproxy.policy.compile.telemetry import compile_telemetry
from routeproxy.policy.decide import Policy, Rule
from routeproxy.policy.fact_table import BY_NAME, FACTS, Fact
from routeproxy.policy.file.includes import Disk, Folder, Layer
from routeproxy.policy.file.reader import read
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import LayerFile, MatchTable, PoolTable, ProviderTable, RulesFile, Targets
from routeproxy.policy.hypothetical import Case
from routeproxy.policy.invariants import Invariant
from routeproxy.policy.problems import Code, KeyPath, RulesRefused
from routeproxy.policy.providers import Provider
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
    skip_proof: bool = False,
    skip_tests: bool = False,
    also: "Lint | None" = None,
    sign_in_problem: "SignInProblem" = lambda provider: None,
    gives_way: bool = False,
) -> Policy:
    """The policy that `text` describes, proved and tested. Raises `RulesRefused` with all its problems;
    warnings stay with it.

    `environ` answers `env:NAME`. Of `folder`, that of the file, only what the text includes is read; a
    `file:` key is opened when it is used. `count` gives the tokens of a test's body. `also` finds
    more to warn of. `sign_in_problem` knows the machine. `gives_way`: other threads have to go on meanwhile.
    """
    with paused():
        # Without a name, so that all but the policy is gone by the next sweep.
        return Compilation(
            text, path, environ, allow_literal_keys, folder, sign_in_problem, gives_way=gives_way
        ).policy(count, prove=not skip_proof, test=not skip_tests, also=also)


class Compilation:
    """One rules file on its way, with a report for it and each file that it includes."""

    def __init__(
        self,
        text: str,
        path: Path,
        environ: Mapping[str, str],
        allow_literal_keys: bool = False,
        folder: Folder | None = None,
        sign_in_problem: "SignInProblem" = lambda provider: None,
        *,
        gives_way: bool = False,
    ) -> None:
        """Raises `RulesRefused` if `text` is no TOML."""
        self.path = path
        self.folder = folder or Disk(path.parent)
        self.sign_in_problem = sign_in_problem
        self.report = Report(text.removeprefix("\ufeff"), str(path), gives_way=gives_way)
        self.file = read(self.report.parse(), self.report, RulesFile)
        self.names = NameTable(self.report.document, self.file.providers)
        self.actions = ActionsCompiler(self.report, path.name, self.names)
        self.secrets = SecretResolver(self.report, environ, allow_literal_keys)
        self.rules = RulesCompiler(self.actions, self.file.teams, self.folder, path.parent)

    @property
    def layers(self) -> Sequence[Layer]:
        """The included files."""
        return self.rules.layers

    @property
    def reports(self) -> Sequence[Report]:
        """By the number of the file."""
        return self.rules.reports

    def policy(
        self,
        count: Callable[[bytes], int],
        *,
        prove: bool = True,
        test: bool = True,
        also: "Lint | None" = None,
    ) -> Policy:
        """Raises `RulesRefused`. `also` finds more to warn of."""
        policy = self._compile()
        # A file is not whole before it is compiled: rules include others.
        files: list[RulesFile | LayerFile] = [self.file, *(layer.file for layer in self.layers)]
        acceptances = [Acceptances(file, report) for file, report in zip(files, self.reports, strict=True)]
        if policy is not None:
            if prove:
                self._prove(policy)
            if test:
                self._test(policy, count)
            if also is not None:
                also(self, policy)
                for of_file in acceptances:
                    of_file.report_unused()
        sorted_problems = [of_file.sort() for of_file in acceptances]
        problems = tuple(problem for counting, _, _ in sorted_problems for problem in counting)
        accepted = tuple(problem for _, accepted, _ in sorted_problems for problem in accepted)
        if policy is None or any(report.failed for report in self.reports):
            raise RulesRefused(problems, accepted)
        policy = policy.with_warnings(problems, accepted)
        policy.prepare()
        return policy

    def _compile(self) -> Policy | None:
        """`None`: something is wrong, and reported."""
        file = self.file
        teams = TeamsCompiler(self.report, self.actions, self.secrets)
        server = compile_server(file, self.report, self.secrets, teams)
        check_health(file.server.health, ("server", "health"), self.report)
        for name, provider_table in file.providers.items():
            self._compile_provider(name, provider_table)
        for name, targets in file.aliases.items():
            self._compile_alias(name, targets)
        for name, pool in file.pools.items():
            self._compile_pool(name, pool)
        if safeguards := self.actions.safeguards.compile_server(file.server):
            server = replace(server, safeguards=safeguards.target.name, safeguards_timeout=safeguards.timeout)
        compiled_teams = {name: teams.compile_team(name, table) for name, table in file.teams.items()}
        ledger = compile_ledger(file.ledger, self.report, self.secrets)
        audit = compile_audit(file.audit, self.report, self.secrets)
        telemetry = compile_telemetry(file.telemetry, self.report)
        rules = self.rules.compile_rules(file.rules)
        default = self.rules.compile_default(file.default)
        invariants, tests = self._compile_assertions(rules, teams)
        if any(report.failed for report in self.reports):
            return None
        reads = _read_by([*self._matches(shadows=True)])
        headers, facts = _headers_of(deciding := [*self._matches(shadows=False)]), _read_by(deciding)
        policy = Policy(
            version="",
            source=str(self.path),
            server=server,
            providers=self.names.providers,
            teams=compiled_teams,
            rules=rules,
            default=default,
            invariants=invariants,
            tests=tests,
            ledger=ledger,
            audit=audit,
            telemetry=telemetry,
            shadow_rules=self.rules.shadow_rules,
            reads=frozenset(fact.name for fact in reads),
            reads_headers=frozenset((*headers, *filter(None, (fact.header for fact in facts)))),
        )
        return replace(policy, version=fingerprint(policy, file, self.rules.matches))

    def _compile_provider(self, name: str, table: ProviderTable) -> None:
        path: KeyPath = ("providers", name)
        check_params(table.params, (*path, "params"), self.report)
        check_timeouts(table.timeouts, (*path, "timeouts"), self.report)
        check_header_names(table.headers or {}, (*path, "headers"), self.report)
        check_health(table.health, (*path, "health"), self.report)
        if provider := compile_provider(name, table, self.report, self.secrets):
            health = compile_health(self.file.server.health, table)
            self.names.providers[name] = replace(provider, health=health)
            if problem := self.sign_in_problem(provider):
                self.report.warn(Code.UNSET_VARIABLE, path, problem, key=True)

    def _compile_alias(self, name: str, targets: Targets) -> None:
        path: KeyPath = ("aliases", name)
        if "/" in name:
            message = f"`{name}` can't be an alias: with a `/` it reads as a provider and its model"
            self.report.error(Code.WRONG_VALUE, path, message, key=True)
        self.names.aliases[name] = tuple(self.actions.targets.compile_entries(targets, path, of="alias"))

    def _compile_pool(self, name: str, pool: PoolTable) -> None:
        path: KeyPath = ("pools", name)
        if "/" in name:
            message = f"`{name}` can't be a pool: with a `/` it reads as a provider and its model"
            self.report.error(Code.WRONG_VALUE, path, message, key=True)
        if name in self.file.aliases:
            message = f"`{name}` is an alias already, and a target's name stands for one of them"
            self.report.error(Code.DUPLICATE, path, message, key=True)
        self.names.pools[name] = self.actions.targets.compile_pool(name, pool, path)

    def _compile_assertions(
        self, rules: Sequence[Rule], teams: TeamsCompiler
    ) -> tuple[tuple[Invariant, ...], tuple[Case, ...]]:
        """The invariants, those that teams' `targets` imply first, and the tests of all files."""
        file, names = self.file, [rule.name for rule in rules]
        assertions = AssertionsCompiler(self.report, self.path.name, self.names, file.teams, names)
        implied = [teams.compile_invariant(name, table) for name, table in file.teams.items()]
        invariants = (*filter(None, implied), *assertions.compile_invariants(file.invariants))
        tests = [*assertions.compile_cases(file.tests, self.folder)]
        for number, layer in enumerate(self.layers, 1):
            of_layer = AssertionsCompiler(layer.report, layer.label, self.names, file.teams, names, number)
            tests += of_layer.compile_cases(layer.file.tests, self.folder, layer.team)
        return invariants, tuple(tests)

    def _matches(self, *, shadows: bool) -> Iterator[MatchTable]:
        """Every table of conditions, of rules and of invariants, with those in it. `shadows`: those of shadow
        rules, too."""
        rules = [*self.file.rules, *(rule for layer in self.layers for rule in layer.file.rules)]
        counting = [rule for rule in rules if shadows or not rule.shadow]
        tables = [*(rule.match for rule in counting), *(invariant.when for invariant in self.file.invariants)]
        for table in tables:
            for match, _ in nested_tables(table, ()) if table is not None else ():
                yield match

    # --- proof and tests

    def _prove(self, policy: Policy) -> None:
        for finding in prove(policy).findings:
            rule, invariant = finding.rule, finding.invariant
            code = Code.BROKEN_INVARIANT if finding.counterexample else Code.NOT_PROVED
            hint = f"the invariant stands in {invariant.where}"
            at = (*rule.path, "targets")
            if finding.by_safeguards and rule.safeguards is not None:
                if rule.safeguards.inherited:
                    hint += ", and `[server]` says who judges tool uses"
                else:
                    at = (*rule.path, "safeguards")
            self.reports[rule.file].error(code, at, finding.message, expected=finding.expected, hint=hint)

    def _test(self, policy: Policy, count: Callable[[bytes], int]) -> None:
        for case in policy.tests:
            outcome = run_case(policy, case, count)
            if outcome.differences:
                words = "; ".join(map(str, outcome.differences))
                message = f"the test `{case.name}` fails: {words}"
                hint = "`routeproxy test` shows why"
                self.reports[case.file].error(Code.TEST_FAILED, case.path, message, hint=hint)


SignInProblem = Callable[[Provider], str | None]
"""What is to be said of a provider that has no credentials, on this machine; `None` where there are some, or
none are needed."""
Lint = Callable[[Compilation, Policy], None]
"""Reports to the compilation what is odd about its policy."""


def _headers_of(matches: Sequence[MatchTable]) -> frozenset[str]:
    return frozenset(name.lower() for match in matches for name in match.headers or ())


def _read_by(matches: Sequence[MatchTable]) -> list[Fact]:
    """The facts that conditions look at."""
    headers = _headers_of(matches)
    return [
        fact
        for fact in FACTS
        if fact.header in headers
        or any(getattr(match, fact.name, None) is not None for match in matches)
        or (fact is BY_NAME["session"] and any(match.percent is not None for match in matches))
    ]
