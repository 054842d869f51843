"""What happens to one request, from its bytes to its last event. Read this first.

Forward only: read, decide, then try the decision's targets until one answers. Translation happens inside an
attempt, and only for a target that does not speak Messages; see `upstream/chat/` and
`upstream/messages/` for the two ways to get an answer.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from routeproxy.exchange import Call, Endpoint, Exchange, Inbound
from routeproxy.large_bodies import Threads, read_beside, without_sweeps
from routeproxy.messages.errors import NO_RETRY, ApiError, type_of_final_error
from routeproxy.messages.request import OLDEST_VERSION, Envelope
from routeproxy.observe import Observer
from routeproxy.output import Relayed, TokenCount, Write
from routeproxy.policy.decide import Decision, Denial
from routeproxy.policy.explain import Explanation, explain
from routeproxy.policy.facts import Facts, requested_model_problem
from routeproxy.policy.providers import Provider
from routeproxy.policy.shadow import shadow_outcomes
from routeproxy.policy.targets import Target
from routeproxy.tokens import Ceiling
from routeproxy.upstream.dry_run import dry_runs
from routeproxy.upstream.failover import Failover, Upstreams
from routeproxy.upstream.failures import KEY_FAILURES, UpstreamFailure
from routeproxy.upstream.guard import InvariantGuard, LivePolicy
from routeproxy.upstream.keys import Keys
from routeproxy.upstream.safeguards import SafeguardChecks
from routeproxy.upstream.shared_state import SharedState

LARGE_BODY = 16_384
"""Bytes. Above this the tokens of a body are counted in a thread: a tokenizer would hold the loop for
milliseconds."""

COUNTING_THREADS = max(1, (os.cpu_count() or 1) // 2)
"""More would only take turns with the loop: beside six of them on two cores it waited four times as long."""


class Proxy:
    def __init__(
        self,
        rules: LivePolicy,
        upstreams: Upstreams,
        count: Callable[[bytes], int],
        observer: Observer | None = None,
        dry_upstreams: Upstreams | None = None,
        state: SharedState | None = None,
        begin: Callable[[Exchange], object] = lambda exchange: None,
    ) -> None:
        """`count`: the tokens of a request's body. `dry_upstreams`: like `upstreams`, but they ask nobody.
        `state`: what other workers know, too. `begin`: hears of each request that is decided, before anybody
        is asked, and may refuse it with an `ApiError`."""
        self.rules = rules
        self.upstreams = InvariantGuard(upstreams, rules)
        self._dry_upstreams = InvariantGuard(dry_upstreams, rules) if dry_upstreams is not None else None
        self._observer = observer or Observer()
        self._begin = begin
        self._count = count
        self._counting = Threads(COUNTING_THREADS, "tokens")
        self._keys = Keys()
        self._safeguards = SafeguardChecks(self.upstreams, self._keys, self._observer)
        self._failover = Failover(
            self.upstreams,
            self._keys,
            self._observer,
            self._safeguards.check_of,
            state or SharedState(),
        )

    def receive(self, inbound: Inbound, endpoint: Endpoint = "messages") -> Exchange:
        """A request whose body is still to come meets the policy in force."""
        return Exchange(inbound, self.rules.policy, endpoint=endpoint)

    def renew(self, exchange: Exchange) -> None:
        """Once its body is complete, a request is decided by what is in force then: it keeps this version to
        its end."""
        exchange.begin_anew(self.rules.policy)

    async def answer(self, exchange: Exchange, write: Write) -> None:
        """Raises `ApiError` for what the client gets to see as an error."""
        decision = await self.decide(exchange)
        self._begin(exchange)
        if decision.deny is not None:
            raise _denied(decision.deny, exchange)
        await self._failover.answer(exchange, write)

    async def decide(self, exchange: Exchange) -> Decision:
        """Which rule takes the request. Raises `ApiError` for a request that no rule is asked about."""
        policy, inbound = exchange.policy, exchange.inbound
        try:
            await read_beside(len(inbound.body), inbound.caller, self._decide_now, exchange)
        except _NeedsThread:
            facts = exchange.facts
            assert facts is not None
            facts.count = lambda: self._count(inbound.body)
            decide = partial(policy.decide, facts)
            exchange.decision = await self._counting.run(
                inbound.caller, without_sweeps, len(inbound.body), decide
            )
        decision = exchange.decision
        assert decision is not None
        self._observer.request_decided(exchange)
        return decision

    def _decide_now(self, exchange: Exchange) -> None:
        """Raises `_NeedsThread` once a rule asks for the tokens of a large body."""
        policy, inbound = exchange.policy, exchange.inbound
        envelope = exchange.envelope = _read_envelope(exchange)
        large = len(inbound.body) > LARGE_BODY
        ceiling = Ceiling(inbound.body, envelope)
        exchange.facts = Facts(
            envelope,
            inbound.headers,
            url_target=inbound.url_target,
            team=inbound.team,
            no_fallback=inbound.no_fallback,
            count=_needs_thread if large else lambda: self._count(inbound.body),
            request_id=exchange.request_id,
            is_below=None if _shows_token_count(exchange) else ceiling.is_below,
            most_tokens=ceiling.tokens,
        )
        policy.check_headers(inbound.headers)
        if inbound.header("anthropic-version") is None:
            exchange.warn_of_request(f"anthropic-version: missing, taken for {OLDEST_VERSION}")
        exchange.decision = policy.decide(exchange.facts)
        if policy.shadow_rules:
            exchange.shadow = shadow_outcomes(policy, exchange.decision)

    async def explain(self, exchange: Exchange) -> Explanation:
        """What would become of this request. Nobody is asked."""
        decision = await self.decide(exchange)
        inbound, dry = exchange.inbound, self._dry_upstreams
        runs = await dry_runs(exchange, dry) if dry is not None else None
        health = {target.name: self.state_of(target) for target in decision.targets}
        order = self._failover.spread.order(exchange).targets
        # A condition that was not asked while it was decided may read the whole conversation.
        make = partial(explain, decision, exchange.policy, dry_runs=runs, health=health, order=order)
        return await read_beside(len(inbound.body), inbound.caller, make)

    def state_of(self, target: Target) -> str:
        """In words, for people."""
        return self._failover.state_of(target, self.rules.policy)

    def states_of_keys(self, provider: Provider) -> list[str]:
        """Of each key of a provider, in its order and in words."""
        return self._failover.states_of_keys(provider)

    def waiting(self) -> Mapping[str, int]:
        """How many requests wait for a place, by the limit of the rules for which they do."""
        return self._failover.places.waiting(self.rules.policy)

    def waiting_by_team(self) -> Mapping[str, int]:
        """How many requests of each team wait for a place; under no name those without a team."""
        teams = ("", *self.rules.policy.teams)
        return {team: self._failover.places.waiting_of(team) for team in teams}

    @property
    def spilled(self) -> Mapping[str, int]:
        """By the name of a pool, how many requests this process sent elsewhere since their member was
        full."""
        return self._failover.spread.spilled

    async def count_tokens(self, exchange: Exchange) -> Relayed | TokenCount:
        """The back end's own count where the first target speaks Messages, else our estimate."""
        decision = await self.decide(exchange)
        self._begin(exchange)
        if decision.deny is None and (count := await self._count_of(decision.targets[0], exchange)):
            return count
        inbound = exchange.inbound
        counted = partial(self._count, inbound.body)
        estimate = await self._counting.run(inbound.caller, without_sweeps, len(inbound.body), counted)
        return TokenCount(max(1, estimate))

    async def _count_of(self, target: Target, exchange: Exchange) -> Relayed | None:
        """What `target` counts. A count is never refused: whatever goes wrong, there is an estimate."""
        upstream = self.upstreams.of(target.provider)
        keys: list[str | None] = [*self._keys.of(target.provider)]
        for key in keys or [None]:
            try:
                count = await upstream.count_tokens(Call(target, key, exchange))
            except UpstreamFailure as failure:
                exchange.add_count_attempt(target, failure.kind)
                exchange.warn(f"input_tokens is an estimate: {failure.message}")
                if key is None or failure.kind not in KEY_FAILURES:
                    return None
                self._keys.refused(target.provider, key)
            else:
                if count is not None:
                    exchange.add_count_attempt(target)
                    exchange.target = target
                return count
        return None


def _denied(denial: Denial, exchange: Exchange) -> ApiError:
    type = type_of_final_error(denial.status, exchange.inbound.header("user-agent"))
    return ApiError(denial.status, denial.message, type=type, headers=NO_RETRY)


class _NeedsThread(Exception):
    """A rule asks for the tokens of a large body while it is decided on the event loop. Most rules don't get
    that far, and a thread costs as much as a small decision."""


def _needs_thread() -> int:
    raise _NeedsThread


def _shows_token_count(exchange: Exchange) -> bool:
    """Whether somebody reads the exact number, not only a rule."""
    is_explained = exchange.inbound.explain or exchange.endpoint == "route"
    return is_explained or exchange.policy.server.decision_log is not None


def _read_envelope(exchange: Exchange) -> Envelope:
    """Raises `ApiError` for what no rule is asked about."""
    envelope, url_target = exchange.body.envelope(), exchange.inbound.url_target
    if url_target is not None:
        envelope = msgspec.structs.replace(envelope, model=url_target.partition("/")[2])
    if requested_model_problem(envelope.model):
        raise ApiError(404, f"model: {envelope.model[:256]}")
    return envelope
