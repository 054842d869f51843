"""Filters that an answer's text runs through as it arrives. How it is cut into pieces makes no difference.

A filter holds back only what the next piece could turn into something else: the beginning of a tag, or a call
that is being written.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, Protocol

from msgspec import Struct

from routeproxy.chat.completion import PageCitation, WebSearchCall


class Reasoning(Struct, frozen=True):
    text: str
    details: list[dict[str, Any]] = []
    """The same as OpenRouter has it (`reasoning.py`)."""


class TextToolCall(Struct, frozen=True):
    """A tool call that the model wrote into its text."""

    name: str
    arguments: str


class StopMatch(Struct, frozen=True):
    """The answer ends here, with the stop string that was found."""

    stop_string: str


class Citations(Struct, frozen=True):
    """The pages that the text so far rests on."""

    citations: tuple[PageCitation, ...]


Piece = str | Reasoning | TextToolCall | StopMatch | WebSearchCall | Citations
"""A `str` is text."""


class Filter(Protocol):
    def feed(self, text: str) -> Sequence[Piece]: ...

    def flush(self) -> list[Piece]:
        """What was held back, once no text can come that would change it."""


class Pipeline:
    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = filters

    def feed(self, text: str) -> list[Piece]:
        for position, filter in enumerate(self._filters):
            pieces = filter.feed(text)
            if len(pieces) != 1 or not isinstance(first := pieces[0], str):
                return self._filter(pieces, self._filters[position + 1 :])
            text = first  # as nearly always
        return [text] if text else []

    def flush(self) -> list[Piece]:
        pieces: list[Piece] = []
        for position, filter in enumerate(self._filters):
            if held := filter.flush():
                pieces += self._filter(held, self._filters[position + 1 :])
        return pieces

    def _filter(self, pieces: Iterable[Piece], filters: Sequence[Filter]) -> list[Piece]:
        for filter in filters:
            filtered: list[Piece] = []
            for piece in pieces:
                if isinstance(piece, str):
                    filtered += filter.feed(piece)
                else:
                    # What the filter holds back stood before this piece.
                    filtered += *filter.flush(), piece
            pieces = filtered
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
    """`<think>…</think>` becomes reasoning."""

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
        while (start := text.find(tag := self._TAGS[self._thinking])) >= 0:
            pieces.append(self._piece(text[:start]))
            text = text[start + len(tag) :]
            self._thinking = not self._thinking
        ready = len(text) - _partial_suffix_length(text, (tag,))
        pieces.append(self._piece(text[:ready]))
        self._held = text[ready:]
        return [piece for piece in pieces if piece not in ("", Reasoning(""))]

    def flush(self) -> list[Piece]:
        held, self._held = self._held, ""
        return [self._piece(held)] if held else []

    def _piece(self, text: str) -> Piece:
        return Reasoning(text) if self._thinking else text


class CodeFences:
    """A fence around the whole text, of three backticks, is taken off it: some models put JSON in one."""

    _OPENING = re.compile(r"\s*```[\w-]*[ \t]*(?:\r?\n|(?=[\[{\"]))")
    _MAYBE_OPENING = re.compile(r"\s*(?:`{0,2}|```[\w-]*[ \t]*\r?)\Z")
    _MAYBE_CLOSING = re.compile(r"\s*`{0,3}\s*\Z")

    def __init__(self) -> None:
        self._held = ""
        self._state: Literal["before", "inside", "without"] = "before"

    def feed(self, text: str) -> list[Piece]:
        if self._state == "without":  # as nearly always
            return [text]
        text, self._held = self._held + text, ""
        if self._state == "before":
            if opening := self._OPENING.match(text):
                self._state, text = "inside", text[opening.end() :]
            elif self._MAYBE_OPENING.match(text):
                self._held = text
                return []
            else:
                self._state = "without"
                return [text]
        closing = self._MAYBE_CLOSING.search(text)
        end = closing.start() if closing else len(text)
        self._held = text[end:]
        return [text[:end]] if end else []

    def flush(self) -> list[Piece]:
        held, self._held = self._held, ""
        if self._state == "inside":
            held = "" if held.strip() in ("", "```") else held
        return [held] if held else []


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
    """Finds the stop strings that the back end does not look for. The first complete one ends the answer."""

    def __init__(self, stop_strings: Sequence[str]) -> None:
        self._stop_strings = stop_strings
        self._held = ""
        self._matched = False

    def feed(self, text: str) -> list[Piece]:
        if self._matched:
            return []
        text = self._held + text
        matches = [
            (start + len(stop), start, stop) for stop in self._stop_strings if (start := text.find(stop)) >= 0
        ]
        if matches:
            _, start, stop = min(matches)
            self._held, self._matched = "", True
            return [text[:start], StopMatch(stop)]
        ready = len(text) - _partial_suffix_length(text, self._stop_strings)
        self._held = text[ready:]
        return [text[:ready]]

    def flush(self) -> list[Piece]:
        held, self._held = self._held, ""
        return [held] if held else []


class TextToolCalls:
    """Tool calls in the forms that open models were trained on: Hermes and Qwen, Llama, Mistral.

    What looks like a call but cannot be read, or names no tool, stays text.
    """

    _CLOSING_TAGS: ClassVar[dict[str, str | None]] = {
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
            start, tag = self._find_opening_tag()
            pieces.append(self._held[:start])
            self._held = self._held[start:]
            closing_tag = self._CLOSING_TAGS.get(tag)
            if closing_tag is None or (close := self._held.find(closing_tag)) < 0:
                return pieces
            end = close + len(closing_tag)
            pieces += self._read_calls(self._held[:end])
            self._held = self._held[end:]

    def flush(self) -> list[Piece]:
        held, self._held = self._held, ""
        return self._read_calls(held) if held else []

    def _find_opening_tag(self) -> tuple[int, str]:
        """Where the first call begins, and its tag; or where one may be about to begin, and no tag."""
        openings = [(start, tag) for tag in self._CLOSING_TAGS if (start := self._held.find(tag)) >= 0]
        if openings:
            return min(openings)
        return len(self._held) - _partial_suffix_length(self._held, tuple(self._CLOSING_TAGS)), ""

    def _read_calls(self, source: str) -> list[Piece]:
        calls = _calls_in(source)
        if calls and all(call is not None and self._is_tool(call.name) for call in calls):
            return [call for call in calls if call is not None]
        return [source]


_FUNCTION = re.compile(r"<function=([^>\s]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>(.*?)</parameter>", re.DOTALL)


def _calls_in(source: str) -> list[TextToolCall | None]:
    if source.startswith("[TOOL_CALLS]"):
        calls = _decode_json(source.removeprefix("[TOOL_CALLS]"))
        return [_json_call(call) for call in calls] if isinstance(calls, list) else []
    if function := _FUNCTION.search(source):
        return [_function_call(function[1], function[2])]
    return [_json_call(_decode_json(source.removeprefix("<tool_call>").removesuffix("</tool_call>")))]


def _json_call(call: Any) -> TextToolCall | None:
    if not isinstance(call, dict) or not isinstance(name := call.get("name"), str):
        return None
    arguments = call.get("arguments", call.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _decode_json(arguments)
    return TextToolCall(name, _encode_json(arguments)) if isinstance(arguments, dict) else None


def _function_call(name: str, body: str) -> TextToolCall | None:
    if isinstance(arguments := _decode_json(body), dict):
        return TextToolCall(name, _encode_json(arguments))
    parameters = {key: _parameter_value(text) for key, text in _PARAMETER.findall(body)}
    return TextToolCall(name, _encode_json(parameters)) if parameters or not body.strip() else None


def _parameter_value(text: str) -> Any:
    """A parameter's value: without its schema, what reads as JSON is taken for that."""
    text = text.removeprefix("\n").removesuffix("\n")
    value = _decode_json(text)
    return text if value is None or isinstance(value, str) else value


def _decode_json(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _encode_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _partial_suffix_length(text: str, tags: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of one of `tags`."""
    longest = 0
    for tag in tags:
        start = text.find(tag[0], max(0, len(text) - len(tag) + 1))
        while start >= 0 and not tag.startswith(text[start:]):
            start = text.find(tag[0], start + 1)
        if start >= 0:
            longest = max(longest, len(text) - start)
    return longest
