"""JSON schemas of tools and answers, made acceptable to a back end; one with nothing to repair keeps its
bytes.

Anthropic takes about any schema, and most others refuse each request that has a single faulty one in it. So
what is faulty is put right where its meaning is plain, and else left out: then a schema allows more. Only
keywords are touched, never the names in `properties`: a parameter may well be called `pattern`.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import unquote

import msgspec
from msgspec import Raw

from routeproxy.messages.decoding import UNREADABLE

SchemaRules = Literal["openai", "gemini"]
Schema = dict[str, Any]

EMPTY = Raw(b'{"type":"object","properties":{}}')

_MAX_CACHED = 64 * 1024
"""Bytes of a schema."""

_SCHEMA_IN = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_SCHEMAS_IN_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_COMBINATORS = ("allOf", "anyOf", "oneOf")
_YES_OR_NO = frozenset({"additionalProperties", "unevaluatedItems", "unevaluatedProperties"})
"""Where every back end knows `true` and `false` for a schema; elsewhere many take objects only."""
_NEVER_AT_ROOT = ("const", "enum", "not")
"""OpenAI refuses them there, as it does the combinators; without them a schema allows more."""

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("description", "title", "format", "pattern", "$ref", "$id", "$anchor"), str),
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), (int, float)),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), (int, float)),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), int),
    **dict.fromkeys(("minProperties", "maxProperties", "minContains", "maxContains"), int),
    **dict.fromkeys(("uniqueItems", "nullable", "deprecated", "readOnly", "writeOnly"), bool),
    "examples": list,
}
"""What a keyword's value has to be. Some generators write `null` for what is not there, or `""`."""

_TYPES: Mapping[str, str | None] = {
    **{name: name for name in ("array", "boolean", "integer", "null", "number", "object", "string")},
    **dict.fromkeys(("str", "text", "char", "date", "datetime", "uuid"), "string"),
    **dict.fromkeys(("int", "long"), "integer"),
    **dict.fromkeys(("decimal", "double", "float"), "number"),
    "bool": "boolean",
    **dict.fromkeys(("list", "set", "tuple"), "array"),
    **dict.fromkeys(("dict", "map", "record"), "object"),
    **dict.fromkeys(("none", "nil"), "null"),
}
"""Other languages' names of types, in lower case, as generators of schemas let them through (`any` and the
like are no type, and mean what no type means)."""

_DROPPED: Mapping[SchemaRules, frozenset[str]] = {
    "openai": frozenset({"$schema"}),
    "gemini": frozenset(
        {
            "$schema",
            "$id",
            "$defs",
            "definitions",
            "additionalProperties",
            "else",
            "examples",
            "if",
            "patternProperties",
            "propertyNames",
            "then",
        }
    ),
}
_GEMINI_FORMATS = ("enum", "date-time")

_MAX_INLINED = 500

# Look-around, back references and Unicode classes: one of them in one tool makes OpenAI refuse every request.
_BEYOND_RE2 = re.compile(r"\(\?(?:[=!>]|<[=!]|P=|\()|\\[pPkK1-9]")


def clean_schema(schema: Raw, rules: SchemaRules) -> Raw:
    """The schema of a tool as the back end takes it: an object. Raises `ValueError` if it is not one."""
    text = bytes(schema)
    return _clean_text_cached(text, rules) if len(text) <= _MAX_CACHED else _clean_text(text, rules)


def clean_answer_schema(schema: Raw, rules: SchemaRules) -> Raw:
    """The schema of an answer, which may be of any type. Raises `ValueError` if it is no schema."""
    return _clean_text(bytes(schema), rules, of_tool=False)


def is_strict(schema: Raw) -> bool:
    """Whether OpenAI's `strict` holds already: every object closed, with all of its properties required."""
    value = msgspec.json.decode(schema)
    return isinstance(value, dict) and value.get("type") == "object" and _is_closed(value)


def is_of_object(schema: Raw) -> bool:
    """Whether what it describes can only be an object."""
    value = _dict(msgspec.json.decode(schema))
    return value.get("type", "object") == "object" and not any(key in value for key in _COMBINATORS)


def misses(schema: Raw, text: str) -> str | None:
    """What `text` lacks to be the JSON that `schema` describes, as far as its outermost layer says."""
    wanted = _dict(msgspec.json.decode(schema))
    try:
        value = msgspec.json.decode(text)
    except (*UNREADABLE, UnicodeEncodeError):
        return "it is no JSON"
    types = [type for type in _types(wanted) if isinstance(type, str)]
    if types and not any(_is_of_type(value, type) for type in types):
        return f"it is not of type {' or '.join(types)}"
    required = [name for name in _list(wanted.get("required")) if isinstance(name, str)]
    if isinstance(value, dict) and any(name not in value for name in required):
        return "a required property is missing"
    return None


def _is_closed(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return schema is not True
    properties = schema.get("properties")
    if "object" in _types(schema) or isinstance(properties, dict):
        required = {name for name in _list(schema.get("required")) if isinstance(name, str)}
        if schema.get("additionalProperties") is not False or required != set(_dict(properties)):
            return False
    return all(_is_closed(child) for child in _children(schema))


def _types(schema: Schema) -> tuple[Any, ...]:
    types = schema.get("type")
    return tuple(types) if isinstance(types, list) else (types,)


def _children(schema: Schema) -> list[Any]:
    children: list[Any] = []
    for key, value in schema.items():
        if key in _SCHEMAS_BY_NAME and isinstance(value, dict):
            children.extend(value.values())
        elif key in _SCHEMAS_IN_LIST and isinstance(value, list):
            children.extend(value)
        elif key in _SCHEMA_IN and isinstance(value, dict):
            children.append(value)
    return children


def _clean_text(text: bytes, rules: SchemaRules, of_tool: bool = True) -> Raw:
    schema = msgspec.json.decode(text)
    if schema is None and of_tool:
        return EMPTY
    if not isinstance(schema, dict):
        raise ValueError("not an object")
    cleaner = _Cleaner(schema, rules)
    cleaned = cleaner.clean_root() if of_tool else cleaner.clean(schema)
    return Raw(text if _is_same(cleaned, schema) else msgspec.json.encode(cleaned))


def _is_same(cleaned: Any, schema: Any) -> bool:
    """To Python `1` is `True` too."""
    return bool(cleaned == schema) and msgspec.json.encode(cleaned) == msgspec.json.encode(schema)


_clean_text_cached = lru_cache(maxsize=1024)(_clean_text)


class _Cleaner:
    def __init__(self, schema: Schema, rules: SchemaRules) -> None:
        self._schema = schema
        self._rules = rules
        self._dropped = _DROPPED[rules]
        self._inlining: list[str] = []
        self._inlined_count = 0

    def clean_root(self) -> Schema:
        root = self.clean(self._flattened())
        for keyword in _NEVER_AT_ROOT:
            root.pop(keyword, None)
        if root.get("type") != "object":
            root["type"] = "object"
        if not isinstance(root.get("properties"), dict):
            root["properties"] = {}
        return root

    def _flattened(self) -> Schema:
        """The root with its alternatives merged into one object: chat APIs take no `anyOf` there.

        Wrapping them in a property would change the arguments that the model writes; this only allows more.
        """
        root = self._schema
        if not any(key in root for key in (*_COMBINATORS, "$ref")):
            return root
        flat = {key: value for key, value in root.items() if key not in _COMBINATORS and key != "$ref"}
        properties = dict(_dict(root.get("properties")))
        seen: set[int] = set()

        def merge(branch: Any) -> dict[str, None]:
            """Collects the properties of `branch`, and returns the names that it requires, in order."""
            if not isinstance(branch, dict) or id(branch) in seen:
                return {}
            seen.add(id(branch))
            for name, schema in _dict(branch.get("properties")).items():
                properties.setdefault(name, schema)
            required = dict.fromkeys(name for name in _list(branch.get("required")) if isinstance(name, str))
            if "$ref" in branch:
                required |= merge(self._resolve(branch["$ref"]))
            for key in _COMBINATORS:
                required_by_each = [merge(inner) for inner in _list(branch.get(key))]
                if key == "allOf":
                    required |= {name: None for names in required_by_each for name in names}
                elif required_by_each:
                    first, *others = required_by_each
                    required |= {name: None for name in first if all(name in names for names in others)}
            return required

        required = merge(root)
        flat["properties"] = properties
        if required:
            flat["required"] = list(required)
        return flat

    def _resolve(self, reference: Any) -> Any:
        """What a reference within the schema points at; `None` if there is nothing."""
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return self._schema if reference == "#" else None
        target: Any = self._schema
        for step in unquote(reference[2:]).split("/"):
            if isinstance(target, list):
                target = target[int(step)] if step.isdecimal() and int(step) < len(target) else None
            else:
                target = _dict(target).get(step.replace("~1", "/").replace("~0", "~"))
        return target

    # --- one schema

    def clean(self, schema: Schema) -> Schema:
        if "$ref" in schema:
            if self._rules == "gemini":
                return self._inlined(schema)
            if self._resolve(schema["$ref"]) is None:
                schema = {key: value for key, value in schema.items() if key != "$ref"}
        cleaned = {
            key: repaired
            for key, value in schema.items()
            if key not in self._dropped and (repaired := self._repaired(key, value)) is not _GONE
        }
        self._settle(cleaned)
        return cleaned

    def _repaired(self, key: str, value: Any) -> Any:
        """The value of one keyword by itself, or `_GONE`."""
        if key in _SCHEMAS_BY_NAME:
            return self._by_name(key, value)
        if key in _SCHEMAS_IN_LIST and isinstance(value, list):
            return [self._child(child) for child in value if child is not False] or _GONE
        if key in _SCHEMA_IN:
            return self._schema_in(key, value)
        if key in _COMBINATORS or key == "prefixItems":
            return _GONE
        if key == "type":
            return _type(value)
        if key == "required":
            return list(dict.fromkeys(name for name in _list(value) if isinstance(name, str)))
        if key == "pattern" and self._rules == "openai" and isinstance(value, str):
            return _GONE if _BEYOND_RE2.search(value) else value
        if key == "format" and self._rules == "gemini" and value not in _GEMINI_FORMATS:
            return _GONE
        # A yes is no number, though Python says it is. (Which of them it stands for: `_settle`.)
        kind = _KINDS.get(key)
        is_yes_or_no = isinstance(value, bool) and kind is not bool and not key.startswith("exclusive")
        return value if kind is None or (isinstance(value, kind) and not is_yes_or_no) else _GONE

    def _by_name(self, key: str, value: Any) -> Any:
        if not isinstance(value, dict):
            return {} if key == "properties" and value is not None else _GONE
        return {name: self._child(child) for name, child in value.items() if child is not False}

    def _schema_in(self, key: str, value: Any) -> Any:
        if isinstance(value, bool) and key in _YES_OR_NO:
            return value
        if value is None or (isinstance(value, bool) and key != "items"):
            return _GONE
        return self._child(value)

    def _child(self, schema: Any) -> Schema:
        """A schema in a place where only an object is understood everywhere."""
        if isinstance(schema, str):
            schema = {"type": schema}
        return self.clean(schema) if isinstance(schema, dict) else {}

    def _settle(self, schema: Schema) -> None:
        """Brings those keywords in line that depend on each other."""
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if isinstance(schema.get(exclusive), bool):  # so it was until draft 4
                is_exclusive = schema.pop(exclusive)
                if is_exclusive and bound in schema:
                    schema[exclusive] = schema.pop(bound)
        if isinstance(items := schema.get("items"), list):  # so it was until 2019-09
            schema["prefixItems"] = items
            schema["items"] = schema.pop("additionalItems", {})
        if "array" in _types(schema):
            schema.setdefault("items", {})
        if "enum" in schema or "const" in schema:
            self._settle_values(schema)
        if self._rules == "gemini":
            for bound in ("exclusiveMinimum", "exclusiveMaximum"):
                schema.pop(bound, None)
            if "required" in schema:
                known = _dict(schema.get("properties"))
                schema["required"] = [name for name in schema["required"] if name in known]

    def _settle_values(self, schema: Schema) -> None:
        types = frozenset(_types(schema))
        if "const" in schema and types != {None}:
            fitting = _fitting([schema["const"]], types)
            schema.pop("const")
            if fitting:
                schema["const"] = fitting[0]
        if self._rules == "gemini" and "const" in schema:
            value = schema.pop("const")
            if isinstance(value, str):  # its enums hold texts only, or numbers only
                schema["enum"] = [value]
        if "enum" not in schema:
            return
        values = _list(schema.pop("enum"))
        values = values if types == {None} else _fitting(values, types)
        if self._rules == "gemini":
            values = [value for value in values if value is not None and value != ""]
            if len({isinstance(value, str) for value in values}) > 1:
                return
        # By their text, since to Python `1` and `true` are the same.
        if unique := {msgspec.json.encode(value): value for value in values}:
            schema["enum"] = list(unique.values())

    def _inlined(self, schema: Schema) -> Schema:
        reference = schema["$ref"]
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        target = self._resolve(reference)
        # A reference to itself ends after one level; a few that double each other must not fill the memory.
        endless = reference in self._inlining or self._inlined_count >= _MAX_INLINED
        if not isinstance(target, dict) or endless:
            return self.clean({"type": "object", **siblings})
        self._inlined_count += 1
        self._inlining.append(reference)
        try:
            return self.clean({**target, **siblings})
        finally:
            self._inlining.pop()


_GONE = object()


def _type(value: Any) -> Any:
    """A type or a list of them, in JSON schema's own words."""
    if isinstance(value, str):
        return _TYPES.get(value.lower()) or _GONE
    # A list in it is no type, as an object is none.
    names = [_type(name) if isinstance(name, str) else _GONE for name in _list(value)]
    return _GONE if not names or _GONE in names else list(dict.fromkeys(names))


def _fitting(values: list[Any], types: frozenset[Any]) -> list[Any]:
    """The values that a schema of these types can have, as such: a text's `1` is `"1"`."""
    return [fitting for value in values if (fitting := _as_one_of(value, types)) is not _GONE]


def _as_one_of(value: Any, types: frozenset[Any]) -> Any:
    if any(_is_of_type(value, type) for type in types):
        return value
    if "string" in types:
        return msgspec.json.encode(value).decode() if isinstance(value, bool | int | float) else _GONE
    if isinstance(value, str):
        try:
            written = msgspec.json.decode(value.strip().lower())
        except (*UNREADABLE, UnicodeEncodeError):
            return _GONE
        return written if any(_is_of_type(written, type) for type in types) else _GONE
    return _GONE


def _is_of_type(value: Any, type: Any) -> bool:
    match type:
        case "integer" | "number" if isinstance(value, bool):
            return False
        case "integer":
            return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        case "number":
            return isinstance(value, int | float)
        case "null":
            return value is None
    return isinstance(value, _PYTHON_TYPES.get(type, object))


_PYTHON_TYPES: Mapping[str, type] = {"array": list, "boolean": bool, "object": dict, "string": str}


def _dict(value: Any) -> Schema:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
