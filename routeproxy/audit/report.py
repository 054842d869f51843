"""Whether an invariant held: each recorded request decided anew under the rules that were in force, and what
it asked held against them."""

from collections import Counter
from collections.abc import Callable

from msgspec import Struct, field

from routeproxy.audit.requests import AuditedRequest, TrailReading
from routeproxy.audit.versions import KeptVersions
from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.decide import Policy
from routeproxy.policy.invariants import Invariant
from routeproxy.policy.live.versions import Bundle, NoSuchVersion
from routeproxy.policy.problems import RulesRefused
from routeproxy.policy.recorded import RecordedDecisions, RecordedRequest, Undecidable, applies
from routeproxy.policy.targets import ReachedTarget, Target

MOST_NAMED = 20
"""Broken requests that are named."""


class BrokenRequest(Struct, frozen=True):
    where: str
    id: str
    why: str


class InvariantReport(Struct, kw_only=True):
    """What is known of one invariant."""

    invariant: str
    held: int = 0
    broken: int = 0
    not_decidable: int = 0
    records_lost: int = 0
    not_concerned: int = 0
    """Requests that it says nothing of: its `when` does not hold. They are not among those that held."""
    not_promised: int = 0
    """Requests under rules that have no such invariant."""
    under_way: int = 0
    decided_otherwise: int = 0
    """Requests whose recorded rule or targets are not what the kept rules come to."""
    whys: Counter[str] = field(default_factory=Counter)
    """Why requests can't be decided, and how many for each reason."""
    examples: list[BrokenRequest] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    """The versions of the rules that this rests on, with how many requests each."""
    notes: list[str] = field(default_factory=list)


class Reporter:
    def __init__(self, reading: TrailReading, policy_of: Callable[[Bundle], Policy], name: str) -> None:
        """`policy_of`: compiles a version anew; raises `RulesRefused` where it can't."""
        self._reading = reading
        self._policy_of = policy_of
        self._kept = KeptVersions(reading.folder)
        self._decisions: dict[tuple[str, str | None], RecordedDecisions | str] = {}
        """The rules of each version, or why there are none."""
        self._report = InvariantReport(invariant=name)

    def run(self, since: str, until: str) -> InvariantReport:
        """Raises `OSError`."""
        report = self._report
        for request in self._reading.requests(since, until):
            report.versions[request.begun.version] += 1
            self._judge(request)
        report.records_lost = self._reading.lost
        return report

    def _judge(self, request: AuditedRequest) -> None:
        report, begun = self._report, request.begun
        decisions = self._decisions_of(begun.version, request.rules_sha256)
        if isinstance(decisions, str):
            self._not_decidable(decisions)
            return
        policy = decisions.policy
        invariants = [one for one in policy.invariants if one.name == report.invariant]
        if not invariants:
            report.not_promised += 1
            return
        try:
            recorded = RecordedRequest(begun.facts, request_id=begun.id)
            facts = recorded.facts(policy)
            concerned = [applies(one.when, recorded, facts) for one in invariants]
            decision = decisions.decide(recorded)
        except (ValueError, InvalidRequest):
            self._not_decidable("its recorded facts can't be read")
            return
        unknown = [one for one in concerned if isinstance(one, Undecidable)]
        if not unknown and not any(concerned):
            report.not_concerned += 1
            return
        if request.ended is None:
            if request.is_under_way:
                report.under_way += 1
            else:
                self._not_decidable("no end was recorded: nobody knows whom it reached")
            return
        if not isinstance(decision, Undecidable):
            names = tuple(target.name for target in decision.targets)
            report.decided_otherwise += (decision.rule, names) != (begun.rule, begun.targets)
        concerning = [
            one
            for one, is_so in zip(invariants, concerned, strict=True)
            if not isinstance(is_so, bool) or is_so
        ]
        if why := self._broken_by(request, policy, concerning):
            if unknown:
                self._not_decidable(f"`{unknown[0].fact}` was not recorded")
                return
            report.broken += 1
            if len(report.examples) < MOST_NAMED:
                report.examples.append(BrokenRequest(request.where, begun.id, why))
            return
        # Whoever reached nothing that is forbidden kept the promise, concerned or not.
        report.held += 1

    def _broken_by(self, request: AuditedRequest, policy: Policy, invariants: list[Invariant]) -> str | None:
        """Why one of the invariants forbids a target that was asked."""
        for contact in request.contacts:
            described = [*_described(policy, contact.provider, contact.model)]
            # As the rules describe it, and as it was recorded then: the worse counts.
            recorded = ReachedTarget(
                contact.provider,
                contact.model,
                contact.zone,
                contact.region,
                described[0].labels if described else None,
                described[0].record if described else None,
            )
            for invariant in invariants:
                for reached in (recorded, *described):
                    if why := invariant.broken_by(reached):
                        return f"{contact.target} was asked, and {why}"
        return None

    def _decisions_of(self, version: str, sha256: str | None) -> RecordedDecisions | str:
        if (version, sha256) not in self._decisions:
            self._decisions[version, sha256] = self._compiled(version, sha256)
        return self._decisions[version, sha256]

    def _compiled(self, version: str, sha256: str | None) -> RecordedDecisions | str:
        try:
            policy = self._policy_of(self._kept.bundle(version, sha256))
        except NoSuchVersion as missing:
            return str(missing)
        except RulesRefused as refused:
            return f"this routeproxy refuses version {version}: {str(refused.problems[0]).splitlines()[0]}"
        if policy.version != version:
            self._report.notes.append(f"version {version} of then is {policy.version} to this routeproxy")
        return RecordedDecisions(policy)

    def _not_decidable(self, why: str) -> None:
        self._report.not_decidable += 1
        self._report.whys[why] += 1


def _described(policy: Policy, provider: str, model: str) -> list[ReachedTarget]:
    """A target as the rules describe it; empty where they don't name it."""
    owner = policy.providers.get(provider)
    if owner is None:
        return []
    for rule in (*policy.rules, policy.default):
        for target in rule.contacted:
            if (target.provider.name, target.model) == (provider, model):
                return [*target.reached]
    return [*Target(provider=owner, model=model).reached]
