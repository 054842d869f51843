"""What is written in one piece, and what at once (`CoalescingTransport`)."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from routeproxy.web.http_protocol import CoalescingTransport


class Loop:
    """A loop whose clock stands still in a turn, as uvloop's."""

    def __init__(self) -> None:
        self.now = 0.0
        self._soon: list[Callable[[], object]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, what: Callable[[], object]) -> None:
        self._soon.append(what)

    @property
    def deferred(self) -> int:
        return len(self._soon)

    def turn(self) -> None:
        soon, self._soon = self._soon, []
        for what in soon:
            what()
        self.now += 0.01


class Sent:
    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return self.closed


def transport() -> tuple[CoalescingTransport, Loop, Sent]:
    loop, sent = Loop(), Sent()
    made = CoalescingTransport(cast(asyncio.Transport, sent), cast(Any, loop))
    return made, loop, sent


def test_headers_body_and_end_of_a_whole_answer_are_one_write() -> None:
    written, loop, sent = transport()
    for data in (b"headers", b"body", b"end"):
        written.write(data)
    written.end_answer()
    loop.turn()
    assert sent.writes == [b"headersbodyend"]


def test_in_mid_stream_an_event_is_sent_at_once_and_costs_no_turn_of_its_own() -> None:
    written, loop, sent = transport()
    written.write(b"headers")
    written.write(b"first")
    loop.turn()
    for number in range(3):
        written.write(b"event %d" % number)
        assert sent.writes[-1] == b"event %d" % number
        assert loop.deferred == 0
        loop.turn()


def test_what_comes_in_one_turn_with_an_event_is_sent_together_and_in_order() -> None:
    written, loop, sent = transport()
    written.write(b"headers")
    loop.turn()
    for data in (b"last event", b"end", b" of it"):
        written.write(data)
    loop.turn()
    assert sent.writes == [b"headers", b"last event", b"end of it"]


def test_the_next_answer_on_a_connection_begins_anew() -> None:
    written, loop, sent = transport()
    written.write(b"one")
    loop.turn()
    written.end_answer()
    loop.turn()
    written.write(b"headers")
    written.write(b"body")
    written.end_answer()
    assert sent.writes == [b"one", b"headersbody"]


def test_nothing_is_written_to_a_client_that_is_gone() -> None:
    written, loop, sent = transport()
    written.write(b"one")
    loop.turn()
    sent.closed = True
    written.write(b"two")
    loop.turn()
    assert sent.writes == [b"one"]
