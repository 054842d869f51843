"""The errors that back ends report, read out of all the shapes in which they come: their words, their codes,
the status and the wait that they state. What they mean is not said here."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

LONGEST_WRAPPED_ERROR = 2**16
"""Characters of a back end's words that are looked into: for another server's error, too."""


class ReportedError(Struct, frozen=True):
    """What a back end says of a failure."""

    message: str = ""
    """Its words; empty where it has none."""
    codes: tuple[str, ...] = ()
    """Its codes, types and reasons in lower case, the most specific first: each is one word."""
    status: int | None = None
    """The HTTP status that it states."""
    wait: float | None = None
    """Seconds that it asks to wait."""
    param: str = ""
    """The parameter that it complains of."""
    was_moderated: bool = False
    """It names what was flagged in the request."""

    @property
    def is_empty(self) -> bool:
        return not (self.message or self.codes or self.status)


def read_error_body(body: str) -> ReportedError | None:
    """The error in a body; None for what is no JSON object, or says nothing."""
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(decoded, list) and decoded:  # Gemini wraps stream errors in a list
        decoded = decoded[0]
    if not isinstance(decoded, dict):
        return None
    reported = read_error(decoded)
    return None if reported.is_empty else reported


def read_error(value: Any) -> ReportedError:
    """`value`: an error object, an object around one, or what stands in its place."""
    return _read(value, depth=0)


def find_error(words: str, depth: int = 0) -> ReportedError | None:
    """The error of another server that somebody's words hold; None where they are all there is."""
    words = without_exception_names(words)
    start = words.find("{")
    if (
        start < 0
        or depth > 4
        or len(words) > LONGEST_WRAPPED_ERROR
        or not _WRAPPER.fullmatch(words, 0, start)
    ):
        return None
    inner = _decode_wrapped(words[start:].rstrip(" '\"]"))
    reported = ReportedError() if inner is None else _read(inner, depth + 1)
    return reported if reported.message else None


def _read(value: Any, depth: int) -> ReportedError:
    if isinstance(value, str):
        return _read_words(value, depth)
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return ReportedError(_join_details(value)) if _are_details(value) else _read(value[0], depth)
    if not isinstance(value, Mapping) or depth > 4:
        return ReportedError()
    own = _read_fields(value, depth)
    inner = ReportedError()
    for name in _NESTED:
        nested = value.get(name)
        if isinstance(nested, str | Mapping | list) and nested:
            inner = _merge(inner, _read(nested, depth + 1))
    return _merge(inner, own)


def _merge(inner: ReportedError, outer: ReportedError) -> ReportedError:
    """What stands further in is more exact, but for the status, which the outer server decided on."""
    return ReportedError(
        message=_join_words(outer.message, inner.message),
        codes=tuple(dict.fromkeys((*inner.codes, *outer.codes))),
        status=outer.status or inner.status,
        wait=inner.wait if inner.wait is not None else outer.wait,
        param=inner.param or outer.param,
        was_moderated=inner.was_moderated or outer.was_moderated,
    )


def _join_words(outer: str, inner: str) -> str:
    if not inner or inner in outer or (outer and _SAYS_NOTHING.fullmatch(inner)):
        return outer or inner
    if not outer or outer in inner or _SAYS_NOTHING.fullmatch(outer):
        return inner
    return f"{outer}: {inner}"


_NESTED = ("error", "errors", "detail", "metadata", "innererror", "base_resp", "fault")
"""Fields of an object that hold the error itself, or the one of the server behind."""

_MESSAGES = (
    "message",
    "raw",  # what the provider behind OpenRouter said
    "detail",  # FastAPI, Mistral, problem+json
    "status_msg",  # MiniMax
    "error_message",
    "error_msg",
    "errorMessage",
    "faultstring",
    "msg",
    "title",
)
_CODES = (
    "code",
    "type",
    "error_type",
    "error_code",
    "errorCode",
    "status",
    "reason",
    "__type",  # AWS
)
_SAYS_NOTHING = re.compile(
    r"(?i)(?:(?:provider|upstream) returned (?:an )?error|(?:unknown|upstream|internal server) error|error|"
    r"bad request|invalid request|not found|unauthorized|forbidden|unknown)\.?"
)
"""OpenRouter's own words, for one, beside those of the provider behind it."""
_CODE = re.compile(r"[\w.:#/-]{1,120}")


def _read_fields(fields: Mapping[str, Any], depth: int) -> ReportedError:
    codes = [code for name in _CODES for code in _words_of(fields.get(name))]
    if _is_count(number := fields.get("status_code")):
        codes.append(f"status_code.{number}")  # MiniMax
    details = fields.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, Mapping):
            codes[:0] = _words_of(detail.get("reason"))  # Google's
    words = _message_in(fields)
    wrapped = _read_words(words, depth) if words else ReportedError()
    own = ReportedError(
        message=wrapped.message,
        codes=tuple(codes),
        status=_stated_status(fields),
        wait=_stated_wait(fields),
        param=param if isinstance(param := fields.get("param"), str) else "",
        was_moderated="flagged_input" in fields,
    )
    return _merge(wrapped, own)


def _message_in(fields: Mapping[str, Any]) -> str:
    prompt, limit = fields.get("n_prompt_tokens"), fields.get("n_ctx")
    if _is_count(prompt) and _is_count(limit):  # llama.cpp has its numbers beside its words
        return f"request ({prompt} tokens) exceeds the available context size ({limit} tokens)"
    for name in _MESSAGES:
        words = fields.get(name)
        if isinstance(words, str) and words.strip():
            return words
        if name in ("message", "detail") and isinstance(words, Mapping | list) and words:
            # Mistral's, for a request that it cannot read
            reported = _read(words, 2)
            if reported.message:
                return reported.message
            return json.dumps(words)[:LONGEST_WRAPPED_ERROR]
    return ""


def _are_details(items: list[Any]) -> bool:
    return all("msg" in item for item in items)


def _join_details(items: list[Any]) -> str:
    """Pydantic's list of what is wrong, without the client's own text, which it quotes as `input`."""
    return "; ".join(
        f"{'.'.join(map(str, loc))}: {item['msg']}"
        if isinstance(loc := item.get("loc"), list)
        else str(item["msg"])
        for item in items
    )


def _words_of(value: Any) -> Iterator[str]:
    if isinstance(value, str | int) and not isinstance(value, bool) and _CODE.fullmatch(str(value)):
        # AWS: `com.amazon.coral.service#ValidationException`, `ThrottlingException:http://…`
        yield re.sub(r"^.*#|:.*$", "", str(value)).lower()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _stated_status(fields: Mapping[str, Any]) -> int | None:
    for name in ("code", "status", "status_code"):
        value = fields.get(name)
        digits = str(value) if _is_count(value) or isinstance(value, str) else ""
        if len(digits) == 3 and digits.isascii() and digits.isdigit() and int(digits) >= 400:
            return int(digits)
    return None


# --- errors inside words

_CLASS_NAMES = re.compile(
    r"(?:(?:\w{1,80}Exception\s{1,3})?[\w.]{0,120}(?:Error|Exception)(?:\s{0,3}:\s{0,3}|\s{1,3}-\s{1,3})|"
    r"Error code: \d{3} - )+"
)
"""The names of exceptions, as LiteLLM and others put them before a back end's words."""
_LITELLMS_APPENDIX = re.compile(
    r"(?:\.?\s{0,2}(?:Received Model Group=|Available Model Group Fallbacks=|No fallback model group found|"
    r"Handle with `litellm\.|LiteLLM Retried: |Deployment Info: ).*|"
    r"\s{0,2}Traceback \(most recent call last\):.*)\Z",
    re.DOTALL,
)
_WRAPPER = re.compile(
    r"(?is)(?:.{0,120}(?:exception|error code|provider|upstream|status|returned|response|api error).{0,80}?"
    r"(?:[:-]\s*|\s))?b?['\"]?"
)
"""What stands before another server's answer. Before anything else in braces stands a sentence about the
request, and then it is the client's."""


def without_exception_names(words: str) -> str:
    """A back end's words without what Python and LiteLLM put around them."""
    words = words[:LONGEST_WRAPPED_ERROR].strip()
    if match := _CLASS_NAMES.match(words):
        words = words[match.end() :]
    return _LITELLMS_APPENDIX.sub("", words).strip()


def _read_words(words: str, depth: int) -> ReportedError:
    """The error in somebody's words: they may hold the answer of the server behind, as JSON or as Python
    writes a dictionary."""
    return find_error(words, depth) or ReportedError(without_exception_names(words))


def _decode_wrapped(text: str) -> Mapping[str, Any] | None:
    """An error object; None for any other object, which may be the client's own."""
    try:
        decoded = json.JSONDecoder().raw_decode(text)[0] if text[1:2] != "'" else ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    if not isinstance(decoded, Mapping):
        return None
    if isinstance(decoded.get("error"), Mapping | str):
        return decoded
    is_error = "message" in decoded and not decoded.keys().isdisjoint(("code", "type", "object", "status"))
    return decoded if is_error else None


# --- how long to wait


def _stated_wait(fields: Mapping[str, Any]) -> float | None:
    details = fields.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, Mapping) and (wait := duration_of(detail.get("retryDelay"))) is not None:
            return wait
    for name, unit in _WAITS.items():
        value = fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return max(0.0, float(value) * unit)
        if (wait := duration_of(value)) is not None:
            return wait * (unit if str(value).isdigit() else 1)
    return None


_WAITS: Mapping[str, float] = {
    "retryDelay": 1.0,
    "retry_after_ms": 0.001,
    "retry_after": 1.0,
    "retryAfter": 1.0,
    "retry_after_seconds": 1.0,
}
"""By field: its unit in seconds."""

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)(ms|s)?)?")


def duration_of(value: Any) -> float | None:
    """Seconds, from a text such as `23s`, `1m6.5s` or `1h2m`, or Google's object; None for anything else."""
    if isinstance(value, Mapping):
        seconds, nanos = value.get("seconds", 0), value.get("nanos", 0)
        both = [int(part) for part in (seconds, nanos) if str(part).isdigit()]
        return both[0] + both[1] / 1e9 if len(both) == 2 else None
    if not isinstance(value, str) or not (match := _DURATION.fullmatch(value.strip())) or not match[0]:
        return None
    hours, minutes, seconds, unit = match.groups()
    last = float(seconds or 0) / (1000 if unit == "ms" else 1)
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + last
