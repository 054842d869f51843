"""A server that has too much to do refuses new work first (docs/running.md, "Memory")."""

import asyncio
import logging
import time
from pathlib import Path

import pytest

from routeproxy.messages.errors import ApiError
from routeproxy.web.overload import LATE, TICK, Overload
from tests.running import ECHO, post, request, running


def refuses(overload: Overload) -> bool:
    try:
        overload.refuse_new_work()
    except ApiError as error:
        return (error.status, error.type, "retry-after" in error.headers) == (529, "overloaded_error", True)
    return False


def test_above_its_memory_limit_it_refuses_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        limit, used = 100, 50
        overload = Overload(lambda: limit, lambda: used)
        assert not refuses(overload)
        used = 150
        overload._looked_at -= 2
        assert [refuses(overload) for _ in range(3)] == [True, True, True]
        used = 50
        overload._looked_at -= 2
        assert not refuses(overload)

    asyncio.run(scene())
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "new requests are refused, since the server is overloaded",
        "new requests are answered again",
    ]


def test_without_a_limit_no_memory_is_too_much() -> None:
    async def scene() -> None:
        assert not refuses(Overload(lambda: None, lambda: 2**60))

    asyncio.run(scene())


def test_a_memory_that_nobody_knows_refuses_nobody() -> None:
    async def scene() -> None:
        assert not refuses(Overload(lambda: 1, lambda: None))

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("lags", "refused"),
    [
        pytest.param([LATE + 1], False, id="once is nothing"),
        pytest.param([LATE + 1, LATE + 1], True, id="twice in a row"),
        pytest.param([LATE + 1, LATE + 1, 0.0], False, id="and it is over"),
        pytest.param([0.5] * 9, False, id="a little late"),
    ],
)
def test_a_loop_that_is_late_twice_in_a_row_refuses(lags: list[float], refused: bool) -> None:
    async def scene() -> None:
        overload = Overload(lambda: None)
        assert not refuses(overload)
        loop = asyncio.get_running_loop()
        for lag in lags:
            overload._tick(loop, loop.time() - lag)
        assert refuses(overload) is refused

    asyncio.run(scene())


def test_a_loop_that_has_little_to_do_is_not_late() -> None:
    async def scene() -> None:
        overload = Overload(lambda: None)
        assert not refuses(overload)
        await asyncio.sleep(3 * TICK)
        assert max(overload._lags) < LATE

    asyncio.run(scene())


def test_an_overloaded_server_refuses_before_it_reads_a_body_and_still_says_that_it_lives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "routeproxy.web.overload")
    rules = f'{ECHO}\n[server]\nmemory_limit_mb = 1\nadmin_keys = ["env:ADMIN"]\n'
    with running(rules, tmp_path, {"ADMIN": "key-of-admin"}) as proxy:
        began = time.monotonic()
        reply = post(proxy.url, request())
        assert reply.status_code == 529
        assert reply.json()["error"]["type"] == "overloaded_error"
        assert time.monotonic() - began < 5
        assert proxy.get("/healthz").status_code == 200
        status = proxy.get("/-/status", x_api_key="key-of-admin").json()
        assert "MB of memory" in status["overloaded"]
    assert len(caplog.messages) == 1
