"""File descriptors for back ends: connections that idle make room for those that are needed."""

import asyncio
from collections.abc import Iterator

import pytest

from routeproxy.policy.providers import Provider
from routeproxy.upstream.http import client as http_client
from routeproxy.upstream.http.client import Client
from tests.backend import BackEnd, json_answer, pause
from tests.sockets import open_connections

ROOM = 4
PROVIDER = Provider(name="p", type="anthropic")


@pytest.fixture
def back_ends() -> Iterator[list[BackEnd]]:
    back_ends = [BackEnd([pause(0.05), *json_answer({})]) for _ in range(3)]
    for back_end in back_ends:
        back_end.__enter__()
    yield back_ends
    for back_end in back_ends:
        back_end.__exit__()


async def asked(client: Client, back_ends: list[BackEnd], at_once: int) -> int:
    """Asks each in turn, so many times at once; returns the most connections that were open afterwards."""

    async def ask(back_end: BackEnd) -> None:
        response = await client.post(PROVIDER, back_end.url, body=b"{}", headers={}, connect=5)
        assert await response.read_all(100) == b"{}"
        response.close()

    most = 0
    for back_end in back_ends * 2:
        await asyncio.gather(*(ask(back_end) for _ in range(at_once)))
        await asyncio.sleep(0.05)  # both ends of what was closed are gone
        most = max(most, len(open_connections(*(one.url for one in back_ends))) // 2)
    await client.aclose()
    return most


@pytest.mark.parametrize("at_once", [1, 3, ROOM])
def test_what_idles_to_one_back_end_makes_room_for_another(
    monkeypatch: pytest.MonkeyPatch, back_ends: list[BackEnd], at_once: int
) -> None:
    monkeypatch.setattr(http_client, "most_clients", lambda: ROOM)
    assert asyncio.run(asked(Client({}), back_ends, at_once)) <= ROOM


def test_what_idles_is_kept_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, back_ends: list[BackEnd]
) -> None:
    monkeypatch.setattr(http_client, "most_clients", lambda: 3)
    asyncio.run(asked(Client({}), back_ends, 1))
    assert [back_end.connections for back_end in back_ends] == [1, 1, 1]


def test_more_at_work_than_there_is_room_for_are_not_held_up(
    monkeypatch: pytest.MonkeyPatch, back_ends: list[BackEnd]
) -> None:
    monkeypatch.setattr(http_client, "most_clients", lambda: 1)
    asyncio.run(asked(Client({}), back_ends, 5))
    assert all(len(back_end.requests) == 10 for back_end in back_ends)
