"""A web search through routeproxy, as real clients ask for one: served by the search of the back end, sent to
one that searches by a rule, or refused so that it is asked for once."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from anthropic import Anthropic, BadRequestError
from anthropic.types import (
    CitationsWebSearchResultLocation,
    Message,
    ServerToolUseBlock,
    TextBlock,
    WebSearchToolResultBlock,
)

from routeproxy.exchange import Exchange
from routeproxy.observe import Observer
from tests.backend import (
    BackEnd,
    Received,
    Script,
    chunk,
    data,
    done,
    error,
    event,
    json_answer,
    messages_stream,
    sse,
    streamed,
    tool_chunk,
)
from tests.budgets import seconds
from tests.end_to_end.clients import (
    NODE_MODULES,
    environment,
    needs_claude_code,
    needs_typescript_sdk,
)
from tests.end_to_end.test_claude_code import claude
from tests.running import running

Json = dict[str, Any]

QUERY = "latest release of llama.cpp"
TITLE = "Releases"
URL = "https://example.com/releases"
OTHER_URL = "https://example.org/news"
TEXT = "It is b9999."
SEARCH: Json = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}

RESPONSES_PROVIDER = """
[providers.searching]
type = "openai"
base_url = "{url}/v1"
api_key = "none"
api = "responses"
zone = "private"
"""
GEMINI_PROVIDER = """
[providers.searching]
type = "gemini"
base_url = "{url}/v1beta"
api_key = "none"
zone = "private"
"""
CHAT_PROVIDER = """
[providers.corp]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"
zone = "private"
"""
ROUTED = """
[[rules]]
name = "web search"
match.tools = ["web_search_*"]
targets = "searching/{model}"

[default]
targets = "corp/some-model"
"""


# --- Responses


def _response(*output: Json) -> Json:
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    return {"id": "resp_1", "status": "completed", "model": "gpt-5.4", "output": [*output], "usage": usage}


def _item_events(place: int, item: Json) -> Iterator[bytes]:
    started = {key: value for key, value in item.items() if key != "action"} | {"status": "in_progress"}
    started |= {key: [] if key == "content" else "" for key in ("content", "arguments") if key in item}
    yield event("response.output_item.added", output_index=place, item=started)
    at = {"item_id": item["id"], "output_index": place}
    match item:
        case {"type": "web_search_call"}:
            yield event("response.web_search_call.searching", **at)
        case {"type": "message", "content": [part]}:
            at["content_index"] = 0
            for piece in (part["text"][:3], part["text"][3:]):
                yield event("response.output_text.delta", **at, delta=piece)
            for index, annotation in enumerate(part["annotations"]):
                yield event(
                    "response.output_text.annotation.added",
                    **at,
                    annotation_index=index,
                    annotation=annotation,
                )
        case {"type": "function_call", "arguments": arguments}:
            yield event("response.function_call_arguments.delta", **at, delta=arguments)
    yield event("response.output_item.done", output_index=place, item=item)


def _over_responses(stream: bool, *output: Json) -> Script:
    if not stream:
        return json_answer(_response(*output))
    return streamed(
        event("response.created", response=_response() | {"status": "in_progress"}),
        *(step for place, item in enumerate(output) for step in _item_events(place, item)),
        event("response.completed", response=_response(*output)),
    )


def _said(text: str, *annotations: Json) -> Json:
    part = {"type": "output_text", "text": text, "annotations": [*annotations]}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def searches_over_responses(received: Received) -> Script:
    """A model that searches when it may, calls Claude Code's WebSearch when it may not, and then says what
    came of it."""
    body = received.json
    stream = bool(body.get("stream"))
    tools = body.get("tools") or []
    results = [item["output"] for item in body["input"] if item.get("type") == "function_call_output"]
    if any(tool["type"] == "web_search" for tool in tools):
        sources = [{"type": "url", "url": url} for url in (URL, OTHER_URL)]
        action = {"type": "search", "query": QUERY, "sources": sources}
        search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": action}
        citation = {"type": "url_citation", "url": URL, "title": TITLE, "start_index": 0, "end_index": 12}
        return _over_responses(stream, search, _said(TEXT, citation))
    if results:
        return _over_responses(stream, _said(f"The tool said: {results[-1]}"))
    if tools:
        call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "WebSearch"}
        return _over_responses(
            stream, {**call, "status": "completed", "arguments": json.dumps({"query": QUERY})}
        )
    return _over_responses(stream, _said("A title"))


# --- Gemini


def searches_at_gemini(received: Received) -> Script:
    grounding = {
        "searchEntryPoint": {"renderedContent": "<div></div>"},
        "webSearchQueries": [QUERY],
        "groundingChunks": [{"web": {"uri": URL, "title": TITLE}}, {"web": {"uri": OTHER_URL}}],
        "groundingSupports": [{"segment": {"text": TEXT}, "groundingChunkIndices": [0]}],
    }
    last = {
        "content": {"parts": [{"text": TEXT[3:]}], "role": "model"},
        "finishReason": "STOP",
        "groundingMetadata": grounding,
    }
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
    if "streamGenerateContent" in received.path:
        first = {"content": {"parts": [{"text": TEXT[:3]}], "role": "model"}}
        return streamed(data({"candidates": [first]}), data({"candidates": [last], "usageMetadata": usage}))
    whole = {**last, "content": {"parts": [{"text": TEXT}], "role": "model"}}
    return json_answer({"candidates": [whole], "usageMetadata": usage})


# --- the official SDK


class Route(NamedTuple):
    provider: str
    model: str
    answer: Callable[[Received], Script]


RESPONSES = Route(RESPONSES_PROVIDER, "gpt-5.4", searches_over_responses)
GEMINI = Route(GEMINI_PROVIDER, "gemini-2.5-flash", searches_at_gemini)
ROUTES = [pytest.param(RESPONSES, id="Responses"), pytest.param(GEMINI, id="Gemini")]


def asks(url: str, stream: bool, **fields: Any) -> Message:
    request: Any = {
        "model": "claude-sonnet-5",
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": "Search, please."}],
        "tools": [SEARCH],
        **fields,
    }
    options: Any = {"api_key": "sk-anything", "max_retries": 0, "_strict_response_validation": True}
    with Anthropic(base_url=url, **options) as client:
        if not stream:
            message: Message = client.messages.create(**request)
            return message
        with client.messages.stream(**request) as answer:
            return answer.get_final_message()


def of_type(message: Message, kind: type) -> Any:
    (block,) = (block for block in message.content if isinstance(block, kind))
    return block


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "choice", [{"type": "auto"}, {"type": "tool", "name": "web_search"}], ids=["offered", "forced"]
)
def test_the_sdk_gets_the_search_of_the_back_end(
    route: Route, choice: Json, stream: bool, tmp_path: Path
) -> None:
    with BackEnd(route.answer) as back_end:
        rules = route.provider.format(url=back_end.url) + f'[default]\ntargets = "searching/{route.model}"'
        with running(rules, tmp_path) as proxy:
            message = asks(proxy.url, stream, tool_choice=choice)
    call, result = of_type(message, ServerToolUseBlock), of_type(message, WebSearchToolResultBlock)
    assert (call.name, call.input, call.id) == ("web_search", {"query": QUERY}, result.tool_use_id)
    assert [page.url for page in result.content] == [URL, OTHER_URL]
    assert message.content.index(result) == message.content.index(call) + 1
    text = of_type(message, TextBlock)
    assert text.text == TEXT
    (citation,) = text.citations
    assert isinstance(citation, CitationsWebSearchResultLocation)
    assert (citation.url, citation.title, citation.cited_text) == (URL, TITLE, TEXT)
    assert message.stop_reason == "end_turn"
    assert message.usage.server_tool_use is not None
    assert message.usage.server_tool_use.web_search_requests == 1
    assert len(back_end.requests) == 1


TYPESCRIPT = """
const Anthropic = require("@anthropic-ai/sdk").default;
const tools = [{ type: "web_search_20250305", name: "web_search", max_uses: 8 }];
const messages = [{ role: "user", content: "Search, please." }];
new Anthropic({ maxRetries: 0 }).messages
  .stream({ model: "claude-sonnet-5", max_tokens: 1000, tools, messages })
  .finalMessage()
  .then((message) => console.log(JSON.stringify(message)));
"""


@needs_typescript_sdk
@pytest.mark.parametrize("route", ROUTES)
def test_the_typescript_sdk_adds_up_the_same(route: Route, tmp_path: Path) -> None:
    with BackEnd(route.answer) as back_end:
        rules = route.provider.format(url=back_end.url) + f'[default]\ntargets = "searching/{route.model}"'
        with running(rules, tmp_path) as proxy:
            ran = subprocess.run(
                ["node", "-e", TYPESCRIPT],
                env={**environment(proxy.url, tmp_path), "NODE_PATH": str(NODE_MODULES)},
                capture_output=True, text=True, timeout=seconds(30), check=False,
            )  # fmt: skip
            python = asks(proxy.url, True)
    assert ran.stdout, ran.stderr
    assert _without_ids(json.loads(ran.stdout)["content"]) == _without_ids(
        [block.to_dict() for block in python.content]
    )


def _without_ids(content: list[Json]) -> list[Json]:
    return [
        {name: value for name, value in block.items() if name not in ("id", "tool_use_id")}
        for block in content
    ]


@pytest.mark.parametrize("route", ROUTES)
def test_a_searching_conversation_goes_on_wherever_it_moves(route: Route, tmp_path: Path) -> None:
    """Back to the same model the search is context; Anthropic gets it in words, since it takes back only what
    it has sealed itself."""
    with BackEnd(route.answer) as back_end, BackEnd(streamed(*messages_stream("Yes."))) as claude_itself:
        rules = f"""
        {route.provider.format(url=back_end.url)}
        [providers.anthropic]
        base_url = "{claude_itself.url}"
        api_key = "none"

        [[rules]]
        match.model.equals = "claude-opus-4-8"
        targets = "anthropic/*"

        [default]
        targets = "searching/{route.model}"
        """
        with running(rules, tmp_path) as proxy:
            first = asks(proxy.url, True)
            turns = [
                {"role": "user", "content": "Search, please."},
                {"role": "assistant", "content": [block.to_dict() for block in first.content]},
                {"role": "user", "content": "Are you sure?"},
            ]
            asks(proxy.url, True, messages=turns)
            asks(proxy.url, True, messages=turns, model="claude-opus-4-8", tools=[])
    again = back_end.last.body.decode()
    assert all(url in again for url in (URL, OTHER_URL))
    assert "rp1" not in again
    blocks = claude_itself.last.json["messages"][1]["content"]
    assert {block["type"] for block in blocks} == {"text"}
    assert all(not block.get("citations") for block in blocks)
    words = "".join(block["text"] for block in blocks)
    assert all(part in words for part in (QUERY, URL, OTHER_URL, TEXT))


def _anthropics_own() -> list[bytes]:
    start, *_, stop, end = messages_stream()
    found = {"type": "web_search_result", "url": URL, "title": TITLE, "encrypted_content": "EqgfCioIARgB"}
    location = {"type": "web_search_result_location", "url": URL, "title": TITLE, "cited_text": "b9999"}
    return [
        start,
        event(
            "content_block_start",
            index=0,
            content_block={"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {}},
        ),
        event(
            "content_block_delta",
            index=0,
            delta={"type": "input_json_delta", "partial_json": json.dumps({"query": QUERY})},
        ),
        event("content_block_stop", index=0),
        event(
            "content_block_start",
            index=1,
            content_block={
                "type": "web_search_tool_result",
                "tool_use_id": "srvtoolu_01",
                "content": [found],
            },
        ),
        event("content_block_stop", index=1),
        event("content_block_start", index=2, content_block={"type": "text", "text": "", "citations": []}),
        event(
            "content_block_delta",
            index=2,
            delta={"type": "citations_delta", "citation": {**location, "encrypted_index": "Eo8BCioIAhgB"}},
        ),
        event("content_block_delta", index=2, delta={"type": "text_delta", "text": TEXT}),
        event("content_block_stop", index=2),
        stop,
        end,
    ]


def test_anthropics_own_search_goes_through_and_comes_back_as_it_was(tmp_path: Path) -> None:
    with BackEnd(streamed(*_anthropics_own())) as back_end:
        rules = f'[providers.anthropic]\nbase_url = "{back_end.url}"\napi_key = "none"'
        with running(f'{rules}\n[default]\ntargets = "anthropic/*"', tmp_path) as proxy:
            first = asks(proxy.url, True, tool_choice={"type": "tool", "name": "web_search"})
            content = [block.to_dict() for block in first.content]
            turns = [
                {"role": "user", "content": "Search, please."},
                {"role": "assistant", "content": content},
                {"role": "user", "content": "Are you sure?"},
            ]
            asks(proxy.url, True, messages=turns)
    assert of_type(first, WebSearchToolResultBlock).content[0].encrypted_content == "EqgfCioIARgB"
    assert of_type(first, TextBlock).citations[0].encrypted_index == "Eo8BCioIAhgB"
    assert back_end.last.json["messages"][1]["content"] == content
    assert back_end.last.json["tools"] == [SEARCH]


def test_a_forced_search_that_was_not_made_is_not_made_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with BackEnd(
        lambda received: _over_responses(bool(received.json.get("stream")), _said("I know."))
    ) as back_end:
        rules = RESPONSES_PROVIDER.format(url=back_end.url) + '[default]\ntargets = "searching/gpt-5.4"'
        with running(rules, tmp_path) as proxy, caplog.at_level("INFO", "routeproxy"):
            for stream in (True, False):
                message = asks(proxy.url, stream, tool_choice={"type": "tool", "name": "web_search"})
                assert [block.type for block in message.content] == ["text"]
                assert message.usage.server_tool_use is not None
                assert message.usage.server_tool_use.web_search_requests == 0
    words = "the model had to search the web and did not"
    assert sum(words in record.getMessage() for record in caplog.records) == 2


def test_a_target_that_does_not_search_leads_on_where_the_rule_says_so(tmp_path: Path) -> None:
    with BackEnd(calls_web_search) as chat, BackEnd(searches_at_gemini) as gemini:
        rules = (
            CHAT_PROVIDER.format(url=chat.url)
            + GEMINI_PROVIDER.format(url=gemini.url)
            + """
            [default]
            targets = ["corp/some-model", "searching/gemini-2.5-flash"]
            fallback = { also = ["capability"] }
            """
        )
        with running(rules, tmp_path) as proxy:
            message = asks(proxy.url, True)
    assert of_type(message, WebSearchToolResultBlock).content[0].url == URL
    assert chat.requests == []


UNSEARCHING = """
[providers.searching]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"
api = "responses"
zone = "private"

[default]
targets = "searching/some-model"
"""


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("'type' of tool must be 'function'", id="llama.cpp"),
        pytest.param("Hosted tool 'web_search' is not supported with gpt-x.", id="OpenAI"),
    ],
)
def test_a_server_of_responses_that_knows_no_search_is_as_good_as_one_without(
    words: str, tmp_path: Path
) -> None:
    with (
        BackEnd(error(400, words)) as back_end,
        running(UNSEARCHING.format(url=back_end.url), tmp_path) as proxy,
    ):
        with pytest.raises(BadRequestError) as refused:
            asks(proxy.url, True)
    message = refused.value.response.json()["error"]["message"]
    assert "match.tools" in message
    assert message.endswith(f"The back end said: {words}")
    assert refused.value.response.headers["x-should-retry"] == "false"


def test_what_else_such_a_server_refuses_keeps_its_meaning(tmp_path: Path) -> None:
    answer = error(400, "max_output_tokens is too large")
    with BackEnd(answer) as back_end, running(UNSEARCHING.format(url=back_end.url), tmp_path) as proxy:
        with pytest.raises(BadRequestError) as refused:
            asks(proxy.url, True)
    assert "match.tools" not in str(refused.value)


# --- Claude Code


def calls_web_search(received: Received) -> Script:
    """A model without a search that calls WebSearch, and then says what came of it."""
    body = received.json
    results = [str(message["content"]) for message in body["messages"] if message["role"] == "tool"]
    if not body.get("tools"):
        return sse(chunk("A title"), done())
    if results:
        return sse(chunk(f"The tool said: {results[-1]}"), done())
    arguments = json.dumps({"query": QUERY})
    return sse(tool_chunk(0, "WebSearch", arguments, id="call_1"), done("tool_calls"))


def asked_to_search(back_end: BackEnd) -> list[Json]:
    """The requests that had a web search in them, in whatever format."""
    return [
        received.json
        for received in back_end.requests
        if any(word in received.body for word in (b'"web_search"', b'"googleSearch"'))
    ]


@needs_claude_code
def test_claude_codes_search_is_served_over_responses(tmp_path: Path) -> None:
    with BackEnd(searches_over_responses) as back_end:
        rules = RESPONSES_PROVIDER.format(url=back_end.url) + '[default]\ntargets = "searching/gpt-5.4"'
        with running(rules, tmp_path) as proxy:
            result = claude("Search the web", proxy.url, tmp_path, "--allowedTools", "WebSearch")
    assert result["is_error"] is False
    links = [{"title": url, "url": url} for url in (URL, OTHER_URL)]
    assert f"Links: {json.dumps(links, separators=(',', ':'))}" in result["result"]
    assert TEXT in result["result"]
    assert len(asked_to_search(back_end)) == 1


@needs_claude_code
def test_a_rule_sends_claude_codes_search_to_gemini(tmp_path: Path) -> None:
    with BackEnd(calls_web_search) as chat, BackEnd(searches_at_gemini) as gemini:
        rules = (
            CHAT_PROVIDER.format(url=chat.url)
            + GEMINI_PROVIDER.format(url=gemini.url)
            + ROUTED.format(model="gemini-2.5-flash")
        )
        with running(rules, tmp_path) as proxy:
            result = claude("Search the web", proxy.url, tmp_path, "--allowedTools", "WebSearch")
    assert result["is_error"] is False
    links = [{"title": TITLE, "url": URL}, {"title": OTHER_URL, "url": OTHER_URL}]
    assert f"Links: {json.dumps(links, separators=(',', ':'))}" in result["result"]
    assert TEXT in result["result"]
    assert len(gemini.requests) == 1, "and nothing but the search goes there"


class Statuses(Observer):
    """The statuses of the requests that had a web search in them, as clients got them."""

    def __init__(self) -> None:
        self.of_searches: list[int] = []

    def request_done(self, exchange: Exchange) -> None:
        tools = exchange.envelope.tools if exchange.envelope is not None else None
        if any((tool.type or "").startswith("web_search") for tool in tools or ()):
            self.of_searches.append(exchange.status)


@needs_claude_code
def test_where_nobody_searches_claude_code_asks_once_and_hears_of_the_rule(tmp_path: Path) -> None:
    statuses = Statuses()
    with BackEnd(calls_web_search) as chat:
        rules = CHAT_PROVIDER.format(url=chat.url) + '[default]\ntargets = "corp/some-model"'
        with running(rules, tmp_path, observers=[statuses]) as proxy:
            result = claude("Search the web", proxy.url, tmp_path, "--allowedTools", "WebSearch")
    assert result["is_error"] is False
    assert "its back end has no search of its own" in result["result"]
    assert 'match.tools = ["web_search_*"]' in result["result"]
    assert statuses.of_searches == [400]
