"""What back ends' errors stand for, by the three ways in which they come: as the status of an answer, inside
a stream, inside a 200. Each row is what a real server says."""

# ruff: noqa: E501 - the words of back ends stand on one line each

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from routeproxy.upstream.errors.classify import classify_error_object, classify_response
from routeproxy.upstream.errors.refusals import Refusal
from routeproxy.upstream.failures import UpstreamFailure
from tests.budgets import seconds

Entrance = Callable[[int, Any], UpstreamFailure]


def as_status(status: int, body: Any, headers: Mapping[str, str] | None = None) -> UpstreamFailure:
    text = body if isinstance(body, str) else json.dumps(body)
    return classify_response(status, headers or {}, text, provider="corp", model="m")


def inside_a_200(status: int, body: Any) -> UpstreamFailure:
    return classify_error_object(body, provider="corp", model="m")


def error_object_alone(status: int, body: Any) -> UpstreamFailure:
    return classify_error_object(body.get("error", body), provider="corp", model="m")


every_entrance = pytest.mark.parametrize(
    "entrance",
    [
        pytest.param(as_status, id="status"),
        pytest.param(inside_a_200, id="inside a 200"),
        pytest.param(error_object_alone, id="in a stream"),
    ],
)


def error(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


def openrouter(status: int, raw: Any, message: str = "Provider returned error") -> dict[str, Any]:
    raw = raw if isinstance(raw, str) else json.dumps(raw)
    return {"error": {"message": message, "code": status, "metadata": {"raw": raw, "provider_name": "Far"}}}


def googles(status: int, message: str, name: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "status": name, "details": list(details)}}


INFO = "type.googleapis.com/google.rpc.ErrorInfo"
RETRY = "type.googleapis.com/google.rpc.RetryInfo"
REFUSED_KEY = "the back end corp rejected the proxy's credentials"
POLICY = "No endpoints found matching your data policy (Paid model training). Configure: https://openrouter.ai/settings/privacy"

BY_CODE: list[Any] = [
    # what is said with which status: the kind, the client's status, a part of the words
    pytest.param(400, error("slow", type="tokens", code="rate_limit_exceeded"), "rate_limit", 429, "slow", id="OpenAI, tokens"),
    pytest.param(429, error("slow", type="requests", code="rate_limit_exceeded"), "rate_limit", 429, "slow", id="OpenAI, requests"),
    pytest.param(429, error("pay", type="insufficient_quota", code="insufficient_quota"), "rate_limit", 429, "pay", id="OpenAI, quota"),
    pytest.param(400, error("long", code="context_length_exceeded"), "context_overflow", 400, "prompt_too_long (long)", id="OpenAI, overflow"),
    pytest.param(400, error("no", code="content_policy_violation"), "content_policy", 400, "no", id="OpenAI, policy"),
    pytest.param(503, error("busy", code="server_is_overloaded"), "overloaded", 529, "busy", id="OpenAI, overloaded"),
    pytest.param(503, error("busy", code="slow_down"), "overloaded", 529, "busy", id="OpenAI, slow down"),
    pytest.param(400, error("sealed", code="invalid_encrypted_content"), "invalid_request", 400, "thinking_signature", id="OpenAI, reasoning"),
    pytest.param(403, error("not here", code="unsupported_country_region_territory", type="request_forbidden"), "capability", 400, "not here", id="OpenAI, region"),
    pytest.param(404, error("no", code="model_not_found"), "not_found", 404, "model: m", id="OpenAI, model"),
    pytest.param(400, error("x", code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}), "content_policy", 400, "x", id="Azure"),
    pytest.param(404, error("x", code="DeploymentNotFound"), "not_found", 404, "model: m", id="Azure, deployment"),
    pytest.param(400, googles(400, "API key not valid.", "INVALID_ARGUMENT", {"@type": INFO, "reason": "API_KEY_INVALID"}), "auth", 502, REFUSED_KEY, id="Gemini, key"),
    pytest.param(429, googles(429, "full", "RESOURCE_EXHAUSTED"), "rate_limit", 429, "full", id="Gemini, full"),
    pytest.param(503, googles(503, "The model is overloaded.", "UNAVAILABLE"), "overloaded", 529, "overloaded", id="Gemini, overloaded"),
    pytest.param(504, googles(504, "late", "DEADLINE_EXCEEDED"), "timeout_first_token", 504, "late", id="Gemini, deadline"),
    pytest.param(400, error("x", type="exceed_context_size_error", code=400, n_prompt_tokens=5000, n_ctx=4096), "context_overflow", 400, "prompt is too long: 5000 tokens > 4096 maximum", id="llama.cpp"),
    pytest.param(429, error("busy", type="engine_overloaded_error"), "overloaded", 529, "busy", id="Moonshot, busy"),
    pytest.param(429, error("pay", type="exceeded_current_quota_error"), "rate_limit", 429, "pay", id="Moonshot, quota"),
    pytest.param(400, error("x", code="data_inspection_failed"), "content_policy", 400, "x", id="Alibaba"),
    pytest.param(400, error("x", code="Arrearage"), "rate_limit", 429, "x", id="Alibaba, unpaid"),
    pytest.param(400, {"message": "x", "__type": "com.amazon.coral.service#ThrottlingException"}, "rate_limit", 429, "x", id="Bedrock"),
    pytest.param(403, error("x", code="insufficient_user_quota"), "rate_limit", 429, "x", id="new-api"),
    pytest.param(401, {"type": "error", "error": {"type": "CreditsError", "message": "Insufficient balance"}}, "rate_limit", 429, "balance", id="OpenCode"),
    pytest.param(429, {"error": {"code": "1305", "message": "later"}}, "overloaded", 529, "later", id="Zhipu, busy"),
    pytest.param(429, {"error": {"code": "1113", "message": "recharge"}}, "rate_limit", 429, "recharge", id="Zhipu, unpaid"),
    pytest.param(400, {"error": {"code": "1301", "message": "no"}}, "content_policy", 400, "no", id="Zhipu, policy"),
    pytest.param(400, {"base_resp": {"status_code": 1026, "status_msg": "no"}}, "content_policy", 400, "no", id="MiniMax"),
    pytest.param(403, error("Your input was flagged", metadata={"reasons": ["violence"], "flagged_input": "the client's words"}, code=403), "content_policy", 400, "flagged", id="OpenRouter, moderation"),
    pytest.param(400, openrouter(400, error("far", code="context_length_exceeded")), "context_overflow", 400, "prompt_too_long (far)", id="OpenRouter, behind it"),
    pytest.param(429, openrouter(429, "far/model is temporarily rate-limited upstream."), "rate_limit", 429, "temporarily", id="OpenRouter, busy"),
]  # fmt: skip


@every_entrance
@pytest.mark.parametrize(("status", "body", "kind", "shown", "words"), BY_CODE)
def test_a_code_means_the_same_wherever_it_comes(
    entrance: Entrance, status: int, body: Any, kind: str, shown: int, words: str
) -> None:
    failure = entrance(status, body)
    assert failure.kind == kind
    assert words in failure.message
    assert failure.status == shown


def test_deepseek_wants_to_be_paid() -> None:
    body = error("Insufficient Balance", type="unknown_error", code="invalid_request_error")
    failure = as_status(402, body)
    assert (failure.kind, failure.status, failure.retryable) == ("rate_limit", 402, False)


BY_WORDS: list[Any] = [
    pytest.param(403, {"code": "The caller does not have permission", "error": "Content violates usage guidelines. Team: 0123456789, API key ID: 0123456789, Model: grok-4, Failed check: SAFETY_CHECK_TYPE_BIO"}, "content_policy", "Failed check", id="xAI, moderation"),
    pytest.param(400, error("Content Exists Risk", type="invalid_request_error"), "content_policy", "Risk", id="DeepSeek, moderation"),
    pytest.param(400, error("Output blocked by content filtering policy", type="invalid_request_error"), "content_policy", "blocked", id="Anthropic, moderation"),
    pytest.param(400, error("Invalid prompt: your prompt was flagged as potentially violating our usage policy. Please try again with a different prompt.", code="invalid_prompt"), "content_policy", "flagged", id="OpenAI, reasoning moderation"),
    pytest.param(400, error("The response was filtered due to the prompt triggering Azure OpenAI's content management policy."), "content_policy", "filtered", id="Azure, moderation"),
    pytest.param(400, error("The request was rejected because it was considered high risk"), "content_policy", "risk", id="Moonshot, moderation"),
    pytest.param(400, googles(400, "User location is not supported for the API use.", "FAILED_PRECONDITION"), "capability", "User location", id="Gemini, region"),
    pytest.param(403, error("Country, region, or territory not supported"), "capability", "region", id="OpenAI, region"),
    pytest.param(403, {"message": "Access to Anthropic models is not allowed from unsupported countries, regions, or territories."}, "capability", "countries", id="Bedrock, region"),
    pytest.param(403, {"message": "You don't have access to the model with the specified model ID."}, "capability", "access", id="Bedrock, plan"),
    pytest.param(403, error("Your plan does not include this model."), "capability", "plan", id="plan"),
    pytest.param(403, error("Kimi For Coding is currently only available for Coding Agents such as Kimi CLI."), "capability", "Kimi", id="Moonshot, plan"),
    pytest.param(403, error("The model gpt-x is not available on your current plan."), "capability", "plan", id="plan, not available"),
    pytest.param(403, error("Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys"), "rate_limit", "Key limit", id="OpenRouter, key limit"),
    pytest.param(403, error("Your API key was reported as leaked. Please use another API key."), "auth", "rejected", id="Gemini, leaked key"),
    pytest.param(403, error("Permission denied on resource project p.", status="PERMISSION_DENIED"), "auth", "rejected", id="Vertex, no permission"),
    pytest.param(403, {"error": "This authentication method does not have sufficient permissions to call Inference Providers"}, "auth", "rejected", id="Hugging Face, permissions"),
    pytest.param(400, error("Incorrect API key provided: sk-...abcd."), "auth", "rejected", id="xAI, key with 400"),
    pytest.param(404, error(POLICY, code=404), "not_found", POLICY, id="OpenRouter, data policy"),
    pytest.param(404, error("No endpoints available matching your guardrail restrictions and data policy."), "not_found", "guardrail", id="OpenRouter, guardrail"),
    pytest.param(404, error("No endpoints found for far/model."), "not_found", "model: m", id="OpenRouter, no model"),
    pytest.param(404, error("models/gemini-x is not found for API version v1beta, or is not supported for generateContent."), "not_found", "model: m", id="Gemini, no model"),
    pytest.param(404, {"error": "model 'x' not found"}, "not_found", "model: m", id="Ollama, no model"),
    pytest.param(404, error('model "x" not found, try pulling it first'), "not_found", "model: m", id="Ollama, no model, chat"),
    pytest.param(404, error("The model `x` does not exist.", type="NotFoundError", code=404), "not_found", "model: m", id="vLLM, no model"),
    pytest.param(400, error("Model Not Exist", code="invalid_request_error"), "not_found", "model: m", id="DeepSeek, no model"),
    pytest.param(404, {"status": 404, "title": "Not Found", "detail": "Not found for account 'abc'"}, "not_found", "Not found for account", id="NVIDIA"),
    pytest.param(404, error("No models loaded. Please load a model in the developer page or use the `lms load` command."), "not_found", "lms load", id="LM Studio, nothing loaded"),
    pytest.param(429, error("The service may be temporarily overloaded, please try again later"), "overloaded", "overloaded", id="Zhipu, words"),
    pytest.param(503, error("server busy, please try again.  maximum pending requests exceeded"), "overloaded", "busy", id="Ollama, busy"),
    pytest.param(500, error("The model is overloaded. Please try again later."), "overloaded", "overloaded", id="overloaded with 500"),
    pytest.param(429, {"object": "error", "message": "Service tier capacity exceeded for this model.", "type": "service_tier_capacity_exceeded", "code": "3505"}, "rate_limit", "capacity", id="Mistral, capacity"),
    pytest.param(422, {"detail": [{"loc": ["body", "messages", 0], "msg": "Field required", "input": {"role": "user", "content": "the model is overloaded"}}]}, "invalid_request", "body.messages.0: Field required", id="Mistral, a list"),
    pytest.param(400, {"message": "invalid request: message must be at least 1 token long"}, "invalid_request", "at least 1 token", id="Cohere"),
    pytest.param(400, {"error": {"message": "prompt_too_short", "type": "wrong_api_format", "code": "x"}}, "invalid_request", "short", id="Cerebras"),
    pytest.param(403, {"error": "this model requires a subscription, upgrade for access: https://ollama.com/upgrade"}, "capability", "subscription", id="Ollama, plan"),
    pytest.param(403, error("Project `proj_1` does not have access to model `gpt-x`", code="model_not_found"), "capability", "does not have access", id="OpenAI, no access"),
    pytest.param(404, error("Your organization must be verified to use the model `o3`.", code="model_not_found"), "capability", "verified", id="OpenAI, not verified"),
    pytest.param(400, error("Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details.", code="tool_use_failed", failed_generation="<function=x>"), "server_error", "Failed to call", id="Groq, what the model wrote"),
    pytest.param(400, {"status": 400, "title": "Bad Request", "detail": "Function id 'abc': DEGRADED function cannot be invoked"}, "server_error", "DEGRADED", id="NVIDIA, degraded"),
    pytest.param(400, error("no", code="image_parse_error"), "invalid_request", "capability_rejected: image_block (no)", id="OpenAI, image"),
    pytest.param(429, {"message": "We're experiencing high traffic right now! Please try again soon.", "type": "too_many_requests_error", "code": "queue_exceeded"}, "rate_limit", "traffic", id="Cerebras, traffic"),
    pytest.param(503, {"error": "Model too busy, unable to get response in less than 60 second(s)"}, "overloaded", "busy", id="Hugging Face, busy"),
    pytest.param(424, {"message": "The model returned an error", "__type": "ModelErrorException"}, "server_error", "error", id="Bedrock, model"),
    pytest.param(403, {"message": "The security token included in the request is invalid.", "__type": "UnrecognizedClientException"}, "auth", "rejected", id="Bedrock, token"),
    pytest.param(403, error("The request was denied: \"Your input was flagged by our moderation\""), "auth", "rejected", id="an echo with 403"),
    pytest.param(409, error("busy with that"), "invalid_request", "busy with that", id="409"),
    pytest.param(451, error("not in your country"), "capability", "country", id="451"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "words"), BY_WORDS)
def test_words_mean_what_the_server_means_by_them(status: int, body: Any, kind: str, words: str) -> None:
    failure = as_status(status, body)
    assert failure.kind == kind
    assert words in failure.message
    assert "0123456789" not in failure.message


ODD_STATUSES = [
    pytest.param(407, "connection", 502, id="407: a proxy wants a login"),
    pytest.param(421, "connection", 502, id="421: another server was meant"),
    pytest.param(408, "timeout_first_token", 504, id="408"),
    *(pytest.param(status, "server_error", 502, id=str(status)) for status in (101, 425, 498, 499, 600, 999)),
]


@pytest.mark.parametrize(
    "body", [error("Invalid model"), "<html>no</html>", ""], ids=["JSON", "page", "empty"]
)
@pytest.mark.parametrize(("status", "kind", "shown"), ODD_STATUSES)
def test_a_status_of_the_way_is_nobodys_request(status: int, kind: str, shown: int, body: Any) -> None:
    failure = as_status(status, body)
    assert (failure.kind, failure.status) == (kind, shown)
    assert failure.message


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 415, 418, 422, 423, 431, 444, 451])
@pytest.mark.parametrize(
    "body", ["<html>blocked</html>", "Bad Request", "", "{}", "[]", "null", '{"error":{}}']
)
def test_a_4xx_without_an_error_in_it_is_not_the_clients_fault(status: int, body: str) -> None:
    failure = as_status(status, body)
    assert (failure.kind, failure.status) == ("server_error", 502)
    assert failure.message == f"the back end corp answered {status} without a JSON error"


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "auth"), (402, "rate_limit"), (413, "context_overflow"), (429, "rate_limit")]
)
def test_a_few_statuses_say_enough_without_an_error(status: int, kind: str) -> None:
    assert as_status(status, "<html>nginx</html>").kind == kind


NUMBERLESS = "capability_rejected: prompt_too_long ("
OVERFLOWS: list[Any] = [
    pytest.param(error("max_tokens must be at least 1, got -853"), NUMBERLESS, id="NIM"),
    pytest.param(error("max_tokens must be at least1, got -736. (parameter=max_tokens, value=-736)"), NUMBERLESS, id="NIM, newer"),
    pytest.param(error("This model's maximum context length is 4096 tokens. However, you requested 0 output tokens and your prompt contains at least 5000 input tokens, for a total of at least 5000 tokens. Please reduce the length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value=5000)"), "prompt is too long: 5000 tokens > 4096 maximum", id="vLLM, newest"),
    pytest.param(error("This model's maximum context length is 4096 tokens. However, you requested 1000 output tokens and your prompt contains 99999 characters (more than 24768 characters, which is the upper bound for 3096 input tokens). Please reduce the length of the input prompt."), "input length and `max_tokens` exceed context limit: 3097 + 1000 > 4096, decrease", id="vLLM, characters"),
    pytest.param(error("`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the `context_window` for this model"), "capability_rejected: max_tokens_context_overflow (", id="Groq, output"),
    pytest.param(error("<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 8192]", code="invalid_parameter_error"), "capability_rejected: max_tokens_context_overflow (", id="Qwen, output"),
    pytest.param(error("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]"), NUMBERLESS, id="Qwen, input"),
    pytest.param({"message": "Input is too long."}, NUMBERLESS, id="Bedrock"),
    pytest.param({"message": "Input is too long for requested model."}, NUMBERLESS, id="Bedrock, longer"),
    pytest.param(error("The request size (31457281 bytes) exceeds 30.000MB limit."), NUMBERLESS, id="Vertex, bytes"),
    pytest.param(error("Request payload size exceeds the limit: 20971520 bytes."), NUMBERLESS, id="Gemini, bytes"),
    pytest.param(error("Request body too large for gpt-x model. Max size: 8000 tokens.", code="tokens_limit_reached"), NUMBERLESS, id="GitHub, body"),
    pytest.param({"error": "Failed to buffer the request body: length limit exceeded"}, NUMBERLESS, id="Text Generation Inference, bytes"),
    pytest.param(error("Invalid 'messages[1].content': string too long. Expected a string with maximum length 10485760, but got a string with length 12345678 instead.", code="string_above_max_length"), NUMBERLESS, id="OpenAI, characters"),
    pytest.param(error("3010: AiError: The estimated number of input and maximum output tokens (35000) exceeded this model context window limit (24000)"), "capability_rejected: max_tokens_context_overflow (", id="Cloudflare"),
    pytest.param(error("Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 5000 tokens: 1000 tokens from the input messages and 4000 tokens for the completion."), "input length and `max_tokens` exceed context limit: 1000 + 4000 > 4096", id="SGLang"),
    pytest.param(error("the input length exceeds the context length"), NUMBERLESS, id="Ollama"),
    pytest.param(error("input length (5000 tokens) exceeds the model's maximum context length (4096 tokens)"), "prompt is too long: 5000 tokens > 4096 maximum", id="Ollama, MLX"),
    pytest.param(error("Prompt exceeds max length", code="1261"), NUMBERLESS, id="Zhipu"),
    pytest.param(error("Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough."), "prompt is too long: 5000 tokens > 4096 maximum", id="LM Studio"),
    pytest.param(error("The input token count exceeds the maximum number of tokens allowed 1048576."), NUMBERLESS, id="Vertex, one number"),
    pytest.param(error("Total tokens of image and text exceed max message tokens"), NUMBERLESS, id="Volcengine"),
    pytest.param(error("input token length too long"), NUMBERLESS, id="Tencent"),
    pytest.param({"message": "too many tokens: total number of tokens in the prompt cannot exceed 4096 - received 5000. Try using a shorter prompt"}, "prompt is too long: 5000 tokens > 4096 maximum", id="Cohere"),
    pytest.param(error("Please reduce the length of the messages or completion. Current length is 5000 while limit is 4096", code="context_length_exceeded"), "prompt is too long: 5000 tokens > 4096 maximum", id="Cerebras"),
    pytest.param(error("Your request exceeded model token limit: 262144"), NUMBERLESS, id="Moonshot"),
    pytest.param(error("Your prompt exceeds the maximum token limit"), NUMBERLESS, id="anybody's"),
    pytest.param(error("Please reduce the length of the messages or completion."), NUMBERLESS, id="Groq"),
    pytest.param(openrouter(400, error("This endpoint's maximum context length is 4096 tokens. However, you requested about 5000 tokens (900 of text input, 100 of tool input, 4000 in the output).")), "input length and `max_tokens` exceed context limit: 1000 + 4000 > 4096", id="OpenRouter, behind it"),
    pytest.param({"error": {"message": "litellm.ContextWindowExceededError: ContextWindowExceededError: OpenAIException - Error code: 400 - {'error': {'message': \"This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens.\", 'code': 'context_length_exceeded'}}. Received Model Group=x\nAvailable Model Group Fallbacks=None", "code": "400"}}, "prompt is too long: 5000 tokens > 4096 maximum", id="LiteLLM's gateway"),
]  # fmt: skip


@every_entrance
@pytest.mark.parametrize(("body", "words"), OVERFLOWS)
def test_a_prompt_that_does_not_fit_is_told_in_the_apis_words(
    entrance: Entrance, body: Any, words: str
) -> None:
    failure = entrance(400, body)
    assert (failure.kind, failure.status) == ("context_overflow", 400)
    assert failure.message.startswith(words)
    assert "LLM" not in failure.message.replace("vLLM", "")


def test_a_minutes_tokens_are_an_overflow_when_one_request_has_more() -> None:
    words = "Request too large for model `llama` on tokens per minute (TPM): Limit 6000, Requested 8000, please reduce your message size and try again."
    body = error(words, type="tokens", code="rate_limit_exceeded")
    assert as_status(413, body).message == "prompt is too long: 8000 tokens > 6000 maximum"


def test_413_keeps_its_status_where_no_size_is_named() -> None:
    assert as_status(413, error("too big")).status == 413


REFUSALS: list[Any] = [
    # what is said, with which status: what Claude Code is told, and what of the request is refused
    pytest.param(400, "System message must be at the beginning.", "mid_conv_system", Refusal("mid_conv_system"), id="Qwen's template"),
    pytest.param(500, "Jinja Exception: System message must be at the beginning.", "mid_conv_system", Refusal("mid_conv_system"), id="llama.cpp, template"),
    pytest.param(500, "Engine protocol predict request returned 500: Jinja Exception: System message must be at the beginning.", "mid_conv_system", Refusal("mid_conv_system"), id="LM Studio, template"),
    pytest.param(500, "Unable to generate parser for this template. Automatic parser generation failed: \n------------\nWhile executing CallExpression at line 19, column 12 in source:\n...{{ raise_exception(\"Conversation roles must alternate user/assistant\") }}\n   ^\nError: Jinja Exception: Conversation roles must alternate user/assistant/user/assistant/...", "mid_conv_system", Refusal("alternating_roles"), id="llama.cpp, Gemma"),
    pytest.param(400, 'Error rendering prompt with jinja template: "Conversation roles must alternate user/assistant".\n\nThis is usually an issue with the model\'s prompt template.', "mid_conv_system", Refusal("alternating_roles"), id="LM Studio, Gemma"),
    pytest.param(400, "After the optional system message, conversation roles must alternate user/assistant/user/assistant/...", "mid_conv_system", Refusal("alternating_roles"), id="Mistral's template"),
    pytest.param(400, "Unexpected role 'system' after role 'user'", "mid_conv_system", Refusal("mid_conv_system"), id="Mistral, system"),
    pytest.param(400, "Unexpected role 'user' after role 'tool'", None, Refusal("user_after_tool"), id="Mistral, user"),
    pytest.param(400, "System role not supported", None, Refusal("system_role"), id="Gemma's template"),
    pytest.param(400, "Invalid content type. image_url is only supported by certain models.", "image_block", Refusal("image_block"), id="OpenAI, image"),
    pytest.param(500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj", "image_block", Refusal("image_block"), id="llama.cpp, image"),
    pytest.param(400, "Failed to deserialize the JSON body into the target type: messages[1]: unknown variant `image_url`, expected `text` at line 1 column 2", "image_block", Refusal("image_block"), id="DeepSeek, image"),
    pytest.param(404, "No endpoints found that support image input", "image_block", Refusal("image_block"), id="OpenRouter, image"),
    pytest.param(400, "At most 0 image(s) may be provided in one prompt.", "image_block", Refusal("image_block"), id="vLLM, image"),
    pytest.param(400, "Unknown part type: file", "document_block", Refusal("document_block"), id="vLLM, file"),
    pytest.param(400, "unsupported content[].type", "document_block", Refusal("document_block"), id="llama.cpp, file"),
    pytest.param(400, "Function tools with reasoning_effort are not supported for gpt-5.4 in /v1/chat/completions. Please use /v1/responses instead.", "effort_unsupported", Refusal("effort_with_tools"), id="OpenAI, effort with tools"),
    pytest.param(400, "Unsupported value: 'reasoning_effort' does not support 'minimal' with this model. Supported values are: 'none', 'low', 'medium', 'high', and 'xhigh'.", "effort_unsupported", Refusal("effort_value", accepted=("none", "low", "medium", "high", "xhigh")), id="OpenAI, effort"),
    pytest.param(500, "Jinja Exception: Unexpected reasoning effort high. Supported types are xhigh (default), medium, and low.", "effort_unsupported", Refusal("effort_value", accepted=("xhigh", "medium", "low")), id="a template, effort"),
    pytest.param(400, '"qwen" does not support thinking', "effort_unsupported", Refusal("effort_unsupported"), id="Ollama, thinking"),
    pytest.param(400, "Budget 0 is invalid. This model only works in thinking mode.", None, Refusal("thinking_off"), id="Gemini, thinking"),
    pytest.param(400, "registry.ollama.ai/library/x:latest does not support tools", None, Refusal("tools"), id="Ollama, tools"),
    pytest.param(500, "Unsupported param: tools", None, Refusal("tools"), id="llama.cpp, tools"),
    pytest.param(500, "Unsupported param: best_of", None, Refusal("parameter", ("best_of",)), id="llama.cpp, parameter"),
    pytest.param(400, "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", None, Refusal("max_tokens"), id="OpenAI, max_tokens"),
    pytest.param(400, "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is supported.", None, Refusal("parameter", ("temperature",)), id="OpenAI, temperature"),
    pytest.param(400, "This response_format type is unavailable now", "structured_outputs_unsupported", Refusal("structured_outputs_unsupported"), id="DeepSeek, schema"),
    pytest.param(400, "deepseek-reasoner does not support this tool_choice", None, Refusal("tool_choice"), id="DeepSeek, tool choice"),
    pytest.param(500, "Jinja Exception: No user query found in messages.", None, Refusal(), id="a template, anything"),
]  # fmt: skip


@every_entrance
@pytest.mark.parametrize(("status", "words", "token", "refusal"), REFUSALS)
def test_what_a_target_cannot_take_is_told_so_that_the_client_or_we_can_ask_in_another_shape(
    entrance: Entrance, status: int, words: str, token: str | None, refusal: Refusal
) -> None:
    failure = entrance(status, error(words))
    assert (failure.kind, failure.status, failure.retryable) == ("capability", 400, False)
    assert failure.refusal == refusal
    if token:
        assert failure.message.startswith(f"capability_rejected: {token} (")
    else:
        assert "capability_rejected" not in failure.message


@pytest.mark.parametrize(
    "words",
    [
        "Failed to parse messages: Missing 'content' in message 3",
        "Failed to parse tools: expected an array",
        "Failed to parse grammar",
        "JSON schema conversion failed: Unrecognized schema",
        "Cannot use both json_schema and grammar",
    ],
)
def test_what_never_works_is_no_servers_fault_whatever_the_server_says(words: str) -> None:
    failure = as_status(500, error(words, code=500, type="server_error"))
    assert (failure.kind, failure.status, failure.retryable) == ("invalid_request", 400, False)


LUCK = [
    "Failed to parse input at pos 12: <tool_call>image input is not supported",
    "The model produced output that does not match the expected peg-native format",
    "Unexpected empty grammar stack after accepting piece: x",
    "llama_decode: failed to decode, ret = -3",
    "the engine died",
]


@every_entrance
@pytest.mark.parametrize("words", LUCK)
def test_what_another_try_may_mend_stays_the_servers(entrance: Entrance, words: str) -> None:
    failure = entrance(500, error(words, code=500, type="server_error"))
    assert (failure.kind, failure.status, failure.retryable) == ("server_error", 500, True)
    assert failure.message == words


ECHOES = [
    "Could not parse the message \"The model is overloaded. Prompt is too long: 5000 tokens > 4096 maximum\"",
    "messages.0.content: Input should be a valid list, input_value='Content Exists Risk', input_type=str",
    "Invalid tool result: {\"error\": {\"code\": \"content_filter\", \"message\": \"Insufficient balance\"}}",
    "Invalid tool arguments: {'error': {'message': 'x', 'code': 'rate_limit_exceeded'}}",
    "Unknown tool name `image_url is only supported by certain models`",
    "The tool named overloaded is declared twice",
    "tools.0.function.description: expected a string, got ['System message must be at the beginning.']",
    "Failed to parse the text “Your input was flagged by our moderation.”",
    "Invalid message: the user asks why a request too large for gpt-4 was refused: \"Limit 6000, Requested 8000\"",
    "could not read \"He said: prompt is too long",
    "Invalid 'user': string too long. Expected a string with maximum length 64, but got a string with length 200 instead.",
    "Invalid value for 'max_tokens': integer below minimum value",
    "max_tokens must be at least 1, got 0",
    "The plan that you wrote requires a title",
]  # fmt: skip


@pytest.mark.parametrize("words", ECHOES)
def test_what_an_error_quotes_decides_nothing(words: str) -> None:
    failure = as_status(400, error(words, type="invalid_request_error"))
    assert (failure.kind, failure.message) == ("invalid_request", words)


@pytest.mark.parametrize("words", ECHOES)
def test_nor_does_it_where_the_status_is_the_servers(words: str) -> None:
    assert as_status(500, error(words)).kind in ("server_error", "invalid_request")


WAITS: list[Any] = [
    pytest.param(googles(429, "full", "RESOURCE_EXHAUSTED", {"@type": RETRY, "retryDelay": "23.4s"}), 23.4, id="Gemini"),
    pytest.param([googles(429, "full", "RESOURCE_EXHAUSTED", {"@type": RETRY, "retryDelay": "23s"})], 23, id="Gemini, a list"),
    pytest.param(googles(429, "You exceeded your current quota.", "RESOURCE_EXHAUSTED", {"@type": RETRY, "retryDelay": {"seconds": "7"}}), 7, id="Gemini, an object"),
    pytest.param(error("slow", code="rate_limit_exceeded", retry_after=4), 4, id="a number"),
    pytest.param(error("slow", code="rate_limit_exceeded", retry_after_ms=2500), 2.5, id="milliseconds"),
    pytest.param(error("Rate limit reached. Please try again in 1m6.5s.", code="rate_limit_exceeded"), 66.5, id="words"),
    pytest.param(error("Rate limit reached. Please try again in 850ms.", code="rate_limit_exceeded"), 0.85, id="words, milliseconds"),
    pytest.param(error("Too many requests. Please retry after 20 seconds.", code="rate_limit_exceeded"), 20, id="words, seconds"),
    pytest.param(error("slow", code="rate_limit_exceeded"), None, id="none"),
]  # fmt: skip


@pytest.mark.parametrize(
    "entrance", [pytest.param(as_status, id="status"), pytest.param(inside_a_200, id="inside a 200")]
)
@pytest.mark.parametrize(("body", "wait"), WAITS)
def test_the_wait_is_read_from_wherever_it_stands(entrance: Entrance, body: Any, wait: float | None) -> None:
    failure = entrance(429, body)
    assert (failure.kind, failure.retry_after) == ("rate_limit", wait)


@every_entrance
@pytest.mark.parametrize(
    "words",
    [
        "Server disconnected without sending a response.",
        "litellm.APIConnectionError: APIConnectionError: OpenAIException - Connection error.",
        "litellm.InternalServerError: InternalServerError: OpenAIException - 'NoneType' object has no attribute 'get'",
        "[Errno 111] Connect call failed ('10.0.0.7', 8000)",
        "Cannot connect to host far:443 ssl:default [Name or service not known]",
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed (_ssl.c:1006)",
        "HTTPSConnectionPool(host='far', port=443): Max retries exceeded with url: /v1",
        "peer closed connection without sending complete message body (incomplete chunked read)",
        "Expecting value: line 1 column 1 (char 0)",
        "list index out of range",
        "KeyError: 'choices'\nTraceback (most recent call last):\n  File \"/srv/app.py\", line 3",
        "EngineCore encountered an issue. See stack trace (above) for the root cause.",
    ],
)
def test_no_words_of_a_program_reach_a_client(entrance: Entrance, words: str) -> None:
    failure = entrance(500, error(words))
    assert failure.kind == "server_error"
    assert failure.message == "the back end corp failed inside, and answered 500"


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("a" + " " * 900_000 + "b", id="white space"),
        pytest.param("\n" * 500_000 + "x", id="line breaks"),
        pytest.param("." * 900_000, id="dots"),
        pytest.param("x" * 900_000, id="one word"),
        pytest.param("'a " * 300_000, id="quotes"),
        pytest.param("{" * 300_000, id="braces"),
        pytest.param("AError: " * 100_000, id="exceptions"),
        pytest.param("the input prompt request " * 40_000, id="beginnings"),
    ],
)
def test_an_error_of_any_length_is_read_in_no_time(words: str) -> None:
    began = time.perf_counter()
    for status in (400, 403, 429, 500):
        as_status(status, error(words))
    assert time.perf_counter() - began < seconds(2)
