"""What LiteLLM's exceptions mean, and those of the libraries below it, in one table. By name: LiteLLM is
imported late, and not here."""

import logging
import re
from collections.abc import Mapping

from msgspec.structs import replace

from routeproxy.chat.error_codes import status_of_codes
from routeproxy.chat.reported_errors import ReportedError, find_error, read_error, without_exception_names
from routeproxy.upstream.errors.classify import KIND_OF_STATUS, classify_reported, read_retry_after
from routeproxy.upstream.errors.connecting import cause_of, related_errors
from routeproxy.upstream.errors.refusals import Refusal
from routeproxy.upstream.errors.words import are_a_programs
from routeproxy.upstream.failures import STATUS_OF_KIND, Kind, UpstreamFailure, credentials_refused, failed_at

log = logging.getLogger("routeproxy.upstream.litellm")

# A number is the status that the exception stands for, and its message is read with it; a word is the kind,
# whatever the message.
MEANINGS: Mapping[str, int | Kind] = {
    # LiteLLM's own
    "litellm.AuthenticationError": 401,
    "litellm.NotFoundError": 404,
    "litellm.BadRequestError": 400,
    "litellm.ImageFetchError": 400,
    "litellm.VectorStoreSearchError": 400,
    "litellm.UnprocessableEntityError": 422,
    "litellm.Timeout": "timeout_first_token",
    "litellm.PermissionDeniedError": 403,
    "litellm.RateLimitError": 429,
    "litellm.ContextWindowExceededError": "context_overflow",
    "litellm.PaymentRequiredError": 402,
    "litellm.RejectedRequestError": 400,
    "litellm.ContentPolicyViolationError": "content_policy",
    "litellm.ServiceUnavailableError": 503,
    "litellm.BadGatewayError": 502,
    "litellm.InternalServerError": 500,
    "litellm.APIError": 500,
    "litellm.APIConnectionError": 502,
    "litellm.APIResponseValidationError": 502,
    "litellm.JSONSchemaValidationError": 502,
    "litellm.OpenAIError": 500,
    "litellm.UnsupportedParamsError": 400,
    "litellm.ModelNotMappedError": 400,
    "litellm.BudgetExceededError": 402,
    "litellm.InvalidRequestError": 400,
    "litellm.MockException": 500,
    "litellm.LiteLLMUnknownProvider": 400,
    "litellm.GuardrailRaisedException": "content_policy",
    "litellm.BlockedPiiEntityError": "content_policy",
    "litellm.MidStreamFallbackError": 502,
    "litellm.ModifyResponseException": 500,
    "litellm.SensitiveDataRouteException": "content_policy",
    "litellm.CallerCredentialAuthenticationError": 401,
    "litellm.CallerCredentialRateLimitError": 429,
    "litellm.EndpointNotSupportedByModelError": 400,
    "litellm.MalformedRequestFieldError": 400,
    "litellm.UnsupportedEndpointError": 400,
    # of OpenAI's client, below it
    "openai.APIConnectionError": "connection",
    "openai.APIError": 500,
    "openai.APIResponseValidationError": 502,
    "openai.APIStatusError": 500,
    "openai.APITimeoutError": "timeout_first_token",
    "openai.AuthenticationError": 401,
    "openai.BadRequestError": 400,
    "openai.ConflictError": 409,
    "openai.ContentFilterFinishReasonError": "content_policy",
    "openai.InternalServerError": 500,
    "openai.InvalidWebhookSignatureError": 500,
    "openai.LengthFinishReasonError": 500,
    "openai.NotFoundError": 404,
    "openai.OAuthError": 401,
    "openai.OpenAIError": 500,
    "openai.PermissionDeniedError": 403,
    "openai.RateLimitError": 429,
    "openai.UnprocessableEntityError": 422,
    "openai.WebSocketConnectionClosedError": "connection",
    "openai.WebSocketQueueFullError": "connection",
    "openai._AmbiguousModuleClientUsageError": 500,
    # and of httpx, below that
    "httpx.CloseError": "connection",
    "httpx.ConnectError": "connection",
    "httpx.ConnectTimeout": "timeout_connect",
    "httpx.CookieConflict": "connection",
    "httpx.DecodingError": "connection",
    "httpx.HTTPError": "connection",
    "httpx.HTTPStatusError": 500,
    "httpx.InvalidURL": "connection",
    "httpx.LocalProtocolError": "connection",
    "httpx.NetworkError": "connection",
    "httpx.PoolTimeout": "timeout_connect",
    "httpx.ProtocolError": "connection",
    "httpx.ProxyError": "connection",
    "httpx.ReadError": "connection",
    "httpx.ReadTimeout": "timeout_idle",
    "httpx.RemoteProtocolError": "connection",
    "httpx.RequestError": "connection",
    "httpx.RequestNotRead": "server_error",
    "httpx.ResponseNotRead": "server_error",
    "httpx.StreamClosed": "connection",
    "httpx.StreamConsumed": "server_error",
    "httpx.StreamError": "connection",
    "httpx.TimeoutException": "timeout_idle",
    "httpx.TooManyRedirects": "connection",
    "httpx.TransportError": "connection",
    "httpx.UnsupportedProtocol": "connection",
    "httpx.WriteError": "connection",
    "httpx.WriteTimeout": "timeout_idle",
    # What asks beside all of them: for a signature's credentials, say.
    "aiohttp.ClientConnectionError": "connection",
    "aiohttp.ClientError": "connection",
    "aiohttp.ServerTimeoutError": "timeout_idle",
    "aiohttp.ConnectionTimeoutError": "timeout_connect",
    "botocore.ConnectTimeoutError": "timeout_connect",
    "botocore.CredentialRetrievalError": 401,
    "botocore.HTTPClientError": "connection",
    "botocore.NoCredentialsError": 401,
    "botocore.PartialCredentialsError": 401,
    "botocore.ReadTimeoutError": "timeout_idle",
    "httpcore.ConnectError": "connection",
    "httpcore.ConnectTimeout": "timeout_connect",
    "httpcore.NetworkError": "connection",
    "httpcore.ProtocolError": "connection",
    "httpcore.ProxyError": "connection",
    "httpcore.TimeoutException": "timeout_idle",
    "requests.ConnectTimeout": "timeout_connect",
    "requests.ConnectionError": "connection",
    "requests.RequestException": "connection",
    "requests.Timeout": "timeout_idle",
    "urllib3.HTTPError": "connection",
    "urllib3.TimeoutError": "timeout_idle",
    # What LiteLLM is given in a shape that it cannot read, or breaks over by itself.
    "builtins.TimeoutError": "timeout_idle",
    "builtins.OSError": "connection",
    "builtins.Exception": 500,
}

# Of these an exception's own status counts more than its class: they stand for whatever had no class of its
# own.
_BY_STATUS = frozenset(
    {"litellm.APIError", "litellm.OpenAIError", "openai.APIError", "openai.APIStatusError"}
)


_QUOTING = frozenset(
    f"{library}.{name}"
    for library in ("litellm", "openai")
    for name in (
        *("APIError", "APIStatusError", "AuthenticationError", "BadGatewayError", "BadRequestError"),
        *("ConflictError", "ContentPolicyViolationError", "ContextWindowExceededError"),
        *("InternalServerError", "NotFoundError", "PaymentRequiredError", "PermissionDeniedError"),
        *("RateLimitError", "ServiceUnavailableError", "UnprocessableEntityError"),
    )
)
"""These stand for an answer of the back end, and quote it. What the others say is LiteLLM's or Python's."""


def failure_of(
    error: BaseException,
    *,
    provider: str,
    model: str,
    in_stream: bool = False,
    answered: bool = True,
    address: str | None = None,
) -> UpstreamFailure:
    """The failure that an exception of LiteLLM stands for. `in_stream`: it was raised after the request had
    been accepted. `answered`: the back end has answered something, which it may quote. `address`: where it
    is, for operators."""
    error = _innermost(error)
    for related in related_errors(error):
        if isinstance(related, ModuleNotFoundError):
            package = PACKAGES.get(str(related.name).partition(".")[0], related.name)
            words = f"provider {provider} needs the Python package {package}, which is not installed"
            return UpstreamFailure("server_error", words)
    meaning, name = _meaning(error)
    reported = _reported_error(error)
    if reported is None and answered and name in _QUOTING:
        reported = _quoted_words(error)
    if reported is None:
        # Its words are LiteLLM's, or Python's: they may tell of anything, and explain nothing to a client.
        return _own_failure(error, meaning, provider, in_stream=in_stream, address=address)
    if isinstance(meaning, str):
        status = STATUS_OF_KIND[meaning]
        codes = (_CODE_OF_KIND[meaning], *reported.codes) if meaning in _CODE_OF_KIND else reported.codes
        reported = replace(reported, codes=codes)
    else:
        status = meaning
    stated = reported.status or status_of_codes(reported.codes)
    if name in _BY_STATUS:
        status = stated or _own_status(error) or status
    if in_stream and status != 429 and status < 500 and not stated:
        status = 500  # the request was accepted, so what came later is not its fault
    return classify_reported(status, reported, _headers_of(error), provider, model)


_CODE_OF_KIND: Mapping[Kind, str] = {
    "context_overflow": "context_length_exceeded",
    "content_policy": "content_policy",
}
"""What LiteLLM has read out of a back end's words."""

_UNSUPPORTED_PARAMETERS = re.compile(r"does not support parameters: \[((?:'\w+'(?:, )?)+)\]")


def _own_failure(
    error: BaseException, meaning: int | Kind, provider: str, *, in_stream: bool, address: str | None
) -> UpstreamFailure:
    """The failure of an exception that no back end's words are in."""
    words = str(getattr(error, "message", None) or error)
    if parameters := _UNSUPPORTED_PARAMETERS.search(words):
        names = tuple(re.findall(r"\w+", parameters[1]))
        said = f"the back end {provider} cannot be given {', '.join(names)}"
        return UpstreamFailure("capability", said, refusal=Refusal("parameter", names))
    status, kind = (meaning, None) if isinstance(meaning, int) else (STATUS_OF_KIND[meaning], meaning)
    if kind is None:
        status = _own_status(error) or status
        if in_stream and status != 429 and status < 500:
            status = 500
        kind = KIND_OF_STATUS.get(status, "server_error" if status >= 500 else "invalid_request")
    if kind == "auth":
        return credentials_refused(provider)
    wait = read_retry_after(_headers_of(error))
    log.warning("%s: %s stands for a failure (%s)", provider, _class_name(error), kind)
    if kind == "context_overflow":
        said = (
            f"capability_rejected: prompt_too_long (the back end {provider} takes no prompt of this length)"
        )
    else:
        said = f"the back end {provider} {_WORDS[kind]}"
    if kind in ("connection", "timeout_connect"):
        return _unreached(error, kind, provider, address)
    return UpstreamFailure(kind, said, retry_after=wait if kind in ("rate_limit", "overloaded") else None)


def _unreached(error: BaseException, kind: Kind, provider: str, address: str | None) -> UpstreamFailure:
    words, cause = _WORDS[kind], cause_of(error)
    if cause is not None:
        words = f"{'could not be reached' if kind == 'connection' else words}: {cause}"
    shows_address = cause is not None or kind == "timeout_connect"
    return failed_at(kind, provider, words, address, shows_address=shows_address)


def is_no_answer_of_the_back_end(error: BaseException) -> bool:
    """Whether LiteLLM raised it of its own accord, about bytes that it could not read, say: it wraps whatever
    it did not foresee as a failed connection. Our transport knows of those that did fail."""
    error = _innermost(error)
    _, name = _meaning(error)
    is_a_library_mistake = name == "builtins.Exception" and _own_status(error) is None
    return is_a_library_mistake or name == "litellm.APIConnectionError"


def _innermost(error: BaseException) -> BaseException:
    while isinstance(inner := getattr(error, "original_exception", None), BaseException):
        error = inner
    return error


PACKAGES: Mapping[str, str] = {"google": "google-auth (and requests)", "azure": "azure-identity"}
"""What LiteLLM needs for some providers and does not bring, by the module that it misses."""

_WORDS: Mapping[Kind, str] = {
    "connection": "could not be spoken to",
    "server_error": "could not be asked",
    "timeout_connect": "could not be reached in time",
    "timeout_first_token": "gave no answer in time",
    "timeout_idle": "went silent",
    "rate_limit": "takes no more requests for now",
    "overloaded": "is overloaded",
    "not_found": "does not have what was asked for",
    "invalid_request": "cannot be asked this: the request has no form that it would take",
    "content_policy": "refuses the request by its content policy",
    "capability": "cannot serve this request",
}


def _class_name(error: BaseException) -> str:
    return f"{type(error).__module__.partition('.')[0]}.{type(error).__name__}"


def _meaning(error: BaseException) -> tuple[int | Kind, str]:
    """The meaning of the nearest class that the table has, and that class's name there."""
    for kind in type(error).__mro__:
        name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
        if name in MEANINGS:
            return MEANINGS[name], name
    return 500, ""


def _reported_error(error: BaseException) -> ReportedError | None:
    """The back end's error, if an exception on the way kept it, as an object or in its words."""
    for related in related_errors(error):
        body = getattr(related, "body", None)
        if isinstance(body, Mapping) and not (reported := read_error(body)).is_empty:
            return reported
    for related in related_errors(error):
        words = str(getattr(related, "message", None) or related)
        if (found := find_error(words)) is not None:
            return found
    return None


def _quoted_words(error: BaseException) -> ReportedError | None:
    words = without_exception_names(str(getattr(error, "message", None) or error))
    return ReportedError(words) if words and not are_a_programs(words) else None


def _own_status(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and (status in KIND_OF_STATUS or 400 <= status < 600) else None


def _headers_of(error: BaseException) -> Mapping[str, str]:
    for related in related_errors(error):
        # Not `response.headers`: LiteLLM makes that response up.
        headers = getattr(related, "litellm_response_headers", None)
        if headers:
            return {str(name).lower(): str(value) for name, value in dict(headers).items()}
    return {}
