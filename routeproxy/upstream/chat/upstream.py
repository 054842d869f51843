"""Back ends that speak chat completions: the request translated on the way out, the chunks on the way back.
How the bytes travel is the `ChatBackEnd`'s affair; what they mean is `translate/`'s."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Protocol

from routeproxy.chat.completion import Chunk, joined
from routeproxy.chat.request import ChatRequest
from routeproxy.exchange import KEEPALIVE, Call, Emit, Exchange, Output
from routeproxy.messages.errors import Incapable
from routeproxy.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    Error,
    Event,
    MessageDelta,
    MessageStop,
    frame,
)
from routeproxy.messages.reply import Usage, encode
from routeproxy.messages.request import OLDEST_VERSION
from routeproxy.policy.decide import Target, TransformSettings
from routeproxy.translate.context import ReplyContext, ReplyOptions
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.reply import translate_reply
from routeproxy.translate.request import RequestContext, TranslatedRequest, translate_request
from routeproxy.translate.stream import StreamTranslator
from routeproxy.translate.thinking import Signer
from routeproxy.translate.transforms import Transforms
from routeproxy.upstream.failures import UpstreamFailure, from_error_type
from routeproxy.upstream.params import with_params
from routeproxy.upstream.synthetic import message_id, message_part, own_message, rough_tokens, tool_use_id

log = logging.getLogger("routeproxy.upstream.chat")

LONG_BODY = 2**18
"""Bytes. A larger one is translated in a thread: 1 MB of conversation takes 8 ms, in which nobody else would
be heard."""

_beside_the_loop = ThreadPoolExecutor(1, "translation")


class ChunkSource(Protocol):
    """Those of an answer, as many at a time as one read brought; none is a sign of life."""

    @property
    def done(self) -> bool:
        """The back end said that it was done, and its answer is whole even without a finish reason."""

    def __aiter__(self) -> AsyncIterator[Sequence[Chunk]]: ...

    async def aclose(self) -> None:
        """Lets the back end go."""


class ChatBackEnd(Protocol):
    """A way to get chat completions."""

    def profile(self, target: Target) -> ModelProfile: ...

    async def open(self, chat: ChatRequest, call: Call) -> ChunkSource:
        """The chunks of the answer, to be closed; a single one with `message` in it where `chat.stream` was
        not set. Raises `UpstreamFailure`."""


class ChatUpstream:
    def __init__(self, back_end: ChatBackEnd, signer: Signer) -> None:
        self._back_end = back_end
        self._signer = signer

    async def send(self, call: Call, emit: Emit) -> None:
        exchange = call.exchange
        if len(exchange.inbound.body) > LONG_BODY:
            loop = asyncio.get_running_loop()
            translated = await loop.run_in_executor(_beside_the_loop, self._translated, call)
        else:
            translated = self._translated(call)
        exchange.warn(*translated.warnings)
        if translated.warms_cache:
            usage = Usage(input_tokens=rough_tokens(exchange.inbound.body), output_tokens=0)
            await emit(message_part(exchange, own_message(exchange, (), "max_tokens", usage=usage)))
            return
        reply = translated.reply
        chunks = await self._back_end.open(translated.chat, call)
        # An answer may take minutes, and what was asked is as long as the conversation.
        del translated
        try:
            if exchange.stream:
                await _stream(chunks, reply, call, emit)
            else:
                await emit(await _whole(chunks, reply, call))
        finally:
            await chunks.aclose()

    async def count_tokens(self, call: Call) -> bytes | None:
        return None

    def _translated(self, call: Call) -> TranslatedRequest:
        body = with_params(call.exchange.body, call.target.params)
        context = self._context(call, tuple(body.members))
        try:
            return translate_request(body.request(), self._back_end.profile(call.target), context)
        except Incapable as refused:
            raise UpstreamFailure("capability", refused.message) from refused

    def _context(self, call: Call, fields: tuple[str, ...]) -> RequestContext:
        inbound = call.exchange.inbound
        return RequestContext(
            version=inbound.header("anthropic-version") or OLDEST_VERSION,
            betas=_betas_in(inbound.headers.get("anthropic-beta", ())),
            target=call.target.model,
            signer=self._signer,
            session_id=inbound.header("x-claude-code-session-id"),
            fields=fields,
            by_rule=frozenset(call.target.params.set) | frozenset(call.target.params.default),
        )


@lru_cache(256)
def _betas_in(lines: tuple[str, ...]) -> frozenset[str]:
    return frozenset(beta.strip() for line in lines for beta in line.split(","))


_LAST = (Error, MessageStop)


async def _stream(answer: ChunkSource, context: ReplyContext, call: Call, emit: Emit) -> None:
    translator = StreamTranslator(context, _reply_options(call))
    async for chunks in answer:
        # What came together goes out together.
        events = [event for chunk in joined(chunks) for event in translator.feed(chunk)]
        await emit(_part(events, call.exchange))
        if events and isinstance(events[-1], _LAST):
            return
    await emit(_part(translator.finish(done=answer.done), call.exchange))
    for warning in translator.warnings:
        log.info("%s: %s", call.exchange.request_id, warning)


async def _whole(answer: ChunkSource, context: ReplyContext, call: Call) -> Output:
    completion = [chunk async for chunks in answer for chunk in chunks]
    message = translate_reply(completion, context, _reply_options(call))
    if isinstance(message, Error):
        raise from_error_type(message.error.type, message.error.message)
    call.exchange.note_usage(message.usage)
    return Output(encode(message), True)


def _part(events: list[Event], exchange: Exchange) -> Output:
    if not events:
        return KEEPALIVE
    commits = exchange.first_content_at is not None
    for event in events:
        if isinstance(event, ContentBlockDelta):  # as most are
            continue
        if isinstance(event, ContentBlockStart):
            commits = True
        elif isinstance(event, MessageDelta):
            commits = True
            exchange.note_usage(event.usage)
        elif isinstance(event, Error):
            if exchange.first_content_at is None:  # nothing of this answer has gone out yet
                raise from_error_type(event.error.type, event.error.message)
            exchange.error = event.error.type
    return Output(b"".join([frame(event) for event in events]), commits)


def _reply_options(call: Call) -> ReplyOptions:
    return ReplyOptions(
        message_id=message_id(),
        input_tokens=rough_tokens(call.exchange.inbound.body),
        new_tool_id=tool_use_id,
        transforms=transforms_of(call.target.transforms),
    )


@lru_cache(256)
def transforms_of(settings: TransformSettings) -> Transforms:
    return Transforms(**{name: getattr(settings, name) for name in Transforms.__struct_fields__})
