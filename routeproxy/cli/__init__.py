"""The command line: a file a command, each with its own options. Arguments in, exit code out.

This file only lists the commands. The file of a command is imported when the command is called, so that
`routeproxy --help` waits for none of them and no command waits for the others.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import routeproxy
from routeproxy.cli.options import new_app

COMMANDS: Mapping[str, str] = {
    "serve": "Serve. An edit of the rules is live within a second.",
    "claude": "Start Claude Code through a server, which is started if none runs.",
    "health": "Say whether the server of this machine is ready.",
    "check": "Say whether a rules file is fit to be served.",
    "test": "Run the tests that stand in a rules file.",
    "prove": "Prove the invariants of a rules file.",
    "drill": "Rehearse what clients get while back ends fail.",
    "explain": "Say where a request would go, and why.",
    "diff": "Say what changes from one rules file to another.",
    "replay": "Try rules on past requests: who moves where, and at what cost.",
    "schema": "Print the JSON Schema of rules files, for editors.",
    "count": "Estimate the input tokens of requests.",
    "usage": "Say what was used, by whom, and what it cost.",
    "ledger": "What the owner of the ledger does to it.",
    "audit": "Verify, ask and report on the audit trail.",
    "init": "Write a rules file to start from, or from what you have.",
    "keys": "Keys of clients.",
}
"""Each command with its line in `routeproxy --help`, in the order of that. Its file has its name."""


def load_command(name: str) -> Any:
    """The command (Click's kind) of a name in `COMMANDS`, with its options. Imports its file."""
    return typer.main.get_command(import_module(f"routeproxy.cli.{name}").app)


class LazyGroup(TyperGroup):
    """Lists the commands from the table, and loads the one that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, short_help=line) for name, line in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, arguments = super().resolve_command(ctx, args)
        return name, load_command(name) if name else None, arguments


app = new_app(
    name="routeproxy",
    help="Anthropic clients in front, any model behind, a rules file in between.",
    no_args_is_help=True,
    cls=LazyGroup,
    add_completion=True,
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"routeproxy {routeproxy.__version__}")
        raise typer.Exit


@app.callback()
def _routeproxy(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    app()
