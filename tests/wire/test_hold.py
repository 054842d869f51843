"""A stream that a rule holds until it is whole (docs/rules.md, "Hold")."""

from collections.abc import Iterator

import pytest

from tests.backend import (
    CUT,
    HANG,
    RESET,
    BackEnd,
    Script,
    chunk,
    done,
    error,
    event,
    messages_stream,
    sse,
    streamed,
)
from tests.running import Running, running
from tests.wire.asking import answers, ask

RULES = """
[providers.one]
type = "anthropic"
base_url = "{one}"
api_key = "none"

[providers.chat]
type = "openai_compatible"
base_url = "{one}/v1"
api_key = "none"

[providers.two]
type = "anthropic"
base_url = "{two}"
api_key = "none"

[[rules]]
match.model.equals = "messages"
targets = ["one/m", "two/m"]
hold = "whole"
timeouts.idle = "300ms"

[[rules]]
match.model.equals = "chat"
targets = ["chat/m", "two/m"]
hold = "whole"
timeouts.idle = "300ms"

[[rules]]
match.model.equals = "late"
targets = ["one/m", "two/m"]
hold = "whole"
deadline = "400ms"

[[rules]]
match.model.equals = "never"
targets = ["one/m", "two/m"]
hold = "whole"
fallback = false

[default]
targets = ["one/m", "two/m"]
"""


@pytest.fixture(scope="module")
def back_ends() -> Iterator[tuple[BackEnd, BackEnd]]:
    with BackEnd() as one, BackEnd() as two:
        yield one, two


@pytest.fixture(scope="module")
def proxy(back_ends: tuple[BackEnd, BackEnd], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    one, two = back_ends
    with running(RULES.format(one=one.url, two=two.url), tmp_path_factory.mktemp("rules")) as proxy:
        yield proxy


@pytest.fixture
def one(back_ends: tuple[BackEnd, BackEnd]) -> BackEnd:
    return answers(back_ends[0], streamed(*messages_stream("one")))


@pytest.fixture
def two(back_ends: tuple[BackEnd, BackEnd]) -> BackEnd:
    return answers(back_ends[1], streamed(*messages_stream("two")))


HALF = messages_stream("half")[:3]
BROKEN = {
    "messages": {
        "a cut": streamed(*HALF, CUT),
        "a reset": streamed(*HALF, RESET),
        "a stall": streamed(*HALF, HANG),
        "an end without an end": streamed(*HALF),
        "an error event": streamed(
            *HALF, event("error", error={"type": "overloaded_error", "message": "too busy"})
        ),
        "a bad frame": streamed(*HALF, b"data: }\n\n"),
    },
    "chat": {
        "a cut": sse(chunk("half"), CUT),
        "a stall": sse(chunk("half"), HANG),
        "a bad frame": sse(chunk("half"), b"data: }\n\n", done()),
        "no finish reason": sse(chunk("half")),
    },
}


@pytest.mark.parametrize(
    ("model", "broken"),
    [
        pytest.param(model, script, id=f"{model}: {name}")
        for model, scripts in BROKEN.items()
        for name, script in scripts.items()
    ],
)
def test_what_breaks_after_content_still_leads_to_the_next_target(
    proxy: Running, one: BackEnd, two: BackEnd, model: str, broken: Script
) -> None:
    answers(one, broken)
    reply = ask(proxy, model, stream=True)
    assert (reply.script, reply.said("attempts")) == (["text two", "end_turn"], "2")


def test_a_whole_stream_goes_out_as_it_came(proxy: Running, one: BackEnd, two: BackEnd) -> None:
    reply = ask(proxy, "messages", stream=True)
    assert (reply.script, two.requests) == (["text one", "end_turn"], [])
    answers(one, sse(chunk("He"), chunk("llo"), done()))
    assert "".join(ask(proxy, "chat", stream=True).script) == "text Helloend_turn"


def test_without_fallback_it_ends_in_a_clean_error(proxy: Running, one: BackEnd, two: BackEnd) -> None:
    answers(one, streamed(*HALF, CUT))
    reply = ask(proxy, "never", stream=True)
    assert (reply.status, two.requests) == (502, [])


def test_the_deadline_bounds_the_whole(proxy: Running, one: BackEnd, two: BackEnd) -> None:
    answers(one, streamed(*HALF, HANG))
    reply = ask(proxy, "late", stream=True)
    message = "the back end one was not done before the deadline of the rule"
    assert reply.error == (504, "timeout_error", message)


def test_more_than_can_be_held_is_a_failure(
    proxy: Running, one: BackEnd, two: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routeproxy.upstream.failover.MOST_HELD", 100)
    answers(one, streamed(*messages_stream("one" * 50)))
    answers(two, error(500, "broken"))
    reply = ask(proxy, "messages", stream=True)
    assert reply.status == 500
    assert "more than 32 MB" in reply.error[2]
