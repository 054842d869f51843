"""Laws of the proof: whatever stands in a rules file, no request breaks an invariant that was accepted, and
what is refused is refused with a request that would have."""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, event, given, reject, settings
from hypothesis import strategies as st
from msgspec import Struct

from routeproxy.exchange import Call, Exchange, Inbound
from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy import prove as proving
from routeproxy.policy.conditions import Check, Single, compile_match, first_miss
from routeproxy.policy.decide import Policy
from routeproxy.policy.facts import Facts
from routeproxy.policy.file import MatchTable
from routeproxy.policy.problems import Code, Report, RulesRefused
from routeproxy.policy.prove import Search, prove, refusal
from routeproxy.policy.satisfy import Callers, Literal, possible
from routeproxy.upstream.lock import InvariantBroken, Locked
from tests.policy.policies import (
    TEAMS,
    WORDS,
    Asked,
    Written,
    broken,
    compiled,
    conditions,
    facts_asked_of,
    files,
    invariants,
    requests,
    some_requests,
    unproved,
)

MANY = int(os.environ.get("LAWS", "1"))
"""Try more cases of each: `LAWS=100 pytest tests/policy/test_proof_laws.py`."""

lawful = settings(
    max_examples=40 * MANY, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)

crowds = st.integers(0, 2**32 - 1)
"""Many requests each, by the seed that they are made from."""
CROWD = 40


class InForce(Struct, frozen=True):
    policy: Policy


def accepted(written: Written) -> Policy:
    """The policy, if it keeps its promises; if not, that must be all that is wrong with it."""
    try:
        return compiled(written)
    except RulesRefused as refused:
        errors = {problem.code for problem in refused.problems if problem.severity == "error"}
        if errors <= {Code.BROKEN_INVARIANT, Code.NOT_PROVED}:
            reject()
        raise


def calls(policy: Policy, asked: Asked) -> list[Call]:
    """One for each target of the decision; none for a request that no rule is asked about."""
    exchange = Exchange(Inbound(body=asked.body), policy)
    try:
        facts = exchange.facts = policy.facts_of(asked.question)
    except InvalidRequest:
        return []
    return [Call(target, None, exchange) for target in policy.decide(facts).targets]


def locked(live: Policy) -> Locked:
    return Locked(None, InForce(live))  # type: ignore[arg-type]


# --- files, whole


@lawful
@given(files(), crowds)
def test_no_request_breaks_what_was_proved(written: Written, crowd: int) -> None:
    policy = accepted(written)
    event("forbids something" if any(one.shut_out for one in prove(policy).invariants) else "forbids nothing")
    for asked in requests(written, Random(crowd), CROWD):
        targets = [call.target.name for call in calls(policy, asked)]
        assert not broken(written, asked, targets), asked


@lawful
@given(files(), crowds)
def test_no_request_breaks_what_a_search_that_was_cut_short_has_proved(written: Written, crowd: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proving, "MOST_WAYS", 2)
        patch.setattr(proving, "MOST_BRANCHES", 2)
        patch.setattr(proving, "MOST_STEPS", 6)
        policy = accepted(written)
    for asked in requests(written, Random(crowd), CROWD):
        targets = [call.target.name for call in calls(policy, asked)]
        assert not broken(written, asked, targets), asked


@lawful
@given(files())
def test_a_counter_example_breaks_the_invariant_by_the_rule_that_is_named(written: Written) -> None:
    policy = unproved(written)
    found = prove(policy).open
    for one in found:
        event("with a counter-example" if one.counter_example else "not proved")
        if one.counter_example is None:
            continue
        decision = policy.decide(policy.facts_of(one.counter_example))
        asked = Asked.of(decision.facts)
        targets = [target.name for target in decision.targets]
        assert decision.rule == one.rule.name
        assert one.reached.name in targets
        assert broken(written, asked, targets, name=one.invariant.name)
    if not found:
        assert compiled(written).version == policy.version


@lawful
@given(files(), crowds)
def test_the_lock_is_open_for_all_that_an_accepted_policy_decides(written: Written, crowd: int) -> None:
    policy = accepted(written)
    lock = locked(policy)
    for asked in requests(written, Random(crowd), CROWD):
        for call in calls(policy, asked):
            lock.check(call)
    assert lock.refused == 0


@lawful
@given(files(), st.data(), crowds)
def test_the_lock_is_closed_for_what_a_newer_version_forbids(
    written: Written, data: st.DataObject, crowd: int
) -> None:
    policy = accepted(written)
    more = data.draw(invariants(tuple(written.teams), tuple(written.file["providers"])))
    newer = written.promising(more | {"name": "newer"})
    lock = locked(unproved(newer))
    refused = 0
    for asked in requests(written, Random(crowd), CROWD):
        for call in calls(policy, asked):
            with suppress(InvariantBroken):
                lock.check(call)
                assert not broken(newer, asked, [call.target.name]), asked
            refused += bool(broken(newer, asked, [call.target.name]))
    assert lock.refused >= refused
    event("something is refused" if refused else "nothing is refused")


# --- the search by itself

stamps = st.dictionaries(
    st.sampled_from(TEAMS), st.dictionaries(st.sampled_from(("x-a", "x-b")), st.sampled_from(WORDS))
)


@lawful
@given(
    st.lists(conditions(TEAMS, when=True), min_size=1, max_size=2),
    st.lists(conditions(TEAMS), max_size=4),
    stamps,
    crowds,
)
def test_a_search_finds_a_way_wherever_there_is_one(
    asked: list[Any], taken: list[Any], stamped: Mapping[str, Mapping[str, str]], crowd: int
) -> None:
    callers = {None: {}, **stamped}
    wanted = [check for table in asked for check in checks_of(table)]
    above = [checks_of(table) for table in taken]
    found = Search(Callers(callers), [refusal(checks) for checks in above]).run(wanted)
    event("no way" if found is None else "a way")
    if found is not None:
        return
    for one in some_requests(Random(crowd), callers, 200):
        facts = facts_of(one, callers)
        is_a_way = (
            facts is not None
            and first_miss(tuple(wanted), facts) is None
            and all(first_miss(checks, facts) is not None for checks in above)
        )
        assert not is_a_way, one


def checks_of(table: Any) -> tuple[Check, ...]:
    return compile_match(msgspec.convert(table, MatchTable), (), Report("", "rules.toml"))


def facts_of(asked: Asked, callers: Mapping[str | None, Mapping[str, str]] | None = None) -> Facts | None:
    """`None` if no rule is asked about it."""
    stated = callers[asked.team] if callers is not None else {}
    headers = {name: (value.encode().decode("latin-1"),) for name, value in stated.items()}
    with suppress(InvalidRequest):
        return asked.question.facts({**asked.question.headers, **headers}, len)
    return None


# --- one fact


@st.composite
def of_one_fact(draw: st.DrawFn) -> tuple[str, tuple[Literal, ...]]:
    fact = draw(st.sampled_from(sorted(facts_asked_of(TEAMS))))
    tables = draw(st.lists(facts_asked_of(TEAMS)[fact], min_size=1, max_size=4))
    checks = [check for table in tables for check in checks_of({fact: table})]
    literals = [
        Literal(check, draw(st.booleans()))
        for check in checks
        if isinstance(check, Single) and check.fact != "header x-b"
    ]
    assume(literals)
    return fact, tuple(literals)


@settings(lawful, max_examples=200 * MANY)
@given(of_one_fact())
def test_what_some_value_meets_is_possible(case: tuple[str, tuple[Literal, ...]]) -> None:
    fact, literals = case
    for asked in values_of(fact):
        facts = facts_of(asked)
        if facts is not None and all(literal.check(facts) is literal.holds for literal in literals):
            assert possible(literals), asked
            event("possible")
            return


SHORT = ["".join(letters) for length in range(4) for letters in itertools.product("abcA", repeat=length)]
TEXTS = [*SHORT, "é", "éa", "abab", "abcab", "babc", "abcabc"]


def values_of(fact: str) -> Iterator[Asked]:
    """Requests of which nothing differs but this."""
    match fact:
        case "model":
            yield from (Asked(model=text) for text in TEXTS if text.isascii() and text)
            yield from (Asked(model=text) for text in ("p/ab", "P/aab", "q/p/a", "ab[1m]", "b[1m]b[1m]"))
        case "headers":
            yield Asked(model="a")
            yield from (Asked(model="a", headers={"x-a": text}) for text in TEXTS)
        case "system" | "user" | "effort":
            texts: Sequence[str | None] = [None, *TEXTS, "low", "high", "max"]
            yield from (_with(fact, text) for text in texts)
        case "team":
            yield from (_with(fact, team) for team in (None, *TEAMS))
        case "tools":
            tools = ("a", "ab", "b", "aab", "web_1")
            for number in range(3):
                yield from (_with(fact, some) for some in itertools.combinations(tools, number))
        case "input_tokens":
            yield from (_with(fact, number) for number in range(6))
        case "max_tokens":
            yield from (_with(fact, number) for number in (None, *range(-2, 6)))
        case "url_target":
            yield from (Asked(model="a", url_provider=provider) for provider in (None, "p"))
        case _:
            yield from (_with(fact, flag) for flag in (False, True))


def _with(fact: str, value: Any) -> Asked:
    return Asked(model="a", **{fact: value})
