"""Tool calls, put together from pieces of any order and shape. What is shown of them and when is not decided
here but in `stream.py`."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from routeproxy.chat.completion import ToolCallDelta
from routeproxy.translate.arguments import Arguments


class ToolCalls:
    """The calls of one answer, told apart by `index`, by `id`, or only by the order in which they come."""

    def __init__(self) -> None:
        self._calls: list[ToolCall] = []
        self._by_index: dict[int, ToolCall] = {}
        """The last call of each index."""
        self._latest: ToolCall | None = None

    def __bool__(self) -> bool:
        return bool(self._calls)

    def __iter__(self) -> "Iterator[ToolCall]":
        """The calls in the order of their indexes, those of the same index as they came."""
        if len(self._calls) < 2:
            return iter(self._calls)
        return iter(sorted(self._calls, key=lambda call: call.index))

    def waiting(self) -> "list[ToolCall]":
        return [call for call in self if call.state == "waiting"]

    def add(self, deltas: Sequence[ToolCallDelta]) -> None:
        for position, delta in enumerate(deltas):
            index = delta.index if _is_index(delta.index) else None
            call = self._call_of(delta, index, position, alone=len(deltas) == 1)
            place = position if index is None else index
            if call is None:
                call = ToolCall(place)
                self._calls.append(call)
            self._by_index[place] = self._latest = call
            call.add(delta)

    def add_whole(self, id: str, name: str, arguments: str) -> None:
        call = ToolCall(max((call.index for call in self._calls), default=-1) + 1)
        call.id, call.name = id, name
        call.arguments.add(arguments)
        self._calls.append(call)

    def _call_of(
        self, delta: ToolCallDelta, index: int | None, position: int, *, alone: bool
    ) -> "ToolCall | None":
        """The call that `delta` goes on with, or `None` if it begins a new one."""
        id, name = _id(delta), _name(delta)
        if index is not None:
            call = self._by_index.get(index)
        elif id:
            call = self._with_id(id, None) or self._latest
        else:
            call = self._latest if alone else self._by_index.get(position)
        if call is None:
            return None
        if id and call.id and id != call.id:
            if known := self._with_id(id, index):
                return known
            # A new id begins a new call, but for back ends that mint one for each piece.
            return None if name or call.arguments.complete else call
        same_index_and_id = index is not None and id == call.id != ""
        return None if name and not same_index_and_id and call.is_over_before(name, delta) else call

    def _with_id(self, id: str, index: int | None) -> "ToolCall | None":
        return next(
            (call for call in self._calls if call.id == id and (index is None or call.index == index)), None
        )


class ToolCall:
    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        """The back end's."""
        self.name = ""
        """The wire name (`ToolNames`)."""
        self.thought_signature: str | None = None
        self.signature_place: Literal["", "extra_content"] = ""
        self.arguments = Arguments()
        self.state: Literal["waiting", "shown", "dropped"] = "waiting"

    @property
    def is_nothing(self) -> bool:
        """Some send calls with nothing in them, as they send texts with nothing in them."""
        return not (self.id or self.name) and self.arguments.empty

    def add(self, delta: ToolCallDelta) -> None:
        # Names and ids may come again with each piece, or late: the first of each counts.
        self.id = self.id or _id(delta)
        self.name = self.name or _name(delta)
        if self.thought_signature is None and (signature := _thought_signature(delta)):
            self.thought_signature = signature
            self.signature_place = "extra_content" if signature == _googles_signature(delta) else ""
        if delta.function is not None:
            self.arguments.add(delta.function.arguments)

    def is_over_before(self, name: str, delta: ToolCallDelta) -> bool:
        """Whether `delta`, which names its call again, begins another call in the same place."""
        if not self.name:
            return False
        if self.arguments.complete:
            return name != self.name or self.arguments.is_followed_by(
                delta.function and delta.function.arguments
            )
        return name != self.name and self.arguments.empty


# LiteLLM hides Gemini's thought signatures in ids, where other back ends choke on them.
_LITELLM_SEPARATOR = "__thought__"


def _is_index(index: Any) -> bool:
    return isinstance(index, int) and not isinstance(index, bool)


def _id(delta: ToolCallDelta) -> str:
    return delta.id.partition(_LITELLM_SEPARATOR)[0] if isinstance(delta.id, str) else ""


def _name(delta: ToolCallDelta) -> str:
    name = delta.function.name if delta.function is not None else None
    return name.strip() if isinstance(name, str) else ""


def _thought_signature(delta: ToolCallDelta) -> str | None:
    if signature := _signature_in(delta.provider_specific_fields) or _googles_signature(delta):
        return signature
    return (delta.id.partition(_LITELLM_SEPARATOR)[2] if isinstance(delta.id, str) else "") or None


def _googles_signature(delta: ToolCallDelta) -> str | None:
    return _signature_in(delta.extra_content.get("google")) if isinstance(delta.extra_content, dict) else None


def _signature_in(fields: Any) -> str | None:
    signature = fields.get("thought_signature") if isinstance(fields, dict) else None
    return signature if isinstance(signature, str) and signature else None
