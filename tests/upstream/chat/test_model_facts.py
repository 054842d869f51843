"""What is stated of a model in the rules, and what tables know of it: who says what, and what follows."""

from typing import Any

import pytest

from routeproxy.policy.targets import Target
from routeproxy.upstream.chat.model_facts import known_facts
from routeproxy.upstream.chat.profiles import Limits, profile_of
from tests.policy.asking import ask, policy


def target(model: str, provider: str = "openai", facts: str = "") -> Target:
    table = f'\n[providers.{provider}.models]\n"{model}" = {{ {facts} }}' if facts else ""
    text = f'[providers.{provider}]{table}\n[default]\ntargets = "{provider}/{model}"'
    (found,) = policy(text).default.targets
    return found


@pytest.mark.parametrize(
    ("facts", "switch", "value"),
    [
        pytest.param("vision = false", "vision", False, id="blind, whatever tables say"),
        pytest.param("tools = false", "tools", False, id="no tools"),
        pytest.param("thinking = false", "efforts", (), id="does not think"),
        pytest.param("max_output_tokens = 1_000", "max_output_tokens", 1_000, id="short answers"),
        pytest.param('region = "eu"', "vision", True, id="nothing of it"),
    ],
)
def test_what_the_rules_say_of_a_model_is_what_is_sent_to_it(facts: str, switch: str, value: Any) -> None:
    found = profile_of(target("gpt-5", facts=facts), Limits(max_output_tokens=128_000))
    assert getattr(found, switch) == value


def test_the_rules_may_take_back_a_no_of_our_own_table() -> None:
    assert profile_of(target("gpt-3.5-turbo")).vision is False
    assert profile_of(target("gpt-3.5-turbo", facts="vision = true")).vision is True


def test_tables_are_asked_for_what_the_rules_leave_out() -> None:
    known = known_facts(target("gpt-4o"))
    assert (known.context_window, known.vision) == (128_000, True)
    stated = known_facts(target("gpt-4o", facts="context_window = 5_000, vision = false"))
    assert (stated.context_window, stated.vision, stated.max_output_tokens) == (5_000, False, 16_384)


def test_of_a_model_that_nobody_knows_nothing_is_known() -> None:
    known = known_facts(target("corporate-7b"))
    assert (known.context_window, known.vision, known.tools, known.thinking) == (None, None, None, None)


@pytest.mark.parametrize(
    ("asked", "region"),
    [
        pytest.param("eu.anthropic.claude-x", "eu", id="a glob"),
        pytest.param("eu.anthropic.special", "de", id="a whole name wins"),
        pytest.param("us.anthropic.claude-x", None, id="not among them"),
    ],
)
def test_a_star_asks_only_for_models_that_are_listed(asked: str, region: str | None) -> None:
    found = policy("""
        [providers.bedrock]
        aws_region_name = "eu-central-1"
        [providers.bedrock.models]
        "eu.anthropic.*" = { region = "eu" }
        "eu.anthropic.special" = { region = "de" }
        [default]
        targets = "bedrock/*"
    """)
    decision = ask(found, asked)
    if region is None:
        assert decision.deny is not None
        assert (decision.deny.status, decision.deny.message) == (404, f"model: {asked}")
    else:
        assert decision.targets[0].reached[0].region == region
