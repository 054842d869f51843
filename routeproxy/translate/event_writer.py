"""The events that go out: blocks numbered, one open at a time, nothing after the end."""

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
from routeproxy.translate.reasoning import Carried
from routeproxy.translate.tool_calls import ToolCall


class OpenText:
    pass


class OpenThought(OpenText):
    """Reasoning that is shown as text (`thinking = "text"`), in a block of its own."""


class OpenThinking:
    def __init__(self) -> None:
        self.carried = Carried()


class OpenCall:
    def __init__(self, call: ToolCall) -> None:
        self.call = call


OpenBlock = OpenText | OpenThinking | OpenCall


class EventWriter:
    def __init__(self, message: Callable[[], Message]) -> None:
        self._message = message
        """What `message_start` bears. It is asked for when the first block is opened."""
        self._events: list[Event] = []
        self._index = -1
        self.open: OpenBlock | None = None
        self.shown: set[type[OpenBlock]] = set()
        """The kinds of blocks so far."""
        self.text: list[str] = []
        """All that the model wrote: text, reasoning, arguments."""
        self.ended = False

    def enter(self, block: OpenBlock, content: ReplyBlock) -> None:
        if self._index < 0:
            self._emit(MessageStart(self._message()))
        self._index += 1
        self.open = block
        self.shown.add(type(block))
        self._emit(ContentBlockStart(self._index, content))

    def show(self, delta: Delta, text: str = "") -> None:
        self.text.append(text)
        self._emit(ContentBlockDelta(self._index, delta))

    def leave(self) -> None:
        self.open = None
        self._emit(ContentBlockStop(self._index))

    def end(self, delta: MessageDelta) -> None:
        if self._index < 0:
            self._emit(MessageStart(self._message()))
        self._emit(delta)
        self._emit(MessageStop())
        self.ended = True

    def fail(self, error: Error) -> None:
        self._emit(error)
        self.ended = True

    def taken(self) -> list[Event]:
        """The events since it was last asked."""
        events, self._events = self._events, []
        return events

    def _emit(self, event: Event) -> None:
        if not self.ended:
            self._events.append(event)
