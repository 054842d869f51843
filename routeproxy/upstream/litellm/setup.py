"""LiteLLM's import, late and beside the event loop, and what we change in it: whatever it sends goes through
our own transports, and it reports and keeps nothing.

Each name of LiteLLM's that is read or replaced here has a test in `tests/upstream/litellm/test_contract.py`.
"""

import asyncio
import functools
import gc
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import httpx

from routeproxy.gc_pause import paused
from routeproxy.policy.litellm_environment import KEPT_FROM_LITELLM
from routeproxy.telemetry.logs import quiet
from routeproxy.upstream.litellm.providers import NO_KEY
from routeproxy.upstream.litellm.transport import (
    DispatchingTransport,
    SyncDispatchingTransport,
    is_nobody_to_be_asked,
)
from routeproxy.upstream.threads import run_in_daemon_thread

SWITCH_INTERVAL = 0.0005
"""Seconds that a thread may hold the interpreter during the import; Python's own 5 ms would be felt."""


SET_FOR_LITELLM: Mapping[str, str] = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else the import asks the network for a price list
    "LITELLM_MODE": "PRODUCTION",  # else it takes variables out of whatever `.env` is near its own files
}

# --- the import


def import_litellm() -> Any:
    """The module, set up. Takes seconds, the first time."""
    os.environ |= SET_FOR_LITELLM
    # (The rules' own environment was read before.)
    for name in KEPT_FROM_LITELLM:
        os.environ.pop(name, None)
    with _yielding_often():
        litellm = importlib.import_module("litellm")
        _set_up(litellm)
    # What it imports later, with a provider, makes Pydantic say what is not ours to mend.
    warnings.filterwarnings("ignore", message="Items? .* on TypedDict class", category=UserWarning)
    quiet()
    return litellm


def import_in_thread() -> asyncio.Future[Any]:
    """The module, once a thread of its own has imported it."""
    return run_in_daemon_thread("import litellm", import_litellm)


@contextmanager
def _yielding_often() -> Iterator[None]:
    """An import holds the interpreter for as long as it is let: more turns for other threads, and no sweeps
    through all that it makes."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        # What it makes Pydantic say is not ours to mend.
        with paused(), warnings.catch_warnings(action="ignore"):
            yield
            # What a module holds is there to stay: the first sweep would take a tenth of a second.
            gc.freeze()
    finally:
        sys.setswitchinterval(interval)


# --- what we change


def _set_up(litellm: Any) -> None:
    litellm.disable_aiohttp_transport = True  # its own swallows a dropped stream and invents a `stop`
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    # It would look up the hosts of pictures, which the transport fetches from nowhere.
    litellm.user_url_validation = False
    # A table's rule or a row of zeros is no failure.
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = sys.maxsize
    _replace_mcp_handler()
    _replace_google_sign_in()
    _keep_dry_runs_from_signing_in()
    _replace_clients(litellm)


class _NoMcp:
    @staticmethod
    def should_use_litellm_mcp_gateway(tools: object) -> bool:
        return False


def _replace_mcp_handler() -> None:
    """LiteLLM's Responses path imports this module for every call, and that one needs another which LiteLLM
    does not bring."""
    module = ModuleType("litellm.responses.mcp.litellm_proxy_mcp_handler")
    module.LiteLLM_Proxy_MCP_Handler = _NoMcp  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module


def _replace_google_sign_in() -> None:
    """Its requests for a token would go past our client, and stop the loop: the transport has a token."""
    base = importlib.import_module("litellm.llms.vertex_ai.vertex_llm_base").VertexBase

    def get_access_token(self: Any, credentials: Any, project_id: str | None, *_: Any) -> tuple[str, str]:
        return NO_KEY, project_id or ""

    async def get_access_token_async(
        self: Any, credentials: Any, project_id: str | None, *_: Any
    ) -> tuple[str, str]:
        return NO_KEY, project_id or ""

    base.get_access_token = get_access_token
    base.get_access_token_async = get_access_token_async


_AZURE_SIGN_INS = ("get_azure_ad_token_from_entra_id", "get_azure_ad_token_from_username_password")
"""Each makes a function that gets a token."""


def _keep_dry_runs_from_signing_in() -> None:
    """What signs in by a client of its own, which is not ours to keep from asking."""
    aws = importlib.import_module("litellm.llms.bedrock.base_aws_llm").BaseAWSLLM
    azure = importlib.import_module("litellm.llms.azure.common_utils")

    def no_aws_credentials(*_: Any, **__: Any) -> Any:
        return importlib.import_module("botocore.credentials").Credentials(NO_KEY, NO_KEY)

    def no_azure_token(*_: Any, **__: Any) -> Callable[[], str]:
        return lambda: NO_KEY

    aws.get_credentials = _unless_dry(aws.get_credentials, no_aws_credentials)
    for name in _AZURE_SIGN_INS:
        setattr(azure, name, _unless_dry(getattr(azure, name), no_azure_token))


def _unless_dry(function: Callable[..., Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, once: it is set up anew with every policy."""
    if function in _KNOW_DRY_RUNS:
        return function

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return (otherwise if is_nobody_to_be_asked() else function)(*args, **kwargs)

    _KNOW_DRY_RUNS.add(wrapper)
    return wrapper


_KNOW_DRY_RUNS: set[Callable[..., Any]] = set()
"""LiteLLM's functions that already ask nobody in a dry run."""


class _SharedAsyncClient(httpx.AsyncClient):
    """Stays open. LiteLLM keeps 200 of OpenAI's clients and closes those that it lets go, and each of them
    would close the one HTTP client that they all have from us."""

    async def aclose(self) -> None:
        pass


class _SharedClient(httpx.Client):
    def close(self) -> None:
        pass


def _replace_clients(litellm: Any) -> None:
    handlers = importlib.import_module("litellm.llms.custom_httpx.http_handler")
    caching = importlib.import_module("litellm.caching.llm_caching_handler")
    options: dict[str, Any] = {"follow_redirects": False, "trust_env": False, "timeout": None}
    asynchronous = handlers.AsyncHTTPHandler(transport=DispatchingTransport(), follow_redirects=False)
    synchronous = handlers.HTTPHandler(client=httpx.Client(transport=SyncDispatchingTransport(), **options))

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
    litellm.aclient_session = _SharedAsyncClient(transport=DispatchingTransport(), **options)
    litellm.client_session = _SharedClient(transport=SyncDispatchingTransport(), **options)
