"""The time that an attempt may take: a limit that moves with every part of an answer, at next to no cost.
What the limits are is not decided here."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType

STALL = 0.05
"""Seconds. A timer that fires later than this comes of a loop that was busy, and what arrived meanwhile is
yet to be read."""

LONGEST_STALL = 1.0
"""Seconds that are given for such a delay, at most."""


class BackEndClock:
    """Runs while a back end has a request of ours: not while that waits for our own threads. Whatever is
    scheduled meanwhile, such as the end of an idle connection, keeps it for a minute: so it lets go of its
    attempt, and of a body of megabytes, once that is over."""

    def __init__(self, sent: Callable[[], None], heard: Callable[[], None], over: Callable[[], None]) -> None:
        self._sent: Callable[[], None] | None = sent
        self._heard: Callable[[], None] | None = heard
        self._over: Callable[[], None] | None = over

    def request_sent(self) -> None:
        if self._sent is not None:
            self._sent()

    def bytes_came(self) -> None:
        """Of the answer's body."""
        if self._heard is not None:
            self._heard()

    def request_over(self) -> None:
        if self._over is not None:
            self._over()

    def let_go(self) -> None:
        self._sent = self._heard = self._over = None


BACK_END_CLOCK: ContextVar[BackEndClock | None] = ContextVar("back_end_clock", default=None)
"""The one of the attempt at hand."""


class MovingTimeout:
    """Like `asyncio.timeout_at`, but moving the limit makes no new timer: one that fires too early is set
    again.

    What is awaited while it is paused is never cancelled by it, a client who reads slowly for one. Times are
    those of the event loop.
    """

    def __init__(self, limit: float) -> None:
        self._limit: float | None = limit
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = limit
        self._fired = False
        self._has_waited = False
        """Longer than the limit, once, since the loop was busy."""

    async def __aenter__(self) -> "MovingTimeout":
        self._loop = asyncio.get_running_loop()
        await self._timeout.__aenter__()
        self._timer = self._loop.call_at(self._fires_at, self._on_timer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raises `TimeoutError` if it was the limit that ended the context."""
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    @property
    def expired(self) -> bool:
        return self._timeout.expired()

    def pause(self) -> None:
        self._limit = None
        if self._fired:  # but too late: what it would have ended is there
            self._timeout.reschedule(None)
            self._fired = False

    def move(self, limit: float) -> None:
        """What is awaited from now on must be there by `limit`."""
        self._limit = limit
        self._has_waited = False
        if self._timer is None or limit < self._fires_at:
            self._set_timer(limit)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)
        self._fires_at = when

    def _on_timer(self) -> None:
        self._timer = None
        if self._limit is None:
            return  # paused, and `move` sets it again
        now = self._loop.time()
        if now < self._limit:
            self._set_timer(self._limit)
        elif now - self._limit > STALL and not self._has_waited:
            self._has_waited = True
            self._set_timer(now + min(now - self._limit, LONGEST_STALL))
        else:
            self._fired = True
            self._timeout.reschedule(0.0)  # long ago, so at once
