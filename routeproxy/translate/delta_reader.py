"""What the deltas of an answer hold, in the order in which it counts: reasoning, text, tool calls. What of it
is shown is not known here, and no delta makes it raise."""

from collections.abc import Callable
from typing import Any

from routeproxy.chat.completion import Delta, ToolCallDelta
from routeproxy.translate import reasoning
from routeproxy.translate.filters import Piece, Pipeline, Reasoning, SurrogateJoiner

ToolCallDeltas = tuple[ToolCallDelta, ...]

_NO_REASONING = Reasoning("", [])


class DeltaReader:
    """`read` it the deltas of one answer, and `flush` it when there are no more.

    Text that may still change its meaning is held back: half a character, the beginning of a tag.
    """

    def __init__(
        self,
        pipeline: Pipeline | None,
        *,
        on_piece: Callable[[Piece], None],
        on_tool_calls: Callable[[ToolCallDeltas], None],
    ) -> None:
        """`pipeline`: what the text runs through. The other two are called in the order in which the content
        counts."""
        self._pipeline = pipeline
        self._on_piece = on_piece
        self._on_tool_calls = on_tool_calls
        self._joiner = SurrogateJoiner()
        self.refusal = ""
        """The text of the refusal so far. It is read as text, too."""

    def read(self, delta: Delta) -> None:
        content = delta.content
        if (
            delta.reasoning_content
            or delta.reasoning
            or delta.reasoning_details
            or delta.thinking_blocks
            or (content and content.__class__ is not str)
        ):
            piece = Reasoning(reasoning.text_of(delta), reasoning.details_of(delta))
            if piece != _NO_REASONING:
                self.flush()
                self._on_piece(piece)
        if content:
            self._read_text(content if isinstance(content, str) else _text_of_parts(content))
        if delta.refusal and isinstance(delta.refusal, str):
            self.refusal += delta.refusal
            self._read_text(delta.refusal)
        if delta.tool_calls or delta.function_call:
            self.flush()
            self._on_tool_calls(delta.tool_calls or (ToolCallDelta(function=delta.function_call),))

    def flush(self) -> None:
        """No text can come any more that would continue what was held back."""
        if half := self._joiner.flush():
            self._filter(half)
        if self._pipeline is not None:
            for piece in self._pipeline.flush():
                self._on_piece(piece)

    def _read_text(self, text: str) -> None:
        if self._joiner.held or text[-1:] >= "\ud800":
            text = self._joiner.feed(text)
        self._filter(text)

    def _filter(self, text: str) -> None:
        if self._pipeline is not None:
            for piece in self._pipeline.feed(text):
                self._on_piece(piece)
        elif text:
            self._on_piece(text)


def _text_of_parts(parts: Any) -> str:
    """The text of content that came as a list of parts."""
    if not isinstance(parts, list | tuple):
        return ""
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "".join(text for text in texts if isinstance(text, str))
