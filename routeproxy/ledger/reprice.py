"""What the same usage would have cost at other prices: computed beside the ledger, which keeps what it
has."""

import datetime
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from routeproxy.ledger.price_table import PriceTable, load
from routeproxy.ledger.pricing import cost_of
from routeproxy.ledger.store import Store
from routeproxy.ledger.usage import Question, shown_columns, statement_of_attempts
from routeproxy.messages.token_usage import TokenUsage
from routeproxy.policy.providers import Provider

TOKENS = (
    "input_uncached",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "cache_write_other",
    "output",
    "web_searches",
    "service_tier",
)
READ = ("provider", "model", "served_model", "price_source", "cost_nanousd", *TOKENS)


class Repriced(Struct):
    """Of one group, over the attempts that are still in the ledger."""

    before: int = 0
    """In billionths of a US dollar."""
    after: int = 0
    unpriced_before: int = 0
    """Tokens without a price."""
    unpriced_after: int = 0


async def repriced(
    store: Store, question: Question, providers: Mapping[str, Provider], table: PriceTable | None = None
) -> dict[tuple[str, ...], Repriced]:
    """By the values of what was asked by. A cost that a provider told itself stays. Raises
    `LedgerUnavailable`."""
    prices = table or load()
    shown, found = shown_columns(question), dict[tuple[str, ...], Repriced]()
    width = len(shown)
    for row in await store.query(*statement_of_attempts(question, store.dialect, READ)):
        by = tuple([show(value) for show, value in zip(shown, row, strict=False)])
        _add(found.setdefault(by, Repriced()), row[width], row[width + 1 :], providers, prices)
    return found


def _add(
    sums: Repriced, seconds: int, values: Any, providers: Mapping[str, Provider], table: PriceTable
) -> None:
    attempt = dict(zip(READ, values, strict=True))
    if not attempt["price_source"]:
        return  # nothing was used
    tokens = TokenUsage(**{name: attempt[name] for name in TOKENS})
    before, provider = attempt["cost_nanousd"], providers.get(attempt["provider"])
    after = before if attempt["price_source"] == "provider" else None
    if after is None and provider is not None:
        day = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).date()
        served = attempt["served_model"]
        after = cost_of(tokens, provider, attempt["model"], day, table, served).nanousd
    sums.before += before or 0
    sums.after += after or 0
    sums.unpriced_before += tokens.total if before is None else 0
    sums.unpriced_after += tokens.total if after is None else 0
