"""Which failure a foreign error stands for: by its status, its headers, the shape of its body and its words
(wire.md §2.8). Pure, and without an opinion on who sent it: what a transport raises is the affair of the
module that imports the transport."""

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from routeproxy.messages.errors import STATUS_OF_TYPE
from routeproxy.upstream.errors.overflow import match_overflow
from routeproxy.upstream.failures import LONGEST_MESSAGE, REDACTED, Kind, UpstreamFailure, credentials_refused

KIND_OF_STATUS: Mapping[int, Kind] = {
    400: "invalid_request",
    401: "auth",
    402: "rate_limit",
    403: "auth",
    404: "not_found",
    408: "timeout_first_token",
    409: "invalid_request",
    413: "invalid_request",
    422: "invalid_request",
    429: "rate_limit",
    500: "server_error",
    502: "connection",
    503: "overloaded",
    504: "timeout_first_token",
    529: "overloaded",
}

KIND_OF_TYPE: Mapping[str, Kind] = {
    "invalid_request_error": "invalid_request",
    "authentication_error": "auth",
    "permission_error": "auth",
    "billing_error": "rate_limit",
    "not_found_error": "not_found",
    "request_too_large": "invalid_request",
    "rate_limit_error": "rate_limit",
    "timeout_error": "timeout_first_token",
    "overloaded_error": "overloaded",
    "api_error": "server_error",
}
"""For errors inside a stream, which have a type and no status."""

_QUOTA_SIGNS = (
    "insufficient_quota",
    "exceeded your current quota",
    "billing_hard_limit",
    "budget has been exceeded",
    "budget_exceeded",
    "insufficient balance",
    "credit balance is too low",
)
_POLICY_SIGNS = (
    "content_policy",
    "content_filter",
    "responsibleaipolicyviolation",
    "content management policy",
    "blocked by content filtering policy",
    "content exists risk",  # DeepSeek
    "datainspectionfailed",  # Alibaba
    "data_inspection_failed",
    "violating our usage policy",
    "rejected as a result of our safety system",
)
_OVERLOAD_SIGNS = (
    "overloaded",
    "no healthy deployments",
    "no deployments available",
    "model is currently loading",
    "loading model",  # llama.cpp
)

_quoted = partial(UpstreamFailure, quotes_back_end=True)


def classify_response(
    status: int, headers: Mapping[str, str], body: str, *, provider: str, model: str = ""
) -> UpstreamFailure:
    """The failure that an HTTP answer outside 2xx stands for. `headers` are looked up in lower case."""
    error = read_error_object(body)
    message = str(error.get("message") or "") or _message_without_json(provider, status, body)
    return classify_error(
        status, message, provider=provider, model=model, headers=headers, code=code_of(error)
    )


def classify_error(
    status: int,
    message: str,
    *,
    provider: str,
    model: str = "",
    headers: Mapping[str, str] | None = None,
    code: str = "",
) -> UpstreamFailure:
    """The failure that a status and a back end's message stand for. `code`: the words that came beside the
    message, separated by spaces. `model`: the one that was asked for, where an error may name it."""
    headers = headers or {}
    text = f"{code} {message}".lower()
    message = clean_message(message)
    wait = read_retry_after(headers)
    if wait is None and status in (429, 503, 529):
        wait = _wait_in(text)
    should_retry = {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
    if status in (401, 403):
        return credentials_refused(provider)
    if status in (400, 413, 422, 429, 500) and (overflow := match_overflow(message, code)):
        return _quoted("context_overflow", overflow)
    if "invalid_encrypted_content" in text:
        # Reasoning that another account or model wrote. Claude Code knows the token, and asks again without.
        return _quoted("invalid_request", f"capability_rejected: thinking_signature ({message[:300]})")
    # Gemini calls a full minute a quota too, and says when it is over.
    if status == 402 or (wait is None and _has_any(_QUOTA_SIGNS, text)):
        return _quoted("rate_limit", message, status=402 if status == 402 else 429, should_retry=False)
    if status in (400, 422) and _has_any(_POLICY_SIGNS, text):
        return _quoted("content_policy", message)
    if status == 404:
        # A wrong `base_url` is a 404 too, and its reader needs other words.
        names_model = model and _has_any(("model", "deployment"), text)
        return _quoted("not_found", f"model: {model}" if names_model else message)
    if _has_any(_OVERLOAD_SIGNS, text):
        return _quoted("overloaded", message, retry_after=wait, should_retry=should_retry)
    kind = KIND_OF_STATUS.get(status, "server_error" if status >= 500 else "invalid_request")
    kept_status = status if status in (409, 413) else None
    return _quoted(kind, message, status=kept_status, retry_after=wait, should_retry=should_retry)


def classify_error_object(error: Any, *, provider: str, model: str = "") -> UpstreamFailure:
    """The failure that an error object inside a 200 stands for. The request was accepted, so unless the
    object says so it is not to blame."""
    fields = error if isinstance(error, Mapping) else {"message": error}
    message = fields.get("message")
    if not (isinstance(message, str) and message.strip()):
        message = "the back end reported an error"
    status = stated_status(fields) or 500
    return classify_error(status, message, provider=provider, model=model, code=code_of(fields))


def classify_error_event(type: str, message: str) -> UpstreamFailure:
    """The failure that an `error` event of Messages stands for, while nothing of its stream has been
    relayed."""
    message = clean_message(message)
    if overflow := match_overflow(message, ""):
        return _quoted("context_overflow", overflow)
    kind = KIND_OF_TYPE.get(type, "server_error")
    if kind == "auth":
        return UpstreamFailure(kind, message, should_retry=False)
    status = 502 if kind == "server_error" else STATUS_OF_TYPE[type]
    return _quoted(kind, message, status=status, should_retry=False if status == 402 else None)


def _has_any(signs: tuple[str, ...], text: str) -> bool:
    return any(sign in text for sign in signs)


# --- how long to wait


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` in either of its forms."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    if (seconds := _number(value)) is not None:
        return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


_WAIT = re.compile(r"(?:try again|retry) in (?:(\d+)m)?(\d+(?:\.\d+)?)(ms|s)\b")


def _wait_in(text: str) -> float | None:
    """Seconds, where they are only in the message: `Please try again in 1m6.5s`."""
    if (wait := _WAIT.search(text)) is None:
        return None
    return 60 * int(wait[1] or 0) + float(wait[2]) / (1000 if wait[3] == "ms" else 1)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


# --- the shapes of error bodies


def read_error_object(body: str) -> Mapping[str, Any]:
    """The `error` of an error body in any of the shapes that back ends use, with a text as its `message`
    where it has one; empty if there is none."""
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(decoded, list) and decoded:  # Gemini wraps stream errors in a list
        decoded = decoded[0]
    if not isinstance(decoded, dict):
        return {}
    error = decoded.get("error", decoded.get("detail", decoded))
    if isinstance(error, str):
        return {"message": error}
    if not isinstance(error, dict):
        return {"message": json.dumps(error)} if error else {}
    message = error.get("message") or decoded.get("message") or ""
    if not isinstance(message, str):  # Mistral's, for a request that it cannot read
        message = json.dumps(message)
    if isinstance(prompt := error.get("n_prompt_tokens"), int):  # llama.cpp has its numbers beside its words
        message = (
            f"request ({prompt} tokens) exceeds the available context size ({error.get('n_ctx')} tokens)"
        )
    if isinstance(metadata := error.get("metadata"), dict) and isinstance(raw := metadata.get("raw"), str):
        message = f"{message}: {raw}"  # OpenRouter's own words say only that there was an error
    return {**error, "message": message}


def stated_status(error: Mapping[str, Any]) -> int | None:
    """The status that an error object names, as a number or by its type."""
    for key in ("code", "status"):
        if str(error.get(key)).isdigit() and 400 <= int(error[key]) < 600:
            return int(error[key])
    return STATUS_OF_TYPE.get(str(error.get("type")))


def code_of(error: Mapping[str, Any]) -> str:
    """The words of an error object that are codes, separated by spaces."""
    return " ".join(str(error.get(key) or "") for key in ("code", "type", "status"))


def _message_without_json(provider: str, status: int, body: str) -> str:
    text = body.strip()
    if not text or text.startswith("<") or "<html" in text[:500].lower():
        return f"the back end {provider} answered {status} without a JSON error"
    return text


# --- what a client may read


_SECRETS = re.compile(
    r"(?i)\b((?:sk|xai|pplx|hf|r8|fw|csk|tgp_v\d|nvapi|gsk)[-_][\w-]{10,}|AIza[\w-]{20,}|AKIA\w{12,})"
    r"|((?:bearer|api[-_ ]?key[\"']?\s*[=:]|[?&]key=)\s*[\"']?)([\w.~+/=-]{6,})"
)
_PREFIX = re.compile(r"^(?:litellm\.)?(?:(?:\w+Exception\s+)?[\w.]*(?:Error|Exception)\s*[:-]\s*)+")
"""The names of exceptions, as LiteLLM puts them before a back end's words, in its gateway too."""


def clean_message(message: str) -> str:
    """A back end's words without the names of exceptions and without anything that looks like a key."""
    message = _PREFIX.sub("", message.strip()).strip()
    if (start := message.find("{")) >= 0 and (inner := read_error_object(message[start:]).get("message")):
        message = str(inner)
    message = _SECRETS.sub(lambda match: (match[2] or "") + REDACTED, message)
    return message[:LONGEST_MESSAGE] or "the back end gave no reason"
