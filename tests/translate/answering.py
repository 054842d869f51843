"""Shorthands for tests of answers: chunks in, a transcript out, and every stream checked on the way."""

import itertools
from collections.abc import Sequence
from typing import Any

from routeproxy.chat.completion import (
    Choice,
    Chunk,
    CompletionTokensDetails,
    CompletionUsage,
    Delta,
    FunctionDelta,
    PromptTokensDetails,
    ToolCallDelta,
)
from routeproxy.messages.events import (
    CitationsDelta,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Error,
    Event,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
    frame,
)
from routeproxy.messages.reply import (
    Message,
    ServerToolUseBlock,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    WebSearchError,
    WebSearchResultBlock,
)
from routeproxy.translate.context import ReplyContext, ReplyOptions
from routeproxy.translate.reply import translate_reply
from routeproxy.translate.stream import StreamTranslator
from routeproxy.translate.thinking import Signer
from routeproxy.translate.tools import ToolNames
from routeproxy.translate.transforms import Transforms
from tests.invariants import check

TOOLS = ("read", "write", "Bash", "mcp__files__list")
SIGNER = Signer(b"a key")


# What a back end says


def chunk(delta: Delta | None = None, **choice: Any) -> Chunk:
    return Chunk(choices=(Choice(delta=delta, **choice),))


def text(content: Any) -> Chunk:
    return chunk(Delta(content=content))


def thinks(reasoning: Any) -> Chunk:
    return chunk(Delta(reasoning_content=reasoning))


def call(
    index: Any = None, id: Any = None, name: Any = None, arguments: Any = None, **fields: Any
) -> ToolCallDelta:
    return ToolCallDelta(index, id, FunctionDelta(name, arguments), **fields)


def calls(*deltas: ToolCallDelta) -> Chunk:
    return chunk(Delta(tool_calls=deltas))


def tool(index: Any = None, id: Any = None, name: Any = None, arguments: Any = None, **fields: Any) -> Chunk:
    return calls(call(index, id, name, arguments, **fields))


def ends(finish_reason: Any = "stop", **choice: Any) -> Chunk:
    return chunk(Delta(), finish_reason=finish_reason, **choice)


def uses(
    prompt: Any = None, completion: Any = None, *, cached: Any = None, reasoning: Any = None, **more: Any
) -> Chunk:
    return Chunk(
        usage=CompletionUsage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            prompt_tokens_details=None if cached is None else PromptTokensDetails(cached),
            completion_tokens_details=None if reasoning is None else CompletionTokensDetails(reasoning),
            **more,
        )
    )


def fails(error: Any) -> Chunk:
    return Chunk(error=error)


def whole(*, finish_reason: Any = "stop", usage: CompletionUsage | None = None, **message: Any) -> Chunk:
    return Chunk(choices=(Choice(message=Delta(**message), finish_reason=finish_reason),), usage=usage)


# What becomes of it


def context(**changes: Any) -> ReplyContext:
    fields: dict[str, Any] = {
        "model": "claude-opus-4-8",
        "names": ToolNames(TOOLS),
        "signer": SIGNER,
        "family": "openai",
        "target_model": "openai/gpt-5",
    }
    return ReplyContext(**{**fields, **changes})


def options(transforms: Transforms | None = None, input_tokens: int | None = 7) -> ReplyOptions:
    ids = itertools.count(1)
    return ReplyOptions(
        message_id="msg_1",
        input_tokens=input_tokens,
        new_tool_id=lambda: f"toolu_{next(ids)}",
        transforms=transforms or Transforms(),
    )


def translator(
    *, transforms: Transforms | None = None, input_tokens: int | None = 7, **changes: Any
) -> StreamTranslator:
    return StreamTranslator(context(**changes), options(transforms, input_tokens))


def events_of(*chunks: Chunk, **settings: Any) -> list[Event]:
    stream = translator(**settings)
    events = [event for chunk in chunks for event in stream.feed(chunk)]
    events += stream.finish()
    assert stream.feed(text("more")) == stream.finish() == []
    model = None if settings.get("transforms") else "claude-opus-4-8"
    earlier = settings.get("tool_ids", ())
    assert check(events, requested_model=model, earlier_tool_ids=earlier) == []
    return events


def script(*chunks: Chunk, **settings: Any) -> list[str]:
    """A line an event; `message_start` and `message_stop` are left out, since each answer has them."""
    return [line for event in events_of(*chunks, **settings) if (line := _line(event))]


def reply(completion: Chunk, *, transforms: Transforms | None = None, **changes: Any) -> Message | Error:
    return translate_reply([completion], context(**changes), options(transforms))


def blocks(answer: Message | Error | Sequence[Event]) -> list[tuple[str, ...]]:
    """The blocks of a whole message, without signatures."""
    assert isinstance(answer, Message), answer
    contents: list[tuple[str, ...]] = []
    for block in answer.content:
        match block:
            case TextBlock():
                contents.append(("text", block.text))
            case ThinkingBlock():
                contents.append(("thinking", block.thinking))
            case ToolUseBlock():
                contents.append(("tool_use", block.name, bytes(block.input).decode()))
            case ServerToolUseBlock():
                contents.append(("search", bytes(block.input).decode()))
            case WebSearchResultBlock():
                contents.append(("found", *_found(block)))
    return contents


def _found(block: WebSearchResultBlock) -> list[str]:
    """`title at url`, or the error."""
    if isinstance(block.content, WebSearchError):
        return [block.content.error_code]
    return [f"{result.title} at {result.url}" for result in block.content]


def carried(signature: str) -> tuple[str, Any]:
    opened = SIGNER.open(signature)
    assert opened is not None
    return opened.kind, opened.payload


def _line(event: Event) -> str | None:
    match event:
        case MessageStart():
            return None
        case ContentBlockStart(index=index, content_block=ToolUseBlock(id=id, name=name)):
            return f"start {index} tool_use {id} {name}"
        case ContentBlockStart(index=index, content_block=WebSearchResultBlock() as block):
            return f"found {index} {', '.join(_found(block))}".rstrip()
        case ContentBlockStart(index=index, content_block=block):
            return f"start {index} {block.__struct_config__.tag}"
        case ContentBlockDelta(index=index, delta=CitationsDelta(citation=citation)):
            return f"cites {index} {citation.url} for {citation.cited_text!r}"
        case ContentBlockDelta(index=index, delta=SignatureDelta()):
            return f"signature {index}"
        case ContentBlockDelta(
            index=index,
            delta=TextDelta(text=part) | ThinkingDelta(thinking=part) | InputJsonDelta(partial_json=part),
        ):
            return f"delta {index} {part}"
        case ContentBlockStop(index=index):
            return f"stop {index}"
        case MessageDelta(delta=stop):
            return f"ends {stop.stop_reason}" + (f" {stop.stop_sequence!r}" if stop.stop_sequence else "")
        case Error(error=error):
            return f"error {error.type}: {error.message}"
        case _:
            assert frame(event)
            return None
