"""A Messages back end that breaks the rules of its own protocol: nothing that a client could not follow is
relayed, and nothing that it can is changed (wire.md §2.3, §2.4). What stands before the mistake goes out,
then an `error` event ends the stream; or another target answers, if there was no content yet."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.backend import (
    CUT,
    RESET,
    BackEnd,
    Script,
    Step,
    answer,
    event,
    json_answer,
    messages_stream,
    streamed,
)
from tests.running import Running, running
from tests.wire.asking import KEY, answers, ask, message, resized

RULES = """
[providers.one]
type = "anthropic"
base_url = "{one}"
api_key = "env:KEY"

[providers.two]
type = "anthropic"
base_url = "{two}"
api_key = "env:KEY"

[[rules]]
match.model.equals = "with-fallback"
targets = ["one/m", "two/m"]

[default]
targets = ["one/*"]
"""


@pytest.fixture(scope="module")
def one() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def two() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(one: BackEnd, two: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    rules = RULES.format(one=one.url, two=two.url)
    with running(rules, tmp_path_factory.mktemp("rules"), {"KEY": KEY}) as proxy:
        yield proxy


START, BLOCK, _, DELTA, BLOCK_END, REASON, STOP = messages_stream("Let me", model="m")
AGAIN = event("content_block_delta", index=0, delta={"type": "text_delta", "text": " look"})
TOOL = event(
    "content_block_start", index=1, content_block={"type": "tool_use", "id": "t", "name": "n", "input": {}}
)


def at(index: int, frame: bytes) -> bytes:
    """The event of another content block."""
    return frame.replace(b'"index": 0', b'"index": %d' % index)


def delta(**fields: Any) -> bytes:
    return event("content_block_delta", index=0, delta=fields)


MISTAKES = [
    pytest.param(
        b'event: content_block_delta\ndata: {"type":"content_block_de\n\n',
        "an event that is not JSON",
        id="half a frame",
    ),
    pytest.param(b"data: {not json}\n\n", "an event that is not JSON", id="no JSON"),
    pytest.param(
        AGAIN.replace(b"}}", b'},"extra":"\xff"}'),
        "an event that is no UTF-8",
        id="no UTF-8 in what nobody reads",
    ),
    pytest.param(b": \xc3\x28\n\n", "an event that is no UTF-8", id="no UTF-8 in a comment"),
    pytest.param(
        AGAIN.replace(b"look", b"\xed\xa0\xbd"), "an event that is no UTF-8", id="half an emoji in bytes"
    ),
    pytest.param(
        AGAIN.replace(b'" look"', b"[" * 3000 + b"]" * 3000),
        "an event that is not JSON",
        id="nested more deeply than can be read",
    ),
    pytest.param(
        b'data: {"type":"vendor","n":NaN}\n\n', "an event that is not JSON", id="a number that JSON has not"
    ),
    pytest.param(AGAIN.replace(b"look", b"l\xffk"), "an event that is no UTF-8", id="bytes that are no text"),
    pytest.param(b"event: ping\ndata: {\n\n", "an event that is not JSON", id="a ping that is no JSON"),
    pytest.param(b"data: [1]\n\n", "an event without a type", id="a list"),
    pytest.param(b'data: "text"\n\n', "an event without a type", id="a string"),
    pytest.param(b"data: [DONE]\n\n", "[DONE] before the end of the message", id="[DONE]"),
    pytest.param(
        b"event: done\ndata: [DONE]\n\n", "[DONE] before the end of the message", id="[DONE] with a name"
    ),
    pytest.param(
        b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n',
        "an event without a type",
        id="a chat chunk",
    ),
    pytest.param(
        b'event: completion\ndata: {"type":"content_block_stop","index":0}\n\n',
        "an event whose name and type differ",
        id="a name that nobody knows for a type that we know",
    ),
    pytest.param(
        AGAIN.replace(b"event: content_block_delta", b"event: ping"),
        "an event whose name and type differ",
        id="a delta that calls itself a ping",
    ),
    pytest.param(
        AGAIN.replace(b'"type": "content_block_delta", ', b""),
        "an event whose name and type differ",
        id="a delta without its type",
    ),
    pytest.param(b"<html>It works!</html>\n\n", "text that is no event", id="a page"),
    pytest.param(START, "a second message_start", id="a second start"),
    pytest.param(at(1, BLOCK), "content_block_start while a content block is open", id="a block in a block"),
    pytest.param(BLOCK_END + BLOCK, "content block 0 where 1 is next", id="the same block again"),
    pytest.param(BLOCK_END + at(2, BLOCK), "content block 2 where 1 is next", id="a block is skipped"),
    pytest.param(
        BLOCK_END + AGAIN, "a delta of content block 0, which is not open", id="a delta after the end"
    ),
    pytest.param(
        at(1, AGAIN), "a delta of content block 1, which is not open", id="a delta of another block"
    ),
    pytest.param(
        delta(type="new_delta").replace(b": 0", b": 3"),
        "a delta of content block 3, which is not open",
        id="an unknown delta of another block",
    ),
    pytest.param(
        BLOCK_END + TOOL.replace(b'"name": "n"', b'"name": ""'),
        "a tool_use without an id and a name",
        id="a call without a name",
    ),
    pytest.param(
        BLOCK_END + TOOL.replace(b'"id": "t"', b'"id": null'),
        "a tool_use without an id and a name",
        id="a call without an id",
    ),
    pytest.param(
        BLOCK_END + at(-1, AGAIN), "a delta of content block -1, which is not open", id="a delta of no block"
    ),
    pytest.param(
        BLOCK_END + at(-1, BLOCK_END),
        "the end of content block -1, which is not open",
        id="the end of no block",
    ),
    pytest.param(
        at(1, BLOCK_END), "the end of content block 1, which is not open", id="the end of another block"
    ),
    pytest.param(BLOCK_END + BLOCK_END, "the end of content block 0, which is not open", id="the end twice"),
    pytest.param(STOP, "message_stop while a content block is open", id="the end in an open block"),
    pytest.param(
        REASON, "message_delta while a content block is open", id="the stop reason in an open block"
    ),
    pytest.param(BLOCK_END + STOP, "message_stop before the stop reason", id="no stop reason"),
    pytest.param(
        BLOCK_END + event("message_delta", delta={}, usage={}) + STOP,
        "message_stop before the stop reason",
        id="a message_delta without a reason",
    ),
    pytest.param(
        BLOCK_END + REASON + TOOL,
        "content_block_start after the stop reason",
        id="a block after the stop reason",
    ),
    pytest.param(
        delta(type="input_json_delta", partial_json="{"),
        "input_json_delta in a content block of another type",
        id="a tool's delta in a text",
    ),
    pytest.param(
        BLOCK_END + TOOL + at(1, AGAIN),
        "text_delta in a content block of another type",
        id="a text's delta in a tool",
    ),
    pytest.param(
        delta(type="text_delta", text=None), "a text_delta whose text is no string", id="a text that is null"
    ),
    pytest.param(
        delta(type="text_delta"), "a text_delta whose text is no string", id="a delta without its text"
    ),
    pytest.param(
        event("content_block_delta", index=0), "a content_block_delta without a delta", id="no delta"
    ),
    pytest.param(
        event("content_block_delta", delta={"type": "text_delta", "text": "x"}),
        "a content_block_delta without an index",
        id="no index",
    ),
    pytest.param(
        event("content_block_stop", index="0"),
        "a content_block_stop without an index",
        id="an index that is no number",
    ),
    pytest.param(
        BLOCK_END + event("content_block_start", index=1),
        "a content_block_start without a block",
        id="no block",
    ),
]


def ends(frames: bytes) -> bytes:
    """What of a mistake's frames is still in order, so that it goes out before the mistake."""
    *kept, _ = frames.split(b"\n\n")[:-1]
    return b"".join(frame + b"\n\n" for frame in kept)


def said(what: str) -> str:
    return f"the back end one sent an invalid stream: {what}"


@pytest.mark.parametrize("size", [1, 100_000], ids=["byte by byte", "at once"])
@pytest.mark.parametrize(("mistake", "words"), MISTAKES)
def test_a_mistake_after_content_ends_the_stream_with_an_error(
    proxy: Running, one: BackEnd, mistake: bytes, words: str, size: int
) -> None:
    sound = START + BLOCK + DELTA
    answers(one, resized(sound + mistake + AGAIN + BLOCK_END + REASON + STOP, size))
    reply = ask(proxy, "m", stream=True)
    before, _, error = reply.body.partition(b"event: error\n")
    assert before == sound + ends(mistake)
    assert error.endswith(b"}\n\n")
    assert reply.events[-1]["error"] == {"type": "api_error", "message": said(words)}


FIRST_MISTAKES = [
    pytest.param(DELTA, "a delta of content block 0, which is not open", id="a delta first"),
    pytest.param(BLOCK + DELTA, "content_block_start before message_start", id="no message_start"),
    pytest.param(REASON + STOP, "message_delta before message_start", id="only an end"),
    pytest.param(STOP, "message_stop before message_start", id="nothing but the end"),
    pytest.param(START + START + BLOCK, "a second message_start", id="two starts"),
    pytest.param(START + b"data: [DONE]\n\n", "[DONE] before the end of the message", id="[DONE]"),
    pytest.param(
        START + at(1, BLOCK) + DELTA, "content block 1 where 0 is next", id="the first block is the second"
    ),
    pytest.param(START + STOP, "message_stop before the stop reason", id="an end without a reason"),
    pytest.param(event("message_start"), "a message_start without a message", id="a start without a message"),
    pytest.param(START + b"data: {\n\n", "an event that is not JSON", id="no JSON"),
    pytest.param(b'data: {"choices":[]}\n\n', "an event without a type", id="a chat chunk"),
    pytest.param(b"<html>\n\nIt works!\n\n", None, id="a page that calls itself a stream"),
]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("frames", "words"), FIRST_MISTAKES)
def test_a_mistake_before_any_content_is_a_failure(
    proxy: Running, one: BackEnd, two: BackEnd, frames: bytes, words: str | None, stream: bool
) -> None:
    answers(one, streamed(frames))
    found = ask(proxy, "m", stream=stream).error
    assert found[:2] == (502, "api_error")
    assert words is None or found[2] == said(words)
    answers(two, streamed(*messages_stream("from two")))
    reply = ask(proxy, "with-fallback", stream=stream)
    assert (reply.text, reply.said("provider")) == ("from two", "two")


@pytest.mark.parametrize(("mistake", "words"), MISTAKES)
def test_a_mistake_in_a_stream_that_is_added_up_is_a_failure(
    proxy: Running, one: BackEnd, two: BackEnd, mistake: bytes, words: str
) -> None:
    answers(one, streamed(START + BLOCK + DELTA + mistake))
    assert ask(proxy, "m").error == (502, "api_error", said(words))
    answers(two, json_answer(message()))
    assert ask(proxy, "with-fallback").said("provider") == "two"


# --- what clients can follow stays as it is


VALID = [
    pytest.param([event("message_delta", delta={"stop_reason": None}, usage={})], id="usage between blocks"),
    pytest.param([REASON], id="the stop reason twice"),
    pytest.param([b"event: vendor\ndata: 7\n\n"], id="an unknown event that is no object"),
    pytest.param([b'event: vendor\ndata: {"index":"x","delta":5}\n\n'], id="an unknown event without a type"),
    pytest.param([b"event: ping\ndata: {}\n\n"], id="a ping of nothing"),
    pytest.param([b": comment\n\n", b"id: 7\n\n", b"retry: 10\n\n", b"\n\n\n"], id="no data"),
    pytest.param(
        [
            event("content_block_start", index=1, content_block={"type": "hologram", "depth": 3}),
            at(1, delta(type="hologram_delta", text=5)),
            at(1, AGAIN),
            at(1, BLOCK_END),
        ],
        id="a block and a delta that nobody knows",
    ),
    pytest.param(
        [
            event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
            at(1, delta(type="citations_delta", citation={"type": "page_location"})),
            at(1, delta(type="text_delta", text="half \ud83d")),
            at(1, delta(type="text_delta", text="")),
            at(1, BLOCK_END),
        ],
        id="citations, half an emoji and nothing",
    ),
    pytest.param(
        [
            b'id: 1\nevent: content_block_start\ndata: {"type":"content_block_start",\n'
            b'data: "index":1,"content_block":{"type":"thinking","thinking":"","signature":""}}\n\n',
            b'data: {"index":1,"delta":{"signature":"x","type":"signature_delta"},'
            b'"type":"content_block_delta"}\r\n\r\n',
            b'event:content_block_stop\ndata:{"type":"content_block_stop","index":1}\n\n',
        ],
        id="several lines, other orders, other line ends",
    ),
]


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("frames", VALID)
def test_what_clients_can_follow_is_relayed_byte_for_byte(
    proxy: Running, one: BackEnd, frames: list[bytes], size: int
) -> None:
    stream = b"".join([START, BLOCK, DELTA, BLOCK_END, *frames, REASON, STOP])
    answers(one, resized(stream, size))
    assert ask(proxy, "m", stream=True).body == stream


def test_what_comes_after_an_error_is_not_relayed(proxy: Running, one: BackEnd) -> None:
    stream = (
        START + BLOCK + DELTA + event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    )
    answers(one, streamed(stream + AGAIN + BLOCK_END + REASON + STOP))
    assert ask(proxy, "m", stream=True).body == stream


def test_what_comes_after_the_end_is_not_relayed(proxy: Running, one: BackEnd) -> None:
    stream = START + BLOCK + DELTA + BLOCK_END + REASON + STOP
    answers(one, streamed(stream + START + b"data: [DONE]\n\n", STOP))
    assert ask(proxy, "m", stream=True).body == stream


ENDS: list[Any] = [
    pytest.param([], id="the end of the body"),
    pytest.param([CUT], id="a connection that is closed"),
    pytest.param([RESET], id="a connection that breaks"),
    pytest.param([b"data: [DONE]\n\n"], id="[DONE]"),
    pytest.param([b'event: message_stop\ndata: {"type"'], id="half a message_stop"),
    pytest.param([event("ping")], id="a ping"),
]


@pytest.mark.parametrize("end", ENDS)
def test_d35_an_answer_with_a_stop_reason_and_no_open_block_is_whole(
    proxy: Running, one: BackEnd, end: list[Step]
) -> None:
    answers(one, streamed(START + BLOCK + DELTA + BLOCK_END + REASON, *end))
    reply = ask(proxy, "m", stream=True)
    assert reply.script == ["text Let me", "end_turn"]
    assert reply.events[-1] == {"type": "message_stop"}
    answers(one, streamed(START + BLOCK + DELTA + BLOCK_END + REASON, *end))
    assert ask(proxy, "m").json["stop_reason"] == "end_turn"


UNFINISHED = [
    pytest.param(START + BLOCK + DELTA, id="in a block"),
    pytest.param(START + BLOCK + DELTA + BLOCK_END, id="without a stop reason"),
    pytest.param(
        START + BLOCK + DELTA + BLOCK_END + event("message_delta", delta={"stop_reason": None}, usage={}),
        id="with a stop reason that is null",
    ),
]


@pytest.mark.parametrize("frames", UNFINISHED)
def test_d35_an_end_before_that_is_an_error(proxy: Running, one: BackEnd, frames: bytes) -> None:
    answers(one, streamed(frames))
    error = ask(proxy, "m", stream=True).events[-1]["error"]
    assert error == {"type": "api_error", "message": "upstream closed the stream before completing"}


# --- errors in other shapes than the API's


NO_REASON = "the back end one reported an error"

FOREIGN_ERRORS = [
    pytest.param(b'event: error\ndata: {"message":"no room"}\n\n', "api_error", "no room", id="a message"),
    pytest.param(
        b'event: error\ndata: {"type":"error"}\n\n',
        "api_error",
        "the back end one reported an error",
        id="nothing at all",
    ),
    pytest.param(
        b'event: error\ndata: {"type":"error","error":"no room"}\n\n',
        "api_error",
        "no room",
        id="a text for an object",
    ),
    pytest.param(
        b'event: error\ndata: {"error":{"message":"no room","type":"overloaded_error"}}\n\n',
        "overloaded_error",
        "no room",
        id="no type of its own",
    ),
    pytest.param(b'event: error\ndata: {"detail":"no room"}\n\n', "api_error", "no room", id="FastAPI's"),
    pytest.param(b"event: error\ndata: no room\n\n", "api_error", "no room", id="a text"),
    pytest.param(b"event: error\n\n", "api_error", NO_REASON, id="nothing but its name"),
    pytest.param(b"event: error\nid: 7\n: hm\n\n", "api_error", NO_REASON, id="its name and a comment"),
    pytest.param(b"event: error\ndata:\n\n", "api_error", NO_REASON, id="no words"),
    pytest.param(b'event: error\ndata: "no room"\n\n', "api_error", "no room", id="a string"),
    pytest.param(
        b'data: {"error":{"message":"no room","code":529}}\n\n',
        "overloaded_error",
        "no room",
        id="OpenAI's, without a name",
    ),
    pytest.param(b'data: {"object":"error","message":"no room"}\n\n', "api_error", "no room", id="vLLM's"),
    pytest.param(
        b'data: {"type":"error","error":{"type":"overloaded_error","message":"no room"}}\n\n',
        "overloaded_error",
        "no room",
        id="the API's, without a name",
    ),
    pytest.param(
        b'event: message_stop\ndata: {"type":"error","error":{"type":"api_error","message":"no room"}}\n\n',
        "api_error",
        "no room",
        id="under another name",
    ),
    pytest.param(
        b'event: error\ndata: {"message":"key ' + KEY.encode() + b' is bad"}\n\n',
        "api_error",
        "key *** is bad",
        id="with our key",
    ),
]


@pytest.mark.parametrize(("frame", "type", "words"), FOREIGN_ERRORS)
def test_an_error_in_mid_answer_gets_the_apis_shape(
    proxy: Running, one: BackEnd, frame: bytes, type: str, words: str
) -> None:
    answers(one, streamed(START + BLOCK + DELTA + frame + AGAIN))
    reply = ask(proxy, "m", stream=True)
    assert reply.script[0] == "text Let me"
    shown = reply.events[-1]
    shown.pop("request_id", None)  # in ours
    assert shown == {"type": "error", "error": {"type": type, "message": words}}


@pytest.mark.parametrize(("frame", "type", "words"), FOREIGN_ERRORS)
def test_an_error_before_any_content_is_a_status(
    proxy: Running, one: BackEnd, two: BackEnd, frame: bytes, type: str, words: str
) -> None:
    answers(one, streamed(START + frame))
    assert ask(proxy, "m", stream=True).error[1:] == (type, words)
    answers(two, streamed(*messages_stream("from two")))
    assert ask(proxy, "with-fallback", stream=True).text == "from two"


# --- whole replies


NO_MESSAGE = "the back end one answered with something that is not a message"
A_PAGE = "the back end one answered with a web page in place of a completion: is its base_url right?"

NO_MESSAGES: list[Any] = [
    pytest.param(answer(200, b"<!doctype html><p>hi", content_type="text/html"), A_PAGE, id="a page"),
    pytest.param(
        answer(200, b"\n <html>", content_type="application/json"), A_PAGE, id="a page that calls itself JSON"
    ),
    pytest.param(
        answer(200, b"<html>\n\n", content_type="text/event-stream"),
        A_PAGE,
        id="a page that calls itself a stream",
    ),
    pytest.param(json_answer({"error": {"message": "no room", "code": 500}}), "no room", id="OpenAI's error"),
    pytest.param(json_answer({"error": "no room"}), "no room", id="an error that is a text"),
    pytest.param(json_answer({"detail": "no room"}), "no room", id="FastAPI's error"),
    pytest.param(
        json_answer({"type": "error", "error": {"type": "api_error", "message": "no room"}}),
        "no room",
        id="the API's error",
    ),
    pytest.param(
        answer(200, b'{"error":{"message":"no room"}}', content_type="text/event-stream"),
        "no room",
        id="an error that calls itself a stream",
    ),
    pytest.param(json_answer({"id": "c", "choices": []}), NO_MESSAGE, id="a completion"),
    pytest.param(json_answer({"type": "message"}), NO_MESSAGE, id="a message without content"),
    pytest.param(json_answer({"type": "message", "content": "hi"}), NO_MESSAGE, id="content that is a text"),
    pytest.param(json_answer({"type": "message", "content": None}), NO_MESSAGE, id="content that is null"),
    pytest.param(
        json_answer(message(content=[{"type": "tool_use", "id": "t", "name": "", "input": {}}])),
        NO_MESSAGE,
        id="a call without a name",
    ),
    pytest.param(json_answer(message(content=["hi"])), NO_MESSAGE, id="a block that is a text"),
    pytest.param(
        answer(200, b'{"type":"message","content":[]', content_type="application/json"),
        NO_MESSAGE,
        id="half a message",
    ),
    pytest.param(answer(200, b"hi", content_type="text/plain"), NO_MESSAGE, id="a text"),
    pytest.param(json_answer(message(stop_reason=["end_turn"])), NO_MESSAGE, id="a list as stop reason"),
    pytest.param(json_answer(message(stop_reason=7)), NO_MESSAGE, id="a number as stop reason"),
    *(
        pytest.param(
            answer(
                200, b'{"type":"message","content":[],"usage":%b}' % usage, content_type="application/json"
            ),
            NO_MESSAGE,
            id=name,
        )
        for name, usage in {
            "a text of the answer that is no UTF-8": b'{},"content":[{"type":"text","text":"\xff"}]',
            "a name of the answer that is no UTF-8": b'{},"\x86W":1',
            "half a character": b'{},"x":"\xf0\x9f"',
            "usage that is no UTF-8": b'{"input_tokens":1,"x":"\xff"}',
            "a name in it that is none": b'{"output\xf4_tokens":1}',
            "a number beyond all ranges": b'{"input_tokens":1e999}',
            "usage of thousands of brackets": b"[" * 3000 + b"]" * 3000,
        }.items()
    ),
]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("reply", "words"), NO_MESSAGES)
def test_a_200_that_is_no_message_is_a_failure(
    proxy: Running, one: BackEnd, two: BackEnd, reply: Script, words: str, stream: bool
) -> None:
    answers(one, reply)
    status, type, found = ask(proxy, "m", stream=stream).error
    assert (status in (500, 502), type, found) == (True, "api_error", words)
    answers(two, streamed(*messages_stream("from two")) if stream else json_answer(message()))
    assert ask(proxy, "with-fallback", stream=stream).said("provider") == "two"


@pytest.mark.parametrize(
    "start",
    [
        *({"type": "completion"}, {"type": ""}, {"type": None}, {"content": [{"type": 7}]}),
        *({"usage": "x"}, {"usage": 7}, {"usage": [1]}),
    ],
    ids=str,
)
def test_a_stream_that_adds_up_to_no_message_is_a_failure(
    proxy: Running, one: BackEnd, two: BackEnd, start: dict[str, Any]
) -> None:
    frames = messages_stream("Let me", model="m")
    frames[0] = event("message_start", message=message(model="m", content=[]) | start)
    answers(one, streamed(*frames))
    if "content" in start:  # which the stream tells itself
        assert ask(proxy, "m").text == "Let me"
        return
    assert ask(proxy, "m").error == (502, "api_error", NO_MESSAGE)
    answers(two, json_answer(message()))
    assert ask(proxy, "with-fallback").said("provider") == "two"


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "text/event-stream", ""])
def test_the_first_byte_counts_more_than_the_content_type(
    proxy: Running, one: BackEnd, content_type: str
) -> None:
    frames = b"".join(messages_stream("Let me", model="m"))
    answers(one, answer(200, b"\n: hi\n\n" + frames, content_type=content_type))
    assert ask(proxy, "m", stream=True).body == b"\n: hi\n\n" + frames
    answers(one, answer(200, json_answer(message(model="m"))[1], content_type=content_type))  # type: ignore[arg-type]
    assert ask(proxy, "m").json == message(model="m")
