"""Reads the tables of a rules file, and reports every key and value that can't stand where it stands.

Values and types are walked side by side: msgspec alone would stop at the first mistake. What the values mean
is not asked here.
"""

import datetime
import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from msgspec import Meta
from msgspec import inspect as kinds

from routeproxy.policy.fact_table import FACTS
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import (
    CaseTable,
    InvariantTable,
    LayerFile,
    MatchTable,
    ModelTable,
    ProviderTable,
    RulesFile,
    RuleTable,
    Table,
    TargetTable,
    TeamTable,
)
from routeproxy.policy.problems import Code, KeyPath, closest, one_of

File = TypeVar("File", RulesFile, LayerFile)


def read(document: Mapping[str, Any], report: Report, kind: type[File]) -> File:
    """The sound part of `document`; what is wrong with the rest has gone to `report`."""
    sound = _Reader(report).read(document, _type_info(kind), ())
    return msgspec.convert(sound, kind)


_type_info = cache(kinds.type_info)
_REFUSED = object()
"""Stands for a value that is reported, and left out."""
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
"""A provider or a model is whole with nothing but its name; what the other tables lack is reported later."""
_JSON_SCALARS = (str, bool, int, float)


class _Reader:
    """Its methods return the sound part of a value, or `_REFUSED`."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def read(self, value: Any, kind: kinds.Type, path: KeyPath) -> Any:
        match kind:
            case kinds.AnyType():
                return self._read_json(value, path)
            case kinds.UnionType():
                fitting = [member for member in kind.types if _fits(value, member)]
                return (
                    self.read(value, fitting[0], path) if fitting else self._report_wrong(value, kind, path)
                )
            case _ if not _fits(value, kind):
                return self._report_wrong(value, kind, path)
            case kinds.StructType():
                return self._read_table(value, kind, path)
            case kinds.DictType():
                if not value:
                    return self._report_empty("this table", path)
                return self._read_entries(value, dict.fromkeys(value, kind.value_type), path)
            case kinds.ListType():
                return self._read_list(value, kind, path)
            case _:
                return self._read_leaf(value, kind, path)

    def _read_table(self, table: dict[str, Any], kind: kinds.StructType, path: KeyPath) -> Any:
        if kind.cls is RuleTable and _is_sound(table):
            return table
        known = {entry.encode_name: entry.type for entry in kind.fields}
        if not table and kind.cls not in _MAY_BE_EMPTY:
            return self._report_empty("this table", path)
        for key in table.keys() - known.keys():
            self._report_unknown(key, table[key], cast(type[Table], kind.cls), known, (*path, key))
        return self._read_entries({key: value for key, value in table.items() if key in known}, known, path)

    def _read_entries(self, table: dict[str, Any], types: Mapping[str, kinds.Type], path: KeyPath) -> Any:
        values = {key: self.read(value, types[key], (*path, key)) for key, value in table.items()}
        return {key: value for key, value in values.items() if value is not _REFUSED}

    def _read_list(self, items: list[Any], kind: kinds.ListType, path: KeyPath) -> Any:
        if not items:
            return self._report_empty("this list", path)
        values = [self.read(item, kind.item_type, (*path, index)) for index, item in enumerate(items)]
        # Whole or not at all: what is reported of an item later on goes by its position.
        return _REFUSED if any(value is _REFUSED for value in values) else values

    def _read_leaf(self, value: Any, kind: kinds.Type, path: KeyPath) -> Any:
        if value == "":
            return self._report_empty("this text", path)
        try:
            return msgspec.convert(value, _annotation(kind))
        except msgspec.ValidationError:
            return self._report_wrong(value, kind, path)

    def _read_json(self, value: Any, path: KeyPath) -> Any:
        """A value that is handed on to a back end: whatever JSON can have."""
        if isinstance(value, dict):
            return {key: self._read_json(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._read_json(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, _JSON_SCALARS) and not (isinstance(value, float) and not math.isfinite(value)):
            return value
        self.report.error(Code.WRONG_VALUE, path, f"{_describe(value)} can't be sent as JSON")
        return _REFUSED

    def _report_empty(self, subject: str, path: KeyPath) -> Any:
        hint = "a rule without `match` takes every request" if path and path[-1] == "match" else None
        self.report.error(Code.EMPTY, path, f"{subject} is empty", hint=hint)
        return _REFUSED

    def _report_wrong(self, value: Any, kind: kinds.Type, path: KeyPath) -> Any:
        name = next((part for part in reversed(path) if isinstance(part, str)), "the file")
        near = closest(value, _choices(kind)) if isinstance(value, str) else None
        self.report.error(
            Code.WRONG_VALUE,
            path,
            f"`{name}` can't be {_describe(value)}" + (f"; did you mean `{near}`?" if near else ""),
            expected=_describe_type(kind),
            hint=_hint_for_value(value, path),
        )
        return _REFUSED

    def _report_unknown(
        self, key: str, value: Any, cls: type[Table], known: Mapping[str, Any], path: KeyPath
    ) -> None:
        if cls is LayerFile and key in RulesFile.__struct_fields__:
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
    """Whether nothing in `value` is empty, and JSON can have all of it."""
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
    """The type of one value, back from its description."""
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


def _describe_type(kind: kinds.Type) -> str:
    """What stands behind "expected"."""
    match kind:
        case kinds.Metadata():
            return str((kind.extra or {}).get("expected") or _describe_type(kind.type))
        case kinds.UnionType():
            words = [
                _describe_type(member) for member in kind.types if not isinstance(member, kinds.NoneType)
            ]
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
    """The words that a type allows, if it is a closed list of them."""
    match kind:
        case kinds.UnionType():
            return tuple(word for member in kind.types for word in _choices(member))
        case kinds.LiteralType():
            return tuple(value for value in kind.values if isinstance(value, str))
    return ()


def _describe(value: Any) -> str:
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


_DURATIONS = frozenset(
    {"deadline", "backoff", "drain", "connect", "first_token", "idle", "total"}
    | {"header_timeout", "body_timeout", "keep_alive", "window", "cooldown", "max_cooldown"}
)
_NUMBERS = frozenset(fact.name for fact in FACTS if fact.kind == "number")


def _hint_for_value(value: Any, path: KeyPath) -> str | None:
    match path:
        case ("rules" | "invariants" | "tests" as name,) if isinstance(value, dict):
            return f"each {name.removesuffix('s')} begins with `[[{name}]]`, in double brackets"
        case (str(name),) if isinstance(value, list):
            return f"write `[{name}]`, in single brackets: there is only one"
        case (*_, str(name)) if name in _DURATIONS and isinstance(value, int | float):
            return f'write "{value}s" for seconds'
        case (*_, "expires") if isinstance(value, str):
            return "leave out the quotes: TOML has dates"
        case (*_, "match" | "not" | "when") if isinstance(value, str):
            return "write `match.model = …`"
        case (*_, name) if name in _NUMBERS and "cap" not in path and "set" not in path:
            return "write `min = …`, `max = …`, or both"
    return None


def _dotted(path: KeyPath, value: Any) -> str:
    """The key with dots in it, put together again from the nested tables that it became."""
    name = ".".join(map(str, path))
    if isinstance(value, dict) and len(value) == 1:
        key, inner = next(iter(value.items()))
        return _dotted((name, key), inner)
    return name
