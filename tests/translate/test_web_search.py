"""Web searches that the back end makes itself: what it is asked for, and its searches in the answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.chat.completion import Chunk, Delta, Page, PageCitation, WebSearchCall
from routeproxy.messages.errors import Incapable
from routeproxy.messages.events import accumulate
from routeproxy.messages.reply import Message, encode
from routeproxy.translate.profile import ModelProfile, SearchSupport
from tests.translate import answering
from tests.translate.answering import chunk, ends, fails, text, thinks, tool
from tests.translate.asking import Json, ask, refusal, user
from tests.translate.asking import tool as declared

HI = user("hi")
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
FETCH = {"type": "web_fetch_20250910", "name": "web_fetch"}
ABLE = ModelProfile(
    web_search=SearchSupport(forced=True, allowed_domains=True, max_uses=True, user_location=True)
)
PLAIN = ModelProfile(web_search=SearchSupport(beside_tools=False))
FORCED = {"type": "tool", "name": "web_search"}
PARIS = {"type": "approximate", "city": "Paris"}


def requested(
    *tools: Json, profile: ModelProfile = ABLE, choice: Json | None = None
) -> tuple[Any, list[str], list[str]]:
    """The search that the back end is asked for, the functions beside it, the warnings."""
    more = {} if choice is None else {"tool_choice": choice}
    translated = ask(HI, tools=list(tools), profile=profile, **more)
    functions = [item.function.name for item in translated.chat.tools or ()]
    search = translated.chat.web_search or None
    return search and json.loads(encode(search)), functions, list(translated.warnings)


REQUESTS = [
    pytest.param(
        requested(SEARCH),
        ({"forced": False, "allowed_domains": [], "blocked_domains": []}, [], []),
        id="alone",
    ),
    pytest.param(
        requested(SEARCH, declared()),
        ({"forced": False, "allowed_domains": [], "blocked_domains": []}, ["Bash"], []),
        id="beside",
    ),
    pytest.param(
        requested(SEARCH, FETCH),
        (
            {"forced": False, "allowed_domains": [], "blocked_domains": []},
            [],
            ["web_fetch is not supported by this model and was left out"],
        ),
        id="beside what nobody runs",
    ),
    pytest.param(
        requested({**SEARCH, "type": "web_search_20260318", "max_uses": 8, "user_location": PARIS}),
        (
            {
                "forced": False,
                "allowed_domains": [],
                "blocked_domains": [],
                "user_location": PARIS,
                "max_uses": 8,
            },
            [],
            [],
        ),
        id="its options",
    ),
    pytest.param(
        requested({**SEARCH, "allowed_domains": ["a.com", "b.org"], "blocked_domains": []}),
        ({"forced": False, "allowed_domains": ["a.com", "b.org"], "blocked_domains": []}, [], []),
        id="its domains",
    ),
    pytest.param(
        requested(SEARCH, choice=FORCED),
        ({"forced": True, "allowed_domains": [], "blocked_domains": []}, [], []),
        id="forced",
    ),
    pytest.param(
        requested(SEARCH, choice={"type": "any"}),
        ({"forced": True, "allowed_domains": [], "blocked_domains": []}, [], []),
        id="the only one of any",
    ),
    pytest.param(
        requested(SEARCH, declared(), choice={"type": "any"}),
        ({"forced": False, "allowed_domains": [], "blocked_domains": []}, ["Bash"], []),
        id="one of any",
    ),
    pytest.param(requested(SEARCH, choice={"type": "none"}), (None, [], []), id="forbidden"),
    pytest.param(
        requested({**SEARCH, "max_uses": 8, "user_location": PARIS}, profile=PLAIN, choice=FORCED),
        (
            {"forced": True, "allowed_domains": [], "blocked_domains": []},
            [],
            [
                "a web search cannot be forced on this model: it decides itself",
                "max_uses of web_search is not enforced by this model",
                "user_location of web_search is not supported by this model",
            ],
        ),
        id="what a back end cannot do is said",
    ),
    pytest.param(
        requested(SEARCH, declared(), profile=PLAIN),
        (None, ["Bash"], ["web_search was left out: this model does not search beside other tools"]),
        id="not beside tools",
    ),
    pytest.param(
        requested(SEARCH, declared(), profile=PLAIN, choice=FORCED),
        (
            {"forced": True, "allowed_domains": [], "blocked_domains": []},
            [],
            [
                "the other tools were left out: this model does not search beside them",
                "a web search cannot be forced on this model: it decides itself",
            ],
        ),
        id="forced, so instead of tools",
    ),
]


@pytest.mark.parametrize(("asked", "expected"), REQUESTS)
def test_a_back_end_that_searches_is_asked_to(asked: Any, expected: Any) -> None:
    assert asked == expected


REFUSED = [
    pytest.param(
        [{**SEARCH, "blocked_domains": ["a.com/blog"]}],
        ModelProfile(web_search=SearchSupport(blocked_domains=True)),
        "no paths",
        id="a blocked path",
    ),
    pytest.param(
        [{**SEARCH, "allowed_domains": ["a.com"]}], PLAIN, "cannot keep to domains", id="allowed domains"
    ),
    pytest.param(
        [{**SEARCH, "blocked_domains": ["a.com"]}], ABLE, "leaves out no domains", id="blocked ones"
    ),
    pytest.param([{**SEARCH, "allowed_domains": ["a.com/blog"]}], ABLE, "no paths", id="a path"),
    pytest.param(
        [{**SEARCH, "allowed_domains": ["a"], "blocked_domains": ["b"]}],
        ABLE,
        "only one of `allowed_domains` and `blocked_domains`",
        id="both",
    ),
]


@pytest.mark.parametrize(("tools", "profile", "words"), REFUSED)
def test_a_limit_that_the_back_end_would_not_keep_is_refused(
    tools: list[Json], profile: ModelProfile, words: str
) -> None:
    assert words in refusal(HI, tools=tools, profile=profile)


@pytest.mark.parametrize("tools", [True, False])
def test_a_model_without_tools_may_search_all_the_same(tools: bool) -> None:
    able = ModelProfile(tools=tools, web_search=SearchSupport())
    assert requested(SEARCH, profile=able) == requested(SEARCH)
    assert "match.tools" in refusal(HI, tools=[SEARCH], profile=ModelProfile(tools=tools))


@pytest.mark.parametrize("tools", [[SEARCH], [SEARCH, declared()]], ids=["alone", "beside tools"])
def test_a_forced_search_that_nobody_makes_is_refused_for_good(tools: list[Json]) -> None:
    with pytest.raises(Incapable, match=r'match\.tools = \["web_search_') as refused:
        ask(HI, tools=tools, tool_choice=FORCED)
    assert refused.value.headers == {"x-should-retry": "false"}


# --- answers

A, B = Page("https://a.com/1", "A"), Page("https://b.org/2")


def searches(query: str | None = "q", *pages: Page, **more: Any) -> Chunk:
    return chunk(Delta(web_searches=[WebSearchCall(query=query, pages=pages, **more)]))


def untold(query: str | None = "q") -> Chunk:
    """A search of which nobody says what it found."""
    return chunk(Delta(web_searches=[WebSearchCall(query=query, pages=None)]))


def cites(*pages: Page, span: str = "") -> Chunk:
    return chunk(Delta(citations=[PageCitation(page, span) for page in pages]))


ANSWERS = [
    pytest.param(
        [searches("q", A, B), text("So."), cites(A, span="So."), ends()],
        [
            "start 0 server_tool_use",
            'delta 0 {"query":"q"}',
            "stop 0",
            "found 1 A at https://a.com/1, https://b.org/2 at https://b.org/2",
            "stop 1",
            "start 2 text",
            "delta 2 So.",
            "cites 2 https://a.com/1 for 'So.'",
            "stop 2",
            "ends end_turn",
        ],
        id="before the text",
    ),
    pytest.param(
        [text("So."), cites(B), searches("q", B), ends()],
        [
            "start 0 text",
            "delta 0 So.",
            "cites 0 https://b.org/2 for ''",
            "stop 0",
            "start 1 server_tool_use",
            'delta 1 {"query":"q"}',
            "stop 1",
            "found 2 https://b.org/2 at https://b.org/2",
            "stop 2",
            "ends end_turn",
        ],
        id="after the text",
    ),
    pytest.param(
        [searches("q", failed=True), text("Sorry."), ends()],
        [
            "start 0 server_tool_use",
            'delta 0 {"query":"q"}',
            "stop 0",
            "found 1 unavailable",
            "stop 1",
            "start 2 text",
            "delta 2 Sorry.",
            "stop 2",
            "ends end_turn",
        ],
        id="it failed",
    ),
    pytest.param(
        [searches(None), ends()],
        [
            "start 0 server_tool_use",
            "delta 0 {}",
            "stop 0",
            "found 1",
            "stop 1",
            "ends end_turn",
        ],
        id="nothing found, no query told",
    ),
    pytest.param(
        [untold("q"), untold("r"), text("So."), cites(A, A, B), ends()],
        [
            "start 0 text",
            "delta 0 So.",
            "cites 0 https://a.com/1 for ''",
            "cites 0 https://a.com/1 for ''",
            "cites 0 https://b.org/2 for ''",
            "stop 0",
            "start 1 server_tool_use",
            'delta 1 {"query":"q; r"}',
            "stop 1",
            "found 2 A at https://a.com/1, https://b.org/2 at https://b.org/2",
            "stop 2",
            "ends end_turn",
        ],
        id="only the citations tell what was found",
    ),
    pytest.param(
        [text("So."), cites(A), ends()],
        [
            "start 0 text",
            "delta 0 So.",
            "cites 0 https://a.com/1 for ''",
            "stop 0",
            "start 1 server_tool_use",
            "delta 1 {}",
            "stop 1",
            "found 2 A at https://a.com/1",
            "stop 2",
            "ends end_turn",
        ],
        id="only the citations tell of a search",
    ),
    pytest.param(
        [thinks("Hm."), searches("q", A), tool(0, "call_1", "read", "{}"), ends("tool_calls")],
        [
            "start 0 thinking",
            "delta 0 Hm.",
            "signature 0",
            "stop 0",
            "start 1 server_tool_use",
            'delta 1 {"query":"q"}',
            "stop 1",
            "found 2 A at https://a.com/1",
            "stop 2",
            "start 3 tool_use call_1 read",
            "stop 3",
            "ends tool_use",
        ],
        id="between thinking and a call",
    ),
    pytest.param(
        [
            tool(0, "call_1", "read", '{"a"'),
            searches("q", A),
            tool(0, arguments=":1}"),
            ends("tool_calls"),
        ],
        [
            "start 0 tool_use call_1 read",
            'delta 0 {"a"',
            "delta 0 :1}",
            "stop 0",
            "start 1 server_tool_use",
            'delta 1 {"query":"q"}',
            "stop 1",
            "found 2 A at https://a.com/1",
            "stop 2",
            "ends tool_use",
        ],
        id="in the middle of a call",
    ),
    pytest.param(
        [searches("q", A), fails({"message": "boom"})],
        [
            "start 0 server_tool_use",
            'delta 0 {"query":"q"}',
            "stop 0",
            "found 1 A at https://a.com/1",
            "stop 1",
            "error api_error: boom",
        ],
        id="then it broke",
    ),
]


@pytest.mark.parametrize(("chunks", "expected"), ANSWERS)
def test_searches_are_shown_as_anthropics_are(chunks: list[Chunk], expected: list[str]) -> None:
    assert answering.script(*chunks, web_search="offered") == expected


def answer(*chunks: Chunk, **settings: Any) -> Message:
    message = accumulate(answering.events_of(*chunks, **settings))
    assert isinstance(message, Message)
    return message


def used(message: Message) -> Any:
    return json.loads(encode(message))["usage"].get("server_tool_use")


@pytest.mark.parametrize(
    ("chunks", "count"),
    [
        pytest.param([searches("q", A), searches("r", count=3), text("So."), ends()], 4, id="each counts"),
        pytest.param([untold(), untold(), ends()], 2, id="untold ones, too"),
        pytest.param([text("So."), cites(A), ends()], 1, id="one that only citations tell of"),
        pytest.param([text("So."), ends()], 0, id="none"),
    ],
)
def test_searches_are_counted(chunks: list[Chunk], count: int) -> None:
    usage = used(answer(*chunks, web_search="offered"))
    assert usage == {"web_search_requests": count, "web_fetch_requests": 0}


def test_a_search_that_nobody_asked_for_is_not_shown() -> None:
    message = answer(searches("q", A), text("So."), cites(A), ends())
    assert answering.blocks(message) == [("text", "So.")]
    assert used(message) is None


def test_a_search_that_was_not_made_is_not_made_up_but_logged() -> None:
    stream = answering.translator(web_search="forced")
    events = [*stream.feed(text("I know.")), *stream.feed(ends()), *stream.finish()]
    message = accumulate(events)
    assert answering.blocks(message) == [("text", "I know.")]
    assert stream.warnings == ["the model had to search the web and did not"]


def test_a_back_end_that_does_not_keep_to_the_domains_is_found_out() -> None:
    inside = [Page("https://a.com/1"), Page("https://WWW.A.com:443/2"), Page("http://sub.b.org")]
    outside = [Page("https://nota.com"), Page("https://a.com.evil.com"), Page("not a url"), Page("http://[")]
    chunks = [searches("q", *outside, *inside), text("So."), cites(outside[0], inside[0]), ends()]
    stream = answering.translator(web_search="offered", allowed_domains=("A.com", "b.org"))
    events = [event for chunk in chunks for event in stream.feed(chunk)] + stream.finish()
    message = accumulate(events)
    assert answering.blocks(message)[1] == ("found", *(f"{page.url} at {page.url}" for page in inside))
    assert isinstance(message, Message)
    assert [one["url"] for one in json.loads(encode(message))["content"][2]["citations"]] == [inside[0].url]
    assert stream.warnings == ["the back end searched outside of allowed_domains: 5 pages were left out"]


def test_a_page_is_shown_once_in_a_result_and_its_ids_are_ours() -> None:
    content = json.loads(encode(answer(searches("q", A, A), text("So."), ends(), web_search="offered")))[
        "content"
    ]
    call, result, _ = content
    assert call == {
        "type": "server_tool_use",
        "id": "srvtoolu_rp1_1",
        "name": "web_search",
        "input": {"query": "q"},
    }
    assert result == {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_rp1_1",
        "content": [
            {
                "type": "web_search_result",
                "url": "https://a.com/1",
                "title": "A",
                "page_age": None,
                "encrypted_content": "rp1",
            }
        ],
    }


PIECES = st.sampled_from(
    [
        text("So."),
        text(" "),
        text("\n\nAnd "),
        thinks("Hm."),
        searches("q", A, B),
        searches(None),
        searches("q", failed=True),
        untold(),
        cites(A),
        cites(A, B, span="So."),
        tool(0, "call_1", "read", '{"a"'),
        tool(0, arguments=":1}"),
        tool(1, "call_2", "write", "{}"),
    ]
)


@given(st.lists(PIECES, max_size=8), st.sampled_from(["none", "offered", "forced"]))
def test_any_answer_with_searches_is_a_valid_stream(pieces: list[Chunk], search: Any) -> None:
    """`events_of` checks it."""
    events = answering.events_of(*pieces, ends(), web_search=search)
    if isinstance(message := accumulate(events), Message):
        blocks = answering.blocks(message)
        found = [at for at, block in enumerate(blocks) if block[0] == "found"]
        assert [at - 1 for at in found] == [at for at, block in enumerate(blocks) if block[0] == "search"]
        assert search != "none" or not found
