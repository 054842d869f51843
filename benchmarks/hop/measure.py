"""The measurements. Each takes a subject whose turn it is, and adds its figures to the results."""

import asyncio
import contextlib
import math
import re
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hop.load import Answer, Connection, Refused, side_by_side
from hop.running import BackEnd, RunningHop, Subject
from hop.scripts import Script
from hop.table import Results, Row

EVENTS = 100

WHOLE = Script()
AT_ONCE = Script(EVENTS)
ONE_BY_ONE = Script(EVENTS, gap=0.002)
TIMEOUT_FAILURES = Script(10, gap=0.002, delay=0.02)
"""A first token that takes its time: what a hop adds to it is not hidden by the rest of the stream."""
SLOW = Script(events=100_000, gap=1.0, stamped=True)

TOLERATED = 0.010
"""Seconds that 99 of 100 requests may take where requests a second are counted."""
MOST_CLIENTS = 512
BUSY = 0.9
"""A hop that used less of its core was not what limited the requests a second."""


class Case(NamedTuple):
    size: str
    script: Script
    name: str
    least: int = 5
    """Requests of a round, however long they take."""
    latency: bool = False
    """Whether the table tells what the hop adds to the time."""

    @property
    def key(self) -> str:
        ways = {WHOLE: "", AT_ONCE: " at once", ONE_BY_ONE: " one by one", TIMEOUT_FAILURES: " late"}
        return self.size + ways[self.script]


SMALL = Case("1 kB", WHOLE, "1 kB", latency=True)
STREAM = Case("1 kB", AT_ONCE, f"1 kB, {EVENTS} events at once")
EVENT_BY_EVENT = Case("1 kB", ONE_BY_ONE, f"1 kB, {EVENTS} events one by one", least=10)
FIRST_TOKEN = Case("1 kB", TIMEOUT_FAILURES, "1 kB, first token after 20 ms", least=25)
CASES = [
    SMALL,
    Case("16 kB", WHOLE, "16 kB"),
    Case("115 kB", WHOLE, "115 kB, Claude Code's first turn", latency=True),
    Case("1 MB", WHOLE, "1 MB"),
    STREAM,
    Case("115 kB", AT_ONCE, f"115 kB, {EVENTS} events at once", latency=True),
    EVENT_BY_EVENT,
    FIRST_TOKEN,
]


def rows(streams: int, soak: int) -> list[Row]:
    def all_rows() -> Iterator[Row]:
        for case in CASES:
            if case is not FIRST_TOKEN:
                yield Row(f"cpu {case.key}", f"CPU of a request, {case.name} (ms)", 3, ratio=True)
        yield Row("event at once", "CPU of an event, all at once (µs)", 1, ratio=True)
        yield Row("event one by one", "CPU of an event, one by one (µs)", 1, ratio=True)
        for case in CASES:
            if case.latency:
                for share in ("p50", "p99"):
                    yield Row(f"{share} {case.key}", f"added time, {share}, {case.name} (ms)")
        for share in ("p50", "p99"):
            yield Row(f"first {share}", f"added time to the first token, {share} (ms)")
        yield Row("rate", "requests a second, 1 kB, p99 ≤ 10 ms", 0)
        held = f"{streams:,} streams held"
        yield Row("held p99", f"{held}: an event is passed on within, p99 (ms)", 1)
        yield Row("held longest", f"{held}: the longest (ms)", 1)
        yield Row("held memory", f"{held}: memory of a stream (kB)", 0)
        yield Row("memory before", "resident memory, ready (MB)", 0)
        yield Row("memory after", "resident memory, after all this (MB)", 0)
        yield Row("soak", f"resident memory during {soak:,} more requests (MB)", 1)
        yield Row("start-up", "from its start to the first 200 (s)", 2)

    return list(all_rows())


@contextlib.contextmanager
def turn_of(subject: Subject) -> Iterator[None]:
    """The others stand still meanwhile, whatever they would do by themselves."""
    if subject.program is None:
        yield
        return
    subject.program.resume()
    try:
        yield
    finally:
        subject.program.pause()


async def one_case(
    subject: Subject, case: Case, results: Results, back_end: BackEnd, *, seconds: float
) -> None:
    """CPU of the subject for a request, and how long it took; beside `rows` these are in the JSON."""
    await back_end.play(case.script)
    await subject.batch(case.size, case.script, seconds / 10, 3)
    program = subject.program
    before = program.cpu() if program else 0.0
    answers = await subject.batch(case.size, case.script, seconds, case.least)
    await asyncio.sleep(0.05)  # what a hop does once it has answered counts, too
    if program:
        results.add(f"cpu {case.key}", subject.key, (program.cpu() - before) / len(answers) * 1e3)
    whole = [answer.whole for answer in answers]
    first = [answer.first for answer in answers]
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        results.add(f"whole {name} {case.key}", subject.key, percentile(whole, share) * 1e3)
        results.add(f"first {name} {case.key}", subject.key, percentile(first, share) * 1e3)


def derive(results: Results, subject: str) -> None:
    """What follows from the rounds: CPU of an event, and what a hop adds to a direct call."""
    for row, case in (("event at once", STREAM), ("event one by one", EVENT_BY_EVENT)):
        for stream, whole in _rounds(results, (f"cpu {case.key}", subject), (f"cpu {SMALL.key}", subject)):
            results.add(row, subject, (stream - whole) / EVENTS * 1e3)
    for share in ("p50", "p99"):
        for case in CASES:
            _added(results, subject, f"{share} {case.key}", f"whole {share} {case.key}")
        _added(results, subject, f"first {share}", f"first {share} {FIRST_TOKEN.key}")


def _added(results: Results, subject: str, row: str, measured: str) -> None:
    for through, straight in _rounds(results, (measured, subject), (measured, "direct")):
        results.add(row, subject, through - straight)


def _rounds(results: Results, one: tuple[str, str], other: tuple[str, str]) -> Iterator[tuple[float, float]]:
    # The last round may have been stopped between the two.
    return zip(results.of(*one), results.of(*other), strict=False)


async def rate(hop: RunningHop, results: Results, back_end: BackEnd, *, seconds: float) -> None:
    """Requests a second with more and more clients, until 10 ms are not kept twice in a row."""
    await back_end.play(WHOLE)
    request = hop.request(SMALL.size, stream=False)
    assert hop.program is not None
    best, load, clients, misses = 0.0, 0.0, 1, 0
    while clients <= MOST_CLIENTS and misses < 2:
        before, began = hop.program.cpu(), time.perf_counter()
        answers = await side_by_side(hop.hop.port, request, seconds, clients)
        took = time.perf_counter() - began
        if percentile([answer.whole for answer in answers], 0.99) > TOLERATED:
            misses += 1
        else:
            misses = 0
            if len(answers) / took > best:
                best, load = len(answers) / took, (hop.program.cpu() - before) / took
        clients = math.ceil(clients * 1.5)
    results.add("rate", hop.key, best)
    results.add("rate load", hop.key, load)
    if best and load < BUSY:
        results.at_least.add(("rate", hop.key))


async def held(hop: RunningHop, results: Results, back_end: BackEnd, *, streams: int, seconds: float) -> None:
    """Many streams at once, with an event a second each: how late events are, and what a stream takes."""
    await back_end.play(SLOW)
    request = hop.request(SMALL.size, stream=True)
    before = hop.program.memory().resident if hop.program else 0.0
    watched = [_Stream(hop.hop.port) for _ in range(streams)]
    try:
        await _open(watched, request)
        await asyncio.sleep(min(1.5, seconds))
        for stream in watched:
            stream.delays.clear()
        await asyncio.sleep(seconds)
        delays = [delay for stream in watched for delay in stream.delays]
        lost = sum(stream.lost for stream in watched)
        if lost or len(delays) < streams * (seconds - 1):
            raise Refused(f"{lost} of {streams} streams lost, {len(delays)} events in {seconds:.0f} s")
        results.add("held p99", hop.key, percentile(delays, 0.99) * 1e3)
        results.add("held longest", hop.key, max(delays) * 1e3)
        if hop.program and not results.of("held memory", hop.key):
            # Only the first time: later ones find what these have left.
            grown = hop.program.memory().resident - before
            results.add("held memory", hop.key, grown / streams * 1e3)
    finally:
        for stream in watched:
            stream.close()
        await asyncio.sleep(0.5)  # for the hop to see that they are gone


async def _open(watched: Sequence["_Stream"], request: bytes) -> None:
    """A few at a time: the crowd at the door is not what is measured."""
    few = asyncio.Semaphore(100)

    async def open_one(stream: _Stream) -> None:
        async with few:
            await stream.open(request)

    ended = await asyncio.gather(*map(open_one, watched), return_exceptions=True)
    refused = [end for end in ended if isinstance(end, BaseException)]
    if refused:
        raise Refused(f"{len(refused)} of {len(watched)} streams did not begin: {refused[0]}")


class _Stream:
    """One held stream, and how late each of its events was."""

    def __init__(self, port: int) -> None:
        self.delays: list[float] = []
        self._connection = Connection(port, self._saw)
        self._tail = b""
        self._began = asyncio.get_running_loop().create_future()
        self._answered: asyncio.Future[Answer] | None = None

    async def open(self, request: bytes) -> None:
        self._answered = await self._connection.send(request)
        await asyncio.wait({self._answered, self._began}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        if self._answered.done():
            raise Refused(f"status {self._answered.result().status}, and it was over")
        if not self._began.done():
            raise Refused("no event within 30 s")

    @property
    def lost(self) -> bool:
        return self._answered is None or self._answered.done()

    def close(self) -> None:
        if self._answered is not None and self._answered.done() and not self._answered.cancelled():
            self._answered.exception()
        self._connection.close()

    def _saw(self, body: bytes) -> None:
        now = time.monotonic_ns()
        seen = self._tail + body
        end = 0
        for stamp in STAMPED.finditer(seen):
            self.delays.append((now - int(stamp[1])) / 1e9)
            end = stamp.end()
        self._tail = seen[end:][-30:]
        if end and not self._began.done():
            self._began.set_result(None)


STAMPED = re.compile(rb"at:(\d+);")


async def soak(hop: RunningHop, results: Results, back_end: BackEnd, *, requests: int) -> None:
    """Memory in the course of many requests, from the first tenth on: whole answers and streams by turns."""
    clients, done, tenth = 8, 0, requests / 10
    due = tenth
    assert hop.program is not None
    for script in _alternating():
        await back_end.play(script)
        request = hop.request(SMALL.size, stream=script.streamed)
        done += len(await side_by_side(hop.hop.port, request, 1.0, clients))
        if done >= due:
            results.add("soak", hop.key, hop.program.memory().resident)
            due += tenth
        if done >= requests:
            return


def _alternating() -> Iterator[Script]:
    while True:
        yield from (WHOLE, WHOLE, WHOLE, AT_ONCE)


def memory(subject: Subject, results: Results, when: str) -> None:
    if subject.program is not None:
        found = subject.program.memory()
        results.add(f"memory {when}", subject.key, found.resident)
        results.add(f"proportional memory {when}", subject.key, found.proportional)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
