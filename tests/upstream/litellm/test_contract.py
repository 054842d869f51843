"""What we assume of LiteLLM 1.110.2, one test for each assumption: its names that we read or replace, and its
behaviour where ours depends on it. A version that breaks one of them needs a look at `upstream/litellm/`
before it is shipped.

What clients would see of a broken assumption is tested where it shows (`test_others.py`, `test_gemini.py`,
`test_exceptions.py`, `tests/wire/`).
"""

import inspect
import json
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from routeproxy.chat.request import ChatRequest
from routeproxy.exchange import Call
from routeproxy.policy.provider_types import TYPE_NAMES
from routeproxy.telemetry.logs import QUIET
from routeproxy.upstream.chat.endpoints import AZURE_VERSION
from routeproxy.upstream.litellm import model_table
from routeproxy.upstream.litellm.backend import ABILITIES, needs_responses, request_of
from routeproxy.upstream.litellm.chunks import SIGNATURE_SEPARATOR
from routeproxy.upstream.litellm.providers import ALLOWED_PARAMS, litellm_provider_of
from routeproxy.upstream.litellm.transport import (
    DispatchingTransport,
    LiteLLMTransport,
    SyncDispatchingTransport,
    set_current_transport,
)
from tests.backend import BackEnd, chunk, done, error, sse
from tests.budgets import seconds
from tests.upstream.litellm.asking import LITELLMS_WARNINGS, LOOP, ask, call, chat, failure, target

pytestmark = LITELLMS_WARNINGS

litellm = LOOP.run(LOOP.litellm.load())

VERSION = "1.110.2"
"""The one that was measured."""


def test_the_version_is_the_one_that_was_measured() -> None:
    assert version("litellm") == VERSION


# --- the import

AS_IT_COMES = """
import os, socket, sys
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
asked = []
socket.socket.connect = lambda self, address: asked.append(address)
import litellm
names = (
    "REPEATED_STREAMING_CHUNK_LIMIT", "acompletion", "aclient_session", "client_session",
    "disable_aiohttp_transport", "in_memory_llm_clients_cache", "module_level_aclient",
    "module_level_client", "model_cost", "register_model", "suppress_debug_info",
    "user_url_validation",
)
print([name for name in names if not hasattr(litellm, name)], asked, "litellm.telemetry" in sys.modules)
"""


def test_it_has_all_that_we_set_and_its_import_asks_no_network_and_reports_nothing() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AS_IT_COMES],
        capture_output=True,
        text=True,
        timeout=seconds(60),
        check=False,
    )
    assert ran.stdout == "[] [] False\n", ran.stderr


def source_of(module: str) -> str:
    """Read without running it: some of its modules need packages that it does not bring."""
    spec = find_spec("litellm")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / module).read_text(encoding="utf-8")


def test_the_handler_of_mcp_that_we_stand_in_for_is_asked_by_this_name() -> None:
    handler = source_of("responses/mcp/litellm_proxy_mcp_handler.py")
    assert "class LiteLLM_Proxy_MCP_Handler" in handler
    assert "def should_use_litellm_mcp_gateway(tools" in handler
    assert "from litellm.responses.mcp.litellm_proxy_mcp_handler import" in source_of("responses/main.py")


def test_its_loggers_have_the_names_that_we_silence() -> None:
    logging = litellm._logging
    loggers = (logging.verbose_logger, logging.verbose_router_logger, logging.verbose_proxy_logger)
    assert {logger.name for logger in loggers} <= set(QUIET)


def test_who_signs_in_by_a_client_of_its_own_is_kept_from_it_by_these_names() -> None:
    aws = litellm.llms.bedrock.base_aws_llm.BaseAWSLLM.get_credentials
    azure = litellm.llms.azure.common_utils
    signing_in = (
        aws,
        azure.get_azure_ad_token_from_entra_id,
        azure.get_azure_ad_token_from_username_password,
    )
    assert [function.__wrapped__.__name__ for function in signing_in] == [
        "get_credentials",
        "get_azure_ad_token_from_entra_id",
        "get_azure_ad_token_from_username_password",
    ]


# --- the clients that it uses


def test_its_cache_of_clients_is_asked_by_key() -> None:
    cache = litellm.caching.llm_caching_handler.LLMClientCache
    assert list(inspect.signature(cache.get_cache).parameters)[:2] == ["self", "key"]
    assert isinstance(litellm.in_memory_llm_clients_cache, cache)


def test_whoever_needs_a_client_gets_ours() -> None:
    handlers = litellm.llms.custom_httpx.http_handler
    assert handlers.get_async_httpx_client(llm_provider="x", params={"a": 1}) is litellm.module_level_aclient
    assert handlers.get_httpx_client(params={"a": 1}) is litellm.module_level_client


def test_its_clients_travel_on_the_transports_that_they_were_given() -> None:
    for client, kind in (
        (litellm.module_level_aclient.client, DispatchingTransport),
        (litellm.module_level_client.client, SyncDispatchingTransport),
        (litellm.aclient_session, DispatchingTransport),
        (litellm.client_session, SyncDispatchingTransport),
    ):
        assert isinstance(client._transport, kind)
        assert not client.follow_redirects


def test_openais_client_is_made_around_ours() -> None:
    base = litellm.llms.openai.common_utils.BaseOpenAILLM
    assert base._get_async_http_client() is litellm.aclient_session
    assert base._get_sync_http_client() is litellm.client_session


def test_it_signs_in_to_google_by_the_names_that_we_replace() -> None:
    base = source_of("llms/vertex_ai/vertex_llm_base.py")
    for name in ("def get_access_token(", "async def get_access_token_async("):
        assert name in base
    assert "return self.get_access_token(" in base
    assert "return await self.get_access_token_async(" in base


# --- what it is called with


class Received(NamedTuple):
    answer: Any
    """What `acompletion` returns."""
    chunks: list[Any]


def received(one: Call, request: ChatRequest) -> Received:
    """What LiteLLM makes of an answer that we leave to it."""

    async def asking() -> Received:
        arguments, body = request_of(litellm, request, one)
        known = litellm_provider_of(one.target.provider)
        transport = LiteLLMTransport(
            LOOP.client, one, known, body, stream=bool(request.stream), decoder_for=lambda path: None
        )
        set_current_transport(transport)
        try:
            answer = await litellm.acompletion(**arguments)
            return Received(answer, [chunk async for chunk in answer] if request.stream else [])
        finally:
            transport.close()

    return LOOP.run(asking())


def mistral(back_end: BackEnd, model: str = "nobody-knows") -> Call:
    """A provider whose requests LiteLLM writes."""
    return call(target("mistral", f"{back_end.url}/v1", model))


def custom(back_end: BackEnd) -> Call:
    """One whose requests we write."""
    return call(target("openai_compatible", f"{back_end.url}/v1", "m"))


def test_what_steers_it_is_not_sent() -> None:
    with BackEnd(sse(chunk("a"), done())) as back_end:
        ask(mistral(back_end))
    assert set(back_end.last.json) <= {"model", "messages", "max_tokens", "stream", "stream_options"}


def test_a_model_that_it_does_not_know_gets_the_parameters_that_are_allowed() -> None:
    asked = {"reasoning_effort": "high", "temperature": 0.5, "top_p": 0.5, "stop": ("END",)}
    assert set(asked) <= set(ALLOWED_PARAMS)
    with BackEnd(sse(chunk("a"), done())) as back_end:
        ask(mistral(back_end), chat(tools=True, tool_choice="auto", **asked))
    assert {*asked, "tools", "tool_choice"} <= set(back_end.last.json)


@pytest.mark.parametrize("provider", [mistral, custom])
def test_a_failure_is_not_tried_again(provider: Any) -> None:
    with BackEnd(error(500, "no")) as back_end:
        assert failure(provider(back_end)).kind == "server_error"
    assert len(back_end.requests) == 1


def test_a_model_that_was_made_known_can_do_all_that_we_say() -> None:
    with BackEnd(sse(chunk("a"), done())) as back_end:
        ask(mistral(back_end, "made-known"))
    row = litellm.model_cost["mistral/made-known"]
    assert {name for name in ABILITIES if row.get(name)} == set(ABILITIES)
    assert litellm.supports_reasoning("mistral/made-known")


@pytest.mark.parametrize(
    ("model", "tools", "needed"),
    [("gpt-4o", True, False), ("gpt-5.4", False, False), ("gpt-5.4", True, True), ("o3-pro", False, True)],
)
def test_it_says_which_models_need_responses(model: str, tools: bool, needed: bool) -> None:
    function = {"type": "function", "function": {"name": "read"}}
    fields = {"tools": [function], "reasoning_effort": "high"} if tools else {}
    assert needs_responses(litellm, fields, {}, model, "openai") is needed


def test_it_goes_over_responses_only_where_we_let_it() -> None:
    assert '"_skip_responses_api_bridge"' in source_of("main.py")
    with BackEnd(sse(chunk("a"), done())) as back_end:
        ask(call(target("openai_compatible", f"{back_end.url}/v1", "gpt-5.4")), chat(tools=True))
    assert back_end.last.path == "/v1/chat/completions"


def test_the_default_version_of_azure_is_the_one_that_we_ask_for_too() -> None:
    assert litellm.AZURE_DEFAULT_API_VERSION == AZURE_VERSION


def test_it_has_a_provider_of_each_name() -> None:
    names = {litellm_provider_of(target(type, None, "m").provider).name for type in TYPE_NAMES}
    known = {str(getattr(name, "value", name)) for name in litellm.provider_list}
    known |= set(json.loads(source_of("llms/openai_like/providers.json")))
    assert names - {"anthropic", "echo"} <= known


# --- what it answers


def test_a_stream_of_its_own_tells_what_it_received() -> None:
    with BackEnd(sse(chunk("a"), done())) as back_end:
        answer, chunks = received(mistral(back_end), chat())
    assert answer.received_finish_reason == "stop"
    assert [one.usage.prompt_tokens for one in answer.chunks if getattr(one, "usage", None)] == [10]
    assert chunks[0].model == "nobody-knows"
    assert chunks[0]._hidden_params["provider_response_model"] == "served-model"


def test_signatures_in_ids_are_set_off_as_we_read_them() -> None:
    factory = litellm.litellm_core_utils.prompt_templates.factory
    assert factory.THOUGHT_SIGNATURE_SEPARATOR == SIGNATURE_SEPARATOR


# --- its exceptions


def test_a_failure_within_a_stream_wraps_what_it_was() -> None:
    parameters = inspect.signature(litellm.exceptions.MidStreamFallbackError).parameters
    assert "original_exception" in parameters


# --- its table of models


def test_its_table_has_the_columns_and_the_prefixes_that_we_read() -> None:
    rows = model_table.load()
    assert len(rows) > 1000
    for column in model_table.Row.__struct_fields__:
        assert any(getattr(row, column) is not None for row in rows.values()), column
    prefixes = {prefix for prefixes in model_table.PREFIXES.values() for prefix in prefixes}
    for prefix in prefixes | {"gemini/", "mistral/", "together_ai/"}:
        assert any(name.startswith(prefix) for name in rows), prefix
