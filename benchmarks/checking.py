"""How long `routeproxy check` takes for 10,000 rules of each kind, in a process of its own.

    python benchmarks/checking.py [--rules 10000] [--rounds 3]

Figures are the CPU time of the whole command, start included: minimum - median - maximum of the rounds. They
depend on the machine.
"""

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

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
}
"""By a kind, the condition of its rule of a number, as TOML behind `match.`."""


def rules(kind: str, number: int) -> str:
    dice = random.Random(1)
    tables = (
        f'[[rules]]\nname = "r{at}"\nmatch.{KINDS[kind](at, dice)}\ntargets = "echo/m{at % 50}"\n'
        for at in range(number)
    )
    return "\n".join(["[providers.echo]", *tables, "[default]", 'targets = "echo/*"', ""])


def seconds_of_check(file: Path) -> tuple[float, str]:
    """CPU time, and the last line that was printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(
        [sys.executable, "-m", "routeproxy", "check", str(file)], capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, (ran.stdout.splitlines() or ran.stderr.splitlines() or ["nothing was printed"])[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rules", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rules.toml")
        for kind in KINDS:
            file.write_text(rules(kind, options.rules))
            found = [seconds_of_check(file) for _ in range(options.rounds)]
            spent = sorted(seconds for seconds, _ in found)
            said = found[0][1].partition(": ")[2]
            print(f"{kind:20} {spent[0]:6.2f} - {statistics.median(spent):.2f} - {spent[-1]:.2f} s   {said}")


if __name__ == "__main__":
    main()
