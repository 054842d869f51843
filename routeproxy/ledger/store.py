"""What a ledger's database must be able to do, whichever it is."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from routeproxy.ledger.dialect import Dialect
from routeproxy.ledger.rows import Batch


class LedgerUnavailable(Exception):
    """The database can't be used now, in words for an operator. It may be tried again."""


class BatchRefused(LedgerUnavailable):
    """The database is well, and will never take this batch: there is something in it that it can't hold."""


class Written:
    """What became of a batch."""

    def __init__(self, requests: int, known: int) -> None:
        self.requests = requests
        """How many rows of requests are new."""
        self.known = known
        """How many were there before: a batch may come twice, and counts once."""


class Store(Protocol):
    """One connection to the database. Its methods raise `LedgerUnavailable`."""

    @property
    def dialect(self) -> Dialect: ...

    async def write(self, batch: Batch, written_at: int) -> Written:
        """All of it, or nothing. `written_at`: now, in microseconds since 1970."""

    async def query(self, sql: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows of a `SELECT` whose values stand in it as `:name`, their columns in its order."""

    async def prune(self, rows_before: int, sums_before: int) -> int:
        """Deletes rows that began before a time, in microseconds, and sums before another, in seconds; how
        many of both."""

    async def forget(self, user: str) -> int:
        """The rows of this user name nobody from now on, nor a session. How many there are."""

    async def aclose(self) -> None: ...
