from typing import Any

import pytest

from routeproxy.policy.litellm_params import NEVER_ALLOWED
from routeproxy.policy.problems import RulesRefused
from routeproxy.policy.provider_types import TYPE_NAMES, TYPES
from routeproxy.policy.providers import Provider
from routeproxy.policy.secrets import Secret
from tests.policy.asking import brief, policy, problems

REGION = 'aws_region_name = "eu-central-1"'
ENDS = '\n[default]\ndeny = "no"\n'


def provider(text: str, environ: dict[str, str] | None = None, **how: Any) -> Provider:
    (compiled,) = policy(f"[providers.{text}{ENDS}", environ or {}, **how).providers.values()
    return compiled


@pytest.mark.parametrize(
    ("name", "base_url", "zone", "engine"),
    [
        ("openai", "https://api.openai.com/v1", "public", "direct"),
        ("anthropic", "https://api.anthropic.com", "public", "direct"),
        ("ollama", "http://localhost:11434", "local", "direct"),
        ("echo", None, "local", "direct"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta", "public", "direct"),
        ("openrouter", "https://openrouter.ai/api/v1", "public", "direct"),
        ("groq", "https://api.groq.com/openai/v1", "public", "litellm"),
    ],
)
def test_one_line_is_a_whole_provider(name: str, base_url: str | None, zone: str, engine: str) -> None:
    compiled = provider(f"{name}]")
    assert (compiled.type, compiled.base_url, compiled.zone, compiled.engine) == (
        name,
        base_url,
        zone,
        engine,
    )


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("ollama]", "local"),
        ('ollama]\nbase_url = "http://gpu.example:11434"', "public"),
        ('ollama]\nbase_url = "http://gpu.example:11434"\nzone = "private"', "private"),
        ('corp]\ntype = "openai_compatible"\nbase_url = "https://x.example/v1"', "public"),
    ],
)
def test_an_address_of_ones_own_discards_the_preset_zone(text: str, zone: str) -> None:
    assert provider(text).zone == zone


@pytest.mark.parametrize(
    ("text", "environ", "keys"),
    [
        ("openai]", {"OPENAI_API_KEY": "a"}, ["env:OPENAI_API_KEY"]),
        ("openai]", {}, ["env:OPENAI_API_KEY"]),
        ("together_ai]", {"TOGETHER_API_KEY": "a"}, ["env:TOGETHER_API_KEY"]),
        ("together_ai]", {"TOGETHERAI_API_KEY": "a", "TOGETHER_API_KEY": "b"}, ["env:TOGETHERAI_API_KEY"]),
        ('openai]\napi_key = "env:MINE"', {"OPENAI_API_KEY": "a"}, ["env:MINE"]),
        ('openai]\napi_key = ["env:A", "file:/b"]', {}, ["env:A", "file:/b"]),
        ('openai]\napi_key = "none"', {"OPENAI_API_KEY": "a"}, []),
        ('anthropic]\napi_key = "client"', {"ANTHROPIC_API_KEY": "a"}, []),
        ("groq]", {}, ["env:GROQ_API_KEY"]),
        ("huggingface]", {}, ["env:HF_TOKEN"]),
        ("nano-gpt]", {}, ["env:NANOGPT_API_KEY"]),
        ("ollama]", {}, []),
        (f"bedrock]\n{REGION}", {}, []),
        ('hosted_vllm]\nbase_url = "http://x.example/v1"', {}, []),
        ('x]\ntype = "openai_compatible"\nbase_url = "http://x"', {"OPENAI_API_KEY": "a"}, []),
    ],
)
def test_a_key_is_the_one_named_else_the_types_usual_one(
    text: str, environ: dict[str, str], keys: list[str]
) -> None:
    assert [key.reference for key in provider(text, environ).keys] == keys


def test_a_variable_that_is_empty_is_not_set() -> None:
    (key,) = provider("openai]", {"OPENAI_API_KEY": ""}).keys
    assert (key.value, key.unset) == (None, True)
    assert [brief(problem) for problem in problems(f"[providers.openai]{ENDS}", {"OPENAI_API_KEY": ""})] == [
        "1:12 RP103 provider `openai` has no key: OPENAI_API_KEY is not set"
    ]


def test_a_literal_key_is_taken_only_when_allowed() -> None:
    text = 'openai]\napi_key = "sk-1"'
    with pytest.raises(RulesRefused, match="RP012"):
        provider(text)
    (key,) = provider(text, literal_keys=True).keys
    assert (key, repr(key)) == (Secret("literal", "", "sk-1"), "Secret(literal)")


def test_the_clients_own_login_is_forwarded_to_anthropic_only() -> None:
    assert provider('anthropic]\napi_key = "client"').client_key
    with pytest.raises(RulesRefused, match="RP013"):
        provider('openai]\napi_key = "client"')


def test_an_address_may_come_from_a_variable_if_its_zone_is_said() -> None:
    text = 'openai]\nbase_url = "env:WHERE"'
    assert (
        provider(f'{text}\nzone = "private"', {"WHERE": "https://x.example/v1/"}).base_url
        == "https://x.example/v1"
    )
    with pytest.raises(RulesRefused, match="needs a `zone`"):
        provider(text, {"WHERE": "https://x.example/v1"})
    with pytest.raises(RulesRefused, match="`WHERE` is not set"):
        provider(f'{text}\nzone = "private"')
    with pytest.raises(RulesRefused, match="is not an address"):
        provider(f'{text}\nzone = "private"', {"WHERE": "x.example"})


def test_headers_may_come_from_variables_and_are_not_shown() -> None:
    compiled = provider('openai]\nheaders = { X-Gate = "env:GATE", x-app = "y" }', {"GATE": "hidden"})
    assert compiled.headers == {"x-gate": "hidden", "x-app": "y"}
    assert "hidden" not in repr(compiled)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ('vertex]\ntype = "vertex_ai"\nproject = "p"\nlocation = "l"', {"project": "p", "location": "l"}),
        ("ollama]\nnum_ctx = 128_000", {"num_ctx": 128_000}),
        ('azure]\nbase_url = "https://x"\napi_version = "v"', {"api_version": "v"}),
    ],
)
def test_what_a_type_needs_is_among_its_options(text: str, options: dict[str, Any]) -> None:
    assert provider(text).options == options


@pytest.mark.parametrize("name", TYPES)
def test_the_table_of_types_is_consistent(name: str) -> None:
    kind = TYPES[name]
    assert set(kind.required) <= {*kind.options, "base_url"}
    assert kind.speaks_messages == (kind.engines == ("direct",))
    assert not set(kind.spellings) & set(TYPE_NAMES)


def test_echo_has_no_address() -> None:
    with pytest.raises(RulesRefused, match="type echo contacts nobody, so it has no `base_url`"):
        provider('echo]\nbase_url = "http://x"')


def test_no_type_is_listed_twice() -> None:
    assert len(set(TYPE_NAMES)) == len(TYPE_NAMES)


@pytest.mark.parametrize(
    ("text", "engine"),
    [
        pytest.param('openai]\nengine = "litellm"', "litellm", id="one word away"),
        pytest.param('openai]\nengine = "direct"', "direct", id="said"),
        pytest.param('gemini]\nengine = "litellm"', "litellm", id="Gemini's, one word away"),
        pytest.param("openai]\nlitellm_params = { seed = 1 }", "litellm", id="what only LiteLLM takes"),
        pytest.param('azure]\nbase_url = "https://a.example"\napi = "responses"', "direct", id="Responses"),
    ],
)
def test_who_speaks_to_a_provider_can_be_said(text: str, engine: str) -> None:
    assert provider(text).engine == engine


@pytest.mark.parametrize(
    ("model", "engine"),
    [
        ("gemini-2.5-pro", "direct"),
        ("Gemini-3-pro", "direct"),
        ("claude-sonnet-4-5", "litellm"),
        ("*", "litellm"),
    ],
)
def test_vertex_is_spoken_to_directly_for_gemini_only(model: str, engine: str) -> None:
    vertex = 'vertex_ai]\nproject = "p"\nlocation = "us-central1"'
    assert provider(vertex).engine_of(model) == engine
    assert provider(f'{vertex}\nengine = "litellm"').engine_of(model) == "litellm"


@pytest.mark.parametrize("location", ["us-central1.example", "EU", "us/", "-us"])
def test_a_location_that_is_none_is_refused(location: str) -> None:
    text = f'[providers.vertex_ai]\nproject = "p"\nlocation = "{location}"{ENDS}'
    assert f"`{location}` is no location of Google Cloud" in [problem.message for problem in problems(text)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            f'bedrock]\n{REGION}\nengine = "direct"',
            'type bedrock is always spoken to through LiteLLM: leave out `engine = "direct"`',
            id="not there",
        ),
        pytest.param(
            'openai]\nengine = "direct"\nlitellm_params = { seed = 1 }',
            '`litellm_params` are for LiteLLM, which `engine = "direct"` leaves out',
            id="both",
        ),
        pytest.param('ollama]\napi = "chat"', "type ollama has no choice of `api`", id="no choice"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(text: str, message: str) -> None:
    errors = [problem for problem in problems(f"[providers.{text}{ENDS}") if problem.severity == "error"]
    assert [error.message for error in errors] == [message]


# --- found before a request is


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('base_url = "https://x.example/v1/chat/completions"', "leave out `/chat/completions`"),
        ('base_url = "https://x.example/v1/messages/"', "leave out `/v1/messages`"),
        ('base_url = "https://x.example/v1/responses"', "leave out `/responses`"),
        ('base_url = "http://x.example:11434/api/chat"', "leave out `/api/chat`"),
        ('base_url = "https://x.example/v1 "', "has a blank or a control character"),
        ('base_url = "https://x.example/ v1"', "has a blank or a control character"),
        (f'base_url = "https://{"a" * 64}.example"', "63 letters between two dots"),
        ('base_url = "https://a..b.example"', "has a host that can't be one"),
        ('base_url = "https://x!.example"', "has a host that can't be one"),
        ('base_url = "https://x.example:99999"', "its port or its brackets"),
        ('base_url = "x.example/v1"', "is not an address"),
        ('headers = { host = "x" }', "`host` belongs to a connection"),
        ('headers = { Transfer-Encoding = "chunked" }', "`Transfer-Encoding` belongs to a connection"),
        ('headers = { authorization = "Bearer env:KEY" }', "`env:NAME` counts only as the whole value"),
        ('headers = { x-key = "file:/run/key" }', "`env:NAME` counts only as the whole value"),
        ('headers = { x-a = "a\\nb" }', "one line of printable characters"),
        ('proxy = "proxy.example:3128"', "is not the address of a proxy"),
        ('proxy = "socks5://proxy.example:1080"', "can't be a SOCKS proxy"),
        ('proxy = "http://proxy.example:3128/path"', "without a path"),
        ('proxy = "http:// proxy.example"', "has a blank or a control character"),
        ('zone = "local"\nproxy = "http://proxy.example:3128"', "is not reached by way of a proxy"),
    ],
)
def test_what_no_request_could_be_sent_by_is_an_error(line: str, problem: str) -> None:
    base_url = "" if "base_url" in line else '\nbase_url = "https://x.example/v1"'
    found = problems(f'[providers.corp]\ntype = "openai_compatible"{base_url}\n{line}{ENDS}')
    assert [one.severity for one in found] == ["error"]
    assert problem in found[0].message


@pytest.mark.parametrize(
    "line",
    [
        'base_url = "http://[::1]:8000/v1"',
        'base_url = "http://10.0.0.1/openai/deployments/messages-team"',
        'base_url = "https://müller.example/v1"',
        'base_url = "http://llm_server:8000"',
        'headers = { x-title = "Müller: environment" }',
        'proxy = "http://user:password@proxy.example:3128/"',
    ],
)
def test_what_a_request_can_be_sent_by_is_none(line: str) -> None:
    base_url = "" if "base_url" in line else '\nbase_url = "https://x.example/v1"'
    provider(f'corp]\ntype = "openai_compatible"{base_url}\n{line}')


def test_ollama_on_this_machine_has_no_proxy() -> None:
    (found,) = problems(f'[providers.ollama]\nproxy = "http://proxy.example:3128"{ENDS}')
    assert "is not reached by way of a proxy" in found.message


@pytest.mark.parametrize("type", ["bytez", "replicate"])
def test_a_type_that_litellm_asks_at_its_own_address_takes_no_other(type: str) -> None:
    rest = 'base_url = "https://elsewhere.example/v1"\napi_key = "none"'
    with pytest.raises(RulesRefused, match=f"type {type} is asked at https://api.{type}.com/.* alone"):
        provider(f"{type}]\n{rest}")


def test_a_header_from_a_variable_is_a_secret() -> None:
    headers = '{ x-key = "env:KEY", x-auth = "env:AUTH", x-app = "routeproxy" }'
    environ = {"KEY": "sk-1", "AUTH": "Bearer sk-2"}
    compiled = provider(
        f'corp]\ntype = "openai_compatible"\nbase_url = "https://x"\nheaders = {headers}', environ
    )
    assert compiled.secret_values == ("Bearer sk-2", "sk-2", "sk-1", "sk-1")


# --- litellm_params


@pytest.mark.parametrize("name", sorted(NEVER_ALLOWED))
@pytest.mark.parametrize("type", ["openai", "groq", "snowflake"])
def test_nothing_that_chooses_who_is_asked_goes_by_litellm_params(type: str, name: str) -> None:
    text = f'[providers.{type}]\nbase_url = "https://x.example"\napi_key = "none"'
    (found, *_) = problems(f'{text}\nlitellm_params = {{ {name} = "x" }}{ENDS}')
    assert (found.severity, found.path[-1]) == ("error", name)
    assert "chooses who is asked" in found.message


@pytest.mark.parametrize(
    ("type", "name", "problem"),
    [
        ("groq", "aws_region_name", "type groq takes no `aws_region_name` here"),
        ("bedrock", "aws_secret_acces_key", "type bedrock takes no `aws_secret_acces_key` here"),
        ("openai", "drop_params", "type openai takes no `drop_params` here"),
        ("openai", "metadata", "type openai takes no `metadata` here"),
    ],
)
def test_what_a_type_does_not_take_is_an_error(type: str, name: str, problem: str) -> None:
    region = REGION if type == "bedrock" else ""
    (found, *_) = problems(
        f'[providers.{type}]\napi_key = "none"\n{region}\nlitellm_params = {{ {name} = "x" }}{ENDS}'
    )
    assert found.message.startswith(problem)


def test_a_variable_in_litellm_params_is_read_and_a_secret() -> None:
    params = '{ aws_access_key_id = "AKID", aws_secret_access_key = "env:AWS" }'
    text = f"bedrock]\n{REGION}\nlitellm_params = {params}"
    compiled = provider(text, {"AWS": "sk-1"})
    assert compiled.litellm_params == {"aws_access_key_id": "AKID", "aws_secret_access_key": "sk-1"}
    assert compiled.secret_values == ("AKID", "AKID", "sk-1", "sk-1")


def test_the_version_knows_no_variables_value() -> None:
    text = f'[providers.bedrock]\n{REGION}\nlitellm_params = {{ aws_secret_access_key = "env:AWS" }}{ENDS}'
    assert policy(text, {"AWS": "a"}).version == policy(text, {"AWS": "b"}).version


def test_a_file_in_litellm_params_is_an_error_and_not_sent_as_a_text() -> None:
    (found,) = problems(
        f'[providers.bedrock]\n{REGION}\nlitellm_params = {{ aws_session_token = "file:/run/t" }}{ENDS}'
    )
    assert found.message == "`file:` is not read here: the text itself would be sent"
