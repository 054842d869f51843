"""How a command that reads rules runs: where the rules come from, and what its exit code says."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import typer

from routeproxy.cli.options import chosen_rules
from routeproxy.policy.problems import RulesRefused
from routeproxy.sources import Options, Sources, find_rules


def sources_of(rules: Path | None, *, allow_literal_keys: bool) -> Sources:
    """The sources of a rules file, or of the environment alone, with the variables of this process."""
    return Sources.opened(Options(rules=rules, allow_literal_keys=allow_literal_keys), dict(os.environ))


def chosen_sources(file: Path | None, rules: Path | None, *, allow_literal_keys: bool) -> Sources:
    """The same of the rules that were named, as FILE or by `--rules`, or of those that are here."""
    return sources_of(find_rules(chosen_rules(file, rules)), allow_literal_keys=allow_literal_keys)


def run_and_exit(run: Callable[[], int]) -> NoReturn:
    """Exits with the code that `run` returns; with 1 for rules that have errors, 2 for what can't be read."""
    try:
        code = run()
    except RulesRefused as refused:
        typer.echo(str(refused), err=True)
        code = 1
    except BrokenPipeError:  # a reader such as `head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (OSError, ValueError) as error:
        typer.echo(f"routeproxy: {described_error(error)}", err=True)
        code = 2
    raise typer.Exit(code)


def described_error(error: Exception) -> str:
    """The error in words for a terminal."""
    if isinstance(error, UnicodeDecodeError):
        return f"the file is not UTF-8 at byte {error.start + 1}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
