"""`health`, of `[server]` and of a provider: what counts for the targets of one provider."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import asdict

from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import HealthTable, ProviderTable
from routeproxy.policy.file.values import seconds
from routeproxy.policy.health import HealthSettings
from routeproxy.policy.problems import Code, KeyPath

_DURATIONS = frozenset({"window", "cooldown", "max_cooldown"})


def check_health(written: HealthTable | bool | None, path: KeyPath, report: Report) -> None:
    if not isinstance(written, HealthTable):
        return
    stated = _stated(written)
    for name in sorted(_DURATIONS & stated.keys()):
        if not stated[name]:
            message = f"`{name}` of no time at all means nothing"
            hint = "`health = false` has nothing remembered of failures"
            report.error(Code.WRONG_VALUE, (*path, name), message, hint=hint)
    settings = HealthSettings(**stated)
    if not 0 < settings.ratio <= 1:
        message = f"`ratio` is a share of the attempts: {settings.ratio:g} is none"
        report.error(Code.WRONG_VALUE, (*path, "ratio"), message, expected="above 0 and at most 1")
    if settings.cooldown > settings.max_cooldown:
        message = f"`cooldown` ({settings.cooldown:g} s) is longer than `max_cooldown` is"
        expected = f"at most {settings.max_cooldown:g} s, or a longer `max_cooldown`"
        at = (*path, "cooldown" if "cooldown" in stated else "max_cooldown")
        report.error(Code.CONTRADICTION, at, message, expected=expected)


def compile_health(server: HealthTable | bool | None, provider: ProviderTable) -> HealthSettings | None:
    """That of the provider key by key, else that of `[server]`, else the usual."""
    written = [table for table in (server, provider.health) if table is not None]
    if written and written[-1] is False:
        return None
    stated: dict[str, Any] = {}
    for table in written:
        if isinstance(table, HealthTable):
            stated |= _stated(table)
    return HealthSettings(**stated)


def _stated(table: HealthTable) -> Mapping[str, Any]:
    return {
        name: seconds(value) if name in _DURATIONS else value
        for name, value in asdict(table).items()
        if value is not None
    }
