"""Clients that go away, at any point: the back end is let go within a second, and nobody calls it a failure.
And those that wait."""

import logging
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from routeproxy.web.response import StreamTimings
from tests.backend import HANG, BackEnd, Received, Script, json_answer, messages_stream, pause, streamed
from tests.budgets import seconds
from tests.running import Running, connect, events, receive_until, request, request_bytes, running, until

RULES = """
[providers.claude]
type = "anthropic"
base_url = "{0}"
api_key = "none"
zone = "private"

[providers.spare]
type = "anthropic"
base_url = "{1}"
api_key = "none"
zone = "private"

[[rules]]
name = "with a spare"
match.model = "pair"
targets = ["claude/*", "spare/*"]
deadline = "20s"

[default]
targets = ["claude/*"]
"""

HOLD = PING = 0.2


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def spare() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, back_end: BackEnd, spare: BackEnd) -> Iterator[Running]:
    rules = RULES.format(back_end.url, spare.url)
    with running(rules, tmp_path_factory.mktemp("rules"), timings=StreamTimings(HOLD, PING)) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory, back_end: BackEnd, spare: BackEnd) -> Iterator[Running]:
    """Without pings, by whose failure a client that left would be noticed as well."""
    rules = RULES.format(back_end.url, spare.url)
    with running(rules, tmp_path_factory.mktemp("rules"), timings=StreamTimings(60, 60)) as silent:
        yield silent


@pytest.fixture(autouse=True)
def _afresh(back_end: BackEnd, spare: BackEnd) -> None:
    for one in (back_end, spare):
        one.requests.clear()
        one.left_at.clear()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the server logs. Whatever is worse than INFO fails the test."""
    with caplog.at_level(logging.INFO, "routeproxy"):
        yield caplog
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


def line_of_request(log: pytest.LogCaptureFixture) -> str:
    lines = until(lambda: [r.getMessage() for r in log.records if r.name == "routeproxy.requests"])
    assert len(lines) == 1
    return lines[0]


FRAMES = messages_stream()


@pytest.mark.parametrize(
    ("answer", "stream", "heard", "status"),
    [
        pytest.param([HANG], True, None, 499, id="before anything, streamed"),
        pytest.param([HANG], False, None, 499, id="before anything, whole"),
        pytest.param([HANG], True, b"event: ping", 200, id="after the first ping"),
        pytest.param(streamed(HANG), True, None, 499, id="after the back end's headers"),
        pytest.param(streamed(*FRAMES[:1], HANG), True, None, 499, id="before the first content"),
        pytest.param(streamed(*FRAMES[:4], HANG), True, b"text_delta", 200, id="after the first content"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", HANG],
            False,
            None,
            499,
            id="in mid-answer, whole",
        ),
    ],
)
def test_the_back_end_is_let_go_with_the_client(
    proxy: Running,
    back_end: BackEnd,
    log: pytest.LogCaptureFixture,
    answer: list[object],
    stream: bool,
    heard: bytes | None,
    status: int,
) -> None:
    back_end.answers = [answer]  # type: ignore[list-item]
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request(stream=stream)))
        until(lambda: back_end.requests)
        if heard:
            receive_until(wire, heard)
        left = time.monotonic()
    assert back_end.wait_until_left() - left < 1
    line = line_of_request(log)
    assert f"POST /v1/messages {status}" in line
    assert "client-left" in line
    assert "error=" not in line


def test_a_client_that_leaves_is_no_reason_to_try_the_next_target(
    proxy: Running, back_end: BackEnd, spare: BackEnd, log: pytest.LogCaptureFixture
) -> None:
    back_end.answers = [[HANG]]
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request(model="pair", stream=True)))
        until(lambda: back_end.requests)
    back_end.wait_until_left()
    assert "attempts=1" in line_of_request(log)
    assert spare.requests == []


def test_a_client_that_leaves_while_it_sends_its_body_reaches_no_back_end(
    proxy: Running, back_end: BackEnd, log: pytest.LogCaptureFixture
) -> None:
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request("long " * 1000))[:-2000])
        time.sleep(0.1)
    line = line_of_request(log)
    assert "POST /v1/messages 499" in line
    assert "client-left" in line
    assert back_end.requests == []


def test_a_client_that_leaves_while_tokens_are_counted_is_gone_too(
    proxy: Running, back_end: BackEnd, log: pytest.LogCaptureFixture
) -> None:
    back_end.answers = [[HANG]]
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request(), "/v1/messages/count_tokens"))
        until(lambda: back_end.requests)
        left = time.monotonic()
    assert back_end.wait_until_left() - left < 1
    assert "client-left" in line_of_request(log)


def test_a_client_that_reads_slowly_gets_all_of_it(proxy: Running, back_end: BackEnd) -> None:
    words = [f"word {n} " + "x" * 4000 for n in range(400)]
    back_end.answers = [streamed(*messages_stream(chunks=words))]
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request(stream=True)))
        time.sleep(3 * PING)  # long enough for pings, if there were any in the middle of a frame
        heard = receive_until(wire, b"message_stop", b"0\r\n\r\n").decode()
    assert all(word in heard for word in words)
    assert heard.count("event: content_block_delta") == len(words)


def test_a_client_that_stops_reading_and_leaves_lets_the_back_end_go(
    proxy: Running, back_end: BackEnd, log: pytest.LogCaptureFixture
) -> None:
    flood = messages_stream(chunks=["x" * 60_000] * 500)
    back_end.answers = [streamed(*flood[:-3], HANG)]
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request(stream=True)))
        receive_until(wire, b"text_delta")
        time.sleep(0.3)
        left = time.monotonic()
    until(lambda: "client-left" in line_of_request(log))
    assert time.monotonic() - left < seconds(1)


# --- whatever the size of its body

TEXT_SIZES = sorted(
    {
        *(2**power for power in range(24)),
        *(2**power + step for power in (13, 16, 17, 18, 20) for step in (-1, 1)),
        0,
        65_536 - 400,
        100_000,
        200_000,
        1_000_000,
        3_000_000,
    }
)
"""Of the 40 requests, in bytes. uvicorn stops reading within a body of more than 65,536."""


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        pytest.param([HANG], None, id="before content"),
        pytest.param(streamed(*FRAMES[:4], HANG), b"text_delta", id="after the first content"),
    ],
)
def test_the_back_end_is_let_go_whatever_the_size_of_the_body(
    silent: Running, back_end: BackEnd, answer: Script, heard: bytes | None
) -> None:
    assert len(TEXT_SIZES) == 40
    back_end.answers = [answer]
    wires = [connect(silent.url) for _ in TEXT_SIZES]
    for wire, size in zip(wires, TEXT_SIZES, strict=True):
        wire.sendall(request_bytes(request("x" * size, stream=True)))
    until(lambda: len(back_end.requests) == len(TEXT_SIZES), 10)
    for wire in wires:
        if heard:
            receive_until(wire, heard)
    for wire in wires:
        wire.close()
    until(lambda: len(back_end.left_at) == len(TEXT_SIZES), 1)


# --- in every way of leaving


def _close(wire: socket.socket) -> None:
    wire.close()


def _reset(wire: socket.socket) -> None:
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


def _end_its_side(wire: socket.socket) -> None:
    wire.shutdown(socket.SHUT_WR)


LEAVES = [
    pytest.param(_close, id="closed"),
    pytest.param(_reset, id="reset"),
    pytest.param(_end_its_side, id="its own side ended"),
]


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize(
    "after_it",
    [
        pytest.param(b"", id="alone"),
        pytest.param(request_bytes(request("next")), id="a next request sent already"),
        pytest.param(request_bytes(request("x" * 300_000)) * 3, id="three large ones sent already"),
        pytest.param(request_bytes(request("x" * 300_000))[:-9], id="half of a next one"),
        pytest.param(b"\r\n", id="a line end too many"),
    ],
)
@pytest.mark.parametrize("size", [10, 300_000])
def test_the_back_end_is_let_go_however_the_client_leaves(
    proxy: Running,
    back_end: BackEnd,
    log: pytest.LogCaptureFixture,
    leave: Callable[[socket.socket], None],
    after_it: bytes,
    size: int,
) -> None:
    back_end.answers = [[HANG]]
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request("x" * size)) + after_it)
        until(lambda: back_end.requests)
        time.sleep(0.05)
        left = time.monotonic()
        leave(wire)
        assert back_end.wait_until_left() - left < seconds(1)
    assert "POST /v1/messages 499" in line_of_request(log)
    assert len(back_end.requests) == 1


@pytest.mark.parametrize("leave", LEAVES)
def test_a_client_that_takes_nothing_more_and_leaves_lets_the_back_end_go(
    silent: Running, back_end: BackEnd, log: pytest.LogCaptureFixture, leave: Callable[[socket.socket], None]
) -> None:
    """All buffers on the way to it are full when it leaves."""
    flood = messages_stream(chunks=["x" * 60_000] * 500)
    back_end.answers = [streamed(*flood[:-3], HANG)]
    with connect(silent.url) as wire:
        wire.sendall(request_bytes(request("x" * 300_000, stream=True)))
        receive_until(wire, b"text_delta")
        time.sleep(0.3)
        left = time.monotonic()
        leave(wire)
        until(lambda: "client-left" in line_of_request(log))
        assert time.monotonic() - left < seconds(1)


def test_requests_that_wait_for_no_answer_are_answered_in_their_order(
    proxy: Running, back_end: BackEnd
) -> None:
    back_end.answers = [lambda received: streamed(*messages_stream(f"to {_number(received)}"))]
    sizes = (10, 300_000, 20, 100_000)
    with connect(proxy.url) as wire:
        for number, size in enumerate(sizes):
            wire.sendall(request_bytes(request("x" * size + f"no. {number}", stream=True)))
        heard = receive_until(wire, *(b"to no. %d" % number for number in range(len(sizes))))
    assert len(back_end.requests) == len(sizes)
    places = [heard.index(b"to no. %d" % number) for number in range(len(sizes))]
    assert places == sorted(places)


def _number(received: Received) -> str:
    text: str = received.json["messages"][0]["content"]
    return text[text.index("no. ") :]


# --- those that wait


def test_silence_before_the_first_token_is_filled_with_pings(proxy: Running, back_end: BackEnd) -> None:
    back_end.answers = [[pause(1), *streamed(*FRAMES)]]
    started = time.monotonic()
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request(stream=True)))
        heard = receive_until(wire, b"event: ping")
        assert HOLD * 0.9 < time.monotonic() - started < seconds(1)
        assert heard.startswith(b"HTTP/1.1 200")
        heard += receive_until(wire, b"message_stop", b"0\r\n\r\n")
    names = events(heard.decode())
    first = names.index("message_start")
    assert 2 <= first <= 5
    assert set(names[:first]) == {"ping"}
    assert names[-1] == "message_stop"


def test_silence_in_mid_stream_is_filled_with_pings(proxy: Running, back_end: BackEnd) -> None:
    before, after = [frame for frame in FRAMES[:4] if b"ping" not in frame], FRAMES[4:]
    back_end.answers = [streamed(*before, pause(0.9), *after)]
    names = events(proxy.post(request(stream=True)).text)
    assert 2 <= names.count("ping") <= 5
    assert [name for name in names if name != "ping"] == [
        name for name in events(b"".join(FRAMES).decode()) if name != "ping"
    ]


def test_a_steady_stream_has_no_pings(proxy: Running, back_end: BackEnd) -> None:
    frames = [frame for frame in messages_stream(chunks=["tick "] * 40) if b"event: ping" not in frame]
    steady = [step for frame in frames for step in (frame, pause(PING / 10))]
    back_end.answers = [streamed(*steady)]
    assert "ping" not in events(proxy.post(request(stream=True)).text)


def test_a_failure_while_the_200_is_held_is_a_status(proxy: Running, back_end: BackEnd) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    back_end.answers = [[pause(HOLD / 2), *json_answer(error, 529)]]
    assert proxy.post(request(stream=True)).status_code == 529


def test_a_failure_after_the_200_went_out_is_an_event(proxy: Running, back_end: BackEnd) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    back_end.answers = [[pause(HOLD * 2), *json_answer(error, 529)]]
    answer = proxy.post(request(stream=True))
    assert answer.status_code == 200
    names = events(answer.text)
    assert (names[0], names[-1]) == ("ping", "error")
    assert '"overloaded_error"' in answer.text


def test_after_the_200_went_out_another_target_may_still_answer(
    proxy: Running, back_end: BackEnd, spare: BackEnd
) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    back_end.answers = [[pause(HOLD * 2), *json_answer(error, 529)]]
    spare.answers = [streamed(*FRAMES)]
    answer = proxy.post(request(model="pair", stream=True))
    assert events(answer.text)[-1] == "message_stop"
    assert (len(back_end.requests), len(spare.requests)) == (1, 1)


def test_a_whole_answer_is_waited_for_in_silence(proxy: Running, back_end: BackEnd) -> None:
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    back_end.answers = [[pause(3 * PING), *json_answer(message)]]
    answer = proxy.post(request())
    assert (answer.status_code, answer.json()["type"]) == (200, "message")
