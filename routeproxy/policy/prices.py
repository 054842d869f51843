"""What the tokens of a provider's models cost, as the rules state it. Nothing here decides a request."""

import datetime
from collections.abc import Sequence
from decimal import Decimal

from msgspec import Struct

from routeproxy.policy.patterns import matches


class Rates(Struct, frozen=True, kw_only=True):
    """US dollars. `None`: nobody knows it; free is 0."""

    input: Decimal | None = None
    """Per token, as all but the last two."""
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write_5m: Decimal | None = None
    cache_write_1h: Decimal | None = None
    request: Decimal | None = None
    """Per request; `None`: nothing is asked for it."""
    web_search: Decimal | None = None
    """Per search."""


class DatedRates(Struct, frozen=True):
    rates: Rates
    since: datetime.date | None = None
    """Their first day, in UTC; `None`: they always counted."""


class Prices(Struct, frozen=True):
    """Those of the models that a glob names."""

    models: str
    dated: tuple[DatedRates, ...]

    def on(self, day: datetime.date) -> Rates | None:
        """Those of a day: the latest that had begun by then."""
        begun = [dated for dated in self.dated if dated.since is None or dated.since <= day]
        return max(begun, key=lambda dated: dated.since or datetime.date.min).rates if begun else None


def prices_of(model: str, prices: Sequence[Prices]) -> Prices | None:
    """The first in the order of the file whose glob names the model."""
    return next((each for each in prices if matches(each.models, model)), None)
