"""Globs compared with each other, held against all short texts."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.policy.patterns import covers, glob, is_glob, matches, overlap
from tests.policy.policies import glob_matches

LETTERS = "abc"
"""One more than patterns name: a `?` may be a letter of which nobody thought."""


def all_texts(letters: str, longest: int) -> Iterator[str]:
    for length in range(longest + 1):
        yield from map("".join, itertools.product(letters, repeat=length))


GLOBS = list(all_texts("ab*?", 3))
# Where two globs meet at all they meet in a text no longer than both together.
MATCHED = {one: {text for text in all_texts(LETTERS, 6) if glob_matches(one, text)} for one in GLOBS}

globs = st.text("aAé.[*?", max_size=8)
texts = st.text("aAé.[\n", max_size=8)


def test_two_globs_overlap_exactly_if_some_text_matches_both() -> None:
    wrong = [
        (one, other)
        for one, other in itertools.product(GLOBS, repeat=2)
        if overlap(one, other) is MATCHED[one].isdisjoint(MATCHED[other])
    ]
    assert not wrong


def test_a_glob_that_covers_another_matches_whatever_that_one_matches() -> None:
    wrong = [
        (wide, narrow)
        for wide, narrow in itertools.product(GLOBS, repeat=2)
        if covers(wide, narrow) and not MATCHED[wide] >= MATCHED[narrow]
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("*", "a?*"),
        ("corp/*", "corp/*"),
        ("corp/*", "corp/gpt-?"),
        ("corp/*", "corp/a"),
        ("c*/a?", "corp/ab"),
    ],
)
def test_what_is_plain_to_see_is_seen(wide: str, narrow: str) -> None:
    assert covers(wide, narrow)


@given(globs, texts)
def test_a_glob_is_the_whole_text_and_knows_stars_and_question_marks_only(pattern: str, text: str) -> None:
    assert matches(pattern, text) is glob_matches(pattern, text)


@given(globs, texts, texts)
def test_whatever_matches_both_is_an_overlap(pattern: str, text: str, filling: str) -> None:
    """Of any letters: the patterns are made from a text that matches them."""
    one = text.replace("a", "*")
    other = text.replace("é", "?")
    assert overlap(one, other)
    assert overlap(pattern, text) is matches(pattern, text)
    assert overlap(f"{one}*", text + filling)


@given(globs, globs)
def test_overlap_has_no_sides(one: str, other: str) -> None:
    assert overlap(one, other) is overlap(other, one)
    assert overlap(one, one)


@given(globs, texts)
def test_a_text_without_wild_cards_is_covered_by_what_matches_it(pattern: str, text: str) -> None:
    assert not is_glob(text)
    assert covers(pattern, text) is bool(glob(pattern)(text.encode()))
