"""Small records in memory that all workers of a server share: what one of them learns, the others know.

A record is a `ctypes.Structure` that is found by a number. Nothing here waits for another process for longer
than a few milliseconds: a worker that was killed or stopped with the lock in its hands is passed over.
"""

import ctypes
import hashlib
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Generic, TypeVar

log = logging.getLogger("routeproxy.shared_records")

PLACES = 8
"""Where a record may stand, if its own place is another's."""

LONGEST_WAIT = 0.02
"""Seconds for the lock, which is held for microseconds. Whoever holds it for longer is dead or stopped."""


class Record(ctypes.Structure):
    """A record. The fields of a kind of its own come after these, all of them 0 at first."""

    _fields_: ClassVar[Sequence[tuple[str, type[Any]]]] = (
        ("id", ctypes.c_uint64),
        ("used_at", ctypes.c_double),
    )

    id: int
    """0: nobody's yet."""
    used_at: float
    """On the monotonic clock, which all processes of a machine share."""


SomeRecord = TypeVar("SomeRecord", bound=Record)


class SharedRecords(Generic[SomeRecord]):
    """Records of one kind. Made in the parent, and given to its workers when they start."""

    def __init__(self, kind: type[SomeRecord], size: int, *, shared: bool) -> None:
        """`size`: how many there can be. `shared`: there will be workers."""
        self._kind = kind
        self._size = size
        self._salt = os.urandom(16)
        self._records: Any
        self._lock: Any
        self._records, self._lock = _between_workers(kind, size) if shared else ((kind * size)(), None)

    def id_of(self, *names: str) -> int:
        """The number of what has these names. It tells nothing of them, and no other server has it."""
        digest = hashlib.blake2b(key=self._salt, digest_size=8)
        for name in names:
            digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
        return int.from_bytes(digest.digest(), "big") or 1

    def __iter__(self) -> Iterator[SomeRecord]:
        """Those that are somebody's."""
        return (record for record in self._records if record.id)

    def place_of(self, record: SomeRecord) -> int:
        """The place of a record of these among them, from 0 on."""
        return (ctypes.addressof(record) - ctypes.addressof(self._records)) // ctypes.sizeof(record)

    def get(self, id: int) -> SomeRecord | None:
        """The record of this number, if there is one."""
        return next((record for record in self._places_of(id) if record.id == id), None)

    def find(self, id: int) -> SomeRecord:
        """The record of this number, which is made if there is none: if there is no room for it, in place of
        another that was asked for longer ago."""
        record = self.get(id)
        if record is None:
            with self.locked():
                record = self.get(id) or self._make(id)
        record.used_at = time.monotonic()
        return record

    def _make(self, id: int) -> SomeRecord:
        record = min(self._places_of(id), key=lambda record: record.used_at if record.id else -1.0)
        ctypes.memset(ctypes.addressof(record), 0, ctypes.sizeof(record))
        record.id = id
        return record

    def _places_of(self, id: int) -> Iterator[SomeRecord]:
        """Where the record of this number may stand. They are few, however many records there are: whoever
        asks for ever new names must cost no more than others."""
        return (self._records[(id + step) % self._size] for step in range(PLACES))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other worker changes a record meanwhile."""
        if self._lock is None:
            yield
            return
        self._lock.acquire(timeout=LONGEST_WAIT)  # if it is in vain, whoever has it is passed over
        try:
            yield
        finally:
            with suppress(ValueError):  # both of us have let it go
                self._lock.release()


def _between_workers(kind: type[SomeRecord], size: int) -> tuple[Any, Any]:
    """The records, and the lock on them."""
    context = multiprocessing.get_context("spawn")
    try:
        return context.RawArray(kind, size), context.Lock()
    except OSError as error:
        log.warning("workers don't know of each other's failures: no memory to share: %s", error)
        return (kind * size)(), None
