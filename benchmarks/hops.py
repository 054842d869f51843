"""What a hop through routeproxy costs, beside nginx, a bare relay and other gateways.

    python benchmarks/hops.py [--rounds 5] [--litellm PATH] [--ccr PATH] [--portkey PATH] [--json FILE]

A scripted back end answers at once, as chat completions and as Messages. Between it and the client stands one
hop at a time, pinned to one core, while back end and client share another; the hops that wait for their turn
are stopped. routeproxy runs as it would in earnest: one worker, teams with keys, rules, an invariant,
transforms, a line in the log for each request. Everything happens on loopback, and nothing needs a network,
unless `--install-peers` is said. Linux only.

Rounds are interleaved: each case goes round all hops before the next begins. Figures depend on the machine,
so compare only what one run printed. With all peers that takes half an hour. The table is Markdown, on
stdout; progress, and the bars that routeproxy sets itself, are on stderr.
"""

import argparse
import asyncio
import contextlib
import datetime
import json
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import uvloop
from hop import measure, peers, subjects, table
from hop.load import Refused
from hop.measure import CASES, turn_of
from hop.processes import CORES, LOAD_CORE, PROXY_CORE, allow_many_files, free_port, idle_share, pin
from hop.running import (
    BackEnd,
    RunningCall,
    RunningHop,
    Subject,
    first_answer,
    ready_call,
    started,
    started_call,
)
from hop.subjects import BareCall, Hop, NotHere, Place

OURS: dict[str, Callable[[Place], Hop]] = {
    "direct": subjects.direct,
    "nginx": subjects.nginx,
    "relay": subjects.relay,
    "routeproxy": subjects.routeproxy_direct,
    "routeproxy-counting": subjects.routeproxy_counting,
    "routeproxy-messages": subjects.routeproxy_messages,
    "routeproxy-litellm": subjects.routeproxy_litellm,
}
BARE_CALL = "acompletion"


class Extent(NamedTuple):
    """How much is measured."""

    rounds: int
    starts: int
    seconds: float
    """Of a case, a hop and a round."""
    streams: int
    held: float
    """Seconds that streams are held."""
    soak: int


def extent_of(arguments: argparse.Namespace) -> Extent:
    if arguments.quick:
        return Extent(1, 1, 0.1, min(arguments.held, 100), 1.5, arguments.soak)
    rounds = arguments.rounds
    return Extent(rounds, min(rounds, 3), 1.0, arguments.held, 10.0, arguments.soak)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


class Bench:
    """One run: what is started, in which order it is measured, and what came of it."""

    def __init__(self, place: Place, extent: Extent, results: table.Results, back_end: BackEnd) -> None:
        self._place = place
        self._extent = extent
        self._results = results
        self._back_end = back_end
        self._running: list[Subject] = []
        self._failed: set[tuple[str, str]] = set()
        self.ends = contextlib.ExitStack()

    async def run(self, hops: list[Hop], call: BareCall | None) -> None:
        await self._back_end.ready()
        await self._start(hops, call)
        for number in range(self._extent.rounds):
            await self._round(number)
        if self._extent.streams:
            for number in range(self._extent.starts):
                say(f"streams held, {number + 1} of {self._extent.starts}")
                held = partial(measure.held, streams=self._extent.streams, seconds=self._extent.held)
                await self._each_hop("held", held, number, lambda hop: True)
        for subject in self._running:
            measure.memory(subject, self._results, "after")
        if self._extent.soak:
            say(f"{self._extent.soak:,} requests")
            soak = partial(measure.soak, requests=self._extent.soak)
            await self._each_hop("soak", soak, 0, lambda hop: hop.key.startswith("routeproxy"))

    def derive(self) -> None:
        for subject in self._running:
            measure.derive(self._results, subject.key)

    async def _start(self, hops: list[Hop], call: BareCall | None) -> None:
        """The hops several times each, by turns; the last time they stay."""
        failed: set[str] = set()
        for number in range(self._extent.starts):
            stay = number + 1 == self._extent.starts
            for hop in hops:
                if hop.key in failed:
                    continue
                say(f"start {number + 1} of {self._extent.starts}: {hop.title}")
                try:
                    await self._start_hop(hop, stay=stay)
                except (Refused, OSError) as refused:
                    failed.add(hop.key)
                    self._results.note(f"{hop.title} did not start: {refused}")
        if call is not None:
            await self._start_call(call)

    async def _start_hop(self, hop: Hop, *, stay: bool) -> None:
        await self._back_end.play(measure.WHOLE)
        began = time.perf_counter()
        running = started(hop, self._place)
        with contextlib.ExitStack() as ends:
            if running.program is not None:
                ends.callback(running.program.end)
            await first_answer(running)
            if running.program is not None:
                self._results.add("start-up", hop.key, time.perf_counter() - began)
            if not stay:
                return
            self.ends.push(ends.pop_all())
        await self._settle(running)
        self._running.append(running)

    async def _settle(self, running: RunningHop) -> None:
        """Each case once, its answer looked into, and for a while so that a compiler can warm up."""
        await asyncio.sleep(1.0)  # what is loaded beside the first answers is part of it
        measure.memory(running, self._results, "before")
        with turn_of(running):
            for case in CASES:
                try:
                    await self._back_end.play(case.script)
                    await running.check(case.size, case.script)
                    await running.batch(case.size, case.script, self._extent.seconds, 3)
                except (Refused, ValueError, LookupError) as problem:
                    self._miss(running, case.key, problem)

    async def _start_call(self, call: BareCall) -> None:
        """Last, since it asks for what routeproxy asked for through LiteLLM."""
        pattern = next((one for one in self._running if one.key == "routeproxy-litellm"), None)
        if not isinstance(pattern, RunningHop):
            self._results.note(f"{call.title} alone: routeproxy through LiteLLM is not there to be compared")
            return
        say(f"start: {call.title}")
        running = started_call(call, self._place)
        self.ends.callback(running.program.end)
        try:
            await ready_call(running)
            measure.memory(running, self._results, "before")
            with turn_of(pattern):
                for case in CASES:
                    await self._record(case, pattern, running)
        except Refused as refused:
            self._results.note(f"{call.title} alone: {refused}")
            return
        with turn_of(running):
            for case in CASES:
                try:
                    await self._back_end.play(case.script)
                    await running.batch(case.size, case.script, self._extent.seconds, 3)
                except Refused as refused:
                    self._miss(running, case.key, refused)
        self._running.append(running)

    async def _record(self, case: measure.Case, pattern: RunningHop, running: RunningCall) -> None:
        await self._back_end.play(case.script)
        await pattern.batch(case.size, case.script, 0.0, 1)
        running.fields[case.size, case.script.streamed] = await self._back_end.asked()

    async def _round(self, number: int) -> None:
        for case in CASES:
            say(f"round {number + 1} of {self._extent.rounds}: {case.name}")
            for subject in self._in_turn(number):
                if (subject.key, case.key) not in self._failed:
                    with turn_of(subject):
                        try:
                            await measure.one_case(
                                subject, case, self._results, self._back_end, seconds=self._extent.seconds
                            )
                        except Refused as refused:
                            self._miss(subject, case.key, refused)
        say(f"round {number + 1} of {self._extent.rounds}: requests a second")
        rate = partial(measure.rate, seconds=self._extent.seconds)
        await self._each_hop("rate", rate, number, lambda hop: hop.program is not None)

    async def _each_hop(
        self,
        what: str,
        measured: Callable[[RunningHop, table.Results, BackEnd], Awaitable[None]],
        number: int,
        concerns: Callable[[RunningHop], bool],
    ) -> None:
        for subject in self._in_turn(number):
            if not isinstance(subject, RunningHop) or not concerns(subject):
                continue
            if (subject.key, what) in self._failed:
                continue
            with turn_of(subject):
                try:
                    await measured(subject, self._results, self._back_end)
                except Refused as refused:
                    self._miss(subject, what, refused)

    def _in_turn(self, number: int) -> Iterator[Subject]:
        """All subjects; each round another begins."""
        count = len(self._running)
        yield from (self._running[(number + place) % count] for place in range(count))

    def _miss(self, subject: Subject, what: str, problem: Exception) -> None:
        self._failed.add((subject.key, what))
        kind = "" if isinstance(problem, Refused) else f"{type(problem).__name__}: "
        words = f"{subject.title}: {kind}{problem}"
        if subject.program is not None and subject.program.ended:
            words += f"; it has ended: {subject.program.last_words()}"
        say(f"  {words} ({what})")
        self._results.miss(words, what)


def hops_of(arguments: argparse.Namespace, place: Place, results: table.Results) -> list[Hop]:
    """Those that were asked for and are here; of the others a note says why not."""
    wanted = arguments.only.split(",") if arguments.only else [*OURS, *peers.PEERS]
    hops: list[Hop] = []

    def add(name: str, make: Callable[[], Hop]) -> None:
        if name not in wanted:
            return
        try:
            hop = make()
        except NotHere as missing:
            say(f"{name}: {missing}")
            results.note(f"not measured: {name}: {missing}")
            return
        hops.append(hop)
        if hop.note:
            results.note(hop.note)

    for name, make in OURS.items():
        add(name, partial(make, place))
    for name, make_peer in peers.PEERS.items():
        given: Path | None = getattr(arguments, name)
        if given is not None:
            add(name, partial(make_peer, place, given.absolute()))
        elif arguments.install_peers:
            folder = place.folder / "installed" / name
            add(name, lambda: make_peer(place, peers.install(name, folder, say)))  # noqa: B023
    return hops


def caption(results: table.Results, extent: Extent, baseline: Hop | None) -> str:
    rounds = "one round" if extent.rounds == 1 else f"{extent.rounds} rounds: minimum – **median** – maximum"
    said = [f"{subjects.machine()}; {datetime.date.today()}; {rounds}."]
    if baseline:
        said.append(f"× is the ratio of medians to {baseline.title}.")
    if direct := results.median(f"whole p50 {measure.SMALL.key}", "direct"):
        said.append(f"A direct call, 1 kB, takes {direct:.2f} ms (p50).")
    if late := results.median("held longest", "direct"):
        said.append(f"With no hop between, the latest event of a held stream is {late:.1f} ms late.")
    said.append("One hop at a time on one core, back end and client on another.")
    if results.at_least:
        said.append("≥: back end and client were at their limit first.")
    return " ".join(said)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that all works")
    parser.add_argument("--only", help=f"some of {', '.join([*OURS, BARE_CALL, *peers.PEERS])}")
    parser.add_argument("--litellm", type=Path, help="bin/litellm of an environment with litellm[proxy]")
    parser.add_argument("--ccr", type=Path, help="the program of claude-code-router")
    parser.add_argument("--portkey", type=Path, help="the program of Portkey's gateway")
    parser.add_argument("--install-peers", action="store_true", help="install those for this run")
    parser.add_argument("--held", type=int, default=1000, help="streams held at once; 0 leaves it out")
    parser.add_argument("--soak", type=int, nargs="?", default=0, const=100_000, help="requests to soak with")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    return parser.parse_args()


def measured(arguments: argparse.Namespace, extent: Extent, results: table.Results) -> Hop | None:
    """All of it. Returns the hop that others are compared with, if there is one."""
    with contextlib.ExitStack() as ends:
        folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="hops-", ignore_cleanup_errors=True))
        place = Place(Path(folder), free_port())
        hops = hops_of(arguments, place, results)
        call = None
        if not arguments.only or BARE_CALL in arguments.only.split(","):
            call = subjects.bare_call(place)
        results.titles = {hop.key: hop.title for hop in hops if hop.command}
        if call is not None:
            results.titles[call.key] = call.title
        back_end = BackEnd(place.back_end, place.folder)
        ends.callback(back_end.program.end)
        bench = Bench(place, extent, results, back_end)
        ends.enter_context(bench.ends)
        try:
            uvloop.run(bench.run(hops, call))
        except KeyboardInterrupt:
            results.note("stopped before the end")
        bench.derive()
    return next((hop for hop in hops if hop.baseline and results.of("start-up", hop.key)), None)


def main() -> None:
    arguments = parsed()
    if sys.platform != "linux":
        sys.exit("this needs Linux")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    allow_many_files()
    idle = idle_share(1.0)
    if idle < 0.95:
        say(f"others use {1 - idle:.0%} of this machine: don't trust these figures")
    extent = extent_of(arguments)
    results = table.Results(measure.rows(extent.streams, extent.soak))
    if len(CORES) < 2:
        results.note("there was one core only, for hops, back end and client")
    pin(LOAD_CORE)
    baseline = measured(arguments, extent, results)
    key = baseline.key if baseline else None
    print(table.markdown(results, key, caption(results, extent, baseline)), flush=True)
    for bar in table.BARS:
        say(bar.said(results))
    if arguments.json:
        facts = {
            "machine": subjects.machine(),
            "date": str(datetime.date.today()),
            "idle_before": idle,
            "cores": {"hop": PROXY_CORE, "load": LOAD_CORE},
            "extent": extent._asdict(),
        }
        said = table.as_json(results, key, facts)
        arguments.json.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
