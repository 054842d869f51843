"""What can go wrong at a back end, in our own words: the class that rules name, and the answer that a client
gets (wire.md §2.8).

Every foreign error ends here: an HTTP answer through `from_response`, a transport's exception through the
table of the file that imports that transport. Messages are for clients: no key, no traceback, at most 2 kB.
"""

import email.utils
import functools
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, ParamSpec

from msgspec import Struct
from msgspec.structs import replace

from routeproxy.messages.errors import STATUS_OF_TYPE, ApiError
from routeproxy.policy.decide import USUAL_FAILURES, FailureKind

Kind = FailureKind | Literal["timeout_total"]
"""`timeout_total` is in no rule's list: the time for the whole answer is used up for all."""

TRANSIENT: frozenset[Kind] = frozenset(USUAL_FAILURES)
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
"""Seconds that a client is told to wait where a back end that is busy names none."""
LONGEST_RETRY_AFTER = 60.0


class Relay(Struct, frozen=True):
    """A Messages back end's own error answer, which goes to the client byte for byte."""

    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def waiting(self, seconds: float) -> "Relay":
        """The same with another `retry-after`."""
        others = tuple(header for header in self.headers if not header[0].startswith("retry-after"))
        return replace(self, headers=(*others, ("retry-after", _whole_seconds(seconds))))


Asked = ParamSpec("Asked")


class UpstreamFailure(ApiError):
    """A back end did not answer as asked. `kind` is what rules name; the rest is what the client gets if
    nobody else answers."""

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
        status = status or STATUS_OF_KIND[kind]
        wait = DEFAULT_RETRY_AFTER if retry_after is None and status in (429, 529) else retry_after
        if wait is not None and should_retry is not False:
            headers["retry-after"] = _whole_seconds(wait)
        if should_retry is not None:
            headers["x-should-retry"] = "true" if should_retry else "false"
        super().__init__(status, message[:LONGEST_MESSAGE], type=type, headers=headers)
        self.kind: Kind = kind
        self.retry_after = retry_after
        """What the back end asked for, in seconds."""
        self.retryable = kind in TRANSIENT and should_retry is not False
        self.relay = relay
        self.quotes = False
        """The words are the back end's: for the client, not for a log, since they may quote the prompt."""

    def tell_to_wait(self, seconds: float) -> None:
        """The client hears of this wait instead of the one that the back end named."""
        if self.relay is not None:
            self.relay = self.relay.waiting(seconds)
        self.headers = {**self.headers, "retry-after": _whole_seconds(seconds)}

    def hide(self, secrets: Iterable[str]) -> None:
        """Takes keys out of what the client will see: some back ends quote the key that they refuse."""
        for secret in secrets:
            self.message = self.message.replace(secret, HIDDEN)
            if self.relay is not None:
                headers = tuple((name, value.replace(secret, HIDDEN)) for name, value in self.relay.headers)
                body = self.relay.body.replace(secret.encode(), HIDDEN.encode())
                self.relay = replace(self.relay, headers=headers, body=body)


HIDDEN = "***"


def _whole_seconds(seconds: float) -> str:
    return str(math.ceil(min(max(seconds, 0.0), LONGEST_RETRY_AFTER)))


def credentials_refused(provider: str) -> UpstreamFailure:
    # Never 401 or 403: the client would take its own key for bad, and Claude Code shows its login screen.
    return UpstreamFailure(
        "auth", f"the back end {provider} rejected the proxy's credentials", should_retry=False
    )


def redirected(provider: str) -> UpstreamFailure:
    return UpstreamFailure(
        "connection", f"the back end {provider} answered with a redirect, which is never followed"
    )


def not_a_completion(provider: str) -> UpstreamFailure:
    return UpstreamFailure(
        "connection", f"the back end {provider} answered with something that is not a completion"
    )


def key_missing(provider: str, where: str) -> UpstreamFailure:
    return UpstreamFailure(
        "auth", f"the key of provider {provider} is not set: {where} is empty", should_retry=False
    )


def key_unusable(provider: str) -> UpstreamFailure:
    return UpstreamFailure(
        "auth", f"the key of provider {provider} has characters that no header can hold", should_retry=False
    )


def from_response(
    status: int, headers: Mapping[str, str], body: str, *, provider: str, model: str = ""
) -> UpstreamFailure:
    """The failure that an HTTP answer outside 2xx stands for. `headers` are looked up in lower case."""
    error = error_object(body)
    message = str(error.get("message") or "") or _not_json(provider, status, body)
    return from_error(status, message, provider=provider, model=model, headers=headers, code=_code(error))


def _quoting(meaning: Callable[Asked, UpstreamFailure]) -> Callable[Asked, UpstreamFailure]:
    @functools.wraps(meaning)
    def quoted(*args: Asked.args, **named: Asked.kwargs) -> UpstreamFailure:
        failure = meaning(*args, **named)
        failure.quotes = failure.kind != "auth"  # those words are ours
        return failure

    return quoted


@_quoting
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
    wait = retry_after(headers)
    if wait is None and status in (429, 503, 529):
        wait = _wait_in(words)
    again = {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
    if status in (401, 403):
        return credentials_refused(provider)
    if status in (400, 413, 422, 429, 500) and (normalised := context_overflow(message, code)):
        return UpstreamFailure("context_overflow", normalised)
    if "invalid_encrypted_content" in words:
        # Reasoning that another account or model wrote. Claude Code knows the token, and asks again without.
        return UpstreamFailure(
            "invalid_request", f"capability_rejected: thinking_signature ({message[:300]})"
        )
    # Gemini calls a full minute a quota too, and says when it is over.
    if status == 402 or (wait is None and any(sign in words for sign in _QUOTA)):
        return UpstreamFailure(
            "rate_limit", message, status=402 if status == 402 else 429, should_retry=False
        )
    if status in (400, 422) and any(sign in words for sign in _POLICY):
        return UpstreamFailure("content_policy", message)
    if status == 404:
        # A wrong `base_url` is a 404 too, and its reader needs other words.
        names_model = model and any(sign in words for sign in ("model", "deployment"))
        return UpstreamFailure("not_found", f"model: {model}" if names_model else message)
    if any(sign in words for sign in _OVERLOADED):
        return UpstreamFailure("overloaded", message, retry_after=wait, should_retry=again)
    kind = KIND_OF_STATUS.get(status, "server_error" if status >= 500 else "invalid_request")
    answer = {409: 409, 413: 413}.get(status)
    return UpstreamFailure(kind, message, status=answer, retry_after=wait, should_retry=again)


def from_error_in_stream(error: Any, *, provider: str, model: str = "") -> UpstreamFailure:
    """The failure that an error object inside a 200 stands for. The request was accepted, so unless the
    object says so it is not to blame."""
    said = error if isinstance(error, Mapping) else {"message": error}
    message = said.get("message")
    words = message if isinstance(message, str) and message.strip() else "the back end reported an error"
    status = status_said(said) or 500
    return from_error(status, words, provider=provider, model=model, code=_code(said))


def status_said(error: Mapping[str, Any]) -> int | None:
    """The status that an error object names, as a number or by its type."""
    for key in ("code", "status"):
        if str(error.get(key)).isdigit() and 400 <= int(error[key]) < 600:
            return int(error[key])
    return STATUS_OF_TYPE.get(str(error.get("type")))


@_quoting
def from_error_type(type: str, message: str) -> UpstreamFailure:
    """The failure that an error event stands for, while nothing of its stream has been relayed."""
    message = clean(message)
    if normalised := context_overflow(message, ""):
        return UpstreamFailure("context_overflow", normalised)
    kind = KIND_OF_TYPE.get(type, "server_error")
    if kind == "auth":
        return UpstreamFailure(kind, message, should_retry=False)
    status = 502 if kind == "server_error" else STATUS_OF_TYPE[type]
    return UpstreamFailure(kind, message, status=status, should_retry=False if status == 402 else None)


def retry_after(headers: Mapping[str, str]) -> float | None:
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


def _wait_in(words: str) -> float | None:
    """Some say it in their message only: `Please try again in 1m6.5s`."""
    if (found := _WAIT.search(words)) is None:
        return None
    return 60 * int(found[1] or 0) + float(found[2]) / (1000 if found[3] == "ms" else 1)


_QUOTA = (
    "insufficient_quota",
    "exceeded your current quota",
    "billing_hard_limit",
    "budget has been exceeded",
    "budget_exceeded",
    "insufficient balance",
    "credit balance is too low",
)
_POLICY = (
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
_OVERLOADED = (
    "overloaded",
    "no healthy deployments",
    "no deployments available",
    "model is currently loading",
    "loading model",  # llama.cpp
)

_SECRETS = re.compile(
    r"(?i)\b((?:sk|xai|pplx|hf|r8|fw|csk|tgp_v\d|nvapi|gsk)[-_][\w-]{10,}|AIza[\w-]{20,}|AKIA\w{12,})"
    r"|((?:bearer|api[-_ ]?key[\"']?\s*[=:]|[?&]key=)\s*[\"']?)([\w.~+/=-]{6,})"
)
_PREFIX = re.compile(r"^(?:litellm\.)?(?:(?:\w+Exception\s+)?[\w.]*(?:Error|Exception)\s*[:-]\s*)+")


def clean(message: str) -> str:
    """A back end's words without LiteLLM's prefixes and without anything that looks like a key."""
    message = _PREFIX.sub("", message.strip()).strip()
    if (start := message.find("{")) >= 0 and (inner := error_object(message[start:]).get("message")):
        message = str(inner)
    message = _SECRETS.sub(lambda found: (found[2] or "") + HIDDEN, message)
    return message[:LONGEST_MESSAGE] or "the back end gave no reason"


# --- a prompt that does not fit


def _pattern(text: str) -> re.Pattern[str]:
    numbers = re.sub(r"<(\w+)>", lambda name: rf"(?P<{name[1]}>\d[\d,_]*)", text)
    return re.compile(numbers, re.IGNORECASE | re.DOTALL)


# How each back end says it, as of 2026, from their own sources. The groups: `limit`, and `prompt` and
# `output` or their sum, `total`.
_INPUT_AND_OUTPUT: tuple[re.Pattern[str], ...] = (
    # Anthropic, and whoever copies it
    _pattern(r"input length and `max_tokens` exceed context limit: <prompt> \+ <output> > <limit>"),
    # OpenAI, Azure, vLLM, DeepSeek, OpenRouter
    _pattern(
        r"maximum context length is <limit> tokens.*?requested (?:about )?<total> tokens "
        r"\([^)]*?<output> (?:in the completion|in the output|for the completion)"
    ),
    # vLLM, between 0.8 and 0.10
    _pattern(
        r"is too large: <output>\. This model's maximum context length is <limit> tokens "
        r"and your request has <prompt> input tokens"
    ),
    # vLLM since
    _pattern(
        r"maximum context length is <limit> tokens.*?requested <output> output tokens "
        r"and your prompt contains (?:at least )?<prompt> input tokens"
    ),
    # SGLang
    _pattern(
        r"maximum context length of <limit> tokens.*?total of <total> tokens: "
        r"<prompt> tokens from the input messages and <output> tokens for the completion"
    ),
    # Together, Text Generation Inference
    _pattern(r"must be <= <limit>\. Given: <prompt> `inputs` tokens and <output> `max_new_tokens`"),
)
_INPUT_ONLY: tuple[re.Pattern[str], ...] = (
    _pattern(r"prompt is too long: <prompt> tokens > <limit> maximum"),  # Anthropic, Bedrock
    # OpenAI, Azure, vLLM
    _pattern(
        r"maximum context length is <limit> tokens.*?(?:resulted in|requested|contains?|has|with) "
        r"(?:at least |about )?<prompt> (?:input )?tokens"
    ),
    _pattern(r"configured limit of <limit> tokens.*?resulted in <prompt> tokens"),  # OpenAI, GPT-5
    _pattern(
        r"request too large for .*?limit <limit>, requested <prompt>"
    ),  # OpenAI, Groq: more than a whole minute's worth
    _pattern(
        r"decoder prompt \(length <prompt>\) is longer than the maximum model length of <limit>"
    ),  # vLLM
    _pattern(
        r"prompt \(total length <prompt>\) is too long to fit into the model \(context length <limit>\)"
    ),  # vLLM
    _pattern(
        r"input length \(<prompt>\) exceeds (?:the )?model's maximum context length \(<limit>\)"
    ),  # vLLM, SGLang
    _pattern(
        r"input \(<prompt> tokens\) is longer than the model's context length \(<limit> tokens\)"
    ),  # SGLang
    _pattern(
        r"request \(<prompt> tokens\) exceeds the available context size \(<limit> tokens\)"
    ),  # llama.cpp
    _pattern(r"`inputs` must have less than <limit> tokens\. Given: <prompt>"),  # Text Generation Inference
    _pattern(
        r"input token count \(?<prompt>\)? exceeds the maximum number of tokens allowed \(?<limit>\)?"
    ),  # Gemini
    _pattern(r"input token count is <prompt> but (?:the )?model only supports up to <limit>"),  # Vertex
    _pattern(
        r"prompt contains <prompt> tokens.*?too large for model with <limit> maximum context length"
    ),  # Mistral
    _pattern(r"maximum prompt length is <limit> but the request contains <prompt> tokens"),  # xAI
    _pattern(r"the prompt is too long: <prompt>, model maximum context length: <limit>"),  # Fireworks
    _pattern(r"current length is <prompt> while limit is <limit>"),  # Cerebras
    _pattern(r"exceeded model token limit: <limit> \(requested: <prompt>\)"),  # Moonshot
    _pattern(r"prompt cannot exceed <limit> - received <prompt>"),  # Cohere
    _pattern(r"prompt token count of <prompt> exceeds the limit of <limit>"),  # GitHub
    _pattern(
        r"prompt length \(<prompt>(?:\.0)?\).*?should not exceed max_num_tokens \(<limit>\)"
    ),  # TensorRT-LLM
)
_OUTPUT_ONLY: tuple[re.Pattern[str], ...] = (
    _pattern(
        r"max(?:_completion|_output)?_tokens\D{0,20} is too large: <output>\.? "
        r"This model supports at most <limit>"
    ),  # OpenAI
    _pattern(
        r"max_tokens: <output> > <limit>, which is the maximum allowed number of output tokens"
    ),  # Anthropic
    _pattern(
        r"maxOutputTokens value of <output> but the supported range is "
        r"from \d+ \(inclusive\) to <above> \(exclusive\)"
    ),  # Vertex
)
_OVERFLOW_WORDS = (
    "context_length_exceeded",
    "exceed_context_size_error",
    "maximum context length",
    "exceeds the context window",
    "exceeds the context length",
    "exceeds the available context size",
    "exceeded max context length",
    "exceed context limit",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "too many tokens in the prompt",
    "context window exceeded",
    "context window exceeds limit",
    "prompt exceeds max length",
    "greater than the context length",
    "when context the overflows",
    "range of input length should be",
)
_OUTPUT_WORDS = (
    "valid range of max_tokens is",
    "`max_tokens` must be less than or equal to",
    "maximum tokens you requested exceeds the model limit",
)


def context_overflow(message: str, code: str) -> str | None:
    """The API's words for a prompt that does not fit, which Claude Code parses and acts on; None when that is
    not what is wrong."""
    if found := _first(_INPUT_AND_OUTPUT, message):
        output, limit = found["output"], found["limit"]
        prompt = found["prompt"] if "prompt" in found else found["total"] - output
        if prompt < limit:
            return (
                f"input length and `max_tokens` exceed context limit: {prompt} + {output} > {limit}, "
                "decrease input length or `max_tokens` and try again"
            )
        return f"prompt is too long: {prompt} tokens > {limit} maximum"
    if found := _first(_INPUT_ONLY, message):
        return f"prompt is too long: {found['prompt']} tokens > {found['limit']} maximum"
    if found := _first(_OUTPUT_ONLY, message):
        limit = found["limit"] if "limit" in found else found["above"] - 1
        return (
            f"max_tokens: {found['output']} > {limit}, "
            "which is the maximum allowed number of output tokens for this model"
        )
    # The stable tokens that Claude Code knows, for back ends that name no numbers.
    words = f"{code} {message}".lower()
    if any(sign in words for sign in _OUTPUT_WORDS):
        return f"capability_rejected: max_tokens_context_overflow ({message[:300]})"
    if any(sign in words for sign in _OVERFLOW_WORDS):
        return f"capability_rejected: prompt_too_long ({message[:300]})"
    return None


def _first(patterns: tuple[re.Pattern[str], ...], message: str) -> dict[str, int]:
    for pattern in patterns:
        if found := pattern.search(message):
            return {name: _int(text) for name, text in found.groupdict().items()}
    return {}


def _int(text: str) -> int:
    return int(text.replace(",", "").replace("_", ""))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


# --- the shapes of error bodies


def error_object(body: str) -> Mapping[str, Any]:
    """`error` of an error body in any of the shapes that back ends use, as a mapping with at least `message`
    where there is one."""
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


def _code(error: Mapping[str, Any]) -> str:
    return " ".join(str(error.get(key) or "") for key in ("code", "type", "status"))


def _not_json(provider: str, status: int, body: str) -> str:
    text = body.strip()
    if not text or text.startswith("<") or "<html" in text[:500].lower():
        return f"the back end {provider} answered {status} without a JSON error"
    return text
