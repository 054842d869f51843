"""What an attempt costs, by hand-computed examples."""

import datetime
from decimal import Decimal
from typing import Any

import pytest

from routeproxy.ledger.price_table import load
from routeproxy.ledger.pricing import Cost, cost_of
from routeproxy.messages.token_usage import TokenUsage
from tests.policy.asking import policy

DAY = datetime.date(2026, 12, 1)

RULES = """
[providers.openai]
discount = {discount}
{prices}
[providers.own]
type = "openai_compatible"
base_url = "http://llm.example/v1"
[providers.own.prices]
"llama-*" = {{ input = 0, output = 0 }}
[providers.anthropic]
[providers.azure]
base_url = "https://own.openai.azure.example"
api_version = "2026-01-01"
[providers.gemini]
[providers.bedrock]
aws_region_name = "us-east-1"
[providers.gateway]
type = "openai"
base_url = "https://gateway.example/v1"
[default]
targets = "openai/gpt-5"
"""

PRICES = """
[providers.openai.prices]
"gpt-5-pro" = { input = 1, output = 2, request = 0.001 }
"gpt-5*" = [
    { input = 2.5, output = 10, cache_read = 0.25, cache_write_5m = 3, cache_write_1h = 5, web_search = 0.01},
    { per = "1K tokens", input = 0.003, output = 0.01, from = 2026-11-15 },
    { input = 1, output = 1, from = 2027-01-01 },
]
"""


def cost(
    model: str,
    provider: str = "openai",
    *,
    prices: str = PRICES,
    discount: str = "0",
    day: datetime.date = DAY,
    served: str | None = None,
    **tokens: Any,
) -> Cost:
    compiled = policy(RULES.format(prices=prices, discount=discount))
    usage = TokenUsage(**tokens)
    return cost_of(usage, compiled.providers[provider], model, day, load(), served)


def dollars(found: Cost) -> str | None:
    return None if found.nanousd is None else str(Decimal(found.nanousd) / 10**9)


def test_the_first_entry_that_names_the_model_counts_and_of_it_the_latest_that_has_begun() -> None:
    million = {"input_uncached": 10**6, "output": 10**6}
    before = datetime.date(2026, 11, 14)
    assert dollars(cost("gpt-5", day=before, **million)) == "12.5"
    assert dollars(cost("gpt-5", day=DAY, **million)) == "13"
    assert dollars(cost("gpt-5", day=datetime.date(2027, 1, 1), **million)) == "2"
    assert dollars(cost("gpt-5-pro", **million)) == "3.001"


def test_each_kind_of_tokens_has_its_rate_and_reasoning_is_not_paid_twice() -> None:
    found = cost(
        "gpt-5",
        day=datetime.date(2026, 11, 1),
        input_uncached=1000,
        cache_read=2000,
        cache_write_5m=300,
        cache_write_1h=400,
        cache_write_other=100,
        output=50,
        reasoning_output=40,
        web_searches=2,
    )
    by_hand = 1000 * 2.5 + 2000 * 0.25 + 300 * 3 + 400 * 5 + 100 * 3 + 50 * 10
    assert found.nanousd == round(by_hand * 1000) + 20_000_000
    assert (found.source, str(found.version)[:6]) == ("rules", "rules ")


@pytest.mark.parametrize("missing", ["cache_read", "web_searches"])
def test_a_class_that_is_left_out_is_unknown_and_not_free(missing: str) -> None:
    found = cost("gpt-5", input_uncached=10, output=10, **{missing: 1})
    assert (found.nanousd, found.source) == (None, "unknown")
    assert cost("gpt-5", input_uncached=10, output=10, **{missing: 0}).source == "rules"


def test_output_that_nobody_told_has_no_price() -> None:
    assert cost("gpt-5", input_uncached=10).source == "unknown"


def test_free_is_a_written_0() -> None:
    free = cost("llama-4", "own", input_uncached=10, output=10)
    assert (free.nanousd, free.source) == (0, "rules")
    assert cost("mistral", "own", input_uncached=10, output=10) == Cost(None, "unknown")


def test_a_discount_is_taken_off_and_the_result_rounded_once_half_to_even() -> None:
    price = '[providers.openai.prices]\n"m" = {{ per = "1 token", input = {input}, output = 0 }}\n'
    one = {"input_uncached": 1, "output": 0}
    assert cost("m", prices=price.format(input="0.0000000005"), **one).nanousd == 0
    assert cost("m", prices=price.format(input="0.0000000015"), **one).nanousd == 2
    assert cost("m", prices=price.format(input="0.0000000025"), **one).nanousd == 2
    assert cost("m", prices=price.format(input="100"), discount="0.12", **one).nanousd == 88 * 10**9
    # 7 tokens of a third of a billionth each: rounded as a whole, not token by token.
    assert cost("m", prices=price.format(input="3e-10"), input_uncached=7, output=0).nanousd == 2


def test_what_the_provider_says_wins_and_has_no_discount() -> None:
    found = cost("gpt-5", discount="0.5", input_uncached=10, output=10, cost_nanousd=123)
    assert (found.nanousd, found.source) == (123, "provider")


def test_nothing_that_was_used_costs_nothing_known() -> None:
    compiled = policy(RULES.format(prices=PRICES, discount="0"))
    assert cost_of(None, compiled.providers["openai"], "gpt-5", DAY, load()) == Cost(None, "")


# --- the table that is shipped


def test_list_prices_hold_where_the_rules_say_nothing() -> None:
    table = {"prices": "", "input_uncached": 10**6, "output": 10**6}
    found = cost("gpt-5", cache_read=10**6, **table)
    assert (dollars(found), found.source, found.version) == ("11.375", "table", load().version)
    assert dollars(cost("claude-sonnet-4-5-20250929", "anthropic", cache_write_1h=10**6, **table)) == "24"


def test_a_service_tier_has_its_own_prices_and_an_unknown_one_none() -> None:
    usual = {"prices": "", "input_uncached": 10**6, "output": 0}
    tiers = {"default": "1.25", "priority": "2.5", "flex": "0.625", "batch": "0.625", "gold": None}
    assert {tier: dollars(cost("gpt-5", service_tier=tier, **usual)) for tier in tiers} == tiers


def test_a_long_request_has_the_price_of_long_requests_for_all_of_it() -> None:
    short = cost("gemini-2.5-pro", "gemini", prices="", input_uncached=200_000, output=0)
    long = cost("gemini-2.5-pro", "gemini", prices="", input_uncached=150_000, cache_read=50_001, output=0)
    assert dollars(short) == "0.25"
    assert dollars(long) == str(Decimal("150000") * Decimal("0.0000025") + 50_001 * Decimal("0.00000025"))


def test_what_only_speaks_like_a_provider_has_not_its_prices() -> None:
    assert cost("gpt-5", "gateway", prices="", input_uncached=10, output=10).source == "unknown"


def test_a_deployment_has_the_price_of_the_model_that_it_serves() -> None:
    tokens = {"prices": "", "input_uncached": 10**6, "output": 0}
    assert cost("our-deployment", "azure", **tokens).source == "unknown"
    assert dollars(cost("our-deployment", "azure", served="gpt-5", **tokens)) == "1.25"


def test_models_of_which_two_tables_tell_different_prices_have_none() -> None:
    compiled = policy('[providers.deepseek]\n[default]\ntargets = "deepseek/deepseek-chat"\n', {})
    tokens = TokenUsage(input_uncached=1, output=1)
    found = cost_of(tokens, compiled.providers["deepseek"], "deepseek-chat", DAY, load())
    assert found == Cost(None, "unknown")


def test_the_table_is_that_of_the_litellm_that_is_shipped_and_says_its_day() -> None:
    from importlib.metadata import version

    table = load()
    assert f"litellm {version('litellm')}" in table.sources
    assert datetime.date.fromisoformat(table.version.removeprefix("table ")) >= datetime.date(2026, 12, 1)
