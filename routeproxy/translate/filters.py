"""Filters that an answer's text runs through as it arrives. How it is cut into pieces makes no difference.

A filter holds back only what the next piece could turn into something else: the beginning of a tag, or a call
that is being written.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol

from msgspec import Struct


class Thought(Struct, frozen=True):
    """Reasoning."""

    text: str
    details: list[dict[str, Any]] = []
    """OpenRouter's form of it (`reasoning.py`)."""


class WrittenCall(Struct, frozen=True):
    """A tool call that was written as text."""

    name: str
    arguments: str


class StopMatch(Struct, frozen=True):
    """The answer ends here."""

    stop_string: str


Piece = str | Thought | WrittenCall | StopMatch


class Filter(Protocol):
    def feed(self, text: str) -> Sequence[Piece]: ...

    def flush(self) -> list[Piece]:
        """What was held back, when no text comes that could change it."""


class Pipeline:
    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = filters

    def feed(self, text: str) -> list[Piece]:
        for place, filter in enumerate(self._filters):
            pieces = filter.feed(text)
            if len(pieces) != 1 or not isinstance(first := pieces[0], str):
                return self._through(self._filters[place + 1 :], pieces)
            text = first  # as nearly always
        return [text] if text else []

    def flush(self) -> list[Piece]:
        pieces: list[Piece] = []
        for place, filter in enumerate(self._filters):
            if held := filter.flush():
                pieces += self._through(self._filters[place + 1 :], held)
        return pieces

    def _through(self, filters: Sequence[Filter], pieces: Iterable[Piece]) -> list[Piece]:
        for filter in filters:
            through: list[Piece] = []
            for piece in pieces:
                if isinstance(piece, str):
                    through += filter.feed(piece)
                else:
                    # What is held back stood before it.
                    through += *filter.flush(), piece
            pieces = through
        return [piece for piece in pieces if piece != ""]


class SurrogateJoiner:
    """Joins the halves of a character that was cut in two: JSON can send each as an escape of its own."""

    def __init__(self) -> None:
        self.held = ""

    def feed(self, text: str) -> str:
        text, self.held = self.held + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self.held = text[:-1], text[-1]
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")

    def flush(self) -> str:
        held, self.held = self.held, ""
        return held


class ThinkTags:
    """`<think>…</think>` becomes a thought."""

    _TAGS = ("<think>", "</think>")

    def __init__(self) -> None:
        self._held = ""
        self._thinking = False

    def feed(self, text: str) -> list[Piece]:
        text = self._held + text
        if not self._thinking and "<" not in text:  # as nearly always
            self._held = ""
            return [text]
        pieces: list[Piece] = []
        while (at := text.find(tag := self._TAGS[self._thinking])) >= 0:
            pieces.append(self._piece(text[:at]))
            text = text[at + len(tag) :]
            self._thinking = not self._thinking
        ready = len(text) - _begun(text, (tag,))
        pieces.append(self._piece(text[:ready]))
        self._held = text[ready:]
        return [piece for piece in pieces if piece not in ("", Thought(""))]

    def flush(self) -> list[Piece]:
        held, self._held = self._held, ""
        return [self._piece(held)] if held else []

    def _piece(self, text: str) -> Piece:
        return Thought(text) if self._thinking else text


class UnescapeNewlines:
    r"""A backslash and an `n` become a line break."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> list[Piece]:
        if not self._held and "\\" not in text:
            return [text]
        text = self._held + text
        self._held = "\\" if text.endswith("\\") else ""
        return [text.removesuffix("\\").replace("\\n", "\n")]

    def flush(self) -> list[Piece]:
        held, self._held = self._held, ""
        return [held] if held else []


class EscapeNewlines:
    r"""A line break becomes a backslash and an `n`."""

    def feed(self, text: str) -> list[Piece]:
        return [text.replace("\n", "\\n")]

    def flush(self) -> list[Piece]:
        return []


class StopStrings:
    """Finds stop strings that the back end was not told. The one that is complete first ends the answer."""

    def __init__(self, stop_strings: Sequence[str]) -> None:
        self._stop_strings = stop_strings
        self._held = ""
        self._matched = False

    def feed(self, text: str) -> list[Piece]:
        if self._matched:
            return []
        text = self._held + text
        matches = [(at + len(stop), at, stop) for stop in self._stop_strings if (at := text.find(stop)) >= 0]
        if matches:
            _, at, stop = min(matches)
            self._held, self._matched = "", True
            return [text[:at], StopMatch(stop)]
        ready = len(text) - _begun(text, self._stop_strings)
        self._held = text[ready:]
        return [text[:ready]]

    def flush(self) -> list[Piece]:
        held, self._held = self._held, ""
        return [held] if held else []


class TextToolCalls:
    """Calls in the forms that open models were trained on: Hermes and Qwen, Llama, Mistral.

    What looks like a call but cannot be read, or names no tool, stays text.
    """

    _ENDS: ClassVar[dict[str, str | None]] = {
        "<tool_call>": "</tool_call>",
        "<function=": "</function>",
        "[TOOL_CALLS]": None,
    }

    def __init__(self, is_tool: Callable[[str], bool]) -> None:
        self._is_tool = is_tool
        self._held = ""

    def feed(self, text: str) -> list[Piece]:
        self._held += text
        pieces: list[Piece] = []
        while True:
            at, tag = self._opening()
            pieces.append(self._held[:at])
            self._held = self._held[at:]
            end = self._ENDS.get(tag)
            if end is None or (closed := self._held.find(end)) < 0:
                return pieces
            pieces += self._read(self._held[: closed + len(end)])
            self._held = self._held[closed + len(end) :]

    def flush(self) -> list[Piece]:
        held, self._held = self._held, ""
        return self._read(held) if held else []

    def _opening(self) -> tuple[int, str]:
        """Where a call begins; or may be about to begin, with a tag that is not known yet."""
        found = [(at, tag) for tag in self._ENDS if (at := self._held.find(tag)) >= 0]
        return min(found) if found else (len(self._held) - _begun(self._held, tuple(self._ENDS)), "")

    def _read(self, source: str) -> list[Piece]:
        calls = _calls_in(source)
        if calls and all(call is not None and self._is_tool(call.name) for call in calls):
            return [call for call in calls if call is not None]
        return [source]


_FUNCTION = re.compile(r"<function=([^>\s]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>(.*?)</parameter>", re.DOTALL)


def _calls_in(source: str) -> list[WrittenCall | None]:
    if source.startswith("[TOOL_CALLS]"):
        calls = _json(source.removeprefix("[TOOL_CALLS]"))
        return [_from_json(call) for call in calls] if isinstance(calls, list) else []
    if function := _FUNCTION.search(source):
        return [_from_function(function[1], function[2])]
    return [_from_json(_json(source.removeprefix("<tool_call>").removesuffix("</tool_call>")))]


def _from_json(call: Any) -> WrittenCall | None:
    if not isinstance(call, dict) or not isinstance(name := call.get("name"), str):
        return None
    arguments = call.get("arguments", call.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _json(arguments)
    return WrittenCall(name, _dumps(arguments)) if isinstance(arguments, dict) else None


def _from_function(name: str, body: str) -> WrittenCall | None:
    if isinstance(arguments := _json(body), dict):
        return WrittenCall(name, _dumps(arguments))
    parameters = {key: _value(text) for key, text in _PARAMETER.findall(body)}
    return WrittenCall(name, _dumps(parameters)) if parameters or not body.strip() else None


def _value(text: str) -> Any:
    """A parameter's value: without its schema, what reads as JSON is taken for that."""
    text = text.removeprefix("\n").removesuffix("\n")
    value = _json(text)
    return text if value is None or isinstance(value, str) else value


def _json(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _begun(text: str, tags: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a tag."""
    most = 0
    for tag in tags:
        at = text.find(tag[0], max(0, len(text) - len(tag) + 1))
        while at >= 0 and not tag.startswith(text[at:]):
            at = text.find(tag[0], at + 1)
        if at >= 0:
            most = max(most, len(text) - at)
    return most
