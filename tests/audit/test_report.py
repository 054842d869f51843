"""What is found in a trail: which requests something is so of, and whether an invariant held
(docs/audit.md)."""

import hashlib
from pathlib import Path

import pytest

from routeproxy.audit.records import Contact, Reloaded
from routeproxy.audit.requests import parsed_query
from tests.audit.trails import INSIDE, NOON, OUTSIDE, RULES, Books, Writer


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path / "audit")


def test_a_promise_that_was_kept_is_counted_and_needs_no_key_of_then(books: Books) -> None:
    books.asked("a", INSIDE, team="claims", rule="claims")
    books.asked("b", INSIDE, team="claims", rule="claims")
    books.asked("c", OUTSIDE)
    found = books.report()
    assert (found.held, found.broken, found.not_decidable, found.records_lost) == (2, 0, 0, 0)
    assert (found.not_concerned, found.decided_otherwise) == (1, 0)
    assert dict(found.versions) == {books.version: 3}


def test_a_promise_that_was_broken_names_the_request_and_the_target(books: Books) -> None:
    books.asked("a", INSIDE, OUTSIDE, team="claims", rule="claims")
    found = books.report()
    assert books.numbers() == (0, 1, 0, 0)
    assert found.decided_otherwise == 1
    (example,) = found.examples
    assert (example.id, example.why) == ("a", "outside/m was asked, and its zone is `public`")


def test_a_target_whose_zone_was_recorded_otherwise_than_the_rules_have_it_is_judged_by_the_worse(
    books: Books,
) -> None:
    lie = Contact(provider="outside", model="m", zone="private", outcome="ok")
    books.asked("a", lie, team="claims", rule="claims")
    assert books.numbers() == (0, 1, 0, 0)


def test_what_was_stopped_before_it_was_asked_broke_nothing(books: Books) -> None:
    stopped = Contact(provider="outside", model="m", zone="public", outcome="invariant")
    books.asked("a", INSIDE, stopped, team="claims", rule="claims")
    assert books.numbers() == (1, 0, 0, 0)


def test_a_request_of_which_the_fact_that_matters_was_not_recorded_is_not_decidable(books: Books) -> None:
    books.writer.begin("a", {}, version=books.version, targets=("outside/m",))
    books.writer.end("a", OUTSIDE)
    assert books.numbers("secrets stay inside") == (0, 0, 1, 0)
    assert dict(books.report("secrets stay inside").whys) == {"`header x-secret` was not recorded": 1}


def test_whoever_reached_nothing_that_is_forbidden_kept_the_promise_recorded_or_not(books: Books) -> None:
    books.writer.begin("a", {}, version=books.version, targets=("inside/m",))
    books.writer.end("a", INSIDE)
    assert books.numbers("secrets stay inside") == (1, 0, 0, 0)


def test_a_request_without_an_end_is_not_decidable_unless_it_is_under_way(books: Books) -> None:
    books.asked("a", team="claims", rule="claims")
    assert (books.numbers(), books.report().under_way) == ((0, 0, 0, 0), 1)
    books.writer.chain.close()
    assert books.numbers() == (0, 0, 1, 0)


def test_rules_that_are_not_kept_or_were_changed_leave_nothing_decidable(books: Books) -> None:
    books.asked("a", INSIDE, team="claims", rule="claims")
    (kept,) = (books.trail.folder / "versions").iterdir()
    kept.write_bytes(kept.read_bytes().replace(b"private", b"public"))
    assert books.numbers() == (0, 0, 1, 0)
    kept.unlink()
    assert books.numbers() == (0, 0, 1, 0)
    assert "is not kept" in next(iter(books.report().whys))


def test_each_request_is_decided_by_the_rules_of_its_time(books: Books) -> None:
    books.asked("a", OUTSIDE)
    books.put_in_force(RULES.replace('name = "claims stay inside"', 'name = "another"'))
    books.asked("b", INSIDE, team="claims", rule="claims")
    books.put_in_force(RULES + "# once more\n")
    books.asked("c", INSIDE, team="claims", rule="claims")
    found = books.report()
    assert (found.held, found.not_promised, found.not_concerned) == (1, 1, 1)


def test_records_that_were_lost_are_the_fourth_number(books: Books) -> None:
    books.asked("a", INSIDE, team="claims", rule="claims")
    record = Reloaded(at=NOON, before="v", version="v", rules_sha256=None, lost=4)
    books.writer.chain.add(record)
    assert books.numbers() == (1, 0, 0, 4)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ('team = "claims"', (2, 0)),
        ("team = claims and zone = public", (1, 0)),
        ('team = claims AND zone = "private"', (2, 0)),
        # One contact has to be all of it; nobody knows whom the last one reached.
        ("zone = public and provider = inside", (0, 1)),
        ("zone = public and provider = outside", (2, 1)),
        ("target = 'outside/*'", (2, 1)),
        ("rule = default", (1, 0)),
        ("status = 200", (3, 1)),
        ("status = 503", (0, 1)),
        ("denied = true", (0, 0)),
        ("model = m", (4, 0)),
        ('team = ""', (2, 0)),
        ("headers.x-secret = yes", (1, 0)),
        ("headers.x-other = yes", (0, 4)),
        ("headers.X-Secret = yes and team = claims", (0, 0)),
        ("tools = Bash", (0, 1)),
        ("region = eu", (0, 1)),
    ],
)
def test_questions_are_answered_by_what_was_recorded(
    books: Books, question: str, expected: tuple[int, int]
) -> None:
    books.asked("a", INSIDE, team="claims", rule="claims")
    books.asked("b", INSIDE, OUTSIDE, team="claims", rule="claims")
    books.asked("c", OUTSIDE, facts={"headers": {"x-secret": "yes"}}, key="k1")
    books.asked("d", facts={"not_recorded": ["tools"]}, rule="other")
    assert books.counted(question) == expected


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("team", "expected NAME = VALUE"),
        ("team =", "expected NAME = VALUE"),
        ("color = red", "`color` is nothing to ask for; known: id, key,"),
        ("team = a or team = b", "expected `and`"),
        ("team = a and", "expected `and` and one more"),
        ("system = x", "`system` is nothing to ask for"),
    ],
)
def test_a_question_that_can_t_be_read_is_refused_in_words(question: str, words: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        parsed_query(question)
    assert words in str(refused.value)


def test_a_kept_version_is_named_by_its_hash(books: Books) -> None:
    (kept,) = (books.trail.folder / "versions").iterdir()
    digest = hashlib.sha256(kept.read_bytes()).hexdigest()
    assert kept.name == f"{books.version}-{digest[:16]}.json"
    assert isinstance(books.writer, Writer)
