"""How many requests a target, a member of a pool or a team has at once, and who waits for a place
(docs/rules.md, "max_concurrent" and "pools")."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.backend import CUT, HANG, BackEnd, error, json_answer, messages_stream, pause, streamed
from tests.budgets import seconds
from tests.running import Running, Served, connect, post, request, request_bytes, running, serving, until
from tests.wire.asking import answers

RULES = """
[server]
queue = {{ wait = "{wait}", length = {length} }}
admin_keys = ["env:ADMIN"]

[providers.one]
type = "anthropic"
base_url = "{one}"
api_key = "none"
max_concurrent = 2

[providers.two]
type = "anthropic"
base_url = "{two}"
api_key = "none"

[pools.both]
members = [{{ target = "two/a", max_concurrent = 1 }}, {{ target = "two/b", max_concurrent = 1 }}]

[teams.some]
keys = "env:SOME"
max_concurrent = 1

[teams.others]
keys = "env:OTHERS"

[[rules]]
match.model.equals = "falls-back"
targets = ["one/m", "two/m"]

[[rules]]
match.model.equals = "pool"
targets = "both"

[[rules]]
match.model.equals = "team"
targets = "two/m"

[default]
targets = "one/m"
"""
ENVIRON = {"ADMIN": "key-of-admin", "SOME": "key-of-some", "OTHERS": "key-of-others"}


def message(model: str) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": model,
        "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip


def slow(usual: float = 0.1) -> list[Any]:
    return [pause(usual), *json_answer(message("m"))]


@pytest.fixture(scope="module")
def back_ends() -> Iterator[tuple[BackEnd, BackEnd]]:
    with BackEnd() as one, BackEnd() as two:
        yield one, two


class Scene:
    def __init__(self, proxy: Running, one: BackEnd, two: BackEnd) -> None:
        self.proxy, self.one, self.two = proxy, one, two
        for back_end in (one, two):
            answers(back_end, slow())
            back_end.most_at_once = 0
            back_end.left_at.clear()

    def ask(self, model: str = "m", key: str = "key-of-others", **fields: Any) -> httpx.Response:
        return post(self.proxy.url, request(model=model, **fields), x_api_key=key)

    def ask_at_once(self, times: int, *arguments: Any, **fields: Any) -> list[httpx.Response]:
        with ThreadPoolExecutor(times) as pool:
            return [
                job.result() for job in [pool.submit(self.ask, *arguments, **fields) for _ in range(times)]
            ]


Serve = Callable[..., Scene]


@pytest.fixture
def serve(back_ends: tuple[BackEnd, BackEnd], tmp_path: Path) -> Iterator[Serve]:
    opened = []

    def start(wait: str = "5s", length: int = 100) -> Scene:
        one, two = back_ends
        rules = RULES.format(one=one.url, two=two.url, wait=wait, length=length)
        opened.append(proxy := running(rules, tmp_path, ENVIRON))
        return Scene(proxy.__enter__(), one, two)

    yield start
    for proxy in opened:
        proxy.__exit__(None, None, None)


def statuses(replies: list[httpx.Response]) -> Counter[int]:
    return Counter(reply.status_code for reply in replies)


def test_no_more_than_it_may_have_are_under_way_and_the_others_wait(serve: Serve) -> None:
    scene = serve()
    assert statuses(scene.ask_at_once(8)) == {200: 8}
    assert scene.one.most_at_once == 2


def test_who_finds_no_place_in_time_hears_so_with_a_status(serve: Serve) -> None:
    scene = serve(wait="100ms")
    answers(scene.one, slow(1.5))
    for stream in (False, True):
        replies = scene.ask_at_once(4, stream=stream)
        refused = [reply for reply in replies if reply.status_code != 200]
        assert statuses(refused) == {529: 2}
        assert refused[0].json()["error"]["type"] == "overloaded_error"
        assert int(refused[0].headers["retry-after"]) >= 1


@pytest.mark.parametrize(("wait", "length"), [("0s", 100), ("5s", 0)], ids=["no time", "no room"])
def test_a_queue_may_be_none(serve: Serve, wait: str, length: int) -> None:
    scene = serve(wait, length)
    answers(scene.one, slow(0.5))
    began = time.monotonic()
    assert statuses(scene.ask_at_once(4)) == {200: 2, 529: 2}
    assert time.monotonic() - began < seconds(3)


def test_a_full_target_is_passed_over_where_another_may_answer(serve: Serve) -> None:
    scene = serve()
    answers(scene.one, slow(0.5))
    replies = scene.ask_at_once(5, "falls-back")
    assert Counter(reply.headers["x-routeproxy-provider"] for reply in replies) == {"one": 2, "two": 3}


def test_members_of_a_pool_share_what_comes_and_all_full_the_rest_waits_for_any(serve: Serve) -> None:
    scene = serve()
    replies = scene.ask_at_once(6, "pool")
    assert statuses(replies) == {200: 6}
    assert scene.two.most_at_once == 2
    assert set(Counter(reply.headers["x-routeproxy-model"] for reply in replies)) == {"a", "b"}


def test_a_team_has_so_many_at_once_and_nobody_else_waits_for_it(serve: Serve) -> None:
    scene = serve(wait="100ms")
    answers(scene.two, slow(1.0))
    with ThreadPoolExecutor(5) as pool:
        own = [pool.submit(scene.ask, "team", "key-of-some") for _ in range(3)]
        others = [pool.submit(scene.ask, "team", "key-of-others") for _ in range(2)]
        assert statuses([job.result() for job in others]) == {200: 2}
        replies = [job.result() for job in own]
    assert statuses(replies) == {200: 1, 429: 2}
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert "team" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(error(500, "broken"), id="a failure"),
        pytest.param(streamed(*messages_stream("Hello")[:3], CUT), id="a cut"),
        pytest.param(json_answer({"type": "what"}), id="no message"),
    ],
)
def test_a_place_is_given_back_however_an_attempt_ends(serve: Serve, broken: Any) -> None:
    scene = serve(wait="0s")
    answers(scene.one, broken)
    for _ in range(5):
        scene.ask(stream=True)
    answers(scene.one, slow(0.01))
    assert [scene.ask().status_code for _ in range(3)] == [200, 200, 200]


def test_clients_that_leave_give_back_their_places_and_their_turns(serve: Serve) -> None:
    scene = serve()
    answers(scene.one, [HANG])
    sent = request_bytes(request(model="m"), x_api_key="key-of-others")
    socks = [connect(scene.proxy.url) for _ in range(5)]
    for sock in socks:
        sock.sendall(sent)
    until(lambda: len(scene.one.requests) == 2)
    for sock in socks:
        sock.close()
    until(lambda: len(scene.one.left_at) == 2)
    answers(scene.one, slow(0.01))
    assert [scene.ask().status_code for _ in range(3)] == [200, 200, 200]


def test_to_ask_where_it_would_go_takes_no_place(serve: Serve) -> None:
    scene = serve(wait="0s")
    for _ in range(4):
        reply = post(scene.proxy.url, request(model="pool"), "/v1/route", x_api_key="key-of-admin").json()
        assert sorted(target["turn"] for target in reply["targets"]) == [1, 2]
        assert [target["health"] for target in reply["targets"]] == ["ok", "ok"]


def test_a_full_target_shows_it_and_who_waits_for_what(serve: Serve) -> None:
    scene = serve()
    answers(scene.one, [HANG])
    answers(scene.two, [HANG])

    assert _status(scene.proxy)["waiting"] == {}
    asked = [("m", "others")] * 3 + [("team", "some")] * 3 + [("pool", "others")] * 4
    socks = [connect(scene.proxy.url) for _ in asked]
    for sock, (model, team) in zip(socks, asked, strict=True):
        sock.sendall(request_bytes(request(model=model), x_api_key=f"key-of-{team}"))
    until(lambda: sum(_status(scene.proxy)["waiting"].values()) == 5)
    shown = _status(scene.proxy)
    assert shown["targets"]["one/m"].startswith("full: ")
    assert shown["targets"]["two/m"] == "ok"
    waiting = Counter(shown["waiting"])
    assert waiting.pop("provider one") == 1
    assert waiting.pop("team some") == 2
    assert all(name in ("member two/a of pool both", "member two/b of pool both") for name in waiting)
    for sock in socks:
        sock.close()
    until(lambda: _status(scene.proxy)["waiting"] == {})


def test_two_workers_send_a_session_to_the_same_member_and_where_it_moved(
    back_ends: tuple[BackEnd, BackEnd], tmp_path: Path
) -> None:
    one, two = answers(back_ends[0], slow(0)), answers(back_ends[1], slow(0))
    (tmp_path / "rules.toml").write_text(POOL.format(one=one.url, two=two.url))
    flags = ("--rules", "rules.toml", "--port", "0", "--workers", "2")
    with serving(tmp_path, *flags, environ=ENVIRON) as server, ThreadPoolExecutor(8) as pool:

        def ask(session: str) -> str:
            """Over a connection of its own, so that either worker may answer."""
            reply = post(server.url, request(model="m"), x_claude_code_session_id=session)
            assert reply.status_code == 200, reply.text
            return reply.headers["x-routeproxy-provider"]

        def all_asked() -> list[str]:
            return list(pool.map(ask, SESSIONS))

        until(lambda: len({_status(server)["process"] for _ in range(20)}) == 2, 10)
        first = all_asked()
        assert 10 < first.count("one") < 50
        assert [all_asked() for _ in range(3)] == [first] * 3

        answers(one, error(503, "down"))
        assert all_asked() == ["two"] * len(SESSIONS)
        answers(one, slow(0))
        until(lambda: _status(server)["targets"]["one/m"] == "ok", 10)
        assert [all_asked() for _ in range(3)] == [["two"] * len(SESSIONS)] * 3, "each stays where it moved"


SESSIONS = [f"session-{number}" for number in range(60)]
POOL = """
[server]
admin_keys = ["env:ADMIN"]
health = {{ cooldown = "1s" }}

[providers.one]
type = "anthropic"
base_url = "{one}"
api_key = "none"

[providers.two]
type = "anthropic"
base_url = "{two}"
api_key = "none"

[pools.both]
members = ["one/m", "two/m"]

[default]
targets = "both"
"""


def _status(server: Running | Served) -> Any:
    return server.get("/-/status", x_api_key="key-of-admin").json()


def test_two_workers_keep_one_limit_and_one_that_is_killed_gives_back_its_places(
    back_ends: tuple[BackEnd, BackEnd], tmp_path: Path
) -> None:
    one, two = answers(back_ends[0], slow(0.2)), answers(back_ends[1], slow())
    one.most_at_once = 0
    (tmp_path / "rules.toml").write_text(RULES.format(one=one.url, two=two.url, wait="5s", length=100))
    flags = ("--rules", "rules.toml", "--port", "0", "--workers", "2")
    with serving(tmp_path, *flags, environ=ENVIRON) as server, ThreadPoolExecutor(12) as pool:

        def ask() -> int:
            return post(server.url, request(model="m"), x_api_key="key-of-others").status_code

        assert Counter(job.result() for job in [pool.submit(ask) for _ in range(12)]) == {200: 12}
        assert one.most_at_once == 2

        answers(one, [HANG])
        socks = [connect(server.url) for _ in range(2)]
        for sock in socks:
            sock.sendall(request_bytes(request(model="m"), x_api_key="key-of-others"))
        until(lambda: len(one.requests) == 2)
        before = server.workers
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        for sock in socks:
            sock.close()
        until(lambda: len(server.workers) == 2 and not server.workers & before, 10)
        answers(one, slow(0.01))
        until(lambda: _is_ready(server), 10)
        assert ask() == 200


def _is_ready(server: Served) -> bool:
    try:
        return server.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
