"""The command line: one file a command; arguments in, exit code out."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

import routeproxy

Level = Literal["CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"]

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
    typer.Option(
        "--rules",
        metavar="FILE",
        help="The rules file. Left out: ./rules.toml if there is one, else the environment and .env.",
        show_default=False,
    ),
]
LiteralKeysOption = Annotated[
    bool,
    typer.Option("--allow-literal-keys", help="Accept keys that are written into the rules file itself."),
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


@app.command(short_help="Serve. An edit of the rules is live within a second.")
def serve(
    rules: RulesOption = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="The address to listen on. [default: the rules file's, HOST, 127.0.0.1]"
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="NUMBER",
            help="The port; 0 picks a free one. [default: the rules file's, PORT, 8082]",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, metavar="NUMBER", help="How many processes share the port.")
    ] = 1,
    log_level: Annotated[
        Level | None,
        typer.Option(case_sensitive=False, help="What the log tells. [default: LOG_LEVEL, INFO]"),
    ] = None,
    process_newlines: Annotated[
        bool,
        typer.Option(
            "--process-newlines", help="Without a rules file: write line breaks of answers as a literal \\n."
        ),
    ] = False,
    preserve_openai_newlines: Annotated[
        bool,
        typer.Option(
            "--preserve-openai-newlines", help="Without a rules file: leave OpenAI's answers out of that."
        ),
    ] = False,
    allow_literal_keys: LiteralKeysOption = False,
    reload: Annotated[
        bool, typer.Option("--reload", hidden=True, help="Older proxies had it; rules always reload.")
    ] = False,
) -> None:
    """Serve. An edit of the rules file is live within a second."""
    # SIGHUP means reload, and waits until that is possible; by default it would be the end of a server that
    # is starting.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from routeproxy.policy.problems import RulesRefused
    from routeproxy.serve import serve as run
    from routeproxy.sources import Options

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
        code = run(options)
    except RulesRefused as refused:
        typer.echo(str(refused), err=True)
        code = 1
    except (OSError, ValueError) as error:
        typer.echo(f"routeproxy: {_words(error)}", err=True)
        code = 2
    raise typer.Exit(code)


@app.command(short_help="Say whether a rules file is fit to be served.")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The rules file.", show_default=False)],
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    format: Annotated[Literal["text", "json"], typer.Option(help="For people, or for programs.")] = "text",
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Say whether the server would take this rules file, and what is wrong with it.

    Exit code 0: it would; 1: it has problems; 2: it cannot be read. Nothing is started, nobody contacted.
    """
    from routeproxy.cli.check import run_check
    from routeproxy.sources import Options, Sources

    environ = Sources(Options(rules=file), dict(os.environ)).variables()
    code = run_check(
        file,
        environ=environ,
        strict=strict,
        format=format,
        allow_literal_keys=allow_literal_keys,
        out=sys.stdout,
        err=sys.stderr,
    )
    raise typer.Exit(code)


@app.command(short_help="Say where a request would go, and why.")
def explain(
    model: Annotated[
        str, typer.Option(metavar="NAME", help="The model that the request asks for.", show_default=False)
    ],
    rules: RulesOption = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME: VALUE'",
            help="A header of the request, as curl takes it; may be repeated.",
            show_default=False,
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="How many input tokens the request has.")
    ] = 0,
    max_tokens: Annotated[
        int | None, typer.Option(min=0, metavar="NUMBER", help="Its max_tokens.", show_default=False)
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A tool that it brings; may be repeated.", show_default=False),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Its system text.", show_default=False)
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="ID", help="Its metadata.user_id.", show_default=False)
    ] = None,
    effort: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="Its output_config.effort.", show_default=False)
    ] = None,
    url_target: Annotated[
        str | None,
        typer.Option(metavar="PROVIDER/MODEL", help="The target that its URL names.", show_default=False),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="It wants a stream.")] = False,
    images: Annotated[bool, typer.Option("--images", help="It has images.")] = False,
    documents: Annotated[bool, typer.Option("--documents", help="It has documents.")] = False,
    thinking: Annotated[bool, typer.Option("--thinking", help="It asks for thinking.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Say which rule takes a request like this one, where it goes, and why no rule above took it."""
    from routeproxy.cli.explain import run_explain
    from routeproxy.policy.explain import Question
    from routeproxy.sources import Options, Sources, find_rules

    options = Options(rules=find_rules(rules), allow_literal_keys=allow_literal_keys)
    question = Question(
        model=model,
        input_tokens=tokens,
        max_tokens=max_tokens,
        tools=tuple(tool or ()),
        system=system,
        user=user,
        effort=effort,
        url_target=url_target,
        stream=stream,
        images=images,
        documents=documents,
        thinking=thinking,
    )
    code = run_explain(
        Sources(options, dict(os.environ)).load,
        question,
        headers=header or (),
        json=json,
        out=sys.stdout,
        err=sys.stderr,
    )
    raise typer.Exit(code)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def main() -> None:
    app()
