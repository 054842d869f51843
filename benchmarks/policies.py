"""What a long policy costs: CPU to decide among 1 to 10,000 rules, and to load them.

    python benchmarks/policies.py [--rounds 5]

Each policy has rules of one kind that differ in one word. It is asked by a request that the first rule takes,
by one that the last takes, and by one that none does. Beside `Policy.decide` stands the walk that asks each
rule in turn, without a decision at its end. Texts that were seen before are searched faster, so both are
measured. Figures are CPU time, minimum - median - maximum of the rounds; these depend on the machine, so
compare only what one run printed.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path

import tomli
from msgspec import Raw, Struct
from msgspec.json import encode

from routeproxy.messages.request import Envelope, ToolHead
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy, Rule
from routeproxy.policy.facts import Facts
from routeproxy.policy.file.reader import read
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.source_map import SourceMap
from routeproxy.policy.file.tables import RulesFile

ENVIRON = {"OPENAI_API_KEY": "none", "GEMINI_API_KEY": "none"}

HEAD = """
[providers.openai]
[providers.gemini]
[aliases]
pair = ["openai/gpt-5", "gemini/gemini-3"]
"""
DEFAULT = '\n[default]\ntargets = "openai/gpt-5"\n'


class Kind(Struct, frozen=True):
    """Rules of one kind: `#` is the number of the rule, in the conditions and in what a request says."""

    match: str
    model: str = "claude-opus-5"
    team: str | None = None
    headers: dict[str, str] = {}
    number: Callable[[int], int] = lambda rule: 0
    """The tokens of the request, and the most that it wants."""
    system: str = ""
    tool: str | None = None

    def rules(self, count: int) -> str:
        teams = [f"[teams.team-{n}]\n" for n in range(count)] if "team = " in self.match else []
        rules = [
            f'[[rules]]\nmatch = {{ {self.match.replace("#", str(n))} }}\ntargets = "openai/gpt-{n}"\n'
            for n in range(count)
        ]
        return "".join([HEAD, *teams, *rules, DEFAULT])

    def request(self, rule: int) -> Facts:
        said = {name: (value.replace("#", str(rule)),) for name, value in self.headers.items()}
        number = self.number(rule)
        envelope = Envelope(
            model=self.model.replace("#", str(rule)),
            messages=Raw(b"[]"),
            max_tokens=number,
            system=Raw(encode(self.system.replace("#", str(rule)))),
            tools=(ToolHead(self.tool.replace("#", str(rule))),) if self.tool else None,
        )
        return Facts(
            envelope,
            said,
            team=self.team.replace("#", str(rule)) if self.team else None,
            count=lambda: number,
        )


KINDS = {
    "header": Kind('headers.x-app = "app-#"', headers={"x-app": "app-#"}),
    "team": Kind('team = "team-#"', team="team-#"),
    "model has": Kind('model = "-v#-"', "claude-opus-v#-5"),
    "model begins": Kind('model.prefix = "claude-#-"', "claude-#-opus"),
    "model like a glob": Kind('model.glob = "claude-*-v#-*"', "claude-opus-v#-5"),
    "model like a regex": Kind("model.regex = '^claude-(opus|haiku)-[0-9]+-v#$'", "claude-opus-5-v#"),
    "header and model": Kind(
        'headers.x-app = "app-#", model = "opus"', "claude-opus-5", headers={"x-app": "app-#"}
    ),
    "either": Kind('any = [{ model = "-v#-" }, { headers.x-app = "app-#" }]', headers={"x-app": "app-#"}),
    "max_tokens": Kind("max_tokens = { min = 1#, max = 1# }", number=lambda rule: int(f"1{rule}")),
    "system has": Kind('system = "-v#-"', system="You are a helpful assistant. " * 300 + "-v#-"),
    "a tool": Kind('tools = "mcp__#__*"', tool="mcp__#__read"),
    "no such header": Kind(
        'not.headers.x-app = "app-#", model = "-v#-"', "claude-v#-5", headers={"x-app": "a"}
    ),
    "input_tokens": Kind("input_tokens = { min = 1#, max = 1# }", number=lambda rule: int(f"1{rule}")),
}


def walk(policy: Policy, facts: Facts) -> Rule:
    for rule in policy.rules:
        if rule.first_miss(facts) is None:
            return rule
    return policy.default


def deciding(rounds: int, sizes: list[int]) -> None:
    heading("to decide (us)", "walk, median")
    for name, kind in KINDS.items():
        for size in sizes:
            policy = compiled(kind.rules(size))
            for place, number in (("first", 0), ("last", size - 1), ("default", size)):
                facts = kind.request(number)
                assert policy.decide(facts).rule == walk(policy, facts).name
                found = [often(partial(policy.decide, facts)) for _ in range(rounds)]
                walked = statistics.median(often(partial(walk, policy, facts)) for _ in range(rounds))
                row(f"{name}, {size:,} rules, {place}", found, 1e6, f"{walked * 1e6:12,.1f}")
            if "#" in kind.model:
                unseen = [[kind.request(size + 100 * n + m) for m in range(100)] for n in range(rounds)]
                found = [cpu(partial(list, map(policy.decide, some))) / 100 for some in unseen]
                row(f"{name}, {size:,} rules, default, texts never seen", found, 1e6)


def loading(rounds: int, sizes: list[int]) -> None:
    heading("to load (ms)")
    for size in sizes:
        figures: dict[str, list[float]] = {}
        for _ in range(rounds):
            for stage, seconds in stages(mixed(size)):
                figures.setdefault(stage, []).append(seconds)
        for stage, values in figures.items():
            row(f"{size:,} rules, {stage}", values, 1e3)


def stages(text: str) -> Iterator[tuple[str, float]]:
    parsing = Report(text, "rules.toml")
    yield "tomli", cpu(partial(tomli.loads, text))
    yield "locate", cpu(partial(SourceMap.of, text))
    parsed = cpu(parsing.parse)
    reading = cpu(partial(read, parsing.document, parsing, RulesFile))
    whole = cpu(partial(compiled, text))
    yield "read", reading
    yield "compile", whole - parsed - reading
    yield "all of these", whole
    policy = compiled(text)
    yield "the first decision, with the index", cpu(partial(policy.decide, KINDS["header"].request(0)))


def mixed(size: int) -> str:
    """Rules as people generate them: a name, one condition or two, targets, now and then more."""
    conditions = [
        'headers = { x-app = "app-#" }',
        'headers = { x-app = "app-#" }, model = "haiku"',
        'model.prefix = "claude-#-", stream = true',
        'model.glob = "claude-*-v#-*"',
        'input_tokens.min = 1#, user = "user-#"',
    ]
    actions = [
        'targets = "pair"',
        'targets = ["openai/gpt-#", "gemini/gemini-3"]\nfallback.also = ["context_overflow"]',
        'targets = "openai/gpt-5"\nparams.set.temperature = 0.5\nparams.cap.max_tokens = 4000',
        'deny = "not here"',
    ]
    rules = (
        f'[[rules]]\nname = "rule #"\nmatch = {{ {condition} }}\n{action}\n'.replace("#", str(number))
        for number, condition, action in zip(range(size), cycle(conditions), cycle(actions), strict=False)
    )
    return "".join([HEAD, *rules, DEFAULT])


def compiled(text: str) -> Policy:
    return compile_rules(text, path=Path("rules.toml"), environ=ENVIRON)


def cpu(work: Callable[[], object], times: int = 1) -> float:
    """Seconds of CPU for doing it once."""
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) / times


def often(work: Callable[[], object]) -> float:
    """The same, of something so short that it is done for 5 ms in all."""
    work()
    return cpu(work, max(1, int(0.005 / max(cpu(work), 1e-6))))


def heading(unit: str, more: str = "") -> None:
    print(f"\n{unit:<60} {'minimum':>9} - {'median':>9} - {'maximum':>9} {more}", flush=True)


def row(name: str, seconds: list[float], scale: float, more: str = "") -> None:
    least, middle, most = min(seconds) * scale, statistics.median(seconds) * scale, max(seconds) * scale
    print(f"{name:<60} {least:9.1f} - {middle:9.1f} - {most:9.1f} {more}".rstrip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100, 1_000, 10_000])
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    deciding(arguments.rounds, arguments.sizes)
    loading(arguments.rounds, [size for size in arguments.sizes if size >= 1_000])


if __name__ == "__main__":
    main()
