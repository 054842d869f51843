"""What can go wrong at a back end, in our own words: the class that rules name, and the answer that a client gets (wire.md §2.8).

Every foreign error ends here: an HTTP answer through `from_response`, a transport's exception through the table of the file that
imports that transport. Messages are for clients: no key, no traceback, at most 2 kB.
"""

import email.utils
import json
import re
import time
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from routeproxy.messages.errors import STATUS_OF_TYPE, ApiError

Kind = Literal[
    "rate_limit",
    "overloaded",
    "server_error",
    "timeout_connect",
    "timeout_first_token",
    "timeout_idle",
    "timeout_total",
    "connection",
    "context_overflow",
    "auth",
    "not_found",
    "invalid_request",
    "content_policy",
    "capability",
]

TRANSIENT: frozenset[Kind] = frozenset(
    {
        "rate_limit",
        "overloaded",
        "server_error",
        "timeout_connect",
        "timeout_first_token",
        "timeout_idle",
        "connection",
    }
)
"""Worth trying again: by us where a rule says `retry`, else by the client."""

STATUS_OF_KIND: Mapping[Kind, int] = {
    "rate_limit": 429,
    "overloaded": 529,
    "server_error": 500,
    "timeout_connect": 504,
    "timeout_first_token": 504,
    "timeout_idle": 504,
    "timeout_total": 504,
    "connection": 502,
    "context_overflow": 400,
    "auth": 502,
    "not_found": 404,
    "invalid_request": 400,
    "content_policy": 400,
    "capability": 400,
}

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

LONGEST_MESSAGE = 2000
DEFAULT_RETRY_AFTER = 5.0
LONGEST_RETRY_AFTER = 60.0


class Relay(Struct, frozen=True):
    """A Messages back end's own error answer, which goes to the client byte for byte."""

    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class UpstreamFailure(ApiError):
    """A back end did not answer as asked. `kind` is what rules name; the rest is what the client gets if nobody else answers."""

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        relay: Relay | None = None,
    ) -> None:
        headers = {}
        if retry_after is not None:
            headers["retry-after"] = f"{min(retry_after, LONGEST_RETRY_AFTER):g}"
        if should_retry is not None:
            headers["x-should-retry"] = "true" if should_retry else "false"
        super().__init__(status or STATUS_OF_KIND[kind], message[:LONGEST_MESSAGE], type=type, headers=headers)
        self.kind: Kind = kind
        self.retry_after = retry_after
        self.relay = relay


def credentials_refused(provider: str) -> UpstreamFailure:
    # Never 401 or 403: the client would take its own key for bad, and Claude Code shows its login screen.
    return UpstreamFailure(
        "auth", f"the back end {provider} rejected the proxy's credentials", should_retry=False
    )


def key_missing(provider: str, where: str) -> UpstreamFailure:
    return UpstreamFailure(
        "auth", f"the key of provider {provider} is not set: {where} is empty", should_retry=False
    )


def from_response(
    status: int, headers: Mapping[str, str], body: str, *, provider: str, model: str = ""
) -> UpstreamFailure:
    """The failure that an HTTP answer outside 2xx stands for. `headers` are looked up in lower case."""
    error = _error_object(body)
    message = str(error.get("message") or "") or _not_json(provider, status, body)
    return from_error(status, message, provider=provider, model=model, headers=headers, code=_code(error))


def from_error(
    status: int,
    message: str,
    *,
    provider: str,
    model: str = "",
    headers: Mapping[str, str] | None = None,
    code: str = "",
) -> UpstreamFailure:
    """The failure that a status and a back end's words stand for."""
    headers = headers or {}
    words = f"{code} {message}".lower()
    message = clean(message)
    if status in (401, 403):
        return credentials_refused(provider)
    if any(sign in words for sign in _QUOTA):
        return UpstreamFailure("rate_limit", message, status=429, should_retry=False)
    if status in (400, 413, 422, 500) and (normalised := context_overflow(message, code)):
        return UpstreamFailure("context_overflow", normalised)
    if status in (400, 422) and any(sign in words for sign in _POLICY):
        return UpstreamFailure("content_policy", message)
    if status == 404:
        return UpstreamFailure("not_found", f"model: {model}" if model else message)
    if any(sign in words for sign in _OVERLOADED):
        return UpstreamFailure("overloaded", message, retry_after=retry_after(headers))
    kind = KIND_OF_STATUS.get(status, "server_error" if status >= 500 else "invalid_request")
    wait = retry_after(headers)
    if kind == "rate_limit" and status == 429:
        return UpstreamFailure(kind, message, retry_after=DEFAULT_RETRY_AFTER if wait is None else wait)
    answer = {402: 402, 409: 409, 413: 413}.get(status)
    return UpstreamFailure(kind, message, status=answer, retry_after=wait)


def from_error_type(type: str, message: str) -> UpstreamFailure:
    """The failure that an error event stands for, while nothing of its stream has been relayed."""
    kind = KIND_OF_TYPE.get(type, "server_error")
    if normalised := context_overflow(message, ""):
        return UpstreamFailure("context_overflow", normalised)
    status = STATUS_OF_TYPE.get(type, 500)
    if kind == "auth":
        return UpstreamFailure(kind, message, should_retry=False)
    return UpstreamFailure(
        kind,
        message,
        status=502 if type == "api_error" else status,
        retry_after=DEFAULT_RETRY_AFTER if kind == "rate_limit" else None,
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` in either of its forms."""
    if milliseconds := headers.get("retry-after-ms"):
        with_unit = _number(milliseconds)
        if with_unit is not None:
            return with_unit / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    if (seconds := _number(value)) is not None:
        return max(0.0, seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


_QUOTA = ("insufficient_quota", "exceeded your current quota", "billing_hard_limit", "budget has been exceeded")
_POLICY = ("content_policy", "content_filter", "responsibleaipolicyviolation", "content management policy")
_OVERLOADED = ("overloaded", "no healthy deployments", "no deployments available", "model is currently loading")

_SECRETS = re.compile(
    r"(?i)\b(sk-[\w-]{6,}|AIza[\w-]{20,}|gsk_\w{10,}|nvapi-[\w-]{10,})|((?:bearer|api[-_ ]?key[\"']?\s*[=:]|[?&]key=)\s*[\"']?)([\w.~+/=-]{6,})"
)
_PREFIX = re.compile(r"^(?:litellm\.)?(?:[\w.]*(?:Error|Exception)\s*[:-]\s*)+")


def clean(message: str) -> str:
    """A back end's words without LiteLLM's prefixes and without anything that looks like a key."""
    message = _PREFIX.sub("", message.strip()).strip()
    if (start := message.find("{")) >= 0 and (inner := _error_object(message[start:]).get("message")):
        message = str(inner)
    message = _SECRETS.sub(lambda m: (m[2] or "") + "***", message)
    return message[:LONGEST_MESSAGE] or "the back end gave no reason"


_NUMBER = r"(\d[\d,_]*)"


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text.replace("N", _NUMBER), re.IGNORECASE | re.DOTALL)


# Each row: how one back end says it, and which groups are (input, max_tokens, limit). Wordings as of 2026, from the back ends' own sources.
_INPUT_AND_OUTPUT: tuple[tuple[re.Pattern[str], tuple[int, int, int]], ...] = (
    (_pattern(r"maximum context length is N tokens.*?\(N (?:in the messages|input tokens|of text input|in your prompt).*?N (?:in the completion|output|for the completion)"), (2, 3, 1)),
    (_pattern(r"max(?:_completion)?_tokens' is too large: N\. This model's maximum context length is N tokens and your request has N input tokens"), (3, 1, 2)),
    (_pattern(r"must be <= N\. Given: N `inputs` tokens and N `max_new_tokens`"), (2, 3, 1)),
    (_pattern(r"input length and `max_tokens` exceed context limit: N \+ N > N"), (1, 2, 3)),
)  # fmt: skip
_INPUT_ONLY: tuple[tuple[re.Pattern[str], tuple[int, int]], ...] = (
    (_pattern(r"prompt is too long: N tokens > N maximum"), (1, 2)),
    (_pattern(r"maximum context length is N tokens.*?(?:resulted in|requested|contains?|has|with) (?:at least |about )?N (?:input )?tokens"), (2, 1)),
    (_pattern(r"input token count \(?N\)? exceeds the maximum number of tokens allowed \(?N\)?"), (1, 2)),
    (_pattern(r"request \(N tokens\) exceeds the available context size \(N tokens\)"), (1, 2)),
    (_pattern(r"prompt contains N tokens.*?maximum (?:of|is) N"), (1, 2)),
)  # fmt: skip
_OUTPUT_ONLY = _pattern(r"max(?:_completion|_output)?_tokens\D{0,20} is too large: N\.? This model supports at most N")
_OVERFLOW_WORDS = (
    "context_length_exceeded",
    "maximum context length",
    "exceeds the context window",
    "exceeds the available context size",
    "exceed context limit",
    "prompt is too long",
    "input is too long",
    "too many tokens in the prompt",
    "context window exceeded",
)


def context_overflow(message: str, code: str) -> str | None:
    """The API's words for a prompt that does not fit, which Claude Code parses and acts on; None when that is not what is wrong."""
    for pattern, groups in _INPUT_AND_OUTPUT:
        if found := pattern.search(message):
            prompt, output, limit = (_int(found[group]) for group in groups)
            if prompt < limit:
                return (
                    f"input length and `max_tokens` exceed context limit: {prompt} + {output} > {limit}, "
                    "decrease input length or `max_tokens` and try again"
                )
            return f"prompt is too long: {prompt} tokens > {limit} maximum"
    for pattern, pair in _INPUT_ONLY:
        if found := pattern.search(message):
            prompt, limit = (_int(found[group]) for group in pair)
            return f"prompt is too long: {prompt} tokens > {limit} maximum"
    if found := _OUTPUT_ONLY.search(message):
        return (
            f"max_tokens: {_int(found[1])} > {_int(found[2])}, "
            "which is the maximum allowed number of output tokens for this model"
        )
    words = f"{code} {message}".lower()
    if any(sign in words for sign in _OVERFLOW_WORDS):
        # The stable token that Claude Code knows, for back ends that name no numbers.
        return f"capability_rejected: prompt_too_long ({message[:300]})"
    return None


def _int(text: str) -> int:
    return int(text.replace(",", "").replace("_", ""))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _error_object(body: str) -> Mapping[str, Any]:
    """`error` of an error body in any of the shapes that back ends use, as a mapping with at least `message` where there is one."""
    try:
        decoded = json.loads(body)
    except ValueError:
        return {}
    if isinstance(decoded, list) and decoded:  # Gemini wraps stream errors in a list
        decoded = decoded[0]
    if not isinstance(decoded, dict):
        return {}
    error = decoded.get("error", decoded.get("detail", decoded))
    if isinstance(error, str):
        return {"message": error}
    if not isinstance(error, dict):
        return {"message": json.dumps(error)[:LONGEST_MESSAGE]} if error else {}
    return error if "message" in error else {**error, "message": decoded.get("message", "")}


def _code(error: Mapping[str, Any]) -> str:
    return " ".join(str(error.get(key) or "") for key in ("code", "type", "status"))


def _not_json(provider: str, status: int, body: str) -> str:
    text = body.strip()
    if not text or text.startswith("<"):
        return f"the back end {provider} answered {status} without a JSON error"
    return text
