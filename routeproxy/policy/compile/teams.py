"""Teams: whose keys open the proxy, what each may ask for, and what its requests may ever reach."""

import re
from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from routeproxy.policy.compile.actions import ActionsCompiler
from routeproxy.policy.compile.headers import check_header_names
from routeproxy.policy.compile.secrets import SecretResolver
from routeproxy.policy.conditions import Equals, NoneOf, matches_glob
from routeproxy.policy.decide import Rule, Team
from routeproxy.policy.fact_table import MODEL, TEAM
from routeproxy.policy.facts import ascii_lower
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import Keys, KeyTable, TeamTable
from routeproxy.policy.file.values import listed
from routeproxy.policy.invariants import Invariant, TargetCondition
from routeproxy.policy.patterns import covers
from routeproxy.policy.pools import weight_problem
from routeproxy.policy.problems import Code, KeyPath
from routeproxy.policy.provider_types import TYPES
from routeproxy.policy.providers import Provider
from routeproxy.policy.secrets import SECRET_HEADERS, ClientKey, Secret, digest_of

_SHA256 = re.compile(r"[0-9a-f]{64}")


CLIENT_KEYS = '`"sha256:…"` (`routeproxy keys new TEAM` makes one), `"env:NAME"` or `"file:PATH"`'


class TeamsCompiler:
    """Compiles `[teams.NAME]` and whatever else holds keys of clients."""

    def __init__(self, report: Report, actions: ActionsCompiler, secrets: SecretResolver) -> None:
        self.report = report
        self.actions = actions
        self.secrets = secrets
        self._path_of_key: dict[str, KeyPath] = {}
        """By the digest of a key, its first place."""

    def compile_team(self, name: str, table: TeamTable) -> Team:
        path: KeyPath = ("teams", name)
        if not name.isprintable() or not name.strip():
            message = "a team's name is one line of printable characters"
            self.report.error(Code.WRONG_VALUE, path, message, key=True)
        if table.keys is None and not self.report.faulty((*path, "keys")):
            self.report.warn(Code.NO_EFFECT, path, f"team `{name}` has no keys, so nobody is of it", key=True)
        return Team(
            name=name,
            where=self.actions.place_of(path),
            keys=tuple(self.compile_keys(table.keys, (*path, "keys"))) if table.keys is not None else (),
            labels=table.labels or {},
            gate=self._compile_gate(name, table, (*path, "models")),
            request_headers=self._compile_headers(table.request_headers or {}, (*path, "request_headers")),
            providers=dict(self._compile_provider_keys(table, (*path, "provider_keys"))),
            max_concurrent=table.max_concurrent,
            weight=self._compile_weight(table, path),
            explain=table.explain,
        )

    def _compile_weight(self, table: TeamTable, path: KeyPath) -> float:
        if table.weight is None:
            return 1.0
        if problem := weight_problem(table.weight):
            self.report.error(Code.WRONG_VALUE, (*path, "weight"), problem)
            return 1.0
        return float(table.weight)

    def compile_invariant(self, name: str, table: TeamTable) -> Invariant | None:
        """The invariant that `[teams.NAME] targets` implies."""
        if table.targets is None:
            return None
        path: KeyPath = ("teams", name, "targets")
        return Invariant(
            name=f"[teams.{name}] targets",
            where=self.actions.place_of(path),
            path=path,
            when=(Equals(TEAM, (name,)),),
            only=TargetCondition(target=tuple(self._compile_targets(table.targets, path))),
            implied=True,
        )

    # --- keys

    def compile_keys(self, written: Keys, path: KeyPath, *, admin: bool = False) -> Iterator[ClientKey]:
        """`admin`: they are an operator's, not a team's."""
        items = written if isinstance(written, list) else [written]
        for index, item in enumerate(items):
            here = (*path, index) if isinstance(written, list) else path
            table = KeyTable(key=item) if isinstance(item, str) else item
            if table.key is None:
                if not self.report.faulty(here):
                    self.report.error(Code.MISSING, here, '`key = "env:NAME"` is missing here')
                continue
            at = here if isinstance(item, str) else (*here, "key")
            secret = self._compile_secret(table.key, at)
            is_nameless = secret.kind in {"sha256", "literal"}
            name = table.name or (f"key {index + 1}" if is_nameless else secret.reference)
            for key, is_meant in (("user", not admin), ("role", admin)):
                if getattr(table, key) is not None and not is_meant:
                    message = (
                        f"`{key}` is for keys of {'teams' if key == 'user' else '`[server] admin_keys`'}"
                    )
                    self.report.error(Code.NOT_FOR_TYPE, (*here, key), message, key=True)
            yield ClientKey(name, secret, table.expires, table.user, table.role or "operate")

    def _compile_secret(self, written: str, path: KeyPath) -> Secret:
        scheme, _, rest = written.partition(":")
        if scheme == "sha256":
            secret = Secret("sha256", rest.lower())
            if not _SHA256.fullmatch(secret.name):
                message = "a hashed key is `sha256:` and 64 hexadecimal digits"
                hint = "`routeproxy keys new TEAM` makes a key and prints this line"
                self.report.error(Code.WRONG_VALUE, path, message, hint=hint)
                return secret
            digest = secret.name
        elif written in {"none", "client"}:
            self.report.error(Code.WRONG_VALUE, path, f'"{written}" is no key that a client could show')
            return Secret("none")
        else:
            secret = self.secrets.resolve(written, path, expected=CLIENT_KEYS)
            if not secret.value:
                return secret
            digest = digest_of(secret.value)
        self._check_unique(digest, path)
        return secret

    def _check_unique(self, digest: str, path: KeyPath) -> None:
        if (first := self._path_of_key.setdefault(digest, path)) != path:
            line = self.report.map.value(first).line
            holder = ".".join(map(str, first[:2]))
            message = f"this key is that of `{holder}` too: nobody could tell whose request it is"
            self.report.error(Code.DUPLICATE, path, message, hint=f"the other stands in line {line}")

    # --- what a team may ask for, say and reach

    def _compile_gate(self, name: str, table: TeamTable, path: KeyPath) -> Rule | None:
        if table.models is None:
            return None
        allowed = matches_glob(MODEL, tuple(map(ascii_lower, listed(table.models))))
        return Rule(
            name=f"[teams.{name}] models",
            where=self.actions.place_of(path),
            path=path,
            checks=(NoneOf(((allowed,),)),),
            is_gate=True,
        )

    def _compile_headers(self, written: Mapping[str, str], path: KeyPath) -> Mapping[str, str]:
        check_header_names(list(written), path, self.report)
        for name, value in written.items():
            here = (*path, name)
            if name.lower() in SECRET_HEADERS:
                message = f"`{name}` carries a secret: a team can't be given one"
                self.report.error(Code.FORBIDDEN, here, message, key=True)
            if value.startswith(("env:", "file:")) or not value.isprintable() or value != value.strip():
                message = "what a team's requests say stands here itself, as one trimmed line"
                self.report.error(Code.WRONG_VALUE, here, message)
        return {name.lower(): value for name, value in written.items()}

    def _compile_provider_keys(self, table: TeamTable, path: KeyPath) -> Iterator[tuple[str, Provider]]:
        names = self.actions.names
        for name, written in (table.provider_keys or {}).items():
            here = (*path, name)
            provider = names.providers.get(name)
            if name not in names.written("providers"):
                message = f"there is no provider `{name}`"
                known = names.written("providers")
                self.report.unknown(Code.UNDEFINED, here, message, name, known, key=True)
            if provider is None:
                continue
            if provider.type in TYPES and TYPES[provider.type].in_process:
                message = f"type {provider.type} contacts nobody, so it has no key"
                self.report.error(Code.NOT_FOR_TYPE, here, message, key=True)
            values = listed(written)
            if {"none", "client"} & {*values}:
                message = f"a team's own key for `{name}` is a key: leave it out for the provider's"
                self.report.error(Code.WRONG_VALUE, here, message)
                continue
            paths = [here] if isinstance(written, str) else [(*here, index) for index in range(len(values))]
            keys = tuple(self.secrets.resolve(value, at) for value, at in zip(values, paths, strict=True))
            yield name, replace(provider, keys=keys, client_key=False)

    def _compile_targets(self, written: str | list[str], path: KeyPath) -> Iterator[str]:
        """Globs over `provider/model`; an alias stands for all targets that it names."""
        names = self.actions.names
        for index, name in enumerate(listed(written)):
            here = path if isinstance(written, str) else (*path, index)
            provider, slash, model = name.partition("/")
            if not slash:
                for entry in self.actions.targets.compile_entries(name, here):
                    yield entry.name
            elif not any(covers(provider, known) for known in names.written("providers")):
                known = names.written("providers")
                message = f"there is no provider `{provider}`"
                self.report.unknown(Code.UNDEFINED, here, message, provider, known)
            elif not model:
                self.report.error(Code.EMPTY, here, f"a model is missing after `{provider}/`")
            else:
                yield name
