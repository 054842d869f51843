"""What is said of variables by which LiteLLM would choose whom it asks, or as whom. (That it takes no notice
of them: `tests/upstream/litellm/test_environment.py`.)"""

import pytest

from routeproxy.policy.litellm_environment import variables_heeded
from routeproxy.policy.provider_types import TYPE_NAMES, provider_type
from tests.policy.asking import policy, problems

NEEDED = {
    "aws_region_name": 'aws_region_name = "eu-central-1"',
    "base_url": 'base_url = "https://corp.example/v1"',
    "location": 'location = "europe-west1"',
    "project": 'project = "p"',
}
HEEDED = [(type, name, key) for type in TYPE_NAMES for name, key in variables_heeded(type).items()]


def rules(type: str, *lines: str) -> str:
    kind = provider_type(type)
    assert kind is not None
    keys = {line.partition(" =")[0] for line in lines}
    needed = [NEEDED[key] for key in kind.required if key not in keys]
    return "\n".join(["[providers.corp]", f'type = "{type}"', *needed, *lines, "[default]", 'deny = "no"'])


@pytest.mark.parametrize(("type", "name", "key"), HEEDED, ids=[f"{type}, {name}" for type, name, _ in HEEDED])
def test_a_variable_that_chooses_an_account_stands_in_the_rules_or_is_an_error(
    type: str, name: str, key: str
) -> None:
    if key == "aws_region_name":  # it always stands there
        return
    [found] = [one for one in problems(rules(type), {name: "https://x.example"}) if one.severity == "error"]
    assert f"`{name}`" in found.message
    assert found.hint is not None
    assert ("unset the variable" if not key else f'`{key} = "env:{name}"`') in found.hint
    if key:
        zone = ['zone = "public"'] if key == "base_url" else []
        table, _, param = key.partition(".")
        line = f'{table}.{param} = "env:{name}"' if param else f'{key} = "env:{name}"'
        compiled = policy(rules(type, *zone, line), {name: "https://x.example"}).providers["corp"]
        said = {**compiled.options, **compiled.litellm_params, "base_url": compiled.base_url}
        assert "https://x.example" in [*said.values(), *(key.value for key in compiled.keys)]


@pytest.mark.parametrize(
    ("type", "name", "address"),
    [
        ("cohere", "COHERE_API_BASE", "https://api.cohere.com/v2/chat"),
        ("cohere_chat", "COHERE_API_BASE", "https://api.cohere.com/v2/chat"),
        ("meta_llama", "LLAMA_API_BASE", "https://api.llama.com/compat/v1"),
        ("mistral", "MISTRAL_AZURE_API_BASE", "https://api.mistral.ai/v1"),
        ("codestral", "MISTRAL_AZURE_API_BASE", "https://codestral.mistral.ai/v1"),
        ("groq", "GROQ_API_BASE", "https://api.groq.com/openai/v1"),
        ("fireworks_ai", "FIREWORKS_API_BASE", "https://api.fireworks.ai/inference/v1"),
    ],
)
def test_a_variable_that_would_move_a_provider_moves_nobody_and_is_a_warning(
    type: str, name: str, address: str
) -> None:
    environ = {name: "https://elsewhere.example"}
    [found] = [one for one in problems(rules(type), environ) if name in one.message]
    assert found.severity == "warning"
    assert found.message == f"the variable `{name}` moves nobody: type {type} is asked at {address}"
    assert found.hint == f'`base_url = "env:{name}"` has it asked there'
    assert policy(rules(type), environ).providers["corp"].base_url == address
    moved = policy(rules(type, 'zone = "public"', f'base_url = "env:{name}"'), environ)
    assert moved.providers["corp"].base_url == "https://elsewhere.example"
    assert [one for one in moved.warnings if "moves nobody" in one.message] == []


@pytest.mark.parametrize("type", ["lm_studio", "hosted_vllm", "litellm_proxy", "xinference", "snowflake"])
def test_a_type_whose_address_is_somebodys_own_must_be_given_it(type: str) -> None:
    """LiteLLM would ask OpenAI for most of them, with the key of the table."""
    text = f'[providers.corp]\ntype = "{type}"\napi_key = "none"\n[default]\ndeny = "no"'
    [found] = problems(text)
    assert found.message == f"type {type} needs `base_url`"


def test_an_option_may_stand_in_a_variable() -> None:
    text = rules("bedrock", 'aws_region_name = "env:AWS_REGION"')
    assert policy(text, {"AWS_REGION": "eu-west-1"}).providers["corp"].options == {
        "aws_region_name": "eu-west-1"
    }
    [found] = problems(text, {})
    assert found.message == "the variable `AWS_REGION` is not set"


@pytest.mark.parametrize("type", ["llamafile", "lemonade", "langgraph", "docker_model_runner"])
def test_a_server_for_ones_own_machine_is_local(type: str) -> None:
    assert policy(rules(type), {}).providers["corp"].zone == "local"
