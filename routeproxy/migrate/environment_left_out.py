"""Variables that have an effect at some older proxy and none here: each is said at start, with the line that
does the same. One that named where requests go is an error: they would go elsewhere without it."""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from routeproxy.migrate.environment_providers import (
    BASE_URLS,
    KEY_VARIABLES,
    OWN_BASE_URLS,
    SET_UP_BY,
    Preference,
)
from routeproxy.migrate.environment_variables import OTHER_NAMES, EnvironmentVariables, zone_of
from routeproxy.policy.problems import Code

_FILE = "in a rules file (`routeproxy init --from-env` writes one)"


class LeftOut(Struct, frozen=True):
    """What does instead of a variable, and whether the variable named where requests go."""

    instead: str
    leads: bool = False


LEFT_OUT: Mapping[str, LeftOut] = {
    "BIG_EFFORT": LeftOut(f"`params = {{ effort = … }}` of a target does {_FILE}"),
    "SMALL_EFFORT": LeftOut(f"`params = {{ effort = … }}` of a target does {_FILE}"),
    "REASONING_EFFORT": LeftOut(f"`params = {{ effort = … }}` of a target does {_FILE}"),
    "CUSTOM_MODELS_FILE": LeftOut(f"each of its models is a provider {_FILE}"),
    "LOGLEVEL": LeftOut("LOG_LEVEL does"),
    "LOG_FILE_MAX_BYTES": LeftOut(
        "LOG_FILE is rotated at midnight, and LOG_FILE_BACKUP_COUNT says how many are kept"
    ),
    "MAX_RETRIES": LeftOut(f"`retry` does {_FILE}"),
    "MIN_TOKENS_LIMIT": LeftOut("`max_tokens` goes out as the client says it"),
    "MODEL": LeftOut("BIG_MODEL does"),
    "REQUEST_TIMEOUT": LeftOut(f"`timeouts` does {_FILE}"),
    "THINKER_MODEL": LeftOut(f"a rule with `match.thinking = true` does {_FILE}"),
    "VERBOSITY": LeftOut(f"`params = {{ extra_body = … }}` of a target does {_FILE}"),
    "BIG_ENDPOINT": LeftOut(f"`base_url` of a provider does {_FILE}", leads=True),
    "BIG_MODEL_BASE_URL": LeftOut(f"`base_url` of a provider does {_FILE}", leads=True),
    "CUSTOM_MODEL": LeftOut("PREFERRED_PROVIDER=custom and BIG_MODEL do", leads=True),
    "GEMINI_BASE_URL": LeftOut(f"`base_url` of a provider does {_FILE}", leads=True),
    "MIDDLE_ENDPOINT": LeftOut(f"`base_url` of a provider does {_FILE}", leads=True),
    "MIDDLE_MODEL_BASE_URL": LeftOut(f"`base_url` of a provider does {_FILE}", leads=True),
    "OPENAI_COMPATIBLE_BASE_URL": LeftOut("PREFERRED_PROVIDER=custom and CUSTOM_BASE_URL do", leads=True),
    "SMALL_ENDPOINT": LeftOut(f"`base_url` of a provider does {_FILE}", leads=True),
    "SMALL_MODEL_BASE_URL": LeftOut(f"`base_url` of a provider does {_FILE}", leads=True),
}

CUSTOM_HEADER = "CUSTOM_HEADER_"

_CLIENT_KEYS = frozenset({"MIDDLE_MODEL", "MAX_TOKENS_LIMIT", "MIN_TOKENS_LIMIT"})
"""Variables of forks for which ANTHROPIC_API_KEY is what clients must show."""

KNOWN = frozenset(
    {
        "ANTHROPIC_AUTH_TOKEN", "AZURE_API_VERSION", "BIG_MODEL", "CUSTOM_API_KEY", "HOST", "LOG_FILE",
        "LOG_FILE_BACKUP_COUNT", "LOG_FILE_PATTERN", "LOG_LEVEL", "MAX_OUTPUT_TOKENS", "MIDDLE_MODEL",
        "NVIDIA_ENABLE_THINKING", "NVIDIA_REASONING_BUDGET", "OLLAMA_API_BASE", "OLLAMA_NUM_CTX",
        "OPUS_MODEL", "PORT", "PREFERRED_PROVIDER", "SMALL_MODEL", "TOGETHER_MODEL", "USE_VERTEX_AUTH",
        "VERTEX_LOCATION",
        *SET_UP_BY.values(), *BASE_URLS.values(), *OWN_BASE_URLS.values(), *KEY_VARIABLES,
        *OTHER_NAMES,
    }
)  # fmt: skip
"""The variables that have an effect."""


def say_what_is_left_out(variables: EnvironmentVariables, preference: Preference) -> None:
    """Adds a note, or an error, for each variable that its author will miss."""
    for name in variables.names():
        if (left_out := LEFT_OUT.get(name)) is not None:
            _say(variables, name, left_out)
        elif name.startswith(CUSTOM_HEADER):
            header = name.removeprefix(CUSTOM_HEADER).replace("_", "-").lower()
            instead = f'`headers = {{ {header} = "env:{name}" }}` of a provider does {_FILE}'
            _say(variables, name, LeftOut(instead))
        elif name not in KNOWN and name.upper() in KNOWN and variables.get(name.upper()) is None:
            message = f"{name} has no effect: variables are written in capitals, {name.upper()}"
            variables.note(Code.NO_EFFECT, name, message)
    for name, message, hint in _misread(variables, preference):
        variables.error(Code.NO_EFFECT, name, message, hint=hint)
    if variables.get("ANTHROPIC_AUTH_TOKEN") is None and not _CLIENT_KEYS.isdisjoint(variables.names()):
        key = variables.get("ANTHROPIC_API_KEY")
        if key is not None and not key.startswith("sk-ant-"):
            message = (
                "ANTHROPIC_API_KEY is a key for Anthropic: what clients must show is ANTHROPIC_AUTH_TOKEN"
            )
            variables.note(Code.NO_EFFECT, "ANTHROPIC_API_KEY", message)


def _say(variables: EnvironmentVariables, name: str, left_out: LeftOut) -> None:
    if left_out.leads:
        message = f"{name} has no effect, and requests would go elsewhere"
        variables.error(Code.NO_EFFECT, name, message, hint=f"take it out: {left_out.instead}")
    else:
        variables.note(Code.NO_EFFECT, name, f"{name} has no effect: {left_out.instead}")


def _misread(variables: EnvironmentVariables, preference: Preference) -> Iterator[tuple[str, str, str]]:
    """Where Anthropic is asked for, and its address is said in the variable of clients."""
    url = variables.url("ANTHROPIC_BASE_URL") if preference.provider == "anthropic" else None
    if url is not None and zone_of(url) != "local" and url.hostname != "api.anthropic.com":
        yield (
            "ANTHROPIC_BASE_URL",
            "ANTHROPIC_BASE_URL is for clients, and requests would go to api.anthropic.com, "
            f"not to {url.hostname}",
            f"take it out: `base_url` of a provider of type `anthropic` does {_FILE}",
        )
