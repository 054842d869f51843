"""How many requests a target may have at once: `max_concurrent` of its provider, and of it as the member of a
pool. Members are counted without a limit too, since some pools ask who is least busy."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from routeproxy.policy.decide import Policy, Team
from routeproxy.policy.pools import Member
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Target
from routeproxy.upstream.in_flight import InFlightCounts


class Limit(NamedTuple):
    id: int
    most: int | None
    """`None`: it is only counted."""


class Place:
    """What a request takes up at a target, until it is given back."""

    def __init__(
        self, in_flight: InFlightCounts, limits: tuple[Limit, ...], on_freed: Callable[[], None]
    ) -> None:
        self._in_flight = in_flight
        self._limits = limits
        self._on_freed = on_freed

    def give_back(self) -> None:
        """Once, however often it is called."""
        limits, self._limits = self._limits, ()
        for limit in limits:
            self._in_flight.give_back(limit.id)
        if limits:
            self._on_freed()


class Limits:
    def __init__(self, in_flight: InFlightCounts) -> None:
        self._in_flight = in_flight
        self.on_freed: Callable[[], None] = lambda: None
        """Hears whenever something is given back."""
        self.is_awaited: Callable[[int], bool] = lambda limit: False
        """Whether somebody waits for a limit: then whoever comes now has to wait, too."""
        self._known: dict[tuple[str, ...], int] = {}
        """The ids, by names of the rules file: there are few of them."""

    def take(self, target: Target, replicas: int, *, in_turn: bool = False) -> Place | None:
        """`None`: it has as many requests as it may have. `replicas`: how many servers share the limits.
        `in_turn`: the request has waited, and nobody was before it."""
        taken: list[Limit] = []
        for limit in self._of(target, replicas):
            if not self._is_taken(limit, in_turn=in_turn):
                Place(self._in_flight, tuple(taken), lambda: None).give_back()
                return None
            taken.append(limit)
        return Place(self._in_flight, tuple(taken), self.on_freed)

    def of_team(self, team: Team, replicas: int) -> Limit:
        assert team.max_concurrent is not None
        return Limit(self._id("team", team.name), _share(team.max_concurrent, replicas))

    def take_one(self, limit: Limit, *, in_turn: bool = False) -> Place | None:
        """As `take`, of one limit."""
        return (
            Place(self._in_flight, (limit,), self.on_freed)
            if self._is_taken(limit, in_turn=in_turn)
            else None
        )

    def _is_taken(self, limit: Limit, *, in_turn: bool) -> bool:
        if limit.most is not None and not in_turn and self.is_awaited(limit.id):
            return False
        return self._in_flight.take(limit.id, limit.most)

    def bounding(self, target: Target, replicas: int) -> Limit:
        """The limit that keeps one more request from it, or may."""
        return self.full(target, replicas) or next(self._of(target, replicas))

    def full(self, target: Target, replicas: int) -> Limit | None:
        """The limit that keeps one more request from it, if any does."""
        for limit in self._of(target, replicas):
            if limit.most is None:
                continue
            if self._in_flight.count(limit.id) >= limit.most or self.is_awaited(limit.id):
                return limit
        return None

    def named(self, policy: Policy) -> Iterator[tuple[str, Limit]]:
        """All that the rules set, by what they limit: `provider azure`, `member azure/* of pool eu`, `team
        search`."""
        replicas = policy.server.replicas
        for provider in policy.providers.values():
            if provider.max_concurrent is not None:
                yield f"provider {provider.name}", self._of_provider(provider, replicas)
        members = {
            (member.pool.name, member.name): member
            for rule in (*policy.rules, policy.default)
            for target in rule.contacted
            if (member := target.member) is not None and member.max_concurrent is not None
        }
        for (pool, name), member in members.items():
            yield f"member {name} of pool {pool}", self._of_member(member, replicas)
        for team in policy.teams.values():
            if team.max_concurrent is not None:
                yield f"team {team.name}", self.of_team(team, replicas)

    def busy(self, target: Target) -> float:
        """How many requests it has as a member of its pool, in proportion to its weight."""
        member = target.member
        if member is None:
            return 0.0
        return self._in_flight.count(self._id("member", member.pool.name, member.name)) / member.weight

    def _of(self, target: Target, replicas: int) -> Iterator[Limit]:
        if target.provider.max_concurrent is not None:
            yield self._of_provider(target.provider, replicas)
        if target.member is not None:
            yield self._of_member(target.member, replicas)

    def _of_provider(self, provider: Provider, replicas: int) -> Limit:
        assert provider.max_concurrent is not None
        return Limit(self._id("provider", provider.name), _share(provider.max_concurrent, replicas))

    def _of_member(self, member: Member, replicas: int) -> Limit:
        most = _share(member.max_concurrent, replicas) if member.max_concurrent is not None else None
        return Limit(self._id("member", member.pool.name, member.name), most)

    def _id(self, *names: str) -> int:
        id = self._known.get(names)
        if id is None:
            id = self._known[names] = self._in_flight.id_of(*names)
        return id


def _share(most: int, replicas: int) -> int:
    """That of one of the servers which share a limit: none of them may be left without."""
    return max(1, most // replicas)
