"""Requests from the decision log, for commands that decide them once more."""

import sys
from pathlib import Path

from routeproxy.policy.decide import Policy
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.logged import logged_request
from routeproxy.replay.past import past_of_decision
from routeproxy.replay.replay import Replay
from routeproxy.telemetry.decisions import Reading


def logged_question(policy: Policy, request_id: str, log: Path | None) -> HypotheticalRequest:
    """The request of a logged decision; `log` is None for the log that the rules name. Raises `OSError`, or
    `ValueError` if there is no such decision."""
    reading = Reading(log or _log_of(policy))
    facts = reading.find(request_id).facts
    say_what_is_unread(reading)
    if facts is None:
        raise ValueError(f"`{request_id}` was refused before its facts were known")
    return logged_request(facts)


def replay_log(replay: Replay, reading: Reading) -> None:
    """Each logged decision on a message, decided once more. Raises `OSError`, and `ValueError` for a file in
    which nothing is a decision."""
    for decision in reading.decisions():
        try:
            past = past_of_decision(decision)
        except ValueError:
            replay.add_unreadable()
        else:
            if past is not None:
                replay.add(past)


def say_what_is_unread(reading: Reading) -> None:
    """Says on stderr how many lines were left out."""
    if reading.unreadable:
        print(f"routeproxy: {reading.path}: {reading.unread}, and left out", file=sys.stderr)


def _log_of(policy: Policy) -> Path:
    if policy.server.decision_log is None:
        raise ValueError("the rules name no `[server] decision_log`: name the file with --log")
    return Path(policy.server.decision_log)
