"""The compiled policy and what it decides. `Policy.decide(facts)` is a pure function; its steps explain."""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.conditions import Check, first_miss
from routeproxy.policy.facts import Facts
from routeproxy.policy.problems import Problem
from routeproxy.policy.providers import Provider as Provider
from routeproxy.policy.providers import Secret as Secret

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


class Params(Struct, frozen=True, kw_only=True):
    """What is done to a request's parameters, in this order."""

    default: Mapping[str, Any] = {}
    set: Mapping[str, Any] = {}
    cap: Mapping[str, int | float] = {}
    drop: frozenset[str] = frozenset()
    extra_body: Mapping[str, Any] = {}


class TransformSettings(Struct, frozen=True, kw_only=True):
    strip_attribution: bool = True
    think_tags: bool = False
    text_tool_calls: bool = False
    thinking: Literal["keep", "drop", "text"] = "keep"
    newlines: Literal["keep", "unescape", "escape"] = "keep"
    model_name: Literal["requested", "served"] = "requested"


class Timeouts(Struct, frozen=True, kw_only=True):
    """Seconds, for each attempt."""

    connect: float = 10.0
    first_token: float = 300.0
    idle: float = 300.0
    total: float | None = None


class Target(Struct, frozen=True, kw_only=True):
    provider: Provider
    model: str
    """What the provider is asked for. In a `Rule` it may be `*`, in a `Decision` never."""
    params: Params = Params()
    transforms: TransformSettings = TransformSettings()
    timeouts: Timeouts = Timeouts()

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"


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
        return self.missed.miss(self.facts) if self.missed else ""


class Decision(Struct, frozen=True, kw_only=True):
    rule: str
    where: str
    deny: Denial | None
    targets: tuple[Target, ...]
    """In the order in which they are tried. Nothing else is ever contacted. Empty only beside a denial."""
    fallback: Fallback
    retry: Retry
    deadline: float | None
    steps: tuple[Step, ...]
    version: str


class Rule(Struct, frozen=True, kw_only=True):
    name: str
    where: str
    """`rules.toml:41`"""
    checks: tuple[Check, ...] = ()
    deny: Denial | None = None
    targets: tuple[Target, ...] = ()
    fallback: Fallback = Fallback(False)
    retry: Retry = Retry()
    deadline: float | None = None
    echoes: bool = False
    """Some target is `P/*`: it asks for the model that the client asked for."""

    def first_miss(self, facts: Facts) -> Check | None:
        return first_miss(self.checks, facts)

    def decision(self, facts: Facts, steps: tuple[Step, ...], version: str) -> Decision:
        deny, targets, fallback = self.deny, self.targets, self.fallback
        if deny is None and facts.url_target is not None:
            targets, fallback = self._only(facts.url_target), Fallback(False)
        if self.echoes:
            targets = tuple(
                target for target in (_resolved(t, facts.requested) for t in targets) if target.model
            )
        if deny is None and not targets:
            deny = Denial(f"model: {facts.url_target or facts.requested}", 404)
        return Decision(
            rule=self.name,
            where=self.where,
            deny=deny,
            targets=targets,
            fallback=fallback,
            retry=self.retry,
            deadline=self.deadline,
            steps=steps,
            version=version,
        )

    def _only(self, url_target: str) -> tuple[Target, ...]:
        """The one target that the URL means. A provider's own name goes before that of its type."""
        provider, _, model = url_target.partition("/")
        named = [target for target in self.targets if target.model in {"*", model}]
        exact = [target for target in named if target.provider.name == provider]
        by_type = [target for target in named if provider.lower() in target.provider.spellings]
        return tuple((exact or by_type)[:1])


def _resolved(target: Target, requested: str) -> Target:
    if target.model != "*":
        return target
    return Target(
        provider=target.provider,
        model=target.provider.own_name_of(requested),
        params=target.params,
        transforms=target.transforms,
        timeouts=target.timeouts,
    )


class ServerSettings(Struct, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: int = 8082
    max_body_mb: int = 32
    url_targets: bool = False
    require_key: bool = False
    """Whether nobody gets in without a key, even while none is set."""
    models: tuple[str, ...] = ()
    signing_key: Secret | None = None
    cors_origins: tuple[str, ...] = ()
    drain: float = 30.0
    """How many seconds running answers may take to finish when the server stops."""


class Policy(Struct, frozen=True, kw_only=True):
    version: str
    """A hash of what the policy means; comments and spelling don't count."""
    source: str
    server: ServerSettings
    providers: Mapping[str, Provider]
    rules: tuple[Rule, ...]
    default: Rule
    warnings: tuple[Problem, ...] = ()
    counts_tokens: bool = False
    """Some rule asks for `input_tokens`."""
    reads_headers: frozenset[str] = frozenset()
    """In lower case."""
    models: tuple[str, ...] = ()
    """What `/v1/models` lists."""

    def decide(self, facts: Facts) -> Decision:
        steps = []
        for rule in self.rules:
            missed = rule.first_miss(facts)
            steps.append(Step(rule, missed, facts))
            if missed is None:
                return rule.decision(facts, tuple(steps), self.version)
        steps.append(Step(self.default, None, facts))
        return self.default.decision(facts, tuple(steps), self.version)

    def check_headers(self, headers: Mapping[str, tuple[str, ...]]) -> None:
        """Raises `InvalidRequest` when a header that rules read has several values: picking is guessing."""
        for name in self.reads_headers:
            lines = headers.get(name)
            if lines is not None and len({line.strip(" \t") for line in lines}) > 1:
                raise InvalidRequest(f"header {name}: sent more than once, with different values")
