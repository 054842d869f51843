"""Work on a large body, beside the event loop: in few threads, in turns between callers."""

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

from routeproxy.gc_pause import paused

P = ParamSpec("P")
T = TypeVar("T")

INLINE = 131_072
"""Bytes. What is not longer is read where it came: a thread would cost more than it saves."""

HOLDS_INTERPRETER = 1_048_576
"""Bytes. A decoder or an encoder has the interpreter for itself for milliseconds at a body of this size."""
BREATH = 0.002
"""Seconds between two pieces of work on such a body. The loop lets the interpreter go whenever it looks at
its sockets, and takes several turns to answer anybody: a thread that never waits would be first each time."""


SHORT_BREATH = 0.0005
"""The same for a smaller body. Jobs that are each shorter than the interval after which Python asks a thread
to hand over (`processes.SWITCH_INTERVAL`) would never be asked: at the end of each the thread lets the
interpreter go for a system call, has it back before the loop is awake, and the interval begins anew. Twenty
bodies of 700 kB whose blocks are known, each counted in 0.7 ms, held the loop up for 15 ms so."""


class Threads:
    """Of one caller's work only so much is under way at once that a thread is left for others; with a single
    thread, one piece, so that others have their turn next."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, name)
        self._share = max(1, count - 1)
        self._turns: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()

    async def run(self, caller: Hashable, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises, once it is the caller's turn."""
        loop = asyncio.get_running_loop()
        key = (id(loop), caller)
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = asyncio.Semaphore(self._share)
        await turn.acquire()
        job = self._pool.submit(partial(work, *args, **kwargs))
        # Also when its client has left: what runs in a thread can't be stopped, and counts until it ends.
        job.add_done_callback(lambda _: _give_back(loop, turn))
        return await asyncio.wrap_future(job)


# One: a decoder holds the interpreter, so that two would only take turns with the loop.
_threads = Threads(1, "bodies")


async def read_beside(
    size: int, caller: Hashable, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """What `work` makes of a body of `size` bytes."""
    if size <= INLINE:
        return work(*args, **kwargs)
    return await _threads.run(caller, without_sweeps, size, partial(work, *args, **kwargs))


def without_sweeps(size: int, work: Callable[[], T]) -> T:
    """What `work` makes of a body of `size` bytes: of a large one it builds so many values that a sweep of
    the collector would hold the interpreter for long."""
    if size <= INLINE:
        return work()
    let_others_run(size)
    with paused():
        return work()


def let_others_run(size: int) -> None:
    """For a thread, between two calls that each hold the interpreter for as long as `size` bytes take."""
    if size > INLINE:
        time.sleep(BREATH if size > HOLDS_INTERPRETER else SHORT_BREATH)


def _give_back(loop: asyncio.AbstractEventLoop, turn: asyncio.Semaphore) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(turn.release)
