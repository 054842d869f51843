"""Content blocks as parts of a chat message. A block that has no such part becomes text that says what it is.

`path` is a block's place in the request, for errors: `messages.0.content.2`.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Mapping
from html import escape

from routeproxy.chat.request import FileData, FilePart, ImagePart, ImageUrl, Part, TextPart
from routeproxy.messages.errors import Incapable, InvalidRequest
from routeproxy.messages.request import (
    Base64Source,
    Block,
    BrowserState,
    Compaction,
    ContainerUpload,
    ContentSource,
    Document,
    Fallback,
    FileSource,
    Image,
    SearchResult,
    Text,
    TextSource,
    ToolAddition,
    ToolReference,
    ToolRemoval,
    ToolResult,
    UrlSource,
)
from routeproxy.translate.cache_marks import mark_of, marked
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.tools import Toolbox

NO_VISION = "[image omitted: model has no vision]"
NO_FILES = "[document omitted: model takes no files]"
SUMMARY = "Summary of the conversation so far:\n\n"
_MARKABLE = (Text, Image, Document, SearchResult)
BETWEEN_TEXTS = "\n\n"
"""What separates texts that chat takes as one."""


_PLACES: Mapping[type[Block], str] = {
    BrowserState: "`tool_result` blocks",
    ContainerUpload: "`user` messages",
    Document: "`user` messages",
    Image: "`user` messages",
    SearchResult: "`user` messages",
    ToolAddition: "`system` messages",
    ToolReference: "`tool_result` blocks",
    ToolRemoval: "`system` messages",
    ToolResult: "`user` messages",
}
"""Where blocks belong that do not belong in assistant turns."""


def misplaced_block(block: Block, path: str) -> InvalidRequest:
    place = _PLACES.get(type(block), "`assistant` messages")
    return InvalidRequest(f"{path}: `{block.__struct_config__.tag}` blocks can only be in {place}")


class BlockWriter:
    """Turns the blocks of users and tools into parts."""

    def __init__(
        self, profile: ModelProfile, toolbox: Toolbox, *, citations_allowed: bool, warn: Callable[[str], None]
    ) -> None:
        self._profile = profile
        self._toolbox = toolbox
        self._citations_allowed = citations_allowed
        self._warn = warn

    def parts(self, block: Block, path: str) -> Iterable[Part]:
        parts = self._parts(block, path)
        if self._profile.cache_marks and isinstance(block, _MARKABLE):
            return marked(list(parts), mark_of(block.cache_control, self._profile))
        return parts

    def _parts(self, block: Block, path: str) -> Iterator[Part]:
        match block:
            case Text(text=text):
                self._check_citations(block, path)
                if text:
                    yield TextPart(text)
            case Image():
                yield self._image(block, path)
            case Document():
                yield from self._document(block, path)
            case SearchResult():
                yield self._search_result(block, path)
            case Compaction(content=content, tool_changes=changes):
                self._toolbox.change_all(changes or (), path)
                if content:
                    yield TextPart(SUMMARY + content)
            case Fallback():
                pass
            case ContainerUpload():
                raise Incapable(f"{path}: container_upload blocks are not supported by this model")
            case _:
                raise misplaced_block(block, path)

    def result_parts(self, content: str | Iterable[Block] | None, path: str) -> list[Part]:
        """The parts of a tool's result. The tools that it refers to are exposed."""
        if isinstance(content, str):
            return [TextPart(content)] if content else []
        parts: list[Part] = []
        for index, block in enumerate(content or ()):
            if isinstance(block, ToolReference):
                self._toolbox.expose(block.tool_name)
                parts.append(TextPart(f"Tool {block.tool_name} is now available."))
            elif isinstance(block, BrowserState):
                parts.append(TextPart(browser_state_text(block)))
            else:
                parts.extend(self.parts(block, f"{path}.content.{index}"))
        return parts

    def _check_citations(self, block: Text, path: str) -> None:
        if block.citations and not self._citations_allowed:
            raise InvalidRequest(f"{path}.citations: Extra inputs are not permitted")

    def _image(self, block: Image, path: str) -> Part:
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
                raise _files_not_supported(path)

    def _document(self, block: Document, path: str) -> Iterator[Part]:
        if block.citations is not None and block.citations.enabled:
            self._warn("citations are not produced by this model")
        match block.source:
            case Base64Source(media_type=media_type, data=data) if not media_type.startswith("text/"):
                if not self._profile.files:
                    yield self._omitted_file(block)
                    return
                if block.context:
                    yield TextPart(_document_text(block, ""))
                name = block.title or "document"
                if media_type == "application/pdf" and not name.lower().endswith(".pdf"):
                    name += ".pdf"  # OpenAI goes by the name's ending
                yield FilePart(FileData(name, f"data:{media_type};base64,{data}"))
            case Base64Source(data=data):
                yield TextPart(_document_text(block, _decode_text(data, path)))
            case TextSource(data=data):
                yield TextPart(_document_text(block, data))
            case ContentSource(content=str(text)):
                yield TextPart(_document_text(block, text))
            case ContentSource(content=tuple(content)):
                parts = [
                    part
                    for index, inner in enumerate(content)
                    for part in self.parts(inner, f"{path}.source.content.{index}")
                ]
                text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
                yield TextPart(_document_text(block, text))
                yield from (part for part in parts if not isinstance(part, TextPart))
            case UrlSource(url=url) if self._profile.files and self._profile.file_urls == "fetched":
                if block.context:
                    yield TextPart(_document_text(block, ""))
                yield FilePart(FileData(file_url=url))
            case UrlSource(url=url):
                self._warn("a document given by its URL was passed on as a link")
                yield TextPart(_document_text(block, f"[document at {url}]"))
            case FileSource():
                raise _files_not_supported(path)

    def _omitted_file(self, block: Document) -> Part:
        if self._profile.without_vision == "refuse":
            raise Incapable("capability_rejected: document_block")
        self._warn("documents were replaced by a placeholder: the model takes no files")
        return TextPart(_document_text(block, NO_FILES))

    def _search_result(self, block: SearchResult, path: str) -> Part:
        for index, inner in enumerate(block.content):
            self._check_citations(inner, f"{path}.content.{index}")
        text = "\n".join(inner.text for inner in block.content if inner.text)
        tag = f'<search_result source="{escape(block.source)}" title="{escape(block.title)}">'
        return TextPart(f"{tag}\n{text}\n</search_result>")


def _files_not_supported(path: str) -> Incapable:
    return Incapable(f"{path}.source: files of the Files API are not supported by this model")


def _decode_text(data: str, path: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{path}.source.data: Input should be valid base64") from None


def _document_text(block: Document, text: str) -> str:
    tag = f'<document title="{escape(block.title)}">' if block.title else "<document>"
    return "\n".join(line for line in (tag, block.context, text, "</document>") if line)


def assistant_document_text(block: Document) -> str:
    """A document of an assistant turn, where chat takes text only."""
    match block.source:
        case TextSource(data=text) | ContentSource(content=str(text)):
            return _document_text(block, text)
        case ContentSource(content=content):
            return _document_text(
                block, "\n".join(inner.text for inner in content if isinstance(inner, Text))
            )
        case UrlSource(url=url):
            return _document_text(block, f"[document at {url}]")
    return _document_text(block, "[document omitted]")


def browser_state_text(block: BrowserState) -> str:
    """The open tabs and what happened to them, one a line, as a caller's JSON has them: the API, too, tells
    its models of them in a text."""
    lines = [f"Open tabs: {len(block.tabs)}", *(bytes(tab).decode() for tab in block.tabs)]
    if block.state_changes:
        lines += ["Since the last call:", *(bytes(change).decode() for change in block.state_changes)]
    return "\n".join(lines)
