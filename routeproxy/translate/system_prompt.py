"""The system prompt, from Messages to chat: one text, and without Claude Code's billing header."""

import msgspec
from msgspec import UNSET, Raw

from routeproxy.chat.request import TextPart
from routeproxy.messages.request import ATTRIBUTION, System
from routeproxy.translate.blocks import BETWEEN_TEXTS
from routeproxy.translate.cache_marks import mark_of
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.raw_json import as_written, join_strings

_ATTRIBUTION_JSON = f'"{ATTRIBUTION}'.encode()
_BETWEEN_TEXTS_JSON = msgspec.json.encode(BETWEEN_TEXTS)[1:-1]


def system_prompt_text(system: System, profile: ModelProfile) -> str | Raw | tuple[TextPart, ...]:
    """The text, or its JSON as the client wrote it; parts where one of them is marked for a cache; empty if
    there is none. Raises `InvalidRequest`, and `UnicodeDecodeError`."""
    if isinstance(system, str):
        return _without_attribution(system) if profile.strip_attribution else system
    texts = [
        (as_written(block.text, f"system.{index}.text"), mark_of(block.cache_control, profile))
        for index, block in enumerate(system)
    ]
    kept = [
        (text, mark)
        for text, mark in texts
        if text != b'""' and not (profile.strip_attribution and text.startswith(_ATTRIBUTION_JSON))
    ]
    if any(mark is not UNSET for _, mark in kept):
        return tuple(TextPart(msgspec.json.decode(text, type=str), mark) for text, mark in kept)
    return join_strings([text for text, _ in kept], _BETWEEN_TEXTS_JSON) if kept else ""


def _without_attribution(system: str) -> str:
    if not system.startswith(ATTRIBUTION):
        return system
    return system.partition("\n")[2].lstrip("\n")
