"""The compiled policy and what it decides. `Policy.decide(facts)` is a pure function; its steps explain."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.conditions import Check, first_miss
from routeproxy.policy.fact_table import INPUT_TOKENS
from routeproxy.policy.facts import Facts, as_line
from routeproxy.policy.index import Index
from routeproxy.policy.invariants import Invariant
from routeproxy.policy.problems import Problem
from routeproxy.policy.providers import Provider
from routeproxy.policy.questions import Case, Headers, HypotheticalRequest
from routeproxy.policy.secrets import ClientKey
from routeproxy.policy.server import ServerSettings
from routeproxy.policy.targets import Target

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


class Denial(Struct, frozen=True):
    message: str
    status: int = 400


class Fallback(Struct, frozen=True):
    enabled: bool
    on: frozenset[FailureKind] = USUAL_FAILURES


class Retry(Struct, frozen=True):
    attempts: int = 1
    """Tries of one target in all."""
    backoff: float = 0.5
    """Seconds before the second try."""


class Step(Struct, frozen=True):
    """One rule that was asked, and the first condition that did not hold. `None`: it took the request."""

    rule: "Rule"
    missed: Check | None
    facts: Facts

    @property
    def why(self) -> str:
        if self.rule.is_gate:
            return f"`{self.facts.requested}` is {'' if self.missed else 'not '}among them"
        return self.missed.miss(self.facts) if self.missed else ""


class Order(Struct, frozen=True):
    """Which rules were asked. Those of the policy are not copied: there may be thousands."""

    gate: "tuple[Rule, ...]"
    rules: "tuple[Rule, ...]"
    """All of the policy; the first `count` were asked."""
    count: int


class Decision(Struct, frozen=True, kw_only=True):
    rule: str
    where: str
    deny: Denial | None
    targets: tuple[Target, ...]
    """In the order in which they are tried. Nothing else is ever contacted. Empty only beside a denial."""
    unused: int = 0
    """How many targets of the rule can't be reached, since there is no fallback."""
    fallback: Fallback
    retry: Retry
    deadline: float | None
    version: str
    facts: Facts
    order: Order

    @property
    def asked(self) -> "tuple[Rule, ...]":
        """The rules that were asked, in order. The last one took the request."""
        return (*self.order.gate, *self.order.rules[: self.order.count])

    @property
    def steps(self) -> tuple[Step, ...]:
        """What each rule lacked. Facts don't change, so asking a rule once more gives what it gave."""
        *missed, _ = self.asked
        steps = [Step(rule, rule.first_miss(self.facts), self.facts) for rule in missed]
        return (*steps, Step(self.asked[-1], None, self.facts))


class Rule(Struct, frozen=True, kw_only=True):
    name: str
    where: str
    """`rules.toml:41`"""
    file: int = 0
    """Which of the files it stands in: 0 is the rules file, the included ones follow."""
    path: tuple[str | int, ...] = ()
    """Its place in that file."""
    checks: tuple[Check, ...] = ()
    deny: Denial | None = None
    targets: tuple[Target, ...] = ()
    fallback: Fallback = Fallback(False)
    retry: Retry = Retry()
    deadline: float | None = None
    echoes: bool = False
    """Some target is `P/*`: it asks for the model that the client asked for."""
    states: tuple[str, ...] = ()
    """The models that its `match` states whole."""
    is_gate: bool = False
    """It takes what a team may not ask for."""

    @property
    def reachable(self) -> tuple[Target, ...]:
        """The targets that are ever contacted: without fallback only the first."""
        return self.targets if self.fallback.enabled else self.targets[:1]

    def first_miss(self, facts: Facts) -> Check | None:
        return first_miss(self.checks, facts)

    def decision(self, facts: Facts, order: Order, version: str) -> Decision:
        deny, fallback, targets = self.deny, self.fallback, self.reachable
        if facts.url_target is not None:
            targets, fallback = self._only(facts.url_target), Fallback(False)
        elif facts.no_fallback:
            targets, fallback = targets[:1], Fallback(False)
        if self.echoes:
            targets = tuple(found for target in targets if (found := _resolved(target, facts.requested)))
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
            version=version,
            facts=facts,
            order=order,
        )

    def _only(self, url_target: str) -> tuple[Target, ...]:
        """The one target that the URL means. A provider's own name goes before that of its type."""
        provider, _, model = url_target.partition("/")
        named = [target for target in self.reachable if target.model in {"*", model}]
        exact = [target for target in named if target.provider.name == provider]
        by_type = [target for target in named if provider.lower() in target.provider.spellings]
        return tuple((exact or by_type)[:1])


def _resolved(target: Target, requested: str) -> Target | None:
    if target.model != "*":
        return target
    model = target.provider.own_name_of(requested)
    if model is None:
        return None
    return Target(
        provider=target.provider,
        model=model,
        params=target.params,
        transforms=target.transforms,
        timeouts=target.timeouts,
    )


class Team(Struct, frozen=True, kw_only=True):
    name: str
    where: str
    keys: tuple[ClientKey, ...] = ()
    gate: Rule | None = None
    """Takes, and refuses, requests for models that the team may not ask for. It is asked before all rules."""
    request_headers: Mapping[str, str] = {}
    """In lower case. They replace what the client sent: the team's word."""
    providers: Mapping[str, Provider] = {}
    """Those for which the team has keys of its own, with these keys."""
    explain: bool = False
    """May ask why."""

    def may_ask_for(self, facts: Facts) -> bool:
        return self.gate is None or self.gate.first_miss(facts) is not None


class Policy(Struct, frozen=True, kw_only=True, dict=True):
    version: str
    """A hash of what the policy means; comments and spelling don't count."""
    source: str
    server: ServerSettings
    providers: Mapping[str, Provider]
    teams: Mapping[str, Team] = {}
    rules: tuple[Rule, ...]
    default: Rule
    invariants: tuple[Invariant, ...] = ()
    """Those that teams' `targets` imply among them."""
    tests: tuple[Case, ...] = ()
    warnings: tuple[Problem, ...] = ()
    files: tuple[Path, ...] = ()
    """What was read besides the rules file."""
    reads: frozenset[str] = frozenset()
    """The names of the facts that some condition looks at."""
    reads_headers: frozenset[str] = frozenset()
    """The headers that some condition looks at, in lower case."""

    @property
    def counts_tokens(self) -> bool:
        return INPUT_TOKENS.name in self.reads

    def decide(self, facts: Facts) -> Decision:
        team = self.teams.get(facts.team) if facts.team is not None else None
        decision = self._decide(facts, team)
        if team is None or not team.providers:
            return decision
        own = [
            replace(target, provider=team.providers.get(target.provider.name, target.provider))
            for target in decision.targets
        ]
        return replace(decision, targets=tuple(own))

    def _decide(self, facts: Facts, team: Team | None) -> Decision:
        gate = (team.gate,) if team is not None and team.gate is not None else ()
        for rule in gate:
            if rule.first_miss(facts) is None:
                return rule.decision(facts, Order(gate, (), 0), self.version)
        rules, index = self._lookup
        number = next(n for n in index.candidates(facts) if rules[n].first_miss(facts) is None)
        return rules[number].decision(facts, Order(gate, rules, number + 1), self.version)

    def prepare(self) -> None:
        """Builds what the first decision would have to wait for."""
        _ = self._lookup

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

    def headers_of(self, team: str | None, headers: Headers) -> Headers:
        """`headers` as rules see them: with what the team says in place of what its client said."""
        stated = self.teams[team].request_headers if team is not None and team in self.teams else {}
        lines = {name: (as_line(value),) for name, value in stated.items()}
        return {**headers, **lines} if lines else headers

    def check_headers(self, headers: Headers) -> None:
        """Raises `InvalidRequest` when a header that rules read has several values: picking is guessing."""
        for name in self.reads_headers:
            lines = headers.get(name)
            if lines is not None and len({line.strip(" \t") for line in lines}) > 1:
                raise InvalidRequest(f"header {name}: sent more than once, with different values")
