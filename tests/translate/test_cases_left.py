"""Cases of wire.md that no other file shows under their number, and what was found on the way to them."""

import base64
import json
from typing import Any

import pytest

from routeproxy.messages.events import accumulate
from routeproxy.messages.reply import Message, encode
from routeproxy.messages.request import decode_request
from routeproxy.tokens import count
from routeproxy.translate.request import RequestContext, translate_request
from routeproxy.translate.transforms import Transforms
from tests.translate.answering import blocks, call, calls, ends, events_of, reply, text, thinks, uses, whole
from tests.translate.asking import (
    SIGNER,
    answered,
    ask,
    assistant,
    chat,
    document,
    messages,
    quirks,
    refusal,
    result,
    said_system,
    tool,
    user,
)
from tests.translate.asking import call as called_before


def counted(*turns: Any, **more: Any) -> int:
    return count(json.dumps({"model": "claude-sonnet-4-5", "messages": list(turns), **more}).encode())


PNG_HEAD = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x02\x80\x00\x00\x01\xe0\x08\x02\x00\x00\x00"


def picture(size: int) -> dict[str, Any]:
    """640 by 480 pixels in so many bytes."""
    data = base64.b64encode(PNG_HEAD + bytes(size - len(PNG_HEAD))).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


PAPER = document(
    {
        "type": "base64",
        "media_type": "application/pdf",
        "data": base64.b64encode(b"%PDF-1.4 /Type /Page /Type /Page").decode(),
    }
)


def test_c28_system_tools_images_and_documents_all_count() -> None:
    turn = user("Hello")
    bare = counted(turn)
    assert bare == counted(turn, tools=[])
    for more in (
        counted(turn, system="Be kind."),
        counted(turn, tools=[tool()]),
        counted(user({"type": "text", "text": "Hello"}, picture(2000))),
        counted(user({"type": "text", "text": "Hello"}, PAPER)),
    ):
        assert more > bare


def test_c29_an_image_counts_the_same_in_however_many_bytes() -> None:
    assert counted(user(picture(1_000_000))) == counted(user(picture(50_000)))


ANSWERS = [
    pytest.param([text("He"), text("llo")], {"content": "Hello"}, "stop", id="D01"),
    pytest.param(
        [thinks("h"), thinks("m"), text("Hi")], {"reasoning_content": "hm", "content": "Hi"}, "stop", id="D04"
    ),
    pytest.param([thinks("hm")], {"reasoning_content": "hm"}, "stop", id="D06"),
    pytest.param(
        [
            calls(call(0, "c1", "read", "")),
            calls(call(0, None, None, '{"a":')),
            calls(call(0, None, None, "1}")),
        ],
        {"tool_calls": (call(0, "c1", "read", '{"a":1}'),)},
        "tool_calls",
        id="D08",
    ),
    pytest.param(
        [
            calls(call(0, "c1", "read", "")),
            calls(call(1, "c2", "write", "")),
            calls(call(0, None, None, '{"a":1}')),
            calls(call(1, None, None, '{"b":2}')),
        ],
        {"tool_calls": (call(0, "c1", "read", '{"a":1}'), call(1, "c2", "write", '{"b":2}'))},
        "tool_calls",
        id="D13",
    ),
    pytest.param(
        [calls(call(None, None, "read", {"a": 1}))],
        {"tool_calls": (call(None, None, "read", {"a": 1}),)},
        "stop",
        id="D21 D23 D27",
    ),
    pytest.param(
        [calls(call(0, "c1", "read", None))], {"tool_calls": (call(0, "c1", "read"),)}, "stop", id="D24"
    ),
    pytest.param([text("Hi")], {"content": "Hi"}, "length", id="a cut answer"),
    pytest.param([], {"content": None}, "content_filter", id="D47"),
    pytest.param([text("a S"), text("TOP b")], {"content": "a STOP b"}, "stop", id="D48"),
]


@pytest.mark.parametrize(("chunks", "message", "finish_reason"), ANSWERS)
def test_e12_a_stream_adds_up_to_what_the_whole_answer_would_have_been(
    chunks: list[Any], message: dict[str, Any], finish_reason: str
) -> None:
    scan = {"scan": ("STOP",), "stop_sequences": ("STOP",)}
    usage = uses(100, 7, cached=60)
    streamed = accumulate(events_of(*chunks, ends(finish_reason), usage, **scan))
    in_one_piece = reply(whole(finish_reason=finish_reason, usage=usage.usage, **message), **scan)
    assert isinstance(in_one_piece, Message)
    assert isinstance(streamed, Message)
    assert encode(streamed) == encode(in_one_piece)


def test_c20_thinking_does_not_go_with_a_request_that_only_warms_a_cache() -> None:
    thinking = {"type": "enabled", "budget_tokens": 2000}
    assert refusal(user("hi"), max_tokens=0, thinking=thinking) == (
        "max_tokens: 0 cannot be combined with thinking.type: enabled"
    )


# --- found on the way


def test_a_schema_for_the_answer_leaves_the_system_prompt_whole() -> None:
    format = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    sent = messages(
        user("hi"),
        system="x-anthropic-billing-header: cch=1;\nbe kind",
        output_config=format,
        profile=quirks(structured_outputs=False),
    )
    assert sent[0]["content"].startswith("be kind\n\nAnswer with a JSON value only")


def test_a_rules_own_sampling_is_no_fault_of_the_clients_version() -> None:
    body = json.dumps({"model": "m", "max_tokens": 9, "temperature": 0.5, "messages": [user("hi")]}).encode()
    context = RequestContext(
        version="2026-10-21", target="m", signer=SIGNER, by_rule=frozenset({"temperature"})
    )
    assert translate_request(decode_request(body), quirks(), context).chat.temperature == 0.5
    assert refusal(user("hi"), version="2026-10-21", temperature=0.5).startswith("temperature: Extra inputs")


def test_keywords_that_are_null_are_not_there() -> None:
    inner = {"type": "object", "properties": None, "required": None, "items": None, "default": None}
    schema = {"type": "object", "properties": {"o": inner}, "additionalProperties": None}
    sent = chat(user("hi"), tools=[{"name": "T", "input_schema": schema}])["tools"][0]["function"]
    assert sent["parameters"] == {
        "type": "object",
        "properties": {"o": {"type": "object", "required": [], "default": None}},
    }


def test_keywords_that_no_root_may_have_are_dropped_there_and_only_there() -> None:
    inner = {"not": {"type": "null"}, "enum": ["a"]}
    schema = {"type": "object", "properties": {"enum": inner}, "not": {"required": ["a"]}, "enum": [{}]}
    sent = chat(user("hi"), tools=[{"name": "T", "input_schema": schema}])["tools"][0]["function"]
    assert sent["parameters"] == {"type": "object", "properties": {"enum": inner}}


@pytest.mark.parametrize(
    ("title", "name"), [("Report", "Report.pdf"), ("a.PDF", "a.PDF"), (None, "document.pdf")]
)
def test_a_pdf_is_called_one(title: str | None, name: str) -> None:
    (turn,) = messages(user({**PAPER, "title": title}))
    assert turn["content"][0]["file"]["filename"] == name


@pytest.mark.parametrize(
    ("newlines", "content", "shown"),
    [
        pytest.param("escape", "a\nb\n\nHuman: c", "a\\nb", id="escape"),
        pytest.param("unescape", "a\\nb\\n\\nHuman: c", "a\nb", id="unescape"),
    ],
)
def test_a_stop_string_is_found_whatever_becomes_of_line_breaks(
    newlines: Any, content: str, shown: str
) -> None:
    settings: dict[str, Any] = {
        "transforms": Transforms(newlines=newlines),
        "scan": ("\n\nHuman:",),
        "stop_sequences": ("\n\nHuman:",),
    }
    in_one_piece = reply(whole(content=content), **settings)
    streamed = accumulate(events_of(*map(text, content), ends(), **settings))
    for message in (in_one_piece, streamed):
        assert isinstance(message, Message)
        assert blocks(message) == [("text", shown)]
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "\n\nHuman:")


def test_a_result_may_be_followed_by_a_system_turn_and_another_result() -> None:
    turns = (
        user("hi"),
        assistant(called_before("a"), called_before("b")),
        user(result("b", "2")),
        {"role": "system", "content": "note"},
        user(result("a", "1")),
    )
    assert messages(*turns)[2:] == [answered("a", "1"), answered("b", "2"), said_system("note")]
    assert ask(*turns).warnings == ()
