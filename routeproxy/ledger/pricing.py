"""What an attempt costs: a whole number of billionths of a US dollar, rounded once, or nobody knows."""

import datetime
import hashlib
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache

import msgspec
from msgspec import Struct

from routeproxy.ledger.price_table import PriceTable
from routeproxy.ledger.rows import PriceSource
from routeproxy.messages.token_usage import KINDS, NANO, TokenUsage
from routeproxy.policy.prices import Rates, prices_of
from routeproxy.policy.providers import Provider

RATE_OF: Mapping[str, str] = {
    "input_uncached": "input",
    "cache_read": "cache_read",
    "cache_write_5m": "cache_write_5m",
    "cache_write_1h": "cache_write_1h",
    "cache_write_other": "cache_write_5m",
    "output": "output",
}
"""By the kind of tokens, the rate that they have. What is written into a cache for nobody knows how long
costs what 5 minutes do, which is what a request gets that asks for nothing else."""
assert tuple(RATE_OF) == KINDS


class Cost(Struct, frozen=True):
    nanousd: int | None
    source: PriceSource
    version: str | None = None
    """Of the prices: which of them counted."""


NOTHING = Cost(None, "")
UNKNOWN = Cost(None, "unknown")


def cost_of(
    tokens: TokenUsage | None,
    provider: Provider,
    model: str,
    day: datetime.date,
    table: PriceTable,
    served: str | None = None,
) -> Cost:
    """Of what `model`, as it was asked for at `provider`, took on a day. `served`: what the back end calls
    it."""
    if tokens is None:
        return NOTHING
    if tokens.cost_nanousd is not None:
        return Cost(tokens.cost_nanousd, "provider")
    if (stated := prices_of(model, provider.prices)) is not None:
        rates = stated.on(day)
        version = f"rules {_digest(rates)}" if rates is not None else None
        return _priced(tokens, rates, provider.discount, "rules", version)
    rates = table.rates_of(provider, model, served, tokens)
    return _priced(tokens, rates, provider.discount, "table", table.version)


def _priced(
    tokens: TokenUsage, rates: Rates | None, discount: Decimal, source: PriceSource, version: str | None
) -> Cost:
    dollars = dollars_of(tokens, rates) if rates is not None else None
    if dollars is None:
        return UNKNOWN
    nanousd = (dollars * (1 - discount) * NANO).quantize(Decimal(1), rounding=ROUND_HALF_EVEN)
    return Cost(int(nanousd), source, version)


def dollars_of(tokens: TokenUsage, rates: Rates) -> Decimal | None:
    """`None`: there are some for which no rate is known, or it is not known how many there are."""
    total = rates.request or Decimal(0)
    for kind, name in RATE_OF.items():
        count = getattr(tokens, kind)
        if count is None and kind == "output":
            return None
        if count:
            rate = getattr(rates, name)
            if rate is None:
                return None
            total += count * rate
    if tokens.web_searches:
        if rates.web_search is None:
            return None
        total += tokens.web_searches * rates.web_search
    return total


@lru_cache(256)
def _digest(rates: Rates) -> str:
    return hashlib.blake2b(msgspec.json.encode(rates), digest_size=4).hexdigest()
