"""What pictures and PDF documents cost, by their pixels and pages and not by their bytes. In whole tokens."""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from io import BytesIO
from itertools import islice
from math import ceil, sqrt
from zlib import decompressobj
from zlib import error as ZlibError

import imagesize  # type: ignore[import-untyped]

UNKNOWN_PIXELS = 1568
"""Tokens of an image behind a URL or a file id: as many as a large one has."""
PDF_PAGE = 3000
"""Tokens: half for a page's text (1500 to 3000 by the documentation), half for its picture."""

HIGH_RESOLUTION = re.compile(r"claude-(opus-4-([7-9]|[1-9]\d)\b|[a-z]+-([5-9]|[1-9]\d)\b)", re.ASCII)
"""Models that see 2576 pixels and 4784 tokens of an image, where others see 1568 of both."""

IMAGE_HEADS = (b"\x89PNG", b"\xff\xd8", b"GIF8", b"RIFF")
"""How the formats that the API takes begin. Others never reach the parser: the bytes are a stranger's."""
HEAD = 64 * 1024
"""Base64 characters. They hold the size of any image but a JPEG with a large preview in front."""


def has_high_resolution(model: str | None) -> bool:
    return model is not None and HIGH_RESOLUTION.search(model) is not None


def image_tokens(data: str, *, high_resolution: bool) -> int:
    limit_px, limit_tokens = (2576, 4784) if high_resolution else (1568, 1568)
    width, height = _pixels(data)
    if width <= 0 or height <= 0:
        return UNKNOWN_PIXELS
    shrink = min(1, limit_px / max(width, height), sqrt(limit_tokens * 28 * 28 / (width * height)))
    return min(limit_tokens, ceil(width * shrink / 28) * ceil(height * shrink / 28))


def _pixels(data: str) -> tuple[int, int]:
    """Width and height from the image's header, without decoding the rest; not positive if there is none."""
    for part in (data[:HEAD], data) if len(data) > HEAD else (data,):
        image = _unbase64(part)
        if not image.startswith(IMAGE_HEADS):
            break
        width, height = imagesize.get(BytesIO(image))
        if width > 0 and height > 0:
            return int(width), int(height)
    return -1, -1


PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
OBJECT_STREAM = re.compile(rb"/Type\s*/ObjStm\b.{0,300}?stream\r?\n", re.DOTALL)
"""Where PDF 1.5 and later may keep their page objects, compressed."""
OBJECT_STREAMS = 256
INFLATED = 256 * 1024
"""At most this many streams are looked at, and this many bytes of each: a PDF can be a bomb."""
BYTES_A_PAGE = 50_000


def pdf_tokens(data: str) -> int:
    return _pdf_pages(_unbase64(data)) * PDF_PAGE


def _pdf_pages(pdf: bytes) -> int:
    if pages := len(PAGE.findall(pdf)):
        return pages
    streams = islice(OBJECT_STREAM.finditer(pdf), OBJECT_STREAMS)
    if pages := sum(len(PAGE.findall(_inflate(pdf[s.end() : s.end() + INFLATED]))) for s in streams):
        return pages
    return max(1, len(pdf) // BYTES_A_PAGE)


def _inflate(compressed: bytes) -> bytes:
    try:
        return decompressobj().decompress(compressed, INFLATED)
    except ZlibError:
        return b""


def _unbase64(data: str) -> bytes:
    """Empty for what is no base64. In pieces: decoding 1 MB at once would stop all other threads for 3 ms."""
    raw = data.encode("ascii", "ignore").translate(None, b"\r\n ")
    raw = raw[: len(raw) // 4 * 4]
    try:
        return b"".join(a2b_base64(raw[i : i + HEAD]) for i in range(0, len(raw), HEAD))
    except Base64Error:
        return b""
