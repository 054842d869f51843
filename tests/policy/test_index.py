from collections.abc import Iterable
from itertools import product
from re import findall
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.policy import index
from routeproxy.policy.conditions import (
    AnyOf,
    Begins,
    Check,
    Contains,
    Equals,
    Flag,
    Matches,
    NoneOf,
    Present,
    TokensWithin,
    Within,
    first_miss,
    has_tool,
    matches_glob,
)
from routeproxy.policy.fact_table import BY_NAME, HAS_TOOLS, INPUT_TOKENS, MODEL, TEAM, TOOLS, header_fact
from routeproxy.policy.facts import Facts
from routeproxy.policy.index import FEW, Index
from routeproxy.policy.patterns import regex
from tests.policy.asking import request, rules

Checks = tuple[Check, ...]

SYSTEM, USER, EFFORT = BY_NAME["system"], BY_NAME["user"], BY_NAME["effort"]
STREAM, IMAGES, MAX_TOKENS = BY_NAME["stream"], BY_NAME["images"], BY_NAME["max_tokens"]


def regexes(subject: Any, *patterns: str) -> Matches:
    return Matches(subject, patterns, tuple(map(regex, patterns)), "regex")


def stream(value: bool) -> Flag:
    return Flag(STREAM, value)


def numbered(kind: str) -> list[Checks]:
    """A hundred rules that differ in one word."""
    return [tuple(rule.checks) for rule in rules("\n".join(map(_rule(kind), range(100)))).rules]


def _rule(kind: str) -> Any:
    return lambda n: f"[[rules]]\nmatch = {{ {kind.replace('#', f'{n:03}')} }}\ntargets = 'echo/x'\n"


@pytest.mark.parametrize(
    "kind",
    [
        "headers.x-team = 'team-#'",
        "headers.x-team = ['team-#', 'also-#']",
        "model = 'model-#'",
        "model.prefix = 'a-model-#'",
        "model.glob = 'a-*-#'",
        "model.glob = '*-model-#*'",
        "model.regex = '-#$'",
        "model = 'model-#', headers.x-env = 'prod'",
        "model = 'model', headers.x-team = 'team-#', stream = false",
        "model = 'model-#', input_tokens.min = 1000",
        "any = [{ model = 'model-#', stream = false }, { headers.x-team = 'team-#' }]",
        "not = { stream = true }, any = [{ model = 'model-#' }]",
        "max_tokens = { min = 1#42, max = 1#42 }",
        "any = [{ model = 'model-#' }, { max_tokens = { min = 9#, max = 9# } }]",
        "headers.x-team = { present = true, contains = '-#' }",
    ],
)
def test_of_many_rules_only_those_are_asked_that_name_what_came(kind: str) -> None:
    headers = {"x-team": "team-042", "x-env": "prod"}
    facts = request("a-model-042", headers=headers, tokens=5, max_tokens=104242)
    assert list(Index(numbered(kind)).candidates(facts)) == [42]


@pytest.mark.parametrize(
    "kind",
    [
        "not = { model = 'model-#' }",
        "any = [{ model = 'model-#' }, { not = { model = 'model-#' } }]",
        "any = [{ model = 'model-#' }, { system = '#' }]",
    ],
)
def test_rules_that_can_not_be_looked_up_are_always_asked(kind: str) -> None:
    assert list(Index(numbered(kind)).candidates(request())) == list(range(100))


@pytest.mark.parametrize(
    "kind",
    [
        "input_tokens = { min = 1#, max = 1# }",
        "system = '-#-'",
        "system.prefix = 'you-#-', input_tokens.min = 1",
        "tools = 'tool-#'",
        "tools = ['other-#', 'tool-#-*', 'tool-#']",
    ],
)
def test_where_a_fact_costs_something_the_first_rule_that_reads_it_is_asked_and_then_the_right_one(
    kind: str,
) -> None:
    facts = request(
        system="You-042-are", tokens=1042, max_tokens=9999, tools=[{"name": "tool-042", "input_schema": {}}]
    )
    assert asked_by(Index(numbered(kind)), numbered(kind), facts) == [0, 42]


def asked_by(index: Index, policy: list[Checks], facts: Facts) -> list[int]:
    """The rules that are asked for their decision, all of them."""
    numbers = []
    for number in index.candidates(facts):
        numbers.append(number)
        first_miss(policy[number], facts)
    return numbers


def test_the_example_of_the_index_is_true() -> None:
    lines = findall(r"\d  match = (.*)", index.__doc__ or "")
    text = "\n".join(f'[[rules]]\nmatch = {line}\ntargets = "echo/x"' for line in lines)
    checks = [tuple(rule.checks) for rule in rules(text).rules]
    facts = request(headers={"x-team": "b"}, max_tokens=150, system="a translator")
    assert asked_by(Index(checks, few=1), checks, facts) == [1, 2, 3, 4, 5]


def test_parts_of_which_each_piece_is_shared_by_many_are_found_all_the_same() -> None:
    """`aab…`, `aba…`: each piece of four letters is in hundreds of them."""
    parts = ["".join(letters) for letters in product("ab", repeat=9)]
    checks: list[Checks] = [(Contains(MODEL, (part,)),) for part in parts]
    name = "x-aabbabaabab-y"
    assert {parts[number] for number in Index(checks).candidates(request(name))} == {
        name[start : start + 9] for start in range(2, 5)
    }


def test_parts_of_every_length_are_found() -> None:
    parts = [f"{number:x}" + "q" * (number % 40) + f"{number:x}-" for number in range(1, 300)]
    checks: list[Checks] = [(Contains(MODEL, (part,)),) for part in parts]
    lookup = Index(checks)
    for number, part in enumerate(parts):
        assert number in lookup.candidates(request(f"model-{part}x"))


def test_of_many_rules_that_one_name_leads_to_those_are_asked_whose_range_holds() -> None:
    checks = [(Contains(MODEL, ("opus",)), Within(MAX_TOKENS, n, n + 1)) for n in range(200)]
    assert list(Index(checks).candidates(request("opus", max_tokens=42))) == [41, 42]


def test_tokens_are_not_counted_to_leave_rules_out() -> None:
    """The first rule that is asked counts them; then those are left out that want others."""
    checks = [(Contains(MODEL, ("opus",)), TokensWithin(INPUT_TOKENS, n, n + 1)) for n in range(200)]
    facts = request("opus", tokens=42)
    candidates = iter(Index(checks).candidates(facts))
    assert (next(candidates), facts.counted) == (0, None)
    assert first_miss(checks[0], facts) is not None
    assert list(candidates) == [41, 42]


def test_a_header_that_is_missing_is_looked_up_too() -> None:
    absent = [tuple(rules(_rule("headers.x-team.present = false")(0)).rules[0].checks)] * 100
    assert list(Index(absent).candidates(request(headers={"x-team": "a"}))) == []
    assert list(Index(absent).candidates(request())) == list(range(100))


def test_a_few_rules_are_not_looked_up_at_all() -> None:
    few = [(Equals(MODEL, (f"m{n}",)),) for n in range(FEW)]
    assert list(Index(few).candidates(request("m3"))) == list(range(FEW))
    assert list(Index([*few, ()]).candidates(request("m3"))) == [3, FEW]


def test_any_of_nothing_is_never_asked() -> None:
    assert list(Index([(AnyOf(()),), (AnyOf(((),)),)], few=0).candidates(request())) == [1]


def test_a_rule_is_named_once_however_many_of_its_words_are_there() -> None:
    twice = (AnyOf(((Contains(MODEL, ("a", "b")),), (Contains(MODEL, ("a",)), stream(False)))),)
    assert list(Index([twice, (), twice], few=0).candidates(request("ab"))) == [0, 1, 2]


def test_regexes_that_the_engine_has_no_room_for_are_looked_up_in_portions() -> None:
    texts = [f"{number:04}{chr(ord('a') + number % 26) * 900}" for number in range(200)]
    index = Index([(Contains(MODEL, (text, "z")),) for text in texts])
    assert list(index.candidates(request(texts[143]))) == [143]
    assert list(index.candidates(request("z"))) == list(range(200))


def test_very_long_regexes_are_asked_one_by_one() -> None:
    index = Index([(Contains(MODEL, ("a" * 100_000,)),), (Contains(MODEL, ("a",)),)], few=0)
    assert list(index.candidates(request("b"))) == [0]


def test_a_regex_that_the_engine_refuses_is_asked_all_the_same() -> None:
    refused = Matches(MODEL, ("(",), (), "regex")
    assert list(Index([(regexes(MODEL, "a"),), (refused,)], few=0).candidates(request("b"))) == [1]


class Cheap(Facts):
    """Nobody may ask for what costs something."""

    def _refuse(self) -> Any:
        raise AssertionError("read a fact that costs something")

    input_tokens = images = documents = tools = system = property(_refuse)


EXPENSIVE: list[Check] = [
    Contains(SYSTEM, ("x",)),
    Flag(IMAGES, True),
    has_tool(TOOLS, ("x",)),
    TokensWithin(INPUT_TOKENS, 1, None),
]


def test_no_fact_that_costs_something_is_read_before_a_rule_is_asked_that_reads_it() -> None:
    index = Index([*((check,) for check in EXPENSIVE), *((check,) for check in EXPENSIVE)], few=0)
    candidates = index.candidates(Cheap(request().envelope, {}))
    assert next(iter(candidates)) == 0
    mixed = Index([tuple(EXPENSIVE), (AnyOf(((EXPENSIVE[0],),)),), (AnyOf(((EXPENSIVE[3],),)),)], few=1)
    assert list(mixed.candidates(Cheap(request().envelope, {}))) == [0, 1, 2]


# --- laws

TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "a", "A", "ab", "ba", "abc", "a.c", "a*c", "a\nb", "é", "É", "k", "\u212a", "ſ", "probe"]
    ),
    st.text(alphabet="abé\n.*", max_size=5),
    st.text(max_size=3),
    st.builds(lambda n, end: "ab" * n + end, st.integers(100, 300), st.sampled_from(["", "c"])),
)
HEADERS = ["x-team", "x-app"]
SUBJECTS = st.one_of(
    st.sampled_from([MODEL, TEAM, USER, EFFORT, SYSTEM]), st.sampled_from(HEADERS).map(header_fact)
)
VALUES = st.lists(TEXTS, max_size=3).map(tuple)
GLOBS = st.lists(st.text(alphabet="abé*?.\n", max_size=5), min_size=1, max_size=2).map(tuple)
REGEXES = st.lists(
    st.one_of(
        st.sampled_from(
            ["", "a", "^a", "b$", "a|b", "(?i)K", "(?i)É", "a.c", "(?s)a.b", r"\bab", "[^a]", r"^\z"]
        ),
        st.text(alphabet="abé.^$", max_size=4),
        st.from_regex(r"(\(a[b?]?\)|[ab]|\[a-c\]|\.)([*+?]|\{2\})?", fullmatch=True),
    ),
    max_size=3,
)
BOUNDS = st.none() | st.integers(0, 3)
FLAGS = [STREAM, BY_NAME["thinking"], HAS_TOOLS, BY_NAME["url_target"]]
LEAVES: st.SearchStrategy[Check] = st.one_of(
    st.builds(Equals, SUBJECTS, VALUES),
    st.builds(Begins, SUBJECTS, VALUES),
    st.builds(Contains, SUBJECTS, VALUES),
    st.builds(matches_glob, SUBJECTS, GLOBS),
    st.builds(lambda subject, patterns: regexes(subject, *patterns), SUBJECTS, REGEXES),
    st.builds(Present, SUBJECTS, st.booleans()),
    st.builds(Flag, st.sampled_from([*FLAGS, IMAGES]), st.booleans()),
    st.builds(Within, st.just(MAX_TOKENS), BOUNDS, BOUNDS),
    st.builds(TokensWithin, st.just(INPUT_TOKENS), BOUNDS, BOUNDS),
)


def nested(inner: st.SearchStrategy[Check]) -> st.SearchStrategy[Check]:
    tables = st.lists(st.lists(inner, max_size=3).map(tuple), max_size=3).map(tuple)
    return st.builds(AnyOf, tables) | st.builds(NoneOf, tables)


POLICIES = st.lists(st.lists(st.recursive(LEAVES, nested, max_leaves=5), max_size=3).map(tuple), max_size=8)
REQUESTS = st.builds(
    request,
    TEXTS,
    headers=st.dictionaries(
        st.sampled_from(HEADERS),
        # As a server hands them over; some have several lines.
        TEXTS.map(lambda text: text.encode().decode("latin-1")).map(lambda line: (line, line)),
    ),
    tokens=st.integers(0, 3),
    url=st.none() | st.just("echo/a"),
    stream=st.booleans(),
    max_tokens=st.integers(1, 3),
    system=TEXTS,
    metadata=st.builds(lambda user: {"user_id": user}, st.none() | TEXTS),
    output_config=st.builds(lambda effort: {"effort": effort}, st.none() | TEXTS),
    thinking=st.sampled_from([{"type": "enabled"}, {"type": "disabled"}]),
    tools=st.sampled_from([[], [{"name": "a", "input_schema": {}}]]),
)


def rising(numbers: Iterable[int]) -> bool:
    numbers = list(numbers)
    return numbers == sorted(set(numbers))


TOKENS = st.builds(TokensWithin, st.just(INPUT_TOKENS), BOUNDS, BOUNDS)
SOME_TOOLS = st.builds(has_tool, st.just(TOOLS), GLOBS)
SYSTEMS = st.builds(Contains, st.just(SYSTEM), VALUES) | st.builds(Begins, st.just(SYSTEM), VALUES)
EXPENSIVE_POLICIES = st.lists(
    st.lists(TOKENS | SOME_TOOLS | SYSTEMS | LEAVES, min_size=1, max_size=2).map(
        lambda checks: tuple(sorted(checks, key=lambda check: check.cost))
    ),
    max_size=12,
)


class Watched(Facts):
    """Remembers which facts were worked out that cost something."""

    def seen(self) -> set[str]:
        return {"input_tokens", "images", "documents", "tools", "system"} & self.__dict__.keys()


def watched(facts: Facts, tokens: int, unsure: int) -> Watched:
    return Watched(
        facts.envelope,
        facts.headers,
        url_target=facts.url_target,
        count=lambda: tokens,
        is_below=lambda limit: tokens + unsure < limit,
    )


@given(EXPENSIVE_POLICIES, REQUESTS, st.integers(1, 4), st.integers(0, 3))
def test_nothing_is_worked_out_that_asking_one_rule_after_the_other_would_not(
    policy: list[Checks], facts: Facts, tokens: int, unsure: int
) -> None:
    plainly, looked_up = (watched(facts, tokens, unsure) for _ in range(2))
    first = next((n for n, checks in enumerate(policy) if first_miss(checks, plainly) is None), None)
    candidates = Index(policy, few=0).candidates(looked_up)
    first_of_candidates = next((n for n in candidates if first_miss(policy[n], looked_up) is None), None)
    assert first_of_candidates == first
    assert looked_up.seen() <= plainly.seen()


@given(POLICIES | EXPENSIVE_POLICIES, REQUESTS, st.none() | TEXTS)
def test_no_rule_that_holds_is_left_out_and_the_order_of_the_file_is_kept(
    policy: list[Checks], facts: Facts, team: str | None
) -> None:
    facts.team = team
    candidates = asked_by(Index(policy, few=0), policy, facts)
    holding = [number for number, checks in enumerate(policy) if first_miss(checks, facts) is None]
    assert rising(candidates)
    assert [number for number in candidates if first_miss(policy[number], facts) is None] == holding


def test_whether_there_are_tools_and_which_are_looked_up_apart() -> None:
    lines = ["tools = false", *(f'tools = "tool-{number}"' for number in range(20))]
    text = "\n".join(f'[[rules]]\nmatch.{line}\ntargets = "echo/x"' for line in lines)
    policy = rules(text)
    decided = policy.decide(request(tools=[{"name": "tool-7", "input_schema": {}}]))
    assert decided.rule == policy.rules[8].name
