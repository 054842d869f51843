"""Schemas that Anthropic takes and that others refuse each request for."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from routeproxy.translate.schemas import SchemaRules, clean_answer_schema, clean_schema
from tests.translate.asking import ask, user

RULES: list[SchemaRules] = ["openai", "gemini"]


def cleaned(property: Any, rules: SchemaRules = "openai", **more: Any) -> Any:
    """What becomes of one property of a tool."""
    schema = {"type": "object", "properties": {"a": property}, **more}
    return json.loads(bytes(clean_schema(Raw(json.dumps(schema).encode()), rules)))["properties"].get(
        "a", "gone"
    )


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize(
    ("property", "repaired"),
    [
        # arrays say what is in them
        pytest.param({"type": "array"}, {"type": "array", "items": {}}, id="an array without items"),
        pytest.param(
            {"type": ["array", "null"]}, {"type": ["array", "null"], "items": {}}, id="perhaps an array"
        ),
        pytest.param({"type": "array", "items": None}, {"type": "array", "items": {}}, id="items null"),
        pytest.param({"type": "array", "items": True}, {"type": "array", "items": {}}, id="items true"),
        pytest.param(
            {"type": "array", "items": "str"}, {"type": "array", "items": {"type": "string"}}, id="a word"
        ),
        pytest.param(
            {"anyOf": [{"type": "array"}, {"type": "null"}]},
            {"anyOf": [{"type": "array", "items": {}}, {"type": "null"}]},
            id="one of the alternatives",
        ),
        pytest.param(
            {"type": "array", "items": {"type": "array"}},
            {"type": "array", "items": {"type": "array", "items": {}}},
            id="an array in an array",
        ),
        pytest.param(
            {"type": "array", "items": [{"type": "string"}, {"type": "number"}]},
            {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}], "items": {}},
            id="a tuple as drafts before 2019 wrote it",
        ),
        # types that are none
        pytest.param({"type": ["string", ["null"]]}, {}, id="a list among types"),
        pytest.param({"type": [["string"]]}, {}, id="a list of a list"),
        pytest.param({"type": ["string", {"a": 1}]}, {}, id="an object among types"),
        pytest.param({"type": ["string", None, 7]}, {}, id="null and a number among types"),
        pytest.param({"type": [[[["string"]]]]}, {}, id="lists of lists"),
        pytest.param(
            {"type": "integer", "enum": ["[" * 3000, "3"]},
            {"type": "integer", "enum": [3]},
            id="a value that is nested too deeply to be read",
        ),
        # yes and no for a schema
        pytest.param(True, {}, id="true"),
        pytest.param(False, "gone", id="false"),
        pytest.param(
            {"anyOf": [{"type": "string"}, True, False]},
            {"anyOf": [{"type": "string"}, {}]},
            id="alternatives",
        ),
        pytest.param({"anyOf": []}, {}, id="no alternatives"),
        pytest.param({"type": "string", "not": False}, {"type": "string"}, id="not false"),
        pytest.param(
            {"type": "object", "properties": {"b": True, "c": False}},
            {"type": "object", "properties": {"b": {}}},
            id="deeper",
        ),
        pytest.param("string", {"type": "string"}, id="the name of a type"),
        pytest.param(7, {}, id="a number"),
        # values that the type cannot have
        pytest.param(
            {"type": "string", "enum": ["auto", 1, 2.5, True]},
            {"type": "string", "enum": ["auto", "1", "2.5", "true"]},
            id="numbers in a string's enum",
        ),
        pytest.param(
            {"type": "string", "enum": [1, "1"]}, {"type": "string", "enum": ["1"]}, id="twice then"
        ),
        pytest.param({"type": "integer", "enum": ["1", "x"]}, {"type": "integer", "enum": [1]}, id="texts"),
        pytest.param(
            {"type": "boolean", "enum": ["True"]}, {"type": "boolean", "enum": [True]}, id="Python's"
        ),
        pytest.param(
            {"type": "string", "enum": ["a", None]}, {"type": "string", "enum": ["a"]}, id="null in it"
        ),
        pytest.param({"type": "string", "enum": []}, {"type": "string"}, id="an empty enum"),
        pytest.param({"type": "string", "enum": [{}]}, {"type": "string"}, id="nothing that fits"),
        pytest.param({"type": "string", "enum": None}, {"type": "string"}, id="an enum that is null"),
        # words of other languages
        pytest.param({"type": "STRING"}, {"type": "string"}, id="Google's capitals"),
        pytest.param({"type": "any"}, {}, id="any"),
        pytest.param({"type": ["int", "None"]}, {"type": ["integer", "null"]}, id="Python's types"),
        pytest.param({"type": []}, {}, id="no type"),
        pytest.param({"type": {"type": "string"}}, {}, id="a schema for a type"),
        pytest.param(
            {"type": "object", "properties": []}, {"type": "object", "properties": {}}, id="PHP's {}"
        ),
        pytest.param(
            {"type": "string", "description": 5}, {"type": "string"}, id="a description that is none"
        ),
        pytest.param({"type": "string", "minLength": "1"}, {"type": "string"}, id="a length that is a text"),
        pytest.param({"type": "number", "minimum": True}, {"type": "number"}, id="a limit that is a yes"),
        pytest.param(
            {"type": "string", "required": True},
            {"type": "string", "required": []},
            id="required, of draft 3",
        ),
    ],
)
def test_what_is_faulty_is_put_right_or_left_out(property: Any, repaired: Any, rules: SchemaRules) -> None:
    assert cleaned(property, rules) == repaired


@pytest.mark.parametrize(
    ("property", "openai", "gemini"),
    [
        pytest.param(
            {"type": "object", "additionalProperties": True},
            {"type": "object", "additionalProperties": True},
            {"type": "object"},
            id="additionalProperties true",
        ),
        pytest.param(
            {"type": ["string", "null"], "enum": ["a", None]},
            {"type": ["string", "null"], "enum": ["a", None]},
            {"type": ["string", "null"], "enum": ["a"]},
            id="an enum with null",
        ),
        pytest.param(
            {"enum": ["a", ""]}, {"enum": ["a", ""]}, {"enum": ["a"]}, id="an empty text in an enum"
        ),
        pytest.param({"enum": ["a", 1]}, {"enum": ["a", 1]}, {}, id="texts and numbers"),
        pytest.param(
            {"type": "string", "const": 1},
            {"type": "string", "const": "1"},
            {"type": "string", "enum": ["1"]},
            id="const",
        ),
        pytest.param(
            {"type": "number", "minimum": 0, "exclusiveMinimum": True},
            {"type": "number", "exclusiveMinimum": 0},
            {"type": "number"},
            id="draft 4's exclusiveMinimum",
        ),
        pytest.param(
            {"type": "object", "properties": {"b": False, "c": {}}, "required": ["b", "c"]},
            {"type": "object", "properties": {"c": {}}, "required": ["b", "c"]},
            {"type": "object", "properties": {"c": {}}, "required": ["c"]},
            id="required, but not there",
        ),
    ],
)
def test_each_gets_what_it_understands(property: Any, openai: Any, gemini: Any) -> None:
    assert [cleaned(property, rules) for rules in RULES] == [openai, gemini]


NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}


def test_references_are_put_in_place_for_gemini_also_out_of_a_list_and_to_themselves() -> None:
    assert cleaned({"$ref": "#/$defs/Node"}, "gemini", **{"$defs": {"Node": NODE}}) == {
        "type": "object",
        "properties": {"next": {"type": "object"}},
    }
    assert cleaned(
        {"$ref": "#/$defs/Both/allOf/1"}, "gemini", **{"$defs": {"Both": {"allOf": [{}, {"type": "string"}]}}}
    ) == {"type": "string"}
    assert cleaned({"$ref": "#/$defs/a%20b"}, "gemini", **{"$defs": {"a b": {"type": "array"}}}) == {
        "type": "array",
        "items": {},
    }


def test_a_reference_to_nothing_is_left_out() -> None:
    assert cleaned({"$ref": "https://example.com/a.json"}) == {}
    assert cleaned({"type": "string", "$ref": "#/$defs/Nobody"}) == {"type": "string"}


def test_a_parameter_may_have_the_name_of_a_keyword() -> None:
    properties = {"enum": {"type": "array", "items": {}}, "items": {"type": "string"}, "type": {}}
    schema = {"type": "object", "properties": properties, "required": ["type"]}
    text = Raw(json.dumps(schema).encode())
    assert [bytes(clean_schema(text, rules)) for rules in RULES] == [bytes(text)] * 2


def test_the_schema_of_an_answer_is_repaired_alike_and_may_be_an_array() -> None:
    schema = Raw(b'{"type":"array","items":{"type":"array"}}')
    assert json.loads(bytes(clean_answer_schema(schema, "openai"))) == {
        "type": "array",
        "items": {"type": "array", "items": {}},
    }
    format = {"type": "json_schema", "schema": {"type": "object", "properties": {"a": {"type": "array"}}}}
    chat = ask(user("hi"), output_config={"format": format}).chat
    assert b'"items":{}' in bytes(chat.response_format.json_schema.schema)  # type: ignore[union-attr]


_WORDS = st.sampled_from(["string", "array", "object", "null", "integer", "boolean", "any", "STRING", ""])
_VALUES = st.none() | st.booleans() | st.integers(-3, 3) | _WORDS
_KEYWORDS = st.sampled_from(
    [
        "$ref",
        "additionalItems",
        "additionalProperties",
        "allOf",
        "anyOf",
        "const",
        "description",
        "enum",
        "exclusiveMinimum",
        "format",
        "items",
        "minimum",
        "not",
        "oneOf",
        "pattern",
        "prefixItems",
        "properties",
        "required",
        "type",
    ]
)
_SCHEMAS = st.recursive(
    _VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_KEYWORDS, inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "type"]), inner, max_size=2)
    ),
    max_leaves=12,
)


def subschemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    inner = list(schema.get("properties", {}).values())
    inner += [child for key in ("anyOf", "allOf", "oneOf", "prefixItems") for child in schema.get(key, [])]
    inner += [schema[key] for key in ("items", "not") if key in schema]
    for child in inner:
        assert isinstance(child, dict), "only objects are schemas everywhere"
        yield from subschemas(child)


@pytest.mark.parametrize("rules", RULES)
@given(schema=st.dictionaries(_KEYWORDS, _SCHEMAS, max_size=5))
def test_any_schema_comes_out_with_items_and_with_objects_and_stays_so(
    rules: SchemaRules, schema: dict[str, Any]
) -> None:
    once = clean_schema(Raw(json.dumps(schema).encode()), rules)
    for one in subschemas(json.loads(bytes(once))):
        types = one.get("type", [])
        assert "items" in one or "array" not in ([types] if isinstance(types, str) else types)
        assert one.get("enum") != []
        if types == "string":
            assert all(isinstance(value, str) for value in one.get("enum", []))
    assert bytes(clean_schema(once, rules)) == bytes(once)
