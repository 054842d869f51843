"""What bodies may take at once: who waits, who goes on, and what is held when."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from routeproxy.messages.errors import ApiError
from routeproxy.web.body_memory import COPIES, SMALL, BodyMemory, ClientLeft, HeldBody
from routeproxy.web.response import DisconnectSignal

MB = 2**20
BUDGET = 16 * COPIES * MB
"""Bodies of 12 MB, and 4 MB for small ones."""


class Bodies:
    """Bodies that come, and which of them were let in, in that order."""

    def __init__(self, budget: int = BUDGET, patience: float = 30.0) -> None:
        self.budget = budget
        self.memory = BodyMemory(lambda: self.budget, patience)
        self.admitted: list[str] = []
        self.held: dict[str, HeldBody] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(
        self, name: str, length: float, caller: str = "", signal: DisconnectSignal | None = None
    ) -> None:
        held = self.held.setdefault(name, self.memory.hold(signal))
        held.caller = caller
        self._tasks[name] = asyncio.get_running_loop().create_task(self._grow(name, int(length * MB)))
        await asyncio.sleep(0)

    async def _grow(self, name: str, length: int) -> None:
        await self.held[name].grow(length)
        self.admitted.append(name)

    async def go(self, *names: str) -> None:
        for name in names:
            self.held[name].release()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def cancel(self, name: str) -> None:
        self._tasks[name].cancel()

    async def outcome(self, name: str) -> BaseException | None:
        (result,) = await asyncio.gather(self._tasks[name], return_exceptions=True)
        return result


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@in_a_loop
async def test_what_does_not_fit_waits_until_something_is_let_go() -> None:
    bodies = Bodies()
    await bodies.come("a", 8)
    await bodies.come("b", 8)
    assert (bodies.admitted, bodies.memory.used, bodies.memory.waiting) == (["a"], 8 * COPIES * MB, 1)
    await bodies.go("a")
    assert (bodies.admitted, bodies.memory.used, bodies.memory.waiting) == (["a", "b"], 8 * COPIES * MB, 0)
    await bodies.go("b")
    assert bodies.memory.used == 0


@in_a_loop
async def test_who_came_first_goes_first_even_if_another_would_fit() -> None:
    bodies = Bodies()
    await bodies.come("a", 8)
    await bodies.come("large", 10)
    await bodies.come("fits", 2)
    assert bodies.admitted == ["a"]
    await bodies.go("a")
    assert bodies.admitted == ["a", "large", "fits"]


@in_a_loop
async def test_small_bodies_wait_for_no_large_one() -> None:
    bodies = Bodies()
    await bodies.come("a", 12)
    for number in range(20):
        await bodies.come(f"large {number}", 8)
    for number in range(5):
        await bodies.come(f"small {number}", 1)
    assert bodies.admitted == ["a", "small 0", "small 1", "small 2", "small 3"]
    await bodies.go("small 0")
    assert bodies.admitted[-1] == "small 4"


@in_a_loop
async def test_small_bodies_have_all_of_it_while_no_large_one_wants_it() -> None:
    bodies = Bodies()
    for number in range(17):
        await bodies.come(str(number), 1)
    assert (len(bodies.admitted), bodies.memory.used) == (16, BUDGET)


@pytest.mark.parametrize("length", [8, 1], ids=["large", "small"])
def test_callers_take_turns(length: int) -> None:
    async def test() -> None:
        bodies = Bodies(4 * COPIES * MB if length == 1 else BUDGET)
        await bodies.come("before", 12)
        await bodies.come("small before", 1)
        for number in range(4):
            await bodies.come(f"many {number}", length, "many")
        await bodies.come("one", length, "one")
        await bodies.come("another", length, "another")
        del bodies.admitted[:]
        await bodies.go("before", "small before")
        while bodies.memory.used:
            await bodies.go(*bodies.admitted)
        assert bodies.admitted == ["many 0", "one", "another", "many 1", "many 2", "many 3"]

    asyncio.run(test())


@in_a_loop
async def test_a_body_larger_than_all_there_is_is_taken_alone() -> None:
    bodies = Bodies()
    await bodies.come("huge", 40)
    await bodies.come("another", 40)
    await bodies.come("small", 1)
    assert bodies.admitted == ["huge", "small"]
    await bodies.go("huge")
    assert bodies.admitted == ["huge", "small", "another"]


@in_a_loop
async def test_bodies_that_grew_half_way_come_to_their_end_one_after_another() -> None:
    bodies = Bodies()
    names = ["a", "b", "c"]
    for name in names:
        await bodies.come(name, 4)
    for name in names:
        await bodies.come(name, 8)
    assert bodies.admitted == ["a", "b", "c", "a"]
    assert bodies.memory.used == 16 * COPIES * MB  # one has gone beyond the 12 MB, to its end
    await bodies.go("a")
    assert bodies.admitted == ["a", "b", "c", "a", "b", "c"]
    assert bodies.memory.used == 16 * COPIES * MB  # now `b` fits, and `c` goes beyond
    await bodies.go("b", "c")
    assert bodies.memory.used == 0


@in_a_loop
async def test_what_turned_out_smaller_makes_room() -> None:
    bodies = Bodies()
    await bodies.come("a", 12)
    await bodies.come("b", 8)
    bodies.held["a"].shrink(4 * MB)
    assert bodies.memory.waiting == 0
    await bodies.outcome("b")
    assert (bodies.admitted, bodies.memory.used) == (["a", "b"], 12 * COPIES * MB)


@in_a_loop
async def test_a_reload_that_gives_more_lets_more_in() -> None:
    bodies = Bodies()
    await bodies.come("a", 12)
    bodies.budget *= 2
    await bodies.come("b", 12)
    assert bodies.admitted == ["a", "b"]


@in_a_loop
async def test_after_its_time_it_is_overloaded_and_nothing_stays_promised() -> None:
    bodies = Bodies(patience=0.05)
    await bodies.come("a", 12)
    await bodies.come("late", 8)
    error = await bodies.outcome("late")
    assert isinstance(error, ApiError)
    assert (error.status, error.type, dict(error.headers)) == (529, "overloaded_error", {"retry-after": "5"})
    assert (bodies.memory.waiting, bodies.memory.used) == (0, 12 * COPIES * MB)
    await bodies.go("a", "late")
    assert bodies.memory.used == 0


@in_a_loop
async def test_one_that_gives_up_lets_those_behind_it_on() -> None:
    bodies = Bodies()
    await bodies.come("a", 8)
    await bodies.come("large", 12)
    await bodies.come("fits", 4)
    bodies.cancel("large")
    await bodies.outcome("large")
    await bodies.outcome("fits")
    assert bodies.admitted == ["a", "fits"]


@in_a_loop
async def test_a_client_that_leaves_waits_no_more() -> None:
    bodies, signal = Bodies(), DisconnectSignal()
    await bodies.come("a", 12)
    await bodies.come("leaves", 8, signal=signal)
    assert signal.is_body_waiting
    signal.fire()
    assert isinstance(await bodies.outcome("leaves"), ClientLeft)
    assert (signal.is_body_waiting, signal.listeners, bodies.memory.waiting) == (False, set(), 0)


@in_a_loop
async def test_let_in_in_the_moment_in_which_its_client_leaves_it_holds_nothing() -> None:
    bodies, signal = Bodies(), DisconnectSignal()
    await bodies.come("a", 12)
    await bodies.come("leaves", 8, signal=signal)
    signal.fire()
    bodies.held["a"].release()
    await bodies.outcome("leaves")
    await bodies.go("leaves")
    assert bodies.memory.used == 0


@pytest.mark.parametrize(("size", "times"), [(SMALL // COPIES, 0), (SMALL, 1)], ids=["small", "large"])
def test_once_large_bodies_are_let_go_somebody_hears_of_it(size: int, times: int) -> None:
    heard: list[int] = []
    memory = BodyMemory(lambda: 100 * SMALL, patience=1, on_let_go=lambda: heard.append(memory.used))
    first, second = memory.hold(), memory.hold()
    asyncio.run(first.grow(size))
    asyncio.run(second.grow(1))
    first.release()
    assert heard == []
    second.release()
    assert heard == [0] * times
    asyncio.run(second.grow(1))
    second.release()
    assert heard == [0] * times
