"""Sections of a rules file, written as people write them: short tables in braces, notes beside them.

Values are escaped by tomli_w, which writes no comments, and every list over several lines.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import tomli_w

WIDTH = 110
_NOTES_BEGIN = 39
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def section(header: str, table: Mapping[str, Any], *, note: str = "", below: str = "") -> str:
    """`note` is a comment beside the header, `below` comment lines at the end of the section."""
    lines = [f"{header:<{_NOTES_BEGIN}}{comment(note)}" if note else header]
    for name, value in table.items():
        if name == "match":
            lines += _conditions("match", value)
        else:
            lines.append(_line(quoted(name), value))
    return "\n".join([*lines, *([below] if below else []), ""])


def comment(text: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())


def quoted(name: str) -> str:
    return name if _BARE.fullmatch(name) else inline(name)


def inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{quoted(name)} = {inline(item)}' for name, item in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").removesuffix("\n")


def _conditions(name: str, condition: Any) -> Iterator[str]:
    """One condition a line, in dotted keys."""
    if not isinstance(condition, Mapping):
        yield _line(name, condition)
        return
    for part, inner in condition.items():
        yield from _conditions(f"{name}.{quoted(part)}", inner)


def _line(name: str, value: Any) -> str:
    line = f"{name} = {inline(value)}"
    if len(line) <= WIDTH or not isinstance(value, list):
        return line
    items = "".join(f"    {inline(item)},\n" for item in value)
    return f"{name} = [\n{items}]"
