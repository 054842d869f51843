"""One process or several: uvicorn's server, which stops without cutting answers off, and the parent of
workers. What is served is none of its business."""

import asyncio
import gc
import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Protocol, cast

import uvicorn
from litestar import Litestar

from routeproxy.allocator import return_large_blocks
from routeproxy.descriptors import most_clients
from routeproxy.listening import BACKLOG
from routeproxy.policy.server import ServerSettings
from routeproxy.web.http_protocol import HttpProtocol, Room
from routeproxy.web.response import InFlight

log = logging.getLogger("routeproxy.processes")

NEVER = 86_400
"""Seconds. uvicorn's own timer for idle connections, which ours closes (`HttpProtocol.check_time`)."""
TICKS = 5
"""Tenths of a second between looks at the time that clients take."""
FLUSH_SECONDS = 3
"""How long clients have to take what was written before the server stopped."""
SWITCH_INTERVAL = 0.001
"""Seconds that a thread may keep Python while the event loop waits for it (CPython's own: 5 ms)."""


class ServedApp(Protocol):
    """The application that a server runs."""

    in_flight: InFlight

    def build(self) -> Litestar:
        """The ASGI application. Called once, in the process that serves it."""

    @property
    def drain(self) -> float:
        """Seconds that running answers may take when the server stops."""

    def close(self) -> None:
        """Called once everything is answered."""

    @property
    def settings(self) -> ServerSettings:
        """Those in force."""


class Server(uvicorn.Server):
    """uvicorn's server, but while it stops, streams may finish, and new requests are answered with 503, so
    that a load balancer sees why."""

    def __init__(
        self,
        app: ServedApp,
        *,
        owns_process: bool = False,
        at_exit: Callable[[], None] = lambda: None,
        others: Sequence[socket.socket] = (),
    ) -> None:
        """`others`: the sockets of other workers. What waits at one that has died, or is not ready yet, is
        answered here."""
        super().__init__(
            uvicorn.Config(
                app.build,
                factory=True,
                loop="uvloop",
                http=cast(type[HttpProtocol], partial(HttpProtocol, room=Room(most_clients()))),
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_keep_alive=NEVER,
                timeout_graceful_shutdown=FLUSH_SECONDS,
            )
        )
        self._app = app
        self._owns_process = owns_process
        self._at_exit = at_exit
        self._others = others
        for sock in others:
            sock.setblocking(False)
        self._stopping_since: float | None = None
        """On the monotonic clock; -inf if running answers are not waited for."""
        self._drain_logged = False
        self._checked = time.monotonic()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL)
        if self._owns_process:
            # What exists now stays: a sweep through all of it would stop every request for 20 ms.
            gc.freeze()
            return_large_blocks()
        await super().serve(sockets)
        self._app.close()
        if self._owns_process:
            # Every answer is written. Python would now wait for its threads, one of which may be importing
            # LiteLLM.
            self._at_exit()
            logging.shutdown()
            os._exit(0)

    # uvicorn's own would raise the signal once more at the end, and the process would die of it.
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        else:
            self.stop(at_once=self._stopping_since is not None)

    def stop(self, *, at_once: bool = False) -> None:
        """Stops the server once running answers are over, or after `drain` seconds; `at_once` ends them with
        an error. Returns immediately, and may be called from any thread."""
        self._app.in_flight.draining = True
        self._stopping_since = -math.inf if at_once else time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        if self._others and self._stopping_since is None:
            await self._help_others()
        if counter % TICKS == 0:
            now = time.monotonic()
            # What clients sent while the loop was busy has not been read yet.
            elapsed = min(now - self._checked, TICKS / 5)
            self._checked = now
            settings = self._app.settings
            for connection in tuple(self.server_state.connections):
                cast(HttpProtocol, connection).check_time(elapsed, settings)
        if self._stopping_since is not None and not self.should_exit:
            in_flight = self._app.in_flight
            remaining = self._stopping_since + self._app.drain - time.monotonic()
            if in_flight.responses and remaining > 0:
                if not self._drain_logged:
                    log.info(
                        "shutting down: %d open, %.0f s more at most", len(in_flight.responses), remaining
                    )
                    self._drain_logged = True
            else:
                in_flight.end_all()
                self.should_exit = True
        return await super().on_tick(counter)

    async def _help_others(self) -> None:
        """Ten times a second: a worker that lives takes its connections long before."""
        loop = asyncio.get_running_loop()
        for sock in self._others:
            with suppress(OSError):  # as a rule, that nobody waits
                while True:
                    connection, _ = sock.accept()
                    connection.setblocking(False)
                    await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        """As uvicorn makes those of its own connections."""
        make = cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


class Workers:
    """The processes of `--workers`, seen from their parent, which only waits for signals: it passes them on,
    and replaces a worker that dies."""

    SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)

    def __init__(
        self,
        work: Callable[[Sequence[socket.socket], Sequence[socket.socket]], None],
        sockets: Sequence[socket.socket],
        shared: Sequence[socket.socket],
        number: int,
        on_death: Callable[[int], object] = lambda process: None,
    ) -> None:
        """`work` is what each worker runs, with its own sockets and those of the others; it is pickled, since
        a worker is a fresh interpreter. `sockets`: one for each worker, or one for all; `shared`: more that
        all have. `on_death` is told the process that is gone."""
        self._work = work
        self._sockets = sockets
        self._shared = shared
        self._on_death = on_death
        self._number = number
        self._workers: list[SpawnProcess] = []
        self._places: dict[int | None, int] = {}
        """By process, which of the sockets is its own. The parent has all, so what waits at one outlives its
        worker."""

    def run(self) -> int:
        """Returns the exit code once all workers have ended."""
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # ignored signals never reach `sigwait`
        resource_tracker.ensure_running()  # its start would lift the mask
        # Workers inherit the mask: a signal that comes while one is starting reaches it once it is ready.
        signal.pthread_sigmask(signal.SIG_BLOCK, self.SIGNALS)
        self._workers = [self._start(place) for place in range(self._number)]
        stopping = False
        while self._workers:
            received = signal.sigwait(self.SIGNALS)
            if received == signal.SIGHUP:
                self._signal_workers(signal.SIGHUP)
            elif received == signal.SIGCHLD:
                self._replace_dead(stopping)
            else:
                stopping = True
                self._signal_workers(signal.SIGTERM)
        return 0

    def _start(self, place: int) -> SpawnProcess:
        own = self._sockets[place % len(self._sockets)]
        others = [sock for sock in self._sockets if sock is not own]
        arguments = ([own, *self._shared], others)
        worker = multiprocessing.get_context("spawn").Process(target=self._work, args=arguments)
        worker.start()
        self._places[worker.pid] = place
        return worker

    def _signal_workers(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.is_alive() and worker.pid is not None:
                os.kill(worker.pid, number)

    def _replace_dead(self, stopping: bool) -> None:
        for worker in [worker for worker in self._workers if not worker.is_alive()]:
            self._workers.remove(worker)
            place = self._places.pop(worker.pid)
            if worker.pid is not None:
                self._on_death(worker.pid)
            if not stopping:
                log.error(
                    "worker %s died (exit code %s): another takes its place", worker.pid, worker.exitcode
                )
                time.sleep(0.5)  # a worker that cannot start must not keep the machine busy
                self._workers.append(self._start(place))


def stop_with_parent(server: Server) -> None:
    """Stops a worker's server when its parent ends: a parent that is killed sends no signal, and its workers
    would keep the port."""

    def wait() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            server.stop()

    threading.Thread(target=wait, daemon=True).start()


CLIENT_SECONDS = 0.3
"""How often a server that was started for a client looks whether that is still there."""


def stop_with_client(server: Server, client: int) -> None:
    """Stops a server at once when the process ends that started it, and for which alone it is there."""

    def wait() -> None:
        while os.getppid() == client:
            time.sleep(CLIENT_SECONDS)
        server.stop(at_once=True)

    threading.Thread(target=wait, daemon=True).start()
