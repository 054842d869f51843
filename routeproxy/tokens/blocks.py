"""What the blocks and tools of a request cost, each by itself, so that its cost can be remembered. In
hundredths of tokens."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from routeproxy.tokens.media import PDF_PAGE, UNKNOWN_PIXELS, has_high_resolution, image_tokens, pdf_tokens
from routeproxy.tokens.memory import GenerationalCache, digest, new_salt
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
COSTLIEST_HOSTED_TOOL = max(OTHER_HOSTED_TOOL, *HOSTED_TOOLS.values())

SHORT = 64
"""Bytes. To count a smaller part takes no longer than to look it up."""
LONG = 1024
"""Characters. Texts from this length on are remembered besides the block that they stand in: clients move
`cache_control` from block to block."""


Kind = Literal["thinking", "tool_result", "tools", "other"]
"""What is special about a block: `tools` is for those that change the tools."""


class Cost(Struct, frozen=True, gc=False):
    """The cost of one block or tool, in hundredths of tokens."""

    text: int = 0
    """For text, and for the structure around it."""
    fixed: int = 0
    """For pictures, pages and hosted tools: it has little to do with their bytes."""
    kind: Kind = "other"
    names: frozenset[int] = frozenset()
    """Digests of tools' names: of the tools that a block exposes, or of this tool if it has to be exposed."""


class Memory:
    """The costs of blocks and tools, and of long texts in them. Full, it takes 35 MB."""

    def __init__(self, entries: int = 50_000) -> None:
        self.parts: GenerationalCache[Cost] = GenerationalCache(entries)
        self.texts: GenerationalCache[int] = GenerationalCache(entries)


# One salt for each kind of part. An image costs more where a model sees more of it.
BLOCK, SHARP_BLOCK, TOOL, TEXT, NAME = (new_salt() for _ in range(5))


class Pricing:
    """Prices the parts of one request. A part that was seen before takes one look-up."""

    def __init__(self, memory: Memory, model: str | None) -> None:
        self._memory = memory
        self._sharp = has_high_resolution(model)

    def price_content(self, content: Content) -> list[Cost]:
        match content:
            case None:
                return []
            case str():
                return [Cost(self.price_text(content, remembered_from=SHORT))]
            case _:
                return self._price_parts(SHARP_BLOCK if self._sharp else BLOCK, content, self._price_block)

    def price_tools(self, tools: list[Raw]) -> list[Cost]:
        return self._price_parts(TOOL, tools, self.price_tool)

    def price_schema(self, request: Request) -> int:
        """The cost of the schema of a structured answer."""
        try:
            match decode(request.output_config), decode(request.output_format):
                case ({"format": {"schema": schema}}, _) | (_, {"schema": schema}):
                    return self.price_json(schema, remembered_from=SHORT)
        except UNREADABLE:
            pass
        return 0

    def price_text(self, text: str, *, remembered_from: int = LONG) -> int:
        if len(text) < remembered_from:
            return measure(text)
        key = digest(TEXT, text.encode("utf-8", "surrogatepass"))
        if (cost := self._memory.texts.get(key)) is None:
            cost = self._memory.texts[key] = measure(text)
        return cost

    def price_json(self, value: Any, *, remembered_from: int = LONG) -> int:
        if value is None:
            return 0
        return self.price_text(msgspec.json.encode(value).decode(), remembered_from=remembered_from)

    def _price_parts(self, salt: bytes, parts: list[Raw], price: Callable[[Any], Cost]) -> list[Cost]:
        remembered = self._memory.parts.get
        return [remembered(key := digest(salt, part)) or self._price_part(key, part, price) for part in parts]

    def _price_part(self, key: int, part: Raw, price: Callable[[Any], Cost]) -> Cost:
        try:
            cost = price(decode(part))
        except UNREADABLE:
            return Cost(
                unknown_cost(len(part))
            )  # not remembered: what is nested too deeply depends on the stack
        if len(part) >= SHORT:
            self._memory.parts[key] = cost
        return cost

    def _price_block(self, block: Any) -> Cost:
        walker = _BlockWalker(self, self._sharp)
        walker.add_block(block)
        return walker.cost(_kind(block))

    def price_tool(self, tool: Any) -> Cost:
        match tool:
            case {"defer_loading": True, "name": str(name)}:
                names = frozenset((_name_digest(name),))
            case _:
                names = frozenset()
        match tool:
            case {"input_schema": _}:
                visible = {key: tool[key] for key in TOOL_FIELDS if key in tool}
                return Cost(text=self.price_json(visible), names=names)
            case {"type": str(kind)}:
                prices = (price for prefix, price in HOSTED_TOOLS.items() if kind.startswith(prefix))
                return Cost(fixed=next(prices, OTHER_HOSTED_TOOL), names=names)
            case _:
                return Cost(text=_unknown_value_cost(tool), names=names)


class _BlockWalker:
    """Adds up the cost of one block and of the blocks in it."""

    def __init__(self, pricing: Pricing, sharp: bool) -> None:
        self._pricing = pricing
        self._sharp = sharp
        self._text = 0
        self._fixed = 0
        self._names: set[int] = set()

    def cost(self, kind: Kind) -> Cost:
        return Cost(self._text, self._fixed, kind, frozenset(self._names))

    def add_block(self, block: Any) -> None:
        price_text = self._pricing.price_text
        match block:
            case {"type": "text", "text": str(text)}:
                self._text += price_text(text)
            case {"type": "image", "source": {"type": "base64", "data": str(data)}}:
                self._fixed += 100 * image_tokens(data, high_resolution=self._sharp)
            case {"type": "image"}:
                self._fixed += 100 * UNKNOWN_PIXELS
            case {"type": "document", "source": dict(source)}:
                self._add_source(source)
                self._add_content(block.get("title"))
                self._add_content(block.get("context"))
            case {"type": "search_result"}:
                self._add_content(block.get("title"))
                self._add_content(block.get("source"))
                self._add_content(block.get("content"))
            case {"type": "thinking", "thinking": str(thinking)} if thinking:
                self._text += price_text(thinking)
            case {"type": "thinking", "signature": str(sealed)} | {
                "type": "redacted_thinking",
                "data": str(sealed),
            }:
                # Encrypted and in base64: four characters for three bytes, and about four bytes for a token.
                self._text += len(sealed) * 20
            case {"type": "tool_use" | "server_tool_use" | "mcp_tool_use", "name": str(name)}:
                self._text += PER_TURN + price_text(name) + self._pricing.price_json(block.get("input"))
            case {"type": "tool_result"}:
                self._text += PER_TURN
                self._add_content(block.get("content"))
            case {"type": "tool_reference", "tool_name": str(name)}:
                self._expose_tool(name)
            case {"type": "tool_addition", "tool": {"type": "tool_reference", "name": str(name)}}:
                self._expose_tool(name)
            case {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": definition}}:
                self._add_tool(definition)
            case {"type": "compaction"}:
                # Its signature and what is encrypted in it are not shown to a model.
                self._add_content(block.get("content"))
                self._add_content(block.get("tool_changes"))
            case {"type": "mcp_tool_listing"}:
                self._text += self._pricing.price_json(block.get("tools"))
            case {"type": "fallback"}:
                pass
            case _:
                self._text += _unknown_value_cost(block)

    def _add_content(self, content: Any) -> None:
        match content:
            case str(text):
                self._text += self._pricing.price_text(text)
            case list(blocks):
                for block in blocks:
                    self.add_block(block)
            case _:
                self._text += _unknown_value_cost(content)

    def _add_source(self, source: dict[str, Any]) -> None:
        match source:
            case {"type": "base64", "data": str(data)}:
                self._fixed += 100 * pdf_tokens(data)
            case {"type": "text", "data": str(text)}:
                self._text += self._pricing.price_text(text)
            case {"type": "content", "content": content}:
                self._add_content(content)
            case {"type": "url" | "file"}:
                self._fixed += 100 * PDF_PAGE
            case _:
                self._text += _unknown_value_cost(source)

    def _expose_tool(self, name: str) -> None:
        self._names.add(_name_digest(name))
        self._text += self._pricing.price_text(name)

    def _add_tool(self, definition: Any) -> None:
        cost = self._pricing.price_tool(definition)
        self._text += cost.text
        self._fixed += cost.fixed


def unknown_cost(size: int) -> int:
    """What `size` bytes cost whose meaning is not known here."""
    return 100 * max(1, -(-size // 3))


def _unknown_value_cost(value: Any) -> int:
    return 0 if value is None else unknown_cost(len(msgspec.json.encode(value)))


def _kind(block: Any) -> Kind:
    match block:
        case {"type": "tool_addition" | "tool_removal"}:
            return "tools"
        case {"type": "thinking" | "redacted_thinking"}:
            return "thinking"
        case {"type": "tool_result"}:
            return "tool_result"
    return "other"


def _name_digest(name: str) -> int:
    return digest(NAME, name.encode("utf-8", "surrogatepass"))
