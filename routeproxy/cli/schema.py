"""`routeproxy schema`: what may stand in a rules file, for editors that complete and check it."""

import sys
from typing import Annotated, TextIO

import msgspec
import typer

from routeproxy.cli.options import new_app
from routeproxy.policy.compile.schema import schema

app = new_app()


@app.command()
def command(
    layer: Annotated[bool, typer.Option("--layer", help="That of included files instead.")] = False,
) -> None:
    """Print the JSON Schema of a rules file: editors complete and check by it."""
    raise typer.Exit(run_schema(layer=layer, out=sys.stdout))


def run_schema(*, layer: bool = False, out: TextIO) -> int:
    """Prints the JSON Schema of a rules file, or of an included file. Always 0."""
    print(msgspec.json.format(msgspec.json.encode(schema(layer=layer))).decode(), file=out)
    return 0
