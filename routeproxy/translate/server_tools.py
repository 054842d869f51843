"""Tools that ran on Anthropic's side in earlier turns: to another model their calls and results are text."""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw

_READABLE_FIELDS = (
    "title",
    "url",
    "text",
    "stdout",
    "stderr",
    "return_code",
    "error_code",
    "tool_name",
    "data",
)
_BASE64 = "base64"


def server_call_text(name: str, input: Raw) -> str:
    return f"[{name} {bytes(input).decode()}]\n"


def server_result_text(type: str, content: Raw) -> str:
    """The readable part of a result: titles, addresses, texts, outputs and errors, one a line."""
    lines = list(_readable_lines(msgspec.json.decode(content)))
    return f"[{type}]\n" + "".join(f"{line}\n" for line in lines or ("(no results)",))


def referenced_tools(content: Raw) -> list[str]:
    """The names of the tools that a `tool_search_tool_result` refers to."""
    value = msgspec.json.decode(content)
    references = value.get("tool_references") if isinstance(value, dict) else None
    return [
        reference["tool_name"]
        for reference in references or ()
        if isinstance(reference, dict) and isinstance(reference.get("tool_name"), str)
    ]


def _readable_lines(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for element in value:
            yield from _readable_lines(element)
    elif isinstance(value, dict):
        if value.get("type") == _BASE64:
            return
        fields = [value.get(name) for name in _READABLE_FIELDS]
        if line := " ".join(str(field) for field in fields if isinstance(field, str | int) and field != ""):
            yield line
        for child in value.values():
            if isinstance(child, dict | list):
                yield from _readable_lines(child)
