"""What has become of requests, on its way to whoever keeps count: once a second, or when somebody asks for
the counts, a thread prices what came since, and hands it on.
"""

import datetime
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from routeproxy.exchange import Trace
from routeproxy.ledger.price_table import load
from routeproxy.ledger.pricing import cost_of
from routeproxy.ledger.rows import RequestRow
from routeproxy.messages.token_usage import TokenUsage
from routeproxy.policy.providers import Provider

log = logging.getLogger("routeproxy.ledger")

EVERY = 1.0
"""Seconds between two batches."""
MOST_AT_ONCE = 500
"""Requests that are a batch before the second is over."""
MOST_WAITING = 100_000
"""Requests that may wait: only where the thread is stuck do so many."""
EXIT_SECONDS = 5.0


class Unpriced(Struct, frozen=True, gc=False):
    """What an attempt took, and whose prices hold for it."""

    provider: Provider
    tokens: TokenUsage | None
    model_label: str
    """What metrics call the model: only names that the rules state."""
    span_id: str | None = None


class Recorded(Struct, frozen=True, gc=False):
    """A request that is over."""

    row: RequestRow
    attempts: tuple[Unpriced, ...]
    """For each attempt of the row."""
    ledger: Callable[[Sequence["Recorded"]], None] | None = None
    """That which was in force when the request was over."""
    trace: Trace | None = None


Sink = Callable[[Sequence[Recorded]], None]
"""Takes requests whose rows are priced, in the pipeline's thread; an empty sequence says that a second is
over."""


class RecordPipeline:
    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self._queue: deque[Recorded] = deque()
        self._wake = threading.Condition()
        self._working = threading.Lock()
        self._is_closed = False
        self._is_started = False
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self.dropped = 0
        """Requests that nobody has counted."""

    def start(self) -> None:
        """Once, however often it is called."""
        if not self._is_started:
            self._is_started = True
            self._thread.start()

    def put(self, recorded: Recorded) -> None:
        """Returns at once."""
        if len(self._queue) >= MOST_WAITING:
            self.dropped += 1
            return
        self._queue.append(recorded)
        if len(self._queue) == MOST_AT_ONCE:
            with self._wake:
                self._wake.notify()

    def flush(self) -> None:
        """All that was put before has reached the sinks once this returns."""
        with self._working:
            recorded = [self._queue.popleft() for _ in range(len(self._queue))]
            for each in recorded:
                _price(each)
            for sink in self._sinks:
                try:
                    sink(recorded)
                except Exception:
                    log.exception("%d requests are not counted: this is a bug in routeproxy", len(recorded))

    def close(self) -> None:
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(EXIT_SECONDS)

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._is_closed and len(self._queue) < MOST_AT_ONCE:
                    self._wake.wait(EVERY)
                last = self._is_closed
            self.flush()
            if last:
                return


def _price(recorded: Recorded) -> None:
    row, table = recorded.row, load()
    day = datetime.datetime.fromtimestamp(row.at / 10**6, datetime.UTC).date()
    for attempt, unpriced in zip(row.attempts, recorded.attempts, strict=True):
        cost = cost_of(unpriced.tokens, unpriced.provider, attempt.model, day, table, attempt.served_model)
        attempt.cost_nanousd, attempt.price_source = cost.nanousd, cost.source
        attempt.price_version = cost.version
