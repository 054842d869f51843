"""`[ledger]` becomes where the books are kept."""

import re

from routeproxy.policy.compile.secrets import SecretResolver
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import LedgerTable
from routeproxy.policy.file.values import period
from routeproxy.policy.ledger import LedgerSettings
from routeproxy.policy.problems import Code, KeyPath
from routeproxy.policy.secrets import SECRET_HEADERS

PATH: KeyPath = ("ledger",)


def compile_ledger(
    table: LedgerTable | None, report: Report, secrets: SecretResolver
) -> LedgerSettings | None:
    if table is None:
        return None
    if (table.path is None) == (table.url is None) and not report.faulty(PATH):
        which = "neither `path` nor `url`" if table.path is None else "`path` and `url`"
        hint = 'SQLite, for one host: `path = "usage.db"`; PostgreSQL, for several: `url = "env:LEDGER_URL"`'
        report.error(
            Code.MISSING, PATH, f"{which}: one of them says where the ledger is", hint=hint, key=True
        )
    usual = LedgerSettings(spool="")
    key = table.pseudonym_key
    if table.users is None and key is None and not report.faulty(PATH):
        message = "a ledger knows users by a keyed hash of their names, and there is no key"
        hint = '`pseudonym_key = "env:LEDGER_KEY"`; or `users = "none"`, or `users = "plain"` for their names'
        report.error(Code.MISSING, PATH, message, hint=hint, key=True)
    if key is not None and table.users in {"plain", "none"}:
        message = f'`pseudonym_key` is for nothing: `users = "{table.users}"`'
        report.warn(Code.NO_EFFECT, (*PATH, "pseudonym_key"), message, key=True)
    for name in ("migrate",):
        if table.path is not None and getattr(table, name) is not None:
            message = f"`{name}` is for PostgreSQL: a SQLite file is always brought up to date"
            report.warn(Code.NO_EFFECT, (*PATH, name), message, key=True)
    retention = period(table.retention) if table.retention else usual.retention
    rollup_retention = period(table.rollup_retention) if table.rollup_retention else usual.rollup_retention
    if rollup_retention < retention:
        message = "`rollup_retention` is shorter than `retention`: sums would go before what they sum up"
        report.error(Code.CONTRADICTION, (*PATH, "rollup_retention"), message)
    headers = table.record_headers or []
    for index, name in enumerate(headers):
        if name.lower() in SECRET_HEADERS or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            what = "is a secret" if name.lower() in SECRET_HEADERS else "is not a header's name"
            report.error(Code.WRONG_VALUE, (*PATH, "record_headers", index), f"`{name}` {what}")
    return LedgerSettings(
        path=table.path,
        url=secrets.resolve(table.url, (*PATH, "url"), expected='`"env:NAME"` or `"file:PATH"`')
        if table.url is not None
        else None,
        retention=retention,
        rollup_retention=rollup_retention,
        spool=table.spool or (f"{table.path}-spool" if table.path else "ledger-spool"),
        spool_mb=table.spool_mb or usual.spool_mb,
        users=table.users or "pseudonym",
        pseudonym_key=secrets.resolve(key, (*PATH, "pseudonym_key"), expected='`"env:NAME"` or `"file:PATH"`')
        if key is not None
        else None,
        migrate=bool(table.migrate),
        record_headers=frozenset(name.lower() for name in headers),
        is_synchronous=table.synchronous == "full",
    )
