"""`rules.example.toml`, where newcomers start: it loads without a key, and decides as its comments say."""

import re
from pathlib import Path
from unittest.mock import Mock

import pytest

from routeproxy.messages.request import decode_envelope
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.facts import Facts
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.problems import Code, RulesRefused
from routeproxy.policy.verify.proof import prove
from routeproxy.policy.verify.run_case import run_case

EXAMPLE = Path(__file__).parents[2] / "rules.example.toml"
TEXT = EXAMPLE.read_text(encoding="utf-8")

_PART = re.compile(r"^# \[.*\n(?:^#.*\n)*", re.MULTILINE)
"""Lines in comments, from the first that is a table's header to the first that is no comment."""


def compiled(text: str = TEXT) -> Policy:
    return compile_rules(text, path=EXAMPLE, environ={})


def uncommented(part: re.Match[str]) -> str:
    return re.sub(r"^# ?", "", part[0], flags=re.MULTILINE)


def parts() -> list[object]:
    found = []
    for part in _PART.finditer(TEXT):
        name = re.search(r'name = "(.*)"', part[0])
        whole = TEXT[: part.start()] + uncommented(part) + TEXT[part.end() :]
        found.append(pytest.param(whole, id=name[1] if name else part[0].splitlines()[0]))
    return found


def decided(
    policy: Policy, model: str = "claude-sonnet-5", headers: dict[str, str] | None = None, **facts: object
) -> Decision:
    lines = {name: (value,) for name, value in (headers or {}).items()}
    question = HypotheticalRequest(model=model, headers=lines, **facts)
    return policy.decide(policy.facts_of(question))


def test_it_loads_without_a_key() -> None:
    assert {problem.code for problem in compiled().warnings} == {Code.UNSET_VARIABLE}


def test_it_serves_any_client_on_this_machine() -> None:
    server = compiled().server
    assert (server.host, server.port, server.require_key) == ("127.0.0.1", 8082, False)


PRIVATE = {"x-data-class": "phi"}
CORP, OLLAMA = "corp/llama-3.3-70b", "ollama/llama3.3:70b"
BIG, SMALL = ["openai/gpt-4.1", "gemini/gemini-2.5-pro"], ["openai/gpt-4.1-mini", "gemini/gemini-2.5-flash"]


@pytest.mark.parametrize(
    ("request_", "rule", "targets"),
    [
        pytest.param({"model": "echo"}, "say it back", ["echo/echo"], id="echo"),
        pytest.param(
            {"headers": PRIVATE, "model": "claude-opus-4-8", "images": True, "input_tokens": 200_000},
            "private data stays inside",
            [CORP, OLLAMA],
            id="private data, whatever else holds",
        ),
        pytest.param(
            {"headers": {"x-contract": "single"}}, "one supplier, no fallback", [CORP], id="contract"
        ),
        pytest.param({"model": "claude-haiku-4-5-20251001"}, "background work", SMALL, id="haiku"),
        pytest.param({"input_tokens": 150_000}, "very long prompts", BIG[1:], id="long prompt"),
        pytest.param({"input_tokens": 149_999}, "default", BIG, id="not quite as long"),
        pytest.param({"images": True}, "vision", BIG[::-1], id="image"),
        pytest.param(
            {"model": "claude-opus-4-8[1m]"}, "Claude itself", ["anthropic/claude-opus-4-8"], id="opus"
        ),
        pytest.param({}, "default", BIG, id="anything else"),
    ],
)
def test_it_decides_as_its_comments_say(request_: dict[str, object], rule: str, targets: list[str]) -> None:
    decision = decided(compiled(), **request_)  # type: ignore[arg-type]
    assert decision.rule == rule
    assert [target.name for target in decision.targets] == targets


def test_one_supplier_means_no_fallback() -> None:
    assert not decided(compiled(), headers={"x-contract": "single"}).fallback.enabled


def test_background_work_goes_on_elsewhere_when_the_prompt_is_too_long() -> None:
    decision = decided(compiled(), "claude-haiku-4-5")
    assert "context_overflow" in decision.fallback.on
    assert decision.deadline == 60


@pytest.mark.parametrize(("model", "times"), [("echo", 0), ("claude-haiku-4-5", 0), ("claude-sonnet-5", 1)])
def test_tokens_are_counted_only_when_no_rule_above_has_matched(model: str, times: int) -> None:
    count = Mock(return_value=0)
    envelope = decode_envelope(b'{"model": "%b", "messages": []}' % model.encode())
    compiled().decide(Facts(envelope, {}, count=count))
    assert count.call_count == times


def test_it_keeps_its_promises() -> None:
    policy = compiled()
    assert [one.holds for one in prove(policy).verdicts] == [True]
    assert [run_case(policy, case, len).differences for case in policy.tests] == [(), ()]


def test_its_invariant_would_notice_a_leak() -> None:
    leaking = TEXT.replace(
        'targets = ["corp/llama-3.3-70b", "ollama', 'targets = ["openai/gpt-4.1", "ollama', 1
    )
    with pytest.raises(RulesRefused) as refused:
        compiled(leaking)
    errors = {problem.code for problem in refused.value.problems if problem.severity == "error"}
    assert errors == {Code.BROKEN_INVARIANT, Code.TEST_FAILED}


@pytest.mark.parametrize("text", parts())
def test_each_part_in_comments_loads(text: str) -> None:
    assert {problem.code for problem in compiled(text).warnings} == {Code.UNSET_VARIABLE}


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        pytest.param({"model": "llama-3.3"}, "open weights", id="open weights"),
        pytest.param({"tools": ("web_search_20250305",)}, "no web search", id="web search"),
        pytest.param({"team": "payments"}, "private data stays inside", id="payments"),
    ],
)
def test_the_parts_in_comments_decide_as_they_say(request_: dict[str, object], rule: str) -> None:
    everything = compiled(_PART.sub(uncommented, TEXT))
    assert decided(everything, **request_).rule == rule  # type: ignore[arg-type]


def test_the_team_in_comments_rests_on_its_key() -> None:
    policy = compiled(_PART.sub(uncommented, TEXT))
    assert policy.server.require_key
    assert {one.invariant.name: one.client_facts for one in prove(policy).verdicts if one.holds} == {
        "[teams.payments] targets": (),
        "private data never reaches a public provider": (),
    }
