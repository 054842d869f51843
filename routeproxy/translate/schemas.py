"""JSON schemas of tools, made acceptable to a back end; a schema with nothing to repair keeps its bytes.

Only keywords are touched, never the names in `properties`: a parameter may well be called `pattern`.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import msgspec
from msgspec import Raw

SchemaRules = Literal["openai", "gemini"]
Schema = dict[str, Any]

EMPTY = Raw(b'{"type":"object","properties":{}}')

_MAX_CACHED = 64 * 1024
"""Bytes of a schema."""

_SCHEMA_IN = frozenset(
    {
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedProperties",
    }
)
_SCHEMAS_IN_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_COMBINATORS = ("allOf", "anyOf", "oneOf")
_NEVER_AT_ROOT = ("enum", "not")
"""OpenAI refuses them there, as it does the combinators; without them a schema allows more."""
_NEVER_NULL = _SCHEMA_IN | _SCHEMAS_IN_LIST | _SCHEMAS_BY_NAME | {"type", "description"}
"""Some generators write `null` for what is not there. (`required` becomes empty, see below.)"""

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
            "exclusiveMaximum",
            "exclusiveMinimum",
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
    """`schema` as the back end takes it. Raises `ValueError` if it is not an object."""
    text = bytes(schema)
    return _clean_text_cached(text, rules) if len(text) <= _MAX_CACHED else _clean_text(text, rules)


def is_strict(schema: Raw) -> bool:
    """Whether OpenAI's `strict` holds already: every object closed, with all of its properties required."""
    value = msgspec.json.decode(schema)
    return isinstance(value, dict) and value.get("type") == "object" and _is_closed(value)


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


def _clean_text(text: bytes, rules: SchemaRules) -> Raw:
    schema = msgspec.json.decode(text)
    if schema is None:
        return EMPTY
    if not isinstance(schema, dict):
        raise ValueError("not an object")
    cleaned = _Cleaner(schema, rules).clean_root()
    return Raw(text if cleaned == schema else msgspec.json.encode(cleaned))


_clean_text_cached = lru_cache(maxsize=1024)(_clean_text)


class _Cleaner:
    def __init__(self, schema: Schema, rules: SchemaRules) -> None:
        self._schema = schema
        self._rules = rules
        self._dropped = _DROPPED[rules]
        self._inlining: list[str] = []
        self._inlined_count = 0

    def clean_root(self) -> Schema:
        root = self._clean(self._flattened())
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
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return self._schema if reference == "#" else None
        target: Any = self._schema
        for step in reference[2:].split("/"):
            target = _dict(target).get(step.replace("~1", "/").replace("~0", "~"))
        return target

    def _clean_child(self, schema: Any) -> Any:
        return self._clean(schema) if isinstance(schema, dict) else schema

    def _clean(self, schema: Schema) -> Schema:
        if self._rules == "gemini" and "$ref" in schema:
            return self._inlined(schema)
        cleaned: Schema = {}
        for key, value in schema.items():
            if key in self._dropped or (value is None and key in _NEVER_NULL):
                continue
            if key in _SCHEMAS_BY_NAME and isinstance(value, dict):
                cleaned[key] = {name: self._clean_child(child) for name, child in value.items()}
            elif key in _SCHEMAS_IN_LIST and isinstance(value, list):
                cleaned[key] = [self._clean_child(child) for child in value]
            elif key in _SCHEMA_IN:
                cleaned[key] = self._clean_child(value)
            elif key == "required":
                cleaned[key] = list(dict.fromkeys(name for name in _list(value) if isinstance(name, str)))
            elif key == "pattern":
                if not (self._rules == "openai" and isinstance(value, str) and _BEYOND_RE2.search(value)):
                    cleaned[key] = value
            elif self._rules == "gemini" and key == "const":
                if isinstance(value, str):  # its enums hold strings only
                    cleaned["enum"] = [value]
            elif self._rules == "gemini" and key == "format":
                if value in _GEMINI_FORMATS:
                    cleaned[key] = value
            else:
                cleaned[key] = value
        return cleaned

    def _inlined(self, schema: Schema) -> Schema:
        reference = schema["$ref"]
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        target = self._resolve(reference)
        # A reference to itself ends after one level; a few that double each other must not fill the memory.
        endless = reference in self._inlining or self._inlined_count >= _MAX_INLINED
        if not isinstance(target, dict) or endless:
            return self._clean({"type": "object", **siblings})
        self._inlined_count += 1
        self._inlining.append(reference)
        try:
            return self._clean({**target, **siblings})
        finally:
            self._inlining.pop()


def _dict(value: Any) -> Schema:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
