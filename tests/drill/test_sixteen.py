"""The sixteen scenarios of the public board for gateways, restated for Anthropic streams: two targets, of
which the first misbehaves (docs/drills.md)."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from routeproxy.drill.clock import FastLoop
from routeproxy.drill.rehearsal import Row, rehearse
from routeproxy.drill.scenarios import sixteen
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy
from tests.budgets import part_of_table

SPEED = 20.0

PROVIDERS = {
    "chat": 'type = "openai_compatible"\nbase_url = "{url}/v1"',
    "responses": 'type = "openai_compatible"\napi = "responses"\nbase_url = "{url}/v1"',
    "messages": 'type = "anthropic"\nbase_url = "{url}"',
    "gemini": 'type = "gemini"\nbase_url = "{url}/v1beta"',
    "ollama": 'type = "ollama"\nbase_url = "{url}"',
}
SETTINGS = {
    "defaults": "",
    "tuned": 'retry.attempts = 3\ntimeouts = { first_token = "10s", idle = "10s" }\n'
    'fallback.also = ["context_overflow"]\n',
}
SETTINGS["hold"] = SETTINGS["tuned"] + 'hold = "whole"\n'


def policy_of(format: str, settings: str, engine: str, urls: Sequence[str]) -> Policy:
    providers = "".join(
        f'[providers.p{number}]\n{PROVIDERS[format].format(url=url)}\napi_key = "none"\n'
        + (f'engine = "{engine}"\n' if engine != "direct" else "")
        for number, url in enumerate(urls, 1)
    )
    text = f'{providers}[default]\ntargets = ["p1/m", "p2/m"]\n{SETTINGS[settings]}'
    return compile_rules(text, path=Path("rules.toml"), environ={})


def table(format: str, settings: str, *, stream: bool, engine: str = "direct") -> list[Row]:
    def policy(urls: Sequence[str]) -> Policy:
        return policy_of(format, settings, engine, urls)

    with contextlib.closing(FastLoop(SPEED)) as loop:
        return loop.run_until_complete(rehearse(sixteen(), [format] * 2, policy, stream=stream))


LEAST = {
    ("defaults", True): (8, 3, 5, 0),
    ("defaults", False): (11, 4, 1, 0),
    ("tuned", True): (12, 0, 4, 0),
    ("tuned", False): (16, 0, 0, 0),
    ("hold", True): (15, 0, 1, 0),
    ("hold", False): (16, 0, 0, 0),
}
"""How many pass, are partial, safe, and fail, at least as good."""


def counts(rows: Sequence[Row]) -> tuple[int, int, int, int]:
    counted = Counter(row.verdict for row in rows)
    return counted["pass"], counted["partial"], counted["safe"], counted["fail"]


FORMS = [(settings, stream) for settings in SETTINGS for stream in (True, False)]


@pytest.mark.parametrize(("format", "form"), part_of_table(PROVIDERS, FORMS))
def test_the_sixteen_scenarios_come_out_as_published(format: str, form: tuple[str, bool]) -> None:
    settings, stream = form
    rows = table(format, settings, stream=stream)
    shown = "\n".join(map(str, rows))
    passed, partial, _, failed = counts(rows)
    least = LEAST[settings, stream]
    assert failed == 0, shown
    assert passed >= least[0], f"{counts(rows)} {least}\n{shown}"
    assert passed + partial >= least[0] + least[1], f"{counts(rows)} {least}\n{shown}"
