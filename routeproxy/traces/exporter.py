"""Spans on their way to a collector. OpenTelemetry is imported by whoever turns traces on."""

import logging
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from routeproxy import __version__
from routeproxy.exchange import Trace
from routeproxy.ledger.pipeline import Recorded
from routeproxy.ledger.rows import RequestRow
from routeproxy.policy.decide import Policy
from routeproxy.policy.telemetry import TraceSettings
from routeproxy.traces.content import content_attributes
from routeproxy.traces.conventions import (
    SCHEMA,
    attempt_attributes,
    attempt_name,
    request_attributes,
    request_name,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

log = logging.getLogger("routeproxy.traces")

NANOSECONDS = 1000
"""In a microsecond."""
SECONDS = 10
"""How long the collector may take for a batch. The pipeline waits for none."""


class TraceExporter:
    """A sink of the ledger's pipeline."""

    def __init__(self, policy: Policy) -> None:
        self._settings: TraceSettings | None = None
        self._processor: SpanProcessor | None = None
        self.update(policy)

    def update(self, policy: Policy) -> None:
        settings = policy.telemetry.traces
        if settings == self._settings:
            return
        before, self._processor, self._settings = self._processor, None, settings
        if before is not None:
            before.shutdown()
        if settings is not None:
            self._processor = _processor(settings.endpoint)

    def take(self, recorded: Sequence[Recorded]) -> None:
        processor, settings = self._processor, self._settings
        if processor is None or settings is None:
            return
        for each in recorded:
            if each.trace is not None and is_wanted(each.row, each.trace, settings):
                for span in _spans(each, each.trace):
                    processor.on_end(span)

    def close(self) -> None:
        if self._processor is not None:
            self._processor.shutdown()


def is_wanted(row: RequestRow, trace: Trace, settings: TraceSettings) -> bool:
    if trace.is_sampled:
        return True
    answers = [attempt for attempt in row.attempts if attempt.purpose == "answer"]
    fell_back = any(
        (one.provider, one.model) != (next.provider, next.model) for one, next in pairwise(answers)
    )
    has_failed = row.error is not None and not row.denied
    return ("error" in settings.always and has_failed) or ("fallback" in settings.always and fell_back)


def _processor(endpoint: str) -> "SpanProcessor | None":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.error("no traces are sent: they need `pip install 'routeproxy[otel]'`")
        return None
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=SECONDS))


def _spans(recorded: Recorded, trace: Trace) -> "Iterator[ReadableSpan]":
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    resource = Resource({"service.name": "routeproxy", "service.version": __version__}, SCHEMA)
    scope = InstrumentationScope("routeproxy", __version__, SCHEMA)

    def context(span_id: str, *, is_remote: bool = False) -> SpanContext:
        flags = TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(int(trace.trace_id, 16), int(span_id, 16), is_remote, flags)

    def status(error: str | None) -> Status:
        return Status(StatusCode.ERROR, error) if error is not None else Status(StatusCode.UNSET)

    row = recorded.row
    yield ReadableSpan(
        name=request_name(row),
        context=context(trace.span_id),
        parent=context(trace.parent_id, is_remote=True) if trace.parent_id is not None else None,
        resource=resource,
        attributes=request_attributes(row) | content_attributes(trace),
        kind=SpanKind.SERVER,
        status=status(row.error if row.status >= 500 or row.client_left else None),
        start_time=row.at * NANOSECONDS,
        end_time=(row.at + row.duration) * NANOSECONDS,
        instrumentation_scope=scope,
    )
    for attempt, unpriced in zip(row.attempts, recorded.attempts, strict=True):
        if unpriced.span_id is not None:
            yield ReadableSpan(
                name=attempt_name(attempt),
                context=context(unpriced.span_id),
                parent=context(trace.span_id),
                resource=resource,
                attributes=attempt_attributes(attempt, unpriced.provider.type),
                kind=SpanKind.CLIENT,
                status=status(attempt.failure),
                start_time=attempt.at * NANOSECONDS,
                end_time=(attempt.at + attempt.duration) * NANOSECONDS,
                instrumentation_scope=scope,
            )
