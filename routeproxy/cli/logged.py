"""Requests from the decision log, for commands that decide them once more."""

import sys
from collections.abc import Iterator
from pathlib import Path

from routeproxy.policy.decide import Policy
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.logged import logged_request
from routeproxy.telemetry.decisions import LoggedDecision, Reading


def logged_question(policy: Policy, request_id: str, log: Path | None) -> HypotheticalRequest:
    """The request of a logged decision; `log` is None for the log that the rules name. Raises `OSError`, or
    `ValueError` if there is no such decision."""
    reading = Reading(log or _log_of(policy))
    facts = reading.find(request_id).facts
    say_what_is_unread(reading)
    if facts is None:
        raise ValueError(f"`{request_id}` was refused before its facts were known")
    return logged_request(facts)


def logged_questions(reading: Reading) -> Iterator[tuple[LoggedDecision, HypotheticalRequest]]:
    """Each logged decision on a message, with its request. Token counts are left out: they are decided alike,
    and each comes beside a message."""
    for decision in reading.decisions():
        if decision.facts is not None and decision.path == "/v1/messages":
            yield decision, logged_request(decision.facts)


def say_what_is_unread(reading: Reading) -> None:
    """Says on stderr how many lines were left out."""
    if reading.unreadable:
        print(f"routeproxy: {reading.path}: {reading.unread}, and left out", file=sys.stderr)


def _log_of(policy: Policy) -> Path:
    if policy.server.decision_log is None:
        raise ValueError("the rules name no `[server] decision_log`: name the file with --log")
    return Path(policy.server.decision_log)
