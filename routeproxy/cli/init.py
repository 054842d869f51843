"""`routeproxy init`: a rules file to start from, or one that says what another proxy's configuration said."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, TextIO

import typer

from routeproxy.cli.options import new_app
from routeproxy.migrate.claude_code_router import from_claude_code_router
from routeproxy.migrate.environment import environment_policy, environment_rules, read_environment
from routeproxy.migrate.litellm_config import from_litellm
from routeproxy.migrate.moved import Moved
from routeproxy.migrate.starter import starter
from routeproxy.policy.file.problems import Problem, RulesRefused

Source = Literal["starter", "env", "claude-code-router", "litellm"]

RULES = Path("rules.toml")
STDOUT = Path("-")
USUAL_FILES: Mapping[Source, Path] = {
    "env": Path(".env"),
    "claude-code-router": Path("~/.claude-code-router/config.json"),
    "litellm": Path("config.yaml"),
}
"""Where a source is looked for when nobody names it."""
MOVERS: Mapping[Source, Callable[[str], Moved]] = {
    "claude-code-router": from_claude_code_router,
    "litellm": from_litellm,
}
FROM_VARIABLES = """\
# What the variables of the environment and of `.env` meant, written by `routeproxy init`. Keys stay there.

"""

app = new_app()


@app.command()
def command(
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


def run_init(
    *,
    source: Source,
    file: Path | None,
    output: Path | None,
    force: bool,
    environ: Mapping[str, str],
    out: TextIO,
    err: TextIO,
) -> int:
    """Exit code 0: written; 1: the source has errors; 2: it can't be read, or the rules file must not be
    written."""
    origin = (file or USUAL_FILES.get(source, RULES)).expanduser()
    output = output or RULES
    warnings: tuple[Problem, ...] = ()
    try:
        if file is not None:
            origin.stat()  # a `.env` that nobody named may be missing
        if source == "env":
            moved, warnings = _from_variables(read_environment(environ, origin))
        elif source == "starter":
            moved = Moved(starter())
        else:
            moved = MOVERS[source](origin.read_text(encoding="utf-8"))
        _write(moved.text, output, force, out)
    except RulesRefused as refusal:
        print(refusal, file=err)
        return 1
    except FileExistsError:
        print(f"routeproxy: {output} is there already: --force replaces it, --output names another", file=err)
        return 2
    except OSError as error:
        print(f"routeproxy: {error.filename}: {error.strerror}", file=err)
        return 2
    except UnicodeDecodeError as error:
        print(f"routeproxy: {origin}: not UTF-8 at byte {error.start + 1}", file=err)
        return 2
    except ValueError as error:
        print(f"routeproxy: {origin}: {error}", file=err)
        return 1
    if summary := "\n\n".join(_summary(moved, warnings, origin, output)):
        print(summary, file=err)
    return 0


def _from_variables(variables: Mapping[str, str]) -> tuple[Moved, tuple[Problem, ...]]:
    """The rules that the variables mean, and the warnings about the variables themselves: they are those that
    point at no line of the rules."""
    policy = environment_policy(variables)
    warnings = tuple(problem for problem in policy.warnings if problem.location is None)
    return Moved(FROM_VARIABLES + environment_rules(variables)), warnings


def _write(text: str, output: Path, force: bool, out: TextIO) -> None:
    if output == STDOUT:
        out.write(text)
        return
    with output.open("w" if force else "x", encoding="utf-8") as rules:
        rules.write(text)


def _summary(moved: Moved, odd: tuple[Problem, ...], origin: Path, output: Path) -> Iterator[str]:
    if output != STDOUT:
        yield f"wrote {output}"
    yield from map(str, odd)
    if moved.left:
        left = [f"{origin}:{left.line}: {left.key}: {left.why}" for left in moved.left]
        yield "\n".join(["What it does not say, and what to do about it:", *left])
    if output != STDOUT:
        yield f"next: routeproxy check {output}"
