"""Assistant turns, from Messages to chat: blocks are read into a draft, and turns in a row share one, which
becomes one message, or several where their order counts."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from routeproxy.chat.request import Assistant, FunctionCall, ToolCall
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.losses import Losses, loss_of_thinking
from routeproxy.messages.reply import OUR_SEARCH
from routeproxy.messages.request import (
    Block,
    Compaction,
    ContainerUpload,
    Document,
    Fallback,
    McpToolListing,
    McpToolUse,
    RedactedThinking,
    ServerToolResult,
    ServerToolUse,
    Text,
    Thinking,
    ToolSearchResult,
    ToolUse,
)
from routeproxy.translate import tool_ids
from routeproxy.translate.blocks import BETWEEN_TEXTS, assistant_document_text, misplaced_block
from routeproxy.translate.cache_marks import Mark, mark_of, marked_text
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.server_tools import referenced_tools, server_call_text, server_result_text
from routeproxy.translate.thinking import Signer
from routeproxy.translate.tools import Toolbox

NO_SIGNATURE = "skip_thought_signature_validator"
"""Google's word for a call whose thought signature is not known."""


class AssistantDraft(Struct):
    """An assistant message that may still grow."""

    texts: list[str] = field(default_factory=list)
    calls: dict[str, ToolCall] = field(default_factory=dict)
    """By the client's id."""
    calls_index: int = 0
    """The turn in which the last of the calls were."""
    reasoning: list[str] = field(default_factory=list)
    reasoning_details: list[Any] = field(default_factory=list)
    thought_signatures: dict[str, str] = field(default_factory=dict)
    """By the client's id of a call; `""` has the text's own."""
    text_mark: Mark = UNSET
    calls_mark: Mark = UNSET
    """Up to where the prompt is to be cached: chat has no place for that on a call, but on its result."""
    in_extra_content: set[str] = field(default_factory=set)
    """The ids of those that came there."""
    order: list[tuple[Literal["text", "call", "details"], Any]] = field(default_factory=list)
    """The texts, the client's ids of the calls and the details of reasoning, as they came."""
    summaries: list[str] = field(default_factory=list)
    """What the turn holds of a conversation that was compacted. It goes before the turn, as the user's."""

    def add_text(self, text: str) -> None:
        """Blocks in a row are one text, cut anywhere. Those with something else between them are two."""
        if not text:
            return
        is_another = self.texts and self.order[-1][0] != "text"
        are_glued = is_another and not (self.texts[-1][-1].isspace() or text[0].isspace())
        self.texts.append(BETWEEN_TEXTS + text if are_glued else text)
        self.order.append(("text", text))

    def add_call(self, id: str, call: ToolCall) -> None:
        self.calls[id] = call
        self.order.append(("call", id))

    def is_blank(self) -> bool:
        return not self.calls and not any(map(str.strip, self.texts))

    def is_plain_text(self) -> bool:
        return not (self.calls or self.reasoning or self.reasoning_details or self.thought_signatures)

    def extend(self, later: "AssistantDraft") -> None:
        self.texts += later.texts
        self.text_mark = later.text_mark or self.text_mark
        self.calls_mark = later.calls_mark or self.calls_mark
        self.calls |= later.calls
        self.calls_index = later.calls_index if later.calls else self.calls_index
        self.reasoning += later.reasoning
        self.reasoning_details += later.reasoning_details
        self.thought_signatures |= later.thought_signatures
        self.in_extra_content |= later.in_extra_content
        self.order += later.order

    def item_by_item(self) -> "Iterator[AssistantDraft]":
        """Its parts, each with its reasoning before its text and its text before its calls, as chat has them.
        Reasoning that nothing came of is left out: its items are refused without what follows them."""
        draft = AssistantDraft()
        for kind, value in self.order:
            if kind == "text" and not value.strip():
                continue
            is_behind = draft.calls or (kind == "details" and draft.texts)
            if kind != "call" and is_behind:
                yield draft
                draft = AssistantDraft()
            if kind == "text":
                draft.texts.append(value)
            elif kind == "call":
                draft.calls[value] = self.calls[value]
            else:
                draft.reasoning_details += value
        if not draft.is_blank():
            yield draft


class AssistantTurns:
    """Reads the assistant turns of one conversation, and writes their messages."""

    def __init__(
        self,
        profile: ModelProfile,
        toolbox: Toolbox,
        signer: Signer,
        warn: Callable[[str], None],
        *,
        strict: bool,
    ) -> None:
        """`strict`: the rules of version 2026-10-21 hold."""
        self._profile = profile
        self._toolbox = toolbox
        self._signer = signer
        self._warn = warn
        self._strict = strict
        self.losses: Losses = Counter()
        """What was in the turns so far that this back end can't be given."""
        self.tool_ids: set[str] = set()
        """The client's ids of all calls so far."""
        self._wire_ids: set[str] = set()
        """Those that the back end knows them by."""

    def read(self, index: int, content: str | tuple[Block, ...]) -> AssistantDraft:
        draft = AssistantDraft()
        if isinstance(content, str):
            draft.add_text(content)
        else:
            for position, block in enumerate(content):
                self._read_block(block, index, position, draft)
        return draft

    def _read_block(self, block: Block, index: int, position: int, draft: AssistantDraft) -> None:
        path = f"messages.{index}.content.{position}"
        match block:
            case Text(text=text, cache_control=mark):
                draft.add_text(text)
                draft.text_mark = mark_of(mark, self._profile) or draft.text_mark
            case ToolUse():
                self._read_call(block, index, position, draft)
            case Thinking(thinking=thinking, signature=signature):
                draft.order.append(("details", self._restore_reasoning(signature, thinking, draft)))
            case RedactedThinking(data=data):
                draft.order.append(("details", self._restore_reasoning(data, "", draft)))
            case ServerToolUse(name=name, input=input) | McpToolUse(name=name, input=input):
                draft.add_text(server_call_text(name, input))
            case ServerToolResult(content=content):
                if isinstance(block, ToolSearchResult):
                    for name in referenced_tools(content):
                        self._toolbox.expose_if_known(name)
                elif not block.tool_use_id.startswith(OUR_SEARCH):
                    self.losses["server_tool_results"] += 1
                draft.add_text(server_result_text(str(block.__struct_config__.tag), content))
            case Compaction(content=summary, tool_changes=changes):
                self._toolbox.change_all(changes or (), path)
                if summary:
                    draft.summaries.append(summary)
            case ContainerUpload(file_id=file):
                draft.add_text(f"[container_upload {file}]\n")
            case McpToolListing():
                self._warn("an mcp_tool_listing is of no use to this model and was left out")
            case Document() if not self._strict:
                draft.add_text(assistant_document_text(block))
            case Fallback():
                pass
            case _:
                raise misplaced_block(block, path)

    def _read_call(self, block: ToolUse, index: int, position: int, draft: AssistantDraft) -> None:
        if block.id in draft.calls:
            raise ids_not_unique(index)
        arguments = bytes(block.input)
        if not arguments.startswith(b"{"):
            raise InvalidRequest(
                f"messages.{index}.content.{position}.input: Input should be a valid dictionary"
            )
        if b'": ' in arguments or b"\n" in arguments or b"{ " in arguments:  # may have been indented
            arguments = msgspec.json.format(arguments, indent=-1)
        id = self._wire_id(block.id)
        self.tool_ids.add(block.id)
        function = FunctionCall(self._toolbox.wire_name(block.name), arguments.decode())
        draft.add_call(block.id, ToolCall(id=id, function=function))
        draft.calls_mark = mark_of(block.cache_control, self._profile) or draft.calls_mark
        draft.calls_index = index

    def _wire_id(self, id: str) -> str:
        """The back end's id of a call. One that a client gave to a call of an earlier turn, too, as it may,
        is numbered: back ends look for a result among the calls of all turns."""
        rule = self._profile.tool_call_ids
        wire_id, number = tool_ids.for_back_end(id, rule), 1
        while wire_id in self._wire_ids:
            number += 1
            wire_id = tool_ids.for_back_end(f"{tool_ids.for_back_end(id, 'any')}-{number}", rule)
        self._wire_ids.add(wire_id)
        return wire_id

    def _restore_reasoning(self, signature: str | None, thinking: str, draft: AssistantDraft) -> list[Any]:
        """Takes from a signature what this back end's family put there; it may not see that of another. Its
        details."""
        contents = self._signer.open(signature) if signature else None
        if contents is None or contents.family != self._profile.family:
            self.losses[loss_of_thinking(thinking)] += 1
            return []
        match contents.kind, contents.payload:
            case "text", str(text):
                draft.reasoning.append(text)
            case "details", [*details]:
                draft.reasoning_details += details
                return details
            case "thought_signatures", {**signatures}:
                draft.thought_signatures |= {
                    str(id): value for id, value in signatures.items() if isinstance(value, str)
                }
                if contents.place == "extra_content":
                    draft.in_extra_content.update(map(str, signatures))
            case _ if thinking:
                draft.reasoning.append(thinking)
        return []

    def messages(self, draft: AssistantDraft) -> Iterator[Assistant]:
        """One; several, where reasoning must stand before what it led to: OpenAI refuses it elsewhere."""
        if any(isinstance(one, dict) and one.get("type") == "reasoning" for one in draft.reasoning_details):
            yield from map(self._message, draft.item_by_item())
        else:
            yield self._message(draft)

    def _message(self, draft: AssistantDraft) -> Assistant:
        text = "".join(draft.texts)
        if draft.is_plain_text():  # as most are
            return Assistant(marked_text(text, draft.text_mark))
        reasoning: str | UnsetType = UNSET
        if draft.reasoning and self._profile.takes_reasoning:
            reasoning = BETWEEN_TEXTS.join(draft.reasoning)
        elif draft.calls and self._profile.replays_reasoning:
            reasoning = ""
        for_litellm = self._profile.thought_signatures == "provider_specific_fields"
        text_signature = draft.thought_signatures.get("") if for_litellm else None
        return Assistant(
            marked_text(text, draft.text_mark)
            if text.strip()
            else (None if self._profile.null_content else ""),
            tuple(self._signed_calls(draft)) or UNSET,
            reasoning,
            _encode(draft.reasoning_details) if draft.reasoning_details else UNSET,
            _encode({"thought_signatures": [text_signature]}) if text_signature else UNSET,
        )

    def _signed_calls(self, draft: AssistantDraft) -> Iterable[ToolCall]:
        """The calls, with the thought signatures that came with them."""
        for_google = self._profile.thought_signatures == "extra_content"
        for position, (id, call) in enumerate(draft.calls.items()):
            signature = draft.thought_signatures.get(id)
            if for_google and position == 0:  # the one of several that Gemini signs
                signature = signature or NO_SIGNATURE
            if signature is None:
                yield call
            elif for_google or id in draft.in_extra_content:
                content = _encode({"google": {"thought_signature": signature}})
                yield msgspec.structs.replace(call, extra_content=content)
            else:
                fields = _encode({"thought_signature": signature})
                yield msgspec.structs.replace(call, provider_specific_fields=fields)


def ids_not_unique(index: int) -> InvalidRequest:
    return InvalidRequest(f"messages.{index}: `tool_use` ids must be unique")


def _encode(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))
