"""Errors that back ends report inside a stream, in the Messages API's terms (wire.md §2.8). Whoever asks a
back end stops at such an error and classifies it (`upstream/errors/`): this is for who but reads it."""

import re
from collections.abc import Mapping
from typing import Any

from routeproxy.chat.error_codes import Meaning, meaning_of_codes, status_of_codes
from routeproxy.chat.reported_errors import read_error
from routeproxy.messages.errors import TYPE_OF_STATUS
from routeproxy.messages.events import Error, error_event

CLOSED_EARLY = "upstream closed the stream before completing"
NAMELESS_CALL = "upstream called a tool without a name"
NO_CALL = "upstream said that it calls a tool, and there is no call that can be read"
UNREADABLE_CONTENT = "upstream answered with content that cannot be read"
_REJECTED_CREDENTIALS = "upstream rejected the proxy's credentials"
_MAX_MESSAGE_LENGTH = 2000

_TYPES: Mapping[Meaning, str] = {
    "quota": "rate_limit_error",
    "rate_limit": "rate_limit_error",
    "overloaded": "overloaded_error",
    "timeout": "timeout_error",
    "not_found": "not_found_error",
    "overflow": "invalid_request_error",
    "content_policy": "invalid_request_error",
    "region": "invalid_request_error",
    "foreign_reasoning": "invalid_request_error",
    "bad_image": "invalid_request_error",
    "server_error": "api_error",
}
_OVERLOADED = re.compile(
    r"(?:the |this )?(?:model|engine|server) is (?:currently )?overloaded|overloaded\b", re.IGNORECASE
)


def translate_error(error: Any) -> Error:
    """An error that a back end reported inside a 200, as the event that ends our stream."""
    reported = read_error(error)
    meaning = meaning_of_codes(reported.codes)
    status = reported.status or status_of_codes(reported.codes)
    if meaning == "auth" or (meaning is None and status in (401, 403)):
        # The client would take its own key for bad.
        return error_event("api_error", _REJECTED_CREDENTIALS)
    message = reported.message.strip() or "upstream reported an error"
    type = _TYPES[meaning] if meaning else TYPE_OF_STATUS.get(status or 0)
    if type is None:
        type = "overloaded_error" if _OVERLOADED.match(message) else "api_error"
    return error_event(type, message[:_MAX_MESSAGE_LENGTH])
