"""Streams that stall, break off or turn into something else, from both kinds of back end (wire.md D35 to D43,
§2.4, §2.5)."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from routeproxy.web.response import StreamTimings
from tests.backend import (
    CUT,
    HANG,
    RESET,
    BackEnd,
    Script,
    Step,
    answer,
    chunk,
    completion,
    data,
    done,
    error,
    event,
    json_answer,
    messages_stream,
    pause,
    sse,
    streamed,
    tool_chunk,
)
from tests.budgets import seconds
from tests.running import Running, request, running
from tests.upstream.litellm.asking import LITELLMS_WARNINGS
from tests.wire.asking import answers, ask

pytestmark = LITELLMS_WARNINGS

RULES = """
[providers.claude]
type = "anthropic"
base_url = "{url}"
api_key = "none"

[providers.corp]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"

[[rules]]
match.model.equals = "chat"
targets = ["corp/gpt-x"]

[[rules]]
match.model.equals = "messages"
targets = ["claude/*"]

[default]
deny = "no such rule"
"""

TOOLS = [{"name": "Bash", "input_schema": {"type": "object"}}]


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder, timings = tmp_path_factory.mktemp("rules"), StreamTimings(hold=0.3, ping=0.2)
    with running(RULES.format(url=back_end.url), folder, timings=timings) as proxy:
        yield proxy


both = pytest.mark.parametrize("model", ["messages", "chat"])
"""From a back end that speaks Messages, and from one that speaks chat completions."""


def half(model: str, *then: Step) -> Script:
    """An answer that says `Let me` and then what `then` says."""
    if model == "messages":
        return streamed(*messages_stream("Let me")[:4], *then)
    return sse(chunk(role="assistant", content=""), chunk("Let me"), *then)


def unbegun(model: str, *then: Step) -> Script:
    """An answer of which there is nothing yet but its head."""
    if model == "messages":
        return streamed(messages_stream()[0], *then)
    return sse(chunk(role="assistant", content=""), *then)


def whole(model: str) -> Script:
    return streamed(*messages_stream()) if model == "messages" else sse(chunk("Hello"), done())


# --- broken off


BREAKS = [pytest.param(RESET, id="reset"), pytest.param(CUT, id="closed")]


@both
@pytest.mark.parametrize("broken", BREAKS)
def test_d37_a_connection_that_breaks_in_mid_answer_is_an_error_event(
    proxy: Running, back_end: BackEnd, model: str, broken: Step
) -> None:
    answers(back_end, half(model, broken))
    text, failed = ask(proxy, model, stream=True).script
    assert text == "text Let me"
    assert failed.startswith("error api_error: ")


@both
@pytest.mark.parametrize("broken", BREAKS)
def test_d38_one_that_breaks_before_the_first_content_is_a_status(
    proxy: Running, back_end: BackEnd, model: str, broken: Step
) -> None:
    answers(back_end, unbegun(model, broken))
    assert ask(proxy, model, stream=True).error[:2] == (502, "api_error")


def test_d35_an_end_without_an_end_of_the_answer_is_an_error(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, streamed(*messages_stream("Let me")[:-2]))
    assert ask(proxy, "messages", stream=True).script[-1] == (
        "error api_error: upstream closed the stream before completing"
    )


def test_d35_nor_do_chat_chunks_end_without_a_reason(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, streamed(data(chunk("Let me"))))
    assert ask(proxy, "chat", stream=True).script == [
        "text Let me",
        "error api_error: upstream closed the stream before completing",
    ]


def test_a_frame_that_breaks_off_is_not_relayed(proxy: Running, back_end: BackEnd) -> None:
    answers(
        back_end,
        streamed(*messages_stream("Let me")[:4], b'event: content_block_delta\ndata: {"type":"content_bl'),
    )
    assert ask(proxy, "messages", stream=True).script == [
        "text Let me",
        "error api_error: upstream closed the stream before completing",
    ]


def test_an_end_that_lacks_its_last_line_break_is_an_end(proxy: Running, back_end: BackEnd) -> None:
    frames = messages_stream()
    answers(back_end, streamed(*frames[:-1], frames[-1].rstrip()))
    assert ask(proxy, "messages", stream=True).script == ["text Hello", "end_turn"]


def test_f16_a_tool_call_that_was_whole_before_the_break_stays_whole(
    proxy: Running, back_end: BackEnd
) -> None:
    answers(back_end, sse(tool_chunk(0, "Bash", '{"command":"ls"}', id="call_1"), RESET))
    tool, asked, failed = ask(proxy, "chat", stream=True, tools=TOOLS).script
    assert (tool, asked) == ("tool Bash", 'input {"command":"ls"}')
    assert failed.startswith("error api_error: ")


# --- an error inside the stream


@both
def test_d36_an_error_in_mid_answer_is_the_last_event(proxy: Running, back_end: BackEnd, model: str) -> None:
    said = (
        [event("error", error={"type": "overloaded_error", "message": "Overloaded"}), *messages_stream()[4:]]
        if model == "messages"
        else [
            data({"error": {"message": "Overloaded", "type": "overloaded_error", "code": 529}}),
            data(chunk("more")),
        ]
    )
    answers(back_end, half(model, *said))
    reply = ask(proxy, model, stream=True)
    assert reply.script[:1] == ["text Let me"]
    assert reply.events[-1]["error"]["type"] == "overloaded_error"
    assert "Overloaded" in reply.events[-1]["error"]["message"]


def test_d36_on_a_pass_through_it_is_relayed_as_it_came(proxy: Running, back_end: BackEnd) -> None:
    failed = (
        b'event: error\ndata: {"error" : {"type":"brand_new_error","message":"no","x":1}, "type":"error"}\n\n'
    )
    answers(back_end, half("messages", failed))
    assert ask(proxy, "messages", stream=True).body.endswith(failed)


@both
def test_d39_an_error_as_the_first_chunk_of_a_200_is_a_status(
    proxy: Running, back_end: BackEnd, model: str
) -> None:
    said = (
        event("error", error={"type": "overloaded_error", "message": "Overloaded"})
        if model == "messages"
        else data({"error": {"message": "Overloaded", "type": "overloaded_error", "code": 529}})
    )
    answers(back_end, streamed(said))
    reply = ask(proxy, model, stream=True)
    assert reply.error[:2] == (529, "overloaded_error")


@both
@pytest.mark.parametrize("status", [400, 429, 500])
def test_d38_an_error_instead_of_a_stream_is_a_status(
    proxy: Running, back_end: BackEnd, model: str, status: int
) -> None:
    answers(back_end, error(status, "no"))
    assert ask(proxy, model, stream=True).error[0] == status


# --- something else than a stream


GARBAGE = [
    pytest.param(answer(200, b"<html>It works!</html>", content_type="text/html"), id="a page"),
    pytest.param(streamed(b"<html>\n\nIt works!\n\n</html>\n\n"), id="a page that calls itself a stream"),
    pytest.param(streamed(b"data: {not json}\n\n"), id="not JSON"),
    pytest.param(streamed(b"\x00\xff\xfe" * 100), id="bytes"),
    pytest.param(streamed(b'data: "hello"\n\ndata: [1]\n\ndata: null\n\n'), id="other JSON"),
    pytest.param(streamed(), id="nothing"),
    pytest.param(json_answer([]), id="an empty list"),
    pytest.param(answer(204), id="no content"),
    pytest.param(answer(302, location="/login"), id="a redirect"),
    pytest.param([b"garbage"], id="not HTTP"),
    pytest.param(
        [
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            CUT,
        ],
        id="not chunks",
    ),
    pytest.param(
        [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\ncontent-type: application/json\r\n\r\n{", CUT],
        id="less than was promised",
    ),
]


@both
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_never_an_answer(
    proxy: Running, back_end: BackEnd, model: str, garbage: Script, stream: bool
) -> None:
    answers(back_end, garbage)
    status, kind, words = ask(proxy, model, stream=stream).error
    assert (status in (500, 502), kind) == (True, "api_error")
    assert "Traceback" not in words
    assert "bug" not in words


# --- time


@both
def test_d40_a_late_first_token_is_waited_for_with_pings(
    proxy: Running, back_end: BackEnd, model: str
) -> None:
    answers(back_end, [pause(1.0), *whole(model)])
    reply = ask(proxy, model, stream=True)
    assert reply.body.startswith(b'event: ping\ndata: {"type":"ping"}\n\n' * 3)
    assert reply.script == ["text Hello", "end_turn"]


@both
def test_d41_silence_in_mid_answer_is_filled_with_pings(
    proxy: Running, back_end: BackEnd, model: str
) -> None:
    rest = messages_stream()[4:] if model == "messages" else [data(done())]
    answers(back_end, half(model, pause(0.9), *rest))
    reply = ask(proxy, model, stream=True)
    assert reply.script == ["text Let me", "end_turn"]
    assert sum(one["type"] == "ping" for one in reply.events) >= 3


def test_a_back_end_that_ends_its_answer_but_not_its_body_does_not_hold_the_client(
    proxy: Running, back_end: BackEnd
) -> None:
    answers(back_end, streamed(*messages_stream("Hello"), HANG))
    began = time.monotonic()
    assert ask(proxy, "messages", stream=True).script == ["text Hello", "end_turn"]
    assert time.monotonic() - began < seconds(0.5)
    back_end.wait_until_left()


LEAVES = [
    pytest.param([HANG], id="before the answer"),
    pytest.param("unbegun", id="before the first content"),
    pytest.param("half", id="in mid answer"),
]


@both
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("script", LEAVES)
def test_a_client_that_leaves_lets_the_back_end_go(
    proxy: Running, back_end: BackEnd, model: str, script: Any, stream: bool
) -> None:
    scripts = {"unbegun": unbegun(model, HANG), "half": half(model, HANG)}
    answers(back_end, scripts[script] if isinstance(script, str) else script)
    with httpx.Client() as client, pytest.raises(httpx.ReadTimeout):
        client.post(proxy.url + "/v1/messages", json=request(model=model, stream=stream), timeout=0.15)
    left = time.monotonic()
    assert back_end.wait_until_left() - left < 1


# --- bytes


@both
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_d42_comments_carriage_returns_and_cut_characters(
    proxy: Running, back_end: BackEnd, model: str, size: int
) -> None:
    if model == "messages":
        frames = b"".join(messages_stream("né😀", "messages"))
    else:
        chunks = (chunk("né😀"), done())
        frames = b"".join(data(one) for one in chunks) + b"data: [DONE]\n\n"
    frames = b": hello\n\n" + frames.replace(b"data: ", b"data:").replace(b"\n", b"\r\n")
    frames = frames.replace(b"n\\u00e9\\ud83d\\ude00", "né😀".encode())
    answers(back_end, streamed(*(frames[at : at + size] for at in range(0, len(frames), size))))
    reply = ask(proxy, model, stream=True)
    assert reply.text == "né😀"
    assert reply.script[-1] == "end_turn"


@both
@pytest.mark.parametrize("before", [b"", b"\n", b": hi\n\n"])
@pytest.mark.parametrize("cut", [1, 2, 3, 4, 100])
def test_a_byte_order_mark_costs_nothing_of_the_answer_wherever_it_is_cut(
    proxy: Running, back_end: BackEnd, model: str, cut: int, before: bytes
) -> None:
    frames = messages_stream("Hello") if model == "messages" else [data(chunk("Hello")), data(done())]
    sent = b"\xef\xbb\xbf" + before + b"".join(frames)
    answers(back_end, streamed(sent[:cut], pause(0.05), sent[cut:]))
    assert ask(proxy, model, stream=True).script == ["text Hello", "end_turn"]


@both
def test_d43_done_is_never_forwarded(proxy: Running, back_end: BackEnd, model: str) -> None:
    if model == "messages":
        answers(back_end, streamed(*messages_stream(), b"data: [DONE]\n\n"))
    else:
        answers(back_end, whole(model))
    assert b"[DONE]" not in ask(proxy, model, stream=True).body


def test_d53_a_chat_back_end_that_does_not_stream_is_played_as_a_stream(
    proxy: Running, back_end: BackEnd
) -> None:
    answers(back_end, json_answer(completion("Hello")))
    reply = ask(proxy, "chat", stream=True)
    assert (reply.status, reply.script) == (200, ["text Hello", "end_turn"])


def test_d53_one_that_always_streams_is_added_up(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, sse(chunk("Hel"), chunk("lo"), done()))
    assert ask(proxy, "chat").text == "Hello"
