"""Metrics as they are asked for: those of this process alone, or of all workers of the server."""

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

from routeproxy.ledger.pipeline import Recorded
from routeproxy.ledger.recorder import Recorder
from routeproxy.metrics.counting import Metrics
from routeproxy.metrics.exposition import exposed, format_for
from routeproxy.metrics.snapshot import merged
from routeproxy.metrics.workers import MetricsFolder

log = logging.getLogger("routeproxy.metrics")


class Exposition(NamedTuple):
    content_type: str
    body: bytes


class MetricsService:
    def __init__(self, metrics: Metrics, folder: MetricsFolder | None) -> None:
        """`folder`: where the workers of a server publish; `None`: there is one process."""
        self.metrics = metrics
        self._folder = folder
        self._problem: str | None = None
        self.recorder: Recorder

    def take(self, recorded: Sequence[Recorded]) -> None:
        """Counts, and tells the other workers. A sink of the pipeline."""
        self.metrics.count(recorded)
        if self._folder is not None:
            self._publish(self._folder)

    async def exposition(self, accept: str) -> Exposition:
        """All that was over before it was asked for is counted."""
        return await asyncio.to_thread(self._exposition, accept)

    def _exposition(self, accept: str) -> Exposition:
        self.recorder.flush()
        content_type = format_for(accept)
        own = self.metrics.snapshot()
        if self._folder is None or self._problem is not None:
            return Exposition(content_type, exposed(merged((own,)), content_type))
        return Exposition(content_type, exposed(self._folder.read(), content_type))

    def _publish(self, folder: MetricsFolder) -> None:
        try:
            folder.publish(self.metrics.snapshot())
        except OSError as error:
            if self._problem is None:
                log.error("metrics are those of one worker alone: %s can't be written", error.filename)
            self._problem = str(error)
        else:
            self._problem = None
