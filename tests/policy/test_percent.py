"""A share of all sessions as a condition (docs/rules.md, `percent`)."""

import pytest

from routeproxy.policy.decide import Policy
from routeproxy.policy.facts import Facts
from tests.policy.asking import policy, problems, request, rules

SESSIONS = [f"session-{number}" for number in range(2000)]

CANARY = """
    [[rules]]
    name = "canary"
    match.percent = 5
    targets = "echo/new"
"""


def of(session: str, **more: object) -> Facts:
    return request(headers={"x-claude-code-session-id": session}, **more)  # type: ignore[arg-type]


def takers(compiled: Policy, rule: str = "canary") -> set[str]:
    return {session for session in SESSIONS if compiled.decide(of(session)).rule == rule}


def test_a_share_is_that_of_all_sessions_and_each_is_always_in_it_or_out() -> None:
    first, second = takers(rules(CANARY)), takers(rules(CANARY))
    assert 70 < len(first) < 130
    assert first == second


def test_a_larger_share_has_the_smaller_one_in_it() -> None:
    assert takers(rules(CANARY)) < takers(rules(CANARY.replace("5", "20")))
    assert takers(rules(CANARY.replace("= 5", "= 100"))) == set(SESSIONS)


def test_the_shares_of_two_rules_are_different_sessions() -> None:
    one, other = takers(rules(CANARY)), takers(rules(CANARY.replace("canary", "other")), "other")
    assert len(one & other) < 20


def test_without_a_session_it_is_a_share_of_requests() -> None:
    compiled = rules(CANARY)
    taken = 0
    for number in range(2000):
        facts = request()
        facts.request_id = f"req_{number}"
        taken += compiled.decide(facts).rule == "canary"
    assert 70 < taken < 130
    assert compiled.decide(request()).rule == "default", "a request that nobody sent is in no share"


def test_the_session_in_the_metadata_counts_too() -> None:
    compiled = rules(CANARY)
    session = next(iter(takers(compiled)))
    user = f'{{"session_id": "{session}"}}'
    assert compiled.decide(request(metadata={"user_id": user})).rule == "canary"


def test_it_is_explained() -> None:
    compiled = rules(CANARY)
    inside, outside = next(iter(takers(compiled))), next(s for s in SESSIONS if s not in takers(compiled))
    assert compiled.decide(of(inside)).rule == "canary"
    (step, *_) = compiled.decide(of(outside)).steps
    assert step.why.startswith("its session stands at ")
    assert step.why.endswith("%, needs to be below 5 %")
    (step, *_) = compiled.decide(request()).steps
    assert step.why == "no session is stated, needs to be below 5 %"


@pytest.mark.parametrize(
    "match",
    [
        pytest.param('match = { percent = 5, model = "opus" }', id="beside another"),
        pytest.param('match.any = [{ percent = 5 }, { model = "haiku" }]', id="any"),
        pytest.param("match.not.percent = 95", id="not"),
        pytest.param("match.not = [{ percent = 50 }, { stream = true }]", id="none of"),
    ],
)
def test_it_stands_wherever_a_condition_may(match: str) -> None:
    compiled = rules(f'[[rules]]\nname = "canary"\n{match}\ntargets = "echo/new"')
    assert 0 < len(takers(compiled)) < len(SESSIONS)


def test_among_many_rules_none_is_passed_over() -> None:
    others = "".join(
        f'[[rules]]\nname = "r{number}"\nmatch = {{ percent = 1, model = "m{number}" }}\ntargets = "echo/x"\n'
        for number in range(50)
    )
    compiled = rules(others + CANARY)
    plain = rules(CANARY)
    assert takers(compiled) == takers(plain)


PROMISE = """
    [providers.far]
    type = "openai_compatible"
    base_url = "http://10.0.0.1/v1"
    api_key = "none"
    zone = "public"
    [providers.echo]
    {rules}
    [default]
    targets = "{default}"
    [[invariants]]
    name = "stays"
    never.zone = "public"
"""


def test_a_share_that_breaks_a_promise_is_found_with_a_request() -> None:
    text = PROMISE.format(
        rules='[[rules]]\nname = "canary"\nmatch.percent = 5\ntargets = "far/x"', default="echo/x"
    )
    (problem,) = problems(text)
    assert problem.code == "RP014"
    assert "may reach `far/x`" in problem.message


@pytest.mark.parametrize("percent", [1, 99.9, 100])
def test_a_denial_of_a_share_keeps_no_promise(percent: float) -> None:
    text = PROMISE.format(
        rules=f'[[rules]]\nname = "some"\nmatch.percent = {percent}\ndeny = "no"', default="far/x"
    )
    assert [problem.code for problem in problems(text)] in (["RP014"], ["RP015"])


def test_a_rule_below_a_share_of_all_the_same_is_reached() -> None:
    text = """
        [providers.echo]
        [[rules]]
        name = "canary"
        match = { model = "opus", percent = 5 }
        targets = "echo/new"
        [[rules]]
        name = "the rest"
        match.model = "opus"
        targets = "echo/old"
        [default]
        targets = "echo/x"
    """
    compiled = policy(text)
    assert compiled.decide(request("claude-opus-4-8")).rule == "the rest"
    assert problems(text) == []


def test_what_a_share_is_of_changes_the_version() -> None:
    assert rules(CANARY).version != rules(CANARY.replace("= 5", "= 6")).version
    assert "session" in rules(CANARY).reads
