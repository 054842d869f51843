"""The types of providers, as data: where each is reached, with which key, by which engine. What a rules file
makes of a type is not decided here."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from routeproxy.policy import litellm_types

Zone = Literal["local", "private", "public"]
"""Where the bytes of a request go."""

Engine = Literal["direct", "litellm"]
"""Who speaks to a provider: our own adapter, or LiteLLM."""


class ProviderType(Struct, frozen=True, kw_only=True):
    """What all providers of a type have in common."""

    base_url: str | None = None
    """The public address, as the provider's own documentation gives it."""
    key_variables: tuple[str, ...] = ()
    """The variables in which a key usually stands; the first that is set counts. Empty: no key is needed."""
    zone: Zone = "public"
    engines: tuple[Engine, ...] = ("litellm",)
    """The engines that can speak to it; the first does unless the rules name another."""
    direct_models: str | None = None
    """The models, as a glob in lower case, that our own adapter can speak to where it can't speak to all: the
    others are LiteLLM's. `None`: all."""
    required: tuple[str, ...] = ()
    """The keys that a table of this type needs."""
    options: tuple[str, ...] = ()
    """The keys that a table of this type may have, and of some other types may not."""
    spellings: tuple[str, ...] = ()
    """Other prefixes by which clients and URLs name this type."""
    vendor_prefixes: tuple[str, ...] = ()
    """Prefixes that belong to this provider's own names of models, and are never taken off."""
    own_client: bool = False
    """Whether the HTTP client is ours with every engine, so that `proxy` and `ca_file` take effect."""
    in_process: bool = False
    """Answers by itself: no address, no key, no headers."""
    responses: bool = False
    """Whether `api = "responses"` can be had."""
    at_one_address: bool = False
    """No `base_url` moves it."""
    speaks_messages: bool = False
    """Takes Messages as they are: nothing is translated on the way."""


CHAT: tuple[Engine, ...] = ("direct", "litellm")
"""Of types that speak a format of ours: OpenAI's chat completions, Ollama's or Gemini's."""

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
        engines=CHAT,
        base_url="https://generativelanguage.googleapis.com/v1beta",
        key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        spellings=("google",),
        own_client=True,
    ),
    "vertex_ai": ProviderType(
        engines=CHAT,
        direct_models="gemini-*",
        required=("project", "location"),
        options=("project", "location", "credentials"),
        spellings=("vertex", "google"),
        own_client=True,
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
    "vertex_ai_beta": ProviderType(
        required=("project", "location"), options=("project", "location", "credentials")
    ),
    **dict.fromkeys(
        litellm_types.AWS,
        # Where it is not said, LiteLLM takes it out of the environment, AWS's files, or the air.
        ProviderType(required=("aws_region_name",), options=("aws_region_name", "aws_profile_name")),
    ),
}

_PLAIN_CHAT: Mapping[str, ProviderType] = {
    "gradient_ai": ProviderType(
        engines=CHAT,
        base_url="https://inference.do-ai.run/v1",
        key_variables=("GRADIENT_AI_API_KEY",),
        own_client=True,
    ),
    "featherless_ai": ProviderType(
        engines=CHAT,
        base_url="https://api.featherless.ai/v1",
        key_variables=("FEATHERLESS_AI_API_KEY",),
        own_client=True,
    ),
    "amazon_nova": ProviderType(
        engines=CHAT,
        base_url="https://api.nova.amazon.com/v1",
        key_variables=("AMAZON_NOVA_API_KEY",),
        own_client=True,
    ),
    "maritalk": ProviderType(
        engines=CHAT,
        base_url="https://chat.maritaca.ai/api",
        key_variables=("MARITALK_API_KEY",),
        own_client=True,
    ),
    "oobabooga": ProviderType(engines=CHAT, required=("base_url",), own_client=True),
    "vllm": ProviderType(engines=CHAT, required=("base_url",), own_client=True),
    "openai_like": ProviderType(engines=CHAT, required=("base_url",), own_client=True),
}
"""Of LiteLLM's names those of back ends that speak plain chat completions, and that LiteLLM can't ask: it
refuses every request, or tools, or asks by a client of its own, past our proxies and zones."""


def provider_type(name: str) -> ProviderType | None:
    """The type of this name; `None` if there is none."""
    if name in TYPES:
        return TYPES[name]
    if name in _PLAIN_CHAT:
        return _PLAIN_CHAT[name]
    if name not in litellm_types.NAMES:
        return None
    return ProviderType(
        base_url=litellm_types.ADDRESSES.get(name),
        required=("base_url",) if name in litellm_types.WITHOUT_ADDRESS else (),
        key_variables=litellm_types.key_variables(name),
        zone="local" if name in litellm_types.ON_THIS_MACHINE else "public",
        at_one_address=name in litellm_types.AT_ONE_ADDRESS,
    )


TYPE_NAMES: tuple[str, ...] = (*TYPES, *_PLAIN_CHAT, *litellm_types.NAMES)


def speaks_messages(type_name: str) -> bool:
    """Whether providers of this type take Messages as they are."""
    kind = TYPES.get(type_name)
    return kind is not None and kind.speaks_messages


def direct_models(type_name: str) -> str | None:
    """The models that our own adapter can speak to, as a glob; `None`: all, or none."""
    kind = TYPES.get(type_name)
    return kind.direct_models if kind is not None else None
