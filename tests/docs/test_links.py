"""What pages and comments refer to exists: links, files, benchmarks, loggers, cases of the wire contract."""

import ast
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.budgets import seconds
from tests.docs.pages import (
    ALL_PAGES,
    CHANGELOG,
    FENCE,
    FOR_DEVELOPERS,
    INTERNALS,
    PAGES,
    README,
    ROOT,
    RUNNING,
    THREATS,
    anchors,
    code,
    rows,
)

SOURCES = sorted((ROOT / "routeproxy").rglob("*.py"))
CODE = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]


# --- links


@pytest.mark.parametrize("page", [*ALL_PAGES, CHANGELOG], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), link
        assert not anchor or anchor in anchors(other), link


def test_the_readme_leads_to_every_page() -> None:
    text = README.read_text(encoding="utf-8")
    assert {page.name for page in (ROOT / "docs").glob("*.md")} == {page.name for page in PAGES[1:]}
    missing = [page.name for page in ALL_PAGES[1:] if f"({page.relative_to(ROOT)})" not in text]
    assert missing == []


def test_the_changelog_has_a_place_for_what_comes() -> None:
    lines = CHANGELOG.read_text(encoding="utf-8").splitlines()
    assert "## Unreleased" in lines
    assert next(line for line in lines if line.startswith("## ")) == "## Unreleased"


# --- files


def exists(name: str, *folders: Path) -> bool:
    """Whether there is such a file, seen from the places where the names of files begin."""
    places = (ROOT, ROOT / "routeproxy", ROOT / "docs", ROOT / "docs" / "internals", *folders)
    return any((place / name).exists() for place in places)


def comments_in(source: Path) -> Iterator[tuple[int, str]]:
    """Each comment, docstring and other string that stands alone, with its line."""
    with tokenize.open(source) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


@pytest.mark.parametrize("suffix", ["md", "py"])
def test_comments_cite_only_files_that_are_here(suffix: str) -> None:
    cited = re.compile(rf"(?<![\w./-])[\w./-]+\.{suffix}\b")
    missing = [
        f"{source.relative_to(ROOT)}:{line}: {name}"
        for source in CODE
        for line, text in comments_in(source)
        for name in cited.findall(text)
        if not exists(name, *(ROOT / folder for folder in source.relative_to(ROOT).parents))
    ]
    assert missing == []


@pytest.mark.parametrize("page", FOR_DEVELOPERS, ids=lambda page: page.name)
def test_pages_for_developers_name_only_files_that_are_here(page: Path) -> None:
    named = {
        name
        for name in code(FENCE.sub("", page.read_text(encoding="utf-8")))
        if re.fullmatch(r"(?:[\w.-]+/)*[\w.-]+\.(?:md|py|toml|txt)|(?:[\w.-]+/)+", name)
    }
    assert sorted(name for name in named if not exists(name)) == []


def test_every_promise_of_the_threat_model_names_what_shows_it() -> None:
    for promise, _, shown in rows(THREATS, "What is promised")[1:]:
        assert "](" in shown or "`tests/" in shown, promise
        assert [name for name in code(shown) if not exists(name)] == [], promise


@pytest.mark.parametrize("page", FOR_DEVELOPERS, ids=lambda page: page.name)
def test_pages_for_developers_name_only_what_their_files_define(page: Path) -> None:
    """A name that follows its file, as in "`policy/targets.py`, `Target`", or stands before it."""
    text = page.read_text(encoding="utf-8")
    pairs = re.findall(r"`([\w/]+\.py)`, `(\w+)`", text)
    pairs += [(file, name) for name, file in re.findall(r"`(\w+)` in `([\w/]+\.py)`", text)]
    for file, name in pairs:
        source = next(path for path in (ROOT / "routeproxy" / file, ROOT / file) if path.exists())
        defined = re.findall(r"^(?:class |def )?(\w+)", source.read_text(encoding="utf-8"), re.MULTILINE)
        assert name in defined, file


def test_the_architecture_names_every_room() -> None:
    page = next(page for page in INTERNALS if page.stem == "architecture")
    named = {name for row in rows(page, "The rooms")[1:] for name in code(row[0])}
    rooms = {f"{source.parent.relative_to(ROOT / 'routeproxy')}/" for source in SOURCES} - {"./"}
    assert {name for name in named if name.endswith("/")} == rooms


# --- benchmarks


def benchmarks() -> dict[str, set[str]]:
    """The benchmarks that pages tell readers to run, each with the flags that they are to give it."""
    flags: dict[str, set[str]] = {}
    for page in ALL_PAGES:
        text = page.read_text(encoding="utf-8")
        for script, rest in re.findall(r"python (benchmarks/\w+\.py)([^\n`]*)", text):
            flags.setdefault(script, set()).update(re.findall(r"--[\w-]+", rest))
    return flags


@pytest.mark.parametrize(("script", "flags"), benchmarks().items())
def test_every_benchmark_starts_and_knows_its_flags(script: str, flags: set[str]) -> None:
    ran = subprocess.run(
        [sys.executable, script, "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=seconds(30),
    )
    assert ran.returncode == 0, ran.stderr
    assert {flag for flag in flags if flag not in ran.stdout} == set()


# --- loggers


def test_every_logger_is_listed() -> None:
    names = {
        name
        for source in SOURCES
        for name in re.findall(r'getLogger\("(.+?)"\)', source.read_text(encoding="utf-8"))
    }
    assert [code(row[0])[0] for row in rows(RUNNING, "Where it goes", of="logger")[1:]] == sorted(names)


# --- the wire contract

WIRE = (ROOT / "docs" / "internals" / "wire.md").read_text(encoding="utf-8")
CASES = re.findall(r"^- \*\*([A-G]\d\d)\*\* ", WIRE, re.MULTILINE)
INVARIANTS = re.findall(r"^- \*\*(I\d+)\*\* ", WIRE, re.MULTILINE)


@cache
def sections() -> frozenset[str]:
    """The sections of the contract, `§2.8`, and the items of their lists, `§0.3`."""
    names: set[str] = set()
    section = ""
    for line in WIRE.splitlines():
        if heading := re.match(r"##+ (\d+(?:\.\d+)?)\b", line):
            section = f"§{heading[1]}"
            names.add(section)
        elif section and (item := re.match(r"(\d+)\. ", line)):
            names.add(f"{section}.{item[1]}")
    return frozenset(names)


def citations_in(text: str) -> Iterator[str]:
    """What comments, names of tests and ids of cases cite of the contract, as it is called there."""
    yield from re.findall(r"§\d+(?:\.\d+)*", text)
    yield from (f"§{number}" for number in re.findall(r"§[\d.]+[–-](\d+(?:\.\d+)*)", text))
    yield from re.findall(r"\b(?:[A-G]\d\d|I\d{1,2})\b", text)
    yield from (number.upper() for number in re.findall(r"\bdef test_([a-g]\d\d|i\d{1,2})_", text))


def test_the_contract_has_all_its_numbers() -> None:
    counts = {"A": 24, "B": 46, "C": 30, "D": 58, "E": 12, "F": 17, "G": 10}
    assert [f"{letter}{n:02}" for letter, count in counts.items() for n in range(1, count + 1)] == CASES
    assert [f"I{n}" for n in range(1, 41)] == INVARIANTS
    assert "\n## Decided\n" in WIRE


def test_whatever_is_cited_of_the_contract_is_in_it() -> None:
    there = sections() | {*CASES, *INVARIANTS}
    cited = {
        (str(source.relative_to(ROOT)), number)
        for source in CODE
        for number in citations_in(source.read_text(encoding="utf-8"))
    }
    assert len(cited) > 200
    assert sorted(f"{source}: {number}" for source, number in cited if number not in there) == []
