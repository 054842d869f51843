"""What a rule does, from its tables: deny, or ask targets, with fallback, retries, times, parameters and
transforms."""

from collections.abc import Iterable
from typing import Any, get_args

from routeproxy.policy.compile.params import check_params
from routeproxy.policy.compile.safeguards import SafeguardsCompiler
from routeproxy.policy.compile.targets import (
    Entry,
    NameTable,
    TargetsCompiler,
    check_duration,
    check_timeouts,
)
from routeproxy.policy.conditions import Check
from routeproxy.policy.decide import TIMEOUTS, USUAL_FAILURES, Denial, FailureKind, Fallback, Retry, Rule
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import (
    ActionTable,
    DenyTable,
    FallbackTable,
    RetryTable,
)
from routeproxy.policy.file.values import seconds
from routeproxy.policy.pools import STICKY
from routeproxy.policy.problems import Code, KeyPath
from routeproxy.policy.safeguards import Safeguards
from routeproxy.policy.targets import Target, first_place, places

FAILURES: tuple[FailureKind, ...] = get_args(FailureKind)
_RISKY: frozenset[FailureKind] = frozenset({"content_policy", "invalid_request"})


class ActionsCompiler:
    """Compiles the actions of one file."""

    def __init__(
        self,
        report: Report,
        label: str,
        names: NameTable,
        file: int = 0,
        inherited: Safeguards | None = None,
    ) -> None:
        """`label` is what the file is called where a rule is named; `file` its number; `inherited` who judges
        tool uses where a rule does not say it."""
        self.report = report
        self.label = label
        self.names = names
        self.file = file
        self.targets = TargetsCompiler(report, names)
        self.safeguards = SafeguardsCompiler(report, self.targets, inherited)

    def place_of(self, path: KeyPath) -> str:
        """`rules.toml:41`"""
        return f"{self.label}:{self.report.map.value(path).line}"

    def compile_rule(self, table: ActionTable, path: KeyPath, name: str, checks: tuple[Check, ...]) -> Rule:
        place: dict[str, Any] = {"where": self.place_of(path), "file": self.file, "path": path}
        check_params(table.params, (*path, "params"), self.report)
        check_timeouts(table.timeouts, (*path, "timeouts"), self.report)
        check_duration(table.deadline, (*path, "deadline"), self.report)
        if table.deny is not None:
            self._check_denial(table, path)
            return Rule(name=name, **place, checks=checks, deny=self._compile_denial(table.deny, path))
        entries: tuple[Entry, ...] = ()
        if table.targets is not None:
            entries = tuple(self.targets.compile_entries(table.targets, (*path, "targets")))
            self._check_pass_through(table, entries, path)
        elif not any(self.report.faulty((*path, key)) for key in ("targets", "deny")):
            self._report_missing_targets(path)
        targets = tuple(self.targets.compile_target(entry, table) for entry in entries)
        fallback = self._compile_fallback(table.fallback, targets, (*path, "fallback"))
        return Rule(
            name=name,
            **place,
            checks=checks,
            targets=targets,
            fallback=fallback,
            retry=self._compile_retry(table.retry, (*path, "retry")),
            deadline=seconds(table.deadline) if table.deadline else None,
            hold=table.hold is not None,
            portable=table.portable or "drop",
            sticky=STICKY if table.sticky is None else seconds(table.sticky),
            safeguards=self.safeguards.compile_rule(
                table, targets if fallback.enabled else first_place(targets), path
            ),
            asks_for_requested=any(target.model == "*" for target in targets),
        )

    def _report_missing_targets(self, path: KeyPath) -> None:
        # A key that was refused may well be the one that is missing.
        if not self.report.faulty(path, Code.UNKNOWN_KEY):
            message = "a rule needs `targets` or `deny`"
            self.report.error(Code.MISSING, path, message, hint='write `targets = "provider/model"`')

    # --- deny

    def _check_denial(self, table: ActionTable, path: KeyPath) -> None:
        for key in ActionTable.__struct_fields__:
            if key not in {"deny", "accept"} and getattr(table, key) is not None:
                message = f"`{key}` means nothing beside `deny`"
                self.report.error(Code.CONTRADICTION, (*path, key), message, key=True)

    def _compile_denial(self, written: str | DenyTable, path: KeyPath) -> Denial:
        if isinstance(written, str):
            return Denial(written)
        if written.message is None and not self.report.faulty((*path, "deny", "message")):
            self.report.error(Code.MISSING, (*path, "deny"), "a denial needs a `message`", key=True)
        return Denial(written.message or "", written.status or 400)

    # --- fallback

    def _compile_fallback(
        self, written: bool | FallbackTable | None, targets: tuple[Target, ...], path: KeyPath
    ) -> Fallback:
        if written is None:
            return Fallback(len(targets) > 1)
        if written is False and len(first_place(targets)) < len(targets):
            count = len(list(places(targets)))
            message = f"without fallback only the first of {count} targets is ever used"
            self.report.warn(Code.REST_UNUSED, path, message)
        if isinstance(written, bool):
            return Fallback(written)
        if written.on and written.also:
            message = "`on` replaces the usual failures and `also` adds to them: only one can be meant"
            self.report.error(Code.CONTRADICTION, (*path, "also"), message, key=True)
        usual = USUAL_FAILURES if written.on is None else frozenset[FailureKind]()
        on = self._resolve_failures(written.on or (), (*path, "on"))
        also = self._resolve_failures(written.also or (), (*path, "also"))
        return Fallback(True, usual | on | also)

    def _resolve_failures(self, names: Iterable[str], path: KeyPath) -> frozenset[FailureKind]:
        """The failures of these names; `timeout` is all of the timeouts."""
        failures: set[FailureKind] = set()
        for index, name in enumerate(names):
            kinds = TIMEOUTS if name == "timeout" else {kind for kind in FAILURES if kind == name}
            if not kinds:
                known = (*FAILURES, "timeout")
                self.report.unknown(Code.UNDEFINED, (*path, index), f"`{name}` is not a failure", name, known)
            if _RISKY.intersection(kinds):
                message = f"`{name}`: the next target gets a request that this one has found fault with"
                self.report.warn(Code.RISKY_FALLBACK, (*path, index), message)
            failures.update(kinds)
        return frozenset(failures)

    def _compile_retry(self, table: RetryTable | None, path: KeyPath) -> Retry:
        usual = Retry()
        if table is None:
            return usual
        on = usual.on if table.on is None else self._resolve_failures(table.on, (*path, "on"))
        for kind in sorted(on - USUAL_FAILURES):
            message = f"`{kind}`: the same request would meet the same failure"
            hint = "`fallback.also` has another target asked"
            self.report.error(Code.WRONG_VALUE, (*path, "on"), message, hint=hint)
        return Retry(
            table.attempts or usual.attempts,
            seconds(table.backoff) if table.backoff else usual.backoff,
            on,
        )

    # --- transforms and times

    def _check_pass_through(self, table: ActionTable, entries: tuple[Entry, ...], path: KeyPath) -> None:
        for entry in entries:
            tables = [transforms for transforms in (table.transforms, *entry.transforms) if transforms]
            applies = all(transforms.only_model_name for transforms in tables)
            if not applies and entry.provider.speaks_messages:
                message = f"transforms don't apply to `{entry.name}`: it gets and gives Messages as they are"
                at = (*path, "transforms" if table.transforms else "targets")
                self.report.warn(Code.NO_EFFECT, at, message)
                return
