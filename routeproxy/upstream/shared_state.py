"""What all workers of a server know together. None of it says anything of a request's text."""

from routeproxy.shared_records import SharedRecords
from routeproxy.upstream.health import CircuitRecord, circuit_records
from routeproxy.upstream.retry_budget import WorkerLoad, worker_loads


class SharedState:
    """Made in the parent, and given to its workers when they start."""

    def __init__(self, *, shared: bool = False) -> None:
        """`shared`: there will be workers."""
        self.circuits: SharedRecords[CircuitRecord] = circuit_records(shared=shared)
        self.loads: SharedRecords[WorkerLoad] = worker_loads(shared=shared)
