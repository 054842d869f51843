"""Rules text to `Policy`, or every reason why not.

All that can be wrong with a rules file is found here, before anything of it takes effect.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path as FilePath
from typing import Any, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import KNOWN_FIELDS, Envelope, decode_request
from routeproxy.policy.conditions import (
    Check,
    Equals,
    Flag,
    Within,
    check_header_names,
    compile_match,
)
from routeproxy.policy.decide import (
    USUAL_FAILURES,
    Denial,
    FailureKind,
    Fallback,
    Params,
    Policy,
    Retry,
    Rule,
    ServerSettings,
    Target,
    Timeouts,
    TransformSettings,
)
from routeproxy.policy.facts import Facts, requested_model_problem
from routeproxy.policy.file import (
    ActionTable,
    DenyTable,
    FallbackTable,
    MatchTable,
    ParamsTable,
    ProviderTable,
    RetryTable,
    RulesFile,
    RuleTable,
    ServerTable,
    Targets,
    TargetTable,
    TextTable,
    TimeoutsTable,
    TransformsTable,
    read,
    seconds,
)
from routeproxy.policy.locate import Path
from routeproxy.policy.problems import Code, Report, closest, unnamed_rule
from routeproxy.policy.providers import (
    TYPE_NAMES,
    Provider,
    Secret,
    compile_provider,
    only_model_name,
    read_secret,
    speaks_messages,
)

FAILURES: tuple[FailureKind, ...] = get_args(FailureKind)
_TIMEOUTS: tuple[FailureKind, ...] = ("timeout_connect", "timeout_first_token", "timeout_idle")
_RISKY: frozenset[FailureKind] = frozenset({"content_policy", "invalid_request"})

_NEVER_PARAMS = frozenset({"model", "messages", "system", "tools", "stream"})
_PARAMS = KNOWN_FIELDS - _NEVER_PARAMS
_CAPPED = frozenset({"max_tokens", "temperature", "top_p", "top_k"})
_LIMITS: Mapping[str, tuple[int, int | None]] = {
    "max_tokens": (1, None),
    "temperature": (0, 1),
    "top_p": (0, 1),
    "top_k": (0, None),
}
"""Of the Messages API, for every back end."""


def compile_rules(
    text: str, *, path: FilePath, environ: Mapping[str, str], allow_literal_keys: bool = False
) -> Policy:
    """The policy that `text` describes. Raises `RulesRefused` with all its problems; warnings stay with it.

    `environ` answers `env:NAME`. Nothing else is read: a `file:` key is opened when it is used.
    """
    report = Report(text.removeprefix("\ufeff"), str(path))
    file = read(report.parse(), report)
    policy = _Compiler(file, report, path, environ, allow_literal_keys).policy()
    if report.failed:
        raise report.refused()
    return replace(policy, warnings=report.problems, models=policy.server.models or _models(file, policy))


class _Entry(Struct, frozen=True):
    """One target as written, aliases replaced; its tables come from the outermost in."""

    provider: Provider
    model: str
    params: tuple[ParamsTable, ...] = ()
    transforms: tuple[TransformsTable, ...] = ()


class _Compiler:
    def __init__(
        self,
        file: RulesFile,
        report: Report,
        path: FilePath,
        environ: Mapping[str, str],
        allow_literal_keys: bool,
    ) -> None:
        self.file = file
        self.report = report
        self.path = path
        self.environ = environ
        self.allow_literal_keys = allow_literal_keys
        self.providers: dict[str, Provider] = {}
        self.aliases: dict[str, tuple[_Entry, ...]] = {}

    def policy(self) -> Policy:
        file = self.file
        server = self._server(file.server)
        for name, provider_table in file.providers.items():
            self._provider(name, provider_table)
        for name, written in file.aliases.items():
            self._alias(name, written)
        rules = self._rules(file.rules)
        default = self._default(file.default)
        tables = [rule.match for rule in file.rules if rule.match]
        every_match = [match for table in tables for match in _with_nested(table)]
        return Policy(
            version=self._version(server, rules, default),
            source=str(self.path),
            server=server,
            providers=self.providers,
            rules=rules,
            default=default,
            counts_tokens=any(match.input_tokens for match in every_match),
            reads_headers=frozenset(name.lower() for match in every_match for name in match.headers or ()),
        )

    # --- server, providers, aliases

    def _server(self, table: ServerTable) -> ServerSettings:
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
        if table.require_key and not self.environ.get("ANTHROPIC_AUTH_TOKEN"):
            message = "a key is required, but `ANTHROPIC_AUTH_TOKEN` is not set: nobody gets in"
            self.report.warn(Code.UNSET_VARIABLE, ("server", "require_key"), message)
        return ServerSettings(
            host=table.host,
            port=table.port,
            max_body_mb=table.max_body_mb,
            url_targets=table.url_targets,
            require_key=table.require_key,
            models=tuple(table.models or ()),
            signing_key=self._signing_key(table.signing_key),
            cors_origins=tuple(table.cors_origins or ()),
            drain=seconds(table.drain),
        )

    def _signing_key(self, written: str | None) -> Secret | None:
        if written is None:
            return None
        path = ("server", "signing_key")
        found = read_secret(written, path, self.report, self.environ, self.allow_literal_keys)
        return None if found.kind == "none" else found

    def _provider(self, name: str, table: ProviderTable) -> None:
        path: Path = ("providers", name)
        self._check_params(table.params, (*path, "params"))
        self._check_times(table.timeouts, (*path, "timeouts"))
        check_header_names(table.headers or {}, (*path, "headers"), self.report)
        if provider := compile_provider(name, table, self.report, self.environ, self.allow_literal_keys):
            self.providers[name] = provider

    def _alias(self, name: str, written: Targets) -> None:
        path: Path = ("aliases", name)
        if "/" in name:
            message = f"`{name}` can't be an alias: with a `/` it reads as a provider and its model"
            self.report.error(Code.WRONG_VALUE, path, message, key=True)
        self.aliases[name] = tuple(self._entries(written, path, in_alias=True))

    # --- rules

    def _rules(self, tables: list[RuleTable]) -> tuple[Rule, ...]:
        self._check_names(tables)
        rules = tuple(self._rule(table, index) for index, table in enumerate(tables))
        if not self.report.faulty(("rules",)):
            self._check_order(rules)
        return rules

    def _check_names(self, tables: list[RuleTable]) -> None:
        seen: dict[str, int] = {}
        for index, table in enumerate(tables):
            name = table.name or unnamed_rule(index)
            path: Path = ("rules", index, "name")
            if name == "default":
                self.report.error(Code.DUPLICATE, path, "the name `default` belongs to `[default]`")
            elif name in seen:
                line = self.report.map.value(("rules", seen[name])).line
                message = f"two rules are called `{name}`"
                self.report.error(Code.DUPLICATE, path, message, hint=f"the other stands in line {line}")
            elif not name.isprintable():
                self.report.error(Code.WRONG_VALUE, path, "a rule's name is one line of printable characters")
            seen.setdefault(name, index)

    def _check_order(self, rules: tuple[Rule, ...]) -> None:
        for index, rule in enumerate(rules):
            path: Path = ("rules", index)
            above = rules[:index]
            if takes_all := next((other for other in above if not other.checks), None):
                message = f"no request gets here: `{takes_all.name}` above has no `match` and takes them all"
                self.report.warn(Code.UNREACHABLE, path, message)
            elif rule.deny:
                taken = [
                    other for other in above if not other.deny and not _disjoint(other.checks, rule.checks)
                ]
                if taken:
                    message = f"this rule can't deny what `{taken[0].name}` above it has taken"
                    self.report.warn(Code.UNREACHABLE, path, message, hint="denials go first")

    def _rule(self, table: RuleTable, index: int) -> Rule:
        path: Path = ("rules", index)
        checks = compile_match(table.match, (*path, "match"), self.report) if table.match else ()
        return self._action(table, path, table.name or unnamed_rule(index), checks)

    def _default(self, table: ActionTable | None) -> Rule:
        if table is None:
            if not self.report.faulty(("default",)):
                self.report.error(
                    Code.MISSING,
                    (),
                    "`[default]` is missing",
                    hint="it says what becomes of a request that no rule takes: `targets = …` or `deny = …`",
                )
            return Rule(name="default", where="")
        return self._action(table, ("default",), "default", ())

    def _action(self, table: ActionTable, path: Path, name: str, checks: tuple[Check, ...]) -> Rule:
        where = f"{self.path.name}:{self.report.map.value(path).line}"
        self._check_params(table.params, (*path, "params"))
        self._check_times(table.timeouts, (*path, "timeouts"))
        self._limit(table.deadline, (*path, "deadline"))
        if table.deny is not None:
            self._check_denial(table, path)
            return Rule(name=name, where=where, checks=checks, deny=self._denial(table.deny, path))
        entries: tuple[_Entry, ...] = ()
        if table.targets is not None:
            entries = tuple(self._entries(table.targets, (*path, "targets")))
            self._check_pass_through(table, entries, path)
        elif not any(self.report.faulty((*path, key)) for key in ("targets", "deny")):
            self._miss_targets(path)
        targets = tuple(self._target(entry, table) for entry in entries)
        return Rule(
            name=name,
            where=where,
            checks=checks,
            targets=targets,
            fallback=self._fallback(table.fallback, len(targets), (*path, "fallback")),
            retry=_retry(table.retry),
            deadline=seconds(table.deadline) if table.deadline else None,
            echoes=any(target.model == "*" for target in targets),
        )

    def _miss_targets(self, path: Path) -> None:
        # A key that was refused may well be the one that is missing.
        if not self.report.faulty(path, Code.UNKNOWN_KEY, Code.NOT_YET):
            message = "a rule needs `targets` or `deny`"
            self.report.error(Code.MISSING, path, message, hint='write `targets = "provider/model"`')

    def _check_denial(self, table: ActionTable, path: Path) -> None:
        for key in ActionTable.__struct_fields__:
            if key != "deny" and getattr(table, key) is not None:
                message = f"`{key}` means nothing beside `deny`"
                self.report.error(Code.CONTRADICTION, (*path, key), message, key=True)

    def _denial(self, written: str | DenyTable, path: Path) -> Denial:
        if isinstance(written, str):
            return Denial(written)
        if written.message is None and not self.report.faulty((*path, "deny", "message")):
            self.report.error(Code.MISSING, (*path, "deny"), "a denial needs a `message`", key=True)
        return Denial(written.message or "", written.status or 400)

    def _fallback(self, written: bool | FallbackTable | None, targets: int, path: Path) -> Fallback:
        if written is None:
            return Fallback(targets > 1)
        if written is False and targets > 1:
            message = f"without fallback only the first of {targets} targets is ever used"
            self.report.warn(Code.REST_UNUSED, path, message)
        if isinstance(written, bool):
            return Fallback(written)
        if written.on and written.also:
            message = "`on` replaces the usual failures and `also` adds to them: only one can be meant"
            self.report.error(Code.CONTRADICTION, (*path, "also"), message, key=True)
        usual = USUAL_FAILURES if written.on is None else frozenset[FailureKind]()
        named = self._failures(written.on or (), (*path, "on")) | self._failures(
            written.also or (), (*path, "also")
        )
        return Fallback(True, usual | named)

    def _failures(self, names: Iterable[str], path: Path) -> frozenset[FailureKind]:
        found: set[FailureKind] = set()
        for index, name in enumerate(names):
            kinds = _TIMEOUTS if name == "timeout" else tuple(kind for kind in FAILURES if kind == name)
            if not kinds:
                known = (*FAILURES, "timeout")
                self.report.unknown(Code.UNDEFINED, (*path, index), f"`{name}` is not a failure", name, known)
            if _RISKY.intersection(kinds):
                message = f"`{name}`: the next target gets a request that this one has found fault with"
                self.report.warn(Code.RISKY_FALLBACK, (*path, index), message)
            found.update(kinds)
        return frozenset(found)

    # --- targets

    def _entries(self, written: Targets, path: Path, *, in_alias: bool = False) -> Iterator[_Entry]:
        items = enumerate(written) if isinstance(written, list) else [(None, written)]
        for index, item in items:
            here = path if index is None else (*path, index)
            if isinstance(item, str):
                yield from self._named(item, here, in_alias)
                continue
            self._check_params(item.params, (*here, "params"))
            if item.target is None:
                if not self.report.faulty(here):
                    self.report.error(Code.MISSING, here, '`target = "provider/model"` is missing here')
                continue
            for entry in self._named(item.target, (*here, "target"), in_alias):
                yield _with_tables(entry, item)

    def _named(self, name: str, path: Path, in_alias: bool) -> Iterable[_Entry]:
        if "/" in name:
            provider, _, model = name.partition("/")
            return self._at_provider(provider, model, path)
        if in_alias:
            message = f"an alias stands for a provider's model, never for another alias: `{name}`"
            self.report.error(Code.WRONG_VALUE, path, message, expected='`"provider/model"`')
            return ()
        if name in self.aliases:
            return self.aliases[name]
        known = self._written("aliases")
        if name not in known:
            hint = "a target is `provider/model`, or an alias"
            if name in self._written("providers"):
                hint = f"`{name}` is a provider: write `{name}/MODEL`, or `{name}/*` for the model asked for"
            self.report.unknown(Code.UNDEFINED, path, f"there is no alias `{name}`", name, known, hint=hint)
        return ()

    def _at_provider(self, name: str, model: str, path: Path) -> Iterable[_Entry]:
        known = self._written("providers")
        if name not in known:
            here = f"[providers.{name}]"
            hint = (
                f"the line `{here}` is a whole provider"
                if name in TYPE_NAMES and not closest(name, known)
                else ""
            )
            self.report.unknown(
                Code.UNDEFINED, path, f"there is no provider `{name}`", name, known, hint=hint
            )
        if not model:
            self.report.error(Code.EMPTY, path, f"a model is missing after `{name}/`")
        elif "*" in model and model != "*":
            message = (
                f"`{model}` is not a model: a star stands only alone, `{name}/*`, for the model asked for"
            )
            self.report.error(Code.WRONG_VALUE, path, message)
        elif not model.isprintable() or " " in model:
            self.report.error(
                Code.WRONG_VALUE, path, "a model's name has no spaces and no control characters"
            )
        provider = self.providers.get(name)
        return (_Entry(provider, model),) if provider else ()

    def _written(self, section: str) -> Iterable[str]:
        """The names in a section as the file has them, those with problems included."""
        table = self.report.document.get(section)
        return table.keys() if isinstance(table, dict) else ()

    def _check_pass_through(self, table: ActionTable, entries: tuple[_Entry, ...], path: Path) -> None:
        for entry in entries:
            asked = [transforms for transforms in (table.transforms, *entry.transforms) if transforms]
            if speaks_messages(entry.provider.type) and not all(map(only_model_name, asked)):
                name = f"{entry.provider.name}/{entry.model}"
                message = f"transforms don't apply to `{name}`: it gets and gives Messages as they are"
                self.report.warn(
                    Code.NO_EFFECT, (*path, "transforms" if table.transforms else "targets"), message
                )
                return

    def _target(self, entry: _Entry, rule: ActionTable) -> Target:
        provider = self.file.providers[entry.provider.name]
        return Target(
            provider=entry.provider,
            model=entry.model,
            params=_params((provider.params, rule.params, *entry.params)),
            transforms=_transforms((provider.transforms, rule.transforms, *entry.transforms)),
            timeouts=_timeouts((provider.timeouts, rule.timeouts)),
        )

    def _check_params(self, params: ParamsTable | None, path: Path) -> None:
        if params is None:
            return
        for section in ("default", "set", "cap", "drop", "extra_body"):
            names = getattr(params, section) or ()
            for index, name in enumerate(names):
                here = (*path, section, index if section == "drop" else name)
                self._check_param(section, name, here, key=section != "drop")
                if isinstance(names, dict) and section != "extra_body" and not self.report.faulty(here):
                    self._check_value(section, name, names[name], here)

    def _check_param(self, section: str, name: str, path: Path, *, key: bool) -> None:
        if name in _NEVER_PARAMS:
            self.report.error(Code.FORBIDDEN, path, f"`{name}` is not a rule's to change", key=key)
        elif section == "cap" and name not in _CAPPED:
            self.report.unknown(Code.UNKNOWN_KEY, path, f"`{name}` can't be capped", name, _CAPPED, key=key)
        elif section != "extra_body" and name not in _PARAMS:
            hint = "what only the back end knows stands under `extra_body`"
            what = f"Messages have no parameter `{name}`"
            self.report.unknown(Code.UNKNOWN_KEY, path, what, name, _PARAMS, key=key, hint=hint)

    def _check_value(self, section: str, name: str, value: Any, path: Path) -> None:
        """What the API would refuse, every request would be refused for."""
        body = msgspec.json.encode({"model": "m", "messages": [], name: value})
        try:
            decode_request(body)
        except InvalidRequest as refused:
            self.report.error(Code.WRONG_VALUE, path, refused.message)
            return
        least, most = _LIMITS.get(name, (None, None))
        if least is not None and value < least:
            self.report.error(Code.WRONG_VALUE, path, f"`{name}` is at least {least}")
        elif most is not None and value > most and section != "cap":
            self.report.error(Code.WRONG_VALUE, path, f"`{name}` is at most {most}")

    def _check_times(self, table: TimeoutsTable | None, path: Path) -> None:
        for name, duration in asdict(table).items() if table else ():
            self._limit(duration, (*path, name))

    def _limit(self, written: str | None, path: Path) -> None:
        if written is not None and not seconds(written):
            message = f"`{path[-1]}`: no time at all lets nothing through; leave it out for the usual"
            self.report.error(Code.WRONG_VALUE, path, message)

    # --- the version

    def _version(self, server: ServerSettings, rules: tuple[Rule, ...], default: Rule) -> str:
        if self.report.failed:
            return ""
        matches = [rule.match for rule in self.file.rules]
        meaning = {
            "server": {**asdict(server), "signing_key": server.signing_key and server.signing_key.reference},
            "providers": {
                name: self._provider_meaning(provider) for name, provider in self.providers.items()
            },
            "rules": [_rule_meaning(rule, match) for rule, match in zip(rules, matches, strict=True)],
            "default": _rule_meaning(default, None),
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


def _rule_meaning(rule: Rule, match: MatchTable | None) -> dict[str, Any]:
    return {
        "name": rule.name,
        "match": match,
        "deny": rule.deny,
        "targets": [{**asdict(target), "provider": target.provider.name} for target in rule.targets],
        "fallback": rule.fallback,
        "retry": rule.retry,
        "deadline": rule.deadline,
    }


def _with_tables(entry: _Entry, table: TargetTable) -> _Entry:
    return _Entry(
        entry.provider,
        entry.model,
        (*entry.params, *([table.params] if table.params else [])),
        (*entry.transforms, *([table.transforms] if table.transforms else [])),
    )


def _retry(table: RetryTable | None) -> Retry:
    usual = Retry()
    if table is None:
        return usual
    return Retry(table.attempts or usual.attempts, seconds(table.backoff) if table.backoff else usual.backoff)


def _params(tables: Iterable[ParamsTable | None]) -> Params:
    """Later tables win key by key; of several caps the lowest counts."""
    merged = Params(default={}, set={}, cap={}, extra_body={})
    for table in tables:
        if table is None:
            continue
        cap = dict(merged.cap)
        for name, value in (table.cap or {}).items():
            cap[name] = min(value, cap.get(name, value))
        merged = Params(
            default={**merged.default, **(table.default or {})},
            set={**merged.set, **(table.set or {})},
            cap=cap,
            drop=merged.drop.union(table.drop or ()),
            extra_body=_deep_merged(merged.extra_body, table.extra_body or {}),
        )
    return merged


def _deep_merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = (
            _deep_merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
        )
    return merged


def _transforms(tables: Iterable[TransformsTable | None]) -> TransformSettings:
    return TransformSettings(**_said(tables))


def _timeouts(tables: Iterable[TimeoutsTable | None]) -> Timeouts:
    return Timeouts(**{name: seconds(duration) for name, duration in _said(tables).items()})


def _said(tables: Iterable[TransformsTable | TimeoutsTable | None]) -> dict[str, Any]:
    """What the tables say, later ones over earlier ones."""
    return {
        name: value for table in tables if table for name, value in asdict(table).items() if value is not None
    }


def _with_nested(match: MatchTable) -> Iterator[MatchTable]:
    yield match
    negated = [match.not_] if isinstance(match.not_, MatchTable) else match.not_ or []
    for inner in (*(match.any or ()), *negated):
        yield from _with_nested(inner)


def _disjoint(some: tuple[Check, ...], others: tuple[Check, ...]) -> bool:
    """Whether no request can pass both, as far as can be seen at a glance."""
    return any(_excludes(one, other) for one in some for other in others)


def _excludes(one: Check, other: Check) -> bool:
    match one, other:
        case Equals(), Equals():
            return one.subject.name == other.subject.name and not set(one.values) & set(other.values)
        case Flag(), Flag():
            return one.fact == other.fact and one.wanted is not other.wanted
        case Within(), Within() if one.fact == other.fact:
            return _below(one.max, other.min) or _below(other.max, one.min)
    return False


def _below(top: int | None, bottom: int | None) -> bool:
    return top is not None and bottom is not None and top < bottom


# --- /v1/models


def _models(file: RulesFile, policy: Policy) -> tuple[str, ...]:
    """The names that rules state whole: what a `match` equals, and a target's model if asking leads to it.

    Claude Code shows only names with `claude` or `anthropic` in them, so a name without gets a twin
    `anthropic/NAME`, where asking for the twin comes to the same.
    """
    reached = cache(partial(_reached, policy))
    found = dict.fromkeys(name for rule in file.rules if rule.match for name in _equal_names(rule.match))
    for rule in (*policy.rules, policy.default):
        for target in rule.targets:
            if target.model != "*" and reached(target.model)[:1] == (target.name,):
                found.setdefault(target.model)
    listed = [name for name in found if requested_model_problem(name) is None]
    unseen = [name for name in listed if "claude" not in name.lower() and "anthropic" not in name.lower()]
    return (
        *listed,
        *(f"anthropic/{name}" for name in unseen if reached(f"anthropic/{name}") == reached(name)),
    )


def _equal_names(match: MatchTable) -> Iterator[str]:
    if isinstance(match.model, TextTable) and match.model.equals:
        yield from [match.model.equals] if isinstance(match.model.equals, str) else match.model.equals
    for inner in match.any or ():
        yield from _equal_names(inner)


def _reached(policy: Policy, model: str) -> tuple[str, ...]:
    """Where the smallest request for `model` goes."""
    decision = policy.decide(Facts(Envelope(model=model, messages=msgspec.Raw(b"[]")), {}))
    return tuple(target.name for target in decision.targets)
