"""A target that failed lately is left alone, within what the rules decided (docs/rules.md, "Health")."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backend import RESET, BackEnd, error, json_answer
from tests.budgets import seconds
from tests.running import Running, post, request, running, serving, until
from tests.wire.asking import Reply, answers, ask, message

RULES = """
[server]
admin_keys = "env:ADMIN"
health = {{ cooldown = "{cooldown}" }}

[providers.one]
type = "anthropic"
base_url = "{one}"
api_key = "env:KEY_OF_ALL"

[providers.two]
type = "anthropic"
base_url = "{two}"
api_key = "none"

[providers.forgotten]
type = "anthropic"
base_url = "{one}"
api_key = "none"
health = false

[teams.most]
keys = "env:MOST"
explain = true

[teams.apart]
keys = "env:APART"
provider_keys.one = "env:KEY_APART"

[[rules]]
match.model.equals = "alone"
targets = "one/m"

[[rules]]
match.model.equals = "never"
targets = ["one/m", "two/m"]
sticky = "0s"
fallback = false

[[rules]]
match.model.equals = "on-limits"
targets = ["one/m", "two/m"]
sticky = "0s"
fallback = {{ on = ["rate_limit"] }}

[[rules]]
match.model.equals = "forgotten"
targets = ["forgotten/m", "two/m"]
sticky = "0s"

[default]
targets = ["one/m", "two/m"]
sticky = "0s"
"""
ENVIRON = {
    "KEY_OF_ALL": "sk-of-all-0123456789",
    "KEY_APART": "sk-apart-0123456789",
    "ADMIN": "key-of-admin",
    "MOST": "key-of-most",
    "APART": "key-apart",
}

GOOD = json_answer(message())
DOWN = error(500, "broken")
LIMITED = error(429, "slow down", retry_after="40")


class Scene:
    """A proxy with two targets, and who was asked by each request."""

    def __init__(self, proxy: Running, one: BackEnd, two: BackEnd) -> None:
        self.proxy = proxy
        self.one = answers(one, GOOD)
        self.two = answers(two, GOOD)

    def ask(self, model: str = "m", *, key: str = "key-of-most", session: str = "s", **headers: str) -> Reply:
        named = {"x-api-key": key, "x-claude-code-session-id": session, **headers}
        return ask(self.proxy, model, headers=named)

    def asked(self, times: int = 1, model: str = "m", **more: Any) -> str:
        """Who was asked by each of so many requests, one after the other: `12 12 2`."""
        return " ".join(self._asked_once(model, **more) for _ in range(times))

    def _asked_once(self, model: str, **more: Any) -> str:
        before = len(self.one.requests), len(self.two.requests)
        self.ask(model, **more)
        return "1" * (len(self.one.requests) - before[0]) + "2" * (len(self.two.requests) - before[1])

    def take_down(self, back_end: BackEnd, answer: Any = DOWN) -> None:
        back_end.answers = [answer]


@pytest.fixture(scope="module")
def back_ends() -> Iterator[tuple[BackEnd, BackEnd]]:
    with BackEnd() as one, BackEnd() as two:
        yield one, two


@pytest.fixture
def scene(back_ends: tuple[BackEnd, BackEnd], tmp_path: Path) -> Iterator[Scene]:
    one, two = back_ends
    rules = RULES.format(one=one.url, two=two.url, cooldown="30s")
    with running(rules, tmp_path, ENVIRON, remembers=True) as proxy:
        yield Scene(proxy, one, two)


@pytest.fixture
def quick(back_ends: tuple[BackEnd, BackEnd], tmp_path: Path) -> Iterator[Scene]:
    """A target cools down for no time worth mentioning."""
    one, two = back_ends
    rules = RULES.format(one=one.url, two=two.url, cooldown="1ms")
    with running(rules, tmp_path, ENVIRON, remembers=True) as proxy:
        yield Scene(proxy, one, two)


def test_the_first_five_requests_pay_for_a_target_that_is_down_and_the_others_do_not(scene: Scene) -> None:
    scene.take_down(scene.one)
    assert scene.asked(8) == "12 12 12 12 12 2 2 2"


def test_a_target_without_health_is_asked_each_time(scene: Scene) -> None:
    scene.take_down(scene.one)
    assert scene.asked(7, "forgotten") == "12 12 12 12 12 12 12"


@pytest.mark.parametrize(
    ("model", "headers"),
    [
        pytest.param("alone", {}, id="it is the only target"),
        pytest.param("never", {}, id="the rule does not fall back"),
        pytest.param("on-limits", {}, id="the rule does not fall back on what it cools down after"),
        pytest.param("m", {"x-routeproxy-no-fallback": "1"}, id="the client wants no other"),
    ],
)
def test_a_hard_guarantee_stays_one(scene: Scene, model: str, headers: dict[str, str]) -> None:
    scene.take_down(scene.one)
    scene.asked(5)
    assert scene.asked() == "2"
    assert scene.asked(2, model, **headers) == "1 1"


def test_one_conversation_that_a_target_fails_at_closes_it_for_nobody(scene: Scene) -> None:
    assert scene.asked(session="other") == "1"
    scene.take_down(scene.one)
    assert scene.asked(9, session="poison") == " ".join(["12"] * 9)
    scene.one.answers = [GOOD]
    assert scene.asked(session="other") == "1"


def test_after_the_cooldown_it_is_tried_again_and_then_asked_as_before(quick: Scene) -> None:
    quick.take_down(quick.one)
    assert quick.asked(5).startswith("12 12 12 12 12")
    quick.one.answers = [GOOD]
    until(lambda: quick.asked() == "1")
    assert quick.asked(3) == "1 1 1"


def test_a_limit_holds_for_its_key_alone(scene: Scene) -> None:
    scene.one.answers = [LIMITED, GOOD]
    assert scene.asked(3) == "12 2 2"
    assert scene.asked(2, key="key-apart") == "1 1"


def test_what_is_the_requests_fault_counts_for_nothing(scene: Scene) -> None:
    scene.take_down(scene.one, error(400, "prompt is too long: 1 tokens > 0 maximum"))
    assert scene.asked(7) == "1 1 1 1 1 1 1"


def test_where_all_targets_fail_one_request_at_a_time_asks_and_the_others_hear_how_long_to_wait(
    scene: Scene,
) -> None:
    scene.take_down(scene.one, [RESET])
    scene.take_down(scene.two, [RESET])
    assert scene.asked(5) == "12 12 12 12 12"
    assert scene.asked() == "1"  # due first


def test_where_all_targets_are_at_a_limit_nobody_is_asked(scene: Scene) -> None:
    scene.take_down(scene.one, LIMITED)
    scene.take_down(scene.two, error(429, "slow down", retry_after="20"))
    assert scene.asked() == "12"
    reply = scene.ask()
    assert reply.error == (429, "rate_limit_error", "every target of this request is at its limit; try again")
    assert reply.headers["retry-after"] in {"19", "20"}
    assert (reply.said("attempts"), len(scene.one.requests)) == ("0", 1)


def test_it_is_shown_wherever_somebody_asks_why(scene: Scene) -> None:
    scene.take_down(scene.one)
    scene.asked(5)
    words = "cooling down for 30 s after server_error"
    status = scene.proxy.get("/-/status", x_api_key="key-of-admin").json()["targets"]
    assert {name: said.replace("29 s", "30 s") for name, said in status.items()} == {
        "one/m": words,
        "two/m": "ok",
        "forgotten/m": "ok",
    }
    route = scene.proxy.post(request(model="m"), "/v1/route", x_api_key="key-of-most").json()
    assert [target["health"].replace("29 s", "30 s") for target in route["targets"]] == [words, "ok"]
    explained = scene.ask(**{"x-routeproxy-explain": "1"})
    assert "cooling down for" in (explained.said("explain") or "")


def test_to_ask_why_is_no_attempt_and_pushes_nothing_out(scene: Scene) -> None:
    circuits = scene.proxy.app.state.circuits
    scene.asked()
    known = {record.id for record in circuits}
    scene.proxy.get("/-/status", x_api_key="key-of-admin")
    scene.proxy.post(request(model="alone"), "/v1/route", x_api_key="key-of-most")
    scene.proxy.post(request(model="forgotten"), "/v1/route", x_api_key="key-of-most")
    assert {record.id for record in circuits} == known


def test_two_workers_know_the_same(back_ends: tuple[BackEnd, BackEnd], tmp_path: Path) -> None:
    one, two = answers(back_ends[0], DOWN), answers(back_ends[1], GOOD)
    (tmp_path / "rules.toml").write_text(RULES.format(one=one.url, two=two.url, cooldown="30s"))
    flags = ("--rules", "rules.toml", "--port", "0", "--workers", "2")
    with serving(tmp_path, *flags, environ=ENVIRON) as server:
        for _ in range(20):  # each on a new connection, which either worker may take
            post(server.url, request(), x_api_key="key-of-most")
        until(lambda: len(two.requests) == 20, seconds(1))
    assert len(one.requests) == 5
