"""The JSON Schema of the rules file, for editors: what may stand where, and what each key means.

It is drawn from `file.tables`, so it knows forms, bounds and closed lists, but no names: whether a provider
is there is `check`'s to say. What it refuses, `check` refuses too.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import NODEFAULT
from msgspec import inspect as kinds

from routeproxy.policy.compile.actions import FAILURES
from routeproxy.policy.compile.descriptions import KEYS, TABLES
from routeproxy.policy.compile.params import CAPPED, PARAMS
from routeproxy.policy.fact_table import FACTS
from routeproxy.policy.file.tables import (
    ActionTable,
    CaseTable,
    DenyTable,
    FallbackTable,
    KeyTable,
    LayerFile,
    LintsTable,
    MatchTable,
    MemberTable,
    ParamsTable,
    PoolTable,
    ProviderTable,
    RequestTable,
    RulesFile,
    RuleTable,
    TargetTable,
)
from routeproxy.policy.problems import ACCEPTABLE
from routeproxy.policy.provider_types import TYPE_NAMES

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
"""The newest that Taplo, and so "Even Better TOML", is sure to follow."""

NEEDED: Mapping[type, tuple[str, ...]] = {
    RulesFile: ("default",),
    LayerFile: ("team",),
    CaseTable: ("request",),
    DenyTable: ("message",),
    KeyTable: ("key",),
    TargetTable: ("target",),
    MemberTable: ("target",),
    PoolTable: ("members",),
}
"""No table is whole without these. Where one of several will do, none is named here."""

CLOSED: Mapping[tuple[type, str], tuple[str, ...]] = {
    (LintsTable, "accept"): ACCEPTABLE,
    (ActionTable, "accept"): ACCEPTABLE,
    (RuleTable, "accept"): ACCEPTABLE,
    (FallbackTable, "on"): (*FAILURES, "timeout"),
    (FallbackTable, "also"): (*FAILURES, "timeout"),
    (ParamsTable, "set"): tuple(sorted(PARAMS)),
    (ParamsTable, "default"): tuple(sorted(PARAMS)),
    (ParamsTable, "cap"): tuple(sorted(CAPPED)),
    (ParamsTable, "drop"): tuple(sorted(PARAMS)),
    (ProviderTable, "type"): TYPE_NAMES,
}
"""Words, or keys of a table, that the types leave open and the compiler holds against a list."""

SUGGESTED: Mapping[tuple[type, str], tuple[str, ...]] = {
    (table, fact.name): fact.known for table in (MatchTable, RequestTable) for fact in FACTS if fact.known
}
"""Words that are known, where others may come."""


def schema(*, layer: bool = False) -> Schema:
    """The schema of a rules file, or of an included file."""
    writer = _Writer()
    root = writer.write_table(LayerFile if layer else RulesFile)
    title = f"{'An included file' if layer else 'A rules file'} of routeproxy"
    return {"$schema": DRAFT, "title": title, **root, "definitions": writer.definitions}


class _Writer:
    """Walks the types. Every table but the outermost becomes a definition, since `match` may hold itself."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}

    def write_table(self, cls: type) -> Schema:
        kind = kinds.type_info(cls)
        assert isinstance(kind, kinds.StructType)
        needed = {"required": list(NEEDED[cls])} if cls in NEEDED else {}
        properties = {entry.encode_name: self._write_property(cls, entry) for entry in kind.fields}
        return {
            "description": TABLES[cls],
            "type": "object",
            "properties": properties,
            **needed,
            "additionalProperties": False,
        }

    def _write_property(self, cls: type, entry: kinds.Field) -> Schema:
        key = (cls, entry.encode_name)
        value = self._write_value(entry.type)
        if key in CLOSED:
            value = _restrict(CLOSED[key], value)
        if "$ref" in value:  # draft 7 reads nothing that stands beside a reference
            value = {"allOf": [value]}
        examples = {"examples": list(SUGGESTED[key])} if key in SUGGESTED else {}
        default = {"default": entry.default} if entry.default not in (NODEFAULT, None) else {}
        return {"description": _describe(*key), **value, **examples, **default}

    def _write_value(self, kind: kinds.Type) -> Schema:
        match kind:
            case kinds.AnyType():
                return {}
            case kinds.Metadata():
                return self._write_value(kind.type)
            case kinds.StructType():
                return self._write_reference(kind.cls)
            case kinds.UnionType():
                # TOML has no null: `None` stands for a key that is left out.
                members = [member for member in kind.types if not isinstance(member, kinds.NoneType)]
                return _merge([self._write_value(member) for member in members])
            case kinds.DictType():
                values = self._write_value(kind.value_type)
                return {"type": "object", "minProperties": 1, "additionalProperties": values}
            case kinds.ListType():
                return {"type": "array", "minItems": 1, "items": self._write_value(kind.item_type)}
        return _write_leaf(kind)

    def _write_reference(self, cls: type) -> Schema:
        name = cls.__name__
        if name not in self.definitions:
            self.definitions[name] = {}  # it may hold itself
            self.definitions[name] = self.write_table(cls)
        return {"$ref": f"#/definitions/{name}"}


def _write_leaf(kind: kinds.Type) -> Schema:
    match kind:
        case kinds.LiteralType():
            return {"enum": list(kind.values)}
        case kinds.StrType():
            return {"type": "string", "pattern": kind.pattern} if kind.pattern else _TEXT
        case kinds.DateType():
            return {"type": "string", "format": "date"}  # as validators of TOML see a date
        case kinds.BoolType():
            return {"type": "boolean"}
        case kinds.FloatType():
            return {"type": "number"}
        case kinds.IntType():
            bounds = {"minimum": kind.ge, "maximum": kind.le}
            return {"type": "integer", **{name: bound for name, bound in bounds.items() if bound is not None}}
    raise NotImplementedError(f"the rules file has no {kind}")


_TEXT: Schema = {"type": "string", "minLength": 1}


def _merge(members: list[Schema]) -> Schema:
    """A schema of any of `members`. Those of different types become one: a mistake in one of them is then
    reported exactly, and not as "none of these"."""
    typed = [member for member in members if "type" in member]
    untyped = [member for member in members if "type" not in member]
    if len(typed) > 1:
        merged = {key: value for member in typed for key, value in member.items()}
        typed = [{**merged, "type": [member["type"] for member in typed]}]
    choices = typed + untyped
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _restrict(names: Iterable[str], value: Schema) -> Schema:
    """`value`, but with no other words or keys than `names`."""
    match value["type"]:
        case "string":
            return {"enum": list(names)}
        case "array":
            return {**value, "items": {"enum": list(names)}}
    properties = {
        name: {"description": _describe_name(name), **value["additionalProperties"]} for name in names
    }
    return {**value, "properties": properties, "additionalProperties": False}


def _describe_name(name: str) -> str:
    """What a key of a closed list means."""
    return f"Why {name} is meant." if name in ACCEPTABLE else f"`{name}` of the Messages API."


def _describe(cls: type, key: str) -> str:
    """What a key means: the same in every table that inherits it."""
    return next(KEYS[base][key] for base in cls.__mro__ if key in KEYS.get(base, ()))
