"""What one answer took, in tokens that are counted once each. Back ends count in their own ways (OpenAI's
input includes what was read from a cache, Anthropic's does not): here they are told apart, so that a sum is a
sum.
"""

from decimal import Decimal, InvalidOperation
from typing import Any

from msgspec import Struct

NANO = 10**9
"""Money is counted in billionths of a US dollar."""
MOST = 2**53
"""No count is so high, and JSON's numbers are exact below it."""


class TokenUsage(Struct, frozen=True, kw_only=True, gc=False):
    """Tokens, each in one of the first six. What a back end did not tell is `None`, never 0."""

    input_uncached: int | None = None
    cache_read: int | None = None
    cache_write_5m: int | None = None
    """Written into a cache that keeps them for 5 minutes after their last use."""
    cache_write_1h: int | None = None
    cache_write_other: int | None = None
    """Written into a cache that keeps them for nobody knows how long."""
    output: int | None = None
    reasoning_output: int | None = None
    """Those of `output` that the model has thought with."""
    web_searches: int | None = None
    service_tier: str | None = None
    """As the back end calls it: `standard`, `default`, `priority`, `flex`, `batch`."""
    cost_nanousd: int | None = None
    """What the back end itself says that the answer costs."""
    is_estimate: bool = False
    """No back end has told it: the input is that of as many bytes, and so is the output."""

    @property
    def total(self) -> int:
        """All that are known of."""
        return sum(count for kind in KINDS if (count := getattr(self, kind)) is not None)


KINDS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "cache_write_other", "output")
"""The kinds of tokens of which each has one."""


def first_count(*values: Any) -> int | None:
    """The first of them that is a number of something, as back ends may have written it."""
    for value in values:
        if value.__class__ in (int, float) and 0 <= value < MOST:
            return int(value)
    return None


def short_text(value: Any) -> str | None:
    """A word of a back end's, if it is one."""
    return value if isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable() else None


def nanousd(dollars: Any) -> int | None:
    """US dollars, as a back end wrote them, in billionths. `None`: that is no price."""
    if dollars.__class__ not in (int, float, str):
        return None
    try:
        amount = Decimal(str(dollars)) * NANO
    except InvalidOperation:
        return None
    return round(amount) if amount.is_finite() and 0 <= amount < MOST else None
