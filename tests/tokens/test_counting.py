"""Where tokens are counted: never on the event loop if the body is large, and only if a rule asks."""

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest

from routeproxy.exchange import Inbound
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.proxy import LARGE_BODY, Proxy

RULES = """
[providers.echo]
[[rules]]
name = "batch"
match.headers.x-app = "batch"
match.input_tokens.min = 1000
targets = "echo/long"
[default]
targets = "echo/x"
"""


class InForce:
    policy: Policy = compile_rules(RULES, path=Path("rules.toml"), environ={})


def decided(size: int, app: str, *, tokens: int) -> tuple[str, list[str]]:
    """The rule that takes a request of so many bytes, and the threads that counted it."""
    threads: list[str] = []

    def count(body: bytes) -> int:
        threads.append(threading.current_thread().name.partition("_")[0])
        return tokens

    proxy = Proxy(InForce(), None, count)  # type: ignore[arg-type]
    # An image, since no number of bytes says how many tokens it has.
    body = {
        "model": "m",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x" * size}]}],
    }
    exchange = proxy.receive(Inbound(body=msgspec.json.encode(body), headers={"x-app": (app,)}))
    return asyncio.run(proxy.decide(exchange)).rule, threads


@pytest.mark.parametrize(("tokens", "rule"), [(999, "default"), (1000, "batch")])
@pytest.mark.parametrize(("size", "thread"), [(10, "MainThread"), (LARGE_BODY, "tokens")])
def test_a_large_body_is_counted_beside_the_event_loop(
    tokens: int, rule: str, size: int, thread: str
) -> None:
    assert decided(size, "batch", tokens=tokens) == (rule, [thread])


@pytest.mark.parametrize("size", [10, LARGE_BODY])
def test_nothing_is_counted_that_no_rule_asks_for(size: int) -> None:
    assert decided(size, "chat", tokens=5000) == ("default", [])
