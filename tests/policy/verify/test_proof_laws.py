"""Laws of the proof: whatever stands in a rules file, no request breaks an invariant that was accepted, and
what is refused is refused with a request that would have."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import msgspec
import pytest
from hypothesis import assume, event, given, reject
from msgspec import Struct

from routeproxy.exchange import Call, Exchange, Inbound
from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.compile.match import compile_match
from routeproxy.policy.conditions import Check, Single, first_miss
from routeproxy.policy.decide import Policy
from routeproxy.policy.facts import Facts
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import MatchTable
from routeproxy.policy.problems import Code, RulesRefused
from routeproxy.policy.verify import solver as solving
from routeproxy.policy.verify.callers import Callers
from routeproxy.policy.verify.proof import prove
from routeproxy.policy.verify.satisfiability import Constraint, satisfiable
from routeproxy.policy.verify.solver import Solver, negate
from routeproxy.upstream.guard import InvariantBroken, InvariantGuard
from tests.budgets import examples
from tests.policy.policies import (
    AGENT,
    FACTS,
    HEADERS,
    TEAMS,
    WORDS,
    Asked,
    Dice,
    Table,
    Topics,
    Written,
    broken,
    compiled,
    dice,
    file_of,
    invariant_of,
    requests,
    smallest,
    some_requests,
    unproved,
)

lawful = examples(50)
CROWD = 40
"""Requests for each file."""


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
    """One for each target that the request, or a part of it, may get to; none for a request that no rule is
    asked about."""
    exchange = Exchange(Inbound(body=asked.body), policy)
    try:
        facts = exchange.facts = policy.facts_of(asked.question)
    except InvalidRequest:
        return []
    return [Call(target, None, exchange) for target in policy.decide(facts).contacted]


def locked(live: Policy) -> InvariantGuard:
    return InvariantGuard(None, InForce(live))  # type: ignore[arg-type]


# --- files, whole


@lawful
@given(dice)
def test_no_request_breaks_what_was_proved_and_the_lock_lets_it_pass(dice: Dice) -> None:
    written = file_of(dice)
    policy = accepted(written)
    event(
        "forbids something"
        if any(verdict.forbidden_targets for verdict in prove(policy).verdicts)
        else "forbids nothing"
    )
    lock = locked(policy)
    for asked in requests(dice, written, CROWD):
        for call in calls(policy, asked):
            assert not broken(written, asked, [call.target.name]), smallest(written, asked, breaks)
            lock.check(call)


def breaks(written: Written, asked: Asked) -> bool:
    """Whether a request breaks an invariant of a file that was accepted."""
    targets = [call.target.name for call in calls(compiled(written), asked)]
    return asked.team in written.callers and bool(broken(written, asked, targets))


@lawful
@given(dice)
def test_a_search_that_is_cut_short_proves_nothing_that_is_not_so(dice: Dice) -> None:
    written = file_of(dice)
    with cut_short():
        policy = accepted(written)
        for asked in requests(dice, written, CROWD):
            targets = [call.target.name for call in calls(policy, asked)]
            assert not broken(written, asked, targets), smallest(written, asked, breaks)


@contextmanager
def cut_short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solving, "MOST_ALTERNATIVES", 2)
        patch.setattr(solving, "MOST_STEPS", 30)
        yield


@lawful
@given(dice)
def test_a_counter_example_breaks_the_invariant_by_the_rule_that_is_named(dice: Dice) -> None:
    written = file_of(dice)
    policy = unproved(written)
    findings = prove(policy).findings
    for finding in findings:
        event("with a counter-example" if finding.counterexample else "not proved")
        if finding.counterexample is not None:
            decision = policy.decide(policy.facts_of(finding.counterexample))
            asked = Asked.of(decision.facts)
            targets = [target.name for target in decision.contacted]
            assert decision.rule == finding.rule.name
            assert finding.reached.name in targets
            assert broken(written, asked, targets, name=finding.invariant.name), f"{written}\n{asked}"
    if not findings:
        assert compiled(written).version == policy.version


@lawful
@given(dice)
def test_the_lock_is_closed_for_what_its_own_version_forbids_and_no_newer_one(dice: Dice) -> None:
    written = file_of(dice)
    policy = unproved(written)
    locks = [locked(policy), locked(unproved(written.promising_nothing()))]
    for asked in requests(dice, written, CROWD):
        for call, lock in itertools.product(calls(policy, asked), locks):
            with suppress(InvariantBroken):
                lock.check(call)
                assert not broken(written, asked, [call.target.name]), f"{written}\n{asked}"


@lawful
@given(dice)
def test_the_lock_is_closed_for_what_a_newer_version_forbids(dice: Dice) -> None:
    written = file_of(dice)
    policy = unproved(written.promising_nothing())
    more = invariant_of(dice, Topics(dice, [*written.teams]), [*written.providers])
    newer = written.promising({"name": "newer"} | more)
    lock = locked(unproved(newer))
    for asked in requests(dice, written, CROWD):
        for call in calls(policy, asked):
            with suppress(InvariantBroken):
                lock.check(call)
                assert not broken(newer, asked, [call.target.name]), f"{newer}\n{asked}"
    event("something is refused" if lock.refused else "nothing is refused")


@lawful
@given(dice)
def test_an_included_rule_decides_for_its_team_alone(dice: Dice) -> None:
    written = file_of(dice)
    policy = unproved(written)
    owners = dict(zip(written.layers, (layer["team"] for layer in written.layers.values()), strict=True))
    files = {rule.name: rule.where.rpartition(":")[0] for rule in policy.rules}
    for asked in requests(dice, written, CROWD) if owners else ():
        with suppress(InvalidRequest):
            rule = policy.decide(policy.facts_of(asked.question)).rule
            assert owners.get(files.get(rule, ""), asked.team) == asked.team, f"{written}\n{asked}"


# --- what dice seldom make

INSIDE = {"type": "openai_compatible", "base_url": "http://h.example", "api_key": "none", "zone": "private"}
OUTSIDE = INSIDE | {"zone": "public"}
NEVER_OUTSIDE = {"never": {"zone": "public"}, "name": "never outside"}


def of_two(*rules: Table, teams: Table | None = None, when: Table | None = None) -> Written:
    """`rules` go inside, the rest outside, where what `when` speaks of must never be."""
    file: Table = {
        "providers": {"in": INSIDE, "out": OUTSIDE},
        "teams": teams or {"t": {}},
        "default": {"targets": "out/a"},
        "invariants": [NEVER_OUTSIDE | ({"when": when} if when else {})],
    }
    if rules:
        file["rules"] = [{"targets": "in/a"} | rule for rule in rules]
    return Written(file)


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        pytest.param(of_two(), Asked(model="a"), id="no rule, no when"),
        pytest.param(
            of_two({"match": {"model": "a"}}, when={"team": "t"}),
            Asked(model="b", team="t"),
            id="another model",
        ),
        pytest.param(
            of_two({"match": {"max_tokens": {"min": 0}}}, when={"max_tokens": {"max": 9}}),
            Asked(model="a", max_tokens=-1),
            id="a negative number",
        ),
        pytest.param(
            of_two({"match": {"tools": ["*"]}}, when={"tools": True}),
            Asked(model="a", tools=("",)),
            id="a tool without a name",
        ),
        pytest.param(
            of_two(teams={"t": {"models": "a"}, "u": {}}, when={"model": {"equals": "b"}}),
            Asked(model="b", team="u"),
            id="another team may not ask for it",
        ),
        pytest.param(
            of_two(teams={"t": {"models": "a"}}, when={"model": {"equals": "b"}, "team": "t"}),
            Asked(model="b", team="t"),
            id="the team may not ask for it",
        ),
        pytest.param(
            of_two({"match": {"any": [{"not": [{"headers": {"x-a": f"{n}"}} for n in range(1_001)]}]}}),
            Asked(model="a", headers={"x-a": "7"}),
            id="more ways than are looked at",
        ),
        pytest.param(
            of_two({"match": {"any": [{"stream": True}, {"stream": False}]}, "targets": ["in/a", "out/a"]}),
            Asked(model="a"),
            id="the second of a list",
        ),
        pytest.param(
            of_two(
                {"match": {"headers": {"x-a": "é"}}},
                teams={"t": {"request_headers": {"X-A": "é"}}},
                when={"team": "t"},
            ),
            Asked(model="a", team="t"),
            id="a team's word that is no ASCII",
        ),
        pytest.param(
            of_two(
                {"match": {"headers": {"x-a": "a"}}},
                teams={"t": {"request_headers": {"x-a": "a"}}},
                when={"team": "t"},
            ),
            Asked(model="a", team="t", headers={"x-a": "b"}),
            id="a client that says otherwise than its team",
        ),
        pytest.param(
            of_two(
                {"match": {"headers": {"x-a": {"glob": "?*"}}}}, when={"headers": {"x-a": {"present": True}}}
            ),
            Asked(model="a", headers={"x-a": ""}),
            id="a header that is there and empty",
        ),
    ],
)
def test_no_request_breaks_what_was_proved_of_a_small_file(written: Written, asked: Asked) -> None:
    with suppress(RulesRefused):
        targets = [call.target.name for call in calls(compiled(written), asked)]
        assert not broken(written, asked, targets)


def test_where_any_model_may_be_asked_for_nothing_is_known_of_its_region() -> None:
    written = of_two(when={"team": "t"})
    file = written.file | {
        "providers": {"out": OUTSIDE | {"region": "eu"}},
        "default": {"targets": "out/*"},
        "invariants": [{"only": {"region": "eu"}}],
    }
    with pytest.raises(RulesRefused, match="not proved"):
        compiled(Written(file))
    file["providers"] = {"out": OUTSIDE | {"region": "eu", "models": {"a*": {}}}}
    assert compiled(Written(file)).invariants


# --- the search by itself


@pytest.mark.parametrize("bounds", [nullcontext, cut_short])
@examples(200)
@given(dice)
def test_a_search_finds_a_way_wherever_there_is_one(
    bounds: Callable[[], AbstractContextManager[None]], dice: Dice
) -> None:
    callers: dict[str | None, Mapping[str, str]] = {None: {}}
    for team in TEAMS:
        callers[team] = {name: dice.one(WORDS) for name in dice.several(HEADERS, 0, 2)}
    topics = Topics(dice, TEAMS)
    wanted = tuple(check for _ in dice.times(1, 2) for check in checks_of(topics.match()))
    above = [checks_of(topics.match()) for _ in dice.times(0, 4)]
    with bounds():
        found = Solver(Callers(callers), [negate(checks) for checks in above]).solve(wanted)
    event("no way" if found is None else "a way")
    for asked in some_requests(dice, [*callers], 100) if found is None else ():
        facts = facts_of(asked, callers[asked.team])
        if facts is not None and first_miss(wanted, facts) is None:
            assert any(first_miss(checks, facts) is None for checks in above), (wanted, above, asked)


def checks_of(table: Any) -> tuple[Check, ...]:
    return compile_match(msgspec.convert(table, MatchTable), (), Report("", "rules.toml"))


def facts_of(asked: Asked, stated: Mapping[str, str] | None = None) -> Facts | None:
    """`None` if no rule is asked about it."""
    headers = {name: (value.encode().decode("latin-1"),) for name, value in (stated or {}).items()}
    with suppress(InvalidRequest):
        return asked.question.facts({**asked.question.headers, **headers}, len)
    return None


# --- one fact


@examples(500)
@given(dice)
def test_what_some_value_meets_is_possible(dice: Dice) -> None:
    fact = dice.one((*FACTS, "team"))
    topics = Topics(dice, TEAMS)
    checks = [check for _ in dice.times(1, 4) for check in checks_of(topics.of([fact]))]
    constraints = [
        Constraint(check, dice.chance(0.5))
        for check in checks
        if isinstance(check, Single) and (fact != "headers" or check.fact == "header x-a")
    ]
    assume(constraints)
    for asked in values_of(fact):
        facts = facts_of(asked)
        if facts is not None and all(
            constraint.check.holds(facts) is constraint.holds for constraint in constraints
        ):
            assert satisfiable(constraints), (constraints, asked)
            return


def test_any_three_conditions_on_a_text_are_possible_if_some_text_meets_them() -> None:
    texts = [facts for asked in values_of("headers") if (facts := facts_of(asked)) is not None]
    checks = [check for table in TABLES for check in checks_of({"headers": {"x-a": table}})]
    constraints = [
        Constraint(check, holds) for check in checks if isinstance(check, Single) for holds in (True, False)
    ]
    met = [
        {n for n, facts in enumerate(texts) if constraint.check.holds(facts) is constraint.holds}
        for constraint in constraints
    ]
    wrong = [
        [constraints[one] for one in three]
        for three in itertools.combinations_with_replacement(range(len(constraints)), 3)
        if set.intersection(*(met[one] for one in three))
        and not satisfiable([constraints[one] for one in three])
    ]
    assert not wrong


TABLES: Sequence[Table] = [
    *({operator: word} for operator in ("equals", "prefix", "contains") for word in ("a", "ab", "ba", "a?")),
    *({operator: ["ab", "b"]} for operator in ("equals", "prefix", "contains", "glob", "regex")),
    *({"glob": glob} for glob in ("a", "a*", "*b", "a?c", "*b*c")),
    *({"regex": regex} for regex in ("a", "^a", "b$")),
    {"present": True},
    {"present": False},
]
SHORT = ["".join(letters) for length in range(4) for letters in itertools.product("abcA", repeat=length)]
TEXTS = (*SHORT, "é", "éa", "e\u0301", "a?", "a?c", "*", "b*", "abab", "abcab", "babc", "abcabc")
VALUES: Mapping[str, Sequence[Any]] = {
    "model": [
        *(text for text in TEXTS if text and text.isascii()),
        "p/ab",
        "P/aab",
        "q/p/a",
        "ab[1m]",
        "pq/b",
    ],
    "headers": [{}, *({"x-a": text} for text in TEXTS)],
    "agent": [None, *TEXTS],
    "system": [None, *TEXTS],
    "user": [None, *TEXTS],
    "effort": [None, "", "low", "high", "max", "none"],
    "team": [None, *TEAMS],
    "tools": [
        some for number in range(3) for some in itertools.combinations(("a", "ab", "b", "web_1"), number)
    ],
    "input_tokens": range(6),
    "max_tokens": [None, *range(6)],
    "url_target": [None, "p"],
}


def values_of(fact: str) -> Iterator[Asked]:
    """Requests that differ in nothing else."""
    name = {"url_target": "url_provider", "agent": "headers"}.get(fact, fact)
    for value in VALUES.get(fact, (False, True)):
        said = ({} if value is None else {AGENT: value}) if fact == "agent" else value
        yield Asked(**{"model": "a", name: said})
