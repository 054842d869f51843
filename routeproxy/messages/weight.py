"""How much work a JSON text is, counted before anybody decodes it: a decoder holds the interpreter for as
long as its values take."""

from routeproxy.messages.errors import ApiError

MAX_VALUES = 250_000
"""Brackets that open, commas and colons outside strings. On one core 100,000 objects of one member each
are 300,000 of these and take a decoder 70 ms, 100,000 empty arrays 25 ms. Nothing else runs meanwhile."""

MAX_ESCAPES = 2_000_000
"""Backslashes. As many take a decoder 60 ms; 32 MB of source code have one million."""

SLICE = 262_144
"""Bytes that are looked at in one go, after which others get their turn."""

_STRUCTURE = b"[{,:"


def check_weight(text: bytes) -> None:
    """Raises `ApiError` (413)."""
    if len(text) <= MAX_VALUES:
        return
    slices = range(0, len(text), SLICE)
    escapes = sum(text.count(b"\\", at, at + SLICE) for at in slices)
    if escapes > MAX_ESCAPES:
        raise ApiError(413, f"Request too large (max {MAX_ESCAPES} backslashes)")
    most = sum(text.count(mark, at, at + SLICE) for at in slices for mark in _STRUCTURE)
    if most > MAX_VALUES and _has_more_values(text):
        raise ApiError(
            413, f"Request too large (max {MAX_VALUES} of `[`, `{{`, `,` and `:` outside JSON strings)"
        )


def _has_more_values(text: bytes) -> bool:
    values, rest, outside = 0, b"", 0
    for at in range(0, len(text), SLICE):
        # An escaped quote ends no string. What is left of a backslash at the end belongs to the next slice.
        piece = (rest + text[at : at + SLICE]).replace(b"\\\\", b"").replace(b'\\"', b"")
        rest = b"\\" if piece.endswith(b"\\") else b""
        parts = piece.removesuffix(b"\\").split(b'"')
        structure = b"".join(parts[outside::2])
        values += sum(structure.count(mark) for mark in _STRUCTURE)
        if values > MAX_VALUES:
            return True
        outside ^= (len(parts) - 1) % 2
    return False
