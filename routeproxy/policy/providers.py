"""The kinds of providers as data, and what one `[providers.NAME]` table compiles to."""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from msgspec import Struct

from routeproxy.policy.facts import ascii_lower
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import ModelTable, ProviderTable, Strings, Zone, listed
from routeproxy.policy.patterns import WILD, matches
from routeproxy.policy.problems import Code, KeyPath, closest, one_of

Engine = Literal["direct", "litellm"]


class ProviderType(Struct, frozen=True, kw_only=True):
    base_url: str | None = None
    """The public address, as the provider's own documentation gives it."""
    key_variables: tuple[str, ...] = ()
    """Where the key usually stands; the first that is set counts. None: no key is needed."""
    zone: Zone = "public"
    engines: tuple[Engine, ...] = ("litellm",)
    """Who can speak to it; the first does unless the rules name another."""
    required: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """Keys that only some types have."""
    spellings: tuple[str, ...] = ()
    """Other prefixes by which clients and URLs name this type."""
    vendor_prefixes: tuple[str, ...] = ()
    """Prefixes that are part of this provider's own model names, so never taken off."""
    own_client: bool = False
    """Whether the HTTP client is ours, so that `proxy` and `ca_file` take effect."""
    in_process: bool = False
    """Answers by itself: no address, no key, no headers."""
    responses: bool = False
    """Whether `api = "responses"` can be had."""
    speaks_messages: bool = False
    """Takes Messages as they are: nothing is translated on the way."""


CHAT: tuple[Engine, ...] = ("direct", "litellm")
"""They speak OpenAI's chat completions, or Ollama's, and so do we."""

TYPES: Mapping[str, ProviderType] = {
    "openai": ProviderType(
        engines=CHAT,
        base_url="https://api.openai.com/v1",
        key_variables=("OPENAI_API_KEY",),
        options=("organization",),
        own_client=True,
        responses=True,
    ),
    "anthropic": ProviderType(
        base_url="https://api.anthropic.com",
        key_variables=("ANTHROPIC_API_KEY",),
        engines=("direct",),
        own_client=True,
        speaks_messages=True,
    ),
    "echo": ProviderType(zone="local", engines=("direct",), speaks_messages=True, in_process=True),
    "gemini": ProviderType(
        # LiteLLM first: our own engine has not met Google yet, only what LiteLLM says and hears.
        engines=("litellm", "direct"),
        base_url="https://generativelanguage.googleapis.com/v1beta",
        key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        spellings=("google",),
    ),
    "vertex_ai": ProviderType(
        required=("project", "location"),
        options=("project", "location", "credentials"),
        spellings=("vertex", "google"),
    ),
    "azure": ProviderType(
        engines=CHAT,
        key_variables=("AZURE_OPENAI_API_KEY", "AZURE_API_KEY"),
        required=("base_url",),
        options=("api_version", "deployment"),
        own_client=True,
        responses=True,
    ),
    "together_ai": ProviderType(
        engines=CHAT,
        base_url="https://api.together.xyz/v1",
        key_variables=("TOGETHERAI_API_KEY", "TOGETHER_API_KEY"),
        spellings=("together",),
        own_client=True,
    ),
    "ollama": ProviderType(
        engines=CHAT,
        base_url="http://localhost:11434",
        zone="local",
        options=("num_ctx", "keep_alive"),
        spellings=("ollama_chat",),
        own_client=True,
    ),
    "nvidia_nim": ProviderType(
        engines=CHAT,
        base_url="https://integrate.api.nvidia.com/v1",
        key_variables=("NVIDIA_API_KEY", "NVIDIA_NIM_API_KEY"),
        vendor_prefixes=("nvidia",),
        own_client=True,
    ),
    "openrouter": ProviderType(
        engines=CHAT,
        base_url="https://openrouter.ai/api/v1",
        key_variables=("OPENROUTER_API_KEY",),
        own_client=True,
    ),
    "openai_compatible": ProviderType(engines=CHAT, required=("base_url",), own_client=True, responses=True),
    "bedrock": ProviderType(options=("aws_region_name", "aws_profile_name")),
    "sagemaker_chat": ProviderType(options=("aws_region_name", "aws_profile_name")),
}

# What LiteLLM 1.110.2 knows besides and can hold a conversation with: importing it to ask takes seconds.
_LITELLM = """
    ai21 ai21_chat aiml amazon_nova apertis azure_ai baseten bedrock_mantle bytez cerebras chatgpt chutes
    clarifai cloudflare codestral cognition cohere cohere_chat cometapi compactifai cortecs dashscope
    databricks datarobot deepinfra deepseek docker_model_runner edenai empower featherless_ai fireworks_ai
    friendliai galadriel gdc gigachat github github_copilot gradient_ai groq helicone heroku hosted_vllm
    huggingface hyperbolic inception infinity lambda_ai langgraph lemonade libertai litellm_proxy
    llamafile lm_studio maritalk meta meta_llama minimax mistral modelscope moonshot morph nano-gpt nebius
    neosantara nlp_cloud novita nscale oci oobabooga openai_like ovhcloud parasail perplexity petals
    pinstripes poe predibase prism publicai qwen_ai_platform qwencloud ragflow reka replicate sagemaker
    sagemaker_nova sail sambanova sap scaleway scx-ai snowflake synthetic tencent tensormesh triton v0
    vercel_ai_gateway vertex_ai_beta vllm volcengine wandb watsonx xai xiaomi_mimo xinference zai
"""
_OTHERS = tuple(_LITELLM.split())

# These sign in by other means, run on one's own machine, or take a key only if one was set up.
_KEYLESS = """
    chatgpt docker_model_runner gdc github_copilot hosted_vllm infinity langgraph lemonade litellm_proxy
    llamafile lm_studio oci oobabooga openai_like petals sagemaker sagemaker_nova sap triton
    vertex_ai_beta vllm xinference
"""
_KEY_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "cohere_chat": ("COHERE_API_KEY",),
    "huggingface": ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
    "perplexity": ("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
    **dict.fromkeys(_KEYLESS.split(), ()),
}


def provider_type(name: str) -> ProviderType | None:
    if name in TYPES:
        return TYPES[name]
    if name not in _OTHERS:
        return None
    variable = f"{name.upper().replace('-', '_')}_API_KEY"
    return ProviderType(key_variables=_KEY_VARIABLES.get(name, (variable,)))


TYPE_NAMES: tuple[str, ...] = (*TYPES, *_OTHERS)
_TYPE_OF_SPELLING = {spelling: name for name, kind in TYPES.items() for spelling in kind.spellings}
_OPTIONS = {option for kind in TYPES.values() for option in kind.options}


class Secret(Struct, frozen=True):
    """Where a key stands. `value` is that of `env` (`None`: unset) or `literal`; a `file` is read at use. A
    client's key may be known by its hash alone, which then is its `name`."""

    kind: Literal["env", "file", "literal", "none", "sha256"]
    name: str = ""
    value: str | None = None

    @property
    def reference(self) -> str:
        """What may be shown, logged and hashed."""
        return self.kind if self.kind in {"literal", "none"} else f"{self.kind}:{self.name}"

    @property
    def unset(self) -> bool:
        return self.kind == "env" and not self.value

    def __repr__(self) -> str:
        return f"Secret({self.reference})"


class ModelFacts(Struct, frozen=True, kw_only=True):
    """What is known of a model at its provider. `None`: nobody said."""

    region: str | None = None
    labels: frozenset[str] | None = None
    context_window: int | None = None
    """Tokens."""
    max_output_tokens: int | None = None
    vision: bool | None = None
    tools: bool | None = None
    thinking: bool | None = None


class Provider(Struct, frozen=True, kw_only=True):
    """One back end, with every default filled in."""

    name: str
    type: str
    base_url: str | None = None
    keys: tuple[Secret, ...] = ()
    """Rotated. Empty: none is needed, or the client's own is sent."""
    client_key: bool = False
    """Forwards the client's own credentials."""
    zone: Zone = "public"
    region: str | None = None
    labels: frozenset[str] | None = None
    models: Mapping[str, ModelFacts] = {}
    """By name or glob, with the provider's own facts filled in. Once there is one, no other model may be
    asked for."""
    engine: Engine = "litellm"
    api: Literal["chat", "responses"] | None = None
    """`None`: Responses for the models that reason, where the provider is known to have it."""
    headers: Mapping[str, str] = {}
    forward: tuple[str, ...] = ()
    """Client headers that are passed on, in lower case."""
    proxy: str | None = None
    ca_file: str | None = None
    supports: frozenset[str] = frozenset()
    mid_system: Literal["keep", "user"] | None = None
    without_vision: Literal["placeholder", "refuse"] | None = None
    options: Mapping[str, Any] = {}
    litellm_params: Mapping[str, Any] = {}
    spellings: frozenset[str] = frozenset()
    """The names, in lower case, by which a URL may mean this provider besides its own."""
    prefixes: tuple[str, ...] = ()
    """What `NAME/*` takes off a requested name, in lower case, slash included."""

    @property
    def speaks_messages(self) -> bool:
        return speaks_messages(self.type)

    def own_name_of(self, requested: str) -> str | None:
        """What `NAME/*` asks for: the requested name without this provider's prefix and without `[1m]`.
        `None` if nothing is left of it, or the provider does not have it."""
        lowered = requested.lower()
        prefix = next((prefix for prefix in self.prefixes if lowered.startswith(prefix)), "")
        end = -4 if lowered.endswith("[1m]") else None
        name = requested[len(prefix) : end]
        return name if name and self.admits(name) else None

    def admits(self, model: str) -> bool:
        return not self.models or self._entry(model) is not None

    def lists(self, model: str) -> bool:
        """Whether some entry fits it as it is written."""
        return _first(self.models, model) is not None

    def facts_of(self, model: str) -> ModelFacts:
        """Nothing is known of a model that `models` does not list."""
        if not self.models:
            return ModelFacts(region=self.region, labels=self.labels)
        return self._entry(model) or ModelFacts()

    def _entry(self, model: str) -> ModelFacts | None:
        """Of several that fit, the whole name counts, then the first glob. `None` also where a back end that
        takes capitals for small letters may see an entry of another place: nobody can tell which is meant."""
        if model in self.models:
            return self.models[model]
        entry = _first(self.models, model)
        folded: dict[str, ModelFacts] = {}
        for pattern, facts in self.models.items():
            folded.setdefault(ascii_lower(pattern), facts)
        other = folded.get(ascii_lower(model)) or _first(folded, ascii_lower(model))
        if entry is None or other is None or (entry.region, entry.labels) != (other.region, other.labels):
            return None
        return entry

    def __repr__(self) -> str:
        return f"Provider({self.name}: {self.type})"


def _first(models: Mapping[str, ModelFacts], model: str) -> ModelFacts | None:
    return next((facts for pattern, facts in models.items() if matches(pattern, model)), None)


def speaks_messages(type_name: str) -> bool:
    kind = TYPES.get(type_name)
    return kind is not None and kind.speaks_messages


def compile_provider(
    name: str, table: ProviderTable, report: Report, environ: Mapping[str, str], allow_literal_keys: bool
) -> Provider | None:
    """The provider that a table describes. `None`, with a problem reported, if its type isn't known."""
    path: KeyPath = ("providers", name)
    if bad := sorted(set(name) & {*"/: \t", *WILD}):
        report.error(Code.WRONG_VALUE, path, f"a provider's name can't contain {one_of(bad)}", key=True)
    type_name = table.type or name
    kind = provider_type(type_name)
    if kind is None:
        if not report.faulty((*path, "type")):
            _unknown_type(type_name, table, report, path)
        return None
    reader = _TableReader(name, type_name, kind, table, report, environ, allow_literal_keys)
    return reader.provider()


def secret(value: str, environ: Mapping[str, str]) -> Secret:
    if value == "none":
        return Secret("none")
    scheme, colon, name = value.partition(":")
    if colon and scheme == "env":
        return Secret("env", name, environ.get(name) or None)
    if colon and scheme == "file":
        return Secret("file", name)
    return Secret("literal", value=value)


def read_secret(
    value: str,
    path: KeyPath,
    report: Report,
    environ: Mapping[str, str],
    allow_literal_keys: bool,
    expected: str = '`"env:NAME"`, `"file:PATH"` or `"none"`',
) -> Secret:
    """The secret that `value` refers to; reports what must not stand in a file and what isn't there."""
    found = secret(value, environ)
    if found.kind == "literal" and not allow_literal_keys:
        report.error(
            Code.LITERAL_SECRET,
            path,
            "a key does not belong in this file",
            expected=expected,
            hint="--allow-literal-keys accepts it all the same",
        )
    elif found.kind in {"env", "file"} and not found.name:
        report.error(Code.EMPTY, path, f"a name is missing after `{found.kind}:`")
    elif found.unset:
        report.warn(Code.UNSET_VARIABLE, path, f"the variable `{found.name}` is not set")
    return found


def _unknown_type(type_name: str, table: ProviderTable, report: Report, path: KeyPath) -> None:
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


class _TableReader:
    """One provider's table, with what is known of its type at hand."""

    def __init__(
        self,
        name: str,
        type_name: str,
        kind: ProviderType,
        table: ProviderTable,
        report: Report,
        environ: Mapping[str, str],
        allow_literal_keys: bool,
    ) -> None:
        self.name = name
        self.type = type_name
        self.kind = kind
        self.table = table
        self.report = report
        self.environ = environ
        self.allow_literal_keys = allow_literal_keys
        self.path: KeyPath = ("providers", name)

    def provider(self) -> Provider:
        table, kind = self.table, self.kind
        self._check_keys_of_type()
        self._check_engine()
        names = frozenset({self.type, *kind.spellings})
        prefixes = {self.name.lower(), *names} - set(kind.vendor_prefixes)
        return Provider(
            name=self.name,
            type=self.type,
            base_url=self._base_url(),
            keys=self._keys(),
            client_key=table.api_key == "client",
            zone=table.zone or ("public" if table.base_url else kind.zone),
            region=table.region,
            labels=_labels(table.labels),
            models={pattern: self._model(model) for pattern, model in (table.models or {}).items()},
            engine=self._engine(),
            api=table.api,
            headers=self._headers(),
            forward=tuple(header.lower() for header in table.forward or ()),
            proxy=table.proxy,
            ca_file=table.ca_file,
            supports=frozenset(table.supports or ()),
            mid_system=table.mid_system,
            without_vision=table.without_vision,
            options={
                option: value for option in kind.options if (value := getattr(table, option)) is not None
            },
            litellm_params=table.litellm_params or {},
            spellings=names,
            prefixes=tuple(
                sorted((f"{prefix}/" for prefix in prefixes), key=lambda prefix: (-len(prefix), prefix))
            ),
        )

    def _model(self, table: ModelTable) -> ModelFacts:
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
                report.error(Code.NOT_FOR_TYPE, (*path, key), message, hint=_elsewhere(kind), key=True)
        for key in ("base_url", "api_key", "headers", "forward", "proxy", "ca_file"):
            if getattr(table, key) is None:
                continue
            if kind.in_process:
                message = f"type {self.type} contacts nobody, so it has no `{key}`"
                report.error(Code.NOT_FOR_TYPE, (*path, key), message, key=True)
            elif key in {"proxy", "ca_file"} and not kind.own_client and self._engine() != "direct":
                message = f"`{key}` can't be enforced for type {self.type}: its connections are LiteLLM's"
                report.error(Code.NOT_FOR_TYPE, (*path, key), message, key=True)
        if kind.speaks_messages:
            for key in ("transforms", "supports", "mid_system", "without_vision", "litellm_params"):
                if getattr(table, key) is not None:
                    self._warn_of_pass_through(key)
        for index, header in enumerate(table.forward or ()):
            if header.lower() in FORBIDDEN_HEADERS:
                message = f"`{header}` is never passed on"
                report.error(Code.FORBIDDEN, (*path, "forward", index), message)

    def _engine(self) -> Engine:
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
        if key == "transforms" and self.table.transforms and only_model_name(self.table.transforms):
            return
        message = f"`{key}` has no effect here: type {self.type} gets Messages as they are"
        self.report.warn(Code.NO_EFFECT, (*self.path, key), message, key=True)

    def _base_url(self) -> str | None:
        written = self.table.base_url
        path = (*self.path, "base_url")
        if written is None:
            self._check_moved()
            return self.kind.base_url
        url = written
        if written.startswith("env:"):
            if self.table.zone is None and not self.report.faulty((*self.path, "zone")):
                message = "an address from a variable needs a `zone`: nobody can see from here where it leads"
                self.report.error(
                    Code.MISSING, path, message, expected='`zone = "local"`, `"private"` or `"public"`'
                )
            url = self._variable(written, path)
            if not url:
                return None
        problem = _url_problem(url)
        if problem:
            self.report.error(
                Code.WRONG_VALUE, path, f"`base_url` {problem}", expected="`https://host…` or `http://host…`"
            )
        return url.rstrip("/")

    def _check_moved(self) -> None:
        """LiteLLM takes the address of a type of its own from the environment, where the rules give none."""
        if self.type in TYPES or self.table.zone is not None or self.report.faulty((*self.path, "zone")):
            return
        known = self.type.upper().replace("-", "_")
        variables = (f"{name}_API_BASE" for name in (known, known.removesuffix("_AI")))
        if name := next((name for name in variables if self.environ.get(name)), None):
            message = f"the variable `{name}` says where it is, so its `zone` must be said"
            expected = '`zone = "local"`, `"private"` or `"public"`, or a `base_url`'
            self.report.error(Code.MISSING, self.path, message, expected=expected, key=True)

    def _headers(self) -> Mapping[str, str]:
        return {
            name.lower(): self._variable(value, (*self.path, "headers", name))
            if value.startswith("env:")
            else value
            for name, value in (self.table.headers or {}).items()
        }

    def _variable(self, reference: str, path: KeyPath) -> str:
        name = reference.removeprefix("env:")
        value = self.environ.get(name, "")
        if not value:
            self.report.error(Code.UNDEFINED, path, f"the variable `{name}` is not set")
        return value

    def _keys(self) -> tuple[Secret, ...]:
        written = self.table.api_key
        path = (*self.path, "api_key")
        if written == "client":
            if self.type != "anthropic":
                message = f"the client's own login is for Anthropic: type {self.type} can't have it"
                self.report.error(Code.NOT_FOR_TYPE, path, message)
            return ()
        if written is None:
            return self._usual_key()
        if isinstance(written, str):
            found = read_secret(written, path, self.report, self.environ, self.allow_literal_keys)
            return () if found.kind == "none" else (found,)
        keys = []
        for index, value in enumerate(written):
            if value in {"none", "client"}:
                self.report.error(
                    Code.CONTRADICTION, (*path, index), f'"{value}" can\'t stand in a list of keys'
                )
            else:
                keys.append(
                    read_secret(value, (*path, index), self.report, self.environ, self.allow_literal_keys)
                )
        return tuple(keys)

    def _usual_key(self) -> tuple[Secret, ...]:
        variables = self.kind.key_variables
        if not variables or self.report.faulty((*self.path, "api_key")):
            return ()
        name = next((name for name in variables if self.environ.get(name)), variables[0])
        found = secret(f"env:{name}", self.environ)
        if found.unset:
            self.report.warn(
                Code.UNSET_VARIABLE,
                self.path,
                f"provider `{self.name}` has no key: {' or '.join(variables)} is not set",
                hint='`api_key = "none"` says that it needs none',
                key=True,
            )
        return (found,)


FORBIDDEN_HEADERS = frozenset({"authorization", "x-api-key", "cookie"})


def _labels(written: Strings | None) -> frozenset[str] | None:
    return frozenset(listed(written)) if written is not None else None


def only_model_name(transforms: Any) -> bool:
    """Whether nothing is asked for that a pass-through can't do."""
    return all(
        getattr(transforms, name) is None for name in transforms.__struct_fields__ if name != "model_name"
    )


def _elsewhere(kind: ProviderType) -> str | None:
    return "what LiteLLM takes besides stands under `litellm_params`" if "litellm" in kind.engines else None


def _url_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        port_is_sound = parts.port is None or parts.port > 0
    except ValueError as error:
        return f"is not an address: {error}"
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_sound:
        return "is not an address"
    if parts.username or parts.password:
        return "holds a password: write it as `api_key`"
    if parts.fragment or parts.query:
        return "can't have a `?` or `#` part"
    return None
