"""How long `routeproxy check` takes for 10,000 rules of each kind, in a process of its own.

    python benchmarks/checking.py [--rules 10000] [--rounds 3] [--before FOLDER]

Figures are the CPU time of the whole command, start included: minimum - median - maximum of the rounds. They
depend on the machine. FOLDER is a worktree of another commit, which is measured in turns with this one.
"""

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent

KINDS: dict[str, Callable[[int, random.Random], str]] = {
    "parts of names": lambda number, dice: f'model = "model-{number:05d}x"',
    "overlapping parts": lambda number, dice: f'model = "{"".join(dice.choices("ab", k=16))}"',
    "each in the next": lambda number, dice: f'model = "{"a" * (400 - number % 400)}{number // 400:03d}"',
    "globs": lambda number, dice: f'model.glob = "*m{dice.randrange(10**9)}*"',
    "regexes": lambda number, dice: f'model.regex = "claude-(opus|sonnet)-{number}-[0-9]+"',
    "parts and headers": lambda number, dice: (
        f'model = "m{number % 100}"\nmatch.headers.x-team = "t{number}"'
    ),
    "token ranges": lambda number, dice: f'model = "k{number % 50}"\nmatch.input_tokens.max = {number * 7}',
    "any and not": lambda number, dice: (
        f'any = [{{ model = "m{number:05d}x", stream = true }}, {{ headers.x-a = "h{number}" }}]\n'
        f'match.not.model = "m{number:05d}xy"'
    ),
}
"""By a kind, the condition of its rule of a number, as TOML behind `match.`."""

INCLUDED = "in included files"
"""Ten rules in each file, each of a team that may reach one provider."""


def files(kind: str, number: int) -> dict[str, str]:
    """The rules file and what it includes, by their names."""
    if kind == INCLUDED:
        return included_files(number)
    dice = random.Random(1)
    tables = (
        f'[[rules]]\nname = "r{at}"\nmatch.{KINDS[kind](at, dice)}\ntargets = "echo/m{at % 50}"\n'
        for at in range(number)
    )
    return {"rules.toml": "\n".join(["[providers.echo]", *tables, "[default]", 'targets = "echo/*"', ""])}


def included_files(number: int) -> dict[str, str]:
    teams = range(number // 10)
    main = ["[providers.echo]", "[server]", "require_key = false"]
    main += [f'[teams.t{team}]\nkeys = "sha256:{team:064x}"\ntargets = "echo/*"' for team in teams]
    main += ["[[rules]]", 'include = "teams/*.toml"', "[default]", 'targets = "echo/*"', ""]
    contents = {"rules.toml": "\n".join(main)}
    for team in teams:
        rules = (f'[[rules]]\nmatch.model = "model-{at}x"\ntargets = "echo/m{at}"\n' for at in range(10))
        contents[f"teams/t{team:05d}.toml"] = "\n".join([f'team = "t{team}"', *rules])
    return contents


def seconds_of_check(file: Path, worktree: Path) -> tuple[float, str]:
    """CPU time, and the last line that was printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(
        [sys.executable, "-m", "routeproxy", "check", str(file)],
        capture_output=True,
        text=True,
        cwd=worktree,
        env={**os.environ, "PYTHONPATH": str(worktree)},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, (ran.stdout.splitlines() or ran.stderr.splitlines() or ["nothing was printed"])[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rules", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="a worktree of another commit")
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, INCLUDED], choices=[*KINDS, INCLUDED])
    options = parser.parse_args()
    worktrees = [*([options.before.resolve()] if options.before else []), HERE]
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files(kind, options.rules).items():
                file = Path(folder, name)
                file.parent.mkdir(exist_ok=True)
                file.write_text(text)
            rules = Path(folder, "rules.toml")
            rounds = [[seconds_of_check(rules, tree) for tree in worktrees] for _ in range(options.rounds)]
        columns = []
        for found in zip(*rounds, strict=True):
            spent = sorted(seconds for seconds, _ in found)
            columns.append(f"{spent[0]:6.2f} - {statistics.median(spent):.2f} - {spent[-1]:.2f} s")
        said = rounds[0][-1][1].partition(": ")[2]
        print(f"{kind:20} {'   →'.join(columns)}   {said}", flush=True)


if __name__ == "__main__":
    main()
