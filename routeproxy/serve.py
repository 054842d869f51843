"""Builds the parts and runs uvicorn: the only place where everything meets."""

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from litestar import Litestar
from msgspec.structs import replace

import routeproxy
from routeproxy import tokens
from routeproxy.policy.decide import Policy, Provider
from routeproxy.policy.live import LiveRules
from routeproxy.policy.problems import RulesRefused
from routeproxy.processes import Server, Workers, listen, stop_with_parent
from routeproxy.proxy import Proxy
from routeproxy.sources import Options, Sources, find_rules
from routeproxy.telemetry import logs
from routeproxy.upstream.keys import Keys
from routeproxy.upstream.registry import Registry
from routeproxy.web.app import build_app
from routeproxy.web.auth import Door
from routeproxy.web.streaming import Live, Patience

log = logging.getLogger(__name__)


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
        return Workers(partial(_work, sources), sock, options.workers).run()
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

    @property
    def drain(self) -> float:
        return self.rules.policy.server.drain

    def build(self) -> Litestar:
        sources = self._sources
        rules = self.rules = LiveRules(sources.load, sources.files, self._policy)
        upstreams = Registry(_signing_key(rules.policy), sources.variables())
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


def _work(sources: Sources, sock: socket.socket) -> None:
    # Not SIGINT: Ctrl-C reaches all processes of a terminal, and the parent says what it means.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGCHLD})
    configure_logs(sources)
    server = Server(App(sources, _first_policy(sources)), owns_process=True)
    stop_with_parent(server)
    server.run([sock])


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
    # A line each: `check` shows them whole.
    warnings = [str(problem).partition("\n")[0] for problem in policy.warnings]
    if sources.token():
        lines.append("  clients    must show ANTHROPIC_AUTH_TOKEN")
    elif policy.server.require_key:
        lines.append("  clients    all refused: a key is required and none is set")
    else:
        lines.append("  clients    need no key")
        if not _is_loopback(host):
            warnings.insert(0, f"anybody who can reach {host}:{port} may use it: set ANTHROPIC_AUTH_TOKEN")
    return lines + [f"  warning    {warning.replace(': warning ', ': ')}" for warning in warnings]


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
