"""How many input tokens a Messages request has: a local estimate that never raises and errs on the high side.

It is made for Claude's own numbers, because those are what clients plan with (Claude Code compacts by
them). Claude's tokenizer is not public, so text is measured with `cl100k_base`, which LiteLLM ships, and
corrected by what the last published Claude tokenizer makes of prose, code, JSON and other scripts.
Structure costs what Anthropic's documentation says.

Everything is total: what nobody knows yet counts as a third of its bytes.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from binascii import a2b_base64
from functools import cache
from hashlib import blake2b
from importlib.util import find_spec
from io import BytesIO
from itertools import islice
from math import ceil, sqrt
from pathlib import Path
from typing import Any
from zlib import decompressobj
from zlib import error as ZlibError

import imagesize  # type: ignore[import-untyped]
import msgspec
import tiktoken

from routeproxy.messages.request import without_lone_surrogates

PER_REQUEST = 3
PER_TURN = 4
"""With these a bare "Hello" is 8 tokens, as the API says."""
TOOL_PROMPT = 346
"""The hidden system prompt that explains tool use; the documentation's number for `tool_choice: auto`."""
TOOL_FIELDS = ("name", "description", "input_schema", "input_examples")
"""What a model sees of a tool."""
HOSTED_TOOLS = {"bash_": 245, "text_editor_": 700, "computer_": 735}
"""Tools whose schema Anthropic adds by itself, as documented."""
OTHER_HOSTED_TOOL = 500

UNKNOWN_PIXELS = 1568
"""An image behind a URL or a file id: as much as a large one."""
PDF_PAGE = 3000
"""Half for a page's text (1500 to 3000 by the documentation), half for its picture."""

HIGH_RESOLUTION = re.compile(r"claude-(opus-4-([7-9]|[1-9]\d)\b|[a-z]+-([5-9]|[1-9]\d)\b)", re.ASCII)
"""Models that see 2576 pixels and 4784 tokens of an image, where others see 1568 of both."""


def count(body: bytes) -> int:
    """The input tokens of a `/v1/messages` or `count_tokens` body, at least 1."""
    try:
        request = _decode(body)
        return max(1, ceil(_Tally(request).tokens))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _opaque(len(body))


def count_text(text: str) -> int:
    """The tokens of a text by itself."""
    return ceil(_text(text))


def warm() -> None:
    """Loads the vocabulary, which takes 0.1 s: call it off the event loop before the first request."""
    _encoding()


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return msgspec.json.decode(without_lone_surrogates(body))


class _Tally:
    """One walk over a decoded request."""

    def __init__(self, request: Any) -> None:
        self.tokens: float = PER_REQUEST
        self._exposed: set[str] = set()
        self._high_resolution = False
        match request:
            case dict():
                self._request(request)
            case _:
                self._unknown(request)

    def _request(self, request: dict[str, Any]) -> None:
        model = request.get("model")
        self._high_resolution = isinstance(model, str) and HIGH_RESOLUTION.search(model) is not None
        self._content(request.get("system"))
        match request.get("messages"):
            case list(turns):
                current = _start_of_current_turn(turns)
                for index, turn in enumerate(turns):
                    self._turn(turn, current=index > current)
            case other:
                self._unknown(other)
        match request.get("tools"):
            case [_, *_] as tools:
                self.tokens += TOOL_PROMPT
                for tool in tools:
                    self._tool(tool)
        match request:
            case {"output_config": {"format": {"schema": schema}}} | {"output_format": {"schema": schema}}:
                self.tokens += _json(schema)

    def _turn(self, turn: Any, *, current: bool) -> None:
        self.tokens += PER_TURN
        match turn:
            case {"content": list(blocks)}:
                for block in blocks:
                    # The API itself drops the thinking of turns that are over.
                    if current or not _is_thinking(block):
                        self._block(block)
            case {"content": content}:
                self._content(content)
            case _:
                self._unknown(turn)

    def _content(self, content: Any) -> None:
        """What `system`, a turn and a tool result have: nothing, a string, or blocks."""
        match content:
            case str(text):
                self.tokens += _text(text)
            case list(blocks):
                for block in blocks:
                    self._block(block)
            case _:
                self._unknown(content)

    def _block(self, block: Any) -> None:
        match block:
            case {"type": "text", "text": str(text)}:
                self.tokens += _text(text)
            case {"type": "image", "source": {"type": "base64", "data": str(data)}}:
                self.tokens += _image(data, self._high_resolution)
            case {"type": "image"}:
                self.tokens += UNKNOWN_PIXELS
            case {"type": "document", "source": dict(source)}:
                self._source(source)
                self._known(block, "title", "context")
            case {"type": "search_result"}:
                self._known(block, "title", "source")
                self._content(block.get("content"))
            case {"type": "thinking", "thinking": str(text)} if text:
                self.tokens += _text(text)
            case {"type": "thinking", "signature": str(sealed)} | {
                "type": "redacted_thinking",
                "data": str(sealed),
            }:
                # Encrypted and in base64: four characters for three bytes, and about four bytes for a token.
                self.tokens += len(sealed) / 5
            case {"type": "tool_use" | "server_tool_use" | "mcp_tool_use", "name": str(name)}:
                self.tokens += PER_TURN + _text(name) + _json(block.get("input"))
            case {"type": "tool_result"}:
                self.tokens += PER_TURN
                self._content(block.get("content"))
            case {"type": "tool_reference" | "tool_addition"}:
                self._expose(block)
            case _:
                self._unknown(block)

    def _source(self, source: dict[str, Any]) -> None:
        match source:
            case {"type": "base64", "data": str(data)}:
                self.tokens += _pdf_pages(data) * PDF_PAGE
            case {"type": "text", "data": str(text)}:
                self.tokens += _text(text)
            case {"type": "content", "content": content}:
                self._content(content)
            case {"type": "url" | "file"}:
                self.tokens += PDF_PAGE
            case _:
                self._unknown(source)

    def _tool(self, tool: Any) -> None:
        match tool:
            case {"defer_loading": True, "name": str(name)} if name not in self._exposed:
                pass  # not in the prompt until a search finds it
            case {"input_schema": _}:
                self.tokens += _json({key: tool[key] for key in TOOL_FIELDS if key in tool})
            case {"type": str(kind)}:
                prices = (price for prefix, price in HOSTED_TOOLS.items() if kind.startswith(prefix))
                self.tokens += next(prices, OTHER_HOSTED_TOOL)
            case _:
                self._unknown(tool)

    def _known(self, block: dict[str, Any], *keys: str) -> None:
        for key in keys:
            self._content(block.get(key))

    def _expose(self, block: dict[str, Any]) -> None:
        names = block.get("tool_names")
        for name in [block.get("tool_name"), *(names if isinstance(names, list) else ())]:
            if isinstance(name, str):
                self._exposed.add(name)
                self.tokens += _text(name)

    def _unknown(self, value: Any) -> None:
        if value is not None:
            self.tokens += _opaque(len(msgspec.json.encode(value)))


def _opaque(size: int) -> int:
    return max(1, ceil(size / 3))


def _start_of_current_turn(turns: list[Any]) -> int:
    """The index of the last thing that a person said. Tool results, and text beside them, continue a turn."""
    for index in range(len(turns) - 1, -1, -1):
        match turns[index]:
            case {"role": "user", "content": list(blocks)}:
                if not any(
                    isinstance(block, dict) and block.get("type") == "tool_result" for block in blocks
                ):
                    return index
            case {"role": "user"}:
                return index
    return -1


def _is_thinking(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") in ("thinking", "redacted_thinking")


# --- text

# The name is the SHA-1 of the address that the file was published at: tiktoken's convention, LiteLLM keeps
# it.
CL100K_BASE = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)

# Claude's tokens for one of cl100k's, measured with the last published Claude tokenizer: 1.01 in prose, 1.07
# in Markdown, 1.09 to 1.13 in code, 0.98 in JSON (0.94 if it is mostly long numbers). This factor keeps all
# but the last within ten percent. Scripts that differ are corrected by the character: Chinese and Japanese
# take fewer (0.93 to 1.01), Cyrillic and Korean more (1.12 to 1.20).
CLAUDE = 1.07
CHINESE_JAPANESE = (re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]+"), -0.07)
OTHER_SCRIPTS = (re.compile(r"[\u0370-\u1fff\uac00-\ud7a3]+"), 0.06)

# tiktoken's regex overflows its stack on a million spaces, and a long word costs it more than linear time: it
# is given slices. A cut costs at most two tokens. Beyond `SLICES` of them a text is measured by a sample;
# hardly any model takes two million characters anyway.
SLICE = 8192
SLICES = 256

# A conversation comes back with every turn, so most of a request was counted before. The keys are digests: no
# prompt is kept.
REMEMBERED_FROM = 256
REMEMBERED = 50_000
_remembered: dict[bytes, float] = {}


def _text(text: str) -> float:
    if len(text) < REMEMBERED_FROM:
        return _measure(text)
    key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    if (known := _remembered.get(key)) is None:
        if len(_remembered) >= REMEMBERED:
            _remembered.clear()
        known = _remembered[key] = _measure(text)
    return known


def _json(value: Any) -> float:
    return 0.0 if value is None else _text(msgspec.json.encode(value).decode())


def _measure(text: str) -> float:
    encode = _encoding().encode_ordinary
    every = 1 + len(text) // (SLICE * SLICES)
    tokens = (
        CLAUDE * every * sum(len(encode(text[i : i + SLICE])) for i in range(0, len(text), SLICE * every))
    )
    if not text.isascii():
        for script, correction in (CHINESE_JAPANESE, OTHER_SCRIPTS):
            tokens += correction * sum(map(len, script.findall(text)))
    return tokens


@cache
def _encoding() -> tiktoken.Encoding:
    spec = find_spec("litellm")  # finds it without running it: the import takes seconds
    if spec is None or spec.origin is None:
        raise RuntimeError("litellm, whose vocabulary file counts tokens, is not installed")
    file = Path(spec.origin).parent / "litellm_core_utils" / "tokenizers" / CL100K_BASE
    ranks = {b64decode(token): int(rank) for token, rank in map(bytes.split, file.read_bytes().splitlines())}
    return tiktoken.Encoding("cl100k_base", pat_str=CL100K_PATTERN, mergeable_ranks=ranks, special_tokens={})


# --- images and documents

IMAGE_HEADS = (b"\x89PNG", b"\xff\xd8", b"GIF8", b"RIFF")
"""The four formats that the API takes. Others never reach the parser: the bytes are a stranger's."""
HEAD = 64 * 1024
"""Base64 characters that hold the size of any image but a JPEG with a large preview in front."""


def _image(data: str, high_resolution: bool) -> int:
    limit_px, limit_tokens = (2576, 4784) if high_resolution else (1568, 1568)
    width, height = _pixels(data)
    if width <= 0 or height <= 0:
        return UNKNOWN_PIXELS
    shrink = min(1, limit_px / max(width, height), sqrt(limit_tokens * 28 * 28 / (width * height)))
    return min(limit_tokens, ceil(width * shrink / 28) * ceil(height * shrink / 28))


def _pixels(data: str) -> tuple[int, int]:
    """Width and height from the image's header, without decoding the rest; not positive if there is none."""
    for part in (data[:HEAD], data) if len(data) > HEAD else (data,):
        image = _unbase64(part)
        if not image.startswith(IMAGE_HEADS):
            break
        width, height = imagesize.get(BytesIO(image))
        if width > 0 and height > 0:
            return int(width), int(height)
    return -1, -1


PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
OBJECT_STREAM = re.compile(rb"/Type\s*/ObjStm\b.{0,300}?stream\r?\n", re.DOTALL)
"""Where PDF 1.5 and later may keep their page objects, compressed."""
OBJECT_STREAMS = 256
INFLATED = 256 * 1024
"""So much of so many streams is looked at: a PDF can be a bomb."""
BYTES_A_PAGE = 50_000


def _pdf_pages(data: str) -> int:
    pdf = _unbase64(data)
    if pages := len(PAGE.findall(pdf)):
        return pages
    streams = islice(OBJECT_STREAM.finditer(pdf), OBJECT_STREAMS)
    if pages := sum(len(PAGE.findall(_inflate(pdf[s.end() : s.end() + INFLATED]))) for s in streams):
        return pages
    return max(1, len(pdf) // BYTES_A_PAGE)


def _inflate(compressed: bytes) -> bytes:
    try:
        return decompressobj().decompress(compressed, INFLATED)
    except ZlibError:
        return b""


def _unbase64(data: str) -> bytes:
    raw = data.encode("ascii", "ignore").translate(None, b"\r\n ")
    try:
        return a2b_base64(raw[: len(raw) // 4 * 4])
    except Base64Error:
        return b""
