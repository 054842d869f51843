"""Errors that back ends report inside a stream, in the Messages API's terms (wire.md §2.8)."""

from typing import Any

from routeproxy.messages.errors import TYPE_OF_STATUS
from routeproxy.messages.events import Error, error_event

CLOSED_EARLY = "upstream closed the stream before completing"
NAMELESS_CALL = "upstream called a tool without a name"
NO_CALL = "upstream said that it calls a tool, and there is no call that can be read"
UNREADABLE_CONTENT = "upstream answered with content that cannot be read"
_REJECTED_CREDENTIALS = "upstream rejected the proxy's credentials"
_MAX_MESSAGE_LENGTH = 2000

ERROR_TYPES = {
    "rate_limit": "rate_limit_error",
    "rate_limit_error": "rate_limit_error",
    "rate_limit_exceeded": "rate_limit_error",
    "resource_exhausted": "rate_limit_error",
    "too_many_requests": "rate_limit_error",
    "overloaded": "overloaded_error",
    "overloaded_error": "overloaded_error",
    "server_overloaded": "overloaded_error",
    "service_unavailable": "overloaded_error",
    "unavailable": "overloaded_error",
    "timeout": "timeout_error",
    "timeout_error": "timeout_error",
    "deadline_exceeded": "timeout_error",
    "invalid_request": "invalid_request_error",
    "invalid_request_error": "invalid_request_error",
    "invalid_argument": "invalid_request_error",
    "badrequesterror": "invalid_request_error",
    "invalid_prompt": "invalid_request_error",
    "image_content_policy_violation": "invalid_request_error",
    "context_length_exceeded": "invalid_request_error",
    "not_found_error": "not_found_error",
    "model_not_found": "not_found_error",
}
"""By the `type`, `code` or `status` of an error inside a stream, in lower case. Any other is `api_error`."""


def translate_error(error: Any) -> Error:
    """An error that a back end reported inside a 200, as the event that ends our stream."""
    if not isinstance(error, dict):
        error = {"message": error}
    codes = [error.get("code"), error.get("status"), error.get("type")]
    statuses = {int(code) for code in codes if _is_status(code)}
    if statuses & {401, 403}:
        # The client would take its own key for bad.
        return error_event("api_error", _REJECTED_CREDENTIALS)
    message = error.get("message")
    if not isinstance(message, str) or not message.strip():
        message = "upstream reported an error"
    types = [TYPE_OF_STATUS[status] for status in statuses if status in TYPE_OF_STATUS]
    types += [
        ERROR_TYPES[code.lower()] for code in codes if isinstance(code, str) and code.lower() in ERROR_TYPES
    ]
    type = types[0] if types else "overloaded_error" if "overloaded" in message.lower() else "api_error"
    return error_event(type, message[:_MAX_MESSAGE_LENGTH])


def _is_status(code: Any) -> bool:
    return (isinstance(code, int) and not isinstance(code, bool)) or (
        isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3
    )
