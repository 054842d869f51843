"""What counting tokens costs: CPU, for bodies that are new and that are known, and what the event loop waits.

    python benchmarks/token_counts.py [--rounds 7] [--threads 1] [--switch 1]

The bodies are Claude Code's first turn as it was recorded, and conversations that grow from it by calls of a
tool that reads this project's own sources. A next turn is a conversation that was counted, and two turns
more. A ceiling is what a rule with a high `input_tokens.min` asks for instead of a count.

Gaps are the longest between two ticks of a 1 ms ticker on the loop, while bodies of 1 MB are counted in
threads. Where the machine has other work, they are mostly that: see the line in which nothing is counted. So
below each stands the most CPU that counting took from one tick to the next, the sleep of 1 ms among it.
`--switch` is after how many milliseconds a thread that does not pause hands over to one that waits; Python's
own value is 5.

Minimum - median - maximum of the rounds. These depend on the machine: compare only what one run printed.
"""

import argparse
import asyncio
import base64
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

import routeproxy
from routeproxy.messages.request import Envelope, decode_envelope
from routeproxy.tokens import Ceiling, Memory, count, warm

RECORDED = Path(__file__).parent.parent / "tests" / "wire" / "claude-code" / "first-turn.json"
SOURCES = "".join(
    path.read_text(encoding="utf-8") for path in sorted(Path(routeproxy.__file__).parent.rglob("*.py"))
)
CHINESE = "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。"
LIMIT = 10_000_000
"""A ceiling below it is sought in the whole body."""

Json = dict[str, Any]
Make = Callable[[], Json]


# --- bodies


def first_turn() -> Json:
    body: Json = json.loads(RECORDED.read_text(encoding="utf-8"))["body"]
    return body


def conversation(size: int) -> Json:
    body = first_turn()
    so_far = len(msgspec.json.encode(body))
    while so_far < size:
        turns = call_and_result()
        body["messages"] += turns
        so_far += len(msgspec.json.encode(turns))
    return body


def call_and_result() -> list[Json]:
    """One step of an agent."""
    name = f"toolu_{random.randrange(10**12)}"
    call = {"type": "tool_use", "id": name, "name": "Read", "input": {"file_path": f"/src/{name}.py"}}
    content = source(random.choice([200, 800, 3000, 6000, 12_000]))
    result = {"type": "tool_result", "tool_use_id": name, "content": content}
    return [
        {"role": "assistant", "content": [{"type": "text", "text": source(120)}, call]},
        {"role": "user", "content": [result]},
    ]


def source(chars: int) -> str:
    start = random.randrange(len(SOURCES) - chars)
    return SOURCES[start : start + chars]


def text(of: str, chars: int) -> Json:
    start = random.randrange(len(of))
    return saying({"type": "text", "text": (of[start:] + of * (chars // len(of) + 1))[:chars]})


def holding(kind: str, head: bytes, size: int) -> Json:
    data = base64.b64encode(head + random.randbytes(size)).decode()
    return saying({"type": kind, "source": {"type": "base64", "media_type": "any/thing", "data": data}})


def saying(block: Json) -> Json:
    return {"model": "claude-sonnet-5", "max_tokens": 1, "messages": [{"role": "user", "content": [block]}]}


BODIES: dict[str, Make] = {
    "1 kB": lambda: text(SOURCES, 900),
    "16 kB": lambda: text(SOURCES, 15_500),
    "116 kB, Claude Code's first turn": first_turn,
    "700 kB, a conversation": lambda: conversation(700_000),
    "1 MB, a conversation": lambda: conversation(1_000_000),
}

MEGABYTES: dict[str, Make] = {
    "1 MB, a conversation": lambda: conversation(1_000_000),
    "1 MB, one text": lambda: text(SOURCES, 960_000),
    "1 MB, one text in Chinese": lambda: text(CHINESE, 340_000),
    "1 MB, one picture": lambda: holding("image", b"\x89PNG\r\n\x1a\n", 740_000),
    "1 MB, one PDF": lambda: holding("document", b"%PDF-1.7\n", 740_000),
}


# --- CPU


def cpu(name: str, make: Make, rounds: int) -> None:
    body, memory = msgspec.json.encode(make()), Memory()
    envelope = decode_envelope(body)
    times = max(1, 200_000 // len(body))
    report(f"{name}, new", [cpu_of(lambda: count(body, Memory())) for _ in range(rounds)])
    count(body, memory)
    report("   known", [cpu_of(lambda: count(body, memory), times) for _ in range(rounds)])
    report("   ceiling", [cpu_of(partial(sought, body, envelope), times) for _ in range(rounds)])


def sought(body: bytes, envelope: Envelope) -> bool:
    return Ceiling(body, envelope).is_below(LIMIT)


def next_turns(rounds: int) -> None:
    so_far, memory = conversation(700_000), Memory()
    count(msgspec.json.encode(so_far), memory)
    counting, reading = [], []
    for _ in range(rounds):
        so_far["messages"] += call_and_result()
        body = msgspec.json.encode(so_far)
        counting.append(cpu_of(partial(count, body, memory)))
        reading.append(cpu_of(partial(decode_envelope, body)))
    report(f"700 kB, {count(body):,} tokens, a next turn", counting)
    report("   its envelope, which is read for every request", reading)


def cpu_of(work: Callable[[], object], times: int = 1) -> float:
    """Milliseconds."""
    started = time.thread_time()
    for _ in range(times):
        work()
    return (time.thread_time() - started) / times * 1e3


# --- gaps


class Ticker:
    """Ticks every millisecond, and keeps the longest that it had to wait."""

    def __init__(self) -> None:
        self.gap = 0.0
        self.counting = 0.0
        """The most CPU of other threads in one gap."""

    async def tick(self) -> None:
        before = self._now()
        while True:
            await asyncio.sleep(0.001)
            now = self._now()
            self.gap = max(self.gap, (now[0] - before[0]) * 1e3)
            self.counting = max(self.counting, (now[1] - before[1]) * 1e3)
            before = now

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time() - time.thread_time()


async def ticking(bodies: Sequence[bytes], memory: Memory, threads: int) -> Ticker:
    ticker, loop = Ticker(), asyncio.get_running_loop()
    with ThreadPoolExecutor(threads) as pool:
        async with asyncio.TaskGroup() as tasks:
            ticks = tasks.create_task(ticker.tick())
            await asyncio.sleep(0.2)
            await asyncio.gather(*(loop.run_in_executor(pool, count, body, memory) for body in bodies))
            ticks.cancel()
    return ticker


def gaps(rounds: int, threads: int) -> None:
    tickers = [asyncio.run(ticking([], Memory(), threads)) for _ in range(rounds)]
    report("nothing is counted", [ticker.gap for ticker in tickers])
    for name, make in MEGABYTES.items():
        tickers = []
        for _ in range(rounds):
            bodies = [msgspec.json.encode(make()) for _ in range(3)]
            tickers.append(asyncio.run(ticking(bodies, Memory(), threads)))
        report(f"{name}, new", [ticker.gap for ticker in tickers])
        report("   CPU of counting in one gap", [ticker.counting for ticker in tickers])
    known, memory = msgspec.json.encode(conversation(700_000)), Memory()
    count(known, memory)
    tickers = [asyncio.run(ticking([known] * 50, memory, threads)) for _ in range(rounds)]
    report("700 kB, a conversation, known", [ticker.gap for ticker in tickers])
    report("   CPU of counting in one gap", [ticker.counting for ticker in tickers])


def heading(name: str) -> None:
    print(f"\n{name:<58} {'minimum':>9} - {'median':>9} - {'maximum':>9}")


def report(name: str, values: Sequence[float]) -> None:
    print(
        f"{name:<58} {min(values):9.3f} - {statistics.median(values):9.3f} - {max(values):9.3f}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--switch", type=float, default=1)
    arguments = parser.parse_args()
    random.seed(1)
    sys.setswitchinterval(arguments.switch / 1e3)
    warm()
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    heading("CPU (ms)")
    for name, make in BODIES.items():
        cpu(name, make, arguments.rounds)
    next_turns(arguments.rounds)
    heading(f"longest gap (ms), {arguments.threads} thread(s), switch {arguments.switch:g} ms")
    gaps(arguments.rounds, arguments.threads)


if __name__ == "__main__":
    main()
