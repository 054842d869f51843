"""What is known of models without asking anybody: what the rules state, what our table of profiles knows, and
LiteLLM's table of models, read as the file that it is, since importing LiteLLM takes seconds."""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from routeproxy.policy.providers import ModelFacts
from routeproxy.policy.targets import Target
from routeproxy.translate.profile import ModelProfile
from routeproxy.upstream.chat.endpoints import endpoint_of
from routeproxy.upstream.chat.profiles import Limits, profile_of

TABLE = "model_prices_and_context_window_backup.json"


class Row(Struct, frozen=True):
    """Of some 40 columns those that we go by: a row of all takes ten times the memory."""

    max_input_tokens: Any = None
    max_output_tokens: Any = None
    supports_vision: Any = None
    supports_reasoning: Any = None


def limits_of(target: Target) -> Limits:
    row = _row(target)
    return Limits(_number(row.max_output_tokens), row.supports_vision is not False)


MOST_PROFILES = 1024

_profiles: dict[int, tuple[Target, ModelProfile]] = {}
"""By the id of the target, which is kept beside it so that the id stays its own."""


def profile_within_limits(target: Target) -> ModelProfile:
    """What `target` understands, the table's limits included; worked out once for each target of the
    rules."""
    known = _profiles.get(id(target))
    if known is None:
        if len(_profiles) >= MOST_PROFILES:
            _profiles.clear()
        known = _profiles[id(target)] = target, profile_of(target, limits_of(target))
    return known[1]


def known_facts(target: Target) -> ModelFacts:
    """A `None` is what nobody knows. What the rules state wins."""
    stated = target.provider.facts_of(target.model)
    row = _row(target)
    profile = profile_of(target)
    return ModelFacts(
        region=stated.region,
        labels=stated.labels,
        context_window=stated.context_window or _number(row.max_input_tokens),
        max_output_tokens=stated.max_output_tokens or _number(row.max_output_tokens),
        vision=_first(stated.vision, row.supports_vision, profile.vision),
        tools=_first(stated.tools, None, profile.tools),
        thinking=_first(stated.thinking, row.supports_reasoning, None),
    )


def load() -> None:
    """Reads the table, which takes 20 ms: call it before a request has to wait."""
    _table()


def _first(stated: bool | None, in_table: Any, in_profile: bool | None) -> bool | None:
    """Tables leave out what they don't know and often what a model can't, so of theirs only a word counts."""
    if stated is not None:
        return stated
    if isinstance(in_table, bool):
        return in_table
    return False if in_profile is False else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


_UNKNOWN = Row()


def _row(target: Target) -> Row:
    for prefix in endpoint_of(target.provider).limits:
        if row := _table().get(prefix + target.model):
            return row
    return _UNKNOWN


@cache
def _table() -> Mapping[str, Row]:
    spec = find_spec("litellm")
    places = spec.submodule_search_locations if spec is not None else None
    for place in places or ():
        file = Path(place) / TABLE
        if file.exists():
            return msgspec.json.decode(file.read_bytes(), type=dict[str, Row])
    return {}
