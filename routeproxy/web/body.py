"""A request's body as it comes over ASGI: within a size, and out of its content encoding."""

import asyncio
import zlib
from collections.abc import Mapping

from litestar.types import Receive

from routeproxy.encodings import WBITS
from routeproxy.messages.errors import ApiError, InvalidRequest

AT_ONCE = 65_536
"""Bytes. More is decompressed in a thread, so that nobody else waits."""

DISCARD = 4
"""How many times the limit is read and thrown away, so that a client that is still sending gets to see its
413."""


class ClientLeft(Exception):
    """The client hung up before its request was complete: nobody waits for an answer."""


async def read_body(receive: Receive, headers: Mapping[str, tuple[str, ...]], limit: int) -> bytes:
    """The decoded body, at most `limit` bytes long, before and after decoding."""
    if "expect" in headers and _stated_length(headers) > limit:
        raise _too_large(limit)  # it asked before sending: a first `receive` would tell it to go on
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        data: bytes = message.get("body", b"")  # type: ignore[assignment]
        size += len(data)
        if size <= limit:
            parts.append(data)
        if not message.get("more_body", False) or size > limit * DISCARD:
            break
    check_size(size, limit)
    body = b"".join(parts)
    encoding = ",".join(headers.get("content-encoding", ())).strip().lower()
    if encoding in ("", "identity"):
        return body
    if size <= AT_ONCE:
        return decoded(body, encoding, limit)
    return await asyncio.to_thread(decoded, body, encoding, limit)


def decoded(body: bytes, encoding: str, limit: int) -> bytes:
    if encoding not in WBITS:
        raise InvalidRequest(
            f"content-encoding {encoding[:64]} is not supported; send gzip, deflate or none",
            code="request_body_encoding_unsupported",
        )
    plain, complete = b"", False
    for wbits in WBITS[encoding]:
        decoder = zlib.decompressobj(wbits)
        try:
            plain, complete = decoder.decompress(body, limit + 1), decoder.eof
            break
        except zlib.error:
            continue
    else:
        raise InvalidRequest(f"the body is not valid {encoding}")
    if len(plain) > limit:
        raise ApiError(413, _too_large(limit).message, code="request_body_too_large_after_decoding")
    if not complete:
        raise InvalidRequest(f"the {encoding} body ends too early")
    return plain


def _stated_length(headers: Mapping[str, tuple[str, ...]]) -> int:
    length = headers.get("content-length", ("",))[0]
    return int(length) if length.isdigit() else 0


def check_size(size: int, limit: int) -> None:
    """Raises `ApiError` (413)."""
    if size > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"Request too large (max {limit // 2**20}MB)")
