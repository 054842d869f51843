import os
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Denial, Fallback, Policy, Retry
from routeproxy.policy.model_list import ModelLists, models_for
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Params, Timeouts, TransformSettings
from tests.policy.asking import KEYS, PROVIDERS, ask, names, policy, request, rules

THREE = rules("""
    [[rules]]
    name = "no pictures"
    match.images = true
    deny = { message = "no pictures here", status = 413 }

    [[rules]]
    name = "haiku"
    match.model = "haiku"
    targets = ["openai/gpt-4.1-mini", "gemini/gemini-2.5-flash"]

    [[rules]]
    name = "any claude"
    match.model = "claude"
    targets = "anthropic/*"
""")

PICTURE = [{"role": "user", "content": [{"type": "image", "source": {}}]}]


@pytest.mark.parametrize(
    ("model", "fields", "rule", "targets"),
    [
        pytest.param(
            "claude-haiku-4-5",
            {},
            "haiku",
            ["openai/gpt-4.1-mini", "gemini/gemini-2.5-flash"],
            id="the first",
        ),
        pytest.param("claude-opus-4-8", {}, "any claude", ["anthropic/claude-opus-4-8"], id="the next"),
        pytest.param("gpt-5", {}, "default", ["echo/default"], id="none"),
        pytest.param("claude-haiku-4-5", {"messages": PICTURE}, "no pictures", [], id="a denial above"),
    ],
)
def test_the_first_rule_that_matches_decides(model: str, fields: Any, rule: str, targets: list[str]) -> None:
    decision = ask(THREE, model, **fields)
    assert (decision.rule, names(decision)) == (rule, targets)


def test_a_denial_carries_the_rules_words() -> None:
    assert ask(THREE, messages=PICTURE).deny == Denial("no pictures here", 413)
    assert ask(policy('[default]\ndeny = "closed"')).deny == Denial("closed", 400)


def test_a_decision_says_which_rules_were_asked_and_where_they_stand() -> None:
    decision = ask(THREE, "claude-opus-4-8")
    assert [(step.rule.name, step.why) for step in decision.steps] == [
        ("no pictures", "images is false, needs to be true"),
        ("haiku", "model is `claude-opus-4-8`, needs to contain `haiku`"),
        ("any claude", ""),
    ]
    assert decision.where == "rules.toml:18"
    assert ask(THREE, "x").steps[-1].rule.name == "default"


# --- P/*


@pytest.mark.parametrize(
    ("target", "requested", "sent"),
    [
        ("anthropic/*", "claude-opus-4-8", "claude-opus-4-8"),
        ("anthropic/*", "anthropic/claude-opus-4-8", "claude-opus-4-8"),
        ("anthropic/*", "claude-opus-4-8[1m]", "claude-opus-4-8"),
        ("anthropic/*", "Anthropic/Claude[1M]", "Claude"),
        ("anthropic/*", "openai/gpt-4.1", "openai/gpt-4.1"),
        ("mine/*", "mine/gpt-4.1", "gpt-4.1"),
        ("mine/*", "openai/gpt-4.1", "gpt-4.1"),
        ("mine/*", "mine/openai/gpt-4.1", "openai/gpt-4.1"),
        ("local/*", "ollama_chat/llama3.3:70b", "llama3.3:70b"),
        ("vertex/*", "vertex_ai/gemini-2.5-pro", "gemini-2.5-pro"),
        ("together/*", "together_ai/meta-llama/x", "meta-llama/x"),
        ("nvidia/*", "nvidia_nim/nvidia/nemotron", "nvidia/nemotron"),
        ("nvidia/*", "nvidia/nemotron", "nvidia/nemotron"),
        ("nvidia/*", "meta/llama", "meta/llama"),
    ],
)
def test_a_star_asks_for_what_the_client_asked_for(target: str, requested: str, sent: str) -> None:
    found = policy(
        f"""
        {PROVIDERS}
        [providers.mine]
        type = "openai"
        [providers.local]
        type = "ollama"
        [providers.vertex]
        type = "vertex_ai"
        project = "p"
        location = "l"
        [providers.together]
        type = "together_ai"
        [providers.nvidia]
        type = "nvidia_nim"
        [default]
        targets = "{target}"
        """
    )
    (decided,) = ask(found, requested).targets
    assert decided.model == sent


# --- targets in the URL

BY_URL = policy("""
    [providers.openai]
    [providers.second]
    type = "openai"
    [providers.ollama]
    [providers.anthropic]
    [[rules]]
    match.model = "denied"
    deny = "no"
    [default]
    targets = ["second/gpt-4.1", "openai/gpt-4.1", "ollama/*", "anthropic/*"]
""")


@pytest.mark.parametrize(
    ("url", "targets"),
    [
        ("openai/gpt-4.1", ["openai/gpt-4.1"]),
        ("second/gpt-4.1", ["second/gpt-4.1"]),
        ("ollama/llama3.3:70b", ["ollama/llama3.3:70b"]),
        ("ollama_chat/x/y", ["ollama/x/y"]),
        ("anthropic/claude-opus-4-8[1m]", ["anthropic/claude-opus-4-8"]),
        ("openai/gpt-5", []),
        ("gemini/gpt-4.1", []),
    ],
)
def test_a_target_in_the_url_leaves_only_itself(url: str, targets: list[str]) -> None:
    decision = ask(BY_URL, url=url)
    assert (names(decision), decision.fallback.enabled) == (targets, False)
    assert decision.deny == (None if targets else Denial(f"model: {url}", 404))


def test_a_denial_stands_whatever_the_url_names() -> None:
    assert ask(BY_URL, url="openai/denied").deny == Denial("no", 400)


# --- what a rule may do


def default(text: str, head: str = PROVIDERS) -> Any:
    return ask(policy(f"{head}\n[default]\n{text}"))


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ('targets = "echo/a"', ["echo/a"]),
        ('targets = ["echo/a", "echo/b/c"]', ["echo/a", "echo/b/c"]),
        ('targets = { target = "echo/a" }', ["echo/a"]),
        (
            'targets = ["two", { target = "one" }, "gpt-4.1"]',
            ["echo/x", "echo/y", "echo/1", "openai/gpt-4.1"],
        ),
    ],
)
def test_targets_are_an_order_with_aliases_spliced_in(text: str, targets: list[str]) -> None:
    head = f"""{PROVIDERS}
[aliases]
one = "echo/1"
two = ["echo/x", "echo/y"]
"gpt-4.1" = "openai/gpt-4.1"
"""
    assert names(default(text, head)) == targets


USUAL = Fallback(True).on


@pytest.mark.parametrize(
    ("text", "fallback"),
    [
        ('targets = "echo/a"', Fallback(False)),
        ('targets = ["echo/a", "echo/b"]', Fallback(True)),
        ('targets = ["echo/a", "echo/b"]\nfallback = false', Fallback(False)),
        ('targets = ["echo/a", "echo/b"]\nfallback.also = ["auth"]', Fallback(True, USUAL | {"auth"})),
        (
            'targets = ["echo/a", "echo/b"]\nfallback.on = ["timeout"]',
            Fallback(True, frozenset({"timeout_connect", "timeout_first_token", "timeout_idle"})),
        ),
    ],
)
def test_fallback_is_what_the_rule_says_else_on_for_a_list(text: str, fallback: Fallback) -> None:
    assert default(text).fallback == fallback


def test_the_usual_failures_are_those_of_the_language() -> None:
    assert {
        "rate_limit",
        "overloaded",
        "server_error",
        "timeout_connect",
        "timeout_first_token",
        "timeout_idle",
        "connection",
    } == USUAL


def test_times_are_seconds() -> None:
    decision = default(
        'targets = "echo/a"\ndeadline = "1m30s"\nretry = { attempts = 3, backoff = "250ms" }\n'
        'timeouts = { connect = "5s", total = "1.5h" }'
    )
    assert (decision.deadline, decision.retry) == (90.0, Retry(3, 0.25))
    assert decision.targets[0].timeouts == Timeouts(connect=5.0, first_token=None, idle=300.0, total=5400.0)


def test_nothing_is_retried_unless_asked_for() -> None:
    decision = default('targets = "echo/a"')
    assert (decision.retry.attempts, decision.deadline) == (1, None)


def test_settings_of_a_target_go_over_the_rules_and_those_over_the_providers() -> None:
    (target,) = default(
        """
        targets = {
            target = "small",
            params.set.top_p = 0.3,
            params.cap.max_tokens = 900,
            transforms.thinking = "drop",
        }
        params.set = { top_p = 0.2, top_k = 2 }
        params.cap.max_tokens = 1000
        params.extra_body.a = { y = 2, z = 2 }
        transforms = { thinking = "text", newlines = "escape" }
        timeouts.idle = "7s"
        """,
        """
        [providers.openai]
        params.set = { top_p = 1, top_k = 1, temperature = 1 }
        params.cap.max_tokens = 500
        params.drop = ["thinking"]
        params.default.speed = "fast"
        params.extra_body.a = { x = 1, y = 1 }
        transforms = { think_tags = true, newlines = "unescape" }
        timeouts = { idle = "5s", connect = "5s" }
        [aliases]
        small = { target = "openai/x", params = { drop = ["top_k"], set = { top_p = 0.9 } } }
        """,
    ).targets
    assert target.params == Params(
        default={"speed": "fast"},
        set={"top_p": 0.3, "top_k": 2, "temperature": 1},
        cap={"max_tokens": 500},
        drop=frozenset({"thinking", "top_k"}),
        extra_body={"a": {"x": 1, "y": 2, "z": 2}},
    )
    assert target.transforms == TransformSettings(think_tags=True, thinking="drop", newlines="escape")
    assert target.timeouts == Timeouts(idle=7.0, connect=5.0)


# --- version and models

SMALL = """
[providers.openai]
[[rules]]
name = "a"
match.model = "a"
match.stream = true
targets = "openai/a"
[[rules]]
name = "b"
match.model = "b"
targets = "openai/b"
[default]
targets = ["openai/c"]
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("[default]", "# a comment\n\n[default]", id="comments and space"),
        pytest.param(
            'match.model = "a"\nmatch.stream = true',
            'match = { stream = true, model = "a" }',
            id="inline, other order",
        ),
        pytest.param(
            "[providers.openai]", '[providers.openai]\ntype = "openai"\nzone = "public"', id="defaults said"
        ),
        pytest.param('["openai/c"]', '"openai/c"', id="one target or a list of one"),
        pytest.param("[default]", "[default]\nfallback = false", id="no fallback for one"),
        pytest.param("[default]", '[default]\ntimeouts.idle = "5m"', id="the default timeout"),
    ],
)
def test_the_version_is_the_same_while_the_meaning_is(old: str, new: str) -> None:
    assert policy(SMALL.replace(old, new)).version == policy(SMALL).version


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"openai/c"', '"openai/d"'),
        ('match.model = "b"', 'match.model = "c"'),
        ('name = "b"', 'name = "c"'),
        ("[providers.openai]", '[providers.openai]\napi_key = "env:OTHER"'),
        ("[providers.openai]", '[providers.openai]\nzone = "private"'),
        ("[default]", "[default]\nparams.cap.max_tokens = 5"),
        ("[default]", '[default]\ntimeouts.idle = "6m"'),
        ("[providers.openai]", "[server]\nport = 1\n[providers.openai]"),
    ],
)
def test_the_version_changes_with_the_meaning(old: str, new: str) -> None:
    assert policy(SMALL.replace(old, new)).version != policy(SMALL).version


def test_the_order_of_rules_is_part_of_the_meaning() -> None:
    head, a, rest = SMALL.split("[[rules]]")
    b, tail = rest.split("[default]")
    swapped = f"{head}[[rules]]{b}[[rules]]{a}[default]{tail}"
    assert policy(swapped).version != policy(SMALL).version


def test_the_version_is_the_same_in_every_process() -> None:
    # Workers must agree on it, and Python orders sets of text anew in each process.
    versions = {
        subprocess.run(
            [sys.executable, "-c", _PRINT_VERSION],
            env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2", "3", "4")
    }  # fmt: skip
    assert len(versions) == 1


_PRINT_VERSION = """
from pathlib import Path
from routeproxy.policy.compile.compiler import compile_rules
text = '[providers.vertex]\\ntype = "vertex_ai"\\nproject = "p"\\nlocation = "l"\\n'
text += '[default]\\ntargets = "vertex/*"'
print(compile_rules(text, path=Path("rules.toml"), environ={}).version)
"""


def test_no_secret_is_part_of_the_version_or_shown() -> None:
    one = policy(SMALL, {"OPENAI_API_KEY": "sk-one"})
    other = policy(SMALL, {"OPENAI_API_KEY": "sk-other"})
    assert one.version == other.version
    assert "sk-one" not in repr(one)
    assert one.providers["openai"].keys[0].value == "sk-one"


def nothing_known(provider: Provider) -> tuple[str, ...]:
    return ()


@pytest.mark.parametrize(
    ("text", "models"),
    [
        pytest.param(
            """
            [[rules]]
            match.model.equals = ["Claude-A", "claude-b"]
            targets = "echo/x"
            """,
            ("Claude-A", "claude-b"),
            id="names that a rule equals",
        ),
        pytest.param(
            """
            [[rules]]
            match.model = "haiku"
            targets = "anthropic/*"
            [[rules]]
            match.stream = false
            targets = "openai/gpt-4.1"
            """,
            ("gpt-4.1", "anthropic/gpt-4.1"),
            id="a target that its own name leads to, with a twin that Claude Code shows",
        ),
        pytest.param(
            """
            [[rules]]
            match.model.equals = "big"
            targets = "openai/gpt-4.1"
            """,
            ("big",),
            id="no twin where it would lead elsewhere",
        ),
        pytest.param(
            """
            [[rules]]
            match.not.model.equals = "x"
            targets = "anthropic/*"
            """,
            (),
            id="none",
        ),
    ],
)
def test_models_are_listed_where_asking_for_them_works(text: str, models: tuple[str, ...]) -> None:
    found = policy(f'{PROVIDERS}\n{dedent(text)}\n[default]\ndeny = "no"')
    assert models_for(found, None, nothing_known) == models


def test_the_servers_own_list_of_models_goes_before_all_others() -> None:
    found = policy(f'[server]\nmodels = ["b", "a"]\n{PROVIDERS}\n[default]\ntargets = "openai/gpt-4.1"')
    assert models_for(found, None, nothing_known) == ("b", "a")


def test_a_list_of_models_is_made_once_for_each_caller_and_anew_for_another_policy() -> None:
    text = f'[server]\nmodels = ["b", "a"]\n{PROVIDERS}\n[default]\ntargets = "openai/gpt-4.1"'
    before, after, lists = policy(text), policy(text.replace('"b"', '"c"')), ModelLists(nothing_known)
    assert lists.of(before, None) is lists.of(before, None)
    assert lists.of(before, None) is not lists.of(before, "payments")
    assert lists.of(after, None) == ("c", "a")


# --- speed


def many(count: int) -> Policy:
    lines = [PROVIDERS]
    for number in range(count):
        lines += [
            f'[[rules]]\nname = "rule {number}"\nmatch.model = ["haiku-{number}", "sonnet-{number}"]',
            f'match.headers.x-team = "team-{number}"\nmatch.input_tokens.min = 5\ntargets = "echo/{number}"',
        ]
    text = "\n".join([*lines, '[default]\ntargets = "anthropic/*"'])
    return compile_rules(text, path=Path("rules.toml"), environ=KEYS)


def test_a_hundred_rules_take_less_than_a_tenth_of_a_millisecond() -> None:
    found, facts = many(100), request(headers={"x-team": "payments"})
    assert min(timed(lambda: found.decide(facts)) for _ in range(200)) < 100e-6


def timed(work: Any) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start
