"""`routeproxy serve` with nothing but the `.env` of an older proxy: who is asked for which model, and how."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.backend import BackEnd, chunk, done, sse
from tests.running import request, serving


class Asked(NamedTuple):
    path: str
    model: str | None
    key: str | None


OPENAI = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("dotenv", "expected"),
    [
        pytest.param(
            'OPENAI_API_KEY="sk-1"\nOPENAI_BASE_URL="{url}/v1"\nBIG_MODEL="openai/gpt-oss-120b"\n',
            Asked(OPENAI, "openai/gpt-oss-120b", "Bearer sk-1"),
            id="an endpoint of one's own, a vendor's model",
        ),
        pytest.param(
            "\ufeffOPENAI_API_KEY='sk-1'\r\nOPENAI_BASE_URL={url}/v1\r\nSMALL_MODEL=qwen3\r\n",
            Asked(OPENAI, "qwen3", "Bearer sk-1"),
            id="written on Windows, one model for both",
        ),
        pytest.param(
            "PREFERRED_PROVIDER=custom\nCUSTOM_BASE_URL={url}/v1\nCUSTOM_API_KEY=c\nBIG_MODEL=corp-1\n",
            Asked(OPENAI, "corp-1", "Bearer c"),
            id="custom",
        ),
        pytest.param(
            "PREFERRED_PROVIDER=nvidia\nNVIDIA_BASE_URL={url}/v1\nNVIDIA_API_KEY=n\nBIG_MODEL=nvidia/nano\n",
            Asked(OPENAI, "nvidia/nano", "Bearer n"),
            id="NVIDIA's, on one's own machine",
        ),
        pytest.param(
            "PREFERRED_PROVIDER=openrouter\nOPENROUTER_BASE_URL={url}/v1\nOPENROUTER_API_KEY=r\n"
            "BIG_MODEL=anthropic/claude-sonnet-4.5\n",
            Asked(OPENAI, "anthropic/claude-sonnet-4.5", "Bearer r"),
            id="OpenRouter behind a gateway",
        ),
        pytest.param(
            "PREFERRED_PROVIDER=azure\nAZURE_OPENAI_ENDPOINT={url}/openai/deployments/d/chat/completions?"
            "api-version=2024-10-21\nAZURE_OPENAI_API_KEY=z\nBIG_MODEL=my-gpt\n",
            Asked("/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21", "my-gpt", None),
            id="Azure, by the address that its portal shows",
        ),
    ],
)
def test_an_old_env_file_leads_where_its_author_meant(dotenv: str, expected: Asked, tmp_path: Path) -> None:
    with BackEnd(sse(chunk("Hi"), done())) as back_end:
        (tmp_path / ".env").write_text(dotenv.format(url=back_end.url), encoding="utf-8")
        with serving(tmp_path, "--port", "0") as server:
            answer = server.post(request(model="claude-opus-4-8", stream=True))
    assert answer.status_code == 200, answer.text
    (asked,) = back_end.requests
    assert Asked(asked.path, asked.json.get("model"), asked.header("authorization")) == expected


def test_a_url_that_names_a_provider_which_is_not_there_says_why(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPENAI_BASE_URL=http://10.0.0.7/v1\nGEMINI_API_KEY=g\n")
    with serving(tmp_path, "--port", "0") as server:
        private = server.post(request(), "/gemini:gemini-3/v1/messages")
        unknown = server.post(request(), "/gemeni:gemini-3/v1/messages")
    assert private.status_code == unknown.status_code == 400
    assert private.json()["error"]["message"] == (
        "gemini: everything here stays with the endpoint of OPENAI_BASE_URL, which is private, so it leads "
        "to no public provider; expected provider:model with one of openai"
    )
    assert unknown.json()["error"]["message"] == "gemeni:gemini-3: expected provider:model with one of openai"
    assert "OPENAI_BASE_URL is at 10.0.0.7, which is taken for private" in server.stderr


def test_a_url_that_lacks_a_key_names_the_variable(tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0", environ={"OPENAI_API_KEY": "o"}) as server:
        answer = server.post(request(), "/google:gemini-3/v1/messages")
    assert answer.json()["error"]["message"] == (
        "google: it is not set up here: GEMINI_API_KEY is not set; "
        "expected provider:model with one of openai, ollama"
    )
