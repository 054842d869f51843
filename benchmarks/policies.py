"""What a long policy costs: CPU to decide among 1 to 10,000 rules, and to load them.

    python benchmarks/policies.py [--rounds 5]

Each policy has rules of one kind that differ in one word, and is asked by a request that the first rule takes,
the last, and none. Beside `Policy.decide` stands the walk that asks each rule in turn, without a decision at
its end. A text that comes again is found faster than one that was never seen, so both are measured. Figures are
CPU time, minimum - median - maximum of the rounds; they depend on the machine, so compare only what one run
printed.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import tomli
from msgspec import Raw, Struct

from routeproxy.messages.request import Envelope
from routeproxy.policy.compile import compile_rules
from routeproxy.policy.decide import Policy, Rule
from routeproxy.policy.facts import Facts
from routeproxy.policy.file import RulesFile, read
from routeproxy.policy.locate import Map
from routeproxy.policy.problems import Report

SIZES = (1, 10, 100, 1_000, 10_000)
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
        return Facts(
            Envelope(model=self.model.replace("#", str(rule)), messages=Raw(b"[]"), max_tokens=number),
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
    "either": Kind(
        'any = [{ model = "-v#-" }, { headers.x-app = "app-#" }]', headers={"x-app": "app-#"}
    ),
    "max_tokens": Kind(
        "max_tokens = { min = 1#, max = 1# }", number=lambda rule: int(f"1{rule}")
    ),
    "input_tokens": Kind(
        "input_tokens = { min = 1#, max = 1# }", number=lambda rule: int(f"1{rule}")
    ),
}


def walk(policy: Policy, facts: Facts) -> Rule:
    for rule in policy.rules:
        if rule.first_miss(facts) is None:
            return rule
    return policy.default


def deciding(rounds: int, sizes: list[int]) -> None:
    print(f"\n{'to decide (us)':<45} {LIMITS}   {'walk':>9}")
    for name, kind in KINDS.items():
        for size in sizes:
            policy = compiled(kind.rules(size))
            for place, number in (("first", 0), ("last", size - 1), ("default", size)):
                facts = kind.request(number)
                decided, walked = policy.decide(facts).rule, walk(policy, facts).name
                assert decided == walked
                quick = [cpu(lambda: policy.decide(facts)) * 1e6 for _ in range(rounds)]
                slow = cpu(lambda: walk(policy, facts)) * 1e6
                report(f"{name}, {size:,} rules, {place}", quick, f"   {slow:9.1f}")
            if "#" in kind.model:
                new = iter([kind.request(size + number) for number in range(rounds * 50)])
                cold = [cpu_of(lambda: policy.decide(next(new)), 50) * 1e6 for _ in range(rounds)]
                report(f"{name}, {size:,} rules, default, new texts", cold)


def loading(rounds: int, sizes: list[int]) -> None:
    print(f"\n{'to load (ms)':<45} {LIMITS}")
    for size in sizes:
        figures: dict[str, list[float]] = {}
        text = mixed(size)
        for _ in range(rounds):
            report_of_file = Report(text, "rules.toml")
            stages = {
                "tomli": cpu_of(lambda: tomli.loads(text)),
                "locate": cpu_of(lambda: Map.of(text)),
                "parse and mask": cpu_of(report_of_file.parse),
                "read": cpu_of(lambda: read(report_of_file.document, report_of_file, RulesFile)),
                "all, to a policy": cpu_of(lambda: compiled(text)),
            }
            policy = compiled(text)
            stages["index, with the first decision"] = cpu_of(lambda: policy.decide(Kind("").request(0)))
            for name, seconds in stages.items():
                figures.setdefault(name, []).append(seconds * 1e3)
        for name, values in figures.items():
            report(f"{size:,} rules, {name}", values)
