"""The older proxies' variables: each one's effect, who wins, and that one's own endpoint stays one's own."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from routeproxy.messages.request import Envelope
from routeproxy.migrate.environment import LISTED, environment_policy, environment_rules, read_environment
from routeproxy.migrate.environment_models import PREFIXES, TOGETHER_MODEL
from routeproxy.migrate.environment_providers import PREFERRED
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.facts import Facts
from routeproxy.policy.model_list import models_for
from routeproxy.policy.problems import Problem, RulesRefused
from routeproxy.policy.targets import Target

Variables = dict[str, str]

KEYS = {
    "OPENAI_API_KEY": "o",
    "GEMINI_API_KEY": "g",
    "ANTHROPIC_API_KEY": "a",
    "AZURE_OPENAI_API_KEY": "z",
    "TOGETHERAI_API_KEY": "t",
    "NVIDIA_API_KEY": "n",
    "OPENROUTER_API_KEY": "r",
    "CUSTOM_API_KEY": "c",
}
ADDRESSES = {
    "AZURE_OPENAI_ENDPOINT": "https://res.openai.azure.com",
    "VERTEX_PROJECT": "project",
    "VERTEX_LOCATION": "europe-west1",
}
EVERYTHING = KEYS | ADDRESSES
CORP = "https://llm.corp.internal/v1"


def prefers(provider: str, **more: str) -> Variables:
    return {"PREFERRED_PROVIDER": provider, **more}


def decided(policy: Policy, model: str, url: str | None = None) -> Decision:
    envelope = Envelope(model=model, messages=Raw(b"[]"))
    return policy.decide(Facts(envelope, {}, url_target=url.replace(":", "/", 1) if url else None))


def target(variables: Variables, model: str, url: str | None = None) -> Target:
    (only,) = decided(environment_policy(variables), model, url).targets
    return only


def leads(variables: Variables, model: str, url: str | None = None) -> str:
    """The target's name, or the denial's status and words."""
    decision = decided(environment_policy(variables), model, url)
    if decision.deny:
        return f"{decision.deny.status} {decision.deny.message}"
    return " ".join(found.name for found in decision.targets)


def problems(variables: Variables) -> tuple[Problem, ...]:
    with pytest.raises(RulesRefused) as refused:
        environment_policy(variables)
    return refused.value.problems


def warnings(variables: Variables) -> list[str]:
    return [problem.message for problem in environment_policy(variables).warnings]


# --- PREFERRED_PROVIDER, BIG_MODEL, SMALL_MODEL


@pytest.mark.parametrize(
    ("variables", "big", "small"),
    [
        pytest.param(KEYS, "openai/gpt-4.1", "openai/gpt-4.1-mini", id="nothing said: OpenAI"),
        pytest.param({}, "openai/gpt-4.1", "openai/gpt-4.1-mini", id="not even a key"),
        pytest.param(prefers("openai"), "openai/gpt-4.1", "openai/gpt-4.1-mini", id="openai"),
        pytest.param(prefers(" OpenAI "), "openai/gpt-4.1", "openai/gpt-4.1-mini", id="capitals and spaces"),
        pytest.param(prefers("google"), "gemini/gemini-2.5-pro", "gemini/gemini-2.5-flash", id="google"),
        pytest.param(
            prefers("google", USE_VERTEX_AUTH="true", **ADDRESSES),
            "vertex/gemini-2.5-pro",
            "vertex/gemini-2.5-flash",
            id="google through vertex",
        ),
        pytest.param(
            prefers("vertex", **ADDRESSES), "vertex/gemini-2.5-pro", "vertex/gemini-2.5-flash", id="vertex"
        ),
        pytest.param(prefers("azure", **ADDRESSES), "azure/gpt-4.1", "azure/gpt-4.1-mini", id="azure"),
        pytest.param(
            prefers("together"), f"together/{TOGETHER_MODEL}", f"together/{TOGETHER_MODEL}", id="together"
        ),
        pytest.param(
            prefers("together", TOGETHER_MODEL="Qwen/Q"),
            "together/Qwen/Q",
            "together/Qwen/Q",
            id="TOGETHER_MODEL",
        ),
        pytest.param(
            prefers("ollama", BIG_MODEL="llama3.3:70b", SMALL_MODEL="qwen3"),
            "ollama/llama3.3:70b",
            "ollama/qwen3",
            id="ollama",
        ),
        pytest.param(
            prefers("ollama", SMALL_MODEL="qwen3"),
            "ollama/qwen3",
            "ollama/qwen3",
            id="one stands in for the other",
        ),
        pytest.param(
            prefers("custom", CUSTOM_BASE_URL=CORP, BIG_MODEL="corp-1"),
            "custom/corp-1",
            "custom/corp-1",
            id="custom",
        ),
        pytest.param(
            prefers("nvidia", BIG_MODEL="nvidia/nemotron-ultra"),
            "nvidia/nvidia/nemotron-ultra",
            "nvidia/nvidia/nemotron-ultra",
            id="nvidia, where nvidia/ is part of the name",
        ),
        pytest.param(
            prefers("openrouter", BIG_MODEL="openai/gpt-4.1", SMALL_MODEL="openrouter/qwen/q3"),
            "openrouter/openai/gpt-4.1",
            "openrouter/qwen/q3",
            id="openrouter, whose names begin with vendors",
        ),
        pytest.param(
            prefers("anthropic"), "anthropic/claude-opus-4-8", "anthropic/claude-haiku-4-5", id="anthropic"
        ),
        pytest.param(
            prefers("anthropic", BIG_MODEL="gpt-4.1"),
            "anthropic/claude-opus-4-8",
            "anthropic/claude-haiku-4-5",
            id="anthropic ignores BIG_MODEL",
        ),
        pytest.param({"BIG_MODEL": "gpt-5"}, "openai/gpt-5", "openai/gpt-4.1-mini", id="BIG_MODEL alone"),
        pytest.param(
            {"BIG_MODEL": "openai/gpt-5"}, "openai/gpt-5", "openai/gpt-4.1-mini", id="no prefix is doubled"
        ),
        pytest.param(
            {"BIG_MODEL": "gemini/gemini-3-pro"},
            "gemini/gemini-3-pro",
            "openai/gpt-4.1-mini",
            id="another's prefix",
        ),
        pytest.param(
            {"BIG_MODEL": "gemini-3-pro"}, "gemini/gemini-3-pro", "openai/gpt-4.1-mini", id="a Gemini name"
        ),
        pytest.param(
            {"BIG_MODEL": "vertex_ai/gemini-3-pro", **ADDRESSES},
            "vertex/gemini-3-pro",
            "openai/gpt-4.1-mini",
            id="Vertex by prefix",
        ),
        pytest.param(
            prefers("google", BIG_MODEL="gpt-5"),
            "openai/gpt-5",
            "gemini/gemini-2.5-flash",
            id="google with an OpenAI name",
        ),
        pytest.param(
            prefers("google", BIG_MODEL="foo-7b"),
            "openai/foo-7b",
            "gemini/gemini-2.5-flash",
            id="google with any other",
        ),
        pytest.param(
            prefers("google", OPENAI_BASE_URL=CORP),
            "gemini/gemini-2.5-pro",
            "gemini/gemini-2.5-flash",
            id="google, own OpenAI",
        ),
        pytest.param(
            prefers("custom", CUSTOM_BASE_URL=CORP, BIG_MODEL="openai/corp-1"),
            "custom/corp-1",
            "custom/corp-1",
            id="custom with LiteLLM's prefix for OpenAI-compatible",
        ),
        pytest.param(
            prefers("azure", BIG_MODEL="gemini-2.5-pro", **ADDRESSES),
            "azure/gemini-2.5-pro",
            "azure/gpt-4.1-mini",
            id="azure keeps known names",
        ),
        pytest.param(
            {"BIG_MODEL": "  "}, "openai/gpt-4.1", "openai/gpt-4.1-mini", id="an empty variable is unset"
        ),
    ],
)
def test_claudes_names_lead_to_the_big_and_the_small_model(
    variables: Variables, big: str, small: str
) -> None:
    policy = environment_policy(variables)
    assert decided(policy, "claude-opus-4-8").targets[0].name == big
    assert decided(policy, "claude-haiku-4-5").targets[0].name == small


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-opus-4-8", "openai/gpt-4.1"),
        ("claude-sonnet-5[1m]", "openai/gpt-4.1"),
        ("Claude-Next", "openai/gpt-4.1"),
        ("my-sonnet", "openai/gpt-4.1"),
        ("claude-3-5-haiku-20241022", "openai/gpt-4.1-mini"),
        ("HAIKU", "openai/gpt-4.1-mini"),
        ("some-model", "openai/some-model"),
    ],
)
def test_haiku_is_small_and_any_other_claude_is_big(model: str, expected: str) -> None:
    assert leads(KEYS, model) == expected


# --- who wins


@pytest.mark.parametrize(
    ("variables", "model", "expected"),
    [
        pytest.param(EVERYTHING, "openai/gpt-5", "openai/gpt-5", id="openai/"),
        pytest.param(EVERYTHING, "gemini/gemini-3", "gemini/gemini-3", id="gemini/"),
        pytest.param(EVERYTHING, "vertex_ai/gemini-3", "vertex/gemini-3", id="vertex_ai/"),
        pytest.param(EVERYTHING, "azure/my-gpt", "azure/my-gpt", id="azure/"),
        pytest.param(EVERYTHING, "anthropic/claude-opus-4-8", "anthropic/claude-opus-4-8", id="anthropic/"),
        pytest.param(EVERYTHING, "together_ai/Qwen/Q", "together/Qwen/Q", id="together_ai/"),
        pytest.param(EVERYTHING, "ollama/qwen3:8b", "ollama/qwen3:8b", id="ollama/"),
        pytest.param(EVERYTHING, "ollama_chat/qwen3", "ollama/qwen3", id="ollama_chat/"),
        pytest.param(EVERYTHING, "nvidia_nim/meta/llama", "nvidia/meta/llama", id="nvidia_nim/"),
        pytest.param(EVERYTHING, "openrouter/qwen/q3", "openrouter/qwen/q3", id="openrouter/"),
        pytest.param(EVERYTHING, "OpenAI/gpt-5", "openai/gpt-5", id="a prefix in capitals"),
        pytest.param(
            EVERYTHING, "gemini/claude-like", "gemini/claude-like", id="a prefix before Claude's names"
        ),
        pytest.param(EVERYTHING, "gpt-5", "openai/gpt-5", id="a bare OpenAI name"),
        pytest.param(EVERYTHING, "o3-mini", "openai/o3-mini", id="a bare o-series name"),
        pytest.param(EVERYTHING, "chatgpt-4o-latest", "openai/chatgpt-4o-latest", id="a bare ChatGPT name"),
        pytest.param(EVERYTHING, "gemini-3-pro", "gemini/gemini-3-pro", id="a bare Gemini name"),
        pytest.param(
            prefers("google", **EVERYTHING), "gpt-5", "openai/gpt-5", id="google: OpenAI's names go there"
        ),
        pytest.param(
            prefers("google", **EVERYTHING), "gemini-3", "gemini/gemini-3", id="google: Gemini's stay"
        ),
        pytest.param(prefers("google", **EVERYTHING), "other", "gemini/other", id="google: any other stays"),
        pytest.param(
            prefers("google", OPENAI_BASE_URL=CORP, **EVERYTHING),
            "gpt-5",
            "gemini/gpt-5",
            id="google, own OpenAI: all stay",
        ),
        pytest.param(prefers("azure", **EVERYTHING), "gpt-4o", "azure/gpt-4o", id="azure: known names stay"),
        pytest.param(
            prefers("together", **EVERYTHING),
            "gemini-3",
            "together/gemini-3",
            id="together: known names stay",
        ),
        pytest.param(
            prefers("anthropic", **EVERYTHING), "gpt-5", "anthropic/gpt-5", id="anthropic: known names stay"
        ),
        pytest.param(EVERYTHING, "nvidia/nemo", "openai/nvidia/nemo", id="nvidia/ is no prefix"),
        pytest.param(EVERYTHING, "meta/llama-4", "openai/meta/llama-4", id="meta/ is no prefix"),
        pytest.param(EVERYTHING, "qwen/q3", "openai/qwen/q3", id="qwen/ is no prefix"),
        pytest.param(EVERYTHING, "mistralai/m", "openai/mistralai/m", id="mistralai/ is no prefix"),
        pytest.param(
            prefers("openrouter", OPENROUTER_API_KEY="r", BIG_MODEL="b"),
            "openai/gpt-5",
            "openrouter/openai/gpt-5",
            id="openrouter: vendors that are not set up here are its own",
        ),
        pytest.param(
            KEYS,
            "azure/x",
            "400 `azure` is not set up here: AZURE_OPENAI_ENDPOINT is not set",
            id="not set up",
        ),
        pytest.param(
            {},
            "anthropic/claude-opus-4-8",
            "400 `anthropic` is not set up here: ANTHROPIC_API_KEY is not set",
            id="a prefix is never answered by somebody else",
        ),
        pytest.param(
            {},
            "gemini-3",
            "400 `gemini` is not set up here: GEMINI_API_KEY is not set",
            id="no key for a known name",
        ),
        pytest.param(
            EVERYTHING | {"USE_VERTEX_AUTH": "1"},
            "gemini/gemini-3",
            "gemini/gemini-3",
            id="gemini/ with USE_VERTEX_AUTH",
        ),
    ],
)
def test_a_prefix_wins_then_the_preferred_provider_then_known_names(
    variables: Variables, model: str, expected: str
) -> None:
    assert leads({"BIG_MODEL": "", **variables}, model) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("openai:gpt-5", "openai/gpt-5"),
        ("gemini:gemini-3", "gemini/gemini-3"),
        ("google:gemini-3", "gemini/gemini-3"),
        ("anthropic:claude-opus-4-8", "anthropic/claude-opus-4-8"),
        ("ollama:llama3.3:70b", "ollama/llama3.3:70b"),
        ("nvidia:nvidia/nano:30b", "nvidia/nvidia/nano:30b"),
        ("nvidia_nim:x", "nvidia/x"),
        ("together:Qwen/Q", "together/Qwen/Q"),
        ("vertex_ai:gemini-3", "vertex/gemini-3"),
        ("openrouter:openai/gpt-5", "openrouter/openai/gpt-5"),
        ("openai:claude-opus-4-8", "openai/claude-opus-4-8"),
        ("azure:o3-mini", "azure-responses/o3-mini"),
        ("azure:gpt-4o", "azure/gpt-4o"),
        ("custom:x", "404 model: custom/x"),
    ],
)
def test_a_model_in_the_url_wins_over_every_mapping(url: str, expected: str) -> None:
    assert leads(EVERYTHING, "claude-opus-4-8", url) == expected


# --- no public fallback

OWN = {
    "custom": prefers("custom", CUSTOM_BASE_URL=CORP, BIG_MODEL="corp-1"),
    "ollama": prefers("ollama", BIG_MODEL="llama3.3"),
    "openai": prefers("openai", OPENAI_BASE_URL=CORP, BIG_MODEL="corp-1"),
    "nvidia": prefers("nvidia", NVIDIA_BASE_URL="http://10.0.0.7:8000/v1", BIG_MODEL="nemotron"),
    "openrouter": prefers("openrouter", OPENROUTER_BASE_URL=CORP, BIG_MODEL="corp-1"),
}


@pytest.mark.parametrize("provider", OWN)
@pytest.mark.parametrize("model", ["gpt-5", "gemini-3-pro", "other", "meta/llama", "google/gemma"])
def test_on_an_endpoint_of_ones_own_every_name_stays(provider: str, model: str) -> None:
    assert leads(OWN[provider] | EVERYTHING, model) == f"{provider}/{model}"


@pytest.mark.parametrize("provider", OWN)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_on_an_endpoint_of_ones_own_a_public_providers_prefix_is_refused(provider: str, prefix: str) -> None:
    found = leads(OWN[provider] | EVERYTHING, f"{prefix}x")
    assert found == (f"{provider}/x" if PREFIXES[prefix] == provider else found)
    assert PREFIXES[prefix] == provider or found.startswith(f"400 everything here goes to `{provider}`")


def test_a_second_endpoint_of_ones_own_can_be_named() -> None:
    both = OWN["custom"] | {"OLLAMA_BASE_URL": "http://gpu.corp.internal:11434", "OPENAI_BASE_URL": CORP}
    assert leads(both, "ollama/qwen3") == "ollama/qwen3"
    assert leads(both, "openai/x") == "openai/x"


def test_a_public_prefix_in_a_variable_is_refused_there() -> None:
    (problem,) = problems(OWN["custom"] | {"BIG_MODEL": "gemini/gemini-3"})
    assert (
        problem.message
        == "BIG_MODEL is `gemini/gemini-3`, but nothing leads from `custom` to another provider"
    )
    assert problem.hint == "leave out `gemini/`"


NAMES = st.lists(
    st.sampled_from([*PREFIXES, "google/", "custom/", "nvidia/", "vertex/", "together/"])
    | st.sampled_from(
        ["claude-opus-4-8", "haiku", "gpt-5", "o3", "gemini-3", "nemotron", "[1m]", ":", "/", "@"]
    )
    | st.text("aAzZ09._:@/+-[]", max_size=4),
    max_size=4,
).map("".join)
SPOILED = st.dictionaries(
    st.sampled_from(["USE_VERTEX_AUTH", "MAX_OUTPUT_TOKENS", "SMALL_MODEL", "TOGETHER_MODEL"]),
    st.sampled_from(["1", "0"]),
)


@given(
    st.sampled_from(list(OWN)),
    st.sampled_from([{}, EVERYTHING]),
    SPOILED,
    NAMES,
    st.sampled_from([None, *PREFERRED]),
)
def test_no_name_whatsoever_leads_from_ones_own_endpoint_to_a_public_one(
    provider: str, others: Variables, more: Variables, name: str, url: str | None
) -> None:
    policy = environment_policy(OWN[provider] | ADDRESSES | others | more)
    decision = decided(policy, name, f"{url}:{name}" if url else None)
    assert all(found.provider.zone != "public" for found in decision.targets)
    assert all(found.zone != "public" for found in policy.providers.values())
    assert decision.targets or decision.deny


@given(
    st.sampled_from(PREFERRED),
    st.sets(st.sampled_from([*EVERYTHING])),
    NAMES,
    st.sampled_from([None, *PREFERRED]),
)
def test_whatever_else_is_set_there_is_a_policy_and_an_answer(
    provider: str, more: set[str], name: str, url: str | None
) -> None:
    needed = ADDRESSES | {"CUSTOM_BASE_URL": CORP, "BIG_MODEL": "b"}
    variables = prefers(provider) | needed | {key: EVERYTHING[key] for key in more}
    decision = decided(environment_policy(variables), name, f"{url}:{name}" if url else None)
    assert decision.targets or decision.deny


@pytest.mark.parametrize(
    "address", ["https://api.openai.com/v1", "https://api.openai.com", "https://API.openai.com/v1/"]
)
def test_the_public_address_written_out_is_still_the_public_api(address: str) -> None:
    variables = KEYS | {"OPENAI_BASE_URL": address}
    assert target(variables, "gpt-5").provider.base_url == "https://api.openai.com/v1"
    assert leads(variables, "gemini-3") == "gemini/gemini-3"


# --- OPENAI_BASE_URL: an endpoint of one's own, another public service, Azure

OPENROUTER = {"OPENAI_BASE_URL": "https://openrouter.ai/api/v1", "OPENAI_API_KEY": "o"}
NIM = {"OPENAI_BASE_URL": "https://integrate.api.nvidia.com/v1", "OPENAI_API_KEY": "o"}
VLLM = {"OPENAI_BASE_URL": "http://10.0.0.7:8000/v1", "OPENAI_API_KEY": "o"}
DEEPSEEK = {"OPENAI_BASE_URL": "https://api.deepseek.com/v1", "OPENAI_API_KEY": "o"}
AZURE = {"OPENAI_BASE_URL": "https://res.openai.azure.com/openai/v1", "OPENAI_API_KEY": "o"}


@pytest.mark.parametrize(
    ("variables", "big", "small"),
    [
        pytest.param(
            OPENROUTER | {"BIG_MODEL": "anthropic/claude-sonnet-4.5", "ANTHROPIC_API_KEY": "a"},
            "openrouter/anthropic/claude-sonnet-4.5",
            "openrouter/anthropic/claude-sonnet-4.5",
            id="a vendor's name at OpenRouter",
        ),
        pytest.param(
            NIM | {"BIG_MODEL": "openai/gpt-oss-120b", "SMALL_MODEL": "meta/llama-3.3-70b-instruct"},
            "nvidia/openai/gpt-oss-120b",
            "nvidia/meta/llama-3.3-70b-instruct",
            id="OpenAI's vendor name at NIM",
        ),
        pytest.param(
            NIM | {"SMALL_MODEL": "nvidia/nemotron-nano"},
            "nvidia/nvidia/nemotron-nano",
            "nvidia/nvidia/nemotron-nano",
            id="the small one for both",
        ),
        pytest.param(
            VLLM | {"BIG_MODEL": "openai/gpt-oss-120b"},
            "openai/openai/gpt-oss-120b",
            "openai/openai/gpt-oss-120b",
            id="at a vLLM of one's own, as its maker calls it",
        ),
        pytest.param(
            VLLM | {"BIG_MODEL": "anthropic/finetune"},
            "openai/anthropic/finetune",
            "openai/anthropic/finetune",
            id="another vendor's there",
        ),
        pytest.param(
            DEEPSEEK | {"BIG_MODEL": "deepseek-chat"},
            "openai/deepseek-chat",
            "openai/deepseek-chat",
            id="a public service without vendors",
        ),
        pytest.param(
            AZURE | {"BIG_MODEL": "openai/my-gpt"}, "azure/my-gpt", "azure/my-gpt", id="a deployment at Azure"
        ),
        pytest.param(
            prefers("nvidia", NVIDIA_API_KEY="n", BIG_MODEL="openai/gpt-oss-120b"),
            "nvidia/openai/gpt-oss-120b",
            "nvidia/openai/gpt-oss-120b",
            id="NIM by its own variables",
        ),
        pytest.param(
            OWN["nvidia"] | {"BIG_MODEL": "openai/gpt-oss-120b"},
            "nvidia/openai/gpt-oss-120b",
            "nvidia/openai/gpt-oss-120b",
            id="NIM on one's own machine",
        ),
        pytest.param(VLLM, "openai/gpt-4.1", "openai/gpt-4.1-mini", id="nothing said: OpenAI's, and a note"),
    ],
)
def test_away_from_openai_the_models_go_out_as_they_are_written(
    variables: Variables, big: str, small: str
) -> None:
    assert leads(variables, "claude-opus-4-8") == big
    assert leads(variables, "claude-haiku-4-5") == small


@pytest.mark.parametrize("others", [{}, KEYS | {"OPENAI_API_KEY": "o"}], ids=["alone", "beside other keys"])
@pytest.mark.parametrize(
    ("variables", "model", "expected"),
    [
        (OPENROUTER, "openai/gpt-oss-120b", "openrouter/openai/gpt-oss-120b"),
        (OPENROUTER, "anthropic/claude-sonnet-4.5", "openrouter/anthropic/claude-sonnet-4.5"),
        (OPENROUTER, "google/gemini-3", "openrouter/google/gemini-3"),
        (OPENROUTER, "openrouter/auto", "openrouter/auto"),
        (OPENROUTER, "gpt-5", "openrouter/gpt-5"),
        (NIM, "openai/gpt-oss-120b", "nvidia/openai/gpt-oss-120b"),
        (NIM, "nvidia/nemotron", "nvidia/nvidia/nemotron"),
        (NIM, "nvidia_nim/meta/llama", "nvidia/meta/llama"),
        (VLLM, "Qwen/Q", "openai/Qwen/Q"),
        (AZURE, "my-gpt", "azure/my-gpt"),
        (AZURE, "o3-mini", "azure-responses/o3-mini"),
    ],
)
def test_a_clients_names_stay_with_the_endpoint(
    variables: Variables, others: Variables, model: str, expected: str
) -> None:
    assert leads(others | variables | {"BIG_MODEL": "b"}, model) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("openai:meta/llama", "openai/meta/llama"),
        ("gemini:gemini-3", "gemini/gemini-3"),
        ("google:gemini-3", "gemini/gemini-3"),
        ("anthropic:claude-opus-4-8", "anthropic/claude-opus-4-8"),
        ("ollama:qwen3", "ollama/qwen3"),
    ],
)
@pytest.mark.parametrize("variables", [NIM, OPENROUTER, DEEPSEEK], ids=["NIM", "OpenRouter", "DeepSeek"])
def test_beside_a_public_service_the_url_still_names_other_providers(
    variables: Variables, url: str, expected: str
) -> None:
    both = KEYS | variables | {"BIG_MODEL": "b"}
    assert leads(both, "claude-opus-4-8", url) == expected
    assert target(both, "m", "openai:m").provider.base_url == variables["OPENAI_BASE_URL"]


@pytest.mark.parametrize(
    ("variables", "name", "reason"),
    [
        pytest.param(
            VLLM | KEYS,
            "gemini",
            "everything here stays with the endpoint of OPENAI_BASE_URL, which is private, "
            "so it leads to no public provider",
            id="a private endpoint",
        ),
        pytest.param(
            OWN["custom"] | KEYS,
            "anthropic",
            "everything here stays with PREFERRED_PROVIDER=custom, so it leads to no public provider",
            id="custom, wherever it is",
        ),
        pytest.param(
            OWN["ollama"] | KEYS,
            "google",
            "everything here stays with PREFERRED_PROVIDER=ollama, so it leads to no public provider",
            id="Ollama",
        ),
        pytest.param(NIM, "google", "it is not set up here: GEMINI_API_KEY is not set", id="no key"),
        pytest.param({}, "vertex_ai", "it is not set up here: VERTEX_PROJECT is not set", id="no project"),
        pytest.param(
            AZURE,
            "openai",
            "it is not set up here: OPENAI_BASE_URL and OPENAI_API_KEY are Azure's",
            id="Azure's variables are not OpenAI's",
        ),
    ],
)
def test_why_a_url_may_not_name_a_provider_is_known(variables: Variables, name: str, reason: str) -> None:
    assert environment_policy({"BIG_MODEL": "b"} | variables).absent_providers[name] == reason


def test_a_provider_that_is_there_is_not_among_the_absent() -> None:
    absent = environment_policy(EVERYTHING | {"CUSTOM_BASE_URL": CORP}).absent_providers
    assert absent == {"azure-responses": "`azure` asks for these models too"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://r.openai.azure.com", ("https://r.openai.azure.com", None)),
        ("https://r.openai.azure.com/openai/v1/", ("https://r.openai.azure.com/openai/v1", None)),
        (
            "https://r.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
            ("https://r.openai.azure.com", "2024-10-21"),
        ),
        ("https://r.cognitiveservices.azure.com", ("https://r.cognitiveservices.azure.com", None)),
    ],
)
def test_azures_address_in_openai_base_url_is_azures(url: str, expected: tuple[str, str | None]) -> None:
    found = target({"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "o"}, "gpt-4o").provider
    assert (found.type, *(found.base_url, found.options.get("api_version"))) == ("azure", *expected)
    assert [key.reference for key in found.keys] == ["env:OPENAI_API_KEY"]
    both = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "o", "AZURE_OPENAI_API_KEY": "z"}
    assert [key.value for key in target(both, "gpt-4o").provider.keys] == ["z"]


@pytest.mark.parametrize(
    ("host", "zone"),
    [
        ("localhost:8000", "local"),
        ("127.0.0.2", "local"),
        ("[::1]:8000", "local"),
        ("[::ffff:127.0.0.1]", "local"),
        ("10.0.0.7", "private"),
        ("192.168.1.2:1", "private"),
        ("172.16.0.1", "private"),
        ("100.64.0.1", "private"),
        ("[fd00::1]", "private"),
        ("gpu", "private"),
        ("host.docker.internal:8000", "private"),
        ("llm.lan", "private"),
        ("llm.corp.internal.", "private"),
        ("vllm.models.svc.cluster.local", "private"),
        ("8.8.8.8", "public"),
        ("llm.corp.example", "public"),
        ("openrouter.ai", "public"),
        ("internal.evil.com", "public"),
    ],
)
def test_a_zone_is_what_the_host_surely_is(host: str, zone: str) -> None:
    variables = prefers("custom", CUSTOM_BASE_URL=f"http://{host}/v1", BIG_MODEL="x")
    assert target(variables, "m").provider.zone == zone
    said = [words for words in warnings(variables) if "taken for" in words]
    assert said == ([] if zone == "local" else [words for words in said if words.endswith(zone)])
    assert bool(said) is (zone != "local")


# --- the other variables


@pytest.mark.parametrize(
    ("variables", "model", "expected"),
    [
        pytest.param(KEYS, "gpt-5", ("openai", "https://api.openai.com/v1", "public"), id="OpenAI"),
        pytest.param(OWN["openai"], "x", ("openai", CORP, "private"), id="OPENAI_BASE_URL"),
        pytest.param(
            {"OPENAI_BASE_URL": "http://127.0.0.1:8000/v1/"},
            "x",
            ("openai", "http://127.0.0.1:8000/v1", "local"),
            id="on this machine",
        ),
        pytest.param(OWN["custom"], "x", ("openai_compatible", CORP, "private"), id="CUSTOM_BASE_URL"),
        pytest.param(
            OWN["ollama"], "x", ("ollama", "http://localhost:11434", "local"), id="Ollama's own address"
        ),
        pytest.param(
            OWN["ollama"] | {"OLLAMA_BASE_URL": "http://gpu:11434"},
            "x",
            ("ollama", "http://gpu:11434", "private"),
            id="OLLAMA_BASE_URL",
        ),
        pytest.param(
            OWN["ollama"] | {"OLLAMA_API_BASE": "http://localhost:1"},
            "x",
            ("ollama", "http://localhost:1", "local"),
            id="OLLAMA_API_BASE",
        ),
        pytest.param(
            OWN["nvidia"], "x", ("nvidia_nim", "http://10.0.0.7:8000/v1", "private"), id="NVIDIA_BASE_URL"
        ),
        pytest.param(OWN["openrouter"], "x", ("openrouter", CORP, "private"), id="OPENROUTER_BASE_URL"),
        pytest.param(
            prefers("google", USE_VERTEX_AUTH="yes", **ADDRESSES),
            "x",
            ("vertex_ai", None, "public"),
            id="USE_VERTEX_AUTH",
        ),
        pytest.param(
            {"USE_VERTEX_AUTH": "yes", **ADDRESSES},
            "gemini/x",
            ("vertex_ai", None, "public"),
            id="gemini/ goes through Vertex too",
        ),
    ],
)
def test_where_a_provider_is(variables: Variables, model: str, expected: tuple[str, str | None, str]) -> None:
    found = target(variables, model).provider
    assert (found.type, found.base_url, found.zone) == expected


@pytest.mark.parametrize(
    ("variables", "model", "reference", "value"),
    [
        pytest.param(EVERYTHING, "gpt-5", "env:OPENAI_API_KEY", "o", id="OPENAI_API_KEY"),
        pytest.param(EVERYTHING, "gemini-3", "env:GEMINI_API_KEY", "g", id="GEMINI_API_KEY"),
        pytest.param(EVERYTHING, "anthropic/c", "env:ANTHROPIC_API_KEY", "a", id="ANTHROPIC_API_KEY"),
        pytest.param(EVERYTHING, "azure/x", "env:AZURE_OPENAI_API_KEY", "z", id="AZURE_OPENAI_API_KEY"),
        pytest.param(EVERYTHING, "together_ai/x", "env:TOGETHERAI_API_KEY", "t", id="TOGETHERAI_API_KEY"),
        pytest.param(EVERYTHING, "nvidia_nim/x", "env:NVIDIA_API_KEY", "n", id="NVIDIA_API_KEY"),
        pytest.param(EVERYTHING, "openrouter/x", "env:OPENROUTER_API_KEY", "r", id="OPENROUTER_API_KEY"),
        pytest.param(OWN["custom"] | KEYS, "x", "env:CUSTOM_API_KEY", "c", id="CUSTOM_API_KEY"),
        pytest.param(OWN["openai"] | KEYS, "x", "env:OPENAI_API_KEY", "o", id="OPENAI_API_KEY to one's own"),
        pytest.param(
            prefers("together", TOGETHER_API_KEY="t"),
            "x",
            "env:TOGETHER_API_KEY",
            "t",
            id="TOGETHER_API_KEY, the slip",
        ),
    ],
)
def test_each_provider_gets_its_own_key(variables: Variables, model: str, reference: str, value: str) -> None:
    (key,) = target(variables, model).provider.keys
    assert (key.reference, key.value) == (reference, value)


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param(OWN["ollama"] | KEYS, id="Ollama"),
        pytest.param(OWN["custom"], id="custom without a key"),
        pytest.param(OWN["openai"], id="an OpenAI-compatible server without a key"),
    ],
)
def test_what_needs_no_key_gets_none(variables: Variables) -> None:
    assert target(variables, "x").provider.keys == ()
    assert [said for said in warnings(variables) if "is at llm.corp.internal" not in said] == []


@pytest.mark.parametrize(
    ("endpoint", "version", "expected"),
    [
        pytest.param(
            "https://r.openai.azure.com/", None, ("https://r.openai.azure.com", None), id="a resource"
        ),
        pytest.param(
            "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            None,
            ("https://r.openai.azure.com", "2024-10-21"),
            id="a whole deployment",
        ),
        pytest.param(
            "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "2025-04-01-preview",
            ("https://r.openai.azure.com", "2025-04-01-preview"),
            id="the variable wins",
        ),
        pytest.param(
            "https://gate.corp.example/azure/openai/deployments/d",
            None,
            ("https://gate.corp.example/azure", None),
            id="behind a gateway",
        ),
    ],
)
def test_azures_endpoint_may_be_a_whole_address(
    endpoint: str, version: str | None, expected: tuple[str, str | None]
) -> None:
    more = {"AZURE_API_VERSION": version} if version else {}
    found = target(prefers("azure", AZURE_OPENAI_ENDPOINT=endpoint, **more), "gpt-4o").provider
    assert (found.base_url, found.options.get("api_version")) == expected


@pytest.mark.parametrize(
    ("deployment", "api"),
    [
        ("gpt-4o", "chat"),
        ("gpt-4.1", "chat"),
        ("foo3-bar", "chat"),
        ("o3", "responses"),
        ("my-o4-mini", "responses"),
        ("gpt-5.1-codex", "responses"),
    ],
)
def test_azures_reasoning_deployments_go_through_the_responses_api(deployment: str, api: str) -> None:
    assert target(prefers("azure", **EVERYTHING), deployment).provider.api == api
    assert target(prefers("azure", BIG_MODEL=deployment, **EVERYTHING), "claude-opus-4-8").provider.api == api
    assert target(EVERYTHING, f"azure/{deployment}").provider.api == api


def test_vertex_gets_its_project_and_location() -> None:
    options = target(prefers("vertex", **ADDRESSES), "claude-opus-4-8").provider.options
    assert options == {"project": "project", "location": "europe-west1"}


@pytest.mark.parametrize(("more", "expected"), [({}, 128_000), ({"OLLAMA_NUM_CTX": "32768"}, 32_768)])
def test_ollama_gets_its_context_size(more: Variables, expected: int) -> None:
    assert target(OWN["ollama"] | more, "x").provider.options["num_ctx"] == expected


THINKING = {"reasoning_budget": 16_384, "chat_template_kwargs": {"enable_thinking": True}}


@pytest.mark.parametrize(
    ("variables", "model", "url", "body"),
    [
        pytest.param(
            prefers("nvidia", BIG_MODEL="nvidia/Nemotron"), "claude-opus-4-8", None, THINKING, id="big"
        ),
        pytest.param(
            prefers("nvidia", BIG_MODEL="meta/llama"), "claude-opus-4-8", None, {}, id="big, another model"
        ),
        pytest.param(
            prefers("nvidia", BIG_MODEL="b"), "nvidia/NEMOTRON-nano", None, THINKING, id="asked for"
        ),
        pytest.param(OWN["custom"], "nemotron", None, THINKING, id="at any OpenAI-compatible provider"),
        pytest.param(OWN["openai"], "openai/nemotron", None, THINKING, id="by prefix, at one's own"),
        pytest.param(EVERYTHING, "openrouter/nvidia/nemotron", None, THINKING, id="by prefix"),
        pytest.param(EVERYTHING, "m", "nvidia:nvidia/nemotron", THINKING, id="by URL"),
        pytest.param(EVERYTHING, "m", "ollama:nemotron", {}, id="by URL, at Ollama"),
        pytest.param(EVERYTHING, "ollama/nemotron", None, {}, id="not at Ollama"),
        pytest.param(
            prefers(
                "nvidia", BIG_MODEL="nemotron", NVIDIA_REASONING_BUDGET="500", NVIDIA_ENABLE_THINKING="False"
            ),
            "claude-opus-4-8",
            None,
            {"reasoning_budget": 500, "chat_template_kwargs": {"enable_thinking": False}},
            id="as the variables say",
        ),
    ],
)
def test_nemotron_gets_nvidias_fields_wherever_it_runs(
    variables: Variables, model: str, url: str | None, body: dict[str, Any]
) -> None:
    assert target(variables, model, url).params.extra_body == body


@pytest.mark.parametrize(("value", "cap"), [("4096", {"max_tokens": 4096}), ("0", {}), ("", {})])
@pytest.mark.parametrize("model", ["claude-opus-4-8", "gemini-3", "azure/o3", "anthropic/c", "other"])
def test_output_is_capped_everywhere(value: str, cap: dict[str, int], model: str) -> None:
    assert target(EVERYTHING | {"MAX_OUTPUT_TOKENS": value}, model).params.cap == cap


@pytest.mark.parametrize("flags", [{}, {"process_newlines": True}, {"preserve_openai_newlines": True}])
@pytest.mark.parametrize(
    ("model", "newlines"), [("together_ai/x", "unescape"), ("gpt-5", "keep"), ("gemini-3", "keep")]
)
def test_only_togethers_literal_newlines_become_line_breaks(
    flags: dict[str, bool], model: str, newlines: str
) -> None:
    (found,) = decided(environment_policy(EVERYTHING, **flags), model).targets
    assert found.transforms.newlines == newlines


@pytest.mark.parametrize(
    ("variables", "address"),
    [({}, ("127.0.0.1", 8082)), ({"HOST": "0.0.0.0", "PORT": "9000"}, ("0.0.0.0", 9000))],
)
def test_host_and_port(variables: Variables, address: tuple[str, int]) -> None:
    server = environment_policy(variables).server
    assert (server.host, server.port) == address
    assert server.url_targets


def test_claudes_names_are_listed() -> None:
    assert models_for(environment_policy({}), None, lambda provider: ()) == tuple(LISTED)


# --- what is wrong, and what is odd


@pytest.mark.parametrize(
    ("variables", "named", "said"),
    [
        pytest.param(
            prefers("oppenai"),
            ["PREFERRED_PROVIDER"],
            [
                "did you mean `openai`?",
                "`google`, `azure`, `together`, `ollama`, `custom`, `anthropic`, `nvidia`, `openrouter`",
            ],
            id="an unknown provider",
        ),
        pytest.param(
            prefers("ollama"), ["BIG_MODEL"], ["set BIG_MODEL and SMALL_MODEL"], id="ollama without a model"
        ),
        pytest.param(
            prefers("nvidia"),
            ["BIG_MODEL"],
            ["`nvidia`, which has no default model"],
            id="nvidia without a model",
        ),
        pytest.param(
            prefers("openrouter"), ["BIG_MODEL"], ["or one of them for both"], id="openrouter without a model"
        ),
        pytest.param(
            prefers("custom"),
            ["BIG_MODEL", "CUSTOM_BASE_URL"],
            ["CUSTOM_BASE_URL=https://"],
            id="custom without anything",
        ),
        pytest.param(
            prefers("azure"),
            ["AZURE_OPENAI_ENDPOINT"],
            ["https://my-resource.openai.azure.com"],
            id="azure without endpoint",
        ),
        pytest.param(
            prefers("google", USE_VERTEX_AUTH="true"),
            ["VERTEX_PROJECT", "VERTEX_LOCATION"],
            ["USE_VERTEX_AUTH is true", "VERTEX_LOCATION=us-central1"],
            id="vertex without project and location",
        ),
        pytest.param(
            prefers("vertex", VERTEX_PROJECT="p"),
            ["VERTEX_LOCATION"],
            ["VERTEX_LOCATION is not set"],
            id="vertex without location",
        ),
        pytest.param(
            {"BIG_MODEL": "azure/x"},
            ["AZURE_OPENAI_ENDPOINT"],
            ["Azure is asked for"],
            id="a model's provider is not there",
        ),
        pytest.param({"PORT": "http"}, ["PORT"], ["can't be `http`", "at most 65535"], id="PORT"),
        pytest.param(
            {"MAX_OUTPUT_TOKENS": "-1"}, ["MAX_OUTPUT_TOKENS"], ["a whole number"], id="MAX_OUTPUT_TOKENS"
        ),
        pytest.param({"OLLAMA_NUM_CTX": "128k"}, ["OLLAMA_NUM_CTX"], ["a whole number"], id="OLLAMA_NUM_CTX"),
        pytest.param(
            {"USE_VERTEX_AUTH": "maybe"}, ["USE_VERTEX_AUTH"], ["`true` or `false`"], id="USE_VERTEX_AUTH"
        ),
        pytest.param(
            {"OPENAI_BASE_URL": "llm.corp"}, ["OPENAI_BASE_URL"], ["an address such as"], id="no address"
        ),
        pytest.param(
            prefers("custom", BIG_MODEL="x", CUSTOM_BASE_URL="https://me:pw@llm.corp"),
            ["CUSTOM_BASE_URL"],
            ["without a password"],
            id="a password",
        ),
        pytest.param({"BIG_MODEL": "gpt 5"}, ["BIG_MODEL"], ["can't be `gpt 5`"], id="no model's name"),
        pytest.param(
            prefers("x", PORT="y", USE_VERTEX_AUTH="z"),
            ["USE_VERTEX_AUTH", "PREFERRED_PROVIDER", "PORT"],
            [],
            id="all at once",
        ),
    ],
)
def test_a_wrong_variable_is_named_with_what_to_do(
    variables: Variables, named: list[str], said: list[str]
) -> None:
    found = problems(variables)
    assert [problem.path[0] for problem in found] == named
    assert all(str(problem.path[0]) in problem.message for problem in found)
    text = "\n".join(map(str, found))
    assert [words for words in said if words not in text] == []


def test_a_password_is_not_repeated() -> None:
    assert "pw" not in str(
        problems(prefers("custom", BIG_MODEL="x", CUSTOM_BASE_URL="https://me:pw@llm.corp"))[0]
    )


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        pytest.param(KEYS, [], id="nothing odd"),
        pytest.param(EVERYTHING | prefers("azure"), [], id="nothing odd with everything"),
        pytest.param(
            prefers("together", TOGETHER_API_KEY="t"),
            ["TOGETHERAI_API_KEY is not set: TOGETHER_API_KEY is taken for it"],
            id="Together's slip",
        ),
        pytest.param(
            prefers("google", BIG_MODEL="gpt-5", **KEYS),
            ["BIG_MODEL is `gpt-5`, which is not a Gemini model: it goes to OpenAI"],
            id="google with an OpenAI model",
        ),
        pytest.param(
            OWN["custom"] | {"BIG_MODEL": "openai/corp-1"},
            [
                "BIG_MODEL is `openai/corp-1`: it goes to CUSTOM_BASE_URL as `corp-1`, not to OpenAI",
                "CUSTOM_BASE_URL is at llm.corp.internal, which is taken for private",
            ],
            id="custom with OpenAI's prefix",
        ),
    ],
)
def test_what_is_odd_is_said_at_start(variables: Variables, said: list[str]) -> None:
    assert warnings(variables) == said


def test_a_missing_key_is_said_at_start() -> None:
    (warning,) = warnings({})
    assert "OPENAI_API_KEY" in warning


# --- the file that it could be, and .env


@pytest.mark.parametrize("variables", [{}, EVERYTHING, *OWN.values(), prefers("azure", **EVERYTHING)])
def test_the_same_policy_can_be_had_as_a_rules_file(variables: Variables) -> None:
    written = compile_rules(environment_rules(variables), path=Path("rules.toml"), environ=variables)
    assert written.version == environment_policy(variables).version


def test_no_key_is_written_into_the_rules_file() -> None:
    secret = {name: f"sk-secret-{name}" for name in KEYS}
    assert "sk-secret" not in environment_rules(EVERYTHING | secret)


def test_the_environment_wins_over_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('BIG_MODEL="from-file"\nSMALL_MODEL=small\n# a comment\nEMPTY\n')
    found = read_environment({"BIG_MODEL": "from-environment"}, tmp_path / ".env")
    assert found == {"BIG_MODEL": "from-environment", "SMALL_MODEL": "small"}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"KEY=sk-1\n", id="plain"),
        pytest.param(b"\xef\xbb\xbfKEY=sk-1\r\n", id="with a byte order mark"),
        pytest.param("KEY=sk-1\r\n".encode("utf-16"), id="as PowerShell writes it"),
        pytest.param(b"KEY='sk-1'\r", id="in single quotes"),
        pytest.param(b'KEY="sk-1\\n"\n', id="with a line break in the quotes"),
        pytest.param(b'KEY="sk-1\r\n"\n', id="with a real one"),
        pytest.param(b"export KEY=  sk-1  \n", id="exported, with blanks"),
        pytest.param(b"KEY=\"'sk-1'\"\n", id="quotes in quotes"),
    ],
)
def test_a_value_is_what_its_author_meant(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(content)
    assert read_environment({}, tmp_path / ".env") == {"KEY": "sk-1"}


@pytest.mark.parametrize(
    "value", ["sk-1", '"sk-1"', "'sk-1'", "sk-1\n", "sk-1\r\n", "\ufeffsk-1", '"sk-1"\r', " sk-1 "]
)
@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "ANTHROPIC_AUTH_TOKEN", "HOST"])
def test_so_is_one_in_the_environment(name: str, value: str) -> None:
    assert read_environment({name: value}, None)[name] == "sk-1"


def test_a_dotenv_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"KEY=\xff\n")
    with pytest.raises(ValueError, match=r"\.env is not UTF-8: byte 5 can't be read"):
        read_environment({}, tmp_path / ".env")


def test_no_dotenv_is_no_problem(tmp_path: Path) -> None:
    assert read_environment({"A": "1"}, tmp_path / ".env") == {"A": "1"}


# --- placeholders, other proxies' names, and what has no effect


@pytest.mark.parametrize(
    "value",
    [
        "sk-...",
        "nvapi-...",
        "sk-ant-...",
        "sk-or-v1-...",
        "your-api-key-here",
        "your_openai_key",
        "sk-your-openai-api-key-here",
        "<your-key>",
        "***",
        "xxxx",
        "sk-xxx",
        "AIzaSyXXXXXXXXXXXXXXXX",
        "sk-change-me",
        "insert-key-here",
    ],
)
def test_a_placeholder_is_no_key(value: str) -> None:
    variables = {"OPENAI_API_KEY": "o", "GEMINI_API_KEY": value}
    said = "GEMINI_API_KEY holds the placeholder of an example"
    assert leads(variables, "gemini-3") == f"400 `gemini` is not set up here: {said}"
    assert f"{said}: it is not used" in warnings(variables)
    (key,) = target(variables | {"OPENAI_API_KEY": value}, "gpt-5").provider.keys
    assert (key.value, key.unset) == (None, True)


@pytest.mark.parametrize(
    "value",
    [
        "o",
        "x",
        "dummy-key",
        "ollama",
        "lm-studio",
        "sk-proj-AbC123xYz",
        "nvapi-_xX-09",
        "hereafter",
        "yourkey1",
    ],
)
def test_whatever_else_is_one(value: str) -> None:
    (key,) = target({"OPENAI_API_KEY": value}, "gpt-5").provider.keys
    assert key.value == value


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"ANTHROPIC_AUTH_TOKEN": "sk-your-auth-token"},
            "ANTHROPIC_AUTH_TOKEN is the placeholder of an example: anybody may know it",
        ),
        (
            {"OPENAI_BASE_URL": "https://your-endpoint.com/v1", "BIG_MODEL": "x"},
            "OPENAI_BASE_URL is at your-endpoint.com, the placeholder of an example: put your own there",
        ),
        (
            prefers("azure", AZURE_OPENAI_ENDPOINT="https://r.openai.azure.com", BIG_MODEL="your-deployment"),
            "BIG_MODEL is `your-deployment`, the placeholder of an example: no such model will be found",
        ),
        ({"LOGLEVEL": "DEBUG"}, "LOGLEVEL has no effect: LOG_LEVEL does"),
        (
            {"big_model": "x"},
            "big_model has no effect: variables are written in capitals, BIG_MODEL",
        ),
        (
            {"AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com", "AZURE_OPENAI_API_KEY": "z"},
            "PREFERRED_PROVIDER is not set, so Claude's names go to OpenAI, which has no key: "
            "set PREFERRED_PROVIDER=azure",
        ),
        (
            {"ANTHROPIC_API_KEY": "shared", "MIDDLE_MODEL": "gpt-4o"},
            "ANTHROPIC_API_KEY is a key for Anthropic: what clients must show is ANTHROPIC_AUTH_TOKEN",
        ),
    ],
)
def test_what_its_author_will_miss_is_said(variables: Variables, said: str) -> None:
    assert said in warnings({"OPENAI_API_KEY": ""} | variables)


@pytest.mark.parametrize(
    ("variables", "message", "hint"),
    [
        (
            {"CUSTOM_MODEL": "qwen", "CUSTOM_BASE_URL": CORP},
            "CUSTOM_MODEL has no effect, and requests would go elsewhere",
            "take it out: PREFERRED_PROVIDER=custom and BIG_MODEL do",
        ),
        (
            prefers("google", GEMINI_API_KEY="g", GEMINI_BASE_URL="https://gate.corp.internal"),
            "GEMINI_BASE_URL has no effect, and requests would go elsewhere",
            "take it out: `base_url` of a provider does in a rules file "
            "(`routeproxy init --from-env` writes one)",
        ),
        (
            prefers("anthropic", ANTHROPIC_API_KEY="a", ANTHROPIC_BASE_URL="https://gate.corp.internal"),
            "ANTHROPIC_BASE_URL is for clients, and requests would go to api.anthropic.com, "
            "not to gate.corp.internal",
            "take it out: `base_url` of a provider of type `anthropic` does in a rules file "
            "(`routeproxy init --from-env` writes one)",
        ),
        (
            {"BIG_MODEL": "passthrough"},
            "BIG_MODEL can't be `passthrough`",
            "PREFERRED_PROVIDER=anthropic sends all of Claude's names to Anthropic",
        ),
        (prefers("gemini"), "PREFERRED_PROVIDER can't be `gemini`", "set PREFERRED_PROVIDER=google"),
        (
            prefers("openai_compatible"),
            "PREFERRED_PROVIDER can't be `openai_compatible`",
            "set PREFERRED_PROVIDER=custom, CUSTOM_BASE_URL and CUSTOM_API_KEY",
        ),
    ],
)
def test_what_would_send_requests_elsewhere_is_an_error_with_its_way_out(
    variables: Variables, message: str, hint: str
) -> None:
    assert (message, hint) in [(problem.message, problem.hint) for problem in problems(variables)]


@pytest.mark.parametrize(
    "url", ["http://localhost:8082", "http://127.0.0.1:8082", "https://api.anthropic.com"]
)
def test_a_clients_variable_is_no_error_where_it_means_this_server_or_anthropic(url: str) -> None:
    assert leads(prefers("anthropic", ANTHROPIC_API_KEY="a", ANTHROPIC_BASE_URL=url), "c") == "anthropic/c"


@pytest.mark.parametrize(
    ("name", "value", "model", "base_url"),
    [
        ("OPENAI_API_BASE", CORP, "m", CORP),
        ("AZURE_API_BASE", "https://r.openai.azure.com", "azure/m", "https://r.openai.azure.com"),
        ("AZURE_BASE_URL", "https://r.openai.azure.com", "azure/m", "https://r.openai.azure.com"),
    ],
)
def test_other_names_of_a_variable_are_taken_for_it(name: str, value: str, model: str, base_url: str) -> None:
    variables = {name: value, "BIG_MODEL": "b", "OPENAI_API_KEY": "o"}
    assert target(variables, model).provider.base_url == base_url
    assert any(f": {name} is taken for it" in said for said in warnings(variables))


def test_a_cap_by_its_other_name() -> None:
    assert target({"MAX_TOKENS_LIMIT": "4096"}, "gpt-5").params.cap == {"max_tokens": 4096}
    assert target({"MAX_TOKENS_LIMIT": "1", "MAX_OUTPUT_TOKENS": "2"}, "gpt-5").params.cap == {
        "max_tokens": 2
    }


@pytest.mark.parametrize(
    ("more", "opus", "sonnet", "haiku"),
    [
        ({}, "big", "big", "small"),
        ({"MIDDLE_MODEL": "middle"}, "big", "middle", "small"),
        ({"MEDIUM_MODEL": "middle"}, "big", "middle", "small"),
        ({"OPUS_MODEL": "largest"}, "largest", "big", "small"),
        ({"OPUS_MODEL": "largest", "MIDDLE_MODEL": "middle"}, "largest", "middle", "small"),
    ],
)
def test_sonnet_and_opus_may_have_models_of_their_own(
    more: Variables, opus: str, sonnet: str, haiku: str
) -> None:
    variables = {"OPENAI_API_KEY": "o", "BIG_MODEL": "big", "SMALL_MODEL": "small"} | more
    asked = ["claude-opus-4-8", "claude-sonnet-5", "claude-haiku-4-5", "claude-next"]
    assert [leads(variables, model) for model in asked] == [
        f"openai/{name}" for name in (opus, sonnet, haiku, "big")
    ]


def test_azures_address_names_the_model_where_nothing_else_does() -> None:
    url = "https://r.openai.azure.com/openai/deployments/my-gpt?api-version=2024-10-21"
    for variables in ({"OPENAI_BASE_URL": url}, prefers("azure", AZURE_OPENAI_ENDPOINT=url)):
        assert leads(variables, "claude-opus-4-8") == leads(variables, "claude-haiku-4-5") == "azure/my-gpt"
        other = variables | {"BIG_MODEL": "gpt-4"}
        assert leads(other, "claude-opus-4-8") == "azure/gpt-4"
        assert any("names the deployment `my-gpt`" in said for said in warnings(other))


def test_credentials_for_vertex_may_be_named_in_dotenv() -> None:
    variables = prefers("vertex", GOOGLE_APPLICATION_CREDENTIALS="key.json", **ADDRESSES)
    assert target(variables, "claude-opus-4-8").provider.options["credentials"] == "key.json"


def test_lines_without_effect_are_logged_by_their_number_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("\n# keys\nOPENAI KEY=sk-secret\n\nA=1\nA=2\n")
    for _ in range(2):
        assert read_environment({}, dotenv) == {"A": "2"}
    assert caplog.messages == [
        f"{dotenv}:3 has no effect: it is not of the form NAME=value",
        f"{dotenv}:6 is in force for A, not line 5",
    ]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://10.0.0.1/v1/chat/completions", "is a whole endpoint: leave out `/chat/completions`"),
        ("http://10.0.0.1/v1/responses", "is a whole endpoint: leave out `/responses`"),
        ("http://a_very_long_label" + "x" * 60 + "/v1", "has a host that is too long"),
        ("http://127.1/v1", "has a host that can't be one: `127.1` is no IPv4 address"),
    ],
)
def test_an_address_that_cannot_be_asked_is_named_by_its_variable(address: str, words: str) -> None:
    environ = {"OPENAI_BASE_URL": address, "OPENAI_API_KEY": "key", "BIG_MODEL": "m"}
    with pytest.raises(RulesRefused) as refused:
        environment_policy(environ)
    (problem,) = refused.value.problems
    assert f"OPENAI_BASE_URL {words}" in problem.message
    assert problem.path == ("OPENAI_BASE_URL",)
