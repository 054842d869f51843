"""Pools in a rules file: what they may be made of, and that the proof looks at every member (docs/rules.md,
"pools")."""

from pathlib import Path
from textwrap import dedent

import pytest

from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.compile.lints import Lints
from routeproxy.policy.verify.diff import compare_policies
from routeproxy.upstream.chat.model_facts import known_facts
from tests.policy.asking import policy, problems, request

PROVIDERS = """\
[providers.near]
type = "openai_compatible"
base_url = "http://10.0.0.1:8000/v1"
api_key = "none"
zone = "private"
[providers.far]
type = "openai_compatible"
base_url = "http://10.0.0.2:8000/v1"
api_key = "none"
zone = "public"
[aliases]
small = "far/m"
both = ["near/m", "far/m"]
"""
POOL = '[pools.p]\nmembers = ["near/m", { target = "small", weight = 2, max_concurrent = 8 }]\n'
DEFAULT = '[default]\ntargets = "p"\n'

MISTAKES = [
    pytest.param("[pools.p]\n", "this table is empty", id="nothing"),
    pytest.param('[pools.p]\nby = "load"\n', "the pool `p` has no `members`", id="no members"),
    pytest.param("[pools.p]\nmembers = []\n", "this list is empty", id="an empty list"),
    pytest.param(
        '[pools.p]\nmembers = ["q"]\n[pools.q]\nmembers = ["near/m"]\n', "never a pool: `q`", id="a pool"
    ),
    pytest.param('[pools.p]\nmembers = ["both"]\n', "the alias `both` stands for 2 targets", id="a list"),
    pytest.param('[pools.p]\nmembers = ["nar/m"]\n', "did you mean `near`?", id="no such provider"),
    pytest.param('[pools.p]\nmembers = ["smal"]\n', "did you mean `small`?", id="no such alias"),
    pytest.param(
        '[pools.p]\nmembers = ["near/m", "near/m"]\n', "`near/m` is a member of this pool already", id="twice"
    ),
    pytest.param(
        '[pools.p]\nmembers = ["small", "far/m"]\n',
        "`far/m` is a member of this pool already",
        id="by an alias",
    ),
    pytest.param('[pools.p]\nmembers = ["near/*", "near/m"]\n', "`near/*` may be another member", id="any"),
    pytest.param(
        '[pools.p]\nmembers = [{ target = "near/m", weight = 0 }]\n', "a share is above 0", id="no weight"
    ),
    pytest.param("[pools.p]\nmembers = [{ weight = 2 }]\n", "is missing here", id="no target"),
    pytest.param('[pools.both]\nmembers = ["near/m"]\n', "`both` is an alias already", id="an alias's name"),
    pytest.param('[pools."a/b"]\nmembers = ["near/m"]\n', "it reads as a provider", id="a slash"),
    pytest.param('[pools.p]\nmembers = ["near/m"]\nby = "luck"\n', "expected", id="by luck"),
    pytest.param(f'{POOL}[server]\nsafeguards = "p"\n', "stands for 2 targets, and one judges", id="a judge"),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES)
def test_what_is_no_pool_is_told_so(text: str, words: str) -> None:
    pool = "p" if "[pools.p]" in text else "near/m"
    reported = problems(f'{PROVIDERS}{text}[default]\ntargets = "{pool}"\n')
    errors = [problem for problem in reported if problem.severity == "error"]
    assert any(words in str(problem) for problem in errors), [str(problem) for problem in errors]
    assert all(problem.location is not None for problem in errors)


def test_an_alias_never_stands_for_a_pool() -> None:
    text = f'{PROVIDERS}large = "p"\n{POOL}{DEFAULT}'
    assert any("never for a pool: `p`" in problem.message for problem in problems(text))


def noticed(text: str) -> list[str]:
    """The warnings of `check`."""
    compiled = compile_rules(text, path=Path("rules.toml"), environ={}, also=Lints(known_facts))
    return [problem.message for problem in compiled.warnings]


def test_a_pool_that_nothing_uses_is_told_so() -> None:
    text = f'{PROVIDERS}{POOL}[default]\ntargets = ["near/m", "far/m"]\n'
    assert "nothing uses the pool `p`" in noticed(text)


def test_a_target_in_a_pool_and_beside_it_stands_there_twice() -> None:
    text = f'{PROVIDERS}{POOL}[default]\ntargets = ["p", "near/m"]\n'
    assert any("stands in this chain already" in message for message in noticed(text))


def test_a_decision_holds_all_members_in_their_place() -> None:
    compiled = policy(f'{PROVIDERS}{POOL}[default]\ntargets = ["p", "near/other"]\n')
    decision = compiled.decide(request())
    assert [target.name for target in decision.targets] == ["near/m", "far/m", "near/other"]
    assert [str(target.member) for target in decision.targets[:2]] == [
        "pool p, weight 1",
        "pool p, weight 2, 8 at once",
    ]
    assert decision.fallback.enabled


@pytest.mark.parametrize("fallback", ["true", "false"])
@pytest.mark.parametrize("by", ["session", "load"])
def test_an_invariant_that_one_member_would_break_names_it_whoever_is_chosen(by: str, fallback: str) -> None:
    text = f"""
        {POOL}by = "{by}"
        [default]
        targets = "p"
        fallback = {fallback}
        [[invariants]]
        name = "nothing leaves"
        never.zone = "public"
    """
    (problem,) = problems(PROVIDERS + dedent(text))
    assert problem.code == "RP014"
    assert "may reach `far/m`" in problem.message


def test_a_request_that_may_not_fall_back_may_reach_every_member_and_nothing_else() -> None:
    compiled = policy(f'{PROVIDERS}{POOL}[default]\ntargets = ["p", "near/other"]\n')
    facts = request()
    facts.no_fallback = True
    decision = compiled.decide(facts)
    assert [target.name for target in decision.targets] == ["near/m", "far/m"]
    assert not decision.fallback.enabled


DIFFERENCES = [
    pytest.param(
        "weight = 2", "weight = 3", "weight 3, 8 at once instead of pool p, weight 2", id="a weight"
    ),
    pytest.param("max_concurrent = 8", "max_concurrent = 9", "9 at once instead of", id="a limit"),
    pytest.param('"near/m", {', "{", "to far/m instead of", id="a member"),
    pytest.param("]\n", ']\nsticky = "1m"\n', "pool p", id="sticky"),
    pytest.param("]\n", ']\nby = "load"\n', "pool p", id="by"),
]


@pytest.mark.parametrize(("old", "new", "words"), DIFFERENCES)
def test_what_changes_in_a_pool_changes_the_version_and_is_told(old: str, new: str, words: str) -> None:
    before = policy(f"{PROVIDERS}{POOL}{DEFAULT}")
    after = policy(f"{PROVIDERS}{POOL.replace(old, new, 1)}{DEFAULT}")
    assert before.version != after.version
    assert words in "\n".join(compare_policies(before, after))
