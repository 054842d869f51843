"""The turns of a conversation, from Messages to chat.

Between two assistant messages chat wants first the result of each tool call, in the order of the calls, and
then everything else; so what users and the system say is held until the next assistant turn with something to
say, or the end (wire.md §1.3).
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from routeproxy.chat.request import (
    Assistant,
    ChatMessage,
    FunctionCall,
    Part,
    System,
    TextPart,
    ToolCall,
    ToolMessage,
    User,
)
from routeproxy.messages.errors import Incapable, InvalidRequest
from routeproxy.messages.request import (
    ATTRIBUTION,
    Block,
    Compaction,
    Document,
    Fallback,
    McpToolUse,
    RedactedThinking,
    ServerToolResult,
    ServerToolUse,
    Text,
    Thinking,
    ToolAddition,
    ToolRemoval,
    ToolResult,
    ToolSearchResult,
    ToolUse,
    Turn,
)
from routeproxy.messages.request import System as SystemPrompt
from routeproxy.translate import tool_ids
from routeproxy.translate.blocks import (
    ATTACHED,
    SUMMARY,
    BlockWriter,
    assistant_document,
    referenced_tools,
    server_call_text,
    server_result_text,
    wrong_tag,
)
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.raw_json import as_written, joined
from routeproxy.translate.thinking import Signer
from routeproxy.translate.tools import Toolbox

PREFILL = (
    "This model does not support assistant message prefill. The conversation must end with a user message."
)
BETWEEN_TEXTS = "\n\n"

# The same as JSON, for texts that go out as they were written.
_ATTRIBUTION_WRITTEN = f'"{ATTRIBUTION}'.encode()
_BETWEEN_WRITTEN = msgspec.json.encode(BETWEEN_TEXTS)[1:-1]

NO_SIGNATURE = "skip_thought_signature_validator"
"""Google's word for a call whose thought signature is not known."""


class Draft(Struct):
    """An assistant message that may still grow: turns in a row become one."""

    texts: list[str] = field(default_factory=list)
    calls: dict[str, ToolCall] = field(default_factory=dict)
    """By the client's id."""
    last_calls_at: int = 0
    reasoning: list[str] = field(default_factory=list)
    details: list[Any] = field(default_factory=list)
    signatures: dict[str, str] = field(default_factory=dict)

    def says_nothing(self) -> bool:
        return not self.calls and not any(map(str.strip, self.texts))

    def is_plain(self) -> bool:
        return not (self.calls or self.reasoning or self.details or self.signatures)

    def extend(self, later: "Draft") -> None:
        self.texts += later.texts
        self.calls |= later.calls
        self.last_calls_at = later.last_calls_at if later.calls else self.last_calls_at
        self.reasoning += later.reasoning
        self.details += later.details
        self.signatures |= later.signatures


class Said(Struct):
    """What the user or the system says, until someone else does."""

    role: Literal["user", "system"]
    parts: list[Part] = field(default_factory=list)


class Conversation:
    """Takes turns in order, gives chat messages at the end."""

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
        self._strict = strict
        self._warn = warn
        self._writer = BlockWriter(profile, toolbox, citations_allowed=not strict, warn=warn)
        self._opening: System | None = None
        self._messages: list[ChatMessage] = []
        self._draft: Draft | None = None
        self._results: dict[str, ToolMessage] = {}
        self._attached: dict[str, list[Part]] = {}
        self._held: list[Said] = []
        """What comes after the tool results."""
        self.tool_ids: set[str] = set()
        self.effort: str | None = None

    def open_with(self, system: SystemPrompt | None) -> None:
        """The system prompt, before the first turn."""
        strip = self._profile.strip_attribution
        text: str | Raw = ""
        if isinstance(system, str):
            text = _without_attribution(system) if strip else system
        elif system is not None:
            blocks = [as_written(block.text, f"system.{at}.text") for at, block in enumerate(system)]
            kept = [
                block
                for block in blocks
                if block != b'""' and not (strip and block.startswith(_ATTRIBUTION_WRITTEN))
            ]
            text = joined(kept, _BETWEEN_WRITTEN) if kept else ""
        if text:
            self._opening = System(text)
            self._messages.append(self._opening)

    def take(self, index: int, turn: Turn) -> None:
        match turn.role:
            case "user":
                self._take_user(index, turn.content)
            case "assistant":
                self._take_assistant(index, turn.content)
            case "system":
                self._take_system(index, turn)
            case _:
                raise InvalidRequest(f"messages.{index}.role: Input should be 'user' or 'assistant'")

    def close(self) -> tuple[ChatMessage, ...]:
        self._emit()
        if not self._messages or self._messages[-1] is self._opening:
            raise InvalidRequest("messages: text content blocks must be non-empty")
        if isinstance(self._messages[-1], Assistant) and not self._profile.prefill:
            raise Incapable(PREFILL)
        return tuple(self._messages)

    # --- user turns

    def _take_user(self, index: int, content: str | tuple[Block, ...]) -> None:
        if isinstance(content, str):
            if content:
                self._say("user", [TextPart(content)])
            return
        for position, block in enumerate(content):
            at = f"messages.{index}.content.{position}"
            if isinstance(block, ToolResult):
                self._take_result(block, at)
            elif isinstance(block, ToolUse):
                raise InvalidRequest(f"{at}: `tool_use` blocks can only be in `assistant` messages")
            else:
                self._say("user", list(self._writer.parts(block, at)))

    def _say(self, role: Literal["user", "system"], parts: list[Part]) -> None:
        if not parts:
            return
        if not self._held or self._held[-1].role != role:
            self._held.append(Said(role))
        self._held[-1].parts += parts

    def _take_result(self, block: ToolResult, at: str) -> None:
        id = block.tool_use_id
        call = self._draft.calls.get(id) if self._draft else None
        if call is None:
            raise InvalidRequest(
                f"{at}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` "
                "block must have a corresponding `tool_use` block in the previous message."
            )
        if id in self._results:
            raise InvalidRequest(
                f"{at}: each tool_use must have a single result. Found multiple `tool_result` blocks with "
                f"id: {id}"
            )
        parts = self._writer.result_parts(block.content, at)
        if block.is_error:
            parts = _marked_as_error(parts)
        attached = [part for part in parts if not isinstance(part, TextPart)]
        if attached and self._profile.images_in_tool_messages:
            self._results[id] = ToolMessage(call.id, tuple(parts))
            return
        texts = (part.text if isinstance(part, TextPart) else ATTACHED[type(part)] for part in parts)
        self._results[id] = ToolMessage(call.id, "\n".join(texts) or self._profile.empty_tool_result)
        if attached:
            self._attached[id] = [TextPart(f"From the result of tool call {call.id}:"), *attached]

    # --- system turns

    def _take_system(self, index: int, turn: Turn) -> None:
        if turn.output_config is not None and turn.output_config.effort is not None:
            self.effort = turn.output_config.effort
        if isinstance(turn.content, str):
            text = turn.content
        else:
            text = BETWEEN_TEXTS.join(self._system_texts(index, turn.content))
        if not text:
            return
        opening = self._draft is None and all(said.role == "system" for said in self._held)
        if self._profile.mid_system == "user" and not opening:
            self._say("user", [TextPart(f"<system-reminder>\n{text}\n</system-reminder>")])
        else:
            self._say("system", [TextPart(text)])

    def _system_texts(self, index: int, content: tuple[Block, ...]) -> Iterable[str]:
        for position, block in enumerate(content):
            match block:
                case Text(text=text):
                    if text:
                        yield text
                case ToolAddition():
                    for name in _names(block):
                        self._toolbox.expose(name)
                case ToolRemoval():
                    for name in _names(block):
                        self._toolbox.hide(name)
                case _:
                    raise wrong_tag(block, f"messages.{index}.content.{position}")

    # --- assistant turns

    def _take_assistant(self, index: int, content: str | tuple[Block, ...]) -> None:
        draft = Draft()
        if isinstance(content, str):
            draft.texts.append(content)
        else:
            for position, block in enumerate(content):
                self._read(block, index, position, draft)
        if draft.says_nothing():
            # Thinking that is not for this back end, or no text: as if it had not been there.
            return
        if self._draft is not None and not self._held and not self._results:
            self._draft.extend(draft)
        else:
            self._emit()
            self._draft = draft

    def _read(self, block: Block, index: int, position: int, draft: Draft) -> None:
        match block:
            case Text(text=text):
                draft.texts.append(text)
            case ToolUse():
                self._read_call(block, index, position, draft)
            case Thinking(thinking=thinking, signature=signature):
                self._restore(signature, thinking, draft)
            case RedactedThinking(data=data):
                self._restore(data, "", draft)
            case ServerToolUse(name=name, input=input) | McpToolUse(name=name, input=input):
                draft.texts.append(server_call_text(name, input))
            case ServerToolResult(content=content):
                if isinstance(block, ToolSearchResult):
                    for name in referenced_tools(content):
                        self._toolbox.expose_if_known(name)
                draft.texts.append(server_result_text(str(block.__struct_config__.tag), content))
            case Compaction(content=summary):
                if summary:
                    self._say("user", [TextPart(SUMMARY + summary)])
            case Document() if not self._strict:
                draft.texts.append(assistant_document(block))
            case Fallback():
                pass
            case ToolResult():
                at = f"messages.{index}.content.{position}"
                raise InvalidRequest(f"{at}: `tool_result` blocks can only be in `user` messages")
            case _:
                raise wrong_tag(block, f"messages.{index}.content.{position}")

    def _read_call(self, block: ToolUse, index: int, position: int, draft: Draft) -> None:
        if block.id in self.tool_ids:
            raise InvalidRequest(f"messages.{index}: `tool_use` ids must be unique")
        self.tool_ids.add(block.id)
        arguments = bytes(block.input)
        if not arguments.startswith(b"{"):
            raise InvalidRequest(
                f"messages.{index}.content.{position}.input: Input should be a valid dictionary"
            )
        if b'": ' in arguments or b"\n" in arguments or b"{ " in arguments:  # may have been indented
            arguments = msgspec.json.format(arguments, indent=-1)
        id = tool_ids.for_back_end(block.id, self._profile.tool_call_ids)
        function = FunctionCall(self._toolbox.names.wire(block.name), arguments.decode())
        draft.calls[block.id] = ToolCall(id=id, function=function)
        draft.last_calls_at = index

    def _restore(self, signature: str | None, thinking: str, draft: Draft) -> None:
        """Takes what this back end's family had put into a signature; any other is not for it to see."""
        carried = self._signer.open(signature) if signature else None
        if carried is None or carried.family != self._profile.family:
            return
        match carried.kind, carried.payload:
            case "text", str(text):
                draft.reasoning.append(text)
            case "details", [*details]:
                draft.details += details
            case "thought_signatures", {**signatures}:
                draft.signatures |= {str(id): one for id, one in signatures.items() if isinstance(one, str)}
            case _ if thinking:
                draft.reasoning.append(thinking)

    # --- out

    def _emit(self) -> None:
        """The open assistant message, the results of its calls, and what was held since."""
        draft, self._draft = self._draft, None
        if draft is not None:
            self._messages.append(self._assistant(draft))
            if draft.calls:
                self._emit_results(draft)
        for said in self._held:
            if said.role == "system":
                self._add_system(said.parts)
            else:
                self._messages.append(User(_content(said.parts)))
        self._held = []

    def _emit_results(self, draft: Draft) -> None:
        missing = [id for id in draft.calls if id not in self._results]
        if missing:
            raise InvalidRequest(
                f"messages.{draft.last_calls_at}: `tool_use` ids were found without `tool_result` "
                f"blocks immediately after: {', '.join(missing)}. Each `tool_use` block must have a "
                "corresponding `tool_result` block in the next message."
            )
        self._messages += [self._results[id] for id in draft.calls]
        attached = [part for id in draft.calls for part in self._attached.get(id, ())]
        if attached and self._held and self._held[0].role == "user":
            self._held[0].parts[:0] = attached
        elif attached:
            self._held.insert(0, Said("user", attached))
        self._results, self._attached = {}, {}

    def _assistant(self, draft: Draft) -> Assistant:
        text = "".join(draft.texts)
        if draft.is_plain():  # as most are
            return Assistant(text)
        reasoning: str | UnsetType = UNSET
        if draft.reasoning and self._profile.takes_reasoning:
            reasoning = BETWEEN_TEXTS.join(draft.reasoning)
        elif draft.calls and self._profile.replays_reasoning:
            reasoning = ""
        litellms = self._profile.thought_signatures == "provider_specific_fields"
        own = draft.signatures.get("") if litellms else None
        return Assistant(
            text if text.strip() else None,
            tuple(self._signed(draft)) or UNSET,
            reasoning,
            _raw(draft.details) if draft.details else UNSET,
            _raw({"thought_signatures": [own]}) if own else UNSET,
        )

    def _signed(self, draft: Draft) -> Iterable[ToolCall]:
        """The calls, with the thought signatures that came with them."""
        google = self._profile.thought_signatures == "extra_content"
        for position, (id, call) in enumerate(draft.calls.items()):
            signature = draft.signatures.get(id)
            if google and position == 0:  # the one of several that Gemini signs
                signature = signature or NO_SIGNATURE
            if signature is None:
                yield call
            elif google:
                place = _raw({"google": {"thought_signature": signature}})
                yield msgspec.structs.replace(call, extra_content=place)
            else:
                place = _raw({"thought_signature": signature})
                yield msgspec.structs.replace(call, provider_specific_fields=place)

    def _add_system(self, parts: list[Part]) -> None:
        texts = [part.text for part in parts if isinstance(part, TextPart)]
        if self._messages and isinstance(opening := self._messages[-1], System):
            self._messages.pop()
            before = opening.content
            texts.insert(0, before if isinstance(before, str) else msgspec.json.decode(before, type=str))
        self._messages.append(System(BETWEEN_TEXTS.join(texts)))


def _content(parts: list[Part]) -> str | tuple[Part, ...]:
    """One string where it can be: every back end takes that, a list of parts not each."""
    if len(parts) == 1 and isinstance(only := parts[0], TextPart):
        return only.text
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return BETWEEN_TEXTS.join(texts) if len(texts) == len(parts) else tuple(parts)


def _marked_as_error(parts: list[Part]) -> list[Part]:
    """Chat has no flag for a failed tool."""
    match parts:
        case [TextPart(text=text), *rest]:
            return parts if text.startswith("Error:") else [TextPart(f"Error: {text}"), *rest]
        case _:
            return [TextPart("Error: the tool failed"), *parts]


def _raw(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


def _names(block: ToolAddition | ToolRemoval) -> tuple[str, ...]:
    return (block.tool_names or ()) + ((block.tool_name,) if block.tool_name is not None else ())


def _without_attribution(system: str) -> str:
    if not system.startswith(ATTRIBUTION):
        return system
    return system.partition("\n")[2].lstrip("\n")
