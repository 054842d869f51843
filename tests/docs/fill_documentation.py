"""Writes what the documentation's commands print, and the files that they make, into the pages again.

    python -m tests.docs.fill_documentation [PAGE …]

A PAGE is a file name such as `rules.md`; without one, all pages are filled. For whoever changed wording: read
the difference before you commit it, nothing here judges.
"""

import os
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

from typer.testing import CliRunner

from routeproxy import cli
from tests.docs import pages
from tests.docs.pages import Block
from tests.docs.test_documentation import KEYS, as_ever, fill_books, made_by


def main(names: list[str]) -> None:
    for page in pages.ALL_PAGES:
        while (not names or page.name in names) and fill_one(page):
            pages.all_blocks.cache_clear()


def fill_one(page: Path) -> bool:
    """Whether a block had to be written; the lines of the blocks below may have moved by that."""
    outputs = {block.follows.line: block for block in pages.blocks(page, "text") if block.follows}
    for block in pages.blocks(page, "sh"):
        output, files = run(page, block)
        for file, content in files:
            if file.text != content:
                write(page, file, content)
                return True
        shown = outputs.get(block.line)
        if shown is not None and as_ever(output) != as_ever(shown.text):
            write(page, shown, "\n".join(line.rstrip() for line in output.rstrip().split("\n")))
            return True
    return False


def run(page: Path, block: Block) -> tuple[str, list[tuple[Block, str]]]:
    """What the commands of a block print, and the blocks of the files that they make with their contents."""
    commands = [command for line in pages.lines_of(block) if (command := pages.command_in(line)) is not None]
    output, saved = "", dict(os.environ)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for name in set(os.environ) - {"PATH", "HOME"}:
            del os.environ[name]
        pages.write(pages.files_of(page, above=block.line), Path(folder))
        fill_books(Path(), commands)
        for words, variables in commands:
            if words[0] == "serve" and "--help" not in words:
                continue
            keys = {} if "PREFERRED_PROVIDER" in variables else KEYS
            output += CliRunner().invoke(cli.app, words, env=keys | variables).output
        files = [(file, Path(file.marks["made"]).read_text()) for file in made_by(block)]
        os.environ.update(saved)
    return output, files


def write(page: Path, block: Block, content: str) -> None:
    lines = page.read_text(encoding="utf-8").split("\n")
    lines[block.line : block.line + block.text.count("\n")] = content.rstrip("\n").split("\n")
    page.write_text("\n".join(lines), encoding="utf-8")
    print(block.id)


if __name__ == "__main__":
    main(sys.argv[1:])
