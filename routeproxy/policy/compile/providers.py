"""A `[providers.NAME]` table becomes a `Provider`: the defaults of its type are filled in, and keys that the
type does not have are reported."""

import re
from collections.abc import Mapping
from typing import Any

from routeproxy.policy.compile.connections import header_problem, proxy_problem, url_problem
from routeproxy.policy.compile.prices import compile_discount, compile_prices
from routeproxy.policy.compile.secrets import SecretResolver
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import ModelTable, ProviderTable
from routeproxy.policy.file.values import Strings, listed
from routeproxy.policy.litellm_environment import address_variables, variables_heeded
from routeproxy.policy.litellm_params import NEVER_ALLOWED, allowed_for, stated_sign_in
from routeproxy.policy.patterns import WILD
from routeproxy.policy.problems import Code, KeyPath, closest, one_of
from routeproxy.policy.provider_types import TYPE_NAMES, TYPES, Engine, ProviderType, provider_type
from routeproxy.policy.providers import ModelFacts, Provider
from routeproxy.policy.secrets import SECRET_HEADERS, Secret, secret_of

_TYPE_OF_SPELLING = {spelling: name for name, kind in TYPES.items() for spelling in kind.spellings}
_LOCATION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""It becomes part of a host's name."""
_OPTIONS = {option for kind in TYPES.values() for option in kind.options}


def compile_provider(
    name: str, table: ProviderTable, report: Report, secrets: SecretResolver
) -> Provider | None:
    """The provider that a table describes. `None`, with a problem reported, if its type isn't known."""
    path: KeyPath = ("providers", name)
    if bad := sorted(set(name) & {*"/: \t", *WILD}):
        report.error(Code.WRONG_VALUE, path, f"a provider's name can't contain {one_of(bad)}", key=True)
    type_name = table.type or name
    kind = provider_type(type_name)
    if kind is None:
        if not report.faulty((*path, "type")):
            _report_unknown_type(type_name, table, report, path)
        return None
    return _ProviderCompiler(name, type_name, kind, table, report, secrets).compile()


def _report_unknown_type(type_name: str, table: ProviderTable, report: Report, path: KeyPath) -> None:
    if table.type is None:
        near = closest(type_name, TYPES)
        report.error(
            Code.MISSING,
            path,
            f"`{type_name}` is not a type of provider, so its type must be said",
            expected="`type = …`",
            hint=f"did you mean `{near}`?" if near else f"known: {', '.join(TYPES)}",
            key=True,
        )
        return
    if proper := _TYPE_OF_SPELLING.get(type_name):
        message = f"`{type_name}` is not a type; write `{proper}`"
        report.error(Code.UNDEFINED, (*path, "type"), message)
        return
    report.unknown(
        Code.UNDEFINED, (*path, "type"), f"`{type_name}` is not a type of provider", type_name, TYPE_NAMES
    )


class _ProviderCompiler:
    """Compiles one provider's table, with what is known of its type at hand."""

    def __init__(
        self,
        name: str,
        type_name: str,
        kind: ProviderType,
        table: ProviderTable,
        report: Report,
        secrets: SecretResolver,
    ) -> None:
        self.name = name
        self.type = type_name
        self.kind = kind
        self.table = table
        self.report = report
        self.secrets = secrets
        self.path: KeyPath = ("providers", name)

    def compile(self) -> Provider:
        """Reports what is wrong with the table; the provider is whole all the same."""
        table, kind = self.table, self.kind
        self._check_keys_of_type()
        self._check_engine()
        names = frozenset({self.type, *kind.spellings})
        prefixes = {self.name.lower(), *names} - set(kind.vendor_prefixes)
        return Provider(
            name=self.name,
            type=self.type,
            base_url=self._compile_base_url(),
            keys=self._compile_keys(),
            client_key=table.api_key == "client",
            zone=table.zone or ("public" if table.base_url else kind.zone),
            region=table.region,
            labels=_labels(table.labels),
            models={pattern: self._compile_model(model) for pattern, model in (table.models or {}).items()},
            engine=self._choose_engine(),
            api=table.api,
            headers=self._compile_headers(),
            secret_headers=frozenset(
                name.lower() for name, value in (table.headers or {}).items() if value.startswith("env:")
            ),
            secret_params=frozenset(
                name
                for name, value in (table.litellm_params or {}).items()
                if isinstance(value, str) and value.startswith("env:")
            ),
            forward=tuple(header.lower() for header in table.forward or ()),
            max_concurrent=table.max_concurrent,
            prices=compile_prices(table.prices, (*self.path, "prices"), self.report),
            discount=compile_discount(table.discount, (*self.path, "discount"), self.report),
            proxy=table.proxy,
            ca_file=table.ca_file,
            supports=frozenset(table.supports or ()),
            mid_system=table.mid_system,
            without_vision=table.without_vision,
            options=self._compile_options(),
            litellm_params=self._compile_litellm_params(),
            spellings=names,
            prefixes=tuple(
                sorted((f"{prefix}/" for prefix in prefixes), key=lambda prefix: (-len(prefix), prefix))
            ),
        )

    def _compile_model(self, table: ModelTable) -> ModelFacts:
        return ModelFacts(
            region=table.region or self.table.region,
            labels=_labels(table.labels if table.labels is not None else self.table.labels),
            context_window=table.context_window,
            max_output_tokens=table.max_output_tokens,
            vision=table.vision,
            tools=table.tools,
            thinking=table.thinking,
        )

    def _check_keys_of_type(self) -> None:
        table, kind, report, path = self.table, self.kind, self.report, self.path
        for key in kind.required:
            if getattr(table, key) is None and not report.faulty((*path, key)):
                report.error(Code.MISSING, path, f"type {self.type} needs `{key}`", key=True)
        for key in sorted(_OPTIONS - set(kind.options)):
            if getattr(table, key) is not None:
                message = f"type {self.type} has no `{key}`"
                report.error(
                    Code.NOT_FOR_TYPE, (*path, key), message, hint=_hint_for_missing_key(kind), key=True
                )
        for key in ("base_url", "api_key", "headers", "forward", "proxy", "ca_file"):
            if getattr(table, key) is None:
                continue
            if kind.in_process:
                message = f"type {self.type} contacts nobody, so it has no `{key}`"
                report.error(Code.NOT_FOR_TYPE, (*path, key), message, key=True)
            elif key in {"proxy", "ca_file"} and not kind.own_client and self._choose_engine() != "direct":
                message = f"`{key}` can't be enforced for type {self.type}: its connections are LiteLLM's"
                report.error(Code.NOT_FOR_TYPE, (*path, key), message, key=True)
        if kind.at_one_address and table.base_url is not None:
            message = f"type {self.type} is asked at {kind.base_url} alone, whatever `base_url` says"
            hint = "a gateway in front of it that speaks chat completions is of type `openai_compatible`"
            report.error(Code.NOT_FOR_TYPE, (*path, "base_url"), message, hint=hint)
        if table.location is not None and not _LOCATION.fullmatch(table.location):
            message = f"`{table.location}` is no location of Google Cloud"
            expected = "a region such as `europe-west1`, `global`, or a multi-region: `us`, `eu`"
            report.error(Code.WRONG_VALUE, (*path, "location"), message, expected=expected)
        if kind.speaks_messages:
            for key in ("transforms", "supports", "mid_system", "without_vision", "litellm_params"):
                if getattr(table, key) is not None:
                    self._warn_of_pass_through(key)
        self._check_proxy()
        self._check_variables()
        for index, header in enumerate(table.forward or ()):
            if header.lower() in SECRET_HEADERS:
                message = f"`{header}` is never passed on"
                report.error(Code.FORBIDDEN, (*path, "forward", index), message)

    def _check_proxy(self) -> None:
        proxy, path = self.table.proxy, (*self.path, "proxy")
        if proxy is None:
            return
        if problem := proxy_problem(proxy):
            expected = "`http://host:port` or `https://host:port`"
            self.report.error(Code.WRONG_VALUE, path, f"`proxy` {problem}", expected=expected)
        if (self.table.zone or self.kind.zone) == "local" and not (
            self.table.base_url and not self.table.zone
        ):
            message = (
                "what is `local` is not reached by way of a proxy: nobody can see where that connects to"
            )
            self.report.error(
                Code.CONTRADICTION, path, message, hint="leave out the `proxy`, or say the zone"
            )

    def _choose_engine(self) -> Engine:
        if self.table.engine in self.kind.engines:
            return self.table.engine
        needs_litellm = self.table.litellm_params and "litellm" in self.kind.engines
        return "litellm" if needs_litellm else self.kind.engines[0]

    def _check_engine(self) -> None:
        table, kind, report, path = self.table, self.kind, self.report, self.path
        if table.engine and table.engine not in kind.engines:
            how = "directly" if kind.engines == ("direct",) else "through LiteLLM"
            message = f'type {self.type} is always spoken to {how}: leave out `engine = "{table.engine}"`'
            report.error(Code.NOT_FOR_TYPE, (*path, "engine"), message)
        elif table.engine == "direct" and table.litellm_params and not kind.speaks_messages:
            message = '`litellm_params` are for LiteLLM, which `engine = "direct"` leaves out'
            report.error(Code.CONTRADICTION, (*path, "litellm_params"), message, key=True)
        if table.api is not None and not kind.responses:
            message = f"type {self.type} has no choice of `api`"
            report.error(Code.NOT_FOR_TYPE, (*path, "api"), message, key=True)

    def _warn_of_pass_through(self, key: str) -> None:
        if key == "transforms" and self.table.transforms and self.table.transforms.only_model_name:
            return
        message = f"`{key}` has no effect here: type {self.type} gets Messages as they are"
        self.report.warn(Code.NO_EFFECT, (*self.path, key), message, key=True)

    def _compile_base_url(self) -> str | None:
        written = self.table.base_url
        path = (*self.path, "base_url")
        if written is None:
            return self.kind.base_url
        url = written
        if written.startswith("env:"):
            if self.table.zone is None and not self.report.faulty((*self.path, "zone")):
                message = "an address from a variable needs a `zone`: nobody can see from here where it leads"
                self.report.error(
                    Code.MISSING, path, message, expected='`zone = "local"`, `"private"` or `"public"`'
                )
            url = self.secrets.resolve_variable(written, path)
            if not url:
                return None
        problem = url_problem(url)
        if problem:
            self.report.error(
                Code.WRONG_VALUE, path, f"`base_url` {problem}", expected="`https://host…` or `http://host…`"
            )
        return url.rstrip("/")

    def _check_variables(self) -> None:
        """LiteLLM takes much out of the environment. What moves nobody is said; what would is an error."""
        environ = self.secrets.environ
        if self._choose_engine() == "direct" and self.kind.direct_models is None:
            return
        if self.table.base_url is None and self.kind.base_url is not None:
            for name in address_variables(self.type):
                if environ.get(name):
                    self._report_address_variable(name)
        unsaid = {
            name: key
            for name, key in variables_heeded(self.type).items()
            if environ.get(name) and not self._states(key)
        }
        for name, key in unsaid.items():
            message = f"the variable `{name}` has no effect: whom a provider asks, and as whom, stands here"
            hint = f'write `{key} = "env:{name}"`, or unset the variable' if key else "unset the variable"
            self.report.error(Code.MISSING, self.path, message, hint=hint, key=True)

    def _report_address_variable(self, name: str) -> None:
        hint = f'`base_url = "env:{name}"` has it asked there'
        message = f"the variable `{name}` moves nobody: type {self.type} is asked at {self.kind.base_url}"
        if self.table.zone in {"local", "private"}:
            # The zone was meant for where the variable leads.
            self.report.error(Code.CONTRADICTION, self.path, message, hint=hint, key=True)
        else:
            self.report.warn(Code.NO_EFFECT, self.path, message, hint=hint, key=True)

    def _states(self, key: str) -> bool:
        """Whether the table says this key, which may be one of `litellm_params`."""
        table, _, param = key.partition(".")
        if param:
            return param in (self.table.litellm_params or {})
        return bool(key) and getattr(self.table, table) is not None

    def _compile_headers(self) -> Mapping[str, str]:
        headers = {}
        for name, written in (self.table.headers or {}).items():
            path = (*self.path, "headers", name)
            refers = written.startswith("env:")
            headers[name.lower()] = value = (
                self.secrets.resolve_variable(written, path) if refers else written
            )
            if problem := header_problem(
                name, value, refers=refers, ascii_only=self._choose_engine() == "litellm"
            ):
                self.report.error(Code.WRONG_VALUE, path, problem)
        return headers

    def _compile_options(self) -> Mapping[str, Any]:
        options = {}
        for option in self.kind.options:
            value = getattr(self.table, option)
            if isinstance(value, str) and value.startswith("env:"):
                value = self.secrets.resolve_variable(value, (*self.path, option))
            if value is not None:
                options[option] = value
        return options

    def _compile_litellm_params(self) -> Mapping[str, Any]:
        path = (*self.path, "litellm_params")
        allowed = allowed_for(self.type)
        params: dict[str, Any] = {}
        for name, value in (self.table.litellm_params or {}).items():
            here = (*path, name)
            if name in NEVER_ALLOWED:
                message = f"`{name}` chooses who is asked, with which key or how often: that is for the rules"
                hint = "keys of the provider and of rules say it, where the proof sees it"
                self.report.error(Code.FORBIDDEN, here, message, hint=hint, key=True)
            elif name not in allowed:
                message = f"type {self.type} takes no `{name}` here"
                hint = "a field of the request goes into `params.extra_body`"
                self.report.unknown(Code.NOT_FOR_TYPE, here, message, name, allowed, hint=hint, key=True)
            elif isinstance(value, str) and value.startswith("file:"):
                message = "`file:` is not read here: the text itself would be sent"
                self.report.error(Code.WRONG_VALUE, here, message, expected="`env:NAME`, or the value")
            elif isinstance(value, str) and value.startswith("env:"):
                value = self.secrets.resolve_variable(value, here)
            params[name] = value
        return params

    def _compile_keys(self) -> tuple[Secret, ...]:
        written = self.table.api_key
        path = (*self.path, "api_key")
        if written == "client":
            if self.type != "anthropic":
                message = f"the client's own login is for Anthropic: type {self.type} can't have it"
                self.report.error(Code.NOT_FOR_TYPE, path, message)
            return ()
        if written is None:
            return self._find_usual_key()
        if isinstance(written, str):
            secret = self.secrets.resolve(written, path)
            return () if secret.kind == "none" else (secret,)
        keys = []
        for index, value in enumerate(written):
            if value in {"none", "client"}:
                self.report.error(
                    Code.CONTRADICTION, (*path, index), f'"{value}" can\'t stand in a list of keys'
                )
            else:
                keys.append(self.secrets.resolve(value, (*path, index)))
        return tuple(keys)

    def _find_usual_key(self) -> tuple[Secret, ...]:
        variables = self.kind.key_variables
        if not variables or self.report.faulty((*self.path, "api_key")):
            return ()
        if stated_sign_in(self.type, self.table.litellm_params):
            return ()
        name = next((name for name in variables if self.secrets.environ.get(name)), variables[0])
        secret = secret_of(f"env:{name}", self.secrets.environ)
        if secret.unset:
            self.report.warn(
                Code.UNSET_VARIABLE,
                self.path,
                f"provider `{self.name}` has no key: {' or '.join(variables)} is not set",
                hint='`api_key = "none"` says that it needs none',
                key=True,
            )
        return (secret,)


def _labels(written: Strings | None) -> frozenset[str] | None:
    return frozenset(listed(written)) if written is not None else None


def _hint_for_missing_key(kind: ProviderType) -> str | None:
    return "what LiteLLM takes besides stands under `litellm_params`" if "litellm" in kind.engines else None
