"""Edits of a JSON text by span: what is not named stays byte for byte as it came (design.md, decision 1).

Re-encoding would lose what a pass-through must keep: signatures, prompt caches' prefixes, fields that nobody
here has heard of. So an edit is a span of bytes and what stands there instead. Where members and elements
begin is found with msgspec, which gives each value's text: walking along them costs one comparison a value
and no parsing of our own.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import DecodeError, Raw, Struct

from routeproxy.messages.decoding import UNREADABLE, nested_too_deeply, without_lone_surrogates
from routeproxy.messages.errors import InvalidRequest

_WHITESPACE = re.compile(rb"[ \t\r\n]*")
_KEY = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*("([^"\\]*(?:\\.[^"\\]*)*)"[ \t\r\n]*:[ \t\r\n]*)')
"""With what stands before it in an object."""

_object: msgspec.json.Decoder[dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])
_array: msgspec.json.Decoder[tuple[Raw, ...]] = msgspec.json.Decoder(tuple[Raw, ...])


class Span(NamedTuple):
    start: int
    end: int


class Edit(NamedTuple):
    start: int
    end: int
    text: bytes


class Member(Struct, frozen=True, gc=False):
    """Where a key and its value stand."""

    start: int
    value_start: int
    end: int

    @property
    def value(self) -> Span:
        return Span(self.value_start, self.end)

    @property
    def whole(self) -> Span:
        return Span(self.start, self.end)


def apply(text: bytes, edits: list[Edit]) -> bytes:
    """`text` with each edit's span replaced. The very same object when there is nothing to edit."""
    if not edits:
        return text
    parts: list[bytes] = []
    at = 0
    for start, end, replacement in sorted(edits):
        parts += (text[at:start], replacement)
        at = end
    parts.append(text[at:])
    return b"".join(parts)


def members(text: bytes, start: int = 0, end: int | None = None) -> dict[str, Member]:
    """Where the members of the object that begins at or after `start` stand. Raises `InvalidRequest` for a
    key that comes twice: two readers of such an object may see two different requests."""
    return scan(text, start, end)[1]


def scan(text: bytes, start: int = 0, end: int | None = None) -> tuple[dict[str, Raw], dict[str, Member]]:
    """The same, with the members' values."""
    try:
        values = _object.decode(memoryview(text)[start:end])
    except DecodeError:
        # What stands for half an emoji is as long, so every place is the same.
        repaired = without_lone_surrogates(text)
        if repaired == text:
            raise
        return scan(repaired, start, end)
    except RecursionError:
        raise nested_too_deeply() from None
    found = _side_by_side(values, start, len(text) if end is None else end)
    return values, _walked(text, values, start) if found is None else found


def _side_by_side(values: dict[str, Raw], start: int, end: int) -> dict[str, Member] | None:
    """Where they stand if there is nothing else between `start` and `end`, as most clients write it: white
    space, a key that comes twice or one with an escape would make the text longer than this adds up to."""
    found: dict[str, Member] = {}
    at = start + 1
    for name, raw in values.items():
        begins = at + len(name) + 3
        ends = begins + len(memoryview(raw))
        found[name] = Member(at, begins, ends)
        at = ends + 1
    return found if at == end else None


def _walked(text: bytes, values: dict[str, Raw], start: int) -> dict[str, Member]:
    found: dict[str, Member] = {}
    at = start
    for name, raw in values.items():
        key, value = _KEY.match(text, at), memoryview(raw)
        if key is None or not text.startswith(value, key.end()) or _name(key[2]) != name:
            raise InvalidRequest(f"{name[:64]}: the key stands twice in one object")
        begins = key.end()
        at = begins + len(value)
        found[name] = Member(key.start(1), begins, at)
    if values and not text.startswith(b"}", _skip(text, at)):
        raise InvalidRequest("a key stands twice in one object")
    return found


def elements(text: bytes, span: Span) -> list[Span]:
    """Where the elements of the array at `span` stand."""
    found = []
    at = _skip(text, span.start) + 1
    for raw in _array.decode(memoryview(text)[span.start : span.end]):
        start = _skip(text, at)
        found.append(Span(start, start + len(memoryview(raw))))
        at = _skip(text, found[-1].end) + 1
    return found


def set_members(
    text: bytes,
    values: Mapping[str, bytes],
    drop: Collection[str] = (),
    present: Mapping[str, Member] | None = None,
) -> list[Edit]:
    """Edits that give the top-level object these values (as JSON) and take away `drop`. `present` is what
    `members` has found, if it was asked before."""
    present = members(text) if present is None else present
    edits = [
        Edit(*present[name].value, value)
        for name, value in values.items()
        if name in present and text[slice(*present[name].value)] != value
    ]
    new = b",".join(
        b"%b:%b" % (msgspec.json.encode(name), value) for name, value in values.items() if name not in present
    )
    if new:
        opening = _skip(text, 0) + 1
        stays = any(name not in drop for name in present)
        edits.append(Edit(opening, opening, new + (b"," if stays else b"")))
    if any(name in present for name in drop):
        edits += removals([member.whole for member in present.values()], [name in drop for name in present])
    return edits


def removals(spans: list[Span], gone: list[bool]) -> list[Edit]:
    """Edits that take the marked items out of a comma-separated list, commas included."""
    edits: list[Edit] = []
    kept_before = False
    for index, (span, leaves) in enumerate(zip(spans, gone, strict=True)):
        if not leaves:
            kept_before = True
        elif kept_before:  # with the comma before it
            edits.append(Edit(spans[index - 1].end, span.end, b""))
        else:  # with the comma after it, if any
            edits.append(
                Edit(span.start, spans[index + 1].start if index + 1 < len(spans) else span.end, b"")
            )
    return edits


# --- what Anthropic would refuse in a conversation that other back ends had a part in


class _Block(Struct, frozen=True):
    type: Any = None
    text: Any = None
    signature: Any = None
    id: Any = None
    tool_use_id: Any = None


_block: msgspec.json.Decoder[_Block] = msgspec.json.Decoder(_Block)

_EMPTY_TEXT = re.compile(rb'"text"\s*:\s*""')
# It starts with a literal, which the engine looks for much faster than for two that differ.
_ODD_ID = re.compile(rb'id"(?:(?<="id")|(?<="tool_use_id"))\s*:\s*"[A-Za-z0-9_-]*[^A-Za-z0-9_"-]')
_BAD_ID_CHARACTER = re.compile(r"[^a-zA-Z0-9_-]")

OUR_SIGNATURE = b'"rp1.'


def foreign_traces(text: bytes, present: Mapping[str, Member]) -> list[Edit]:
    """Edits that take out of `messages` what other back ends left there: our own thinking blocks, empty text
    blocks (one of them poisons a session for good), tool ids in other alphabets. Messages left empty go too.
    Nothing, for almost every request. `present` is what `members` has found."""
    if "messages" not in present:
        return []
    where = present["messages"].value
    if not (
        text.find(OUR_SIGNATURE, *where) >= 0
        or _EMPTY_TEXT.search(text, *where)
        or _ODD_ID.search(text, *where)
    ):
        return []
    try:
        spans = elements(text, where)
        edits: list[Edit] = []
        emptied = []
        for span in spans:
            inner, empty = _message_edits(text, span)
            emptied.append(empty)
            if not empty:
                edits += inner
        return edits + removals(spans, emptied)
    except UNREADABLE:
        repaired = without_lone_surrogates(text)
        # Whatever else it is, the back end will say so in its own words.
        return foreign_traces(repaired, present) if repaired != text else []


def _message_edits(text: bytes, span: Span) -> tuple[list[Edit], bool]:
    content = members(text, span.start, span.end).get("content")
    if content is None or not text.startswith(b"[", content.value.start):
        return [], False
    return _block_edits(text, content.value)


def _block_edits(text: bytes, span: Span) -> tuple[list[Edit], bool]:
    """The edits of a list of blocks, and whether it had blocks and has none left."""
    blocks = elements(text, span)
    gone = []
    edits: list[Edit] = []
    for where in blocks:
        block = _block.decode(memoryview(text)[where.start : where.end])
        ours = (
            block.type == "thinking"
            and isinstance(block.signature, str)
            and block.signature.startswith("rp1.")
        )
        leaves = ours or (block.type == "text" and block.text == "")
        gone.append(leaves)
        if not leaves:
            edits += _inner_edits(text, where, block)
    if all(gone):
        return [], bool(gone)
    return edits + removals(blocks, gone), False


_ID_OF = {"tool_use": "id", "tool_result": "tool_use_id"}
"""Where a block holds the id that ties a call to its result."""


def _inner_edits(text: bytes, where: Span, block: _Block) -> Iterator[Edit]:
    name = _ID_OF.get(block.type) if isinstance(block.type, str) else None
    if name is None:
        return
    inside = members(text, where.start, where.end)
    tool_id = getattr(block, name)
    if isinstance(tool_id, str) and _BAD_ID_CHARACTER.search(tool_id):
        yield Edit(*inside[name].value, msgspec.json.encode(sanitised_id(tool_id)))
    content = inside.get("content")
    if block.type == "tool_result" and content and text.startswith(b"[", content.value.start):
        edits, empty = _block_edits(text, content.value)
        yield from [Edit(*content.value, b"[]")] if empty else edits


def sanitised_id(tool_id: str) -> str:
    """`tool_id` in the alphabet that the API takes, the same for the same id: call and result stay a pair."""
    if not _BAD_ID_CHARACTER.search(tool_id):
        return tool_id
    # Two ids may differ only in the characters that go: the hash keeps them apart.
    return f"{_BAD_ID_CHARACTER.sub('_', tool_id)}_{hashlib.sha256(tool_id.encode()).hexdigest()[:8]}"


def _skip(text: bytes, at: int) -> int:
    found = _WHITESPACE.match(text, at)
    return found.end() if found else at


def _name(key: bytes) -> str:
    return msgspec.json.decode(b'"%b"' % key, type=str) if b"\\" in key else key.decode()
