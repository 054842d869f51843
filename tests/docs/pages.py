"""The pages of the documentation, read for tests: their blocks of code, tables, commands and headings.

A comment directly above a fenced block says how it is meant; readers of the rendered page don't see it:

    <!-- with: openai, default -->   a piece: it stands among these tables of the first file in docs/rules.md
    <!-- file: teams/x.toml -->      how commands further down, and files that include it, call it
    <!-- more of: rules.toml -->     goes on with a file that the page has shown above
    <!-- made: rules.toml -->        the file that the command above has written
    <!-- refused -->                 has errors, on purpose

A page is read from top to bottom: a command sees the files as they were shown so far. The commands of one
block run one after the other in one folder. A `text` block directly below is what they print; only versions
of rules and fresh keys may differ. A `json` block below a `curl` line has the shape of the answer.
"""

import itertools
import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
README, CHANGELOG, CONTRIBUTING, SECURITY = (
    ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")
)
RULES, PROMISES, RECIPES, COMMANDS, DRILLS, PROVIDERS, RUNNING, LEDGER, FINANCE, AUDIT, PAGE, *OTHERS = (
    ROOT / "docs" / f"{name}.md"
    for name in (
        "rules",
        "promises",
        "recipes",
        "commands",
        "drills",
        "providers",
        "running",
        "ledger",
        "finance",
        "audit",
        "page",
        "metrics",
        "moving",
        "threat-model",
    )
)
METRICS, MOVING, THREATS = OTHERS
PAGES = (
    *(README, RULES, PROMISES, RECIPES, COMMANDS, DRILLS, PROVIDERS, RUNNING),
    *(LEDGER, FINANCE, AUDIT, PAGE, METRICS, MOVING, THREATS),
)
"""The pages for users."""
INTERNALS = tuple(sorted((ROOT / "docs" / "internals").glob("*.md")))
FOR_DEVELOPERS = (CONTRIBUTING, SECURITY, *INTERNALS)
ALL_PAGES = (*PAGES, *FOR_DEVELOPERS)
"""All but the changelog, which speaks of how things were."""


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str
    marks: Mapping[str, str]
    """The marks in the comment above it, each with its value."""
    follows: "Block | None"
    """The block directly above."""

    @property
    def id(self) -> str:
        return f"{self.page.name}:{self.line}"


FENCE = re.compile(
    r"(?:^<!-- (?P<marks>[^\n]*?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@cache
def all_blocks(page: Path) -> tuple[Block, ...]:
    text, result, end = page.read_text(encoding="utf-8"), [], 0
    for match in FENCE.finditer(text):
        marks = (mark.partition(":") for mark in (match["marks"] or "").split(";"))
        above = result[-1] if result and not text[end : match.start()].strip() else None
        line = text.count("\n", 0, match.start("language")) + 1
        end = match.end()
        result.append(
            Block(
                page,
                line,
                match["language"],
                match["text"],
                {name.strip(): value.strip() for name, _, value in marks},
                above,
            )
        )
    return tuple(result)


def blocks(page: Path, language: str) -> list[Block]:
    return [block for block in all_blocks(page) if block.language == language]


def marked(mark: str) -> str:
    """The README's block of this mark."""
    return next(block.text for block in all_blocks(README) if mark in block.marks)


def every(language: str) -> list[Any]:
    return [pytest.param(block, id=block.id) for page in ALL_PAGES for block in blocks(page, language)]


def files_of(page: Path, *, above: int | None = None) -> dict[str, str]:
    """The files that the page shows, by name, all of them or as far as they are shown above a line."""
    files: dict[str, str] = {}
    for block in all_blocks(page):
        if above is not None and block.line >= above:
            break
        if name := block.marks.get("more of"):
            files[name] += f"\n{block.text}"
        elif name := block.marks.get("file"):
            assert name not in files, f"{block.id}: {name} is there already"
            files[name] = block.text
    return files


def write(files: Mapping[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def rows(page: Path, heading: str, *, of: str = "") -> list[list[str]]:
    """The cells of all tables between a heading and the next, or of the one whose first column is called
    `of`."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    section = re.split(r"^#+ ", text[text.index(f"# {heading}\n") + 2 :], maxsplit=1, flags=re.MULTILINE)[0]
    if of:
        section = section[section.index(f"| {of} |") :].partition("\n\n")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    assert lines, f"{page.name} has no table under {heading}"
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def code(cell: str) -> list[str]:
    """The words in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def lines_of(block: Block) -> list[str]:
    """The lines as a shell reads them: one that ends in a backslash goes on."""
    return block.text.replace("\\\n", " ").splitlines()


class Command(NamedTuple):
    """A call of `routeproxy`, without that word, and the variables that stand before it."""

    words: list[str]
    variables: dict[str, str]


def command_in(line: str) -> Command | None:
    call = re.match(r"((?:[A-Z_]+=\S* )*)routeproxy (.*)", line)
    if call is None:
        return None
    words = itertools.takewhile(lambda word: word not in {">", ">>", "||"}, shlex.split(call[2]))
    return Command([*words], dict(word.split("=", 1) for word in call[1].split()))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings outside of code."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
