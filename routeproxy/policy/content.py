"""What stands in the text of a request, from its JSON: blocks of a type anywhere in the conversation, and the
system text. Each costs about as much as reading the text once, so nothing here is asked without need."""

import json
from collections.abc import Iterator
from typing import Any

from routeproxy.messages.decoding import ANY_JSON, UNREADABLE, decode_leniently, nested_too_deeply
from routeproxy.messages.request import ATTRIBUTION, ToolHead


def contains_block(messages: bytes, block_type: str) -> bool:
    """Whether a block of this type is anywhere in `messages`, at any depth. Raises `InvalidRequest` for what
    can't be read."""
    # JSON may spell any letter as `\u0069`: a sure no takes neither the word nor such a letter.
    if f'"{block_type}"'.encode() not in messages and b"\\u006" not in messages and b"\\u007" not in messages:
        return False
    blocks = _blocks(_decoded(messages))
    return any(block.get("type") == block_type for block in blocks) or _may_hide(messages, block_type)


def defined_tools(messages: bytes) -> tuple[ToolHead, ...]:
    """The tools that turns bring along, wherever in `messages` they are defined. Where a key comes twice,
    both count: who is asked may read either. Raises `InvalidRequest` for what can't be read."""
    # A sure no, as above; `_` may be spelled `\\u005f`.
    spelled_oddly = any(start in messages for start in (b"\\u005", b"\\u006", b"\\u007"))
    if b'"tool_definition"' not in messages and not spelled_oddly:
        return ()
    try:
        # Numbers stay text: Python refuses to read very long ones.
        decoded = json.loads(messages.decode("utf-8", "replace"), object_pairs_hook=_Object, parse_int=str)
    except RecursionError:
        raise nested_too_deeply() from None
    return tuple(
        ToolHead(name, type)
        for item in _objects(decoded)
        if ("type", "tool_definition") in item
        for definition in item.values("definition")
        if isinstance(definition, _Object)
        for name in definition.words("name")
        for type in definition.words("type")
    )


class _Object(list[tuple[str, Any]]):
    """An object with all its keys, those that come twice too."""

    def values(self, key: str) -> list[Any]:
        return [value for own, value in self if own == key]

    def words(self, key: str) -> list[str | None]:
        return [value for value in self.values(key) if isinstance(value, str)] or [None]


def _objects(value: Any) -> Iterator[_Object]:
    """Every object at any depth, but not in what a model wrote as a tool's input."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case _Object() as item:
                yield item
                is_call = any(str(word).endswith("tool_use") for word in item.values("type"))
                waiting.extend(inner for key, inner in item if not (is_call and key == "input"))
            case list() as items:
                waiting.extend(items)


def system_text(system: bytes) -> str:
    """The text of `system`, without Claude Code's attribution block. Raises `InvalidRequest` for what can't
    be read."""
    decoded = _decoded(system)
    if isinstance(decoded, str):
        return decoded
    blocks = decoded if isinstance(decoded, list) else []
    texts = [
        block["text"] for block in blocks if isinstance(block, dict) and isinstance(block.get("text"), str)
    ]
    if texts and texts[0].startswith(ATTRIBUTION):
        del texts[0]
    return "\n".join(texts)


def _may_hide(text: bytes, block_type: str) -> bool:
    """Whether a reader who takes the first of two equal keys may see a block of this type, where we took the
    last."""
    has_equal_keys = has_block = False

    def note(pairs: list[tuple[str, Any]]) -> None:
        nonlocal has_equal_keys, has_block
        has_equal_keys |= len({key for key, _ in pairs}) < len(pairs)
        has_block |= ("type", block_type) in pairs

    try:
        # Numbers stay text: Python refuses to read very long ones.
        json.loads(text.decode("utf-8", "replace"), object_pairs_hook=note, parse_int=str)
    except RecursionError:
        raise nested_too_deeply() from None
    return has_equal_keys and has_block


def _blocks(content: Any) -> Iterator[dict[str, Any]]:
    """Every object in `content` at any depth, but not what a model wrote as a tool's input."""
    waiting = [content]
    while waiting:
        match waiting.pop():
            case list() as items:
                waiting.extend(items)
            case dict() as block:
                yield block
                is_call = str(block.get("type")).endswith("tool_use")
                waiting.extend(value for key, value in block.items() if not (is_call and key == "input"))


def _decoded(text: bytes) -> Any:
    try:
        return ANY_JSON.decode(text)
    except (*UNREADABLE, RecursionError):
        # Half an emoji, or bytes that are no text: the blocks can be told apart all the same. If it is
        # something else, such as a number of thousands of digits, this says what.
        return decode_leniently(ANY_JSON, text.decode("utf-8", "replace").encode())
