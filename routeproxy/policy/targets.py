"""Targets, and what invariants may judge of them: where a target is, not what is done there."""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

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


class ReachedTarget(Struct, frozen=True):
    """A target as invariants see it. If `model` is a glob, it stands for all that `P/*` may come to."""

    provider: str
    model: str
    zone: str
    region: str | None
    labels: frozenset[str] | None

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


class Target(Struct, frozen=True, kw_only=True):
    """A model at a provider, with what is done to its requests and answers."""

    provider: Provider
    model: str
    """What the provider is asked for. In a `Rule` it may be `*`, in a `Decision` never."""
    params: Params = Params()
    transforms: TransformSettings = TransformSettings()
    timeouts: Timeouts = Timeouts()

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"

    @property
    def engine(self) -> Engine:
        """Who speaks to it."""
        return self.provider.engine_of(self.model)

    @property
    def reached(self) -> tuple[ReachedTarget, ...]:
        """What it is, or for `P/*` may come to, as invariants judge it."""
        return reached_targets(self.provider, self.model)
