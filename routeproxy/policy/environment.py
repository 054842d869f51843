"""The policy that the older proxies' variables describe, written down as a rules file and compiled like any other.

Which provider a model's name leads to: the one that the URL names; else that of an explicit prefix; else big or small for
Claude's names; else, while OpenAI or Google itself is preferred, the owner of a well-known name; else the preferred one.
When the preferred endpoint is somebody's own, no name whatsoever leads away from it to a public provider.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import tomli_w
from dotenv import dotenv_values
from msgspec.structs import replace

from routeproxy.policy.compile import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.problems import Code, Problem, RulesRefused, closest, one_of
from routeproxy.policy.providers import TYPES

PREFERRED = (
    "openai",
    "google",
    "azure",
    "together",
    "ollama",
    "custom",
    "anthropic",
    "nvidia",
    "openrouter",
    "vertex",
)

PREFIXES: Mapping[str, tuple[str, ...]] = {
    "openai": ("openai/",),
    "gemini": ("gemini/",),
    "vertex": ("vertex_ai/",),
    "azure": ("azure/",),
    "anthropic": ("anthropic/",),
    "together": ("together_ai/",),
    "ollama": ("ollama_chat/", "ollama/"),
    "nvidia": ("nvidia_nim/",),
    "openrouter": ("openrouter/",),
    "custom": (),
}
"""What a name may begin with, by provider. Vendors such as `nvidia/` and `meta/` are not here: they belong to the model."""

OPENAI_NAMES = ("gpt-", "o1", "o3", "o4", "chatgpt-")
GEMINI_NAMES = ("gemini-",)

DEFAULT_MODELS = {
    "openai": ("gpt-4.1", "gpt-4.1-mini"),
    "azure": ("gpt-4.1", "gpt-4.1-mini"),
    "gemini": ("gemini-2.5-pro", "gemini-2.5-flash"),
    "vertex": ("gemini-2.5-pro", "gemini-2.5-flash"),
}
TOGETHER_MODEL = "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8"

LISTED_MODELS = ["claude-opus-4-8", "claude-sonnet-5", "claude-haiku-4-5"]
"""What `/v1/models` shows: names that clients pick from, and that big and small answer to."""

AZURE_REASONING = r"(^|[^a-z0-9])(o[134]|gpt-[5-9]|codex)($|[^a-z0-9])"
"""Deployments of these go through the Responses API; chat completions would not stream or hide their reasoning."""

Table = dict[str, Any]


def read_environment(environ: Mapping[str, str], dotenv: Path) -> Mapping[str, str]:
    """The variables of a `.env` file, there or not, under those of the environment."""
    written = {name: value for name, value in dotenv_values(dotenv).items() if value is not None}
    return written | dict(environ)


def environment_policy(
    environ: Mapping[str, str], *, process_newlines: bool = False, preserve_openai_newlines: bool = False
) -> Policy:
    """Raises `RulesRefused` with every variable that is wrong; what is merely odd is among the policy's warnings.

    The two flags say what is the default here: Together's literal `\\n` become line breaks, OpenAI's answers stay as they are.
    """
    described = _Description(environ)
    text = tomli_w.dumps(described.document())
    policy = compile_rules(text, path=Path("environment"), environ=environ)
    return replace(policy, warnings=(*described.notes, *policy.warnings))


def environment_rules(environ: Mapping[str, str]) -> str:
    """The same policy as the text of a rules file."""
    return tomli_w.dumps(_Description(environ).document())


class _Description:
    """The variables, read into the tables of a rules file."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._errors: list[Problem] = []
        self.notes: list[Problem] = []
        self._vertex_auth = self._flag("USE_VERTEX_AUTH", False)
        self._preferred = self._choose()
        self._shared = self._params_of_all()
        candidates = (self._preferred, *(name for name in PREFIXES if name != self._preferred))
        self._providers = {name: table for name in candidates if (table := self._provider(name)) is not None}
        self._closed = self._is_private(self._preferred)
        """Nothing but the preferred endpoint, and what else is not public, is ever reached."""
        if self._closed:
            self._providers = {
                name: table for name, table in self._providers.items() if name == self._preferred or _inside(table)
            }

    def document(self) -> Table:
        aliases = {} if self._preferred == "anthropic" else self._aliases()
        server = self._server()
        if self._errors:
            raise RulesRefused(tuple(self._errors))
        *rules, default = self._rules()
        document = {"server": server, "providers": self._provider_tables(), "aliases": aliases, "rules": rules}
        return {key: table for key, table in document.items() if table} | {"default": {"targets": default["targets"]}}

    # --- variables

    def _get(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def _flag(self, name: str, default: bool) -> bool:
        text = (self._get(name) or str(default)).lower()
        if text not in TRUE | FALSE:
            self._error(Code.WRONG_VALUE, name, f"is `{text}`", expected="`true` or `false`")
        return text in TRUE

    def _number(self, name: str, default: int, most: int | None = None) -> int:
        text = self._get(name) or str(default)
        if not (text.isascii() and text.isdigit()) or (most is not None and int(text) > most):
            self._error(
                Code.WRONG_VALUE, name, f"is `{text}`", expected="a whole number" + (f" up to {most}" if most else "")
            )
            return default
        return int(text)

    def _url(self, *names: str) -> str | None:
        for name in names:
            if (text := self._get(name)) is None:
                continue
            try:
                parts = urlsplit(text)
            except ValueError:
                parts = urlsplit("")
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                self._error(Code.WRONG_VALUE, name, f"is `{text}`", expected="an address that begins with http:// or https://")
                return None
            return text.rstrip("/")
        return None

    def _error(self, code: Code, name: str, what: str, *, expected: str | None = None, hint: str | None = None) -> None:
        self._errors.append(
            Problem(code=code, severity="error", path=(name,), message=f"{name} {what}", expected=expected, hint=hint)
        )

    def _note(self, code: Code, name: str, what: str, hint: str | None = None) -> None:
        self.notes.append(Problem(code=code, severity="warning", path=(name,), message=f"{name} {what}", hint=hint))

    # --- providers

    def _choose(self) -> str:
        """The preferred provider, by its name in `PREFIXES`."""
        wanted = (self._get("PREFERRED_PROVIDER") or "openai").lower()
        if wanted not in PREFERRED:
            near = closest(wanted, PREFERRED)
            self._error(
                Code.UNDEFINED,
                "PREFERRED_PROVIDER",
                f"is `{wanted}`, which is no provider" + (f"; did you mean `{near}`?" if near else ""),
                expected=one_of(PREFERRED),
            )
            return "openai"
        if wanted == "google":
            return "vertex" if self._vertex_auth else "gemini"
        return wanted

    def _provider(self, name: str) -> Table | None:
        """`None`: it is not set up, and not preferred either."""
        wanted = name == self._preferred
        match name:
            case "openai":
                return self._public_or_own("openai", "OPENAI_BASE_URL", wanted)
            case "gemini" if self._vertex_auth:
                return self._vertex("USE_VERTEX_AUTH is true")
            case "gemini":
                return {} if wanted or self._has_key("gemini") else None
            case "vertex":
                if wanted or self._get("VERTEX_PROJECT"):
                    return self._vertex("PREFERRED_PROVIDER is `vertex`" if wanted else "VERTEX_PROJECT is set")
                return None
            case "azure":
                return self._azure(wanted)
            case "anthropic":
                return {} if wanted or self._has_key("anthropic") else None
            case "together":
                return self._together(wanted)
            case "ollama":
                return self._ollama()
            case "nvidia":
                return self._public_or_own("nvidia_nim", "NVIDIA_BASE_URL", wanted)
            case "openrouter":
                return self._public_or_own("openrouter", "OPENROUTER_BASE_URL", wanted)
        return self._custom(wanted)
