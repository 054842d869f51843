"""What the log says of requests: a line when one is over and, at DEBUG, when it begins."""

import json
import logging
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal

from routeproxy.exchange import Exchange, SmallRequest
from routeproxy.observe import Observer
from routeproxy.telemetry.decisions import milliseconds
from routeproxy.telemetry.lines import LineFields

log = logging.getLogger("routeproxy.requests")

LONGEST_WORD = 200
"""Characters of a path, a model or a name that a line shows."""


class RequestLog(Observer):
    """A line for each request. Those of probes, and what is said when a request begins, are for DEBUG."""

    def request_started(self, exchange: Exchange) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log_request(_began(exchange, "started"), logging.DEBUG)

    def request_decided(self, exchange: Exchange) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log_request(_began(exchange, "decided"), logging.DEBUG)

    def request_done(self, exchange: Exchange) -> None:
        if log.isEnabledFor(logging.INFO):
            log_request(request_record(exchange))

    def small_request_started(self, request: SmallRequest) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log_request(_small_record(request, "started"), logging.DEBUG)

    def small_request_done(self, request: SmallRequest) -> None:
        level = logging.DEBUG if request.is_probe else logging.INFO
        if log.isEnabledFor(level):
            log_request(_small_record(request, "done"), level)


class RequestRecord(LineFields, frozen=True, kw_only=True, omit_defaults=True):
    """What the log tells of a request: names, sizes and times, nothing of prompts or keys. In JSON these are
    the fields, and what is not known is not there."""

    event: Literal["started", "decided", "done"]
    id: str | None = None
    method: str | None = None
    path: str | None = None
    status: int | None = None
    model: str | None = None
    """The one that the client asked for."""
    target: str | None = None
    """Who answered, whose failure was shown, or who is asked first: provider and model."""
    team: str | None = None
    key: str | None = None
    """The name of the key that was shown."""
    rule: str | None = None
    error: str | None = None
    attempts: int | None = None
    skipped: tuple[str, ...] = ()
    """The targets that were passed over, since they failed lately or were full."""
    queued_ms: float | None = None
    """How long it waited for a place, if it did."""
    duration_ms: float | None = None
    first_content_ms: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    judge: str | None = None
    """The target that was asked to judge the tool uses of the answer."""
    verdicts: Mapping[str, int] = {}
    """How many of each it came to."""
    stream: bool = False
    client_left: bool = False
    policy: str | None = None
    """The version of the rules."""

    @property
    def title(self) -> str:
        method = self.method or "-"
        path = _word(self.path.partition("?")[0]) if self.path else "-"
        return f"{method} {path} {self.event if self.status is None else self.status}"

    def __str__(self) -> str:
        return request_line(self)


def request_record(exchange: Exchange) -> RequestRecord:
    """What the log tells of an exchange that is over."""
    inbound, envelope, judged = exchange.inbound, exchange.envelope, exchange.safeguards
    first_content_at, decision, target = exchange.first_content_at, exchange.decision, exchange.target
    input_tokens, output_tokens = exchange.input_and_output_tokens()
    return RequestRecord(
        event="done",
        id=exchange.request_id,
        method=inbound.method,
        path=_cut(inbound.url_path or inbound.path),
        status=exchange.status,
        model=_cut(envelope.model) if envelope else None,
        target=target.name if target else None,
        team=inbound.team,
        key=inbound.key_name,
        rule=decision.rule if decision else None,
        error=exchange.error,
        attempts=len(exchange.attempts),
        skipped=tuple(exchange.skipped),
        queued_ms=milliseconds(exchange.queued) if exchange.queued else None,
        duration_ms=milliseconds(time.perf_counter() - exchange.started),
        first_content_ms=milliseconds(first_content_at - exchange.started)
        if first_content_at is not None
        else None,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        judge=judged.target.name if judged else None,
        verdicts=judged.verdicts if judged else {},
        stream=exchange.stream,
        client_left=exchange.client_left,
        policy=exchange.policy.version,
    )


def _began(exchange: Exchange, event: Literal["started", "decided"]) -> RequestRecord:
    inbound, decision = exchange.inbound, exchange.decision
    targets = decision.targets if decision else ()
    return RequestRecord(
        event=event,
        id=exchange.request_id,
        method=inbound.method,
        path=_cut(inbound.url_path or inbound.path),
        model=_cut(exchange.envelope.model) if exchange.envelope else None,
        target=targets[0].name if targets else None,
        team=inbound.team,
        key=inbound.key_name,
        rule=decision.rule if decision else None,
        stream=exchange.stream,
        policy=exchange.policy.version,
    )


def _small_record(request: SmallRequest, event: Literal["started", "done"]) -> RequestRecord:
    started = request.started
    return RequestRecord(
        event=event,
        id=request.request_id,
        method=request.method,
        path=_cut(request.path) if request.path else None,
        status=request.status or None,
        team=request.team,
        key=request.key_name,
        error=request.error,
        duration_ms=milliseconds(time.perf_counter() - started)
        if started is not None and event == "done"
        else None,
        client_left=request.client_left,
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_WORD else f"{text[:LONGEST_WORD]}…"


def log_request(record: RequestRecord, level: int = logging.INFO) -> None:
    if log.isEnabledFor(level):
        log.handle(_Line(record, level))


class _Line(logging.LogRecord):
    """What `log.info(message)` would make, which looks up who called it, where that file lies and what it is
    called: three times the work of the line itself."""

    _same: ClassVar[dict[str, Any]] = vars(log.makeRecord(log.name, logging.INFO, __file__, 0, "", (), None))

    def __init__(self, request: RequestRecord, level: int) -> None:
        now, same = time.time(), self._same
        self.__dict__.update(
            same,
            msg=request,
            created=now,
            msecs=float(int(now % 1 * 1000)),
            relativeCreated=same["relativeCreated"] + (now - same["created"]) * 1000,
        )
        if level != logging.INFO:
            self.levelno, self.levelname = level, logging.getLevelName(level)


def request_line(record: RequestRecord) -> str:
    """`POST /v1/messages 200 claude-opus-4-8 -> openai/gpt-4.1 rule=default attempts=1 time=812ms …`"""
    words = [record.title]
    if record.model is not None:
        words.append(_word(record.model))
    if record.target is not None:
        words.append(f"-> {_word(record.target)}")
    if record.team is not None:
        words.append(f"team={_word(record.team)}")
    if record.key is not None:
        words.append(f"key={_word(record.key)}")
    if record.rule is not None:
        words.append(f"rule={_word(record.rule)}")
    if record.error is not None:
        words.append(f"error={_word(record.error)}")
    if record.attempts is not None:
        words.append(f"attempts={record.attempts}")
    words += [f"skipped={_word(target)}" for target in record.skipped]
    if record.queued_ms is not None:
        words.append(f"queued={record.queued_ms:.0f}ms")
    if record.duration_ms is not None:
        words.append(f"time={record.duration_ms:.0f}ms")
    if record.first_content_ms is not None:
        words.append(f"first={record.first_content_ms:.0f}ms")
    if record.input_tokens is not None:
        words.append(f"in={record.input_tokens}")
    if record.output_tokens is not None:
        words.append(f"out={record.output_tokens}")
    if record.judge is not None:
        words.append(f"judge={_word(record.judge)}")
        words += [f"{verdict}={count}" for verdict, count in record.verdicts.items()]
    if record.stream:
        words.append("stream")
    if record.client_left:
        words.append("client-left")
    if record.policy is not None:
        words.append(f"policy={_word(record.policy)}")
    if record.id is not None:
        words.append(f"id={_word(record.id)}")
    return " ".join(words)


PLAIN = re.compile(r"[\w./:@+*\[\]-]+", re.ASCII)


@lru_cache(1024)
def _word(text: str) -> str:
    """`text` so that it can neither end its word nor its line."""
    if PLAIN.fullmatch(text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
