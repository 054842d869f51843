"""The providers that the older proxies' variables set up, as tables of a rules file, and the preferred one
among them. Keys are only named: they stay in the environment."""

import re
from collections.abc import Collection
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from routeproxy.migrate.environment_variables import EnvironmentVariables, zone_of
from routeproxy.policy.problems import Code, closest, one_of
from routeproxy.policy.provider_types import TYPES

Table = dict[str, Any]

PREFERRED = (
    "openai", "google", "azure", "together", "ollama", "custom", "anthropic", "nvidia", "openrouter", "vertex"
)  # fmt: skip
"""The values that `PREFERRED_PROVIDER` may have. All but `google` are names of providers."""

TYPE_OF = {
    "together": "together_ai",
    "nvidia": "nvidia_nim",
    "vertex": "vertex_ai",
    "custom": "openai_compatible",
}
"""The type of a provider, where it isn't the provider's name."""

SET_UP_BY = {
    "openai": "OPENAI_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "vertex": "VERTEX_PROJECT",
    "azure": "AZURE_OPENAI_ENDPOINT",
    "anthropic": "ANTHROPIC_API_KEY",
    "together": "TOGETHERAI_API_KEY",
    "ollama": "OLLAMA_BASE_URL",
    "nvidia": "NVIDIA_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "custom": "CUSTOM_BASE_URL",
}
"""All providers, and the variable that sets up each."""

KEY_VARIABLES = frozenset(
    variable for name in SET_UP_BY for variable in TYPES[TYPE_OF.get(name, name)].key_variables
)

BASE_URLS = {"openai": "OPENAI_BASE_URL", "nvidia": "NVIDIA_BASE_URL", "openrouter": "OPENROUTER_BASE_URL"}

OWN_BASE_URLS = {"ollama": "OLLAMA_BASE_URL", "custom": "CUSTOM_BASE_URL"}
"""Of the providers that have no public address."""

OPENAI_NAMES = ("gpt-", "o1", "o3", "o4", "chatgpt-")
GEMINI_NAMES = ("gemini-",)

RESPONSES = "azure-responses"
"""Azure once more, for the models that go through the Responses API: `api` belongs to a provider."""


PUBLIC_SERVICES = ("openrouter", "nvidia", "together")
"""Providers that `OPENAI_BASE_URL` may lead to as well, whose models are called `vendor/model`."""

AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
"""Ends of the addresses that Azure gives to resources."""


OTHER_PREFERENCES = {
    "copilot": "write a rules file with a provider of type `github_copilot`",
    "deepseek": "set OPENAI_BASE_URL=https://api.deepseek.com/v1 and OPENAI_API_KEY in its place",
    "gemini": "set PREFERRED_PROVIDER=google",
    "gemini-openai": "set PREFERRED_PROVIDER=google",
    "groq": "set OPENAI_BASE_URL=https://api.groq.com/openai/v1 and OPENAI_API_KEY in its place",
    "openai-compatible": "set PREFERRED_PROVIDER=custom, CUSTOM_BASE_URL and CUSTOM_API_KEY",
}
"""What other forks prefer, and the lines that do the same here."""


class Preference:
    """The preferred provider, and what follows from it. An unknown one counts as OpenAI, beside an error."""

    def __init__(self, variables: EnvironmentVariables) -> None:
        self.through_vertex = variables.flag("USE_VERTEX_AUTH", default=False)
        """Google's models are asked for at Vertex."""
        self.google = "vertex" if self.through_vertex else "gemini"
        self.prefers_google = (variables.get("PREFERRED_PROVIDER") or "").lower() == "google"
        self.service = _service_of(variables)
        """The provider that `OPENAI_BASE_URL` leads to, in place of OpenAI, if it is a known one."""
        stated = self._preferred(variables)
        self.provider = self.service if stated == "openai" and self.service else stated
        own_url = has_own_url(variables, stated)
        self.names_stay = self.provider in {"ollama", "custom"} or (own_url and self.provider != "azure")
        """No model's name leads from this provider to a public one."""
        self.urls_stay = self.names_stay
        """Nor does a target in the URL."""
        if own_url and self.names_stay:
            url = variables.url(BASE_URLS[stated])
            self.urls_stay = url is None or zone_of(url) != "public"
        self.well_known: dict[str, tuple[str, ...]] = {}
        """The beginnings of names that belong to a provider without its prefix."""
        if (self.provider == "openai" or self.prefers_google) and not has_own_url(variables, "openai"):
            self.well_known = {"openai": OPENAI_NAMES, self.google: GEMINI_NAMES}

    @property
    def has_vendors(self) -> bool:
        """Whether models at the preferred provider are called `vendor/model`."""
        return self.provider in {"openrouter", "nvidia", self.service} - {"azure"}

    def _preferred(self, variables: EnvironmentVariables) -> str:
        name = (variables.get("PREFERRED_PROVIDER") or "openai").lower()
        if name not in PREFERRED:
            near = closest(name, PREFERRED)
            variables.error(
                Code.UNDEFINED,
                "PREFERRED_PROVIDER",
                f"PREFERRED_PROVIDER can't be `{name}`" + (f"; did you mean `{near}`?" if near else ""),
                expected=one_of(PREFERRED),
                hint=OTHER_PREFERENCES.get(name.replace("_", "-")),
            )
            return "openai"
        return self.google if name == "google" else name


def has_own_url(variables: EnvironmentVariables, name: str) -> bool:
    """Whether the provider's address is set to something else than its public one."""
    variable = BASE_URLS.get(name)
    if variable is None or variables.get(variable) is None:
        return False
    url = variables.url(variable, query=True)
    return url is None or url.hostname != _public_host(name)


def _public_host(name: str) -> str | None:
    return urlsplit(TYPES[TYPE_OF.get(name, name)].base_url or "").hostname


def _service_of(variables: EnvironmentVariables) -> str | None:
    url = variables.url("OPENAI_BASE_URL", query=True)
    host = (url.hostname or "") if url else ""
    if host.endswith(AZURE_HOSTS):
        return "azure"
    return next((name for name in PUBLIC_SERVICES if host == _public_host(name)), None)


def azure_url(variables: EnvironmentVariables, preference: Preference) -> tuple[str, SplitResult | None]:
    """The variable that has Azure's address, and the address."""
    by_openai = preference.service == "azure" and not variables.get("AZURE_OPENAI_ENDPOINT")
    variable = "OPENAI_BASE_URL" if by_openai else "AZURE_OPENAI_ENDPOINT"
    return variable, variables.url(variable, query=True)


def deployment_of(url: SplitResult) -> str | None:
    """The deployment that an address at Azure names."""
    found = re.search(r"/deployments/([^/]+)", url.path)
    return found[1] if found else None


class ProviderTables:
    """Makes `[providers.NAME]` of the variables. What a provider lacks that is needed is an error."""

    def __init__(
        self, variables: EnvironmentVariables, preference: Preference, models: Collection[tuple[str, str]]
    ) -> None:
        """`models`: those that Claude's names lead to, each after its provider."""
        self._variables = variables
        self._preference = preference
        self._needed = {preference.provider, *(provider for provider, _ in models)}
        self._models = {model for _, model in models}

    def make(self) -> dict[str, Table]:
        """The providers that can be reached, the preferred one first."""
        through_vertex = self._preference.through_vertex
        make_table = {
            "azure": self._azure,
            "custom": self._custom,
            "gemini": self._vertex if through_vertex else self._hosted,
            "ollama": self._ollama,
            "vertex": self._vertex,
        }
        preferred = self._preference.provider
        cap = self._variables.number("MAX_OUTPUT_TOKENS", 0)
        tables: dict[str, Table] = {}
        for name in (preferred, *(name for name in SET_UP_BY if name != preferred)):
            table = make_table.get(name, self._hosted)(name)
            if table is None or (
                self._preference.urls_stay and name != preferred and table.get("zone", "public") == "public"
            ):
                continue
            kind = self._type(name)
            tables[name] = ({} if kind == name else {"type": kind}) | table
            if cap:
                tables[name]["params"] = {"cap": {"max_tokens": cap}}
        if "azure" in tables:
            tables[RESPONSES] = {"type": "azure"} | tables["azure"] | {"api": "responses"}
            tables["azure"]["api"] = "chat"
        return tables

    def _type(self, name: str) -> str:
        return (
            "vertex_ai" if name == "gemini" and self._preference.through_vertex else TYPE_OF.get(name, name)
        )

    def _hosted(self, name: str) -> Table | None:
        """A public API, or an operator's own that speaks likewise."""
        variables = self._variables
        table: Table = {"transforms": {"newlines": "unescape"}} if name == "together" else {}
        by_openai = name == self._preference.service == self._preference.provider
        """It is set up by OpenAI's variables."""
        has_key = any(variables.get(variable) for variable in TYPES[self._type(name)].key_variables)
        if name == "openai" and self._preference.service == "azure":
            return None  # the address and the key are Azure's
        if by_openai:
            table |= self._address("OPENAI_BASE_URL")
            if variables.get("OPENAI_API_KEY") or not has_key:
                table["api_key"] = "env:OPENAI_API_KEY"
        elif has_own_url(variables, name):
            table |= self._address(BASE_URLS[name]) | ({} if has_key else {"api_key": "none"})
        elif not has_key and name not in self._needed:
            return None
        return table

    def _address(self, variable: str) -> Table:
        """`base_url` and `zone`, as far as the variable is an address."""
        url = self._variables.url(variable)
        if url is None:
            return {}
        zone = zone_of(url)
        known = variable == "OPENAI_BASE_URL" and self._preference.service is not None
        if zone != "local" and not known:
            message = f"{variable} is at {url.hostname}, which is taken for {zone}"
            hint = 'in a rules file `zone = "private"` says otherwise' if zone == "public" else None
            self._variables.note(Code.NO_EFFECT, variable, message, hint=hint)
        return {"base_url": url.geturl(), "zone": zone}

    def _vertex(self, name: str) -> Table | None:
        through_vertex = self._preference.through_vertex
        project, location = self._variables.get("VERTEX_PROJECT"), self._variables.get("VERTEX_LOCATION")
        if project and location:
            # google-auth looks at the process's own environment, where a `.env` is not.
            file = self._variables.get("GOOGLE_APPLICATION_CREDENTIALS")
            return {"project": project, "location": location} | ({"credentials": file} if file else {})
        if through_vertex or name in self._needed:
            reason = "USE_VERTEX_AUTH is true" if through_vertex else "Vertex is asked for"
            for variable, example in (("VERTEX_PROJECT", "my-project"), ("VERTEX_LOCATION", "us-central1")):
                hint = f"for example {variable}={example}; both are needed"
                self._variables.require(variable, reason, hint)
        return None

    def _azure(self, name: str) -> Table | None:
        """The endpoint may be a whole deployment's address: resource and version are taken from it."""
        variables = self._variables
        variable, url = azure_url(variables, self._preference)
        by_openai = variable == "OPENAI_BASE_URL"
        if url is None:
            if name in self._needed:
                hint = "for example AZURE_OPENAI_ENDPOINT=https://my-resource.openai.azure.com"
                variables.require("AZURE_OPENAI_ENDPOINT", "Azure is asked for", hint)
            return None
        gateway, openai, path = url.path.partition("/openai")
        # The newer API has its version in the path, and no deployments.
        kept = "/openai/v1" if openai and f"{path}/".startswith("/v1/") else ""
        root = url._replace(path=gateway.rstrip("/") + kept, query="", fragment="")
        stated = "".join(parse_qs(url.query).get("api-version", [])[:1])
        version = variables.get("AZURE_API_VERSION") or stated
        has_key = any(variables.get(variable) for variable in TYPES["azure"].key_variables)
        deployment = deployment_of(url)
        if deployment is not None and name in self._needed and deployment not in self._models:
            message = f"{variable} names the deployment `{deployment}`, and BIG_MODEL and SMALL_MODEL others"
            variables.note(Code.NO_EFFECT, variable, f"{message}: theirs are asked")
        return (
            {"base_url": root.geturl()}
            | ({"api_version": version} if version and not kept else {})
            | ({"api_key": "env:OPENAI_API_KEY"} if by_openai and not has_key else {})
        )

    def _ollama(self, name: str) -> Table | None:
        variables = self._variables
        stated = [name for name in ("OLLAMA_BASE_URL", "OLLAMA_API_BASE") if variables.url(name)]
        if not stated and self._preference.urls_stay and name != self._preference.provider:
            return None
        address = self._address(stated[0]) if stated else {"zone": "local"}
        return address | {"num_ctx": variables.number("OLLAMA_NUM_CTX", 128_000) or 128_000}

    def _custom(self, name: str) -> Table | None:
        if self._variables.url("CUSTOM_BASE_URL") is None:
            if name == self._preference.provider:
                hint = "for example CUSTOM_BASE_URL=https://llm.corp.example/v1"
                self._variables.require("CUSTOM_BASE_URL", "PREFERRED_PROVIDER is `custom`", hint)
            return None
        key = "env:CUSTOM_API_KEY" if self._variables.get("CUSTOM_API_KEY") else "none"
        return {**self._address("CUSTOM_BASE_URL"), "api_key": key}
