"""`routeproxy serve`: the options of the server. What it does with them stands in `routeproxy.serve`."""

import signal
from pathlib import Path
from typing import Annotated, Literal

import typer

from routeproxy.cli.options import LiteralKeysOption, RulesArgument, RulesOption, chosen_rules, new_app

Level = Literal["CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"]
Form = Literal["text", "json"]

app = new_app()


@app.command()
def command(
    file: RulesArgument = None,
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
    log_format: Annotated[
        Form | None,
        typer.Option(
            case_sensitive=False, help="Lines for people, or JSON for machines. [default: LOG_FORMAT, text]"
        ),
    ] = None,
    process_newlines: Annotated[
        bool,
        typer.Option(
            "--process-newlines",
            help="Older proxies had it. Line breaks come right by default, so it changes nothing.",
        ),
    ] = False,
    preserve_openai_newlines: Annotated[
        bool,
        typer.Option("--preserve-openai-newlines", help="Older proxies had it; it changes nothing either."),
    ] = False,
    allow_literal_keys: LiteralKeysOption = False,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen to the network although nobody needs a key."),
    ] = False,
    skip_tests: Annotated[
        bool, typer.Option("--skip-tests", help="Take rules whose own tests fail.")
    ] = False,
    last_good: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the versions that were in force here: the last outlives a restart with a broken file.",
            show_default=False,
        ),
    ] = None,
    session_of: Annotated[int | None, typer.Option("--session-of", hidden=True)] = None,
    reload: Annotated[
        bool, typer.Option("--reload", hidden=True, help="Older proxies had it; rules always reload.")
    ] = False,
) -> None:
    """Serve. An edit of the rules file is live within a second."""
    # SIGHUP means reload, and waits until that is possible; by default it would be the end of a server that
    # is starting. The imports that follow take half of the start.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from routeproxy.cli.running import run_and_exit
    from routeproxy.serve import serve
    from routeproxy.sources import Options

    options = Options(
        rules=chosen_rules(file, rules),
        host=host,
        port=port,
        workers=workers,
        log_level=log_level,
        log_format=log_format,
        process_newlines=process_newlines,
        preserve_openai_newlines=preserve_openai_newlines,
        allow_literal_keys=allow_literal_keys,
        insecure=insecure,
        skip_tests=skip_tests,
        last_good=last_good,
        session_of=session_of,
    )
    run_and_exit(lambda: serve(options))
