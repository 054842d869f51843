"""The searches of back ends that have one of their own, as they take them and as they tell of them: OpenAI's
Responses and Gemini."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from openai.types.responses import (
    ResponseFunctionWebSearch,
    ResponseOutputText,
    WebSearchTool,
    response_create_params,
)

from routeproxy.chat.completion import Chunk, Delta
from routeproxy.chat.request import encode_request
from routeproxy.messages.events import accumulate
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.reply import translate_reply
from routeproxy.upstream.chat.gemini import GeminiDecoder
from routeproxy.upstream.chat.gemini_request import gemini_request
from routeproxy.upstream.chat.profiles import profile_of
from routeproxy.upstream.chat.responses import ResponsesStream, response_chunks
from routeproxy.upstream.chat.responses_request import responses_request
from tests.backend import data
from tests.translate import answering
from tests.translate.asking import Json, ask, assistant, refusal, thinking, tool, user
from tests.upstream.litellm.asking import target

HI = user("hi")
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
FORCED = {"type": "tool", "name": "web_search"}
GPT = target("openai", "https://api.openai.com/v1", "gpt-5.4", engine="direct")


def profile(type: str, model: str, **provider: Any) -> ModelProfile:
    return profile_of(target(type, "https://example.com/v1", model, **{"engine": "direct", **provider}))


RESPONSES = profile("openai", "gpt-5", api="responses")
GEMINI_2 = profile("gemini", "gemini-2.5-flash")
GEMINI_3 = profile("gemini", "gemini-3-pro-preview")


# --- which models search


@pytest.mark.parametrize(
    ("known", "searches"),
    [
        pytest.param(RESPONSES, True, id="OpenAI over Responses"),
        pytest.param(profile("azure", "my-deployment", api="responses"), True, id="Azure over Responses"),
        pytest.param(profile("openai_compatible", "m", api="responses"), True, id="another over Responses"),
        pytest.param(profile("openai", "gpt-4.1-nano", api="responses"), False, id="a model that does not"),
        pytest.param(profile("openai", "gpt-4.1"), False, id="chat completions"),
        pytest.param(profile("openai", "gpt-4o-search-preview"), True, id="a search model"),
        pytest.param(profile("openai", "gpt-5-search-api"), True, id="another search model"),
        pytest.param(profile("ollama", "gpt-4o-search-preview"), False, id="a search model elsewhere"),
        pytest.param(profile("openai", "gpt-5", api="responses", engine="litellm"), False, id="LiteLLM's"),
        pytest.param(profile("openrouter", "openai/gpt-4.1:online"), True, id="OpenRouter's :online"),
        pytest.param(profile("openrouter", "openai/gpt-4.1"), False, id="OpenRouter without it"),
        pytest.param(profile("gemini", "gemini-flash-latest"), True, id="the latest Gemini"),
        pytest.param(profile("gemini", "gemini-exp-1206"), False, id="an experiment"),
        pytest.param(GEMINI_2, True, id="Gemini 2"),
        pytest.param(GEMINI_3, True, id="Gemini 3"),
        pytest.param(profile("vertex_ai", "gemini-2.5-flash"), True, id="Gemini at Vertex"),
        pytest.param(profile("gemini", "gemini-1.5-pro"), False, id="Gemini 1, which has another search"),
        pytest.param(profile("gemini", "gemma-3-27b-it"), False, id="Gemma"),
        pytest.param(
            profile("gemini", "gemini-2.5-pro", engine="litellm"), False, id="Gemini through LiteLLM"
        ),
        pytest.param(profile("ollama", "qwen3:8b"), False, id="Ollama"),
    ],
)
def test_who_searches(known: ModelProfile, searches: bool) -> None:
    assert (known.web_search is not None) == searches


@pytest.mark.parametrize(
    ("known", "beside"),
    [
        pytest.param(RESPONSES, True, id="Responses"),
        pytest.param(GEMINI_2, False, id="Gemini 2"),
        pytest.param(GEMINI_3, True, id="Gemini 3"),
        pytest.param(profile("gemini", "gemini-flash-latest"), True, id="the latest Gemini"),
        pytest.param(profile("gemini", "gemini-2.0-flash-001"), False, id="Gemini 2.0"),
        pytest.param(profile("vertex_ai", "gemini-3-pro-preview"), False, id="Gemini 3 at Vertex"),
    ],
)
def test_who_searches_beside_other_tools(known: ModelProfile, beside: bool) -> None:
    assert known.web_search is not None
    assert known.web_search.beside_tools == beside


# --- OpenAI's search models, which search with every request


def test_a_search_model_is_told_where_the_user_is() -> None:
    paris = {"type": "approximate", "city": "Paris", "country": "FR"}
    known = profile("openai", "gpt-4o-search-preview")
    translated = ask(HI, tools=[{**SEARCH, "user_location": paris}], tool_choice=FORCED, profile=known)
    body = json.loads(encode_request(translated.chat, "gpt-4o-search-preview"))
    assert body["web_search_options"] == {
        "user_location": {"type": "approximate", "approximate": {"city": "Paris", "country": "FR"}}
    }
    assert not {"tools", "tool_choice", "web_search"} & set(body)
    assert translated.warnings == ()


def annotated(url: str, title: str | None) -> Json:
    return {
        "type": "url_citation",
        "url_citation": {"url": url, "title": title, "start_index": 0, "end_index": 3},
    }


ANNOTATIONS: list[Any] = [
    annotated("https://a.com", "A"),
    annotated("https://b.org", None),
    {"type": "file"},
    annotated("", "B"),
    7,
]


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param(
            [answering.whole(content="So.", annotations=ANNOTATIONS)],
            id="whole",
        ),
        pytest.param(
            [
                answering.text("So."),
                answering.chunk(Delta(annotations=ANNOTATIONS)),
                answering.ends(),
            ],
            id="streamed",
        ),
    ],
)
def test_what_a_search_model_cites_is_what_it_found(chunks: list[Chunk]) -> None:
    assert answering.script(*chunks, web_search="offered") == [
        "start 0 text",
        "delta 0 So.",
        "cites 0 https://a.com for ''",
        "cites 0 https://b.org for ''",
        "stop 0",
        "start 1 server_tool_use",
        "delta 1 {}",
        "stop 1",
        "found 2 A at https://a.com, https://b.org at https://b.org",
        "stop 2",
        "ends end_turn",
    ]


@pytest.mark.parametrize("odd", [7, "x", {}, [None], [{"type": "url_citation", "url_citation": 7}]])
def test_odd_annotations_are_passed_over(odd: Any) -> None:
    chunks = [
        answering.chunk(Delta("So.", annotations=odd, web_searches=odd, citations=odd)),
        answering.ends(),
    ]
    assert answering.script(*chunks, web_search="offered") == [
        "start 0 text",
        "delta 0 So.",
        "stop 0",
        "ends end_turn",
    ]


# --- Responses: requests


def responses_body(*turns: Json, **options: Any) -> Json:
    translated = ask(*(turns or (HI,)), **{"profile": RESPONSES, **options})
    body: Json = json.loads(responses_request(translated.chat, model="gpt-5"))
    assert set(body) <= set(response_create_params.ResponseCreateParamsStreaming.__annotations__)
    return body


def test_a_search_is_a_tool_of_responses() -> None:
    paris = {"type": "approximate", "city": "Paris", "country": "FR"}
    search = {**SEARCH, "allowed_domains": ["a.com"], "max_uses": 8, "user_location": paris}
    body = responses_body(tools=[search])
    assert body["tools"] == [
        {"type": "web_search", "filters": {"allowed_domains": ["a.com"]}, "user_location": paris}
    ]
    WebSearchTool.model_validate(body["tools"][0], strict=True)
    assert body["max_tool_calls"] == 8
    assert body["include"] == ["reasoning.encrypted_content", "web_search_call.action.sources"]
    assert "tool_choice" not in body


@pytest.mark.parametrize(
    ("tools", "choice", "sent"),
    [
        pytest.param([SEARCH], FORCED, "required", id="alone"),
        pytest.param([SEARCH, tool()], FORCED, {"type": "web_search"}, id="beside another"),
        pytest.param([SEARCH, tool()], {"type": "any"}, "required", id="any of two"),
        pytest.param(
            [SEARCH, tool()],
            {"type": "tool", "name": "Bash"},
            {"type": "function", "name": "Bash"},
            id="the other",
        ),
    ],
)
def test_a_search_can_be_forced_at_responses(tools: list[Json], choice: Json, sent: Any) -> None:
    assert responses_body(tools=tools, tool_choice=choice)["tool_choice"] == sent


@pytest.mark.parametrize(
    ("effort", "sent"), [("minimal", "low"), ("high", "high")], ids=["one that cannot search", "one that can"]
)
def test_the_effort_is_one_that_can_search(effort: str, sent: str) -> None:
    settings = (
        {"thinking": {"type": "disabled"}} if effort == "minimal" else {"output_config": {"effort": effort}}
    )
    assert responses_body(tools=[SEARCH], **settings)["reasoning"]["effort"] == sent


def test_without_a_search_nothing_of_it_is_sent() -> None:
    assert not {"tools", "max_tool_calls", "tool_choice"} & set(responses_body())


# --- Responses: answers


def search_call(n: int = 1, query: str | None = "q", *urls: str, **action: Any) -> Json:
    sources = [{"type": "url", "url": url} for url in urls]
    fields = {"type": "search", "query": query, "queries": [query], "sources": sources, **action}
    return {"type": "web_search_call", "id": f"ws_{n}", "status": "completed", "action": fields}


def url_citation(url: str, title: str, start: int, end: int) -> Json:
    return {"type": "url_citation", "url": url, "title": title, "start_index": start, "end_index": end}


def message(text: str, *annotations: Json) -> Json:
    part = {"type": "output_text", "text": text, "annotations": [*annotations]}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def event(type: str, **fields: Any) -> Json:
    return {"type": f"response.{type}", "sequence_number": 0, **fields}


def response(*output: Json) -> Json:
    usage = {"input_tokens": 10, "output_tokens": 5}
    return {"status": "completed", "model": "gpt-5", "output": [*output], "usage": usage}


def streamed_items(*output: Json, annotations_in_events: bool = False, at_the_end: bool = True) -> list[Json]:
    """The events that OpenAI makes of these items."""
    events = []
    for place, item in enumerate(output):
        started = {**item, "status": "in_progress"}
        started.pop("action", None)
        if item["type"] == "message":
            started["content"] = []
        events.append(event("output_item.added", output_index=place, item=started))
        at = {"item_id": item["id"], "output_index": place}
        if item["type"] == "web_search_call":
            names = ("in_progress", "searching", "completed")
            events += [event(f"web_search_call.{name}", **at) for name in names]
        if item["type"] == "message":
            (part,) = item["content"]
            at["content_index"] = 0
            events += [
                event("output_text.delta", **at, delta=piece)
                for piece in (part["text"][:3], part["text"][3:])
            ]
            events += [
                event("output_text.annotation.added", **at, annotation_index=index, annotation=annotation)
                for index, annotation in enumerate(part["annotations"])
            ]
            events.append(event("output_text.done", **at, text=part["text"]))
            if annotations_in_events:
                item = {**item, "content": [{**part, "annotations": []}]}
        events.append(event("output_item.done", output_index=place, item=item))
    return [*events, event("completed", response=response(*(output if at_the_end else ())))]


def chunks_of(*events: Json) -> list[Chunk]:
    stream = ResponsesStream()
    return [chunk for one in events for chunk in stream.feed(json.dumps(one).encode())]


def script(*events: Json, **settings: Any) -> list[str]:
    return answering.script(*chunks_of(*events), **{"web_search": "offered", **settings})


TEXT = "Paris ([a.com](https://a.com/1)) is big."
SEARCHED = (
    search_call(1, "capital of France", "https://a.com/1", "https://b.org/2"),
    message(TEXT, url_citation("https://a.com/1", "All of A", 6, 32)),
)
ResponseFunctionWebSearch.model_validate(SEARCHED[0])
ResponseOutputText.model_validate(SEARCHED[1]["content"][0])
SHOWN = [
    "start 0 server_tool_use",
    'delta 0 {"query":"capital of France"}',
    "stop 0",
    "found 1 https://a.com/1 at https://a.com/1, https://b.org/2 at https://b.org/2",
    "stop 1",
    "start 2 text",
    "delta 2 Par",
    f"delta 2 {TEXT[3:]}",
    "cites 2 https://a.com/1 for '([a.com](https://a.com/1))'",
    "stop 2",
    "ends end_turn",
]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(streamed_items(*SEARCHED), id="as OpenAI streams"),
        pytest.param(streamed_items(*SEARCHED, annotations_in_events=True), id="citations in events alone"),
        pytest.param(streamed_items(*SEARCHED, at_the_end=False), id="nothing at the end"),
    ],
)
def test_a_search_over_responses_is_shown_with_what_it_found(events: list[Json]) -> None:
    assert script(*events) == SHOWN


def test_a_whole_response_is_the_streamed_one() -> None:
    streamed = accumulate(answering.events_of(*chunks_of(*streamed_items(*SEARCHED)), web_search="offered"))
    chunks = response_chunks(json.dumps(response(*SEARCHED)).encode())
    whole = translate_reply(chunks, answering.context(web_search="offered"), answering.options())
    assert whole == streamed


def first_blocks(*output: Json, **settings: Any) -> Any:
    message = accumulate(
        answering.events_of(*chunks_of(*streamed_items(*output)), **{"web_search": "offered", **settings})
    )
    return answering.blocks(message)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        pytest.param(
            [search_call(1, "a", "https://a.com"), search_call(2, "b", "https://b.com"), message("So.")],
            [
                ("search", '{"query":"a"}'),
                ("found", "https://a.com at https://a.com"),
                ("search", '{"query":"b"}'),
                ("found", "https://b.com at https://b.com"),
                ("text", "So."),
            ],
            id="two searches",
        ),
        pytest.param(
            [
                search_call(1, "a", "https://a.com"),
                {**search_call(2), "action": {"type": "open_page", "url": "https://a.com"}},
                {
                    **search_call(3),
                    "action": {"type": "find_in_page", "url": "https://a.com", "pattern": "x"},
                },
                message("So."),
            ],
            [
                ("search", '{"query":"a"}'),
                ("found", "https://a.com at https://a.com"),
                ("text", "So."),
            ],
            id="pages that are opened are no searches",
        ),
        pytest.param(
            [{**search_call(1, "a"), "status": "failed"}, message("Sorry.")],
            [("search", '{"query":"a"}'), ("found", "unavailable"), ("text", "Sorry.")],
            id="a search that failed",
        ),
        pytest.param(
            [search_call(1, "a"), message("Nothing.")],
            [("search", '{"query":"a"}'), ("found",), ("text", "Nothing.")],
            id="nothing found",
        ),
        pytest.param(
            [
                search_call(1, "a", sources=None),
                message("So.", url_citation("https://a.com", "A", 0, 2)),
            ],
            [("text", "So."), ("search", '{"query":"a"}'), ("found", "A at https://a.com")],
            id="sources are not told",
        ),
        pytest.param(
            [{"type": "web_search_call", "id": "ws_1", "status": "completed"}, message("So.")],
            [("text", "So."), ("search", "{}"), ("found",)],
            id="nothing is told",
        ),
        pytest.param(
            [
                search_call(
                    1,
                    "weather",
                    sources=[
                        {"type": "api", "name": "oai-weather"},
                        {"type": "url", "url": "https://a.com"},
                        7,
                    ],
                ),
                message("So."),
            ],
            [("search", '{"query":"weather"}'), ("found", "https://a.com at https://a.com"), ("text", "So.")],
            id="what is no page has no place",
        ),
        pytest.param(
            [search_call(1, None, queries=["x", "y"]), message("So.")],
            [("search", '{"query":"x"}'), ("found",), ("text", "So.")],
            id="only the list of queries",
        ),
        pytest.param(
            [
                search_call(1, "a"),
                message("So.", {"type": "file_citation", "file_id": "f", "filename": "f", "index": 0}),
            ],
            [("search", '{"query":"a"}'), ("found",), ("text", "So.")],
            id="a citation of a file",
        ),
    ],
)
def test_what_responses_tells_of_searches(output: list[Json], expected: Any) -> None:
    assert first_blocks(*output) == expected


def test_a_search_that_reasoning_led_to_comes_back_beside_it() -> None:
    """OpenAI refuses reasoning without the item that followed it."""
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}
    search = search_call(1, "a", "https://a.com")
    events = answering.events_of(
        *chunks_of(*streamed_items(reasoning, search, message("So."))), web_search="offered"
    )
    answer = accumulate(events)
    first = answer.content[0]
    kind, payload = answering.carried(first.signature)
    assert (kind, payload) == ("details", [reasoning, search])
    family = ModelProfile(family="openai")
    signature = ask(HI).reply.signer.mint("openai", "m", kind, payload)
    turns = (HI, assistant(thinking(signature), {"type": "text", "text": "So."}), user("And?"))
    body = json.loads(responses_request(ask(*turns, profile=family).chat, model="gpt-5"))
    assert [item["type"] for item in body["input"]] == [
        "message",
        "reasoning",
        "web_search_call",
        "message",
        "message",
    ]


# --- Gemini: requests


def gemini_body(model: str, *, profile: ModelProfile, **options: Any) -> Json:
    body: Json = json.loads(gemini_request(ask(HI, profile=profile, **options).chat, model))
    return body


def test_a_search_is_a_tool_of_gemini() -> None:
    body = gemini_body("gemini-2.5-flash", profile=GEMINI_2, tools=[SEARCH], tool_choice=FORCED)
    assert body["tools"] == [{"googleSearch": {}}]
    assert "toolConfig" not in body


def test_domains_can_be_left_out_at_vertex() -> None:
    search = {**SEARCH, "blocked_domains": ["a.com"]}
    vertex = profile("vertex_ai", "gemini-2.5-flash")
    body = gemini_body("gemini-2.5-flash", profile=vertex, tools=[search])
    assert body["tools"] == [{"googleSearch": {"excludeDomains": ["a.com"]}}]
    assert "leaves out no domains" in refusal(HI, profile=GEMINI_2, tools=[search])


def test_from_gemini_3_on_it_comes_beside_functions() -> None:
    body = gemini_body("gemini-3-pro", profile=GEMINI_3, tools=[SEARCH, tool()], tool_choice={"type": "auto"})
    assert [list(entry) for entry in body["tools"]] == [["functionDeclarations"], ["googleSearch"]]
    assert body["toolConfig"] == {
        "functionCallingConfig": {"mode": "AUTO"},
        "includeServerSideToolInvocations": True,
    }


def test_before_gemini_3_functions_go_first() -> None:
    body = gemini_body("gemini-2.5-flash", profile=GEMINI_2, tools=[SEARCH, tool()])
    assert [list(entry) for entry in body["tools"]] == [["functionDeclarations"]]


# --- Gemini: answers

REDIRECT = "https://vertexaisearch.cloud.google.com/grounding-api-redirect/"


def grounding(*queries: str, chunks: Sequence[Json] = (), supports: Sequence[Json] = ()) -> Json:
    return {
        "searchEntryPoint": {"renderedContent": "<div>suggestions</div>"},
        "webSearchQueries": [*queries],
        "groundingChunks": [*chunks],
        "groundingSupports": [*supports],
    }


def web(name: str, title: str | None = None) -> Json:
    return {"web": {"uri": REDIRECT + name, **({"title": title} if title else {})}}


def support(text: str, *chunks: int) -> Json:
    segment = {"startIndex": 0, "endIndex": len(text.encode()), "text": text}
    return {"segment": segment, "groundingChunkIndices": [*chunks], "confidenceScores": []}


def part_of_answer(*parts: Json, finish: str | None = None, **candidate: Any) -> Json:
    fields: Json = {"content": {"parts": [*parts], "role": "model"}, **candidate}
    if finish:
        fields["finishReason"] = finish
    return {"candidates": [fields], "modelVersion": "gemini-2.5-flash"}


def gemini_script(*answers: Json) -> list[str]:
    decoder = GeminiDecoder()
    chunks = [chunk for answer in answers for chunk in decoder.feed(data(answer))[0]]
    return answering.script(*chunks, *decoder.end()[0], web_search="offered")


GROUNDED = grounding(
    "capital of France", "Paris size", chunks=[web("A", "a.com"), web("B")], supports=[support("Paris", 0, 1)]
)
SEARCH_OF_GEMINI = [
    'delta {} {{"query":"capital of France; Paris size"}}',
    f"found {{}} a.com at {REDIRECT}A, {REDIRECT}B at {REDIRECT}B",
]


def test_a_streamed_search_of_gemini_follows_its_text() -> None:
    answers = [
        part_of_answer({"text": "Par"}),
        part_of_answer({"text": "is"}, finish="STOP", groundingMetadata=GROUNDED),
    ]
    assert gemini_script(*answers) == [
        "start 0 text",
        "delta 0 Par",
        "delta 0 is",
        f"cites 0 {REDIRECT}A for 'Paris'",
        f"cites 0 {REDIRECT}B for 'Paris'",
        "stop 0",
        "start 1 server_tool_use",
        SEARCH_OF_GEMINI[0].format(1),
        "stop 1",
        SEARCH_OF_GEMINI[1].format(2),
        "stop 2",
        "ends end_turn",
    ]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(
            [part_of_answer({"text": "Paris"}, finish="STOP", groundingMetadata=GROUNDED)], id="whole"
        ),
    ],
)
def test_a_whole_search_of_gemini_precedes_its_text(answers: list[Json]) -> None:
    assert gemini_script(*answers) == [
        "start 0 server_tool_use",
        SEARCH_OF_GEMINI[0].format(0),
        "stop 0",
        SEARCH_OF_GEMINI[1].format(1),
        "stop 1",
        "start 2 text",
        "delta 2 Paris",
        f"cites 2 {REDIRECT}A for 'Paris'",
        f"cites 2 {REDIRECT}B for 'Paris'",
        "stop 2",
        "ends end_turn",
    ]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(
            [
                part_of_answer({"text": "Paris"}, groundingMetadata=GROUNDED),
                part_of_answer(finish="STOP"),
            ],
            id="told early",
        ),
        pytest.param(
            [
                part_of_answer({"text": "Paris"}, groundingMetadata=grounding("capital of France")),
                {"candidates": [{"finishReason": "STOP", "groundingMetadata": GROUNDED}]},
            ],
            id="told again and in full, without content",
        ),
        pytest.param(
            [
                part_of_answer({"text": "Paris"}, finish="STOP"),
                {"candidates": [{"groundingMetadata": GROUNDED}], "usageMetadata": {"promptTokenCount": 1}},
            ],
            id="told after the finish reason",
        ),
    ],
)
def test_whenever_gemini_tells_of_its_search_it_is_shown(answers: list[Json]) -> None:
    lines = gemini_script(*answers)
    assert lines.count(SEARCH_OF_GEMINI[0].format(1)) == 1
    assert lines.count(SEARCH_OF_GEMINI[1].format(2)) == 1
    assert f"cites 0 {REDIRECT}A for 'Paris'" in lines


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({}, id="empty"),
        pytest.param(grounding(), id="no query and no page"),
        pytest.param({"webSearchQueries": None, "groundingChunks": "x", "groundingSupports": [7]}, id="odd"),
    ],
)
def test_what_tells_of_no_search_shows_none(metadata: Json) -> None:
    answer = part_of_answer({"text": "Paris"}, finish="STOP", groundingMetadata=metadata)
    assert gemini_script(answer) == ["start 0 text", "delta 0 Paris", "stop 0", "ends end_turn"]


def test_odd_pages_and_indices_of_gemini_are_passed_over() -> None:
    odd = grounding(
        "q",
        chunks=[{"web": {"uri": ""}}, {"maps": {"uri": "https://maps"}}, 7, web("A", "a.com")],
        supports=[support("Paris", 0, 3, 99, -1), {"segment": None}],
    )
    lines = gemini_script(part_of_answer({"text": "Paris"}, finish="STOP", groundingMetadata=odd))
    assert [line for line in lines if line.startswith(("found", "cites"))] == [
        f"found 1 a.com at {REDIRECT}A",
        f"cites 2 {REDIRECT}A for 'Paris'",
    ]


def test_tools_that_gemini_tells_to_have_run_are_no_calls_of_the_client() -> None:
    call = {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "args": {"queries": ["q"]}, "id": "x"}}
    answered = {"toolResponse": {"toolType": "GOOGLE_SEARCH_WEB", "response": {}, "id": "x"}}
    answer = part_of_answer(
        call, answered, {"text": "So."}, finish="STOP", groundingMetadata=grounding("q", chunks=[web("A")])
    )
    assert gemini_script(answer)[-4:] == ["start 2 text", "delta 2 So.", "stop 2", "ends end_turn"]
