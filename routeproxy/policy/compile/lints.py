"""What `check` finds besides errors: rules that are never reached, names that nothing uses, chains that get
worse from one target to the next. Such a file compiles to a policy all the same."""

import datetime
import ssl
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from routeproxy.files import read_file
from routeproxy.policy.compile.compiler import Compilation
from routeproxy.policy.compile.connections import OF_A_CONNECTION
from routeproxy.policy.compile.listen_host import listen_host_problem
from routeproxy.policy.compile.match import nested_tables
from routeproxy.policy.compile.unreachable import UnreachableRules
from routeproxy.policy.conditions import (
    Begins,
    Check,
    Contains,
    Equals,
    Matches,
    TextCheck,
    matches_glob,
    quoted,
)
from routeproxy.policy.decide import Policy, Rule
from routeproxy.policy.fact_table import FACTS, TEAM, Fact, header_fact
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import (
    HeaderTable,
    MatchTable,
    RequestTable,
    RuleTable,
    Targets,
    TargetTable,
)
from routeproxy.policy.file.values import listed
from routeproxy.policy.patterns import regex
from routeproxy.policy.problems import Code, KeyPath, closest, one_of
from routeproxy.policy.providers import ModelFacts
from routeproxy.policy.secrets import ClientKey, Secret
from routeproxy.policy.targets import Target

FactsOfTarget = Callable[[Target], ModelFacts]
"""What is known of a target's model, from whatever source."""

SMALLER = 0.9
"""A context window of less than this share is smaller; 1,047,576 and 1,048,576 tokens are the same."""

ABILITIES = {"vision": "sees no images", "tools": "takes no tools", "thinking": "does not think"}


class Lints:
    """Finds what is odd about a rules file."""

    def __init__(self, known: FactsOfTarget, today: datetime.date | None = None) -> None:
        self._known = known
        self._today = today or datetime.datetime.now(datetime.UTC).date()

    def __call__(self, compilation: Compilation, policy: Policy) -> None:
        """Reports to `compilation`."""
        _Finder(compilation, policy, self._known, self._today).run()


class _Finder:
    """Reports what is odd about one compilation."""

    def __init__(
        self, compilation: Compilation, policy: Policy, known: FactsOfTarget, today: datetime.date
    ) -> None:
        self.compilation = compilation
        self.policy = policy
        self.known = known
        self.today = today
        self.report = compilation.report

    def run(self) -> None:
        self._find_unreachable()
        self._find_unused()
        self._check_chains()
        self._check_recording()
        self._check_conditions()
        self._check_statements()
        self._check_keys()
        self._check_host()
        self._check_default()

    # --- rules that are never reached

    def _find_unreachable(self) -> None:
        for rule, code, message, hint in UnreachableRules(self.policy):
            path = (*rule.path, "match") if code is Code.NEVER_TRUE else rule.path
            self._warn(rule, code, path, message, hint=hint)

    # --- names that nothing uses

    def _find_unused(self) -> None:
        file, policy = self.compilation.file, self.policy
        rules = (*policy.rules, policy.default)
        used = {target.provider.name for rule in rules for target in (*rule.targets, *rule.contacted)}
        for name in policy.providers.keys() - used:
            message = f"no rule sends anything to the provider `{name}`"
            self.report.warn(Code.UNUSED, ("providers", name), message, key=True)
        named = set(self._written_targets())
        for name in file.aliases.keys() - named:
            message = f"nothing uses the alias `{name}`"
            self.report.warn(Code.UNUSED, ("aliases", name), message, key=True)
        for name in file.pools.keys() - named:
            message = f"nothing uses the pool `{name}`"
            self.report.warn(Code.UNUSED, ("pools", name), message, key=True)
        in_conditions = {name for checks in self._all_checks() for check in checks for name in _teams(check)}
        with_files = {layer.team for layer in self.compilation.layers}
        for name, table in file.teams.items():
            bounded = table.targets or table.models or table.request_headers or table.provider_keys
            if name not in in_conditions | with_files and not bounded:
                message = f"no rule looks at the team `{name}`, which is like any other client"
                self.report.warn(Code.UNUSED, ("teams", name), message, key=True)

    def _written_targets(self) -> Iterator[str]:
        file = self.compilation.file
        tables: list[Targets | None] = [rule.targets for rule in file.rules]
        tables += [rule.targets for layer in self.compilation.layers for rule in layer.file.rules]
        tables += [file.default.targets if file.default else None]
        tables += [team.targets for team in file.teams.values()]  # type: ignore[misc]
        judges = [file.server.safeguards, file.default.safeguards if file.default else None]
        judges += [rule.safeguards for rule in file.rules]
        judges += [rule.safeguards for layer in self.compilation.layers for rule in layer.file.rules]
        yield from (judge for judge in judges if isinstance(judge, str))
        tables += [pool.members for pool in file.pools.values()]  # type: ignore[misc]
        for written in tables:
            for item in written if isinstance(written, list) else [written]:
                name = item.target if isinstance(item, TargetTable) else item
                if name is not None:
                    yield name

    def _all_checks(self) -> Iterator[tuple[Check, ...]]:
        yield from (rule.checks for rule in self.policy.rules)
        yield from (invariant.when for invariant in self.policy.invariants if not invariant.implied)

    # --- chains

    def _check_chains(self) -> None:
        for rule in (*self.policy.rules, self.policy.default):
            first = rule.targets[0] if rule.targets else None
            seen: set[str] = set()
            alone = [replace(target, member=None) for target in rule.reachable]
            for place, target in enumerate(rule.reachable):
                if target.name in seen and alone[place] in alone[:place]:
                    message = f"`{target.name}` stands in this chain already: what failed is asked once more"
                    self._warn(rule, Code.WORSE_CHAIN, (*rule.path, "targets", place), message)
                elif place and first is not None:
                    self._compare_targets(rule, first, target, place)
                seen.add(target.name)

    def _check_recording(self) -> None:
        if self.policy.telemetry.traces is not None:
            return
        for rule in (*self.policy.rules, self.policy.default):
            if any(target.record for target in rule.targets):
                message = "nothing is recorded: there are no traces to tell what was asked"
                hint = "`[telemetry] traces` says where they go"
                self._warn(rule, Code.NO_EFFECT, (*rule.path, "record"), message, hint)

    def _compare_targets(self, rule: Rule, first: Target, target: Target, place: int) -> None:
        before, now = self.known(first), self.known(target)
        worse = [
            words
            for ability, words in ABILITIES.items()
            if getattr(before, ability) is not False and getattr(now, ability) is False
        ]
        if (
            before.context_window
            and now.context_window
            and now.context_window < SMALLER * before.context_window
        ):
            worse.append(f"has a context window of {now.context_window:,}, not {before.context_window:,}")
        if worse:
            message = f"when `{first.name}` fails, `{target.name}` is asked, which {' and '.join(worse)}"
            hint = "a rule above may take such requests, or the chain may end before it"
            self._warn(rule, Code.WORSE_CHAIN, (*rule.path, "targets", place), message, hint=hint)

    # --- conditions that clients can't meet

    def _check_conditions(self) -> None:
        for report, match, path in self._matches():
            if match.url_target and not self.policy.server.url_targets:
                message = "never true: `[server] url_targets` is off"
                report.warn(Code.NEVER_TRUE, (*path, "url_target"), message)
            for fact, comparison, here in _headers_in(match, path):
                self._check_known(fact, comparison, here, report)
                if fact.header in OF_A_CONNECTION:
                    message = f"`{here[-1]}` belongs to a connection: no client can send it to be matched"
                    report.warn(Code.NEVER_TRUE, here, message, key=True)
                for value in _equal_values(comparison):
                    if value != value.strip(" \t") or not value.isprintable():
                        message = f"no header is ever {value!r}: values come trimmed and as one line"
                        report.warn(Code.NEVER_TRUE, here, message)

    def _check_statements(self) -> None:
        files = [(self.report, self.compilation.file.tests)]
        files += [(layer.report, layer.file.tests) for layer in self.compilation.layers]
        for report, cases in files:
            for index, case in enumerate(cases):
                if case.request is not None:
                    for fact, value, here in _headers_in(case.request, ("tests", index, "request")):
                        self._check_known(fact, value, here, report)

    def _check_known(
        self, fact: Fact, written: str | list[str] | HeaderTable, path: KeyPath, report: Report
    ) -> None:
        """Warns of what no value passes that clients are known to send, or that a team's requests have."""
        if not fact.known:
            return
        stated = (team.request_headers.get(fact.header or "") for team in self.policy.teams.values())
        known = (*fact.known, *filter(None, stated))
        for check in _comparisons(fact, written):
            if not any(map(check.accepts, known)):
                (value,) = check.values
                message = f"no {fact.name} that clients are known to send {check.verb} {quoted(value)}"
                near = closest(value, known)
                hint = f"did you mean `{near}`?" if near else f"expected {one_of(known)}"
                report.warn(Code.NEVER_TRUE, path, message, hint=hint)

    def _matches(self) -> Iterator[tuple[Report, MatchTable, KeyPath]]:
        files: list[tuple[Report, list[RuleTable]]] = [(self.report, self.compilation.file.rules)]
        files += [(layer.report, layer.file.rules) for layer in self.compilation.layers]
        for report, rules in files:
            for index, rule in enumerate(rules):
                for match, at in nested_tables(rule.match, ("rules", index, "match")) if rule.match else ():
                    yield report, match, at
        for index, invariant in enumerate(self.compilation.file.invariants):
            for match, at in (
                nested_tables(invariant.when, ("invariants", index, "when")) if invariant.when else ()
            ):
                yield self.report, match, at

    # --- keys

    def _check_keys(self) -> None:
        policy = self.policy
        holders: list[tuple[KeyPath, tuple[ClientKey, ...]]] = [
            (("teams", name, "keys"), team.keys) for name, team in policy.teams.items()
        ]
        for path, keys in [*holders, (("server", "admin_keys"), policy.server.admin_keys)]:
            for index, key in enumerate(keys):
                self._check_key_file(key.secret, (*path, index))
                if key.expired(self.today):
                    message = f"the key {key.name} expired on {key.expires}"
                    self.report.warn(Code.EXPIRED, (*path, index), message)
        for name, provider in policy.providers.items():
            if provider.ca_file is not None and (problem := _ca_file_problem(provider.ca_file)):
                message = f"the file {provider.ca_file} {problem}: every request to `{name}` will fail"
                starts = (
                    hint for start, hint in _CA_FILE_HINTS.items() if provider.ca_file.startswith(start)
                )
                hint = next(starts, None)
                self.report.warn(Code.UNSET_VARIABLE, ("providers", name, "ca_file"), message, hint=hint)
            for secret in provider.keys:
                self._check_key_file(secret, ("providers", name, "api_key"))
        for name, team in policy.teams.items():
            for provider in team.providers.values():
                for secret in provider.keys:
                    self._check_key_file(secret, ("teams", name, "provider_keys", provider.name))
        if policy.server.signing_key is not None:
            self._check_key_file(policy.server.signing_key, ("server", "signing_key"))

    def _check_key_file(self, secret: Secret, path: KeyPath) -> None:
        if secret.kind != "file":
            return
        name = secret.name
        try:
            status = Path(name).stat()
        except OSError as error:
            self.report.warn(Code.UNSET_VARIABLE, path, f"the key file {name}: {error.strerror}")
            return
        if status.st_mode & stat.S_IROTH:
            message = f"everybody on this machine can read the key file {name}"
            self.report.warn(Code.READABLE_KEY, path, message, hint=f"chmod o-r {name}")

    # --- where it listens

    def _check_host(self) -> None:
        """An error, which `serve` finds too, unless `--host` says it otherwise."""
        host, hint = self.compilation.file.server.host, None
        if problem := listen_host_problem(host):
            what, meant, port = problem
            if meant and listen_host_problem(meant) is None:
                lines = [f'`host = "{meant}"`', *([f"`port = {port}`"] if port else [])]
                hint = f"write {' and '.join(lines)}"
            elif port and not meant:
                hint = f"write `port = {port}`"
            expected = "an address of this machine, as 127.0.0.1 or ::1, or 0.0.0.0 for all of them"
            message = f"`{host}` is {what}" if host.strip() else f"the host is {what}"
            self.report.error(Code.WRONG_VALUE, ("server", "host"), message, expected=expected, hint=hint)

    # --- what a half-written file would lack

    def _check_default(self) -> None:
        file = self.compilation.file
        default = self.report.map.value(("default",)).line
        last = max((self.report.map.value(("rules", at)).line for at in range(len(file.rules))), default=0)
        if last > default:
            message = (
                "`[default]` stands above rules: a copy of this file that was cut short would still load"
            )
            hint = "at the end of the rules it is the seal that all of them are there"
            self.report.warn(Code.MISPLACED, ("default",), message, hint=hint)

    def _warn(self, rule: Rule, code: Code, path: KeyPath, message: str, hint: str | None = None) -> None:
        self.compilation.reports[rule.file].warn(code, path, message, hint=hint)


def _ca_file_problem(file: str) -> str | None:
    """Why nobody is trusted by it, to stand behind its name; `None` if somebody is."""
    try:
        read_file(file)  # OpenSSL would wait for a pipe
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=file)
    except ssl.SSLError:
        return "has no certificate in it that can be read (PEM is expected)"
    except (FileNotFoundError, NotADirectoryError):
        return "is not there"
    except OSError as error:
        return f"can't be read ({error.strerror})"
    return None if context.cert_store_stats()["x509"] else "has no certificate in it"


_CA_FILE_HINTS = {
    "~": "`~` is not expanded here: write the whole path",
    "env:": "`env:` is not read here: write the path",
    "file:": "write the path alone",
}


def _teams(check: Check) -> Iterator[str]:
    match check:
        case Equals() if check.subject is TEAM:
            yield from check.values
        case TextCheck():
            return
    for tables in (getattr(check, "choices", ()), getattr(check, "tables", ())):
        for table in tables:
            for inner in table:
                yield from _teams(inner)


def _headers_in(table: MatchTable | RequestTable, path: KeyPath) -> Iterator[tuple[Fact, Any, KeyPath]]:
    """What `table` says of headers, by short names or otherwise, each with its place."""
    headers: Mapping[str, Any] = table.headers or {}
    for name, written in headers.items():
        yield header_fact(name.lower()), written, (*path, "headers", name)
    for fact in _READ_FROM_HEADERS:
        if (written := getattr(table, fact.name, None)) is not None:
            yield fact, written, (*path, fact.name)


def _comparisons(fact: Fact, written: str | list[str] | HeaderTable) -> Iterator[TextCheck]:
    """What is written of a header, as a check for each value."""
    table = written if isinstance(written, HeaderTable) else HeaderTable(equals=written)
    for key, check in _CHECKS.items():
        values = getattr(table, key)
        yield from (check(fact, (value,)) for value in (listed(values) if values is not None else ()))


_READ_FROM_HEADERS = [fact for fact in FACTS if fact.header is not None]

_CHECKS: Mapping[str, Callable[[Fact, tuple[str, ...]], TextCheck]] = {
    "equals": Equals,
    "prefix": Begins,
    "contains": Contains,
    "glob": matches_glob,
    "regex": lambda fact, values: Matches(fact, values, tuple(map(regex, values)), "regex"),
}
"""How values are compared, by the keys of a table."""


def _equal_values(comparison: str | list[str] | HeaderTable) -> Iterator[str]:
    """The values that a header has to equal."""
    values = comparison.equals if isinstance(comparison, HeaderTable) else comparison
    yield from listed(values) if values is not None else ()
