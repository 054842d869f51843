"""What Ollama says of its models (docs.ollama.com/api/show): whether they think, which no table can know of
the newer ones. It is asked once for a model, and only when a request wants one to think of which nothing is
known: `think: true` is an error for a model that cannot."""

import asyncio
import logging
from typing import Any

import msgspec
from msgspec import Struct

from routeproxy.exchange import Call
from routeproxy.policy.providers import Provider
from routeproxy.upstream.chat.endpoints import deployment_of, endpoint_of
from routeproxy.upstream.chat.model_facts import learn, profile_within_limits
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.http.client import Client
from routeproxy.upstream.http.headers import outgoing_headers

log = logging.getLogger("routeproxy.upstream.chat")

LONGEST_DESCRIPTION = 2**24
"""Bytes: licences and templates are in it."""
MOST_MODELS = 1024

THINKS = {"efforts": ("low", "medium", "high")}
"""What a profile says of a model that does."""


class _Description(Struct, frozen=True):
    capabilities: Any = None


class OllamaAbilities:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked: dict[tuple[int, str], Provider] = {}
        """By the id of the provider, which is kept so that the id stays its own, and the model."""

    async def learn(self, call: Call) -> None:
        """Before `call` is translated. What goes wrong leaves it at that: it is not asked to think."""
        target = call.target
        place = id(target.provider), target.model
        if place in self._asked or not is_asked_for(call):
            return
        if len(self._asked) >= MOST_MODELS:
            self._asked.clear()
        self._asked[place] = target.provider
        try:
            capabilities = await self._capabilities(call)
        except (UpstreamFailure, msgspec.DecodeError, UnicodeDecodeError):
            log.warning("%s: /api/show does not say what it can do: it is not asked to think", target.name)
            return
        except asyncio.CancelledError:  # its client left, and the next one asks
            self._asked.pop(place, None)
            raise
        if isinstance(capabilities, list) and "thinking" in capabilities:
            learn(target, THINKS)

    async def _capabilities(self, call: Call) -> Any:
        provider = call.target.provider
        endpoint = endpoint_of(provider)
        chat = endpoint.url(provider, deployment_of(call.target), "chat/completions")
        response = await self._client.post(
            provider,
            chat.removesuffix("chat") + "show",
            body=msgspec.json.encode({"model": deployment_of(call.target)}),
            headers=outgoing_headers(
                call,
                protocol={"content-type": "application/json"},
                credentials=endpoint.credentials(call.key) if call.key is not None else {},
            ),
            connect=call.target.timeouts.connect,
        )
        try:
            body = await response.read_all(LONGEST_DESCRIPTION)
            return msgspec.json.decode(body, type=_Description).capabilities if response.ok else None
        finally:
            response.close()


def is_asked_for(call: Call) -> bool:
    """Whether it matters to this request what the model can do, and nobody knows."""
    target = call.target
    if target.provider.type != "ollama" or not _wants_thinking(call):
        return False
    is_known = (
        profile_within_limits(target).efforts or target.provider.facts_of(target.model).thinking is False
    )
    return not is_known


def _wants_thinking(call: Call) -> bool:
    facts = call.exchange.facts
    return facts is not None and (facts.thinking or facts.effort is not None)
