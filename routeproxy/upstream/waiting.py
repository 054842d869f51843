"""Requests that wait for a place, for a few seconds, in turns among teams: a team that floods a full target
keeps nobody else waiting for longer than one of its requests takes.

Each waiting request has a number, the time at which it would begin if every team had its share of the places
(start-time fair queueing): whoever has the lowest is next, over all workers.
"""

import asyncio
import ctypes
import math
import time
from collections.abc import Callable
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from typing import TypeVar

from routeproxy.shared_records import Record, SharedRecords
from routeproxy.upstream.in_flight import MOST_WORKERS, InFlightCounts

T = TypeVar("T")

LOOK_EVERY = 0.02
"""Seconds between looks whether a place is free that another worker has given back, while somebody waits."""
STALE = 0.5
"""Seconds after which a worker that doesn't look any more holds nobody up."""


class QueueRecord(Record):
    """Who waits for one limit."""

    _fields_ = (
        ("served", ctypes.c_double),
        ("heads", ctypes.c_double * MOST_WORKERS),
        ("looked_at", ctypes.c_double * MOST_WORKERS),
    )

    served: float
    """The highest number that got a place."""
    heads: "ctypes.Array[ctypes.c_double]"
    """By worker, the lowest number that waits there."""
    looked_at: "ctypes.Array[ctypes.c_double]"
    """When it was; 0: nobody waits there."""


class TurnRecord(Record):
    """A team at one limit."""

    _fields_ = (("next", ctypes.c_double),)

    next: float
    """The number of its next request, if it asks before others catch up."""


def queue_records(*, shared: bool) -> SharedRecords[QueueRecord]:
    return SharedRecords(QueueRecord, 256, shared=shared)


def turn_records(*, shared: bool) -> SharedRecords[TurnRecord]:
    return SharedRecords(TurnRecord, 2048, shared=shared)


class _Waiter:
    def __init__(self, number: float) -> None:
        self.number = number
        self.may_look = asyncio.Event()
        self.is_gone = False


class _Line:
    """Those of this worker that wait for one limit."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, _Waiter]] = []
        self._order = count()

    def join(self, waiter: _Waiter) -> None:
        heappush(self._waiting, (waiter.number, next(self._order), waiter))

    def first(self) -> _Waiter | None:
        while self._waiting and self._waiting[0][2].is_gone:
            heappop(self._waiting)
        return self._waiting[0][2] if self._waiting else None

    def wake(self) -> None:
        """The first may look whether there is a place."""
        if (first := self.first()) is not None:
            first.may_look.set()


class Waiting:
    def __init__(
        self,
        queues: SharedRecords[QueueRecord],
        turns: SharedRecords[TurnRecord],
        in_flight: InFlightCounts,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queues = queues
        self._turns = turns
        self._in_flight = in_flight
        self._now = now
        self._lines: dict[int, _Line] = {}
        self._queue_ids: dict[int, int] = {}
        """By limit: they are those of the rules file, so there are few."""

    def freed(self) -> None:
        """A place of this worker is free again."""
        for line in self._lines.values():
            line.wake()

    def is_awaited(self, limit: int) -> bool:
        return self.length(limit) > 0

    def length(self, limit: int) -> int:
        """How many wait for a limit, in all workers."""
        return self._in_flight.count(self._queue_id(limit))

    async def wait(
        self,
        limit: int,
        take: Callable[[], T | None],
        *,
        team: str,
        weight: float,
        seconds: float,
        length: int,
    ) -> T | None:
        """What `take` gives once it is the request's turn; `None`: it was not within `seconds`, or `length`
        others wait already. `limit`: the number of what there is too little of."""
        place, of_team = self._queue_id(limit), self._team_id(team)
        if not self._in_flight.take(place, length):
            return None
        self._in_flight.take(of_team)
        line = self._lines.setdefault(limit, _Line())
        waiter = _Waiter(self._draw(limit, team, weight))
        line.join(waiter)
        try:
            async with asyncio.timeout(seconds):
                return await self._wait_in(line, waiter, limit, take)
        except TimeoutError:
            return None
        finally:
            waiter.is_gone = True
            self._in_flight.give_back(place)
            self._in_flight.give_back(of_team)
            line.wake()
            if line.first() is None:
                self._lines.pop(limit, None)
                self._queues.find(limit).looked_at[self._in_flight.worker] = 0.0

    async def _wait_in(self, line: _Line, waiter: _Waiter, limit: int, take: Callable[[], T | None]) -> T:
        while True:
            if line.first() is waiter:
                queue = self._queues.find(limit)
                queue.heads[self._in_flight.worker] = waiter.number
                queue.looked_at[self._in_flight.worker] = self._now()
                if waiter.number <= self._lowest_elsewhere(queue) and (taken := take()) is not None:
                    queue.served = max(queue.served, waiter.number)
                    return taken
            waiter.may_look.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY if line.first() is waiter else None):
                    await waiter.may_look.wait()

    def _queue_id(self, limit: int) -> int:
        id = self._queue_ids.get(limit)
        if id is None:
            id = self._queue_ids[limit] = self._in_flight.id_of("queue", str(limit))
        return id

    def of_team(self, team: str) -> int:
        """How many of a team's requests wait, in all workers."""
        return self._in_flight.count(self._team_id(team))

    def _team_id(self, team: str) -> int:
        return self._in_flight.id_of("queue of team", team)

    def _draw(self, limit: int, team: str, weight: float) -> float:
        queue = self._queues.find(limit)
        turn = self._turns.find(self._turns.id_of("turn", str(limit), team))
        with self._queues.locked():
            number = max(queue.served, turn.next)
            turn.next = number + 1 / weight
            return number

    def _lowest_elsewhere(self, queue: QueueRecord) -> float:
        since = self._now() - STALE
        return min(
            (
                queue.heads[worker]
                for worker, looked_at in enumerate(queue.looked_at)
                if looked_at > since and worker != self._in_flight.worker
            ),
            default=math.inf,
        )
