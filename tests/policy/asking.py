"""Shorthand: rules as text, requests as facts, problems as one line each."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgspec

from routeproxy.messages.request import decode_envelope
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.facts import Facts
from routeproxy.policy.problems import Problem, RulesRefused

KEYS = {"OPENAI_API_KEY": "sk-test", "GEMINI_API_KEY": "g-test", "ANTHROPIC_API_KEY": "a-test"}

PROVIDERS = """
[providers.openai]
[providers.gemini]
[providers.anthropic]
[providers.echo]
"""


def policy(text: str, environ: Mapping[str, str] = KEYS, *, literal_keys: bool = False) -> Policy:
    return compile_rules(
        dedent(text), path=Path("rules.toml"), environ=environ, allow_literal_keys=literal_keys
    )


def rules(text: str) -> Policy:
    """A policy with the usual providers, and `echo/default` for what no rule takes."""
    return policy(f'{PROVIDERS}\n{dedent(text)}\n[default]\ntargets = "echo/default"\n')


def problems(text: str, environ: Mapping[str, str] = KEYS) -> list[Problem]:
    """What is reported of `text`, errors and warnings, whether it is refused or not."""
    try:
        return list(policy(text, environ).warnings)
    except RulesRefused as refused:
        return list(refused.problems)


def brief(problem: Problem) -> str:
    place = problem.location
    assert place is not None
    return f"{place.line}:{place.column} {problem.code.value} {problem.message}"


def request(
    model: str = "claude-opus-4-8",
    *,
    headers: Mapping[str, str | tuple[str, ...]] | None = None,
    tokens: int = 0,
    url: str | None = None,
    **fields: Any,
) -> Facts:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
    lines = {name: (value,) if isinstance(value, str) else value for name, value in (headers or {}).items()}
    return Facts(decode_envelope(msgspec.json.encode(body)), lines, url_target=url, count=lambda: tokens)


def ask(policy: Policy, model: str = "claude-opus-4-8", **how: Any) -> Decision:
    return policy.decide(request(model, **how))


def names(decision: Decision) -> list[str]:
    return [target.name for target in decision.targets]
