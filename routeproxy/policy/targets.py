"""Targets: a model at a provider, with what is done to its requests and answers; and what may be judged of
them."""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from routeproxy.policy.providers import ModelFacts, Provider


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


class Reached(Struct, frozen=True):
    """A target as invariants see it; or, if `model` is a glob, all that `P/*` may come to."""

    provider: str
    model: str
    zone: str
    region: str | None
    labels: frozenset[str] | None

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"


def reached(provider: Provider, model: str) -> tuple[Reached, ...]:
    """What a rule reaches by the target `provider/model`: one, or for `*` all that the provider allows."""
    if model != "*":
        return (_reached(provider, model, provider.facts_of(model)),)
    if not provider.models:
        # A model's name may lead to another region, as Bedrock's do: without a list nobody can tell.
        return (_reached(provider, "*", ModelFacts()),)
    return tuple(_reached(provider, pattern, facts) for pattern, facts in provider.models.items())


def _reached(provider: Provider, model: str, facts: ModelFacts) -> Reached:
    return Reached(provider.name, model, provider.zone, facts.region, facts.labels)


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

    @property
    def reached(self) -> tuple[Reached, ...]:
        """What it is, or may come to, for those who judge targets."""
        return reached(self.provider, self.model)
