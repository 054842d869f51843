"""The key is looked at again, and the rules as they are then, once the body of a request is complete: one
that comes late is decided by what is in force when there is something to decide."""

import asyncio
import datetime
import gzip
import hashlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.proxy import Proxy
from routeproxy.upstream.registry import Registry
from routeproxy.web.app import build_app
from routeproxy.web.auth import Authenticator, Caller, Headers
from tests.backend import BackEnd, json_answer
from tests.running import ECHO, Running, connect, receive_until, request, request_bytes, running, until
from tests.wire.asking import message

SHA = hashlib.sha256(b"hashed").hexdigest()

RULES = """
[server]
admin_keys = [{{ name = "ops", key = "env:ADMIN_KEY" }}, "env:SECOND_KEY"]
url_targets = true

[providers.seen]
type = "anthropic"
base_url = "{url}"
api_key = "none"
zone = "local"

[teams.payments]
keys = ["env:KEY", "sha256:{sha}", "file:{folder}/key"]
explain = true

[teams.research]
keys = "env:OTHER_KEY"

[[rules]]
name = "research"
match.team = "research"
targets = "seen/research"

[default]
targets = "seen/everybody"
"""
ENVIRON = {"KEY": "pay", "OTHER_KEY": "other", "THIRD_KEY": "third", "ADMIN_KEY": "admin", "SECOND_KEY": "2"}


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd(json_answer(message())) as back_end:
        yield back_end


@pytest.fixture
def proxy(back_end: BackEnd, tmp_path: Path) -> Iterator[Running]:
    back_end.requests.clear()
    (tmp_path / "key").write_text("from a file")
    rules = RULES.format(url=back_end.url, sha=SHA, folder=tmp_path)
    with running(rules, tmp_path, ENVIRON) as proxy:
        yield proxy


class Answer:
    """What came back over a bare connection."""

    def __init__(self, received: bytes) -> None:
        head, _, body = received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        return self.status, self.json["error"]["message"]


def late(
    proxy: Running,
    meanwhile: Callable[[], object],
    body: object = None,
    path: str = "/v1/messages",
    **headers: str,
) -> Answer:
    """Sends a request whose body begins once it was let in, and ends when `meanwhile` is over."""
    sent = request_bytes(
        request() if body is None else body,
        path,
        host="127.0.0.1",
        connection="close",
        expect="100-continue",
        **headers,
    )
    head, _, content = sent.partition(b"\r\n\r\n")
    with connect(proxy.url) as wire:
        wire.sendall(head + b"\r\n\r\n")
        assert b"100 Continue" in receive_until(wire, b"\r\n\r\n")
        wire.sendall(content[:1])
        meanwhile()
        wire.sendall(content[1:])
        return Answer(receive_until(wire))


def edited(proxy: Running, *changes: tuple[str, str]) -> Callable[[], None]:
    """Changes the rules, and waits until they are in force."""

    def edit() -> None:
        text, before = proxy.rules.read_text(), proxy.app.rules.policy
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        proxy.rules.write_text(text)
        until(lambda: proxy.app.rules.policy is not before, 5)

    return edit


TAKEN_BACK = ('"env:KEY", ', "")
MOVED = (('"env:KEY", ', ""), ('keys = "env:OTHER_KEY"', 'keys = ["env:OTHER_KEY", "env:KEY"]'))

PATHS = ["/v1/messages", "/v1/messages/count_tokens", "/v1/route", "/seen:m/v1/messages"]


# --- the key


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_key_that_is_taken_back_opens_nothing_for_a_body_that_comes_later(
    proxy: Running, back_end: BackEnd, path: str, packed: bool
) -> None:
    body = gzip.compress(json.dumps(request()).encode()) if packed else request()
    encoding = {"content_encoding": "gzip"} if packed else {}
    found = late(proxy, edited(proxy, TAKEN_BACK), body, path, x_api_key="pay", **encoding)
    assert found.error == (401, "invalid x-api-key")
    assert found.headers["x-routeproxy-rules-version"] == proxy.app.rules.policy.version
    assert back_end.requests == []


def test_nothing_is_lost_where_nothing_changes(proxy: Running, back_end: BackEnd) -> None:
    assert late(proxy, lambda: None, x_api_key="pay").status == 200
    assert len(back_end.requests) == 1


def test_a_key_that_moved_counts_for_the_team_that_has_it_now(proxy: Running) -> None:
    found = late(proxy, edited(proxy, *MOVED), x_api_key="pay")
    assert (found.status, found.headers["x-routeproxy-rule"]) == (200, "research")


def test_a_team_may_lose_its_right_to_ask_why(proxy: Running) -> None:
    found = late(
        proxy, edited(proxy, ("explain = true", "explain = false")), path="/v1/route", x_api_key="pay"
    )
    assert found.error == (403, "this key may not ask why: `explain` of its team is not set")


def test_a_hashed_key_that_is_taken_back(proxy: Running) -> None:
    found = late(proxy, edited(proxy, (f'"sha256:{SHA}", ', "")), authorization="Bearer hashed")
    assert found.error == (401, "invalid x-api-key")


def test_a_key_file_that_changes_counts_for_a_body_that_comes_later(proxy: Running, tmp_path: Path) -> None:
    def rotate() -> None:
        (tmp_path / "key").write_text("rotated, and of another length")

    assert late(proxy, rotate, x_api_key="from a file").error == (401, "invalid x-api-key")


def test_a_key_that_gets_a_last_day_in_the_past(proxy: Running) -> None:
    over = ('"env:KEY"', '{ key = "env:KEY", expires = 2020-01-01 }')
    found = late(proxy, edited(proxy, over), x_api_key="pay")
    assert found.error == (401, "invalid x-api-key: this key expired on 2020-01-01")


def test_one_of_two_keys_of_a_team_may_go(proxy: Running) -> None:
    found = late(proxy, edited(proxy, TAKEN_BACK), x_api_key="pay", authorization="Bearer hashed")
    assert (found.status, found.headers["x-routeproxy-rule"]) == (200, "default")


def test_two_keys_that_are_of_two_teams_by_now(proxy: Running) -> None:
    found = late(proxy, edited(proxy, *MOVED), x_api_key="pay", authorization="Bearer hashed")
    assert found.error == (401, "invalid x-api-key: two keys were shown, and they are not of one team")


TOKENS = [
    pytest.param(ECHO, "", "ANTHROPIC_AUTH_TOKEN=new", {}, id="an open server gets a token"),
    pytest.param(
        ECHO, "ANTHROPIC_AUTH_TOKEN=old", "ANTHROPIC_AUTH_TOKEN=new", {"x_api_key": "old"}, id="new"
    ),
]


@pytest.mark.parametrize(("rules", "before", "after", "shown"), TOKENS)
def test_a_token_that_changes_counts_for_a_body_that_comes_later(
    tmp_path: Path, rules: str, before: str, after: str, shown: dict[str, str]
) -> None:
    (tmp_path / ".env").write_text(before)
    with running(rules, tmp_path) as proxy:

        def change() -> None:
            (tmp_path / ".env").write_text(after)
            until(lambda: proxy.post(request(), **shown).status_code == 401, 5)

        assert late(proxy, change, **shown).status == 401


def test_a_server_may_open_while_a_body_comes(tmp_path: Path) -> None:
    """Whoever had a key before is a client of no team now."""
    rules = '[teams.a]\nkeys = "env:KEY"\n' + ECHO
    with running(rules, tmp_path, ENVIRON) as proxy:
        found = late(proxy, edited(proxy, ('[teams.a]\nkeys = "env:KEY"\n', "")), x_api_key="pay")
        assert found.status == 200


# --- the rules


def test_a_request_is_decided_by_the_rules_in_force_when_its_body_is_complete(
    proxy: Running, back_end: BackEnd
) -> None:
    before = proxy.app.rules.policy.version
    found = late(
        proxy,
        edited(
            proxy, ('"seen/everybody"', '"seen/from-now-on"'), ("[default]", "[default]\nretry.attempts = 2")
        ),
        x_api_key="pay",
    )
    assert found.headers["x-routeproxy-model"] == "from-now-on"
    assert found.headers["x-routeproxy-rules-version"] == proxy.app.rules.policy.version != before
    assert [asked.json["model"] for asked in back_end.requests] == ["from-now-on"]


def test_a_new_denial_holds_for_a_body_that_comes_later(proxy: Running, back_end: BackEnd) -> None:
    found = late(proxy, edited(proxy, ('targets = "seen/everybody"', 'deny = "closed"')), x_api_key="pay")
    assert found.error == (400, "closed")
    assert back_end.requests == []


def test_targets_in_the_url_may_be_switched_off(proxy: Running, back_end: BackEnd) -> None:
    off = edited(proxy, ("url_targets = true", "url_targets = false"))
    assert late(proxy, off, path="/seen:m/v1/messages", x_api_key="pay").status == 404
    assert back_end.requests == []


def test_a_provider_of_the_url_may_go(proxy: Running) -> None:
    renamed = edited(proxy, ("[providers.seen]", "[providers.renamed]"), ("seen/", "renamed/"))
    found = late(proxy, renamed, path="/seen:m/v1/messages", x_api_key="pay")
    assert found.error == (400, "seen:m: expected provider:model with one of renamed")


def test_the_limit_on_bodies_is_that_in_force_too(proxy: Running) -> None:
    smaller = edited(proxy, ("url_targets", "max_body_mb = 1\nurl_targets"))
    found = late(proxy, smaller, request("x" * 2**20), x_api_key="pay")
    assert found.error == (413, "Request too large (max 1MB)")


def test_a_warning_of_rules_that_are_gone_is_not_shown(proxy: Running) -> None:
    shown = {"x_api_key": "pay", "x_routeproxy_explain": "1", "anthropic_version": "2023-06-01"}
    edited(proxy, ("explain = true", "explain = false"))()
    found = late(proxy, edited(proxy, ("explain = false", "explain = true")), **shown)
    assert "x-routeproxy-warning" not in found.headers
    assert "x-routeproxy-explain" in found.headers


# --- the administration


def test_an_admin_key_that_is_taken_back_rolls_nothing_back(proxy: Running) -> None:
    taken_back = edited(proxy, ('{ name = "ops", key = "env:ADMIN_KEY" }, ', ""))
    found = late(proxy, taken_back, {}, "/-/rollback", x_api_key="admin")
    assert found.error == (401, "invalid x-api-key")
    assert "ADMIN_KEY" not in proxy.rules.read_text()
    assert proxy.get("/-/status", x_api_key="2").json()["rules_problem"] is None


def test_an_admin_key_that_became_a_teams_rolls_nothing_back(proxy: Running) -> None:
    moved = edited(
        proxy,
        ('{ name = "ops", key = "env:ADMIN_KEY" }, ', ""),
        ('keys = "env:OTHER_KEY"', 'keys = "env:ADMIN_KEY"'),
    )
    found = late(proxy, moved, {}, "/-/rollback", x_api_key="admin")
    assert found.error == (403, "this takes an admin key, and a team's was shown")


def test_a_rollback_waits_for_a_reload_and_then_needs_a_key_that_still_counts(proxy: Running) -> None:
    """The version before knows the key; the one that is being loaded has taken it back."""
    edited(proxy, ("everybody", "somebody"))()
    loading, go_on = threading.Event(), threading.Event()
    load = proxy.app.rules._load

    def slow_load() -> Any:
        loading.set()
        assert go_on.wait(20)
        return load()

    proxy.app.rules._load = slow_load
    text = proxy.rules.read_text().replace('{ name = "ops", key = "env:ADMIN_KEY" }, ', "")
    proxy.rules.write_text(text)
    assert loading.wait(20)
    with connect(proxy.url) as wire:
        headers = {"host": "127.0.0.1", "x_api_key": "admin", "connection": "close"}
        wire.sendall(request_bytes({}, "/-/rollback", **headers))
        wire.settimeout(0.5)
        with pytest.raises(TimeoutError):
            wire.recv(1)
        go_on.set()
        wire.settimeout(20)
        assert Answer(receive_until(wire)).error == (401, "invalid x-api-key")


def test_each_action_of_an_admin_is_logged_with_the_name_of_the_key(
    proxy: Running, caplog: pytest.LogCaptureFixture
) -> None:
    def actions() -> list[str]:
        return [line for line in caplog.messages if "admin key" in line]

    with caplog.at_level(logging.INFO):
        first = proxy.app.rules.policy.version
        assert proxy.post(b"", "/-/reload", x_api_key="admin").status_code == 200
        assert proxy.post(b"", "/-/rollback", x_api_key="2").status_code == 409
        edited(proxy, ("everybody", "somebody"))()
        assert proxy.post(b"", "/-/rollback", authorization="Bearer 2").status_code == 200
        proxy.rules.write_text("broken")
        assert proxy.post(b"", "/-/reload", x_api_key="admin").status_code == 409
        assert proxy.post(b"", "/-/reload", x_api_key="pay").status_code == 403
        assert actions() == [
            "reload with admin key ops: reloaded",
            "rollback with admin key env:SECOND_KEY: refused",
            f"rollback with admin key env:SECOND_KEY: {first}",
            "reload with admin key ops: refused",
        ]


def test_a_reload_that_takes_back_the_key_that_asked_for_it_is_answered_and_logged(
    proxy: Running, caplog: pytest.LogCaptureFixture
) -> None:
    text = proxy.rules.read_text().replace('{ name = "ops", key = "env:ADMIN_KEY" }, ', "")
    with caplog.at_level(logging.INFO):
        proxy.rules.write_text(text)
        answer = proxy.post(b"", "/-/reload", x_api_key="admin")
        if answer.status_code == 401:  # the watch was faster
            pytest.skip("the edit took effect before the request came")
        assert (answer.status_code, answer.json()["reloaded"]) == (200, True)
        assert "reload with admin key ops: reloaded" in caplog.messages
    assert proxy.get("/-/status", x_api_key="admin").status_code == 401


@pytest.mark.parametrize(
    ("key", "name"),
    [
        pytest.param('"env:KEY"', "env:KEY", id="a variable"),
        pytest.param(f'"sha256:{SHA}"', "key 1", id="a hash"),
        pytest.param('"literal-key-of-an-admin"', "key 1", id="the key itself"),
        pytest.param('["env:KEY", "literal-key-of-an-admin"]', "env:KEY, key 2", id="a list"),
        pytest.param('{ name = "ops", key = "literal-key-of-an-admin" }', "ops", id="a name"),
    ],
)
def test_a_key_without_a_name_is_known_by_where_it_stands_never_by_itself(key: str, name: str) -> None:
    rules = f"[server]\nadmin_keys = {key}\n{ECHO}"
    policy = compile_rules(rules, path=Path("rules.toml"), environ={"KEY": "k"}, allow_literal_keys=True)
    assert ", ".join(key.name for key in policy.server.admin_keys) == name


# --- the clock, and the cost


DATED = f'[teams.a]\nkeys = {{ name = "ci", key = "env:KEY", expires = 2026-11-30 }}\n{ECHO}'


class Fixed:
    def __init__(self, policy: Policy) -> None:
        self.policy = policy


class Counting(Authenticator):
    times = 0

    def authenticate(self, headers: Headers, *, admin: bool = False) -> Caller:
        self.times += 1
        return super().authenticate(headers, admin=admin)


def asked(rules: str, body: Callable[[Counting, Fixed], AsyncIterator[bytes]], today: list[int]) -> Any:
    """The answer to a body that comes in parts, and how often the key was looked at. It is the last day of
    `today`, in November 2026."""
    policy = compile_rules(rules, path=Path("rules.toml"), environ={"KEY": "pay"})
    live = Fixed(policy)
    authenticator = Counting(
        policy, None, lambda: datetime.date(2026, 11, 1) + datetime.timedelta(today[-1] - 1)
    )

    async def asking() -> httpx.Response:
        app = build_app(Proxy(live, Registry(None, {}), len), authenticator=authenticator)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", headers={"x-api-key": "pay"}
        ) as client:
            return await client.post("/v1/messages", content=body(authenticator, live))

    return asyncio.run(asking()), authenticator.times


def test_a_key_whose_last_day_ends_while_the_body_comes() -> None:
    today = [30]

    async def body(*_: object) -> AsyncIterator[bytes]:
        content = json.dumps(request()).encode()
        yield content[:10]
        today.append(31)
        yield content[10:]

    answer, _ = asked(DATED, body, today)
    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == "invalid x-api-key: this key expired on 2026-11-30"


def test_a_key_is_looked_at_once_where_nothing_changes() -> None:
    async def body(*_: object) -> AsyncIterator[bytes]:
        content = json.dumps(request()).encode()
        for place in range(0, len(content), 7):
            yield content[place : place + 7]

    answer, times = asked(DATED, body, [30])
    assert (answer.status_code, times) == (200, 1)


def test_a_key_is_looked_at_again_where_the_rules_were_read_again() -> None:
    async def body(authenticator: Counting, live: Fixed) -> AsyncIterator[bytes]:
        content = json.dumps(request()).encode()
        yield content[:10]
        live.policy = compile_rules(DATED, path=Path("rules.toml"), environ={"KEY": "pay"})
        authenticator.update(live.policy, None)
        yield content[10:]

    answer, times = asked(DATED, body, [30])
    assert (answer.status_code, times) == (200, 2)
