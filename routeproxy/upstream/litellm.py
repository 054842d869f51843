"""How we reach the many: chat completions through LiteLLM, used as a transport only. The only file that imports it, and late: the import
takes seconds and 180 MB, so it runs beside the event loop once a policy names a provider that needs it (older-proxies.md §3)."""

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from routeproxy.chat.completion import Chunk
from routeproxy.chat.request import ChatRequest
from routeproxy.exchange import Call
from routeproxy.policy.decide import Target
from routeproxy.telemetry.logs import quiet
from routeproxy.translate.dialect import Dialect
from routeproxy.upstream.chain import needed_key
from routeproxy.upstream.failures import UpstreamFailure, from_error
from routeproxy.upstream.http import Client
from routeproxy.upstream.providers import Manner, manner_of
from routeproxy.upstream.wire import SyncTransport, Transport, Wire, current

log = logging.getLogger(__name__)

ALLOWED = ["tools", "tool_choice", "parallel_tool_calls", "reasoning_effort", "response_format", "stream_options", "user"]

NO_LIMIT = 86_400.0
"""Seconds. Times are kept by `Timeouts` and the chain; LiteLLM's own limit of 600 s would end long answers."""


class LiteLLM:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._loading: asyncio.Future[Any] | None = None

    def dialect(self, target: Target) -> Dialect:
        return Dialect()

    async def load(self) -> Any:
        """The module; imported once, in a thread."""
        if self._loading is None:
            self._loading = asyncio.get_running_loop().run_in_executor(None, _import)
        return await asyncio.shield(self._loading)

    @asynccontextmanager
    async def open(self, chat: ChatRequest, call: Call) -> AsyncIterator[AsyncIterator[Chunk]]:
        litellm = await self.load()
        manner = manner_of(call.target.provider)
        wire = Wire(self._client, call, manner)
        try:
            current.set(wire)
            try:
                answer = await litellm.acompletion(**_arguments(chat, call, manner))
            except Exception as error:
                raise _failure(error, wire, call) from error
            if hasattr(answer, "__aiter__"):
                yield _chunks(answer, wire, call)
            else:
                yield _once(_chunk(answer))
        finally:
            wire.let_go()


async def _once(chunk: Chunk) -> AsyncIterator[Chunk]:
    yield chunk


async def _chunks(stream: Any, wire: Wire, call: Call) -> AsyncIterator[Chunk]:
    while True:
        # Each step may run in another task, and so in another context.
        current.set(wire)
        try:
            chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except Exception as error:
            raise _failure(error, wire, call) from error
        yield _chunk(chunk)


def _chunk(answer: Any) -> Chunk:
    return msgspec.convert(answer, Chunk, from_attributes=True)


def _arguments(chat: ChatRequest, call: Call, manner: Manner) -> dict[str, Any]:
    target, provider = call.target, call.target.provider
    arguments: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(chat))
    arguments |= {
        # LiteLLM takes one prefix off, so a model's own (`openai/gpt-oss-20b`) survives only behind another.
        "model": f"{manner.name}/{target.model}",
        "custom_llm_provider": manner.name,
        "api_base": provider.base_url and manner.address(provider.base_url),
        "api_key": needed_key(call) or manner.anonymous,
        "max_retries": 0,
        "num_retries": 0,
        "timeout": NO_LIMIT,
        "drop_params": False,
        "allowed_openai_params": ALLOWED,
        "no-log": True,
        "_skip_mcp_handler": True,  # otherwise `tools` imports a module that LiteLLM does not bring
    }
    if manner.responses == "never":
        arguments["_skip_responses_api_bridge"] = True
    arguments |= {
        argument: provider.options[option]
        for option, argument in manner.arguments.items()
        if option in provider.options
    }
    return arguments | dict(provider.litellm_params)


def _failure(error: BaseException, wire: Wire, call: Call) -> UpstreamFailure:
    if wire.failure is not None:
        return wire.failure
    provider = call.target.provider.name
    status = getattr(error, "status_code", None) or 500
    headers = getattr(error, "litellm_response_headers", None) or {}
    return from_error(
        int(status),
        str(getattr(error, "message", error)),
        provider=provider,
        model=call.target.model,
        headers={str(name).lower(): str(value) for name, value in dict(headers).items()},
        code=str(getattr(error, "code", "") or ""),
    )


def _import() -> Any:
    # Without this the import asks the network for a price list.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # the loop beside us gets its turns while modules are compiled
    try:
        litellm = importlib.import_module("litellm")
        _set_up(litellm)
    finally:
        sys.setswitchinterval(interval)
    quiet()
    return litellm


def _set_up(litellm: Any) -> None:
    """Whatever LiteLLM sends goes through our own transports, and it says and keeps nothing."""
    litellm.disable_aiohttp_transport = True  # its own swallows a dropped stream and invents a `stop`
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    handlers = importlib.import_module("litellm.llms.custom_httpx.http_handler")
    cache = importlib.import_module("litellm.caching.llm_caching_handler")
    aclient = handlers.AsyncHTTPHandler(transport=Transport(), follow_redirects=False)
    sclient = handlers.HTTPHandler(client=httpx.Client(transport=SyncTransport(), follow_redirects=False, trust_env=False))

    class OurClients(cache.LLMClientCache):  # type: ignore[misc, name-defined]
        """Most of LiteLLM's paths look here for a client when they got none."""

        def get_cache(self, key: str, **kwargs: Any) -> Any:
            if key.startswith("async_httpx_client"):
                return aclient
            if key.startswith("httpx_client"):
                return sclient
            return super().get_cache(key, **kwargs)

    litellm.in_memory_llm_clients_cache = OurClients()
    litellm.module_level_aclient = aclient
    litellm.module_level_client = sclient
    litellm.aclient_session = httpx.AsyncClient(
        transport=Transport(), follow_redirects=False, trust_env=False, timeout=None
    )
    litellm.client_session = httpx.Client(transport=SyncTransport(), follow_redirects=False, trust_env=False)
