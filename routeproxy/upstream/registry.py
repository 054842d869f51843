"""Which adapter serves which provider: one for Messages, one for chat completions over either engine, and
echo."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

from routeproxy.chat.request import ChatRequest
from routeproxy.exchange import Call
from routeproxy.policy.decide import Policy
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Target
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.thinking import Signer
from routeproxy.upstream.chat.direct import DirectBackEnd
from routeproxy.upstream.chat.model_facts import profile_within_limits
from routeproxy.upstream.chat.ollama_abilities import OllamaAbilities
from routeproxy.upstream.chat.upstream import ChatBackEnd, ChatUpstream, ChunkSource
from routeproxy.upstream.echo import Echo
from routeproxy.upstream.failover import Upstream
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.google_tokens import GoogleTokens, NoGoogleTokens
from routeproxy.upstream.http.client import Client
from routeproxy.upstream.http.dry_client import DryClient
from routeproxy.upstream.litellm import model_table
from routeproxy.upstream.messages.upstream import MessagesUpstream

if TYPE_CHECKING:
    from routeproxy.upstream.litellm.backend import LiteLLMBackEnd

MESSAGES = frozenset({"anthropic", "echo"})
"""Provider types that speak Messages themselves; the rest speaks chat completions."""


class Registry:
    def __init__(
        self,
        signing_key: bytes | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        dry: bool = False,
    ) -> None:
        """`environ` says which proxies there are. `dry`: nobody is asked, and what would go out is raised as
        `NotSent`."""
        self._client = DryClient(environ) if dry else Client(environ)
        self._messages = MessagesUpstream(self._client)
        self._echo = Echo()
        self._google_tokens = NoGoogleTokens(self._client) if dry else GoogleTokens(self._client)
        self._direct = DirectBackEnd(self._client, self._google_tokens)
        abilities = None if dry else OllamaAbilities(self._client)
        self._chat = ChatUpstream(_ChatEngines(self), Signer(signing_key), abilities)

    def use_environment(self, environ: Mapping[str, str]) -> None:
        """From now on these variables say which proxies there are."""
        self._client.use_environment(environ)

    def of(self, provider: Provider) -> Upstream:
        match provider.type:
            case "anthropic":
                return self._messages
            case "echo":
                return self._echo
            case _:
                return self._chat

    def engine(self, target: Target) -> ChatBackEnd:
        """Who speaks to it."""
        return self._direct if target.engine == "direct" else self._litellm

    @cached_property
    def _litellm(self) -> "LiteLLMBackEnd":
        # With what it travels on, LiteLLM's own import not included, this takes 8 MB and 70 ms of each start.
        module = import_module("routeproxy.upstream.litellm.backend")
        back_end: LiteLLMBackEnd = module.LiteLLMBackEnd(self._client, self._google_tokens)
        return back_end

    async def prepare(self, policy: Policy) -> None:
        """Brings in what the policy's providers need, before a request waits for it."""
        chat = [provider for provider in policy.providers.values() if provider.type not in MESSAGES]
        if chat:
            await asyncio.to_thread(model_table.load)
        if needs_litellm(policy):
            await self._litellm.load()

    async def prepare_for(self, targets: Iterable[Target]) -> None:
        """The same, for these targets. What can't be had, each request says."""
        await asyncio.to_thread(model_table.load)
        if any(target.engine == "litellm" for target in targets):
            with suppress(UpstreamFailure):
                await self._litellm.load()

    async def aclose(self) -> None:
        await self._client.aclose()


class _ChatEngines:
    """The back end of each target is asked by the target's own engine."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def profile(self, target: Target) -> ModelProfile:
        return profile_within_limits(target)

    async def open(self, chat: ChatRequest, call: Call) -> ChunkSource:
        return await self._registry.engine(call.target).open(chat, call)


def needs_litellm(policy: Policy) -> bool:
    if any(provider.engine == "litellm" for provider in policy.providers.values()):
        return True
    rules = (*policy.rules, policy.default)
    return any(target.engine == "litellm" for rule in rules for target in rule.targets)


def signing_key_of(policy: Policy) -> bytes | None:
    secret = policy.server.signing_key
    return secret.value.encode() if secret is not None and secret.value else None
