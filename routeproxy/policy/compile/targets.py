"""Targets of rules and aliases: what their names stand for, and the tables that count for each."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import asdict, replace

from routeproxy.policy.compile.params import check_params, merge_params
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import (
    ActionTable,
    MemberTable,
    ParamsTable,
    PoolTable,
    ProviderTable,
    Targets,
    TargetTable,
    TimeoutsTable,
    TransformsTable,
)
from routeproxy.policy.file.values import seconds
from routeproxy.policy.patterns import is_glob
from routeproxy.policy.pools import STICKY, Member, Pool, weight_problem
from routeproxy.policy.problems import Code, KeyPath, closest
from routeproxy.policy.provider_types import TYPE_NAMES
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Recording, Target, Timeouts, TransformSettings

Definition = Literal["alias", "pool"]

_EXPECTED_MEMBER = '`"provider/model"`, or an alias of one'


class Entry(Struct, frozen=True):
    """One target as it is written, its alias resolved; its own tables come from the outermost in."""

    provider: Provider
    model: str
    params: tuple[ParamsTable, ...] = ()
    transforms: tuple[TransformsTable, ...] = ()
    timeouts: tuple[TimeoutsTable, ...] = ()
    member: Member | None = None

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"

    def with_tables(self, table: TargetTable) -> "Entry":
        return Entry(
            self.provider,
            self.model,
            (*self.params, *([table.params] if table.params else [])),
            (*self.transforms, *([table.transforms] if table.transforms else [])),
            (*self.timeouts, *([table.timeouts] if table.timeouts else [])),
            self.member,
        )


class NameTable:
    """What the names in a target stand for. Included files share that of the file that includes them."""

    def __init__(self, document: Mapping[str, Any], tables: Mapping[str, ProviderTable]) -> None:
        self.tables = tables
        """The tables of the providers, by their names."""
        self.providers: dict[str, Provider] = {}
        self.aliases: dict[str, tuple[Entry, ...]] = {}
        self.pools: dict[str, tuple[Entry, ...]] = {}
        self.sound: dict[str, tuple[Entry, ...]] = {}
        """By names of targets, what was found without fault: thousands of rules may name a few targets."""
        self.plain: dict[tuple[str, str, Recording | None], Target] = {}
        """By provider and model, targets that have no tables but those of their provider."""
        self._document = document

    def written(self, section: str) -> Iterable[str]:
        """The names in a section as the file has them, those with problems included."""
        table = self._document.get(section)
        return table.keys() if isinstance(table, dict) else ()


class TargetsCompiler:
    """Compiles the targets of one file."""

    def __init__(self, report: Report, names: NameTable) -> None:
        self.report = report
        self.names = names

    def compile_entries(
        self,
        written: "Targets | list[str | MemberTable]",
        path: KeyPath,
        *,
        of: Definition | None = None,
        first: int = 0,
    ) -> Iterator[Entry]:
        """`of`: what is being defined by these targets, an alias or a pool. A rule uses them. `first`: the
        place of the first of them in the list that they are from."""
        items = enumerate(written, first) if isinstance(written, list) else [(None, written)]
        for index, item in items:
            here = path if index is None else (*path, index)
            if isinstance(item, str):
                yield from self._resolve_name(item, here, of)
                continue
            check_params(item.params, (*here, "params"), self.report)
            check_timeouts(item.timeouts, (*here, "timeouts"), self.report)
            if item.target is None:
                if not self.report.faulty(here):
                    self.report.error(Code.MISSING, here, '`target = "provider/model"` is missing here')
                continue
            for entry in self._resolve_name(item.target, (*here, "target"), of):
                yield entry.with_tables(item)

    def compile_pool(self, name: str, table: PoolTable, path: KeyPath) -> tuple[Entry, ...]:
        if not table.members:
            if not self.report.faulty((*path, "members")):
                self.report.error(Code.MISSING, path, f"the pool `{name}` has no `members`", key=True)
            return ()
        pool = Pool(
            name=name,
            by=table.by or "session",
            sticky=seconds(table.sticky) if table.sticky is not None else STICKY,
        )
        found: dict[str, Entry] = {}
        for index, item in enumerate(table.members):
            here = (*path, "members", index)
            entries = list(self.compile_entries([item], (*path, "members"), of="pool", first=index))
            if len(entries) > 1:
                written = item if isinstance(item, str) else item.target
                message = f"the alias `{written}` stands for {len(entries)} targets, and a member is one"
                self.report.error(Code.WRONG_VALUE, here, message, hint="write each of them as a member")
                continue
            for entry in entries:
                if entry.name in found:
                    message = f"`{entry.name}` is a member of this pool already"
                    hint = "`weight` gives a member a larger share"
                    self.report.error(Code.DUPLICATE, here, message, hint=hint)
                elif any(_may_be_one(entry, other) for other in found.values()):
                    message = f"`{entry.provider.name}/*` may be another member of this pool, too"
                    self.report.error(Code.DUPLICATE, here, message)
                found[entry.name] = replace(entry, member=self._member(pool, entry, item, here))
        return tuple(found.values())

    def _member(self, pool: Pool, entry: Entry, item: str | MemberTable, path: KeyPath) -> Member:
        if isinstance(item, str):
            return Member(pool=pool, name=entry.name)
        weight = 1 if item.weight is None else item.weight
        if problem := weight_problem(weight):
            hint = "a member that is to get nothing is left out"
            self.report.error(Code.WRONG_VALUE, (*path, "weight"), problem, hint=hint)
        return Member(pool=pool, name=entry.name, weight=float(weight), max_concurrent=item.max_concurrent)

    def compile_target(self, entry: Entry, rule: ActionTable) -> Target:
        """`entry` in `rule`. Of the tables of its provider, of the rule and its own, the last one wins."""
        own = entry.params or entry.transforms or entry.timeouts or entry.member
        if own or rule.params or rule.transforms or rule.timeouts:
            return self._merge_tables(entry, rule)
        key = entry.provider.name, entry.model, rule.record
        if key not in self.names.plain:
            self.names.plain[key] = self._merge_tables(entry, rule)
        return self.names.plain[key]

    def _merge_tables(self, entry: Entry, rule: ActionTable) -> Target:
        provider = self.names.tables[entry.provider.name]
        transforms = (provider.transforms, rule.transforms, *entry.transforms)
        timeouts = _merge_stated((provider.timeouts, rule.timeouts, *entry.timeouts))
        return Target(
            provider=entry.provider,
            model=entry.model,
            params=merge_params((provider.params, rule.params, *entry.params)),
            transforms=TransformSettings(**_merge_stated(transforms)),
            timeouts=Timeouts(**{name: seconds(duration) for name, duration in timeouts.items()}),
            record=rule.record,
            member=entry.member,
        )

    def _resolve_name(self, name: str, path: KeyPath, of: Definition | None) -> Iterable[Entry]:
        if name in self.names.sound:
            return self.names.sound[name]
        if "/" in name:
            provider, _, model = name.partition("/")
            reported = self.report.count
            entries = self._resolve_model(provider, model, path)
            if self.report.count == reported:
                self.names.sound[name] = entries
            return entries
        pools, aliases = self.names.written("pools"), self.names.written("aliases")
        if of == "alias":
            other = "a pool" if name in pools else "another alias"
            message = f"an alias stands for a provider's model, never for {other}: `{name}`"
            self.report.error(Code.WRONG_VALUE, path, message, expected='`"provider/model"`')
            return ()
        if of == "pool" and name in pools:
            message = f"a member of a pool is a target or an alias of one, never a pool: `{name}`"
            self.report.error(
                Code.WRONG_VALUE, path, message, expected='`"provider/model"`, or an alias of one'
            )
            return ()
        if name in self.names.aliases:
            return self.names.aliases[name]
        if name in self.names.pools:
            return self.names.pools[name]
        with_pools = pools and of is None
        known = [*aliases, *pools] if with_pools else aliases
        if name not in known:
            what = "alias or pool" if with_pools else "alias"
            hint = "a target is `provider/model`, or an alias" + (" or a pool" if with_pools else "")
            if name in self.names.written("providers"):
                hint = f"`{name}` is a provider: write `{name}/MODEL`, or `{name}/*` for the model asked for"
            message = f"there is no {what} `{name}`"
            self.report.unknown(Code.UNDEFINED, path, message, name, known, hint=hint)
        return ()

    def _resolve_model(self, name: str, model: str, path: KeyPath) -> tuple[Entry, ...]:
        known = self.names.written("providers")
        if name not in known:
            hint = ""
            if name in TYPE_NAMES and not closest(name, known):
                hint = f"the line `[providers.{name}]` is a whole provider"
            message = f"there is no provider `{name}`"
            self.report.unknown(Code.UNDEFINED, path, message, name, known, hint=hint)
        self._check_model(name, model, path)
        provider = self.names.providers.get(name)
        if provider and model and model != "*" and not provider.admits(model):
            lists = f"`[providers.{name}.models]` lists what may be sent to it"
            message = f"{lists}, and `{model}` is not there"
            if provider.lists(model):
                message = f"{lists}, and in small letters `{model}` is an entry of another region or labels"
            self.report.unknown(Code.UNDEFINED, path, message, model, provider.models)
        return (Entry(provider, model),) if provider else ()

    def _check_model(self, provider: str, model: str, path: KeyPath) -> None:
        message = ""
        if not model:
            self.report.error(Code.EMPTY, path, f"a model is missing after `{provider}/`")
        elif is_glob(model) and model != "*":
            alone = f"a star stands only alone, `{provider}/*`, for the model asked for"
            message = f"`{model}` is not a model: {alone}"
        elif not model.isprintable() or " " in model:
            message = "a model's name has no spaces and no control characters"
        if message:
            self.report.error(Code.WRONG_VALUE, path, message)


def _may_be_one(entry: Entry, other: Entry) -> bool:
    """Whether one of them stands for any model, and so for the other."""
    return entry.provider is other.provider and "*" in (entry.model, other.model)


def check_timeouts(table: TimeoutsTable | None, path: KeyPath, report: Report) -> None:
    for name, duration in asdict(table).items() if table else ():
        check_duration(duration, (*path, name), report)


def check_duration(written: str | None, path: KeyPath, report: Report) -> None:
    if written is not None and not seconds(written):
        message = f"`{path[-1]}`: no time at all lets nothing through; leave it out for the usual"
        report.error(Code.WRONG_VALUE, path, message)


def _merge_stated(tables: Iterable[TransformsTable | TimeoutsTable | None]) -> dict[str, Any]:
    """The keys that the tables state, later tables over earlier ones."""
    return {
        name: value for table in tables if table for name, value in asdict(table).items() if value is not None
    }
