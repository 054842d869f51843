"""A provider that signs in with what the machine has, or with parameters, says at start and to `check` when
there is nothing that can be used."""

import json
import os
import sys
from pathlib import Path

import pytest

from routeproxy.cli.check import run_check
from routeproxy.serve import startup_lines
from routeproxy.sources import Options, Sources
from routeproxy.upstream.ambient import export_credentials
from tests.backend import BackEnd, completion, json_answer
from tests.running import request, running
from tests.upstream.litellm.asking import LITELLMS_WARNINGS

pytestmark = LITELLMS_WARNINGS

VERTEX = '[providers.vertex_ai]\nproject = "p"\nlocation = "europe-west4"\n'
BEDROCK = '[providers.bedrock]\naws_region_name = "eu-central-1"\n'
WATSONX = '[providers.watsonx]\nbase_url = "https://eu-de.ml.cloud.ibm.com"\n'
AZURE_AI = '[providers.azure_ai]\nbase_url = "https://x.services.ai.azure.com"\napi_key = "none"\n'
AZURE = '[providers.azure]\nbase_url = "https://x.openai.azure.com"\n'

GOOGLE_FILE = ".config/gcloud/application_default_credentials.json"
USER = json.dumps({"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "t"})
KEYS = "aws_access_key_id = i\naws_secret_access_key = s\n"


def warnings(
    folder: Path, provider: str, environ: dict[str, str], files: dict[str, str] | None = None
) -> list[str]:
    """What start-up warns of."""
    name = provider.partition("]")[0].removeprefix("[providers.")
    for file, content in (files or {}).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)
    rules = folder / "rules.toml"
    rules.write_text(f'{provider}\n[default]\ntargets = ["{name}/m"]\n')
    sources = Sources(Options(rules=rules), {"HOME": str(folder), **environ})
    lines = startup_lines(sources.load(), "127.0.0.1", 8082, sources)
    return [line.partition("RP103: ")[2] for line in lines if line.startswith("  warning")]


@pytest.mark.parametrize(
    ("provider", "environ", "files", "words"),
    [
        pytest.param(
            VERTEX, {}, {},
            ["vertex_ai: no credentials found (looked in GOOGLE_APPLICATION_CREDENTIALS, ", GOOGLE_FILE,
             "`gcloud auth application-default login`"],
            id="Vertex: nothing",
        ),
        pytest.param(
            VERTEX, {"GOOGLE_APPLICATION_CREDENTIALS": "key.json"}, {},
            ["the file key.json, which GOOGLE_APPLICATION_CREDENTIALS names, is not there"],
            id="Vertex: a variable that names no file",
        ),
        pytest.param(
            VERTEX, {}, {GOOGLE_FILE: "{}"}, ["no credentials found", "holds no credentials of a known type"],
            id="Vertex: a file with nothing in it",
        ),
        pytest.param(
            VERTEX, {}, {GOOGLE_FILE: '{"type": "authorized_user", "client_id": "i"}'},
            ["lacks `client_secret` and `refresh_token`"],
            id="Vertex: a file with half of it",
        ),
        pytest.param(
            VERTEX + 'credentials = "sa.json"', {}, {},
            ["its `credentials` file sa.json is not there: every request will fail"],
            id="Vertex: the rules name a file that is not there",
        ),
        pytest.param(
            VERTEX + 'litellm_params.vertex_credentials = "sa.json"\nengine = "litellm"', {}, {},
            ["its `credentials` file sa.json is not there"],
            id="Vertex: LiteLLM's word for it",
        ),
        pytest.param(
            BEDROCK, {}, {},
            ["bedrock: no credentials found (looked in AWS_ACCESS_KEY_ID, ", ".aws/credentials",
             ".aws/config", "AWS_BEARER_TOKEN_BEDROCK"],
            id="Bedrock: nothing",
        ),
        pytest.param(
            BEDROCK, {"AWS_ACCESS_KEY_ID": "i"}, {},
            ["AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"],
            id="Bedrock: an id without its secret",
        ),
        pytest.param(
            BEDROCK, {"AWS_SECRET_ACCESS_KEY": "s"}, {},
            ["AWS_SECRET_ACCESS_KEY is set without AWS_ACCESS_KEY_ID"],
            id="Bedrock: a secret without its id",
        ),
        pytest.param(
            BEDROCK, {"AWS_WEB_IDENTITY_TOKEN_FILE": "token"}, {},
            ["AWS_WEB_IDENTITY_TOKEN_FILE is set without AWS_ROLE_ARN"],
            id="Bedrock: a web identity without a role",
        ),
        pytest.param(
            BEDROCK, {}, {".aws/credentials": "", ".aws/config": "[default]\nregion = eu-west-1\n"},
            ["no credentials found"],
            id="Bedrock: files that hold nothing",
        ),
        pytest.param(
            BEDROCK, {"AWS_PROFILE": "me"}, {".aws/credentials": f"[you]\n{KEYS}"},
            ["AWS_PROFILE is `me`, and no such profile has credentials"],
            id="Bedrock: a profile that there is not",
        ),
        pytest.param(
            BEDROCK + 'aws_profile_name = "me"', {"AWS_ACCESS_KEY_ID": "i", "AWS_SECRET_ACCESS_KEY": "s"}, {},
            ["no profile `me` with credentials is in "],
            id="Bedrock: the rules name a profile that there is not",
        ),
        pytest.param(
            BEDROCK + 'litellm_params.aws_access_key_id = "i"', {}, {}, ["no credentials found"],
            id="Bedrock: half a key in the rules",
        ),
        pytest.param(
            AZURE_AI + 'litellm_params = { client_id = "i", client_secret = "s", tenant_id = "t" }', {}, {},
            ["needs the Python package azure-identity, which is not installed"],
            id="Azure AD: what gets the tokens is not installed",
        ),
        pytest.param(
            WATSONX + 'api_key = "none"', {}, {}, ["watsonx: a key is exchanged", "litellm_params.token"],
            id="watsonx: nothing",
        ),
        pytest.param(
            WATSONX, {"WATSONX_API_KEY": "k"}, {}, ["every request will fail", "litellm_params.token"],
            id="watsonx: a key, which is IBM's to exchange",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said(
    tmp_path: Path, provider: str, environ: dict[str, str], files: dict[str, str], words: list[str]
) -> None:
    said = warnings(tmp_path, provider, environ, files)
    assert len(said) == 1, said
    assert [word for word in words if word not in said[0]] == []


@pytest.mark.parametrize(
    ("provider", "environ", "files"),
    [
        pytest.param(VERTEX, {}, {GOOGLE_FILE: USER}, id="Vertex: what gcloud left"),
        pytest.param(
            VERTEX, {"CLOUDSDK_CONFIG": "{home}/g"}, {"g/application_default_credentials.json": USER},
            id="Vertex: gcloud's own folder",
        ),
        pytest.param(
            VERTEX, {"GOOGLE_APPLICATION_CREDENTIALS": "{home}/k"}, {"k": USER}, id="Vertex: in a variable"
        ),
        pytest.param(VERTEX + 'credentials = "{home}/k"', {}, {"k": USER}, id="Vertex: in the rules"),
        pytest.param(
            BEDROCK, {"AWS_ACCESS_KEY_ID": "i", "AWS_SECRET_ACCESS_KEY": "s"}, {}, id="Bedrock: in variables"
        ),
        pytest.param(
            BEDROCK, {"AWS_WEB_IDENTITY_TOKEN_FILE": "t", "AWS_ROLE_ARN": "r"}, {},
            id="Bedrock: a web identity",
        ),
        pytest.param(
            BEDROCK, {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.2/x"}, {},
            id="Bedrock: a container's",
        ),
        pytest.param(BEDROCK, {}, {".aws/credentials": f"[default]\n{KEYS}"}, id="Bedrock: a file"),
        pytest.param(
            BEDROCK, {"AWS_PROFILE": "me"}, {".aws/config": "[profile me]\nsso_session = x\n"},
            id="Bedrock: a profile that signs on",
        ),
        pytest.param(
            BEDROCK + 'aws_profile_name = "me"', {}, {".aws/credentials": f"[me]\n{KEYS}"},
            id="Bedrock: a profile in the rules",
        ),
        pytest.param(
            BEDROCK + 'litellm_params = { aws_access_key_id = "i", aws_secret_access_key = "env:S" }',
            {"S": "s"}, {},
            id="Bedrock: a key in the rules",
        ),
        pytest.param(
            BEDROCK + 'api_key = "env:AWS_BEARER_TOKEN_BEDROCK"', {"AWS_BEARER_TOKEN_BEDROCK": "t"}, {},
            id="Bedrock: a bearer's token",
        ),
        pytest.param(AZURE + 'litellm_params.azure_ad_token = "env:T"', {"T": "t"}, {}, id="Azure: a token"),
        pytest.param(
            AZURE_AI + 'litellm_params.azure_ad_token = "env:T"', {"T": "t"}, {}, id="Azure AI: a token"
        ),
        pytest.param(WATSONX + 'litellm_params.token = "env:T"', {"T": "t"}, {}, id="watsonx: a token"),
        pytest.param(
            WATSONX + 'litellm_params.zen_api_key = "env:T"', {"T": "t"}, {}, id="watsonx: on premises"
        ),
    ],
)  # fmt: skip
def test_what_can_be_used_is_not_asked_for(
    tmp_path: Path, provider: str, environ: dict[str, str], files: dict[str, str]
) -> None:
    placed = {name: value.format(home=tmp_path) for name, value in environ.items()}
    assert warnings(tmp_path, provider.replace("{home}", str(tmp_path)), placed, files) == []


def test_check_says_it_too_and_a_file_can_accept_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.toml"
    sources = Sources(Options(rules=rules), {"HOME": str(tmp_path)})
    text = f'{VERTEX}\n[default]\ntargets = ["vertex_ai/m"]\n'
    rules.write_text(text)
    assert run_check(sources, strict=True, out=sys.stdout) == 1
    assert "rules.toml:1:12: warning RP103: vertex_ai: no credentials found" in capsys.readouterr().out
    rules.write_text(text + '[lints]\naccept = { RP103 = "the machine has an account" }\n')
    assert run_check(sources, strict=True, out=sys.stdout) == 0
    assert "1 accepted" in capsys.readouterr().out
    assert warnings(tmp_path, VERTEX + '[lints]\naccept = { RP103 = "so" }', {}) == []


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


def test_start_up_names_a_missing_key_once(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[providers.openai]\n[providers.two]\ntype = "openai"\napi_key = ["env:ONE", "env:TWO"]\n'
        '[default]\ntargets = ["openai/m", "two/m"]\n'
    )
    sources = Sources(Options(rules=rules), {"ONE": "key"})
    lines = startup_lines(sources.load(), "127.0.0.1", 8082, sources)
    assert [line.strip() for line in lines if "SET" in line or "not set" in line] == [
        "provider   openai  openai  https://api.openai.com/v1  zone public  "
        "key env:OPENAI_API_KEY is NOT SET",
        f"warning    {rules}:4:23: RP103: the variable `TWO` is not set",
    ]


@pytest.mark.parametrize("type", ["azure", "azure_ai"])
@pytest.mark.parametrize("set_besides", [{}, {"AZURE_API_KEY": "another", "AZURE_AI_API_KEY": "another"}])
def test_a_token_of_azure_is_shown_as_one_and_no_key_beside_it(
    tmp_path: Path, type: str, set_besides: dict[str, str]
) -> None:
    with BackEnd(json_answer(completion())) as back_end:
        rules = (
            f'[providers.{type}]\nbase_url = "{back_end.url}"\nlitellm_params.azure_ad_token = "env:TOKEN"\n'
            f'[default]\ntargets = ["{type}/gpt-4.1"]\n'
        )
        with running(rules, tmp_path, {"TOKEN": "eyJ-token", **set_besides}) as server:
            assert server.post(request()).status_code == 200
        shown = {name.lower(): value for name, value in back_end.last.headers}
    assert shown["authorization"] == "Bearer eyJ-token"
    assert "api-key" not in shown


def test_what_a_dotenv_says_of_credentials_reaches_the_clouds_own_libraries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "whatever the machine has")  # so that in the end it is as it was
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_CONFIG_FILE", "the machine's")
    export_credentials({"AWS_PROFILE": "me", "AWS_CONFIG_FILE": "the file's", "OTHER": "x"})
    assert (os.environ["AWS_PROFILE"], os.environ["AWS_CONFIG_FILE"]) == ("me", "the machine's")
    assert "OTHER" not in os.environ
