"""Past requests through other rules: who moves where, what would break, what it would have cost
(docs/commands.md, "replay")."""

from typing import Any

import pytest

from routeproxy.ledger.price_table import PriceTable, load
from routeproxy.ledger.rows import AttemptRow, RequestRow
from routeproxy.policy.decide import Policy
from routeproxy.policy.providers import ModelFacts
from routeproxy.policy.targets import Target
from routeproxy.replay.costs import Factor
from routeproxy.replay.past import past_of_row
from routeproxy.replay.replay import Replay, Replayed, Way
from tests.ledger.rows import attempt, request
from tests.policy.asking import policy

TABLE: PriceTable = load()
PROVIDERS = """
[providers.dear]
type = "openai_compatible"
base_url = "http://dear.example/v1"
api_key = "none"
zone = "public"
[providers.dear.prices]
"m" = { input = 10, output = 50, cache_read = 1, cache_write_5m = 12.5 }
"no-cache" = { input = 10, output = 50 }
"half" = { input = 5 }

[providers.cheap]
type = "openai_compatible"
base_url = "http://cheap.example/v1"
api_key = "none"
zone = "private"
[providers.cheap.prices]
"m" = { input = 1, output = 5, cache_read = 0.1, cache_write_5m = 1.25 }
"cheaper" = { input = 0.5, output = 2, cache_read = 0.05, cache_write_5m = 0.6 }
[providers.cheap.models."m"]
context_window = 2000
[providers.cheap.models."*"]
"""


def rules(text: str) -> Policy:
    return policy(PROVIDERS + text)


MOVED = rules('[default]\ntargets = "cheap/m"\n')


def past(
    number: int = 1, *attempts: AttemptRow, facts: dict[str, Any] | None = None, **fields: Any
) -> RequestRow:
    return request(number, *(attempts or (used(),)), facts={"model": "m", **(facts or {})}, **fields)


def used(number: int = 1, provider: str = "dear", model: str = "m", **fields: Any) -> AttemptRow:
    """1,000 tokens of input, 200 out of the cache, 100 of output, at 0.0152 dollars."""
    usual = {"input_uncached": 1000, "cache_read": 200, "output": 100, "cost_nanousd": 15_200_000}
    return attempt(number, provider=provider, model=model, **(usual | fields))


def replayed(by: Policy, *rows: RequestRow, factor: str = "1", **how: Any) -> Replayed:
    replay = Replay(by, TABLE, facts_of, factor=Factor.parsed(factor), **how)
    for row in rows:
        one = past_of_row(row)
        if one is not None:
            replay.add(one)
    return replay.result


def facts_of(target: Target) -> ModelFacts:
    return target.provider.facts_of(target.model)


def costs(found: Replayed) -> tuple[int, int, int]:
    """Before, and after in the cheapest and the dearest case."""
    (sums,) = found.moved.values()
    return sums.before, sums.after_low, sums.after_high


def test_a_request_that_moves_is_counted_by_its_team_and_its_way() -> None:
    found = replayed(MOVED, past(1), past(2), past(3, used(provider="cheap")))
    assert {way: sums.requests for way, sums in found.moved.items()} == {
        Way(team="search", before="dear/m", after="cheap/m"): 2
    }
    assert found.stayed.requests == 1


def test_costs_are_those_that_a_hand_computes() -> None:
    # A first request of a session: what was read from the cache is written anew.
    #   1,000 × 1 + 200 × 1.25 + 100 × 5 = 1,750 dollars per million → 1,750,000 billionths
    first = past(1, session="s")
    assert costs(replayed(MOVED, first)) == (15_200_000, 1_750_000, 1_750_000)
    # A second one finds the cache that the first has written.
    #   1,000 × 1 + 200 × 0.1 + 100 × 5 = 1,520
    assert costs(replayed(MOVED, first, past(2, session="s"))) == (30_400_000, 3_270_000, 3_270_000)
    # Without a session the cache is lost each time, or never.
    assert costs(replayed(MOVED, past(1))) == (15_200_000, 1_520_000, 1_750_000)


def test_another_model_makes_another_number_of_tokens_and_the_same_model_elsewhere_does_not() -> None:
    other = rules('[default]\ntargets = "cheap/cheaper"\n')
    #   800 × 0.5 + 160 × 0.6 + 80 × 2 = 656; 1,250 × 0.5 + 250 × 0.6 + 125 × 2 = 1,025
    found = replayed(other, past(1, session="s"), factor="0.8-1.25")
    assert costs(found) == (15_200_000, 656_000, 1_025_000)
    assert costs(replayed(MOVED, past(1, session="s"), factor="0.8-1.25"))[1:] == (1_750_000, 1_750_000)


def test_of_a_pool_the_cheapest_and_the_dearest_member_are_the_range() -> None:
    pool = rules('[pools.p]\nmembers = ["cheap/m", "cheap/cheaper"]\n[default]\ntargets = "p"\n')
    found = replayed(pool, past(1, session="s"))
    #   cheaper: 1,000 × 0.5 + 200 × 0.6 + 100 × 2 = 820
    assert costs(found) == (15_200_000, 820_000, 1_750_000)
    assert [way.after for way in found.moved] == ["pool p"]


def test_a_model_without_a_price_for_its_cache_takes_all_as_input_and_one_without_any_is_in_no_sum() -> None:
    no_cache = rules('[default]\ntargets = "dear/no-cache"\n')
    #   1,200 × 10 + 100 × 50 = 17,000
    assert costs(replayed(no_cache, past(1))) == (15_200_000, 17_000_000, 17_000_000)
    (sums,) = replayed(rules('[default]\ntargets = "dear/half"\n'), past(1)).moved.values()
    assert (sums.requests, sums.unpriced, sums.before, sums.after_low) == (1, 1, 0, 0)
    (sums,) = replayed(MOVED, past(1, used(cost_nanousd=None, price_source="unknown"))).moved.values()
    assert (sums.unpriced, sums.after_high) == (1, 0)


def test_all_attempts_count_before_and_one_after() -> None:
    failed = used(1, failure="server_error", output=None, usage_source="partial", cost_nanousd=1_000)
    row = past(1, failed, used(2, provider="cheap", model="cheaper"))
    assert costs(replayed(MOVED, row))[0] == 15_201_000


def test_what_stays_costs_what_it_did() -> None:
    found = replayed(MOVED, past(1, used(provider="cheap")))
    assert (found.stayed.before, found.stayed.after_low, found.stayed.after_high) == (15_200_000,) * 3


def test_a_rule_on_a_header_that_was_not_recorded_is_undecidable_and_not_wrong() -> None:
    by = rules(
        '[[rules]]\nname = "r"\nmatch.headers.x-cost-center = "4711"\ntargets = "cheap/m"\n'
        '[default]\ntargets = "dear/m"\n'
    )
    recorded = past(2, facts={"headers": {"x-cost-center": "4711"}})
    absent = past(3, facts={"headers": {"x-cost-center": None}})
    found = replayed(by, past(1), recorded, absent)
    assert dict(found.undecidable) == {"header x-cost-center": 1}
    assert (found.requests, found.not_decided, found.stayed.requests) == (3, 1, 1)
    assert [way.after for way in found.moved] == ["cheap/m"]


def test_denials_count_as_nothing_and_what_was_denied_has_no_known_cost() -> None:
    denying = rules('[[rules]]\nname = "no"\nmatch.model = "m"\ndeny = "no"\n[default]\ntargets = "dear/m"\n')
    found = replayed(denying, past(1))
    assert [way.after for way in found.moved] == ["denied"]
    assert costs(found) == (15_200_000, 0, 0)
    was_denied = request(1, facts={"model": "m"}, denied=True)
    (sums,) = replayed(MOVED, was_denied).moved.values()
    assert (sums.requests, sums.unpriced) == (1, 1)
    assert replayed(denying, was_denied).stayed.requests == 1


def test_a_target_that_had_failed_lately_is_where_the_request_would_go_all_the_same() -> None:
    row = past(1, used(provider="cheap"), skipped={"dear/m": "cooling down"})
    both = rules('[default]\ntargets = ["dear/m", "cheap/m"]\nfallback = true\n')
    assert replayed(both, row).moved == {}


def test_what_would_not_fit_is_counted_by_target() -> None:
    large = used(input_uncached=1900, cache_read=0, output=90)
    too_large = used(input_uncached=2900, cache_read=0, output=90)
    other = past(3, used(model="other", input_uncached=1900, cache_read=0, output=90))
    found = replayed(MOVED, past(1, large), past(2, too_large), other, factor="0.8-1.25")
    assert (dict(found.overflowing), dict(found.tight)) == ({"cheap/m": 1}, {"cheap/m": 1})
    unknown = replayed(rules('[default]\ntargets = "cheap/cheaper"\n'), past(1))
    assert dict(unknown.unknown_windows) == {"cheap/cheaper": 1}


INVARIANT = """
[[invariants]]
name = "search stays inside"
when.team = "search"
never.zone = "public"
[[invariants]]
name = "secrets stay inside"
when.headers.x-secret = "yes"
never.zone = "public"
[default]
targets = "dear/m"
[teams.search]
keys = ["env:SEARCH"]
"""


def test_invariants_that_requests_would_break_are_counted() -> None:
    from pathlib import Path

    from routeproxy.policy.compile.compiler import compile_rules

    by = compile_rules(
        PROVIDERS + INVARIANT,
        path=Path("rules.toml"),
        environ={"SEARCH": "key-of-search"},
        skip_proof=True,
    )
    rows = [
        past(1, facts={"team": "search", "headers": {"x-secret": None}}),
        past(2, team=None, facts={"headers": {"x-secret": "yes"}}),
        past(3, team=None),
    ]
    found = replayed(by, *rows)
    assert dict(found.broken) == {"search stays inside": 1, "secrets stay inside": 1}
    assert found.not_judged == 1


def test_a_request_that_reached_no_rule_or_asked_for_a_count_is_left_out() -> None:
    rows = [past(1, path="/v1/messages/count_tokens"), past(2, rule=None), request(3, facts={})]
    assert replayed(MOVED, *rows).requests == 0


def test_rules_may_stand_in_for_what_was_recorded() -> None:
    before = rules('[default]\ntargets = "cheap/cheaper"\n')
    found = replayed(MOVED, past(1), before=before)
    assert [(way.before, way.after) for way in found.moved] == [("cheap/cheaper", "cheap/m")]
    assert found.changes[0].before == "default: cheap/cheaper"
    assert found.changes[0].after == "default: cheap/m"


def test_a_request_that_another_rule_takes_to_the_same_target_is_said() -> None:
    by = rules(
        '[[rules]]\nname = "r"\nmatch.model = "m"\ntargets = "dear/m"\n[default]\ntargets = "cheap/m"\n'
    )
    found = replayed(by, past(1))
    assert (found.stayed.requests, found.other_rule) == (1, 1)


@pytest.mark.parametrize("written", ["", "a", "0", "-1", "2-1", "1-", "1-1000"])
def test_a_factor_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="expected a number, or a range such as"):
        Factor.parsed(written)
