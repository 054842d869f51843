"""Which failure a foreign error stands for (wire.md §2.8): one decision for the three places where errors
come from, the status of an answer, an error inside a stream and an error inside a 200. Codes count before
words, and words before a status that says nothing. Pure, and without an opinion on who sent it: what a
transport raises is the affair of the module that imports the transport."""

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from routeproxy.chat.error_codes import Meaning, meaning_of_codes, status_of_codes
from routeproxy.chat.reported_errors import (
    ReportedError,
    read_error,
    read_error_body,
    without_exception_names,
)
from routeproxy.redaction import REDACTED
from routeproxy.upstream.errors.overflow import match_overflow
from routeproxy.upstream.errors.refusals import CLIENT_TOKENS, NEVER_WORKS, Refusal, read_refusal
from routeproxy.upstream.errors.words import (
    NO_MODEL,
    are_a_programs,
    meaning_of_words,
    without_quotations,
)
from routeproxy.upstream.failures import (
    LONGEST_MESSAGE,
    Kind,
    UpstreamFailure,
    credentials_refused,
)

KIND_OF_STATUS: Mapping[int, Kind] = {
    400: "invalid_request",
    401: "auth",
    402: "rate_limit",
    403: "auth",
    404: "not_found",
    407: "connection",
    408: "timeout_first_token",
    409: "invalid_request",
    413: "invalid_request",
    421: "connection",
    422: "invalid_request",
    425: "server_error",
    429: "rate_limit",
    451: "capability",
    498: "server_error",
    499: "server_error",
    500: "server_error",
    502: "connection",
    503: "overloaded",
    504: "timeout_first_token",
    529: "overloaded",
}
"""Any other of the 4xx is an invalid request, and whatever else is no success is a failure of the server."""

OF_THE_WAY = frozenset({407, 408, 421, 425, 498, 499})
"""What is said between the two of us, and so about no request, whatever the words."""
_WITHOUT_WORDS = frozenset({401, 402, 407, 408, 421, 429})
"""What says enough without an error in it. Any other of the 4xx is then an answer of something that is not
the back end: a wrong address, a firewall."""

_KIND_OF_MEANING: Mapping[Meaning, Kind] = {
    "quota": "rate_limit",
    "rate_limit": "rate_limit",
    "overloaded": "overloaded",
    "timeout": "timeout_first_token",
    "auth": "auth",
    "not_found": "not_found",
    "overflow": "context_overflow",
    "content_policy": "content_policy",
    "region": "capability",
    "foreign_reasoning": "invalid_request",
    "bad_image": "invalid_request",
    "server_error": "server_error",
}

_MEANINGS_OF_STATUS: Mapping[int, tuple[Meaning, ...]] = {
    400: ("quota", "content_policy", "region", "auth", "overloaded", "server_error"),
    401: ("quota",),
    403: ("content_policy", "region", "quota", "overloaded"),
    404: ("region",),
    422: ("content_policy", "overloaded"),
    429: ("quota", "overloaded"),
    451: ("content_policy",),
    500: ("quota", "content_policy", "overloaded"),
    502: ("overloaded",),
}
"""What words may turn an error of that status into."""

_OVERFLOW_STATUSES = frozenset({400, 413, 422, 429, 500, 502, 503})
_REFUSAL_STATUSES = frozenset({400, 404, 405, 415, 422, 500, 501})
_SERVERS_OWN = frozenset({500, 501})


def classify_response(
    status: int, headers: Mapping[str, str], body: str, *, provider: str, model: str = ""
) -> UpstreamFailure:
    """The failure that an HTTP answer outside 2xx stands for. `headers` are looked up in lower case."""
    reported = read_error_body(body)
    if reported is None:
        return _classify_without_error(status, headers, body.strip(), provider)
    if amazons := headers.get("x-amzn-errortype", ""):
        code = amazons.partition(":")[0].lower()
        reported = replace(reported, codes=(code, *reported.codes))
    return classify_reported(status, reported, headers, provider, model)


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
    reported = read_error(message)
    codes = (*code.lower().split(), *reported.codes)
    return classify_reported(status, replace(reported, codes=codes), headers or {}, provider, model)


def classify_error_object(error: Any, *, provider: str, model: str = "") -> UpstreamFailure:
    """The failure that an error object inside a 200 stands for. The request was accepted, so unless the
    object says so it is not to blame."""
    reported = read_error(error)
    if not reported.message:
        reported = replace(reported, message=f"the back end {provider} reported an error")
    status = reported.status or status_of_codes(reported.codes) or 500
    failure = classify_reported(status, reported, {}, provider, model)
    if failure.kind == "server_error" and reported.status is None:
        failure.status = 502
    return failure


def classify_error_data(data: bytes, *, provider: str, model: str = "") -> UpstreamFailure:
    """The failure that the data of an `error` event, or a body in place of an answer, stand for, whatever is
    in them."""
    text = data.decode("utf-8", "replace")
    return classify_error_object(_decoded(text), provider=provider, model=model)


def find_error_in_answer(body: bytes, *, provider: str, model: str = "") -> UpstreamFailure | None:
    """The failure that a body with status 200 reports; None where it reports none."""
    decoded = _decoded(body.decode("utf-8", "replace"))
    if not (isinstance(decoded, dict) and reports_error(decoded)):
        return None
    return classify_error_object(decoded, provider=provider, model=model)


def reports_error(fields: Mapping[str, Any]) -> bool:
    """Whether an object that came in place of an answer or of an event is an error."""
    is_error = any(fields.get(name) for name in ("error", "errors", "detail", "error_msg", "base_resp"))
    return is_error or "error" in (fields.get("type"), fields.get("object"))


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def classify_error_event(type: str, message: str, *, provider: str = "", model: str = "") -> UpstreamFailure:
    """The failure that an `error` event of Messages stands for, while nothing of its stream has been
    relayed."""
    return classify_error_object({"type": type, "message": message}, provider=provider, model=model)


def classify_reported(
    status: int, reported: ReportedError, headers: Mapping[str, str], provider: str, model: str
) -> UpstreamFailure:
    """The failure that a status and an error stand for: what all entrances come to."""
    message = clean_message(reported.message)
    words = without_quotations(message)
    wait = read_retry_after(headers)
    if wait is None:
        wait = reported.wait
    wait_in_words = _wait_in(words)
    should_retry = {"true": True, "false": False}.get(headers.get("x-should-retry", ""))

    def failure(kind: Kind, said: str = message, **settings: Any) -> UpstreamFailure:
        is_quoted = True
        if said is message and are_a_programs(said):
            said, is_quoted = f"the back end {provider} failed inside, and answered {status}", False
        if kind in _MAY_SAY_WHEN:
            settings = {"retry_after": wait, "should_retry": should_retry} | settings
        if kind in ("rate_limit", "overloaded") and settings["retry_after"] is None:
            settings["retry_after"] = wait_in_words
        return UpstreamFailure(kind, said, quotes_back_end=is_quoted, **settings)

    if status in OF_THE_WAY or status < 200 or status >= 600:
        kind = KIND_OF_STATUS.get(status, "server_error")
        return failure(kind, status=None if kind == "timeout_first_token" else 502)
    meaning = _meaning(status, reported, words)
    if meaning == "quota" and status != 402 and (wait, wait_in_words) != (None, None):
        meaning = "rate_limit"  # Gemini calls a full minute a quota too, and says when it is over
    if meaning == "auth" or (meaning is None and status in (401, 403)):
        return credentials_refused(provider)
    may_overflow = meaning == "overflow" or (meaning in (None, "rate_limit") and status in _OVERFLOW_STATUSES)
    if may_overflow and (overflow := match_overflow(message, reported.codes)) is not None:
        return failure("context_overflow", overflow)
    if meaning == "quota":
        return failure("rate_limit", status=402 if status == 402 else 429, should_retry=False)
    if meaning == "bad_image":  # Claude Code goes on without it, where it would be refused for ever
        return failure("invalid_request", f"capability_rejected: image_block ({message[:300]})")
    if meaning == "foreign_reasoning":
        # Reasoning that another account or model wrote. Claude Code knows the token, and asks again without.
        return failure("invalid_request", f"capability_rejected: thinking_signature ({message[:300]})")
    if meaning is None and status in _REFUSAL_STATUSES:
        if (refused := read_refusal(message, reported.param)) is not None:
            return failure("capability", _words_of_refusal(*refused), refusal=refused[0])
        if status in _SERVERS_OWN and NEVER_WORKS.search(words):
            return failure("invalid_request")
        if status == 400 and NO_MODEL.match(words):
            meaning = "not_found"
    if meaning == "not_found" or (meaning is None and status == 404):
        # A wrong `base_url` is a 404 too, and its reader needs other words.
        names_model = not _OF_A_MODEL.isdisjoint(reported.codes) or NO_MODEL.search(words)
        return failure("not_found", f"model: {model}" if model and names_model else message)
    if meaning is not None:
        return failure(_KIND_OF_MEANING[meaning])
    kind = KIND_OF_STATUS.get(status, "server_error" if status >= 500 else "invalid_request")
    return failure(kind, status=status if status in (409, 413) else None)


_MAY_SAY_WHEN: frozenset[Kind] = frozenset(
    {"rate_limit", "overloaded", "server_error", "connection", "timeout_first_token", "invalid_request"}
)
"""Kinds whose answer may say whether and when to come again."""
_OF_A_MODEL = frozenset(
    {"model_not_found", "modelnotfound", "model_not_exist", "model_not_available", "unknown_model"}
    | {"model_not_supported", "deploymentnotfound", "1211"}
)


def _meaning(status: int, reported: ReportedError, words: str) -> Meaning | None:
    """By its codes, else by its words; None where the status is all there is."""
    meaning = "content_policy" if reported.was_moderated else meaning_of_codes(reported.codes)
    if meaning == "auth" and status not in (400, 401, 403, 500):
        meaning = None
    if meaning in (None, "rate_limit", "not_found"):
        meaning = meaning_of_words(words, _MEANINGS_OF_STATUS.get(status, ())) or meaning
    return "quota" if meaning is None and status == 402 else meaning


def _words_of_refusal(refusal: Refusal, words: str) -> str:
    token = CLIENT_TOKENS.get(refusal.feature) if refusal.feature else None
    return words if token is None else f"capability_rejected: {token} ({words[:300]})"


def _classify_without_error(
    status: int, headers: Mapping[str, str], text: str, provider: str
) -> UpstreamFailure:
    """An answer that holds no error in JSON: a page, or a line of text, of whoever stands in the way."""
    if status == 413:  # nginx' word, for one
        words = f"the back end {provider} takes no request of so many bytes"
        return UpstreamFailure("context_overflow", f"capability_rejected: prompt_too_long ({words})")
    if 400 <= status < 500 and status not in _WITHOUT_WORDS:
        return UpstreamFailure("server_error", _no_words(provider, status), status=502)
    is_page = not text or is_a_page(text)
    words = _no_words(provider, status) if is_page else text
    return classify_reported(status, ReportedError(without_exception_names(words)), headers, provider, "")


def is_a_page(text: str) -> bool:
    return text.lstrip("\ufeff \t\r\n").startswith("<") or "<html" in text[:500].lower()


def _no_words(provider: str, status: int) -> str:
    return f"the back end {provider} {_OWN_WORDS.get(status, f'answered {status} without a JSON error')}"


_OWN_WORDS: Mapping[int, str] = {
    407: "answered 407: a proxy on the way to it wants credentials",
    421: "answered 421: the request reached a server that does not answer for its address",
}


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


_WAIT = re.compile(
    r"(?:try again|retry|resets?) (?:in|after) (?:(\d+)\s?h(?:ours?)?\s?)?(?:(\d+)\s?m(?:in(?:ute)?s?)?\s?)?"
    r"(?:(\d+(?:\.\d+)?)\s?(ms|s)(?:ec(?:ond)?s?)?)?\b",
    re.IGNORECASE,
)


def _wait_in(text: str) -> float | None:
    """Seconds, where they are only in the message: `Please try again in 1m6.5s`."""
    if (wait := _WAIT.search(text)) is None or not any(wait.groups()[:3]):
        return None
    hours, minutes, seconds, unit = wait.groups()
    return (
        3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds or 0) / (1000 if unit == "ms" else 1)
    )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


# --- what a client may read


_SECRETS = re.compile(
    r"(?i)\b((?:sk|xai|pplx|hf|r8|fw|csk|tgp_v\d|nvapi|gsk)[-_][\w-]{10,}|AIza[\w-]{20,}|AKIA\w{12,})"
    r"|((?:bearer|api[-_ ]?key(?:[-_ ]id)?[\"']?\s*[=:]|[?&]key=|\bteam:)\s*[\"']?)([\w.~+/=-]{6,})"
)


def clean_message(message: str) -> str:
    """A back end's words without the names of exceptions and without anything that looks like a key."""
    message = read_error(message).message
    message = _SECRETS.sub(lambda match: (match[2] or "") + REDACTED, message)
    return message[:LONGEST_MESSAGE] or "the back end gave no reason"
