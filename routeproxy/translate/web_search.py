"""Web searches that a back end makes itself: what it is asked to do, and its searches as blocks of an answer.

To a client they look like Anthropic's own: a `server_tool_use` with the query, a `web_search_tool_result`
with the pages, and citations on the text. Every URL is one that the back end gave, and a search that it did
not make is not shown.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Raw, UnsetType

from routeproxy.chat.completion import Page, PageCitation, WebSearchCall
from routeproxy.chat.request import WebSearch
from routeproxy.messages.errors import Incapable, InvalidRequest
from routeproxy.messages.reply import (
    EMPTY_OBJECT,
    OUR_SEARCH,
    ServerToolUsage,
    ServerToolUseBlock,
    WebSearchCitation,
    WebSearchError,
    WebSearchResult,
    WebSearchResultBlock,
)
from routeproxy.messages.request import Tool
from routeproxy.translate.profile import SearchSupport

Search = Literal["none", "offered", "forced"]
"""Whether the back end may search the web, or has to."""

WEB_SEARCH = "web_search"


def refusal_of_server_tool(kind: str) -> str:
    """Why a tool that others run is not run by this target, and which rule would help."""
    refused = f"{kind} is not supported by this model"
    if kind == WEB_SEARCH:
        return (
            f"{refused}: its back end has no search of its own. A rule with "
            '`match.tools = ["web_search_*"]` can send such requests to one that has: Gemini, OpenAI or '
            "Azure over Responses, or a provider that speaks Messages, such as anthropic"
        )
    return (
        f'{refused}. A rule with `match.tools = ["{kind}*"]` can send such requests to a provider that '
        "speaks Messages, such as anthropic"
    )


def requested_search(
    tool: Tool, support: SearchSupport, *, forced: bool, warn: Callable[[str], None]
) -> WebSearch:
    """What the back end is asked for. Raises `Incapable` where it cannot keep to the domains that the client
    allows: what it read elsewhere would be in its answer, even if no result showed it."""
    if tool.allowed_domains and tool.blocked_domains:
        raise InvalidRequest(
            f"tools: {tool.name}: only one of `allowed_domains` and `blocked_domains` may be given"
        )
    allowed, blocked = tool.allowed_domains or (), tool.blocked_domains or ()
    if blocked and not support.blocked_domains:
        raise _incapable("leaves out no domains: `blocked_domains` is not supported")
    if allowed and not support.allowed_domains:
        raise _incapable("cannot keep to domains: `allowed_domains` is not supported")
    if any("/" in domain for domain in (*allowed, *blocked)):
        raise _incapable("knows whole domains only: no paths in `allowed_domains` and `blocked_domains`")
    if forced and not support.forced:
        warn("a web search cannot be forced on this model: it decides itself")
    if tool.max_uses is not None and not support.max_uses:
        warn("max_uses of web_search is not enforced by this model")
    location = tool.user_location
    if location is not None and not support.user_location:
        warn("user_location of web_search is not supported by this model")
    return WebSearch(
        forced=forced,
        allowed_domains=allowed,
        blocked_domains=blocked,
        user_location=location if location is not None and support.user_location else UNSET,
        max_uses=tool.max_uses if tool.max_uses is not None and support.max_uses else UNSET,
    )


def _incapable(what: str) -> Incapable:
    return Incapable(f"web_search of this model {what}", final=True)


class Searches:
    """The searches of one answer. Those whose pages nobody has named are kept to the end: then the pages that
    the text cites are what is known of them."""

    def __init__(self, expected: Search, allowed_domains: Sequence[str] = ()) -> None:
        self._expected = expected
        self._allowed_domains = [domain.lower() for domain in allowed_domains]
        self._left_out = 0
        """Pages of other domains: the back end has not kept to these."""
        self._count = 0
        self._unresolved: list[WebSearchCall] = []
        self._shown: set[str] = set()
        """The URLs that a result has shown."""
        self._cited: dict[str, Page] = {}

    def add(self, call: WebSearchCall) -> WebSearchCall | None:
        """The call, if it can be shown."""
        self._count += call.count
        if call.pages is None and not call.failed:
            self._unresolved.append(call)
            return None
        return call

    def cite(self, citations: Iterable[PageCitation]) -> list[WebSearchCitation]:
        cited = []
        for citation in citations:
            page = citation.page
            if not self._is_allowed(page):
                self._left_out += 1
                continue
            self._cited.setdefault(page.url, page)
            cited.append(WebSearchCitation(page.url, page.title, citation.cited_text))
        return cited

    def unresolved(self) -> WebSearchCall | None:
        """What is left to show at the end. Where no call came, pages that are cited tell of one."""
        left = tuple(page for url, page in self._cited.items() if url not in self._shown)
        if not self._unresolved and (self._count or not left):
            return None
        self._count = self._count or 1
        queries = [call.query for call in self._unresolved if call.query]
        return WebSearchCall(query="; ".join(queries) or None, pages=left)

    def blocks(self, call: WebSearchCall, id: str) -> tuple[ServerToolUseBlock, WebSearchResultBlock]:
        input = EMPTY_OBJECT if call.query is None else Raw(msgspec.json.encode({"query": call.query}))
        pages = call.pages or ()
        results = {page.url: page for page in pages if self._is_allowed(page)}
        self._left_out += sum(not self._is_allowed(page) for page in pages)
        self._shown |= results.keys()
        found = tuple(WebSearchResult(url, page.title or url) for url, page in results.items())
        content = WebSearchError("unavailable") if call.failed else found
        return ServerToolUseBlock(id, WEB_SEARCH, input), WebSearchResultBlock(id, content)

    def _is_allowed(self, page: Page) -> bool:
        if not self._allowed_domains:
            return True
        host = _host(page.url)
        return any(host == domain or host.endswith(f".{domain}") for domain in self._allowed_domains)

    def problems(self) -> Iterator[str]:
        """What the back end has not done as it was asked to."""
        if self._expected == "forced" and not self._count:
            yield "the model had to search the web and did not"
        if self._left_out:
            yield f"the back end searched outside of allowed_domains: {self._left_out} pages were left out"

    def usage(self) -> ServerToolUsage | UnsetType:
        return UNSET if self._expected == "none" else ServerToolUsage(web_search_requests=self._count)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def search_id(tool_id: str) -> str:
    """An id for a search, from one for a tool call."""
    return OUR_SEARCH + tool_id.removeprefix("toolu_")
