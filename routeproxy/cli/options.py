"""The options that several commands have, and how all of them look."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

new_app = partial(typer.Typer, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
"""An app without colours, frames and shell completion; takes the settings of `typer.Typer`."""

RulesOption = Annotated[
    Path | None,
    typer.Option(
        "--rules",
        metavar="FILE",
        help="The rules file. Left out: ./rules.toml if there is one, else the environment and .env.",
        show_default=False,
    ),
]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The rules file.", show_default=False)]
LiteralKeysOption = Annotated[
    bool,
    typer.Option("--allow-literal-keys", help="Accept keys that are written into the rules file itself."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
