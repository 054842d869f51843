"""No environment variable moves a provider, chooses its key or its account: LiteLLM is imported and asked
under an environment in which everything is set that its installed source reads, and asks as if nothing
were."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from routeproxy.policy.litellm_environment import KEPT_FROM_LITELLM
from routeproxy.policy.provider_types import provider_type
from routeproxy.upstream.litellm.providers import litellm_provider_of
from tests.budgets import seconds
from tests.upstream.litellm.asking import LITELLMS_WARNINGS, target
from tests.upstream.litellm.walk import RULES, Walk

pytestmark = LITELLMS_WARNINGS

# --- what it reads

_READING = re.compile(
    r"""(get_secret(?:_str|_bool)?|getenv|environ\.get|environ\.pop|_ENV: Final =|_ENV =)"""
    r"""[\s(]*(?:secret_name=)?["\']([A-Z][A-Z0-9_]+)["\']|environ\[["\']([A-Z][A-Z0-9_]+)["\']"""
)
_WHO = re.compile(
    r"BASE|URL|URI|ENDPOINT|HOST|KEY|TOKEN|SECRET|REGION|LOCATION|PROJECT|ACCOUNT|ORG|TENAN|CREDENTIAL|CLIENT"
    r"|USER|PASSWORD|SCOPE|SPACE|ROLE|JWT|VERSION|HEADERS|IDENTITY|COMPARTMENT|FINGERPRINT|CONFIG|AUTH|API"
    r"|CODE|APP|SITE|VCAP|PROXY|ID$"
)
"""What tells whom to ask, or as whom; other variables say how LiteLLM's server works."""
_NUMBER = re.compile(
    r"MAX|MIN|DEFAULT|TTL|SECONDS|_MS$|SIZE|COUNT|LIMIT|TIMEOUT|INTERVAL|RATE|COST|TOKENS|BUFFER|PERIOD"
    r"|MULTIPLIER|THRESHOLD|NUM|CACHE|DELAY|WORKERS|RETRIES|PERCENT"
)
NOT_SET = frozenset(
    {
        "AWS_CONFIG_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_PROFILE", "HOME", "LITELLM_LOG", "PATH",
    }
)  # fmt: skip
"""What would stop the process or AWS's own library, which takes these for files, profiles and levels."""


def variables_read() -> dict[str, str]:
    """Each variable that LiteLLM's source names, with a value that shows where it went: an address that
    passes for a key, or `True` for a switch."""
    spec = find_spec("litellm")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    found: dict[str, str] = {}
    for file in folder.rglob("*.py"):
        if file.is_relative_to(folder / "proxy"):
            continue  # the server, which is not ours
        for function, name, subscript in _READING.findall(file.read_text(encoding="utf-8")):
            name = name or subscript
            is_switch = function == "get_secret_bool" or found.get(name) == "True"
            found[name] = "True" if is_switch else f"https://canary.invalid/{name}"
    for type in RULES:  # some names are put together
        capitals = type.upper().replace("-", "_")
        for ending in ("API_BASE", "API_KEY", "BASE_URL", "TOKEN"):
            found.setdefault(f"{capitals}_{ending}", f"https://canary.invalid/{capitals}_{ending}")
    for name in KEPT_FROM_LITELLM:
        found.setdefault(name, "True" if name == "USE_LITELLM_PROXY" else f"https://canary.invalid/{name}")
    return {
        name: value
        for name, value in found.items()
        if _WHO.search(name) and name not in NOT_SET and not _NUMBER.search(name) and "SSL" not in name
    }


def test_what_it_reads_is_found() -> None:
    names = variables_read()
    assert len(names) > 700
    assert names["USE_LITELLM_PROXY"] == "True"
    for name in (
        "COHERE_API_BASE",
        "LLAMA_API_BASE",
        "MISTRAL_AZURE_API_BASE",
        "CO_API_KEY",
        "TOGETHER_AI_TOKEN",
    ):
        assert name in names


# --- what it makes of that


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    return Walk().of_all({"OUR_KEY": "OUR-KEY"})


@pytest.fixture(scope="module")
def with_all_set(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    python = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")}
    home = str(tmp_path_factory.mktemp("home"))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.upstream.litellm.walk"],
        env=variables_read() | python | {"HOME": home, "OUR_KEY": "OUR-KEY"},
        capture_output=True,
        text=True,
        timeout=seconds(120),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("type", RULES)
def test_a_type_is_asked_as_if_no_variable_were_set(
    undisturbed: dict[str, Any], with_all_set: dict[str, Any], type: str
) -> None:
    assert with_all_set[type] == undisturbed[type]


ASKS_NOBODY = {
    "bytez": "LiteLLM refuses a request with a cap of tokens",
    "chatgpt": "nobody has signed in",
    "gdc": "it takes a service account",
    "github_copilot": "nobody has signed in",
    "oci": "it takes Oracle's signing keys",
    "sap": "it takes a service key",
    "triton": "its base_url is a model's",
}


def test_nearly_every_type_asks_its_own_address_with_our_key_and_no_other(
    undisturbed: dict[str, Any],
) -> None:
    assert {type for type, asked in undisturbed.items() if isinstance(asked, str)} == set(ASKS_NOBODY)
    for type, asked in undisturbed.items():
        if type in ASKS_NOBODY:
            continue
        [request] = asked
        kind = provider_type(type)
        assert kind is not None
        base_url = kind.base_url or ("https://corp.example" if "base_url" in kind.required else "")
        hosts = litellm_provider_of(target(type, None, "m").provider).hosts
        host = request["url"].split("/")[2].partition(":")[0]
        assert request["url"].startswith(base_url[:-3] if base_url.endswith("/v1") else base_url) or hosts
        assert not hosts or host.endswith(hosts)
        shown = " ".join(request["headers"].values())
        assert ("OUR-" in shown) == ("OUR_KEY" in RULES[type]), type


def test_every_type_has_an_address_or_must_be_given_one_or_has_known_domains() -> None:
    for type in RULES:
        kind = provider_type(type)
        assert kind is not None
        hosts = litellm_provider_of(target(type, None, "m").provider).hosts
        assert kind.base_url or "base_url" in kind.required or hosts, type
