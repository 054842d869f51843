"""What LiteLLM's exceptions mean, and those of the libraries below it, in one table. By name: LiteLLM is
imported late, and not here."""

from collections.abc import Iterator, Mapping
from typing import Any

from routeproxy.upstream.errors.classify import KIND_OF_STATUS, classify_error, code_of, stated_status
from routeproxy.upstream.failures import Kind, UpstreamFailure

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


def failure_of(
    error: BaseException, *, provider: str, model: str, in_stream: bool = False
) -> UpstreamFailure:
    """The failure that an exception of LiteLLM stands for. `in_stream`: it was raised after the request had
    been accepted."""
    error = _innermost(error)
    for related in _related(error):
        if isinstance(related, ModuleNotFoundError):
            package = PACKAGES.get(str(related.name).partition(".")[0], related.name)
            words = f"provider {provider} needs the Python package {package}, which is not installed"
            return UpstreamFailure("server_error", words)
    meaning, name = _meaning(error)
    fields = _error_object(error)
    message = fields.get("message") or getattr(error, "message", None) or error
    message = str(message).partition("\nTraceback")[0]
    code = code_of(fields)
    if isinstance(meaning, str):
        if meaning == "context_overflow":
            return classify_error(
                400, message, provider=provider, model=model, code="context_length_exceeded"
            )
        if meaning == "content_policy":
            return classify_error(400, message, provider=provider, model=model, code="content_policy")
        return UpstreamFailure(meaning, f"the back end {provider} {_WORDS[meaning]}")
    status = meaning
    if name in _BY_STATUS:
        status = stated_status(fields) or _own_status(error) or meaning
    if in_stream and status != 429 and status < 500 and not stated_status(fields):
        status = 500  # the request was accepted, so what came later is not its fault
    return classify_error(
        status, message, provider=provider, model=model, headers=_headers_of(error), code=code
    )


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
}


def _meaning(error: BaseException) -> tuple[int | Kind, str]:
    """The meaning of the nearest class that the table has, and that class's name there."""
    for kind in type(error).__mro__:
        name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
        if name in MEANINGS:
            return MEANINGS[name], name
    return 500, ""


def _error_object(error: BaseException) -> Mapping[str, Any]:
    """The back end's error object, if an exception on the way kept it; else empty."""
    for related in _related(error):
        body = getattr(related, "body", None)
        if isinstance(body, Mapping):
            fields = body.get("error", body)
            if isinstance(fields, Mapping) and fields.get("message"):
                return fields
    return {}


def _related(error: BaseException) -> Iterator[BaseException]:
    """The exception, those that it wraps and those that led to it, nearest first."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        related = waiting.pop(0)
        if isinstance(related, BaseException) and id(related) not in seen:
            seen.add(id(related))
            yield related
            waiting += [getattr(related, "original_exception", None), related.__cause__, related.__context__]


def _own_status(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and (status in KIND_OF_STATUS or 400 <= status < 600) else None


def _headers_of(error: BaseException) -> Mapping[str, str]:
    for related in _related(error):
        # Not `response.headers`: LiteLLM makes that response up.
        headers = getattr(related, "litellm_response_headers", None)
        if headers:
            return {str(name).lower(): str(value) for name, value in dict(headers).items()}
    return {}
