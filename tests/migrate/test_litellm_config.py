"""LiteLLM's config.yaml: nothing gets lost, no key gets out, and names lead where they led."""

from textwrap import dedent
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.migrate.litellm_config import from_litellm
from routeproxy.migrate.moved import Moved
from routeproxy.policy.providers import Provider
from tests.migrate.laws import FILES, lost, policy_of, reasons
from tests.policy.asking import ask, names

TEXT = (FILES / "litellm.yaml").read_text(encoding="utf-8")
MOVED = from_litellm(TEXT)
POLICY = policy_of(MOVED)


def move(document: Any) -> Moved:
    return from_litellm(yaml.safe_dump(document, sort_keys=False))


def entry(model: str, name: str = "m", **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def moved(*entries: dict[str, Any], **settings: Any) -> Moved:
    return move({"model_list": list(entries), **settings})


def only_provider(moved: Moved, **environ: str) -> Provider:
    (provider,) = policy_of(moved, **environ).providers.values()
    return provider


def leads(moved: Moved, model: str) -> list[str]:
    return names(ask(policy_of(moved), model))


# --- the whole


def test_a_config_becomes_these_rules() -> None:
    assert MOVED.text == (FILES / "litellm.toml").read_text(encoding="utf-8")


def test_every_key_is_used_or_listed() -> None:
    assert lost(yaml.safe_load(TEXT), move) == []


def test_what_is_left_has_its_line() -> None:
    lines = TEXT.splitlines()
    named = [left for left in MOVED.leftovers if not left.key.endswith("]")]
    assert named
    assert [left for left in named if left.key.rpartition(".")[2] not in lines[left.line - 1]] == []
    assert [left.line for left in MOVED.leftovers] == sorted(left.line for left in MOVED.leftovers)


def test_no_key_gets_out() -> None:
    assert TEXT.count("sk-literal") == 13
    assert "sk-literal" not in MOVED.text + str(MOVED.leftovers)


# --- rules


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        pytest.param("vllm", ["localhost-8000/facebook/opt-125m"], id="one deployment, one target"),
        pytest.param(
            "gpt-4o",
            ["azure-my-endpoint-canada/gpt-4o-ca", "azure/gpt-4o-eu", "localhost-8000/facebook/opt-125m"],
            id="several are an order, then default_fallbacks",
        ),
        pytest.param(
            "gpt-4",
            ["azure-my-endpoint-canada/gpt-4o-ca", "azure/gpt-4o-eu", "localhost-8000/facebook/opt-125m"],
            id="an alias",
        ),
        pytest.param(
            "claude-haiku-4-5",
            ["anthropic/claude-haiku-4-5", "openai/gpt-4.1-mini"],
            id="its own fallbacks, and no others",
        ),
        pytest.param(
            "anthropic/claude-opus-4-8",
            ["anthropic/claude-opus-4-8", "localhost-8000/facebook/opt-125m"],
            id="a pattern",
        ),
        pytest.param(
            "local/qwen3:32b",
            ["local/qwen3:32b", "localhost-8000/facebook/opt-125m"],
            id="a pattern with a prefix of its own",
        ),
        pytest.param("nobody", ["localhost-8000/facebook/opt-125m"], id="an unknown name"),
    ],
)
def test_a_name_leads_where_it_led(model: str, targets: list[str]) -> None:
    assert names(ask(POLICY, model)) == targets


def test_an_unknown_name_is_refused_as_it_was() -> None:
    denial = ask(policy_of(moved(entry("openai/gpt-4o"))), "gpt-4o").deny
    assert denial is not None
    assert denial.status == 404


def test_names_are_asked_before_patterns_and_the_longest_pattern_first() -> None:
    found = moved(
        entry("openrouter/*", "*"),
        entry("groq/gpt-*", "gpt-*"),
        entry("mistral/gpt-oss-*", "gpt-oss-*"),
        entry("xai/grok-4", "gpt-oss-120b"),
    )
    asked = ["gpt-oss-120b", "gpt-oss-20b", "gpt-4", "llama-3"]
    targets = ["xai/grok-4", "mistral/gpt-oss-20b", "groq/gpt-4", "openrouter/llama-3"]
    assert [leads(found, model) for model in asked] == [[target] for target in targets]


@pytest.mark.parametrize(
    ("name", "model", "asked", "target"),
    [
        pytest.param("groq/*", "groq/*", "groq/llama-3", "groq/llama-3", id="its own prefix"),
        pytest.param("corp/*", "groq/*", "corp/llama-3", "corp/llama-3", id="another prefix"),
        pytest.param("llama-*", "groq/llama-*", "llama-3", "groq/llama-3", id="a part of the name"),
        pytest.param("fast-*", "groq/llama-3", "fast-1", "groq/llama-3", id="one model for all"),
        pytest.param("*", "openrouter/*", "x/y", "openrouter/x/y", id="everything"),
    ],
)
def test_a_pattern_passes_on_what_it_passed_on(name: str, model: str, asked: str, target: str) -> None:
    found = moved(entry(model, name))
    assert reasons(found) == {}
    assert leads(found, asked) == [target]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param(entry("groq/llama-*", "cheap-*"), "name each model", id="a pattern that renames"),
        pytest.param(entry("*", "*"), "write a rule for each", id="whatever provider"),
        pytest.param(entry("my-model"), "whose model is it?", id="nobody's model"),
        pytest.param(entry("unheard/x"), "whose model is it?", id="nobody's prefix"),
        pytest.param({"model_name": "m"}, "expected `model_name`", id="no model"),
        pytest.param(
            {**entry("openai/x"), "model_info": {"mode": "embedding"}}, "only conversations", id="embeddings"
        ),
    ],
)
def test_an_entry_that_can_not_be_moved_is_listed_whole(said: dict[str, Any], why: str) -> None:
    found = moved(said)
    assert why in reasons(found)["model_list[0]"]
    assert "[[rules]]" not in found.text


def test_a_context_window_fallback_names_its_failure() -> None:
    found = moved(
        entry("openai/small", "small"),
        entry("openai/large", "large"),
        router_settings={"context_window_fallbacks": [{"small": ["large"]}]},
    )
    small, large = (ask(policy_of(found), name) for name in ("small", "large"))
    assert names(small) == ["openai/small", "openai/large"]
    assert small.fallback.enabled
    assert "context_overflow" in small.fallback.on
    assert names(large) == ["openai/large"]


def test_router_settings_win_over_litellm_settings() -> None:
    found = moved(
        entry("openai/x"),
        router_settings={"num_retries": 1, "timeout": 30},
        litellm_settings={"num_retries": 2, "request_timeout": 10},
    )
    assert "retry = { attempts = 2 }" in found.text
    assert 'timeouts = { total = "30s" }' in found.text
    assert list(reasons(found)) == ["litellm_settings.num_retries", "litellm_settings.request_timeout"]


# --- providers


@pytest.mark.parametrize(
    ("params", "type", "base_url", "zone"),
    [
        pytest.param({"model": "gpt-4o"}, "openai", "https://api.openai.com/v1", "public", id="no prefix"),
        pytest.param(
            {"model": "openai/x", "api_base": "https://llm.corp.example/v1/"},
            "openai_compatible",
            "https://llm.corp.example/v1",
            "public",
            id="openai/ at another's address",
        ),
        pytest.param(
            {"model": "openai/x", "api_base": "https://api.openai.com/v1"},
            "openai",
            "https://api.openai.com/v1",
            "public",
            id="openai/ at OpenAI's",
        ),
        pytest.param(
            {"model": "x", "custom_llm_provider": "openai", "api_base": "http://127.0.0.1:8000/v1"},
            "openai_compatible",
            "http://127.0.0.1:8000/v1",
            "local",
            id="custom_llm_provider, on this machine",
        ),
        pytest.param(
            {"model": "ollama_chat/x"}, "ollama", "http://localhost:11434", "local", id="another spelling"
        ),
        pytest.param(
            {"model": "azure/x", "api_base": "os.environ/AZURE_API_BASE"},
            "azure",
            "https://res.openai.azure.com",
            "public",
            id="an address from a variable",
        ),
        pytest.param(
            {"model": "azure/x"}, "azure", "https://write-the-address.invalid", "public", id="no address"
        ),
        pytest.param(
            {"model": "anthropic/x", "api_base": "https://gateway.corp/v1/messages"},
            "anthropic",
            "https://gateway.corp",
            "public",
            id="Anthropic's API elsewhere",
        ),
    ],
)
def test_prefix_and_address_tell_the_provider(
    params: dict[str, Any], type: str, base_url: str, zone: str
) -> None:
    found = moved({"model_name": "m", "litellm_params": params})
    provider = only_provider(found, AZURE_API_BASE="https://res.openai.azure.com")
    assert (provider.type, provider.base_url, provider.zone) == (type, base_url, zone)


@pytest.mark.parametrize(
    ("key", "reference"),
    [
        pytest.param({"api_key": "os.environ/MINE"}, "env:MINE", id="a variable"),
        pytest.param({"api_key": "sk-literal"}, "env:GROQ_API_KEY", id="a key"),
        pytest.param({}, "env:GROQ_API_KEY", id="nothing: the usual one"),
    ],
)
def test_a_key_becomes_a_variable(key: dict[str, str], reference: str) -> None:
    (found,) = only_provider(moved(entry("groq/x", **key))).keys
    assert found.reference == reference


def test_a_key_never_takes_the_name_of_another() -> None:
    found = moved(
        entry("groq/x", "a", api_key="sk-1"), entry("groq/x", "b"), entry("groq/x", "c", api_key="sk-2")
    )
    assert {name: provider.keys[0].name for name, provider in policy_of(found).providers.items()} == {
        "groq": "GROQ_API_KEY_2",
        "groq-2": "GROQ_API_KEY",
        "groq-3": "GROQ_API_KEY_3",
    }


def test_openais_key_goes_to_nobody_else() -> None:
    found = moved(entry("openai/x", api_base="https://llm.corp.example/v1"))
    assert only_provider(found).keys == ()
    assert "OPENAI_API_KEY" in reasons(found)["model_list[0].litellm_params.api_base"]


def test_one_connection_is_one_provider() -> None:
    found = moved(
        entry("groq/x", "a"), entry("groq/y", "b"), entry("groq/x", "c", extra_headers={"X-A": "1"})
    )
    assert list(policy_of(found).providers) == ["groq", "groq-2"]


@pytest.mark.parametrize(
    ("params", "left"),
    [
        pytest.param({"temperature": 1.5}, "temperature", id="not in the Messages API"),
        pytest.param({"temperature": "warm"}, "temperature", id="no number"),
        pytest.param({"timeout": "os.environ/T"}, "timeout", id="a variable"),
        pytest.param({"organization": ["a", "b"]}, "organization", id="several at once"),
        pytest.param({"num_ctx": 8192}, "num_ctx", id="another type's option"),
        pytest.param({"extra_body": {"model": "x"}}, "extra_body.model", id="not a rule's to change"),
        pytest.param({"extra_headers": {"Authorization": "x"}}, "extra_headers.Authorization", id="a secret"),
        pytest.param({"weight": 2}, "weight", id="a weight"),
        pytest.param({"unheard": 2}, "unheard", id="unknown"),
        pytest.param({"num_retries": 20}, "num_retries", id="too many tries"),
    ],
)
def test_a_parameter_that_can_not_be_said_is_listed(params: dict[str, Any], left: str) -> None:
    found = moved(entry("openai/gpt-4o", **params))
    policy_of(found)
    assert list(reasons(found)) == [f"model_list[0].litellm_params.{left}"]


def test_a_parameter_that_a_request_could_override_still_can_be() -> None:
    found = moved(entry("openai/x", temperature=0, max_tokens=20, stop="END", seed=0))
    (target,) = ask(policy_of(found), "m").targets
    assert target.params.default == {"max_tokens": 20, "temperature": 0, "stop_sequences": ["END"]}
    assert target.params.extra_body == {"seed": 0}
    assert reasons(found) == {}


# --- the format


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "line 1: expected a mapping", id="empty"),
        pytest.param("- a\n- b", "line 1: expected a mapping", id="a list"),
        pytest.param("a: 1\nb: [1\nc: 2\n", "line 3: this is not YAML", id="not closed"),
        pytest.param("a: 1\n\tb: 2", "line 2: this is not YAML", id="a tab"),
        pytest.param("a: &a\n  b: *a", "line 1: expected an end", id="a value within itself"),
        pytest.param("? [a]\n: 1", "line 1: expected a name", id="a list for a key"),
        pytest.param("a: 1\n---\nb: 2", "line 2: this is not YAML: but found another document", id="two"),
    ],
)
def test_what_is_no_config_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        from_litellm(text)
    assert str(refused.value).startswith(said)


def test_nothing_of_the_file_runs() -> None:
    found = from_litellm("unheard: !!python/object/apply:os.abort []")
    assert list(reasons(found)) == ["unheard"]


def test_what_a_merge_brings_along_is_used_and_not_listed_twice() -> None:
    found = from_litellm(
        dedent("""\
        model_list:
          - model_name: a
            litellm_params: &base {model: groq/a, api_key: os.environ/K, seed: 1}
          - model_name: b
            litellm_params: {<<: *base, model: groq/b, seed: 2}
        """)
    )
    assert reasons(found) == {}
    assert leads(found, "b") == ["groq/b"]
    assert "extra_body = { seed = 2 }" in found.text


# --- whatever

SCALARS = st.sampled_from([None, True, -1, 0, 0.5, 70_000, "", "os.environ/K", "m", "x y", "http://a:1/v1"])
KEYS = SCALARS | st.just("sk-literal")
MODELS = st.sampled_from(
    ["gpt-4o", "openai/x", "azure/x", "anthropic/*", "*", "vertex_ai/g", "bedrock/b", "ollama/o", "?/x"]
)
PARAMS = st.fixed_dictionaries(
    {"model": MODELS | SCALARS},
    optional={
        "api_base": SCALARS,
        "api_key": KEYS,
        "extra_body": st.dictionaries(st.sampled_from(["model", "a.b", "token"]), KEYS) | SCALARS,
        "extra_headers": st.dictionaries(st.sampled_from(["X-A", "a b", "api-key"]), KEYS) | SCALARS,
        "num_ctx": SCALARS,
        "num_retries": SCALARS,
        "order": SCALARS,
        "stop": SCALARS | st.lists(SCALARS, max_size=2),
        "temperature": SCALARS,
        "timeout": SCALARS,
        "vertex_project": SCALARS,
    },
)
NAMES = st.sampled_from(["m", "n", "M", "a/*", "*", "default", "x y", "gpt-*"])
ENTRIES = st.fixed_dictionaries({"model_name": NAMES | SCALARS, "litellm_params": PARAMS})
FALLBACKS = st.lists(st.dictionaries(NAMES, st.lists(NAMES, max_size=2), max_size=2), max_size=2)
DOCUMENTS = st.fixed_dictionaries(
    {"model_list": st.lists(ENTRIES, max_size=4)},
    optional={
        "router_settings": st.fixed_dictionaries(
            {},
            optional={
                "fallbacks": FALLBACKS,
                "context_window_fallbacks": FALLBACKS,
                "default_fallbacks": st.lists(NAMES, max_size=2),
                "model_group_alias": st.dictionaries(NAMES | st.just("alias"), NAMES, max_size=2),
                "num_retries": SCALARS,
                "retry_after": SCALARS,
                "timeout": SCALARS,
            },
        ),
        "general_settings": st.fixed_dictionaries({"master_key": KEYS}) | SCALARS,
        "environment_variables": st.dictionaries(NAMES, KEYS, max_size=1),
    },
)


@given(DOCUMENTS)
def test_whatever_is_moved_compiles_and_keeps_its_keys_to_itself(document: Any) -> None:
    found = move(document)
    policy_of(found, K="https://k.example")
    assert "sk-literal" not in found.text + str(found.leftovers)
