"""`routeproxy keys new TEAM`: a key for a client, printed once, and the line that lets it in.

Nothing is stored: who loses the key makes another.
"""

import datetime
import json
import re
import secrets
import sys
from typing import Annotated, TextIO

import typer

from routeproxy.cli.completions import team_names
from routeproxy.cli.options import new_app
from routeproxy.policy.secrets import digest_of

RANDOM_BYTES = 32
"""Nobody needs to stretch what nobody can guess, so a plain hash of the key will do."""

app = new_app(no_args_is_help=True)


@app.callback()
def _keys() -> None:
    """Keys of clients."""


@app.command(short_help="Make a key for a team, and the line that lets it in.")
def new(
    team: Annotated[
        str,
        typer.Argument(
            metavar="TEAM", help="The team's name.", show_default=False, autocompletion=team_names
        ),
    ],
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
    raise typer.Exit(run_new(team, name=name, expires=expires, out=sys.stdout, err=sys.stderr))


def run_new(
    team: str, *, name: str | None = None, expires: str | None = None, out: TextIO, err: TextIO
) -> int:
    """Exit code 0: the key was printed; 2: `expires` is not a date in ISO form."""
    try:
        day = datetime.date.fromisoformat(expires) if expires is not None else None
    except ValueError:
        print(f"routeproxy: `{expires}` is not a date: write 2027-06-30", file=err)
        return 2
    # The beginning tells whoever finds the key where it belongs; scanners for leaked keys go by such words.
    key = f"rp_{re.sub('[^A-Za-z0-9]', '', team)[:20]}_{secrets.token_urlsafe(RANDOM_BYTES)}"
    print(f"{key}\n", file=out)
    print("# Shown this once: the client sets it as ANTHROPIC_AUTH_TOKEN or as its API key.", file=out)
    print("# For the rules file, where nobody can read the key from it:", file=out)
    print(f"[teams.{_toml_key(team)}]\nkeys = [{_entry(digest_of(key), name, day)}]", file=out)
    return 0


def _entry(digest: str, name: str | None, day: datetime.date | None) -> str:
    hashed = f'"sha256:{digest}"'
    if name is None and day is None:
        return hashed
    parts = [f"name = {json.dumps(name)}"] if name is not None else []
    parts.append(f"key = {hashed}")
    parts += [f"expires = {day}"] if day is not None else []
    return f"{{ {', '.join(parts)} }}"


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
