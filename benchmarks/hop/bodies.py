"""What clients ask: a Claude Code turn as it was recorded, and conversations of 1 kB, 16 kB and 1 MB."""

import json
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent.parent.parent / "tests" / "wire" / "claude-code" / "first-turn.json"

MODEL = "claude-sonnet-5"
TURN = (
    "The second test fails when the file is empty: `read()` gives \"\", and the loop in\n"
    "parse.py:42 — “for line in text.split('\\n')” — then sees one line instead of none.\n"
    "\tif not line:\n\t\traise ValueError(f\"{path}: nothing here\")\nLet me look at it again.\n"
)  # fmt: skip
"""Text with what JSON has to escape, and what UTF-8 takes more than a byte for."""

KB = 1000
SIZES = {"1 kB": 1 * KB, "16 kB": 16 * KB, "115 kB": 0, "1 MB": 1000 * KB}
"""The size of each body; none for the recorded one, which is as it is."""


def headers() -> dict[str, str]:
    """What Claude Code sends besides, but for its key. No compressed answers: they are to be looked into."""
    recorded: dict[str, str] = _recorded()["headers"]
    left_out = ("accept-encoding", "x-api-key")
    return {name: value for name, value in recorded.items() if name not in left_out}


def as_messages(size: str, *, stream: bool) -> dict[str, Any]:
    if not SIZES[size]:
        body: dict[str, Any] = _recorded()["body"]
        return {**body, "stream": stream}
    body = {"model": MODEL, "max_tokens": 1000, "stream": stream, "messages": []}
    turns = [{"role": ("user", "assistant")[number % 2], "content": TURN} for number in range(1 << 12)]
    room = SIZES[size] - len(encoded(body))
    fit = max(1, room // (len(encoded(turns[1])) + 1))
    # A conversation ends with its user.
    kept = turns[: fit - (fit % 2 == 0)]
    room -= len(encoded(kept))
    kept[-1] = {"role": "user", "content": TURN + "." * max(0, room)}
    return {**body, "messages": kept}


def as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """The same request for a gateway that takes chat completions only."""
    messages = [{"role": "system", "content": _text(body["system"])}] if "system" in body else []
    messages += [{"role": turn["role"], "content": _text(turn["content"])} for turn in body["messages"]]
    chat = {"model": body["model"], "max_tokens": body["max_tokens"], "messages": messages}
    if tools := [_function(tool) for tool in body.get("tools", []) if "input_schema" in tool]:
        chat["tools"] = tools
    if body["stream"]:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat


def encoded(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _recorded() -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(RECORDED.read_text())
    return recorded


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(block.get("text", "") for block in content)


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    described = {"description": tool["description"]} if "description" in tool else {}
    function = {"name": tool["name"], **described, "parameters": tool["input_schema"]}
    return {"type": "function", "function": function}
