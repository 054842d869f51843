"""Tool results, from blocks of user turns to chat's tool messages: one for each call, in the calls' order."""

from collections.abc import Mapping
from typing import NamedTuple

from routeproxy.chat.request import FilePart, ImagePart, Part, TextPart, ToolCall, ToolMessage
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import ToolResult
from routeproxy.translate.blocks import BlockWriter
from routeproxy.translate.cache_marks import has_marks, mark_of, marked
from routeproxy.translate.profile import ModelProfile

_ATTACHED = {ImagePart: "[image attached below]", FilePart: "[document attached below]"}


class ResultMessages(NamedTuple):
    messages: list[ToolMessage]
    attached: list[Part]
    """What the tool messages could not hold, for a user message after them."""


class ToolResults:
    """Collects the results of one assistant message's calls. Calls are by the client's id."""

    def __init__(self, profile: ModelProfile, writer: BlockWriter) -> None:
        self._profile = profile
        self._writer = writer
        self._messages: dict[str, ToolMessage] = {}
        self._attached: dict[str, list[Part]] = {}

    def __bool__(self) -> bool:
        return bool(self._messages)

    def add(self, block: ToolResult, path: str, calls: Mapping[str, ToolCall]) -> None:
        """`calls`: those that may have results here."""
        id = block.tool_use_id
        call = calls.get(id)
        if call is None:
            raise InvalidRequest(
                f"{path}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` "
                "block must have a corresponding `tool_use` block in the previous message."
            )
        if id in self._messages:
            raise InvalidRequest(
                f"{path}: each tool_use must have a single result. Found multiple `tool_result` blocks with "
                f"id: {id}"
            )
        parts = self._writer.result_parts(block.content, path)
        if block.is_error:
            parts = _marked_as_error(parts)
        parts = marked(parts, mark_of(block.cache_control, self._profile))
        attached = [part for part in parts if not isinstance(part, TextPart)]
        if (attached and self._profile.images_in_tool_messages) or (has_marks(parts) and not attached):
            self._messages[id] = ToolMessage(call.id, tuple(parts))
            return
        texts = (part.text if isinstance(part, TextPart) else _ATTACHED[type(part)] for part in parts)
        self._messages[id] = ToolMessage(call.id, "\n".join(texts) or self._profile.empty_tool_result)
        if attached:
            self._attached[id] = [TextPart(f"From the result of tool call {call.id}:"), *attached]

    def take(self, calls: Mapping[str, ToolCall], index: int) -> ResultMessages:
        """The messages for `calls`, the last of which were in turn `index`; nothing is kept of them here."""
        missing = [id for id in calls if id not in self._messages]
        if missing:
            raise InvalidRequest(
                f"messages.{index}: `tool_use` ids were found without `tool_result` "
                f"blocks immediately after: {', '.join(missing)}. Each `tool_use` block must have a "
                "corresponding `tool_result` block in the next message."
            )
        messages = [self._messages[id] for id in calls]
        attached = [part for id in calls for part in self._attached.get(id, ())]
        self._messages, self._attached = {}, {}
        return ResultMessages(messages, attached)


def _marked_as_error(parts: list[Part]) -> list[Part]:
    """`parts` with the word for it in front: chat has no flag for a failed tool."""
    match parts:
        case [TextPart(text=text), *rest]:
            return parts if text.startswith("Error:") else [TextPart(f"Error: {text}"), *rest]
        case _:
            return [TextPart("Error: the tool failed"), *parts]
