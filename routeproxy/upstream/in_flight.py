"""How many requests are under way where somebody wants to know, over all workers of a server."""

import ctypes
import os
from contextlib import suppress

from routeproxy.shared_records import Record, SharedRecords

MOST_WORKERS = 128


class WorkerRecord(Record):
    """A worker, found by its process id."""


class InFlightRecord(Record):
    _fields_ = (("total", ctypes.c_int32), ("by_worker", ctypes.c_uint16 * MOST_WORKERS))

    total: int
    by_worker: "ctypes.Array[ctypes.c_uint16]"
    """So that a worker that dies takes its own along."""


def worker_records(*, shared: bool) -> SharedRecords[WorkerRecord]:
    return SharedRecords(WorkerRecord, MOST_WORKERS, shared=shared)


def in_flight_records(*, shared: bool) -> SharedRecords[InFlightRecord]:
    return SharedRecords(InFlightRecord, 2048, shared=shared)


class InFlightCounts:
    """Made in the worker that it is for: those that died have nothing under way."""

    def __init__(self, records: SharedRecords[InFlightRecord], workers: SharedRecords[WorkerRecord]) -> None:
        self._records = records
        with records.locked():
            for worker in workers:
                if not is_alive(worker.id):
                    self._forget(workers.place_of(worker))
                    worker.id = 0
        self.worker = workers.place_of(workers.find(os.getpid()))
        """The place of this one among the workers."""

    def _forget(self, worker: int) -> None:
        for record in self._records:
            record.total -= record.by_worker[worker]
            record.by_worker[worker] = 0

    def id_of(self, *names: str) -> int:
        return self._records.id_of(*names)

    def count(self, id: int) -> int:
        """To look leaves nothing behind."""
        record = self._records.get(id)
        return record.total if record is not None else 0

    def take(self, id: int, limit: int | None = None) -> bool:
        """Counts one more, unless there are as many as `limit`. Whether it did."""
        record = self._records.find(id)
        with self._records.locked():
            if limit is not None and record.total >= limit:
                return False
            record.total += 1
            record.by_worker[self.worker] += 1
            return True

    def give_back(self, id: int) -> None:
        record = self._records.get(id)
        if record is None:
            return
        with self._records.locked():
            if record.by_worker[self.worker]:
                record.total -= 1
                record.by_worker[self.worker] -= 1


def is_alive(process: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True
