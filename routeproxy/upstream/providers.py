"""How LiteLLM wants each provider: its name for it, what it takes for the address, and where our options go. Data, with its reasons."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from routeproxy.policy.decide import Provider, Target
from routeproxy.upstream.params import merged

NO_KEY = "routeproxy-no-key"
"""Given to LiteLLM where there is no key, so that it does not look for one in the environment. Never sent."""


def _as_written(base_url: str) -> str:
    return base_url


def _gemini(base_url: str) -> str:
    """LiteLLM appends `/models/…` itself, so the version must be there."""
    return base_url if "/v1" in base_url else f"{base_url}/v1beta"


def _root(base_url: str) -> str:
    """Ollama's own API is beside its OpenAI-compatible one, which people also write down."""
    return base_url.removesuffix("/v1").removesuffix("/api")


class Manner(Struct, frozen=True, kw_only=True):
    name: str
    """LiteLLM's."""
    address: Callable[[str], str] = _as_written
    arguments: Mapping[str, str] = {}
    """Our option → LiteLLM's argument."""
    body: Mapping[str, tuple[str, ...]] = {}
    """Our option → its place in the body, for what LiteLLM drops or knows under no name."""
    sends_key: bool = False
    """The key goes out as it is, in a header: so no header with another credential may."""
    anonymous: str | None = NO_KEY
    """What LiteLLM gets for a key where there is none."""
    responses: Literal["never", "if needed", "by prefix"] = "if needed"
    without_fallback: Mapping[str, Any] = {}
    """Laid over the body when the rule forbids fallback: a provider that falls back by itself must not. `None` takes a field out."""

    def body_of(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        body: Mapping[str, Any] = {}
        for option, place in self.body.items():
            if option in options:
                value: Any = options[option]
                for name in reversed(place):
                    value = {name: value}
                body = merged(body, value)
        return body
