"""The system prompt, from Messages to chat: one text, and without Claude Code's billing header."""

import msgspec
from msgspec import Raw

from routeproxy.messages.request import ATTRIBUTION, System
from routeproxy.translate.blocks import BETWEEN_TEXTS
from routeproxy.translate.raw_json import as_written, join_strings

_ATTRIBUTION_JSON = f'"{ATTRIBUTION}'.encode()
_BETWEEN_TEXTS_JSON = msgspec.json.encode(BETWEEN_TEXTS)[1:-1]


def system_prompt_text(system: System, *, strip_attribution: bool) -> str | Raw:
    """The text, or its JSON as the client wrote it; empty if there is none. Raises `InvalidRequest`, and
    `UnicodeDecodeError`."""
    if isinstance(system, str):
        return _without_attribution(system) if strip_attribution else system
    texts = [as_written(block.text, f"system.{index}.text") for index, block in enumerate(system)]
    kept = [
        text
        for text in texts
        if text != b'""' and not (strip_attribution and text.startswith(_ATTRIBUTION_JSON))
    ]
    return join_strings(kept, _BETWEEN_TEXTS_JSON) if kept else ""


def _without_attribution(system: str) -> str:
    if not system.startswith(ATTRIBUTION):
        return system
    return system.partition("\n")[2].lstrip("\n")
