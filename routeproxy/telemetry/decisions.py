"""The decision log: one JSON line a request, so that it can be explained and decided again later. Names,
sizes and what rules look at; nothing of prompts, answers or keys."""

import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from routeproxy.exchange import AttemptRecord, Exchange
from routeproxy.messages.losses import Loss
from routeproxy.observe import Observer
from routeproxy.policy.decide import Policy
from routeproxy.policy.logged import logged_facts
from routeproxy.telemetry.line_writer import FileOutput, LineWriter, counted_lines

log = logging.getLogger("routeproxy.serve")


class LoggedSafeguards(Struct, frozen=True, kw_only=True):
    target: str
    failure: str | None = None
    """Why there was no verdict: the class of a failure, `timeout`, `unreadable` or `invariant`."""
    verdicts: Mapping[str, int] = {}
    """How many of each: `flagged`, `not_flagged`, `unavailable`."""


class LoggedDecision(Struct, frozen=True, kw_only=True):
    time: str
    """`2026-11-25T22:23:28.123Z`"""
    id: str
    shown_id: str | UnsetType = UNSET
    """The id that the client got instead: that of the back end whose answer was relayed."""
    path: str
    version: str
    key: str | None = None
    """What the rules call the key that was shown; of which team it is, `facts` tells."""
    rule: str | None
    facts: dict[str, Any] | None
    """What rules could look at, by name (`policy.logged` says what is kept). `None`: the request was refused
    before its facts were known."""
    targets: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    """Who speaks to each of `targets`: `direct`, we ourselves, or `litellm`."""
    attempts: tuple[tuple[str, str | None], ...] = ()
    """Each target that was tried, and the class of its failure."""
    skipped: dict[str, str] | UnsetType = UNSET
    queued_ms: float | UnsetType = UNSET
    """The targets that were passed over, each with why: it failed lately."""
    shadow: Mapping[str, str] | UnsetType = UNSET
    """What shadow rules would have done with it, by their names: targets, `denied`, or `unknown`."""
    dropped: dict[str, Mapping[Loss, int]] | UnsetType = UNSET
    asked_again: dict[str, str] | UnsetType = UNSET
    """The target that was asked once more in another shape, and what of the request it had refused."""
    safeguards: LoggedSafeguards | UnsetType = UNSET
    """Only where a target was asked to judge the tool uses of the answer."""
    status: int = 0
    error: str | None = None
    client_left: bool = False
    duration_ms: float | None = None
    first_content_ms: float | None = None
    """`None` if no content came."""
    input_tokens: int | None = None
    """Those that were read from a cache included; `None` where the back end reported none."""
    output_tokens: int | None = None


class DecisionLog(Observer):
    """Writes the decision log that the policy in force names, if it names one. A thread does it, so that no
    request waits for a disk or for who reads a pipe."""

    def __init__(self, policy: Policy) -> None:
        self._writer: LineWriter | None = None
        self._path: str | None = None
        self._older_writers: list[LineWriter] = []
        self._encode = msgspec.json.Encoder().encode
        self.update(policy)

    def update(self, policy: Policy) -> None:
        """From now on `policy` says where the log is."""
        if policy.server.decision_log == self._path:
            return
        if self._writer is not None:
            self._writer.close(0)
            self._older_writers.append(self._writer)
        self._path = policy.server.decision_log
        self._writer = None
        if self._path is not None:
            # It names people and what they did: not for everybody on the machine.
            output = FileOutput(Path(self._path), 0o640)
            self._writer = LineWriter(output, "the decision log", self._path)

    @property
    def lost(self) -> int:
        """How many decisions are in no log, though one is named."""
        return sum(writer.lost for writer in (*self._older_writers, self._writer) if writer is not None)

    def close(self) -> None:
        """Writes what is still to be written; not for long, if that can't be done."""
        if self._writer is not None and not self._writer.close():
            lines = counted_lines(self._writer.unwritten, "was not written", "were not written")
            log.error("the decision log ends before the end: %s (%s)", lines, self._path)

    def first_content(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        is_logged = exchange.policy.server.decision_log is not None
        if exchange.facts is not None and exchange.logged_facts is None and is_logged:
            exchange.logged_facts = logged_facts(exchange.facts, exchange.policy)

    def request_done(self, exchange: Exchange) -> None:
        if self._writer is not None and exchange.endpoint != "route":  # which decides nothing, it only asks
            self._writer.put(self._encode(logged_decision(exchange)) + b"\n")


def logged_decision(exchange: Exchange) -> LoggedDecision:
    """The line of the decision log for `exchange`."""
    decision, facts = exchange.decision, exchange.logged_facts
    if facts is None and exchange.facts is not None and not exchange.facts.text_is_forgotten:
        facts = logged_facts(exchange.facts, exchange.policy)
    attempts = exchange.attempts if exchange.endpoint == "messages" else ()
    content_at = exchange.first_content_at
    input_tokens, output_tokens = exchange.input_and_output_tokens()
    return LoggedDecision(
        time=now(),
        id=exchange.request_id,
        shown_id=exchange.shown_id if exchange.shown_id != exchange.request_id else UNSET,
        path=exchange.inbound.path,
        version=exchange.policy.version,
        key=exchange.inbound.key_name,
        rule=decision.rule if decision else None,
        facts=dict(facts) if facts is not None else None,
        targets=tuple(target.name for target in decision.targets) if decision else (),
        engines=tuple(target.engine for target in decision.targets) if decision else (),
        attempts=tuple((attempt.target.name, attempt.failure) for attempt in attempts),
        skipped=dict(exchange.skipped) or UNSET,
        queued_ms=milliseconds(exchange.queued) if exchange.queued else UNSET,
        shadow=exchange.shadow or UNSET,
        safeguards=_safeguards(exchange.safeguards),
        dropped={attempt.target.name: attempt.dropped for attempt in attempts if attempt.dropped} or UNSET,
        asked_again={attempt.target.name: attempt.asked_again for attempt in attempts if attempt.asked_again}
        or UNSET,
        status=exchange.status,
        error=exchange.error,
        client_left=exchange.client_left,
        duration_ms=milliseconds(time.perf_counter() - exchange.started),
        first_content_ms=milliseconds(content_at - exchange.started) if content_at is not None else None,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )


def _safeguards(attempt: AttemptRecord | None) -> LoggedSafeguards | UnsetType:
    if attempt is None:
        return UNSET
    return LoggedSafeguards(
        target=attempt.target.name, failure=attempt.failure, verdicts=dict(attempt.verdicts)
    )


def milliseconds(seconds: float) -> float:
    """For a log: tenths are enough."""
    return round(seconds * 1000, 1)


def now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


class Reading:
    """What is read from a decision log, and how much of it can't be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unreadable = 0
        """Lines so far that are no decision of ours, such as what a full disk has torn."""

    def decisions(self) -> Iterator[LoggedDecision]:
        """Raises `OSError`, and `ValueError` for a file in which nothing is a decision."""
        decode = msgspec.json.Decoder(LoggedDecision).decode
        found = False
        with self.path.open("rb") as file:
            for line in file:
                if not line.strip():
                    continue
                start = 0
                while start >= 0:
                    try:
                        decision = decode(line[start:])
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        if start == 0:
                            self.unreadable += 1
                        # Another worker may have written behind what was torn.
                        start = line.find(BEGINNING, start + 1)
                    else:
                        found = True
                        yield decision
                        break
        if self.unreadable and not found:
            raise ValueError(f"{self.path}: no line of it is a logged decision")

    def find(self, request_id: str) -> LoggedDecision:
        """The latest of this id. Raises `OSError` and `ValueError`."""
        found = None
        for decision in self.decisions():
            if request_id in (decision.id, decision.shown_id):
                found = decision
        if found is None:
            besides = f" in the lines that can be read; {self.unread}" if self.unreadable else ""
            raise ValueError(f"{self.path} has no decision `{request_id}`{besides}")
        return found

    @property
    def unread(self) -> str:
        """How many lines can't be read, in words."""
        return counted_lines(self.unreadable, "is not readable", "are not readable")


BEGINNING = b'{"time":"'
"""How each line begins. Within one it can't stand: what clients write is escaped."""
