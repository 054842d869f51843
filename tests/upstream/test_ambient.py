"""A provider that signs in with what the machine has says at start when the machine has nothing."""

from pathlib import Path

import pytest

from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.serve import startup_lines
from routeproxy.sources import Options, Sources
from routeproxy.upstream.ambient import AMBIENT, without_credentials

VERTEX = '[providers.vertex_ai]\nproject = "p"\nlocation = "europe-west4"\n{0}'
BEDROCK = '[providers.bedrock]\naws_region_name = "eu-central-1"\n{0}'
RULES = '{0}\n[default]\ntargets = ["{1}/m"]\n'


def said(provider: str, more: str, environ: dict[str, str]) -> str | None:
    text = RULES.format(provider.format(more), "vertex_ai" if provider is VERTEX else "bedrock")
    policy = compile_rules(text, path=Path("rules.toml"), environ=environ)
    (only,) = policy.providers.values()
    return without_credentials(only, environ)


@pytest.mark.parametrize("provider", [VERTEX, BEDROCK], ids=["vertex", "bedrock"])
def test_nothing_found_is_said_with_where_it_was_looked_for(tmp_path: Path, provider: str) -> None:
    words = said(provider, "", {"HOME": str(tmp_path)})
    assert words is not None
    kind = AMBIENT[0] if provider is VERTEX else AMBIENT[1]
    assert [name for name in kind.variables if name not in words] == []
    assert str(tmp_path) in words
    assert kind.hint in words


@pytest.mark.parametrize(
    ("provider", "more", "environ"),
    [
        pytest.param(VERTEX, 'credentials = "key.json"', {}, id="Vertex: in the rules"),
        pytest.param(VERTEX, "", {"GOOGLE_APPLICATION_CREDENTIALS": "key.json"}, id="Vertex: in a variable"),
        pytest.param(BEDROCK, 'aws_profile_name = "me"', {}, id="Bedrock: a profile in the rules"),
        pytest.param(BEDROCK, "", {"AWS_PROFILE": "me"}, id="Bedrock: a profile in a variable"),
        pytest.param(BEDROCK, "", {"AWS_ACCESS_KEY_ID": "id"}, id="Bedrock: a key in a variable"),
        pytest.param(BEDROCK, "", {"AWS_WEB_IDENTITY_TOKEN_FILE": "token"}, id="Bedrock: a web identity"),
    ],
)
def test_what_is_stated_is_not_asked_for(
    tmp_path: Path, provider: str, more: str, environ: dict[str, str]
) -> None:
    assert said(provider, more, environ | {"HOME": str(tmp_path)}) is None


@pytest.mark.parametrize(
    ("provider", "file"),
    [
        (VERTEX, ".config/gcloud/application_default_credentials.json"),
        (BEDROCK, ".aws/credentials"),
        (BEDROCK, ".aws/config"),
    ],
)
def test_what_their_tools_left_counts(tmp_path: Path, provider: str, file: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("{}")
    assert said(provider, "", {"HOME": str(tmp_path)}) is None


def test_start_up_says_it(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    text = RULES.format(VERTEX.format(""), "vertex_ai")
    policy = compile_rules(text, path=Path("rules.toml"), environ=environ)
    lines = startup_lines(policy, "127.0.0.1", 8082, Sources(Options(), environ))
    assert [line for line in lines if line.startswith("  warning    vertex_ai: no credentials found")]


def test_old_variables_for_vertex_say_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {
        "HOME": str(tmp_path),
        "PREFERRED_PROVIDER": "vertex",
        "VERTEX_PROJECT": "p",
        "VERTEX_LOCATION": "l",
        "BIG_MODEL": "gemini-2.5-pro",
    }
    sources = Sources(Options(), environ)
    lines = startup_lines(sources.load(), "127.0.0.1", 8082, sources)
    assert [line for line in lines if "no credentials found" in line]
