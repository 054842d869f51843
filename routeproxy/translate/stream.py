"""The chunks of a chat completion in, the events of a Messages stream out. No I/O here, and no chunk makes it
raise.

A client sees one content block after another, each finished before the next starts; back ends mix text,
reasoning and tool calls as they like (wire.md §2.5). So the state of a stream is three things:

* the open block, at most one: text, reasoning shown as text, thinking, or tool use (`EventWriter.block`);
* the tool calls so far, each of them waiting, shown or dropped (`ToolCalls`);
* what is held: pieces that came while the open tool use lacked arguments (`_held`), white space before any
  text (`_blank`), and text that may yet turn into something else (in the `DeltaReader`).

Pieces of content move it, in the order in which a `DeltaReader` reads them from the chunks:

* Text, or reasoning, goes into the open block if that is of its kind. A block of another kind is stopped
  first, but for a tool use whose arguments are not complete: then the piece is held, and all after it.
* A web search that the back end made comes whole, and becomes two blocks. Citations go into the open text.
* Tool call deltas go to their calls, whatever is open. Then the calls advance: the open tool use shows those
  arguments that cannot change any more; when they are complete, the next call that has a name and an id stops
  that block and starts its own, whether its tool was declared or not: a client knows more tools than it
  declares, and answers a call of one that it does not know; when no call is ready,
  the held pieces are handled as if they came now.
* After a stop string, text and reasoning are lost, and calls too if there were none before it.
* At the end held text is flushed, calls without an id get one, and the last block is stopped. An answer that
  failed (`FinishState.failure`) ends where it is, its last block open.

A block that is stopped emits what is due at its end: thinking its signature, a tool use the rest of its
arguments, which is a failure if they make no object and the answer was not cut short. So is a call that never
got a name, and an answer of nothing but what cannot be handed on, such as images. After an `Error`, and after
`MessageStop`, nothing is emitted any more.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from routeproxy.chat.completion import Choice, Chunk, CompletionUsage, PageCitation, WebSearchCall
from routeproxy.messages.events import (
    CitationsDelta,
    Error,
    Event,
    InputJsonDelta,
    MessageDelta,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
    error_event,
)
from routeproxy.messages.reply import (
    Message,
    ReplyBlock,
    ServerToolUseBlock,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    Usage,
)
from routeproxy.messages.token_usage import TokenUsage
from routeproxy.translate import tool_ids
from routeproxy.translate.context import ReplyContext, ReplyOptions
from routeproxy.translate.delta_reader import DeltaReader, ToolCallDeltas
from routeproxy.translate.event_writer import (
    EventWriter,
    OpenBlock,
    OpenReasoningText,
    OpenSearch,
    OpenText,
    OpenThinking,
    OpenToolUse,
)
from routeproxy.translate.filters import Citations, Piece, Reasoning, StopMatch, TextToolCall
from routeproxy.translate.finish import FinishState
from routeproxy.translate.schemas import misses
from routeproxy.translate.stream_errors import NAMELESS_CALL, UNREADABLE_CONTENT, translate_error
from routeproxy.translate.tool_calls import ToolCall, ToolCalls
from routeproxy.translate.transforms import reasoning_pipeline, text_pipeline
from routeproxy.translate.usage import later_usage, tokens_of_completion, translate_usage
from routeproxy.translate.web_search import Searches, search_id


class StreamTranslator:
    """`feed` it chunks, and `finish` it after the last. `message_start` comes with the first block."""

    def __init__(self, context: ReplyContext, options: ReplyOptions) -> None:
        transforms = options.transforms
        self.warnings: list[str] = []
        """What was left out of the answer, and why: for the log."""
        self.quotes_back_end = False
        """The error that ended the answer is in the back end's words, which may quote the prompt."""
        self._context = context
        self._options = options
        self._names_served_model = transforms.model_name == "served"
        self._keeps_thinking = transforms.thinking == "keep" and context.thinking
        self._shows_thinking = context.display != "omitted"
        self._shows_reasoning_as_text = transforms.thinking == "text"

        self._reader = DeltaReader(
            text_pipeline(transforms, context.scan, self._is_declared, is_json=context.schema is not None),
            on_piece=self._on_piece,
            on_tool_calls=self._on_tool_calls,
            on_unreadable=self._on_unreadable,
        )
        self._reasoning_pipeline = reasoning_pipeline(transforms)
        self._writer = EventWriter(self._message)
        self._finish_state = FinishState()
        self._calls = ToolCalls()
        self._searches = Searches(context.web_search, context.allowed_domains)
        self._tool_ids = set(context.tool_ids)
        self._held: list[Piece] = []
        self._blank = ""
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        """Both are kept only where the answer is to be JSON."""
        self._model = context.model
        self._usage: CompletionUsage | None = None
        self._service_tier: Any = None
        self.served_model: str | None = None
        """What the back end calls the model that answers."""

    def feed(self, chunk: Chunk) -> list[Event]:
        if self._writer.ended:
            return []
        if chunk.usage is not None:
            self._usage = later_usage(self._usage, chunk.usage)
        if chunk.error and self._finish_state.stop_string is None:
            self.quotes_back_end = True
            self._writer.fail(translate_error(chunk.error))
            return self._writer.take_events()
        if chunk.model and isinstance(chunk.model, str):
            self.served_model = chunk.model
            if self._names_served_model:
                self._model = chunk.model
        self._service_tier = chunk.service_tier or self._service_tier
        for choice in chunk.choices:
            if not choice.index:
                self._on_choice(choice)
        return self._writer.take_events()

    def finish(self) -> list[Event]:
        """There are no more chunks."""
        if self._writer.ended:
            return []
        if failure := self._finish_state.failure(has_tool_use=bool(self._calls)):
            self._writer.fail(failure)
            return self._writer.take_events()
        self._reader.flush()
        self._advance(at_end=True)
        self._check_names()
        if self._context.schema is not None:
            self._check_json(self._context.schema)
        self._check_left_out()
        # Alone, white space makes no block beside a tool use: Anthropic refuses to get such a one back.
        if self._blank and OpenToolUse not in self._writer.block_types:
            self._start_block(OpenText(), TextBlock(""))
            self._writer.emit_delta(TextDelta(self._blank), self._blank)
        if (search := self._searches.unresolved()) is not None:
            self._show_search(search)
        self._stop_block()
        self._check_arguments()
        self.warnings += self._searches.problems()
        self._stop_message()
        return self._writer.take_events()

    # --- what comes

    def _on_choice(self, choice: Choice) -> None:
        delta, finish_reason = choice.delta, choice.finish_reason
        if delta is None and choice.message is not None and not self._writer.block_types:
            # A whole completion. (Some send one after its chunks, to sum up.)
            delta = choice.message
        if delta is not None:
            self._reader.read(delta)
        if finish_reason:
            self._finish_state.add(finish_reason)
            for stop_string in (choice.stop_reason, choice.matched_stop, choice.stop_str):
                if stop_string and stop_string in self._context.stop_sequences:
                    self._finish_state.reported_stop_string = stop_string

    def _on_unreadable(self) -> None:
        if self._finish_state.stop_string is None:
            self._writer.fail(error_event("api_error", UNREADABLE_CONTENT))

    def _on_piece(self, piece: Piece) -> None:
        if self._finish_state.stop_string is not None:
            return
        block = self._writer.block
        if self._held or (isinstance(block, OpenToolUse) and not block.call.arguments.complete):
            self._held.append(piece)
        elif isinstance(piece, str):
            self._on_text(piece)
        elif isinstance(piece, Reasoning):
            self._on_reasoning(piece)
        elif isinstance(piece, TextToolCall):
            self._calls.add_whole(self._options.new_tool_id(), piece.name, piece.arguments)
            self._advance()
        elif isinstance(piece, StopMatch):
            self._finish_state.stop_string = piece.stop_string
        elif self._context.web_search == "none":
            return  # nobody has asked for it
        elif isinstance(piece, WebSearchCall):
            if (search := self._searches.add(piece)) is not None:
                self._show_search(search)
        elif isinstance(piece, Citations):
            self._cite(piece.citations)

    def _on_text(self, text: str) -> None:
        if self._writer.block.__class__ is not OpenText:
            text = self._blank + text
            if text.isspace():
                self._blank = text
                return
            self._blank = ""
            self._start_block(OpenText(), TextBlock(""))
        if self._context.schema is not None:
            self._texts.append(text)
        self._writer.emit_delta(TextDelta(text), text)

    def _cite(self, citations: Iterable[PageCitation]) -> None:
        cited = self._searches.cite(citations)
        if self._writer.block.__class__ is OpenText:  # they are of no use to any other
            for citation in cited:
                self._writer.emit_delta(CitationsDelta(citation))

    def _show_search(self, search: WebSearchCall) -> None:
        call, result = self._searches.blocks(search, search_id(self._options.new_tool_id()))
        self._blank = ""
        self._start_block(OpenSearch(), ServerToolUseBlock(call.id, call.name))
        self._writer.emit_delta(InputJsonDelta(bytes(call.input).decode()))
        self._start_block(OpenSearch(), result)
        self._stop_block()

    def _on_reasoning(self, piece: Reasoning) -> None:
        if self._context.schema is not None:
            self._reasoning.append(piece.text)
        if self._shows_reasoning_as_text:
            pipeline = self._reasoning_pipeline
            self._emit_reasoning_text(pipeline.feed(piece.text) if pipeline else [piece.text])
        if not self._keeps_thinking:
            return
        text = piece.text
        if not isinstance(self._writer.block, OpenThinking):
            # Some begin with line breaks, and never go on.
            text = text.lstrip()
            if not text and not piece.details:
                return
        carried = self._thinking_block().carried
        carried.add_text(text, shown=self._shows_thinking)
        carried.add_details(piece.details)
        if text and self._shows_thinking:
            self._writer.emit_delta(ThinkingDelta(text), text)

    def _on_tool_calls(self, deltas: ToolCallDeltas) -> None:
        if self._finish_state.stop_string is None or self._calls:
            self._calls.add(deltas)
            self._advance()

    # --- tool calls, one at a time

    def _advance(self, *, at_end: bool = False) -> None:
        """Shows what can be shown of the calls, then what was held for them."""
        while not self._writer.ended:
            block = self._writer.block
            if isinstance(block, OpenToolUse):
                self._emit_arguments(block.call.arguments.take_ready())
                if not at_end and not block.call.arguments.complete:
                    return
            call = self._next_call(at_end)
            if call is None:
                break
            self._start_tool_use(call)
        if self._held:
            held, self._held = self._held, []
            self._stop_block()
            for piece in held:
                self._on_piece(piece)

    def _next_call(self, at_end: bool) -> ToolCall | None:
        """The next call that can be shown. Those before it that may not be shown are dropped."""
        for call in self._calls.waiting():
            if not call.name or not (call.id or at_end):
                continue
            if OpenToolUse in self._writer.block_types and not self._context.parallel:
                call.state = "dropped"
                self.warnings.append("a parallel tool call was dropped, as the request asks")
            else:
                return call
        return None

    def _start_tool_use(self, call: ToolCall) -> None:
        id = tool_ids.for_client(call.id) if call.id else self._options.new_tool_id()
        while id in self._tool_ids:
            id = self._options.new_tool_id()
        self._tool_ids.add(id)
        if call.thought_signature and self._keeps_thinking:
            carried = self._thinking_block().carried
            carried.thought_signatures[id] = call.thought_signature
            carried.place = call.signature_place
        self._blank = ""
        call.state = "shown"
        names = self._context.names
        name = names.restore(call.name) if names is not None else call.name
        self._start_block(OpenToolUse(call), ToolUseBlock(id, name))

    def _emit_arguments(self, text: str) -> None:
        if text:
            self._writer.emit_delta(InputJsonDelta(text), text)

    def _finish_arguments(self, call: ToolCall) -> None:
        # Back ends look for the client's stop strings in arguments, too, and cut them there.
        is_cut = self._finish_state.is_cut_short() or self._finish_state.reported_stop_string is not None
        rest = call.arguments.remainder(repaired=not is_cut)
        if rest is not None:
            self._emit_arguments(rest)
        elif is_cut:
            # Only this stop reason tells a client not to look for an object.
            self._finish_state.finish_reason = "max_tokens"
        else:
            self._writer.fail(_unreadable(call))

    def _check_arguments(self) -> None:
        """Fails if arguments that came after their block was stopped have made them unreadable."""
        if self._finish_state.is_cut_short():
            return
        for call in self._calls:
            if call.state == "shown" and call.arguments.remainder() is None:
                self._writer.fail(_unreadable(call))

    def _check_names(self) -> None:
        """Fails if there is a call that nobody can run. An answer that was cut may end in one."""
        if self._finish_state.is_unfinished():
            return
        if any(not call.name and not call.is_nothing for call in self._calls):
            self._writer.fail(error_event("api_error", NAMELESS_CALL))

    def _check_json(self, schema: Raw) -> None:
        """An answer that is to be JSON and isn't is handed on: what else could be done the client knows. Some
        servers put it where reasoning goes (vllm#18819)."""
        if OpenToolUse in self._writer.block_types or self._finish_state.is_unfinished():
            return
        reasoning = "".join(self._reasoning).strip()
        if OpenText not in self._writer.block_types and reasoning and misses(schema, reasoning) is None:
            self._start_block(OpenText(), TextBlock(""))
            self._writer.emit_delta(TextDelta(reasoning), reasoning)
        elif miss := misses(schema, "".join(self._texts)):
            self.warnings.append(f"the answer is not what its JSON schema describes: {miss}")

    def _check_left_out(self) -> None:
        """Fails if what cannot be handed on is all that there is."""
        if not (left_out := self._reader.left_out):
            return
        names = ", ".join(sorted(left_out))
        if self._writer.block_types.isdisjoint((OpenText, OpenToolUse)) and not (
            self._finish_state.is_refusal() or self._reader.refusal
        ):
            words = f"upstream answered with nothing that can be handed on: {names}"
            self._writer.fail(error_event("api_error", words))
        else:
            self.warnings.append(f"the answer had more in it than can be handed on: {names}")

    def _is_declared(self, name: str) -> bool:
        names = self._context.names
        return names is None or names.declares(name)

    # --- blocks

    def _start_block(self, block: OpenBlock, content: ReplyBlock) -> None:
        self._stop_block()
        self._writer.start_block(block, content)

    def _stop_block(self) -> None:
        match self._writer.block:
            case None:
                return
            case OpenReasoningText() if self._reasoning_pipeline is not None:
                self._emit_reasoning_text(self._reasoning_pipeline.flush())
            case OpenThinking(carried=carried):
                kind, payload = carried.payload()
                context = self._context
                signature = context.signer.mint(
                    context.family, context.target_model, kind, payload, carried.place
                )
                self._writer.emit_delta(SignatureDelta(signature))
            case OpenToolUse(call=call):
                self._finish_arguments(call)
        self._writer.stop_block()

    def _thinking_block(self) -> OpenThinking:
        """The open block, or a new one if that is no thinking block."""
        if not isinstance(self._writer.block, OpenThinking):
            self._start_block(block := OpenThinking(), ThinkingBlock("", ""))
            return block
        return self._writer.block

    def _emit_reasoning_text(self, pieces: list[Piece]) -> None:
        for text in pieces:
            if not isinstance(text, str):
                continue
            if not isinstance(self._writer.block, OpenReasoningText):
                text = text.lstrip()
                if text:
                    self._start_block(OpenReasoningText(), TextBlock(""))
            if text:
                self._writer.emit_delta(TextDelta(text), text)

    # --- the message

    def _message(self) -> Message:
        usage = Usage(
            # Mostly not known before the end; 0 would be a lie.
            input_tokens=self._options.input_tokens or 1,
            output_tokens=1,
            speed=self._context.speed or UNSET,
        )
        if self._usage is not None:
            reported = translate_usage(self._usage, output_estimate=1, speed=self._context.speed)
            so_far = msgspec.structs.replace(reported, output_tokens=1, output_tokens_details=UNSET)
            usage = usage.updated(so_far)
        return Message(id=self._options.message_id, model=self._model, usage=usage)

    def _stop_message(self) -> None:
        stop = self._finish_state.stop(
            has_tool_use=OpenToolUse in self._writer.block_types, refusal=self._reader.refusal
        )
        if isinstance(stop, Error):
            self._writer.fail(stop)
            return
        usage = translate_usage(self._usage, output_estimate=self._output_estimate, speed=self._context.speed)
        if (searches := self._searches.usage()) is not UNSET:
            usage = msgspec.structs.replace(usage, server_tool_use=searches)
        self._writer.stop_message(MessageDelta(stop, usage))

    @property
    def _output_estimate(self) -> int:
        return self._writer.bytes_written // 4 + 1

    def tokens(self) -> TokenUsage | None:
        """What the answer took so far, wherever it stops; `None`: nothing came."""
        if self._usage is None and not self._writer.bytes_written:
            return None
        searches = self._searches.usage()
        return tokens_of_completion(
            self._usage,
            input_estimate=self._options.input_tokens or 1,
            output_estimate=self._output_estimate,
            web_searches=searches.web_search_requests if searches is not UNSET else None,
            service_tier=self._service_tier,
        )


def _unreadable(call: ToolCall) -> Error:
    return error_event(
        "api_error", f"the model's arguments for the tool {call.name[:64]} are not a JSON object"
    )
