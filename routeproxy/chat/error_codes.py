"""What the codes, types and reasons of back ends' errors mean: one table, whatever the status that they come
with. A code counts for more than any words: nobody's prompt is in it."""

from collections.abc import Iterable, Mapping
from typing import Literal

Meaning = Literal[
    "rate_limit",
    "quota",
    "overloaded",
    "timeout",
    "auth",
    "not_found",
    "overflow",
    "content_policy",
    "region",
    "foreign_reasoning",
    "bad_image",
    "server_error",
]

_CODES_OF_MEANING: Mapping[Meaning, tuple[str, ...]] = {
    "quota": (  # waiting does not help
        "insufficient_quota",
        "insufficient_balance",
        "insufficient_credits",
        "insufficient_user_quota",  # new-api, with 403
        "exceeded_current_quota_error",  # Moonshot
        "billing_error",
        "billing_not_active",
        "billing_hard_limit_reached",
        "budget_exceeded",  # LiteLLM
        "creditserror",  # OpenCode, with 401
        "arrearage",  # Alibaba, with 400
        "prepaidbilloverdue",
        "postpaidbilloverdue",
        "accountoverdueerror",  # Volcengine, with 403
        "quotaexceeded",
        "1113",  # Zhipu
        "status_code.1008",  # MiniMax
    ),
    "overloaded": (
        "overloaded",
        "overloaded_error",
        "server_overloaded",
        "server_is_overloaded",
        "slow_down",
        "engine_overloaded",
        "engine_overloaded_error",  # Moonshot, with 429
        "model_overloaded",
        "modelnotreadyexception",
        "serviceunavailableexception",
        "1305",  # Zhipu, with 429
    ),
    "rate_limit": (
        "rate_limit",
        "rate_limit_error",
        "rate_limit_exceeded",
        "rate_limit_reached_error",
        "rate_limited",
        "ratelimiterror",
        "resource_exhausted",
        "too_many_requests",
        "too_many_requests_error",  # Cerebras
        "queue_exceeded",
        "toomanyrequests",
        "throttling",
        "throttling.ratequota",
        "throttling.allocationquota",
        "throttling.burstrate",
        "throttlingexception",
        "throttlingerror",
        "limit_requests",
        "limit_burst_rate",
        "limit_tokens",
        "servicequotaexceededexception",
        "status_code.1002",  # MiniMax
    ),
    "timeout": (
        "timeout",
        "timeout_error",
        "deadline_exceeded",
        "request_timeout",
        "modeltimeoutexception",
    ),
    "auth": (
        "authentication_error",
        "authenticationerror",
        "unauthenticated",
        "invalid_api_key",
        "incorrect_api_key_error",
        "invalid_authentication_error",
        "api_key_invalid",
        "api_key_expired",
        "api_key_service_blocked",
        "api_key_http_referrer_blocked",
        "api_key_ip_address_blocked",
        "access_token_expired",
        "access_token_scope_insufficient",
        "credentials_missing",
        "account_state_invalid",
        "unrecognizedclientexception",
        "invalidsignatureexception",
        "incompletesignatureexception",
        "expiredtokenexception",
        "missingauthenticationtokenexception",
        "invalidapikey",
        "status_code.1004",  # MiniMax
    ),
    "not_found": (
        "not_found_error",
        "notfounderror",
        "model_not_found",
        "modelnotfound",
        "model_not_exist",
        "model_not_available",
        "unknown_model",
        "deploymentnotfound",
        "resourcenotfoundexception",
        "1211",  # Zhipu
    ),
    "overflow": (
        "context_length_exceeded",
        "context_window_exceeded",
        "contextwindowexceedederror",
        "exceed_context_size_error",
        "model_max_prompt_tokens_exceeded",  # GitHub
        "tokens_limit_reached",
        "prompt_too_long",
        "1261",  # Zhipu
        "status_code.1039",  # MiniMax
    ),
    "content_policy": (
        "content_policy",
        "content_policy_violation",
        "contentpolicyviolationerror",
        "image_content_policy_violation",
        "content_filter",
        "content_filtered",
        "contentfilter",
        "responsibleaipolicyviolation",
        "moderation_blocked",
        "cyber_policy",
        "cyber_policy_violation",
        "policy_blocked",
        "dlp_request_denied",
        "guardrail_intervened",
        "guardrail_violation",
        "data_inspection_failed",  # Alibaba
        "datainspectionfailed",
        "sensitivecontentdetected",  # Volcengine
        "inputtextsensitivecontentdetected",
        "inputimagesensitivecontentdetected",
        "outputtextsensitivecontentdetected",
        "1301",  # Zhipu
        "status_code.1026",  # MiniMax
        "status_code.1027",
    ),
    "region": (
        "unsupported_country_region_territory",
        "access_terminated_error",  # Moonshot: the plan is for its own clients
    ),
    "foreign_reasoning": ("invalid_encrypted_content",),
    "bad_image": (  # OpenAI
        "invalid_image",
        "invalid_image_format",
        "invalid_base64_image",
        "invalid_image_url",
        "image_too_large",
        "image_too_small",
        "image_parse_error",
        "image_file_too_large",
        "unsupported_image_media_type",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
    ),
    "server_error": (  # what the model wrote was refused: another try may bring something else
        "tool_use_failed",  # Groq, with 400
        "output_parse_failed",
        "json_validate_failed",
        "modelerrorexception",  # Bedrock, with 424
        "modelstreamerrorexception",
    ),
}

MEANING_OF_CODE: Mapping[str, Meaning] = {
    code: meaning for meaning, codes in _CODES_OF_MEANING.items() for code in codes
}
"""By code in lower case."""

STATUS_OF_CODE: Mapping[str, int] = {
    # the API's own types
    "invalid_request_error": 400,
    "permission_error": 403,
    "request_too_large": 413,
    "conflict_error": 409,
    "api_error": 500,
    # Google's
    "invalid_argument": 400,
    "failed_precondition": 400,
    "out_of_range": 400,
    "permission_denied": 403,
    "not_found": 404,
    "already_exists": 409,
    "aborted": 409,
    "cancelled": 499,
    "internal": 500,
    "unimplemented": 501,
    "unavailable": 503,
    # OpenAI's
    "invalid_request": 400,
    "invalid_prompt": 400,
    "server_error": 500,
    "internal_server_error": 500,
    "internal_error": 500,
    "service_unavailable": 503,
    "service_unavailable_error": 503,
    "bad_gateway": 502,
    "gateway_timeout": 504,
    # classes of exceptions
    "badrequesterror": 400,
    "unprocessableentityerror": 422,
    "permissiondeniederror": 403,
    "internalservererror": 500,
    "serviceunavailableerror": 503,
    "validationexception": 400,
    "accessdeniedexception": 403,
    "internalserverexception": 500,
    # Ollama's, Mistral's, Hugging Face's
    "validation": 400,
}
"""What says no more than a status does, and counts where there is none."""


def meaning_of_codes(codes: Iterable[str]) -> Meaning | None:
    """The first code's that has one."""
    return next((MEANING_OF_CODE[code] for code in codes if code in MEANING_OF_CODE), None)


def status_of_codes(codes: Iterable[str]) -> int | None:
    return next((STATUS_OF_CODE[code] for code in codes if code in STATUS_OF_CODE), None)
