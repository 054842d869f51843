"""Back ends that are asked in chat completions: the request translated on the way out, the chunks on the way
back. How the bytes travel is the `ChatBackEnd`'s affair; what they mean is `translate/`'s."""

import logging
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache, partial
from typing import Protocol

from routeproxy.chat.completion import Chunk, coalesce_chunks
from routeproxy.chat.request import ChatRequest
from routeproxy.exchange import Call, Exchange
from routeproxy.large_bodies import read_beside
from routeproxy.messages.body import Body
from routeproxy.messages.errors import Incapable, type_of_final_error
from routeproxy.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    Error,
    Event,
    MessageDelta,
    MessageStop,
)
from routeproxy.messages.reply import Usage
from routeproxy.messages.request import OLDEST_VERSION
from routeproxy.output import KEEPALIVE, Emit, Output, Relayed
from routeproxy.policy.targets import Target, TransformSettings
from routeproxy.translate.context import ReplyContext, ReplyOptions
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.reply import read_reply
from routeproxy.translate.request import RequestContext, TranslatedRequest, translate_request
from routeproxy.translate.stream import StreamTranslator
from routeproxy.translate.thinking import Signer
from routeproxy.translate.transforms import Transforms
from routeproxy.translate.web_search import WEB_SEARCH, refusal_of_server_tool
from routeproxy.upstream.chat.model_facts import learn
from routeproxy.upstream.chat.ollama_abilities import OllamaAbilities
from routeproxy.upstream.chat.searches import refuses_search
from routeproxy.upstream.chat.shapes import refused_part, setting_for, wanted_shape
from routeproxy.upstream.errors.classify import classify_error_event
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.params import with_params
from routeproxy.upstream.portability import check_losses
from routeproxy.upstream.synthetic import message_id, output_of, own_message, rough_tokens, tool_use_id

log = logging.getLogger("routeproxy.upstream.chat")


class ChunkSource(Protocol):
    """The chunks of an answer, as many at a time as one read brought. A read that brought none is a sign of
    life."""

    def __aiter__(self) -> AsyncIterator[Sequence[Chunk]]: ...

    async def aclose(self) -> None:
        """Lets the back end go."""


class ChatBackEnd(Protocol):
    """A way to get chat completions."""

    def profile(self, target: Target) -> ModelProfile:
        """What the target takes and what it refuses."""

    async def open(self, chat: ChatRequest, call: Call) -> ChunkSource:
        """The chunks of the answer, to be closed; a single one with `message` in it where `chat.stream` was
        not set. Raises `UpstreamFailure`."""


class ChatUpstream:
    def __init__(
        self, back_end: ChatBackEnd, signer: Signer, abilities: OllamaAbilities | None = None
    ) -> None:
        self._back_end = back_end
        self._signer = signer
        self._abilities = abilities

    async def send(self, call: Call, emit: Emit) -> None:
        try:
            await self._send(call, emit)
        except UpstreamFailure as failure:
            self._adapt(call, failure)
            raise

    def _adapt(self, call: Call, failure: UpstreamFailure) -> None:
        """Remembers how the target wants its requests, if its refusal says so, and says so in turn."""
        target, refusal = call.target, failure.refusal
        if refusal is None or call.exchange.first_content_at is not None:
            return
        changes = wanted_shape(refusal, self._back_end.profile(target))
        if not changes:
            return
        learn(target, changes)
        failure.adapted_to = what = refused_part(refusal)
        setting = setting_for(refusal, target.model)
        hint = f"; `{setting}` on provider {target.provider.name} does so from the start" if setting else ""
        log.warning("%s refuses %s: from now on it is asked without%s", target.name, what, hint)
        call.exchange.warn(f"the back end refused {what} and is asked without")

    async def _send(self, call: Call, emit: Emit) -> None:
        exchange = call.exchange
        if self._abilities is not None:
            await self._abilities.learn(call)
        translated = await self._translate(call)
        exchange.warn(*translated.warnings)
        check_losses(translated.losses, call)
        if translated.warms_cache:
            usage = Usage(input_tokens=rough_tokens(exchange.inbound.body), output_tokens=0)
            await emit(output_of(exchange, own_message(exchange, (), "max_tokens", usage=usage)))
            return
        reply = translated.reply
        try:
            chunks = await self._back_end.open(translated.chat, call)
        except UpstreamFailure as failure:
            if not _is_search_refused(failure, translated.chat):
                raise
            raise _search_refused(failure, call) from failure
        # An answer may take minutes, and what was asked is as long as the conversation.
        del translated
        try:
            if exchange.stream:
                await _stream_reply(chunks, reply, call, emit)
            else:
                await emit(await _read_reply(chunks, reply, call))
        finally:
            await chunks.aclose()

    async def count_tokens(self, call: Call) -> Relayed | None:
        return None

    async def _translate(self, call: Call) -> TranslatedRequest:
        """Raises `InvalidRequest`, or failure `capability`."""
        inbound = call.exchange.inbound
        return await read_beside(len(inbound.body), inbound.caller, self._translate_now, call)

    def _translate_now(self, call: Call) -> TranslatedRequest:
        body = with_params(call.exchange.body, call.target.params)
        context = self._context(call, _fields_of(call, body))
        try:
            return translate_request(body.request(), self._back_end.profile(call.target), context)
        except Incapable as refused:
            raise _capability_failure(refused, call) from refused

    def _context(self, call: Call, fields: tuple[str, ...]) -> RequestContext:
        inbound, facts = call.exchange.inbound, call.exchange.facts
        return RequestContext(
            version=inbound.header("anthropic-version") or OLDEST_VERSION,
            betas=_betas_in(inbound.headers.get("anthropic-beta", ())),
            target=call.target.model,
            signer=self._signer,
            session_id=facts.session_id if facts is not None else None,
            fields=fields,
            by_rule=frozenset(call.target.params.set) | frozenset(call.target.params.default),
        )


def _fields_of(call: Call, body: Body) -> tuple[str, ...]:
    """The fields that a translation has to account for: `safeguards` is seen to where the rules name who
    judges."""
    decision = call.exchange.decision
    if decision is None or decision.safeguards is None:
        return body.field_names
    return tuple(name for name in body.field_names if name != "safeguards")


def _capability_failure(refused: Incapable, call: Call) -> UpstreamFailure:
    if not refused.final:
        return UpstreamFailure("capability", refused.message)
    type = type_of_final_error(refused.status, call.exchange.inbound.header("user-agent"))
    return UpstreamFailure("capability", refused.message, type=type, should_retry=False)


def _search_refused(failure: UpstreamFailure, call: Call) -> UpstreamFailure:
    words = f"{refusal_of_server_tool(WEB_SEARCH)}. The back end said: {failure.message}"
    refused = _capability_failure(Incapable(words, final=True), call)
    refused.quotes_back_end = failure.quotes_back_end
    return refused


def _is_search_refused(failure: UpstreamFailure, chat: ChatRequest) -> bool:
    """Whether it was the search, where nothing but a search was offered. It says nothing of functions: the
    target may take them all the same."""
    is_refusal = failure.kind in ("invalid_request", "capability")
    feature = failure.refusal.feature if failure.refusal is not None else None
    return (
        is_refusal
        and bool(chat.web_search)
        and not chat.tools
        and feature in (None, "tools")
        and refuses_search(failure.message)
    )


@lru_cache(256)
def _betas_in(lines: tuple[str, ...]) -> frozenset[str]:
    return frozenset(beta.strip() for line in lines for beta in line.split(","))


_LAST_EVENTS = (Error, MessageStop)


async def _stream_reply(answer: ChunkSource, context: ReplyContext, call: Call, emit: Emit) -> None:
    translator = StreamTranslator(context, _reply_options(call))
    try:
        async for chunks in answer:
            # What came together goes out together.
            events = [event for chunk in coalesce_chunks(chunks) for event in translator.feed(chunk)]
            if events and isinstance(events[-1], _LAST_EVENTS):
                await _end_stream(events, translator, call, emit)
                return
            await emit(_output_of(events, call.exchange))
        await _end_stream(translator.finish(), translator, call, emit)
    finally:
        _note_tokens(translator, call.exchange)


def _note_tokens(translator: StreamTranslator, exchange: Exchange) -> None:
    """However the answer ended, what it took is known as far as it came."""
    exchange.tokens, exchange.served_model = translator.tokens(), translator.served_model


async def _end_stream(events: list[Event], translator: StreamTranslator, call: Call, emit: Emit) -> None:
    """Raises `UpstreamFailure` for an answer that failed, after what came of it before."""
    exchange = call.exchange
    if isinstance(error := events[-1], Error):
        if exchange.first_content_at is not None and events[:-1]:
            await emit(_output_of(events[:-1], exchange))
        raise _failure_of(error, quotes_back_end=translator.quotes_back_end)
    await emit(_output_of(events, exchange))
    for warning in translator.warnings:
        log.info("%s: %s", exchange.request_id, warning)


def _failure_of(error: Error, *, quotes_back_end: bool) -> UpstreamFailure:
    failure = classify_error_event(error.error.type, error.error.message)
    failure.quotes_back_end = quotes_back_end
    return failure


async def _read_reply(answer: ChunkSource, context: ReplyContext, call: Call) -> Output:
    completion = [chunk async for chunks in answer for chunk in chunks]
    translator = StreamTranslator(context, _reply_options(call))
    message = read_reply(completion, translator, partial(_warn, call.exchange))
    _note_tokens(translator, call.exchange)
    if isinstance(message, Error):
        raise _failure_of(message, quotes_back_end=any(chunk.error for chunk in completion))
    call.exchange.usage = message.usage
    return Output(message, True)


def _warn(exchange: Exchange, warning: str) -> None:
    """Into the log, and into a header where it is fit for one: it may name what a back end has sent."""
    log.info("%s: %s", exchange.request_id, warning)
    if warning.isascii() and warning.isprintable():
        exchange.warn(warning)


def _output_of(events: list[Event], exchange: Exchange) -> Output:
    """Events that came together."""
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
            exchange.usage = event.usage
    return Output(events, commits)


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
