"""How we reach the many: chat completions through LiteLLM, used as a transport only. The only file that
imports it, and late: the import takes seconds and 180 MB, so it runs beside the event loop once a policy
names a provider that needs it (older-proxies.md §3)."""

import asyncio
import gc
import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, NamedTuple

import httpx
import msgspec

from routeproxy.chat.completion import Choice, Chunk, CompletionUsage
from routeproxy.chat.request import ChatRequest, asking
from routeproxy.exchange import Call
from routeproxy.gc_pause import paused
from routeproxy.policy.targets import Target
from routeproxy.telemetry.logs import quiet
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.stop_reasons import stop_reason
from routeproxy.upstream.chat.model_table import profile_within_limits
from routeproxy.upstream.failover import needed_key
from routeproxy.upstream.failures import UpstreamFailure, not_a_completion
from routeproxy.upstream.http.client import Client
from routeproxy.upstream.litellm.chunks import chunk_of, reworded, usage_of
from routeproxy.upstream.litellm.exceptions import failure_of
from routeproxy.upstream.litellm.providers import litellm_provider_of
from routeproxy.upstream.litellm.transport import LiteLLMTransport, SyncTransport, Transport, current

log = logging.getLogger("routeproxy.upstream.litellm")

ABLE = (
    "supports_function_calling",
    "supports_native_streaming",
    "supports_reasoning",
    "supports_response_schema",
    "supports_system_messages",
    "supports_tool_choice",
    "supports_vision",
)

NO_LIMIT = 86_400.0
"""Seconds. Times are kept by the chain; LiteLLM's own limit of 600 s would end long answers."""


class LiteLLMBackEnd:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._loading: asyncio.Future[Any] | None = None

    def profile(self, target: Target) -> ModelProfile:
        return profile_within_limits(target)

    async def load(self) -> Any:
        """The module; imported once, in a thread. An import that failed is tried again by the next call."""
        if self._loading is None:
            self._loading = _imported_beside(asyncio.get_running_loop())
        loading = self._loading
        try:
            return await asyncio.shield(loading)
        except Exception as error:
            log.exception("LiteLLM could not be imported")
            if self._loading is loading:
                self._loading = None
            words = f"this provider is reached through LiteLLM, which could not be imported: {error}"
            raise UpstreamFailure("server_error", words) from error

    async def open(self, chat: ChatRequest, call: Call) -> "LiteLLMChunkStream":
        litellm = await self.load()
        asked = _arguments(litellm, chat, call)
        wire = LiteLLMTransport(
            self._client,
            call,
            litellm_provider_of(call.target.provider),
            asked.body,
            stream=bool(chat.stream),
        )
        current.set(wire)
        try:
            try:
                answer = await litellm.acompletion(**asked.arguments)
            except Exception as error:
                raise _failure(error, wire, call) from error
            if wire.chunks:
                return LiteLLMChunkStream(_at_once(wire.chunks), wire)
            if hasattr(answer, "__aiter__"):
                return LiteLLMChunkStream(_chunks(answer, wire, call), wire)
            return LiteLLMChunkStream(_at_once([reworded(chunk_of(answer), wire.finish_reason)]), wire)
        except BaseException:
            wire.close()
            raise


# --- the request


class _Asked(NamedTuple):
    arguments: dict[str, Any]
    body: bytes | None
    """What goes out in place of what LiteLLM writes."""


def _arguments(litellm: Any, chat: ChatRequest, call: Call) -> _Asked:
    target, provider = call.target, call.target.provider
    litellm_provider = litellm_provider_of(provider)
    deployment = str(provider.options.get("deployment", target.model))
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(chat))
    control: dict[str, Any] = {
        argument: provider.options[option]
        for option, argument in litellm_provider.arguments.items()
        if option in provider.options
    }
    control |= litellm_provider.address(provider.base_url) if provider.base_url else {}
    control |= provider.litellm_params
    name, prefix, body = litellm_provider.name, "", None
    if provider.api == "responses":
        name, prefix = litellm_provider.over_responses or litellm_provider.name, "responses/"
        _make_known(litellm, deployment, name)
    elif litellm_provider.over_responses and _needs_responses(
        litellm, fields, control, target.model, litellm_provider.over_responses
    ):
        name = litellm_provider.over_responses
        _make_known(litellm, deployment, name)
    else:
        control["_skip_responses_api_bridge"] = True
        if litellm_provider.verbatim:
            body = asking(deployment, chat)
            fields = {"messages": _STAND_IN, "stream": bool(chat.stream)}
        else:
            _make_known(litellm, deployment, name)
    # LiteLLM takes one prefix off, so a model's own (`openai/gpt-oss-20b`) survives only behind another.
    bare = not (litellm_provider.prefixes_models or prefix or deployment.startswith(f"{name}/"))
    control |= {
        "model": deployment if bare else f"{name}/{prefix}{deployment}",
        "custom_llm_provider": name,
        "api_key": needed_key(call) or litellm_provider.anonymous,
        "max_retries": 0,
        "num_retries": 0,
        "timeout": NO_LIMIT,
        "drop_params": False,
        "allowed_openai_params": [*litellm_provider.allowed],
        "no-log": True,
        "_skip_mcp_handler": True,
    }
    return _Asked({**fields, **control}, body)


_STAND_IN = [{"role": "user", "content": "-"}]
"""For a request whose body is ours: LiteLLM would read, copy and write every message of a long
conversation."""


def _needs_responses(
    litellm: Any, fields: Mapping[str, Any], control: Mapping[str, Any], model: str, name: str
) -> bool:
    """Some models do not take tools together with reasoning, or anything at all, but by way of Responses:
    LiteLLM knows which."""
    needed, _ = litellm.main.responses_api_bridge_check(
        model=model,
        custom_llm_provider=name,
        tools=fields.get("tools"),
        reasoning_effort=fields.get("reasoning_effort"),
        api_base=control.get("api_base"),
    )
    return bool(needed.get("mode") == "responses")


def _make_known(litellm: Any, model: str, provider: str) -> None:
    """A model that LiteLLM's table does not have can do anything: otherwise it refuses to ask it for
    reasoning, and plays it a stream."""
    name = f"{provider}/{model}"
    if name not in litellm.model_cost and model not in litellm.model_cost:
        able = dict.fromkeys(ABLE, True)
        litellm.register_model({name: {"litellm_provider": provider, "mode": "chat", **able}})


# --- the answer


class LiteLLMChunkStream:
    """What LiteLLM reads on the wire."""

    done = False
    """Nobody knows whether the back end said so."""

    def __init__(self, chunks: AsyncIterator[Sequence[Chunk]], wire: LiteLLMTransport) -> None:
        self._chunks = chunks
        self._wire = wire

    def __aiter__(self) -> AsyncIterator[Sequence[Chunk]]:
        return self._chunks

    async def aclose(self) -> None:
        self._wire.close()


async def _at_once(chunks: Sequence[Chunk]) -> AsyncIterator[Sequence[Chunk]]:
    yield chunks


async def _chunks(answer: Any, wire: LiteLLMTransport, call: Call) -> AsyncIterator[Sequence[Chunk]]:
    below = getattr(answer, "completion_stream", None)
    # Where OpenAI's own client does the reading, its chunks are all there is to know. What LiteLLM makes of
    # them lacks refusals, vLLM's stop strings and OpenRouter's reasoning, and costs several times as much.
    openai = importlib.import_module("openai")
    stream, plain = (aiter(below), True) if isinstance(below, openai.AsyncStream) else (answer, False)
    while True:
        # Each step may run in another task, and so in another context.
        current.set(wire)
        try:
            one = await anext(stream)
        except StopAsyncIteration:
            return
        except Exception as error:
            if wire.failure is None and stop_reason(wire.finish_reason) == "failed":
                yield [Chunk((Choice(finish_reason=wire.finish_reason),))]
                return
            raise _failure(error, wire, call, in_stream=True) from error
        chunk = chunk_of(one)
        if not plain:
            chunk = _as_received(chunk, answer, wire)
        yield [chunk]


def _as_received(chunk: Chunk, stream: Any, wire: LiteLLMTransport) -> Chunk:
    """With the back end's own ending and numbers, where LiteLLM has put others."""
    if chunk.usage is not None:
        chunk = msgspec.structs.replace(chunk, usage=_reported_usage(stream))
    if chunk.choices and chunk.choices[0].finish_reason is not None:
        if not (
            wire.finish_reason or (not wire.tells_its_end and getattr(stream, "received_finish_reason", "?"))
        ):
            # LiteLLM invents a `stop` for a stream that merely ceased.
            raise wire.failure or UpstreamFailure(
                "connection", "upstream closed the stream before completing"
            )
        chunk = reworded(chunk, wire.finish_reason)
    return chunk


def _reported_usage(stream: Any) -> CompletionUsage | None:
    """The back end's own numbers. What LiteLLM sums up from them, or makes up where there are none, is its
    tokenizer's."""
    for answer in reversed(getattr(stream, "chunks", ())):
        if (usage := getattr(answer, "usage", None)) is not None:
            return usage_of(usage)
    return None


def _failure(
    error: BaseException, wire: LiteLLMTransport, call: Call, *, in_stream: bool = False
) -> UpstreamFailure:
    # What the wire saw is what happened; LiteLLM's exception is what it made of that.
    if isinstance(error, UpstreamFailure):
        return error
    if wire.failure is None and wire.answered and not in_stream and not getattr(error, "body", None):
        # Neither the client's mistake nor LiteLLM's, whatever it says: the answer was there and could not be
        # read.
        return not_a_completion(call.target.provider.name)
    return wire.failure or failure_of(
        error, provider=call.target.provider.name, model=call.target.model, in_stream=in_stream
    )


# --- the import


def _imported_beside(loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    """The module, once a thread of its own has imported it: one that no shutdown waits for."""
    imported: asyncio.Future[Any] = loop.create_future()

    def tell(module: Any, error: BaseException | None) -> None:
        if imported.cancelled():
            return
        if error is not None:
            imported.set_exception(error)
        else:
            imported.set_result(module)

    def work() -> None:
        module, error = None, None
        try:
            module = import_litellm()
        except BaseException as caught:
            error = caught
        with suppress(RuntimeError):  # the loop is closed by now
            loop.call_soon_threadsafe(tell, module, error)

    threading.Thread(target=work, name="import litellm", daemon=True).start()
    return imported


@contextmanager
def _beside_the_loop() -> Iterator[None]:
    """An import holds the interpreter for as long as it is let: more turns for others, and no sweeps through
    all that it makes."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        # What it makes Pydantic say is not ours to mend.
        with paused(), warnings.catch_warnings(action="ignore"):
            yield
            # What a module holds is there to stay: the first sweep would take a tenth of a second.
            gc.freeze()
    finally:
        sys.setswitchinterval(interval)


def import_litellm() -> Any:
    """The module, set up. Takes seconds, the first time."""
    # Without this the import asks the network for a price list.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    with _beside_the_loop():
        litellm = importlib.import_module("litellm")
        _set_up(litellm)
    quiet()
    return litellm


class _SharedAsyncClient(httpx.AsyncClient):
    """Stays open. LiteLLM keeps 200 of OpenAI's clients and closes those that it lets go, and each of them
    would close the one HTTP client that they all have from us."""

    async def aclose(self) -> None:
        pass


class _SharedClient(httpx.Client):
    def close(self) -> None:
        pass


class _NoMcp:
    @staticmethod
    def should_use_litellm_mcp_gateway(tools: object) -> bool:
        return False


def _set_up(litellm: Any) -> None:
    """Whatever LiteLLM sends goes through our own transports, and it says and keeps nothing."""
    litellm.disable_aiohttp_transport = True  # its own swallows a dropped stream and invents a `stop`
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    # A table's rule or a row of zeros is no failure.
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = sys.maxsize
    # Its Responses path imports this module for every call, and that one needs another which LiteLLM does not
    # bring.
    no_mcp = ModuleType("litellm.responses.mcp.litellm_proxy_mcp_handler")
    no_mcp.LiteLLM_Proxy_MCP_Handler = _NoMcp  # type: ignore[attr-defined]
    sys.modules[no_mcp.__name__] = no_mcp

    handlers = importlib.import_module("litellm.llms.custom_httpx.http_handler")
    caching = importlib.import_module("litellm.caching.llm_caching_handler")
    ours: dict[str, Any] = {"follow_redirects": False, "trust_env": False, "timeout": None}
    asynchronous = handlers.AsyncHTTPHandler(transport=Transport(), follow_redirects=False)
    synchronous = handlers.HTTPHandler(client=httpx.Client(transport=SyncTransport(), **ours))

    class OurClients(caching.LLMClientCache):  # type: ignore[misc, name-defined]
        """Where LiteLLM looks for a client when it was given none, which is nearly always."""

        def get_cache(self, key: str, **kwargs: Any) -> Any:
            if key.startswith("async_httpx_client"):
                return asynchronous
            if key.startswith("httpx_client"):
                return synchronous
            return super().get_cache(key, **kwargs)

    litellm.in_memory_llm_clients_cache = OurClients()
    litellm.module_level_aclient = asynchronous
    litellm.module_level_client = synchronous
    litellm.aclient_session = _SharedAsyncClient(transport=Transport(), **ours)
    litellm.client_session = _SharedClient(transport=SyncTransport(), **ours)
