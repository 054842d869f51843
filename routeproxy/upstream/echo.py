"""The provider that needs no key: says back the last thing that the user said, so that a newcomer and a test
have somebody to talk to."""

import re
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import msgspec

from routeproxy.exchange import Call, Exchange
from routeproxy.large_bodies import read_beside
from routeproxy.messages.decoding import decode_leniently
from routeproxy.messages.events import ContentBlockDelta, ContentBlockStart, TextDelta, events_of
from routeproxy.messages.reply import Message, ReplyBlock, StopReason, TextBlock, ToolUseBlock, Usage
from routeproxy.messages.token_usage import TokenUsage
from routeproxy.output import Emit, Output, Relayed
from routeproxy.upstream.synthetic import own_message, rough_tokens, tool_use_id

P = ParamSpec("P")
T = TypeVar("T")

SILENCE = "(the last user message has no text)"
MOST_EVENTS = 200
_fields: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_WORDS = re.compile(r"\S+\s*|\s+")


class Echo:
    async def send(self, call: Call, emit: Emit) -> None:
        exchange = call.exchange
        message = await _beside(exchange, _message, exchange)
        usage = exchange.usage = message.usage
        assert isinstance(usage.input_tokens, int)
        exchange.tokens = TokenUsage(
            input_uncached=usage.input_tokens, output=usage.output_tokens, cost_nanousd=0
        )
        if not exchange.stream:
            await emit(Output(message, True))
            return
        for output in await _beside(exchange, _outputs, message):
            await emit(output)

    async def count_tokens(self, call: Call) -> Relayed | None:
        return None


async def _beside(exchange: Exchange, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    inbound = exchange.inbound
    return await read_beside(len(inbound.body), inbound.caller, work, *args, **kwargs)


def _message(exchange: Exchange) -> Message:
    body = exchange.inbound.body
    content, stop_reason = _answer(body)
    text = "".join(block.text for block in content if isinstance(block, TextBlock))
    usage = Usage(input_tokens=rough_tokens(body), output_tokens=max(1, len(text.encode()) // 4))
    return own_message(exchange, content, stop_reason, usage=usage)


def _outputs(message: Message) -> list[Output]:
    """At most `MOST_EVENTS` and a few."""
    outputs: list[Output] = []
    started = False
    for event in events_of(message):
        started = started or isinstance(event, ContentBlockStart)
        if isinstance(event, ContentBlockDelta) and isinstance(event.delta, TextDelta):
            outputs += (
                Output((ContentBlockDelta(event.index, TextDelta(piece)),), True)
                for piece in _pieces(event.delta.text)
            )
        else:
            outputs.append(Output((event,), started))
    return outputs


def _pieces(text: str) -> Iterator[str]:
    """Word by word; of a long text, several words at a time."""
    words = _WORDS.findall(text)
    size = 1 + len(words) // MOST_EVENTS
    for at in range(0, len(words), size):
        yield "".join(words[at : at + size])


def _answer(text: bytes) -> tuple[tuple[ReplyBlock, ...], StopReason]:
    body = decode_leniently(_fields, text)
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "tool" and isinstance(choice.get("name"), str):
        return (ToolUseBlock(tool_use_id(), choice["name"]),), "tool_use"
    return (TextBlock(_last_user_text(body.get("messages")) or SILENCE),), "end_turn"


def _last_user_text(messages: Any) -> str:
    turns = messages if isinstance(messages, list) else []
    for turn in reversed(turns):
        if isinstance(turn, dict) and turn.get("role") == "user" and (text := _text(turn.get("content"))):
            return text
    return ""


def _text(content: Any) -> str:
    """The last text of a turn; Claude Code puts its own reminders in front of what the user wrote."""
    if isinstance(content, str):
        return content
    for block in reversed(content if isinstance(content, list) else []):
        if not isinstance(block, dict):
            continue
        if block.get("type") == "text" and isinstance(block.get("text"), str) and block["text"]:
            return str(block["text"])
        if block.get("type") == "tool_result" and (text := _text(block.get("content"))):
            return text
    return ""
