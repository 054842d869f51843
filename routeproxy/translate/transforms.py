"""What a rule may have done to an answer, and to the system prompt (docs/rules.md, "Transforms")."""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from routeproxy.translate.filters import (
    CodeFences,
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

_NEWLINE_FILTERS: dict[Newlines, type[Filter] | None] = {
    "keep": None,
    "unescape": UnescapeNewlines,
    "escape": EscapeNewlines,
}


def text_pipeline(
    transforms: Transforms, stop_strings: tuple[str, ...], is_tool: Callable[[str], bool], *, is_json: bool
) -> Pipeline | None:
    """What the answer's text runs through; `None` if it stays as it is. `is_json`: it was asked to be."""
    filters: list[Filter] = []
    if transforms.think_tags:
        filters.append(ThinkTags())
    if transforms.text_tool_calls:
        filters.append(TextToolCalls(is_tool))
    if is_json:
        filters.append(CodeFences())
    searched = tuple(filter(None, stop_strings))
    stop_filters = [StopStrings(searched)] if searched else []
    # A client's stop string has real line breaks in it: it is looked for where the text has them.
    match transforms.newlines:
        case "unescape":
            filters += [UnescapeNewlines(), *stop_filters]
        case "escape":
            filters += [*stop_filters, EscapeNewlines()]
        case _:
            filters += stop_filters
    return Pipeline(filters) if filters else None


def reasoning_pipeline(transforms: Transforms) -> Pipeline | None:
    """What reasoning that becomes text runs through; `None` if it stays as it is."""
    newline_filter = _NEWLINE_FILTERS[transforms.newlines]
    return Pipeline([newline_filter()]) if newline_filter and transforms.thinking == "text" else None
