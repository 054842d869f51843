"""What is counted, how several workers' counts become one, and how Prometheus reads it."""

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from routeproxy.ledger.pipeline import Recorded, Unpriced
from routeproxy.ledger.rows import AttemptRow
from routeproxy.metrics import families
from routeproxy.metrics.counting import count_request
from routeproxy.metrics.exposition import OPEN_METRICS, TEXT, exposed, format_for
from routeproxy.metrics.families import FAMILIES, SECONDS
from routeproxy.metrics.snapshot import Exemplar, Snapshot, merged
from routeproxy.metrics.workers import MetricsFolder
from routeproxy.policy.providers import Provider
from tests.ledger.rows import NOON, attempt, request

Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def counted(*attempts: AttemptRow, labels: Mapping[str, str] = {}, **fields: Any) -> Numbers:
    """What one request adds, as Prometheus sees it. `labels`: what metrics call models."""
    snapshot = Snapshot({}, {})
    provider = Provider(name="p", type="echo")
    unpriced = [Unpriced(provider, None, labels.get(each.model, each.model)) for each in attempts]
    count_request(snapshot, Recorded(request(1, *attempts, **fields), tuple(unpriced)))
    return numbers(exposed(snapshot, TEXT).decode())


def numbers(text: str) -> Numbers:
    return {
        (sample.name.removeprefix("routeproxy_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in read_text(text)
        for sample in family.samples
    }


def of(found: Numbers, name: str) -> dict[str, float]:
    """The samples of one family, by the values of their labels."""
    samples = [(labels, number) for (own, labels), number in found.items() if own == name]
    return {" ".join(value for _, value in labels): number for labels, number in samples}


def test_a_request_that_fell_back_counts_each_attempt_and_why() -> None:
    failed = attempt(provider="azure", failure="overloaded", usage_source="none", price_source="",
                     input_uncached=None, cache_read=None, output=None, cost_nanousd=None)  # fmt: skip
    found = counted(failed, attempt(2, cost_nanousd=1_234_567_891), duration=2_000_000, first_content=300_000)
    assert of(found, "requests_total") == {"200 default search": 1}
    assert of(found, "attempts_total") == {"gpt-5 overloaded azure": 1, "gpt-5 ok openai": 1}
    assert of(found, "fallbacks_total") == {"overloaded default": 1}
    assert of(found, "tokens_total") == {
        "input_uncached gpt-5 openai search": 100, "cache_read gpt-5 openai search": 50,
        "output gpt-5 openai search": 10,
    }  # fmt: skip
    assert of(found, "cost_usd_total") == {"gpt-5 openai search": 1.234567891}
    assert of(found, "request_duration_seconds_count") == {"gpt-5 openai false": 1}
    assert of(found, "request_duration_seconds_sum") == {"gpt-5 openai false": 2}
    assert of(found, "time_to_first_token_seconds_sum") == {"gpt-5 openai": 0.3}


def test_what_nobody_knows_the_price_of_is_counted_in_tokens() -> None:
    found = counted(attempt(cost_nanousd=None, price_source="unknown"))
    assert of(found, "unpriced_tokens_total") == {"gpt-5 openai": 160}
    assert of(found, "cost_usd_total") == {}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": 529, "error": "overloaded_error"}, {"529 default search": 1}),
        ({"status": 200, "client_left": True}, {"499 default search": 1}),
        ({"status": 200, "client_left": True, "first_content": 5}, {"200 default search": 1}),
        ({"status": 400, "rule": None, "team": None}, {"400  ": 1}),
    ],
)
def test_each_request_has_one_code(fields: dict[str, Any], expected: dict[str, float]) -> None:
    assert of(counted(attempt(), **fields), "requests_total") == expected


def test_refusals_of_rules_and_targets_left_alone_are_told_apart() -> None:
    assert of(counted(denied=True, status=400), "refusals_total") == {"rule default": 1}
    skipped = counted(attempt(), skipped={"azure/gpt-5": "cooling down"})
    assert of(skipped, "fallbacks_total") == {"unhealthy default": 1}


def test_models_that_no_rule_states_are_one() -> None:
    found = counted(attempt(model="who-knows"), labels={"who-knows": "_other"})
    assert of(found, "attempts_total") == {"_other ok openai": 1}
    assert "who-knows" not in str(found)


# --- several workers


def one_of(dice: random.Random) -> Snapshot:
    snapshot = Snapshot({}, {})
    for _ in range(dice.randrange(20)):
        snapshot.add(families.REQUESTS, dice.randrange(5), dice.choice("ab"), "r", "200")
        snapshot.set(families.IN_FLIGHT, dice.randrange(9))
        snapshot.set(families.LAG, dice.random())
        snapshot.set(families.HEALTHY, dice.randrange(2), dice.choice(("x/y", "z/w")))
        seconds = dice.random() * 1000
        exemplar = Exemplar("id", seconds, dice.random() * 1000)
        snapshot.observe(families.FIRST_TOKEN, seconds, exemplar, "p", dice.choice("mn"))
    return snapshot


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
def test_it_makes_no_difference_in_which_order_workers_are_summed_up(seeds: list[int]) -> None:
    snapshots = [one_of(random.Random(seed)) for seed in seeds]
    before = [exposed(snapshot, OPEN_METRICS) for snapshot in snapshots]
    whole = merged(snapshots)
    parts = merged((merged(snapshots[:2]), merged(snapshots[2:])))
    backwards = merged(reversed(snapshots))
    for other in (parts, backwards):
        assert numbers(exposed(other, TEXT).decode()) == pytest.approx(numbers(exposed(whole, TEXT).decode()))
    assert [exposed(snapshot, OPEN_METRICS) for snapshot in snapshots] == before, "nothing was changed"
    total = sum(sum(each.numbers.get(families.REQUESTS.name, {}).values()) for each in snapshots)
    assert sum(whole.numbers.get(families.REQUESTS.name, {}).values()) == total


def test_what_a_dead_worker_has_counted_stays_and_its_gauges_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = MetricsFolder(tmp_path)

    def publish(process: int, requests: int) -> None:
        snapshot = Snapshot({}, {})
        snapshot.add(families.REQUESTS, requests, "", "r", "200")
        snapshot.set(families.IN_FLIGHT, 3)
        with monkeypatch.context() as patched:
            patched.setattr("os.getpid", lambda: process)
            folder.publish(snapshot)

    def seen() -> tuple[float, float]:
        found = numbers(exposed(folder.read(), TEXT).decode())
        return sum(of(found, "requests_total").values()), of(found, "requests_in_flight")[""]

    assert seen() == (0, 0)
    publish(11, 5)
    publish(12, 7)
    assert seen() == (12, 6)
    folder.bury(11)
    assert seen() == (12, 3)
    folder.bury(11)
    folder.bury(99)
    publish(11, 1)  # the number came again
    assert seen() == (13, 6)
    folder.bury(11)
    folder.bury(12)
    assert seen() == (13, 0)


# --- as Prometheus reads it


def everything() -> Snapshot:
    """Each family once, with labels that need care."""
    snapshot, odd = Snapshot({}, {}), 'a"b\\c\nd é{}'
    for family in FAMILIES.values():
        labels = tuple(odd for _ in family.labels)
        if family.kind == "histogram":
            for seconds in (*SECONDS, 10**4):
                snapshot.observe(family, seconds, Exemplar("0123", seconds, NOON / 10**6), *labels)
        else:
            snapshot.add(family, 3, *labels)
    return snapshot


@pytest.mark.parametrize("content_type", [TEXT, OPEN_METRICS])
def test_prometheus_own_parser_reads_all_of_it(content_type: str) -> None:
    text = exposed(everything(), content_type).decode()
    read = read_open_metrics if content_type == OPEN_METRICS else read_text
    found = {family.name: family for family in read(text)}
    assert {name.removesuffix("_total") for name in FAMILIES} == {
        name.removesuffix("_total") for name in found
    }
    for name, family in FAMILIES.items():
        parsed = found[name.removesuffix("_total")] if family.kind == "counter" else found[name]
        assert parsed.type == family.kind
        assert parsed.documentation == family.help
        for sample in parsed.samples:
            assert {*family.labels} == {*sample.labels} - {"le"}
            assert all(value == 'a"b\\c\nd é{}' for key, value in sample.labels.items() if key != "le")
    buckets = [sample for sample in found[families.DURATION.name].samples if sample.name.endswith("_bucket")]
    assert [sample.value for sample in buckets] == [*range(1, len(SECONDS) + 2)]
    assert float(buckets[-1].labels["le"]) == math.inf
    has_exemplars = [sample.exemplar is not None for sample in buckets]
    assert has_exemplars == [content_type == OPEN_METRICS] * len(buckets)


def test_families_without_a_number_are_there() -> None:
    found = {family.name for family in read_text(exposed(Snapshot({}, {}), TEXT).decode())}
    assert found == {name.removesuffix("_total") for name in FAMILIES}


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", TEXT), ("*/*", TEXT), ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3", OPEN_METRICS),
    ],
)  # fmt: skip
def test_who_scrapes_gets_the_format_that_it_asks_for(accept: str, expected: str) -> None:
    assert format_for(accept) == expected


def test_names_are_an_interface() -> None:
    """Who renames one breaks dashboards and alerts that people have written: say so in the changelog."""
    assert {name.removeprefix("routeproxy_"): family.labels for name, family in FAMILIES.items()} == {
        "requests_total": ("team", "rule", "code"),
        "attempts_total": ("provider", "model", "outcome"),
        "fallbacks_total": ("rule", "reason"),
        "refusals_total": ("kind", "name"),
        "request_duration_seconds": ("provider", "model", "stream"),
        "time_to_first_token_seconds": ("provider", "model"),
        "tokens_total": ("team", "provider", "model", "kind"),
        "cost_usd_total": ("team", "provider", "model"),
        "unpriced_tokens_total": ("provider", "model"),
        "requests_in_flight": (),
        "queue_length": ("team",),
        "target_healthy": ("target",),
        "spilled_total": ("pool",),
        "config_last_reload_successful": (),
        "config_last_reload_success_timestamp_seconds": (),
        "rules_info": ("version",),
        "build_info": ("version",),
        "event_loop_lag_seconds": (),
        "ledger_spool_bytes": (),
        "ledger_rows_dropped_total": (),
    }
    assert SECONDS[-1] == 600
