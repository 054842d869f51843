"""A request's body as it comes over ASGI: within a size, and out of its content encoding."""

import zlib
from collections.abc import Mapping

from litestar.types import Receive

from routeproxy.encodings import WBITS
from routeproxy.large_bodies import INLINE, read_beside
from routeproxy.messages.errors import ApiError, InvalidRequest
from routeproxy.web.body_memory import ClientLeft, HeldBody

SMALL = 1024
"""Bytes that become at most a megabyte when they are decompressed, which takes a millisecond."""

DISCARD = 4
"""How many times the limit is read and thrown away, so that a client that is still sending gets to see its
413."""


LARGEST_RATIO = 1032
"""How many bytes zlib can make of one."""


async def read_body(
    receive: Receive, headers: Mapping[str, tuple[str, ...]], limit: int, held: HeldBody
) -> bytes:
    """The decoded body, at most `limit` bytes long, before and after decoding. `held` is as large."""
    stated = _stated_length(headers)
    if stated > limit:
        if "expect" in headers:
            raise _too_large(limit)  # it asked before sending: a first `receive` would tell it to go on
    else:
        await held.grow(stated)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        data: bytes = message.get("body", b"")  # type: ignore[assignment]
        size += len(data)
        if size <= limit and stated <= limit:
            if size > held.room:  # in steps, of which a large body takes few
                await held.grow(min(2 * size, limit))
            parts.append(data)
        else:
            parts.clear()
        if not message.get("more_body", False) or size > limit * DISCARD:
            break
    check_size(size, limit)
    body = await read_beside(size, held.caller, _joined, parts)
    del data, message  # the body alone is counted
    encoding = ",".join(headers.get("content-encoding", ())).strip().lower()
    if encoding not in ("", "identity"):
        await held.grow(min(size * LARGEST_RATIO, limit))
        # A few bytes may become as many as the limit.
        work = INLINE + 1 if size > SMALL else size
        body = await read_beside(work, held.caller, decoded, body, encoding, limit)
    held.shrink(len(body))
    return body


def _joined(parts: list[bytes]) -> bytes:
    """Empties `parts`: the body alone is counted."""
    body = b"".join(parts)
    parts.clear()
    return body


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
