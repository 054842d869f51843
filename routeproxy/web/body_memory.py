"""The memory that the bodies of requests take, all requests of a process together. What does not fit waits
before it is read, in turns among callers; small bodies have a share that large ones can't take.

A body counts for `COPIES` times its bytes from before it is read until its text is let go: at the first
content of the answer, or at the request's end. One whose length is stated counts at once, any other as it
grows. A body that grew half and then had to wait for others that grew half would wait for ever, so one body
at a time may go beyond the budget to its end: `budget` plus one body is the most that is ever held.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import Literal

from routeproxy.messages.errors import ApiError
from routeproxy.web.response import DisconnectSignal

COPIES = 2
"""How often a body is held: as it came, and as it goes to the back end (or, for a moment, decompressed)."""

SMALL = COPIES * 2**20
"""Bytes of memory. What takes more is large."""

SHARE_OF_SMALL = 4
"""Small bodies have the budget's part that is one by this for themselves."""

RETRY_AFTER = "5"
"""Seconds."""

Pool = Literal["small", "shared"]


class ClientLeft(Exception):
    """The client hung up before its request was complete: nobody waits for an answer."""


class BodyMemory:
    def __init__(
        self, budget: Callable[[], int], patience: float, on_let_go: Callable[[], object] = lambda: None
    ) -> None:
        """`budget`: bytes, as the rules in force have it. `patience`: seconds that a body waits at most.
        `on_let_go` hears when nothing is held any more, of large bodies among others."""
        self._budget = budget
        self._on_let_go = on_let_go
        self._has_held_large = False
        self.patience = patience
        self._used: dict[Pool, int] = {"small": 0, "shared": 0}
        self._growing: deque[_Waiter] = deque()
        """They hold some already, so they go first."""
        self._small, self._large = _Turns(), _Turns()
        self._overdrawn: HeldBody | None = None

    @property
    def used(self) -> int:
        """Bytes that are held or promised now."""
        return self._used["small"] + self._used["shared"]

    @property
    def waiting(self) -> int:
        """Bodies."""
        return len(self._growing) + len(self._small) + len(self._large)

    def hold(self, signal: DisconnectSignal | None = None) -> "HeldBody":
        """A body of which nothing is held yet. `signal` is fired when its client leaves."""
        return HeldBody(self, signal)

    def take(self, held: "HeldBody", size: int) -> "_Waiter | None":
        """Makes `held` as large as `size`; what it has to wait for, if it must."""
        if not (self._growing or self._small or self._large) and self._place(held, size):
            return None
        waiter = _Waiter(held, size)
        self._queue_of(waiter).append(waiter)
        self._admit()
        return None if waiter.granted.done() else waiter

    def give_up(self, waiter: "_Waiter") -> None:
        self._queue_of(waiter).remove(waiter)
        self._admit()  # it may have stood before one that fits

    def give_back(self, held: "HeldBody", size: int) -> None:
        """`held` is no larger than `size` any more."""
        if held.pool is not None:
            self._used[held.pool] -= held.size - size
        held.size = size
        if not size and self._overdrawn is held:
            self._overdrawn = None
        self._admit()
        if self._has_held_large and not self.used:
            self._has_held_large = False
            self._on_let_go()

    def _queue_of(self, waiter: "_Waiter") -> "deque[_Waiter] | _Turns":
        if waiter.grows:
            return self._growing
        return self._small if waiter.size <= SMALL else self._large

    def _admit(self) -> None:
        """Whoever is next and fits goes on."""
        while self._growing:
            first = self._growing[0]
            if not self._place(first.held, first.size):
                if self._overdrawn is not None:
                    break
                self._overdrawn = first.held
                self._move(first.held, "shared", first.size)
            self._growing.popleft().grant()
        while (next_small := self._small.first()) is not None:
            is_next = not (self._growing or self._large)
            if not self._place(next_small.held, next_small.size, may_share=is_next):
                break
            self._small.next_turn().grant()
        while not self._growing and (next_large := self._large.first()) is not None:
            if not self._place(next_large.held, next_large.size):
                break
            self._large.next_turn().grant()

    def _place(self, held: "HeldBody", size: int, *, may_share: bool = True) -> bool:
        budget = self._budget()
        for_small = budget // SHARE_OF_SMALL
        if size <= SMALL and held.pool != "shared" and self._fits(held, "small", size, for_small):
            return True
        return may_share and self._fits(held, "shared", size, budget - for_small)

    def _fits(self, held: "HeldBody", pool: Pool, size: int, capacity: int) -> bool:
        """Takes it, if it does. What is larger than all there is fits while it is alone."""
        others = self._used[pool] - (held.size if held.pool == pool else 0)
        if others and others + size > capacity:
            return False
        self._move(held, pool, size)
        return True

    def _move(self, held: "HeldBody", pool: Pool, size: int) -> None:
        if held.pool is not None:
            self._used[held.pool] -= held.size
        self._used[pool] += size
        held.pool, held.size = pool, size
        self._has_held_large |= size > SMALL


class HeldBody:
    """What is held of one body."""

    def __init__(self, memory: BodyMemory, signal: DisconnectSignal | None) -> None:
        self.caller: Hashable = None
        """Whose turn it takes if it has to wait."""
        self.pool: Pool | None = None
        self.size = 0
        """Bytes of memory."""
        self._memory = memory
        self._signal = signal
        self._patience = memory.patience

    @property
    def room(self) -> int:
        """Bytes that the body may have."""
        return self.size // COPIES

    async def grow(self, length: int) -> None:
        """Returns once a body of `length` bytes may be held. Raises `ApiError` (529) if that takes too long,
        and `ClientLeft`."""
        size = length * COPIES
        if size > self.size and (waiter := self._memory.take(self, size)) is not None:
            await self._wait(waiter)

    def shrink(self, length: int) -> None:
        """The body has turned out to have `length` bytes."""
        if length * COPIES < self.size:
            self._memory.give_back(self, length * COPIES)

    def release(self) -> None:
        """The text is let go."""
        if self.size:
            self._memory.give_back(self, 0)

    async def _wait(self, waiter: "_Waiter") -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        timer = loop.call_later(self._patience, waiter.end, "late")
        signal = self._signal

        def on_disconnect() -> None:
            waiter.end("left")

        if signal is not None:
            signal.listeners.add(on_disconnect)
            signal.is_body_waiting = True
            if signal.is_gone:
                on_disconnect()
        outcome: Outcome = "left"  # unless somebody waits for this to its end
        try:
            outcome = await waiter.granted
        finally:
            timer.cancel()
            self._patience -= loop.time() - started
            if signal is not None:
                signal.listeners.discard(on_disconnect)
                signal.is_body_waiting = False
            if outcome != "granted" and not waiter.is_granted:
                self._memory.give_up(waiter)
        if outcome == "late":
            words = "routeproxy holds as many large requests as it can at once; try again"
            raise ApiError(529, words, headers={"retry-after": RETRY_AFTER})
        if outcome == "left":
            raise ClientLeft


Outcome = Literal["granted", "late", "left"]


class _Waiter:
    """`held` waits to become as large as `size`."""

    def __init__(self, held: HeldBody, size: int) -> None:
        self.held = held
        self.size = size
        self.grows = held.size > 0
        self.is_granted = False
        self.granted: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def grant(self) -> None:
        """It is in no queue any more."""
        self.is_granted = True
        self.end("granted")

    def end(self, outcome: Outcome) -> None:
        if not self.granted.done():
            self.granted.set_result(outcome)


class _Turns:
    """Who waits: each caller's in the order in which they came, one of each caller in turn."""

    def __init__(self) -> None:
        self._by_caller: dict[Hashable, deque[_Waiter]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, waiter: _Waiter) -> None:
        self._by_caller.setdefault(waiter.held.caller, deque()).append(waiter)
        self._size += 1

    def first(self) -> _Waiter | None:
        for waiters in self._by_caller.values():
            return waiters[0]
        return None

    def next_turn(self) -> _Waiter:
        """Takes the first out; its caller is the last from now on."""
        caller = next(iter(self._by_caller))
        waiters = self._by_caller.pop(caller)
        waiter = waiters.popleft()
        self._size -= 1
        if waiters:
            self._by_caller[caller] = waiters
        return waiter

    def remove(self, waiter: _Waiter) -> None:
        waiters = self._by_caller[waiter.held.caller]
        waiters.remove(waiter)
        self._size -= 1
        if not waiters:
            del self._by_caller[waiter.held.caller]
