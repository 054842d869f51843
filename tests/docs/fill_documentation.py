"""Writes what the documentation's commands print, and the files that they make, into the pages again.

    python -m tests.docs.fill_documentation [page.md …]

For whoever changed wording. Read the difference before you commit it: nothing here judges.
"""

import os
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

from typer.testing import CliRunner

from tests.docs import test_documentation as documentation
from tests.docs.test_documentation import Block


def main(names: list[str]) -> None:
    for page in documentation.PAGES:
        while (not names or page.name in names) and fill_one(page):
            documentation.all_blocks.cache_clear()


def fill_one(page: Path) -> bool:
    """Whether something had to be written; what stands below may have moved by that."""
    shown_below = {block.follows.line: block for block in documentation.blocks(page, "text") if block.follows}
    for block in documentation.blocks(page, "sh"):
        output, made = run(page, block)
        for file, content in made:
            if file.text != content:
                write(page, file, content)
                return True
        shown = shown_below.get(block.line)
        if shown is not None and documentation.as_ever(output) != documentation.as_ever(shown.text):
            write(page, shown, "\n".join(line.rstrip() for line in output.rstrip().split("\n")))
            return True
    return False


def run(page: Path, block: Block) -> tuple[str, list[tuple[Block, str]]]:
    """What the commands of a block print, and the files that they make, as the page shows them and as they
    are."""
    commands = [
        command
        for line in documentation.lines_of(block)
        if (command := documentation.command_in(line)) is not None
    ]
    output, saved = "", dict(os.environ)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for name in set(os.environ) - {"PATH", "HOME"}:
            del os.environ[name]
        documentation.write(documentation.files_of(page, above=block.line), Path(folder))
        for words, variables in commands:
            if words[0] == "serve" and "--help" not in words:
                continue
            keys = {} if "PREFERRED_PROVIDER" in variables else documentation.KEYS
            output += CliRunner().invoke(documentation.cli.app, words, env=keys | variables).output
        made = [(file, Path(file.says["made"]).read_text()) for file in documentation.made_by(block)]
        os.environ.update(saved)
    return output, made


def write(page: Path, block: Block, content: str) -> None:
    lines = page.read_text(encoding="utf-8").split("\n")
    lines[block.line : block.line + block.text.count("\n")] = content.rstrip("\n").split("\n")
    page.write_text("\n".join(lines), encoding="utf-8")
    print(block.id)


if __name__ == "__main__":
    main(sys.argv[1:])
