"""Errors of the Messages API: their statuses, their types and their body (wire.md §2.8)."""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, Struct, UnsetType

TYPE_OF_STATUS: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

STATUS_OF_TYPE: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "timeout_error": 504,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "overloaded_error": 529,
}


NO_RETRY: Mapping[str, str] = {"x-should-retry": "false"}
"""Headers of an error that stays the same however often it is asked for."""


_CLAUDE_CODE = "claude-cli/"
"""How the user agent of Claude Code begins."""


def type_of_final_error(status: int, user_agent: str | None) -> str | None:
    """The type of an error that no other form of the request would escape; `None` for the status' own.

    Claude Code (2.1.332) takes a 400 for a field or a beta that somebody does not know, and asks up to six
    times with less and less in its request, whatever the headers say. Of all types it takes this alone as
    final.
    """
    is_claude_code = (user_agent or "").startswith(_CLAUDE_CODE)
    return "billing_error" if is_claude_code and status == 400 else None


class ApiError(Exception):
    """An error reply. `message` is shown to the client as it stands, so it holds no secret and no traceback.

    `code` becomes `error.details.error_code`; `headers` go out with the reply (`retry-after`,
    `x-should-retry`). A 401 is never worth a retry: unless it says so, Claude Code asks eleven times within
    three minutes before its user sees a word.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type or TYPE_OF_STATUS.get(
            status, "api_error" if status >= 500 else "invalid_request_error"
        )
        self.code = code
        self.headers: Mapping[str, str] = headers or (NO_RETRY if status == 401 else {})


class InvalidRequest(ApiError):
    """The client's own mistake: 400 with the path of what is wrong."""

    def __init__(
        self, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(400, message, code=code, headers=headers)


class Incapable(InvalidRequest):
    """A sound request that this target cannot serve; another one may. `final`: a client that sends less of it
    is no better off."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message, headers=NO_RETRY if final else None)
        self.final = final


class Details(Struct, frozen=True):
    error_code: str


class ErrorObject(Struct, frozen=True):
    type: str
    message: str
    details: Details | UnsetType = UNSET


class ErrorBody(Struct, frozen=True, tag="error"):
    error: ErrorObject
    request_id: str | UnsetType = UNSET


def error_body(error: ApiError, request_id: str) -> bytes:
    """The JSON body of an error reply; `request_id` also goes out as the header `request-id`."""
    details = Details(error.code) if error.code else UNSET
    return msgspec.json.encode(ErrorBody(ErrorObject(error.type, error.message, details), request_id))
