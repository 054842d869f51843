"""A real routeproxy on loopback: `running` has it in a thread of this process, `serving` as the command that
users run."""

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from routeproxy.listening import Address, listen
from routeproxy.observe import Observer
from routeproxy.policy.live.live_rules import LiveRules
from routeproxy.processes import Server
from routeproxy.serve import App, live_rules, refuse_strangers, startup_lines
from routeproxy.shared_records import SharedRecords, SomeRecord
from routeproxy.sources import Options, Sources
from routeproxy.upstream.health import CircuitRecord
from routeproxy.upstream.litellm.setup import import_litellm
from routeproxy.upstream.registry import needs_litellm
from routeproxy.upstream.shared_state import SharedState
from routeproxy.upstream.spread import MovedRecord
from routeproxy.web.protocols import PROTOCOLS, ClientProtocol
from routeproxy.web.response import StreamTimings
from tests.budgets import seconds

ECHO = """\
[providers.echo]

[default]
targets = ["echo/*"]
"""
"""The smallest rules that answer."""

Result = TypeVar("Result")


class Running:
    """A server in a thread of this process, and what it was built from."""

    def __init__(self, url: str, app: App, rules: Path, server: Server) -> None:
        self.url = url
        self.app = app
        self.rules = rules
        self._server = server

    @property
    def tasks(self) -> list[str]:
        """What is at work in the server, by the names of its coroutines."""
        tasks = asyncio.all_tasks(self._server.servers[0].get_loop())
        return sorted(getattr(task.get_coro(), "__qualname__", "") for task in tasks)

    def post(self, body: object, path: str = "/v1/messages", **headers: str) -> httpx.Response:
        """A POST, answered whole. Header names are written with underscores."""
        return post(self.url, body, path, **headers)

    def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        return get(self.url, path, method, **headers)


class ForgetsFailures(SharedState):
    """Each request finds all targets and keys as good as new."""

    def __init__(self) -> None:
        super().__init__()
        self.circuits = _NewRecords(CircuitRecord, 1, shared=False)
        self.moved = _NewRecords(MovedRecord, 1, shared=False)


class _NewRecords(SharedRecords[SomeRecord]):
    def find(self, id: int) -> SomeRecord:
        return self._kind(id)


@contextmanager
def running(
    rules: str,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    *,
    options: Options | None = None,
    timings: StreamTimings | None = None,
    protocols: Sequence[ClientProtocol] = PROTOCOLS,
    observers: Sequence[Observer] = (),
    host: str = "127.0.0.1",
    remembers: bool = False,
) -> Iterator[Running]:
    """Serves `rules` (TOML) until the block ends. Only the variables in `environ` exist for it. It listens on
    127.0.0.1, and takes that for `host`. It `remembers` which targets have failed only where that is asked
    for: the tests of a module may then share it, whatever their back ends do."""
    path = folder / "rules.toml"
    path.write_text(rules, encoding="utf-8")
    sources = Sources(options or Options(rules=path), dict(environ or {}))
    versions = options.last_good if options is not None else None
    live = live_rules(sources, versions or folder / ".versions")
    state = SharedState() if remembers else ForgetsFailures()
    with _running(sources, live, path, timings, protocols, observers, host, state) as server:
        yield server


@contextmanager
def running_without_rules(
    folder: Path, environ: Mapping[str, str] | None = None
) -> Iterator[tuple[Running, list[str]]]:
    """Serves what these variables and the `.env` of the working folder say; with the lines that start-up
    prints. Raises what `serve` would raise."""
    sources = Sources(Options(), dict(environ or {}))
    live = live_rules(sources, folder / ".versions")
    address = sources.address(live.policy)
    refuse_strangers(sources, address.host, live.policy)
    lines = startup_lines(live.policy, address.host, address.port, sources)
    with _running(sources, live, folder / "rules.toml", host=address.host) as server:
        yield server, lines


@contextmanager
def _running(
    sources: Sources,
    live: LiveRules,
    path: Path,
    timings: StreamTimings | None = None,
    protocols: Sequence[ClientProtocol] = PROTOCOLS,
    observers: Sequence[Observer] = (),
    host: str = "127.0.0.1",
    state: SharedState | None = None,
) -> Iterator[Running]:
    if needs_litellm(live.policy):
        import_litellm()  # before a test that is in a hurry
    app = App(
        sources, live, timings=timings, protocols=protocols, observers=observers, host=host, state=state
    )
    sock = listen(Address("127.0.0.1", 0))
    server = Server(app)
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    limit = time.monotonic() + seconds(10)
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < limit, "the server did not start in time"
        time.sleep(0.005)
    try:
        yield Running(f"http://127.0.0.1:{sock.getsockname()[1]}", app, path, server)
    finally:
        server.stop(at_once=True)
        thread.join(seconds(15))


_ADDRESS = re.compile(r"http://[\w.:\[\]]+")


class Served:
    """`routeproxy serve`, a process of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    @cached_property
    def url(self) -> str:
        """The address that the server prints at its start. From then on it takes connections, though it may
        not answer yet."""
        address = until(
            lambda: re.search(r"http://[\w.:\[\]]+", self.stderr) or self.process.poll() is not None, 10
        )
        assert isinstance(address, re.Match), self.stderr
        return address[0]

    @property
    def stderr(self) -> str:
        """All that it has written to stderr so far."""
        return self._log.read_text()

    @property
    def workers(self) -> set[int]:
        """The ids of its child processes that answer requests."""
        ps = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True)
        processes = [line.split(None, 2) for line in ps.stdout.splitlines()]
        own_id = str(self.process.pid)
        return {int(pid) for pid, parent, args in processes if parent == own_id and "spawn_main" in args}

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self, within: float = 5) -> int:
        return self.process.wait(seconds(within))

    def post(self, body: object, path: str = "/v1/messages", **headers: str) -> httpx.Response:
        return post(self.url, body, path, **headers)

    def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        return get(self.url, path, method, **headers)


@contextmanager
def serving(
    folder: Path, *flags: str, environ: Mapping[str, str] | None = None, descriptors: int | None = None
) -> Iterator[Served]:
    """`routeproxy serve` in `folder`, with these flags and variables, and as many file descriptors."""

    def limit() -> None:
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    log = folder / "stderr.txt"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "routeproxy", "serve", *flags],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **(environ or {})},
            stderr=stderr,
            preexec_fn=limit if descriptors is not None else None,
            start_new_session=True,  # so that a test can press Ctrl-C
        )
    try:
        yield Served(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def post(url: str, body: object, path: str = "/v1/messages", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with httpx.Client(timeout=seconds(30)) as client:
        return client.post(url + path, content=content, headers=_named(headers))


def get(url: str, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    with httpx.Client(timeout=seconds(30)) as client:
        return client.request(method, url + path, headers=_named(headers))


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"content-type": "application/json"} | named


def until(condition: Callable[[], Result], usual: float = 2.0) -> Result:
    """The result of `condition` once it is true; fails the test after `seconds(usual)` without one."""
    limit = time.monotonic() + seconds(usual)
    while not (result := condition()):
        assert time.monotonic() < limit, f"not within {seconds(usual)} s"
        time.sleep(0.02)
    return result


def request(text: str = "Hi", **fields: object) -> dict[str, object]:
    """The smallest request, and what a test adds to it."""
    return {
        "model": "claude-sonnet-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": text}],
        **fields,
    }


def events(text: str) -> list[str]:
    """The names of a stream's events, in order."""
    return [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]


# --- below HTTP clients


def connect(url: str) -> socket.socket:
    """A bare connection, for what HTTP clients hide."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=seconds(5))


def request_bytes(body: object, path: str = "/v1/messages", method: str = "POST", **headers: str) -> bytes:
    """A request as it goes over the wire."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"host": "127.0.0.1", "content-length": str(len(content)), **_named(headers)}
    head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + content


def receive_until(sock: socket.socket, *words: bytes) -> bytes:
    """The bytes that come until all `words` are among them; without words, until the end."""
    received = b""
    while not words or not all(word in received for word in words):
        data = sock.recv(65536)
        if not data:
            break
        received += data
    return received
