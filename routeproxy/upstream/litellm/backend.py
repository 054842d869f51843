"""How we reach the many: chat completions through LiteLLM, used as a transport only, which decides neither
where a request goes nor how its answer ended. It is imported late, beside the event loop, once a policy names
a provider that needs it: the import takes seconds and 180 MB."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from routeproxy.chat.completion import Choice, Chunk, CompletionUsage
from routeproxy.chat.request import ChatRequest, encode_request
from routeproxy.exchange import Call
from routeproxy.large_bodies import let_others_run, read_beside
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Target
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.stop_reasons import stop_reason
from routeproxy.upstream.chat.endpoints import deployment_of, endpoint_of
from routeproxy.upstream.chat.formats import ResponseDecoder, decoder_for
from routeproxy.upstream.chat.lenient import salvage_usage
from routeproxy.upstream.chat.model_facts import profile_within_limits
from routeproxy.upstream.chat.until_error import ChunksUntilError
from routeproxy.upstream.chat.upstream import ChunkSource
from routeproxy.upstream.failures import UpstreamFailure, key_unusable, not_a_completion, stream_cut
from routeproxy.upstream.google_tokens import GoogleTokens
from routeproxy.upstream.http.client import Client
from routeproxy.upstream.keys import needed_key
from routeproxy.upstream.litellm.chunks import chunk_of, with_own_finish_reason
from routeproxy.upstream.litellm.exceptions import failure_of, is_no_answer_of_the_back_end
from routeproxy.upstream.litellm.providers import LiteLLMProvider, litellm_provider_of
from routeproxy.upstream.litellm.setup import import_in_thread
from routeproxy.upstream.litellm.transport import (
    Answered,
    Failed,
    LiteLLMTransport,
    set_current_transport,
)

log = logging.getLogger("routeproxy.upstream.litellm")

NO_LIMIT = 86_400.0
"""Seconds. An attempt's times are kept elsewhere; LiteLLM's own limit of 600 s would end long answers."""


class LiteLLMBackEnd:
    def __init__(
        self,
        client: Client,
        google_tokens: GoogleTokens,
        decoder_for: Callable[[str], ResponseDecoder | None] = decoder_for,
    ) -> None:
        """`decoder_for`: our own reader of what is answered at a path, `None` where LiteLLM reads it."""
        self._client = client
        self._google_tokens = google_tokens
        self._decoder_for = decoder_for
        self._loading: asyncio.Future[Any] | None = None

    def profile(self, target: Target) -> ModelProfile:
        return profile_within_limits(target)

    async def load(self) -> Any:
        """The module; imported once, in a thread. An import that failed is tried again by the next call.
        Raises `UpstreamFailure`."""
        if self._loading is None:
            self._loading = import_in_thread()
        loading = self._loading
        try:
            return await asyncio.shield(loading)
        except Exception as error:
            log.exception("LiteLLM could not be imported")
            if self._loading is loading:
                self._loading = None
            words = "this provider is reached through LiteLLM, which could not be imported: the log says why"
            raise UpstreamFailure("server_error", words) from error

    async def open(self, chat: ChatRequest, call: Call) -> ChunksUntilError:
        litellm = await self.load()
        inbound = call.exchange.inbound
        request = await read_beside(len(inbound.body), inbound.caller, request_of, litellm, chat, call)
        litellm_provider = litellm_provider_of(call.target.provider)
        transport = LiteLLMTransport(
            self._client,
            call,
            litellm_provider,
            request.body,
            stream=bool(chat.stream),
            additions=chat.thinking_off or None,
            decoder_for=self._decoder_for,
            loop=asyncio.get_running_loop(),
            signature=await self._signature(call, litellm_provider) if call.key is None else {},
        )
        set_current_transport(transport)
        try:
            return ChunksUntilError(await _answer(litellm, request, transport, call), call.target)
        except BaseException:
            transport.close()
            raise

    async def _signature(self, call: Call, litellm_provider: LiteLLMProvider) -> Mapping[str, str]:
        provider = call.target.provider
        if endpoint_of(provider).signs_in_to_google:
            return await self._google_tokens.headers(provider)
        token = str(provider.litellm_params.get(litellm_provider.token_param) or "")
        if not (token.isascii() and token.isprintable()):
            raise key_unusable(provider.name)
        return {"authorization": f"Bearer {token}"} if token else {}


async def _answer(litellm: Any, request: "_Request", transport: LiteLLMTransport, call: Call) -> ChunkSource:
    begun: list[Any] = []
    try:
        answer = await litellm.acompletion(**request.arguments)
        if hasattr(answer, "__aiter__") and not transport.outcome.answered:
            # Some of its streams ask only when their first chunk is wanted.
            begun.append(await anext(aiter(answer)))
    except Answered as answered:
        return answered.chunks
    except Failed as failed:
        raise failed.failure from None
    except Exception as error:
        raise _failure(error, transport, call) from error
    return LiteLLMChunkStream(_chunks_of(answer, begun, transport, call), transport)


# --- the request


class _Request(NamedTuple):
    arguments: dict[str, Any]
    """Of `acompletion`."""
    body: bytes | None
    """What goes out in place of what LiteLLM writes."""


def request_of(litellm: Any, chat: ChatRequest, call: Call) -> _Request:
    """Raises `UpstreamFailure` of kind `auth` where the key is not set."""
    target, provider = call.target, call.target.provider
    litellm_provider = litellm_provider_of(provider)
    deployment = deployment_of(target)
    arguments = _provider_arguments(provider, litellm_provider)
    name, responses_name = litellm_provider.name, litellm_provider.responses_name
    prefix, body = "", None
    if provider.api == "responses":
        name, prefix = responses_name or name, "responses/"
        _make_known(litellm, deployment, name)
    elif responses_name and needs_responses(
        litellm, _fields_of(replace(chat, messages=[])), arguments, target.model, responses_name
    ):
        name = responses_name
        _make_known(litellm, deployment, name)
    else:
        arguments["_skip_responses_api_bridge"] = True
        if litellm_provider.verbatim:
            body = encode_request(chat, deployment)
        else:
            _make_known(litellm, deployment, name)
    # LiteLLM takes one prefix off, so a model's own (`openai/gpt-oss-20b`) survives only behind another.
    bare = not (litellm_provider.prefixes_models or prefix or deployment.startswith(f"{name}/"))
    arguments |= {
        "model": deployment if bare else f"{name}/{prefix}{deployment}",
        "custom_llm_provider": name,
        "api_key": litellm_provider.key_argument(needed_key(call)),
        "max_retries": 0,
        "num_retries": 0,
        "timeout": NO_LIMIT,
        "drop_params": False,
        "allowed_openai_params": [*litellm_provider.allowed_params],
        "no-log": True,
        "_skip_mcp_handler": True,
    }
    if body is not None:
        return _Request({"messages": _STAND_IN, "stream": bool(chat.stream), **arguments}, body)
    return _Request({**_fields_of(chat), **arguments}, None)


def _fields_of(chat: ChatRequest) -> dict[str, Any]:
    """What switches thinking off is no parameter of LiteLLM's: the transport puts it into the body."""
    json = msgspec.json.encode(replace(chat, thinking_off=UNSET))
    let_others_run(len(json))
    fields: dict[str, Any] = msgspec.json.decode(json)
    return fields


def _provider_arguments(provider: Provider, litellm_provider: LiteLLMProvider) -> dict[str, Any]:
    """The address, the provider's options and whatever the rules say beyond them."""
    arguments: dict[str, Any] = {
        argument: provider.options[option]
        for option, argument in litellm_provider.option_arguments.items()
        if option in provider.options
    }
    if provider.base_url:
        arguments |= litellm_provider.address_arguments(provider.base_url)
    return {**arguments, **provider.litellm_params}


_STAND_IN = [{"role": "user", "content": "-"}]
"""For a request whose body is ours: LiteLLM would read, copy and write every message of a long
conversation."""


def needs_responses(
    litellm: Any, fields: Mapping[str, Any], arguments: Mapping[str, Any], model: str, name: str
) -> bool:
    """Some models do not take tools together with reasoning, or anything at all, but by way of Responses:
    LiteLLM knows which. `name`: its name for the provider."""
    model_info, _ = litellm.main.responses_api_bridge_check(
        model=model,
        custom_llm_provider=name,
        tools=fields.get("tools"),
        reasoning_effort=fields.get("reasoning_effort"),
        api_base=arguments.get("api_base"),
    )
    return bool(model_info.get("mode") == "responses")


ABILITIES = (
    "supports_function_calling",
    "supports_native_streaming",
    "supports_reasoning",
    "supports_response_schema",
    "supports_system_messages",
    "supports_tool_choice",
    "supports_vision",
)


def _make_known(litellm: Any, model: str, provider: str) -> None:
    """A model that LiteLLM's table does not have can do anything: otherwise it refuses to ask it for
    reasoning, and plays it a stream."""
    name = f"{provider}/{model}"
    if name not in litellm.model_cost and model not in litellm.model_cost:
        abilities = dict.fromkeys(ABILITIES, True)
        litellm.register_model({name: {"litellm_provider": provider, "mode": "chat", **abilities}})


# --- the answer


class LiteLLMChunkStream:
    """The chunks of an answer in a format that LiteLLM alone reads."""

    done = False
    """It ends with the finish reason that LiteLLM received, or it was cut."""

    def __init__(self, chunks: AsyncIterator[Sequence[Chunk]], transport: LiteLLMTransport) -> None:
        self._chunks = chunks
        self._transport = transport

    def __aiter__(self) -> AsyncIterator[Sequence[Chunk]]:
        return self._chunks

    async def aclose(self) -> None:
        self._transport.close()


def _chunks_of(
    answer: Any, begun: list[Any], transport: LiteLLMTransport, call: Call
) -> AsyncIterator[Sequence[Chunk]]:
    """`begun`: what was taken of a stream already."""
    if hasattr(answer, "__aiter__"):
        return _stream(answer, begun, transport, call)
    outcome = transport.outcome
    chunk = outcome.half_characters.restore(chunk_of(answer))
    return _at_once([with_own_finish_reason(chunk, outcome.finish_reason)])


async def _at_once(chunks: Sequence[Chunk]) -> AsyncIterator[Sequence[Chunk]]:
    yield chunks


async def _stream(
    answer: Any, begun: list[Any], transport: LiteLLMTransport, call: Call
) -> AsyncIterator[Sequence[Chunk]]:
    stream: AsyncIterator[Any] = aiter(answer)
    while True:
        # Each step may run in another task, and so in another context.
        set_current_transport(transport)
        try:
            received = begun.pop() if begun else await anext(stream)
        except StopAsyncIteration:
            return
        except Failed as failed:
            raise failed.failure from None
        except Exception as error:
            outcome = transport.outcome
            if outcome.failure is None and stop_reason(outcome.finish_reason) == "failed":
                yield [Chunk((Choice(finish_reason=outcome.finish_reason),))]
                return
            raise _failure(error, transport, call, in_stream=True) from error
        chunk = transport.outcome.half_characters.restore(chunk_of(received))
        yield [_with_own_ending(chunk, answer, transport)]


def _with_own_ending(chunk: Chunk, stream: Any, transport: LiteLLMTransport) -> Chunk:
    """The chunk with the back end's own ending and numbers, where LiteLLM has put others."""
    if chunk.usage is not None:
        chunk = msgspec.structs.replace(chunk, usage=_reported_usage(stream))
    if chunk.choices and chunk.choices[0].finish_reason is not None:
        outcome = transport.outcome
        received = outcome.finish_reason
        if not transport.shows_finish_reason:
            received = received or getattr(stream, "received_finish_reason", None)
        if not received:
            # LiteLLM invents a `stop` for a stream that merely ceased, and for an empty `[DONE]`.
            raise outcome.failure or stream_cut()
        chunk = with_own_finish_reason(chunk, outcome.finish_reason)
    return chunk


def _reported_usage(stream: Any) -> CompletionUsage | None:
    """The back end's own numbers. What LiteLLM sums up from them, or makes up where there are none, is its
    tokenizer's."""
    for chunk in reversed(getattr(stream, "chunks", ())):
        if (usage := getattr(chunk, "usage", None)) is not None:
            return salvage_usage(usage)
    return None


def _failure(
    error: BaseException, transport: LiteLLMTransport, call: Call, *, in_stream: bool = False
) -> UpstreamFailure:
    # What the transport saw is what happened; LiteLLM's exception is what it made of that.
    if isinstance(error, UpstreamFailure):
        return error
    outcome, target = transport.outcome, call.target
    if outcome.failure is not None:
        return outcome.failure
    is_unread = not in_stream or is_no_answer_of_the_back_end(error)
    if outcome.answered and is_unread and not getattr(error, "body", None):
        # Neither the client's mistake nor LiteLLM's, whatever it says: the answer was there and could not be
        # read.
        return not_a_completion(target.provider.name)
    return failure_of(
        error,
        provider=target.provider.name,
        model=target.model,
        in_stream=in_stream,
        answered=outcome.answered,
        address=urlsplit(target.provider.base_url or "").netloc.rpartition("@")[2] or None,
    )
