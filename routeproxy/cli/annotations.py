"""Problems in the forms that code hosts show beside the lines: SARIF, and GitHub's workflow commands.

Neither form repeats the line itself, so a key that stands in the line can't get out this way.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

import routeproxy
from routeproxy.policy.problems import AcceptedProblem, Code, Location, Problem

MEANINGS: Mapping[Code, str] = {
    Code.SYNTAX: "The file is not TOML.",
    Code.UNKNOWN_KEY: "An unknown key.",
    Code.WRONG_VALUE: "A value of the wrong kind or form.",
    Code.MISSING: "Something that is needed is missing.",
    Code.EMPTY: "An empty text, list or table.",
    Code.UNDEFINED: "A name of something that does not exist.",
    Code.DUPLICATE: "A name or a key that is there twice.",
    Code.CONTRADICTION: "Two things that exclude each other.",
    Code.BAD_PATTERN: "A regular expression that is none.",
    Code.FORBIDDEN: "Something that must not stand here.",
    Code.LITERAL_SECRET: "A key written into the file.",
    Code.NOT_FOR_TYPE: "A key that this type of provider does not have.",
    Code.BROKEN_INVARIANT: "A request that would break an invariant.",
    Code.NOT_PROVED: "An invariant that can't be proved.",
    Code.TEST_FAILED: "A test that fails.",
    Code.REST_UNUSED: "Targets that are never used.",
    Code.RISKY_FALLBACK: "A fallback that passes on a faulty request.",
    Code.UNSET_VARIABLE: "A variable that is not set.",
    Code.NO_EFFECT: "Something without effect.",
    Code.UNREACHABLE: "A rule that some or all of its requests never reach.",
    Code.NEVER_TRUE: "A condition that never holds.",
    Code.UNUSED: "Something that nothing uses.",
    Code.WORSE_CHAIN: "A list of targets that gets worse.",
    Code.READABLE_KEY: "A key file that others can read.",
    Code.EXPIRED: "A key that has expired.",
    Code.MISPLACED: "Something that stands where a file cut short would lack what follows.",
    Code.UNUSED_ACCEPTANCE: "An acceptance of a warning that is not there.",
}


def sarif(problems: Sequence[Problem]) -> str:
    """The problems as a SARIF 2.1.0 log of one run."""
    codes = sorted({problem.code for problem in problems})
    some = any(isinstance(problem, AcceptedProblem) for problem in problems)
    driver = {
        "name": "routeproxy",
        "version": routeproxy.__version__,
        "rules": [{"id": code.value, "shortDescription": {"text": MEANINGS[code]}} for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [
            # The standard wants this of all results or of none.
            _result(problem, codes.index(problem.code))
            | ({"suppressions": _suppressions(problem)} if some else {})
            for problem in problems
        ],
    }
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [run],
    }
    return msgspec.json.format(msgspec.json.encode(log)).decode()


def github(problems: Sequence[Problem]) -> str:
    """The problems as workflow commands for GitHub Actions, one a line."""
    return "\n".join(map(_command, problems))


def _message(problem: Problem) -> str:
    """What is wrong and how to put it right, without the place."""
    lines = [problem.message]
    if problem.rule:
        lines.append(f"in rule `{problem.rule}`")
    if problem.expected:
        lines.append(f"expected {problem.expected}")
    if problem.hint:
        lines.append(problem.hint)
    if isinstance(problem, AcceptedProblem):
        lines.append(f"accepted: {problem.reason}")
    return "\n".join(lines)


def _path(file: str) -> Path:
    """The file's path, relative to the current folder if the file is below it: code hosts go by paths of a
    repository."""
    path, here = Path(file), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


# --- SARIF


def _result(problem: Problem, rule_index: int) -> dict[str, Any]:
    return {
        "ruleId": problem.code.value,
        "ruleIndex": rule_index,
        "level": problem.severity,
        # The standard would double braces; no viewer undoes that in a message without arguments.
        "message": {"text": _message(problem)},
        "locations": [{"physicalLocation": _physical_location(problem.location)}] if problem.location else [],
    }


def _suppressions(problem: Problem) -> list[dict[str, str]]:
    if not isinstance(problem, AcceptedProblem):
        return []
    return [{"kind": "inSource", "status": "accepted", "justification": problem.reason}]


def _physical_location(location: Location) -> dict[str, Any]:
    return {
        "artifactLocation": {"uri": _uri(location.file)},
        "region": {
            "startLine": location.line,
            "startColumn": location.column,
            "endColumn": location.end_column,
        },
    }


def _uri(file: str) -> str:
    path = _path(file)
    # A colon in a relative path would end a scheme, so it is quoted like the rest.
    return path.as_uri() if path.is_absolute() else quote(os.fsencode(path.as_posix()))


# --- GitHub

_ESCAPES = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_DATA_ESCAPES = str.maketrans(_ESCAPES)
_PROPERTY_ESCAPES = str.maketrans({**_ESCAPES, ":": "%3A", ",": "%2C"})


def _command(problem: Problem) -> str:
    place = problem.location
    properties = {"title": problem.code.value}
    if place:
        properties = {
            "file": _path(place.file).as_posix(),
            "line": str(place.line),
            "col": str(place.column),
            "endColumn": str(place.end_column),
            **properties,
        }
    written = ",".join(f"{name}={value.translate(_PROPERTY_ESCAPES)}" for name, value in properties.items())
    level = "notice" if isinstance(problem, AcceptedProblem) else problem.severity
    return f"::{level} {written}::{_message(problem).translate(_DATA_ESCAPES)}"
