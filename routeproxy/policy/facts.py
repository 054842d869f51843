"""What a rule may look at. Facts are total: each has an answer for every request, so no condition can fail.

A fact that costs something (images, tokens, the system text) is worked out when a condition asks, and kept.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from functools import cached_property
from typing import Any

from msgspec.structs import replace

from routeproxy.messages.decoding import ANY_JSON, UNREADABLE, decode_leniently, nested_too_deeply
from routeproxy.messages.request import ATTRIBUTION, NULL, Envelope

_NAME = re.compile(r"[A-Za-z0-9_.:@/+\[\]-]{1,256}")


def requested_model_problem(name: str) -> str | None:
    """Why no rule is asked about a model of this name (the answer is 404); `None` if it is a name."""
    if not _NAME.fullmatch(name):
        return "a model's name is 1 to 256 characters of A-Z a-z 0-9 . _ : @ / + - [ ]"
    if ".." in name or "//" in name:
        return "a model's name can't contain `..` or `//`"
    stem = name[:-4] if name.lower().endswith("[1m]") else name
    return "a model's name can't be a prefix alone" if not stem or stem.endswith("/") else None


class Facts:
    """One request, as rules see it. `headers` have lower-case names and every line that arrived."""

    def __init__(
        self,
        envelope: Envelope,
        headers: Mapping[str, tuple[str, ...]],
        *,
        url_target: str | None = None,
        team: str | None = None,
        no_fallback: bool = False,
        count: Callable[[], int] = lambda: 0,
        is_below: Callable[[int], bool] | None = None,
    ) -> None:
        self.envelope = envelope
        self.headers = headers
        self.url_target = url_target
        """`provider/model`, as the URL named it."""
        self.team = team
        """Whose key was shown; `None`: nobody's."""
        self.no_fallback = no_fallback
        """The client wants no other target than the first."""
        self.requested = url_target.partition("/")[2] if url_target is not None else envelope.model
        self.model = ascii_lower(self.requested)
        self.count = count
        self._is_below = is_below
        self.text_is_forgotten = False

    def header(self, name: str) -> str | None:
        """Trimmed. Several lines are taken for one: `Policy.check_headers` has refused those that differ."""
        lines = self.headers.get(name)
        return as_text(lines[0].strip(" \t")) if lines else None

    @property
    def max_tokens(self) -> int | None:
        return self.envelope.max_tokens

    @property
    def stream(self) -> bool:
        return self.envelope.stream is True

    @property
    def thinking(self) -> bool:
        thinking = self.envelope.thinking
        return thinking is not None and thinking.type in {"enabled", "adaptive", "between_tools"}

    @property
    def effort(self) -> str | None:
        config = self.envelope.output_config
        return config.effort if config else None

    @property
    def user(self) -> str | None:
        metadata = self.envelope.metadata
        return metadata.user_id.strip(" \t") if metadata and metadata.user_id is not None else None

    @cached_property
    def tools(self) -> tuple[str, ...]:
        """The names and the types of the tools."""
        tools = self.envelope.tools or ()
        return tuple(word for tool in tools for word in (tool.name, tool.type) if word)

    @property
    def has_tools(self) -> bool:
        return bool(self.envelope.tools)

    @property
    def has_url_target(self) -> bool:
        return self.url_target is not None

    @cached_property
    def input_tokens(self) -> int:
        return self.count()

    def fewer_tokens_than(self, limit: int) -> bool:
        """Whether that is sure without counting them."""
        return self._is_below is not None and self._is_below(limit)

    @property
    def counted(self) -> int | None:
        """The input tokens, if some rule asked for them."""
        return self.__dict__.get("input_tokens")

    @cached_property
    def images(self) -> bool:
        return self._contains("image")

    @cached_property
    def documents(self) -> bool:
        return self._contains("document")

    @cached_property
    def system(self) -> str:
        """In ASCII lower case, without the attribution block."""
        system = _decoded(bytes(self.envelope.system))
        if isinstance(system, str):
            return ascii_lower(system)
        blocks = system if isinstance(system, list) else []
        texts = [
            block["text"]
            for block in blocks
            if isinstance(block, dict) and isinstance(block.get("text"), str)
        ]
        if texts and texts[0].startswith(ATTRIBUTION):
            del texts[0]
        return ascii_lower("\n".join(texts))

    def _contains(self, block_type: str) -> bool:
        messages = bytes(self.envelope.messages)
        # JSON may spell any letter as `\u0069`: a sure no takes neither the word nor such a letter.
        if (
            f'"{block_type}"'.encode() not in messages
            and b"\\u006" not in messages
            and b"\\u007" not in messages
        ):
            return False
        return any(block.get("type") == block_type for block in _blocks(_decoded(messages))) or _hides(
            messages, block_type
        )

    def work_out_logged(self) -> None:
        """Whatever a log may tell is worked out now: once the text is forgotten it can't be."""
        _ = self.images, self.documents

    @property
    def can_be_logged(self) -> bool:
        """Whether all that a log may tell is known, or can still be worked out."""
        return not self.text_is_forgotten or {"images", "documents"} <= self.__dict__.keys()

    def forget_text(self) -> None:
        """Lets the body go. What has been worked out of it is kept, and no more can be."""
        self.text_is_forgotten = True
        self.envelope = replace(self.envelope, messages=NULL, system=NULL)
        self.count = lambda: 0
        self._is_below = None

    def with_headers(self, headers: Mapping[str, tuple[str, ...]]) -> "Facts":
        """The same request with other headers. What was worked out of its body is kept."""
        other = copy(self)
        other.headers = headers
        return other


def _hides(text: bytes, block_type: str) -> bool:
    """Whether a reader who takes the first of two equal keys may see a block of this type, where we took the
    last."""
    twice = seen = False

    def note(pairs: list[tuple[str, Any]]) -> None:
        nonlocal twice, seen
        twice |= len({key for key, _ in pairs}) < len(pairs)
        seen |= ("type", block_type) in pairs

    try:
        # Numbers stay text: Python refuses to read very long ones.
        json.loads(text.decode("utf-8", "replace"), object_pairs_hook=note, parse_int=str)
    except RecursionError:
        raise nested_too_deeply() from None
    return twice and seen


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


_TO_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def ascii_lower(text: str) -> str:
    return text.lower() if text.isascii() else text.translate(_TO_LOWER)


def as_text(header: str) -> str:
    """Servers hand over header bytes as Latin-1; rules are written in UTF-8."""
    return header if header.isascii() else header.encode("latin-1", "replace").decode("utf-8", "replace")
