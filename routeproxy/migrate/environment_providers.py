"""The providers that the older proxies' variables set up, as tables of a rules file, and the preferred one
among them. Keys are only named: they stay in the environment."""

from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qs, urlsplit

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

BASE_URLS = {"openai": "OPENAI_BASE_URL", "nvidia": "NVIDIA_BASE_URL", "openrouter": "OPENROUTER_BASE_URL"}

OPENAI_NAMES = ("gpt-", "o1", "o3", "o4", "chatgpt-")
GEMINI_NAMES = ("gemini-",)

RESPONSES = "azure-responses"
"""Azure once more, for the models that go through the Responses API: `api` belongs to a provider."""


class Preference:
    """The preferred provider, and what follows from it. An unknown one counts as OpenAI, beside an error."""

    def __init__(self, variables: EnvironmentVariables) -> None:
        self.through_vertex = variables.flag("USE_VERTEX_AUTH", default=False)
        """Google's models are asked for at Vertex."""
        self.google = "vertex" if self.through_vertex else "gemini"
        self.prefers_google = (variables.get("PREFERRED_PROVIDER") or "").lower() == "google"
        self.provider = self._preferred(variables)
        self.closed = self.provider in {"ollama", "custom"} or has_own_url(variables, self.provider)
        """No model's name leads from this provider to a public one."""
        self.well_known: dict[str, tuple[str, ...]] = {}
        """The beginnings of names that belong to a provider without its prefix."""
        if (self.provider == "openai" or self.prefers_google) and not has_own_url(variables, "openai"):
            self.well_known = {"openai": OPENAI_NAMES, self.google: GEMINI_NAMES}

    def _preferred(self, variables: EnvironmentVariables) -> str:
        name = (variables.get("PREFERRED_PROVIDER") or "openai").lower()
        if name not in PREFERRED:
            near = closest(name, PREFERRED)
            variables.error(
                Code.UNDEFINED,
                "PREFERRED_PROVIDER",
                f"PREFERRED_PROVIDER can't be `{name}`" + (f"; did you mean `{near}`?" if near else ""),
                expected=one_of(PREFERRED),
            )
            return "openai"
        return self.google if name == "google" else name


def has_own_url(variables: EnvironmentVariables, name: str) -> bool:
    """Whether the provider's address is set to something else than its public one."""
    variable = BASE_URLS.get(name)
    if variable is None or variables.get(variable) is None:
        return False
    url, public = variables.url(variable), TYPES[TYPE_OF.get(name, name)].base_url or ""
    return url is None or url.hostname != urlsplit(public).hostname


class ProviderTables:
    """Makes `[providers.NAME]` of the variables. A provider in `needed` that lacks something is an error."""

    def __init__(
        self, variables: EnvironmentVariables, preference: Preference, needed: Collection[str]
    ) -> None:
        self._variables = variables
        self._preference = preference
        self._needed = needed

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
            if table is None or (self._preference.closed and name != preferred and "zone" not in table):
                continue  # without a zone it is public
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
        has_key = any(variables.get(variable) for variable in TYPES[self._type(name)].key_variables)
        if has_own_url(variables, name) and (url := variables.url(BASE_URLS[name])):
            table |= {"base_url": url.geturl(), "zone": zone_of(url)} | (
                {} if has_key else {"api_key": "none"}
            )
        elif not has_key and name not in self._needed:
            return None
        if (
            name == "together"
            and variables.get("TOGETHER_API_KEY")
            and not variables.get("TOGETHERAI_API_KEY")
        ):
            message = "TOGETHERAI_API_KEY is not set: TOGETHER_API_KEY is taken for it"
            variables.note(Code.UNSET_VARIABLE, "TOGETHERAI_API_KEY", message)
        return table

    def _vertex(self, name: str) -> Table | None:
        through_vertex = self._preference.through_vertex
        project, location = self._variables.get("VERTEX_PROJECT"), self._variables.get("VERTEX_LOCATION")
        if project and location:
            return {"project": project, "location": location}
        if through_vertex or name in self._needed:
            reason = "USE_VERTEX_AUTH is true" if through_vertex else "Vertex is asked for"
            for variable, example in (("VERTEX_PROJECT", "my-project"), ("VERTEX_LOCATION", "us-central1")):
                hint = f"for example {variable}={example}; both are needed"
                self._variables.require(variable, reason, hint)
        return None

    def _azure(self, name: str) -> Table | None:
        """The endpoint may be a whole deployment's address: resource and version are taken from it."""
        variables = self._variables
        url = variables.url("AZURE_OPENAI_ENDPOINT", query=True)
        if url is None:
            if name in self._needed:
                hint = "for example AZURE_OPENAI_ENDPOINT=https://my-resource.openai.azure.com"
                variables.require("AZURE_OPENAI_ENDPOINT", "Azure is asked for", hint)
            return None
        root = url._replace(path=url.path.partition("/openai")[0].rstrip("/"), query="", fragment="")
        stated = "".join(parse_qs(url.query).get("api-version", [])[:1])
        version = variables.get("AZURE_API_VERSION") or stated
        return {"base_url": root.geturl()} | ({"api_version": version} if version else {})

    def _ollama(self, name: str) -> Table | None:
        variables = self._variables
        url = variables.url("OLLAMA_BASE_URL") or variables.url("OLLAMA_API_BASE")
        if url is None and self._preference.closed and name != self._preference.provider:
            return None
        address = {"base_url": url.geturl()} if url else {}
        context = {"num_ctx": variables.number("OLLAMA_NUM_CTX", 128_000) or 128_000}
        return address | {"zone": zone_of(url) if url else "local"} | context

    def _custom(self, name: str) -> Table | None:
        url = self._variables.url("CUSTOM_BASE_URL")
        if url is None:
            if name == self._preference.provider:
                hint = "for example CUSTOM_BASE_URL=https://llm.corp.example/v1"
                self._variables.require("CUSTOM_BASE_URL", "PREFERRED_PROVIDER is `custom`", hint)
            return None
        key = "env:CUSTOM_API_KEY" if self._variables.get("CUSTOM_API_KEY") else "none"
        return {"base_url": url.geturl(), "api_key": key, "zone": zone_of(url)}
