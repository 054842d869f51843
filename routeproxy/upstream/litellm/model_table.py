"""LiteLLM's table of models, read as the file that it is, since importing LiteLLM takes seconds."""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Target

FILE = "model_prices_and_context_window_backup.json"

PREFIXES: Mapping[str, tuple[str, ...]] = {
    "openai": ("",),
    "azure": ("azure/", ""),
    "ollama": ("ollama/",),
    "vertex_ai": ("vertex_ai/", ""),
}
"""By type of provider, the prefixes under which the table may have its models, the likeliest first; usually
the type."""


class Row(Struct, frozen=True):
    """The columns that we go by, of some 40: a row of all takes ten times the memory."""

    max_input_tokens: Any = None
    max_output_tokens: Any = None
    supports_vision: Any = None
    supports_reasoning: Any = None


T = TypeVar("T")

_UNKNOWN = Row()


def find_row(target: Target) -> Row:
    """An empty row where the table does not have the model."""
    type = target.provider.type
    for prefix in PREFIXES.get(type) or (f"{type}/",):
        if row := load().get(prefix + target.model):
            return row
    return _UNKNOWN


@cache
def load() -> Mapping[str, Row]:
    """The table, which takes 20 ms to read: call it before a request has to wait."""
    return _read(Row)


def _read(row: type[T]) -> Mapping[str, T]:
    spec = find_spec("litellm")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        file = Path(folder) / FILE
        if file.exists():
            return msgspec.json.decode(file.read_bytes(), type=dict[str, row])  # type: ignore[valid-type]
    return {}


class _Listed(Struct, frozen=True):
    litellm_provider: str | None = None
    mode: str | None = None


CONVERSATIONS = frozenset({"chat", "responses"})

UNKNOWN_STOCK = frozenset({"ollama"})
"""Types of which a server has what its operator has put there, and the table what there is in the world."""


def models_of(provider: Provider) -> tuple[str, ...]:
    """The names under which the table has models of a provider of this type that hold a conversation."""
    return _names_by_type().get(provider.type, ())


@cache
def _names_by_type() -> Mapping[str, tuple[str, ...]]:
    """It takes 30 ms to make."""
    names: dict[str, dict[str, None]] = {}
    for name, row in _read(_Listed).items():
        prefix, slash, rest = name.partition("/")
        type = _type_of(row.litellm_provider or "")
        if row.mode not in CONVERSATIONS or type in UNKNOWN_STOCK:
            continue
        own = rest if slash and prefix == type else name
        # Prices of fine-tuned models and of regions are rows too.
        if not own.startswith("ft:") and "*" not in own and not (type == "bedrock" and "/" in name):
            names.setdefault(type, {})[own] = None
    return {type: tuple(found) for type, found in names.items()}


def _type_of(provider: str) -> str:
    """The type of a provider, by the table's own name of it."""
    if provider.startswith("vertex_ai-"):  # and the vendor of the model
        return "vertex_ai"
    return "bedrock" if provider == "bedrock_converse" else provider
