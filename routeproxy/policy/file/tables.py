"""The rules file, field for field, and the walk that reads it. What it all means is `compile.py`'s affair.

Every key is optional here, because one that was refused leaves a gap: what is needed is asked for where it is
used. A key that a later version will enforce is refused by name, so that nobody relies on it.
"""

import datetime
import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

import msgspec
from msgspec import Meta, Struct, field
from msgspec import inspect as kinds

from routeproxy.policy.file.report import Report
from routeproxy.policy.problems import Code, KeyPath, closest, one_of

Duration = Annotated[
    str,
    Meta(
        pattern=r"^(\d+(\.\d+)?(ms|s|m|h))+$",
        extra={"expected": 'a duration such as "30s", "1m30s" or "500ms"'},
    ),
]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Strings = str | list[str]


def listed(value: str | list[str]) -> tuple[str, ...]:
    """What stands where one or several may."""
    return (value,) if isinstance(value, str) else tuple(value)


class Table(Struct, forbid_unknown_fields=True):
    """What all tables of the file have in common."""

    not_yet: ClassVar[frozenset[str]] = frozenset()
    """Keys of the language that this version does not enforce."""


# --- conditions


class TextTable(Table):
    equals: Strings | None = None
    prefix: Strings | None = None
    contains: Strings | None = None
    glob: Strings | None = None
    regex: Strings | None = None


class HeaderTable(TextTable):
    present: bool | None = None


class RangeTable(Table):
    min: Count | None = None
    max: Count | None = None


class MatchTable(Table):
    not_yet = frozenset({"percent"})

    team: Strings | None = None
    model: str | list[str] | TextTable | None = None
    headers: dict[str, str | list[str] | HeaderTable] | None = None
    input_tokens: RangeTable | None = None
    max_tokens: RangeTable | None = None
    stream: bool | None = None
    images: bool | None = None
    documents: bool | None = None
    tools: bool | str | list[str] | None = None
    thinking: bool | None = None
    effort: Strings | None = None
    system: str | list[str] | TextTable | None = None
    user: str | list[str] | HeaderTable | None = None
    url_target: bool | None = None
    any: "list[MatchTable] | None" = None
    not_: "MatchTable | list[MatchTable] | None" = field(name="not", default=None)


# --- what a rule does


class ParamsTable(Table):
    set: dict[str, Any] | None = None
    default: dict[str, Any] | None = None
    cap: dict[str, int | float] | None = None
    drop: list[str] | None = None
    extra_body: dict[str, Any] | None = None


class TransformsTable(Table):
    strip_attribution: bool | None = None
    think_tags: bool | None = None
    text_tool_calls: bool | None = None
    thinking: Literal["keep", "drop", "text"] | None = None
    newlines: Literal["keep", "unescape", "escape"] | None = None
    model_name: Literal["requested", "served"] | None = None


class TimeoutsTable(Table):
    connect: Duration | None = None
    first_token: Duration | None = None
    idle: Duration | None = None
    total: Duration | None = None


class TargetTable(Table):
    target: str | None = None
    params: ParamsTable | None = None
    transforms: TransformsTable | None = None


Targets = str | list[str | TargetTable] | TargetTable


class DenyTable(Table):
    message: str | None = None
    status: Literal[400, 402, 404, 413, 429] | None = None


class FallbackTable(Table):
    on: list[str] | None = None
    also: list[str] | None = None


class RetryTable(Table):
    attempts: Annotated[int, Meta(ge=1, le=10)] | None = None
    backoff: Duration | None = None


class ActionTable(Table):
    """What `[default]` and every rule may say."""

    deny: str | DenyTable | None = None
    targets: Targets | None = None
    fallback: bool | FallbackTable | None = None
    retry: RetryTable | None = None
    deadline: Duration | None = None
    timeouts: TimeoutsTable | None = None
    params: ParamsTable | None = None
    transforms: TransformsTable | None = None


class RuleTable(ActionTable):
    name: str | None = None
    match: MatchTable | None = None
    include: str | None = None


# --- the rest of the file


Zone = Literal["local", "private", "public"]

Ability = Literal[
    "files",
    "images_in_tool_messages",
    "parallel_tool_calls",
    "prefill",
    "priority_tier",
    "prompt_cache_key",
    "replays_reasoning",
    "sampling",
    "structured_outputs",
    "structured_outputs_with_tools",
    "takes_reasoning",
    "tool_choice_required",
    "tools",
    "top_k",
    "user",
    "vision",
]
"""What a provider may be said to support: the switches of `translate.profile.ModelProfile`, which a test
holds equal."""


class ModelTable(Table):
    """What is so of a model, or of all models that a glob names. What is left out is the provider's, or not
    known."""

    region: str | None = None
    labels: Strings | None = None
    context_window: Positive | None = None
    max_output_tokens: Positive | None = None
    vision: bool | None = None
    tools: bool | None = None
    thinking: bool | None = None


class ProviderTable(Table):
    type: str | None = None
    base_url: str | None = None
    api_key: Strings | None = None
    zone: Zone | None = None
    region: str | None = None
    labels: Strings | None = None
    models: dict[str, ModelTable] | None = None
    engine: Literal["direct", "litellm"] | None = None
    api: Literal["chat", "responses"] | None = None
    headers: dict[str, str] | None = None
    forward: list[str] | None = None
    params: ParamsTable | None = None
    transforms: TransformsTable | None = None
    timeouts: TimeoutsTable | None = None
    proxy: str | None = None
    ca_file: str | None = None
    supports: list[Ability] | None = None
    mid_system: Literal["keep", "user"] | None = None
    without_vision: Literal["placeholder", "refuse"] | None = None
    litellm_params: dict[str, Any] | None = None
    # what single types need: `providers.TYPES` says which
    api_version: str | None = None
    aws_profile_name: str | None = None
    aws_region_name: str | None = None
    credentials: str | None = None
    deployment: str | None = None
    keep_alive: str | None = None
    location: str | None = None
    num_ctx: Positive | None = None
    organization: str | None = None
    project: str | None = None


class KeyTable(Table):
    """A client's key. It works up to and on the day `expires`, in UTC."""

    name: str | None = None
    key: str | None = None
    expires: datetime.date | None = None


Keys = str | list[str | KeyTable] | KeyTable


class TeamTable(Table):
    keys: Keys | None = None
    models: Strings | None = None
    targets: Strings | None = None
    request_headers: dict[str, str] | None = None
    provider_keys: dict[str, Strings] | None = None
    explain: bool = False


class ServerTable(Table):
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8082
    max_body_mb: Positive = 32
    url_targets: bool = False
    no_fallback_header: bool = True
    require_key: bool | None = None
    admin_keys: Keys | None = None
    models: list[str] | None = None
    signing_key: str | None = None
    decision_log: str | None = None
    cors_origins: list[str] | None = None
    drain: Duration = "30s"


class ReachTable(Table):
    """What a target may be like: the keys hold together, a list means any of its values."""

    zone: Zone | list[Zone] | None = None
    region: Strings | None = None
    labels: Strings | None = None
    provider: Strings | None = None
    target: Strings | None = None


class InvariantTable(Table):
    name: str | None = None
    when: MatchTable | None = None
    never: ReachTable | None = None
    only: ReachTable | None = None


class RequestTable(Table):
    """A request by its facts. What is left out is the smallest request's."""

    body: str | None = None
    model: str | None = None
    team: str | None = None
    headers: dict[str, str] | None = None
    input_tokens: Count | None = None
    max_tokens: Count | None = None
    stream: bool | None = None
    images: bool | None = None
    documents: bool | None = None
    tools: bool | Strings | None = None
    thinking: bool | None = None
    effort: str | None = None
    system: str | None = None
    user: str | None = None
    url_target: str | None = None
    no_fallback: bool | None = None


class ExpectTable(Table):
    rule: str | None = None
    targets: Strings | None = None
    fallback: bool | None = None
    denied: bool | str | None = None
    transforms: TransformsTable | None = None


class CaseTable(Table):
    name: str | None = None
    request: RequestTable | None = None
    expect: ExpectTable | None = None
    never: ReachTable | None = None


class RulesFile(Table):
    schema_version: Literal[1] = 1
    server: ServerTable = field(default_factory=ServerTable)
    providers: dict[str, ProviderTable] = field(default_factory=dict)
    aliases: dict[str, Targets] = field(default_factory=dict)
    teams: dict[str, TeamTable] = field(default_factory=dict)
    rules: list[RuleTable] = field(default_factory=list)
    default: ActionTable | None = None
    invariants: list[InvariantTable] = field(default_factory=list)
    tests: list[CaseTable] = field(default_factory=list)


class LayerFile(Table):
    """An included file: the rules of one team."""

    team: str | None = None
    rules: list[RuleTable] = field(default_factory=list)
    tests: list[CaseTable] = field(default_factory=list)


File = TypeVar("File", RulesFile, LayerFile)


def read(document: Mapping[str, Any], report: Report, kind: type[File]) -> File:
    """The sound part of `document`; what is wrong with the rest has gone to `report`."""
    sound = _Reader(report).read(document, _type_info(kind), ())
    return msgspec.convert(sound, kind)


_type_info = cache(kinds.type_info)
_GONE = object()
_MAY_BE_EMPTY = {
    CaseTable,
    InvariantTable,
    LayerFile,
    ModelTable,
    ProviderTable,
    RuleTable,
    RulesFile,
    TeamTable,
}
"""A provider or a model of nothing but its name is whole; the others are told what they lack."""
_JSON = (str, bool, int, float)


class _Reader:
    """Walks values and types side by side. msgspec alone would stop at the first mistake."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def read(self, value: Any, kind: kinds.Type, path: KeyPath) -> Any:
        match kind:
            case kinds.AnyType():
                return self._json(value, path)
            case kinds.UnionType():
                fitting = [member for member in kind.types if _fits(value, member)]
                return self.read(value, fitting[0], path) if fitting else self._wrong(value, kind, path)
            case _ if not _fits(value, kind):
                return self._wrong(value, kind, path)
            case kinds.StructType():
                return self._table(value, kind, path)
            case kinds.DictType():
                if not value:
                    return self._empty("this table", path)
                return self._entries(value, dict.fromkeys(value, kind.value_type), path)
            case kinds.ListType():
                return self._list(value, kind, path)
            case _:
                return self._leaf(value, kind, path)

    def _table(self, table: dict[str, Any], kind: kinds.StructType, path: KeyPath) -> Any:
        if kind.cls is RuleTable and _is_sound(table):
            return table
        known = {entry.encode_name: entry.type for entry in kind.fields}
        if not table and kind.cls not in _MAY_BE_EMPTY:
            return self._empty("this table", path)
        for key in table.keys() - known.keys():
            self._unknown(key, table[key], cast(type[Table], kind.cls), known, (*path, key))
        return self._entries({key: value for key, value in table.items() if key in known}, known, path)

    def _entries(self, table: dict[str, Any], types: Mapping[str, kinds.Type], path: KeyPath) -> Any:
        read = {key: self.read(value, types[key], (*path, key)) for key, value in table.items()}
        return {key: value for key, value in read.items() if value is not _GONE}

    def _list(self, items: list[Any], kind: kinds.ListType, path: KeyPath) -> Any:
        if not items:
            return self._empty("this list", path)
        read = [self.read(item, kind.item_type, (*path, index)) for index, item in enumerate(items)]
        # Whole or not at all: what is reported of an item later on goes by its position.
        return _GONE if any(item is _GONE for item in read) else read

    def _leaf(self, value: Any, kind: kinds.Type, path: KeyPath) -> Any:
        if value == "":
            return self._empty("this text", path)
        try:
            return msgspec.convert(value, _annotation(kind))
        except msgspec.ValidationError:
            return self._wrong(value, kind, path)

    def _json(self, value: Any, path: KeyPath) -> Any:
        """A value that is handed on: anything that JSON can say."""
        if isinstance(value, dict):
            return {key: self._json(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._json(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, _JSON) and not (isinstance(value, float) and not math.isfinite(value)):
            return value
        self.report.error(Code.WRONG_VALUE, path, f"{_say(value)} can't be sent as JSON")
        return _GONE

    def _empty(self, what: str, path: KeyPath) -> Any:
        hint = "a rule without `match` takes every request" if path and path[-1] == "match" else None
        self.report.error(Code.EMPTY, path, f"{what} is empty", hint=hint)
        return _GONE

    def _wrong(self, value: Any, kind: kinds.Type, path: KeyPath) -> Any:
        name = next((part for part in reversed(path) if isinstance(part, str)), "the file")
        near = closest(value, _choices(kind)) if isinstance(value, str) else None
        self.report.error(
            Code.WRONG_VALUE,
            path,
            f"`{name}` can't be {_say(value)}" + (f"; did you mean `{near}`?" if near else ""),
            expected=_expected(kind),
            hint=_hint_for_value(value, path),
        )
        return _GONE

    def _unknown(
        self, key: str, value: Any, cls: type[Table], known: Mapping[str, Any], path: KeyPath
    ) -> None:
        if key in cls.not_yet:
            message = f"this version does not enforce `{key}` yet, so it refuses it instead of ignoring it"
            self.report.error(Code.NOT_YET, path, message, key=True)
        elif cls is LayerFile and key in RulesFile.__struct_fields__:
            message = f"an included file can't have `{key}`: it holds one team's rules and tests"
            self.report.error(
                Code.FORBIDDEN, path, message, hint="it belongs to the file that includes", key=True
            )
        elif cls is RulesFile and key == "team":
            message = "`team` begins an included file, which is checked with the file that includes it"
            hint = 'that file has `[[rules]]` with `include = "…"`'
            self.report.error(Code.UNKNOWN_KEY, path, message, hint=hint, key=True)
        elif cls is TargetTable and len(path) == 3 and path[0] == "aliases":
            name = _dotted(path[1:], value)
            message = f"`{path[1]}` is a table here: an unquoted dot in a key opens a table"
            self.report.error(Code.UNKNOWN_KEY, path, message, hint=f'quote the name: "{name}" = …', key=True)
        elif cls is MatchTable and key in RuleTable.__struct_fields__:
            message = f"`{key}` stands inside `match`"
            hint = (
                f"what follows `[rules.match]` is part of it: put `{key}` above, or write `match.model = …`"
            )
            self.report.error(Code.UNKNOWN_KEY, path, message, hint=hint, key=True)
        else:
            self.report.unknown(Code.UNKNOWN_KEY, path, f"unknown key `{key}`", key, known, key=True)


def _is_sound(rule: dict[str, Any]) -> bool:
    """Whether there is surely nothing to report of `rule`. There may be thousands; the walk takes 0.05 ms for
    each, and this 0.01."""
    try:
        msgspec.convert(rule, RuleTable)
    except msgspec.ValidationError:
        return False
    return _is_filled(rule)


def _is_filled(value: Any) -> bool:
    """Whether nothing in `value` is empty, or can't be said in JSON."""
    if isinstance(value, str):
        return value != ""
    if isinstance(value, dict):
        return bool(value) and all(map(_is_filled, value.values()))
    if isinstance(value, list):
        return bool(value) and all(map(_is_filled, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int)


def _fits(value: Any, kind: kinds.Type) -> bool:
    """Whether `value` has the outer shape of `kind`."""
    match kind:
        case kinds.Metadata():
            return _fits(value, kind.type)
        case kinds.StructType() | kinds.DictType():
            return isinstance(value, dict)
        case kinds.ListType():
            return isinstance(value, list)
        case kinds.StrType():
            return isinstance(value, str)
        case kinds.DateType():
            return isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)
        case kinds.BoolType():
            return isinstance(value, bool)
        case kinds.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case kinds.FloatType():
            return isinstance(value, float) and math.isfinite(value)
        case kinds.LiteralType():
            return any(value == choice and type(value) is type(choice) for choice in kind.values)
        case kinds.NoneType():
            return False
    return True


def _annotation(kind: kinds.Type) -> Any:
    match kind:
        case kinds.Metadata():
            return _annotation(kind.type)
        case kinds.StrType():
            return Annotated[str, Meta(pattern=kind.pattern)]
        case kinds.IntType():
            return Annotated[int, Meta(ge=kind.ge, le=kind.le)]
        case kinds.LiteralType():
            return Literal[kind.values]
        case kinds.DateType():
            return datetime.date
    return float if isinstance(kind, kinds.FloatType) else bool


def _expected(kind: kinds.Type) -> str:
    match kind:
        case kinds.Metadata():
            return str((kind.extra or {}).get("expected") or _expected(kind.type))
        case kinds.UnionType():
            words = [_expected(member) for member in kind.types if not isinstance(member, kinds.NoneType)]
            return " or ".join(dict.fromkeys(words))
        case kinds.StructType() | kinds.DictType():
            return "a table"
        case kinds.ListType():
            items = kind.item_type
            return "a list of tables" if isinstance(items, kinds.StructType) else "a list"
        case kinds.StrType():
            return "text in quotes"
        case kinds.DateType():
            return "a date such as 2027-06-30, without quotes"
        case kinds.BoolType():
            return "true or false"
        case kinds.IntType():
            bounds = [f"at least {kind.ge}"] if kind.ge is not None else []
            bounds += [f"at most {kind.le}"] if kind.le is not None else []
            return " ".join(["a whole number", *([f"of {' and '.join(bounds)}"] if bounds else [])])
        case kinds.LiteralType():
            return one_of(map(str, kind.values))
    return "a number"


def _choices(kind: kinds.Type) -> tuple[str, ...]:
    match kind:
        case kinds.UnionType():
            return tuple(word for member in kind.types for word in _choices(member))
        case kinds.LiteralType():
            return tuple(value for value in kind.values if isinstance(value, str))
    return ()


def _say(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"' if len(value) <= 60 else "this text"
        case int() | float():
            return f"the number {value}"
        case dict():
            return "a table"
        case list():
            return "a list of tables" if value and all(isinstance(item, dict) for item in value) else "a list"
        case datetime.date() | datetime.time():
            return "a date or time"
    return "this"


def _hint_for_value(value: Any, path: KeyPath) -> str | None:
    match path:
        case ("rules" | "invariants" | "tests" as name,) if isinstance(value, dict):
            return f"each {name.removesuffix('s')} begins with `[[{name}]]`, in double brackets"
        case (str(name),) if isinstance(value, list):
            return f"write `[{name}]`, in single brackets: there is only one"
        case (*_, "deadline" | "backoff" | "drain" | "connect" | "first_token" | "idle" | "total") if (
            isinstance(value, int | float)
        ):
            return f'write "{value}s" for seconds'
        case (*_, "expires") if isinstance(value, str):
            return "leave out the quotes: TOML has dates"
        case (*_, "match" | "not" | "when") if isinstance(value, str):
            return "write `match.model = …`"
        case (*_, "input_tokens" | "max_tokens") if "cap" not in path and "set" not in path:
            return "write `min = …`, `max = …`, or both"
    return None


def _dotted(path: KeyPath, value: Any) -> str:
    """The key that was meant, put together again from the nested tables that it became."""
    name = ".".join(map(str, path))
    if isinstance(value, dict) and len(value) == 1:
        key, inner = next(iter(value.items()))
        return _dotted((name, key), inner)
    return name


_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(duration: str) -> float:
    return sum(float(number) * _UNIT[unit] for number, unit in re.findall(r"([\d.]+)(ms|[smh])", duration))
