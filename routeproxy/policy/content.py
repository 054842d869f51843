"""What stands in the text of a request, from its JSON: blocks of a type anywhere in the conversation, the
tools and the effort that turns state, and the system text. Each costs about as much as reading the text once,
so nothing here is asked without need.

Of two equal keys in one object some readers take the first and some the last, so a rule might see another
request than the back end. Wherever something is looked for, such an object is refused.
"""

import json
from collections.abc import Collection, Iterator
from typing import Any

from routeproxy.messages.decoding import nested_too_deeply, without_lone_surrogates
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import ATTRIBUTION, ToolHead
from routeproxy.messages.word_search import may_contain

IMAGES = frozenset({"image", "image_url", "input_image"})
"""The types of blocks that hold one, the API's own and those that some servers of Messages take besides."""

DOCUMENTS = frozenset({"document", "file", "input_file"})

_SYSTEM_EFFORT = b'"output_config"'
_DEFINITION = b'"tool_definition"'


def contains_block(text: bytes, types: Collection[str]) -> bool:
    """Whether a block of one of these types is anywhere in `text`, at any depth. Raises `InvalidRequest` for
    what can't be read, or can be read in two ways."""
    if not may_contain(text, *(f'"{type}"'.encode() for type in types)):
        return False
    # Found or not, all is looked at: what can be read in two ways is no answer.
    found = [
        block
        for key, block in _objects(_decoded(text))
        # The source of an image or a document has a type too.
        if _is_one_of(block.get("type"), types) and not (key == "source" and block["type"] == "file")
    ]
    return bool(found)


def defined_tools(messages: bytes) -> tuple[ToolHead, ...]:
    """The tools that turns bring along, wherever they are defined. Raises as `contains_block`."""
    if not may_contain(messages, _DEFINITION):
        return ()
    definitions = [
        block.get("definition")
        for _, block in _objects(_decoded(messages))
        if block.get("type") == "tool_definition"
    ]
    return tuple(
        ToolHead(*(word if isinstance(word := tool.get(key), str) else None for key in ("name", "type")))
        for tool in definitions
        if isinstance(tool, dict)
    )


def latest_effort(messages: bytes) -> str | None:
    """The effort that the last system turn with one asks for. Raises as `contains_block`."""
    if not may_contain(messages, _SYSTEM_EFFORT):
        return None
    turns = _decoded(messages)
    for index, turn in reversed([*enumerate(turns)] if isinstance(turns, list) else []):
        if not isinstance(turn, dict):
            continue
        _check_keys(turn)
        config = turn.get("output_config")
        if turn.get("role") != "system" or config is None:
            continue
        if not isinstance(config, dict):
            raise InvalidRequest(f"messages.{index}.output_config: Input should be a valid dictionary")
        _check_keys(config)
        effort = config.get("effort")
        if isinstance(effort, str):
            return effort
        if effort is not None:
            raise InvalidRequest(f"messages.{index}.output_config.effort: Input should be a valid string")
    return None


def system_text(system: bytes) -> str:
    """The text of `system`, without Claude Code's attribution block. Raises as `contains_block`."""
    decoded = _decoded(system)
    if isinstance(decoded, str):
        return decoded
    if not isinstance(decoded, list | None):
        raise InvalidRequest("system: Input should be a string or a list of blocks")
    blocks = [_text_of(block, index) for index, block in enumerate(decoded or ())]
    texts = [text for text in blocks if text is not None]
    if texts and texts[0].startswith(ATTRIBUTION):
        del texts[0]
    return "\n".join(texts)


def _text_of(block: Any, index: int) -> str | None:
    """Of a block of `system`, which may be one of another kind. What some back end might take for text all
    the same is refused."""
    if not isinstance(block, dict):
        raise InvalidRequest(f"system.{index}: Input should be a valid dictionary")
    _check_keys(block)
    text = block.get("text")
    if text is not None and not isinstance(text, str):
        raise InvalidRequest(f"system.{index}.text: Input should be a valid string")
    return text


def _is_one_of(value: Any, words: Collection[str]) -> bool:
    return isinstance(value, str) and value in words


class _Ambiguous(dict[str, Any]):
    """An object that has a key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    return value if len(value) == len(pairs) else _Ambiguous(value)


def _check_keys(value: dict[str, Any]) -> None:
    if isinstance(value, _Ambiguous):
        raise InvalidRequest("a key stands twice in one object")


def _objects(content: Any) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Every object in `content` at any depth, with the key that it stands at, but not what a model wrote as a
    tool's input. Raises `InvalidRequest` for one that has a key twice."""
    waiting: list[tuple[str | None, Any]] = [(None, content)]
    while waiting:
        key, value = waiting.pop()
        match value:
            case list():
                waiting.extend((key, item) for item in value)
            case dict():
                _check_keys(value)
                yield key, value
                is_call = str(value.get("type")).endswith("tool_use")
                waiting.extend(
                    (name, item) for name, item in value.items() if not (is_call and name == "input")
                )


def _decoded(text: bytes) -> Any:
    readable = without_lone_surrogates(text).decode("utf-8", "replace")
    try:
        # Numbers are nobody's concern here, and Python refuses to read very long ones.
        return json.loads(readable, object_pairs_hook=_object, parse_int=_no_number, parse_float=_no_number)
    except RecursionError:
        raise nested_too_deeply() from None
    except ValueError:
        raise InvalidRequest("invalid JSON: it can't be read") from None


def _no_number(digits: str) -> int:
    return 0
