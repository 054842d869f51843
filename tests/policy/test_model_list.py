"""What `P/*` adds to the list of models: what a provider's table names, else what is known of its type."""

import pytest

from routeproxy.policy.model_list import UnreachableTarget, models_at, models_for
from routeproxy.policy.providers import Provider
from tests.policy.asking import policy

PROVIDERS = """
[providers.openai]
[providers.anthropic]
[providers.echo]
[providers.corp]
type = "openai_compatible"
base_url = "http://corp.example/v1"
api_key = "none"
"""
KNOWN = {
    "openai": ("gpt-5", "gpt-4.1", "gpt-4o"),
    "anthropic": ("claude-opus-5", "claude-haiku-5"),
    "openai_compatible": ("never",),
}


def known(provider: Provider) -> tuple[str, ...]:
    return KNOWN.get(provider.type, ()) if provider.name != "corp" else ()


def listed(text: str, team: str | None = None) -> tuple[str, ...]:
    return models_for(policy(f"{PROVIDERS}\n{text}"), team, known)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param('[default]\ntargets = "openai/*"', ("gpt-5", "gpt-4.1", "gpt-4o"), id="what is known"),
        pytest.param('[default]\ntargets = "echo/*"', (), id="nothing is known"),
        pytest.param(
            '[aliases]\nany = ["anthropic/*", "openai/gpt-5"]\n[default]\ntargets = "any"',
            ("claude-opus-5", "claude-haiku-5"),
            id="through an alias",
        ),
        pytest.param(
            '[providers.corp.models]\n"llama-3.3" = {}\n"claude-*" = {}\n[default]\ntargets = "corp/*"',
            ("llama-3.3",),
            id="whole names of its own table, and globs are none",
        ),
        pytest.param(
            '[providers.openai.models]\n"gpt-4*" = {}\n[default]\ntargets = "openai/*"',
            ("gpt-4.1", "gpt-4o"),
            id="globs alone keep what is known within them",
        ),
        pytest.param(
            '[providers.openai.models]\n"gpt-9" = {}\n[default]\ntargets = "openai/*"',
            ("gpt-9",),
            id="its table goes before what is known",
        ),
        pytest.param(
            '[[rules]]\nmatch.model.prefix = "gpt-4"\ntargets = "corp/m"\n[default]\ntargets = "openai/*"',
            ("gpt-5",),
            id="not what a rule above sends elsewhere",
        ),
        pytest.param(
            '[[rules]]\nmatch.model = "gpt-4"\ndeny = "no"\n[default]\ntargets = "openai/*"',
            ("gpt-5",),
            id="not what is denied",
        ),
        pytest.param(
            '[[rules]]\nmatch.model = "claude"\ntargets = "anthropic/*"\n[default]\ntargets = "openai/*"',
            ("claude-opus-5", "claude-haiku-5", "gpt-5", "gpt-4.1", "gpt-4o"),
            id="of two providers, each where it is asked",
        ),
        pytest.param(
            '[default]\ntargets = ["anthropic/*", "openai/*"]',
            ("claude-opus-5", "claude-haiku-5"),
            id="not what only a failure of the first leads to",
        ),
        pytest.param(
            '[[rules]]\nmatch = { stream = true, tools = true }\ntargets = "anthropic/*"\n'
            '[default]\ndeny = "no"',
            ("claude-opus-5", "claude-haiku-5"),
            id="what Claude Code's own requests lead to",
        ),
        pytest.param(
            '[[rules]]\nmatch.images = true\ntargets = "anthropic/*"\n[default]\ntargets = "openai/gpt-5"',
            ("gpt-5", "anthropic/gpt-5"),
            id="not what pictures alone lead to",
        ),
        pytest.param(
            '[[rules]]\nmatch.model.equals = "house"\ntargets = "corp/m"\n[default]\ntargets = "openai/*"',
            ("house", "gpt-5", "gpt-4.1", "gpt-4o"),
            id="after the names that rules state",
        ),
        pytest.param(
            '[server]\nmodels = ["mine"]\n[default]\ntargets = "openai/*"',
            ("mine",),
            id="the server's own list is all",
        ),
    ],
)
def test_what_a_rule_can_serve_is_listed(text: str, names: tuple[str, ...]) -> None:
    assert listed(text) == names


TEAMS = """
[teams.payments]
keys = ["env:A"]
models = ["*opus*"]
[teams.research]
keys = ["env:B"]
[teams.nightly]
keys = ["env:C"]
request_headers = { x-class = "batch" }
[[rules]]
match.team = "research"
targets = "openai/*"
[[rules]]
match.headers.x-class = "batch"
targets = "corp/*"
[providers.corp.models]
"batch-model" = {}
[default]
targets = "anthropic/*"
"""


@pytest.mark.parametrize(
    ("team", "names"),
    [
        ("payments", ("claude-opus-5",)),
        ("research", ("gpt-5", "gpt-4.1", "gpt-4o")),
        ("nightly", ("batch-model",)),
        (None, ("claude-opus-5", "claude-haiku-5")),
    ],
)
def test_a_team_sees_what_it_may_ask_for_and_its_rules_reach(
    team: str | None, names: tuple[str, ...]
) -> None:
    assert listed(TEAMS, team) == names


def test_a_list_has_a_thousand_names_at_most_and_those_that_rules_state_first() -> None:
    many = tuple(f"claude-{number}" for number in range(1_500))
    text = '[[rules]]\nmatch.model.equals = "house"\ntargets = "corp/m"\n[default]\ntargets = "anthropic/*"'
    names = models_for(policy(f"{PROVIDERS}\n{text}"), None, lambda provider: many)
    assert (len(names), names[:3], names[-1]) == (1_000, ("house", "claude-0", "claude-1"), "claude-998")


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("openai/gpt-5", ("gpt-5", "anthropic/gpt-5")),
        ("anthropic/claude-opus-5", ("claude-opus-5",)),
    ],
)
def test_a_target_in_the_url_has_one_model_under_each_name_that_is_shown(
    target: str, names: tuple[str, ...]
) -> None:
    text = '[server]\nurl_targets = true\n[default]\ntargets = ["openai/*", "anthropic/*"]'
    assert models_at(policy(f"{PROVIDERS}\n{text}"), None, target) == names


def test_a_target_in_the_url_that_no_rule_lists_has_none() -> None:
    text = '[server]\nurl_targets = true\n[default]\ntargets = ["openai/*"]'
    with pytest.raises(UnreachableTarget) as raised:
        models_at(policy(f"{PROVIDERS}\n{text}"), None, "corp/x")
    assert raised.value.denial is not None
    assert raised.value.denial.message == "model: corp/x"
