"""A rule's `params` in a request: default, set, cap, drop, then `extra_body`; only what is named changes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.messages.body import Body
from routeproxy.messages.edits import apply_edits
from routeproxy.messages.errors import ApiError
from routeproxy.policy.targets import Params
from routeproxy.upstream.params import merge, plan_edits, with_params


def after(params: Params, **fields: Any) -> dict[str, Any]:
    """The fields of a request after `params`."""
    body = Body(json.dumps(fields).encode())
    return dict(json.loads(apply_edits(body.text, plan_edits(body, params, extra_body=params.extra_body))))


CASES = [
    pytest.param(Params(default={"top_k": 5}), {}, {"top_k": 5}, id="a default where there is nothing"),
    pytest.param(
        Params(default={"top_k": 5}), {"top_k": 1}, {"top_k": 1}, id="no default where there is something"
    ),
    pytest.param(Params(default={"top_k": 5}), {"top_k": None}, {"top_k": 5}, id="null is nothing"),
    pytest.param(Params(set={"top_k": 5}), {"top_k": 1}, {"top_k": 5}, id="set wins"),
    pytest.param(Params(default={"top_k": 1}, set={"top_k": 5}), {}, {"top_k": 5}, id="over a default too"),
    pytest.param(Params(cap={"max_tokens": 9}), {"max_tokens": 10}, {"max_tokens": 9}, id="a cap"),
    pytest.param(
        Params(cap={"max_tokens": 9}), {"max_tokens": 8}, {"max_tokens": 8}, id="a cap that is not reached"
    ),
    pytest.param(Params(cap={"temperature": 0.5}), {}, {}, id="a cap makes nothing up"),
    pytest.param(
        Params(cap={"top_k": 5}), {"top_k": "many"}, {"top_k": "many"}, id="nor does it mend a mistake"
    ),
    pytest.param(Params(set={"top_k": 9}, cap={"top_k": 5}), {}, {"top_k": 5}, id="set is capped"),
    pytest.param(Params(drop=frozenset({"top_k"})), {"top_k": 1, "a": 1}, {"a": 1}, id="drop"),
    pytest.param(Params(set={"top_k": 1}, drop=frozenset({"top_k"})), {}, {}, id="drop comes last"),
    pytest.param(
        Params(extra_body={"a": {"b": 1}}), {"a": {"c": [2]}}, {"a": {"b": 1, "c": [2]}}, id="a merge"
    ),
    pytest.param(Params(extra_body={"a": [1]}), {"a": [2, 3]}, {"a": [1]}, id="lists replace"),
    pytest.param(
        Params(set={"a": {"b": 1}}, extra_body={"a": {"c": 2}}),
        {"a": 0},
        {"a": {"b": 1, "c": 2}},
        id="a merge into what was set",
    ),
    pytest.param(
        Params(drop=frozenset({"a"}), extra_body={"a": {"c": 2}}),
        {"a": {"b": 1}},
        {"a": {"c": 2}},
        id="into what was dropped",
    ),
]


@pytest.mark.parametrize(("params", "asked", "sent"), CASES)
def test_params_in_their_order(params: Params, asked: dict[str, Any], sent: dict[str, Any]) -> None:
    assert after(params, **asked) == sent


def thinking(budget: int, **more: Any) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": budget, **more}


BUDGETS = [
    pytest.param(4000, 31999, thinking(3999), id="lowered below the cap"),
    pytest.param(4000, 4000, thinking(3999), id="equal is too much"),
    pytest.param(4000, 2000, thinking(2000), id="below already"),
    pytest.param(1025, 2000, thinking(1024), id="the least there is"),
    pytest.param(1024, 2000, {"type": "disabled"}, id="no room for it"),
]


@pytest.mark.parametrize(("cap", "budget", "sent"), BUDGETS)
def test_a_cap_on_max_tokens_lowers_the_thinking_budget(cap: int, budget: int, sent: dict[str, Any]) -> None:
    asked = {"max_tokens": 64_000, "thinking": thinking(budget)}
    assert after(Params(cap={"max_tokens": cap}), **asked) == {"max_tokens": cap, "thinking": sent}


def test_the_rest_of_thinking_stays() -> None:
    asked = {"max_tokens": 64_000, "thinking": thinking(32_000, display="omitted")}
    assert after(Params(cap={"max_tokens": 2000}), **asked)["thinking"] == thinking(1999, display="omitted")


def test_a_budget_that_a_rule_sets_fits_too() -> None:
    assert after(Params(set={"thinking": thinking(9000)}), max_tokens=5000)["thinking"] == thinking(4999)


def test_a_budget_that_the_client_got_wrong_is_the_clients() -> None:
    asked = {"max_tokens": 2000, "thinking": thinking(9000)}
    assert after(Params(set={"top_k": 1}), **asked) == asked | {"top_k": 1}


def test_adaptive_thinking_has_no_budget() -> None:
    asked = {"max_tokens": 9000, "thinking": {"type": "adaptive"}}
    assert after(Params(cap={"max_tokens": 2000}), **asked)["thinking"] == {"type": "adaptive"}


def test_a_request_that_needs_nothing_is_the_very_same() -> None:
    body = Body(b' { "max_tokens" : 5 , "messages":[] } ')
    params = Params(cap={"max_tokens": 9}, default={"max_tokens": 7}, drop=frozenset({"top_k"}))
    assert with_params(body, params).text is body.text


def test_a_value_that_is_no_utf_8_is_the_clients_mistake() -> None:
    body = Body(b'{"model":"m","messages":[],"stop_sequences":["\xff"]}')
    with pytest.raises(ApiError, match="not valid UTF-8"):
        with_params(body, Params(default={"stop_sequences": ["a"]}))


json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=3),
)


@given(json_values, json_values)
def test_a_merge_leaves_its_parts_alone_and_done_twice_is_done_once(one: Any, other: Any) -> None:
    before = json.dumps([one, other])
    both = merge(one, other)
    assert merge(both, other) == both
    assert json.dumps([one, other]) == before
