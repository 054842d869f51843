"""The turns of a conversation, from Messages to chat, in the order that chat wants.

Between two assistant messages chat wants first the result of each tool call, in the order of the calls, and
then everything else; so what users and the system say is held until the next assistant turn with something to
say, or the end (wire.md §1.3).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, field

from routeproxy.chat.request import Assistant, ChatMessage, Part, System, TextPart, ToolMessage, User
from routeproxy.messages.errors import Incapable, InvalidRequest
from routeproxy.messages.losses import Losses
from routeproxy.messages.request import (
    UNTIL_NEXT_USER_MESSAGE,
    Block,
    Text,
    ToolAddition,
    ToolRemoval,
    ToolResult,
    Turn,
)
from routeproxy.messages.request import System as SystemPrompt
from routeproxy.translate.assistant_turns import AssistantDraft, AssistantTurns, ids_not_unique
from routeproxy.translate.blocks import BETWEEN_TEXTS, SUMMARY, BlockWriter, misplaced_block
from routeproxy.translate.cache_marks import Mark, has_marks, mark_of, marked
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.system_prompt import system_prompt_text
from routeproxy.translate.thinking import Signer
from routeproxy.translate.tool_results import ToolResults
from routeproxy.translate.tools import Toolbox

PREFILL = (
    "This model does not support assistant message prefill. The conversation must end with a user message."
)


class _HeldMessage(Struct):
    """A message of the user or the system that may still grow: turns of one role in a row become one."""

    role: Literal["user", "system"]
    parts: list[Part] = field(default_factory=list)


class Conversation:
    """`add_turns`, and `finish` gives the chat messages."""

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
        self._writer = BlockWriter(profile, toolbox, citations_allowed=not strict, warn=warn)
        self._assistant_turns = AssistantTurns(profile, toolbox, signer, warn, strict=strict)
        self._system_prompt: System | None = None
        self._messages: list[ChatMessage] = []
        self._draft: AssistantDraft | None = None
        self._results = ToolResults(profile, self._writer)
        """The results of the draft's calls."""
        self._held: list[_HeldMessage] = []
        """What comes after the results."""
        self.effort: str | None = None
        """The last that a system turn asked for."""

    @property
    def tool_ids(self) -> frozenset[str]:
        """The client's ids of all tool calls."""
        return frozenset(self._assistant_turns.tool_ids)

    @property
    def losses(self) -> Losses:
        """What of the conversation this back end can't be given."""
        return self._assistant_turns.losses

    def add_system_prompt(self, system: SystemPrompt) -> None:
        """Before the first turn."""
        text = system_prompt_text(system, self._profile)
        if text:
            self._system_prompt = System(text)
            self._messages.append(self._system_prompt)

    def add_turns(self, turns: Sequence[Turn]) -> None:
        last_of_user = max((index for index, turn in enumerate(turns) if turn.role == "user"), default=-1)
        for index, turn in enumerate(turns):
            match turn.role:
                case "user":
                    self._add_user(index, _content(index, turn))
                case "assistant":
                    self._add_assistant(index, _content(index, turn))
                case "system":
                    is_over = turn.clear_at == UNTIL_NEXT_USER_MESSAGE and index < last_of_user
                    self._add_system(index, turn, is_over=is_over)
                case _:
                    raise InvalidRequest(f"messages.{index}.role: Input should be 'user' or 'assistant'")

    def finish(self) -> tuple[ChatMessage, ...]:
        self._emit_draft_and_held()
        if not self._profile.system_role:
            self._messages = _without_system_role(self._messages)
        if not self._messages or self._messages[-1] is self._system_prompt:
            raise InvalidRequest("messages: text content blocks must be non-empty")
        if isinstance(self._messages[-1], Assistant) and not self._profile.prefill:
            raise Incapable(PREFILL)
        return tuple(self._messages)

    # --- turns

    def _add_user(self, index: int, content: str | tuple[Block, ...]) -> None:
        if isinstance(content, str):
            if content:
                self._hold("user", [TextPart(content)])
            return
        for position, block in enumerate(content):
            path = f"messages.{index}.content.{position}"
            if isinstance(block, ToolResult):
                self._results.add(block, path, self._draft.calls if self._draft is not None else {})
            else:
                self._hold("user", list(self._writer.parts(block, path)))

    def _add_system(self, index: int, turn: Turn, *, is_over: bool) -> None:
        """`is_over`: the text is no longer shown. What the turn says of tools and effort stays in force."""
        if turn.output_config is not None and turn.output_config.effort is not None:
            self.effort = turn.output_config.effort
        elif turn.content is None:
            raise InvalidRequest(f"messages.{index}: a system message needs `content` or `output_config`")
        mark: Mark = UNSET
        if isinstance(turn.content, str):
            text = turn.content
        else:
            text = BETWEEN_TEXTS.join(self._system_texts(index, turn.content or ()))
            for block in turn.content or ():
                mark = (isinstance(block, Text) and mark_of(block.cache_control, self._profile)) or mark
        if not text or is_over:
            return
        is_opening = self._draft is None and all(held.role == "system" for held in self._held)
        if self._profile.mid_system == "user" and not is_opening:
            self._hold("user", [TextPart(f"<system-reminder>\n{text}\n</system-reminder>", mark)])
        else:
            self._hold("system", [TextPart(text, mark)])

    def _system_texts(self, index: int, content: tuple[Block, ...]) -> Iterable[str]:
        for position, block in enumerate(content):
            match block:
                case Text(text=text):
                    if text:
                        yield text
                case ToolAddition() | ToolRemoval():
                    self._toolbox.change(block, f"messages.{index}.content.{position}")
                case _:
                    raise misplaced_block(block, f"messages.{index}.content.{position}")

    def _add_assistant(self, index: int, content: str | tuple[Block, ...]) -> None:
        draft = self._assistant_turns.read(index, content)
        for summary in draft.summaries:
            self._hold("user", [TextPart(SUMMARY + summary)])
        if draft.is_blank():
            # Thinking that is not for this back end, or no text: as if it had not been there.
            return
        if self._draft is not None and not self._held and not self._results:
            if not self._draft.calls.keys().isdisjoint(draft.calls):
                raise ids_not_unique(index)
            self._draft.extend(draft)
        else:
            self._emit_draft_and_held()
            self._draft = draft

    def _hold(self, role: Literal["user", "system"], parts: list[Part]) -> None:
        if not parts:
            return
        if not self._held or self._held[-1].role != role:
            self._held.append(_HeldMessage(role))
        self._held[-1].parts += parts

    # --- messages

    def _emit_draft_and_held(self) -> None:
        """The open assistant message, the results of its calls, and what was held since."""
        draft, self._draft = self._draft, None
        if draft is not None:
            self._messages += self._assistant_turns.messages(draft)
            if draft.calls:
                self._emit_results(draft)
        for held in self._held:
            last = self._messages[-1] if self._messages else None
            if isinstance(last, ToolMessage) and not self._profile.user_after_tool:
                self._messages[-1] = _continued(last, held.parts)
            elif held.role == "system":
                self._emit_system(held.parts)
            else:
                self._messages.append(User(_user_content(held.parts)))
        self._held = []

    def _emit_results(self, draft: AssistantDraft) -> None:
        messages, attached = self._results.take(draft.calls, draft.calls_index)
        self._messages += messages
        if draft.calls_mark is not UNSET:
            self._messages[-1] = _marked_result(messages[-1], draft.calls_mark)
        if attached and self._held and self._held[0].role == "user":
            self._held[0].parts[:0] = attached
        elif attached:
            self._held.insert(0, _HeldMessage("user", attached))

    def _emit_system(self, parts: list[Part]) -> None:
        texts = [part.text for part in parts if isinstance(part, TextPart)]
        if has_marks(parts):
            marked_texts = tuple(part for part in parts if isinstance(part, TextPart))
            self._messages.append(System(marked_texts))
            return
        if self._messages and isinstance(previous := self._messages[-1], System):
            self._messages.pop()
            texts.insert(0, _text_of(previous))
        self._messages.append(System(BETWEEN_TEXTS.join(texts)))


def _text_of(message: System) -> str:
    text = message.content
    if isinstance(text, tuple):
        return BETWEEN_TEXTS.join(part.text for part in text)
    return text if isinstance(text, str) else msgspec.json.decode(text, type=str)


def _without_system_role(messages: list[ChatMessage]) -> list[ChatMessage]:
    """The system prompt as the beginning of the first user message, which comes first."""
    system = [TextPart(_text_of(message)) for message in messages if isinstance(message, System)]
    rest: list[ChatMessage] = [message for message in messages if not isinstance(message, System)]
    if system and rest and isinstance(first := rest[0], User):
        content = first.content
        said = [TextPart(content)] if isinstance(content, str) else content
        rest[0] = User(_user_content([*system, *said]))
    elif system:
        rest.insert(0, User(_user_content([*system])))
    return rest


def _continued(result: ToolMessage, parts: list[Part]) -> ToolMessage:
    """The result of a tool, with what was said after it."""
    content = result.content
    said = [TextPart(content)] if isinstance(content, str) else content
    return ToolMessage(result.tool_call_id, _user_content([*said, *parts]))


def _marked_result(result: ToolMessage, mark: Mark) -> ToolMessage:
    content = result.content
    parts = (TextPart(content),) if isinstance(content, str) else content
    return ToolMessage(result.tool_call_id, tuple(marked(parts, mark))) if content else result


def _user_content(parts: list[Part]) -> str | tuple[Part, ...]:
    """One string where it can be: every back end takes that, a list of parts not each."""
    if has_marks(parts):
        return tuple(parts)
    if len(parts) == 1 and isinstance(only := parts[0], TextPart):
        return only.text
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return BETWEEN_TEXTS.join(texts) if len(texts) == len(parts) else tuple(parts)


def _content(index: int, turn: Turn) -> str | tuple[Block, ...]:
    if turn.content is None:
        raise InvalidRequest(f"messages.{index}.content: Field required")
    return turn.content
