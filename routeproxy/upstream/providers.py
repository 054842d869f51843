"""How LiteLLM wants each provider: its name for it, what it takes for the address, and where our options go. Data, with its reasons."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from msgspec import Struct

from routeproxy.policy.decide import Provider
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


_MANNERS: Mapping[str, Manner] = {
    "openai": Manner(name="openai", sends_key=True),
    # `custom_openai` has no opinion of any model's name, where `openai` reads its own models' rules into a gateway's `gpt-5`.
    "openai_compatible": Manner(name="custom_openai", sends_key=True, responses="never"),
    "azure": Manner(
        name="azure", sends_key=True, arguments={"api_version": "api_version"}, responses="by prefix"
    ),
    "gemini": Manner(name="gemini", sends_key=True, address=_gemini),
    "vertex_ai": Manner(
        name="vertex_ai",
        anonymous=None,
        arguments={"project": "vertex_project", "location": "vertex_location", "credentials": "vertex_credentials"},
    ),
    "together_ai": Manner(name="together_ai", sends_key=True),
    "ollama": Manner(
        name="ollama_chat",
        sends_key=True,
        address=_root,
        body={"num_ctx": ("options", "num_ctx"), "keep_alive": ("keep_alive",)},
    ),
    "nvidia_nim": Manner(name="nvidia_nim", sends_key=True),
    "openrouter": Manner(
        name="openrouter",
        sends_key=True,
        without_fallback={"provider": {"allow_fallbacks": False}, "models": None, "route": None},
    ),
    "bedrock": Manner(
        name="bedrock",
        anonymous=None,
        arguments={"aws_region_name": "aws_region_name", "aws_profile_name": "aws_profile_name"},
    ),
    "sagemaker_chat": Manner(
        name="sagemaker_chat",
        anonymous=None,
        arguments={"aws_region_name": "aws_region_name", "aws_profile_name": "aws_profile_name"},
    ),
}
_SIGN_IN_BY_OTHER_MEANS = frozenset(
    "bedrock_mantle chatgpt gdc github_copilot oci sagemaker sagemaker_nova sap vertex_ai_beta".split()
)


def manner_of(provider: Provider) -> Manner:
    known = _MANNERS.get(provider.type)
    if known is not None:
        return known
    return Manner(name=provider.type, anonymous=None if provider.type in _SIGN_IN_BY_OTHER_MEANS else NO_KEY)
