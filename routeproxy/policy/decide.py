"""The compiled policy and what it decides. `Policy.decide(facts)` is a pure function; its steps explain.

Nothing here knows the rules file: what is compiled is values, and deciding asks nobody and waits for nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.audit import AuditSettings
from routeproxy.policy.conditions import Check, first_miss
from routeproxy.policy.fact_table import INPUT_TOKENS
from routeproxy.policy.facts import Facts, as_line
from routeproxy.policy.hypothetical import Case, Headers, HypotheticalRequest
from routeproxy.policy.index import Index
from routeproxy.policy.invariants import Invariant
from routeproxy.policy.ledger import LedgerSettings
from routeproxy.policy.pools import STICKY
from routeproxy.policy.problems import AcceptedProblem, KeyPath, Problem
from routeproxy.policy.providers import Provider
from routeproxy.policy.safeguards import Safeguards
from routeproxy.policy.secrets import ClientKey
from routeproxy.policy.server import ServerSettings
from routeproxy.policy.targets import Target, first_place
from routeproxy.policy.telemetry import TelemetrySettings

FailureKind = Literal[
    "rate_limit",
    "overloaded",
    "server_error",
    "timeout_connect",
    "timeout_first_token",
    "timeout_idle",
    "connection",
    "context_overflow",
    "auth",
    "not_found",
    "invalid_request",
    "content_policy",
    "capability",
]
"""The kinds of failures of an attempt, by their names in rules files."""

USUAL_FAILURES: frozenset[FailureKind] = frozenset(
    {
        "rate_limit",
        "overloaded",
        "server_error",
        "timeout_connect",
        "timeout_first_token",
        "timeout_idle",
        "connection",
    }
)
"""The failures after which the next target is tried, unless a rule names others."""

TIMEOUTS: frozenset[FailureKind] = frozenset({"timeout_connect", "timeout_first_token", "timeout_idle"})


Portable = Literal["drop", "strict"]
"""What becomes of a conversation that a target can't be given whole: thinking, signatures and results of
server tools of another provider. They are dropped, or the target is not asked."""


class Denial(Struct, frozen=True):
    """The answer to a request that is sent to nobody."""

    message: str
    status: int = 400


class Fallback(Struct, frozen=True):
    """Whether the next target is tried, and after which failures."""

    enabled: bool
    on: frozenset[FailureKind] = USUAL_FAILURES


class Retry(Struct, frozen=True):
    """How often one target is tried before the next."""

    attempts: int = 1
    """All of them, the first included."""
    backoff: float = 0.5
    """Seconds before the second attempt at most; each further one may wait twice as long."""
    on: frozenset[FailureKind] = USUAL_FAILURES - TIMEOUTS
    """The failures after which it is tried again."""


class Step(Struct, frozen=True):
    """One rule that was asked, and the first of its checks that did not hold. `None`: it took the request."""

    rule: "Rule"
    missed: Check | None
    facts: Facts

    @property
    def why(self) -> str:
        """What the request lacked; empty if nothing."""
        if self.rule.is_gate:
            return f"`{self.facts.requested}` is {'' if self.missed else 'not '}among them"
        return self.missed.miss(self.facts) if self.missed else ""


class AskedRules(Struct, frozen=True):
    """The rules that were asked. Those of the policy are not copied: there may be thousands."""

    gate: "tuple[Rule, ...]"
    rules: "tuple[Rule, ...]"
    """All rules of the policy, of which the first `count` were asked."""
    count: int


class Decision(Struct, frozen=True, kw_only=True):
    """What becomes of one request, and why."""

    rule: str
    """The name of the rule that took it."""
    where: str
    """The place of that rule: `rules.toml:41`"""
    deny: Denial | None
    targets: tuple[Target, ...]
    """In the order in which they are tried, but for members of a pool, whose order is chosen later. Nothing
    else is ever contacted. Empty only beside a denial."""
    unused: int = 0
    """How many targets of the rule can't be reached, since there is no fallback."""
    fallback: Fallback
    retry: Retry
    deadline: float | None
    """Seconds for all attempts together, until content comes; with `hold`, until the answer is whole."""
    portable: Portable = "drop"
    sticky: float = STICKY
    """The seconds for which a session that had to fall back stays where it is."""
    hold: bool = False
    """A stream goes out once it is whole: until then another target may still answer."""
    safeguards: Safeguards | None = None
    """Who is asked to judge the tool uses of the answer, if anybody is."""
    version: str
    """That of the policy."""
    facts: Facts
    asked: AskedRules

    @property
    def contacted(self) -> tuple[Target, ...]:
        """Every target that the request, or a part of it, may get to."""
        return _contacted(self.targets, self.safeguards)

    @property
    def asked_rules(self) -> "tuple[Rule, ...]":
        """The rules that were asked, in order. The last one took the request."""
        return (*self.asked.gate, *self.asked.rules[: self.asked.count])

    @property
    def steps(self) -> tuple[Step, ...]:
        """What each rule lacked. Facts don't change, so asking a rule once more gives what it gave."""
        *others, last = self.asked_rules
        steps = [Step(rule, rule.first_miss(self.facts), self.facts) for rule in others]
        return (*steps, Step(last, None, self.facts))


class Rule(Struct, frozen=True, kw_only=True):
    """Which requests it takes, and what becomes of them."""

    name: str
    where: str
    """`rules.toml:41`"""
    file: int = 0
    """The number of the file that it stands in: 0 is the rules file, the included files follow."""
    path: KeyPath = ()
    """Its place in that file."""
    checks: tuple[Check, ...] = ()
    """They all hold for the requests that it takes."""
    deny: Denial | None = None
    targets: tuple[Target, ...] = ()
    fallback: Fallback = Fallback(False)
    retry: Retry = Retry()
    deadline: float | None = None
    hold: bool = False
    portable: Portable = "drop"
    sticky: float = STICKY
    safeguards: Safeguards | None = None
    asks_for_requested: bool = False
    """Some target is `P/*`, which asks for the model that the client asked for."""
    stated_models: tuple[str, ...] = ()
    """The names of models that its conditions state whole."""
    is_gate: bool = False
    """It takes what a team may not ask for."""

    @property
    def reachable(self) -> tuple[Target, ...]:
        """The targets that are ever asked for an answer: without fallback only those in the first place."""
        return self.targets if self.fallback.enabled else first_place(self.targets)

    @property
    def contacted(self) -> tuple[Target, ...]:
        """Every target that a request which it takes, or a part of it, may get to."""
        return _contacted(self.reachable, self.safeguards)

    def first_miss(self, facts: Facts) -> Check | None:
        """The first check that does not hold; `None`: it takes the request."""
        return first_miss(self.checks, facts)

    def decision(self, facts: Facts, asked: AskedRules, version: str) -> Decision:
        """The decision on a request that it takes."""
        deny, fallback, targets = self.deny, self.fallback, self.reachable
        if facts.url_target is not None:
            targets, fallback = self._targets_of_url(facts.url_target), Fallback(False)
        elif facts.no_fallback:
            targets, fallback = first_place(targets), Fallback(False)
        if self.asks_for_requested:
            resolved = (_with_model(target, facts.requested) for target in targets)
            targets = tuple(target for target in resolved if target is not None)
        if deny is None and not targets:
            deny = Denial(f"model: {facts.url_target or facts.requested}", 404)
        return Decision(
            rule=self.name,
            where=self.where,
            deny=deny,
            targets=targets,
            unused=len(self.targets) - len(targets),
            fallback=fallback,
            retry=self.retry,
            deadline=self.deadline,
            hold=self.hold,
            portable=self.portable,
            sticky=self.sticky,
            safeguards=self._safeguards_for(facts) if deny is None else None,
            version=version,
            facts=facts,
            asked=asked,
        )

    def _safeguards_for(self, facts: Facts) -> Safeguards | None:
        """A client that wants one supplier gets no second one because of `[server]`."""
        if self.safeguards is not None and self.safeguards.inherited and facts.no_fallback:
            return None
        return self.safeguards

    def _targets_of_url(self, url_target: str) -> tuple[Target, ...]:
        """The one target that the URL means, or none. A provider's own name goes before that of its type."""
        provider, _, model = url_target.partition("/")
        named = [target for target in self.reachable if target.model in {"*", model}]
        exact = [target for target in named if target.provider.name == provider]
        by_type = [target for target in named if provider.lower() in target.provider.spellings]
        return tuple((exact or by_type)[:1])


def _contacted(targets: tuple[Target, ...], safeguards: Safeguards | None) -> tuple[Target, ...]:
    return targets if safeguards is None else (*targets, safeguards.target)


def _with_model(target: Target, requested: str) -> Target | None:
    """`target`, with the requested model for `*`; `None` if the provider does not have it."""
    if target.model != "*":
        return target
    model = target.provider.own_name_of(requested)
    return replace(target, model=model) if model is not None else None


class ShadowRule(Struct, frozen=True):
    """A rule that decides nothing; what it would have done is recorded (`policy.shadow`)."""

    rule: Rule
    place: int
    """How many of the policy's rules stand above it."""
    reads_headers: frozenset[str]
    """Those that it looks at, in lower case."""


class Team(Struct, frozen=True, kw_only=True):
    """Clients with the same keys."""

    name: str
    where: str
    """`rules.toml:41`"""
    keys: tuple[ClientKey, ...] = ()
    labels: Mapping[str, str] = {}
    """What the ledger knows it by besides its name, such as its cost center."""
    gate: Rule | None = None
    """Takes, and refuses, requests for models that the team may not ask for. It is asked before all rules."""
    request_headers: Mapping[str, str] = {}
    """By lower-case names. They replace what the client sent."""
    providers: Mapping[str, Provider] = {}
    """The providers for which the team has keys of its own, with these keys."""
    max_concurrent: int | None = None
    """How many of its requests are answered at once at most."""
    weight: float = 1.0
    """Its share where requests wait, in proportion to the other teams'."""
    explain: bool = False
    """Its clients may ask why a request went where it did."""

    def with_own_keys(self, target: Target) -> Target:
        """`target`, asked with the team's own keys if it has any for that provider."""
        return replace(target, provider=self.providers.get(target.provider.name, target.provider))


class Policy(Struct, frozen=True, kw_only=True, dict=True):
    """A rules file, compiled."""

    version: str
    """A hash of what the policy means; comments and spelling don't count."""
    source: str
    """The rules file, or what else the policy came from."""
    server: ServerSettings
    providers: Mapping[str, Provider]
    teams: Mapping[str, Team] = {}
    rules: tuple[Rule, ...]
    default: Rule
    shadow_rules: tuple[ShadowRule, ...] = ()
    """They are no part of `rules`: nothing is decided or proved by them."""
    invariants: tuple[Invariant, ...] = ()
    """The invariants that teams' `targets` imply are among them."""
    tests: tuple[Case, ...] = ()
    ledger: LedgerSettings | None = None
    audit: AuditSettings | None = None
    telemetry: TelemetrySettings = TelemetrySettings()
    absent_providers: Mapping[str, str] = {}
    """By the names in lower case by which a URL may mean a provider that is not there, why it is not."""
    warnings: tuple[Problem, ...] = ()
    accepted: tuple[AcceptedProblem, ...] = ()
    """The warnings that the rules file accepts."""
    reads: frozenset[str] = frozenset()
    """The names of the facts that some condition looks at."""
    reads_headers: frozenset[str] = frozenset()
    """The headers that some condition looks at, in lower case; but for those of shadow rules."""

    @cached_property
    def recorded_headers(self) -> frozenset[str]:
        """The headers that are recorded of a request, in lower case."""
        others = (self.ledger.record_headers if self.ledger is not None else (),)
        return self.reads_headers.union(*others, *(shadow.reads_headers for shadow in self.shadow_rules))

    @property
    def keeps_metrics(self) -> bool:
        """Whether somebody may scrape them."""
        keys = self.server.admin_keys
        return self.telemetry.metrics is not None or any(key.role == "metrics" for key in keys)

    @property
    def keeps_books(self) -> bool:
        """Whether somebody wants to know what became of each request: a ledger, metrics or traces."""
        return self.ledger is not None or self.keeps_metrics or self.telemetry.traces is not None

    @property
    def counts_tokens(self) -> bool:
        return INPUT_TOKENS.name in self.reads

    def decide(self, facts: Facts) -> Decision:
        """What becomes of a request. Raises `InvalidRequest` if a fact that a rule asks for can't be read."""
        return self.decision_by(self.taker(facts), facts)

    def decision_by(self, number: int | None, facts: Facts) -> Decision:
        """What becomes of a request that the rule of this number takes, as `taker` has it."""
        team = self._team_of(facts)
        gate: tuple[Rule, ...] = (team.gate,) if team is not None and team.gate is not None else ()
        if number is None:
            return self._decision(gate[0], facts, AskedRules(gate, (), 0))
        rules, _ = self._lookup
        return self._decision(rules[number], facts, AskedRules(gate, rules, number + 1))

    def decision_of(self, rule: Rule, facts: Facts) -> Decision:
        """What becomes of a request that `rule` takes, of which nobody asks how it came to be asked."""
        return self._decision(rule, facts, AskedRules((), (rule,), 1))

    def _decision(self, rule: Rule, facts: Facts, asked: AskedRules) -> Decision:
        team = self._team_of(facts)
        decision = rule.decision(facts, asked, self.version)
        if team is None or not team.providers:
            return decision
        safeguards = decision.safeguards
        return replace(
            decision,
            targets=tuple(team.with_own_keys(target) for target in decision.targets),
            safeguards=safeguards and replace(safeguards, target=team.with_own_keys(safeguards.target)),
        )

    def taker(self, facts: Facts) -> int | None:
        """The number of the rule that takes the request, as `decide` has it. The default's is the last;
        `None`: the gate of its team. Raises as `decide` does."""
        team = self._team_of(facts)
        if team is not None and team.gate is not None and team.gate.first_miss(facts) is None:
            return None
        return next(self.taken_by(facts))

    def _team_of(self, facts: Facts) -> Team | None:
        return self.teams.get(facts.team) if facts.team is not None else None

    def taken_by(self, facts: Facts) -> Iterator[int]:
        """The numbers of the rules that would take the request, in order. The default's is the last."""
        rules, index = self._lookup
        return (number for number in index.candidates(facts) if rules[number].first_miss(facts) is None)

    def prepare(self) -> None:
        """Builds the index, for which the first decision would have to wait."""
        _ = self._lookup

    def with_warnings(
        self, warnings: tuple[Problem, ...], accepted: tuple[AcceptedProblem, ...] = ()
    ) -> "Policy":
        """The same policy, with the index if it is built already."""
        policy = replace(self, warnings=warnings, accepted=accepted)
        policy.__dict__.update(self.__dict__)
        return policy

    @cached_property
    def _lookup(self) -> tuple[tuple[Rule, ...], Index]:
        """All rules, the default as the last, and the index of them."""
        rules = (*self.rules, self.default)
        return rules, Index([rule.checks for rule in rules])

    def facts_of(
        self, question: HypotheticalRequest, count: Callable[[bytes], int] = lambda body: 0
    ) -> Facts:
        """The facts of a request that was not sent. Raises `InvalidRequest` if no rule is asked about it."""
        headers = self.headers_of(question.team, question.headers)
        self.check_headers(headers)
        return question.facts(headers, count)

    def assumed_of(self, question: HypotheticalRequest) -> tuple[str, ...]:
        """What a request that was not sent leaves out, and what that is taken for."""
        headers = self.headers_of(question.team, question.headers)
        return question.assumed(teams=bool(self.teams), headers=self.reads_headers - headers.keys())

    def headers_of(self, team: str | None, headers: Headers) -> Headers:
        """`headers` as rules see them: the team's own in place of what its client sent."""
        stated = self.teams[team].request_headers if team is not None and team in self.teams else {}
        lines = {name: (as_line(value),) for name, value in stated.items()}
        return {**headers, **lines} if lines else headers

    def forbids_recording(self, facts: Facts) -> bool:
        """Whether an invariant wants that nobody is told what such a request asks."""
        return any(invariant.forbids_recording(facts) for invariant in self.invariants)

    def check_headers(self, headers: Headers) -> None:
        """Raises `InvalidRequest` when a header that rules read has several values: picking is guessing."""
        for name, lines in headers.items():
            if (
                len(lines) > 1
                and name in self.reads_headers
                and len({line.strip(" \t") for line in lines}) > 1
            ):
                raise InvalidRequest(f"header {name}: sent more than once, with different values")
