"""What happens to one request, from its bytes to its last event. Read this first.

Forward only: read, decide, then try the decision's targets until one answers. Translation happens inside an
attempt, and only for a target that does not speak Messages; see `upstream/chat.py` and
`upstream/messages_api.py` for the two ways to get an answer.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import msgspec

from routeproxy.exchange import Call, Exchange, Inbound, Write
from routeproxy.messages.errors import ApiError
from routeproxy.messages.request import OLDEST_VERSION, Envelope
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.explain import Explanation, explain
from routeproxy.policy.facts import Facts, requested_model_problem
from routeproxy.policy.targets import Target
from routeproxy.tokens import Ceiling
from routeproxy.upstream import failover
from routeproxy.upstream.dry_run import losses
from routeproxy.upstream.failover import KEY_FAILURES, Upstreams
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.guard import InvariantGuard
from routeproxy.upstream.keys import Keys

LARGE_BODY = 16_384
"""Bytes. Above this the tokens of a body are counted in a thread: a tokenizer would hold the loop for
milliseconds."""

COUNTING_THREADS = max(1, (os.cpu_count() or 1) // 2)
"""More would only take turns with the loop: beside six of them on two cores it waited four times as long."""


class Rules(Protocol):
    @property
    def policy(self) -> Policy: ...


class Proxy:
    def __init__(self, rules: Rules, upstreams: Upstreams, count: Callable[[bytes], int]) -> None:
        self.rules = rules
        self.upstreams = InvariantGuard(upstreams, rules)
        self._count = count
        self._counting = ThreadPoolExecutor(COUNTING_THREADS, "tokens")
        self._keys = Keys()

    def receive(self, inbound: Inbound, endpoint: str = "messages") -> Exchange:
        """The one place where a request meets the policy: it keeps this version to its end."""
        return Exchange(inbound, self.rules.policy, endpoint=endpoint)

    async def answer(self, exchange: Exchange, write: Write) -> None:
        """Raises `ApiError` for what the client gets to see as an error."""
        decision = await self.decide(exchange)
        if decision.deny is not None:
            raise ApiError(decision.deny.status, decision.deny.message, headers={"x-should-retry": "false"})
        await failover.answer(exchange, self.upstreams, self._keys, write)

    async def decide(self, exchange: Exchange) -> Decision:
        policy, inbound = exchange.policy, exchange.inbound
        envelope = exchange.envelope = _read(exchange)
        large = len(inbound.body) > LARGE_BODY
        facts = exchange.facts = Facts(
            envelope,
            inbound.headers,
            url_target=inbound.url_target,
            team=inbound.team,
            no_fallback=inbound.no_fallback,
            count=_not_here if large else lambda: self._count(inbound.body),
            is_below=None if _shows_tokens(exchange) else Ceiling(inbound.body, envelope).is_below,
        )
        policy.check_headers(inbound.headers)
        if inbound.header("anthropic-version") is None:
            exchange.warn_of_request(f"anthropic-version: missing, taken for {OLDEST_VERSION}")
        try:
            exchange.decision = policy.decide(facts)
        except _TooLarge:
            loop = asyncio.get_running_loop()
            facts.count = lambda: self._count(inbound.body)
            exchange.decision = await loop.run_in_executor(self._counting, policy.decide, facts)
        return exchange.decision

    async def explain(self, exchange: Exchange) -> Explanation:
        """What would become of this request. Nobody is asked."""
        decision = await self.decide(exchange)
        return explain(decision, exchange.policy, losses=partial(losses, exchange.body))

    async def count_tokens(self, exchange: Exchange) -> bytes:
        """The body of the answer: the back end's own count where the first target speaks Messages, else our
        estimate."""
        decision = await self.decide(exchange)
        counted = None if decision.deny is not None else await self._counted_by(decision.targets[0], exchange)
        if counted is not None:
            return counted
        loop = asyncio.get_running_loop()
        estimate = await loop.run_in_executor(self._counting, self._count, exchange.inbound.body)
        return b'{"input_tokens":%d}' % max(1, estimate)

    async def _counted_by(self, target: Target, exchange: Exchange) -> bytes | None:
        """A count is never refused: whatever goes wrong, there is an estimate."""
        upstream = self.upstreams.of(target.provider)
        keys: list[str | None] = [*self._keys.of(target.provider)]
        for key in keys or [None]:
            try:
                counted = await upstream.count_tokens(Call(target, key, exchange))
            except UpstreamFailure as failure:
                exchange.attempts += 1
                exchange.warn(f"input_tokens is an estimate: {failure.message}")
                if key is None or failure.kind not in KEY_FAILURES:
                    return None
                self._keys.refused(target.provider, key)
            else:
                if counted is not None:
                    exchange.attempts += 1
                    exchange.target = target
                return counted
        return None


class _TooLarge(Exception):
    """A rule asks for the tokens of a large body, on the event loop."""


def _not_here() -> int:
    raise _TooLarge


def _shows_tokens(exchange: Exchange) -> bool:
    """Whether somebody reads the number, not only a rule."""
    asked = exchange.inbound.explain or exchange.endpoint == "route"
    return asked or exchange.policy.server.decision_log is not None


def _read(exchange: Exchange) -> Envelope:
    envelope, url_target = exchange.body.envelope(), exchange.inbound.url_target
    if url_target is not None:
        envelope = msgspec.structs.replace(envelope, model=url_target.partition("/")[2])
    if requested_model_problem(envelope.model):
        raise ApiError(404, f"model: {envelope.model[:256]}")
    return envelope
