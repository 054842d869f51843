"""claude-code-router's config.json: nothing gets lost, no key gets out, and requests go where they went."""

import json
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.migrate.claude_code_router import from_claude_code_router
from routeproxy.migrate.moved import Moved
from tests.migrate.laws import FILES, lost, policy_of, reasons
from tests.policy.asking import ask, names

TEXT = (FILES / "claude-code-router.json").read_text(encoding="utf-8")
MOVED = from_claude_code_router(TEXT)
POLICY = policy_of(MOVED)

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
THINKING = {"type": "enabled", "budget_tokens": 1024}


def move(document: Any) -> Moved:
    return from_claude_code_router(json.dumps(document))


def provider(**said: Any) -> dict[str, Any]:
    return {
        "name": "p",
        "api_base_url": "https://llm.corp.example/v1/chat/completions",
        "api_key": "$K",
        **said,
    }


def with_provider(**said: Any) -> Moved:
    return move({"Providers": [provider(**said)], "Router": {"default": "p,m"}})


def section(moved: Moved, header: str) -> str:
    """Without its header and its notes."""
    lines = moved.text.partition(f"\n[{header}]")[2].partition("\n\n")[0].splitlines()[1:]
    return "\n".join(line for line in lines if not line.startswith("#"))


# --- the whole


def test_a_config_becomes_these_rules() -> None:
    assert MOVED.text == (FILES / "claude-code-router.toml").read_text(encoding="utf-8")


def test_every_key_is_used_or_listed() -> None:
    assert lost(json.loads(TEXT), move) == []


def test_what_is_left_has_its_line() -> None:
    lines = TEXT.splitlines()
    left = [left for left in MOVED.leftovers if "[" not in left.key.rpartition(".")[2]]
    assert left
    assert [
        leftover for leftover in left if leftover.key.rpartition(".")[2] not in lines[leftover.line - 1]
    ] == []
    assert [leftover.line for leftover in MOVED.leftovers] == sorted(
        leftover.line for leftover in MOVED.leftovers
    )


def test_no_key_gets_out() -> None:
    assert TEXT.count("sk-literal") == 8
    assert "sk-literal" not in MOVED.text + str(MOVED.leftovers)


@pytest.mark.parametrize(
    ("how", "target"),
    [
        pytest.param({}, "deepseek/deepseek-chat", id="default"),
        pytest.param({"model": "claude-haiku-4-5"}, "ollama/qwen2.5-coder:latest", id="background"),
        pytest.param({"thinking": THINKING}, "modelscope/Qwen/Qwen3-Thinking", id="think"),
        pytest.param({"tools": [SEARCH]}, "gemini/gemini-2.5-flash", id="web search"),
        pytest.param({"tokens": 80_000}, "deepseek/deepseek-chat", id="as long as the threshold"),
        pytest.param({"tokens": 80_001}, "openrouter/google/gemini-2.5-pro-preview", id="longer"),
        pytest.param(
            {"messages": [{"role": "user", "content": [IMAGE]}]},
            "openrouter/anthropic/claude-sonnet-4",
            id="image",
        ),
        pytest.param({"model": "gemini/gemini-2.5-pro"}, "gemini/gemini-2.5-pro", id="by name"),
        pytest.param(
            {"model": "lm-studio/qwen3-30b"}, "LM-Studio/qwen3-30b", id="by name, of a provider with a space"
        ),
        pytest.param(
            {"model": "gemini/gemini-2.5-pro", "tokens": 90_000},
            "gemini/gemini-2.5-pro",
            id="a name is asked before the length",
        ),
        pytest.param(
            {"model": "claude-haiku-4-5", "tokens": 90_000},
            "openrouter/google/gemini-2.5-pro-preview",
            id="the length before haiku",
        ),
        pytest.param(
            {"model": "claude-haiku-4-5", "tools": [SEARCH]},
            "ollama/qwen2.5-coder:latest",
            id="haiku before web search",
        ),
        pytest.param(
            {"thinking": THINKING, "tools": [SEARCH]}, "gemini/gemini-2.5-flash", id="web search before think"
        ),
        pytest.param(
            {"tools": [{"name": "web_search", "input_schema": {}}]},
            "deepseek/deepseek-chat",
            id="a tool of one's own that is called web_search",
        ),
    ],
)
def test_a_request_goes_where_it_went(how: dict[str, Any], target: str) -> None:
    assert names(ask(POLICY, **how))[0] == target


def test_a_fallback_list_becomes_further_targets() -> None:
    assert names(ask(POLICY)) == ["deepseek/deepseek-chat", "openrouter/anthropic/claude-sonnet-4"]
    assert names(ask(POLICY, thinking=THINKING)) == [
        "modelscope/Qwen/Qwen3-Thinking",
        "deepseek/deepseek-reasoner",
    ]


def test_what_is_done_for_one_model_is_done_on_every_way_to_it() -> None:
    for how in ({"thinking": THINKING}, {"model": "modelscope/Qwen/Qwen3-Thinking"}):
        first, *_ = ask(POLICY, **how).targets
        assert first.params.set == {"temperature": 0.6}
        assert first.params.cap == {"max_tokens": 65_536}


def test_of_two_caps_the_lower_counts() -> None:
    moved = with_provider(transformer={"use": ["deepseek", ["maxtoken", {"max_tokens": 65_536}]]})
    assert "params = { cap = { max_tokens = 8192 } }" in moved.text


# --- the format


def test_comments_tabs_and_trailing_commas_are_read_and_lines_stay() -> None:
    moved = from_claude_code_router(
        dedent("""\
        // mine, since "yesterday"
        {
        \t/* two
        \t   lines */
        \t"Providers": [
        \t\t{ name: 'p', "api_base_url": "http://localhost:1234/v1/chat/completions", // the address
        \t\t  "api_key": "$K", "models": ["m",], },
        \t],
        \t"Router": { "default": "p,m", },
        \t"LOG": true,
        }
        """)
    )
    assert [(left.line, left.key) for left in moved.leftovers] == [(10, "LOG")]
    assert 'base_url = "http://localhost:1234/v1"' in moved.text
    assert names(ask(policy_of(moved))) == ["p/m"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "line 1: this is not a JSON object; expected `{`", id="empty"),
        pytest.param("[]", "line 1: this is not a JSON object; expected `{`", id="a list"),
        pytest.param("Providers: []", "line 1: this is not a JSON object; expected `{`", id="YAML"),
        pytest.param('{\n"a": [1\n}', "line 3: this is not JSON: expected ',' or ']'", id="not closed"),
        pytest.param('{\n"a": 1 "b": 2\n}', "line 2: this is not JSON: expected ',' or '}'", id="no comma"),
        pytest.param('{\n"a":\n\x00}', "line 3: a character that JSON does not have", id="a null byte"),
    ],
)
def test_what_is_no_json_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        from_claude_code_router(text)
    assert str(refused.value).startswith(said)


def test_a_key_in_what_is_no_json_is_not_repeated() -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        from_claude_code_router('{"api_key": "sk-literal" "x": }')
    assert "sk-literal" not in str(refused.value)


def test_a_key_that_stands_twice_counts_once_and_is_listed_once() -> None:
    moved = from_claude_code_router('{"PORT": 1,\n"PORT": 2}')
    assert "port = 2" in moved.text
    assert [(left.line, left.key) for left in moved.leftovers] == [(1, "PORT")]


# --- [server]


@pytest.mark.parametrize(
    ("said", "server", "left"),
    [
        pytest.param({}, 'host = "127.0.0.1"\nport = 3456', [], id="its port stays"),
        pytest.param(
            {"HOST": "0.0.0.0"}, 'host = "127.0.0.1"\nport = 3456', ["HOST"], id="HOST without APIKEY"
        ),
        pytest.param(
            {"HOST": "0.0.0.0", "APIKEY": "x"},
            'host = "0.0.0.0"\nport = 3456\nrequire_key = true',
            ["APIKEY"],
            id="HOST with APIKEY",
        ),
        pytest.param({"PORT": 8000}, 'host = "127.0.0.1"\nport = 8000', [], id="PORT"),
        pytest.param({"PORT": "$PORT"}, 'host = "127.0.0.1"\nport = 3456', ["PORT"], id="a variable"),
        pytest.param({"PORT": 80_000}, 'host = "127.0.0.1"\nport = 3456', ["PORT"], id="no port"),
    ],
)
def test_the_server_is_as_open_as_it_was(said: dict[str, Any], server: str, left: list[str]) -> None:
    moved = move(said)
    assert section(moved, "server") == server
    assert list(reasons(moved)) == left


# --- [providers.NAME]


@pytest.mark.parametrize(
    ("url", "written"),
    [
        pytest.param("https://api.deepseek.com/chat/completions", 'type = "deepseek"', id="DeepSeek"),
        pytest.param("https://openrouter.ai/api/v1/chat/completions", 'type = "openrouter"', id="OpenRouter"),
        pytest.param("http://localhost:11434/v1/chat/completions", 'type = "ollama"', id="Ollama"),
        pytest.param(
            "https://generativelanguage.googleapis.com/v1beta/models/", 'type = "gemini"', id="Gemini"
        ),
        pytest.param(
            "https://ark.cn-beijing.volces.com/api/v3/chat/completions",
            'type = "volcengine"',
            id="Volcengine",
        ),
        pytest.param(
            "https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions",
            'type = "dashscope"',
            id="DashScope",
        ),
        pytest.param(
            "https://dashscope-intl.aliyuncs.com/compatible-mode/v1/chat/completions",
            'type = "openai_compatible"\nbase_url = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"',
            id="DashScope elsewhere",
        ),
        pytest.param(
            "https://api.z.ai/api/coding/paas/v4/chat/completions",
            'type = "openai_compatible"\nbase_url = "https://api.z.ai/api/coding/paas/v4"',
            id="another contract at a public host",
        ),
        pytest.param(
            "https://res.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
            'type = "azure"\nbase_url = "https://res.openai.azure.com"\napi_version = "2024-10-21"\n'
            'deployment = "gpt-4o"',
            id="Azure",
        ),
        pytest.param(
            "http://192.168.1.5:11434/v1/chat/completions",
            'type = "openai_compatible"\nbase_url = "http://192.168.1.5:11434/v1"',
            id="a private address is not a promise: no zone",
        ),
        pytest.param(
            "http://[::1]:8000/v1/chat/completions",
            'type = "openai_compatible"\nbase_url = "http://[::1]:8000/v1"\nzone = "local"',
            id="this machine",
        ),
        pytest.param(
            "https://localhost.example/v1/chat/completions",
            'type = "openai_compatible"\nbase_url = "https://localhost.example/v1"',
            id="not this machine",
        ),
    ],
)
def test_an_address_tells_the_type(url: str, written: str) -> None:
    found = section(with_provider(api_base_url=url), "providers.p")
    assert found.replace('api_key = "env:K"\n', "").replace('\napi_key = "env:K"', "") == written


@pytest.mark.parametrize(
    ("url", "base_url", "why"),
    [
        pytest.param("llm.corp", "https://write-the-address.invalid", "not an address", id="no address"),
        pytest.param("$URL", "https://write-the-address.invalid", "write the address", id="a variable"),
        pytest.param("https://u:pw@h/v1/chat/completions", "https://h/v1", "a password", id="a password"),
        pytest.param("https://h/v1/chat/completions?k=pw", "https://h/v1", "the `?`", id="a query"),
        pytest.param(
            "https://h/v2/talk", "https://h/v2/talk", "/chat/completions below it", id="own endpoint"
        ),
    ],
)
def test_an_address_that_can_not_stay_is_listed(url: str, base_url: str, why: str) -> None:
    moved = with_provider(api_base_url=url)
    assert f'base_url = "{base_url}"' in moved.text
    assert why in reasons(moved)["Providers[0].api_base_url"]
    assert "pw" not in moved.text + str(moved.leftovers)


def test_two_keys_never_get_one_name() -> None:
    url = "https://openrouter.ai/api/v1/chat/completions"
    entries = [("a", "sk-1"), ("b", "sk-2"), ("c", "sk-1"), ("d", "$OPENROUTER_API_KEY_2")]
    moved = move({"Providers": [provider(name=name, api_base_url=url, api_key=key) for name, key in entries]})
    assert [key.name for provider in policy_of(moved).providers.values() for key in provider.keys] == [
        "OPENROUTER_API_KEY",
        "OPENROUTER_API_KEY_3",
        "OPENROUTER_API_KEY",
        "OPENROUTER_API_KEY_2",
    ]


def test_a_proxy_is_written_where_it_can_be_and_named_where_not() -> None:
    entries = [
        provider(name="a"),
        provider(name="b", api_base_url="http://127.0.0.1:1/v1/chat/completions"),
        provider(name="c", api_base_url="https://api.deepseek.com/chat/completions"),
    ]
    moved = move({"PROXY_URL": "http://127.0.0.1:7890", "Providers": entries})
    found = {name: provider.proxy for name, provider in policy_of(moved).providers.items()}
    assert found == {"a": "http://127.0.0.1:7890", "b": None, "c": None}
    assert "can't be said of c:" in reasons(moved)["PROXY_URL"]


def test_a_proxy_that_nobody_goes_through_is_listed() -> None:
    entries = [provider(api_base_url="http://127.0.0.1:1/v1/chat/completions")]
    assert list(reasons(move({"PROXY_URL": "http://p:3128", "Providers": entries}))) == ["PROXY_URL"]


@pytest.mark.parametrize(
    "address", ["http://p:1/v1", "http://p:1?x=1", "http://", "https://p:99999", "http://a..b"]
)
def test_a_proxy_that_can_not_be_one_is_left_out(address: str) -> None:
    moved = move({"PROXY_URL": address, "Providers": [provider()]})
    assert "PROXY_URL" in reasons(moved)
    assert "proxy =" not in moved.text


def test_a_proxy_with_a_password_is_not_written() -> None:
    moved = move({"PROXY_URL": "http://me:pw@proxy:3128", "Providers": [provider()]})
    assert "pw" not in moved.text + str(moved.leftovers)
    assert "HTTPS_PROXY" in reasons(moved)["PROXY_URL"]


@pytest.mark.parametrize(
    ("router", "left"),
    [
        pytest.param({"default": "p"}, "Router.default", id="no comma"),
        pytest.param({"default": "q,m"}, "Router.default", id="an unknown provider"),
        pytest.param({"default": "p,*"}, "Router.default", id="a star"),
        pytest.param(
            {"longContextThreshold": 5}, "Router.longContextThreshold", id="a threshold for nothing"
        ),
        pytest.param({"fallback": "p,m"}, "Router.fallback", id="what its forks have"),
    ],
)
def test_a_route_that_leads_nowhere_is_listed_and_refused(router: dict[str, Any], left: str) -> None:
    moved = move({"Providers": [provider()], "Router": router})
    assert list(reasons(moved)) == [left]
    denial = ask(policy_of(moved)).deny
    assert denial is not None
    assert denial.status == 404


# --- whatever

SCALARS = st.sampled_from([None, True, -1, 0, 0.5, 70_000, "", "$K", "p,m", "x y", "http://a:1/v1"])
KEYS = SCALARS | st.just("sk-literal")
OPTIONS = st.dictionaries(
    st.sampled_from(["max_tokens", "temperature", "top_k", "model", "provider", "referer", "k"]),
    KEYS | st.dictionaries(st.sampled_from(["a.b", "only"]), KEYS) | st.lists(KEYS, max_size=2),
    max_size=3,
)
TRANSFORMERS = st.sampled_from(
    ["deepseek", "maxtoken", "sampling", "customparams", "openrouter", "Anthropic", "?"]
)
USE = st.fixed_dictionaries({"use": st.lists(TRANSFORMERS | st.tuples(TRANSFORMERS, OPTIONS), max_size=3)})
PROVIDERS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["p", "q r", "q/r", "default", "7"]) | SCALARS,
        "api_base_url": st.sampled_from(["https://api.openai.com/v1", "http://localhost:1/v1", "http://["])
        | SCALARS,
        "api_key": KEYS,
        "models": st.lists(st.sampled_from(["m", "a/m", "m*"]) | SCALARS, max_size=3) | SCALARS,
        "transformer": USE | st.builds(lambda use, own: {**use, "m": own}, USE, USE) | SCALARS,
    },
)
ROUTES = st.sampled_from(["p,m", "q r,a/m", "p,", "default,m", "7,m"]) | SCALARS
DOCUMENTS = st.fixed_dictionaries(
    {"Providers": st.lists(PROVIDERS, max_size=3) | SCALARS},
    optional={
        "APIKEY": KEYS,
        "HOST": SCALARS,
        "PORT": SCALARS,
        "PROXY_URL": SCALARS,
        "Router": st.dictionaries(
            st.sampled_from(["default", "think", "image", "longContext", "longContextThreshold"]), ROUTES
        ),
        "fallback": st.dictionaries(st.sampled_from(["default", "think"]), st.lists(ROUTES, max_size=2)),
    },
)


@given(DOCUMENTS)
def test_whatever_is_moved_compiles_and_keeps_its_keys_to_itself(document: Any) -> None:
    moved = move(document)
    policy_of(moved)
    assert "sk-literal" not in moved.text + str(moved.leftovers)
