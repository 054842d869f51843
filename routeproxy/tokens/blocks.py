"""What the parts of a request cost, each by itself, so that it can be remembered. In hundredths of tokens."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from routeproxy.tokens.media import PDF_PAGE, UNKNOWN_PIXELS, image_tokens, pdf_tokens, sees_more
from routeproxy.tokens.memory import Remembered, digest, salt
from routeproxy.tokens.parts import UNREADABLE, Content, Request, decode
from routeproxy.tokens.text import measure

PER_TURN = 400
TOOL_PROMPT = 34_600
"""The hidden system prompt that explains tool use; the documentation's number for `tool_choice: auto`."""
TOOL_FIELDS = ("name", "description", "input_schema", "input_examples")
"""What a model sees of a tool."""
HOSTED_TOOLS = {"bash_": 24_500, "text_editor_": 70_000, "computer_": 73_500}
"""Tools whose schema Anthropic adds by itself, as documented."""
OTHER_HOSTED_TOOL = 50_000
DEAREST_HOSTED = max(OTHER_HOSTED_TOOL, *HOSTED_TOOLS.values())

SHORT = 64
"""Bytes. A smaller part is counted as quickly as it is found."""
LONG = 1024
"""Texts of so many characters are remembered beside the block that they stand in: clients move
`cache_control` from block to block."""


class Cost(Struct, frozen=True, gc=False):
    text: int = 0
    """Of text, and of the structure around it."""
    fixed: int = 0
    """Of pictures, pages and hosted tools: it has little to do with their bytes."""
    kind: Literal["thinking", "tool_result", "other"] = "other"
    names: frozenset[int] = frozenset()
    """Digests of tools' names: of those that a block exposes, or of a tool that has to be exposed."""


class Memory:
    """The costs of parts, and of long texts in them. Full, it takes 35 MB."""

    def __init__(self, entries: int = 50_000) -> None:
        self.parts: Remembered[Cost] = Remembered(entries)
        self.texts: Remembered[int] = Remembered(entries)


# An image costs more where a model sees more of it.
BLOCK, SHARP_BLOCK, TOOL, TEXT, NAME = salt(), salt(), salt(), salt(), salt()


class Pricing:
    """The prices of one request's parts. Those that were seen before cost a look."""

    def __init__(self, memory: Memory, model: str | None) -> None:
        self._memory = memory
        self._sharp = sees_more(model)

    def content(self, content: Content) -> list[Cost]:
        match content:
            case None:
                return []
            case str():
                return [Cost(self.text(content, remembered_from=SHORT))]
            case _:
                return self._parts(SHARP_BLOCK if self._sharp else BLOCK, content, self._block)

    def tools(self, tools: list[Raw]) -> list[Cost]:
        return self._parts(TOOL, tools, self._tool)

    def schema(self, request: Request) -> int:
        """That of a structured answer."""
        try:
            match decode(request.output_config), decode(request.output_format):
                case ({"format": {"schema": schema}}, _) | (_, {"schema": schema}):
                    return self.json(schema, remembered_from=SHORT)
        except UNREADABLE:
            pass
        return 0

    def text(self, text: str, *, remembered_from: int = LONG) -> int:
        if len(text) < remembered_from:
            return measure(text)
        key = digest(TEXT, text.encode("utf-8", "surrogatepass"))
        if (known := self._memory.texts.get(key)) is None:
            known = self._memory.texts[key] = measure(text)
        return known

    def json(self, value: Any, *, remembered_from: int = LONG) -> int:
        if value is None:
            return 0
        return self.text(msgspec.json.encode(value).decode(), remembered_from=remembered_from)

    def _parts(self, salt: bytes, parts: list[Raw], price: Callable[[Any], Cost]) -> list[Cost]:
        known = self._memory.parts.get
        return [known(key := digest(salt, part)) or self._priced(key, part, price) for part in parts]

    def _priced(self, key: int, part: Raw, price: Callable[[Any], Cost]) -> Cost:
        try:
            cost = price(decode(part))
        except UNREADABLE:
            return Cost(unknown(len(part)))  # not for good: what is nested too deeply depends on the stack
        if len(part) >= SHORT:
            self._memory.parts[key] = cost
        return cost

    def _block(self, block: Any) -> Cost:
        walk = _Walk(self, self._sharp)
        walk.block(block)
        return walk.cost(_kind(block))

    def _tool(self, tool: Any) -> Cost:
        match tool:
            case {"defer_loading": True, "name": str(name)}:
                names = frozenset((_name(name),))
            case _:
                names = frozenset()
        match tool:
            case {"input_schema": _}:
                seen = {key: tool[key] for key in TOOL_FIELDS if key in tool}
                return Cost(text=self.json(seen), names=names)
            case {"type": str(kind)}:
                prices = (price for prefix, price in HOSTED_TOOLS.items() if kind.startswith(prefix))
                return Cost(fixed=next(prices, OTHER_HOSTED_TOOL), names=names)
            case _:
                return Cost(text=_unknown_value(tool), names=names)


class _Walk:
    """Through one block, and whatever is in it."""

    def __init__(self, pricing: Pricing, sharp: bool) -> None:
        self._pricing = pricing
        self._sharp = sharp
        self._text = 0
        self._fixed = 0
        self._names: set[int] = set()

    def cost(self, kind: Literal["thinking", "tool_result", "other"]) -> Cost:
        return Cost(self._text, self._fixed, kind, frozenset(self._names))

    def block(self, block: Any) -> None:
        text = self._pricing.text
        match block:
            case {"type": "text", "text": str(said)}:
                self._text += text(said)
            case {"type": "image", "source": {"type": "base64", "data": str(data)}}:
                self._fixed += 100 * image_tokens(data, high_resolution=self._sharp)
            case {"type": "image"}:
                self._fixed += 100 * UNKNOWN_PIXELS
            case {"type": "document", "source": dict(source)}:
                self._source(source)
                self._content(block.get("title"))
                self._content(block.get("context"))
            case {"type": "search_result"}:
                self._content(block.get("title"))
                self._content(block.get("source"))
                self._content(block.get("content"))
            case {"type": "thinking", "thinking": str(thought)} if thought:
                self._text += text(thought)
            case {"type": "thinking", "signature": str(sealed)} | {
                "type": "redacted_thinking",
                "data": str(sealed),
            }:
                # Encrypted and in base64: four characters for three bytes, and about four bytes for a token.
                self._text += len(sealed) * 20
            case {"type": "tool_use" | "server_tool_use" | "mcp_tool_use", "name": str(name)}:
                self._text += PER_TURN + text(name) + self._pricing.json(block.get("input"))
            case {"type": "tool_result"}:
                self._text += PER_TURN
                self._content(block.get("content"))
            case {"type": "tool_reference" | "tool_addition"}:
                self._expose(block)
            case _:
                self._text += _unknown_value(block)

    def _content(self, content: Any) -> None:
        match content:
            case str(said):
                self._text += self._pricing.text(said)
            case list(blocks):
                for block in blocks:
                    self.block(block)
            case _:
                self._text += _unknown_value(content)

    def _source(self, source: dict[str, Any]) -> None:
        match source:
            case {"type": "base64", "data": str(data)}:
                self._fixed += 100 * pdf_tokens(data)
            case {"type": "text", "data": str(said)}:
                self._text += self._pricing.text(said)
            case {"type": "content", "content": content}:
                self._content(content)
            case {"type": "url" | "file"}:
                self._fixed += 100 * PDF_PAGE
            case _:
                self._text += _unknown_value(source)

    def _expose(self, block: dict[str, Any]) -> None:
        names = block.get("tool_names")
        for name in [block.get("tool_name"), *(names if isinstance(names, list) else ())]:
            if isinstance(name, str):
                self._names.add(_name(name))
                self._text += self._pricing.text(name)


def unknown(size: int) -> int:
    """What so many bytes cost that nobody knows."""
    return 100 * max(1, -(-size // 3))


def _unknown_value(value: Any) -> int:
    return 0 if value is None else unknown(len(msgspec.json.encode(value)))


def _kind(block: Any) -> Literal["thinking", "tool_result", "other"]:
    match block:
        case {"type": "thinking" | "redacted_thinking"}:
            return "thinking"
        case {"type": "tool_result"}:
            return "tool_result"
    return "other"


def _name(name: str) -> int:
    return digest(NAME, name.encode("utf-8", "surrogatepass"))
