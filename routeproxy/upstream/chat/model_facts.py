"""What is known of models without asking anybody: what the rules state, what our table of profiles knows, and
LiteLLM's table of models."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from routeproxy.policy.providers import ModelFacts, Provider
from routeproxy.policy.targets import Target
from routeproxy.translate.profile import ModelProfile
from routeproxy.upstream.chat.profiles import Limits, profile_of
from routeproxy.upstream.litellm.model_table import find_row

MOST_PROFILES = 1024

_learned: dict[tuple[int, str], tuple[Provider, dict[str, Any]]] = {}
"""What targets have taught us by refusing it, as changes of their profiles: by the id of the provider, which
is kept beside them, and the model. A reload makes new providers, of which nothing is learned yet."""

_profiles: dict[int, tuple[Target, ModelProfile]] = {}
"""By the id of the target, which is kept beside it so that the id stays its own."""


def profile_within_limits(target: Target) -> ModelProfile:
    """The profile of `target`, the limits of the table of models included; worked out once for each target of
    the rules."""
    known = _profiles.get(id(target))
    if known is None:
        if len(_profiles) >= MOST_PROFILES:
            _profiles.clear()
        known = _profiles[id(target)] = target, _profile_by_experience(target)
    return known[1]


def _profile_by_experience(target: Target) -> ModelProfile:
    profile = profile_of(target, limits_of(target))
    known = _learned.get((id(target.provider), target.model))
    return profile if known is None else replace(profile, **known[1])


def learn(target: Target, changes: Mapping[str, Any]) -> None:
    """From now on `target` is asked as its profile is with these changes."""
    if len(_learned) >= MOST_PROFILES:
        _learned.clear()
    _, known = _learned.get((id(target.provider), target.model), (None, {}))
    _learned[id(target.provider), target.model] = target.provider, {**known, **changes}
    _profiles.clear()


def limits_of(target: Target) -> Limits:
    row = find_row(target)
    return Limits(_positive(row.max_output_tokens), row.supports_vision is not False)


def known_facts(target: Target) -> ModelFacts:
    """What the rules state wins; `None` is what nobody knows."""
    stated = target.provider.facts_of(target.model)
    row = find_row(target)
    profile = profile_of(target)
    return ModelFacts(
        region=stated.region,
        labels=stated.labels,
        context_window=stated.context_window or _positive(row.max_input_tokens),
        max_output_tokens=stated.max_output_tokens or _positive(row.max_output_tokens),
        vision=_first_known(stated.vision, row.supports_vision, profile.vision),
        tools=_first_known(stated.tools, None, profile.tools),
        thinking=_first_known(stated.thinking, row.supports_reasoning, None),
    )


def _first_known(stated: bool | None, in_table: Any, in_profile: bool | None) -> bool | None:
    """Tables leave out what they don't know and often what a model can't, so only what they spell out
    counts."""
    if stated is not None:
        return stated
    if isinstance(in_table, bool):
        return in_table
    return False if in_profile is False else None


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
