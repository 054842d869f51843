"""`routeproxy init`: what is written and what is said; the old variables' rules are the old policy."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.cli.init import Source, run_init
from routeproxy.migrate.environment import environment_policy
from routeproxy.migrate.environment_providers import PREFERRED
from routeproxy.migrate.starter import starter
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.problems import RulesRefused
from tests.budgets import examples
from tests.migrate.laws import FILES
from tests.policy.asking import ask, names

Result = tuple[int, str, str]


def init(source: Source = "starter", *, environ: dict[str, str] | None = None, **how: Any) -> Result:
    """Exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    said: dict[str, Any] = {"file": None, "output": None, "force": False, **how}
    code = run_init(source=source, environ=environ or {}, out=out, err=err, **said)
    return code, out.getvalue(), err.getvalue()


def compiled(text: str, environ: dict[str, str] | None = None) -> Policy:
    return compile_rules(text, path=Path("rules.toml"), environ=environ or {})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- the starter


def test_the_starter_serves_at_once_and_nothing_is_odd_about_it() -> None:
    policy = compiled(starter())
    assert policy.warnings == ()
    assert names(ask(policy)) == ["echo/echo"]


def test_what_the_starter_has_in_comments_can_be_uncommented() -> None:
    commented = re.compile(r"^# (?=\[|[\w.-]+ = )", re.MULTILINE)
    policy = compiled(commented.sub("", starter()), dict.fromkeys([*KEYS, "CORP_API_KEY"], "x"))
    assert policy.warnings == ()
    assert len(policy.rules) == 4
    assert {"openai", "gemini", "anthropic", "ollama", "corp"} < policy.providers.keys()


def test_the_starter_is_short() -> None:
    assert starter().count("\n") <= 65
    assert max(map(len, starter().splitlines())) <= 110


# --- what is written, and what is said


def test_nothing_asked_writes_the_starter_to_rules_toml() -> None:
    assert init() == (0, "", "wrote rules.toml\n\nnext: routeproxy check rules.toml\n")
    assert Path("rules.toml").read_text() == starter()


def test_a_file_that_is_there_is_replaced_only_by_force() -> None:
    Path("rules.toml").write_text("mine")
    code, _, err = init()
    assert (code, Path("rules.toml").read_text()) == (2, "mine")
    assert err == "routeproxy: rules.toml is there already: --force replaces it, --output names another\n"
    assert init(force=True)[0] == 0
    assert Path("rules.toml").read_text() == starter()


def test_a_dash_prints_the_rules_and_nothing_else() -> None:
    assert init(output=Path("-")) == (0, starter(), "")
    assert not Path("rules.toml").exists()


def test_what_is_left_is_said_with_its_place() -> None:
    file = Path("config.json")
    file.write_text('{"Providers": [],\n "LOG": true}')
    code, _, err = init("claude-code-router", file=file, output=Path("moved.toml"))
    assert code == 0
    assert err.splitlines() == [
        "wrote moved.toml",
        "",
        "What it does not say, and what to do about it:",
        "config.json:1: Providers: `routeproxy init` does not know this key; docs/rules.md says what a rules "
        "file can hold",
        "config.json:2: LOG: logs go to standard error; set LOG_FILE in .env for a file",
        "",
        "next: routeproxy check moved.toml",
    ]
    assert compiled(Path("moved.toml").read_text())


@pytest.mark.parametrize(
    ("source", "name"),
    [
        pytest.param("claude-code-router", "claude-code-router", id="claude-code-router"),
        pytest.param("litellm", "litellm", id="LiteLLM"),
    ],
)
def test_a_move_is_what_its_importer_says(source: Source, name: str) -> None:
    suffix = {"claude-code-router": "json", "litellm": "yaml"}[source]
    code, out, err = init(source, file=FILES / f"{name}.{suffix}", output=Path("-"))
    assert (code, out) == (0, (FILES / f"{name}.toml").read_text(encoding="utf-8"))
    assert "sk-literal" not in out + err


@pytest.mark.parametrize(
    ("source", "text", "code", "said"),
    [
        pytest.param("litellm", None, 2, "routeproxy: x: No such file or directory", id="no config"),
        pytest.param("claude-code-router", None, 2, "routeproxy: x: No such file", id="no config.json"),
        pytest.param("env", None, 2, "routeproxy: x: No such file or directory", id="a .env that was named"),
        pytest.param("litellm", b"a: [", 1, "routeproxy: x: line 1: this is not YAML", id="no YAML"),
        pytest.param("claude-code-router", b"a: 1", 1, "routeproxy: x: line 1: this is not", id="no JSON"),
        pytest.param("litellm", b"\xff", 2, "routeproxy: x: not UTF-8 at byte 1", id="no text"),
        pytest.param("env", b"PORT=http", 1, "error RP003: PORT can't be `http`", id="a wrong variable"),
    ],
)
def test_a_source_with_errors_writes_nothing(
    source: Source, text: bytes | None, code: int, said: str
) -> None:
    if text is not None:
        Path("x").write_bytes(text)
    found, out, err = init(source, file=Path("x"))
    assert (found, out) == (code, "")
    assert err.startswith(said)
    assert not Path("rules.toml").exists()


def test_a_folder_that_is_not_there_is_named() -> None:
    code, _, err = init(output=Path("nowhere/rules.toml"))
    assert (code, err) == (2, "routeproxy: nowhere/rules.toml: No such file or directory\n")


# --- from the old variables


def test_the_variables_of_dotenv_lie_under_those_of_the_environment() -> None:
    Path(".env").write_text("BIG_MODEL=from-file\nSMALL_MODEL=small\n")
    _, out, _ = init("env", environ={"BIG_MODEL": "gpt-5"}, output=Path("-"))
    assert 'big = "openai/gpt-5"' in out
    assert 'small = "openai/small"' in out


def test_what_is_odd_about_the_variables_is_said() -> None:
    environ = {"PREFERRED_PROVIDER": "google", "BIG_MODEL": "gpt-5"}
    code, _, err = init("env", environ=environ, output=Path("-"))
    assert code == 0
    assert "warning RP104: BIG_MODEL is `gpt-5`, which is not a Gemini model: it goes to OpenAI" in err


KEYS = ("OPENAI_API_KEY", "GEMINI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY", "TOGETHER_API_KEY")
MODELS = st.sampled_from(
    ["gpt-5", "openai/gpt-4.1", "gemini-2.5-pro", "azure/o3", "nvidia/nemotron-ultra", "x y", "ollama/qwen3"]
)
VARIABLES = st.fixed_dictionaries(
    {},
    optional={
        "PREFERRED_PROVIDER": st.sampled_from([*PREFERRED, "oppenai"]),
        "BIG_MODEL": MODELS,
        "SMALL_MODEL": MODELS,
        "OPENAI_BASE_URL": st.sampled_from(["https://api.openai.com/v1", "http://localhost:8000/v1", "x"]),
        "OLLAMA_BASE_URL": st.sampled_from(["http://localhost:11434", "http://10.0.0.5:11434/"]),
        "CUSTOM_BASE_URL": st.sampled_from(["https://llm.corp.example/v1", "https://u:p@h"]),
        "AZURE_OPENAI_ENDPOINT": st.just("https://res.openai.azure.com/openai/deployments/x?api-version=1"),
        "VERTEX_PROJECT": st.just("project"),
        "VERTEX_LOCATION": st.just("europe-west1"),
        "USE_VERTEX_AUTH": st.sampled_from(["true", "no", "maybe"]),
        "MAX_OUTPUT_TOKENS": st.sampled_from(["0", "8192", "-1"]),
        "NVIDIA_REASONING_BUDGET": st.just("1024"),
        "OLLAMA_NUM_CTX": st.just("8192"),
        "HOST": st.just("0.0.0.0"),
        "PORT": st.sampled_from(["9000", "http"]),
        **{name: st.just("sk-literal") for name in KEYS},
    },
)


def version(policy: Policy | None) -> str | None:
    return policy and policy.version


def environments(variables: dict[str, str]) -> Policy | None:
    try:
        return environment_policy(variables)
    except RulesRefused:
        return None


def initialised(variables: dict[str, str]) -> Policy | None:
    code, text, _ = init("env", environ=variables, output=Path("-"))
    assert "sk-literal" not in text
    return compiled(text, variables) if code == 0 else None


@examples(200)
@given(VARIABLES)
def test_the_rules_of_the_variables_are_the_policy_of_the_variables(variables: dict[str, str]) -> None:
    assert version(initialised(variables)) == version(environments(variables))
