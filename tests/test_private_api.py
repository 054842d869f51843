"""Names that aiohttp, uvicorn and Litestar do not promise to keep, and what we take each for. A version that
changes one fails here, and says which. LiteLLM's have a file of their own,
`tests/upstream/litellm/test_contract.py`."""

import asyncio
import inspect
import re
from collections import defaultdict
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from litestar import Litestar
from litestar.plugins import PluginProtocol
from uvicorn import Server
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState
from yarl import URL

from routeproxy.upstream.http.connection import ClientConnection


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


# --- aiohttp, whose pool we use without its sessions


def test_a_connector_makes_its_connections_with_what_factory_is() -> None:
    async def connected() -> bool:
        async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(answers, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        connector = aiohttp.TCPConnector()
        connector._factory = lambda: ClientConnection(loop)  # type: ignore[assignment]
        request = aiohttp.ClientRequest("POST", URL(f"http://127.0.0.1:{port}"), loop=loop)
        connection = await connector.connect(request, [], aiohttp.ClientTimeout(connect=5))
        made = isinstance(connection.protocol, ClientConnection)
        made = made and isinstance(connection.transport, asyncio.Transport)
        connection.close()
        await connector.close()
        server.close()
        return made

    assert asyncio.run(connected())


def test_a_connector_is_asked_for_a_connection_by_request_traces_and_timeout() -> None:
    assert parameters(aiohttp.TCPConnector.connect) == ["self", "req", "traces", "timeout"]


def test_a_connector_knows_its_connections_and_makes_them_in_one_place() -> None:
    async def kept() -> tuple[object, object]:
        connector = aiohttp.TCPConnector()
        found = connector._conns, connector._acquired
        await connector.close()
        return found

    assert [type(kind) for kind in asyncio.run(kept())] == [defaultdict, set]
    assert parameters(aiohttp.TCPConnector._create_connection) == ["self", "req", "traces", "timeout"]
    source = inspect.getsource(aiohttp.TCPConnector._release)
    assert "self._conns[key].append((protocol, monotonic()))" in source


@pytest.mark.parametrize("name", ["release", "close", "protocol", "transport"])
def test_a_connection_has(name: str) -> None:
    assert hasattr(aiohttp.connector.Connection, name)


def test_a_request_knows_its_address_its_headers_and_whether_it_needs_tls() -> None:
    async def request() -> aiohttp.ClientRequest:
        return aiohttp.ClientRequest(
            "POST",
            URL("https://api.example"),
            headers={"user-agent": "x"},
            skip_auto_headers=("accept-encoding", "content-type"),
            loop=asyncio.get_running_loop(),
            proxy=None,
            ssl=True,
        )

    made = asyncio.run(request())
    assert (made.is_ssl(), str(made.url.origin())) == (True, "https://api.example")
    assert {name.lower() for name in made.headers} >= {"host", "user-agent"}
    assert not {name.lower() for name in made.headers} & {"accept-encoding", "content-type"}


def test_a_protocol_keeps_what_came_before_it_was_asked_for_in_tail() -> None:
    async def tail() -> bytes:
        handler = ResponseHandler(asyncio.get_running_loop())
        handler.data_received(b"early")
        return handler._tail

    assert asyncio.run(tail()) == b"early"


@pytest.mark.parametrize("name", ["connection_lost", "data_received", "should_close"])
def test_a_protocol_has_what_ours_overrides(name: str) -> None:
    assert name in vars(ResponseHandler)


def test_a_protocol_is_told_that_what_was_written_is_out() -> None:
    assert callable(ResponseHandler.resume_writing)


def test_a_protocol_keeps_its_loop() -> None:
    async def kept() -> bool:
        loop = asyncio.get_running_loop()
        return ResponseHandler(loop)._loop is loop

    assert asyncio.run(kept())


# --- uvicorn, whose HTTP protocol ours extends


@pytest.mark.parametrize(
    "name",
    [
        *("connection_lost", "connection_made", "data_received", "on_headers_complete", "on_message_begin"),
        *("on_url", "on_header", "on_body"),
        *("on_message_complete", "on_response_complete", "eof_received"),
        *("_start_asgi_task", "_unset_keepalive_if_required"),
    ],
)
def test_uvicorns_protocol_has_what_ours_overrides(name: str) -> None:
    assert name in vars(HttpToolsProtocol)


def test_uvicorns_protocol_makes_a_scope_and_writes_to_its_transport() -> None:
    async def made() -> HttpToolsProtocol:
        config = Config(lambda: None, ws="none", lifespan="off")
        config.load()
        protocol = HttpToolsProtocol(config, ServerState(), {})
        protocol.connection_made(asyncio.Transport({"peername": ("127.0.0.1", 1)}))
        protocol.on_message_begin()
        return protocol

    protocol = asyncio.run(made())
    assert isinstance(protocol.transport, asyncio.Transport)
    assert isinstance(protocol.loop, asyncio.AbstractEventLoop)
    assert protocol.scope["type"] == "http"
    assert (protocol.url, protocol.cycle, protocol.expect_100_continue) == (b"", None, False)
    assert (type(protocol.flow), len(protocol.pipeline)) == (FlowControl, 0)
    attributes = {"response_started", "response_complete", "more_body", "disconnected", "message_event"}
    attributes |= {"chunked_encoding", "expected_content_length"}
    assert attributes <= _attributes_set_in(RequestResponseCycle)


def test_uvicorn_tells_by_its_flow_whether_it_reads() -> None:
    assert {"_transport", "read_paused"} <= _attributes_set_in(FlowControl)
    assert {"pause_reading", "resume_reading"} <= set(vars(FlowControl))


def _attributes_set_in(kind: type) -> set[str]:
    return set(re.findall(r"self\.(\w+)(?:: \w+)? = ", inspect.getsource(kind)))


@pytest.mark.parametrize("name", ["handle_exit", "on_tick", "serve"])
def test_uvicorns_server_has_what_ours_overrides(name: str) -> None:
    assert name in vars(Server)


# --- Litestar, which looks for plugins that a worker would pay for


class WithoutDefaultPlugins(Litestar):
    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return plugins


def plugins_of(app: Litestar) -> set[str]:
    return {type(plugin).__name__ for plugin in app.plugins}


def test_litestar_finds_its_plugins_where_ours_finds_none() -> None:
    assert "PydanticPlugin" in plugins_of(Litestar([]))
    assert "PydanticPlugin" not in plugins_of(WithoutDefaultPlugins([]))
