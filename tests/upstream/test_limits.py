"""Places at targets, counted over all workers (docs/rules.md, "max_concurrent")."""

import os
from pathlib import Path

import pytest

from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.targets import Target
from routeproxy.upstream.in_flight import InFlightCounts, in_flight_records, worker_records
from routeproxy.upstream.limits import Limits

RULES = """
[providers.a]
type = "echo"
max_concurrent = 5
[providers.b]
type = "echo"
[pools.p]
members = [{ target = "a/m", max_concurrent = 2 }, "b/m"]
[default]
targets = ["p", "a/other", "b/other"]
"""
POLICY = compile_rules(RULES, path=Path("rules.toml"), environ={})
TARGETS = {target.name: target for target in POLICY.default.targets}


def target(name: str) -> Target:
    return TARGETS[name]


@pytest.fixture
def limits() -> Limits:
    return Limits(InFlightCounts(in_flight_records(shared=False), worker_records(shared=False)))


def taken(limits: Limits, name: str, replicas: int = 1) -> int:
    """How many places a target gives before it is full."""
    count = 0
    while limits.take(target(name), replicas) is not None:
        count += 1
        assert count < 100
    return count


def test_a_member_and_its_provider_bound_it_both(limits: Limits) -> None:
    assert taken(limits, "a/m") == 2
    assert limits.full(target("a/m"), 1) is not None
    assert limits.full(target("a/other"), 1) is None
    assert taken(limits, "a/other") == 3, "5 of the provider in all"


def test_what_nobody_bounds_is_never_full(limits: Limits) -> None:
    assert [limits.take(target("b/other"), 1) is not None for _ in range(50)] == [True] * 50
    assert limits.full(target("b/other"), 1) is None


@pytest.mark.parametrize(("replicas", "places"), [(1, 5), (2, 2), (3, 1), (9, 1)])
def test_each_of_several_servers_gives_its_part_and_at_least_one(
    limits: Limits, replicas: int, places: int
) -> None:
    assert taken(limits, "a/other", replicas) == places


def test_a_place_that_could_not_be_taken_whole_is_not_taken_at_all(limits: Limits) -> None:
    for _ in range(5):
        assert limits.take(target("a/other"), 1) is not None
    assert limits.take(target("a/m"), 1) is None
    assert limits.busy(target("a/m")) == 0


def test_a_place_is_given_back_once_however_often_it_is_said(limits: Limits) -> None:
    heard: list[bool] = []
    limits.on_freed = lambda: heard.append(True)
    places = [limits.take(target("a/m"), 1) for _ in range(2)]
    for _ in range(3):
        for place in places:
            assert place is not None
            place.give_back()
    assert heard == [True, True]
    assert taken(limits, "a/m") == 2


def test_whoever_comes_while_others_wait_waits_too(limits: Limits) -> None:
    limits.is_awaited = lambda limit: True
    assert limits.take(target("a/m"), 1) is None
    assert limits.take(target("a/m"), 1, in_turn=True) is not None
    assert limits.take(target("b/other"), 1) is not None, "nobody bounds it"


def test_what_a_dead_worker_held_is_free_once_another_takes_its_place() -> None:
    records, workers = in_flight_records(shared=False), worker_records(shared=False)
    first = InFlightCounts(records, workers)
    dead = workers.find(2**22 + 12345)  # beyond the largest process id of Linux
    record = records.find(first.id_of("provider", "a"))
    record.total += 3
    record.by_worker[workers.place_of(dead)] = 3
    assert first.take(record.id, 4)
    assert not first.take(record.id, 4)
    second = InFlightCounts(records, workers)
    assert second.count(record.id) == 1
    assert {worker.id for worker in workers} == {os.getpid()}
