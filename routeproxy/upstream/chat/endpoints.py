"""Where each kind of back end has its chat, how it takes a key, and where our options go in a body. Data,
with its sources; it holds whoever speaks, we ourselves or LiteLLM."""

from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from routeproxy.exchange import Call
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Target
from routeproxy.upstream.params import merge

AZURE_VERSION = "2025-02-01-preview"
"""What Azure is asked for where the rules name no version: LiteLLM's default, for answers that don't depend
on who asks."""

Path = Literal["chat/completions", "responses", "generateContent", "streamGenerateContent"]


def _url_as_written(provider: Provider, deployment: str, path: Path) -> str:
    return f"{provider.base_url}/{path}"


def _versioned_url(provider: Provider, deployment: str, path: Path) -> str:
    """The version may be left out of `base_url`."""
    base = provider.base_url or ""
    return f"{base if '/v1' in base else f'{base}/v1'}/{path}"


def _azure_url(provider: Provider, deployment: str, path: Path) -> str:
    """`base_url` is a resource, a deployment, or the newer API that has no versions
    (learn.microsoft.com/azure/ai-services/openai/reference)."""
    base = (provider.base_url or "").removesuffix("/")
    resource, v1, _ = base.partition("/openai/v1")
    if v1:
        return f"{resource}/openai/v1/{path}"
    version = f"?api-version={provider.options.get('api_version', AZURE_VERSION)}"
    resource, named, rest = base.partition("/openai/deployments/")
    resource = resource.removesuffix("/openai")
    if path == "responses":  # that one takes the deployment as the model
        return f"{resource}/openai/responses{version}"
    deployment = rest if named else deployment
    return f"{resource}/openai/deployments/{deployment}/{path}{version}"


def _ollama_url(provider: Provider, deployment: str, path: Path) -> str:
    """Its own API stands beside its OpenAI-compatible one, which people also write down."""
    base = (provider.base_url or "").removesuffix("/v1").removesuffix("/api")
    return f"{base}/api/chat"


def _gemini_url(provider: Provider, model: str, path: Path) -> str:
    """The version may be left out of `base_url`. A stream has to be asked for as events."""
    base = provider.base_url or ""
    base = base if "/v1" in base else f"{base}/v1beta"
    return f"{base}/models/{_gemini_method(model.removeprefix('models/'), path)}"


def _gemini_method(model: str, path: Path) -> str:
    return f"{quote(model, safe='@')}:{path}{'?alt=sse' if path == 'streamGenerateContent' else ''}"


def _vertex_url(provider: Provider, model: str, path: Path) -> str:
    """Below the host of its location; of a `base_url`, the version may be left out."""
    location, project = (str(provider.options.get(option, "")) for option in ("location", "project"))
    base = provider.base_url or vertex_host(location)
    base = base if "/v1" in base else f"{base}/v1"
    place = f"projects/{quote(project, safe=':')}/locations/{quote(location, safe='')}"
    return f"{base}/{place}/publishers/google/models/{_gemini_method(model, path)}"


def vertex_host(location: str) -> str:
    """cloud.google.com/vertex-ai/generative-ai/docs/learn/locations: a region, `global`, or one of the
    multi-regions (`us`, `eu`), which have hosts of their own."""
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if "-" not in location:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


class Endpoint(Struct, frozen=True, kw_only=True):
    """How one kind of back end is addressed."""

    url: Callable[[Provider, str, Path], str] = _url_as_written
    """The provider with its `base_url`, which is what that provider's own documentation calls so, the
    deployment and the path → the address."""
    key_header: str = "authorization"
    key_prefix: str = "Bearer "
    signs_in_to_google: bool = False
    """Where there is no key, a token of Google Cloud is shown."""
    always: Mapping[str, Any] = {}
    """Laid over each body, before what the rules say."""
    option_places: Mapping[str, tuple[str, ...]] = {}
    """Our option → its place in the body."""
    without_fallback: Mapping[str, Any] = {}
    """Laid over the body when the rule forbids fallback: a provider that falls back by itself must not.
    `None` takes a field out."""

    def credentials(self, key: str) -> dict[str, str]:
        """The header that holds the key."""
        return {self.key_header: f"{self.key_prefix}{key}"}


_CHAT = Endpoint()
_ENDPOINTS: Mapping[str, Endpoint] = {
    "azure": Endpoint(url=_azure_url, key_header="api-key", key_prefix=""),
    "openrouter": Endpoint(
        # openrouter.ai/docs/features/provider-routing and /model-routing
        without_fallback={"provider": {"allow_fallbacks": False}, "models": None, "route": None},
    ),
    "oobabooga": Endpoint(url=_versioned_url),
    "ollama": Endpoint(
        url=_ollama_url,
        # server/routes.go, ChatRequest: otherwise what does not fit is cut off, and nobody hears of it
        always={"truncate": False},
        # docs.ollama.com/api/chat: `options` are the model's, `keep_alive` is the server's
        option_places={"num_ctx": ("options", "num_ctx"), "keep_alive": ("keep_alive",)},
    ),
    "gemini": Endpoint(url=_gemini_url, key_header="x-goog-api-key", key_prefix=""),
    "vertex_ai": Endpoint(url=_vertex_url, signs_in_to_google=True),
    "vertex_ai_beta": Endpoint(signs_in_to_google=True),
    "nlp_cloud": Endpoint(key_prefix="Token "),
    "replicate": Endpoint(key_prefix="Token "),
    "bytez": Endpoint(key_prefix="Key "),
}


def endpoint_of(provider: Provider) -> Endpoint:
    """That of the provider's type; the usual one where nothing is known of it."""
    return _ENDPOINTS.get(provider.type, _CHAT)


def deployment_of(target: Target) -> str:
    """What the provider calls the model."""
    return str(target.provider.options.get("deployment", target.model))


# --- what the rules add to a body


def with_additions(body: bytes, call: Call, *more: Mapping[str, Any]) -> bytes:
    """`body`, a JSON object, with what the rules add to it and then each of `more` laid over it. What they
    don't touch stays as it is, byte for byte."""
    target, decision = call.target, call.exchange.decision
    endpoint = endpoint_of(target.provider)
    options = _options_in_body(endpoint, target.provider.options)
    additions = [endpoint.always, options, target.params.extra_body]
    if decision is not None and not decision.fallback.enabled:
        additions.append(endpoint.without_fallback)
    additions = [addition for addition in (*additions, *more) if addition]
    return lay_over(body, additions) if additions else body


def _options_in_body(endpoint: Endpoint, options: Mapping[str, Any]) -> Mapping[str, Any]:
    body: Mapping[str, Any] = {}
    for option, place in endpoint.option_places.items():
        if option in options:
            value: Any = options[option]
            for name in reversed(place):
                value = {name: value}
            body = merge(body, value)
    return body


_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def lay_over(body: bytes, additions: list[Mapping[str, Any]]) -> bytes:
    """`body`, a JSON object, with each of `additions` merged into it."""
    fields: dict[str, Any] = dict(_decode_fields(body))
    for addition in additions:
        for name, value in addition.items():
            before = fields.get(name)
            if isinstance(before, Raw):
                before = msgspec.json.decode(before)
            # A field that is taken out stands as `None` in the table.
            fields[name] = merge(before, value)
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
