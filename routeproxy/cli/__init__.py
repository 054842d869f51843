"""The command line: one file a command; arguments in, exit code out."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

import routeproxy
from routeproxy.cli.fact_options import stated_facts, with_fact_options

if TYPE_CHECKING:  # each command imports what it needs, so that none waits for the others
    from routeproxy.sources import Sources

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
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The rules file.", show_default=False)]
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
    reload: Annotated[
        bool, typer.Option("--reload", hidden=True, help="Older proxies had it; rules always reload.")
    ] = False,
) -> None:
    """Serve. An edit of the rules file is live within a second."""
    # SIGHUP means reload, and waits until that is possible; by default it would be the end of a server that
    # is starting.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
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
        insecure=insecure,
        skip_tests=skip_tests,
        last_good=last_good,
    )
    _end(lambda: run(options))


@app.command(short_help="Say whether a rules file is fit to be served.")
def check(
    file: FileArgument,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    format: Annotated[
        Literal["text", "json", "sarif", "github"],
        typer.Option(help="For people, for programs, for code scanning, for annotations in GitHub Actions."),
    ] = "text",
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Say whether the server would take this rules file, and what is wrong with it.

    Its invariants are proved and its tests run. Exit code 0: it would; 1: it has problems; 2: it cannot be
    read. Nothing is started, nobody contacted.
    """
    from routeproxy.cli.check import run_check

    sources = _sources(file, allow_literal_keys=allow_literal_keys)
    _end(lambda: run_check(sources, strict=strict, format=format, out=sys.stdout))


@app.command("test", short_help="Run the tests that stand in a rules file.")
def run_tests(
    file: FileArgument,
    coverage: Annotated[bool, typer.Option("--coverage", help="Say which rules no test reaches.")] = False,
    min_coverage: Annotated[
        int,
        typer.Option(min=0, max=100, metavar="PERCENT", help="Fail if fewer of the rules are reached."),
    ] = 0,
    junit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the results as JUnit XML too.", show_default=False),
    ] = None,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Run the tests that stand in a rules file, and say why one fails.

    Exit code 0: all pass; 1: some don't, or the rules have errors; 2: the file cannot be read.
    """
    from routeproxy.cli.test import run_test

    load = _sources(file, allow_literal_keys=allow_literal_keys).unproved
    _end(
        lambda: run_test(
            load, coverage=coverage, min_coverage=min_coverage, junit=junit, out=sys.stdout, err=sys.stderr
        )
    )


@app.command(short_help="Prove the invariants of a rules file.")
def prove(
    file: FileArgument,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Prove the invariants of a rules file over all requests, or say which request breaks one.

    Exit code 0: all are proved; 1: some are not; 2: the file cannot be read.
    """
    from routeproxy.cli.prove import run_prove

    load = _sources(file, allow_literal_keys=allow_literal_keys).unproved
    _end(lambda: run_prove(load, json=json, out=sys.stdout))


@app.command(short_help="Say where a request would go, and why.")
@with_fact_options
def explain(
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model that the request asks for.", show_default=False),
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A real request, as JSON; instead of --model.", show_default=False),
    ] = None,
    decision: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="A request from the decision log; instead of --model.", show_default=False
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The decision log. [default: the rules file's]", show_default=False
        ),
    ] = None,
    rules: RulesOption = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    allow_literal_keys: LiteralKeysOption = False,
    **options: Any,
) -> None:
    """Say which rule takes a request, where it goes, and why no rule above took it.

    The request is given by flags, by a file (--request), or by the id of a logged decision (--decision).
    """
    from routeproxy.cli.explain import run_explain
    from routeproxy.cli.logged import logged_question
    from routeproxy.policy.decide import Policy
    from routeproxy.policy.questions import HypotheticalRequest
    from routeproxy.sources import find_rules

    def question(policy: Policy) -> HypotheticalRequest:
        given = sum(one is not None for one in (model, request, decision))
        if given > 1 or (given == 0 and options["url_target"] is None):
            raise ValueError("say which request: one of --model, --request and --decision")
        if decision is not None:
            return logged_question(policy, decision, log)
        return HypotheticalRequest(
            model=model or "",
            body=request.read_bytes() if request is not None else None,
            **stated_facts(options),
        )

    load = _sources(find_rules(rules), allow_literal_keys=allow_literal_keys).unproved
    whole = decision is not None
    _end(lambda: run_explain(load, question, whole=whole, json=json, out=sys.stdout))


@app.command(short_help="Say what changes from one rules file to another.")
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The rules as they are.", show_default=False)],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The rules to be.", show_default=False)],
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A decision log: its requests are decided by both, and shown where they differ.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Say what changes for whom from one rules file to another, and which tests and logged requests come out
    otherwise.

    Exit code 0: nothing; 1: something, or one has errors; 2: a file cannot be read.
    """
    from routeproxy.cli.diff import run_diff

    before, after = (_sources(file, allow_literal_keys=allow_literal_keys).unproved for file in (old, new))
    _end(lambda: run_diff(before, after, log=log, json=json, out=sys.stdout))


keys = typer.Typer(help="Keys of clients.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@keys.callback()
def _keys() -> None:
    """Keys of clients."""


@keys.command(short_help="Make a key for a team, and the line that lets it in.")
def new(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="The team's name.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What to call the key, if there are several.", show_default=False),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="The last day on which it works, in UTC.", show_default=False),
    ] = None,
) -> None:
    """Make a key for a team: print it once, and the hashed line for the rules file. Nothing is stored."""
    from routeproxy.cli.keys import run_new

    raise typer.Exit(run_new(team, name=name, expires=expires, out=sys.stdout, err=sys.stderr))


@app.command(short_help="Print the JSON Schema of rules files, for editors.")
def schema(
    layer: Annotated[bool, typer.Option("--layer", help="That of included files instead.")] = False,
) -> None:
    """Print the JSON Schema of a rules file: editors complete and check by it."""
    from routeproxy.cli.schema import run_schema

    raise typer.Exit(run_schema(layer=layer, out=sys.stdout))


@app.command(short_help="Estimate the input tokens of requests.")
def count(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="Requests as JSON; none, or `-`: the standard input.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate the input tokens of requests, as rules see them.

    Exit code 0, or 2 if a file holds no request.
    """
    from routeproxy.cli.count import run_count

    code = run_count(files or (), json=json, out=sys.stdout, err=sys.stderr, stdin=sys.stdin.buffer)
    raise typer.Exit(code)


@app.command(short_help="Write a rules file to start from, or from what you have.")
def init(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="What to move from. [default: .env, ~/.claude-code-router/config.json, ./config.yaml]",
            show_default=False,
        ),
    ] = None,
    from_env: Annotated[
        bool, typer.Option("--from-env", help="From the variables of older proxies and a `.env`.")
    ] = False,
    source: Annotated[
        Literal["claude-code-router", "litellm"] | None,
        typer.Option("--from", help="From the configuration of another gateway.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write; `-`: here. [default: rules.toml]",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a rules file: a commented one to start from, or the same policy as you have elsewhere, and a list
    of what had no equivalent.

    Exit code 0: written; 1: the source has errors; 2: it cannot be read, or a file is in the way.
    """
    from routeproxy.cli.init import run_init

    if from_env and source is not None:
        raise typer.BadParameter("--from-env and --from exclude each other")
    if file is not None and not from_env and source is None:
        raise typer.BadParameter(
            f"say what {file} is: --from-env, --from claude-code-router or --from litellm"
        )
    code = run_init(
        source=source or ("env" if from_env else "starter"),
        file=file,
        output=output,
        force=force,
        environ=dict(os.environ),
        out=sys.stdout,
        err=sys.stderr,
    )
    raise typer.Exit(code)


def _sources(rules: Path | None, *, allow_literal_keys: bool) -> "Sources":
    from routeproxy.sources import Options, Sources

    return Sources(Options(rules=rules, allow_literal_keys=allow_literal_keys), dict(os.environ))


def _end(run: Callable[[], int]) -> NoReturn:
    """Leaves with the exit code that `run` gives; 1 for rules with errors, 2 for what can't be read."""
    from routeproxy.policy.problems import RulesRefused

    try:
        code = run()
    except RulesRefused as refused:
        typer.echo(str(refused), err=True)
        code = 1
    except BrokenPipeError:  # whoever read it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (OSError, ValueError) as error:
        typer.echo(f"routeproxy: {_words(error)}", err=True)
        code = 2
    raise typer.Exit(code)


def _words(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"the file is not UTF-8 at byte {error.start + 1}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def main() -> None:
    app()
