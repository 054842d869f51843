"""Requests that wait for a place (docs/rules.md, "max_concurrent")."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.upstream.in_flight import InFlightCounts, in_flight_records, worker_records
from routeproxy.upstream.waiting import Waiting, queue_records, turn_records

TARGET = 7
"""The number of the limit that all wait for."""


class Server:
    """A target with a number of places, and those who want one."""

    def __init__(self, places: int, *, length: int = 100) -> None:
        self.in_flight = InFlightCounts(in_flight_records(shared=False), worker_records(shared=False))
        self.waiting = Waiting(queue_records(shared=False), turn_records(shared=False), self.in_flight)
        self.free = places
        self.length = length
        self.served: list[str] = []

    def take(self) -> bool | None:
        if not self.free:
            return None
        self.free -= 1
        return True

    def give_back(self) -> None:
        self.free += 1
        self.waiting.freed()

    async def wait(self, team: str, weight: float = 1.0, seconds: float = 5.0) -> bool:
        got = await self.waiting.wait(
            TARGET, self.take, team=team, weight=weight, seconds=seconds, length=self.length
        )
        if got:
            self.served.append(team)
        return bool(got)

    @property
    def queue(self) -> int:
        return self.waiting.length(TARGET)


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 20))


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def serve(server: Server, times: int) -> None:
    """So many places become free, one after the other."""
    for _ in range(times):
        server.give_back()
        await settled()


def test_whoever_waits_gets_the_place_that_is_given_back() -> None:
    async def scene() -> None:
        server = Server(0)
        async with asyncio.TaskGroup() as tasks:
            waits = tasks.create_task(server.wait("a"))
            await settled()
            assert server.queue == 1
            server.give_back()
        assert waits.result()
        assert (server.queue, server.free) == (0, 0)

    run(scene())


def test_a_team_that_floods_lets_others_have_their_turn() -> None:
    async def scene() -> None:
        server = Server(0)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(50):
                tasks.create_task(server.wait("flood"))
            await settled()
            await serve(server, 10)
            tasks.create_task(server.wait("polite"))
            await settled()
            await serve(server, 41)
        assert server.served[:10] == ["flood"] * 10
        assert "polite" in server.served[10:12]

    run(scene())


def test_teams_get_places_in_proportion_to_their_weights() -> None:
    async def scene() -> None:
        server = Server(0)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(40):
                tasks.create_task(server.wait("a", 3.0))
                tasks.create_task(server.wait("b"))
            await settled()
            await serve(server, 40)
            assert Counter(server.served) == {"a": 30, "b": 10}
            await serve(server, 40)

    run(scene())


def test_nobody_waits_longer_than_it_may_and_none_stays_in_the_queue() -> None:
    async def scene() -> None:
        server = Server(0)
        assert not await server.wait("a", seconds=0.05)
        assert server.queue == 0
        server.give_back()
        assert await server.wait("a")

    run(scene())


def test_of_more_than_may_wait_the_last_are_refused_at_once() -> None:
    async def scene() -> None:
        server = Server(0, length=2)
        async with asyncio.TaskGroup() as tasks:
            waits = [tasks.create_task(server.wait(team)) for team in "abc"]
            await settled()
            assert [task.done() for task in waits] == [False, False, True]
            await serve(server, 2)
        assert [task.result() for task in waits] == [True, True, False]

    run(scene())


def test_a_client_that_leaves_frees_its_turn_and_takes_no_place() -> None:
    async def scene() -> None:
        server = Server(0)
        first = asyncio.ensure_future(server.wait("a"))
        second = asyncio.ensure_future(server.wait("b"))
        await settled()
        first.cancel()
        await settled()
        assert server.queue == 1
        server.give_back()
        assert await second
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (server.queue, server.free) == (0, 0)

    run(scene())


def test_a_place_that_another_worker_gives_back_is_seen_soon() -> None:
    async def scene() -> None:
        server = Server(0)
        waits = asyncio.ensure_future(server.wait("a"))
        await settled()
        server.free += 1  # and nobody says so
        assert await waits

    run(scene())


def test_a_worker_waits_for_those_of_another_who_came_before() -> None:
    """Two workers in one process: what they share is all that they know of each other."""

    async def scene() -> None:
        one, other = Server(0), Server(0)
        other.in_flight.worker = one.in_flight.worker + 1
        other.waiting._queues, other.waiting._turns = one.waiting._queues, one.waiting._turns
        floods = [asyncio.ensure_future(one.wait("flood")) for _ in range(10)]
        await settled()
        polite = asyncio.ensure_future(other.wait("polite"))
        await asyncio.sleep(0.05)
        one.give_back()
        await asyncio.sleep(0.05)
        one.give_back()
        await asyncio.sleep(0.05)
        assert len(one.served) < 2, "it is the other's turn"
        other.give_back()
        assert await polite
        await asyncio.sleep(0.05)
        for flood in floods:
            flood.cancel()

    run(scene())


STEPS = st.lists(st.sampled_from(["a", "b", "c", "leave", "give back", "look"]), max_size=40)


@given(STEPS)
def test_no_place_is_lost_or_given_twice_and_nobody_is_forgotten(steps: list[str]) -> None:
    async def scene() -> None:
        server = Server(1)
        waits: list[asyncio.Future[bool]] = []
        given_back = 0
        for step in steps:
            if step in "abc":
                waits.append(asyncio.ensure_future(server.wait(step)))
            elif step == "leave" and waits:
                waits[len(waits) // 2].cancel()
            elif step == "give back" and given_back < len(server.served):
                given_back += 1
                server.give_back()
            else:
                await settled()
        await settled()
        taken = len(server.served) - given_back
        assert server.free + taken == 1
        while any(not wait.done() for wait in waits):
            server.give_back()
            await settled()
        assert server.queue == 0

    run(scene())
