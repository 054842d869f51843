"""Builds the parts and runs uvicorn: the only place where everything meets."""

import asyncio
import errno
import ipaddress
import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

import tomli
import uvicorn
from dotenv import dotenv_values
from litestar import Litestar
from msgspec import Struct
from msgspec.structs import replace

import routeproxy
from routeproxy import tokens
from routeproxy.policy.compile import compile_rules
from routeproxy.policy.decide import Policy, Provider
from routeproxy.policy.environment import environment_policy
from routeproxy.policy.live import LiveRules
from routeproxy.policy.problems import RulesRefused
from routeproxy.proxy import Proxy
from routeproxy.telemetry import logs
from routeproxy.upstream.keys import Keys
from routeproxy.upstream.registry import Registry
from routeproxy.web.app import build_app
from routeproxy.web.auth import Door
from routeproxy.web.protocol import Http
from routeproxy.web.streaming import Live, Patience

log = logging.getLogger(__name__)

DEFAULT_RULES = Path("rules.toml")
KEEP_ALIVE = 75
"""Seconds. uvicorn's own 5 s race the connection pools of clients."""
LAST_WORDS = 3
"""Seconds that clients have to take what was written before the server stopped."""
BACKLOG = 2048


class Options(Struct, frozen=True, kw_only=True):
    """What the command line says; what is None is left to the rules file, then to the environment, then to a
    default."""

    rules: Path | None = None
    host: str | None = None
    port: int | None = None
    workers: int = 1
    log_level: str | None = None
    process_newlines: bool = False
    preserve_openai_newlines: bool = False
    allow_literal_keys: bool = False


class Sources(Struct, frozen=True):
    """Where the policy comes from: a rules file, or the environment alone; a `.env` beside either."""

    options: Options
    environ: Mapping[str, str]

    @property
    def rules(self) -> Path | None:
        return self.options.rules

    @property
    def files(self) -> list[Path]:
        """All that is read, there or not: what appears later counts too."""
        beside = [self.rules, self.rules.parent / ".env"] if self.rules else []
        return [*beside, Path(".env")]

    def variables(self) -> dict[str, str]:
        """The `.env` file's variables under those of the environment, which win."""
        for file in self.files:
            if file.name == ".env" and file.exists():
                return {name: value for name, value in dotenv_values(file).items() if value} | dict(
                    self.environ
                )
        return dict(self.environ)

    def token(self) -> str | None:
        """What clients must show."""
        return self.variables().get("ANTHROPIC_AUTH_TOKEN") or None

    def load(self) -> Policy:
        variables = self.variables()
        if self.rules is None:
            return environment_policy(
                variables,
                process_newlines=self.options.process_newlines,
                preserve_openai_newlines=self.options.preserve_openai_newlines,
            )
        text = self.rules.read_text(encoding="utf-8")
        return compile_rules(
            text, path=self.rules, environ=variables, allow_literal_keys=self.options.allow_literal_keys
        )

    def address(self, policy: Policy) -> tuple[str, int]:
        """Flags, then what the rules file states, then `HOST` and `PORT`, then the default. Raises
        `ValueError`."""
        variables, stated = self.variables(), {}
        if self.rules is not None:
            # The policy has every default filled in, so only the text tells what was said.
            text = self.rules.read_text(encoding="utf-8").removeprefix("\ufeff")
            stated = tomli.loads(text).get("server", {})
        host = self.options.host or (policy.server.host if "host" in stated else variables.get("HOST"))
        if self.options.port is not None:
            port = self.options.port
        elif "port" in stated or not variables.get("PORT"):
            port = policy.server.port
        elif (text := variables["PORT"]).isdecimal() and int(text) < 2**16:
            port = int(text)
        else:
            raise ValueError(f"PORT is `{text}`; expected a number from 0 to 65535")
        return host or policy.server.host, port


def find_rules(named: Path | None) -> Path | None:
    """The rules file that is meant: the one that was named, or the one that is there. Settled once: it does
    not change by itself."""
    return named or (DEFAULT_RULES if DEFAULT_RULES.exists() else None)


def serve(options: Options) -> int:
    """Runs until told to stop. Raises `RulesRefused`, `OSError` or `ValueError` when there is nothing to
    run."""
    sources = Sources(replace(options, rules=find_rules(options.rules)), dict(os.environ))
    policy = sources.load()
    host, port = sources.address(policy)
    configure_logs(sources)
    sock = listen(host, port)
    print("\n".join(in_force(policy, host, sock.getsockname()[1], sources)), file=sys.stderr, flush=True)
    if options.workers > 1:
        return Workers(sources, sock, options.workers).run()
    Server(App(sources, policy), owns_process=True).run([sock])
    return 0


def configure_logs(sources: Sources) -> None:
    level = sources.options.log_level
    logs.configure(sources.variables() | ({"LOG_LEVEL": level} if level else {}))


class App:
    """What one process serves."""

    def __init__(
        self, sources: Sources, policy: Policy | None = None, *, patience: Patience | None = None
    ) -> None:
        self._sources = sources
        self._policy = policy
        self._patience = patience
        self.live = Live()
        self.rules: LiveRules

    def build(self) -> Litestar:
        sources = self._sources
        rules = self.rules = LiveRules(sources.load, sources.files, self._policy)
        upstreams = Registry(signing_key=_signing_key(rules.policy))
        door = Door(sources.token())

        @asynccontextmanager
        async def lifespan(app: Litestar) -> AsyncIterator[None]:
            async with asyncio.TaskGroup() as tasks:
                background: set[asyncio.Task[object]] = set()

                def start(work: Coroutine[Any, Any, object]) -> None:
                    task = tasks.create_task(work)
                    background.add(task)
                    task.add_done_callback(background.discard)

                def prepare(policy: Policy) -> None:
                    door.expect(sources.token())
                    start(_prepare(upstreams, policy))

                rules.on_change.append(prepare)
                prepare(rules.policy)
                start(rules.follow())
                # Nobody waits for it, a shutdown least of all.
                threading.Thread(target=tokens.warm, daemon=True).start()
                with suppress(ValueError, RuntimeError):  # not in the main thread: a test's server
                    loop = asyncio.get_running_loop()
                    loop.add_signal_handler(signal.SIGHUP, lambda: start(rules.reload()))
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
                yield
                for task in tuple(background):
                    task.cancel()
            await upstreams.aclose()

        return build_app(
            Proxy(rules, upstreams, tokens.count),
            door=door,
            live=self.live,
            patience=self._patience,
            done=lambda exchange: logs.log_request(exchange.record()),
            lifespan=lifespan,
            problem=lambda: rules.problem,
        )


async def _prepare(upstreams: Registry, policy: Policy) -> None:
    try:
        await upstreams.prepare(policy)
    except Exception:
        # It is tried again when a request needs it, whose answer then says what is wrong.
        log.exception("a provider could not be prepared")


class Server(uvicorn.Server):
    """uvicorn's, but told to stop it goes on answering while streams finish: with 503 to what is new, so that
    a load balancer sees why."""

    def __init__(self, app: App, *, owns_process: bool = False) -> None:
        super().__init__(
            uvicorn.Config(
                app.build,
                factory=True,
                loop="uvloop",
                http=Http,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=LAST_WORDS,
            )
        )
        self._app = app
        self._owns_process = owns_process
        self._told: float | None = None
        """When it was told to stop."""
        self._said = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await super().serve(sockets)
        if self._owns_process:
            # All is said and closed. Python would now wait for threads, of which one may be importing
            # LiteLLM.
            logging.shutdown()
            os._exit(0)

    # uvicorn's own would raise the signal once more at the end, and the process would die of it.
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        else:
            self.stop(at_once=self._told is not None)

    def stop(self, *, at_once: bool = False) -> None:
        self._app.live.draining = True
        self._told = -math.inf if at_once else time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        if self._told is not None and not self.should_exit:
            live = self._app.live
            left = self._told + self._app.rules.policy.server.drain - time.monotonic()
            if live.answers and left > 0:
                if not self._said:
                    log.info(
                        "shutting down: %s may take up to %.0f s more",
                        _counted(len(live.answers), "answer"),
                        left,
                    )
                    self._said = True
            else:
                live.end_all()
                self.should_exit = True
        return await super().on_tick(counter)


class Workers:
    """The processes of `--workers`: one that dies is replaced, signals are passed on. Their parent does
    nothing but wait for those."""

    SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)

    def __init__(self, sources: Sources, sock: socket.socket, number: int) -> None:
        self._sources = sources
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
        worker = multiprocessing.get_context("spawn").Process(target=_work, args=(self._sources, self._sock))
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


def _work(sources: Sources, sock: socket.socket) -> None:
    # Not SIGINT: Ctrl-C reaches all processes of a terminal, and the parent says what it means.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGCHLD})
    configure_logs(sources)
    server = Server(App(sources, _first_policy(sources)), owns_process=True)
    threading.Thread(target=_stop_with_parent, args=(server,), daemon=True).start()
    server.run([sock])


def _stop_with_parent(server: Server) -> None:
    # A parent that was killed can't say so, and its workers would keep the port.
    if parent := multiprocessing.parent_process():
        parent.join()
        server.stop()


def _first_policy(sources: Sources) -> Policy:
    """For a worker that takes another's place the file may be broken by now: it joins the others once it is
    not."""
    said = ""
    while True:
        try:
            return sources.load()
        except (RulesRefused, OSError, ValueError) as refused:
            if said != str(refused):
                said = str(refused)
                log.error("a worker waits for rules that it can load:\n%s", refused)
            time.sleep(0.5)


def _signing_key(policy: Policy) -> bytes | None:
    secret = policy.server.signing_key
    return secret.value.encode() if secret is not None and secret.value else None


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


def in_force(policy: Policy, host: str, port: int, sources: Sources) -> list[str]:
    """What start-up says: first the address to open."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    open_at = everywhere.get(host, host)
    rules = f"{_counted(len(policy.rules), 'rule')} and a default"
    lines = [
        f"routeproxy {routeproxy.__version__}: http://{f'[{open_at}]' if ':' in open_at else open_at}:{port}"
        + (f" (listening on all addresses, {host})" if host in everywhere else ""),
        f"  rules      {policy.source}, version {policy.version}, {rules}",
    ]
    keys = Keys()
    lines += [f"  provider   {_provider_line(provider, keys)}" for provider in policy.providers.values()]
    if not policy.providers:
        lines.append("  provider   none")
    warnings = [str(problem) for problem in policy.warnings]
    if sources.token():
        lines.append("  clients    must show ANTHROPIC_AUTH_TOKEN")
    elif policy.server.require_key:
        lines.append("  clients    all refused: a key is required and none is set")
    else:
        lines.append("  clients    need no key")
        if not _is_loopback(host):
            warnings.insert(0, f"anybody who can reach {host}:{port} may use it: set ANTHROPIC_AUTH_TOKEN")
    return lines + ["  warning    " + warning.replace("\n", "\n             ") for warning in warnings]


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _provider_line(provider: Provider, keys: Keys) -> str:
    if provider.client_key:
        key = "key: the client's own"
    elif not provider.keys or any(secret.kind == "none" for secret in provider.keys):
        key = "needs no key"
    else:
        names = " or ".join(secret.reference for secret in provider.keys)
        key = f"key {names} is {'set' if keys.of(provider) else 'NOT SET'}"
    return f"{provider.name}  {provider.type}  {provider.base_url or '-'}  zone {provider.zone}  {key}"
