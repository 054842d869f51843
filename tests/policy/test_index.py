from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.policy.conditions import (
    EFFORT,
    MODEL,
    SYSTEM,
    TEAM,
    USER,
    AnyOf,
    Begins,
    Check,
    Contains,
    DearFlag,
    Equals,
    Flag,
    HasTool,
    Matches,
    NoneOf,
    Present,
    TokensWithin,
    Within,
    first_miss,
    globbed,
    header,
)
from routeproxy.policy.facts import Facts
from routeproxy.policy.index import FEW, Index
from routeproxy.policy.patterns import glob, regex
from tests.policy.asking import request, rules

Checks = tuple[Check, ...]


def regexes(subject: Any, *patterns: str) -> Matches:
    return Matches(subject, patterns, tuple(map(regex, patterns)), "regex")


def stream(wanted: bool) -> Flag:
    return Flag("stream", attrgetter("stream"), wanted)


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
        "model.regex = '-#$'",
        "model = 'model-#', headers.x-env = 'prod'",
        "model = 'model', headers.x-team = 'team-#', stream = false",
        "model = 'model-#', input_tokens.min = 1000",
        "any = [{ model = 'model-#', stream = false }, { headers.x-team = 'team-#' }]",
        "not = { stream = true }, any = [{ model = 'model-#' }]",
    ],
)
def test_of_many_rules_only_those_are_asked_that_name_what_came(kind: str) -> None:
    asked = request("a-model-042", headers={"x-team": "team-042", "x-env": "prod"}, tokens=5)
    assert list(Index(numbered(kind)).candidates(asked)) == [42]


@pytest.mark.parametrize(
    "kind",
    [
        "max_tokens.min = 1#",
        "not = { model = 'model-#' }",
        "headers.x-team.present = true, input_tokens.min = 1#",
        "any = [{ model = 'model-#' }, { max_tokens.min = 1# }]",
        "system = '#'",
        "tools = 'tool-#'",
    ],
)
def test_rules_that_can_not_be_looked_up_are_always_asked(kind: str) -> None:
    assert list(Index(numbered(kind)).candidates(request())) == list(range(100))


def test_a_few_rules_are_not_looked_up_at_all() -> None:
    few = [(Equals(MODEL, (f"m{n}",)),) for n in range(FEW)]
    assert list(Index(few).candidates(request("m3"))) == list(range(FEW))
    assert list(Index([*few, ()]).candidates(request("m3"))) == [3, FEW]


def test_any_of_nothing_is_never_asked() -> None:
    assert list(Index([(AnyOf((), 0),), (AnyOf(((),), 0),)], few=0).candidates(request())) == [1]


def test_a_rule_is_named_once_however_many_of_its_words_are_there() -> None:
    twice = (AnyOf(((Contains(MODEL, ("a", "b")),), (Contains(MODEL, ("a",)), stream(False))), 0),)
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

    def _dear(self) -> Any:
        raise AssertionError("read a fact that costs something")

    input_tokens = images = documents = tools = system = property(_dear)


def test_no_fact_that_costs_something_is_read() -> None:
    dear: list[Check] = [
        Contains(SYSTEM, ("x",)),
        Equals(SYSTEM, ("x",)),
        Present(SYSTEM, True),
        DearFlag("images", attrgetter("images"), True),
        HasTool(("x",), (glob("x"),)),
        TokensWithin("input_tokens", attrgetter("input_tokens"), 1, None),
    ]
    index = Index([*((check,) for check in dear), tuple(dear), (AnyOf(((dear[0],),), 1),)], few=0)
    assert list(index.candidates(Cheap(request().envelope, {}))) == list(range(8))


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
    st.sampled_from([MODEL, TEAM, USER, EFFORT, SYSTEM]), st.sampled_from(HEADERS).map(header)
)
VALUES = st.lists(TEXTS, max_size=3).map(tuple)
GLOBS = st.lists(st.text(alphabet="abé*?.\n", max_size=5), max_size=2).map(tuple)
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
FLAGS = ["stream", "thinking", "has_tools", "has_url_target"]
LEAVES: st.SearchStrategy[Check] = st.one_of(
    st.builds(Equals, SUBJECTS, VALUES),
    st.builds(Begins, SUBJECTS, VALUES),
    st.builds(Contains, SUBJECTS, VALUES),
    st.builds(globbed, SUBJECTS, GLOBS),
    st.builds(lambda subject, patterns: regexes(subject, *patterns), SUBJECTS, REGEXES),
    st.builds(Present, SUBJECTS, st.booleans()),
    st.sampled_from(FLAGS).flatmap(
        lambda f: st.builds(Flag, st.just(f), st.just(attrgetter(f)), st.booleans())
    ),
    st.builds(DearFlag, st.just("images"), st.just(attrgetter("images")), st.booleans()),
    st.builds(Within, st.just("max_tokens"), st.just(attrgetter("max_tokens")), BOUNDS, BOUNDS),
    st.builds(TokensWithin, st.just("input_tokens"), st.just(attrgetter("input_tokens")), BOUNDS, BOUNDS),
)


def nested(inner: st.SearchStrategy[Check]) -> st.SearchStrategy[Check]:
    tables = st.lists(st.lists(inner, max_size=3).map(tuple), max_size=3).map(tuple)
    return st.builds(AnyOf, tables, st.just(0)) | st.builds(NoneOf, tables, st.just(0))


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


@given(POLICIES, REQUESTS, st.none() | TEXTS)
def test_no_rule_that_holds_is_left_out_and_the_order_of_the_file_is_kept(
    policy: list[Checks], asked: Facts, team: str | None
) -> None:
    asked.team = team
    candidates = list(Index(policy, few=0).candidates(asked))
    holding = [number for number, checks in enumerate(policy) if first_miss(checks, asked) is None]
    assert rising(candidates)
    assert [number for number in candidates if first_miss(policy[number], asked) is None] == holding
