"""A circuit breaker of a target: what counts, when it opens, who may try again (docs/rules.md, "Health")."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from routeproxy.policy.health import HealthSettings
from routeproxy.upstream.failures import Kind
from routeproxy.upstream.health import Circuit, circuit_records


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Target:
    """One target with a clock, as attempts of several sessions see it."""

    def __init__(self, settings: HealthSettings | None = None) -> None:
        self.clock = Clock()
        self._records = circuit_records(shared=False)
        self._settings = settings or HealthSettings()

    def attempt(self) -> Circuit:
        record = self._records.find(1)
        return Circuit("azure/gpt-5", record, self._records, self._settings, self.clock)

    def after(
        self, seconds: float, outcome: Kind | None, session: int = 1, wait: float | None = None
    ) -> None:
        """An attempt that ends so many seconds after the one before."""
        self.clock.now += seconds
        self.attempt().record(outcome, session, wait)

    @property
    def state(self) -> str:
        cooling = self.attempt().cooling()
        return "ok" if cooling is None else str(cooling)


FAILED, ANSWERED = "server_error", None
DOWN = "cooling down for 15 s after server_error"


def state_after(outcomes: Sequence[tuple[Kind | None, int]], apart: float = 0.1) -> str:
    """Outcomes with their sessions, one after the other."""
    target = Target()
    for outcome, session in outcomes:
        target.after(apart, outcome, session)
    return target.state


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        pytest.param([(FAILED, 1), (FAILED, 2)] * 2, "ok", id="four failures"),
        pytest.param([(FAILED, 1), (FAILED, 2)] * 3, DOWN, id="more than five in a row"),
        pytest.param([(FAILED, 1)] * 4 + [(ANSWERED, 2)] + [(FAILED, 1)] * 4, "ok", id="an answer between"),
        pytest.param([(FAILED, 1)] * 5, DOWN, id="five, and nobody else asks"),
        pytest.param([(ANSWERED, 2)] + [(FAILED, 1)] * 9, "ok", id="one conversation alone fails"),
        pytest.param([(ANSWERED, 2)] + [(FAILED, 1)] * 9 + [(FAILED, 3)], DOWN, id="then another fails too"),
        pytest.param([(FAILED, 1), (ANSWERED, 2)] * 20, "ok", id="half, but all of one conversation"),
        pytest.param([(FAILED, 1), (ANSWERED, 2), (FAILED, 2), (ANSWERED, 1)] * 6, DOWN, id="half of twenty"),
        pytest.param([(FAILED, 1), (ANSWERED, 2), (FAILED, 2)] * 6, "ok", id="two thirds, but of eighteen"),
        pytest.param(
            [("timeout_first_token", 1), ("timeout_idle", 2)] * 9, "ok", id="time-outs don't count in a row"
        ),
        pytest.param(
            [("timeout_first_token", 1), ("timeout_idle", 2)] * 10,
            "cooling down for 15 s after timeout_idle",
            id="time-outs count in the share",
        ),
    ],
)
def test_a_target_cools_down_after_failures_that_are_its_own(
    outcomes: list[tuple[Kind | None, int]], state: str
) -> None:
    assert state_after(outcomes) == state


def test_what_happened_before_the_window_counts_no_more() -> None:
    outcomes: list[tuple[Kind | None, int]] = [(FAILED, 1), (ANSWERED, 2), (FAILED, 2), (ANSWERED, 1)] * 6
    assert state_after(outcomes, apart=2) == "ok"


@contextmanager
def failing(settings: HealthSettings | None = None) -> Iterator[Target]:
    target = Target(settings)
    for _ in range(5):
        target.after(0, FAILED)
    assert target.state == DOWN
    yield target


def test_after_the_cooldown_one_request_at_a_time_tries_it_again() -> None:
    with failing() as target:
        target.clock.now += 15
        assert target.state == "ok"
        first, second = target.attempt(), target.attempt()
        assert (first.claim(), second.claim()) == (True, False)
        assert target.state == "being tried again after server_error"
        first.let_go()  # its client left
        assert second.claim()
        second.record(ANSWERED, 1)
        assert (target.state, target.attempt().claim(), target.attempt().claim()) == ("ok", True, True)


def test_each_failure_after_it_doubles_the_cooldown_up_to_its_bound() -> None:
    with failing() as target:
        waits = []
        for _ in range(6):
            cooling = target.attempt().cooling()
            assert cooling is not None
            waits.append(cooling.seconds)
            target.after(cooling.seconds, FAILED)
        assert waits == [15, 30, 60, 120, 240, 300]
        target.after(300, ANSWERED)
        for _ in range(5):
            target.after(0, FAILED)
        assert target.state == DOWN


def test_older_requests_that_fail_meanwhile_change_nothing() -> None:
    with failing() as target:
        target.after(5, FAILED)
        assert target.state == "cooling down for 10 s after server_error"
        target.clock.now += 10
        probe = target.attempt()
        assert probe.claim()
        target.attempt().let_go()
        assert not target.attempt().claim()


def test_a_probe_that_never_ends_gives_way_to_another() -> None:
    with failing() as target:
        target.clock.now += 15
        assert target.attempt().claim()
        target.clock.now += 61
        assert target.attempt().claim()


@pytest.mark.parametrize(("wait", "state"), [(7, "7"), (3600, "300")])
def test_a_limit_lasts_as_long_as_the_back_end_says_within_bounds(wait: float, state: str) -> None:
    key = Target()
    key.after(0, "rate_limit", wait=wait)
    assert key.state == f"cooling down for {state} s after rate_limit"
    key.after(1, ANSWERED)  # to an earlier request
    assert key.state == f"cooling down for {int(state) - 1} s after rate_limit"
    key.clock.now += 300
    assert (key.state, key.attempt().claim(), key.attempt().claim()) == ("ok", True, True)


def test_a_limit_without_a_time_counts_like_other_failures() -> None:
    key = Target()
    for _ in range(4):
        key.after(0, "rate_limit")
    assert key.state == "ok"
    key.after(0, "rate_limit")
    assert key.state == "cooling down for 15 s after rate_limit"
