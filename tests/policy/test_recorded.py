"""Recorded requests are decided once more as they were, or not at all where the decision hangs on something
that was not recorded."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.messages.request import decode_envelope
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.facts import Facts
from routeproxy.policy.logged import logged_facts, recorded_facts
from routeproxy.policy.recorded import RecordedDecisions, RecordedRequest, Undecidable
from tests.policy.asking import policy

HEAD = """
[providers.echo]
"""
TAIL = """
[default]
targets = "echo/default"
"""


def rules(*matches: str) -> Policy:
    """A rule for each, `r1` and so on, and the default."""
    tables = [
        f'[[rules]]\nname = "r{n}"\nmatch = {{ {match} }}\ntargets = "echo/{n}"\n'
        for n, match in enumerate(matches, 1)
    ]
    return policy(HEAD + "\n".join(tables) + TAIL)


def decided(by: Policy, recorded: Mapping[str, Any], request_id: str | None = "req_1") -> str:
    """The rule, or `? fact`."""
    outcome = RecordedDecisions(by).decide(RecordedRequest({"model": "m", **recorded}, request_id=request_id))
    return f"? {outcome.fact}" if isinstance(outcome, Undecidable) else outcome.rule


@pytest.mark.parametrize(
    ("match", "recorded", "expected"),
    [
        # Of a header that was recorded, its absence too.
        ('headers.x-a = "1"', {"headers": {"x-a": "1"}}, "r1"),
        ('headers.x-a = "1"', {"headers": {"x-a": None}}, "default"),
        ('headers.x-a = "1"', {"headers": {"x-b": "1"}}, "? header x-a"),
        ('headers.x-a = "1"', {}, "? header x-a"),
        ("headers.x-a.present = false", {}, "? header x-a"),
        ('not.headers.x-a = "1"', {}, "? header x-a"),
        # What has a name of its own is always recorded.
        ('request_class = "main"', {}, "default"),
        ('request_class = "main"', {"request_class": "main"}, "r1"),
        ('request_class = "main"', {"not_recorded": ["request_class"]}, "? request_class"),
        # What costs something.
        ("images = true", {}, "default"),
        ("images = true", {"not_recorded": ["images"]}, "? images"),
        ("images = false", {"images": True}, "default"),
        ('tools = "Bash*"', {"tools": ["BashTool"]}, "r1"),
        ('tools = "Bash*"', {"not_recorded": ["tools"]}, "? tools"),
        ('system = "reviewer"', {}, "? system"),
        ('user = "u"', {}, "? user"),
        ('user = "u"', {"user": None}, "default"),
        ('user = "u"', {"user": "u"}, "r1"),
        # Tokens: their count, a bound, or nothing.
        ("input_tokens.min = 100", {"input_tokens": 100}, "r1"),
        ("input_tokens.min = 100", {"input_tokens": 99}, "default"),
        ("input_tokens.min = 100", {}, "? input_tokens"),
        ("input_tokens.min = 100", {"input_tokens_at_most": 99}, "default"),
        ("input_tokens.min = 100", {"input_tokens_at_most": 100}, "? input_tokens"),
        ("input_tokens.max = 100", {"input_tokens_at_most": 100}, "r1"),
        ("input_tokens.max = 100", {"input_tokens_at_most": 101}, "? input_tokens"),
        ("input_tokens = { min = 50, max = 100 }", {"input_tokens_at_most": 60}, "? input_tokens"),
        ("input_tokens = { min = 50, max = 100 }", {"input_tokens_at_most": 49}, "default"),
        # Several checks: one that surely fails is enough.
        ('model = "other", headers.x-a = "1"', {}, "default"),
        ('headers.x-a = "1", model = "m"', {}, "? header x-a"),
        ('any = [{ model = "m" }, { headers.x-a = "1" }]', {}, "r1"),
        ('any = [{ model = "other" }, { headers.x-a = "1" }]', {}, "? header x-a"),
        ('any = [{ model = "other" }, { headers.x-a = "1", stream = true }]', {}, "default"),
        ('not = [{ model = "m" }, { headers.x-a = "1" }]', {}, "default"),
        ('not = [{ model = "other" }, { headers.x-a = "1" }]', {}, "? header x-a"),
        ('not.any = [{ model = "m" }, { headers.x-a = "1" }]', {}, "default"),
    ],
)  # fmt: skip
def test_what_was_not_recorded_is_never_taken_for_absent(
    match: str, recorded: dict[str, Any], expected: str
) -> None:
    assert decided(rules(match), recorded) == expected


def test_a_rule_before_that_takes_the_request_makes_the_unknown_of_later_ones_matter_not() -> None:
    assert decided(rules('model = "m"', 'headers.x-a = "1"'), {}) == "r1"
    assert decided(rules('headers.x-a = "1"', 'model = "m"'), {}) == "? header x-a"


def test_a_header_that_the_team_states_itself_is_known() -> None:
    by = policy(
        HEAD
        + """
[teams.t]
keys = ["env:T"]
request_headers = { x-a = "1" }
[[rules]]
name = "r1"
match.headers.x-a = "1"
targets = "echo/1"
"""
        + TAIL,
        environ={"T": "key-of-team-t"},
    )
    assert decided(by, {"team": "t"}) == "r1"
    assert decided(by, {}) == "? header x-a"


def test_a_share_goes_by_the_session_that_the_body_named_too() -> None:
    by = rules("percent = 50")
    user_id = "user_{}_account_{}_session_{}"
    outcomes = set()
    for number in range(20):
        body = {
            "model": "m",
            "messages": [],
            "metadata": {"user_id": user_id.format("d", "a", f"s{number}")},
        }
        facts = Facts(decode_envelope(msgspec.json.encode(body)), {}, request_id="req_9")
        recorded = msgspec.json.decode(msgspec.json.encode(recorded_facts(facts, by)))
        assert decided(by, recorded, "req_9") == by.decide(facts).rule
        outcomes.add(by.decide(facts).rule)
    assert outcomes == {"r1", "default"}


MATCHES = (
    'headers.x-a = "1"',
    "headers.x-a.present = false",
    'request_class = "main"',
    "session.present = true",
    "images = true",
    "documents = false",
    'tools = "B*"',
    "tools = false",
    "input_tokens.min = 1000",
    "input_tokens.max = 40",
    'user = "u"',
    'effort = "high"',
    "thinking = true",
    "max_tokens.min = 10",
    "percent = 50",
    'any = [{ stream = true }, { headers.x-b = "1" }]',
    'not = [{ stream = true }, { headers.x-b = "1" }]',
    'not.tools = "B*"',
)
BODIES = st.fixed_dictionaries(
    {"model": st.sampled_from(["m", "Claude-Opus"])},
    optional={
        "stream": st.booleans(),
        "max_tokens": st.integers(1, 20),
        "tools": st.lists(st.sampled_from(["Bash", "Read"]).map(lambda name: {"name": name}), max_size=2),
        "thinking": st.just({"type": "enabled"}),
        "output_config": st.sampled_from([{"effort": "high"}, {"effort": "low"}]),
        "metadata": st.sampled_from([{"user_id": "u"}, {"user_id": "user_d_account_a_session_s"}]),
        "messages": st.lists(
            st.sampled_from(
                [
                    {"role": "user", "content": "Hi"},
                    {"role": "user", "content": [{"type": "image"}]},
                    {"role": "user", "content": [{"type": "document"}]},
                ]
            ),
            max_size=2,
        ),
    },
)
HEADERS = st.dictionaries(
    st.sampled_from(["x-a", "x-b", "x-claude-code-request-class", "x-claude-code-session-id"]),
    st.sampled_from(["1", "main"]).map(lambda value: (value,)),
)


@given(
    body=BODIES,
    headers=HEADERS,
    first=st.lists(st.sampled_from(MATCHES), max_size=3),
    second=st.lists(st.sampled_from(MATCHES), max_size=3),
    of_all=st.booleans(),
    bound=st.sampled_from([None, 30, 2000]),
)
def test_other_rules_decide_what_was_recorded_as_they_decide_the_request_or_say_what_is_missing(
    body: dict[str, Any],
    headers: dict[str, tuple[str, ...]],
    first: list[str],
    second: list[str],
    of_all: bool,
    bound: int | None,
) -> None:
    before, after = rules(*first), rules(*second)
    content = msgspec.json.encode({"messages": [], **body})
    facts = Facts(
        decode_envelope(content),
        headers,
        count=lambda: min(len(content), bound or 10**9),
        is_below=lambda limit: bound is not None and bound < limit,
        most_tokens=bound,
        request_id="req_1",
    )
    before.decide(facts)
    keep = recorded_facts if of_all else logged_facts
    recorded = msgspec.json.decode(msgspec.json.encode(keep(facts, before)))
    outcome = RecordedDecisions(after).decide(RecordedRequest(recorded, request_id="req_1"))
    if isinstance(outcome, Decision):
        assert outcome.rule == after.decide(facts).rule
    else:
        assert first != second
        assert outcome.fact
    # By the same rules what was recorded is enough, whatever they look at.
    again = RecordedDecisions(before).decide(RecordedRequest(recorded, request_id="req_1"))
    assert isinstance(again, Decision)
    assert again.rule == before.decide(facts).rule
