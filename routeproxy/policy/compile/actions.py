"""What a rule does, from its tables: targets and their order, fallback, times, parameters, transforms."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import KNOWN_FIELDS, decode_request
from routeproxy.policy.compile.providers import only_model_name
from routeproxy.policy.conditions import Check
from routeproxy.policy.decide import USUAL_FAILURES, Denial, FailureKind, Fallback, Retry, Rule
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import (
    ActionTable,
    DenyTable,
    FallbackTable,
    ParamsTable,
    ProviderTable,
    RetryTable,
    Targets,
    TargetTable,
    TimeoutsTable,
    TransformsTable,
)
from routeproxy.policy.file.values import seconds
from routeproxy.policy.patterns import is_glob
from routeproxy.policy.problems import Code, KeyPath, closest
from routeproxy.policy.provider_types import TYPE_NAMES, speaks_messages
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Params, Target, Timeouts, TransformSettings

FAILURES: tuple[FailureKind, ...] = get_args(FailureKind)
_TIMEOUTS: tuple[FailureKind, ...] = ("timeout_connect", "timeout_first_token", "timeout_idle")
_RISKY: frozenset[FailureKind] = frozenset({"content_policy", "invalid_request"})

_NEVER_PARAMS = frozenset({"model", "messages", "system", "tools", "stream", "fallbacks"})
PARAMS = KNOWN_FIELDS - _NEVER_PARAMS
CAPPED = frozenset({"max_tokens", "temperature", "top_p", "top_k"})
_LIMITS: Mapping[str, tuple[int, int | None]] = {
    "max_tokens": (1, None),
    "temperature": (0, 1),
    "top_p": (0, 1),
    "top_k": (0, None),
}
"""Of the Messages API, for every back end."""


class Entry(Struct, frozen=True):
    """One target as written, aliases replaced; its tables come from the outermost in."""

    provider: Provider
    model: str
    params: tuple[ParamsTable, ...] = ()
    transforms: tuple[TransformsTable, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"


class NameTable:
    """What the names in a target stand for. Included files share that of the file that includes them."""

    def __init__(self, document: Mapping[str, Any], tables: Mapping[str, ProviderTable]) -> None:
        self.tables = tables
        self.providers: dict[str, Provider] = {}
        self.aliases: dict[str, tuple[Entry, ...]] = {}
        self._document = document

    def written(self, section: str) -> Iterable[str]:
        """The names in a section as the file has them, those with problems included."""
        table = self._document.get(section)
        return table.keys() if isinstance(table, dict) else ()


class Actions:
    """Compiles the actions of one file."""

    def __init__(self, report: Report, label: str, book: NameTable, file: int = 0) -> None:
        """`label` is what the file is called where a rule is named; `file` its number."""
        self.report = report
        self.label = label
        self.book = book
        self.file = file

    def where(self, path: KeyPath) -> str:
        return f"{self.label}:{self.report.map.value(path).line}"

    def rule(self, table: ActionTable, path: KeyPath, name: str, checks: tuple[Check, ...]) -> Rule:
        here: dict[str, Any] = {"where": self.where(path), "file": self.file, "path": path}
        self.check_params(table.params, (*path, "params"))
        self.check_times(table.timeouts, (*path, "timeouts"))
        self._limit(table.deadline, (*path, "deadline"))
        if table.deny is not None:
            self._check_denial(table, path)
            return Rule(name=name, **here, checks=checks, deny=self._denial(table.deny, path))
        entries: tuple[Entry, ...] = ()
        if table.targets is not None:
            entries = tuple(self.entries(table.targets, (*path, "targets")))
            self._check_pass_through(table, entries, path)
        elif not any(self.report.faulty((*path, key)) for key in ("targets", "deny")):
            self._miss_targets(path)
        targets = tuple(self._target(entry, table) for entry in entries)
        return Rule(
            name=name,
            **here,
            checks=checks,
            targets=targets,
            fallback=self._fallback(table.fallback, len(targets), (*path, "fallback")),
            retry=_retry(table.retry),
            deadline=seconds(table.deadline) if table.deadline else None,
            echoes=any(target.model == "*" for target in targets),
        )

    def _miss_targets(self, path: KeyPath) -> None:
        # A key that was refused may well be the one that is missing.
        if not self.report.faulty(path, Code.UNKNOWN_KEY, Code.NOT_YET):
            message = "a rule needs `targets` or `deny`"
            self.report.error(Code.MISSING, path, message, hint='write `targets = "provider/model"`')

    def _check_denial(self, table: ActionTable, path: KeyPath) -> None:
        for key in ActionTable.__struct_fields__:
            if key != "deny" and getattr(table, key) is not None:
                message = f"`{key}` means nothing beside `deny`"
                self.report.error(Code.CONTRADICTION, (*path, key), message, key=True)

    def _denial(self, written: str | DenyTable, path: KeyPath) -> Denial:
        if isinstance(written, str):
            return Denial(written)
        if written.message is None and not self.report.faulty((*path, "deny", "message")):
            self.report.error(Code.MISSING, (*path, "deny"), "a denial needs a `message`", key=True)
        return Denial(written.message or "", written.status or 400)

    def _fallback(self, written: bool | FallbackTable | None, targets: int, path: KeyPath) -> Fallback:
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

    def _failures(self, names: Iterable[str], path: KeyPath) -> frozenset[FailureKind]:
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

    def entries(self, written: Targets, path: KeyPath, *, in_alias: bool = False) -> Iterator[Entry]:
        items = enumerate(written) if isinstance(written, list) else [(None, written)]
        for index, item in items:
            here = path if index is None else (*path, index)
            if isinstance(item, str):
                yield from self._named(item, here, in_alias)
                continue
            self.check_params(item.params, (*here, "params"))
            if item.target is None:
                if not self.report.faulty(here):
                    self.report.error(Code.MISSING, here, '`target = "provider/model"` is missing here')
                continue
            for entry in self._named(item.target, (*here, "target"), in_alias):
                yield _with_tables(entry, item)

    def _named(self, name: str, path: KeyPath, in_alias: bool) -> Iterable[Entry]:
        if "/" in name:
            provider, _, model = name.partition("/")
            return self._at_provider(provider, model, path)
        if in_alias:
            message = f"an alias stands for a provider's model, never for another alias: `{name}`"
            self.report.error(Code.WRONG_VALUE, path, message, expected='`"provider/model"`')
            return ()
        if name in self.book.aliases:
            return self.book.aliases[name]
        known = self.book.written("aliases")
        if name not in known:
            hint = "a target is `provider/model`, or an alias"
            if name in self.book.written("providers"):
                hint = f"`{name}` is a provider: write `{name}/MODEL`, or `{name}/*` for the model asked for"
            self.report.unknown(Code.UNDEFINED, path, f"there is no alias `{name}`", name, known, hint=hint)
        return ()

    def _at_provider(self, name: str, model: str, path: KeyPath) -> Iterable[Entry]:
        known = self.book.written("providers")
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
        elif is_glob(model) and model != "*":
            message = (
                f"`{model}` is not a model: a star stands only alone, `{name}/*`, for the model asked for"
            )
            self.report.error(Code.WRONG_VALUE, path, message)
        elif not model.isprintable() or " " in model:
            self.report.error(
                Code.WRONG_VALUE, path, "a model's name has no spaces and no control characters"
            )
        provider = self.book.providers.get(name)
        if provider and model and model != "*" and not provider.admits(model):
            lists = f"`[providers.{name}.models]` lists what may be sent to it"
            lacks = f"{lists}, and `{model}` is not there"
            if provider.lists(model):
                lacks = f"{lists}, and in small letters `{model}` is an entry of another region or labels"
            self.report.unknown(Code.UNDEFINED, path, lacks, model, provider.models)
        return (Entry(provider, model),) if provider else ()

    def _check_pass_through(self, table: ActionTable, entries: tuple[Entry, ...], path: KeyPath) -> None:
        for entry in entries:
            asked = [transforms for transforms in (table.transforms, *entry.transforms) if transforms]
            if speaks_messages(entry.provider.type) and not all(map(only_model_name, asked)):
                name = f"{entry.provider.name}/{entry.model}"
                message = f"transforms don't apply to `{name}`: it gets and gives Messages as they are"
                self.report.warn(
                    Code.NO_EFFECT, (*path, "transforms" if table.transforms else "targets"), message
                )
                return

    def _target(self, entry: Entry, rule: ActionTable) -> Target:
        provider = self.book.tables[entry.provider.name]
        return Target(
            provider=entry.provider,
            model=entry.model,
            params=_params((provider.params, rule.params, *entry.params)),
            transforms=_transforms((provider.transforms, rule.transforms, *entry.transforms)),
            timeouts=_timeouts((provider.timeouts, rule.timeouts)),
        )

    def check_params(self, params: ParamsTable | None, path: KeyPath) -> None:
        if params is None:
            return
        for section in ("default", "set", "cap", "drop", "extra_body"):
            names = getattr(params, section) or ()
            for index, name in enumerate(names):
                here = (*path, section, index if section == "drop" else name)
                self._check_param(section, name, here, key=section != "drop")
                if isinstance(names, dict) and section != "extra_body" and not self.report.faulty(here):
                    self._check_value(section, name, names[name], here)

    def _check_param(self, section: str, name: str, path: KeyPath, *, key: bool) -> None:
        if name in _NEVER_PARAMS:
            self.report.error(Code.FORBIDDEN, path, f"`{name}` is not a rule's to change", key=key)
        elif section == "cap" and name not in CAPPED:
            self.report.unknown(Code.UNKNOWN_KEY, path, f"`{name}` can't be capped", name, CAPPED, key=key)
        elif section != "extra_body" and name not in PARAMS:
            hint = "what only the back end knows stands under `extra_body`"
            what = f"Messages have no parameter `{name}`"
            self.report.unknown(Code.UNKNOWN_KEY, path, what, name, PARAMS, key=key, hint=hint)

    def _check_value(self, section: str, name: str, value: Any, path: KeyPath) -> None:
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

    def check_times(self, table: TimeoutsTable | None, path: KeyPath) -> None:
        for name, duration in asdict(table).items() if table else ():
            self._limit(duration, (*path, name))

    def _limit(self, written: str | None, path: KeyPath) -> None:
        if written is not None and not seconds(written):
            message = f"`{path[-1]}`: no time at all lets nothing through; leave it out for the usual"
            self.report.error(Code.WRONG_VALUE, path, message)


def _with_tables(entry: Entry, table: TargetTable) -> Entry:
    return Entry(
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
