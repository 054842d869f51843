"""`[audit]` becomes where the audit trail is kept."""

from routeproxy.policy.audit import AuditSettings
from routeproxy.policy.compile.secrets import SecretResolver
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import AuditTable
from routeproxy.policy.file.values import seconds
from routeproxy.policy.problems import Code, KeyPath

PATH: KeyPath = ("audit",)
EXPECTED = '`"file:PATH"` or `"env:NAME"`'


def compile_audit(table: AuditTable | None, report: Report, secrets: SecretResolver) -> AuditSettings | None:
    if table is None:
        return None
    if table.path is None and not report.faulty((*PATH, "path")):
        report.error(Code.MISSING, PATH, "it is not said where it is kept", expected='`path = "audit"`')
    if table.signing_key is None and not report.faulty((*PATH, "signing_key")):
        message = "an audit trail is signed, and there is no key"
        hint = "`routeproxy audit new-key FILE` makes one"
        expected = '`signing_key = "file:audit-key.pem"`'
        report.error(Code.MISSING, PATH, message, expected=expected, hint=hint, key=True)
    anchors = table.anchors or "stderr"
    if anchors != "stderr" and not anchors.startswith(("https://", "http://")):
        message = f"`{anchors}` is nowhere that signed heads can go"
        report.error(Code.WRONG_VALUE, (*PATH, "anchors"), message, expected='`"stderr"` or `"https://…"`')
    every = seconds(table.anchor_every) if table.anchor_every else 300.0
    if every < 1:
        message = "a head can be signed once a second at most"
        report.error(Code.WRONG_VALUE, (*PATH, "anchor_every"), message, expected='`"5m"` or the like')
    if table.path is None or table.signing_key is None:
        return None
    return AuditSettings(
        path=table.path,
        signing_key=secrets.resolve(table.signing_key, (*PATH, "signing_key"), expected=EXPECTED),
        anchor_every=every,
        anchors=anchors,
        on_failure=table.on_failure or "continue",
    )
