"""`[telemetry]` becomes what a server tells of itself."""

from routeproxy.policy.compile.connections import url_problem
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import TelemetryTable, TracesTable
from routeproxy.policy.problems import Code, KeyPath
from routeproxy.policy.telemetry import TelemetrySettings, TraceSettings

PATH: KeyPath = ("telemetry",)


def compile_telemetry(table: TelemetryTable | None, report: Report) -> TelemetrySettings:
    if table is None:
        return TelemetrySettings()
    if table.metrics is not None and not _is_address(table.metrics):
        message = f"`{table.metrics}` is no address to listen on"
        expected = '`"host:port"`, such as `"127.0.0.1:9464"`'
        report.error(Code.WRONG_VALUE, (*PATH, "metrics"), message, expected=expected)
    return TelemetrySettings(metrics=table.metrics, traces=_compile_traces(table.traces, report))


def _is_address(written: str) -> bool:
    host, colon, port = written.rpartition(":")
    return bool(colon and host and port.isascii() and port.isdigit() and int(port) <= 65_535)


def _compile_traces(table: TracesTable | None, report: Report) -> TraceSettings | None:
    if table is None:
        return None
    path: KeyPath = (*PATH, "traces")
    if table.endpoint is None:
        if not report.faulty(path):
            message = "it is not said where traces go"
            expected = '`endpoint = "http://collector:4318/v1/traces"`'
            report.error(Code.MISSING, path, message, expected=expected, key=True)
        return None
    if problem := url_problem(table.endpoint):
        expected = '`"http://collector:4318/v1/traces"`'
        report.error(Code.WRONG_VALUE, (*path, "endpoint"), f"`endpoint` {problem}", expected=expected)
    usual = TraceSettings(endpoint="")
    ratio = usual.ratio if table.ratio is None else float(table.ratio)
    if not 0 <= ratio <= 1:
        message = f"`ratio` is a share of the requests: {ratio:g} is none"
        report.error(Code.WRONG_VALUE, (*path, "ratio"), message, expected="from 0 to 1")
    return TraceSettings(endpoint=table.endpoint, ratio=ratio, always=frozenset(table.always or ()))
