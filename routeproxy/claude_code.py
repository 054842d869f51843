"""The variables that point Claude Code, and other Anthropic clients, at a server."""

import shlex
from collections.abc import Mapping

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
