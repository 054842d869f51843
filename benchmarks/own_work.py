"""What routeproxy itself costs: CPU for a request and for a streamed event, and the time until `serve`
answers.

    python benchmarks/own_work.py [--rounds 5]

The back end is a list of chunks in the same process (no HTTP, no LiteLLM), so what is measured is ours: ASGI
in, envelope, rules, translation, events, ASGI out. Figures are CPU time, minimum - median - maximum of the
rounds; these depend on the machine, so compare only what one run printed. Start-up is wall time of a real
`serve`, until `/readyz` answers and, with a provider behind LiteLLM, the longest that `/healthz` took to
answer while LiteLLM was being imported.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from routeproxy.chat.completion import Choice, Chunk, CompletionUsage, Delta
from routeproxy.chat.request import ChatRequest
from routeproxy.exchange import Call
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Target
from routeproxy.proxy import Proxy
from routeproxy.tokens import count
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.thinking import Signer
from routeproxy.upstream.chat.upstream import ChatUpstream, ChunkSource
from routeproxy.upstream.failover import Upstream
from routeproxy.web.app import build_app

RECORDED = Path(__file__).parent.parent / "tests" / "wire" / "claude-code" / "first-turn.json"

RULES = """
[providers.corp]
type = "openai_compatible"
base_url = "http://127.0.0.1:1/v1"
api_key = "none"

[[rules]]
name = "private"
match.headers.x-data-class = "internal"
targets = "corp/private"

[[rules]]
name = "background"
match.model = "haiku"
targets = "corp/small"

[default]
targets = "corp/big"
"""


class Scripted:
    """A back end that has its answer ready."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self._chunks = chunks

    def profile(self, target: Target) -> ModelProfile:
        return ModelProfile()

    async def open(self, chat: ChatRequest, call: Call) -> ChunkSource:
        return Said(self._chunks)


class Said:
    def __init__(self, chunks: list[Chunk]) -> None:
        self._chunks = iter(chunks)

    def __aiter__(self) -> "Said":
        return self

    async def __anext__(self) -> Sequence[Chunk]:
        for chunk in self._chunks:
            return (chunk,)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        pass


class Fixed:
    def __init__(self, policy: Policy, upstream: Upstream) -> None:
        self.policy = policy
        self._upstream = upstream

    def of(self, provider: Provider) -> Upstream:
        return self._upstream


def answer_of(events: int) -> list[Chunk]:
    words = [Chunk((Choice(0, Delta(content=f"word {number} ")),)) for number in range(events)]
    usage = CompletionUsage(prompt_tokens=10, completion_tokens=events)
    return [*words, Chunk((Choice(0, Delta(), finish_reason="stop"),)), Chunk((), usage)]


async def cpu_of(app: Any, body: bytes, headers: list[tuple[bytes, bytes]], times: int) -> float:
    """Seconds of CPU for one request, straight through the ASGI application."""

    async def one() -> None:
        asked = iter([{"type": "http.request", "body": body, "more_body": False}])
        forever = asyncio.get_running_loop().create_future()

        async def receive() -> Any:
            for message in asked:
                return message
            return await forever

        async def send(message: Any) -> None:
            assert message.get("status", 200) == 200

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
            "method": "POST", "path": "/v1/messages", "raw_path": b"/v1/messages", "root_path": "",
            "query_string": b"beta=true", "headers": headers, "state": {},
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip
        await app(scope, receive, send)

    for _ in range(20):
        await one()
    started = time.process_time()
    for _ in range(times):
        await one()
    return (time.process_time() - started) / times


def own_work(rounds: int) -> None:
    recorded = json.loads(RECORDED.read_text())
    headers = [(name.encode(), value.encode()) for name, value in recorded["headers"].items()]
    headers.append((b"host", b"127.0.0.1"))
    large = json.dumps(recorded["body"], ensure_ascii=False).encode()
    small = json.dumps(
        {
            "model": "claude-sonnet-5",
            "max_tokens": 100,
            "stream": True,
            "messages": [{"role": "user", "content": "Hi"}],
        }
    ).encode()
    policy = compile_rules(RULES, path=Path("rules.toml"), environ={})

    def app(events: int) -> Any:
        parts = Fixed(policy, ChatUpstream(Scripted(answer_of(events)), Signer(None)))
        return build_app(Proxy(parts, parts, count))

    async def measured(body: bytes, events: int, times: int) -> float:
        return await cpu_of(app(events), body, headers, times)

    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        base = asyncio.run(measured(small, 1, 300))
        figures.setdefault("small request, 1 event (ms)", []).append(base * 1e3)
        figures.setdefault(f"Claude Code's first turn, {len(large) // 1000} kB, 1 event (ms)", []).append(
            asyncio.run(measured(large, 1, 200)) * 1e3
        )
        many = asyncio.run(measured(small, 1000, 10))
        figures.setdefault("each streamed event (us)", []).append((many - base) / 999 * 1e6)
    report(figures)


def start_up(rounds: int) -> None:
    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, rules in (
            ("echo only", '[providers.echo]\n[default]\ntargets = "echo/echo"\n'),
            ("with LiteLLM", RULES),
        ):
            ready, gap = started_in(rules, watch=name == "with LiteLLM")
            figures.setdefault(f"serve ready, {name} (s)", []).append(ready)
            if gap:
                figures.setdefault("longest /healthz during LiteLLM's import (ms)", []).append(gap * 1e3)
    report(figures)


def started_in(rules: str, *, watch: bool) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.toml"
        path.write_text(rules)
        started = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, "-m", "routeproxy", "serve", "--rules", str(path), "--port", "0"],
            stderr=subprocess.PIPE, text=True, cwd=folder, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        try:
            assert server.stderr is not None
            url = next(word for line in server.stderr for word in line.split() if word.startswith("http://"))
            wait_for(lambda: urllib.request.urlopen(f"{url}/readyz", timeout=1).status == 200)
            ready = time.perf_counter() - started
            longest = 0.0
            until = time.perf_counter() + (8 if watch else 0)
            while time.perf_counter() < until:
                asked = time.perf_counter()
                urllib.request.urlopen(f"{url}/healthz", timeout=5).read()
                longest = max(longest, time.perf_counter() - asked)
            return ready, longest
        finally:
            server.terminate()
            server.communicate(timeout=10)


def wait_for(ready: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.005)
    raise TimeoutError("the server did not answer within 20 s")


def report(figures: dict[str, list[float]]) -> None:
    for name, values in figures.items():
        print(
            f"{name:<58} {min(values):9.3f} - {statistics.median(values):9.3f} - {max(values):9.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-start-up", action="store_true")
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    print(f"{'':<58} {'minimum':>9} - {'median':>9} - {'maximum':>9}")
    own_work(arguments.rounds)
    if not arguments.skip_start_up:
        start_up(min(arguments.rounds, 3))


if __name__ == "__main__":
    main()
