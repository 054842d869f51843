"""`routeproxy check`: is this rules file one that the server would take?

Like `nginx -t`, it starts nothing and contacts nobody.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TextIO

import msgspec

from routeproxy.policy.compile import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.problems import Problem, RulesRefused

Format = Literal["text", "json"]


def run_check(
    path: Path,
    *,
    environ: Mapping[str, str],
    strict: bool = False,
    format: Format = "text",
    allow_literal_keys: bool = False,
    out: TextIO,
    err: TextIO,
) -> int:
    """0: it would be taken. 1: it has errors, or with `strict` warnings. 2: there is nothing to read."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        print(f"routeproxy: {path}: {error.strerror}", file=err)
        return 2
    except UnicodeDecodeError as error:
        print(f"routeproxy: {path}: not UTF-8 at byte {error.start + 1}", file=err)
        return 2
    policy, problems = _compiled(text, path, environ, allow_literal_keys)
    if format == "json":
        print(_json(path, policy, problems), file=out)
    else:
        print(_text(path, policy, problems), file=out)
    return 1 if policy is None or (strict and problems) else 0


def _compiled(
    text: str, path: Path, environ: Mapping[str, str], allow_literal_keys: bool
) -> tuple[Policy | None, tuple[Problem, ...]]:
    try:
        policy = compile_rules(text, path=path, environ=environ, allow_literal_keys=allow_literal_keys)
    except RulesRefused as refused:
        return None, refused.problems
    return policy, policy.warnings


def _text(path: Path, policy: Policy | None, problems: Sequence[Problem]) -> str:
    errors = sum(problem.severity == "error" for problem in problems)
    counted = [_counted(errors, "error"), _counted(len(problems) - errors, "warning")]
    found = ", ".join(part for part in counted if part)
    if policy is not None:
        rules = _counted(len(policy.rules), "rule") or "no rules"
        found = f"{rules} and a default, version {policy.version}" + (f"; {found}" if found else "")
    return "\n\n".join([*map(str, problems), f"{path}: {found}"])


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}" if number else ""


def _json(path: Path, policy: Policy | None, problems: Sequence[Problem]) -> str:
    report = {
        "file": str(path),
        "ok": policy is not None,
        "version": policy.version if policy else None,
        "problems": problems,
    }
    return msgspec.json.format(msgspec.json.encode(report)).decode()
