"""What an answer would have cost elsewhere: a range, since nobody has asked there."""

import datetime
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from routeproxy.ledger.price_table import PriceTable
from routeproxy.ledger.pricing import cost_of
from routeproxy.messages.token_usage import KINDS, TokenUsage
from routeproxy.policy.targets import Target

_WRITES = ("cache_write_5m", "cache_write_1h", "cache_write_other")


class Factor(Struct, frozen=True):
    """How many tokens another model makes of the same text, for each that there were."""

    low: float = 0.8
    high: float = 1.25

    @classmethod
    def parsed(cls, written: str) -> "Factor":
        """`1`, or `0.8-1.25`. Raises `ValueError`."""
        low, dash, high = written.partition("-")
        try:
            factor = cls(float(low), float(high) if dash else float(low))
        except ValueError:
            factor = cls(0, 0)
        if not 0 < factor.low <= factor.high <= 100:
            raise ValueError(f"--tokenizer-factor {written}: expected a number, or a range such as 0.8-1.25")
        return factor

    @property
    def words(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"


USUAL_FACTOR = Factor()


class CostRange(Struct, frozen=True):
    """In billionths of a US dollar."""

    low: int
    high: int


def cost_elsewhere(
    tokens: TokenUsage,
    targets: Sequence[Target],
    asked_model: str | None,
    day: datetime.date,
    factor: Factor,
    table: PriceTable,
    *,
    loses_cache: bool | None,
) -> CostRange | None:
    """At the cheapest and the dearest of `targets`; `None`: one of them has no price for it. `loses_cache`:
    what was read from a cache is not in that of the new target; `None`: it may be or not."""
    costs = []
    for target in targets:
        is_same_model = target.model == asked_model
        factors = (1.0,) if is_same_model else (factor.low, factor.high)
        for number in factors:
            for loses in (False, True) if loses_cache is None else (loses_cache,):
                cost = _cost(_elsewhere(tokens, number, loses_cache=loses), target, day, table)
                if cost is None:
                    return None
                costs.append(cost)
    return CostRange(min(costs), max(costs)) if costs else None


def _elsewhere(tokens: TokenUsage, factor: float, *, loses_cache: bool) -> TokenUsage:
    """As another model would count them."""
    counts: dict[str, Any] = {
        kind: round(count * factor) if (count := getattr(tokens, kind)) is not None else None
        for kind in KINDS
    }
    if loses_cache and counts["cache_read"]:
        # It has to be written once more, for as long as it was before.
        kept = next((kind for kind in _WRITES if counts[kind]), "cache_write_5m")
        counts[kept] = (counts[kept] or 0) + counts["cache_read"]
        counts["cache_read"] = 0
    return TokenUsage(**counts, web_searches=tokens.web_searches)


def _cost(tokens: TokenUsage, target: Target, day: datetime.date, table: PriceTable) -> int | None:
    """Where a model has no price for its cache, what goes through it is input like any other."""
    for without in ((), _WRITES, ("cache_read", *_WRITES)):
        moved = sum(getattr(tokens, kind) or 0 for kind in without)
        plain = replace(
            tokens, input_uncached=(tokens.input_uncached or 0) + moved, **dict.fromkeys(without, 0)
        )
        cost = cost_of(plain, target.provider, target.model, day, table)
        if cost.nanousd is not None:
            return cost.nanousd
    return None
