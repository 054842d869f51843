"""In which order the targets of a decision are tried: the members of a pool by the session, so that it finds
its prompt cache again, or by their load; and a session that had to move stays where it is.

Nothing here adds a target, and none is lost, but where only one may be asked.
"""

import ctypes
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from routeproxy.exchange import Exchange
from routeproxy.policy.decide import Decision
from routeproxy.policy.explain import HEALTHY
from routeproxy.policy.facts import stable_hash
from routeproxy.policy.pools import Member
from routeproxy.policy.targets import Target, places
from routeproxy.shared_records import Record, SharedRecords
from routeproxy.upstream.limits import Limits

SESSIONS = 16_384
"""That had to move, and are remembered at once."""

FULL = "full: it has as many requests as it may have at once"

HealthOf = Callable[[Target], str]
"""`ok`, or in words why a target is left alone."""


class MovedRecord(Record):
    """Where a session is that isn't where it would be."""

    _fields_ = (("target", ctypes.c_uint64), ("at", ctypes.c_double))

    target: int
    """The number of the target's name; 0: nowhere else."""
    at: float
    """When it was there last."""


def moved_records(*, shared: bool) -> SharedRecords[MovedRecord]:
    return SharedRecords(MovedRecord, SESSIONS, shared=shared)


class Spread:
    def __init__(
        self,
        moved: SharedRecords[MovedRecord],
        limits: Limits,
        health_of: HealthOf,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`chance` between 0 and 1."""
        self._moved = moved
        self._limits = limits
        self._health_of = health_of
        self._now = now
        self._chance = chance
        self.spilled: Counter[str] = Counter()
        """By the name of the pool, how many requests went elsewhere since their session's member was full."""

    def order(self, exchange: Exchange) -> "Order":
        decision = exchange.decision
        assert decision is not None
        targets = decision.targets
        if len(targets) < 2:
            return Order(targets, targets[0] if targets else None, None, {})
        session = exchange.facts.session_id if exchange.facts is not None else None
        replicas = exchange.policy.server.replicas
        ordered: list[Target] = []
        natural: Target | None = None
        passed_over: dict[str, str] = {}
        for members in places(targets):
            if members[0].member is None or len(members) == 1:
                ordered += members
                natural = natural or members[0]
                continue
            shuffled = self._shuffled(members, session)
            natural = natural or shuffled[0]
            states = {target.name: self._state_of(target, replicas) for target in shuffled}
            usable = [target for target in shuffled if states[target.name] == HEALTHY]
            rest = [target for target in shuffled if states[target.name] != HEALTHY]
            ordered += [*usable, *rest]
            before = shuffled[: shuffled.index(usable[0])] if usable else []
            passed_over |= {target.name: states[target.name] for target in before}
        if session is not None and natural is not None:
            self._stay(decision, session, ordered, natural, replicas)
        if not decision.fallback.enabled:
            del ordered[1:]
        return Order(tuple(ordered), natural, session, passed_over)

    def _shuffled(self, members: Sequence[Target], session: str | None) -> list[Target]:
        """Weighted rendezvous: each member draws a number for the session, so that all workers, and a server
        after its restart, find the same order; and that only its own sessions move when one is lost."""
        by_session = _member_of(members[0]).pool.by == "session" and session is not None

        def draw(target: Target) -> float:
            member = _member_of(target)
            number = _number(member, session or "") if by_session else self._luck()
            return -member.weight / math.log(number)

        order = sorted(members, key=draw, reverse=True)
        if not by_session and self._limits.busy(order[1]) < self._limits.busy(order[0]):
            order[0], order[1] = order[1], order[0]
        return order

    def _luck(self) -> float:
        return min(max(self._chance(), 1e-12), 1 - 1e-12)

    def _state_of(self, target: Target, replicas: int) -> str:
        return FULL if self._limits.full(target, replicas) is not None else self._health_of(target)

    def _stay(
        self, decision: Decision, session: str, ordered: list[Target], natural: Target, replicas: int
    ) -> None:
        """Puts the target first to which the session moved, if it is there still."""
        for scope in {_scope(decision, target, natural): target for target in decision.targets}:
            record = self._moved.get(self._moved.id_of("moved", *scope, session))
            if record is None or not record.target:
                continue
            sticky = _sticky(decision, scope)
            if self._now() - record.at > sticky:
                continue
            for target in ordered:
                if record.target == self._number_of(target):
                    if self._state_of(target, replicas) == HEALTHY:
                        ordered.remove(target)
                        ordered.insert(0, target)
                    return

    def answered(self, exchange: Exchange, order: "Order", target: Target) -> None:
        """The first content of an answer of `target` is there."""
        decision, session = exchange.decision, order.session
        if session is None or decision is None or order.natural is None:
            return
        natural = order.natural
        scope = _scope(decision, target, natural)
        id = self._moved.id_of("moved", *scope, session)
        if target is natural:
            record = self._moved.get(id)
            if record is not None:
                record.target = 0
        elif _sticky(decision, scope) > 0:
            record = self._moved.find(id)
            record.target, record.at = self._number_of(target), self._now()
        if scope[0] == "pool" and order.passed_over.get(natural.name) == FULL and target is not natural:
            self.spilled[scope[1]] += 1

    def _number_of(self, target: Target) -> int:
        return self._moved.id_of("target", target.name)


class Order:
    """The targets of one decision in the order in which they are tried."""

    __slots__ = ("natural", "passed_over", "session", "targets")

    def __init__(
        self,
        targets: tuple[Target, ...],
        natural: Target | None,
        session: str | None,
        passed_over: Mapping[str, str],
    ) -> None:
        """`natural`: the first, if all were well; `None`: there is no target. `passed_over`: the members
        whose turn it would have been, and why it is not."""
        self.targets = targets
        self.natural = natural
        self.session = session
        self.passed_over = passed_over


def _member_of(target: Target) -> Member:
    assert target.member is not None, f"{target.name} is no member of a pool"
    return target.member


def _number(member: Member, session: str) -> float:
    """Between 0 and 1, the same wherever it is asked."""
    return (stable_hash(member.pool.name, member.name, session) + 0.5) / 2**64


def _scope(decision: Decision, target: Target, natural: Target) -> tuple[str, str]:
    """Where it is remembered that a session moved to `target`: in its pool, or in its rule."""
    if target.pool_name is not None and target.pool_name == natural.pool_name:
        return "pool", target.pool_name
    return "rule", decision.rule


def _sticky(decision: Decision, scope: tuple[str, str]) -> float:
    if scope[0] == "rule":
        return decision.sticky
    pools = {target.pool_name: target.member.pool for target in decision.targets if target.member is not None}
    return pools[scope[1]].sticky
