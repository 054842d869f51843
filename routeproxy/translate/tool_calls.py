"""Tool calls, put together from pieces of any order and shape. The stream decides what is shown when."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from routeproxy.chat.completion import ToolCallDelta
from routeproxy.translate.arguments import Arguments


class ToolCalls:
    """The calls of one answer, told apart by `index`, by `id`, or only by the order in which they come."""

    def __init__(self) -> None:
        self._all: list[ToolCall] = []
        self._at: dict[int, ToolCall] = {}
        self._latest: ToolCall | None = None

    def __bool__(self) -> bool:
        return bool(self._all)

    def __iter__(self) -> "Iterator[ToolCall]":
        """In the order of their indexes, those with the same one as they came."""
        if len(self._all) < 2:
            return iter(self._all)
        return iter(sorted(self._all, key=lambda call: call.place))

    def waiting(self) -> "list[ToolCall]":
        return [call for call in self if call.state == "waiting"]

    def add(self, deltas: Sequence[ToolCallDelta]) -> None:
        for position, delta in enumerate(deltas):
            index = delta.index if _is_index(delta.index) else None
            call = self._meant_by(delta, index, position, alone=len(deltas) == 1)
            place = position if index is None else index
            if call is None:
                call = ToolCall(place)
                self._all.append(call)
            self._at[place] = self._latest = call
            call.add(delta)

    def add_whole(self, id: str, name: str, arguments: str) -> None:
        call = ToolCall(max((call.place for call in self._all), default=-1) + 1)
        call.upstream_id, call.name = id, name
        call.arguments.add(arguments)
        self._all.append(call)

    def _meant_by(
        self, delta: ToolCallDelta, index: int | None, position: int, *, alone: bool
    ) -> "ToolCall | None":
        id, name = _id(delta), _name(delta)
        if index is not None:
            there = self._at.get(index)
        elif id:
            there = self._known(id, None) or self._latest
        else:
            there = self._latest if alone else self._at.get(position)
        if there is None:
            return None
        if id and there.upstream_id and id != there.upstream_id:
            if known := self._known(id, index):
                return known
            # A new id begins a new call, but for back ends that mint one for each piece.
            return None if name or there.arguments.complete else there
        named_the_same_way = index is not None and id == there.upstream_id != ""
        return None if name and not named_the_same_way and there.is_over_before(name, delta) else there

    def _known(self, id: str, index: int | None) -> "ToolCall | None":
        return next(
            (call for call in self._all if call.upstream_id == id and (index is None or call.place == index)),
            None,
        )


class ToolCall:
    def __init__(self, place: int) -> None:
        self.place = place
        self.upstream_id = ""
        self.name = ""
        self.thought_signature: str | None = None
        self.arguments = Arguments()
        self.state: Literal["waiting", "shown", "dropped"] = "waiting"

    def add(self, delta: ToolCallDelta) -> None:
        # Names and ids may come again with each piece, or late: the first of each counts.
        self.upstream_id = self.upstream_id or _id(delta)
        self.name = self.name or _name(delta)
        self.thought_signature = self.thought_signature or _thought_signature(delta)
        if delta.function is not None:
            self.arguments.add(delta.function.arguments)

    def is_over_before(self, name: str, delta: ToolCallDelta) -> bool:
        """Whether a piece that names its call again begins another one in the same place."""
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
    google = delta.extra_content.get("google") if isinstance(delta.extra_content, dict) else None
    for place in (delta.provider_specific_fields, google):
        if (
            isinstance(place, dict)
            and isinstance(signature := place.get("thought_signature"), str)
            and signature
        ):
            return signature
    return (delta.id.partition(_LITELLM_SEPARATOR)[2] if isinstance(delta.id, str) else "") or None
