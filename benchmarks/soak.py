"""Half an hour of bad luck: back ends that fail in every way, edits of the rules, workers that are killed and
clients that leave.

    python benchmarks/soak.py [--minutes 30] [--clients 16]

A real `routeproxy serve --workers 2` stands in front of back ends (those of `routeproxy drill`) that answer
well most of the time, and otherwise limit, fail, reset, cut, stall or send what is no answer. Sixteen clients
ask, streamed and whole, and each tenth leaves in the middle; every few seconds the rules are edited, and
twice a minute a worker is killed. Every answer is judged: what is neither whole nor an error that says so is
a wrong outcome. Printed are the outcomes, what was wrong with any, and the memory and the open descriptors of
all processes of the server, minute by minute. Linux only.
"""

import argparse
import asyncio
import multiprocessing
import multiprocessing.connection
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from routeproxy.drill.back_end import Answer, BackEnd
from routeproxy.drill.formats import FORMATS
from routeproxy.drill.rehearsal import Got

RULES = """
[providers.chat]
type = "openai_compatible"
base_url = "http://127.0.0.1:{chat}/v1"
api_key = "none"
max_concurrent = 12

[providers.claude]
type = "anthropic"
base_url = "http://127.0.0.1:{claude}"
api_key = "none"

[providers.gemini]
type = "gemini"
base_url = "http://127.0.0.1:{gemini}/v1beta"
api_key = "none"

[pools.both]
members = ["chat/a", {{ target = "claude/b", weight = 2 }}]
sticky = "10s"

[default]
targets = ["both", "gemini/c"]
retry = {{ attempts = 2, backoff = "50ms" }}
timeouts = {{ first_token = "2s", idle = "1s" }}

[[rules]]
name = "held {edit}"
match.headers.x-hold = "1"
targets = ["chat/h", "claude/h", "gemini/h"]
hold = "whole"
timeouts = {{ first_token = "2s", idle = "1s" }}
"""
KINDS = ("chat", "claude", "gemini")
FORMAT_OF = {"chat": "chat", "claude": "messages", "gemini": "gemini"}

Fault = Callable[[Answer], Awaitable[None]]


async def _limited(answer: Answer) -> None:
    await answer.fail(429)


async def _failed(answer: Answer) -> None:
    await answer.fail(random.choice((500, 503)))


async def _reset(answer: Answer) -> None:
    answer.reset()


async def _cut(answer: Answer) -> None:
    await answer.begin(30)
    await asyncio.sleep(0.01)
    answer.cut()


async def _stalled(answer: Answer) -> None:
    await answer.begin(10)
    await asyncio.sleep(3)
    answer.cut()


async def _silent(answer: Answer) -> None:
    await asyncio.sleep(4)
    answer.cut()


async def _malformed(answer: Answer) -> None:
    await answer.begin(10)
    await asyncio.sleep(0.01)
    await answer.write(b"data: {]\n\n" if answer.stream else b"{]")
    answer.cut()


async def _page(answer: Answer) -> None:
    await answer.send_body(200, b"<html></html>", content_type="text/html")


FAULTS: tuple[Fault, ...] = (_limited, _failed, _failed, _reset, _cut, _stalled, _silent, _malformed, _page)


async def _luck(answer: Answer) -> None:
    await (random.choice(FAULTS)(answer) if random.random() < 0.25 else answer.answer())


def _back_ends(sender: "multiprocessing.connection.Connection") -> None:
    async def run() -> None:
        ports = []
        for kind in KINDS:
            back_end = BackEnd(kind, FORMATS[FORMAT_OF[kind]], _luck, [])
            await back_end.__aenter__()
            ports.append(back_end.port)
        sender.send(ports)
        await asyncio.Event().wait()

    asyncio.run(run())


class Soak:
    def __init__(self, url: str) -> None:
        self.url = url
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.over = False

    async def client(self, number: int) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            while not self.over:
                try:
                    await self._ask(client, number)
                except httpx.TransportError:  # its worker was killed
                    self.outcomes["the connection broke"] += 1
                    await asyncio.sleep(0.05)

    async def _ask(self, client: httpx.AsyncClient, number: int) -> None:
        stream, leaves = random.random() < 0.7, random.random() < 0.1
        headers = {"x-claude-code-session-id": f"session-{number}-{random.randrange(20)}"}
        if random.random() < 0.2:
            headers["x-hold"] = "1"
        message = {"role": "user", "content": "hi " * random.choice((1, 100, 20_000))}
        body = {"model": "m", "max_tokens": 99, "stream": stream, "messages": [message]}
        began = time.monotonic()
        async with client.stream("POST", "/v1/messages", json=body, headers=headers) as reply:
            if leaves:
                self.outcomes["left"] += 1
                return
            content = await reply.aread()
        got = Got(reply.status_code, dict(reply.headers), content, time.monotonic() - began, None)
        outcome = got.outcome
        self.outcomes[outcome] += 1
        if outcome != "complete" and not outcome.startswith("error ") and outcome != "refusal":
            self.wrong.append(f"{outcome}: {content[-300:]!r}")


def _processes(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]


def _memory_and_descriptors(parent: int) -> str:
    parts = []
    for pid in _processes(parent):
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            parts.append(f"{pages * 4096 // 2**20} MB/{len(os.listdir(f'/proc/{pid}/fd'))}")
        except OSError:
            continue
    return ", ".join(parts)


def _workers(parent: int) -> list[int]:
    found = []
    for pid in _processes(parent)[1:]:
        try:
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


async def _soak(
    server: "subprocess.Popen[bytes]", url: str, rules: Path, text: str, minutes: float, clients: int
) -> Soak:
    soak = Soak(url)
    tasks = [asyncio.create_task(soak.client(number)) for number in range(clients)]  # noqa: TID251
    began = reported = time.monotonic()
    edit = 0
    while time.monotonic() - began < 60 * minutes:
        await asyncio.sleep(3)
        edit += 1
        rules.write_text(text.replace("{edit}", str(edit)), encoding="utf-8")
        if edit % 10 == 0 and (workers := _workers(server.pid)):
            os.kill(random.choice(workers), signal.SIGKILL)
        if time.monotonic() - reported >= 60:
            reported = time.monotonic()
            total = sum(soak.outcomes.values())
            state = _memory_and_descriptors(server.pid)
            print(
                f"{(reported - began) / 60:5.1f} min  {total:7} requests, {len(soak.wrong)} wrong; {state}",
                flush=True,
            )
    soak.over = True
    await asyncio.gather(*tasks)
    await asyncio.sleep(3)
    print(f"at rest: {_memory_and_descriptors(server.pid)}", flush=True)
    return soak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--port", type=int, default=18_496)
    arguments = parser.parse_args()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    back_ends = multiprocessing.get_context("fork").Process(target=_back_ends, args=(sender,), daemon=True)
    back_ends.start()
    ports = dict(zip(KINDS, receiver.recv(), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder, "rules.toml")
        text = RULES.format(**ports, edit="{edit}")
        rules.write_text(text.replace("{edit}", "0"), encoding="utf-8")
        command = [sys.executable, "-m", "routeproxy", "serve", "--rules", str(rules), "--workers", "2"]
        server = subprocess.Popen(
            [*command, "--port", str(arguments.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{arguments.port}"
        try:
            _wait_until_ready(url)
            soak = asyncio.run(_soak(server, url, rules, text, arguments.minutes, arguments.clients))
        finally:
            server.terminate()
            server.wait(60)
            back_ends.terminate()
    for outcome, count in soak.outcomes.most_common():
        print(f"{count:8}  {outcome}")
    print(f"{len(soak.wrong)} wrong outcomes")
    for words in soak.wrong[:10]:
        print(f"  {words}")
    sys.exit(bool(soak.wrong))


def _wait_until_ready(url: str) -> None:
    for _ in range(200):
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
