"""Variables by which LiteLLM would choose whom it asks, or as whom, by the type of provider. Under a rules
file none of them does: addresses and keys are always said to it, so that most are not even looked at. For the
rest the rules say what stands in them, or they are refused. (Names as in LiteLLM 1.110.2; that these are all
is tested against what it reads: `tests/upstream/litellm/test_environment.py`.)"""

from collections.abc import Mapping

_ADDRESS_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "codestral": ("MISTRAL_AZURE_API_BASE",),
    "cohere_chat": ("COHERE_API_BASE",),
    "datarobot": ("DATAROBOT_ENDPOINT",),
    "fireworks_ai": ("FIREWORKS_API_BASE",),
    "friendliai": ("FRIENDLI_API_BASE",),
    "huggingface": ("HF_API_BASE",),
    "lambda_ai": ("LAMBDA_API_BASE",),
    "meta_llama": ("LLAMA_API_BASE",),
    "mistral": ("MISTRAL_AZURE_API_BASE",),
    "tensormesh": ("TENSORMESH_SERVERLESS_BASE_URL",),
}


def address_variables(type_name: str) -> tuple[str, ...]:
    """The variables in which users of LiteLLM say where this type is. They move nobody here."""
    usual = f"{type_name.upper().replace('-', '_')}_API_BASE"
    return (usual, *_ADDRESS_VARIABLES.get(type_name, ()))


_AWS: Mapping[str, str] = {
    "AWS_BEDROCK_RUNTIME_ENDPOINT": "base_url",
    "AWS_EXTERNAL_ID": "litellm_params.aws_external_id",
    "AWS_PROFILE_NAME": "aws_profile_name",
    "AWS_ROLE_NAME": "litellm_params.aws_role_name",
    "AWS_SESSION_NAME": "litellm_params.aws_session_name",
    "AWS_STS_ENDPOINT": "",
    "AWS_WEB_IDENTITY_TOKEN": "litellm_params.aws_web_identity_token",
}
"""LiteLLM's own, beside AWS's own credentials."""
_BEARER: Mapping[str, str] = {"AWS_BEARER_TOKEN_BEDROCK": "api_key"}
_VERTEX: Mapping[str, str] = {"GEMINI_API_BASE": "base_url", "VERTEXAI_API_BASE": "base_url"}
_OCI = ("compartment_id", "fingerprint", "key", "key_file", "region", "tenancy", "user")

_HEEDED: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(("sagemaker", "sagemaker_chat", "sagemaker_nova"), _AWS),
    "bedrock": {**_AWS, **_BEARER},
    "bedrock_mantle": {
        **_AWS,
        **_BEARER,
        "BEDROCK_MANTLE_API_BASE": "base_url",
        "BEDROCK_MANTLE_API_KEY": "api_key",
        "BEDROCK_MANTLE_REGION": "aws_region_name",
    },
    **dict.fromkeys(("vertex_ai", "vertex_ai_beta"), _VERTEX),
    "chatgpt": dict.fromkeys(
        ("CHATGPT_API_BASE", "CHATGPT_AUTH_FILE", "CHATGPT_TOKEN_DIR", "OPENAI_CHATGPT_API_BASE"), ""
    ),
    "databricks": dict.fromkeys(("DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"), ""),
    "gigachat": {
        "GIGACHAT_ACCESS_TOKEN": "",
        "GIGACHAT_API_BASE": "base_url",
        "GIGACHAT_AUTH_URL": "",
        "GIGACHAT_CREDENTIALS": "api_key",
        "GIGACHAT_SCOPE": "",
    },
    "github_copilot": dict.fromkeys(
        (
            "GITHUB_COPILOT_ACCESS_TOKEN_FILE",
            "GITHUB_COPILOT_ACCESS_TOKEN_URL",
            "GITHUB_COPILOT_API_BASE",
            "GITHUB_COPILOT_CLIENT_ID",
            "GITHUB_COPILOT_DEVICE_CODE_URL",
            "GITHUB_COPILOT_TOKEN_DIR",
        ),
        "",
    ),
    "oci": {f"OCI_{name.upper()}": f"litellm_params.oci_{name}" for name in _OCI}
    | {"OCI_REGION_METADATA": ""},
    "predibase": {"PREDIBASE_TENANT_ID": "litellm_params.predibase_tenant_id"},
    "sap": dict.fromkeys(
        (
            "AICORE_AUTH_URL",
            "AICORE_BASE_URL",
            "AICORE_CERT_FILE_PATH",
            "AICORE_CERT_STR",
            "AICORE_CERT_URL",
            "AICORE_CLIENT_ID",
            "AICORE_CLIENT_SECRET",
            "AICORE_CONFIG",
            "AICORE_HOME",
            "AICORE_KEY_FILE_PATH",
            "AICORE_KEY_STR",
            "AICORE_PROFILE",
            "AICORE_SERVICE_KEY",
            "VCAP_SERVICES",
        ),
        "",
    ),
    "snowflake": {"SNOWFLAKE_JWT": "api_key"},
    "watsonx": {
        "WATSONX_DEPLOYMENT_SPACE_ID": "litellm_params.space_id",
        "WATSONX_IAM_URL": "",
        "WATSONX_PROJECT_ID": "litellm_params.project_id",
        "WATSONX_REGION": "litellm_params.region_name",
        "WATSONX_SPACE_ID": "litellm_params.space_id",
        "WATSONX_TOKEN": "litellm_params.token",
        "WATSONX_ZENAPIKEY": "litellm_params.zen_api_key",
        "WX_PROJECT_ID": "litellm_params.project_id",
        "WX_REGION": "litellm_params.region_name",
        "WX_SPACE_ID": "litellm_params.space_id",
    },
}
_SILENTLY = (
    # Of every machine in Azure. Azure's key is ours to send, and the version is said in the rules.
    "AZURE_AD_TOKEN", "AZURE_API_TYPE", "AZURE_API_VERSION", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET",
    "AZURE_OPENAI_AD_TOKEN", "AZURE_PASSWORD", "AZURE_SCOPE", "AZURE_TENANT_ID", "AZURE_USERNAME",
    # Words that anybody's variables may have, and that watsonx takes for its own.
    "PROJECT_ID", "REGION", "SPACE_ID",
    # Switches by which LiteLLM asks somebody else, by other ways, or with more headers.
    "EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER", "LITELLM_RUST", "OPENAI_CUSTOM_HEADERS", "USE_LITELLM_PROXY",
)  # fmt: skip
KEPT_FROM_LITELLM: tuple[str, ...] = (*_SILENTLY, *(name for names in _HEEDED.values() for name in names))
"""What LiteLLM does not get to see."""


def variables_heeded(type_name: str) -> Mapping[str, str]:
    """The variables that LiteLLM would heed whatever is said to it, each with the key of the provider's table
    that stands for it; empty where there is none."""
    return _HEEDED.get(type_name, {})
