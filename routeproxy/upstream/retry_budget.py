"""How many attempts may be second ones at once: when a back end is down, retries must not double its load.

The counts are those of all workers together.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from routeproxy.shared_records import Record, SharedRecords
from routeproxy.upstream.in_flight import MOST_WORKERS, is_alive

LEAST_RETRIES = 3
"""At once, however few requests there are."""
RETRY_SHARE = 0.2
"""Of the requests in flight."""


class WorkerLoad(Record):
    """What one worker, found by its process id, has under way."""

    _fields_ = (("requests", ctypes.c_uint32), ("retries", ctypes.c_uint32))

    requests: int
    retries: int


def worker_loads(*, shared: bool) -> SharedRecords[WorkerLoad]:
    return SharedRecords(WorkerLoad, MOST_WORKERS, shared=shared)


class RetryBudget:
    def __init__(self, loads: SharedRecords[WorkerLoad]) -> None:
        """Made in the worker that it is for: those that died have nothing under way."""
        self._loads = loads
        for load in loads:
            if not is_alive(load.id):
                load.id = load.requests = load.retries = 0
        self._own = loads.find(os.getpid())

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request is under way."""
        self._own.requests += 1
        try:
            yield
        finally:
            self._own.requests -= 1

    def take(self) -> bool:
        """Whether one more may be tried again, which it then is until `give_back`."""
        with self._loads.locked():
            requests = sum(load.requests for load in self._loads)
            retries = sum(load.retries for load in self._loads)
            if retries >= max(LEAST_RETRIES, RETRY_SHARE * requests):
                return False
            self._own.retries += 1
            return True

    def give_back(self) -> None:
        self._own.retries -= 1
