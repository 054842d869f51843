"""How much work a JSON text is, counted before anybody decodes it: a decoder holds the interpreter for as
long as its values take. The bounds are the largest, in round numbers, with which nothing holds it for more
than 80 ms (of a thread's own time, on a machine with other work to do); the API's own limits are below."""

from routeproxy.messages.errors import ApiError

MAX_VALUES = 600_000
"""Brackets that open, commas and colons outside strings. The API takes 100,000 messages, which are 500,000 of
these in their shortest form. With 590,000, a decoder takes 38 ms for messages, 42 ms for blocks, and 56 ms
for objects in a place where none may be, which are decoded to say so."""

MAX_MEMBERS = 100_000
"""Of one object. Their names are what takes longest: a decoder needs 230 ms for 295,000."""

MAX_ESCAPES = 2_000_000
"""Backslashes. 31 MB in one string take a decoder 20 ms without, 75 ms with a million of them, as many as
source code has, and 100 to 110 ms with four million."""

SLICE = 262_144
"""Bytes that are looked at in one go, after which others get their turn."""

_STRUCTURE = b"[{,:"
_NOT_OF_OBJECTS = bytes(set(range(256)) - set(b"{:}"))


def check_weight(text: bytes) -> None:
    """Raises `ApiError` (413)."""
    if len(text) <= 4 * MAX_MEMBERS:
        return  # a member takes five bytes at least, with its comma
    if _count(text, b"\\") > MAX_ESCAPES:
        raise ApiError(413, f"Request too large (max {MAX_ESCAPES} backslashes)")
    members = _count(text, b":")
    if members > MAX_MEMBERS or members + sum(_count(text, mark) for mark in (b"[", b"{", b",")) > MAX_VALUES:
        _check_structure(text)


def _count(text: bytes, mark: bytes) -> int:
    return sum(text.count(mark, at, at + SLICE) for at in range(0, len(text), SLICE))


def _check_structure(text: bytes) -> None:
    """The same, of what stands outside strings."""
    values, rest, outside = 0, b"", 0
    members: list[int] = []
    """Of each object that is open."""
    for at in range(0, len(text), SLICE):
        # An escaped quote ends no string. What is left of a backslash at the end belongs to the next slice.
        piece = (rest + text[at : at + SLICE]).replace(b"\\\\", b"").replace(b'\\"', b"")
        rest = b"\\" if piece.endswith(b"\\") else b""
        parts = piece.removesuffix(b"\\").split(b'"')
        structure = b"".join(parts[outside::2])
        values += sum(structure.count(mark) for mark in _STRUCTURE)
        if values > MAX_VALUES:
            raise ApiError(
                413, f"Request too large (max {MAX_VALUES} of `[`, `{{`, `,` and `:` outside JSON strings)"
            )
        if not _add_members(members, structure.translate(None, _NOT_OF_OBJECTS)):
            return  # what comes after it nobody decodes
        outside ^= (len(parts) - 1) % 2


def _add_members(members: list[int], structure: bytes) -> bool:
    """Whether more may follow: this can be part of a JSON text."""
    for mark in structure:
        if mark == _OPENS:
            members.append(0)
        elif not members:
            return False
        elif mark == _MEMBER:
            members[-1] += 1
            if members[-1] > MAX_MEMBERS:
                raise ApiError(413, f"Request too large (max {MAX_MEMBERS} members of an object)")
        else:
            members.pop()
    return True


_OPENS, _MEMBER = b"{:"
