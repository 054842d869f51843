"""`safeguards` of a rule and of `[server]`: who judges the tool uses of an answer, and how long that may
take."""

from collections.abc import Sequence

from routeproxy.policy.compile.targets import TargetsCompiler
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import ActionTable, ServerTable
from routeproxy.policy.file.values import seconds
from routeproxy.policy.problems import Code, KeyPath
from routeproxy.policy.safeguards import Safeguards
from routeproxy.policy.server import SAFEGUARDS_TIMEOUT
from routeproxy.policy.targets import Target

SERVER: KeyPath = ("server",)


class SafeguardsCompiler:
    """Compiles those of one file."""

    def __init__(self, report: Report, targets: TargetsCompiler, inherited: Safeguards | None = None) -> None:
        """`inherited` is what `[server]` says; an included file gets it from the file that includes it."""
        self.report = report
        self.targets = targets
        self.inherited = inherited

    def compile_server(self, table: ServerTable) -> Safeguards | None:
        """From here on rules get it, unless they say otherwise."""
        target = self._compile_target(table, SERVER)
        if target is not None:
            self.inherited = Safeguards(target, _seconds(table) or SAFEGUARDS_TIMEOUT, inherited=True)
        return self.inherited

    def compile_rule(
        self, table: ActionTable, answering: Sequence[Target], path: KeyPath
    ) -> Safeguards | None:
        """What holds for a rule, whose answers come from the targets `answering`."""
        inherited = None if table.fallback is False else self.inherited
        judge_themselves = bool(answering) and all(target.provider.speaks_messages for target in answering)
        if table.safeguards is None:
            if inherited is None or judge_themselves:
                self._report_idle_timeout(table, path)
                return None
            return Safeguards(inherited.target, _seconds(table) or inherited.timeout, inherited=True)
        target = self._compile_target(table, path)
        if target is None:
            return None
        if judge_themselves:
            message = (
                "nobody is asked: all targets of this rule speak Messages, and get `safeguards` as it came"
            )
            self.report.warn(Code.NO_EFFECT, (*path, "safeguards"), message, key=True)
        timeout = _seconds(table) or (self.inherited.timeout if self.inherited else SAFEGUARDS_TIMEOUT)
        return Safeguards(target, timeout)

    def _compile_target(self, table: ActionTable | ServerTable, path: KeyPath) -> Target | None:
        """The target that `safeguards` names, if it names one."""
        self._check_timeout(table, path)
        written, at = table.safeguards, (*path, "safeguards")
        if written is True:
            message = "`true` says nobody: safeguards are the target that judges tool uses"
            self.report.error(
                Code.WRONG_VALUE, at, message, expected='`"provider/model"`, an alias or `false`'
            )
        if not isinstance(written, str):
            self._report_idle_timeout(table, path)
            return None
        entries = tuple(self.targets.compile_entries(written, at))
        if len(entries) > 1:
            message = f"the alias `{written}` stands for {len(entries)} targets, and one judges: no fallback"
            self.report.error(Code.WRONG_VALUE, at, message, expected="one target, or an alias of one")
        elif entries and entries[0].model == "*":
            message = f"`{written}` is another model for each request, and one judges them all"
            self.report.error(Code.WRONG_VALUE, at, message, expected='`"provider/model"`')
        if len(entries) != 1:
            return None
        # What a rule does to its requests and answers is not meant for this one.
        return self.targets.compile_target(entries[0], ActionTable())

    def _check_timeout(self, table: ActionTable | ServerTable, path: KeyPath) -> None:
        if table.safeguards_timeout is not None and not seconds(table.safeguards_timeout):
            message = (
                "`safeguards_timeout`: in no time at all nobody judges; `safeguards = false` asks nobody"
            )
            self.report.error(Code.WRONG_VALUE, (*path, "safeguards_timeout"), message)

    def _report_idle_timeout(self, table: ActionTable | ServerTable, path: KeyPath) -> None:
        if table.safeguards_timeout is not None:
            message = "`safeguards_timeout` has no effect: nobody is asked to judge tool uses"
            hint = 'write `safeguards = "provider/model"`'
            at = (*path, "safeguards_timeout")
            self.report.warn(Code.NO_EFFECT, at, message, hint=hint, key=True)


def _seconds(table: ActionTable | ServerTable) -> float | None:
    return seconds(table.safeguards_timeout) if table.safeguards_timeout else None
