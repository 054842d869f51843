"""A request's headers and body as they come over ASGI: within a size, and out of its content encoding."""

import zlib
from collections.abc import Mapping

from litestar.types import Receive, Scope

from routeproxy.messages.errors import ApiError, InvalidRequest

_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}

DISCARD = 4
"""How many times the limit is read and thrown away, so that a client that is still sending gets to see its 413."""


def headers_of(scope: Scope) -> dict[str, tuple[str, ...]]:
    headers: dict[str, tuple[str, ...]] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = (*headers[name], value) if name in headers else (value,)
    return headers


async def read_body(receive: Receive, headers: Mapping[str, tuple[str, ...]], limit: int) -> bytes:
    """The decoded body, at most `limit` bytes long, before and after decoding."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "the client left before its request was complete")
        data = message.get("body", b"")
        size += len(data)
        if size <= limit:
            parts.append(data)
        if not message.get("more_body", False):
            break
        if size > limit * DISCARD:
            break
    if size > limit:
        raise _too_large(limit)
    return decoded(b"".join(parts), headers, limit)


def decoded(body: bytes, headers: Mapping[str, tuple[str, ...]], limit: int) -> bytes:
    encoding = ",".join(headers.get("content-encoding", ())).strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WBITS:
        raise InvalidRequest(
            f"content-encoding {encoding[:64]} is not supported; send gzip, deflate or none",
            code="request_body_encoding_unsupported",
        )
    decoder = zlib.decompressobj(_WBITS[encoding])
    try:
        plain = decoder.decompress(body, limit + 1)
    except zlib.error:
        raise InvalidRequest(f"the body is not valid {encoding}") from None
    if len(plain) > limit:
        raise ApiError(413, _too_large(limit).message, code="request_body_too_large_after_decoding")
    if not decoder.eof:
        raise InvalidRequest(f"the {encoding} body ends too early")
    return plain


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"Request too large (max {limit // 2**20}MB)")
