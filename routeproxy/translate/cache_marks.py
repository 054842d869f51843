"""The marks up to which a prompt is to be cached (`cache_control`), where a back end takes them. Anthropic
allows four in a request."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace

from routeproxy.chat.request import (
    Assistant,
    ChatMessage,
    FunctionTool,
    Part,
    System,
    TextPart,
    ToolMessage,
    User,
)
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import NULL
from routeproxy.translate.profile import ModelProfile

T = TypeVar("T", Part, FunctionTool)

MOST_MARKS = 4

_mark: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])

Mark = Raw | UnsetType


def mark_of(cache_control: Raw, profile: ModelProfile) -> Mark:
    """What goes to the back end of a client's mark. Raises `InvalidRequest` for what is none."""
    if not profile.cache_marks or cache_control == NULL:
        return UNSET
    try:
        return Raw(msgspec.json.encode(_mark.decode(cache_control)))
    except UNREADABLE:
        raise InvalidRequest("cache_control: Input should be a valid dictionary") from None


def marked(parts: Sequence[Part], mark: Mark) -> list[Part]:
    """`parts` with the mark on the last of them that can have one: an empty text can't."""
    result = list(parts)
    if mark is not UNSET and result and not (isinstance(last := result[-1], TextPart) and not last.text):
        result[-1] = replace(result[-1], cache_control=mark)
    return result


def marked_text(text: str | None, mark: Mark) -> str | tuple[TextPart, ...] | None:
    return (TextPart(text, mark),) if text and mark is not UNSET else text


def has_marks(parts: Sequence[Part]) -> bool:
    return any(part.cache_control is not UNSET for part in parts)


def with_last_marked(messages: tuple[ChatMessage, ...], mark: Mark) -> tuple[ChatMessage, ...]:
    """`messages` with the mark at their end, as a mark of the whole request has it."""
    if mark is UNSET or not isinstance(last := messages[-1], User | ToolMessage):
        return messages
    parts = (TextPart(last.content),) if isinstance(last.content, str) else last.content
    return (*messages[:-1], replace(last, content=tuple(marked(parts, mark))))


def within_limit(
    tools: tuple[FunctionTool, ...], messages: tuple[ChatMessage, ...]
) -> tuple[tuple[FunctionTool, ...], tuple[ChatMessage, ...]]:
    """At most four marks, the last ones: they cover what the earlier ones do."""
    too_many = _count(tools) + sum(_count(_parts(message)) for message in messages) - MOST_MARKS
    if too_many <= 0:
        return tools, messages
    kept_tools, too_many = _without_first(tools, too_many)
    kept: list[ChatMessage] = []
    for message in messages:
        parts, too_many = _without_first(_parts(message), too_many)
        kept.append(replace(message, content=parts) if parts else message)
    return kept_tools, tuple(kept)


def _parts(message: System | User | Assistant | ToolMessage) -> tuple[Part, ...]:
    return message.content if isinstance(message.content, tuple) else ()


def _count(marked: Sequence[Part | FunctionTool]) -> int:
    return sum(one.cache_control is not UNSET for one in marked)


def _without_first(ones: Sequence[T], number: int) -> tuple[tuple[T, ...], int]:
    """`ones` without their first `number` marks, and how many are still to be taken off."""
    kept: list[T] = []
    for one in ones:
        if number > 0 and one.cache_control is not UNSET:
            one, number = replace(one, cache_control=UNSET), number - 1
        kept.append(one)
    return tuple(kept), number
