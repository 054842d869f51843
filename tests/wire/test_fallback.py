"""Which back end is asked, in which order, how often and for how long (docs/rules.md, "Fallback" and
"Time"; F15)."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.backend import (
    CUT,
    HANG,
    RESET,
    BackEnd,
    Received,
    Script,
    answer,
    error,
    event,
    json_answer,
    messages_stream,
    pause,
    streamed,
)
from tests.budgets import seconds
from tests.running import Running, running
from tests.upstream.litellm.asking import LITELLMS_WARNINGS
from tests.wire.asking import answers, ask, message

pytestmark = LITELLMS_WARNINGS

RULES = """
[providers.one]
type = "anthropic"
base_url = "{one}"
api_key = ["env:KEY_A", "env:KEY_B"]

[providers.two]
type = "anthropic"
base_url = "{two}"
api_key = "none"
zone = "private"

[providers.three]
type = "anthropic"
base_url = "{three}"
api_key = "none"

[providers.chat]
type = "openai_compatible"
base_url = "{three}/v1"
api_key = "none"

[providers.keyless]
type = "anthropic"
base_url = "{one}"
api_key = "env:NOT_SET"

[providers.full]
type = "anthropic"
base_url = "{full}"
api_key = "none"

[[rules]]
match.model.equals = "in-order"
targets = ["two/m", "three/m"]

[[rules]]
match.model.equals = "never"
targets = ["two/m", "three/m"]
fallback = false

[[rules]]
match.model.equals = "alone"
targets = ["two/m"]

[[rules]]
match.model.equals = "on-overload"
targets = ["two/m", "three/m"]
fallback = {{ on = ["overloaded"] }}

[[rules]]
match.model.equals = "on-overflow-too"
targets = ["two/m", "three/m"]
fallback = {{ also = ["context_overflow", "content_policy", "auth", "not_found", "invalid_request"] }}

[[rules]]
match.model.equals = "keys"
targets = ["one/m", "three/m"]

[[rules]]
match.model.equals = "keys-and-retry"
targets = ["one/m"]
retry = {{ attempts = 3, backoff = "10ms" }}

[[rules]]
match.model.equals = "retry"
targets = ["two/m", "three/m"]
retry = {{ attempts = 3, backoff = "40ms" }}

[[rules]]
match.model.equals = "unset-key"
targets = ["keyless/m", "three/m"]

[[rules]]
match.model.equals = "unset-key-too"
targets = ["keyless/m", "three/m"]
fallback = {{ also = ["auth"] }}

[[rules]]
match.model.equals = "deadline"
targets = ["two/m", "three/m"]
deadline = "300ms"

[[rules]]
match.model.equals = "connect"
targets = ["full/m", "three/m"]
timeouts = {{ connect = "100ms" }}

[[rules]]
match.model.equals = "first-token"
targets = ["two/m", "three/m"]
timeouts = {{ first_token = "150ms" }}

[[rules]]
match.model.equals = "idle"
targets = ["two/m", "three/m"]
timeouts = {{ idle = "150ms" }}

[[rules]]
match.model.equals = "total"
targets = ["two/m", "three/m"]
timeouts = {{ total = "200ms" }}

[[rules]]
match.model.equals = "translated-first"
targets = ["chat/m", "two/m"]
fallback = {{ also = ["capability"] }}

[[rules]]
match.model.equals = "translated-second"
targets = ["two/m", "chat/m"]

[default]
targets = ["one/m"]
"""


@contextmanager
def nobody_answers() -> Iterator[str]:
    """An address where a connection is never accepted: the backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            waiting.append(client)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for client in waiting:
            client.close()


@pytest.fixture(scope="module")
def back_ends() -> Iterator[tuple[BackEnd, BackEnd, BackEnd]]:
    with BackEnd() as one, BackEnd() as two, BackEnd() as three:
        yield one, two, three


@pytest.fixture(scope="module")
def proxy(
    back_ends: tuple[BackEnd, BackEnd, BackEnd], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    urls = dict(zip(("one", "two", "three"), (back_end.url for back_end in back_ends), strict=True))
    with nobody_answers() as full:
        rules = RULES.format(**urls, full=full)
        with running(
            rules, tmp_path_factory.mktemp("rules"), {"KEY_A": "key-a-key-a", "KEY_B": "key-b-key-b"}
        ) as proxy:
            yield proxy


@pytest.fixture
def one(back_ends: tuple[BackEnd, BackEnd, BackEnd]) -> BackEnd:
    return answers(back_ends[0], json_answer(message("one")))


@pytest.fixture
def two(back_ends: tuple[BackEnd, BackEnd, BackEnd]) -> BackEnd:
    return answers(back_ends[1], json_answer(message("two")))


@pytest.fixture
def three(back_ends: tuple[BackEnd, BackEnd, BackEnd]) -> BackEnd:
    return answers(back_ends[2], json_answer(message("three")))


def says(text: str, *, before: tuple[Any, ...] = ()) -> Script:
    return streamed(*before, *messages_stream(text))


BUSY = error(529, "busy")


# --- the order


def test_the_first_target_answers_and_nobody_else_is_asked(
    proxy: Running, two: BackEnd, three: BackEnd
) -> None:
    reply = ask(proxy, "in-order")
    assert (reply.text, reply.said("provider"), reply.said("attempts")) == ("two", "two", "1")
    assert three.requests == []


def test_f15_when_it_fails_the_next_one_answers(proxy: Running, two: BackEnd, three: BackEnd) -> None:
    answers(two, BUSY)
    reply = ask(proxy, "in-order")
    assert (reply.text, reply.said("provider"), reply.said("attempts")) == ("three", "three", "2")


USUAL = [
    pytest.param(error(429, "limit"), id="rate_limit"),
    pytest.param(BUSY, id="overloaded"),
    pytest.param(error(500, "broken"), id="server_error"),
    pytest.param([RESET], id="a connection that breaks"),
    pytest.param([CUT], id="no answer"),
    pytest.param(answer(302, location="/"), id="a redirect"),
    pytest.param(answer(200, b"<html>", content_type="text/html"), id="garbage"),
    pytest.param(json_answer({"choices": []}), id="another language"),
    pytest.param([b"garbage\r\n\r\n"], id="not HTTP"),
    pytest.param(
        json_answer({"type": "error", "error": {"type": "api_error", "message": "no"}}),
        id="an error inside 200",
    ),
    pytest.param(
        streamed(messages_stream()[0], event("error", error={"type": "overloaded_error", "message": "no"})),
        id="an error event",
    ),
    pytest.param(streamed(messages_stream()[0]), id="a stream that ends before it began"),
    pytest.param(streamed(messages_stream()[0], RESET), id="a stream that breaks before it began"),
]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("failed", USUAL)
def test_the_usual_failures_fall_back_and_leave_no_trace_in_the_answer(
    proxy: Running, two: BackEnd, three: BackEnd, failed: Script, stream: bool
) -> None:
    answers(two, failed)
    answers(three, says("three") if stream else json_answer(message("three")))
    reply = ask(proxy, "in-order", stream=stream)
    assert (reply.status, reply.text, reply.said("attempts")) == (200, "three", "2")


NOT_USUAL = [
    pytest.param(error(400, "bad"), 400, id="invalid_request"),
    pytest.param(error(400, "maximum context length", "context_length_exceeded"), 400, id="context_overflow"),
    pytest.param(error(401, "bad key"), 502, id="auth"),
    pytest.param(error(404, "no such model"), 404, id="not_found"),
    pytest.param(error(400, "filtered", "content_filter"), 200, id="content_policy"),
]


@pytest.mark.parametrize(("failed", "status"), NOT_USUAL)
def test_other_failures_are_the_clients_to_see(
    proxy: Running, two: BackEnd, three: BackEnd, failed: Script, status: int
) -> None:
    answers(two, failed)
    assert ask(proxy, "in-order").status == status
    assert three.requests == []


@pytest.mark.parametrize(("failed", "status"), NOT_USUAL)
def test_unless_the_rule_names_them(
    proxy: Running, two: BackEnd, three: BackEnd, failed: Script, status: int
) -> None:
    answers(two, failed)
    assert ask(proxy, "on-overflow-too").text == "three"


def test_on_replaces_the_usual_failures(proxy: Running, two: BackEnd, three: BackEnd) -> None:
    answers(two, error(500, "broken"), BUSY)
    assert ask(proxy, "on-overload").status == 500
    assert ask(proxy, "on-overload").text == "three"


FORBIDDEN = [
    *USUAL,
    pytest.param(error(401, "bad key"), id="auth"),
    pytest.param(error(400, "filtered", "content_filter"), id="content_policy"),
]


@pytest.mark.parametrize("failed", FORBIDDEN)
@pytest.mark.parametrize("model", ["never", "alone"])
def test_without_fallback_no_failure_whatever_reaches_another_back_end(
    proxy: Running, one: BackEnd, two: BackEnd, three: BackEnd, failed: Script, model: str
) -> None:
    answers(two, failed)
    assert ask(proxy, model, stream=True).said("attempts") == "1"
    assert (one.requests, three.requests) == ([], [])


def test_the_failed_attempts_warnings_and_headers_are_not_the_answers(
    proxy: Running, two: BackEnd, three: BackEnd
) -> None:
    usage = {"input_tokens": 999_999, "output_tokens": 1}
    start = event("message_start", message={**message(), "usage": usage})
    failed = event("error", error={"type": "overloaded_error", "message": "no"})
    answers(two, streamed(start, failed, request_id="req_two", anthropic_ratelimit_requests_remaining="0"))
    answers(three, says("three"))
    reply = ask(proxy, "in-order", stream=True)
    assert reply.headers["request-id"] != "req_two"
    assert "anthropic-ratelimit-requests-remaining" not in reply.headers
    assert reply.events[0]["message"]["usage"]["input_tokens"] == 12
    assert b"999999" not in reply.body


def test_a_mistake_that_only_the_second_target_minds_does_not_hide_that_waiting_helps(
    proxy: Running, two: BackEnd, three: BackEnd
) -> None:
    answers(two, BUSY)
    unknown = [{"role": "user", "content": [{"type": "hologram"}]}]
    assert ask(proxy, "translated-second", messages=unknown).error[0] == 529
    assert three.requests == []


def test_what_nobody_could_take_is_the_clients_mistake_at_once(
    proxy: Running, two: BackEnd, three: BackEnd
) -> None:
    orphan = [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}]
    assert ask(proxy, "translated-first", messages=orphan).error[0] == 400
    assert (two.requests, three.requests) == ([], [])


# --- when all fail


def refused(status: int, words: str, **headers: str) -> Script:
    """An error that is relayed byte for byte."""
    kind = {400: "invalid_request_error", 429: "rate_limit_error", 529: "overloaded_error"}[status]
    return json_answer({"type": "error", "error": {"type": kind, "message": words}}, status, **headers)


ALL_FAIL = [
    pytest.param(
        refused(529, "first"),
        refused(429, "second"),
        (529, "overloaded_error", "first"),
        id="the first that passes",
    ),
    pytest.param(
        error(529, "first"),
        error(400, "second"),
        (529, "overloaded_error", "first"),
        id="what passes before what does not",
    ),
    pytest.param(error(500, "first"), error(503, "second"), (500, "api_error", "first"), id="the first"),
]


@pytest.mark.parametrize(("first", "second", "shown"), ALL_FAIL)
def test_f15_when_all_fail_the_client_sees_the_failure_that_is_worth_another_try(
    proxy: Running, two: BackEnd, three: BackEnd, first: Script, second: Script, shown: tuple[int, str, str]
) -> None:
    answers(two, first)
    answers(three, second)
    reply = ask(proxy, "in-order", stream=True)
    assert reply.error == shown
    assert (reply.said("provider"), reply.said("attempts")) == ("two", "2")


def test_f15_none_that_passes_then_the_last(proxy: Running, two: BackEnd, three: BackEnd) -> None:
    answers(two, error(401, "bad key"))
    answers(three, error(404, "second"))
    reply = ask(proxy, "on-overflow-too")
    assert reply.error == (404, "not_found_error", "second")
    assert reply.said("provider") == "three"


@pytest.mark.parametrize("fails", [error, refused], ids=["in our words", "in theirs"])
def test_the_shortest_wait_of_all_is_the_clients(
    proxy: Running, two: BackEnd, three: BackEnd, fails: Any
) -> None:
    answers(two, fails(429, "first", retry_after="30"))
    answers(three, fails(429, "second", retry_after="12"))
    reply = ask(proxy, "in-order")
    assert (reply.error[2], reply.headers.get_list("retry-after")) == ("first", ["12"])


def test_a_wait_of_the_only_one_is_relayed_as_it_is(proxy: Running, two: BackEnd) -> None:
    answers(two, refused(429, "slow down", retry_after="3600"))
    assert ask(proxy, "alone").headers["retry-after"] == "3600"


# --- the moment of commitment


def test_the_first_content_commits_and_a_failure_after_it_is_an_error_event(
    proxy: Running, two: BackEnd, three: BackEnd
) -> None:
    answers(two, streamed(*messages_stream("half an ans")[:4], RESET))
    reply = ask(proxy, "in-order", stream=True)
    assert reply.script == [
        "text half an ans",
        "error api_error: the back end two closed the connection before completing its answer",
    ]
    assert (reply.said("provider"), reply.said("attempts")) == ("two", "1")
    assert reply.events[-1]["request_id"] == reply.headers["request-id"]
    assert three.requests == []


def test_pings_and_a_start_do_not_commit(proxy: Running, two: BackEnd, three: BackEnd) -> None:
    start, *_ = messages_stream("never seen", model="two")
    answers(two, streamed(event("ping"), start, event("ping"), RESET))
    answers(three, says("three"))
    reply = ask(proxy, "in-order", stream=True)
    assert reply.script == ["text three", "end_turn"]


# --- keys


def key(received: Received) -> str | None:
    return received.header("x-api-key")


@pytest.mark.parametrize("refusal", [401, 403, 429])
def test_another_key_is_tried_first_when_one_is_refused(
    proxy: Running, one: BackEnd, three: BackEnd, refusal: int
) -> None:
    one.answers = [error(refusal, "not this one"), json_answer(message("one"))]
    reply = ask(proxy, "keys")
    first, second = map(key, one.requests)
    assert {first, second} == {"key-a-key-a", "key-b-key-b"}
    assert (reply.text, reply.said("attempts")) == ("one", "2")
    assert three.requests == []
    assert ask(proxy, "keys").text == "one"
    assert key(one.last) == second, "the next request begins with the key that worked"


def test_each_key_is_tried_once_then_the_next_target(proxy: Running, one: BackEnd, three: BackEnd) -> None:
    answers(one, error(429, "limit"))
    reply = ask(proxy, "keys")
    assert len({key(received) for received in one.requests}) == len(one.requests) == 2
    assert (reply.text, reply.said("attempts")) == ("three", "3")


def test_a_retry_does_not_go_through_the_keys_again(proxy: Running, one: BackEnd) -> None:
    answers(one, error(429, "limit"))
    assert ask(proxy, "keys-and-retry").said("attempts") == "4"


def test_other_failures_are_not_the_keys(proxy: Running, one: BackEnd, three: BackEnd) -> None:
    answers(one, error(500, "broken"))
    assert ask(proxy, "keys").text == "three"
    assert len(one.requests) == 1


def test_an_unset_key_falls_back_only_where_the_rule_says_so(
    proxy: Running, one: BackEnd, three: BackEnd
) -> None:
    assert ask(proxy, "unset-key").error[0] == 502
    assert ask(proxy, "unset-key-too").text == "three"
    assert one.requests == []


# --- retries


def test_nothing_is_retried_unless_the_rule_says_so(proxy: Running, two: BackEnd) -> None:
    answers(two, error(500, "broken"))
    assert ask(proxy, "alone").said("attempts") == "1"
    assert len(two.requests) == 1


def test_a_target_is_retried_before_the_next_one(proxy: Running, two: BackEnd, three: BackEnd) -> None:
    answers(two, BUSY)
    reply = ask(proxy, "retry")
    assert (reply.text, reply.said("attempts"), len(two.requests)) == ("three", "4", 3)


def test_a_retry_waits_as_long_as_the_back_end_says(proxy: Running, two: BackEnd) -> None:
    two.answers = [error(429, "limit", retry_after_ms="300"), json_answer(message("two"))]
    began = time.monotonic()
    assert ask(proxy, "retry").text == "two"
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    "failed",
    [
        pytest.param(error(429, "limit", retry_after="61"), id="the wait is too long"),
        pytest.param(error(429, "limit", "insufficient_quota"), id="no credit"),
        pytest.param(error(500, "broken", x_should_retry="false"), id="the back end says so"),
    ],
)
def test_what_a_retry_would_not_mend_goes_to_the_next_target_at_once(
    proxy: Running, two: BackEnd, three: BackEnd, failed: Script
) -> None:
    answers(two, failed)
    reply = ask(proxy, "retry")
    assert (reply.text, reply.said("attempts")) == ("three", "2")


def test_a_mistake_of_the_client_is_not_retried(proxy: Running, two: BackEnd) -> None:
    answers(two, error(400, "bad"))
    assert ask(proxy, "retry").error[0] == 400
    assert len(two.requests) == 1


# --- time


def test_a_back_end_that_cannot_be_reached_in_time(proxy: Running, three: BackEnd) -> None:
    began = time.monotonic()
    reply = ask(proxy, "connect")
    assert (reply.text, reply.said("attempts")) == ("three", "2")
    assert time.monotonic() - began < seconds(1)


SILENT = [
    pytest.param([HANG], id="no answer"),
    pytest.param(streamed(messages_stream()[0], HANG), id="nothing after the start"),
    # It hangs in the end: a back end whose answer is over could not tell that it was left.
    pytest.param(streamed(*[event("ping"), pause(0.1)] * 20, HANG), id="nothing but pings"),
]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("silent", SILENT)
def test_a_back_end_that_says_nothing_in_time_is_left_for_the_next(
    proxy: Running, two: BackEnd, three: BackEnd, silent: Script, stream: bool
) -> None:
    answers(two, silent)
    answers(three, says("three") if stream else json_answer(message("three")))
    reply = ask(proxy, "first-token", stream=stream)
    assert (reply.text, reply.said("attempts")) == ("three", "2")
    two.wait_until_left()


def test_a_stream_that_falls_silent_ends_in_an_error(proxy: Running, two: BackEnd, three: BackEnd) -> None:
    answers(two, streamed(*messages_stream("half")[:4], HANG))
    reply = ask(proxy, "idle", stream=True)
    assert reply.script == [
        "text half",
        "error timeout_error: the back end two went silent in the middle of its answer",
    ]
    two.wait_until_left()
    assert three.requests == []


def test_any_sign_of_life_keeps_an_answer_alive(proxy: Running, two: BackEnd) -> None:
    frames = messages_stream("slow")
    answers(
        two,
        streamed(*frames[:4], *[pause(0.1), event("ping"), pause(0.1), b": comment\n\n"] * 2, *frames[4:]),
    )
    assert ask(proxy, "idle", stream=True).script == ["text slow", "end_turn"]


@pytest.mark.parametrize(
    ("slow", "seen"),
    [
        pytest.param(streamed(messages_stream()[0], HANG), None, id="before the first content"),
        pytest.param(
            streamed(*messages_stream("half")[:4], *[pause(0.05), event("ping")] * 20),
            ["text half"],
            id="after it",
        ),
    ],
)
def test_the_time_for_the_whole_never_falls_back(
    proxy: Running, two: BackEnd, three: BackEnd, slow: Script, seen: list[str] | None
) -> None:
    answers(two, slow)
    reply = ask(proxy, "total", stream=True)
    words = "the back end two did not finish in time"
    if seen is None:
        assert reply.error == (504, "timeout_error", words)
    else:
        assert reply.script == [*seen, f"error timeout_error: {words}"]
    two.wait_until_left()
    assert three.requests == []


def test_a_deadline_bounds_all_attempts(proxy: Running, two: BackEnd, three: BackEnd) -> None:
    answers(two, [pause(0.15), *error(500, "broken")])
    answers(three, [HANG])
    began = time.monotonic()
    reply = ask(proxy, "deadline")
    assert reply.error == (500, "api_error", "broken")
    assert 0.25 < time.monotonic() - began < seconds(1)
    three.wait_until_left()


def test_a_deadline_waits_once_there_is_content(proxy: Running, two: BackEnd) -> None:
    frames = messages_stream("slow")
    answers(two, streamed(*frames[:4], pause(0.4), *frames[4:]))
    assert ask(proxy, "deadline", stream=True).script == ["text slow", "end_turn"]
