"""One process or several: uvicorn's server, told to stop without cutting anybody off, and the parent of
workers."""

import errno
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
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Protocol

import uvicorn
from litestar import Litestar

from routeproxy.web.response import InFlight
from routeproxy.web.server_protocol import HttpProtocol

log = logging.getLogger("routeproxy.processes")

KEEP_ALIVE = 75
"""Seconds. uvicorn's own 5 s race the connection pools of clients."""
LAST_WORDS = 3
"""Seconds that clients have to take what was written before the server stopped."""
BACKLOG = 2048
SWITCH = 0.001
"""Seconds that a thread may keep Python while the event loop waits for it (CPython's own: 5 ms)."""


class Serves(Protocol):
    """What a server runs."""

    in_flight: InFlight

    def build(self) -> Litestar: ...

    @property
    def drain(self) -> float:
        """Seconds that running answers may take when the server stops."""


class Server(uvicorn.Server):
    """uvicorn's, but told to stop it goes on answering while streams finish: with 503 to what is new, so that
    a load balancer sees why."""

    def __init__(
        self, app: Serves, *, owns_process: bool = False, at_exit: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app.build,
                factory=True,
                loop="uvloop",
                http=HttpProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=LAST_WORDS,
            )
        )
        self._app = app
        self._owns_process = owns_process
        self._at_exit = at_exit
        self._told: float | None = None
        """When it was told to stop."""
        self._said = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        sys.setswitchinterval(SWITCH)
        if self._owns_process:
            # What is there now is there to stay: a sweep through all of it stops every request for 20 ms.
            gc.freeze()
        await super().serve(sockets)
        if self._owns_process:
            # All is said and closed. Python would now wait for threads, of which one may be importing
            # LiteLLM.
            self._at_exit()
            logging.shutdown()
            os._exit(0)

    # uvicorn's own would raise the signal once more at the end, and the process would die of it.
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        else:
            self.stop(at_once=self._told is not None)

    def stop(self, *, at_once: bool = False) -> None:
        self._app.in_flight.draining = True
        self._told = -math.inf if at_once else time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        if self._told is not None and not self.should_exit:
            in_flight = self._app.in_flight
            left = self._told + self._app.drain - time.monotonic()
            if in_flight.responses and left > 0:
                if not self._said:
                    log.info("shutting down: %d open, %.0f s more at most", len(in_flight.responses), left)
                    self._said = True
            else:
                in_flight.end_all()
                self.should_exit = True
        return await super().on_tick(counter)


class Workers:
    """The processes of `--workers`: one that dies is replaced, signals are passed on. Their parent does
    nothing but wait for those."""

    SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)

    def __init__(self, work: Callable[[socket.socket], None], sock: socket.socket, number: int) -> None:
        """`work` is what each of them does; it is pickled, since workers start afresh."""
        self._work = work
        self._sock = sock
        self._number = number
        self._workers: list[SpawnProcess] = []

    def run(self) -> int:
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # by default it would not even be noticed
        resource_tracker.ensure_running()  # its start would lift the mask
        # Workers inherit the mask: whatever comes while one is starting reaches it once it is ready.
        signal.pthread_sigmask(signal.SIG_BLOCK, self.SIGNALS)
        self._workers = [self._start() for _ in range(self._number)]
        stopping = False
        while self._workers:
            received = signal.sigwait(self.SIGNALS)
            if received == signal.SIGHUP:
                self._tell(signal.SIGHUP)
            elif received == signal.SIGCHLD:
                self._bury(stopping)
            else:
                stopping = True
                self._tell(signal.SIGTERM)
        return 0

    def _start(self) -> SpawnProcess:
        worker = multiprocessing.get_context("spawn").Process(target=self._work, args=(self._sock,))
        worker.start()
        return worker

    def _tell(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.is_alive() and worker.pid is not None:
                os.kill(worker.pid, number)

    def _bury(self, stopping: bool) -> None:
        for worker in [worker for worker in self._workers if not worker.is_alive()]:
            self._workers.remove(worker)
            if not stopping:
                log.error(
                    "worker %s died (exit code %s): another takes its place", worker.pid, worker.exitcode
                )
                time.sleep(0.5)  # one that cannot start must not keep the machine busy
                self._workers.append(self._start())


def stop_with_parent(server: Server) -> None:
    """A parent that was killed can't say so, and its workers would keep the port."""

    def wait() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            server.stop()

    threading.Thread(target=wait, daemon=True).start()


def listen(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)  # whoever comes before the server is ready waits, instead of being refused
    except OSError as error:
        sock.close()
        why = "another program has it" if error.errno == errno.EADDRINUSE else error.strerror
        raise OSError(
            f"cannot listen on {host}:{port}: {why}. Choose another with --host and --port"
        ) from error
    return sock
