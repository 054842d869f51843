"""The policy that the older proxies' variables describe, written as a rules file and compiled like any other.

A model's name leads to the provider that the URL names; else to that of its prefix; else, for Claude's
names, to the big or the small model; else, while OpenAI's or Google's public API is preferred, to the owner
of a well-known name; else to the preferred provider. From an operator's own endpoint no name leads to a
public provider.
"""

import logging
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import tomli_w
from dotenv import dotenv_values
from dotenv.parser import parse_stream
from msgspec.structs import replace

from routeproxy.files import is_there, read_file
from routeproxy.migrate.environment_left_out import say_what_is_left_out
from routeproxy.migrate.environment_models import BETWEEN, PREFIXES, choose_models
from routeproxy.migrate.environment_providers import (
    BASE_URLS,
    OWN_BASE_URLS,
    RESPONSES,
    SET_UP_BY,
    TYPE_OF,
    Preference,
    ProviderTables,
    Table,
    azure_url,
    deployment_of,
    has_own_url,
)
from routeproxy.migrate.environment_variables import (
    PLACEHOLDER,
    EnvironmentVariables,
    cleaned,
    is_placeholder,
    without_placeholders,
    zone_of,
)
from routeproxy.policy.compile.compiler import SignInProblem, compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.problems import Code, RulesRefused
from routeproxy.policy.provider_types import TYPES

log = logging.getLogger("routeproxy.migrate")

LISTED = ["claude-opus-4-8", "claude-sonnet-5", "claude-haiku-4-5"]
"""The models of `/v1/models`: names that clients know, and that the big and the small model answer to."""

REASONING = r"(^|[^a-z0-9])(o[134]|gpt-[5-9]|codex)([^a-z0-9]|$)"
"""Azure deployments that go through the Responses API."""


def read_environment(environ: Mapping[str, str], dotenv: Path | None) -> dict[str, str]:
    """The variables of a `.env` file, there or not, under those of the environment, which win. Raises
    `ValueError` for a file that is no text, `OSError` for one that can't be read."""
    found = _parsed(_text_of(dotenv), str(dotenv)) if dotenv is not None and is_there(dotenv) else {}
    stated = {name: value for name, value in found.items() if value}
    return {name: cleaned(value) for name, value in (stated | dict(environ)).items()}


@lru_cache(maxsize=4)
def _parsed(text: str, source: str) -> Mapping[str, str | None]:
    """The variables of a `.env`. What stands in it without effect is logged, once for each state of the file;
    its text never is, since a key may be in it."""
    understood: list[str] = []
    lines: dict[str, int] = {}
    for binding in parse_stream(StringIO(text)):
        line = (
            binding.original.line + len(binding.original.string) - len(binding.original.string.lstrip("\n"))
        )
        if binding.error:
            log.warning("%s:%d has no effect: it is not of the form NAME=value", source, line)
            continue
        understood.append(binding.original.string)
        if binding.key in lines:
            log.warning(
                "%s:%d is in force for %s, not line %d", source, line, binding.key, lines[binding.key]
            )
        if binding.key is not None:
            lines[binding.key] = line
    return dotenv_values(stream=StringIO("".join(understood)))


def _text_of(dotenv: Path) -> str:
    content = read_file(dotenv)
    # What Windows' shells write by `>`.
    utf_16 = content.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{dotenv} is not UTF-8: byte {error.start + 1} can't be read") from None


def environment_policy(
    environ: Mapping[str, str],
    *,
    process_newlines: bool = False,
    preserve_openai_newlines: bool = False,
    sign_in_problem: SignInProblem = lambda provider: None,
) -> Policy:
    """The policy that `environ` describes; what is merely odd about it is among the warnings. Raises
    `RulesRefused` with every variable that is wrong.

    Both flags ask for what is the default here: Together's `\\n` become line breaks, OpenAI's text stays.
    """
    description = _Description(environ)
    text = tomli_w.dumps(description.document())
    policy = compile_rules(
        text,
        path=Path("environment"),
        environ=without_placeholders(environ),
        sign_in_problem=sign_in_problem,
    )
    warnings = (*description.notes, *policy.warnings)
    return replace(policy, warnings=warnings, absent_providers=description.absent_providers())


def environment_rules(environ: Mapping[str, str]) -> str:
    """The same policy as the text of a rules file. Raises `RulesRefused`."""
    return tomli_w.dumps(_Description(environ).document())


class _Description:
    """The tables of a rules file that says what the variables say."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        # Errors are reported in the order in which variables are read here.
        variables = self._variables = EnvironmentVariables(environ)
        self._preference = Preference(variables)
        self._nemotron = {
            "extra_body": {
                "reasoning_budget": variables.number("NVIDIA_REASONING_BUDGET", 16_384),
                "chat_template_kwargs": {
                    "enable_thinking": variables.flag("NVIDIA_ENABLE_THINKING", default=True)
                },
            }
        }
        """The `params` of NVIDIA's models."""
        deployment = None
        if self._preference.provider == "azure":
            _, url = azure_url(variables, self._preference)
            deployment = deployment_of(url) if url is not None else None
        self._models = choose_models(variables, self._preference, deployment)
        models = self._models.values()
        self._providers = ProviderTables(variables, self._preference, models).make()
        self._suggest_preference()
        say_what_is_left_out(variables, self._preference)
        if is_placeholder(variables.get("ANTHROPIC_AUTH_TOKEN") or ""):
            message = f"ANTHROPIC_AUTH_TOKEN is {PLACEHOLDER}: anybody may know it"
            variables.note(Code.READABLE_KEY, "ANTHROPIC_AUTH_TOKEN", message)
        self.notes = variables.notes

    def _suggest_preference(self) -> None:
        """A note where Claude's names lead to OpenAI because nobody said otherwise, and only others have what
        they need."""
        variables = self._variables
        unsaid = variables.get("PREFERRED_PROVIDER") is None and self._preference.provider == "openai"
        led_there = any(provider == "openai" for provider, _ in self._models.values())
        if not unsaid or not led_there or variables.get("OPENAI_API_KEY") or self._preference.names_stay:
            return
        google = self._preference.google
        others = [
            "google" if name == google else name
            for name in self._providers
            if name not in ("openai", "ollama", RESPONSES)
            or (name == "ollama" and "base_url" in self._providers["ollama"])
        ]
        if others:
            lines = " or ".join(f"PREFERRED_PROVIDER={name}" for name in others)
            message = "PREFERRED_PROVIDER is not set, so Claude's names go to OpenAI, which has no key"
            variables.note(Code.UNSET_VARIABLE, "PREFERRED_PROVIDER", f"{message}: set {lines}")

    def document(self) -> Table:
        """Raises `RulesRefused`."""
        variables = self._variables
        server = {
            "host": variables.get("HOST") or "127.0.0.1",
            "port": variables.number("PORT", 8082, most=65_535),
            "url_targets": True,
            "models": LISTED,
        }
        if variables.errors:
            raise RulesRefused(tuple(variables.errors))
        *rules, default = self._rules()
        aliases = {name: self._entry(provider, model) for name, (provider, model) in self._models.items()}
        return {
            "server": server,
            "providers": self._providers,
            **({"aliases": aliases} if aliases else {}),
            "rules": rules,
            "default": {"targets": default["targets"]},
        }

    def absent_providers(self) -> dict[str, str]:
        """By the names in lower case by which a URL may mean them, why providers are not there."""
        preference = self._preference
        absent: dict[str, str] = {}
        for name in SET_UP_BY:
            if name in self._providers:
                continue
            if preference.urls_stay and name not in OWN_BASE_URLS:
                reason = f"{self._why_urls_stay()}, so it leads to no public provider"
            else:
                reason = f"it is not set up here: {self._reason_for_missing(name)}"
            kind = TYPE_OF.get(name, name)
            for spelling in {name, kind, *TYPES[kind].spellings}:
                if not any(self._names(provider, spelling) for provider in self._providers):
                    absent.setdefault(spelling, reason)
        if RESPONSES in self._providers:
            absent[RESPONSES] = "`azure` asks for these models too"
        return absent

    def _why_urls_stay(self) -> str:
        preference = self._preference
        variable = BASE_URLS.get(preference.provider)
        if variable is None:
            return f"everything here stays with PREFERRED_PROVIDER={preference.provider}"
        url = self._variables.url(variable, query=True)
        zone = "on this machine" if url is not None and zone_of(url) == "local" else "private"
        return f"everything here stays with the endpoint of {variable}, which is {zone}"

    def _names(self, provider: str, spelling: str) -> bool:
        """Whether a URL means `provider` by `spelling`."""
        kind = self._providers[provider].get("type", provider)
        return spelling in {provider, kind, *TYPES[kind].spellings}

    # --- rules

    def _rules(self) -> Iterator[Table]:
        """The last one is the default."""
        preference = self._preference
        prefixes = {name: [p for p, owner in PREFIXES.items() if owner == name] for name in SET_UP_BY}
        for owner, names in preference.well_known.items():
            prefixes[owner] += names
        in_urls = [name for name in self._providers if name != RESPONSES]
        by_name = [name for name in in_urls if not preference.names_stay or self._is_own(name)]
        missing = {name: prefixes[name] for name in prefixes if name not in by_name}
        whole = preference.has_vendors and not preference.urls_stay
        if not whole:
            yield from self._denials(missing)
        yield from self._route("the model in the URL", {"url_target": True}, *in_urls)
        for name in by_name:
            if prefixes[name]:
                yield from self._route(f"{name} by name", {"model": {"prefix": prefixes[name]}}, name)
        vendors = [prefix for beginnings in missing.values() for prefix in beginnings]
        if vendors and whole:
            name = f"vendors at {preference.provider}"
            yield from self._route(name, {"model": {"prefix": vendors}}, preference.provider)
        if self._models:
            yield {"name": "small", "match": {"model": "haiku"}, "targets": "small"}
            for size, (part, _) in BETWEEN.items():
                if size in self._models:
                    yield {"name": size, "match": {"model": part}, "targets": size}
            claude = [{"model": ["opus", "sonnet"]}, {"model": {"prefix": "claude"}}]
            yield {"name": "big", "match": {"any": claude}, "targets": "big"}
        yield from self._route("any other", {}, preference.provider)

    def _is_own(self, name: str) -> bool:
        """Whether names may lead there although everything stays with the preferred provider."""
        return name == self._preference.provider or self._providers[name].get("zone", "public") != "public"

    def _denials(self, missing: Mapping[str, list[str]]) -> Iterator[Table]:
        """Rules that deny the models of providers which can't be reached."""
        preferred = self._preference.provider
        if self._preference.names_stay:
            all_prefixes = [prefix for prefixes in missing.values() for prefix in prefixes]
            deny = f"everything here goes to `{preferred}`: a model's name can't lead to another provider"
            if not self._preference.urls_stay:
                deny += ", a target in the URL can"
            yield _denial("nothing leaves for a public provider", all_prefixes, deny)
            return
        for name, prefixes in missing.items():
            if prefixes:
                deny = f"`{name}` is not set up here: {self._reason_for_missing(name)}"
                yield _denial(f"no {name}", prefixes, deny)

    def _reason_for_missing(self, name: str) -> str:
        if name == "openai" and self._preference.service == "azure":
            return "OPENAI_BASE_URL and OPENAI_API_KEY are Azure's"
        return self._variables.reason_for_missing(SET_UP_BY[name])

    def _route(self, name: str, match: Table, *providers: str) -> Iterator[Table]:
        """Rules that keep the requested model; first the rules for models that need more than their name."""
        if "azure" in providers:
            targets = [f"{RESPONSES if provider == 'azure' else provider}/*" for provider in providers]
            yield _rule(f"{name}: reasoning", _narrow(match, "regex", REASONING), targets)
        if any(map(self._may_serve_nemotron, providers)):
            entries = [self._entry(provider, "*", nemotron=True) for provider in providers]
            yield _rule(f"{name}: Nemotron", _narrow(match, "contains", "nemotron"), entries)
        yield _rule(name, match, [f"{provider}/*" for provider in providers])

    def _entry(self, provider: str, model: str, *, nemotron: bool = False) -> str | Table:
        """A target, with the `params` that the model needs."""
        if provider == "azure" and re.search(REASONING, model.lower()):
            provider = RESPONSES
        target = f"{provider}/{model}"
        if (nemotron or "nemotron" in model.lower()) and self._may_serve_nemotron(provider):
            return {"target": target, "params": self._nemotron}
        return target

    def _may_serve_nemotron(self, provider: str) -> bool:
        """Whether NVIDIA's models may be behind it."""
        return provider in {"custom", "nvidia", "openrouter", "together"} or (
            provider == "openai" and has_own_url(self._variables, "openai")
        )


def _rule(name: str, match: Table, targets: list[Any]) -> Table:
    rule = {"name": name, "targets": targets[0] if len(targets) == 1 else targets}
    return rule | {"match": match} if match else rule


def _denial(name: str, prefixes: list[str], deny: str) -> Table:
    return {"name": name, "match": {"url_target": False, "model": {"prefix": prefixes}}, "deny": deny}


def _narrow(match: Table, operator: str, value: str) -> Table:
    """`match` for fewer models: only those that the condition takes as well."""
    return match | {"model": match.get("model", {}) | {operator: value}}
