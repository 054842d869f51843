"""Chunks of a chat completion in, events of a Messages stream out. No I/O happens here, and nothing that a back end sends makes it raise.

The client sees one block after another; a back end may mix text, reasoning and several tool calls as it likes (wire.md §2.5). So at most
one block is open, `StreamTranslator._open`, and what cannot be shown yet waits: a call for its id or for the call before it, text for
a call whose arguments are not finished.
"""

from collections.abc import Callable, Sequence
from typing import Any

from routeproxy.chat.completion import Choice, Chunk, CompletionUsage, Delta, ToolCallDelta
from routeproxy.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Error,
    Event,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    SignatureDelta,
    Stop,
    TextDelta,
    ThinkingDelta,
    error_event,
)
from routeproxy.messages.reply import Message, ReplyBlock, StopDetails, TextBlock, ThinkingBlock, ToolUseBlock, Usage
from routeproxy.translate import endings, reasoning
from routeproxy.translate.calls import Call, Calls
from routeproxy.translate.context import ReplyContext
from routeproxy.translate.filters import Piece, StopMatch, Thought, WrittenCall
from routeproxy.translate.tool_ids import for_client
from routeproxy.translate.transforms import Transforms, reasoning_pipeline, text_pipeline


class OpenText:
    def __init__(self, index: int, *, thought: bool) -> None:
        self.index = index
        self.thought = thought
        """Reasoning that is shown as text gets a block of its own."""


class OpenThinking:
    def __init__(self, index: int) -> None:
        self.index = index
        self.carried = reasoning.Carried()


class OpenCall:
    def __init__(self, index: int, call: Call) -> None:
        self.index = index
        self.call = call


OpenBlock = OpenText | OpenThinking | OpenCall


class StreamTranslator:
    """`feed` it chunks, and `finish` it at the back end's end. `message_start` comes with the first content, not before.

    After an `Error`, which is always the last event, and after `MessageStop` there are no more events.
    """

    def __init__(
        self,
        context: ReplyContext,
        *,
        message_id: str,
        input_tokens: int | None,
        new_tool_id: Callable[[], str],
        transforms: Transforms = Transforms(),  # noqa: B008 (frozen)
        count: Callable[[str], int] = lambda text: len(text.encode("utf-8", "surrogatepass")) // 4 + 1,
    ) -> None:
        self.warnings: list[str] = []
        """What was left out of the answer, for the log."""
        self._context = context
        self._transforms = transforms
        self._message_id = message_id
        self._input_tokens = input_tokens
        self._new_tool_id = new_tool_id
        self._count = count
        self._text_pipeline = text_pipeline(transforms, context.scan)
        self._reasoning_pipeline = reasoning_pipeline(transforms)

        self._events: list[Event] = []
        self._open: OpenBlock | None = None
        self._next_index = 0
        self._calls = Calls()
        self._later: list[Piece] = []
        """What came while a call was open whose arguments are not finished."""
        self._blank = ""
        """White space that came before any text: alone it makes no block, since Anthropic refuses to get such a one back."""
        self._half = ""
        """Half of a character whose other half comes with the next chunk."""
        self._model = context.model
        self._tool_ids = set(context.tool_ids)
        self._written: list[str] = []
        self._refusal = ""
        self._finish_reason: str | None = None
        self._stop_string: str | None = None
        self._usage: CompletionUsage | None = None
        self._ended = False

    def feed(self, chunk: Chunk) -> list[Event]:
        if self._ended:
            return []
        ...
