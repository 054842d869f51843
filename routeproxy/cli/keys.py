"""`routeproxy keys new TEAM`: a key for a client, shown once, and the line that lets it in."""

import datetime
import json
import re
import secrets
from typing import TextIO

from routeproxy.policy.secrets import digest_of

BYTES = 32
"""Of randomness: nobody needs to stretch what nobody can guess, so a plain hash will do."""


def run_new(
    team: str, *, name: str | None = None, expires: str | None = None, out: TextIO, err: TextIO
) -> int:
    """0: made. 2: the date is none. Nothing is written anywhere."""
    try:
        day = datetime.date.fromisoformat(expires) if expires is not None else None
    except ValueError:
        print(f"routeproxy: `{expires}` is not a date: write 2027-06-30", file=err)
        return 2
    # Its beginning tells whoever finds it where it belongs; scanners for leaked keys go by such words.
    key = f"rp_{re.sub('[^A-Za-z0-9]', '', team)[:20]}_{secrets.token_urlsafe(BYTES)}"
    print(f"{key}\n", file=out)
    print("# Shown this once: the client sets it as ANTHROPIC_AUTH_TOKEN or as its API key.", file=out)
    print("# For the rules file, where nobody can read the key from it:", file=out)
    print(f"[teams.{_key(team)}]\nkeys = [{_entry(digest_of(key), name, day)}]", file=out)
    return 0


def _entry(digest: str, name: str | None, day: datetime.date | None) -> str:
    hashed = f'"sha256:{digest}"'
    if name is None and day is None:
        return hashed
    parts = [f"name = {json.dumps(name)}"] if name is not None else []
    parts.append(f"key = {hashed}")
    parts += [f"expires = {day}"] if day is not None else []
    return f"{{ {', '.join(parts)} }}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
