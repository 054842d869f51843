"""Targets, and what invariants may judge of them: where a target is, not what is done there."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from routeproxy.policy.pools import Member
from routeproxy.policy.provider_types import Engine
from routeproxy.policy.providers import ModelFacts, Provider


class Params(Struct, frozen=True, kw_only=True):
    """What is done to a request's parameters, in this order."""

    default: Mapping[str, Any] = {}
    set: Mapping[str, Any] = {}
    cap: Mapping[str, int | float] = {}
    drop: frozenset[str] = frozenset()
    extra_body: Mapping[str, Any] = {}


class TransformSettings(Struct, frozen=True, kw_only=True):
    """What is done to an answer, and to the system text (`strip_attribution`)."""

    strip_attribution: bool = True
    think_tags: bool = False
    text_tool_calls: bool = False
    thinking: Literal["keep", "drop", "text"] = "keep"
    newlines: Literal["keep", "unescape", "escape"] = "keep"
    model_name: Literal["requested", "served"] = "requested"


class Timeouts(Struct, frozen=True, kw_only=True):
    """How long one attempt may take, in seconds."""

    connect: float = 10.0
    first_token: float | None = None
    """`None`: it depends on who else may be asked (`upstream.first_token`)."""
    idle: float = 300.0
    total: float | None = None


Recording = Literal["content"]
"""What is recorded of a conversation besides what is always: what was asked stands in its trace."""


class ReachedTarget(Struct, frozen=True):
    """A target as invariants see it. If `model` is a glob, it stands for all that `P/*` may come to."""

    provider: str
    model: str
    zone: str
    region: str | None
    labels: frozenset[str] | None
    record: Recording | None = None
    """What of a conversation with it is recorded besides."""

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"


def reached_targets(provider: Provider, model: str) -> tuple[ReachedTarget, ...]:
    """What the target `provider/model` may lead to: one target, or for `*` all that the provider allows."""
    if model != "*":
        return (_reached(provider, model, provider.facts_of(model)),)
    if not provider.models:
        # A model's name may lead to another region, as Bedrock's do: without a list nobody can tell.
        return (_reached(provider, "*", ModelFacts()),)
    return tuple(_reached(provider, pattern, facts) for pattern, facts in provider.models.items())


def _reached(provider: Provider, model: str, facts: ModelFacts) -> ReachedTarget:
    return ReachedTarget(provider.name, model, provider.zone, facts.region, facts.labels)


def first_place(targets: "tuple[Target, ...]") -> "tuple[Target, ...]":
    """The targets that may come first: one, or the members of one pool."""
    return next(places(targets), ())


def places(targets: "tuple[Target, ...]") -> "Iterator[tuple[Target, ...]]":
    """The targets of a rule, place by place: the members of a pool share one."""
    start = 0
    for at, target in enumerate(targets):
        following = targets[at + 1] if at + 1 < len(targets) else None
        if target.member is None or following is None or following.pool_name != target.pool_name:
            yield targets[start : at + 1]
            start = at + 1


class Target(Struct, frozen=True, kw_only=True):
    """A model at a provider, with what is done to its requests and answers."""

    provider: Provider
    model: str
    """What the provider is asked for. In a `Rule` it may be `*`, in a `Decision` never."""
    params: Params = Params()
    transforms: TransformSettings = TransformSettings()
    timeouts: Timeouts = Timeouts()
    record: Recording | None = None
    """What is recorded of a conversation with it, as its rule has it."""
    member: Member | None = None
    """It shares its place in a rule with the other members of a pool."""

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"

    @property
    def pool_name(self) -> str | None:
        return self.member.pool.name if self.member is not None else None

    @property
    def engine(self) -> Engine:
        """Who speaks to it."""
        return self.provider.engine_of(self.model)

    @property
    def reached(self) -> tuple[ReachedTarget, ...]:
        """What it is, or for `P/*` may come to, as invariants judge it."""
        reached = reached_targets(self.provider, self.model)
        return tuple(replace(one, record=self.record) for one in reached) if self.record else reached
