"""How we reach the many: chat completions through LiteLLM, used as a transport only. The only file that imports it, and late: the import
takes seconds and 180 MB, so it runs beside the event loop once a policy names a provider that needs it (older-proxies.md §3)."""

import asyncio
import gc
import importlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import ModuleType
from typing import Any

import httpx
import msgspec

from routeproxy.chat.completion import Choice, Chunk, CompletionUsage, Delta, ToolCallDelta
from routeproxy.chat.request import ChatRequest
from routeproxy.exchange import Call
from routeproxy.messages.errors import STATUS_OF_TYPE
from routeproxy.policy.decide import Target
from routeproxy.telemetry.logs import quiet
from routeproxy.translate.dialect import Dialect
from routeproxy.translate.endings import stop_reason
from routeproxy.upstream.chain import needed_key
from routeproxy.upstream.dialects import Limits, dialect_of
from routeproxy.upstream.failures import Kind, UpstreamFailure, from_error
from routeproxy.upstream.http import Client
from routeproxy.upstream.providers import Manner, manner_of
from routeproxy.upstream.wire import SyncTransport, Transport, Wire, current

log = logging.getLogger(__name__)

# For a model that is not in its table LiteLLM refuses these, or drops them without a word.
ALLOWED = [
    "max_completion_tokens",
    "parallel_tool_calls",
    "prompt_cache_key",
    "reasoning_effort",
    "response_format",
    "service_tier",
    "stream_options",
    "tool_choice",
    "tools",
    "user",
]

NO_LIMIT = 86_400.0
"""Seconds. Times are kept by the chain; LiteLLM's own limit of 600 s would end long answers."""


class LiteLLM:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._loading: asyncio.Future[Any] | None = None

    def dialect(self, target: Target) -> Dialect:
        return dialect_of(target, _limits(target))

    async def load(self) -> Any:
        """The module; imported once, in a thread. An import that failed is tried again by the next call."""
        if self._loading is None:
            self._loading = asyncio.get_running_loop().run_in_executor(None, _import)
        loading = self._loading
        try:
            return await asyncio.shield(loading)
        except Exception as error:
            log.exception("LiteLLM could not be imported")
            if self._loading is loading:
                self._loading = None
            words = f"this provider is reached through LiteLLM, which could not be imported: {error}"
            raise UpstreamFailure("server_error", words) from error

    @asynccontextmanager
    async def open(self, chat: ChatRequest, call: Call) -> AsyncIterator[AsyncIterator[Chunk]]:
        litellm = await self.load()
        manner = manner_of(call.target.provider)
        wire = Wire(self._client, call, manner)
        current.set(wire)
        try:
            try:
                answer = await litellm.acompletion(**_arguments(litellm, chat, call, manner))
            except Exception as error:
                raise _failure(error, wire, call) from error
            if hasattr(answer, "__aiter__"):
                yield _chunks(answer, wire, call)
            else:
                yield _once(_reworded(_chunk(answer), wire.finish_reason))
        finally:
            await wire.let_go()


# --- the request


def _arguments(litellm: Any, chat: ChatRequest, call: Call, manner: Manner) -> dict[str, Any]:
    target, provider = call.target, call.target.provider
    arguments: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(chat))
    arguments |= manner.address(provider.base_url) if provider.base_url else {}
    arguments |= {
        argument: provider.options[option]
        for option, argument in manner.arguments.items()
        if option in provider.options
    }
    arguments |= provider.litellm_params
    name, prefix = manner.name, ""
    if provider.api == "responses":
        prefix = "responses/"
        _register_responses(litellm, f"{name}/{target.model}", name)
    elif manner.over_responses and _needs_responses(litellm, arguments, target.model, manner.over_responses):
        name = manner.over_responses
        _register_responses(litellm, target.model, name)
    else:
        arguments["_skip_responses_api_bridge"] = True
    return arguments | {
        # LiteLLM takes one prefix off, so a model's own (`openai/gpt-oss-20b`) survives only behind another.
        "model": f"{name}/{prefix}{target.model}",
        "custom_llm_provider": name,
        "api_key": needed_key(call) or manner.anonymous,
        "max_retries": 0,
        "num_retries": 0,
        "timeout": NO_LIMIT,
        "drop_params": False,
        "allowed_openai_params": ALLOWED,
        "no-log": True,
        "_skip_mcp_handler": True,
    }


def _needs_responses(litellm: Any, arguments: Mapping[str, Any], model: str, name: str) -> bool:
    """Some models do not take tools together with reasoning, or anything at all, but by way of Responses: LiteLLM knows which."""
    needed, _ = litellm.main.responses_api_bridge_check(
        model=model,
        custom_llm_provider=name,
        tools=arguments.get("tools"),
        reasoning_effort=arguments.get("reasoning_effort"),
        api_base=arguments.get("api_base"),
    )
    return bool(needed.get("mode") == "responses")


def _register_responses(litellm: Any, model: str, provider: str) -> None:
    # Of a model that is not in its table LiteLLM asks Responses for a whole answer, and only then plays a stream.
    if model not in litellm.model_cost:
        litellm.register_model({model: {"litellm_provider": provider, "supports_native_streaming": True}})


def _limits(target: Target) -> Limits | None:
    """What LiteLLM's table says of a model, once it has been imported; of an unknown one it says nothing."""
    litellm = sys.modules.get("litellm")
    table = getattr(litellm, "model_cost", None) if litellm is not None else None
    if not table:
        return None
    manner = manner_of(target.provider)
    row = table.get(f"{manner.table or manner.name}/{target.model}") or (table.get(target.model) if manner.table else None)
    return Limits(row.get("max_output_tokens")) if row else None


# --- the answer


async def _once(chunk: Chunk) -> AsyncIterator[Chunk]:
    yield chunk


async def _chunks(stream: Any, wire: Wire, call: Call) -> AsyncIterator[Chunk]:
    while True:
        # Each step may run in another task, and so in another context.
        current.set(wire)
        try:
            answer = await anext(stream)
        except StopAsyncIteration:
            return
        except Exception as error:
            if wire.failure is None and stop_reason(wire.finish_reason) == "failed":
                yield Chunk((Choice(finish_reason=wire.finish_reason),))
                return
            raise _failure(error, wire, call) from error
        chunk = _chunk(answer)
        if chunk.usage is not None:
            chunk = msgspec.structs.replace(chunk, usage=_reported_usage(stream))
        if chunk.choices and chunk.choices[0].finish_reason is not None:
            if not _has_ended(stream, wire):
                words = "upstream closed the stream before completing"
                raise wire.failure or UpstreamFailure("connection", words)
            chunk = _reworded(chunk, wire.finish_reason)
        yield chunk


def _has_ended(stream: Any, wire: Wire) -> bool:
    """Whether the back end said so. LiteLLM invents a `stop` for a stream that merely ceased."""
    if not hasattr(stream, "received_finish_reason"):
        return True
    return bool(stream.received_finish_reason or stream.intermittent_finish_reason or wire.finish_reason)


def _reworded(chunk: Chunk, received: str | None) -> Chunk:
    """With the back end's own finish reason where LiteLLM made a `stop` of one that means failure."""
    if stop_reason(received) != "failed" or not chunk.choices:
        return chunk
    first = msgspec.structs.replace(chunk.choices[0], finish_reason=received)
    return msgspec.structs.replace(chunk, choices=(first, *chunk.choices[1:]))


def _reported_usage(stream: Any) -> CompletionUsage | None:
    """The back end's own numbers. What LiteLLM puts in their place, or makes up where there are none, are its tokenizer's."""
    for answer in reversed(getattr(stream, "chunks", ())):
        if (usage := getattr(answer, "usage", None)) is not None:
            return _lenient(usage, CompletionUsage)
    return None


def _chunk(answer: Any) -> Chunk:
    """`answer` in our own struct. Total: what has a shape that nobody foresaw is left out."""
    try:
        chunk = msgspec.convert(answer, Chunk, from_attributes=True)
    except (msgspec.ValidationError, TypeError, AttributeError):
        chunk = _salvaged(answer)
    if isinstance(chunk.model, str):
        served = getattr(answer, "_hidden_params", {}).get("provider_response_model")
        model = served or chunk.model
        chunk = msgspec.structs.replace(chunk, model=model.removeprefix("custom_openai/"))
    if chunk.choices and any(_SIGNED in str(call.id) for call in _calls(chunk)):
        chunk = _without_signatures_in_ids(chunk)
    return chunk


_SIGNED = "__thought__"


def _calls(chunk: Chunk) -> tuple[ToolCallDelta, ...]:
    said = chunk.choices[0].delta or chunk.choices[0].message
    return (said and said.tool_calls) or ()


def _without_signatures_in_ids(chunk: Chunk) -> Chunk:
    # LiteLLM carries Gemini's signature in the id of the call, which breaks every other provider later. It is in its own field, too.
    choice = chunk.choices[0]
    calls = tuple(
        msgspec.structs.replace(call, id=call.id.partition(_SIGNED)[0]) if isinstance(call.id, str) else call
        for call in _calls(chunk)
    )
    part = "delta" if choice.delta is not None else "message"
    said = msgspec.structs.replace(getattr(choice, part), tool_calls=calls)
    return msgspec.structs.replace(chunk, choices=(msgspec.structs.replace(choice, **{part: said}), *chunk.choices[1:]))


def _salvaged(answer: Any) -> Chunk:
    found = answer.model_dump() if hasattr(answer, "model_dump") else answer
    if not isinstance(found, Mapping):
        return Chunk()
    choices = found.get("choices")
    return Chunk(
        choices=tuple(_salvaged_choice(one) for one in choices if isinstance(one, Mapping))
        if isinstance(choices, list | tuple)
        else (),
        usage=_lenient(found["usage"], CompletionUsage) if found.get("usage") is not None else None,
        model=found.get("model"),
        error=found.get("error"),
    )


def _salvaged_choice(choice: Mapping[str, Any]) -> Choice:
    parts = {
        part: _lenient(choice[part], Delta) for part in ("delta", "message") if isinstance(choice.get(part), Mapping)
    }
    rest = {name: choice.get(name) for name in ("index", "finish_reason", "stop_reason")}
    return Choice(**rest, **parts)


def _lenient[T: msgspec.Struct](value: Any, type: type[T]) -> T:
    ...


# --- failures


def _failure(error: BaseException, wire: Wire, call: Call) -> UpstreamFailure:
    ...
