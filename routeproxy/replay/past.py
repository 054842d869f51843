"""A request that was answered once, as a log or the ledger has it."""

import datetime
import time
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from routeproxy.ledger.rows import AttemptRow, RequestRow
from routeproxy.messages.token_usage import TokenUsage
from routeproxy.policy.logged import SESSION, SESSION_IN_BODY
from routeproxy.policy.recorded import RecordedRequest
from routeproxy.telemetry.decisions import LoggedDecision

DENIED = "denied"
NOBODY = "nobody"
"""Who was asked where the client left before, or all targets were passed over."""
ANSWERED_PATH = "/v1/messages"
"""Counts of tokens are left out: they are decided alike, and each comes beside a message."""


class PastRequest(Struct, frozen=True, kw_only=True):
    id: str
    time: str
    """`2026-12-01T12:00:00.000Z`"""
    day: datetime.date
    """The same, in UTC."""
    team: str | None
    session: str | None
    request: RecordedRequest
    rule: str
    first: str
    """The target that was asked first, `DENIED`, or `NOBODY`."""
    passed_over: frozenset[str]
    """Targets that were not asked since they had failed lately, or were full."""
    targets: tuple[str, ...] | None
    """All that it might have reached; `None`: not recorded."""
    tokens: TokenUsage | None
    """Of the answer; `None`: nobody told."""
    provider: str | None
    """Of the target that answered."""
    model: str | None
    cost_nanousd: int | None
    """Of all its attempts; `None`: not recorded, or not known."""
    cost_is_recorded: bool
    """`cost_nanousd` is what was written down then, be it that nobody knew."""


def past_of_row(row: RequestRow) -> PastRequest | None:
    """`None`: it asked for no message, or was refused before its facts were known. Raises `ValueError` for
    facts that can't be read."""
    if row.path != ANSWERED_PATH or row.rule is None or not row.facts:
        return None
    attempts = [attempt for attempt in row.attempts if attempt.purpose == "answer"]
    answered = _answered(attempts)
    first = DENIED if row.denied else attempts[0].provider + "/" + attempts[0].model if attempts else NOBODY
    used = [attempt for attempt in row.attempts if attempt.price_source]
    costs = [attempt.cost_nanousd for attempt in used]
    facts = dict(row.facts)
    if row.session is not None and SESSION not in facts:
        facts[SESSION_IN_BODY] = row.session
    return PastRequest(
        id=f"req_{row.id}",
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row.at // 10**6)),
        day=_day(row.at // 10**6),
        team=row.team,
        session=row.session,
        request=RecordedRequest(facts, request_id=f"req_{row.id}"),
        rule=row.rule,
        first=first,
        passed_over=frozenset(row.skipped),
        targets=None,
        tokens=_tokens(answered) if answered is not None else None,
        provider=answered.provider if answered is not None else None,
        model=answered.model if answered is not None else None,
        cost_nanousd=None if None in costs else sum(cost for cost in costs if cost is not None),
        cost_is_recorded=True,
    )


def past_of_decision(decision: LoggedDecision) -> PastRequest | None:
    """The same of a line of the decision log, which tells neither costs nor what came from a cache."""
    facts: Mapping[str, Any] | None = decision.facts
    if decision.path != ANSWERED_PATH or facts is None or decision.rule is None:
        return None
    asked = [name for name, _ in decision.attempts]
    first = asked[0] if asked else decision.targets[0] if decision.targets else DENIED
    provider, _, model = (asked[-1] if asked else "").partition("/")
    tokens = None
    if decision.output_tokens is not None:
        tokens = TokenUsage(input_uncached=decision.input_tokens, output=decision.output_tokens)
    return PastRequest(
        id=decision.id,
        time=decision.time,
        day=datetime.date.fromisoformat(decision.time[:10]),
        team=facts.get("team"),
        session=facts.get(SESSION) or facts.get(SESSION_IN_BODY),
        request=RecordedRequest(facts, request_id=decision.id),
        rule=decision.rule,
        first=first,
        passed_over=frozenset(decision.skipped or ()),
        targets=decision.targets,
        tokens=tokens,
        provider=provider or None,
        model=model or None,
        cost_nanousd=None,
        cost_is_recorded=False,
    )


def _answered(attempts: list[AttemptRow]) -> AttemptRow | None:
    """The attempt whose usage is that of the answer: the last that has any."""
    return next((attempt for attempt in reversed(attempts) if attempt.usage_source != "none"), None)


def _tokens(attempt: AttemptRow) -> TokenUsage | None:
    return attempt.tokens if attempt.output is not None else None


_days: dict[int, datetime.date] = {}


def _day(seconds: int) -> datetime.date:
    number = seconds // 86_400
    if number not in _days:
        _days[number] = datetime.date(1970, 1, 1) + datetime.timedelta(days=number)
    return _days[number]
