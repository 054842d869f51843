"""The decision log: one JSON line a request, so that it can be explained and decided again later. Names,
sizes and what rules look at; nothing of prompts, answers or keys."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from routeproxy.exchange import AttemptRecord, Exchange
from routeproxy.observe import Observer
from routeproxy.policy.decide import Policy
from routeproxy.policy.logged import logged_facts

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


class DecisionFile:
    """Appends. Each line is one write, which the system keeps whole, so several workers may share the file.
    One that was moved away is opened anew, so `logrotate` needs to tell nobody."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._inode = (0, 0)

    def write(self, decision: LoggedDecision) -> None:
        self._open()
        os.write(self._file, msgspec.json.encode(decision) + b"\n")

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        with suppress(FileNotFoundError):
            found = self._path.stat()
            if self._file >= 0 and (found.st_dev, found.st_ino) == self._inode:
                return
        self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # It names people and what they did: not for everybody on the machine.
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        found = os.fstat(self._file)
        self._inode = (found.st_dev, found.st_ino)


class DecisionLog(Observer):
    """Writes the decision log that the policy in force names, if it names one."""

    def __init__(self, policy: Policy) -> None:
        self._file: DecisionFile | None = None
        self._path: str | None = None
        self._has_failed = False
        self.update(policy)

    def update(self, policy: Policy) -> None:
        """From now on `policy` says where the log is."""
        if policy.server.decision_log != self._path:
            if self._file is not None:
                self._file.close()
            self._path = policy.server.decision_log
            self._file = DecisionFile(Path(self._path)) if self._path is not None else None

    def first_content(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        if exchange.facts is not None and exchange.policy.server.decision_log is not None:
            exchange.logged_facts = logged_facts(exchange.facts, exchange.policy)

    def request_done(self, exchange: Exchange) -> None:
        if self._file is None or exchange.endpoint == "route":  # nothing was decided, it was only asked about
            return
        try:
            self._file.write(logged_decision(exchange))
            self._has_failed = False
        except OSError as error:
            # Nobody's answer depends on it, and a full disk must not fill the other log too.
            if not self._has_failed:
                log.error("the decision log can't be written: %s", error)
            self._has_failed = True


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
        safeguards=_safeguards(exchange.safeguards),
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


def read(path: Path) -> Iterator[LoggedDecision]:
    """Raises `ValueError` with the line that is not one of ours."""
    decode = msgspec.json.Decoder(LoggedDecision).decode
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    raise ValueError(f"{path}:{number}: not a logged decision") from None


def find(path: Path, request_id: str) -> LoggedDecision:
    """The latest of this id. Raises `ValueError`."""
    found = None
    for decision in read(path):
        if request_id in (decision.id, decision.shown_id):
            found = decision
    if found is None:
        raise ValueError(f"{path} has no decision `{request_id}`")
    return found
