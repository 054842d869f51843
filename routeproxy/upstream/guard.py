"""The second lock on invariants: whatever was proved at load, no connection to a target is used that they
forbid. It judges the request and the target by themselves, not the decision that brought them together."""

import logging
from collections.abc import Iterator
from typing import Protocol

from routeproxy.exchange import Call, Emit
from routeproxy.messages.errors import ApiError, InvalidRequest
from routeproxy.policy.decide import Policy
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import ReachedTarget, reached_targets
from routeproxy.upstream.failover import Upstream, Upstreams

log = logging.getLogger("routeproxy.upstream.lock")


class Rules(Protocol):
    @property
    def policy(self) -> Policy: ...


class InvariantBroken(ApiError):
    """Nobody is asked, the next target neither: if this is ever raised, the proof or the decision has a bug,
    or the rules became stricter while the request was under way."""

    def __init__(self, invariant: str) -> None:
        message = f"refused: this request may not go where it was about to go (invariant `{invariant}`)"
        super().__init__(502, message, headers={"x-should-retry": "false"})


class InvariantGuard:
    """Back ends behind the lock."""

    def __init__(self, upstreams: Upstreams, rules: Rules) -> None:
        self._upstreams = upstreams
        self._rules = rules
        self.refused = 0
        """Attempts that it has stopped."""

    def of(self, provider: Provider) -> Upstream:
        return _Behind(self._upstreams.of(provider), self)

    def check(self, call: Call) -> None:
        """By the invariants of the request's own version and, if it is another, of the live one. Raises
        `InvariantBroken`."""
        own, live = call.exchange.policy, self._rules.policy
        if not own.invariants and not live.invariants:
            return
        for policy in (own,) if own is live else (own, live):
            for name, why in _broken(call, policy):
                self.refused += 1
                request, target = call.exchange.request_id, call.target.name
                log.error(
                    "%s %s refused by invariant %s of %s: %s", request, target, name, policy.version, why
                )
                raise InvariantBroken(name)


def _broken(call: Call, policy: Policy) -> Iterator[tuple[str, str]]:
    facts = call.exchange.facts
    assert facts is not None
    if policy is not call.exchange.policy:
        facts = facts.with_headers(policy.headers_of(facts.team, facts.headers))
    try:
        policy.check_headers(facts.headers)
    except InvalidRequest as refused:
        # A header that only the live version reads, with two values: which one counts nobody can say.
        yield "headers", refused.message
    for invariant in policy.invariants:
        if invariant.applies(facts):
            for one in _reached(call, policy):
                if why := invariant.broken_by(one):
                    yield invariant.name, why


def _reached(call: Call, policy: Policy) -> Iterator[ReachedTarget]:
    """The target, as its own version describes it and as `policy` does."""
    target = call.target
    yield from target.reached
    provider = policy.providers.get(target.provider.name)
    if provider is not None and policy is not call.exchange.policy:
        yield from reached_targets(provider, target.model)


class _Behind:
    def __init__(self, upstream: Upstream, lock: InvariantGuard) -> None:
        self._upstream = upstream
        self._lock = lock

    async def send(self, call: Call, emit: Emit) -> None:
        self._lock.check(call)
        await self._upstream.send(call, emit)

    async def count_tokens(self, call: Call) -> bytes | None:
        self._lock.check(call)
        return await self._upstream.count_tokens(call)
