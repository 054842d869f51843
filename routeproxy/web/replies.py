"""Answers that are no exchange: small, whole, in JSON, with an id of their own."""

from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, Scope, Send

from routeproxy.exchange import new_request_id
from routeproxy.messages.errors import ApiError, error_body
from routeproxy.web.exchanges import bug, send_whole
from routeproxy.web.small_requests import note_error

AnyRequest = Request[Any, Any, Any]
AnyResponse = Response[Any]


def json_reply(value: object, status: int = 200) -> Response[bytes]:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


def empty_reply() -> Response[bytes]:
    return Response(b"", media_type="application/json")


def with_request_id(response: AnyResponse) -> AnyResponse:
    if isinstance(response, Response):
        response.headers.setdefault("request-id", new_request_id())
    return response


def error_reply(request: AnyRequest, error: ApiError) -> Response[bytes]:
    note_error(request.scope, error.type)
    request_id = new_request_id()
    return Response(
        error_body(error, request_id),
        status_code=error.status,
        headers={"request-id": request_id, **error.headers},
        media_type="application/json",
    )


def error_app(error: ApiError) -> ASGIApp:
    """Answers any request with `error`, past the router."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        note_error(scope, error.type)
        request_id = new_request_id()
        headers = [("content-type", "application/json"), ("request-id", request_id), *error.headers.items()]
        await send_whole(send, error.status, headers, error_body(error, request_id))

    return app


def routing_error_reply(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """What Litestar's router refuses, in the API's shape."""
    path = request.scope["path"][:200]
    hint = ": leave /v1 out of the base URL" if path.startswith("/v1/v1/") else ""
    words = {404: f"{path} is not here{hint}", 405: f"{request.method} is not allowed here"}
    message = words.get(error.status_code, error.detail)
    return error_reply(request, ApiError(error.status_code, message, headers=error.headers))


def bug_reply(request: AnyRequest, error: Exception) -> Response[bytes]:
    return error_reply(request, bug(f"{request.method} {request.scope['path'][:200]}", error))
