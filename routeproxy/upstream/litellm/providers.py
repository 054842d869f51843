"""How LiteLLM wants each provider: its name for it, what it takes for the address, and where our options go.
Data, with its reasons."""

from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from routeproxy.policy.litellm_types import AWS as AWS_TYPES
from routeproxy.policy.providers import Provider

NO_KEY = "routeproxy-no-key"
"""Given to LiteLLM in place of a key, so that it does not look for one in the environment. Never sent."""


def _api_base(base_url: str) -> Mapping[str, str]:
    return {"api_base": base_url}


def _gemini_api_base(base_url: str) -> Mapping[str, str]:
    """LiteLLM appends `/models/…` itself, so the version must be there."""
    return {"api_base": base_url if "/v1" in base_url else f"{base_url}/v1beta"}


def _versioned_api_base(base_url: str) -> Mapping[str, str]:
    return {"api_base": base_url if "/v1" in base_url else f"{base_url}/v1"}


def _ollama_api_base(base_url: str) -> Mapping[str, str]:
    """Its own API is beside its OpenAI-compatible one, which people also write down."""
    return {"api_base": base_url.removesuffix("/v1").removesuffix("/api")}


def _slashed_api_base(base_url: str) -> Mapping[str, str]:
    return {"api_base": f"{base_url}/"}


def _azure_api_base(base_url: str) -> Mapping[str, str]:
    """A resource, a deployment, or the newer API that has no versions, which LiteLLM takes for one."""
    resource, v1, _ = base_url.partition("/openai/v1")
    return {"api_base": resource, "api_version": "v1"} if v1 else {"api_base": base_url}


ALLOWED_PARAMS = (
    "max_completion_tokens",
    "max_tokens",
    "parallel_tool_calls",
    "prompt_cache_key",
    "reasoning_effort",
    "response_format",
    "service_tier",
    "stop",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
    "user",
)
"""For a model that is not in its table LiteLLM refuses these, or drops them without a word, unless they are
named."""


class LiteLLMProvider(Struct, frozen=True, kw_only=True):
    """How LiteLLM is to be called for one type of provider."""

    name: str
    """LiteLLM's name for it."""
    address_arguments: Callable[[str], Mapping[str, str]] = _api_base
    """`base_url`, which is what that provider's own documentation calls so → LiteLLM's arguments."""
    option_arguments: Mapping[str, str] = {}
    """Our option → LiteLLM's argument."""
    sends_key: bool = True
    """The key goes out as it is, in a header that we write: LiteLLM never has it, and nothing that it writes
    besides goes out. Else LiteLLM signs in, or makes something of the key."""
    token_param: str = ""
    """The one of `litellm_params` that we show as a bearer's token where there is no key."""
    placeholder_key: str | None = NO_KEY
    """What LiteLLM gets for a key where there is none."""
    verbatim: bool = False
    """Speaks chat completions as we do: our request goes out as it was translated, whatever LiteLLM thinks of
    it."""
    prefixes_models: bool = True
    """A model is asked for as `name/model`, of which LiteLLM takes the first part off. Where it makes
    something else of some models behind its own prefix, the bare name."""
    allowed_params: tuple[str, ...] = ALLOWED_PARAMS
    shows_finish_reason: bool = True
    """Where LiteLLM does the reading: the finish reason can be seen in the bytes of an answer, so one without
    it was cut, whatever LiteLLM says. Else LiteLLM's word counts."""
    hosts: tuple[str, ...] = ()
    """The domains that it is asked at where there is no one address."""
    location: tuple[str, str] | None = None
    """The option that says where it answers, and the pattern that every address then contains: LiteLLM takes
    some models elsewhere."""
    responses_name: str = ""
    """The name under which LiteLLM goes over Responses where a model needs that. Empty: it never does."""

    def key_argument(self, key: str | None) -> str | None:
        """What LiteLLM gets for a key."""
        return self.placeholder_key if self.sends_key or key is None else key


# `custom_openai` is OpenAI's protocol without an opinion. Under their own names LiteLLM reads its table's
# rules into every model: the system prompt of an `o3` becomes a user's turn, a gateway's `gpt-5` loses its
# sampling, Together's new models lose their tools.
_OPENAI = LiteLLMProvider(name="custom_openai", verbatim=True)

_AWS = LiteLLMProvider(
    name="aws",
    sends_key=False,
    shows_finish_reason=False,  # some models' events are in Base64
    placeholder_key=None,
    option_arguments={"aws_region_name": "aws_region_name", "aws_profile_name": "aws_profile_name"},
    hosts=("amazonaws.com", "amazonaws.com.cn", "api.aws"),
    location=("aws_region_name", ".{}."),
)

_VERTEX = LiteLLMProvider(
    name="vertex_ai",
    placeholder_key=None,
    allowed_params=(),
    option_arguments={
        "project": "vertex_project",
        "location": "vertex_location",
        "credentials": "vertex_credentials",
    },
    hosts=("googleapis.com",),
    location=("location", "/locations/{}/"),
)

_SIGNS_IN = LiteLLMProvider(name="signs in", sends_key=False, placeholder_key=None)

_PROVIDERS: Mapping[str, LiteLLMProvider] = {
    "openai": replace(_OPENAI, responses_name="openai"),
    "openai_compatible": _OPENAI,
    "azure": replace(
        _OPENAI,
        name="azure",
        address_arguments=_azure_api_base,
        option_arguments={"api_version": "api_version"},
        token_param="azure_ad_token",
        responses_name="azure",
        # `azure/M` goes to OpenAI's path, with the key as a token, as soon as LiteLLM knows a `mistral/M`.
        prefixes_models=False,
    ),
    "together_ai": _OPENAI,
    "nvidia_nim": _OPENAI,
    "openrouter": _OPENAI,
    # Under their own names LiteLLM refuses every request, or tools, or asks by a client of its own.
    "amazon_nova": _OPENAI,
    "maritalk": _OPENAI,
    "oobabooga": replace(_OPENAI, address_arguments=_versioned_api_base),
    "gradient_ai": _OPENAI,
    "featherless_ai": _OPENAI,
    "vllm": _OPENAI,
    "openai_like": _OPENAI,
    "gemini": LiteLLMProvider(
        name="gemini",
        address_arguments=_gemini_api_base,
        allowed_params=(),
    ),
    "vertex_ai": _VERTEX,
    "vertex_ai_beta": replace(_VERTEX, name="vertex_ai_beta"),
    "ollama": LiteLLMProvider(
        name="ollama_chat",
        address_arguments=_ollama_api_base,
        allowed_params=(),
    ),
    **{name: replace(_AWS, name=name) for name in AWS_TYPES},
    # These sign in by other means.
    "chatgpt": replace(_SIGNS_IN, name="chatgpt", hosts=("chatgpt.com", "auth.openai.com")),
    "gigachat": LiteLLMProvider(name="gigachat", sends_key=False, hosts=("devices.sberbank.ru",)),
    "github_copilot": replace(_SIGNS_IN, name="github_copilot", hosts=("githubcopilot.com", "github.com")),
    "oci": replace(_SIGNS_IN, name="oci", hosts=("oraclecloud.com",)),
    "sap": replace(_SIGNS_IN, name="sap"),
    "watsonx": LiteLLMProvider(name="watsonx", sends_key=False),
    # LiteLLM says beside the key of what kind it is, or chooses the header by the host.
    "snowflake": LiteLLMProvider(name="snowflake", sends_key=False),
    "azure_ai": LiteLLMProvider(name="azure_ai", sends_key=False),
}
_WITHOUT_FINISH_REASONS = frozenset({"bytez", "langgraph", "nlp_cloud", "petals", "replicate", "triton"})
"""Their formats have none."""


def litellm_provider_of(provider: Provider) -> LiteLLMProvider:
    """A type that is not in the table has the same name at LiteLLM."""
    if known := _PROVIDERS.get(provider.type):
        return known
    return LiteLLMProvider(
        name=provider.type,
        address_arguments=_slashed_api_base if provider.type == "nlp_cloud" else _api_base,
        shows_finish_reason=provider.type not in _WITHOUT_FINISH_REASONS,
    )
