"""Questions to the ledger over HTTP: beside the event loop, few at once, and none of them for long."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec.structs import replace

from routeproxy.ledger.asking import ledger_of, opened
from routeproxy.ledger.store import LedgerUnavailable, Store
from routeproxy.ledger.usage import Question, Usage, usage_of
from routeproxy.ledger.users import known_name
from routeproxy.messages.errors import ApiError
from routeproxy.upstream.guard import LivePolicy
from routeproxy.upstream.keys import SecretFiles

AT_ONCE = 2
"""Questions that a process asks the ledger at once."""
SECONDS = 30.0
"""How long one may take."""

Answer = TypeVar("Answer")


class LedgerQuestions:
    def __init__(self, rules: LivePolicy) -> None:
        self._rules = rules
        self._places = asyncio.Semaphore(AT_ONCE)
        self._files = SecretFiles()

    async def ask(self, work: Callable[[Store], Awaitable[Answer]]) -> Answer:
        """What `work` finds out. Raises `ApiError` where the ledger can't be read, or takes too long."""
        async with self._places:
            try:
                async with asyncio.timeout(SECONDS + 5):
                    return await asyncio.to_thread(lambda: asyncio.run(self._worked(work)))
            except TimeoutError:
                raise ApiError(503, f"the ledger did not answer within {SECONDS:.0f} s") from None
            except ValueError as problem:
                raise ApiError(503, str(problem)) from None

    async def usage(self, question: Question) -> Usage:
        """The same of usage; a user may be asked for by the name of which the ledger only knows a hash."""
        ledger = ledger_of(self._rules.policy)

        async def work(store: Store) -> Usage:
            only = dict(question.only)
            if "user" in only:
                only["user"] = known_name(only["user"], ledger, self._files.value)
            return await usage_of(store, replace(question, only=only))

        return await self.ask(work)

    async def _worked(self, work: Callable[[Store], Awaitable[Answer]]) -> Answer:
        store = await opened(self._rules.policy, self._files.value, seconds=SECONDS)
        try:
            return await work(store)
        except LedgerUnavailable as unavailable:
            raise ValueError(f"the ledger can't be read: {unavailable}") from None
        finally:
            await store.aclose()
