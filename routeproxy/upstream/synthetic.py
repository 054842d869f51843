"""Answers that no back end gives: built here as a message, sent as a stream or whole, whichever was asked
for."""

import os

from routeproxy.exchange import Exchange
from routeproxy.messages.events import events_of
from routeproxy.messages.reply import Message, ReplyBlock, StopDetails, StopReason, Usage
from routeproxy.output import Output


def message_id() -> str:
    return f"msg_{os.urandom(12).hex()}"


def tool_use_id() -> str:
    return f"toolu_{os.urandom(12).hex()}"


def output_of(exchange: Exchange, message: Message) -> Output:
    """`message` in the form that the client asked for: whole, or as the events of a stream."""
    exchange.usage = message.usage
    return Output(events_of(message) if exchange.stream else message, commits=True)


def own_message(
    exchange: Exchange,
    content: tuple[ReplyBlock, ...],
    stop_reason: StopReason,
    *,
    usage: Usage,
    stop_details: StopDetails | None = None,
) -> Message:
    assert exchange.envelope is not None
    return Message(
        id=message_id(),
        model=exchange.envelope.model,
        content=content,
        stop_reason=stop_reason,
        stop_details=stop_details,
        usage=usage,
    )


def refusal(exchange: Exchange, explanation: str) -> Output:
    """A back end's content filter stopped the request: the API says that with a 200 (wire.md, "Decided")."""
    usage = Usage(input_tokens=rough_tokens(exchange.inbound.body), output_tokens=0)
    details = StopDetails(explanation=explanation)
    return output_of(exchange, own_message(exchange, (), "refusal", usage=usage, stop_details=details))


def rough_tokens(body: bytes) -> int:
    """A guess that costs nothing, for `message_start`, which nobody computes with (wire.md §2.7): four bytes
    a token."""
    return max(1, len(body) // 4)
