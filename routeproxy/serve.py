"""Builds the parts and runs uvicorn: the only place where everything meets."""

import asyncio
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from litestar import Litestar
from msgspec.structs import replace

import routeproxy
from routeproxy import tokens
from routeproxy.audit.trail import AuditTrail, audit_problem
from routeproxy.claude_code import NO_KEY, SOME_KEY, client_variables, in_shell, passes_logins_on
from routeproxy.descriptors import raise_limit
from routeproxy.ledger.opening import settings_problem
from routeproxy.ledger.recorder import Recorder
from routeproxy.listening import ALL_ADDRESSES, Address, listen, listen_for_workers, resolve, url_of
from routeproxy.metrics import families
from routeproxy.metrics.counting import Metrics
from routeproxy.metrics.service import MetricsService
from routeproxy.metrics.snapshot import Snapshot
from routeproxy.metrics.workers import MetricsFolder
from routeproxy.observe import Observer, Observers
from routeproxy.policy.compile.connections import is_loopback
from routeproxy.policy.decide import Policy
from routeproxy.policy.explain import HEALTHY
from routeproxy.policy.live.live_rules import LiveRules
from routeproxy.policy.live.versions import NoSuchVersion, Versions
from routeproxy.policy.problems import Code, Problem, RulesRefused
from routeproxy.policy.providers import Provider
from routeproxy.policy.server import ServerSettings
from routeproxy.processes import Server, Workers, stop_with_client, stop_with_parent
from routeproxy.proxy import Proxy
from routeproxy.sources import Options, Sources, find_rules
from routeproxy.telemetry import logs
from routeproxy.telemetry.decisions import DecisionLog
from routeproxy.telemetry.reload_log import ReloadLog
from routeproxy.telemetry.request_log import RequestLog
from routeproxy.traces.exporter import TraceExporter
from routeproxy.traces.ids import TraceIds
from routeproxy.upstream.ambient import export_credentials
from routeproxy.upstream.keys import Keys, SecretFiles, secrets_of
from routeproxy.upstream.registry import Registry, signing_key_of
from routeproxy.upstream.shared_state import SharedState
from routeproxy.web.admin import target_states
from routeproxy.web.app import RouteproxyApp, build_app
from routeproxy.web.auth import Authenticator
from routeproxy.web.protocols import PROTOCOLS, ClientProtocol
from routeproxy.web.response import InFlight, StreamTimings

log = logging.getLogger("routeproxy.serve")


def serve(options: Options) -> int:
    """Runs until told to stop. Raises `RulesRefused`, `OSError` or `ValueError` when there is nothing to
    run."""
    sources = Sources.opened(replace(options, rules=find_rules(options.rules)), dict(os.environ))
    configure_logs(sources)
    try:
        return _serve(sources, options)
    finally:
        logs.flush()  # before it is said why there is nothing to run


def _serve(sources: Sources, options: Options) -> int:
    with _folder_for_versions(options) as folder:
        rules = live_rules(sources, folder)
        policy = rules.policy
        address = sources.address(policy)
        host = address.host
        resolve(address)  # a name that is none must not be called open to everybody
        refuse(sources, host, policy)
        raise_limit()
        export_credentials(sources.variables())
        listening, shared = listen_for_workers(address, options.workers), _listen_for_metrics(policy)
        lines = startup_lines(policy, host, listening[0].getsockname()[1], sources, rules.problem)
        logs.print_banner(lines)
        if options.workers > 1:
            state = SharedState(shared=True)
            with _metrics_folder() as metrics:
                work = partial(_work, sources, folder, host, state, metrics)
                return Workers(work, listening, shared, options.workers, partial(_bury, metrics)).run()
        rules.guard = partial(refuse, sources, host)
        sockets = [*listening, *shared]
        app = App(sources, rules, host=host, metrics_port=_metrics_port(sockets))
        server = Server(app, owns_process=True, at_exit=partial(_delete, options, folder))
        if options.session_of is not None:
            stop_with_client(server, options.session_of)
        server.run(sockets)
    return 0


def _listen_for_metrics(policy: Policy) -> list[socket.socket]:
    """A socket for the address that `[telemetry] metrics` names, if it names one. Raises `OSError`."""
    if policy.telemetry.metrics is None:
        return []
    host, _, port = policy.telemetry.metrics.rpartition(":")
    return [listen(Address(host.strip("[]"), int(port)))]


@contextmanager
def _metrics_folder() -> Iterator[MetricsFolder | None]:
    """Where workers tell each other what they have counted; `None`: no folder can be made."""
    try:
        path = Path(tempfile.mkdtemp(prefix="routeproxy-metrics-", dir=_writable_folder()))
    except OSError as error:
        log.warning("metrics are those of one worker alone, since no folder can be made: %s", error)
        yield None
        return
    try:
        yield MetricsFolder(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _bury(metrics: MetricsFolder | None, process: int) -> None:
    if metrics is not None:
        try:
            metrics.bury(process)
        except OSError as error:
            log.error("what worker %s has counted is lost: %s", process, error)


def live_rules(sources: Sources, folder: Path) -> LiveRules:
    load = partial(sources.read, gives_way=True)
    return LiveRules(load, sources.restore, sources.files, Versions(folder))


@contextmanager
def _folder_for_versions(options: Options) -> Iterator[Path]:
    """Where the versions are kept that were in force: a folder that was named, or one that goes with us."""
    if options.last_good is not None:
        yield options.last_good
        return
    try:
        folder = Path(tempfile.mkdtemp(prefix="routeproxy-", dir=_writable_folder()))
    except OSError as error:
        log.warning("no version can be kept for a rollback, since no folder for it can be made: %s", error)
        folder = Path(os.devnull, "routeproxy")
    try:
        yield folder
    finally:
        _delete(options, folder)


def _writable_folder() -> str:
    """Raises `OSError` if there is none: in a container with nothing writable there may still be memory."""
    try:
        return tempfile.gettempdir()
    except OSError:
        return "/dev/shm"


def _delete(options: Options, folder: Path) -> None:
    if options.last_good is None:
        shutil.rmtree(folder, ignore_errors=True)


def refuse(sources: Sources, host: str, policy: Policy) -> None:
    """Raises `ValueError` for what is not served. A reload must not bring in what start-up would refuse."""
    refuse_strangers(sources, host, policy)
    if policy.ledger is not None and (problem := settings_problem(policy.ledger)):
        raise ValueError(problem)
    if policy.audit is not None and (problem := audit_problem(policy.audit, SecretFiles().value)):
        raise ValueError(problem)


def refuse_strangers(sources: Sources, host: str, policy: Policy) -> None:
    """Raises `ValueError` where everybody on the network would be a client."""
    if is_loopback(host) or sources.options.insecure or Authenticator(policy, sources.token()).needs_key:
        return
    raise ValueError(
        f"anybody who can reach {host} could use this server and its provider keys. Write keys for teams "
        "(`routeproxy keys new TEAM` makes one), set ANTHROPIC_AUTH_TOKEN, listen on 127.0.0.1, or say "
        "--insecure if that is what you want"
    )


def configure_logs(sources: Sources) -> None:
    options = sources.options
    flags = {"LOG_LEVEL": options.log_level, "LOG_FORMAT": options.log_format}
    logs.configure(sources.variables() | {name: value for name, value in flags.items() if value})


class App:
    """What one process serves."""

    def __init__(
        self,
        sources: Sources,
        rules: LiveRules,
        *,
        timings: StreamTimings | None = None,
        protocols: Sequence[ClientProtocol] = PROTOCOLS,
        observers: Sequence[Observer] = (),
        host: str = "127.0.0.1",
        state: SharedState | None = None,
        metrics_folder: MetricsFolder | None = None,
        metrics_port: int | None = None,
    ) -> None:
        """`observers`: who listens besides the logs. `host`: what the server listens on. `state`: what other
        workers know, too; `metrics_folder`: where they tell what they count. `metrics_port`: that of the
        listener for metrics."""
        self.state = state
        self._metrics_port = metrics_port
        self._host = host
        self._sources = sources
        self.rules = rules
        self._timings = timings
        self._protocols = protocols
        self._observers = observers
        self.in_flight = InFlight(of_a_session=sources.options.session_of is not None)
        self._decision_log = DecisionLog(rules.policy)
        self._metrics = MetricsService(Metrics(rules.policy), metrics_folder)
        self._traces = TraceExporter(rules.policy)
        counts = [self._metrics.take, self._traces.take]
        self._recorder = Recorder(rules.policy, SecretFiles().value, counts)
        self._metrics.recorder = self._recorder
        self._trail = AuditTrail(rules.policy, rules.bundle, SecretFiles().value)

    @property
    def recorder(self) -> Recorder:
        return self._recorder

    @property
    def settings(self) -> ServerSettings:
        return self.rules.policy.server

    @property
    def drain(self) -> float:
        return self.rules.policy.server.drain

    def close(self) -> None:
        self._decision_log.close()
        self._trail.close()
        self._recorder.close()
        self._traces.close()

    def _counters(self) -> Mapping[str, object]:
        lost = {"log_lines_lost": logs.lost_lines(), "decisions_lost": self._decision_log.lost}
        return {**lost, **self._recorder.status, **self._trail.status}

    def _page_secret(self, signing_key: bytes | None) -> bytes | None:
        """That of the page's cookies: with a `signing_key` servers that share it know each other's."""
        return signing_key or (self.state.secret if self.state is not None else None)

    def build(self) -> Litestar:
        sources, rules = self._sources, self.rules
        signing_key, variables = signing_key_of(rules.policy), sources.variables()
        upstreams = Registry(signing_key, variables)
        dry_upstreams = Registry(signing_key, variables, dry=True)
        authenticator = Authenticator(rules.policy, sources.token())
        decision_log, recorder, metrics = self._decision_log, self._recorder, self._metrics.metrics
        trace_ids = TraceIds(rules.policy)
        recorder.start()
        observer = Observers(
            [
                *(RequestLog(), ReloadLog(), decision_log, trace_ids, recorder, metrics, self._trail),
                *self._observers,
            ]
        )
        self._trail.start()
        rules.listeners.append(observer)

        files = SecretFiles()
        logs.keep_secret(lambda: secrets_of(rules.policy, sources.token(), files))

        def on_change(policy: Policy) -> None:
            upstreams.use_environment(sources.variables())
            authenticator.update(policy, sources.token())
            decision_log.update(policy)
            recorder.update(policy)
            self._trail.update(policy)
            trace_ids.update(policy)
            self._traces.update(policy)

        proxy = Proxy(rules, upstreams, tokens.count, observer, dry_upstreams, self.state, self._trail.begin)
        app = build_app(
            proxy,
            authenticator=authenticator,
            in_flight=self.in_flight,
            timings=self._timings,
            observer=observer,
            lifespan=partial(_lifespan, rules, upstreams, on_change),
            control=rules,
            protocols=self._protocols,
            bound_host=self._host,
            counters=self._counters,
            metrics=self._metrics if rules.policy.keeps_metrics else None,
            metrics_port=self._metrics_port,
            secret=self._page_secret(signing_key),
            earlier=lambda version: sources.recall(rules.bundle(version)),
        )
        metrics.gauges.append(partial(_fill_gauges, proxy, app, self))
        return app


def _fill_gauges(proxy: Proxy, app: RouteproxyApp, served: App, snapshot: Snapshot) -> None:
    """What is so at this moment, for metrics."""
    recorder = served.recorder
    snapshot.set(families.IN_FLIGHT, len(served.in_flight.responses))
    snapshot.set(families.LAG, round(app.overload.lag, 3))
    snapshot.set(families.SPOOL, recorder.spooled_bytes)
    snapshot.set(families.DROPPED, recorder.dropped)
    for team, number in proxy.waiting_by_team().items():
        snapshot.set(families.QUEUE, number, team)
    for target, state in target_states(proxy).items():
        snapshot.set(families.HEALTHY, int(state == HEALTHY), target)
    for pool, number in tuple(proxy.spilled.items()):
        snapshot.set(families.SPILLED, number, pool)
    for invariant, number in tuple(proxy.upstreams.refused.items()):
        snapshot.set(families.REFUSALS, number, "invariant", invariant)


@asynccontextmanager
async def _lifespan(
    rules: LiveRules, upstreams: Registry, on_change: Callable[[Policy], None], app: Litestar
) -> AsyncIterator[None]:
    """What goes on beside the answers: the watch on the rules, and what a new policy has to be prepared."""
    async with asyncio.TaskGroup() as tasks:
        background: set[asyncio.Task[object]] = set()

        def start(work: Coroutine[Any, Any, object]) -> None:
            task = tasks.create_task(_by_itself(work))
            background.add(task)
            task.add_done_callback(background.discard)

        def prepare(policy: Policy) -> None:
            on_change(policy)
            start(_prepare(upstreams, policy))
            if policy.counts_tokens:  # nobody waits for it, a shutdown least of all
                threading.Thread(target=tokens.warm, daemon=True).start()

        rules.on_change.append(prepare)
        prepare(rules.policy)
        start(rules.follow())
        with suppress(ValueError, RuntimeError):  # not in the main thread: a test's server
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, lambda: start(rules.reload()))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        yield
        for task in tuple(background):
            task.cancel()
    await upstreams.aclose()


async def _by_itself(work: Coroutine[Any, Any, object]) -> None:
    """What fails beside the answers is said, and takes nothing else with it."""
    try:
        await work
    except Exception:
        log.exception("%s ended: this is a bug in routeproxy", work)


async def _prepare(upstreams: Registry, policy: Policy) -> None:
    try:
        await upstreams.prepare(policy)
    except Exception:
        # It is tried again when a request needs it, whose answer then says what is wrong.
        log.exception("a provider could not be prepared")


def _work(
    sources: Sources,
    folder: Path,
    host: str,
    state: SharedState,
    metrics: MetricsFolder | None,
    sockets: Sequence[socket.socket],
    others: Sequence[socket.socket],
) -> None:
    # Not SIGINT: Ctrl-C reaches all processes of a terminal, and the parent says what it means.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGCHLD})
    configure_logs(sources)
    try:
        rules = _first_rules(sources, folder)
        rules.guard = partial(refuse, sources, host)
        app = App(
            sources,
            rules,
            host=host,
            state=state,
            metrics_folder=metrics,
            metrics_port=_metrics_port(sockets),
        )
        server = Server(app, owns_process=True, others=others)
        stop_with_parent(server)
        server.run([*sockets])
    except Exception:
        # Said here: Python's own words go to stderr past the log, and wait there for somebody to read them.
        log.exception("a worker ends: this is a bug in routeproxy")
        logging.shutdown()
        os._exit(1)


def _metrics_port(sockets: Sequence[socket.socket]) -> int | None:
    """That of the second socket, if there is one."""
    return sockets[1].getsockname()[1] if len(sockets) > 1 else None


def _first_rules(sources: Sources, folder: Path) -> LiveRules:
    """For a worker that takes another's place the file may be broken by now: it takes the version that is in
    force, or, if that can't be had any more, joins the others once the file is mended."""
    logged = ""
    while True:
        try:
            return live_rules(sources, folder)
        except (RulesRefused, NoSuchVersion, OSError, ValueError) as refused:
            if logged != str(refused):
                logged = str(refused)
                log.error("a worker waits for rules that it can load:\n%s", refused)
            time.sleep(0.5)


def startup_lines(
    policy: Policy, host: str, port: int, sources: Sources, problem: str | None = None
) -> list[str]:
    """What start-up says: first the address to open. `problem` is why something older is in force."""
    url = url_of(host, port)
    rules = f"{_counted(len(policy.rules), 'rule')} and a default"
    lines = [
        f"routeproxy {routeproxy.__version__}: {url}"
        + (f" (listening on all addresses, {host})" if host in ALL_ADDRESSES else ""),
        f"  rules      {policy.source}, version {policy.version}, {rules}"
        + (" (from a pipe: read once, so edits are not seen)" if sources.piped is not None else ""),
    ]
    if policy.invariants or policy.tests:
        promises = [_counted(len(policy.invariants), "invariant"), _counted(len(policy.tests), "test")]
        lines.append(f"  promises   {' and '.join(promises)} held")
    if policy.server.decision_log is not None:
        lines.append(f"  decisions  are logged to {policy.server.decision_log}")
    if policy.ledger is not None:
        lines.append(f"  ledger     {policy.ledger.path or 'PostgreSQL'}")
    keys = Keys()
    lines += [f"  provider   {_provider_line(provider, keys)}" for provider in policy.providers.values()]
    unset = {name for name, each in policy.providers.items() if each.keys and not keys.of(each)}
    if not policy.providers:
        lines.append("  provider   none")
    # A line each: `check` shows them whole.
    warnings = [
        str(warning).partition("\n")[0] for warning in policy.warnings if not _is_named(warning, unset)
    ]
    if problem is not None:
        warnings.insert(0, "this is the last good version, since: " + problem.partition("\n")[0])
    team_keys = [key for team in policy.teams.values() for key in team.keys]
    if team_keys:
        words = "must show" if policy.server.require_key else "may show"
        with_keys = sum(bool(team.keys) for team in policy.teams.values())
        lines.append(f"  clients    {words} the key of a team, of {_counted(with_keys, 'team')}")
        if sources.token():
            warnings.insert(0, "ANTHROPIC_AUTH_TOKEN opens nothing: it counts only while no team has keys")
    elif sources.token():
        lines.append("  clients    must show ANTHROPIC_AUTH_TOKEN")
    elif policy.server.require_key:
        lines.append("  clients    all refused: a key is required and none is set")
    else:
        lines.append("  clients    need no key")
        if not is_loopback(host):
            message = f"--insecure: anybody who can reach {Address(host, port)} may use it"
            warnings.insert(0, f"{message}, by an IP address or a name of `[server] hosts`")
    if policy.tests and sources.options.skip_tests:
        warnings.insert(0, f"--skip-tests: {_counted(len(policy.tests), 'test')} of the rules not run")
    warnings = [warning.removeprefix("warning ").replace(": warning ", ": ") for warning in warnings]
    lines += [f"  warning    {warning}" for warning in warnings]
    return [
        *lines,
        *_claude_code_lines(policy, url, needs_key=Authenticator(policy, sources.token()).needs_key),
    ]


def _claude_code_lines(policy: Policy, url: str, *, needs_key: bool) -> list[str]:
    """How to start Claude Code. The last line is to be copied."""
    keeps_login = passes_logins_on(policy)
    key = SOME_KEY if needs_key else "" if keeps_login else NO_KEY
    found_without = url == url_of(ServerSettings().host, ServerSettings().port)
    command = "routeproxy claude" if found_without else f"routeproxy claude --url {url}"
    return [
        f"  start Claude Code with `{command}`, or with",
        f"{in_shell(client_variables(url, key, keeps_login=keeps_login))} claude",
    ]


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _is_named(warning: Problem, unset: Set[str]) -> bool:
    """Whether the line of a provider says already that its key is not set."""
    match warning.path:
        case ("providers", name) | ("providers", name, "api_key", *_):
            return warning.code is Code.UNSET_VARIABLE and name in unset
    return False


def _provider_line(provider: Provider, keys: Keys) -> str:
    if provider.client_key:
        key = "key: the client's own"
    elif not provider.keys or any(secret.kind == "none" for secret in provider.keys):
        key = "needs no key"
    else:
        names = " or ".join(secret.reference for secret in provider.keys)
        key = f"key {names} is {'set' if keys.of(provider) else 'NOT SET'}"
    return f"{provider.name}  {provider.type}  {provider.base_url or '-'}  zone {provider.zone}  {key}"
