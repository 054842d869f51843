"""The second lock on invariants: whatever was proved at load, no connection to a target is used that they
forbid. The guard judges the request and the target by themselves, not the decision that brought them
together."""

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from routeproxy.exchange import Call
from routeproxy.messages.errors import InvalidRequest
from routeproxy.output import Emit, Relayed
from routeproxy.policy.decide import Policy
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import ReachedTarget, reached_targets
from routeproxy.upstream.failover import Upstream, Upstreams
from routeproxy.upstream.failures import InvariantBroken

log = logging.getLogger("routeproxy.upstream.lock")


class LivePolicy(Protocol):
    """Where the policy that is in force can be read."""

    @property
    def policy(self) -> Policy: ...


class InvariantGuard:
    """Upstreams that are asked only what no invariant forbids."""

    def __init__(self, upstreams: Upstreams, rules: LivePolicy) -> None:
        self._upstreams = upstreams
        self._rules = rules
        self.refused: Counter[str] = Counter()
        """How many attempts were stopped, by the name of the invariant."""

    def of(self, provider: Provider) -> Upstream:
        return _GuardedUpstream(self._upstreams.of(provider), self)

    def check(self, call: Call) -> None:
        """By the invariants of the request's own version and, if it is another, of the live one. Raises
        `InvariantBroken`."""
        own, live = call.exchange.policy, self._rules.policy
        if not own.invariants and not live.invariants:
            return
        for policy in (own,) if own is live else (own, live):
            for name, why in _broken(call, policy):
                self.refused[name] += 1
                request, target = call.exchange.request_id, call.target.name
                log.error(
                    "%s %s refused by invariant %s of %s: %s", request, target, name, policy.version, why
                )
                raise InvariantBroken(name)


def _broken(call: Call, policy: Policy) -> Iterator[tuple[str, str]]:
    """Each invariant of `policy` that the call would break, and why."""
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
            for target in _reached(call, policy):
                if why := invariant.broken_by(target):
                    yield invariant.name, why


def _reached(call: Call, policy: Policy) -> Iterator[ReachedTarget]:
    """The target, as its own version describes it and as `policy` does."""
    target = call.target
    yield from target.reached
    provider = policy.providers.get(target.provider.name)
    if provider is not None and policy is not call.exchange.policy:
        yield from reached_targets(provider, target.model)


class _GuardedUpstream:
    """Checks each call before it goes out."""

    def __init__(self, upstream: Upstream, guard: InvariantGuard) -> None:
        self._upstream = upstream
        self._guard = guard

    async def send(self, call: Call, emit: Emit) -> None:
        self._guard.check(call)
        await self._upstream.send(call, emit)

    async def count_tokens(self, call: Call) -> Relayed | None:
        self._guard.check(call)
        return await self._upstream.count_tokens(call)
