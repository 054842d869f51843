"""What happens to one request, from its bytes to its last event. Read this first.

Forward only: read, decide, then try the decision's targets until one answers. Translation happens inside an attempt, and only for a
target that does not speak Messages; see `upstream/chat.py` and `upstream/messages_api.py` for the two ways to get an answer.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Protocol

import msgspec

from routeproxy.exchange import Call, Exchange, Inbound, Part
from routeproxy.messages.errors import ApiError
from routeproxy.messages.request import Envelope, decode_envelope
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.facts import Facts, requested_model_problem
from routeproxy.upstream import chain
from routeproxy.upstream.chain import Upstreams
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.keys import Keys

LARGE_BODY = 16_384
"""Bytes. Above this the tokens of a body are counted in a thread: a tokenizer would hold the loop for milliseconds."""


class Rules(Protocol):
    @property
    def policy(self) -> Policy: ...


class Proxy:
    def __init__(self, rules: Rules, upstreams: Upstreams, count: Callable[[bytes], int]) -> None:
        self.rules = rules
        self._upstreams = upstreams
        self._count = count
        self._keys = Keys()

    def receive(self, inbound: Inbound, method: str = "messages") -> Exchange:
        """The one place where a request meets the policy: it keeps this version to its end."""
        return Exchange(inbound, self.rules.policy, method=method)

    async def answer(self, exchange: Exchange) -> AsyncIterator[Part]:
        """The parts of the answer. Raises `ApiError` for what the client gets to see as an error."""
        decision = await self.decide(exchange)
        if decision.deny is not None:
            raise ApiError(decision.deny.status, decision.deny.message, headers={"x-should-retry": "false"})
        async with aclosing(chain.answer(exchange, self._upstreams, self._keys)) as parts:
            async for part in parts:
                yield part

    async def decide(self, exchange: Exchange) -> Decision:
        policy, inbound = exchange.policy, exchange.inbound
        envelope = exchange.envelope = _read(inbound)
        facts = Facts(
            envelope, inbound.headers, url_target=inbound.url_target, count=lambda: self._count(inbound.body)
        )
        policy.check_headers(inbound.headers)
        if policy.counts_tokens and len(inbound.body) > LARGE_BODY:
            exchange.decision = await asyncio.to_thread(policy.decide, facts)
        else:
            exchange.decision = policy.decide(facts)
        return exchange.decision

    async def count_tokens(self, exchange: Exchange) -> bytes:
        """The body of the answer: the back end's own count where the first target speaks Messages, else our estimate."""
        decision = await self.decide(exchange)
        if decision.deny is None:
            target = decision.targets[0]
            keys = self._keys.of(target.provider)
            try:
                call = Call(target, keys[0] if keys else None, exchange)
                if (counted := await self._upstreams.of(target.provider).count_tokens(call)) is not None:
                    exchange.target = target
                    return counted
            except UpstreamFailure as failure:
                exchange.relayed = []
                exchange.warn(f"input_tokens is an estimate: {failure.message}")
        estimate = await asyncio.to_thread(self._count, exchange.inbound.body)
        return b'{"input_tokens":%d}' % max(1, estimate)


def _read(inbound: Inbound) -> Envelope:
    envelope = decode_envelope(inbound.body)
    if inbound.url_target is not None:
        envelope = msgspec.structs.replace(envelope, model=inbound.url_target.partition("/")[2])
    if requested_model_problem(envelope.model):
        raise ApiError(404, f"model: {envelope.model[:256]}")
    return envelope
