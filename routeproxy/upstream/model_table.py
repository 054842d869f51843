"""What is known of models without asking anybody: what the rules state, what our table of dialects knows, and
LiteLLM's table of models, read as the file that it is, since importing LiteLLM takes seconds."""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from routeproxy.policy.decide import Target
from routeproxy.policy.providers import ModelFacts
from routeproxy.upstream.dialects import dialect_of
from routeproxy.upstream.providers import manner_of

TABLE = "model_prices_and_context_window_backup.json"


def known_facts(target: Target) -> ModelFacts:
    """A `None` is what nobody knows. What the rules state wins."""
    stated = target.provider.facts_of(target.model)
    row = _row(target)
    dialect = dialect_of(target)
    return ModelFacts(
        region=stated.region,
        labels=stated.labels,
        context_window=stated.context_window or _number(row.get("max_input_tokens")),
        max_output_tokens=stated.max_output_tokens or _number(row.get("max_output_tokens")),
        vision=_first(stated.vision, row.get("supports_vision"), dialect.vision),
        tools=_first(stated.tools, None, dialect.tools),
        thinking=_first(stated.thinking, row.get("supports_reasoning"), None),
    )


def _first(stated: bool | None, in_table: Any, in_dialect: bool | None) -> bool | None:
    """Tables leave out what they don't know and often what a model can't, so of theirs only a word counts."""
    if stated is not None:
        return stated
    if isinstance(in_table, bool):
        return in_table
    return False if in_dialect is False else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _row(target: Target) -> Mapping[str, Any]:
    for prefix in manner_of(target.provider).limits:
        if row := _table().get(prefix + target.model):
            return row
    return {}


@cache
def _table() -> Mapping[str, Mapping[str, Any]]:
    spec = find_spec("litellm")
    places = spec.submodule_search_locations if spec is not None else None
    for place in places or ():
        file = Path(place) / TABLE
        if file.exists():
            table: Mapping[str, Mapping[str, Any]] = msgspec.json.decode(file.read_bytes())
            return table
    return {}
