"""In which order the targets of a decision are tried (docs/rules.md, "pools" and "sticky")."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.exchange import Exchange, Inbound
from routeproxy.messages.request import decode_envelope
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.facts import Facts
from routeproxy.policy.targets import Target
from routeproxy.upstream.in_flight import InFlightCounts
from routeproxy.upstream.limits import Limits
from routeproxy.upstream.shared_state import SharedState
from routeproxy.upstream.spread import Order, Spread

BODY = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
PROVIDERS = "".join(f'[providers.{name}]\ntype = "echo"\n' for name in "abcdefx")
FOUR = '[pools.p]\nmembers = ["a/m", "b/m", "c/m", "d/m"]\n'


class Scene:
    """A policy, what is known of its targets, and the clock."""

    def __init__(self, rules: str, state: SharedState | None = None, seed: int = 7) -> None:
        self.policy = compile_rules(PROVIDERS + rules, path=Path("rules.toml"), environ={})
        self.state = state or SharedState()
        self.down: set[str] = set()
        self.time = 1000.0
        self.limits = Limits(InFlightCounts(self.state.in_flight, self.state.workers))
        self.spread = Spread(
            self.state.moved,
            self.limits,
            lambda target: "failing" if target.provider.name in self.down else "ok",
            lambda: self.time,
            random.Random(seed).random,
        )

    def exchange(self, session: str | None, *, no_fallback: bool = False) -> Exchange:
        headers = {} if session is None else {"x-claude-code-session-id": (session,)}
        exchange = Exchange(Inbound(body=BODY, headers=headers), self.policy)
        exchange.envelope = decode_envelope(BODY)
        exchange.facts = Facts(exchange.envelope, headers, no_fallback=no_fallback)
        exchange.decision = self.policy.decide(exchange.facts)
        return exchange

    def order(self, session: str | None = None) -> str:
        """`bdca`: the providers, in their order."""
        return in_short(self.spread.order(self.exchange(session)).targets)

    def ask(self, session: str | None) -> str:
        """Who answers: the first that is not down."""
        exchange = self.exchange(session)
        order = self.spread.order(exchange)
        target = next(target for target in order.targets if target.provider.name not in self.down)
        self.spread.answered(exchange, order, target)
        return target.provider.name


def in_short(targets: tuple[Target, ...]) -> str:
    return "".join(target.provider.name for target in targets)


SESSIONS = [f"session-{number}" for number in range(1000)]


def test_each_of_a_thousand_sessions_stays_with_one_of_four_members() -> None:
    scene = Scene(f'{FOUR}[default]\ntargets = "p"')
    first = [scene.ask(session) for session in SESSIONS]
    assert [scene.ask(session) for session in SESSIONS] == first
    assert all(200 < count < 300 for count in Counter(first).values())


def test_all_workers_and_a_server_after_its_restart_find_the_same_member() -> None:
    first, second = (Scene(f'{FOUR}[default]\ntargets = "p"', seed=seed) for seed in (1, 2))
    assert [first.ask(session) for session in SESSIONS] == [second.ask(session) for session in SESSIONS]


def test_a_member_that_is_lost_moves_only_its_own_sessions() -> None:
    scene = Scene(f'{FOUR}[default]\ntargets = "p"')
    before = [scene.ask(session) for session in SESSIONS]
    scene.down = {"b"}
    after = [scene.ask(session) for session in SESSIONS]
    moved = {then for then, now in zip(before, after, strict=True) if then != now}
    assert moved == {"b"}
    elsewhere = Counter(now for then, now in zip(before, after, strict=True) if then == "b")
    assert set(elsewhere) == {"a", "c", "d"}
    assert all(count > 40 for count in elsewhere.values()), "they are spread over all others"


def test_a_session_that_moved_stays_while_it_goes_on_and_goes_back_after_a_while() -> None:
    scene = Scene(f'{FOUR}sticky = "5m"\n[default]\ntargets = "p"')
    home = scene.ask("s")
    scene.down = {home}
    away = scene.ask("s")
    scene.down = set()
    for _ in range(5):
        scene.time += 299
        assert scene.ask("s") == away
    scene.time += 301
    assert scene.ask("s") == home
    assert scene.ask("s") == home


def test_a_session_leaves_where_it_moved_when_that_fails_too() -> None:
    scene = Scene(f'{FOUR}[default]\ntargets = "p"')
    home = scene.ask("s")
    scene.down = {home}
    away = scene.ask("s")
    scene.down = {away}
    assert scene.ask("s") == home


def test_without_sticky_it_goes_back_at_once() -> None:
    scene = Scene(f'{FOUR}sticky = "0s"\n[default]\ntargets = "p"')
    home = scene.ask("s")
    scene.down = {home}
    assert scene.ask("s") != home
    scene.down = set()
    assert scene.ask("s") == home


def test_a_member_of_twice_the_weight_has_twice_the_sessions() -> None:
    members = 'members = [{ target = "a/m", weight = 2 }, "b/m"]'
    scene = Scene(f'[pools.p]\n{members}\n[default]\ntargets = "p"')
    for sessions in (SESSIONS, [None] * 1000):
        assert 600 < Counter(map(scene.ask, sessions))["a"] < 733


def test_the_same_memory_holds_for_a_list() -> None:
    scene = Scene('[default]\ntargets = ["a/m", "b/m", "c/m"]')
    assert scene.order("s") == "abc"
    scene.down = {"a"}
    assert scene.ask("s") == "b"
    scene.down = set()
    assert scene.order("s") == "bac"
    assert scene.order("another") == "abc"
    assert scene.order(None) == "abc"
    scene.down = {"b"}
    assert scene.order("s") == "abc"
    scene.down = set()
    scene.time += 301
    assert scene.order("s") == "abc"


def test_a_list_can_begin_anew_each_time() -> None:
    scene = Scene('[default]\ntargets = ["a/m", "b/m"]\nsticky = "0s"')
    scene.down = {"a"}
    scene.ask("s")
    scene.down = set()
    assert scene.order("s") == "ab"


def test_the_members_of_a_pool_are_tried_before_the_next_in_the_list() -> None:
    scene = Scene(f'{FOUR}[default]\ntargets = ["x/m", "p", "e/m"]')
    orders = {scene.order(session) for session in SESSIONS[:200]}
    assert {(order[0], order[-1]) for order in orders} == {("x", "e")}
    assert {"".join(sorted(order[1:-1])) for order in orders} == {"abcd"}
    assert len(orders) > 10


def test_two_pools_side_by_side_stay_two() -> None:
    pools = '[pools.p]\nmembers = ["a/m", "b/m"]\n[pools.q]\nmembers = ["c/m", "d/m"]\n'
    scene = Scene(f'{pools}[default]\ntargets = ["p", "q"]')
    assert {scene.order(session) for session in SESSIONS[:50]} == {"abcd", "abdc", "bacd", "badc"}


@pytest.mark.parametrize("by", ["session", "load"])
def test_without_fallback_one_member_alone_is_asked_and_it_may_be_any(by: str) -> None:
    scene = Scene(f'{FOUR}by = "{by}"\n[default]\ntargets = "p"\nfallback = false')
    assert {scene.order(session) for session in SESSIONS[:50]} == set("abcd")
    scene.down = {"a", "b", "c"}
    assert {scene.order(session) for session in SESSIONS[:50]} == {"d"}


def test_a_client_that_wants_no_fallback_gets_one_member() -> None:
    scene = Scene(f'{FOUR}[default]\ntargets = ["p", "x/m"]')
    order = scene.spread.order(scene.exchange("s", no_fallback=True))
    assert len(order.targets) == 1
    assert in_short(order.targets) == scene.order("s")[0]


def test_by_load_the_less_busy_of_two_is_asked_first() -> None:
    scene = Scene('[pools.p]\nmembers = ["a/m", "b/m"]\nby = "load"\n[default]\ntargets = "p"')
    (first,) = [t for t in scene.exchange(None).decision.targets if t.provider.name == "a"]  # type: ignore[union-attr]
    place = scene.limits.take(first, 1)
    assert place is not None
    assert {scene.order(session) for session in SESSIONS[:50]} == {"ba"}
    place.give_back()
    assert {scene.order(session) for session in SESSIONS[:50]} == {"ab", "ba"}


def test_a_full_member_is_passed_over_and_counted_once_another_answered() -> None:
    members = 'members = [{ target = "a/m", max_concurrent = 1 }, "b/m"]'
    scene = Scene(f'[pools.p]\n{members}\n[default]\ntargets = "p"')
    session = next(session for session in SESSIONS if scene.ask(session) == "a")
    (first,) = [t for t in scene.exchange(None).decision.targets if t.provider.name == "a"]  # type: ignore[union-attr]
    assert scene.limits.take(first, 1) is not None
    assert scene.order(session) == "ba"
    assert scene.ask(session) == "b"
    assert scene.spread.spilled == {"p": 1}


def test_the_memory_of_moves_is_bounded_and_looking_leaves_nothing_behind() -> None:
    scene = Scene('[default]\ntargets = ["a/m", "b/m"]')
    for number in range(5000):
        scene.order(f"never-{number}")
    assert list(scene.state.moved) == []
    scene.down = {"a"}
    for number in range(20_000):
        scene.ask(f"session-{number}")
    assert len(list(scene.state.moved)) <= 16_384


CHAINS = st.lists(st.sampled_from(["p", "q", "x/m", "e/m"]), min_size=1, max_size=4, unique=True)
STEPS = st.lists(
    st.tuples(st.sampled_from(SESSIONS[:5]), st.sets(st.sampled_from("abcdex")), st.floats(0, 400)),
    max_size=12,
)


@given(CHAINS, STEPS, st.booleans())
def test_no_order_has_a_target_that_was_not_decided_and_none_is_lost(
    chain: list[str], steps: list[tuple[str, set[str], float]], fallback: bool
) -> None:
    pools = '[pools.p]\nmembers = ["a/m", "b/m"]\n[pools.q]\nmembers = ["c/m", "d/m"]\nby = "load"\n'
    targets = ", ".join(f'"{name}"' for name in chain)
    scene = Scene(f"{pools}[default]\ntargets = [{targets}]\nfallback = {str(fallback).lower()}")
    for session, down, seconds in steps:
        scene.down = down
        scene.time += seconds
        exchange = scene.exchange(session)
        order: Order = scene.spread.order(exchange)
        assert exchange.decision is not None
        decided = Counter(map(id, exchange.decision.targets))
        assert Counter(map(id, order.targets)) <= decided
        assert len(order.targets) == (
            len(exchange.decision.targets) if exchange.decision.fallback.enabled else 1
        )
        healthy = [target for target in order.targets if target.provider.name not in down]
        scene.spread.answered(exchange, order, healthy[0] if healthy else order.targets[0])
