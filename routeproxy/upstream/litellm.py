"""How we reach the many: chat completions through LiteLLM, used as a transport only. The only file that imports it, and late: the import
takes seconds and 180 MB, so it runs beside the event loop once a policy names a provider that needs it (older-proxies.md §3)."""

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from routeproxy.chat.completion import Chunk
from routeproxy.chat.request import ChatRequest
from routeproxy.exchange import Call
from routeproxy.policy.decide import Target
from routeproxy.translate.dialect import Dialect
from routeproxy.upstream.chain import needed_key
from routeproxy.upstream.failures import UpstreamFailure, from_error
from routeproxy.upstream.params import merged

log = logging.getLogger(__name__)

PREFIX: Mapping[str, str] = {"openai_compatible": "openai", "ollama": "ollama_chat"}
"""LiteLLM's name for a provider type, where it is not ours."""

ALLOWED = ["tools", "tool_choice", "parallel_tool_calls", "reasoning_effort", "response_format", "stream_options", "user"]


class LiteLLM:
    def __init__(self) -> None:
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
        try:
            answer = await litellm.acompletion(**_arguments(chat, call))
        except Exception as error:
            raise failure_of(error, call) from error
        if not chat.stream:
            yield _once(_chunk(answer))
            return
        try:
            yield _chunks(answer, call)
        finally:
            await answer.aclose()


async def _once(chunk: Chunk) -> AsyncIterator[Chunk]:
    yield chunk


async def _chunks(answer: Any, call: Call) -> AsyncIterator[Chunk]:
    try:
        async for chunk in answer:
            yield _chunk(chunk)
    except Exception as error:
        raise failure_of(error, call) from error


def _chunk(answer: Any) -> Chunk:
    return msgspec.convert(answer, Chunk, from_attributes=True)


def _arguments(chat: ChatRequest, call: Call) -> dict[str, Any]:
    target, provider = call.target, call.target.provider
    body: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(chat))
    body = merged(body, target.params.extra_body)
    return body | {
        "model": target.model,
        "custom_llm_provider": PREFIX.get(provider.type, provider.type),
        "api_base": provider.base_url,
        "api_key": needed_key(call) or "none",
        "max_retries": 0,
        "num_retries": 0,
        "timeout": target.timeouts.first_token,
        "drop_params": False,
        "allowed_openai_params": ALLOWED,
        "extra_headers": dict(provider.headers),
        **provider.options,
        **provider.litellm_params,
    }


def failure_of(error: BaseException, call: Call) -> UpstreamFailure:
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
    finally:
        sys.setswitchinterval(interval)
    litellm.disable_aiohttp_transport = True  # its own swallows a dropped stream and invents a `stop`
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm
