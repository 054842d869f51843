"""Warnings that a file accepts by their codes, each with a reason: in `[lints]` those of the file, on a rule
those of the rule. What a file accepts reaches no other file, included or including."""

from collections.abc import Iterator, Mapping

from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import LayerFile, RulesFile
from routeproxy.policy.problems import ACCEPTABLE, AcceptedProblem, Code, KeyPath, Problem, one_of


class Acceptances:
    """What one file accepts."""

    def __init__(self, file: RulesFile | LayerFile, report: Report) -> None:
        """Reports what can't be accepted."""
        self._report = report
        self._reasons: dict[tuple[KeyPath, Code], str] = {}
        """By the path of the rule (of the whole file: an empty one) and the code."""
        for scope, path, written in _written(file):
            for word, reason in written.items():
                if (code := self._check(word, reason, (*path, word))) is not None:
                    self._reasons[scope, code] = reason

    def _check(self, word: str, reason: str, path: KeyPath) -> Code | None:
        """The code of the warning, or `None`, with a problem reported."""
        code = next((code for code in Code if code.value == word), None)
        codes = [code.value for code in ACCEPTABLE]
        if code is None:
            message = f"there is no warning `{word}`"
            self._report.unknown(Code.UNDEFINED, path, message, word, codes, key=True)
        elif code is Code.UNUSED_ACCEPTANCE:
            message = f"`{word}` can't be accepted: take out the acceptance that nothing uses"
            self._report.error(Code.FORBIDDEN, path, message, expected=one_of(codes), key=True)
        elif code not in ACCEPTABLE:
            message = f"`{word}` is an error, which can't be accepted: only a warning can"
            self._report.error(Code.FORBIDDEN, path, message, expected=one_of(codes), key=True)
        elif not reason.strip():
            message = f"`{word}` is accepted without a reason"
            expected = "why it is meant, in a few words"
            self._report.error(Code.EMPTY, path, message, expected=expected)
        else:
            return code
        return None

    def sort(self) -> tuple[list[Problem], list[AcceptedProblem], set[tuple[KeyPath, Code]]]:
        """The problems of the file that count, those that are accepted, and the acceptances that were used. A
        rule's own acceptance comes before that of its file."""
        counting: list[Problem] = []
        accepted: list[AcceptedProblem] = []
        used: set[tuple[KeyPath, Code]] = set()
        for problem in self._report.problems:
            scopes = (_rule_of(problem.path), ())
            keys = [(scope, problem.code) for scope in scopes if (scope, problem.code) in self._reasons]
            if problem.severity == "error" or not keys:
                counting.append(problem)
            else:
                used.add(keys[0])
                accepted.append(AcceptedProblem.of(problem, self._reasons[keys[0]]))
        return counting, accepted, used

    def report_unused(self) -> None:
        """To be asked when all is found that there is to find."""
        *_, used = self.sort()
        for scope, code in self._reasons.keys() - used:
            path = (*(scope or ("lints",)), "accept", code.value)
            where = "this rule" if scope[:1] == ("rules",) else "`[default]`" if scope else "this file"
            message = f"nothing uses this acceptance: {where} has no {code.value}"
            if scope == () and any(code is other for other_scope, other in used if other_scope):
                message += " but where a rule accepts it itself"
            self._report.warn(Code.UNUSED_ACCEPTANCE, path, message, key=True)


def _rule_of(path: KeyPath) -> KeyPath:
    """The path of the rule that a place is in; empty outside of rules."""
    return path[:2] if path[:1] == ("rules",) else path[:1] if path[:1] == ("default",) else ()


def _written(file: RulesFile | LayerFile) -> Iterator[tuple[KeyPath, KeyPath, Mapping[str, str]]]:
    """Each table of acceptances, with the path of what it is for and its own."""
    if file.lints.accept is not None:
        yield (), ("lints", "accept"), file.lints.accept
    for index, rule in enumerate(file.rules):
        if rule.accept is not None:
            yield ("rules", index), ("rules", index, "accept"), rule.accept
    if isinstance(file, RulesFile) and file.default is not None and file.default.accept is not None:
        yield ("default",), ("default", "accept"), file.default.accept
