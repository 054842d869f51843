"""What can go wrong with the first target of a chain: the sixteen scenarios of the public board for gateways,
restated for Anthropic streams, and ours."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from routeproxy.drill.back_end import Answer, Asked, Behaviour, well
from routeproxy.drill.formats import WORDS

DOWN = 60.0
"""Seconds for which the first target of the fifteenth scenario is down; it is asked every `ASKED_EVERY`."""
ASKED_EVERY = 4.0
MIDDLE = 5.0
"""Seconds from the beginning of a request to what happens in its middle."""


FIRST = "1"
"""The target that misbehaves, by its place in the chain."""


class Scenario(NamedTuple):
    number: str
    name: str
    behaviour: Behaviour
    limit: float = 100.0
    """Seconds that a complete answer may take."""
    advised: float | None = None
    """Seconds within which its first content should come."""
    wants_twice: bool = False
    """The first target should be asked again."""
    may_refuse: bool = False
    """An error or a refusal is right, and going to somebody else is wrong."""
    times: int = 1
    """How many requests it takes."""
    every: float = ASKED_EVERY
    """Seconds between two of them."""
    misses: Callable[[Sequence[Asked]], bool] = lambda asked: False
    """Whether those that were asked show that something advised was not done."""
    reloads: bool = False
    """After `MIDDLE` the rules are others, which refuse everything: who was there before notices nothing."""
    leaves: bool = False
    """After `MIDDLE` the client is gone, and with it the wish for an answer."""
    scheme: str = "http"
    """By which it is asked."""
    host: str = "127.0.0.1"
    only: Literal["stream", "whole"] | None = None
    """How it is asked for; `None`: both ways."""


async def limited_once(answer: Answer) -> None:
    await (answer.fail(429, retry_after="2") if answer.number == 0 else answer.answer())


async def limited(answer: Answer) -> None:
    await answer.fail(429)


async def fails_once(answer: Answer) -> None:
    await (answer.fail(500) if answer.number == 0 else answer.answer())


async def unavailable(answer: Answer) -> None:
    await answer.fail(503)


async def resets_once(answer: Answer) -> None:
    if answer.number == 0:
        answer.reset()
    else:
        await answer.answer()


async def silent(answer: Answer) -> None:
    await asyncio.sleep(120)
    await answer.answer()


async def slow_to_begin(answer: Answer) -> None:
    await asyncio.sleep(20)
    await answer.answer()


async def cut(answer: Answer) -> None:
    await answer.begin(40)
    answer.cut()


async def stalls(answer: Answer) -> None:
    await answer.begin(20)
    await asyncio.sleep(30)
    await answer.complete(20)


async def malformed(answer: Answer) -> None:
    await answer.begin(20)
    await asyncio.sleep(1)
    await answer.write(b'data: {"choices": [{"del\n\n' if answer.stream else b'{"x":')
    await answer.complete(20)


async def unmarked(answer: Answer) -> None:
    """Whole, with its finish reason, and then the connection ends."""
    await answer.begin()
    await answer.complete(marked=False)
    answer.cut()


async def overflow(answer: Answer) -> None:
    await answer.send_body(400, answer.format.overflow())


async def filtered(answer: Answer) -> None:
    body = answer.format.filtered()
    await answer.send_body(200 if b"promptFeedback" in body else 400, body)


async def reset_in_the_middle(answer: Answer) -> None:
    await answer.begin(40)
    await asyncio.sleep(0.1)
    answer.reset()


def down_for(seconds: float) -> Behaviour:
    began: list[float] = []

    async def behave(answer: Answer) -> None:
        now = asyncio.get_running_loop().time()
        began[:] = began or [now]
        await (answer.fail(503) if now < began[0] + seconds else answer.answer())

    return behave


def sixteen() -> Sequence[Scenario]:
    """Made anew for each rehearsal, since some remember when they began."""
    return (
        Scenario("01", "429 once, with retry-after: 2", limited_once, wants_twice=True),
        Scenario("02", "429 always", limited),
        Scenario("03", "500 once", fails_once, wants_twice=True),
        Scenario("04", "503 always", unavailable),
        Scenario("05", "reset once", resets_once),
        Scenario("06", "silence of 120 s", silent),
        Scenario("07", "the first token after 20 s", slow_to_begin, advised=15.0),
        Scenario("08", f"cut after 40 of {len(WORDS)} words", cut),
        Scenario("09", "a stall of 30 s after 20 words", stalls),
        Scenario("10", "a malformed frame", malformed),
        Scenario("11", "whole, but for the mark of the end", unmarked),
        Scenario("12", "the prompt is too long for it", overflow),
        Scenario("13", "its content filter refuses", filtered, may_refuse=True),
        Scenario("14", f"reset after 40 of {len(WORDS)} words", reset_in_the_middle),
        Scenario("15", f"down for {DOWN:.0f} s, asked every {ASKED_EVERY:.0f} s", down_for(DOWN), times=16),
        Scenario("16", "503, and the served model is told", unavailable),
    )


async def error_in_a_200(answer: Answer) -> None:
    await answer.send_body(200, answer.format.error(500, "api_error", "Internal server error"))


async def page(answer: Answer) -> None:
    await answer.send_body(200, b"<html><body>Welcome</body></html>", content_type="text/html")


async def endless_header(answer: Answer) -> None:
    await answer.write_raw(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        await answer.write_raw(b"x-%d: %b\r\n" % (number, b"a" * 1000))


async def cut_json(answer: Answer) -> None:
    await answer.begin(40)
    await asyncio.sleep(1)
    answer.cut()


async def refused(answer: Answer) -> None:
    answer.reset()


async def slow_body(answer: Answer) -> None:
    await answer.begin()
    await answer.complete(every=0.5)


async def halfway(answer: Answer) -> None:
    """So that something can happen in the middle."""
    await answer.begin(40)
    await answer.complete(40, every=0.5)


async def waits_for_nobody(answer: Answer) -> None:
    await answer.begin(40)
    await answer.wait_until_let_go(60)


SHORTLY_DOWN = 20.0
"""Seconds for which the first target of the twenty-seventh scenario is down; it is asked every second."""
FEW = 10
"""How often it should be asked meanwhile, at most."""


def asked_too_often(asked: Sequence[Asked]) -> bool:
    """Or not again, though it is well again."""
    down_until = asked[0].at + SHORTLY_DOWN
    while_down = sum(one.target == FIRST and one.at < down_until for one in asked)
    return while_down > FEW or asked[-1].target != FIRST


def ours() -> Sequence[Scenario]:
    """Made anew for each rehearsal, as the sixteen."""
    return (
        Scenario("17", "an error inside a 200", error_in_a_200),
        Scenario("18", "a web page in place of an answer", page),
        Scenario("19", "a header that does not end", endless_header),
        Scenario("20", "no TLS where it is expected", well, scheme="https"),
        Scenario("21", "it resets every connection", refused),
        Scenario("22", "JSON that is cut", cut_json, only="whole"),
        Scenario("23", "no such name in the DNS", well, host="nobody.invalid"),
        Scenario("24", "slow: half a minute for its words", slow_body),
        Scenario("25", "the rules change in the middle of its answer", halfway, reloads=True),
        Scenario("26", "the client leaves in the middle of its answer", waits_for_nobody, leaves=True),
        Scenario(
            "27",
            f"down for {SHORTLY_DOWN:.0f} s, asked every second for a minute",
            down_for(SHORTLY_DOWN),
            times=61,
            every=1.0,
            misses=asked_too_often,
        ),
    )
