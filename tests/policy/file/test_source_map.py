import datetime
from textwrap import dedent
from typing import Any

import pytest
import tomli
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.policy.file.source_map import SourceMap
from routeproxy.policy.problems import KeyPath

TEXT = dedent('''\
    # a comment with [brackets] and = signs
    title = "a # is no comment here"
    "quoted key" = 'literal \\ text'
    a.b . "c.d" = 1
    when = 1979-05-27 07:32:00
    long = """
    three lines = {
    and a quote: \\""" end""""
    raw = \'\'\'
    it's ''fine\'\'\'\'\'

    [server]
    port = 8082
    models = [  # one
        "x", 'y',   # two

        [1, 2],
        { deep = true },
    ]

    [[rules]]
    name = "first"
    match.headers.x-team = ["a", "b"]
    inline = { a = 1, b.c = "]", d = { e = [1] } }

    [[rules]]
    multi = {
        one = 1,  # TOML 1.1
        two = "}",
    }
    [rules.match]
    model = "haiku"
    [[rules.inner]]
    x = 1
    [[rules.inner]]
    x = 2
    [other.'very deep'.table]
    y = inf
''')

VALUES = {
    ("title",): '"a # is no comment here"',
    ("quoted key",): "'literal \\ text'",
    ("a", "b", "c.d"): "1",
    ("when",): "1979-05-27 07:32:00",
    ("server", "port"): "8082",
    ("server", "models", 0): '"x"',
    ("server", "models", 1): "'y'",
    ("server", "models", 2): "[1, 2]",
    ("server", "models", 2, 1): "2",
    ("server", "models", 3, "deep"): "true",
    ("rules", 0): "[[rules]]",
    ("rules", 0, "name"): '"first"',
    ("rules", 0, "match", "headers", "x-team"): '["a", "b"]',
    ("rules", 0, "match", "headers", "x-team", 1): '"b"',
    ("rules", 0, "inline", "b", "c"): '"]"',
    ("rules", 0, "inline", "d", "e", 0): "1",
    ("rules", 1, "multi", "two"): '"}"',
    ("rules", 1, "match"): "[rules.match]",
    ("rules", 1, "match", "model"): '"haiku"',
    ("rules", 1, "inner", 0, "x"): "1",
    ("rules", 1, "inner", 1): "[[rules.inner]]",
    ("rules", 1, "inner", 1, "x"): "2",
    ("other", "very deep", "table", "y"): "inf",
}

KEYS = {
    ("title",): "title",
    ("quoted key",): '"quoted key"',
    ("a", "b"): "b",
    ("a", "b", "c.d"): '"c.d"',
    ("rules", 0, "match"): "match",
    ("rules", 0, "match", "headers", "x-team"): "x-team",
    ("rules", 0, "inline", "d", "e"): "e",
    ("rules", 1, "match"): "match",
    ("rules", 1, "inner", 1, "x"): "x",
    ("other", "very deep"): "'very deep'",
    ("other", "very deep", "table"): "table",
}


@pytest.mark.parametrize(("path", "text"), VALUES.items(), ids=str)
def test_a_value_is_found_where_it_stands(path: KeyPath, text: str) -> None:
    place = SourceMap.of(TEXT).value(path)
    assert TEXT.splitlines()[place.line - 1][place.column - 1 : place.end_column - 1] == text


@pytest.mark.parametrize(("path", "text"), KEYS.items(), ids=str)
def test_a_key_is_found_where_it_stands(path: KeyPath, text: str) -> None:
    place = SourceMap.of(TEXT).key(path)
    assert TEXT.splitlines()[place.line - 1][place.column - 1 : place.end_column - 1] == text


def test_a_value_of_several_lines_is_shown_by_its_first() -> None:
    place = SourceMap.of(TEXT).value(("rules", 1, "multi"))
    assert (place.line, place.column, place.end_column) == (TEXT.splitlines().index("multi = {") + 1, 9, 10)


def test_what_is_not_there_is_answered_with_the_nearest_parent() -> None:
    source_map = SourceMap.of(TEXT)
    assert source_map.value(("rules", 0, "match", "nothing")) == source_map.key(("rules", 0, "match"))
    assert source_map.key(("server", "models", 1, "nothing")) == source_map.value(("server", "models", 1))
    assert source_map.key(("nothing", "at", "all")).line == 1
    assert source_map.value(()).line == 1


def test_a_table_that_a_child_mentioned_first_is_found_at_its_own_header() -> None:
    assert SourceMap.of("[a.b]\nx = 1\n[a]\ny = 2\n").key(("a",)).line == 3


def test_line_ends_of_windows_change_no_position() -> None:
    source_map, windows = SourceMap.of(TEXT), SourceMap.of(TEXT.replace("\n", "\r\n"))
    assert (source_map.keys, source_map.values) == (windows.keys, windows.values)


def test_an_empty_file_has_a_first_line() -> None:
    assert SourceMap.of("").value(("x",)).line == 1


# --- laws

WORDS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.one_of(st.sampled_from(["a", "b", "x-team", "a.b", "", "ü", 'q"', "l'", "\n", "\\"]), WORDS)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    WORDS,
    st.sampled_from(['"""', "'''", "a\nb", "]", "}", "#", "= [", "\\", "\\\n", '\n"\n']),
    st.datetimes(),
    st.dates(),
    st.times(),
    st.datetimes(timezones=st.just(datetime.UTC)),
)
DOCUMENTS = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(NAMES, inner, max_size=3),
            st.lists(st.dictionaries(NAMES, inner, max_size=2), max_size=3),
        ),
        max_leaves=12,
    ),
    max_size=4,
)


def leaves(value: Any, path: KeyPath = ()) -> list[tuple[KeyPath, Any]]:
    match value:
        case dict():
            return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
        case list():
            return [leaf for index, item in enumerate(value) for leaf in leaves(item, (*path, index))]
    return [(path, value)]


def same(first: Any, second: Any) -> bool:
    return repr(first) == repr(second)


@given(DOCUMENTS, st.booleans())
def test_every_key_and_value_of_any_document_is_found(document: dict[str, Any], multiline: bool) -> None:
    text = tomli_w.dumps(document, multiline_strings=multiline)
    source_map = SourceMap.of(text)
    for path, value in leaves(tomli.loads(text)):
        start, end = source_map.values[path]
        assert same(tomli.loads(f"x = {source_map.text[start:end]}")["x"], value)
        if isinstance(path[-1], str):
            start, end = source_map.keys[path]
            assert next(iter(tomli.loads(f"{source_map.text[start:end]} = 1"))) == path[-1]


@given(st.lists(st.sampled_from(["a", "b", "'c.d'", '"e\\u0041"']), min_size=1, max_size=3), SCALARS)
def test_a_dotted_key_is_found_in_a_header_and_in_an_inline_table(keys: list[str], value: Any) -> None:
    scalar = tomli_w.dumps({"x": value}).removeprefix("x = ").strip()
    dotted = " . ".join(keys)
    for text in (
        f"{dotted} = {scalar}\n",
        f"t = {{\n {dotted} = {scalar}, # end\n}}",
        f"[[{dotted}]]\nx={scalar}",
    ):
        ((path, there),) = leaves(tomli.loads(text))
        start, end = SourceMap.of(text).values[path]
        assert same(tomli.loads(f"x = {text[start:end]}")["x"], there)


@given(st.text(alphabet="ab.=\"'[]{},# \n\\1", max_size=40))
def test_any_text_that_is_toml_can_be_walked(text: str) -> None:
    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError:
        return
    source_map = SourceMap.of(text)
    assert {path for path, _ in leaves(document)} <= set(source_map.values)
