"""The clock of an attempt: it ends what takes too long, and never who reads the answer."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from routeproxy.upstream.deadline import MovingTimeout
from tests.budgets import seconds


def now() -> float:
    return asyncio.get_running_loop().time()


async def ticking(pauses: list[float], limit: float) -> AsyncGenerator[int]:
    """Numbers, each after its pause, each to be there within `limit`."""
    async with MovingTimeout(now() + limit) as clock:
        for number, pause in enumerate(pauses):
            await asyncio.sleep(pause)
            clock.pause()
            yield number
            clock.move(now() + limit)


async def heard(pauses: list[float], *, limit: float = 0.05, read: float = 0.0) -> list[int]:
    numbers = []
    async with aclosing(ticking(pauses, limit)) as ticks:
        async for number in ticks:
            numbers.append(number)
            await asyncio.sleep(read)
    return numbers


def test_what_comes_in_time_comes() -> None:
    assert asyncio.run(heard([0.02] * 6)) == [0, 1, 2, 3, 4, 5]


def test_who_reads_slowly_is_not_hurried() -> None:
    assert asyncio.run(heard([0, 0], read=0.15)) == [0, 1]


@pytest.mark.parametrize("late", [0, 1, 3])
def test_what_comes_too_late_is_a_timeout(late: int) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(heard([0.01] * late + [5], read=0.06))
    assert time.monotonic() - began < seconds(1)


def test_a_limit_may_come_nearer() -> None:
    async def nearer() -> None:
        async with MovingTimeout(now() + 60) as clock:
            clock.move(now() + 0.02)
            await asyncio.sleep(5)

    with pytest.raises(TimeoutError):
        asyncio.run(nearer())


def test_a_reader_who_leaves_is_not_taken_for_a_timeout() -> None:
    async def left() -> str:
        async def reads() -> None:
            await heard([0, 5], limit=60)

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(reads())
            await asyncio.sleep(0.02)
            task.cancel()
        return "cancelled" if task.cancelled() else "not"

    assert asyncio.run(left()) == "cancelled"


def test_a_reader_who_leaves_just_when_time_is_up_has_left() -> None:
    async def both_at_once() -> bool:
        task = asyncio.get_running_loop().create_task(heard([5], limit=0.02))
        time.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.05)  # both are due in the very next turn of the loop
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.wait({task})
        return task.cancelled()

    assert asyncio.run(both_at_once())


def test_a_bell_that_rings_just_as_the_answer_comes_harms_nobody() -> None:
    async def crossing() -> list[int]:
        return await heard([0.02, 0.02, 0.02], limit=0.0201, read=0.03)

    for _ in range(10):
        try:
            assert asyncio.run(crossing()) == [0, 1, 2]
        except TimeoutError:
            continue  # late is late: but nothing else may happen


def test_what_arrived_while_the_loop_was_busy_is_not_late() -> None:
    async def answered_during_a_stall() -> str:
        loop = asyncio.get_running_loop()
        async with MovingTimeout(now() + 0.1) as clock:
            loop.call_later(0.05, time.sleep, 0.3)
            # Two turns of the loop after the stall, as a read that brings half an answer takes.
            loop.call_later(0.06, lambda: loop.call_later(0.02, came.set))
            came = asyncio.Event()
            await came.wait()
            clock.pause()
        return "answered"

    assert asyncio.run(answered_during_a_stall()) == "answered"


def test_a_busy_loop_is_no_reason_to_wait_for_ever() -> None:
    async def never_answered() -> None:
        loop = asyncio.get_running_loop()

        def stall() -> None:
            time.sleep(0.1)
            loop.call_later(0.01, stall)

        async with MovingTimeout(now() + 0.15):
            stall()
            await asyncio.sleep(seconds(30))

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(never_answered())
    assert time.monotonic() - began < seconds(2)
