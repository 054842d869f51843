"""The places that a request takes up, at targets and of its team: taken at once, or waited for."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

from routeproxy.exchange import Exchange
from routeproxy.policy.decide import Policy, Team
from routeproxy.upstream.failures import no_place, too_many_at_once
from routeproxy.upstream.limits import Limit, Limits, Place
from routeproxy.upstream.retry_plan import PlannedAttempt, RetryPlan
from routeproxy.upstream.waiting import Waiting

T = TypeVar("T")


class _Taken(NamedTuple):
    attempt: PlannedAttempt
    place: Place


class Places:
    def __init__(self, limits: Limits, waiting: Waiting) -> None:
        self._limits = limits
        self._waiting = waiting
        limits.on_freed = waiting.freed
        limits.is_awaited = waiting.is_awaited

    def waiting(self, policy: Policy) -> Mapping[str, int]:
        """How many requests wait, in all workers, by the limit of the rules for which they do."""
        lengths = {name: self._waiting.length(limit.id) for name, limit in self._limits.named(policy)}
        return {name: length for name, length in lengths.items() if length}

    def waiting_of(self, team: str) -> int:
        """How many requests of a team wait; of none: those that showed no team's key."""
        return self._waiting.of_team(team)

    @asynccontextmanager
    async def of_team(self, exchange: Exchange) -> AsyncIterator[None]:
        """The request's place among those of its team. Raises `UpstreamFailure` where there is none in
        time."""
        team = _team_of(exchange)
        if team is None or team.max_concurrent is None:
            yield
            return
        limit = self._limits.of_team(team, exchange.policy.server.replicas)
        place = self._limits.take_one(limit)
        if place is None:
            place = await self._wait(limit, lambda: self._limits.take_one(limit, in_turn=True), exchange)
        if place is None:
            raise too_many_at_once(exchange.policy.server.queue_wait)
        try:
            yield
        finally:
            place.give_back()

    async def of_attempt(
        self, planned: PlannedAttempt, plan: RetryPlan, exchange: Exchange
    ) -> PlannedAttempt | None:
        """The attempt with its place, or another that would do and has one sooner. `None`: there is no place
        in time, which is the failure to show if there is no other."""
        replicas = exchange.policy.server.replicas
        candidates = (planned, *planned.instead)

        def take(*, in_turn: bool = True) -> _Taken | None:
            for attempt in candidates:
                place = self._limits.take(attempt.target, replicas, in_turn=in_turn)
                if place is not None:
                    return _Taken(attempt, place)
            return None

        taken = take(in_turn=False)
        if taken is None:
            limit = self._limits.bounding(planned.target, replicas)
            taken = await self._wait(limit, take, exchange, plan.deadline)
        if taken is None:
            planned.health.let_go()
            plan.no_place(no_place(exchange.policy.server.queue_wait))
            return None
        taken.attempt.health.claim()
        return plan.placed(taken.attempt, taken.place)

    async def _wait(
        self,
        limit: Limit,
        take: Callable[[], T | None],
        exchange: Exchange,
        deadline: float | None = None,
    ) -> T | None:
        server, now = exchange.policy.server, asyncio.get_running_loop().time
        team = _team_of(exchange)
        began = now()
        wait = server.queue_wait if deadline is None else min(server.queue_wait, deadline - began)
        try:
            return await self._waiting.wait(
                limit.id,
                take,
                team=team.name if team is not None else "",
                weight=team.weight if team is not None else 1.0,
                seconds=wait,
                length=server.queue_length,
            )
        finally:
            exchange.queued += now() - began


def _team_of(exchange: Exchange) -> Team | None:
    return exchange.policy.teams.get(exchange.inbound.team or "")
