"""The time that an attempt may take: a limit that moves with every part of an answer, at next to no cost."""

import asyncio
from types import TracebackType


class Clock:
    """Like `asyncio.timeout_at`, but moving the limit makes no timer: one that rings too early looks again.

    What is awaited while it is paused is not its affair and never cancelled by it, a client who reads slowly
    for one.
    """

    def __init__(self, limit: float) -> None:
        self._limit: float | None = limit
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = limit
        self._rang = False

    async def __aenter__(self) -> "Clock":
        self._loop = asyncio.get_running_loop()
        await self._timeout.__aenter__()
        self._timer = self._loop.call_at(self._rings_at, self._ring)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raises `TimeoutError` if it was the clock that ended the context."""
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    @property
    def expired(self) -> bool:
        return self._timeout.expired()

    def pause(self) -> None:
        self._limit = None
        if self._rang:  # but too late: what it would have ended is there
            self._timeout.reschedule(None)
            self._rang = False

    def move(self, limit: float) -> None:
        """What is awaited from now on must be there by then."""
        self._limit = limit
        if self._timer is None or limit < self._rings_at:
            self._set(limit)

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._ring)
        self._rings_at = when

    def _ring(self) -> None:
        self._timer = None
        if self._limit is None:
            return  # `move` sets it again
        if self._loop.time() < self._limit:
            self._set(self._limit)
        else:
            self._rang = True
            self._timeout.reschedule(0.0)  # long ago, so at once
