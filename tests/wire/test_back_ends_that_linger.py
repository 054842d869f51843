"""Back ends that go on when nobody expects it, or don't when everybody does: the client hears what is true as
soon as it is, and the connection is given up."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from tests.backend import CUT, RESET, BackEnd, Received, Script, messages_stream
from tests.budgets import seconds
from tests.google import token
from tests.invariants import check
from tests.running import Running, request, running, until
from tests.sockets import open_connections
from tests.upstream.http.test_stale import Connection
from tests.upstream.litellm.asking import LITELLMS_WARNINGS
from tests.wire.asking import ask, message
from tests.wire.kinds_of_back_ends import KINDS, MOMENTS, rules
from tests.wire.test_every_back_end_is_let_go import TASKS_OF_THE_SERVER

pytestmark = LITELLMS_WARNINGS

FIRST_TOKEN = 0.6
RULES = """
[providers.claude]
type = "anthropic"
base_url = "{}"
api_key = "none"
zone = "private"

[default]
targets = ["claude/*"]
timeouts = {{ first_token = "600ms", idle = "600ms" }}
"""

Fate = Callable[[Connection], None]
"""What a back end does with a connection, from its first byte on."""


class LingeringBackEnd:
    """Gives every connection the same fate, and learns when we have given it up."""

    def __init__(self) -> None:
        self.fate: Fate = Connection.close
        self.given_up: list[float] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with accepted:
            with suppress(OSError):
                self.fate(Connection(accepted, threading.Event()))
                while accepted.recv(65_536):
                    pass
            self.given_up.append(time.monotonic())

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def lingering() -> Iterator[LingeringBackEnd]:
    back_end = LingeringBackEnd()
    yield back_end
    back_end.close()


@pytest.fixture(scope="module")
def proxy(lingering: LingeringBackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(RULES.format(lingering.url), tmp_path_factory.mktemp("rules")) as proxy:
        yield proxy


# --- fates

HEAD = b"HTTP/1.1 200 OK\r\n"
JSON = HEAD + b"content-type: application/json\r\n"
STREAM = HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WHOLE = json.dumps(message()).encode()
LENGTH = b"content-length: %d\r\n\r\n" % len(WHOLE)
FRAMES = messages_stream()


def chunks(*frames: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames)


ALL, SOME = chunks(*FRAMES), chunks(*FRAMES[:4])


def says(*parts: bytes, then: Fate = lambda _: None) -> Fate:
    """Reads the request, says all that and does the rest."""

    def fate(connection: Connection) -> None:
        assert connection.read_request()
        for part in parts:
            connection.socket.sendall(part)
        then(connection)

    return fate


def drips(what: bytes, every: float = 0.05) -> Fate:
    def fate(connection: Connection) -> None:
        while True:
            connection.socket.sendall(what)
            time.sleep(every)

    return fate


def pours(what: bytes) -> Fate:
    return drips(what * (65_536 // len(what) + 1), 0)


def after(wait: float, then: Fate) -> Fate:
    def fate(connection: Connection) -> None:
        time.sleep(wait)
        then(connection)

    return fate


def half_closes(connection: Connection) -> None:
    connection.socket.shutdown(socket.SHUT_WR)


soon_resets = after(0.1, Connection.reset)
"""Once what it has said before is read."""


def resets_at_once(connection: Connection) -> None:
    connection.reset()


def resets_in_mid_request(connection: Connection) -> None:
    connection.socket.recv(100)
    connection.reset()


class Outcome(NamedTuple):
    status: int
    says: str
    """The type of an error, or what the answer ends with."""


LATE = Outcome(504, "timeout_error")
BROKEN = Outcome(502, "api_error")
FINE = Outcome(200, "end_turn")
CUT_SHORT = Outcome(200, "error api_error")
LATE_IN_STREAM = Outcome(200, "error timeout_error")
PING = chunks(b"event: ping\ndata: {}\n\n")

Way = Literal["streamed", "whole", "both"]

FATES: dict[str, tuple[Way, Fate, Outcome]] = {
    "says nothing": ("both", says(), LATE),
    "tells to go on, and nothing more": ("both", says(b"HTTP/1.1 100 Continue\r\n\r\n"), LATE),
    "tells to go on, again and again": ("both", says(then=drips(b"HTTP/1.1 100 Continue\r\n\r\n")), LATE),
    "tells to go on without an end": ("both", says(then=pours(b"HTTP/1.1 103 Hints\r\n\r\n")), BROKEN),
    "a header, letter by letter": ("both", says(HEAD + b"x: ", then=drips(b"y")), LATE),
    "a header without an end": ("both", says(HEAD + b"x: ", then=pours(b"y")), BROKEN),
    "headers without an end": ("both", says(HEAD, then=pours(b"x: y\r\n")), BROKEN),
    "a head, and no body": ("whole", says(JSON + LENGTH), LATE),
    "a head, and no event": ("streamed", says(STREAM), LATE),
    "a body, letter by letter": ("whole", says(JSON + LENGTH, then=drips(b" ")), LATE),
    "pings, and no content": ("streamed", says(STREAM, then=drips(PING)), LATE),
    "silence after content": ("streamed", says(STREAM + SOME), LATE_IN_STREAM),
    "more than it said": ("whole", says(JSON + LENGTH + WHOLE, then=drips(b"more")), FINE),
    "an answer that it never ends": ("streamed", says(STREAM + ALL), FINE),
    "pings after the end": ("streamed", says(STREAM + ALL, then=drips(PING)), FINE),
    "chunks without an end after it": ("streamed", says(STREAM + ALL, then=pours(PING)), FINE),
    "an extension after it": ("streamed", says(STREAM + ALL + b"1;", then=pours(b"x")), FINE),
    "trailers after it": ("streamed", says(STREAM + ALL + b"0\r\n", then=pours(b"x: y\r\n")), FINE),
    "an extension in mid answer": ("streamed", says(STREAM + SOME + b"1;", then=pours(b"x")), CUT_SHORT),
    "trailers in mid answer": ("streamed", says(STREAM + SOME + b"0\r\nx: ", then=pours(b"y")), CUT_SHORT),
    "an extension before it": ("both", says(STREAM + b"1;", then=pours(b"x")), BROKEN),
    "a second answer": ("whole", says((JSON + LENGTH + WHOLE) * 2), FINE),
    "its side ends before an answer": ("both", says(then=half_closes), BROKEN),
    "its side ends in the head": ("both", says(HEAD, then=half_closes), BROKEN),
    "its side ends in the body": ("whole", says(JSON + LENGTH + WHOLE[:-9], then=half_closes), BROKEN),
    "its side ends in mid answer": ("streamed", says(STREAM + SOME, then=half_closes), CUT_SHORT),
    "its side ends after the answer": ("whole", says(JSON + LENGTH + WHOLE, then=half_closes), FINE),
    "its side ends instead of a length": ("whole", says(JSON + b"\r\n" + WHOLE, then=half_closes), FINE),
    "reset as it is connected": ("both", resets_at_once, BROKEN),
    "reset in the request": ("both", resets_in_mid_request, BROKEN),
    "reset before an answer": ("both", says(then=Connection.reset), BROKEN),
    "reset in the head": ("both", says(HEAD, then=soon_resets), BROKEN),
    "reset after the head": ("both", says(STREAM, then=soon_resets), BROKEN),
    "reset in the body": ("whole", says(JSON + LENGTH + WHOLE[:-9], then=soon_resets), BROKEN),
    "reset instead of an end": (
        "whole",
        says(JSON + b"\r\n" + WHOLE, then=soon_resets),
        BROKEN,
    ),
    "reset in a chunk": ("streamed", says(STREAM + SOME + b"fff\r\nev", then=soon_resets), CUT_SHORT),
    "reset in mid answer": ("streamed", says(STREAM + SOME, then=soon_resets), CUT_SHORT),
    "reset after its last event": ("streamed", says(STREAM + ALL, then=soon_resets), FINE),
    "reset after the answer": ("whole", says(JSON + LENGTH + WHOLE, then=soon_resets), FINE),
}

CASES = [
    pytest.param(fate, stream, outcome, id=f"{name}, {'streamed' if stream else 'whole'}")
    for name, (way, fate, outcome) in FATES.items()
    for stream in (True, False)
    if way in ("both", "streamed" if stream else "whole")
]


def outcome_of(proxy: Running, model: str = "m", *, text: str = "Hi", stream: bool) -> Outcome:
    reply = ask(proxy, model, stream=stream, messages=request(text)["messages"])
    if reply.status != 200:
        return Outcome(reply.status, reply.error[1])
    if not stream:
        return Outcome(200, reply.json["stop_reason"])
    assert check(reply.body) == []
    return Outcome(200, re.sub(":.*", "", reply.script[-1]))


@pytest.mark.parametrize(("fate", "stream", "outcome"), CASES)
def test_the_client_hears_it_in_time_and_the_connection_is_given_up(
    proxy: Running, lingering: LingeringBackEnd, fate: Fate, stream: bool, outcome: Outcome
) -> None:
    lingering.fate = fate
    lingering.given_up.clear()
    lingering.connections = 0
    began = time.monotonic()
    assert outcome_of(proxy, stream=stream) == outcome
    assert time.monotonic() - began < FIRST_TOKEN + seconds(1)
    until(lambda: len(lingering.given_up) == lingering.connections, 1)
    until(lambda: set(proxy.tasks) <= TASKS_OF_THE_SERVER)
    assert lingering.connections == 1


def test_what_comes_after_its_time_is_nobodys_answer(proxy: Running, lingering: LingeringBackEnd) -> None:
    late = json.dumps(message("too late")).encode()
    said = JSON + b"content-length: %d\r\n\r\n" % len(late) + late
    lingering.fate = says(then=after(FIRST_TOKEN + 0.2, says_once(said)))
    assert outcome_of(proxy, stream=False) == LATE
    lingering.fate = answers_each(JSON + LENGTH + WHOLE)
    for _ in range(3):
        assert ask(proxy, "m").text == "Hello"
        time.sleep(0.15)


def says_once(said: bytes) -> Fate:
    return lambda connection: connection.socket.sendall(said)


def answers_each(said: bytes) -> Fate:
    def fate(connection: Connection) -> None:
        while connection.read_request():
            connection.socket.sendall(said)

    return fate


# --- every kind of back end


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd([CUT]) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def every_kind(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("rules")
    with BackEnd(token()) as tokens:
        with running(rules(back_end.url, tokens.url, folder), folder, {"KEY": "KEY-1"}) as proxy:
            yield proxy


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_breaks_off_is_a_failure_wherever_it_does(
    every_kind: Running, back_end: BackEnd, kind: str
) -> None:
    def broken(received: Received) -> Script:
        ending = RESET if b"reset" in received.body else CUT
        return [*KINDS[kind].answer(received)[:-1], ending]

    back_end.answers = [broken]
    cases = [
        (moment, ending, stream)
        for moment in MOMENTS
        for ending in ("reset", "cut")
        for stream in (True, False)
    ]

    def outcome(case: tuple[str, str, bool]) -> Outcome:
        moment, ending, stream = case
        return outcome_of(every_kind, kind, text=f"{moment}, {ending}", stream=stream)

    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(cases, pool.map(outcome, cases), strict=True))
    # A reset takes along what was not read before it.
    allowed = {case: {BROKEN} for case in cases}
    allowed["after content", "cut", True] = {CUT_SHORT}
    allowed["after content", "reset", True] = {CUT_SHORT, BROKEN}
    assert {case: result for case, result in found.items() if result not in allowed[case]} == {}
    until(lambda: not open_connections(every_kind.url, back_end.url))
    until(lambda: set(every_kind.tasks) <= TASKS_OF_THE_SERVER)
