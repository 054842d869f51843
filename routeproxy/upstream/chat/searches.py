"""Which back ends search the web themselves, and what their search takes: one table, whose rows name their
source. It holds for our own engines: LiteLLM is not told of a search."""

import re
from collections.abc import Collection
from typing import NamedTuple

from routeproxy.translate.profile import SearchSupport
from routeproxy.upstream.chat.quirks import GOOGLE, OPENAI


class Searcher(NamedTuple):
    """A row: for providers of these types (none named: of any), asked over Responses or not, and models whose
    name matches."""

    types: Collection[str]
    over_responses: bool
    models: re.Pattern[str]
    support: SearchSupport
    source: str


_RESPONSES = SearchSupport(forced=True, allowed_domains=True, max_uses=True, user_location=True)

_GEMINI_2 = re.compile(r"^gemini-(?!1\b|exp)")

# The first that fits counts.
SEARCHERS = (
    Searcher(
        (),
        True,
        re.compile(r"^(?!gpt-3|gpt-4(-|$)|gpt-4\.1-nano|o1|o3-mini|gpt-oss)"),
        _RESPONSES,
        "platform.openai.com/docs/guides/tools-web-search: all but these",
    ),
    Searcher(
        OPENAI,
        False,
        re.compile(r"^gpt-.*-search(-|$)"),
        SearchSupport(beside_tools=False, forced=True, user_location=True),
        "the same, #chat-completions: these search with every request",
    ),
    Searcher(
        ("openrouter",),
        False,
        re.compile(r":online$"),
        SearchSupport(forced=True),
        "openrouter.ai/docs/features/web-search: these search with every request",
    ),
    Searcher(
        ("gemini",),
        False,
        re.compile(r"^gemini-(?!\d\b|exp)|^gemini-[3-9]\b"),
        SearchSupport(),
        "ai.google.dev/gemini-api/docs/tool-combination: beside functions since Gemini 3",
    ),
    Searcher(
        ("gemini",),
        False,
        _GEMINI_2,
        SearchSupport(beside_tools=False),
        "ai.google.dev/gemini-api/docs/google-search: since Gemini 2",
    ),
    Searcher(
        GOOGLE,
        False,
        _GEMINI_2,
        SearchSupport(beside_tools=False, blocked_domains=True),
        "cloud.google.com/vertex-ai/generative-ai/docs/grounding/grounding-with-google-search: Vertex alone "
        "takes `excludeDomains`, and no flag that would let a search come beside functions",
    ),
)


_REFUSES_TOOLS = re.compile(r"\btools?\b|web_?search|google_?search|grounding", re.IGNORECASE)


def refuses_search(words: str) -> bool:
    """Whether a back end that was asked for a search and no function refuses just that: many speak Responses
    and know no tools but functions."""
    return _REFUSES_TOOLS.search(words) is not None


def find_searcher(type: str, model: str, *, over_responses: bool) -> Searcher | None:
    """`model`: in lower case, without a prefix."""
    for searcher in SEARCHERS:
        fits = searcher.over_responses == over_responses and (not searcher.types or type in searcher.types)
        if fits and searcher.models.search(model):
            return searcher
    return None
