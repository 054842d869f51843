"""However a request ends, its body is let go then, and not when the garbage collector has gone through
everything."""

import gc
import gzip
import json
import socket
import time
import weakref
from collections.abc import Callable, Iterator

import httpx
import pytest

from routeproxy.exchange import Exchange
from routeproxy.observe import Observer
from tests.backend import CUT, HANG, RESET, Answer, BackEnd, answer, error, json_answer, streamed
from tests.budgets import seconds
from tests.running import Running, connect, request, request_bytes, running, until

RULES = """
[server]
max_body_mb = 1

[providers.direct]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"

[providers.messages]
type = "anthropic"
base_url = "{url}"
api_key = "none"

[providers.litellm]
type = "openai_compatible"
engine = "litellm"
base_url = "{url}/v1"
api_key = "none"

[providers.nobody]
type = "openai_compatible"
base_url = "http://127.0.0.1:{closed}/v1"
api_key = "none"

[[rules]]
match.model = "direct"
targets = "direct/any"
timeouts.first_token = "300ms"

[[rules]]
match.model = "messages"
targets = "messages/any"
timeouts.first_token = "300ms"

[[rules]]
match.model = "litellm"
targets = "litellm/any"
timeouts.first_token = "3s"

[[rules]]
match.model = "nobody"
targets = "nobody/any"

[[rules]]
match.model = "fallback"
targets = ["nobody/any", "direct/any"]

[[rules]]
match.model = "denied"
deny = "no"

[default]
targets = "direct/any"
"""

TIMES = 3


class Seen(Observer):
    """The requests that somebody still holds, and with them their bodies."""

    def __init__(self) -> None:
        self.exchanges: weakref.WeakSet[Exchange] = weakref.WeakSet()

    def request_started(self, exchange: Exchange) -> None:
        self.exchanges.add(exchange)


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd([HANG]) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, back_end: BackEnd, seen: Seen) -> Iterator[Running]:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        rules = RULES.format(url=back_end.url, closed=closed.getsockname()[1])
        with running(rules, tmp_path_factory.mktemp("rules"), observers=[seen]) as proxy:
            yield proxy


def body(model: str, stream: bool = False, **fields: object) -> bytes:
    return json.dumps(request(**({"model": model, "stream": stream} | fields))).encode()


def exchanges_kept(seen: Seen, ask: Callable[[], None]) -> int:
    """How many of some requests are still held, by whatever, after their ends."""
    while gc.collect():  # what earlier tests of this process left holds each other
        pass
    seen.exchanges.clear()
    gc.disable()
    try:
        for _ in range(TIMES):
            ask()
        limit = time.monotonic() + seconds(0.5)
        while seen.exchanges and time.monotonic() < limit:  # the server comes to its end after the client
            time.sleep(0.01)
        return len(seen.exchanges)
    finally:
        gc.enable()


def kept_after(proxy: Running, seen: Seen, content: bytes, status: int, **headers: str) -> int:
    def ask() -> None:
        reply = httpx.post(proxy.url + "/v1/messages", content=content, headers=headers, timeout=seconds(20))
        assert reply.status_code == status, reply.text

    return exchanges_kept(seen, ask)


FAILURES: dict[str, Answer] = {
    "reset": [RESET],
    "closed": [CUT],
    "400": error(400, "no"),
    "401": error(401, "no"),
    "429": error(429, "no"),
    "500": error(500, "no"),
    "529": error(529, "no"),
    "a page": answer(200, b"<html>", content_type="text/html"),
    "nothing": answer(200),
    "redirect": answer(302, location="/x"),
    "no JSON": json_answer("{nope"),
    "a bad stream": streamed(b"data: {nope\n\n"),
    "a cut stream": streamed(CUT),
    "time-out": [HANG],
}
KEPT_BY_LITELLM = {"reset", "closed", "a cut stream", "time-out"}
STATUS = {"400": 400, "429": 429, "500": 500, "529": 529, "time-out": 504}


@pytest.mark.parametrize("model", ["direct", "messages", "litellm"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_request_that_a_back_end_fails_lets_its_body_go(
    proxy: Running, back_end: BackEnd, seen: Seen, failure: str, model: str
) -> None:
    if model == "litellm" and failure in KEPT_BY_LITELLM:
        pytest.xfail("LiteLLM keeps its errors of connections, and they the call")
    back_end.answers = [FAILURES[failure]]
    for stream in (False, True):
        content = body(model, stream)
        assert kept_after(proxy, seen, content, STATUS.get(failure, 502)) == 0


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        pytest.param(body("nobody"), {}, 502, id="refused"),
        pytest.param(body("nobody", stream=True), {}, 502, id="refused, streamed"),
        pytest.param(body("denied"), {}, 400, id="denied"),
        pytest.param(body("direct", thinking=1), {}, 400, id="400 of ours"),
        pytest.param(body("direct")[:-1], {}, 400, id="no JSON"),
        pytest.param(body("direct", messages=[{"role": "x" * 1000}]), {}, 400, id="no message"),
        pytest.param(body("direct", mcp_servers=[{}]), {}, 400, id="capability"),
        pytest.param(b"x" * (2**20 + 1), {}, 413, id="413"),
        pytest.param(body("direct"), {"content_encoding": "gzip"}, 400, id="no gzip"),
        pytest.param(gzip.compress(body("nobody")), {"content_encoding": "gzip"}, 502, id="gzip, refused"),
    ],
)
def test_a_request_that_fails_before_lets_its_body_go(
    proxy: Running, seen: Seen, content: bytes, headers: dict[str, str], status: int
) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    assert kept_after(proxy, seen, content, status, **named) == 0


@pytest.mark.parametrize("model", ["direct", "messages", "fallback"])
def test_a_client_that_leaves_takes_its_body_along(
    proxy: Running, back_end: BackEnd, seen: Seen, model: str
) -> None:
    back_end.answers = [[HANG]]

    def ask() -> None:
        with connect(proxy.url) as client:
            client.sendall(request_bytes(body(model)))
            until(lambda: back_end.requests, 10)
        back_end.requests.clear()

    assert exchanges_kept(seen, ask) == 0
