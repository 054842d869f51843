"""The schema for editors: it accepts what `check` takes, and says of most mistakes that they are some."""

import datetime
import io
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import tomli

from routeproxy.cli.schema import run_schema
from routeproxy.policy.compile.descriptions import KEYS, TABLES
from routeproxy.policy.compile.schema import NEEDED, schema
from routeproxy.policy.file import tables as file
from routeproxy.policy.file.tables import LayerFile, RulesFile, Table
from routeproxy.policy.problems import Problem
from tests.docs.test_documentation import PAGES, Block, blocks, whole
from tests.policy.asking import problems

ROOT = Path(__file__).parents[3]
FILES = Path(__file__).parents[1] / "files"
BAD = sorted((FILES / "bad").glob("*.toml"))
EVERY_TABLE = [
    table
    for table in vars(file).values()
    if isinstance(table, type) and issubclass(table, Table) and table is not Table
]

EVERYTHING = """
[server]
admin_keys = "env:ADMIN"

[providers.corp]
type = "openai_compatible"
base_url = "https://llm.corp.example/v1"
region = "eu"
labels = ["phi-approved"]
models = { "llama-*" = { context_window = 128_000, vision = false } }

[teams.payments]
keys = ["env:K", { name = "ci", key = "sha256:00", expires = 2027-06-30 }]
models = ["*haiku*"]
targets = ["corp/*"]
request_headers = { x-data-class = "internal" }
provider_keys = { corp = ["env:A", "env:B"] }
explain = true

[[rules]]
match.team = ["payments"]
match.effort = "heroic"
targets = [{ target = "corp/llama-3", params.cap = { temperature = 0.5, max_tokens = 1 } }]
fallback.also = ["timeout"]

[[rules]]
include = "teams/*.toml"

[default]
deny = { message = "no", status = 404 }

[[invariants]]
when.headers.x-data-class = { present = true }
never = { zone = ["public", "private"], region = "us" }

[[tests]]
request = { model = "haiku", tools = ["Bash"], no_fallback = true }
expect = { rule = "default", denied = "no", transforms = { newlines = "keep" } }
never.target = "corp/*"
"""

LAYER = """
team = "payments"
[[rules]]
match.model = "haiku"
targets = "corp/llama-3"
[[tests]]
request.model = "haiku"
expect.targets = "corp/llama-3"
"""


@cache
def validator(layer: bool = False) -> Any:
    drawn = schema(layer=layer)
    jsonschema.Draft7Validator.check_schema(drawn)
    return jsonschema.Draft7Validator(drawn, format_checker=jsonschema.FormatChecker())


def faults(text: str, *, layer: bool = False) -> list[tuple[str | int, ...]]:
    """The places that the schema finds fault with."""
    # Editors hold a schema against TOML's dates as text.
    document = json.loads(json.dumps(tomli.loads(text), default=datetime.date.isoformat))
    return [tuple(error.absolute_path) for error in validator(layer).iter_errors(document)]


def tables(drawn: dict[str, Any], kind: type[Table]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield kind.__name__, drawn
    yield from drawn["definitions"].items()


DRAWN = dict([*tables(schema(), RulesFile), *tables(schema(layer=True), LayerFile)])


def within(value: Any) -> Iterator[Any]:
    """All values in a schema."""
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from within(inner)


# --- it is what the types say


@pytest.mark.parametrize("table", EVERY_TABLE, ids=lambda table: table.__name__)
def test_each_table_has_the_keys_that_are_read_and_no_other(table: type[Table]) -> None:
    drawn = DRAWN[table.__name__]
    read = {field.encode_name for field in msgspec.structs.fields(table)}
    assert drawn["properties"].keys() == read
    assert drawn["additionalProperties"] is False


def test_each_table_is_drawn() -> None:
    assert DRAWN.keys() == {table.__name__ for table in EVERY_TABLE}


def test_every_key_and_every_table_is_explained_and_nothing_else() -> None:
    own = {table: {key.rstrip("_") for key in table.__annotations__} for table in EVERY_TABLE}
    assert {table: set(keys) for table, keys in KEYS.items()} == own
    assert TABLES.keys() == set(EVERY_TABLE)
    assert NEEDED.keys() <= set(EVERY_TABLE)


def test_every_explanation_is_a_sentence() -> None:
    sentences = [*TABLES.values(), *(words for keys in KEYS.values() for words in keys.values())]
    assert [words for words in sentences if not words.endswith(".") or "\n" in words] == []


def test_every_property_is_described() -> None:
    for drawn in DRAWN.values():
        for value in within(drawn):
            if isinstance(value, dict) and isinstance(value.get("properties"), dict):
                assert all(key["description"] for key in value["properties"].values())


def test_an_inherited_key_means_the_same() -> None:
    assert DRAWN["RuleTable"]["properties"]["retry"] == DRAWN["ActionTable"]["properties"]["retry"]
    assert DRAWN["HeaderTable"]["properties"]["glob"] == DRAWN["TextTable"]["properties"]["glob"]


def test_there_is_no_null() -> None:
    assert not [value for value in within(schema()) if value in ("null", None)]


def test_defaults_bounds_and_patterns_are_kept() -> None:
    server, retry = (DRAWN[name]["properties"] for name in ("ServerTable", "RetryTable"))
    assert {key: server["port"][key] for key in ("default", "minimum", "maximum")} == {
        "default": 8082,
        "minimum": 0,
        "maximum": 65535,
    }
    assert retry["attempts"]["maximum"] == 10
    assert retry["backoff"]["pattern"].startswith("^(")
    assert "default" not in retry["attempts"]


def test_the_values_of_one_key_are_not_another_s() -> None:
    assert "examples" not in DRAWN["RequestTable"]["properties"]["model"]
    assert "default" not in DRAWN["ProviderTable"]["properties"]["region"]
    assert DRAWN["RequestTable"]["properties"]["effort"]["examples"][-1] == "max"


# --- it accepts what is right


def test_the_files_of_ours_are_accepted() -> None:
    paths = [ROOT / "rules.example.toml", *(FILES / "good").glob("*.toml")]
    assert {path.name: faults(path.read_text(encoding="utf-8")) for path in paths} == {
        path.name: [] for path in paths
    }


def test_every_table_and_form_is_accepted() -> None:
    assert faults(EVERYTHING) == []
    assert faults(LAYER, layer=True) == []


def examples() -> Iterable[Any]:
    found = [block for page in PAGES for block in blocks(page, "toml") if "refused" not in block.marks]
    return [pytest.param(block, id=block.id) for block in found]


@pytest.mark.parametrize("block", examples())
def test_every_example_of_the_documentation_is_accepted(block: Block) -> None:
    text = whole(block)
    assert faults(text, layer="team" in tomli.loads(text)) == []


# --- it refuses what is wrong

ONLY_CHECK_SEES = {
    "unknown_keys": [],
    "wrong_values": [
        "a model's name is 1 to 256 characters of A-Z a-z 0-9 . _ : @ / + - [ ]",
        "`example.com` is not an origin",
        "the number nan can't be sent as JSON",
        "a date or time can't be sent as JSON",
    ],
}


@pytest.mark.parametrize("name", ONLY_CHECK_SEES)
def test_what_check_finds_is_found_in_its_place(name: str) -> None:
    text = (FILES / "bad" / f"{name}.toml").read_text(encoding="utf-8")
    seen = faults(text)

    def is_seen(problem: Problem) -> bool:
        return problem.path in seen or problem.path[:-1] in seen

    missed = [problem.message for problem in problems(text) if not is_seen(problem)]
    assert missed == ONLY_CHECK_SEES[name]


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_what_it_refuses_check_refuses_too(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    try:
        found = faults(text)
    except tomli.TOMLDecodeError:
        return
    assert not found or any(problem.severity == "error" for problem in problems(text))


def among(line: str) -> str:
    return f'[providers.openai]\n[[rules]]\n{line}\ntargets = "openai/x"\n[default]\ndeny = "no"\n'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param(among('name = ""'), ("rules", 0, "name"), id="an empty text"),
        pytest.param(among("match.effort = []"), ("rules", 0, "match", "effort"), id="an empty list"),
        pytest.param(among("params.set = {}"), ("rules", 0, "params", "set"), id="an empty table"),
        pytest.param(among('fallback.on = ["sloth"]'), ("rules", 0, "fallback"), id="no failure"),
        pytest.param(among('params.drop = ["top_j"]'), ("rules", 0, "params", "drop", 0), id="no parameter"),
        pytest.param(
            among("params.set.model = 1"), ("rules", 0, "params", "set"), id="not a rule's to change"
        ),
        pytest.param(among("params.cap.stream = 1"), ("rules", 0, "params", "cap"), id="not to be capped"),
        pytest.param(
            '[providers.x]\ntype = "opnai"\n[default]\ndeny = "no"', ("providers", "x", "type"), id="no type"
        ),
        pytest.param("[providers.openai]", (), id="no default"),
        pytest.param("[default]\ndeny.status = 400", ("default", "deny"), id="no message"),
        pytest.param(
            '[providers.echo]\n[aliases]\na.params.drop = ["top_k"]\n[default]\ndeny = "no"',
            ("aliases", "a"),
            id="no target",
        ),
        pytest.param(
            '[default]\ndeny = "no"\n[[tests]]\nexpect.denied = true', ("tests", 0), id="no request"
        ),
        pytest.param(
            '[default]\ndeny = "no"\n[teams.a]\nkeys.expires = 2027-06-30',
            ("teams", "a", "keys"),
            id="no key",
        ),
        pytest.param(
            '[default]\ndeny = "no"\n[teams.a.keys]\nkey = "env:A"\nexpires = "soon"',
            ("teams", "a", "keys"),
            id="no date",
        ),
    ],
)
def test_it_refuses_what_check_refuses(text: str, place: tuple[str | int, ...]) -> None:
    assert faults(text) == [place]
    assert any(problem.severity == "error" for problem in problems(text))


def test_an_included_file_needs_its_team_and_holds_nothing_else() -> None:
    assert faults('[[rules]]\ntargets = "a/b"', layer=True) == [()]
    assert faults('team = "a"\n[server]\nport = 1', layer=True) == [()]


# --- as a command


@pytest.mark.parametrize("layer", [False, True])
def test_the_command_prints_it(layer: bool) -> None:
    out = io.StringIO()
    assert run_schema(layer=layer, out=out) == 0
    assert json.loads(out.getvalue()) == schema(layer=layer)
    assert out.getvalue().startswith('{\n  "$schema": "http://json-schema.org/draft-07/schema#",\n')
