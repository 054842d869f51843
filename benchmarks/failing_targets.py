"""What clients feel while targets fail or are full.

    python benchmarks/failing_targets.py [--requests 100] [--seconds 30]

A real `routeproxy serve` stands in front of scripted back ends, each in a process of its own. Printed are:

- a first target that takes no connection any more (its connect time-out is 2 s): how long the first five
  requests take, and the median and 99th percentile of the next, beside a chain whose first target is well;
- one full target with 4 places, each held for 200 ms: the median and the 99th percentile of a team that asks
  once a second, while nobody else asks, and while another team asks with 50 clients at once.
"""

import argparse
import asyncio
import http.client
import json
import multiprocessing
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from serving import serving

RULES = """
[server]
queue = {{ wait = "7s", length = 1000 }}

[providers.down]
type = "anthropic"
base_url = "http://127.0.0.1:{down}"
api_key = "none"
timeouts.connect = "2s"

[providers.well]
type = "anthropic"
base_url = "http://127.0.0.1:{well}"
api_key = "none"

[providers.full]
type = "anthropic"
base_url = "http://127.0.0.1:{slow}"
api_key = "none"
max_concurrent = 4

[teams.flood]
keys = ["env:FLOOD"]

[teams.polite]
keys = ["env:POLITE"]

[[rules]]
match.model.equals = "down"
targets = ["down/m", "well/m"]

[[rules]]
match.model.equals = "full"
targets = "full/m"

[default]
targets = ["well/m", "well/n"]
"""
KEYS = {"FLOOD": "key-of-flood-0123456789", "POLITE": "key-of-polite-0123456789"}
ANSWER = json.dumps(
    {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": "Hello"}],
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
).encode()  # fmt: skip
HELD = 0.2
"""Seconds that the slow back end takes for each request."""


def _serve(port: int, seconds: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lengths = [
                    line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                ]
                await reader.readexactly(int(lengths[0].partition(b":")[2]))
                await asyncio.sleep(seconds)
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                    % (len(ANSWER), ANSWER)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", port, backlog=512) as server:
            await server.serve_forever()

    asyncio.run(run())


@contextmanager
def _back_ends(port: int) -> Iterator[dict[str, int]]:
    """The ports of one that takes no connection, one that is well and one that is slow."""
    ports = {"down": port, "well": port + 1, "slow": port + 2}
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_serve, args=(ports["well"], 0.0), daemon=True),
        context.Process(target=_serve, args=(ports["slow"], HELD), daemon=True),
    ]
    for process in processes:
        process.start()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deaf.bind(("127.0.0.1", ports["down"]))
        deaf.listen(0)
        waiting = [socket.socket() for _ in range(3)]  # its queue is full now, and the system drops the rest
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", ports["down"]))
        try:
            yield ports
        finally:
            for one in waiting:
                one.close()
            for process in processes:
                process.terminate()
                process.join()


class _Client:
    def __init__(self, port: int, key: str, model: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"content-type": "application/json", "x-api-key": key}
        self._body = json.dumps(
            {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        )

    def ask(self) -> tuple[int, float]:
        """The status, and milliseconds."""
        began = time.perf_counter()
        self._connection.request("POST", "/v1/messages", self._body, self._headers)
        reply = self._connection.getresponse()
        reply.read()
        return reply.status, (time.perf_counter() - began) * 1000


def _row(name: str, times: list[float]) -> None:
    if not times:
        return
    ordered = sorted(times)
    high = ordered[max(0, round(len(ordered) * 0.99) - 1)]
    print(
        f"{name:54} {len(times):4} requests: median {statistics.median(times):7.1f} ms, 99th {high:7.1f}",
        flush=True,
    )


def _first_target_is_down(port: int, requests: int) -> None:
    well = _Client(port, KEYS["POLITE"], "well")
    well.ask()
    _row("the first target is well", [well.ask()[1] for _ in range(requests)])
    down = _Client(port, KEYS["POLITE"], "down")
    _row("the first target takes no connection: the first five", [down.ask()[1] for _ in range(5)])
    _row("  and the next", [down.ask()[1] for _ in range(requests)])


def _one_team_floods(port: int, seconds: int) -> None:
    polite = _Client(port, KEYS["POLITE"], "full")
    _row("one team asks once a second, alone", _once_a_second(polite, seconds))
    over = threading.Event()
    statuses: list[int] = []

    def flood() -> None:
        client = _Client(port, KEYS["FLOOD"], "full")
        while not over.is_set():
            statuses.append(client.ask()[0])

    threads = [threading.Thread(target=flood, daemon=True) for _ in range(50)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    _row("  and beside 50 clients of another", _once_a_second(polite, seconds))
    over.set()
    for thread in threads:
        thread.join()
    answered = statuses.count(200)
    print(f"  the others got {answered} answers and {len(statuses) - answered} refusals", flush=True)


def _once_a_second(client: _Client, seconds: int) -> list[float]:
    times = []
    for _ in range(seconds):
        status, took = client.ask()
        times.append(took if status == 200 else 60_000.0)
        time.sleep(max(0.0, 1 - took / 1000))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--port", type=int, default=18_490)
    arguments = parser.parse_args()
    with (
        _back_ends(arguments.port + 1) as ports,
        serving(RULES.format(**ports), arguments.port, KEYS),
    ):
        _first_target_is_down(arguments.port, arguments.requests)
        _one_team_floods(arguments.port, arguments.seconds)


if __name__ == "__main__":
    main()
