"""The events of one Messages stream: blocks numbered, one open at a time, nothing after the end."""

from collections.abc import Callable

from routeproxy.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Delta,
    Error,
    Event,
    MessageDelta,
    MessageStart,
    MessageStop,
)
from routeproxy.messages.reply import Message, ReplyBlock
from routeproxy.translate.reasoning import CarriedReasoning
from routeproxy.translate.tool_calls import ToolCall


class OpenText: ...


class OpenReasoningText:
    """Reasoning shown as text (`thinking = "text"`), in a block of its own."""


class OpenThinking:
    def __init__(self) -> None:
        self.carried = CarriedReasoning()


class OpenToolUse:
    def __init__(self, call: ToolCall) -> None:
        self.call = call


class OpenSearch:
    """A web search of the back end, or its result. Both come whole."""


OpenBlock = OpenText | OpenReasoningText | OpenThinking | OpenToolUse | OpenSearch


class EventWriter:
    def __init__(self, message: Callable[[], Message]) -> None:
        """`message` makes the message of `message_start`, when the first block starts."""
        self._message = message
        self._events: list[Event] = []
        self._index = -1
        self.block: OpenBlock | None = None
        """The open block."""
        self.block_types: set[type[OpenBlock]] = set()
        """The types of the blocks so far."""
        self.bytes_written = 0
        """Of all that the model wrote: text, reasoning, arguments."""
        self.ended = False

    def start_block(self, block: OpenBlock, content: ReplyBlock) -> None:
        self._start_message()
        self._index += 1
        self.block = block
        self.block_types.add(type(block))
        self._emit(ContentBlockStart(self._index, content))

    def emit_delta(self, delta: Delta, text: str = "") -> None:
        """`text`: what of `delta` the model wrote."""
        self.bytes_written += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        if not self.ended:  # as `_emit` does: nearly all events come by here
            self._events.append(ContentBlockDelta(self._index, delta))

    def stop_block(self) -> None:
        self.block = None
        self._emit(ContentBlockStop(self._index))

    def stop_message(self, delta: MessageDelta) -> None:
        self._start_message()
        self._emit(delta)
        self._emit(MessageStop())
        self.ended = True

    def fail(self, error: Error) -> None:
        self._emit(error)
        self.ended = True

    def take_events(self) -> list[Event]:
        """The events since the last call of this."""
        events, self._events = self._events, []
        return events

    def _start_message(self) -> None:
        if self._index < 0:
            self._emit(MessageStart(self._message()))

    def _emit(self, event: Event) -> None:
        if not self.ended:
            self._events.append(event)
