"""What the deltas of an answer hold, in the order in which it counts: reasoning, web searches, text with its
citations, tool calls. What of it is shown is not known here, and no delta makes it raise."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from routeproxy.chat.completion import Delta, Page, PageCitation, ToolCallDelta, WebSearchCall
from routeproxy.translate import reasoning
from routeproxy.translate.filters import Citations, Piece, Pipeline, Reasoning, SurrogateJoiner

T = TypeVar("T")

ToolCallDeltas = tuple[ToolCallDelta, ...]

_NO_REASONING = Reasoning("", [])
_LONGEST_TYPE = 40


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
        on_unreadable: Callable[[], None],
    ) -> None:
        """`pipeline`: what the text runs through. The others are called in the order in which the content
        counts; `on_unreadable` for content of which nobody knows what it says."""
        self._pipeline = pipeline
        self._on_piece = on_piece
        self._on_tool_calls = on_tool_calls
        self._on_unreadable = on_unreadable
        self._joiner = SurrogateJoiner()
        self.refusal = ""
        """The text of the refusal so far. It is read as text, too."""
        self.left_out: set[str] = set()
        """What there was besides text and calls, such as images, by its names."""

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
        if delta.web_searches:
            self.flush()
            for call in _instances(delta.web_searches, WebSearchCall):
                self._on_piece(call)
        if content:
            if isinstance(content, str):
                self._read_text(content)
            else:
                self._read_parts(content)
        if delta.refusal and isinstance(delta.refusal, str):
            self._read_refusal(delta.refusal)
        if (delta.citations or delta.annotations) and (citations := tuple(_citations(delta))):
            self.flush()
            self._on_piece(Citations(citations))
        if delta.images or delta.audio:
            self.left_out |= {name for name in ("images", "audio") if getattr(delta, name)}
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

    def _read_parts(self, parts: Any) -> None:
        """Content that came as a list of parts."""
        for part in parts if isinstance(parts, list | tuple) else (parts,):
            match part:
                case str(text) | {"text": str(text)}:
                    if text:
                        self._read_text(text)
                case {"type": "refusal", "refusal": str(text)}:
                    self._read_refusal(text)
                case None | {"type": "thinking" | "reference"} | {"thinking": _}:
                    pass  # Mistral's: the first is read as reasoning, the second cites
                case {"type": str(type)}:
                    self.left_out.add(type[:_LONGEST_TYPE])
                case _:
                    self._on_unreadable()

    def _read_refusal(self, text: str) -> None:
        self.refusal += text
        self._read_text(text)

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


def _citations(delta: Delta) -> Iterator[PageCitation]:
    """Those that our readers put there, and those of chat completions: `{"type": "url_citation",
    "url_citation": {"url": …, "title": …}}`."""
    yield from _instances(delta.citations, PageCitation)
    for annotation in _instances(delta.annotations, dict):
        match annotation:
            case {"type": "url_citation", "url_citation": {"url": str(url)} as page} if url:
                title = page.get("title")
                yield PageCitation(Page(url, title if isinstance(title, str) and title else None))


def _instances(values: Any, type: type[T]) -> Iterator[T]:
    """Those of our readers: a back end may have anything in a field of that name."""
    return (value for value in values if isinstance(value, type)) if isinstance(values, list) else iter(())
