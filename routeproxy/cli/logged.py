"""Requests from the decision log, to be decided once more."""

from collections.abc import Iterator
from pathlib import Path

from routeproxy.policy.decide import Policy
from routeproxy.policy.logged import logged_request
from routeproxy.policy.questions import HypotheticalRequest
from routeproxy.telemetry.decisions import LoggedDecision, find, read


def logged_question(policy: Policy, request_id: str, log: Path | None) -> HypotheticalRequest:
    """Raises `ValueError` if there is no such decision."""
    path = log or _log_of(policy)
    facts = find(path, request_id).facts
    if facts is None:
        raise ValueError(f"`{request_id}` was refused before its facts were known")
    return logged_request(facts)


def logged(path: Path) -> Iterator[tuple[LoggedDecision, HypotheticalRequest]]:
    """The requests for an answer. Questions for a token count go the same way, and come beside them."""
    for decision in read(path):
        if decision.facts is not None and decision.path == "/v1/messages":
            yield decision, logged_request(decision.facts)


def _log_of(policy: Policy) -> Path:
    if policy.server.decision_log is None:
        raise ValueError("the rules name no `[server] decision_log`: name the file with --log")
    return Path(policy.server.decision_log)
