"""When a server has too much to do: new work is refused first, so that what is under way can be finished."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from routeproxy.messages.errors import ApiError

log = logging.getLogger("routeproxy.web.overload")

TICK = 0.5
"""Seconds between looks at the event loop's clock."""
LATE = 2.0
"""Seconds by which the loop is late, twice in a row, that are too many: by then everybody waits so long for
each word."""
RETRY_AFTER = "5"
"""Seconds."""
MEMORY_EVERY = 1.0
"""Seconds between looks at the memory."""

_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Overload:
    def __init__(
        self, memory_limit: Callable[[], int | None], memory: Callable[[], int | None] | None = None
    ) -> None:
        """`memory_limit`: bytes, as the rules in force have it. `memory`: those that the process takes."""
        self._memory_limit = memory_limit
        self._memory = memory or resident_memory
        self._lags = (0.0, 0.0)
        self._is_ticking = False
        self._too_much_memory = ""
        self._looked_at = -MEMORY_EVERY
        self._told = ""

    def reason(self) -> str:
        """Why new work is refused; empty: it isn't."""
        limit = self._memory_limit()
        if limit is not None and time.monotonic() - self._looked_at >= MEMORY_EVERY:
            self._looked_at, used = time.monotonic(), self._memory()
            over = used is not None and used > limit
            self._too_much_memory = (
                f"it takes {used // 2**20} MB of memory, and may take {limit // 2**20}"
                if over and used
                else ""
            )
        if limit is None:
            self._too_much_memory = ""
        late = min(self._lags)
        return f"its event loop is {late:.1f} s late" if late >= LATE else self._too_much_memory

    @property
    def lag(self) -> float:
        """By how many seconds the event loop was late, the last time that somebody looked."""
        return self._lags[1]

    def refuse_new_work(self) -> None:
        """Raises `ApiError` (529) while there is too much to do."""
        self._watch()
        reason = self.reason()
        if reason and not self._told:
            log.error("new requests are refused, since the server is overloaded: %s", reason)
        elif self._told and not reason:
            log.warning("new requests are answered again")
        self._told = reason
        if reason:
            headers = {"retry-after": RETRY_AFTER}
            raise ApiError(529, "this server is overloaded; try again", headers=headers)

    def _watch(self) -> None:
        if not self._is_ticking:
            self._is_ticking = True
            loop = asyncio.get_running_loop()
            loop.call_later(TICK, self._tick, loop, loop.time() + TICK)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self._lags = (self._lags[1], max(0.0, now - due))
        loop.call_later(TICK, self._tick, loop, now + TICK)


def resident_memory() -> int | None:
    """Bytes that this process takes; `None` where the system doesn't say."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None
