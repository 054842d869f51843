"""Which adapter serves which provider: one for Messages, one for chat completions over each engine, and
echo."""

import asyncio
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

from routeproxy.policy.decide import Policy
from routeproxy.policy.providers import Provider
from routeproxy.translate.thinking import Signer
from routeproxy.upstream.chat.direct import DirectBackEnd
from routeproxy.upstream.chat.upstream import ChatUpstream
from routeproxy.upstream.echo import Echo
from routeproxy.upstream.failover import Upstream
from routeproxy.upstream.http.client import Client
from routeproxy.upstream.litellm import model_table
from routeproxy.upstream.messages.upstream import MessagesUpstream

if TYPE_CHECKING:
    from routeproxy.upstream.litellm.backend import LiteLLMBackEnd

MESSAGES = frozenset({"anthropic", "echo"})
"""Provider types that speak Messages themselves; the rest speaks chat completions."""


class Registry:
    def __init__(self, signing_key: bytes | None = None, environ: Mapping[str, str] | None = None) -> None:
        """`environ` says which proxies there are."""
        self._client = Client(environ)
        self._messages = MessagesUpstream(self._client)
        self._echo = Echo()
        self._signer = Signer(signing_key)
        self._direct = ChatUpstream(DirectBackEnd(self._client), self._signer)

    def of(self, provider: Provider) -> Upstream:
        match provider.type:
            case "anthropic":
                return self._messages
            case "echo":
                return self._echo
            case _:
                return self._direct if provider.engine == "direct" else self._over_litellm

    @cached_property
    def _litellm(self) -> "LiteLLMBackEnd":
        # With what it travels on, LiteLLM's own import not included, this takes 8 MB and 70 ms of each start.
        module = import_module("routeproxy.upstream.litellm.backend")
        back_end: LiteLLMBackEnd = module.LiteLLMBackEnd(self._client)
        return back_end

    @cached_property
    def _over_litellm(self) -> ChatUpstream:
        return ChatUpstream(self._litellm, self._signer)

    async def prepare(self, policy: Policy) -> None:
        """Brings in what the policy's providers need, before a request waits for it."""
        chat = [provider for provider in policy.providers.values() if provider.type not in MESSAGES]
        if chat:
            await asyncio.to_thread(model_table.load)
        if any(provider.engine == "litellm" for provider in chat):
            await self._litellm.load()

    async def aclose(self) -> None:
        await self._client.aclose()


def signing_key_of(policy: Policy) -> bytes | None:
    secret = policy.server.signing_key
    return secret.value.encode() if secret is not None and secret.value else None
