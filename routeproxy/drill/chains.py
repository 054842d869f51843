"""The chains of a policy, as they are rehearsed: each with a policy of its own, whose targets stand on
loopback and need no key."""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from routeproxy.policy.decide import Policy, Rule
from routeproxy.policy.providers import Provider
from routeproxy.policy.server import ServerSettings
from routeproxy.policy.targets import Target
from routeproxy.upstream.chat.endpoints import endpoint_of
from routeproxy.upstream.chat.formats import GEMINI, RESPONSES, format_of
from routeproxy.upstream.litellm.providers import litellm_provider_of

ANY_MODEL = "drill"
"""Stands for the model asked for, where a target is `P/*`."""


class Chain(NamedTuple):
    rules: tuple[Rule, ...]
    """Those that do the same: their targets, fallback, retries and times are one."""
    formats: tuple[str | None, ...]
    """In which each target is spoken to; `None`: it is asked of nobody (`echo`)."""
    why_not: str
    """Why it can't be rehearsed; empty: it can."""

    @property
    def rule(self) -> Rule:
        return self.rules[0]

    @property
    def name(self) -> str:
        return " → ".join(target.name for target in self.rule.reachable)


def chains_of(policy: Policy) -> Sequence[Chain]:
    """In the order of the file, without rules that ask nobody."""
    found: dict[object, list[Rule]] = {}
    for rule in (*policy.rules, policy.default):
        if rule.targets and rule.deny is None:
            found.setdefault(_meaning(rule), []).append(rule)
    return [_chain(tuple(rules)) for rules in found.values()]


def policy_of(policy: Policy, chain: Chain, addresses: Sequence[str]) -> Policy:
    """The policy that sends everything along `chain`."""
    targets = tuple(
        _moved(target, address) for target, address in zip(chain.rule.reachable, addresses, strict=True)
    )
    rule = replace(chain.rule, checks=(), targets=targets, safeguards=None, asks_for_requested=False)
    providers = {target.provider.name: target.provider for target in targets}
    return Policy(
        version=policy.version,
        source=policy.source,
        server=ServerSettings(),
        providers=providers,
        rules=(),
        default=rule,
    )


def _meaning(rule: Rule) -> object:
    targets = tuple((target.name, repr(target.timeouts), target.engine) for target in rule.reachable)
    return targets, rule.fallback, rule.retry, rule.deadline, rule.hold, rule.portable


def _chain(rules: tuple[Rule, ...]) -> Chain:
    targets = rules[0].reachable
    problems = [why for target in targets if (why := _why_not(target))]
    if not problems and targets[0].provider.type == "echo":
        problems = ["`echo` answers from within, and never fails"]
    formats = () if problems else tuple(map(_format, targets))
    return Chain(rules, formats, problems[0] if problems else "")


def _why_not(target: Target) -> str:
    provider = target.provider
    if provider.type == "echo" or provider.speaks_messages:
        return ""
    if target.engine == "litellm" and not litellm_provider_of(provider).verbatim:
        return f"type {provider.type} is asked in a format that LiteLLM alone writes"
    if target.engine != "litellm" and endpoint_of(provider).signs_in_to_google:
        return f"type {provider.type} signs in elsewhere first"
    return ""


def _format(target: Target) -> str | None:
    provider = target.provider
    if provider.type == "echo":
        return None
    if provider.speaks_messages:
        return "messages"
    if target.engine == "litellm":
        return "responses" if provider.api == "responses" else "chat"
    format = format_of(target)
    if format is RESPONSES:
        return "responses"
    if format is GEMINI:
        return "gemini"
    return "ollama" if provider.type == "ollama" else "chat"


def _moved(target: Target, address: str) -> Target:
    """`target` on loopback: whatever would lead elsewhere, or needs a secret, is not there."""
    model = ANY_MODEL if target.model == "*" else target.model
    if not address:
        return replace(target, model=model)
    provider = target.provider
    api = "responses" if _format(target) == "responses" else provider.api
    moved: Provider = replace(
        provider,
        base_url=f"{address}/v1",
        keys=(),
        client_key=False,
        models={},
        api=api,
        headers={},
        secret_headers=frozenset(),
        forward=(),
        proxy=None,
        ca_file=None,
        litellm_params={},
        secret_params=frozenset(),
        max_concurrent=None,
    )
    return replace(target, provider=moved, model=model, member=None)
