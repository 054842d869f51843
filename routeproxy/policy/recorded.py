"""Requests of which only what was recorded is known, decided once more; or not, where the decision hangs on
something that was not recorded.

A check of such a request holds, does not hold, or nobody knows: what is not known is never taken for absent.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from routeproxy.policy.conditions import AnyOf, Check, NoneOf, Share, Single, TokensWithin
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.fact_table import BY_NAME, INPUT_TOKENS, Fact
from routeproxy.policy.facts import Facts
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.logged import AT_MOST, HEADERS, NOT_RECORDED, SESSION_IN_BODY, logged_request


class Undecidable(Struct, frozen=True):
    """Nobody knows what would become of a request."""

    fact: str
    """The first that was not recorded and would have to be known: "system", "header x-cost-center"."""


class RecordedRequest:
    """A request as a log, the ledger or the audit trail has it."""

    def __init__(self, recorded: Mapping[str, Any], *, request_id: str | None = None) -> None:
        """`recorded`: what `policy.logged` keeps. `request_id`: shares go by it where there is no session.
        Raises `ValueError` for a value of the wrong type."""
        self.question: HypotheticalRequest = logged_request(recorded)
        self._recorded = recorded
        self._request_id = request_id
        self._unknown = frozenset((*recorded.get(NOT_RECORDED, ()), "system"))
        self._headers: Mapping[str, Any] = recorded.get(HEADERS) or {}
        most = recorded.get(AT_MOST)
        self._most_tokens = most if isinstance(most, int) else None

    def facts(self, policy: Policy) -> Facts:
        """As the rules of `policy` see them, as far as they are known. Raises `InvalidRequest`."""
        headers = policy.headers_of(self.question.team, self.question.headers)
        policy.check_headers(headers)
        facts = self.question.facts(headers, lambda body: 0)
        if SESSION_IN_BODY in self._recorded:
            facts.session_in_body = self._recorded[SESSION_IN_BODY]
        facts.request_id = self._request_id
        return facts

    def knows(self, fact: Fact, facts: Facts) -> bool:
        """Whether this fact was recorded, or has another source: a team's own headers are in its rules."""
        if fact.name in self._unknown:
            return False
        if fact.name == INPUT_TOKENS.name:
            return fact.name in self._recorded
        row = BY_NAME.get(fact.name)
        if row is None:
            return fact.header in self._headers or fact.header in facts.headers
        return row.logged == "always" or fact.name in self._recorded

    def tokens_are_below(self, limit: int) -> bool:
        return self._most_tokens is not None and self._most_tokens < limit


class RecordedDecisions:
    """Decides recorded requests by one policy."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        checks = (check for rule in (*policy.rules, policy.default) for check in rule.checks)
        subjects = {subject.name: subject for check in checks for subject in _subjects(check)}
        self._subjects = tuple(subjects.values())
        """What its rules look at."""

    def decide(self, request: RecordedRequest) -> Decision | Undecidable:
        """What would become of the request. Raises `InvalidRequest`, as `Policy.decide` does."""
        policy, facts = self.policy, request.facts(self.policy)
        if all(request.knows(subject, facts) for subject in self._subjects):
            return policy.decide(facts)
        reader = _Reader(request, facts)
        team = policy.teams.get(facts.team) if facts.team is not None else None
        if team is not None and team.gate is not None:
            is_taken = reader.all_hold(team.gate.checks)
            if is_taken is None:
                return Undecidable(reader.unknown)
            if is_taken:
                return policy.decision_by(None, facts)
        for number, rule in enumerate((*policy.rules, policy.default)):
            is_taken = reader.all_hold(rule.checks)
            if is_taken is None:
                return Undecidable(reader.unknown)
            if is_taken:
                return policy.decision_by(number, facts)
        raise AssertionError("the default takes every request")


def _subjects(check: Check) -> Iterator[Fact]:
    match check:
        case AnyOf():
            for checks in check.choices:
                yield from (subject for one in checks for subject in _subjects(one))
        case NoneOf():
            for checks in check.tables:
                yield from (subject for one in checks for subject in _subjects(one))
        case Single():
            yield check.subject


def applies(checks: Iterable[Check], request: RecordedRequest, facts: Facts) -> bool | Undecidable:
    """Whether all of `checks` hold, such as those of an invariant's `when`."""
    reader = _Reader(request, facts)
    holds = reader.all_hold(checks)
    return Undecidable(reader.unknown) if holds is None else holds


class _Reader:
    """Asks checks; `None` stands for "nobody knows"."""

    def __init__(self, request: RecordedRequest, facts: Facts) -> None:
        self._request = request
        self._facts = facts
        self.unknown = ""
        """The fact that the last answer lacked."""

    def all_hold(self, checks: Iterable[Check]) -> bool | None:
        result: bool | None = True
        for check in checks:
            holds = self._holds(check)
            if holds is False:
                return False
            if holds is None:
                result = None
        return result

    def _holds(self, check: Check) -> bool | None:
        match check:
            case AnyOf():
                return self._any_holds(check.choices)
            case NoneOf():
                held = self._any_holds(check.tables)
                return None if held is None else not held
            case TokensWithin() if not self._request.knows(check.subject, self._facts):
                return self._holds_of_bound(check)
            case Single() if not self._request.knows(check.subject, self._facts):
                self.unknown = self.unknown or check.fact
                return None
            case Single() | Share():
                return check.holds(self._facts)
        raise AssertionError(f"a check that nobody knows: {check}")

    def _any_holds(self, tables: Iterable[tuple[Check, ...]]) -> bool | None:
        result: bool | None = False
        for checks in tables:
            holds = self.all_hold(checks)
            if holds:
                return True
            if holds is None:
                result = None
        return result

    def _holds_of_bound(self, check: TokensWithin) -> bool | None:
        """Of tokens that were not counted, since there are surely few."""
        if check.min is not None and check.min > 1 and self._request.tokens_are_below(check.min):
            return False
        is_below_max = check.max is None or self._request.tokens_are_below(check.max + 1)
        if (check.min is None or check.min <= 1) and is_below_max:
            return True
        self.unknown = self.unknown or check.fact
        return None
