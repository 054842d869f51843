"""How each kind of back end is spoken to: where its chat is, how it takes a key, and where our options go in
the body. Data, with its sources; whoever speaks, we ourselves or LiteLLM, goes by it."""

from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from routeproxy.policy.providers import Provider
from routeproxy.upstream.params import merged

AZURE_VERSION = "2025-02-01-preview"
"""What is asked of Azure where the rules name no version: LiteLLM 1.110.2's default, for answers that don't
depend on who asks."""

Path = Literal["chat/completions", "responses", "generateContent", "streamGenerateContent"]


def _as_written(provider: Provider, deployment: str, path: Path) -> str:
    return f"{provider.base_url}/{path}"


def _azure(provider: Provider, deployment: str, path: Path) -> str:
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


def _ollama(provider: Provider, deployment: str, path: Path) -> str:
    """Its own API stands beside its OpenAI-compatible one, which people also write down."""
    base = (provider.base_url or "").removesuffix("/v1").removesuffix("/api")
    return f"{base}/api/chat"


def _gemini(provider: Provider, model: str, path: Path) -> str:
    """The version may be left out of `base_url`. A stream has to be asked for as events."""
    base = provider.base_url or ""
    base = base if "/v1" in base else f"{base}/v1beta"
    name = quote(model.removeprefix("models/"), safe="")
    return f"{base}/models/{name}:{path}{'?alt=sse' if path == 'streamGenerateContent' else ''}"


class Endpoint(Struct, frozen=True, kw_only=True):
    url: Callable[[Provider, str, Path], str] = _as_written
    """`base_url`, which is what that provider's own documentation calls so, and the deployment → the
    address."""
    key_header: str = "authorization"
    key_prefix: str = "Bearer "
    body: Mapping[str, tuple[str, ...]] = {}
    """Our option → its place in the body."""
    without_fallback: Mapping[str, Any] = {}
    """Laid over the body when the rule forbids fallback: a provider that falls back by itself must not.
    `None` takes a field out."""
    limits: tuple[str, ...] = ()
    """Under which prefixes LiteLLM's table has this provider's models."""

    def credentials(self, key: str) -> tuple[str, str]:
        return self.key_header, f"{self.key_prefix}{key}"

    def additions(self, provider: Provider, extra_body: Mapping[str, Any], *, fallback: bool) -> list[Any]:
        """What the rules add to a body."""
        said = [self._of_options(provider.options), extra_body]
        return [addition for addition in [*said, *([] if fallback else [self.without_fallback])] if addition]

    def _of_options(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        body: Mapping[str, Any] = {}
        for option, place in self.body.items():
            if option in options:
                value: Any = options[option]
                for name in reversed(place):
                    value = {name: value}
                body = merged(body, value)
        return body


_CHAT = Endpoint()
_ENDPOINTS: Mapping[str, Endpoint] = {
    "openai": replace(_CHAT, limits=("",)),
    "azure": replace(_CHAT, url=_azure, key_header="api-key", key_prefix="", limits=("azure/", "")),
    "together_ai": replace(_CHAT, limits=("together_ai/",)),
    "nvidia_nim": replace(_CHAT, limits=("nvidia_nim/",)),
    "openrouter": replace(
        _CHAT,
        limits=("openrouter/",),
        # openrouter.ai/docs/features/provider-routing and /model-routing
        without_fallback={"provider": {"allow_fallbacks": False}, "models": None, "route": None},
    ),
    "ollama": replace(
        _CHAT,
        url=_ollama,
        # docs.ollama.com/api/chat: `options` are the model's, `keep_alive` is the server's
        body={"num_ctx": ("options", "num_ctx"), "keep_alive": ("keep_alive",)},
        limits=("ollama/",),
    ),
    "gemini": Endpoint(url=_gemini, key_header="x-goog-api-key", key_prefix="", limits=("gemini/",)),
    "vertex_ai": Endpoint(limits=("vertex_ai/", "")),
}


def endpoint_of(provider: Provider) -> Endpoint:
    return _ENDPOINTS.get(provider.type) or Endpoint(limits=(f"{provider.type}/",))


_fields = msgspec.json.Decoder(dict[str, Raw])


def with_additions(body: bytes, additions: list[Any]) -> bytes:
    """`body` with each of them laid over it. What they don't touch stays as it is, byte for byte."""
    if not additions:
        return body
    fields: dict[str, Any] = dict(_fields.decode(body))
    for addition in additions:
        for name, value in addition.items():
            there = fields.get(name)
            if isinstance(there, Raw):
                there = msgspec.json.decode(there)
            # A field that is taken out stands as `None` in the table.
            fields[name] = merged(there, value)
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
