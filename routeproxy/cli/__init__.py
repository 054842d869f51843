"""The command line: one file a command; arguments in, exit code out."""

from pathlib import Path
from typing import Annotated

import typer

import routeproxy

app = typer.Typer(
    name="routeproxy",
    help="Anthropic clients in front, any model behind, a rules file in between.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RulesOption = Annotated[
    Path | None,
    typer.Option("--rules", help="The rules file. Left out: ./rules.toml if there is one, else the environment and .env."),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"routeproxy {routeproxy.__version__}")
        raise typer.Exit


@app.callback()
def _routeproxy(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    rules: RulesOption = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="The port; 0 picks a free one. [default: 8082]")] = None,
    workers: Annotated[int, typer.Option(min=1, help="How many processes share the port.")] = 1,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR. [default: INFO]")] = None,
    process_newlines: Annotated[
        bool, typer.Option("--process-newlines", help="Without a rules file: write line breaks of answers as a literal \\n.")
    ] = False,
    preserve_openai_newlines: Annotated[
        bool, typer.Option("--preserve-openai-newlines", help="Without a rules file: leave OpenAI's answers out of that.")
    ] = False,
    allow_literal_keys: Annotated[
        bool, typer.Option("--allow-literal-keys", help="Accept keys that are written into the rules file itself.")
    ] = False,
) -> None:
    """Serve. An edit of the rules file is live within a second."""
    from routeproxy.policy.problems import RulesRefused
    from routeproxy.serve import Options
    from routeproxy.serve import serve as run

    options = Options(
        rules=rules,
        host=host,
        port=port,
        workers=workers,
        log_level=log_level,
        process_newlines=process_newlines,
        preserve_openai_newlines=preserve_openai_newlines,
        allow_literal_keys=allow_literal_keys,
    )
    try:
        raise typer.Exit(run(options))
    except RulesRefused as refused:
        typer.echo(str(refused), err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(f"routeproxy: {error}", err=True)
        raise typer.Exit(2) from None


def main() -> None:
    app()
