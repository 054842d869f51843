"""`[server]` becomes the settings of the server."""

from routeproxy.policy.compile.connections import host_name_problem, is_always_own
from routeproxy.policy.compile.secrets import SecretResolver
from routeproxy.policy.compile.teams import TeamsCompiler
from routeproxy.policy.facts import requested_model_problem
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import QueueTable, RulesFile, ServerTable
from routeproxy.policy.file.values import seconds
from routeproxy.policy.problems import Code
from routeproxy.policy.secrets import Secret
from routeproxy.policy.server import ServerSettings

LONGEST_QUEUE_WAIT = 7.0
"""Seconds. A stream whose target says nothing begins with its 200 after 8 s (wire.md)."""


def compile_server(
    file: RulesFile, report: Report, secrets: SecretResolver, teams: TeamsCompiler
) -> ServerSettings:
    table = file.server
    _check_models(table, report)
    _check_origins(table, report)
    _check_hosts(table, report)
    _check_client_timeouts(table, report)
    some_team_has_keys = any(team.keys is not None for team in file.teams.values())
    if table.require_key and not some_team_has_keys and not secrets.environ.get("ANTHROPIC_AUTH_TOKEN"):
        message = "a key is required, but `ANTHROPIC_AUTH_TOKEN` is not set: nobody gets in"
        report.warn(Code.UNSET_VARIABLE, ("server", "require_key"), message)
    admin_keys, usual, queue = table.admin_keys, ServerSettings(), table.queue or QueueTable()
    return ServerSettings(
        host=table.host,
        port=table.port,
        max_body_mb=table.max_body_mb,
        body_memory_mb=table.body_memory_mb,
        url_targets=table.url_targets,
        no_fallback_header=table.no_fallback_header,
        require_key=some_team_has_keys if table.require_key is None else table.require_key,
        admin_keys=()
        if admin_keys is None
        else tuple(teams.compile_keys(admin_keys, ("server", "admin_keys"), admin=True)),
        models=tuple(table.models or ()),
        signing_key=_compile_signing_key(table.signing_key, secrets),
        decision_log=table.decision_log,
        cors_origins=tuple(table.cors_origins or ()),
        hosts=tuple(host.lower().removesuffix(".") for host in table.hosts or ()),
        header_timeout=seconds(table.header_timeout),
        body_timeout=seconds(table.body_timeout),
        keep_alive=seconds(table.keep_alive),
        drain=seconds(table.drain),
        memory_limit_mb=table.memory_limit_mb,
        queue_wait=_compile_queue_wait(table.queue, report),
        queue_length=usual.queue_length if queue.length is None else queue.length,
        replicas=table.replicas,
    )


def _compile_queue_wait(table: QueueTable | None, report: Report) -> float:
    if table is None or table.wait is None:
        return ServerSettings().queue_wait
    wait = seconds(table.wait)
    if wait > LONGEST_QUEUE_WAIT:
        message = f"`wait`: after {LONGEST_QUEUE_WAIT:g} s a stream could only be refused inside a 200"
        expected = f'at most `"{LONGEST_QUEUE_WAIT:g}s"`'
        report.error(Code.WRONG_VALUE, ("server", "queue", "wait"), message, expected=expected)
    return wait


def _check_models(table: ServerTable, report: Report) -> None:
    for index, model in enumerate(table.models or ()):
        if problem := requested_model_problem(model):
            report.error(Code.WRONG_VALUE, ("server", "models", index), problem)


def _check_origins(table: ServerTable, report: Report) -> None:
    for index, origin in enumerate(table.cors_origins or ()):
        scheme, _, host = origin.partition("://")
        if origin != "*" and (scheme not in {"http", "https"} or not host or "/" in host):
            message = f"`{origin}` is not an origin"
            path = ("server", "cors_origins", index)
            report.error(Code.WRONG_VALUE, path, message, expected='`"https://host"` or `"*"`')


def _check_hosts(table: ServerTable, report: Report) -> None:
    for index, host in enumerate(table.hosts or ()):
        path = ("server", "hosts", index)
        if is_always_own(host):
            message = f"a server always answers to `{host}`"
            report.warn(Code.NO_EFFECT, path, message)
        elif problem := host_name_problem(host):
            expected = 'a name alone, as clients have it in their base URL: `"routeproxy"`'
            report.error(Code.WRONG_VALUE, path, f"`{host}` {problem}", expected=expected)


def _check_client_timeouts(table: ServerTable, report: Report) -> None:
    for name in ("header_timeout", "body_timeout", "keep_alive"):
        if seconds(getattr(table, name)) <= 0:
            message = f"`{name}` of no time would close every connection"
            expected = 'a duration such as "10s"'
            report.error(Code.WRONG_VALUE, ("server", name), message, expected=expected)


def _compile_signing_key(written: str | None, secrets: SecretResolver) -> Secret | None:
    if written is None:
        return None
    key = secrets.resolve(written, ("server", "signing_key"))
    return None if key.kind == "none" else key
