"""The variables that point Claude Code, and other Anthropic clients, at a server."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from routeproxy.policy.decide import Policy

NO_KEY = "anything"
"""What a client shows where no key is needed: without any it would ask its user to sign in."""
SOME_KEY = "YOUR_KEY"
"""Stands for the key of whoever reads it."""


def client_variables(url: str, key: str, *, keeps_login: bool = False) -> dict[str, str]:
    """The variables of a client of the server at `url`, to which it shows `key`; empty for none.

    `keeps_login`: the client's own credentials go on to a provider (`api_key = "client"`), so the key takes
    the other header.
    """
    variables = {"ANTHROPIC_BASE_URL": url}
    if key and keeps_login:
        variables["ANTHROPIC_CUSTOM_HEADERS"] = f"x-api-key: {key}"
    elif key:
        variables["ANTHROPIC_AUTH_TOKEN"] = key
    return variables


def passes_logins_on(policy: Policy) -> bool:
    """Whether some provider is handed the client's own credentials."""
    return any(provider.client_key for provider in policy.providers.values())


def in_shell(variables: Mapping[str, str]) -> str:
    """The variables as they are written before a command."""
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())


# --- what would lead past the server

OTHER_ROUTES = frozenset(
    f"CLAUDE_CODE_USE_{name}"
    for name in (
        "ANTHROPIC_AWS",
        "ANTHROPIC_GOOGLE_CLOUD",
        "BEDROCK",
        "FOUNDRY",
        "GATEWAY",
        "MANTLE",
        "VERTEX",
    )
)
"""The variables by which Claude Code goes somewhere else, whatever `ANTHROPIC_BASE_URL` says."""
FALSE = frozenset({"", "0", "false", "no", "off"})
MANAGED_SETTINGS = (
    "/etc/claude-code/managed-settings.json",
    "/Library/Application Support/ClaudeCode/managed-settings.json",
)


def other_route_variables(environ: Mapping[str, str]) -> list[str]:
    """The names of the variables that lead past `ANTHROPIC_BASE_URL`."""
    return sorted(name for name in OTHER_ROUTES if environ.get(name, "").lower() not in FALSE)


class Setting(Struct, frozen=True):
    """A variable in a settings file of Claude Code's, which wins over the environment."""

    file: Path
    name: str
    managed: bool
    """Whether it wins over `--settings`, too."""


def overriding_settings(
    variables: Mapping[str, str], environ: Mapping[str, str], folder: Path
) -> list[Setting]:
    """What the settings that count in `folder` say otherwise than `variables`."""
    home = Path(environ.get("CLAUDE_CONFIG_DIR") or "~/.claude").expanduser()
    project = folder / ".claude"
    files = [home / "settings.json", project / "settings.json", project / "settings.local.json"]
    found = []
    for file in dict.fromkeys([*files, *map(Path, MANAGED_SETTINGS)]):
        stated = _environment_in(file)
        names = [name for name, value in variables.items() if stated.get(name, value) != value]
        names += other_route_variables(stated)
        found += [Setting(file, name, str(file) in MANAGED_SETTINGS) for name in names]
    return found


def _environment_in(file: Path) -> dict[str, str]:
    """`env` of a settings file; empty if there is none that can be read, as for Claude Code."""
    try:
        stated = json.loads(file.read_text(encoding="utf-8-sig")).get("env", {})
        return {str(name): str(value) for name, value in stated.items()}
    except (OSError, ValueError, AttributeError):
        return {}
