"""The options that several commands have, and how all of them look."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

new_app = partial(typer.Typer, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
"""An app without colours, frames and shell completion; takes the settings of `typer.Typer`."""

RulesArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FILE]",
        help="The rules file. Left out: ./rules.toml if there is one, else the environment and .env.",
        show_default=False,
    ),
]
RulesOption = Annotated[
    Path | None,
    typer.Option("--rules", metavar="FILE", help="The rules file, in place of FILE.", show_default=False),
]
LiteralKeysOption = Annotated[
    bool,
    typer.Option("--allow-literal-keys", help="Accept keys that are written into the rules file itself."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def chosen_rules(file: Path | None, rules: Path | None) -> Path | None:
    """The rules file that was named, as FILE or by `--rules`. Two names of one file are one."""
    if file is not None and rules is not None and file.resolve() != rules.resolve():
        raise typer.BadParameter(f"two rules files: {file}, and {rules} by --rules; expected one of them")
    return file or rules
