"""What all workers of a server know together. None of it says anything of a request's text."""

import secrets
import time
from collections.abc import Callable

from routeproxy.shared_records import SharedRecords
from routeproxy.upstream.health import CircuitRecord, circuit_records
from routeproxy.upstream.in_flight import (
    InFlightRecord,
    WorkerRecord,
    in_flight_records,
    worker_records,
)
from routeproxy.upstream.retry_budget import WorkerLoad, worker_loads
from routeproxy.upstream.spread import MovedRecord, moved_records
from routeproxy.upstream.waiting import QueueRecord, TurnRecord, queue_records, turn_records


class SharedState:
    """Made in the parent, and given to its workers when they start."""

    def __init__(self, *, shared: bool = False, now: Callable[[], float] = time.monotonic) -> None:
        """`shared`: there will be workers. `now`: a clock that they all have."""
        self.now = now
        self.secret = secrets.token_bytes(32)
        """Cookies of any worker are read by all. A new one with each start of the server."""
        self.circuits: SharedRecords[CircuitRecord] = circuit_records(shared=shared)
        self.workers: SharedRecords[WorkerRecord] = worker_records(shared=shared)
        self.in_flight: SharedRecords[InFlightRecord] = in_flight_records(shared=shared)
        self.queues: SharedRecords[QueueRecord] = queue_records(shared=shared)
        self.turns: SharedRecords[TurnRecord] = turn_records(shared=shared)
        self.moved: SharedRecords[MovedRecord] = moved_records(shared=shared)
        self.loads: SharedRecords[WorkerLoad] = worker_loads(shared=shared)
