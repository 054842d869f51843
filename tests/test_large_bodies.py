"""Work on large bodies runs beside the loop, and no caller fills the thread."""

import asyncio
import threading

import pytest

from routeproxy.large_bodies import (
    BREATH,
    HOLDS_INTERPRETER,
    INLINE,
    SHORT_BREATH,
    Threads,
    read_beside,
    without_sweeps,
)


@pytest.mark.parametrize(("size", "beside"), [(INLINE, False), (INLINE + 1, True)], ids=["small", "large"])
def test_only_a_large_body_is_read_beside_the_loop(size: int, beside: bool) -> None:
    thread = asyncio.run(read_beside(size, "caller", threading.current_thread))
    assert (thread is not threading.main_thread()) is beside


def test_who_sends_many_waits_for_oneself() -> None:
    order: list[str] = []

    async def all_at_once() -> None:
        many = [read_beside(INLINE + 1, "many", order.append, "many") for _ in range(9)]
        await asyncio.gather(*many, read_beside(INLINE + 1, "one", order.append, "one"))

    asyncio.run(all_at_once())
    assert len(order) == 10
    assert order.index("one") <= 2


@pytest.mark.parametrize("count", [1, 2, 4])
def test_who_sends_many_leaves_a_thread_to_others(count: int) -> None:
    """All but one, where there is more than one."""
    at_once: list[int] = []
    running, free = threading.Semaphore(0), threading.Event()

    def slow() -> None:
        running.release()
        free.wait(10)

    async def all_at_once() -> None:
        threads = Threads(count, "test")
        async with asyncio.TaskGroup() as tasks:
            many = [tasks.create_task(threads.run("many", slow)) for _ in range(9)]
            other = tasks.create_task(threads.run("other", at_once.append, 0))
            for _ in range(max(1, count - 1)):
                await asyncio.to_thread(running.acquire, timeout=10)
            if count > 1:
                await other
            assert not any(task.done() for task in many)
            free.set()

    asyncio.run(all_at_once())
    assert at_once == [0]


def test_work_whose_client_has_left_counts_until_it_ends() -> None:
    begun, end = threading.Event(), threading.Event()
    order: list[str] = []

    def slow() -> None:
        begun.set()
        end.wait(10)
        order.append("left")

    async def leave_and_come_back() -> None:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(read_beside(INLINE + 1, "caller", slow))
            await asyncio.to_thread(begun.wait, 10)
            first.cancel()
            second = tasks.create_task(read_beside(INLINE + 1, "caller", order.append, "back"))
            await asyncio.sleep(0.01)
            assert not second.done()
            end.set()

    asyncio.run(leave_and_come_back())
    assert order == ["left", "back"]


def test_a_mistake_is_the_callers_and_the_next_has_its_turn() -> None:
    async def twice() -> str:
        with pytest.raises(ValueError, match="invalid"):
            await read_beside(INLINE + 1, "caller", int, "x")
        return await read_beside(INLINE + 1, "caller", str, "y")

    assert asyncio.run(twice()) == "y"


@pytest.mark.parametrize(
    ("size", "pauses"),
    [(INLINE, []), (INLINE + 1, [SHORT_BREATH]), (HOLDS_INTERPRETER, [SHORT_BREATH]), (2**20 + 1, [BREATH])],
)
def test_a_thread_pauses_before_each_large_body_or_the_loop_would_never_have_its_turn(
    size: int, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs shorter than the switch interval are never asked to hand over: `benchmarks/token_counts.py`."""
    slept: list[float] = []
    monkeypatch.setattr("routeproxy.large_bodies.time.sleep", slept.append)
    without_sweeps(size, lambda: None)
    assert slept == pauses
