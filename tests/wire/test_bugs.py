"""What a client sees of a bug of ours: an error in the API's shape. The log has the rest."""

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from routeproxy.exchange import Exchange
from routeproxy.output import Write
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.proxy import Proxy
from routeproxy.upstream.registry import Registry
from routeproxy.web.app import build_app
from routeproxy.web.auth import Authenticator, Caller, Headers

CORS = '[server]\ncors_origins = ["https://page.example"]\n'
RULES = '[providers.echo]\n[default]\ntargets = "echo/echo"\n'
HELLO = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}


class Fixed:
    def __init__(self, policy: Policy) -> None:
        self.policy = policy


class BrokenAuthenticator(Authenticator):
    def authenticate(self, headers: Headers, *, admin: bool = False) -> Caller:
        raise ZeroDivisionError


class BrokenProxy(Proxy):
    async def answer(self, exchange: Exchange, write: Write) -> None:
        raise ZeroDivisionError


def asked(
    path: str,
    rules: str,
    *,
    method: str = "POST",
    authenticator: type[Authenticator] = Authenticator,
    proxy: type[Proxy] = Proxy,
) -> httpx.Response:
    policy = compile_rules(rules, path=Path("rules.toml"), environ={})

    async def asking() -> httpx.Response:
        parts = proxy(Fixed(policy), Registry(None, {}), len)
        app = build_app(parts, authenticator=authenticator(policy, None))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, json=HELLO)

    return asyncio.run(asking())


def test_nothing_is_wrong_without_a_bug() -> None:
    assert asked("/v1/messages", RULES).json()["content"] == [{"type": "text", "text": "hello"}]


@pytest.mark.parametrize("rules", [RULES, CORS + RULES], ids=["straight", "through the router"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/route"])
def test_a_bug_before_the_answer(path: str, rules: str, caplog: pytest.LogCaptureFixture) -> None:
    expect_error(asked(path, rules, authenticator=BrokenAuthenticator), caplog)


def test_a_bug_in_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    expect_error(asked("/v1/messages", RULES, proxy=BrokenProxy), caplog)


def test_a_bug_elsewhere() -> None:
    reply = asked("/v1/models", RULES, method="GET", authenticator=BrokenAuthenticator)
    assert (reply.status_code, reply.json()["error"]["type"]) == (500, "api_error")


def expect_error(reply: httpx.Response, caplog: pytest.LogCaptureFixture) -> None:
    assert reply.status_code == 500
    error = reply.json()
    assert (error["type"], error["error"]["type"]) == ("error", "api_error")
    assert error["error"]["message"] == "routeproxy failed on this request; its log says why"
    assert error["request_id"] == reply.headers["request-id"]
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert f"{error['request_id']}: this is a bug in routeproxy" in line.getMessage()
    assert line.exc_info is not None
    assert line.exc_info[0] is ZeroDivisionError
