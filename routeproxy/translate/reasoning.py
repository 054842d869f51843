"""Where back ends put their reasoning, and what of it has to come back with the next request (`thinking.py` has the kinds of payload)."""

from typing import Any

from routeproxy.chat.completion import Delta


def text_of(delta: Delta) -> str:
    """The reasoning in `delta`, which some back ends send in two or three fields at once."""
    for text in (delta.reasoning_content, delta.reasoning):
        if isinstance(text, str) and text:
            return text
    return (
        _joined(delta.thinking_blocks, "thinking")
        or _joined(delta.reasoning_details, "text", "summary")
        or "".join(_thinking_part(part) for part in delta.content if isinstance(part, dict))
        if delta.thinking_blocks or delta.reasoning_details or isinstance(delta.content, list | tuple)
        else ""
    )


def _joined(parts: Any, *keys: str) -> str:
    if not isinstance(parts, list | tuple):
        return ""
    values = (part.get(key) for part in parts if isinstance(part, dict) for key in keys)
    return "".join(value for value in values if isinstance(value, str))


def _thinking_part(part: dict[str, Any]) -> str:
    """Mistral's: `{"type": "thinking", "thinking": [{"type": "text", "text": …}]}`."""
    thinking = part.get("thinking")
    return thinking if isinstance(thinking, str) else _joined(thinking, "text")
