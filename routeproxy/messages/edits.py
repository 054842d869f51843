"""Edits of a JSON text by span: whatever no edit names stays byte for byte as it came.

Re-encoding would lose what a pass-through must keep: signatures, prompt caches' prefixes, fields that nobody
here has heard of. So an edit is a span of bytes and the text that replaces it. The places of members and
elements are found with msgspec, which gives the text of each value: to walk along those texts takes one
comparison a value and no parser of our own.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import DecodeError, Raw, Struct

from routeproxy.messages.decoding import UNREADABLE, nested_too_deeply, without_lone_surrogates
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.losses import Losses, loss_of_thinking
from routeproxy.messages.reply import OUR_MARK, OUR_SEARCH

_WHITESPACE = re.compile(rb"[ \t\r\n]*")
_KEY = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*("([^"\\]*(?:\\.[^"\\]*)*)"[ \t\r\n]*:[ \t\r\n]*)')
"""A key of an object, with the brace or comma before it."""

_object: msgspec.json.Decoder[dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])
_array: msgspec.json.Decoder[tuple[Raw, ...]] = msgspec.json.Decoder(tuple[Raw, ...])


class Span(NamedTuple):
    start: int
    end: int


class Edit(NamedTuple):
    """A span, and the text that replaces it."""

    start: int
    end: int
    text: bytes


class Member(Struct, frozen=True, gc=False):
    """The place of a key and its value in an object."""

    start: int
    value_start: int
    end: int

    @property
    def value(self) -> Span:
        return Span(self.value_start, self.end)

    @property
    def whole(self) -> Span:
        return Span(self.start, self.end)


def apply_edits(text: bytes, edits: list[Edit]) -> bytes:
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


def find_members(text: bytes, start: int = 0, end: int | None = None) -> dict[str, Member]:
    """The places of the members of the object that begins at or after `start`. Raises `InvalidRequest` for a
    key that comes twice: two readers of such an object may see two different requests."""
    return scan_object(text, start, end)[1]


def scan_object(
    text: bytes, start: int = 0, end: int | None = None
) -> tuple[dict[str, Raw], dict[str, Member]]:
    """The values of the members, and their places. Raises as `find_members`."""
    try:
        values = _object.decode(memoryview(text)[start:end])
    except DecodeError:
        # The character in place of half an emoji is as long, so every place stays the same.
        repaired = without_lone_surrogates(text)
        if repaired == text:
            raise
        return scan_object(repaired, start, end)
    except RecursionError:
        raise nested_too_deeply() from None
    members = _add_up_places(values, start, len(text) if end is None else end)
    return values, _walk_object(text, values, start) if members is None else members


def _add_up_places(values: dict[str, Raw], start: int, end: int) -> dict[str, Member] | None:
    """The places of the members if there is nothing else between `start` and `end`, as most clients write it.
    `None` if there is: white space, a key that comes twice or one with an escape makes the text longer."""
    members: dict[str, Member] = {}
    at = start + 1
    for name, raw in values.items():
        value_start = at + len(name) + 3
        value_end = value_start + len(memoryview(raw))
        members[name] = Member(at, value_start, value_end)
        at = value_end + 1
    return members if at == end else None


def _walk_object(text: bytes, values: dict[str, Raw], start: int) -> dict[str, Member]:
    members: dict[str, Member] = {}
    at = start
    for name, raw in values.items():
        key, value = _KEY.match(text, at), memoryview(raw)
        if key is None or not text.startswith(value, key.end()) or _decode_key(key[2]) != name:
            raise InvalidRequest(f"{name[:64]}: the key stands twice in one object")
        value_start = key.end()
        at = value_start + len(value)
        members[name] = Member(key.start(1), value_start, at)
    if values and not text.startswith(b"}", _skip_whitespace(text, at)):
        raise InvalidRequest("a key stands twice in one object")
    return members


def find_elements(text: bytes, span: Span) -> list[Span]:
    """The places of the elements of the array at `span`."""
    spans: list[Span] = []
    at = _skip_whitespace(text, span.start) + 1
    for raw in _array.decode(memoryview(text)[span.start : span.end]):
        start = _skip_whitespace(text, at)
        spans.append(Span(start, start + len(memoryview(raw))))
        at = _skip_whitespace(text, spans[-1].end) + 1
    return spans


def set_members(
    text: bytes,
    values: Mapping[str, bytes],
    drop: Collection[str] = (),
    members: Mapping[str, Member] | None = None,
) -> list[Edit]:
    """Edits that give the top-level object these values (as JSON) and take away `drop`. `members` are
    those of the object, if they were found before."""
    members = find_members(text) if members is None else members
    edits = [
        Edit(*members[name].value, value)
        for name, value in values.items()
        if name in members and text[slice(*members[name].value)] != value
    ]
    new = b",".join(
        b"%b:%b" % (msgspec.json.encode(name), value) for name, value in values.items() if name not in members
    )
    if new:
        opening = _skip_whitespace(text, 0) + 1
        any_kept = any(name not in drop for name in members)
        edits.append(Edit(opening, opening, new + (b"," if any_kept else b"")))
    if any(name in members for name in drop):
        edits += remove_items(
            [member.whole for member in members.values()], [name in drop for name in members]
        )
    return edits


def remove_items(spans: list[Span], marked: list[bool]) -> list[Edit]:
    """Edits that take the marked items out of a comma-separated list, commas included."""
    edits: list[Edit] = []
    kept_before = False
    for index, (span, is_marked) in enumerate(zip(spans, marked, strict=True)):
        if not is_marked:
            kept_before = True
        elif kept_before:  # with the comma before it
            edits.append(Edit(spans[index - 1].end, span.end, b""))
        else:  # with the comma after it, if any
            edits.append(
                Edit(span.start, spans[index + 1].start if index + 1 < len(spans) else span.end, b"")
            )
    return edits


# --- traces of other back ends in a conversation, which Anthropic would refuse


class _Block(Struct, frozen=True):
    type: Any = None
    text: Any = None
    thinking: Any = None
    signature: Any = None
    id: Any = None
    tool_use_id: Any = None


class _SearchBlock(_Block, frozen=True):
    input: Any = None
    content: Any = None


class _TextBlock(Struct, frozen=True):
    citations: Any = None


_block: msgspec.json.Decoder[_Block] = msgspec.json.Decoder(_Block)
_search_block: msgspec.json.Decoder[_SearchBlock] = msgspec.json.Decoder(_SearchBlock)
_text_block: msgspec.json.Decoder[_TextBlock] = msgspec.json.Decoder(_TextBlock)

_EMPTY_TEXT = re.compile(rb'"text"\s*:\s*""')
# It starts with a literal, which the engine looks for much faster than for two that differ.
_ODD_ID = re.compile(rb'id"(?:(?<="id")|(?<="tool_use_id"))\s*:\s*"[A-Za-z0-9_-]*[^A-Za-z0-9_"-]')
_BAD_ID_CHARACTER = re.compile(r"[^a-zA-Z0-9_-]")

_TRACES = (f'"{OUR_MARK}'.encode(), f'"{OUR_SEARCH}'.encode())
"""Of our thinking, our citations and our web searches."""


class RemovedTraces(NamedTuple):
    edits: list[Edit]
    losses: Losses


def remove_foreign_traces(text: bytes, members: Mapping[str, Member]) -> RemovedTraces:
    """Edits that take out of `messages` what other back ends left there: our own thinking blocks, empty text
    blocks (one of them poisons a session for good), tool ids in other alphabets. Messages left empty go too.
    Web searches that other back ends made become text, since Anthropic takes back only what it has sealed.
    No edits, for almost every request. `members` are the members of the top-level object."""
    losses: Losses = Counter()
    if "messages" not in members:
        return RemovedTraces([], losses)
    messages = members["messages"].value
    if not (
        any(text.find(trace, *messages) >= 0 for trace in _TRACES)
        or _EMPTY_TEXT.search(text, *messages)
        or _ODD_ID.search(text, *messages)
    ):
        return RemovedTraces([], losses)
    try:
        spans = find_elements(text, messages)
        edits: list[Edit] = []
        emptied = []
        for span in spans:
            message_edits, is_empty = _message_edits(text, span, losses)
            emptied.append(is_empty)
            if not is_empty:
                edits += message_edits
        return RemovedTraces(edits + remove_items(spans, emptied), losses)
    except UNREADABLE:
        repaired = without_lone_surrogates(text)
        # Whatever else is wrong, the back end will say so in its own words.
        return remove_foreign_traces(repaired, members) if repaired != text else RemovedTraces([], losses)


def _message_edits(text: bytes, span: Span, losses: Losses) -> tuple[list[Edit], bool]:
    content = find_members(text, span.start, span.end).get("content")
    if content is None or not text.startswith(b"[", content.value.start):
        return [], False
    return _block_edits(text, content.value, losses)


def _block_edits(text: bytes, span: Span, losses: Losses) -> tuple[list[Edit], bool]:
    """The edits of a list of blocks, and whether it had blocks and has none left. Counts what is lost."""
    blocks = find_elements(text, span)
    foreign = []
    edits: list[Edit] = []
    for place in blocks:
        block = _block.decode(memoryview(text)[place.start : place.end])
        is_our_thinking = (
            block.type == "thinking"
            and isinstance(block.signature, str)
            and block.signature.startswith("rp1.")
        )
        if is_our_thinking:
            losses[loss_of_thinking(block.thinking)] += 1
        is_foreign = is_our_thinking or (block.type == "text" and block.text == "")
        foreign.append(is_foreign)
        if not is_foreign:
            edits += _inner_edits(text, place, block, losses)
    if all(foreign):
        return [], bool(foreign)
    return edits + remove_items(blocks, foreign), False


def _search_as_text(source: memoryview) -> str | None:
    """A web search that another back end made, or its results, in words; `None` for any other block."""
    block = _search_block.decode(source)
    id = block.id if block.type == "server_tool_use" else block.tool_use_id
    if not isinstance(id, str) or not id.startswith(OUR_SEARCH):
        return None
    match block.type, block.input, block.content:
        case "server_tool_use", {"query": str(query)}, _:
            return f"[web search: {query}]\n"
        case "server_tool_use", _, _:
            return "[web search]\n"
        case _, _, [*results]:
            pages = [result for result in results if isinstance(result, dict)]
            lines = [f"{page.get('title')} {page.get('url')}\n" for page in pages]
            return "".join(("[results]\n", *lines)) if lines else "[no results]\n"
    return "[the search failed]\n"


def _kept_citations(source: memoryview) -> list[Any] | None:
    """The citations of a text but for ours; `None` if there are none of ours."""
    citations = _text_block.decode(source).citations
    if not isinstance(citations, list):
        return None
    kept = [
        one for one in citations if not (isinstance(one, dict) and one.get("encrypted_index") == OUR_MARK)
    ]
    return None if len(kept) == len(citations) else kept


_ID_FIELDS = {"tool_use": "id", "tool_result": "tool_use_id"}
"""By the type of a block, the field with the id that ties a call to its result."""


def _inner_edits(text: bytes, span: Span, block: _Block, losses: Losses) -> Iterator[Edit]:
    source = memoryview(text)[span.start : span.end]
    if block.type in ("server_tool_use", "web_search_tool_result"):
        if (search := _search_as_text(source)) is not None:
            losses["server_tool_results"] += block.type != "server_tool_use"
            yield Edit(*span, msgspec.json.encode({"type": "text", "text": search}))
        return
    if block.type == "text":
        if (kept := _kept_citations(source)) is not None:
            citations = find_members(text, span.start, span.end)["citations"]
            yield Edit(*citations.value, msgspec.json.encode(kept or None))
        return
    name = _ID_FIELDS.get(block.type) if isinstance(block.type, str) else None
    if name is None:
        return
    fields = find_members(text, span.start, span.end)
    tool_id = getattr(block, name)
    if isinstance(tool_id, str) and _BAD_ID_CHARACTER.search(tool_id):
        yield Edit(*fields[name].value, msgspec.json.encode(sanitised_id(tool_id)))
    content = fields.get("content")
    if block.type == "tool_result" and content and text.startswith(b"[", content.value.start):
        edits, is_empty = _block_edits(text, content.value, losses)
        yield from [Edit(*content.value, b"[]")] if is_empty else edits


def sanitised_id(tool_id: str) -> str:
    """`tool_id` in the alphabet that the API takes. Equal ids stay equal: call and result stay a pair."""
    if not _BAD_ID_CHARACTER.search(tool_id):
        return tool_id
    # Two ids may differ only in the characters that go: the hash keeps them apart.
    return f"{_BAD_ID_CHARACTER.sub('_', tool_id)}_{hashlib.sha256(tool_id.encode()).hexdigest()[:8]}"


def _skip_whitespace(text: bytes, at: int) -> int:
    whitespace = _WHITESPACE.match(text, at)
    return whitespace.end() if whitespace else at


def _decode_key(key: bytes) -> str:
    return msgspec.json.decode(b'"%b"' % key, type=str) if b"\\" in key else key.decode()
