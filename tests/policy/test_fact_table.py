"""The table of facts holds the tables of the rules file to it, and each of its rows to itself."""

from typing import Any, get_type_hints

import msgspec
import pytest

from routeproxy.policy.conditions import in_words
from routeproxy.policy.fact_table import BY_NAME, FACTS, Fact, Kind
from routeproxy.policy.file.tables import HeaderTable, MatchTable, RangeTable, RequestTable, TextTable
from routeproxy.policy.file.values import Count, Strings
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.logged import logged_facts, logged_request
from tests.policy.asking import policy, rules

CONDITIONS: dict[tuple[Kind, bool], Any] = {
    ("word", True): Strings,
    ("text", False): str | list[str] | TextTable,
    ("text", True): str | list[str] | HeaderTable,
    ("number", False): RangeTable,
    ("number", True): RangeTable,
    ("flag", False): bool,
    ("presence", False): bool,
    ("tools", False): bool | str | list[str],
    ("headers", False): dict[str, str | list[str] | HeaderTable],
}
"""By kind, and whether a request may lack it: what stands in `match`."""

STATEMENTS: dict[Kind, Any] = {
    "word": str,
    "text": str,
    "number": Count,
    "flag": bool,
    "presence": str,
    "tools": bool | Strings,
    "headers": dict[str, str],
}
"""By kind, what stands in the `request` of a test."""

VALUES: dict[Kind, Any] = {
    "word": "high",
    "text": "some-text",
    "number": 5,
    "flag": True,
    "presence": "echo/x",
    "tools": ("read", "write"),
    "headers": {"x-team": ("payments",)},
}
"""By kind, what a request may state."""


def keys(table: type[msgspec.Struct]) -> dict[str, Any]:
    return {
        field.encode_name: get_type_hints(table, include_extras=True)[field.name]
        for field in msgspec.structs.fields(table)
    }


def test_a_table_of_conditions_has_the_keys_of_the_table_of_facts() -> None:
    expected = {fact.name: CONDITIONS[fact.kind, fact.optional] | None for fact in FACTS if fact.in_match}
    assert {
        key: kind for key, kind in keys(MatchTable).items() if key not in ("percent", "any", "not")
    } == expected


def test_a_tests_request_has_the_keys_of_the_table_of_facts() -> None:
    expected = {fact.name: STATEMENTS[fact.kind] | None for fact in FACTS}
    assert {key: kind for key, kind in keys(RequestTable).items() if key != "body"} == expected


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_what_a_request_states_is_what_it_has(fact: Fact) -> None:
    value = VALUES[fact.kind]
    facts = policy('[default]\ndeny = "no"').facts_of(HypotheticalRequest(**{fact.name: value}))
    read = facts.headers if fact.kind == "headers" else (fact.stated or fact.read)(facts)
    if fact.name == "input_tokens":  # logged only once somebody has counted
        read = fact.read(facts)
    assert read == value


EVERYTHING = rules("""
    [[rules]]
    match.user.present = true
    match.headers.x-team.present = true
    match.input_tokens.min = 1
    targets = "echo/x"
""")


def test_a_request_comes_out_of_the_log_as_it_went_in() -> None:
    request = HypotheticalRequest(**{fact.name: VALUES[fact.kind] for fact in FACTS if fact.name != "system"})
    facts = EVERYTHING.facts_of(request)
    EVERYTHING.decide(facts)
    logged = msgspec.json.decode(msgspec.json.encode(logged_facts(facts, EVERYTHING)))
    found = logged_request(logged).stated
    # A target in the URL names the model too.
    assert {**found, "tools": tuple(found["tools"])} == {**request.stated, "model": "x"}


def test_what_no_rule_looks_at_is_not_logged_if_the_table_says_so() -> None:
    blind = rules("")
    facts = blind.facts_of(HypotheticalRequest(model="m", user="u", headers={"x-team": ("payments",)}))
    assert logged_facts(facts, blind) == {"model": "m"}


def test_facts_of_another_version_are_passed_over_and_wrong_ones_are_not() -> None:
    assert logged_request({"model": "m", "of_tomorrow": [1]}).stated == {"model": "m"}
    with pytest.raises(ValueError, match="`max_tokens` of a logged request"):
        logged_request({"model": "m", "max_tokens": "many"})
    with pytest.raises(ValueError, match="has a model"):
        logged_request({})


def test_only_facts_can_be_stated() -> None:
    with pytest.raises(TypeError, match="no facts: modle"):
        HypotheticalRequest(modle="m")


def test_conditions_of_equal_cost_are_asked_in_the_order_of_the_language() -> None:
    (rule,) = rules("""
        [[rules]]
        match = { user = "u", system = "s", effort = "high", model = "m", input_tokens.min = 5, team = "a" }
        targets = "echo/x"
        [teams.a]
    """).rules
    assert [check.cost for check in rule.checks] == [0, 0, 0, 1, 1, 2]
    assert in_words(rule.checks[:2]) == "requests where team is `a` and model contains `m`"


def test_every_fact_is_found_by_its_name() -> None:
    assert list(BY_NAME.values()) == list(FACTS)
