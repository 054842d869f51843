"""OpenAI's Responses API: its requests, what becomes of its answers, and how its reasoning comes back.
The numbers are those of wire.md."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent, response_create_params
from pydantic import TypeAdapter

from routeproxy.chat.completion import Chunk
from routeproxy.messages.events import Error, Event, accumulate
from routeproxy.messages.reply import Message, ThinkingBlock, encode
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.reply import translate_reply
from routeproxy.upstream.chat.responses import ResponsesStream, response_chunks
from routeproxy.upstream.chat.responses_request import responses_request
from tests.budgets import examples
from tests.invariants import check
from tests.translate import answering
from tests.translate.answering import TOOLS
from tests.translate.asking import (
    SIGNER,
    Json,
    ask,
    assistant,
    call,
    document,
    image,
    image_url,
    result,
    system,
    text,
    tool,
    user,
)

FAMILY = "openai_responses openai/gpt-5.4"
RESPONSES = ModelProfile(family=FAMILY, images_in_tool_messages=True, stop_limit=0, prompt_cache_key=True)
"""As `upstream/chat/profiles.py` has it for this API."""

# --- requests


def body_of(*turns: Json, reasons: bool = True, **options: Any) -> Json:
    translated = ask(*turns, **{"profile": RESPONSES, **options})
    body: Json = json.loads(responses_request(translated.chat, model="gpt-5.4", reasons=reasons))
    assert set(body) <= set(response_create_params.ResponseCreateParamsStreaming.__annotations__)
    return body


def items(*turns: Json, **options: Any) -> list[Json]:
    input: list[Json] = body_of(*turns, **options)["input"]
    return input


def said(role: str, *parts: Json | str) -> Json:
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": part} if isinstance(part, str) else part for part in parts]
    return {"type": "message", "role": role, "content": content}


def called(id: str = "call_1", name: str = "Bash", arguments: str = "{}") -> Json:
    return {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}


def answered(output: Any, id: str = "call_1") -> Json:
    return {"type": "function_call_output", "call_id": id, "output": output}


PIXELS = {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "auto"}


class TestRequests:
    def test_the_least_that_is_asked(self) -> None:
        assert body_of(user("Hi")) == {
            "model": "gpt-5.4",
            "input": [said("user", "Hi")],
            "max_output_tokens": 100,
            "reasoning": {"summary": "auto"},
            "include": ["reasoning.encrypted_content"],
            "store": False,
        }

    def test_a_model_that_does_not_reason_hears_nothing_of_reasoning(self) -> None:
        body = body_of(user("Hi"), reasons=False)
        assert not {"reasoning", "include"} & set(body)

    def test_the_system_prompt_is_the_instructions(self) -> None:
        body = body_of(user("Hi"), system=[text("Be brief."), text("Be kind.")])
        assert body["instructions"] == "Be brief.\n\nBe kind."
        assert body["input"] == [said("user", "Hi")]

    def test_b04_a_system_turn_in_between_is_the_developers(self) -> None:
        turns = (user("Hi"), assistant("Hello"), system("Only French."), user("Bye"))
        assert items(*turns) == [
            said("user", "Hi"),
            said("assistant", "Hello"),
            said("developer", "Only French."),
            said("user", "Bye"),
        ]

    def test_images_and_documents_are_input(self) -> None:
        pdf = document({"type": "base64", "media_type": "application/pdf", "data": "aGk="}, title="a.pdf")
        turn = user(text("Look:"), image(), image_url("https://example.com/a.png"), pdf)
        assert items(turn) == [
            said(
                "user",
                "Look:",
                PIXELS,
                PIXELS | {"image_url": "https://example.com/a.png"},
                {
                    "type": "input_file",
                    "filename": "a.pdf",
                    "file_data": "data:application/pdf;base64,aGk=",
                },
            )
        ]

    def test_text_comes_before_calls_and_results_after_both(self) -> None:
        turns = (
            user("Go"),
            assistant(text("Two "), text("calls."), call("a", input={"b": 1, "a": 2}), call("b", "Read")),
            user(result("b", "B"), text("And?"), result("a", "A")),
        )
        assert items(*turns, tools=[tool("Bash"), tool("Read")]) == [
            said("user", "Go"),
            said("assistant", "Two calls."),
            called("a", arguments='{"b":1,"a":2}'),
            called("b", "Read"),
            answered("A", "a"),
            answered("B", "b"),
            said("user", "And?"),
        ]

    def test_b20_an_image_in_a_result_stays_there(self) -> None:
        turns = (user("Go"), assistant(call()), user(result("call_1", text("Seen:"), image())))
        assert items(*turns)[-1] == answered([{"type": "input_text", "text": "Seen:"}, PIXELS])

    def test_b36_long_ids_are_short_and_still_pair(self) -> None:
        id = "call_" + 75 * "x"
        _, sent, came = items(user("Go"), assistant(call(id)), user(result(id, "A")))
        assert sent["call_id"] == came["call_id"]
        assert len(sent["call_id"]) <= 64

    def test_tools_are_flat_and_say_whether_they_are_strict(self) -> None:
        closed = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
        tools = [
            tool("a", description="Does."),
            {"name": "b", "input_schema": closed, "strict": True},
        ]
        assert body_of(user("Hi"), tools=tools)["tools"] == [
            {
                "type": "function",
                "name": "a",
                "description": "Does.",
                "parameters": {"type": "object", "properties": {}},
                "strict": False,
            },
            {"type": "function", "name": "b", "parameters": closed, "strict": True},
        ]

    @pytest.mark.parametrize(
        ("choice", "sent"),
        [
            pytest.param({"type": "auto"}, "auto", id="auto"),
            pytest.param({"type": "any"}, "required", id="any"),
            pytest.param({"type": "none"}, "none", id="none"),
            pytest.param({"type": "tool", "name": "Bash"}, {"type": "function", "name": "Bash"}, id="one"),
        ],
    )
    def test_c11_tool_choice(self, choice: Json, sent: Any) -> None:
        assert body_of(user("Hi"), tools=[tool()], tool_choice=choice)["tool_choice"] == sent

    @pytest.mark.parametrize(
        ("params", "sent"),
        [
            pytest.param({"max_tokens": 5}, {"max_output_tokens": 16}, id="a limit below the least"),
            pytest.param(
                {"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}, id="sampling"
            ),
            pytest.param({"stream": True}, {"stream": True}, id="stream"),
            pytest.param({"metadata": {"user_id": "u1"}}, {"user": "u1"}, id="user"),
            pytest.param({"session": "s1"}, {"prompt_cache_key": "s1"}, id="session"),
            pytest.param(
                {"output_config": {"effort": "high"}},
                {"reasoning": {"effort": "high", "summary": "auto"}},
                id="effort",
            ),
            pytest.param(
                {
                    "thinking": {"type": "disabled"},
                    "profile": ModelProfile(family=FAMILY, thinking_off={"reasoning_effort": "none"}),
                },
                {"reasoning": {"effort": "none"}},
                id="no thinking, so nothing to sum up",
            ),
            pytest.param(
                {"speed": "fast", "profile": ModelProfile(priority_tier=True)},
                {"service_tier": "priority"},
                id="speed",
            ),
            pytest.param(
                {
                    "tools": [tool()],
                    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
                },
                {"parallel_tool_calls": False},
                id="one call at a time",
            ),
            pytest.param(
                {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
                {
                    "text": {
                        "format": {
                            "type": "json_schema",
                            "name": "output",
                            "schema": {"type": "object"},
                            "strict": False,
                        }
                    }
                },
                id="format",
            ),
        ],
    )
    def test_parameters(self, params: Json, sent: Json) -> None:
        body = body_of(user("Hi"), **params)
        assert {name: body.get(name) for name in sent} == sent

    def test_stop_strings_are_not_sent(self) -> None:
        assert "stop" not in body_of(user("Hi"), stop_sequences=["END"])


# --- what a back end answers


def reasoning(*summary: str, id: str = "rs_1", secret: str | None = "opaque", **more: Any) -> Json:
    parts = [{"type": "summary_text", "text": part} for part in summary]
    return {"type": "reasoning", "id": id, "summary": parts, "encrypted_content": secret, **more}


def message(*texts: str, id: str = "msg_1", **more: Any) -> Json:
    parts = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {
        "type": "message",
        "id": id,
        "role": "assistant",
        "status": "completed",
        "content": parts,
        **more,
    }


def refusal(text: str) -> Json:
    return message() | {"content": [{"type": "refusal", "refusal": text}]}


def function_call(name: str = "read", arguments: str = '{"path":"a"}', n: int = 1) -> Json:
    return {
        "type": "function_call",
        "id": f"fc_{n}",
        "call_id": f"call_{n}",
        "name": name,
        "arguments": arguments,
        "status": "completed",
    }


USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 0},
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 40},
    "total_tokens": 150,
}


def response(*output: Json, status: str = "completed", **fields: Any) -> Json:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": "gpt-5.4-2026",
        "output": [*output],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE,
        **fields,
    }


def event(type: str, **fields: Any) -> Json:
    return {"type": f"response.{type}", "sequence_number": 0, **fields}


CREATED = event("created", response=response(status="in_progress", usage=None))


def completed(*output: Json) -> Json:
    return event("completed", response=response(*output))


def incomplete(reason: str | None, *output: Json) -> Json:
    details = {"incomplete_details": {"reason": reason}} if reason else {}
    return event("incomplete", response=response(*output, status="incomplete", **details))


def failed(error: Json | None) -> Json:
    return event("failed", response=response(status="failed", error=error))


EMPTY = {"content": [], "summary": [], "arguments": "", "encrypted_content": None, "status": "in_progress"}


def added(item: Json, at: int = 0) -> Json:
    empty = {name: EMPTY.get(name, value) for name, value in item.items()}
    return event("output_item.added", output_index=at, item=empty)


def done(item: Json, at: int = 0) -> Json:
    return event("output_item.done", output_index=at, item=item)


def says(delta: str, item: str = "msg_1", at: int = 0, part: int = 0) -> Json:
    place = {"item_id": item, "output_index": at, "content_index": part}
    return event("output_text.delta", delta=delta, logprobs=[], **place)


def said_all(text: str, item: str = "msg_1", at: int = 0, part: int = 0) -> Json:
    place = {"item_id": item, "output_index": at, "content_index": part}
    return event("output_text.done", text=text, logprobs=[], **place)


def thinks(delta: str, item: str = "rs_1", at: int = 0, part: int = 0) -> Json:
    place = {"item_id": item, "output_index": at, "summary_index": part}
    return event("reasoning_summary_text.delta", delta=delta, **place)


def thought_all(text: str, item: str = "rs_1", at: int = 0, part: int = 0) -> Json:
    place = {"item_id": item, "output_index": at, "summary_index": part}
    return event("reasoning_summary_text.done", text=text, **place)


def thinks_aloud(delta: str, item: str = "rs_1", at: int = 0, part: int = 0) -> Json:
    place = {"item_id": item, "output_index": at, "content_index": part}
    return event("reasoning_text.delta", delta=delta, **place)


def argues(delta: str, item: str = "fc_1", at: int = 0) -> Json:
    return event("function_call_arguments.delta", delta=delta, item_id=item, output_index=at)


def argued_all(arguments: str, item: str = "fc_1", at: int = 0) -> Json:
    place = {"item_id": item, "output_index": at, "name": "read"}
    return event("function_call_arguments.done", arguments=arguments, **place)


def refuses(delta: str) -> Json:
    return event("refusal.delta", delta=delta, item_id="msg_1", output_index=0, content_index=0)


# What becomes of it


OURS: Json = {"signer": SIGNER, "family": FAMILY}


def chunks_of(*events: Json) -> list[Chunk]:
    stream = ResponsesStream()
    return [chunk for event in events for chunk in stream.feed(json.dumps(event).encode())]


def script(*events: Json) -> list[str]:
    return answering.script(*chunks_of(*events))


def streamed(*events: Json, **settings: Any) -> Message | Error:
    return accumulate(answering.events_of(*chunks_of(*events), **OURS, **settings))


def whole(body: Json | bytes, **settings: Any) -> Message | Error:
    return translate_reply(
        response_chunks(body if isinstance(body, bytes) else json.dumps(body).encode()),
        answering.context(**OURS, **settings),
        answering.options(),
    )


def brought_back(answer: Message | Error) -> list[tuple[str, Any]]:
    """What the thinking blocks of an answer carry, and as what."""
    assert isinstance(answer, Message), answer
    signatures = [block.signature for block in answer.content if isinstance(block, ThinkingBlock)]
    return [(opened.kind, opened.payload) for signature in signatures if (opened := SIGNER.open(signature))]


EVENTS = [
    CREATED,
    completed(reasoning("Hm."), message("Hello", phase="final_answer"), function_call()),
    incomplete("max_output_tokens", message("Hel")),
    failed({"code": "server_error", "message": "boom"}),
    added(reasoning()),
    done(reasoning("Hm.")),
    added(message("Hello")),
    done(refusal("No.")),
    done(function_call()),
    says("Hello"),
    said_all("Hello"),
    thinks("Hm."),
    thinks_aloud("Hm."),
    argues("{}"),
    argued_all("{}"),
    refuses("No."),
    {"type": "error", "code": "server_error", "message": "boom", "param": None, "sequence_number": 1},
]


@pytest.mark.parametrize("known", EVENTS, ids=lambda known: known["type"])
def test_the_events_here_are_the_apis_own(known: Json) -> None:
    judge: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    assert judge.validate_python(known).type == known["type"]


class TestStreams:
    def test_a_whole_turn(self) -> None:
        events = (
            CREATED,
            event("in_progress", response=response(status="in_progress", usage=None)),
            added(reasoning(), 0),
            event(
                "reasoning_summary_part.added",
                item_id="rs_1",
                output_index=0,
                summary_index=0,
                part={"type": "summary_text", "text": ""},
            ),
            thinks("Let me "),
            thinks("think."),
            done(reasoning("Let me think."), 0),
            added(message(""), 1),
            says("Hel", at=1),
            says("lo.", at=1),
            said_all("Hello.", at=1),
            done(message("Hello."), 1),
            added(function_call(), 2),
            argues('{"path":', at=2),
            argues('"a"}', at=2),
            argued_all('{"path":"a"}', at=2),
            done(function_call(), 2),
            completed(reasoning("Let me think."), message("Hello."), function_call()),
        )
        assert script(*events) == [
            "start 0 thinking",
            "delta 0 Let me ",
            "delta 0 think.",
            "signature 0",
            "stop 0",
            "start 1 text",
            "delta 1 Hel",
            "delta 1 lo.",
            "stop 1",
            "start 2 tool_use call_1 read",
            'delta 2 {"path":',
            'delta 2 "a"}',
            "stop 2",
            "ends tool_use",
        ]

    @pytest.mark.parametrize(
        "events",
        [
            pytest.param([added(message("")), said_all("Hi"), done(message("Hi"))], id="the text's end"),
            pytest.param([added(message("")), done(message("Hi"))], id="the item's end"),
            pytest.param([added(message(""))], id="the response's end"),
            pytest.param([], id="the response's end, of an item never announced"),
        ],
    )
    def test_text_that_comes_only_with(self, events: list[Json]) -> None:
        assert script(*events, completed(message("Hi"))) == [
            "start 0 text",
            "delta 0 Hi",
            "stop 0",
            "ends end_turn",
        ]

    @pytest.mark.parametrize(
        "events",
        [
            pytest.param(
                [added(function_call()), argued_all('{"path":"a"}'), done(function_call())], id="theirs"
            ),
            pytest.param([added(function_call()), done(function_call())], id="the item's"),
            pytest.param([argued_all('{"path":"a"}'), done(function_call())], id="theirs, before the name"),
            pytest.param([added(function_call())], id="the response's"),
            pytest.param([], id="the response's, of an item never announced"),
        ],
    )
    def test_d49_arguments_that_come_only_with_an_end(self, events: list[Json]) -> None:
        assert script(*events, completed(function_call())) == [
            "start 0 tool_use call_1 read",
            'delta 0 {"path":"a"}',
            "stop 0",
            "ends tool_use",
        ]

    def test_d50_reasoning_and_a_call_in_one_place_stay_apart(self) -> None:
        events = (
            added(reasoning()),
            thinks("Hm."),
            added(function_call()),
            argues('{"path":'),
            done(reasoning("Hm.")),
            argues('"a"}'),
            done(function_call()),
            completed(reasoning("Hm."), function_call()),
        )
        assert answering.blocks(streamed(*events)) == [
            ("thinking", "Hm."),
            ("tool_use", "read", '{"path":"a"}'),
            ("thinking", ""),
        ]
        assert brought_back(streamed(*events))[-1] == ("details", [reasoning("Hm.")])

    def test_d50_so_do_two_calls_and_two_texts(self) -> None:
        one, two = function_call(n=1), function_call("write", '{"b":2}', n=2)
        events = (added(one), added(two), argues('{"b":2}', "fc_2"), argues('{"path":"a"}', "fc_1"))
        ends = (done(two), done(one), done(message("A")), done(message("B", id="msg_2")))
        assert answering.blocks(streamed(*events, *ends, completed())) == [
            ("tool_use", "read", '{"path":"a"}'),
            ("tool_use", "write", '{"b":2}'),
            ("text", "AB"),
        ]

    def test_ids_may_change_from_event_to_event(self) -> None:
        events = (
            added(message("", id="x1")),
            says("Hel", "x2"),
            says("lo", "x3"),
            said_all("Hello", "x4"),
            done(message("Hello", id="x5")),
            added(function_call(), 1),
            argues('{"path":', "x6", 1),
            argues('"a"}', "x7", 1),
            done(function_call() | {"id": "x8"}, 1),
            completed(message("Hello", id="x9"), function_call() | {"id": "x10"}),
        )
        assert answering.blocks(streamed(*events)) == [
            ("text", "Hello"),
            ("tool_use", "read", '{"path":"a"}'),
        ]

    def test_d13_interleaved_arguments_find_their_calls(self) -> None:
        events = (
            added(function_call(n=1), 0),
            added(function_call("write", n=2), 1),
            argues('{"a"', "fc_1", 0),
            argues('{"b"', "fc_2", 1),
            argues(":1}", "fc_1", 0),
            argues(":2}", "fc_2", 1),
            completed(),
        )
        assert answering.blocks(streamed(*events)) == [
            ("tool_use", "read", '{"a":1}'),
            ("tool_use", "write", '{"b":2}'),
        ]

    def test_parts_of_a_summary_are_paragraphs(self) -> None:
        item = reasoning("One.", "Two.")
        events = (added(item), thinks("One."), thinks("Tw", part=1), thinks("o.", part=1), done(item))
        assert answering.blocks(streamed(*events, completed())) == [("thinking", "One.\n\nTwo.")]

    def test_reasoning_is_shown_once_where_it_comes_with_a_summary(self) -> None:
        item = reasoning("So.", content=[{"type": "reasoning_text", "text": "Well, so."}])
        events = (added(item), thinks_aloud("Well, so."), thinks("So."), done(item))
        assert answering.blocks(streamed(*events, completed(item))) == [("thinking", "Well, so.")]
        assert answering.blocks(whole(response(item))) == [("thinking", "Well, so.")]

    def test_a_refusal_is_one(self) -> None:
        events = (added(refusal("")), refuses("I "), refuses("can't."), done(refusal("I can't.")))
        answer = streamed(*events, completed(refusal("I can't.")))
        assert answering.blocks(answer) == [("text", "I can't.")]
        assert isinstance(answer, Message)
        assert answer.stop_reason == "refusal"
        assert answer == whole(response(refusal("I can't.")))

    def test_e06_usage_tells_cached_and_reasoning_tokens_apart(self) -> None:
        answer = streamed(done(message("Hi")), completed())
        assert isinstance(answer, Message)
        assert json.loads(encode(answer))["usage"] == {
            "input_tokens": 40,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 60,
            "output_tokens": 50,
            "output_tokens_details": {"thinking_tokens": 40},
        }

    def test_the_model_that_served_is_told_first(self) -> None:
        assert [chunk.model for chunk in chunks_of(CREATED, says("Hi"))] == ["gpt-5.4-2026", None]

    def test_what_runs_at_openai_is_passed_over(self) -> None:
        search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}}
        events = (
            added(search),
            event("web_search_call.searching", item_id="ws_1", output_index=0),
            done(search),
            says("Found.", at=1),
            event("output_text.annotation.added", annotation={}, item_id="msg_1", output_index=1),
        )
        assert script(*events, completed(search, message("Found."))) == [
            "start 0 text",
            "delta 0 Found.",
            "stop 0",
            "ends end_turn",
        ]

    def test_d56_half_characters_are_joined(self) -> None:
        high, low = (
            f'{{"type":"response.output_text.delta","delta":"{half}"}}' for half in ("\\ud83d", "\\ude00")
        )
        stream = ResponsesStream()
        chunks = [*stream.feed(high.encode()), *stream.feed(low.encode()), *chunks_of(completed())]
        assert answering.blocks(accumulate(answering.events_of(*chunks))) == [("text", "😀")]


class TestWhatIsSaidAgain:
    """What a text's, an item's and the response's end say is held against what was streamed."""

    SAYS_HI = (added(message("")), says("Hi "), says("there"))
    CALLS = (added(function_call()), argues('{"path":'))
    WHOLE = message("Hi there, you")
    ARGUMENTS = '{"path":"a"}'

    @pytest.mark.parametrize(
        "events",
        [
            pytest.param([*SAYS_HI, said_all("Hi there, you"), completed()], id="the text's end"),
            pytest.param([*SAYS_HI, done(WHOLE), completed()], id="the item's end"),
            pytest.param([*SAYS_HI, completed(WHOLE)], id="the response's end"),
            pytest.param([*SAYS_HI, completed(WHOLE | {"id": "x"})], id="under another id"),
            pytest.param([*SAYS_HI, said_all("Hi there"), done(WHOLE), completed(WHOLE)], id="two of them"),
            pytest.param([*SAYS_HI, incomplete("max_output_tokens", WHOLE)], id="a cut answer's end"),
        ],
    )
    def test_a_tail_of_text_that_was_missing_is_added(self, events: list[Json]) -> None:
        assert answering.blocks(streamed(*events)) == [("text", "Hi there, you")]

    @pytest.mark.parametrize(
        "events",
        [
            pytest.param([*CALLS, argued_all(ARGUMENTS), completed()], id="the arguments' end"),
            pytest.param([*CALLS, done(function_call()), completed()], id="the item's end"),
            pytest.param([*CALLS, completed(function_call())], id="the response's end"),
            pytest.param([*CALLS, completed(function_call() | {"id": "x"})], id="under another id"),
        ],
    )
    def test_so_is_one_of_arguments(self, events: list[Json]) -> None:
        assert answering.blocks(streamed(*events)) == [("tool_use", "read", self.ARGUMENTS)]

    @pytest.mark.parametrize(
        "events",
        [
            pytest.param([*SAYS_HI, said_all("Hi you")], id="the text's end"),
            pytest.param([*SAYS_HI, said_all("Hi")], id="the text's end, which is shorter"),
            pytest.param([*SAYS_HI, done(message("Hello"))], id="the item's end"),
            pytest.param([*SAYS_HI, completed(message("Hello"))], id="the response's end"),
            pytest.param([*SAYS_HI, completed(message("Hello", id="x"))], id="under another id"),
            pytest.param([added(refusal("")), refuses("I won't"), done(refusal("I will"))], id="a refusal"),
            pytest.param([*CALLS, argued_all('{"file":"a"}')], id="the arguments' end"),
            pytest.param([*CALLS, done(function_call(arguments='{"a":1}'))], id="the call's end"),
            pytest.param([*CALLS, completed(function_call(arguments="{}"))], id="the call at the end"),
            pytest.param([*CALLS, done(function_call("write"))], id="another tool"),
        ],
    )
    def test_what_contradicts_it_is_a_failure(self, events: list[Json]) -> None:
        lines = script(*events, completed())
        assert lines[-1] == (
            "error api_error: the back end streamed something else than what it says at the end of it"
        )

    @pytest.mark.parametrize(
        "events",
        [
            pytest.param([*SAYS_HI, said_all("Hi there\n")], id="white space"),
            pytest.param([*SAYS_HI, said_all(""), done(message(""))], id="nothing"),
            pytest.param([*SAYS_HI, done(message("Hi there", id="x"))], id="another id"),
            pytest.param([*SAYS_HI, done(message("Hi ", "there"))], id="other parts"),
            pytest.param(
                [*SAYS_HI, done(message("Hi there") | {"content": [{"type": "text", "text": "Hi there"}]})],
                id="as chat calls it",
            ),
            pytest.param(
                [
                    says("Hi "),
                    said_all("Hi "),
                    says("there"),
                    said_all("there"),
                    completed(message("Hi there")),
                ],
                id="all parts with one number",
            ),
        ],
    )
    def test_what_says_the_same_in_other_words_is_none(self, events: list[Json]) -> None:
        (block,) = answering.blocks(streamed(*events, completed()))
        assert block[1].strip() == "Hi there"

    def test_arguments_may_be_written_anew(self) -> None:
        events = (added(function_call()), argues('{"path": "a"}'), argued_all('{"path":"a"}'))
        assert answering.blocks(streamed(*events, done(function_call()), completed(function_call()))) == [
            ("tool_use", "read", '{"path": "a"}')
        ]

    def test_an_emoji_may_have_come_in_halves(self) -> None:
        halves = [says("ok \ud83d"), says("\ude00"), said_all("ok 😀"), completed(message("ok 😀!"))]
        assert answering.blocks(streamed(*halves)) == [("text", "ok 😀!")]

    @pytest.mark.parametrize("id", ["fc_1", "x"])
    @pytest.mark.parametrize(
        "ends",
        [
            pytest.param(lambda one: [done(one, 1), completed()], id="the item's end"),
            pytest.param(lambda one: [completed(message("Hi there"), one)], id="the response's end"),
            pytest.param(lambda one: [done(one, 1), completed(message("Hi there"), one)], id="both"),
        ],
    )
    def test_a_call_that_stands_only_in(self, ends: Callable[[Json], list[Json]], id: str) -> None:
        answer = streamed(*self.SAYS_HI, *ends(function_call() | {"id": id}))
        assert answering.blocks(answer) == [("text", "Hi there"), ("tool_use", "read", self.ARGUMENTS)]
        assert isinstance(answer, Message)
        assert answer.stop_reason == "tool_use"

    def test_a_second_call_of_the_same_kind_is_another(self) -> None:
        one, two = function_call(n=1), function_call(n=2)
        assert len(answering.blocks(streamed(added(one), done(one), completed(one, two)))) == 2

    def test_a_call_that_never_gets_a_name_is_a_failure(self) -> None:
        nameless = function_call() | {"name": ""}
        assert script(says("Hi"), done(nameless), completed(nameless))[-1] == (
            "error api_error: upstream called a tool without a name"
        )

    @pytest.mark.parametrize(
        "item",
        [
            pytest.param({"type": "image_generation_call", "id": "ig_1", "result": "iVBOR"}, id="a picture"),
            pytest.param(
                {"type": "custom_tool_call", "id": "ct_1", "name": "sh", "input": "ls"}, id="a call"
            ),
            pytest.param(message("") | {"content": [{"type": "output_audio", "data": "UklG"}]}, id="sound"),
        ],
    )
    def test_a_response_of_nothing_that_is_read_is_a_failure(self, item: Json) -> None:
        nothing = "error api_error: upstream answered with nothing that can be handed on: "
        assert script(done(item), completed(item))[-1].startswith(nothing)
        assert script(completed(item))[-1].startswith(nothing)
        assert script(says("Hi", at=1), completed(item, message("Hi")))[-1] == "ends end_turn"


class TestFrames:
    @pytest.mark.parametrize(
        "frame",
        [
            *(b"{", b"null", b"7", b'"hi"', b"<html>", b'{"type":"response.output_text.delta","delta":"a'),
            *(b'{"choices":[]}', b'{"type":7}', b'{"delta":"hi"}'),
            *(b'{"type":"response.in_progress","response":{', b'{"type":"response.created","response":7}'),
        ],
    )
    def test_one_that_is_no_event_is_refused(self, frame: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            ResponsesStream().feed(frame)

    @pytest.mark.parametrize(
        ("frame", "message"),
        [
            (b'{"detail":"Not allowed"}', "Not allowed"),
            (b'{"object":"error","message":"boom","code":500}', "boom"),
            (b'{"error":"boom"}', "boom"),
            (b'[{"error":{"message":"boom"}}]', "boom"),
            (b'{"type":"response.error","message":"boom"}', "boom"),
            (b'event: error\n{"message":"boom"}', "boom"),
            (b"event: error\nboom", "boom"),
        ],
    )
    def test_one_that_is_an_error_ends_the_answer(self, frame: bytes, message: str) -> None:
        (chunk,) = ResponsesStream().feed(frame)
        assert message in str(chunk.error)

    @pytest.mark.parametrize(
        "frame",
        [b"{}", b'{"type":"keepalive","sequence_number":3}', b'{"type":"response.new_thing","x":{}}'],
    )
    def test_one_that_tells_of_progress_says_nothing(self, frame: bytes) -> None:
        assert ResponsesStream().feed(frame) == []


class TestEndings:
    @pytest.mark.parametrize(
        ("end", "reason"),
        [
            pytest.param(completed(), "end_turn", id="completed"),
            pytest.param(incomplete("max_output_tokens"), "max_tokens", id="D51 at its limit"),
            pytest.param(incomplete("content_filter"), "refusal", id="D51 filtered"),
            pytest.param(incomplete(None), "max_tokens", id="D51 for no reason"),
            pytest.param(
                event("completed", response=incomplete("max_output_tokens")["response"]),
                "max_tokens",
                id="completed, it says, and is not",
            ),
        ],
    )
    def test_it_ends(self, end: Json, reason: str) -> None:
        assert script(says("Hi"), end)[-1] == f"ends {reason}"

    def test_d25_a_call_that_was_cut_is_shown_as_far_as_it_came(self) -> None:
        cut = function_call(arguments='{"path":"a')
        events = (added(cut), argues('{"path":"a'), done(cut), incomplete("max_output_tokens", cut))
        assert script(*events) == [
            "start 0 tool_use call_1 read",
            'delta 0 {"path":"a',
            "stop 0",
            "ends max_tokens",
        ]

    @pytest.mark.parametrize(
        ("end", "error"),
        [
            pytest.param(
                failed({"code": "rate_limit_exceeded", "message": "Slow down."}),
                "rate_limit_error: Slow down.",
                id="failed",
            ),
            pytest.param(
                failed(None),
                "api_error: the response ended with status failed and gave no reason",
                id="failed without a reason",
            ),
            pytest.param(
                event("failed"),
                "api_error: the response ended with status failed and gave no reason",
                id="failed without a response",
            ),
            pytest.param(
                {"type": "error", "code": "rate_limit_exceeded", "message": "Slow down."},
                "rate_limit_error: Slow down.",
                id="error",
            ),
            pytest.param(
                {"type": "error", "error": {"code": "server_error", "message": "boom"}},
                "api_error: boom",
                id="error, wrapped",
            ),
            pytest.param(
                {"type": "error", "error": {"type": "overloaded_error"}, "message": "full"},
                "overloaded_error: full",
                id="error, half wrapped",
            ),
            pytest.param({"error": {"message": "boom"}}, "api_error: boom", id="error, as chat has it"),
            pytest.param(
                event("completed", response=response(error={"code": "server_error", "message": "boom"})),
                "api_error: boom",
                id="completed with an error",
            ),
            pytest.param(
                incomplete("solar_flare"),
                "api_error: upstream ended its answer with a finish reason that is not known: solar_flare",
                id="incomplete, nobody knows why",
            ),
            pytest.param(
                event("completed", response=response(status="cancelled")),
                "api_error: the response ended with status cancelled and gave no reason",
                id="completed, it says, and was cancelled",
            ),
            pytest.param(
                event("output_text.done", text="", item_id="msg_1"),
                "api_error: upstream closed the stream before completing",
                id="D35 ceased",
            ),
        ],
    )
    def test_d51_or_it_fails(self, end: Json, error: str) -> None:
        assert script(says("Hi"), end)[-1] == f"error {error}"

    @pytest.mark.parametrize(
        ("body", "error"),
        [
            pytest.param(response(status="failed"), "status failed", id="failed without a reason"),
            pytest.param(
                response(status="failed", error={"code": "server_error", "message": "boom"}),
                "boom",
                id="failed",
            ),
            pytest.param(
                response(message("Hi"), status="in_progress"), "status in_progress", id="unfinished"
            ),
            pytest.param(response(status="cancelled"), "status cancelled", id="cancelled"),
            pytest.param({"error": {"message": "boom"}}, "boom", id="an error in its place"),
            pytest.param({}, "status failed", id="not a response"),
            pytest.param(b"[1]", "status failed", id="not an object"),
            pytest.param(b"<html>", "status failed", id="not JSON"),
        ],
    )
    def test_d51_a_whole_response_that_is_none_is_an_error(self, body: Json | bytes, error: str) -> None:
        answer = whole(body)
        assert isinstance(answer, Error)
        assert error in answer.error.message

    def test_a_whole_response_that_was_cut_says_so(self) -> None:
        cut = response(
            message("Hel"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}
        )
        answer = whole(cut)
        assert isinstance(answer, Message)
        assert answer.stop_reason == "max_tokens"


# --- reasoning that comes back


def next_items(answer: Message | Error, *, profile: ModelProfile = RESPONSES, **options: Any) -> list[Json]:
    """What the back end sees of `answer` when the client goes on."""
    assert isinstance(answer, Message), answer
    content = json.loads(encode(answer))["content"]
    results = [result(block["id"], "done") for block in content if block["type"] == "tool_use"]
    turns = (user("Go"), assistant(*content), user(*results, text("And now?")))
    tools = [tool(name) for name in TOOLS]
    return items(*turns, profile=profile, tools=tools, **options)[1:-1]


def turn(*output: Json, **settings: Any) -> Message | Error:
    """One answer of a back end of this family, streamed."""
    events = (event for at, item in enumerate(output) for event in (added(item, at), done(item, at)))
    return streamed(*events, completed(*output), **settings)


class TestReasoningComesBack:
    def test_d52_the_item_is_carried_once_and_comes_back_equal(self) -> None:
        item = reasoning("Let me think.")
        answer = turn(item, message("Hello."), function_call())
        assert next_items(answer) == [
            item,
            said("assistant", "Hello."),
            called("call_1", "read", '{"path":"a"}'),
            answered("done", "call_1"),
        ]

    def test_d52_in_a_signature_of_its_own_kind(self) -> None:
        events = (done(reasoning("Hm.")), done(message("Hi"), 1), completed())
        assert brought_back(streamed(*events)) == [("details", [reasoning("Hm.")])]

    @pytest.mark.parametrize(
        ("item", "settings"),
        [
            pytest.param(reasoning("Hm."), {"display": "omitted"}, id="B32 not shown"),
            pytest.param(reasoning(), {}, id="B32 nothing to show"),
            pytest.param(
                reasoning(secret=None, content=[{"type": "reasoning_text", "text": "Hm."}]),
                {},
                id="in the open, as open models do",
            ),
        ],
    )
    def test_b32_thinking_without_text_brings_it_back_too(self, item: Json, settings: Json) -> None:
        answer = turn(item, function_call(), **settings)
        kept = {name: value for name, value in item.items() if value is not None}
        assert next_items(answer)[:2] == [kept, called("call_1", "read", '{"path":"a"}')]

    def test_two_items_in_one_block_stay_two(self) -> None:
        one, two = reasoning("One."), reasoning("Two.", id="rs_2", secret="other")
        answer = turn(one, two, message("Hi"))
        assert answering.blocks(answer)[0] == ("thinking", "One.\n\nTwo.")
        assert next_items(answer) == [one, two, said("assistant", "Hi")]

    def test_so_do_those_of_two_blocks(self) -> None:
        one, two = reasoning("One."), reasoning("Two.", id="rs_2", secret="other")
        answer = turn(one, message("Hm, wait."), two, function_call())
        assert [block[0] for block in answering.blocks(answer)] == [
            "thinking",
            "text",
            "thinking",
            "tool_use",
        ]
        assert next_items(answer) == [
            one,
            said("assistant", "Hm, wait."),
            two,
            called("call_1", "read", '{"path":"a"}'),
            answered("done", "call_1"),
        ]

    def test_each_stands_before_what_it_led_to(self) -> None:
        one, two, three = (reasoning(f"{n}.", id=f"rs_{n}", secret=f"secret {n}") for n in (1, 2, 3))
        output = (one, function_call(n=1), two, message("So."), function_call(n=2), three, message("And."))
        assert next_items(turn(*output)) == [
            one,
            called("call_1", "read", '{"path":"a"}'),
            two,
            said("assistant", "So."),
            called("call_2", "read", '{"path":"a"}'),
            three,
            said("assistant", "And."),
            answered("done", "call_1"),
            answered("done", "call_2"),
        ]

    def test_one_id_for_all_messages_makes_them_no_single_one(self) -> None:
        answer = turn(message("One."), function_call(), message("Two."), message("Three."))
        assert answering.blocks(answer) == [
            ("text", "One."),
            ("tool_use", "read", '{"path":"a"}'),
            ("text", "Two.Three."),
        ]

    def test_what_nothing_came_of_stays_here(self) -> None:
        one, two = reasoning("One."), reasoning("Two.", id="rs_2", secret="other")
        answer = streamed(
            *(
                event
                for at, item in enumerate((one, message("Hi"), two))
                for event in (added(item, at), done(item, at))
            ),
            incomplete("max_output_tokens"),
        )
        assert next_items(answer) == [one, said("assistant", "Hi")]

    def test_texts_keep_their_own_phases(self) -> None:
        one, two = reasoning("One."), reasoning("Two.", id="rs_2", secret="other")
        answer = turn(
            one, message("I look.", phase="commentary"), two, message("Done.", phase="final_answer")
        )
        assert next_items(answer) == [
            one,
            said("assistant", "I look.") | {"phase": "commentary"},
            two,
            said("assistant", "Done.") | {"phase": "final_answer"},
        ]

    def test_what_a_request_may_not_hold_is_left_out_and_what_it_must_is_there(self) -> None:
        item = reasoning() | {"status": "completed", "content": None}
        del item["summary"]
        answer = turn(item, function_call())
        assert next_items(answer)[0] == reasoning()

    def test_a_phase_comes_back_with_it(self) -> None:
        answer = turn(reasoning(), message("I look.", phase="commentary"), function_call())
        assert next_items(answer)[:2] == [
            reasoning(),
            said("assistant", "I look.") | {"phase": "commentary"},
        ]

    def test_but_alone_it_makes_no_block(self) -> None:
        answer = turn(message("Hello.", phase="final_answer"))
        assert answering.blocks(answer) == [("text", "Hello.")]

    def test_reasoning_of_which_there_is_only_a_summary_stays_here(self) -> None:
        answer = turn(reasoning("Hm.", secret=None), function_call())
        assert answering.blocks(answer)[0] == ("thinking", "Hm.")
        assert next_items(answer)[0] == called("call_1", "read", '{"path":"a"}')

    @pytest.mark.parametrize(
        "options",
        [
            pytest.param({"profile": ModelProfile(family="openai")}, id="chat completions"),
            pytest.param(
                {"profile": ModelProfile(family="openai_responses azure/gpt-5.4")}, id="another account"
            ),
            pytest.param({"reasons": False}, id="a model that does not reason"),
        ],
    )
    def test_it_goes_to_none_but_the_one_that_made_it(self, options: Json) -> None:
        answer = turn(reasoning("Hm."), function_call())
        assert [item["type"] for item in next_items(answer, **options)] == [
            "function_call",
            "function_call_output",
        ]


# --- laws

lawful = examples(60)

texts = st.text(max_size=6) | st.sampled_from(["Hello", "\n", " ", "😀"])
arguments = st.dictionaries(st.sampled_from("ab"), st.integers() | texts, max_size=2).map(json.dumps)
secrets = st.sampled_from(["opaque", None])
phases = st.sampled_from(["commentary", "final_answer", None])


@st.composite
def outputs(draw: st.DrawFn) -> list[Json]:
    output: list[Json] = []
    for n in range(draw(st.integers(0, 4))):
        match draw(st.sampled_from(["reasoning", "message", "function_call"])):
            case "reasoning":
                summary = draw(st.lists(texts, max_size=2))
                output.append(reasoning(*summary, id=f"rs_{n}", secret=draw(secrets)))
            case "message":
                parts = draw(st.lists(texts, max_size=2))
                output.append(message(*parts, id=f"msg_{n}", phase=draw(phases)))
            case _:
                output.append(function_call(draw(st.sampled_from(TOOLS)), draw(arguments), n))
    return output


def pieces(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]


def text_events(draw: st.DrawFn, item: Json, at: int) -> Iterator[Json]:
    """One way to stream the text of `item`: in pieces, at its own end, or not before the item's."""
    id = item["id"] if draw(st.booleans()) else "another"
    if draw(st.integers(0, 3)) == 0:
        return
    for part, whole_text in enumerate(part["text"] for part in item.get("summary", item.get("content", ()))):
        says_piece, says_all = (thinks, thought_all) if "summary" in item else (says, said_all)
        in_pieces = draw(st.booleans())
        yield from (says_piece(piece, id, at, part) for piece in pieces(draw, whole_text) if in_pieces)
        if not in_pieces or draw(st.booleans()):
            yield says_all(whole_text, id, at, part)
    if "arguments" in item:
        yield from (argues(piece, id, at) for piece in pieces(draw, item["arguments"]))
        yield argued_all(item["arguments"], id, at)


@st.composite
def streams(draw: st.DrawFn, output: list[Json]) -> list[Json]:
    """One way to stream `output`; calls in a row may be mixed."""
    events: list[Json] = [CREATED]
    numbered = list(enumerate(output))
    for kind, group in itertools.groupby(numbered, key=lambda pair: pair[1]["type"]):
        row = list(group)
        if kind == "function_call":
            events += [added(item, at) for at, item in row]
            waiting = [list(text_events(draw, item, at)) for at, item in row]
            while any(waiting):
                events.append(draw(st.sampled_from([queue for queue in waiting if queue])).pop(0))
            events += [done(item, at) for at, item in row]
        else:
            for at, item in row:
                events += [added(item, at), *text_events(draw, item, at), done(item, at)]
    held = output if draw(st.booleans()) else []
    return [*events, completed(*held)]


@lawful
@given(st.data(), outputs(), st.sampled_from(["summarized", "omitted"]))
def test_i37_streamed_and_whole_responses_agree(
    data: st.DataObject, output: list[Json], display: str
) -> None:
    Response.model_validate(response(*output))
    in_one_piece = whole(response(*output), display=display)
    assert streamed(*data.draw(streams(output)), display=display) == in_one_piece


@lawful
@given(outputs())
def test_what_is_carried_is_what_came(output: list[Json]) -> None:
    back = [item for kind, items in brought_back(turn(*output)) if kind == "details" for item in items]
    assert [item for item in back if item["type"] == "reasoning"] == [
        item for item in output if item.get("encrypted_content")
    ]


words = st.sampled_from(["id", "type", "text", "content", "summary", "name", "call_id", "arguments", "phase"])
kinds = st.sampled_from(["message", "reasoning", "function_call", "output_text", "refusal", "summary_text"])
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | kinds | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from([*(known["type"] for known in EVENTS), "response.refusal.done", "response.queued"])
junk_events = st.fixed_dictionaries(
    {},
    optional={
        "type": names | junk,
        **dict.fromkeys(("item_id", "output_index", "content_index", "summary_index"), junk),
        **dict.fromkeys(("delta", "text", "refusal", "arguments", "item", "error"), junk),
        "response": junk
        | st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("status", "error", "output", "usage", "incomplete_details"), junk)
        ),
    },
)


@lawful
@given(st.lists(st.sampled_from(EVENTS) | junk_events, max_size=8))
def test_no_event_makes_a_stream_that_is_not_one(sent: list[Json]) -> None:
    stream, translator = ResponsesStream(), answering.translator()
    events: list[Event] = []
    for event in sent:
        try:
            chunks = stream.feed(json.dumps(event).encode())
        except ValueError:
            break
        events += (event for chunk in chunks for event in translator.feed(chunk))
    assert check(events + translator.finish()) == []


@lawful
@given(junk_events | junk, st.binary(max_size=8))
def test_no_body_makes_a_reply_that_is_not_one(body: Any, noise: bytes) -> None:
    for given_body in (json.dumps(body).encode(), noise, json.dumps(response(body)).encode()):
        answer = whole(given_body)
        json.loads(encode(answer))
