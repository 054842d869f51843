"""However a request ends, its body is let go then, and not when the garbage collector has gone through
everything."""

import gc
import gzip
import json
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from routeproxy.exchange import Exchange
from routeproxy.observe import Observer
from tests.backend import CUT, HANG, RESET, Answer, BackEnd, Received, answer, error, json_answer, streamed
from tests.budgets import seconds
from tests.running import Running, connect, receive_until, request, request_bytes, running, until

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

[providers.mistral]
type = "mistral"
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
match.model = "mistral"
targets = "mistral/any"
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


@contextmanager
def without_collector() -> Iterator[None]:
    """What is let go here nobody holds: not even what is let go holds each other."""
    while gc.collect():  # what earlier tests of this process left does
        pass
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def once_over(count: Callable[[], int]) -> int:
    """What `count` comes to: the server comes to its end after the client."""
    limit = time.monotonic() + seconds(0.5)
    while count() and time.monotonic() < limit:
        time.sleep(0.01)
    return count()


def exchanges_kept(seen: Seen, ask: Callable[[], None]) -> int:
    """How many of some requests are still held, by whatever, after their ends."""
    seen.exchanges.clear()
    with without_collector():
        for _ in range(TIMES):
            ask()
        return once_over(lambda: len(seen.exchanges))


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
STATUS = {"400": 400, "429": 429, "500": 500, "529": 529, "time-out": 504}


BACK_ENDS = ["direct", "messages", "litellm", "mistral"]
"""The last two by way of LiteLLM: one request is ours as it goes out, the other as LiteLLM writes it."""


@pytest.mark.parametrize("model", BACK_ENDS)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_request_that_a_back_end_fails_lets_its_body_go(
    proxy: Running, back_end: BackEnd, seen: Seen, failure: str, model: str
) -> None:
    back_end.answers = [FAILURES[failure]]
    for stream in (False, True):
        content = body(model, stream)
        assert kept_after(proxy, seen, content, STATUS.get(failure, 502)) == 0


LONG = 200_000
"""Characters of a conversation."""


def long_texts() -> int:
    """How many conversations somebody holds, in whatever form, but for what the back end has received."""
    texts: dict[int, bool] = {}
    for holder in gc.get_objects():
        for held in gc.get_referents(holder):
            if isinstance(held, bytes | bytearray | str) and len(held) >= LONG:
                texts[id(held)] = texts.get(id(held), True) and not isinstance(holder, Received)
    return sum(texts.values())


@pytest.mark.parametrize("model", BACK_ENDS)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_request_that_a_back_end_fails_leaves_its_text_behind_in_no_form(
    proxy: Running, back_end: BackEnd, failure: str, model: str
) -> None:
    """Not even as it went out: errors that connections keep have held that."""
    back_end.answers = [FAILURES[failure]]
    with without_collector():
        before = long_texts()
        for stream in (False, True):
            with connect(proxy.url) as client:  # clients of httpx keep what they have sent
                client.settimeout(seconds(20))
                messages = [{"role": "user", "content": "x" * LONG}]
                client.sendall(request_bytes(body(model, stream, messages=messages)))
                del messages
                assert receive_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 ")
        assert once_over(lambda: max(0, long_texts() - before)) == 0


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
