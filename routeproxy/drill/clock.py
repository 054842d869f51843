"""An event loop that waits faster: where nothing is to be done, its clock runs ahead, so that minutes of
silence pass in seconds and in the same order. What is computed takes the time that it takes."""

import asyncio
import selectors
import time
from collections.abc import Mapping
from typing import Any


class FastLoop(asyncio.SelectorEventLoop):
    def __init__(self, speed: float) -> None:
        """`speed`: the seconds of its clock in one second of waiting."""
        self._impatient = _ImpatientSelector(speed)
        super().__init__(self._impatient)

    def time(self) -> float:
        return super().time() + self._impatient.skipped


class _ImpatientSelector(selectors.BaseSelector):
    """Waits for a part of the time that it is told."""

    def __init__(self, speed: float) -> None:
        self._selector = selectors.DefaultSelector()
        self._speed = speed
        self.skipped = 0.0
        """Seconds that its clock is ahead."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if not timeout:
            return self._selector.select(timeout)
        began = time.monotonic()
        ready = self._selector.select(timeout / self._speed)
        self.skipped += (time.monotonic() - began) * (self._speed - 1)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.modify(fileobj, events, data)

    def close(self) -> None:
        self._selector.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._selector.get_map()
