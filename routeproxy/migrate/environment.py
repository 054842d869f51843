"""The policy that the older proxies' variables describe, written as a rules file and compiled like any other.

Where a model's name leads: to the provider that the URL names; else to that of its prefix; else, for Claude's
names, to the big or the small model; else, while OpenAI's or Google's public API is preferred, to the owner
of a well-known name; else to the preferred provider. From one's own endpoint no name leads to a public one.
"""

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import tomli_w
from dotenv import dotenv_values
from msgspec.structs import replace

from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.problems import Code, Problem, RulesRefused, closest, one_of
from routeproxy.policy.provider_types import TYPES

Table = dict[str, Any]

PREFERRED = (
    "openai", "google", "azure", "together", "ollama", "custom", "anthropic", "nvidia", "openrouter", "vertex"
)  # fmt: skip
"""What `PREFERRED_PROVIDER` may say. All but `google` are providers' names."""

TYPE = {
    "together": "together_ai",
    "nvidia": "nvidia_nim",
    "vertex": "vertex_ai",
    "custom": "openai_compatible",
}
"""The type of a provider, where it isn't the provider's name."""

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
"""What a name may begin with. Vendors such as `nvidia/` and `meta/` are not: they belong to the model."""

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

BASE_URLS = {"openai": "OPENAI_BASE_URL", "nvidia": "NVIDIA_BASE_URL", "openrouter": "OPENROUTER_BASE_URL"}

OPENAI_NAMES = ("gpt-", "o1", "o3", "o4", "chatgpt-")
GEMINI_NAMES = ("gemini-",)

TOGETHER_MODEL = "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8"
BIG_AND_SMALL = {
    "openai": ("gpt-4.1", "gpt-4.1-mini"),
    "azure": ("gpt-4.1", "gpt-4.1-mini"),
    "gemini": ("gemini-2.5-pro", "gemini-2.5-flash"),
    "vertex": ("gemini-2.5-pro", "gemini-2.5-flash"),
}

LISTED = ["claude-opus-4-8", "claude-sonnet-5", "claude-haiku-4-5"]
"""What `/v1/models` shows: names that clients know, and that the big and the small model answer to."""

REASONING = r"(^|[^a-z0-9])(o[134]|gpt-[5-9]|codex)([^a-z0-9]|$)"
"""Azure deployments that go through the Responses API. `api` belongs to a provider, so theirs is one more."""
RESPONSES = "azure-responses"

TRUE = frozenset({"true", "1", "yes", "on"})
FALSE = frozenset({"false", "0", "no", "off"})


def read_environment(environ: Mapping[str, str], dotenv: Path) -> dict[str, str]:
    """The variables of a `.env` file, there or not, under those of the environment, which win."""
    return {name: value for name, value in dotenv_values(dotenv).items() if value} | dict(environ)


def environment_policy(
    environ: Mapping[str, str], *, process_newlines: bool = False, preserve_openai_newlines: bool = False
) -> Policy:
    """Raises `RulesRefused` with every variable that is wrong; what is merely odd is among the warnings.

    Both flags ask for what is the default here: Together's `\\n` become line breaks, OpenAI's text stays.
    """
    described = _Description(environ)
    text = tomli_w.dumps(described.document())
    policy = compile_rules(text, path=Path("environment"), environ=environ)
    return replace(policy, warnings=(*described.notes, *policy.warnings))


def environment_rules(environ: Mapping[str, str]) -> str:
    """The same policy as the text of a rules file."""
    return tomli_w.dumps(_Description(environ).document())


class _Description:
    """The variables, turned into the tables of a rules file."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._errors: list[Problem] = []
        self.notes: list[Problem] = []
        self._through_vertex = self._flag("USE_VERTEX_AUTH", default=False)
        self._google = "vertex" if self._through_vertex else "gemini"
        self._prefers_google = (self._get("PREFERRED_PROVIDER") or "").lower() == "google"
        self._main = self._preferred()
        self._closed = self._main in {"ollama", "custom"} or self._has_own_url(self._main)
        """No public fallback."""
        self._owners = self._well_known()
        self._nemotron = {
            "extra_body": {
                "reasoning_budget": self._number("NVIDIA_REASONING_BUDGET", 16_384),
                "chat_template_kwargs": {
                    "enable_thinking": self._flag("NVIDIA_ENABLE_THINKING", default=True)
                },
            }
        }
        self._models = self._big_and_small()
        self._needed = {self._main, *(provider for provider, _ in self._models.values())}
        self._providers = self._set_up()

    def document(self) -> Table:
        """Raises `RulesRefused`."""
        server = {
            "host": self._get("HOST") or "127.0.0.1",
            "port": self._number("PORT", 8082, most=65_535),
            "url_targets": True,
            "models": LISTED,
        }
        if self._errors:
            raise RulesRefused(tuple(self._errors))
        *rules, default = self._rules()
        aliases = {name: self._entry(provider, model) for name, (provider, model) in self._models.items()}
        return {
            "server": server,
            "providers": self._providers,
            **({"aliases": aliases} if aliases else {}),
            "rules": rules,
            "default": {"targets": default["targets"]},
        }

    # --- reading variables

    def _get(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def _flag(self, name: str, *, default: bool) -> bool:
        text = (self._get(name) or str(default)).lower()
        if text not in TRUE | FALSE:
            self._wrong(name, text, "`true` or `false`")
        return text in TRUE

    def _number(self, name: str, default: int, most: int = 2**31) -> int:
        text = self._get(name) or str(default)
        if text.isascii() and text.isdigit() and int(text) <= most:
            return int(text)
        self._wrong(name, text, f"a whole number of at most {most}")
        return default

    def _url(self, name: str, *, query: bool = False) -> SplitResult | None:
        text = self._get(name)
        url = _split(text) if text else None
        if text and (url is None or (url.query and not query)):
            # Its text is not repeated: it may hold a password.
            expected = "an address such as `https://host/v1`, without a password in it"
            self._error(Code.WRONG_VALUE, name, f"{name} is not an address", expected=expected)
        return url

    def _wrong(self, name: str, text: str, expected: str) -> None:
        self._error(Code.WRONG_VALUE, name, f"{name} can't be `{text}`", expected=expected)

    def _missing(self, name: str, why: str, hint: str) -> None:
        if self._get(name) is None:
            self._error(Code.MISSING, name, f"{name} is not set, but {why}", hint=hint)

    def _error(
        self, code: Code, name: str, message: str, *, expected: str | None = None, hint: str | None = None
    ) -> None:
        problem = Problem(
            code=code, severity="error", path=(name,), message=message, expected=expected, hint=hint
        )
        if problem not in self._errors:
            self._errors.append(problem)

    def _note(self, code: Code, name: str, message: str) -> None:
        note = Problem(code=code, severity="warning", path=(name,), message=message)
        if note not in self.notes:
            self.notes.append(note)

    # --- providers

    def _preferred(self) -> str:
        wanted = (self._get("PREFERRED_PROVIDER") or "openai").lower()
        if wanted not in PREFERRED:
            near = closest(wanted, PREFERRED)
            self._error(
                Code.UNDEFINED,
                "PREFERRED_PROVIDER",
                f"PREFERRED_PROVIDER can't be `{wanted}`" + (f"; did you mean `{near}`?" if near else ""),
                expected=one_of(PREFERRED),
            )
            return "openai"
        return self._google if wanted == "google" else wanted

    def _well_known(self) -> dict[str, tuple[str, ...]]:
        """The owners of names that need no prefix."""
        if (self._main == "openai" or self._prefers_google) and not self._has_own_url("openai"):
            return {"openai": OPENAI_NAMES, self._google: GEMINI_NAMES}
        return {}

    def _set_up(self) -> dict[str, Table]:
        """The providers that can be reached, the preferred one first."""
        build = {
            "azure": self._azure,
            "custom": self._custom,
            "gemini": self._vertex if self._through_vertex else self._hosted,
            "ollama": self._ollama,
            "vertex": self._vertex,
        }
        cap = self._number("MAX_OUTPUT_TOKENS", 0)
        found: dict[str, Table] = {}
        for name in (self._main, *(name for name in SET_UP_BY if name != self._main)):
            table = build.get(name, self._hosted)(name)
            if table is None or (self._closed and name != self._main and "zone" not in table):
                continue  # without a zone it is public
            kind = self._type(name)
            found[name] = ({} if kind == name else {"type": kind}) | table
            if cap:
                found[name]["params"] = {"cap": {"max_tokens": cap}}
        if "azure" in found:
            found[RESPONSES] = {"type": "azure"} | found["azure"] | {"api": "responses"}
            found["azure"]["api"] = "chat"
        return found

    def _type(self, name: str) -> str:
        return "vertex_ai" if name == "gemini" and self._through_vertex else TYPE.get(name, name)

    def _hosted(self, name: str) -> Table | None:
        """A public API, or one of one's own that speaks likewise."""
        table: Table = {"transforms": {"newlines": "unescape"}} if name == "together" else {}
        keyed = any(self._get(variable) for variable in TYPES[self._type(name)].key_variables)
        if self._has_own_url(name) and (url := self._url(BASE_URLS[name])):
            table |= {"base_url": url.geturl(), "zone": _zone(url)} | ({} if keyed else {"api_key": "none"})
        elif not keyed and name not in self._needed:
            return None
        if name == "together" and self._get("TOGETHER_API_KEY") and not self._get("TOGETHERAI_API_KEY"):
            message = "TOGETHERAI_API_KEY is not set: TOGETHER_API_KEY is taken for it"
            self._note(Code.UNSET_VARIABLE, "TOGETHERAI_API_KEY", message)
        return table

    def _has_own_url(self, name: str) -> bool:
        """Whether the provider's address was set to something else than its public one."""
        variable = BASE_URLS.get(name)
        if variable is None or self._get(variable) is None:
            return False
        url, public = self._url(variable), TYPES[self._type(name)].base_url or ""
        return url is None or url.hostname != urlsplit(public).hostname

    def _vertex(self, name: str) -> Table | None:
        needed = self._through_vertex or name in self._needed
        project, location = self._get("VERTEX_PROJECT"), self._get("VERTEX_LOCATION")
        if project and location:
            return {"project": project, "location": location}
        if needed:
            why = "USE_VERTEX_AUTH is true" if self._through_vertex else "Vertex is asked for"
            for variable, example in (("VERTEX_PROJECT", "my-project"), ("VERTEX_LOCATION", "us-central1")):
                self._missing(variable, why, f"for example {variable}={example}; both are needed")
        return None

    def _azure(self, name: str) -> Table | None:
        """The endpoint may be a whole deployment's address: resource and version are taken from it."""
        url = self._url("AZURE_OPENAI_ENDPOINT", query=True)
        if url is None:
            if name in self._needed:
                hint = "for example AZURE_OPENAI_ENDPOINT=https://my-resource.openai.azure.com"
                self._missing("AZURE_OPENAI_ENDPOINT", "Azure is asked for", hint)
            return None
        root = url._replace(path=url.path.partition("/openai")[0].rstrip("/"), query="", fragment="")
        version = self._get("AZURE_API_VERSION") or "".join(parse_qs(url.query).get("api-version", [])[:1])
        return {"base_url": root.geturl()} | ({"api_version": version} if version else {})

    def _ollama(self, name: str) -> Table | None:
        url = self._url("OLLAMA_BASE_URL") or self._url("OLLAMA_API_BASE")
        if url is None and self._closed and name != self._main:
            return None
        address = {"base_url": url.geturl()} if url else {}
        context = {"num_ctx": self._number("OLLAMA_NUM_CTX", 128_000) or 128_000}
        return address | {"zone": _zone(url) if url else "local"} | context

    def _custom(self, name: str) -> Table | None:
        url = self._url("CUSTOM_BASE_URL")
        if url is None:
            if name == self._main:
                hint = "for example CUSTOM_BASE_URL=https://llm.corp.example/v1"
                self._missing("CUSTOM_BASE_URL", "PREFERRED_PROVIDER is `custom`", hint)
            return None
        key = "env:CUSTOM_API_KEY" if self._get("CUSTOM_API_KEY") else "none"
        return {"base_url": url.geturl(), "api_key": key, "zone": _zone(url)}

    # --- big and small

    def _big_and_small(self) -> dict[str, tuple[str, str]]:
        """Provider and model of each. None at all for Anthropic, which answers to Claude's names itself."""
        if self._main == "anthropic":
            return {}
        together = self._get("TOGETHER_MODEL") or TOGETHER_MODEL
        usual = {**BIG_AND_SMALL, "together": (together, together)}.get(self._main, (None, None))
        big, small = self._get("BIG_MODEL"), self._get("SMALL_MODEL")
        if not (big or small or usual[0]):
            why = f"PREFERRED_PROVIDER is `{self._main}`, which has no default model"
            self._missing("BIG_MODEL", why, "set BIG_MODEL and SMALL_MODEL, or one of them for both")
            return {}
        # One stands in for the other only where there is no default.
        from_big, from_small = ("BIG_MODEL", big), ("SMALL_MODEL", small)
        return {
            "big": self._first_said(from_big, ("BIG_MODEL", usual[0]), from_small),
            "small": self._first_said(from_small, ("SMALL_MODEL", usual[1]), from_big),
        }

    def _first_said(self, *said: tuple[str, str | None]) -> tuple[str, str]:
        return next(self._owner(variable, model) for variable, model in said if model)

    def _owner(self, variable: str, model: str) -> tuple[str, str]:
        """The provider that a variable's model belongs to, and the model without that provider's prefix."""
        head, slash, rest = model.partition("/")
        named = PREFIXES.get(head.lower() + slash)
        if not model.isprintable() or " " in model or model.endswith("/"):
            self._wrong(variable, model, "a model's name")
        if head.lower() == "custom" == self._main or named == self._main:
            return self._main, rest
        # OpenRouter's models are called `openai/gpt-4.1` and the like.
        if named is None or self._main == "openrouter":
            return self._owner_of_bare(variable, model)
        if not self._closed:
            return named, rest
        if self._main == "custom" and named == "openai":
            message = f"{variable} is `{model}`: it goes to CUSTOM_BASE_URL as `{rest}`, not to OpenAI"
            self._note(Code.NO_EFFECT, variable, message)
            return "custom", rest
        message = f"{variable} is `{model}`, but nothing leads from `{self._main}` to another provider"
        self._error(Code.CONTRADICTION, variable, message, hint=f"leave out `{head}/`")
        return self._main, rest

    def _owner_of_bare(self, variable: str, model: str) -> tuple[str, str]:
        if self._prefers_google and not model.lower().startswith(GEMINI_NAMES):
            message = f"{variable} is `{model}`, which is not a Gemini model: it goes to OpenAI"
            self._note(Code.NO_EFFECT, variable, message)
            return "openai", model
        for owner, names in self._owners.items():
            if model.lower().startswith(names):
                return owner, model
        return self._main, model

    # --- rules

    def _rules(self) -> Iterator[Table]:
        """The last one is the default."""
        by_provider = {name: [p for p, named in PREFIXES.items() if named == name] for name in SET_UP_BY}
        for owner, names in self._owners.items():
            by_provider[owner] += names
        there = [name for name in self._providers if name != RESPONSES]
        missing = {name: prefixes for name, prefixes in by_provider.items() if name not in there}
        yield from self._denials(missing)
        yield from self._route("the model in the URL", {"url_target": True}, *there)
        for name in there:
            if by_provider[name]:
                yield from self._route(f"{name} by name", {"model": {"prefix": by_provider[name]}}, name)
        vendors = [prefix for prefixes in missing.values() for prefix in prefixes]
        if vendors and self._main == "openrouter" and not self._closed:
            yield from self._route("vendors at OpenRouter", {"model": {"prefix": vendors}}, "openrouter")
        if self._models:
            yield {"name": "small", "match": {"model": "haiku"}, "targets": "small"}
            claude = [{"model": ["opus", "sonnet"]}, {"model": {"prefix": "claude"}}]
            yield {"name": "big", "match": {"any": claude}, "targets": "big"}
        yield from self._route("any other", {}, self._main)

    def _denials(self, missing: Mapping[str, list[str]]) -> Iterator[Table]:
        if self._closed:
            prefixes = [prefix for found in missing.values() for prefix in found]
            deny = f"everything here goes to `{self._main}`: a model's name can't lead to another provider"
            yield _denial("nothing leaves for a public provider", prefixes, deny)
        elif self._main != "openrouter":
            for name, prefixes in missing.items():
                if prefixes:
                    deny = f"`{name}` is not set up here: {SET_UP_BY[name]} is not set"
                    yield _denial(f"no {name}", prefixes, deny)

    def _route(self, name: str, match: Table, *providers: str) -> Iterator[Table]:
        """To the model that the client asked for, after the models that need more than their name."""
        if "azure" in providers:
            through = [RESPONSES if provider == "azure" else provider for provider in providers]
            targets = [f"{provider}/*" for provider in through]
            yield _rule(f"{name}: reasoning", _narrowed(match, "regex", REASONING), targets)
        if any(map(self._takes_nemotron, providers)):
            entries = [self._entry(provider, "*", nemotron=True) for provider in providers]
            yield _rule(f"{name}: Nemotron", _narrowed(match, "contains", "nemotron"), entries)
        yield _rule(name, match, [f"{provider}/*" for provider in providers])

    def _entry(self, provider: str, model: str, *, nemotron: bool = False) -> str | Table:
        if provider == "azure" and re.search(REASONING, model.lower()):
            provider = RESPONSES
        target = f"{provider}/{model}"
        if (nemotron or "nemotron" in model.lower()) and self._takes_nemotron(provider):
            return {"target": target, "params": self._nemotron}
        return target

    def _takes_nemotron(self, provider: str) -> bool:
        """Whether NVIDIA's models may be behind it."""
        return provider in {"custom", "nvidia", "openrouter", "together"} or (
            provider == "openai" and self._has_own_url("openai")
        )


def _rule(name: str, match: Table, targets: list[Any]) -> Table:
    found = {"name": name, "targets": targets[0] if len(targets) == 1 else targets}
    return found | {"match": match} if match else found


def _denial(name: str, prefixes: list[str], deny: str) -> Table:
    return {"name": name, "match": {"url_target": False, "model": {"prefix": prefixes}}, "deny": deny}


def _narrowed(match: Table, operator: str, value: str) -> Table:
    return match | {"model": match.get("model", {}) | {operator: value}}


def _split(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text.rstrip("/"))
        sound = url.scheme in {"http", "https"} and url.hostname and "@" not in url.netloc and url.port != 0
    except ValueError:
        return None
    return url._replace(fragment="") if sound else None


def _zone(url: SplitResult) -> str:
    """Of an endpoint that somebody chose for themselves."""
    host = url.hostname or ""
    try:
        return "local" if ip_address(host).is_loopback else "private"
    except ValueError:
        return "local" if host == "localhost" or host.endswith(".localhost") else "private"
