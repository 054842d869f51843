"""Where back ends put their reasoning, and what of it has to come back with the next request (in a signature:
`thinking.py`)."""

from typing import Any, Literal

from routeproxy.chat.completion import Delta

_STREAMED_IN_PIECES = {"reasoning.text": "text", "reasoning.summary": "summary"}
"""By the type of an OpenRouter detail: the field that holds its text."""


def text_of(delta: Delta) -> str:
    """The reasoning in `delta`, which some back ends send in two or three fields at once."""
    for text in (delta.reasoning_content, delta.reasoning):
        if isinstance(text, str) and text:
            return text
    return (
        _joined(delta.thinking_blocks, "thinking")
        or _joined(delta.reasoning_details, "text", "summary")
        or "".join(_mistral_text(part) for part in _objects(delta.content))
    )


def details_of(delta: Delta) -> list[dict[str, Any]]:
    return _objects(delta.reasoning_details)


class CarriedReasoning:
    """The reasoning that one thinking block has to bring back."""

    def __init__(self) -> None:
        self.thought_signatures: dict[str, str] = {}
        self.place: Literal["", "extra_content"] = ""
        """Where those came (`thinking.py`)."""
        self._has_text = False
        self._texts: list[str] = []
        self._details: list[dict[str, Any]] = []
        self._pieces: list[str] = []
        """Those of the last detail's text."""

    def add_text(self, text: str, *, shown: bool) -> None:
        """`shown`: the block shows it, so that it need not be carried."""
        self._has_text = True
        if not shown:
            self._texts.append(text)

    def add_details(self, details: list[dict[str, Any]]) -> None:
        """OpenRouter streams the text of one detail in pieces: what comes back must be one again."""
        for detail in details:
            last = self._details[-1] if self._details else {}
            key = _STREAMED_IN_PIECES.get(str(detail.get("type")))
            if key and all(last.get(name) == detail.get(name) for name in ("type", "index")):
                self._details[-1] = last | {
                    name: value for name, value in detail.items() if value is not None
                }
            else:
                self._join_pieces()
                self._details.append(detail)
            if key:
                self._pieces.append(_text(detail.get(key)))

    def _join_pieces(self) -> None:
        if len(self._pieces) > 1:
            last = self._details[-1]
            self._details[-1] = last | {_STREAMED_IN_PIECES[last["type"]]: "".join(self._pieces)}
        self._pieces = []

    def payload(self) -> tuple[str, Any]:
        """The kind of the payload (`thinking.py`), and the payload."""
        if self._details:
            self._join_pieces()
            return "details", self._details
        if self.thought_signatures:
            return "thought_signatures", self.thought_signatures
        if self._has_text:
            return "text", "".join(self._texts) if self._texts else None
        return "nothing", None


def _objects(value: Any) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list | tuple) else []


def _joined(parts: Any, *keys: str) -> str:
    return "".join(_text(part.get(key)) for part in _objects(parts) for key in keys)


def _mistral_text(part: dict[str, Any]) -> str:
    """`{"type": "thinking", "thinking": [{"type": "text", "text": …}]}`."""
    return _text(part.get("thinking")) or _joined(part.get("thinking"), "text")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
