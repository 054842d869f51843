"""Builds the parts and runs uvicorn: the only place where everything meets."""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from dotenv import dotenv_values
from litestar import Litestar
from msgspec import Struct
from uvicorn.supervisors import Multiprocess

import routeproxy
from routeproxy import tokens
from routeproxy.policy.compile import compile_rules
from routeproxy.policy.decide import Policy, Provider
from routeproxy.policy.environment import environment_policy
from routeproxy.policy.live import LiveRules
from routeproxy.proxy import Proxy
from routeproxy.telemetry import logs
from routeproxy.upstream.keys import Keys
from routeproxy.upstream.registry import Registry
from routeproxy.web.app import build_app
from routeproxy.web.streaming import Live

log = logging.getLogger(__name__)

DEFAULT_RULES = Path("rules.toml")
KEEP_ALIVE = 75
"""Seconds. uvicorn's own 5 s race the connection pools of clients."""


class Options(Struct, frozen=True, kw_only=True):
    """What the command line says; what is None is left to the rules file, then to the environment, then to a default."""

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
        if self.options.rules is not None:
            return self.options.rules
        return DEFAULT_RULES if DEFAULT_RULES.exists() else None

    @property
    def dotenv(self) -> Path:
        beside = self.rules.parent / ".env" if self.rules else Path(".env")
        return beside if beside.exists() else Path(".env")

    @property
    def files(self) -> list[Path]:
        return [self.dotenv, *([self.rules] if self.rules else [])]

    def variables(self) -> dict[str, str]:
        """The `.env` file's variables under those of the environment, which win."""
        return {name: value for name, value in dotenv_values(self.dotenv).items() if value} | dict(self.environ)

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


def serve(options: Options) -> int:
    """Runs until told to stop. Raises `RulesRefused` or `OSError` when there is nothing to run."""
    sources = Sources(options, dict(os.environ))
    policy = sources.load()
    host, port = _address(options, policy)
    sock = _listen(host, port)
    print("\n".join(in_force(policy, host, sock.getsockname()[1], sources)), file=sys.stderr, flush=True)
    app = App(sources)
    config = uvicorn.Config(
        app.build,
        factory=True,
        workers=options.workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        # Ours ends the streams first; uvicorn's limit is for what does not let itself be ended.
        timeout_graceful_shutdown=int(policy.server.drain) + 5,
    )
    if options.workers > 1:
        Supervisor(config, [sock]).run()
    else:
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([sock])
    return 0


class Supervisor(Multiprocess):
    """uvicorn's, but a SIGHUP is passed on instead of restarting every worker."""

    def handle_hup(self) -> None:
        for process in self.processes:
            if process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)


class App:
    """What a worker process builds. Picklable, since workers are started afresh."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def build(self) -> Litestar:
        variables = self._sources.variables()
        level = self._sources.options.log_level
        logs.configure(variables | ({"LOG_LEVEL": level} if level else {}))
        rules = LiveRules(self._sources.load, self._sources.files)
        upstreams = Registry(signing_key=_signing_key(rules.policy))
        live = Live()

        @asynccontextmanager
        async def lifespan(app: Litestar) -> AsyncIterator[None]:
            loop = asyncio.get_running_loop()
            async with asyncio.TaskGroup() as tasks:

                def prepare(policy: Policy) -> None:
                    tasks.create_task(upstreams.prepare(policy))

                def reload() -> None:
                    tasks.create_task(rules.reload())

                rules.on_change.append(prepare)
                prepare(rules.policy)
                threading.Thread(target=tokens.warm, daemon=True).start()  # nobody waits for it, a shutdown least of all
                following = tasks.create_task(rules.follow())
                with suppress(ValueError, RuntimeError):  # not in the main thread: a test's server
                    loop.add_signal_handler(signal.SIGHUP, reload)
                _drain_upon_exit(loop, live, rules)
                yield
                with suppress(ValueError, RuntimeError):
                    loop.remove_signal_handler(signal.SIGHUP)
                following.cancel()
            await upstreams.aclose()

        return build_app(
            Proxy(rules, upstreams, tokens.count),
            token=variables.get("ANTHROPIC_AUTH_TOKEN") or None,
            live=live,
            done=lambda exchange: logs.log_request(exchange.record()),
            lifespan=lifespan,
            problem=lambda: rules.problem,
        )


def _drain_upon_exit(loop: asyncio.AbstractEventLoop, live: Live, rules: LiveRules) -> None:
    """SIGTERM and Ctrl-C, besides what uvicorn does upon them: not ready any more, and an end to streams that take too long."""

    def begin() -> None:
        if not live.draining:
            live.draining = True
            if len(live):
                log.info("shutting down: %d answers may take up to %g s more", len(live), rules.policy.server.drain)
            loop.call_later(rules.policy.server.drain, live.end_all)
        else:
            live.end_all()  # told twice: at once

    for number in (signal.SIGINT, signal.SIGTERM):
        uvicorns = signal.getsignal(number)

        def handle(received: int, frame: FrameType | None, uvicorns: Any = uvicorns) -> None:
            loop.call_soon_threadsafe(begin)
            if callable(uvicorns):
                uvicorns(received, frame)

        with suppress(ValueError):  # likewise
            signal.signal(number, handle)


def _signing_key(policy: Policy) -> bytes | None:
    secret = policy.server.signing_key
    return secret.value.encode() if secret is not None and secret.value else None


def _address(options: Options, policy: Policy) -> tuple[str, int]:
    host = options.host or policy.server.host
    return host, policy.server.port if options.port is None else options.port


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}. Choose another with --host and --port") from error
    sock.set_inheritable(True)
    return sock


def in_force(policy: Policy, host: str, port: int, sources: Sources) -> list[str]:
    """What start-up says: first the address to open."""
    shown = f"[{host}]" if ":" in host else host
    lines = [
        f"routeproxy {routeproxy.__version__}: http://{shown}:{port}",
        f"  rules      {policy.source}, version {policy.version}, {len(policy.rules)} rules and a default",
    ]
    keys = Keys()
    lines += [f"  provider   {_provider_line(provider, keys)}" for provider in policy.providers.values()]
    if not policy.providers:
        lines.append("  provider   none")
    token = bool(sources.variables().get("ANTHROPIC_AUTH_TOKEN"))
    lines.append("  clients    " + ("must show ANTHROPIC_AUTH_TOKEN" if token else _door(policy, host)))
    lines += [f"  warning    {problem}" for problem in policy.warnings]
    return lines


def _door(policy: Policy, host: str) -> str:
    if policy.server.require_key:
        return "all refused: a key is required and none is set"
    return "need no key" + ("" if host in ("127.0.0.1", "::1", "localhost") else ", and anybody on the network is one")


def _provider_line(provider: Provider, keys: Keys) -> str:
    if not provider.keys or any(secret.kind == "none" for secret in provider.keys):
        key = "needs no key"
    else:
        names = " or ".join(f"{secret.kind}:{secret.name}" for secret in provider.keys)
        key = f"key {names} is {'set' if keys.of(provider) else 'NOT SET'}"
    return f"{provider.name}  {provider.type}  {provider.base_url or '-'}  zone {provider.zone}  {key}"
