"""Credentials of Google Cloud for tests, and what a token's server answers."""

import json
import subprocess
from functools import cache
from pathlib import Path

from tests.backend import Step, json_answer


def token(value: str = "TOKEN-1", seconds: float = 3600) -> list[Step]:
    return json_answer({"access_token": value, "expires_in": seconds, "token_type": "Bearer"})


def write_service_account(path: Path, tokens_url: str) -> Path:
    """The key file of a service account, whose tokens come from `tokens_url`."""
    account = {
        "type": "service_account",
        "client_email": "a@b.c",
        "private_key": _private_key(),
        "project_id": "proj",
        "token_uri": f"{tokens_url}/token",
    }
    path.write_text(json.dumps(account), encoding="utf-8")
    return path


@cache
def _private_key() -> str:
    return subprocess.run(["openssl", "genrsa", "2048"], capture_output=True, check=True, text=True).stdout
