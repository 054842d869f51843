"""The models that the older proxies' variables name: which of Claude's names lead to each, and which provider
it belongs to, by its name."""

from routeproxy.migrate.environment_providers import GEMINI_NAMES, Preference
from routeproxy.migrate.environment_variables import EnvironmentVariables, is_placeholder
from routeproxy.policy.problems import Code

PREFIXES = {
    "openai/": "openai",
    "gemini/": "gemini",
    "vertex_ai/": "vertex",
    "azure/": "azure",
    "anthropic/": "anthropic",
    "together_ai/": "together",
    "ollama_chat/": "ollama",
    "ollama/": "ollama",
    "nvidia_nim/": "nvidia",
    "openrouter/": "openrouter",
}
"""The provider that a name belongs to by its prefix. Vendors such as `nvidia/` and `meta/` are no prefixes:
they are part of the model's name."""

TOGETHER_MODEL = "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8"
BIG_AND_SMALL = {
    "openai": ("gpt-4.1", "gpt-4.1-mini"),
    "azure": ("gpt-4.1", "gpt-4.1-mini"),
    "gemini": ("gemini-2.5-pro", "gemini-2.5-flash"),
    "vertex": ("gemini-2.5-pro", "gemini-2.5-flash"),
}
"""By the preferred provider, the models where no variable names any."""

BETWEEN = {"opus": ("opus", "OPUS_MODEL"), "middle": ("sonnet", "MIDDLE_MODEL")}
"""Models between big and small, which some forks have: the part of Claude's names that leads to each, and its
variable. Unset, the big one stands for it."""

Model = tuple[str, str]
"""A provider, and the model's name there."""


def choose_models(
    variables: EnvironmentVariables, preference: Preference, deployment: str | None = None
) -> dict[str, Model]:
    """The models `big` and `small`, and those of `BETWEEN` that are set. None at all for Anthropic, which
    answers to Claude's names itself. `deployment`: the one that Azure's address names."""
    provider = preference.provider
    if provider == "anthropic":
        return {}
    together = variables.get("TOGETHER_MODEL") or TOGETHER_MODEL
    usual_big, usual_small = {**BIG_AND_SMALL, "together": (together, together)}.get(provider, (None, None))
    big, small = variables.get("BIG_MODEL"), variables.get("SMALL_MODEL")
    elsewhere = preference.names_stay or provider == preference.service
    if deployment is not None and not (big or small):
        big = small = deployment
    if elsewhere and (big or small):
        usual_big = usual_small = None  # what OpenAI calls its own
    elif elsewhere and usual_big:
        message = f"neither BIG_MODEL nor SMALL_MODEL is set: `{usual_big}` and `{usual_small}` are asked for"
        variables.note(Code.UNSET_VARIABLE, "BIG_MODEL", message)
    if not (big or small or usual_big):
        reason = f"PREFERRED_PROVIDER is `{provider}`, which has no default model"
        variables.require("BIG_MODEL", reason, "set BIG_MODEL and SMALL_MODEL, or one of them for both")
        return {}
    # One stands in for the other only where there is no default.
    candidates = {
        "big": [("BIG_MODEL", big), ("BIG_MODEL", usual_big), ("SMALL_MODEL", small)],
        "small": [("SMALL_MODEL", small), ("SMALL_MODEL", usual_small), ("BIG_MODEL", big)],
    }
    for size, (_, variable) in BETWEEN.items():
        if name := variables.get(variable):
            candidates[size] = [(variable, name)]
    owners = _Owners(variables, preference)
    return {
        size: next(owners.model(variable, name) for variable, name in named if name)
        for size, named in candidates.items()
    }


class _Owners:
    """Finds the provider that a model belongs to."""

    def __init__(self, variables: EnvironmentVariables, preference: Preference) -> None:
        self._variables = variables
        self._preference = preference

    def model(self, variable: str, name: str) -> Model:
        """The provider of the model that `variable` names, and its name without that provider's prefix."""
        preferred = self._preference.provider
        head, slash, rest = name.partition("/")
        owner = PREFIXES.get(head.lower() + slash)
        if not name.isprintable() or " " in name or name.endswith("/"):
            self._variables.wrong_value(variable, name, "a model's name")
        if name.lower() == "passthrough":
            hint = "PREFERRED_PROVIDER=anthropic sends all of Claude's names to Anthropic"
            self._variables.wrong_value(variable, name, "a model's name", hint=hint)
        if is_placeholder(name):
            message = f"{variable} is `{name}`, the placeholder of an example: no such model will be found"
            self._variables.note(Code.WRONG_VALUE, variable, message)
        if owner == preferred == "openai" and self._preference.names_stay:
            return preferred, name  # such as `openai/gpt-oss-120b`, by the name that its maker gave it
        if preferred == self._preference.service == "azure" and owner == "openai":
            return preferred, rest
        if head.lower() == "custom" == preferred or owner == preferred:
            return preferred, rest
        if owner is None or self._is_vendors(name, owner):
            return self._owner_of_bare_name(variable, name), name
        if not self._preference.names_stay:
            return owner, rest
        if preferred == "custom" and owner == "openai":
            message = f"{variable} is `{name}`: it goes to CUSTOM_BASE_URL as `{rest}`, not to OpenAI"
            self._variables.note(Code.NO_EFFECT, variable, message)
            return "custom", rest
        message = f"{variable} is `{name}`, but nothing leads from `{preferred}` to another provider"
        self._variables.error(Code.CONTRADICTION, variable, message, hint=f"leave out `{head}/`")
        return preferred, rest

    def _is_vendors(self, name: str, owner: str) -> bool:
        """Whether the head of `name` is that of a vendor, whose models the preferred provider serves."""
        if self._preference.has_vendors:
            return True
        return self._preference.names_stay and self._preference.provider == "openai" and owner == "anthropic"

    def _owner_of_bare_name(self, variable: str, name: str) -> str:
        if self._preference.prefers_google and not name.lower().startswith(GEMINI_NAMES):
            message = f"{variable} is `{name}`, which is not a Gemini model: it goes to OpenAI"
            self._variables.note(Code.NO_EFFECT, variable, message)
            return "openai"
        for owner, prefixes in self._preference.well_known.items():
            if name.lower().startswith(prefixes):
                return owner
        return self._preference.provider
