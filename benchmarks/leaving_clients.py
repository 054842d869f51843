"""How soon back ends are let go by clients that leave, with bodies of 1 kB to 31 MB.

    python benchmarks/leaving_clients.py [--sizes 40] [KIND ...]

A real server in this process, and scripted back ends of every kind (`tests/wire/kinds_of_back_ends.py`). Each
client sends its whole body, waits until the back end has been asked or has sent what it ever will, and
closes its connection; streamed and in one piece, before the head of the answer, after it, and after its first
content. Tokens are counted by Messages back ends alone. Printed are the median and the longest time until the
back end's connection was closed (ms), how many took longer than a second, and what was left behind: sockets
of either side, tasks. Each line of the log is checked: 499, or 200 after content, and that the client left.
Linux only; a checkout installed with `pip install -e`, since the scripts are the tests'.
"""

import argparse
import logging
import math
import socket
import statistics
import tempfile
import time
from collections import deque
from pathlib import Path

from routeproxy.web.response import StreamTimings
from tests.backend import HANG, BackEnd
from tests.google import token
from tests.running import Running, connect, receive_until, request, request_bytes, running, until
from tests.sockets import open_connections
from tests.wire.kinds_of_back_ends import KINDS, MOMENTS, Moment, rules

SMALLEST, LARGEST = 1_000, 31 * 2**20
TASKS_OF_THE_SERVER = {"LifespanOn.main", "Server.serve", "TaskHandle._run_coro", "_by_itself"}
LIMIT = 1.0
"""Seconds."""


class Lines(logging.Handler):
    """The log's lines of requests, and whatever is worse than INFO."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "routeproxy.requests" or record.levelno > logging.INFO:
            self.lines.append(record.getMessage())


def sizes(count: int) -> list[int]:
    """From the smallest to the largest, in equal steps of the logarithm."""
    step = math.log(LARGEST / SMALLEST) / max(count - 1, 1)
    return [round(SMALLEST * math.exp(step * number)) for number in range(count)]


def leave(
    proxy: Running, back_end: BackEnd, log: Lines, body: bytes, path: str, *, hears: bool, status: int
) -> float:
    """Seconds until the back end was let go. Raises `AssertionError` for what is wrong otherwise."""
    back_end.requests.clear()
    back_end.left_at.clear()
    log.lines.clear()
    wire = connect(proxy.url)
    wire.settimeout(60)
    wire.sendall(request_bytes(body, path))
    until(lambda: back_end.requests, 60)
    if hears:
        receive_until(wire, b"Hello")
    else:
        time.sleep(0.03)  # until what the back end has sent is read
    left = time.monotonic()
    wire.shutdown(socket.SHUT_RDWR)
    wire.close()
    took = back_end.wait_until_left(30) - left
    until(lambda: log.lines, 30)
    (line,) = log.lines
    assert f"POST {path} {status} " in line, line
    assert "client-left" in line, line
    assert "error=" not in line, line
    return took


def body_of(size: int, kind: str, moment: Moment, stream: bool) -> bytes:
    head = request_bytes(request(f"{moment} ", model=kind, stream=stream)).partition(b"\r\n\r\n")[2]
    before, after = head.split(f"{moment} ".encode())
    room = max(size - len(head), 0)
    return before + moment.encode() + b" " + b"x" * room + after


def measure(proxy: Running, back_end: BackEnd, log: Lines, kind: str, count: int) -> None:
    back_end.answers = [KINDS[kind].answer]
    cases = [("/v1/messages", stream, moment) for stream in (True, False) for moment in MOMENTS]
    if kind == "messages":
        cases += [("/v1/messages/count_tokens", False, moment) for moment in MOMENTS]
    for path, stream, moment in cases:
        hears = stream and moment == "after content"
        times = [
            leave(
                proxy,
                back_end,
                log,
                body_of(size, kind, moment, stream),
                path,
                hears=hears,
                status=200 if hears else 499,
            )
            for size in sizes(count)
        ]
        time.sleep(0.3)
        sockets = len(open_connections(proxy.url, back_end.url))
        tasks = len(set(proxy.tasks) - TASKS_OF_THE_SERVER)
        how = "count_tokens" if "count" in path else "streamed" if stream else "whole"
        late = sum(took > LIMIT for took in times)
        median = statistics.median(times) * 1000
        print(
            f"{kind:18} {how:12} {moment:15} {len(times)} sizes  median {median:6.1f}"
            f"  longest {max(times) * 1000:7.1f}  late {late}  sockets left {sockets}  tasks left {tasks}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS], metavar="KIND")
    parser.add_argument("--sizes", type=int, default=40)
    arguments = parser.parse_args()
    log = Lines()
    logging.getLogger("routeproxy").addHandler(log)
    logging.getLogger("routeproxy").setLevel(logging.INFO)
    with (
        tempfile.TemporaryDirectory() as folder,
        BackEnd([HANG]) as back_end,
        BackEnd(token()) as tokens,
        running(
            rules(back_end.url, tokens.url, Path(folder)),
            Path(folder),
            {"KEY": "KEY-1"},
            timings=StreamTimings(600, 600),
        ) as proxy,
    ):
        for kind in arguments.kinds or KINDS:
            measure(proxy, back_end, log, kind, arguments.sizes)


if __name__ == "__main__":
    main()
