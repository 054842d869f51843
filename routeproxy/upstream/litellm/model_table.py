"""LiteLLM's table of models, read as the file that it is, since importing LiteLLM takes seconds."""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

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
    spec = find_spec("litellm")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        file = Path(folder) / FILE
        if file.exists():
            return msgspec.json.decode(file.read_bytes(), type=dict[str, Row])
    return {}
