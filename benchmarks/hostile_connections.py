"""What a server answers others while strangers hold connections open, with no request, half of one, or what
nobody means.

    python benchmarks/hostile_connections.py [NAME ...]

A real `routeproxy serve` with one worker and short limits (`header_timeout`, `body_timeout` and `keep_alive`
are 5 s) gets each wave at once, on 127.0.0.1, without a key. Meanwhile `/healthz` is asked every 5 ms and a
client with a key asks for an answer every 50 ms, each in a process and on a connection of its own. Printed
are how many connections of the wave were made, how long until the server had closed them all, the median and
the longest time that `/healthz` took and the longest that the client took (ms), what the two were refused,
the server's memory before, at most and 2 s after the wave (MB), and its open file descriptors before and
after. `nothing` is what the machine itself does. Linux only.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import multiprocessing
import os
import re
import resource
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Event
from typing import NamedTuple

from serving import serving

RULES = """
[server]
header_timeout = "5s"
body_timeout = "5s"
keep_alive = "5s"

[providers.echo]

[teams.known]
keys = ["env:KEY"]

[default]
targets = "echo/*"
"""
KEY = "a-key-of-32-characters-and-more-0"
HEAD = b"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\n"
PROBE = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
CHUNKED = HEAD + b"x-api-key: %b\r\ntransfer-encoding: chunked\r\n\r\n" % KEY.encode()
COLUMNS = (
    "wave", "connections", "closed after (s)", "`/healthz`, median (ms)", "longest", "a client's longest",
    "refused", "memory before / most / after (MB)", "descriptors before / after",
)  # fmt: skip
LONGEST = 60.0
"""Seconds that a wave may take."""


class Wave(NamedTuple):
    """What each of `connections` sends, and what it sends every second from then on."""

    connections: int
    first: bytes
    more: bytes = b""


WAVES: dict[str, Wave] = {
    "nothing": Wave(0, b""),
    "silent": Wave(4000, b""),
    "half-headers": Wave(600, HEAD + b"x: "),
    "dripping-headers": Wave(600, HEAD + b"x: ", b"a"),
    "half-bodies": Wave(300, HEAD + b"x-api-key: %b\r\ncontent-length: 100000\r\n\r\n{" % KEY.encode()),
    "half-bodies-without-key": Wave(300, HEAD + b"content-length: 100000\r\n\r\n{"),
    "half-chunks": Wave(300, CHUNKED + b"ffff\r\n{"),
    "stated-31-mb": Wave(300, HEAD + b"x-api-key: %b\r\ncontent-length: 32505856\r\n\r\n{" % KEY.encode()),
    "expects-100": Wave(
        300, HEAD + b"x-api-key: %b\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n" % KEY.encode()
    ),
    "huge-headers": Wave(100, HEAD + b"cookie: " + b"a" * 250_000),
    "many-lines": Wave(100, HEAD + b"x: 1\r\n" * 40_000),
    "endless-extensions": Wave(100, CHUNKED + b"1;" + b"x" * 500_000),
    "tiny-chunks": Wave(20, CHUNKED + b"1\r\na\r\n" * 100_000),
    "pipelines": Wave(100, PROBE * 5000),
    "pipelined-posts": Wave(100, (HEAD + b"content-length: 2\r\n\r\n{}") * 3000),
    "garbage": Wave(1000, bytes(range(256)) * 16),
    "resets": Wave(1000, PROBE[:20]),
    "one-request": Wave(1000, PROBE),
}


class Watched(NamedTuple):
    times: list[float]
    """Milliseconds."""
    failures: list[str]


def watch(port: int, every: float, method: str, path: str, body: bytes | None, stop: Event) -> Watched:
    """Asks again and again over one connection until `stop` is set, in a process of its own."""
    found = Watched([], [])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while not stop.is_set():
        begun = time.perf_counter()
        try:
            connection.request(method, path, body, {"x-api-key": KEY})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                found.failures.append(str(answer.status))
        except (OSError, http.client.HTTPException) as error:
            found.failures.append(type(error).__name__)
            connection.close()
        found.times.append((time.perf_counter() - begun) * 1000)
        time.sleep(every)
    connection.close()
    return found


class Memory(threading.Thread):
    """The most that the server held."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._stopped, self.most = pid, threading.Event(), 0

    def run(self) -> None:
        while not self._stopped.wait(0.05):
            self.most = max(self.most, megabytes(self._pid))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def megabytes(pid: int) -> int:
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) // 1024 if match else 0


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def strike(port: int, wave: Wave, *, resets: bool) -> tuple[int, float]:
    """How many connections were made, and seconds until the server had closed the last of them."""
    made = 0

    async def one() -> None:
        nonlocal made
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            made += 1
            with contextlib.suppress(OSError):
                writer.write(wave.first)
                if resets:
                    await writer.drain()
                    writer.transport.abort()
                    return
                async with asyncio.TaskGroup() as tasks:
                    dripping = tasks.create_task(drip(writer))
                    with contextlib.suppress(OSError):
                        while await reader.read(65_536):
                            pass
                    dripping.cancel()
            writer.transport.abort()

    async def drip(writer: asyncio.StreamWriter) -> None:
        while wave.more:
            await asyncio.sleep(1)
            writer.write(wave.more)

    begun = time.perf_counter()
    async with asyncio.timeout(LONGEST):
        await asyncio.gather(*(one() for _ in range(wave.connections)))
    return made, time.perf_counter() - begun


def measure(name: str, port: int, pid: int, pool: ProcessPoolExecutor, stop: Event) -> None:
    wave = WAVES[name]
    held, files = megabytes(pid), descriptors(pid)
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]})
    stop.clear()
    watches = [
        pool.submit(watch, port, 0.005, "GET", "/healthz", None, stop),
        pool.submit(watch, port, 0.05, "POST", "/v1/messages", body.encode(), stop),
    ]
    memory = Memory(pid)
    memory.start()
    time.sleep(1)
    made, took = asyncio.run(strike(port, wave, resets=name == "resets"))
    time.sleep(2)
    stop.set()
    memory.stop()
    health, client = (watched.result() for watched in watches)
    refused = ", ".join(sorted({*health.failures, *client.failures})) or "none"
    print(
        f"| {name} | {made} | {took:.1f} | {statistics.median(health.times):.1f} | {max(health.times):.0f}"
        f" | {max(client.times):.0f} | {refused} | {held} / {memory.most} / {megabytes(pid)}"
        f" | {files} / {descriptors(pid)} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *WAVES], metavar="NAME")
    parser.add_argument("--port", type=int, default=18_483)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with serving(RULES, arguments.port, {"KEY": KEY}) as server:
        print("|", " | ".join(COLUMNS), "|\n" + "|---" * len(COLUMNS) + "|", flush=True)
        with multiprocessing.Manager() as manager, ProcessPoolExecutor(2) as pool:
            stop = manager.Event()
            for name in arguments.names or WAVES:
                measure(name, arguments.port, server.pid, pool, stop)


if __name__ == "__main__":
    main()
