"""Which way of speaking serves which provider."""

import asyncio
from collections.abc import Mapping

from routeproxy.policy.decide import Policy, Provider
from routeproxy.translate.thinking import Signer
from routeproxy.upstream import model_table
from routeproxy.upstream.chain import Upstream
from routeproxy.upstream.chat import ThroughChat
from routeproxy.upstream.chat_api import ChatApi
from routeproxy.upstream.echo import Echo
from routeproxy.upstream.http import Client
from routeproxy.upstream.litellm import LiteLLM
from routeproxy.upstream.messages_api import MessagesApi

MESSAGES = frozenset({"anthropic", "echo"})
"""Provider types that speak Messages themselves; the rest speaks chat completions."""


class Registry:
    def __init__(self, signing_key: bytes | None = None, environ: Mapping[str, str] | None = None) -> None:
        """`environ` says which proxies there are."""
        self._client = Client(environ)
        self._litellm = LiteLLM(self._client)
        self._messages = MessagesApi(self._client)
        self._echo = Echo()
        signer = Signer(signing_key)
        self._direct = ThroughChat(ChatApi(self._client), signer)
        self._through_litellm = ThroughChat(self._litellm, signer)

    def of(self, provider: Provider) -> Upstream:
        match provider.type:
            case "anthropic":
                return self._messages
            case "echo":
                return self._echo
            case _:
                return self._direct if provider.engine == "direct" else self._through_litellm

    async def prepare(self, policy: Policy) -> None:
        """Brings in what the policy's providers need, before a request waits for it."""
        chat = [provider for provider in policy.providers.values() if provider.type not in MESSAGES]
        if chat:
            await asyncio.to_thread(model_table.load)
        if any(provider.engine == "litellm" for provider in chat):
            await self._litellm.load()

    async def aclose(self) -> None:
        await self._client.aclose()
