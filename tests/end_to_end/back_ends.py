"""Every kind of back end as a rules file has it. A request names in `model` the kind that is to answer it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.backend import BackEnd
from tests.google import token, write_service_account

KEY = "sk-canary-0123456789abcdef"


class Kind(NamedTuple):
    model: str
    """What the back end is asked for."""
    table: str
    """`{url}` is where it listens."""
    key: bool = True


CREDENTIALS = "CREDENTIALS.json"
"""Stands in a table for the file that `signed_in` writes."""

KINDS: Mapping[str, Kind] = {
    "openai": Kind("gpt-4.1", 'type = "openai"\nbase_url = "{url}/v1"'),
    # Models that reason are asked over Responses at OpenAI's own address; anywhere else one has to say so.
    "openai-reasoning": Kind("gpt-5.4", 'type = "openai"\nbase_url = "{url}/v1"\napi = "responses"'),
    "openai_compatible": Kind("qwen3-32b", 'type = "openai_compatible"\nbase_url = "{url}/v1"'),
    "azure": Kind("dep", 'type = "azure"\nbase_url = "{url}"\napi_version = "2024-10-21"'),
    "azure-responses": Kind(
        "dep", 'type = "azure"\nbase_url = "{url}"\napi_version = "2025-04-01-preview"\napi = "responses"'
    ),
    "gemini": Kind("gemini-2.5-pro", 'type = "gemini"\nbase_url = "{url}/v1beta"'),
    "vertex_ai": Kind(
        "gemini-2.5-pro",
        'type = "vertex_ai"\nbase_url = "{url}"\nproject = "proj"\nlocation = "us-central1"\n'
        f'credentials = "{CREDENTIALS}"',
        key=False,
    ),
    "together_ai": Kind("moonshotai/Kimi-K2", 'type = "together_ai"\nbase_url = "{url}/v1"'),
    "nvidia_nim": Kind("nvidia/nemotron-3-nano-30b-a3b", 'type = "nvidia_nim"\nbase_url = "{url}/v1"'),
    "openrouter": Kind("qwen/qwen3-coder", 'type = "openrouter"\nbase_url = "{url}/api/v1"'),
    "ollama": Kind(
        "qwen3:32b", 'type = "ollama"\nbase_url = "{url}"\nzone = "local"\nnum_ctx = 32_768', key=False
    ),
    "cohere": Kind("command-a-03-2025", 'type = "cohere_chat"\nbase_url = "{url}/v2/chat"'),
    "bedrock": Kind(
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        'type = "bedrock"\nbase_url = "{url}"\naws_region_name = "eu-central-1"\n'
        'litellm_params = { aws_access_key_id = "AKIDEXAMPLE", aws_secret_access_key = "not-a-secret" }',
        key=False,
    ),
    "anthropic": Kind("claude-sonnet-4-5", 'type = "anthropic"\nbase_url = "{url}"'),
    "echo": Kind("echo", 'type = "echo"', key=False),
}


def rules(urls: Mapping[str, str], credentials: Path | None = None) -> str:
    """A rules file that knows these kinds, each at its address. `env:KEY` is their key."""
    tables = ['[default]\ndeny = "no such kind"']
    for name, url in urls.items():
        kind = KINDS[name]
        tables.append(f'[providers."{name}"]\n{kind.table.replace("{url}", url)}')
        if kind.key:
            tables.append('api_key = "env:KEY"')
        tables.append(
            f'[[rules]]\nname = "{name}"\nmatch.model.equals = "{name}"\ntargets = "{name}/{kind.model}"'
        )
    return "\n".join(tables).replace(CREDENTIALS, str(credentials))


@contextmanager
def signed_in(folder: Path) -> Iterator[Path]:
    """Credentials for Vertex: a service account's file, and what gives a token for it."""
    with BackEnd(token()) as tokens:
        yield write_service_account(folder / CREDENTIALS, tokens.url)
