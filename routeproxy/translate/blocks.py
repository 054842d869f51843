"""Content blocks as parts of a chat message; what has no part of its own becomes text and says what it is."""

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator
from html import escape
from typing import Any

import msgspec
from msgspec import Raw

from routeproxy.chat.request import FileData, FilePart, ImagePart, ImageUrl, Part, TextPart
from routeproxy.messages.errors import Incapable, InvalidRequest
from routeproxy.messages.request import (
    Base64Source,
    Block,
    Compaction,
    ContentSource,
    Document,
    Fallback,
    FileSource,
    Image,
    SearchResult,
    Text,
    TextSource,
    ToolReference,
    UrlSource,
)
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.tools import Toolbox

NO_VISION = "[image omitted: model has no vision]"
ATTACHED = {ImagePart: "[image attached below]", FilePart: "[document attached below]"}
SUMMARY = "Summary of the conversation so far:\n\n"


def wrong_tag(block: Block, at: str) -> InvalidRequest:
    tag = block.__struct_config__.tag
    return InvalidRequest(
        f"{at}: Input tag '{tag}' found using 'type' does not match any of the expected tags"
    )


class BlockWriter:
    """Blocks of users and tools into parts. `at` is the block's place in the request, for errors."""

    def __init__(
        self, profile: ModelProfile, toolbox: Toolbox, *, citations_allowed: bool, warn: Callable[[str], None]
    ) -> None:
        self._profile = profile
        self._toolbox = toolbox
        self._citations_allowed = citations_allowed
        self._warn = warn

    def parts(self, block: Block, at: str) -> Iterator[Part]:
        match block:
            case Text(text=text):
                self._check_citations(block, at)
                if text:
                    yield TextPart(text)
            case Image():
                yield self._image(block, at)
            case Document():
                yield from self._document(block, at)
            case SearchResult():
                yield self._search_result(block, at)
            case Compaction(content=content):
                if content:
                    yield TextPart(SUMMARY + content)
            case Fallback():
                pass
            case _:
                raise wrong_tag(block, at)

    def result_parts(self, content: str | Iterable[Block] | None, at: str) -> list[Part]:
        """What a tool answered."""
        if isinstance(content, str):
            return [TextPart(content)] if content else []
        found: list[Part] = []
        for position, block in enumerate(content or ()):
            if isinstance(block, ToolReference):
                self._toolbox.expose(block.tool_name)
                found.append(TextPart(f"Tool {block.tool_name} is now available."))
            else:
                found.extend(self.parts(block, f"{at}.content.{position}"))
        return found

    def _check_citations(self, block: Text, at: str) -> None:
        if block.citations and not self._citations_allowed:
            raise InvalidRequest(f"{at}.citations: Extra inputs are not permitted")

    def _image(self, block: Image, at: str) -> Part:
        if not self._profile.vision:
            if self._profile.without_vision == "refuse":
                raise Incapable("capability_rejected: image_block")
            self._warn("images were replaced by a placeholder: the model has no vision")
            return TextPart(NO_VISION)
        match block.source:
            case Base64Source(media_type=media_type, data=data):
                return ImagePart(ImageUrl(f"data:{media_type};base64,{data}"))
            case UrlSource(url=url):
                return ImagePart(ImageUrl(url))
            case FileSource():
                raise _no_files(at)

    def _document(self, block: Document, at: str) -> Iterator[Part]:
        if block.citations is not None and block.citations.enabled:
            self._warn("citations are not produced by this model")
        match block.source:
            case Base64Source(media_type=media_type, data=data) if not media_type.startswith("text/"):
                if not self._profile.files:
                    raise Incapable("capability_rejected: document_block")
                if block.context:
                    yield TextPart(_document_text(block, ""))
                name = block.title or "document"
                if media_type == "application/pdf" and not name.lower().endswith(".pdf"):
                    name += ".pdf"  # OpenAI goes by the name's ending
                yield FilePart(FileData(name, f"data:{media_type};base64,{data}"))
            case Base64Source(data=data):
                yield TextPart(_document_text(block, _decoded(data, at)))
            case TextSource(data=data):
                yield TextPart(_document_text(block, data))
            case ContentSource(content=str(text)):
                yield TextPart(_document_text(block, text))
            case ContentSource(content=tuple(content)):
                inner = [
                    part
                    for position, one in enumerate(content)
                    for part in self.parts(one, f"{at}.source.content.{position}")
                ]
                yield TextPart(
                    _document_text(
                        block, "\n".join(part.text for part in inner if isinstance(part, TextPart))
                    )
                )
                yield from (part for part in inner if not isinstance(part, TextPart))
            case UrlSource(url=url):
                self._warn("a document given by its URL was passed on as a link")
                yield TextPart(_document_text(block, f"[document at {url}]"))
            case FileSource():
                raise _no_files(at)

    def _search_result(self, block: SearchResult, at: str) -> Part:
        for position, text in enumerate(block.content):
            self._check_citations(text, f"{at}.content.{position}")
        texts = "\n".join(one.text for one in block.content if one.text)
        head = f'<search_result source="{escape(block.source)}" title="{escape(block.title)}">'
        return TextPart(f"{head}\n{texts}\n</search_result>")


def _no_files(at: str) -> InvalidRequest:
    return Incapable(f"{at}.source: files of the Files API are not supported by this model")


def _decoded(data: str, at: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{at}.source.data: Input should be valid base64") from None


def _document_text(block: Document, text: str) -> str:
    head = f'<document title="{escape(block.title)}">' if block.title else "<document>"
    return "\n".join(line for line in (head, block.context, text, "</document>") if line)


def assistant_document(block: Document) -> str:
    """A document that stands in an assistant turn, where chat takes text only."""
    match block.source:
        case TextSource(data=text) | ContentSource(content=str(text)):
            return _document_text(block, text)
        case ContentSource(content=content):
            return _document_text(block, "\n".join(one.text for one in content if isinstance(one, Text)))
        case UrlSource(url=url):
            return _document_text(block, f"[document at {url}]")
    return _document_text(block, "[document omitted]")


# --- tools that ran on Anthropic's side

_READABLE = ("title", "url", "text", "stdout", "stderr", "return_code", "error_code", "tool_name", "data")
_BASE64 = "base64"


def server_call_text(name: str, input: Raw) -> str:
    return f"[{name} {bytes(input).decode()}]\n"


def server_result_text(kind: str, content: Raw) -> str:
    """The readable part of a result: titles, addresses, texts, outputs and errors, one a line."""
    lines = list(_readable(msgspec.json.decode(content)))
    return f"[{kind}]\n" + "".join(f"{line}\n" for line in lines or ("(no results)",))


def referenced_tools(content: Raw) -> list[str]:
    """The tools that a `tool_search_tool_result` found."""
    value = msgspec.json.decode(content)
    found = value.get("tool_references") if isinstance(value, dict) else None
    return [
        one["tool_name"]
        for one in found or ()
        if isinstance(one, dict) and isinstance(one.get("tool_name"), str)
    ]


def _readable(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _readable(one)
    elif isinstance(value, dict):
        if value.get("type") == _BASE64:
            return
        own = [
            str(value[key]) for key in _READABLE if isinstance(value.get(key), str | int) and value[key] != ""
        ]
        if own:
            yield " ".join(own)
        for child in value.values():
            if isinstance(child, dict | list):
                yield from _readable(child)
