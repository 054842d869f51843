"""Chunks of a chat completion in, events of a Messages stream out. No I/O here, and no chunk makes it raise.

A client sees one block after another; back ends mix text, reasoning and calls as they like (wire.md §2.5). So
at most one block is open, `EventWriter.open`, and what cannot be shown yet waits: a call for its id or
for the call before it, text for a call whose arguments are not finished.
"""

from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from routeproxy.chat.completion import Choice, Chunk, CompletionUsage, Delta, ToolCallDelta
from routeproxy.messages.events import (
    Error,
    Event,
    InputJsonDelta,
    MessageDelta,
    SignatureDelta,
    Stop,
    TextDelta,
    ThinkingDelta,
    error_event,
)
from routeproxy.messages.reply import (
    Message,
    ReplyBlock,
    StopDetails,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    Usage,
)
from routeproxy.translate import reasoning, stop_reasons
from routeproxy.translate.context import ReplyContext
from routeproxy.translate.event_writer import (
    EventWriter,
    OpenBlock,
    OpenCall,
    OpenText,
    OpenThinking,
    OpenThought,
)
from routeproxy.translate.filters import Piece, StopMatch, SurrogateJoiner, Thought, WrittenCall
from routeproxy.translate.tool_calls import ToolCall, ToolCalls
from routeproxy.translate.tool_ids import for_client
from routeproxy.translate.transforms import UNTOUCHED, Transforms, reasoning_pipeline, text_pipeline


def rough_count(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass")) // 4 + 1


class StreamTranslator:
    """`feed` it chunks, and `finish` it when there are no more. `message_start` comes with the first content.

    After an `Error`, and after `MessageStop`, there are no more events.
    """

    def __init__(
        self,
        context: ReplyContext,
        *,
        message_id: str,
        input_tokens: int | None,
        new_tool_id: Callable[[], str],
        transforms: Transforms = UNTOUCHED,
        count: Callable[[str], int] = rough_count,
    ) -> None:
        self.warnings: list[str] = []
        """What was left out of the answer, and why: for the log."""
        self._context = context
        self._transforms = transforms
        self._message_id = message_id
        self._input_tokens = input_tokens
        self._new_tool_id = new_tool_id
        self._count = count
        self._text_pipeline = text_pipeline(transforms, context.scan, self._is_declared)
        self._thought_pipeline = reasoning_pipeline(transforms)
        self._names_served = transforms.model_name == "served"
        self._keeps_thinking = transforms.thinking == "keep" and context.thinking
        self._shows_thinking = context.display != "omitted"

        self._out = EventWriter(self._message)
        self._calls = ToolCalls()
        self._tool_ids = set(context.tool_ids)
        self._later: list[Piece] = []
        """What came while a call was open whose arguments were not finished."""
        self._blank = ""
        """White space before any text. Alone it makes no block: Anthropic refuses to get such a one back."""
        self._halves = SurrogateJoiner()
        self._model = context.model
        self._usage: CompletionUsage | None = None
        self._refusal = ""
        self._undeclared = False
        self._finish_reason: str | None = None
        self._stop_string: str | None = None
        """The one that was found in the answer: nothing counts after it."""
        self._reported_stop_string: str | None = None

    def feed(self, chunk: Chunk) -> list[Event]:
        if self._out.ended:
            return []
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.error and self._stop_string is None:
            self._out.fail(stop_reasons.failure(chunk.error))
            return self._out.taken()
        if self._names_served and chunk.model and isinstance(chunk.model, str):
            self._model = chunk.model
        for choice in chunk.choices:
            if not choice.index:
                self._read(choice)
        return self._out.taken()

    def finish(self, *, finish_reason_seen: bool = True, done: bool = False) -> list[Event]:
        """There are no more chunks.

        `finish_reason_seen=False`: the finish reason in them was made up on the way, as LiteLLM does. `done`:
        the back end said that it was done, and its answer is whole even without a finish reason.
        """
        if self._out.ended:
            return []
        if not finish_reason_seen:
            self._finish_reason = None
        elif done and self._out.shown:
            self._finish_reason = self._finish_reason or "stop"
        if self._finish_reason is None and self._stop_string is None:
            self._out.fail(error_event("api_error", stop_reasons.CLOSED_EARLY))
            return self._out.taken()
        self._flush_text()
        self._advance(at_end=True)
        if self._blank and OpenCall not in self._out.shown:
            self._enter(OpenText(), TextBlock(""))
            self._out.show(TextDelta(self._blank), self._blank)
        self._leave()
        self._check_calls()
        self._end()
        return self._out.taken()

    # What a chunk holds, in the order in which it counts: reasoning, text, calls.

    def _read(self, choice: Choice) -> None:
        delta, finish_reason = choice.delta, choice.finish_reason
        if delta is None and choice.message is not None and not self._out.shown:
            # A whole completion. (Some send one after its chunks, to sum up.)
            delta, finish_reason = choice.message, finish_reason or "stop"
        if delta is not None:
            self._read_delta(delta)
        if finish_reason and isinstance(finish_reason, str):
            self._finish_reason = finish_reason
        if choice.stop_reason and choice.stop_reason in self._context.stop_sequences:
            self._reported_stop_string = choice.stop_reason

    def _read_delta(self, delta: Delta) -> None:
        content = delta.content
        if (
            delta.reasoning_content
            or delta.reasoning
            or delta.reasoning_details
            or delta.thinking_blocks
            or (content and content.__class__ is not str)
        ):
            thought = Thought(reasoning.text_of(delta), reasoning.details_of(delta))
            if thought != _NO_THOUGHT:
                self._flush_text()
                self._play(thought)
        if content:
            self._hear(content if isinstance(content, str) else _text_in(content))
        if delta.refusal and isinstance(delta.refusal, str):
            self._refusal += delta.refusal
            self._hear(delta.refusal)
        if delta.tool_calls or delta.function_call:
            self._hear_calls(delta.tool_calls or (ToolCallDelta(function=delta.function_call),))

    def _hear(self, text: str) -> None:
        if self._halves.held or text[-1:] >= "\ud800":
            text = self._halves.feed(text)
        self._hear_as_it_is(text)

    def _hear_as_it_is(self, text: str) -> None:
        if self._text_pipeline is not None:
            for piece in self._text_pipeline.feed(text):
                self._play(piece)
        elif text:
            self._play(text)

    def _flush_text(self) -> None:
        """No text can continue what was held back of it."""
        if half := self._halves.flush():
            self._hear_as_it_is(half)
        if self._text_pipeline is not None:
            for piece in self._text_pipeline.flush():
                self._play(piece)

    def _hear_calls(self, deltas: tuple[ToolCallDelta, ...]) -> None:
        self._flush_text()
        if self._stop_string is None or self._calls:
            self._calls.add(deltas)
            self._advance()

    # Pieces of the answer, as they should be shown.

    def _play(self, piece: Piece) -> None:
        if self._stop_string is not None:
            return
        if self._later or (
            isinstance(self._out.open, OpenCall) and not self._out.open.call.arguments.complete
        ):
            self._later.append(piece)
        elif isinstance(piece, str):
            self._say(piece)
        elif isinstance(piece, Thought):
            self._think(piece)
        elif isinstance(piece, WrittenCall):
            self._calls.add_whole(self._new_tool_id(), piece.name, piece.arguments)
            self._advance()
        elif isinstance(piece, StopMatch):
            self._stop_string = piece.stop_string

    def _say(self, text: str) -> None:
        if self._out.open.__class__ is not OpenText:
            text = self._blank + text
            if text.isspace():
                self._blank = text
                return
            self._blank = ""
            self._enter(OpenText(), TextBlock(""))
        self._out.show(TextDelta(text), text)

    def _think(self, thought: Thought) -> None:
        if self._transforms.thinking == "text":
            pipeline = self._thought_pipeline
            self._think_aloud(pipeline.feed(thought.text) if pipeline else [thought.text])
        if not self._keeps_thinking:
            return
        text = thought.text
        if not isinstance(self._out.open, OpenThinking):
            # Some begin with line breaks, and never go on.
            text = text.lstrip()
            if not text and not thought.details:
                return
        carried = self._thinking().carried
        carried.text.append(text)
        carried.add_details(thought.details)
        if text and self._shows_thinking:
            self._out.show(ThinkingDelta(text), text)

    def _think_aloud(self, pieces: list[Piece]) -> None:
        for text in pieces:
            if not isinstance(text, str):
                continue
            if not isinstance(self._out.open, OpenThought):
                text = text.lstrip()
                if text:
                    self._enter(OpenThought(), TextBlock(""))
            if text:
                self._out.show(TextDelta(text), text)

    def _thinking(self) -> OpenThinking:
        if not isinstance(self._out.open, OpenThinking):
            self._enter(block := OpenThinking(), ThinkingBlock("", ""))
            return block
        return self._out.open

    # Calls, one at a time.

    def _advance(self, *, at_end: bool = False) -> None:
        """Shows what can be shown of the calls, then what waited for them."""
        while not self._out.ended:
            if isinstance(self._out.open, OpenCall):
                self._show_arguments(self._out.open.call.arguments.take())
                if not at_end and not self._out.open.call.arguments.complete:
                    return
            call = self._next_call(at_end)
            if call is None:
                break
            self._begin(call)
        if self._later:
            later, self._later = self._later, []
            self._leave()
            for piece in later:
                self._play(piece)

    def _next_call(self, at_end: bool) -> ToolCall | None:
        for call in self._calls.waiting():
            if not call.name or not (call.upstream_id or at_end):
                continue
            if not self._is_declared(call.name):
                # As with Gemini's UNEXPECTED_TOOL_CALL: a client cannot run it, and some fail on it.
                call.state, self._undeclared = "dropped", True
                self.warnings.append(f"the model called a tool that was not declared: {call.name[:64]}")
            elif OpenCall in self._out.shown and not self._context.parallel:
                call.state = "dropped"
                self.warnings.append("a parallel tool call was dropped, as the request asks")
            else:
                return call
        return None

    def _begin(self, call: ToolCall) -> None:
        id = for_client(call.upstream_id) if call.upstream_id else self._new_tool_id()
        while id in self._tool_ids:
            id = self._new_tool_id()
        self._tool_ids.add(id)
        if call.thought_signature and self._keeps_thinking:
            self._thinking().carried.thought_signatures[id] = call.thought_signature
        self._blank = ""
        call.state = "shown"
        self._enter(OpenCall(call), ToolUseBlock(id, self._restored(call.name)))

    def _show_arguments(self, text: str) -> None:
        if text:
            self._out.show(InputJsonDelta(text), text)

    def _restored(self, name: str) -> str:
        return self._context.names.restore(name) if self._context.names is not None else name

    def _is_declared(self, name: str) -> bool:
        names = self._context.names
        return names is None or names.declares(name)

    # Blocks.

    def _enter(self, block: OpenBlock, content: ReplyBlock) -> None:
        self._leave()
        self._out.enter(block, content)

    def _leave(self) -> None:
        match self._out.open:
            case None:
                return
            case OpenThought() if self._thought_pipeline is not None:
                self._think_aloud(self._thought_pipeline.flush())
            case OpenThinking(carried=carried):
                kind, payload = carried.payload(shown=self._shows_thinking)
                context = self._context
                signature = context.signer.mint(context.family, context.target_model, kind, payload)
                self._out.show(SignatureDelta(signature))
            case OpenCall(call=call):
                self._settle(call)
        self._out.leave()

    def _settle(self, call: ToolCall) -> None:
        rest = call.arguments.settle()
        if rest is not None:
            self._show_arguments(rest)
        elif self._is_cut_short():
            # Only this stop reason tells a client not to look for an object.
            self._finish_reason = "max_tokens"
        else:
            self._out.fail(_unreadable(call))

    def _check_calls(self) -> None:
        """Whether arguments that came after their block was closed have made them unreadable."""
        for call in self._calls:
            if call.state == "shown" and call.arguments.settle() is None and not self._is_cut_short():
                self._out.fail(_unreadable(call))

    # The beginning and the end.

    def _message(self) -> Message:
        usage = Usage(
            # Not known before the end; 0 would be a lie.
            input_tokens=self._input_tokens or 1,
            output_tokens=1,
            speed=self._context.speed or UNSET,
        )
        return Message(id=self._message_id, model=self._model, usage=usage)

    def _end(self) -> None:
        stop = self._stop()
        if isinstance(stop, Error):
            self._out.fail(stop)
            return
        estimate = self._count("".join(self._out.text))
        usage = stop_reasons.usage(self._usage, output_estimate=estimate, speed=self._context.speed)
        self._out.end(MessageDelta(stop, usage))

    def _stop(self) -> Stop | Error:
        stopped = self._stop_string is not None and OpenCall not in self._out.shown
        reason = stop_reasons.stop_reason("stop" if stopped else self._finish_reason)
        usable = OpenText in self._out.shown or OpenCall in self._out.shown
        undeclared = self._undeclared and not usable and reason in ("end_turn", "tool_use")
        if reason == "failed" or undeclared:
            problem = f"upstream failed: {self._finish_reason}" if reason == "failed" else self.warnings[-1]
            if not usable:
                return error_event("api_error", problem)
            self.warnings.append(problem)
            reason = "end_turn"
        if self._refusal and reason not in stop_reasons.CUT_SHORT:
            reason = "refusal"
        if reason == "refusal":
            return Stop(reason, stop_details=StopDetails(explanation=self._refusal or None))
        if reason in stop_reasons.CUT_SHORT:
            return Stop(reason)
        if OpenCall in self._out.shown:
            return Stop("tool_use")
        if stop_string := self._stop_string or self._reported_stop_string:
            return Stop("stop_sequence", stop_string)
        return Stop("end_turn")

    def _is_cut_short(self) -> bool:
        return stop_reasons.stop_reason(self._finish_reason) in stop_reasons.CUT_SHORT


_NO_THOUGHT = Thought("", [])


def _unreadable(call: ToolCall) -> Error:
    return error_event(
        "api_error", f"the model's arguments for the tool {call.name[:64]} are not a JSON object"
    )


def _text_in(parts: Any) -> str:
    """The text of content that came as a list of parts."""
    if not isinstance(parts, list | tuple):
        return ""
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "".join(text for text in texts if isinstance(text, str))
