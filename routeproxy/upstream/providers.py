"""How LiteLLM wants each provider: its name for it, what it takes for the address, and where our options go. Data, with its reasons."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from routeproxy.policy.decide import Provider
from routeproxy.upstream.params import merged

NO_KEY = "routeproxy-no-key"
"""Given to LiteLLM where there is no key, so that it does not look for one in the environment. Never sent."""


def _as_written(base_url: str) -> Mapping[str, str]:
    return {"api_base": base_url}


def _gemini(base_url: str) -> Mapping[str, str]:
    """LiteLLM appends `/models/…` itself, so the version must be there."""
    return {"api_base": base_url if "/v1" in base_url else f"{base_url}/v1beta"}


def _ollama(base_url: str) -> Mapping[str, str]:
    """Its own API is beside its OpenAI-compatible one, which people also write down."""
    return {"api_base": base_url.removesuffix("/v1").removesuffix("/api")}


def _azure(base_url: str) -> Mapping[str, str]:
    """A resource, a deployment, or the newer API that has no versions, which LiteLLM takes for one."""
    resource, v1, _ = base_url.partition("/openai/v1")
    return {"api_base": resource, "api_version": "v1"} if v1 else {"api_base": base_url}


class Manner(Struct, frozen=True, kw_only=True):
    name: str
    """LiteLLM's."""
    address: Callable[[str], Mapping[str, str]] = _as_written
    """`base_url`, which is what that provider's own documentation calls so → LiteLLM's arguments."""
    arguments: Mapping[str, str] = {}
    """Our option → LiteLLM's argument."""
    body: Mapping[str, tuple[str, ...]] = {}
    """Our option → its place in the body, for what LiteLLM drops or knows under no name."""
    sends_key: bool = False
    """The key goes out as it is, in a header: so no header with another credential may."""
    anonymous: str | None = NO_KEY
    """What LiteLLM gets for a key where there is none."""
    over_responses: str = ""
    """The name under which LiteLLM goes over Responses where a model needs that. None: it never does."""
    limits: tuple[str, ...] = ()
    """Under which prefixes LiteLLM's table has this provider's models."""
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
    # `custom_openai` is OpenAI's protocol without an opinion: under `openai` LiteLLM makes the system prompt of an `o3` a user's turn,
    # and reads its own models' rules into a gateway's `gpt-5`.
    "openai": Manner(name="custom_openai", sends_key=True, over_responses="openai", limits=("",)),
    "openai_compatible": Manner(name="custom_openai", sends_key=True),
    "azure": Manner(
        name="azure",
        sends_key=True,
        address=_azure,
        arguments={"api_version": "api_version"},
        over_responses="azure",
        limits=("azure/", ""),
    ),
    "gemini": Manner(name="gemini", sends_key=True, address=_gemini, limits=("gemini/",)),
    "vertex_ai": Manner(
        name="vertex_ai",
        anonymous=None,
        limits=("vertex_ai/", ""),
        arguments={"project": "vertex_project", "location": "vertex_location", "credentials": "vertex_credentials"},
    ),
    "together_ai": Manner(name="together_ai", sends_key=True, limits=("together_ai/",)),
    "ollama": Manner(
        name="ollama_chat",
        sends_key=True,
        address=_ollama,
        body={"num_ctx": ("options", "num_ctx"), "keep_alive": ("keep_alive",)},
    ),
    "nvidia_nim": Manner(name="nvidia_nim", sends_key=True),
    "openrouter": Manner(
        name="openrouter",
        limits=("openrouter/",),
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
    return Manner(name=provider.type, limits=(f"{provider.type}/",), anonymous=None if provider.type in _SIGN_IN_BY_OTHER_MEANS else NO_KEY)
