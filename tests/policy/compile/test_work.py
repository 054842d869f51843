"""What it takes to compile, check and prove a rules file grows with its rules, and not with their square.

Work is counted in calls of functions of ours: a clock would say what else the machine is doing."""

import datetime
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.compile.lints import Lints
from routeproxy.policy.file.includes import KeptFolder
from routeproxy.policy.problems import Problem, RulesRefused
from routeproxy.policy.providers import ModelFacts

Files = dict[str, str]
"""The rules file and what it includes, by their names."""

RULES = "rules.toml"


def one_file(
    rule: Callable[[int], str], more: Callable[[int], str] = lambda number: ""
) -> Callable[[int], Files]:
    """A file of so many rules, each given by its keys; `more` is written once for each rule behind them."""

    def of(count: int) -> Files:
        rules = (f"[[rules]]\nname = 'r{number}'\n{rule(number)}" for number in range(count))
        behind = (more(number) for number in range(count))
        return {
            RULES: "\n".join(["[providers.p]\ntype = 'echo'", *rules, "[default]\ntargets = 'p/*'", *behind])
        }

    return of


def included_files(count: int) -> Files:
    """Files of four rules, each of a team that may reach one provider."""
    teams = range(count // 4)
    main = ["[providers.p]\ntype = 'echo'", "[providers.q]\ntype = 'echo'"]
    main += [f"[teams.t{team}]\nkeys = 'sha256:{team:064x}'\ntargets = 'p/*'" for team in teams]
    main += ["[[rules]]\ninclude = 'teams/*.toml'", "[default]\ntargets = 'p/*'"]
    main += [f"[[rules]]\nmatch = {{ model = 'n{number}x' }}\ntargets = 'p/m'" for number in range(count)]
    files = {RULES: "\n".join(main)}
    for team in teams:
        rules = (f"[[rules]]\nmatch.model = 'm{number}x'\ntargets = 'p/m'" for number in range(3))
        files[f"teams/{team:04}.toml"] = "\n".join(
            [f"team = 't{team}'", *rules, "[[rules]]\nmatch.model = 'z'\ntargets = 'p/m'"]
        )
    return files


SENT = "targets = 'p/m'"
DENIED = "deny = 'no'"

KINDS: dict[str, Callable[[int], Files]] = {
    "parts of names": one_file(lambda n: f"match.model = 'm{n:05}x'\n{SENT}"),
    "the same condition twice": one_file(lambda n: f"match.model = 'm{n // 2:05}x'\n{SENT}"),
    "globs": one_file(lambda n: f"match.model.glob = '*m{n:05}*'\n{SENT}"),
    "headers": one_file(lambda n: f"match.model = 'm{n % 7}'\nmatch.headers.x-team = 't{n}'\n{SENT}"),
    "token ranges": one_file(lambda n: f"match.model = 'k{n % 9}'\nmatch.input_tokens.max = {7 * n}\n{SENT}"),
    "any and not": one_file(
        lambda n: (
            f"match.any = [{{ model = 'm{n:05}x' }}, {{ headers.x-a = 'h{n}' }}]\n"
            f"match.not.model = 'm{n:05}xy'\n{SENT}"
        )
    ),
    "denials below what they would deny": one_file(
        lambda n: f"match.model = 'm{n:05}x'\n{SENT if n % 2 else DENIED}"
    ),
    "accepted warnings": one_file(lambda n: f"match.model = 'm{n // 2:05}x'\n{SENT}\naccept.RP105 = 'meant'"),
    "a test for each": one_file(
        lambda n: f"match.model = 'm{n:05}x'\n{SENT}",
        lambda n: f"[[tests]]\nrequest = {{ model = 'm{n:05}x' }}\nexpect = {{ rule = 'r{n}' }}",
    ),
    "neither targets nor a denial": one_file(lambda n: f"match.model = 'm{n:05}x'"),
    "a provider that does not exist": one_file(lambda n: f"match.model = 'm{n:05}x'\ntargets = 'x/m'"),
    "an unknown key": one_file(lambda n: f"match.modell = 'm{n:05}x'\n{SENT}"),
    "included files of teams with invariants of their own": included_files,
}


def problems_of(files: Files) -> tuple[Problem, ...]:
    names = sorted(files.keys() - {RULES})
    contents = {name: files[name].encode() for name in names}
    lints = Lints(lambda target: ModelFacts(), datetime.date(2026, 1, 1))
    try:
        policy = compile_rules(
            files[RULES],
            path=Path(RULES),
            environ={},
            folder=KeptFolder({"teams/*.toml": names}, contents),
            also=lints,
        )
    except RulesRefused as refused:
        return refused.problems
    return policy.warnings


def work_for(files: Files) -> int:
    """How many functions of ours are called."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        problems_of(files)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_twice_as_many_rules_are_twice_the_work(kind: Callable[[int], Files]) -> None:
    problems_of(kind(8))  # what is worked out once in a process
    few, many = (work_for(kind(count)) for count in (120, 240))
    assert many < 2.4 * few


def test_few_calls_are_made_for_a_rule() -> None:
    """200 when this was written, 310 while a solver was asked about each."""
    kind = KINDS["parts of names"]
    few, many = (work_for(kind(count)) for count in (120, 240))
    assert (many - few) / 120 < 260
