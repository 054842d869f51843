"""Work on a large body, beside the event loop: in one thread, in turns between callers."""

import asyncio
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

# One: a decoder holds the interpreter, so that two would only take turns with the loop.
_thread = ThreadPoolExecutor(1, "bodies")
_turns: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
"""Of each caller at most one piece of work is in the thread's queue, so that nobody fills it."""


async def read_beside(
    size: int, caller: Hashable, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """What `work` makes of a body of `size` bytes."""
    if size <= INLINE:
        return work(*args, **kwargs)
    loop = asyncio.get_running_loop()
    key = (id(loop), caller)
    turn = _turns.get(key)
    if turn is None:
        turn = _turns[key] = asyncio.Lock()
    await turn.acquire()
    job = _thread.submit(_without_sweeps, partial(work, *args, **kwargs))
    # Also when its client has left: what runs in a thread can't be stopped, and counts until it ends.
    job.add_done_callback(lambda _: _give_back(loop, turn))
    return await asyncio.wrap_future(job)


def _without_sweeps(work: Callable[[], T]) -> T:
    """A sweep holds the interpreter, and takes longer the more values there are."""
    with paused():
        return work()


def _give_back(loop: asyncio.AbstractEventLoop, turn: asyncio.Lock) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(turn.release)
