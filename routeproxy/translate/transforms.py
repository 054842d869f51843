"""What a rule may have done to an answer, and to the system prompt (rules-language.md, "Transforms")."""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from routeproxy.translate.filters import (
    EscapeNewlines,
    Filter,
    Pipeline,
    StopStrings,
    TextToolCalls,
    ThinkTags,
    UnescapeNewlines,
)

Newlines = Literal["keep", "unescape", "escape"]


class Transforms(Struct, frozen=True, kw_only=True):
    strip_attribution: bool = True
    think_tags: bool = False
    text_tool_calls: bool = False
    thinking: Literal["keep", "drop", "text"] = "keep"
    newlines: Newlines = "keep"
    model_name: Literal["requested", "served"] = "requested"


UNTOUCHED = Transforms()

_NEWLINES: dict[Newlines, type[Filter] | None] = {
    "keep": None,
    "unescape": UnescapeNewlines,
    "escape": EscapeNewlines,
}


def text_pipeline(
    transforms: Transforms, stop_strings: tuple[str, ...], is_tool: Callable[[str], bool]
) -> Pipeline | None:
    """What the answer's text runs through; `None` when that would change nothing."""
    filters: list[Filter] = []
    if transforms.think_tags:
        filters.append(ThinkTags())
    if transforms.text_tool_calls:
        filters.append(TextToolCalls(is_tool))
    stops = [StopStrings(wanted)] if (wanted := tuple(filter(None, stop_strings))) else []
    # A client's stop string has real line breaks in it: it is looked for where the text has them.
    match transforms.newlines:
        case "unescape":
            filters += [UnescapeNewlines(), *stops]
        case "escape":
            filters += [*stops, EscapeNewlines()]
        case _:
            filters += stops
    return Pipeline(filters) if filters else None


def reasoning_pipeline(transforms: Transforms) -> Pipeline | None:
    """The same for reasoning that becomes text."""
    newlines = _NEWLINES[transforms.newlines]
    return Pipeline([newlines()]) if newlines and transforms.thinking == "text" else None
