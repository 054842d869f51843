"""What `litellm_params` may say, by the type of provider. LiteLLM takes hundreds of names there, and some
choose who is asked (`fallbacks`, `api_base`), with which key, or how often (`num_retries`): no promise could
be kept beside them. So what is not listed here is refused. (Names as in LiteLLM 1.110.2.)"""

from collections.abc import Mapping
from typing import Any

from routeproxy.policy.litellm_types import AWS as AWS_TYPES

_AWS = (
    "aws_access_key_id",
    "aws_external_id",
    "aws_role_name",
    "aws_secret_access_key",
    "aws_session_name",
    "aws_session_token",
    "aws_web_identity_token",
)
_AZURE_AI = (
    "azure_ad_token",
    "azure_password",
    "azure_scope",
    "azure_username",
    "client_id",
    "client_secret",
    "tenant_id",
)

PARAMS_OF_EVERY_TYPE = (
    "frequency_penalty",
    "logit_bias",
    "min_p",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "top_k",
)
"""How a model draws its words."""

PARAMS_OF_TYPE: Mapping[str, tuple[str, ...]] = {
    # The region and the profile are keys of the table.
    **dict.fromkeys(AWS_TYPES, _AWS),
    # What gets such a token, LiteLLM leaves to a library that asks by itself, and holds everything meanwhile.
    "azure": ("azure_ad_token",),
    "azure_ai": _AZURE_AI,
    **dict.fromkeys(("vertex_ai", "vertex_ai_beta"), ("vertex_credentials",)),
    "oci": (
        "oci_compartment_id",
        "oci_endpoint_id",
        "oci_fingerprint",
        "oci_key",
        "oci_key_file",
        "oci_region",
        "oci_serving_mode",
        "oci_tenancy",
        "oci_user",
    ),
    "predibase": ("predibase_tenant_id", "tenant_id"),
    "watsonx": ("project_id", "region_name", "space_id", "token", "zen_api_key"),
}
"""Who one is there, and where."""

SIGN_IN_PARAMS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(
        AWS_TYPES,
        (
            ("aws_access_key_id", "aws_secret_access_key"),
            ("aws_web_identity_token", "aws_role_name", "aws_session_name"),
        ),
    ),
    "azure": (("azure_ad_token",),),
    "azure_ai": (
        ("azure_ad_token",),
        ("client_id", "client_secret", "tenant_id"),
        ("client_id", "azure_username", "azure_password"),
    ),
    "watsonx": (("token",), ("zen_api_key",)),
}
"""By which of them one signs in, where all of a line are stated: no key is looked for then."""


def stated_sign_in(type_name: str, params: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """The parameters by which a provider of this type signs in; `None` where it takes a key, or what the
    machine has."""
    ways = SIGN_IN_PARAMS.get(type_name, ())
    return next((way for way in ways if params and all(params.get(name) for name in way)), None)


NEVER_ALLOWED = frozenset(
    {
        "api_base", "api_key", "api_version", "aws_bedrock_runtime_endpoint", "aws_sts_endpoint", "base_url",
        "client", "content_policy_fallbacks", "context_window_fallback_dict", "context_window_fallbacks",
        "custom_llm_provider", "default_fallbacks", "deployment_id", "extra_headers", "fallbacks", "headers",
        "max_fallbacks", "max_retries", "messages", "mock_response", "mock_timeout", "mock_tool_calls",
        "model", "model_list", "num_retries", "organization", "retry_policy", "retry_strategy",
        "shared_session", "ssl_verify", "stream", "timeout",
    }
)  # fmt: skip
"""What would choose who is asked, with which key or how often, or whether anybody is."""


def allowed_for(type_name: str) -> tuple[str, ...]:
    return (*PARAMS_OF_EVERY_TYPE, *PARAMS_OF_TYPE.get(type_name, ()))
