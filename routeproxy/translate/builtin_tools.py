"""Tools that Anthropic defines and clients execute: another vendor's model needs their schemas in full."""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET

from routeproxy.chat.request import Function


def _tool(description: str, required: tuple[str, ...], **properties: object) -> Function:
    schema = {"type": "object", "properties": properties, "required": required}
    encoded = msgspec.Raw(msgspec.json.encode(description)), msgspec.Raw(msgspec.json.encode(schema))
    return Function("", *encoded, UNSET)


def _string(description: str) -> dict[str, object]:
    return {"type": "string", "description": description}


def _command(*names: str) -> dict[str, object]:
    return {"type": "string", "enum": names, "description": "What to do."}


_LINES = {
    "type": "array",
    "items": {"type": "integer"},
    "description": "For `view`: first and last line, from 1; -1 is the end.",
}
_LINE = {
    "type": "integer",
    "description": "For `insert`: the line after which the text goes; 0 is the beginning.",
}

_BASH = _tool(
    "Run a command in a persistent bash session and return its output.",
    (),
    command=_string("The command to run. Required unless `restart` is set."),
    restart={"type": "boolean", "description": "Restart the session instead of running a command."},
)
_EDITS = {
    "path": _string("Absolute path of the file or folder."),
    "file_text": _string("For `create`: the content of the new file."),
    "old_str": _string("For `str_replace`: the text to replace; it must occur exactly once."),
    "new_str": _string("For `str_replace`: the text to put in its place."),
    "insert_line": _LINE,
    "insert_text": _string("For `insert`: the text to put in."),
    "view_range": _LINES,
}
_EDITOR = _tool(
    "View, create and edit text files.",
    ("command", "path"),
    command=_command("view", "create", "str_replace", "insert"),
    **_EDITS,
)
_EDITOR_WITH_UNDO = _tool(
    "View, create and edit text files.",
    ("command", "path"),
    command=_command("view", "create", "str_replace", "insert", "undo_edit"),
    # These versions put the text of an `insert` into `new_str`.
    **{key: value for key, value in _EDITS.items() if key != "insert_text"},
)
_MEMORY = _tool(
    "Keep notes between conversations, as files below /memories. Look there before you start.",
    ("command",),
    command=_command("view", "create", "str_replace", "insert", "delete", "rename"),
    **_EDITS,
    old_path=_string("For `rename`: the present path."),
    new_path=_string("For `rename`: the new path."),
)

BUILTIN_TOOLS: Mapping[str, Function] = {
    "bash_": _BASH,
    "text_editor_2024": _EDITOR_WITH_UNDO,
    "text_editor_20250124": _EDITOR_WITH_UNDO,
    "text_editor_": _EDITOR,
    "memory_": _MEMORY,
}
"""By the beginning of the tool's `type`, the first that fits; `name` is the client's."""
