"""`[telemetry]` becomes what a server tells of itself."""

from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import TelemetryTable
from routeproxy.policy.problems import Code, KeyPath
from routeproxy.policy.telemetry import TelemetrySettings


def compile_telemetry(table: TelemetryTable | None, report: Report) -> TelemetrySettings:
    if table is None:
        return TelemetrySettings()
    path: KeyPath = ("telemetry", "metrics")
    if table.metrics is not None:
        host, colon, port = table.metrics.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            message = f"`{table.metrics}` is no address to listen on"
            report.error(
                Code.WRONG_VALUE, path, message, expected='`"host:port"`, such as `"127.0.0.1:9464"`'
            )
    return TelemetrySettings(metrics=table.metrics)
