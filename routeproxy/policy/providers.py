"""Providers as they are compiled: one back end each, what is known of its models, every default filled in."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from routeproxy.policy.facts import ascii_lower
from routeproxy.policy.health import HealthSettings
from routeproxy.policy.patterns import matches
from routeproxy.policy.prices import Prices
from routeproxy.policy.provider_types import Engine, Zone, direct_models, speaks_messages
from routeproxy.policy.secrets import SECRET_NAME, Secret


class ModelFacts(Struct, frozen=True, kw_only=True):
    """What is known of a model at its provider. `None`: it is not stated."""

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
    """Of the models that it can speak to: `engine_of` says which one a model has."""
    api: Literal["chat", "responses"] | None = None
    """`None`: Responses for the models that reason, where the provider is known to have it."""
    headers: Mapping[str, str] = {}
    secret_headers: frozenset[str] = frozenset()
    """Those whose values stand elsewhere: nobody is shown them."""
    forward: tuple[str, ...] = ()
    """Client headers that are passed on, in lower case."""
    proxy: str | None = None
    ca_file: str | None = None
    supports: frozenset[str] = frozenset()
    mid_system: Literal["keep", "user"] | None = None
    without_vision: Literal["placeholder", "refuse"] | None = None
    health: HealthSettings | None = HealthSettings()
    """`None`: nothing is remembered of its failures."""
    max_concurrent: int | None = None
    """How many requests it has at once at most, over all workers of a server."""
    prices: tuple[Prices, ...] = ()
    """In the order of the file. What its models cost has no part in what becomes of a request."""
    discount: Decimal = Decimal(0)
    """The part of a computed price that is not asked for."""
    options: Mapping[str, Any] = {}
    litellm_params: Mapping[str, Any] = {}
    secret_params: frozenset[str] = frozenset()
    """Those of `litellm_params` whose values stand elsewhere."""
    spellings: frozenset[str] = frozenset()
    """The names, in lower case, by which a URL may mean this provider besides its own."""
    prefixes: tuple[str, ...] = ()
    """What `NAME/*` takes off a requested name, in lower case, slash included."""

    @property
    def speaks_messages(self) -> bool:
        return speaks_messages(self.type)

    def engine_of(self, model: str) -> Engine:
        """Who speaks to this model; of `*`, whoever may have to."""
        spoken = direct_models(self.type)
        if self.engine == "direct" and spoken is not None and not matches(spoken, ascii_lower(model)):
            return "litellm"
        return self.engine

    @property
    def secret_values(self) -> tuple[str, ...]:
        """What nobody is shown besides keys, with and without a scheme before it: `Bearer abc`, `abc`. Those
        of a variable, and those whose names say what they are."""
        values = [
            text for name, text in sorted(self.headers.items()) if _is_secret(name, self.secret_headers)
        ]
        values += [
            text
            for name, text in sorted(self.litellm_params.items())
            if isinstance(text, str) and _is_secret(name, self.secret_params)
        ]
        if self.proxy and (password := urlsplit(self.proxy).password):
            values.append(unquote(password))
        return tuple(part for value in values for part in (value, value.rpartition(" ")[2]) if part)

    def own_name_of(self, requested: str) -> str | None:
        """What `NAME/*` asks for: the requested name without this provider's prefix and without `[1m]`.
        `None` if nothing is left of it, or the provider does not have it."""
        lowered = requested.lower()
        prefix = next((prefix for prefix in self.prefixes if lowered.startswith(prefix)), "")
        end = -4 if lowered.endswith("[1m]") else None
        name = requested[len(prefix) : end]
        return name if name and self.admits(name) else None

    def admits(self, model: str) -> bool:
        """Whether it may be asked for this model."""
        return not self.models or self._entry(model) is not None

    def lists(self, model: str) -> bool:
        """Whether some entry of `models` fits this name as it is written."""
        return _first(self.models, model) is not None

    def facts_of(self, model: str) -> ModelFacts:
        """What is known of a model: nothing, if `models` has entries and none of them fits."""
        if not self.models:
            return ModelFacts(region=self.region, labels=self.labels)
        return self._entry(model) or ModelFacts()

    def _entry(self, model: str) -> ModelFacts | None:
        """The entry of a model: that of its whole name, else of the first glob that fits. `None` also where a
        back end that takes capitals for small letters may see an entry of another place: nobody can tell
        which is meant."""
        if model in self.models:
            return self.models[model]
        entry = _first(self.models, model)
        folded: dict[str, ModelFacts] = {}
        for pattern, facts in self.models.items():
            folded.setdefault(ascii_lower(pattern), facts)
        lowered = folded.get(ascii_lower(model)) or _first(folded, ascii_lower(model))
        if entry is None or lowered is None:
            return None
        return entry if (entry.region, entry.labels) == (lowered.region, lowered.labels) else None

    def __repr__(self) -> str:
        return f"Provider({self.name}: {self.type})"


def _is_secret(name: str, known: frozenset[str]) -> bool:
    return name in known or SECRET_NAME.search(name) is not None


def _first(models: Mapping[str, ModelFacts], model: str) -> ModelFacts | None:
    return next((facts for pattern, facts in models.items() if matches(pattern, model)), None)
