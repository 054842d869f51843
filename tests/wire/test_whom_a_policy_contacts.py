"""A law: whatever policy `check` accepts, a request contacts no address, shows no key and repeats no attempt
that its decision does not name, whatever the environment says. All the world's hosts are on loopback here;
each connection that is looked for and each request is held against the decision."""

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.problems import RulesRefused
from routeproxy.policy.targets import Target
from tests.backend import RESET, Received, Script, answer, json_answer
from tests.budgets import examples, seconds
from tests.running import request, running
from tests.wire.test_older_proxies import World, certificate, everywhere, peers, world

__all__ = ["certificate", "peers", "world"]  # fixtures

PROXY = "gateway.example.com"
ELSEWHERE = "elsewhere.example.com"
"""Whom nothing that is accepted may lead to."""

TYPES: Mapping[str, tuple[str, ...]] = {
    "openai_compatible": ('base_url = "http://{0}.example.com/v1"',),
    "openai": ("", 'base_url = "http://{0}.example.com/v1"'),
    "anthropic": ("", 'base_url = "http://{0}.example.com"'),
    "gemini": ("", 'base_url = "http://{0}.example.com"'),
    "ollama": ('base_url = "http://{0}.example.com"\nzone = "public"',),
    "deepseek": ("", 'base_url = "http://{0}.example.com"'),
    "azure": ('base_url = "https://{0}.openai.azure.com"',),
}
"""By the type of a provider, ways to say where it is."""

ENVIRONMENT = {
    "HTTP_PROXY": f"http://{PROXY}:3128",
    "HTTPS_PROXY": f"http://{PROXY}:3128",
    "ALL_PROXY": f"http://{PROXY}:3128",
    "NO_PROXY": "*",
    "OPENAI_API_BASE": f"http://{ELSEWHERE}/v1",
    "OPENAI_BASE_URL": f"http://{ELSEWHERE}/v1",
    "ANTHROPIC_BASE_URL": f"http://{ELSEWHERE}",
    "ANTHROPIC_API_BASE": f"http://{ELSEWHERE}",
    "DEEPSEEK_API_BASE": f"http://{ELSEWHERE}",
    "GEMINI_API_BASE": f"http://{ELSEWHERE}",
    "OLLAMA_API_BASE": f"http://{ELSEWHERE}",
    "AZURE_API_BASE": f"http://{ELSEWHERE}",
    "OPENAI_ORGANIZATION": "key-of-nobody",
    "DEEPSEEK_API_KEY": "key-of-nobody",
    "USE_LITELLM_PROXY": "true",
    "LITELLM_PROXY_API_BASE": f"http://{ELSEWHERE}",
}

PARAMS = (
    "",
    "litellm_params = { seed = 7 }",
    'litellm_params = { fallbacks = ["openai/gpt-5"] }',
    f'litellm_params = {{ api_base = "http://{ELSEWHERE}" }}',
    "litellm_params = { num_retries = 3 }",
)

ANSWERS: Mapping[str, Callable[[Received], Script]] = {
    "as it should": everywhere,
    "500": lambda received: json_answer({"error": {"message": "no"}}, 500),
    "429": lambda received: json_answer({"error": {"message": "later"}}, 429, **{"retry-after": "0"}),
    "401": lambda received: json_answer({"error": {"message": "who?"}}, 401),
    "elsewhere": lambda received: answer(302, location=f"http://{ELSEWHERE}/v1"),
    "with a cookie": lambda received: json_answer({"error": {"message": "no"}}, 503, **{"set-cookie": "c=1"}),
    "not at all": lambda received: [RESET],
}


@st.composite
def providers(draw: st.DrawFn, name: str) -> str:
    kind = draw(st.sampled_from(sorted(TYPES)))
    lines = [
        f'type = "{kind}"',
        draw(st.sampled_from(TYPES[kind])).format(name),
        f'api_key = "env:KEY_{name}"',
        draw(st.sampled_from(["", "", "" if kind == "anthropic" else 'engine = "litellm"'])),
        draw(st.sampled_from(["", "", f'proxy = "http://{PROXY}:3128"'])),
        draw(st.sampled_from(["", 'headers = { x-extra = "env:EXTRA_' + name + '" }'])),
        draw(st.sampled_from(["", "", "", PARAMS[1], PARAMS[1], draw(st.sampled_from(PARAMS))])),
    ]
    return "\n".join([f"[providers.{name}]", *filter(None, lines)])


@st.composite
def rules(draw: st.DrawFn) -> str:
    names = ["one", "two", "three"]
    tables = [draw(providers(name)) for name in names]
    chain = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    default = [
        "[default]",
        f"targets = {json.dumps([f'{name}/m' for name in chain])}",
        draw(st.sampled_from(["", "fallback = false"])),
        draw(st.sampled_from(["", "", 'retry = { attempts = 2, backoff = "10ms" }'])),
    ]
    return "\n".join([*tables, *filter(None, default), ""])


def accepted(text: str, environ: Mapping[str, str]) -> Policy | None:
    try:
        return compile_rules(text, path=Path("rules.toml"), environ=environ)
    except RulesRefused:
        return None


def hosts_of(target: Target, environ: Mapping[str, str]) -> set[str]:
    """Where a connection for it may go: its own address, or the proxy that stands for it."""
    provider = target.provider
    assert provider.base_url is not None
    own = urlsplit(provider.base_url).hostname or ""
    by_environment = any(name in environ for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"))
    if provider.proxy is not None:
        return {PROXY}
    return {own, PROXY} if by_environment else {own}


def most_attempts(decision: Decision) -> int:
    """Of one target: each try of its retry, and once more in another shape (`asked_again`)."""
    return (decision.retry.attempts if decision.retry is not None else 1) + 1


def secrets_of(name: str) -> list[str]:
    return [f"key-of-{name}", f"extra-of-{name}"]


@settings(
    examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(data=st.data())
def test_a_request_contacts_only_whom_its_decision_names(
    data: st.DataObject, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = data.draw(rules())
    environ = {
        **{
            name: ENVIRONMENT[name]
            for name in data.draw(st.sets(st.sampled_from(sorted(ENVIRONMENT)), max_size=4))
        },
        **{f"KEY_{name}": f"key-of-{name}" for name in ("one", "two", "three")},
        **{f"EXTRA_{name}": f"extra-of-{name}" for name in ("one", "two", "three")},
    }
    policy = accepted(text, environ)
    if policy is None:
        return
    how = data.draw(st.sampled_from(sorted(ANSWERS)))
    decision = policy.decide(policy.facts_of(HypotheticalRequest(model="m")))
    targets = decision.targets if decision.fallback else decision.targets[:1]
    looked_up: list[str] = []
    address_of, getaddrinfo = world.address_of, socket.getaddrinfo

    def recorded(host: str, port: int) -> Any:
        looked_up.append(host)
        return address_of(host, port)

    def escaped(host: Any, *more: Any, **options: Any) -> Any:
        if host == "127.0.0.1":  # the server under test
            return getaddrinfo(host, *more, **options)
        looked_up.append(str(host))
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    world.forget()
    with monkeypatch.context() as patch:
        patch.setattr(world, "address_of", recorded)
        patch.setattr(socket, "getaddrinfo", escaped)  # whoever goes past our own client
        for name, value in environ.items():
            patch.setenv(name, value)  # libraries look there
        for peer in world.peers:
            peer.answers = [ANSWERS[how]]
        with running(text, tmp_path, environ) as proxy:
            body = request(model="m", stream=data.draw(st.booleans()))
            httpx.post(f"{proxy.url}/v1/messages", json=body, trust_env=False, timeout=seconds(30))
    names = [target.provider.name for target in targets]
    allowed = set().union(*(hosts_of(target, environ) for target in targets))
    assert set(looked_up) - {"127.0.0.1"} <= allowed, (looked_up, text)
    for received in world.asked:
        whole = received.path + str(received.headers) + received.body.decode("latin-1")
        assert ELSEWHERE not in whole, text
        assert "key-of-nobody" not in whole, text
        assert received.header("cookie") is None
        shown = {name for name in ("one", "two", "three") if any(key in whole for key in secrets_of(name))}
        assert len(shown) <= 1, (shown, text)
        assert shown <= set(names), (shown, text)
    for target in targets:
        asked = [
            one for one in world.asked if secrets_of(target.provider.name)[0] in str(one.headers) + one.path
        ]
        assert len(asked) <= most_attempts(decision), (len(asked), text)
