"""`routeproxy init`: a rules file to start from, or one that says what another proxy's configuration said."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, TextIO

from routeproxy.migrate.claude_code_router import from_claude_code_router
from routeproxy.migrate.environment import environment_policy, environment_rules, read_environment
from routeproxy.migrate.litellm_config import from_litellm
from routeproxy.migrate.moved import Moved
from routeproxy.migrate.starter import starter
from routeproxy.policy.file.problems import Problem, RulesRefused

Source = Literal["starter", "env", "claude-code-router", "litellm"]

RULES = Path("rules.toml")
STDOUT = Path("-")
USUAL: Mapping[Source, Path] = {
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
    """0: written. 1: the source has errors. 2: it can't be read, or the rules file must not be written."""
    origin = (file or USUAL.get(source, RULES)).expanduser()
    output = output or RULES
    odd: tuple[Problem, ...] = ()
    try:
        if file is not None:
            origin.stat()  # a `.env` that nobody named may be missing
        if source == "env":
            moved, odd = _from_variables(read_environment(environ, origin))
        elif source == "starter":
            moved = Moved(starter())
        else:
            moved = MOVERS[source](origin.read_text(encoding="utf-8"))
        _write(moved.text, output, force, out)
    except RulesRefused as refused:
        print(refused, file=err)
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
    if summary := "\n\n".join(_summary(moved, odd, origin, output)):
        print(summary, file=err)
    return 0


def _from_variables(variables: Mapping[str, str]) -> tuple[Moved, tuple[Problem, ...]]:
    """Also what is odd about them: a warning without a line of the rules file."""
    policy = environment_policy(variables)
    odd = tuple(problem for problem in policy.warnings if problem.location is None)
    return Moved(FROM_VARIABLES + environment_rules(variables)), odd


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
    if moved.leftovers:
        left = [f"{origin}:{left.line}: {left.key}: {left.reason}" for left in moved.leftovers]
        yield "\n".join(["What it does not say, and what to do about it:", *left])
    if output != STDOUT:
        yield f"next: routeproxy check {output}"
