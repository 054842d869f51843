"""`[providers.NAME.prices]` becomes what its models cost."""

import math
from collections.abc import Mapping
from decimal import Decimal

from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import PriceTable
from routeproxy.policy.prices import DatedRates, Prices, Rates
from routeproxy.policy.problems import Code, KeyPath

UNITS: Mapping[str, int] = {"1M tokens": 1_000_000, "1K tokens": 1000, "1 token": 1}
"""By what `per` says, the tokens that a price is for."""

PER_TOKEN = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
PER_EVENT = ("request", "web_search")


def compile_prices(
    written: Mapping[str, PriceTable | list[PriceTable]] | None, path: KeyPath, report: Report
) -> tuple[Prices, ...]:
    prices = []
    for models, entry in (written or {}).items():
        here = (*path, models)
        tables = entry if isinstance(entry, list) else [entry]
        paths = [(*here, index) for index in range(len(tables))] if isinstance(entry, list) else [here]
        dated = tuple(_compile_rates(table, at, report) for table, at in zip(tables, paths, strict=True))
        days = [each.since for each in dated]
        for index, day in enumerate(days):
            if day in days[:index]:
                words = f"from {day}" if day else "without `from`"
                message = f"two prices {words} for the same models: nobody can tell which counts"
                report.error(Code.DUPLICATE, paths[index], message, key=True)
        prices.append(Prices(models, dated))
    return tuple(prices)


def _compile_rates(table: PriceTable, path: KeyPath, report: Report) -> DatedRates:
    tokens = UNITS[table.per]
    if table.currency != "USD":
        message = f"`{table.currency}`: the ledger is in US dollars, and no rate of exchange is known here"
        hint = "write what it comes to in US dollars, with another `from` when the rate changes"
        report.error(Code.WRONG_VALUE, (*path, "currency"), message, expected='"USD"', hint=hint)
    stated = {name: getattr(table, name) for name in (*PER_TOKEN, *PER_EVENT)}
    if all(price is None for price in stated.values()) and not report.faulty(path):
        report.error(Code.EMPTY, path, "no price is stated", hint="free is `0`; unknown is no entry at all")
    for name, price in stated.items():
        if price is not None and not 0 <= price < math.inf:
            report.error(Code.WRONG_VALUE, (*path, name), f"`{name}` is {price:g}: no price is that")
            stated[name] = None
    # A float's shortest text is what stands in the file.
    rates = {name: Decimal(str(price)) for name, price in stated.items() if price is not None}
    for name in PER_TOKEN:
        if name in rates:
            rates[name] /= tokens
    return DatedRates(Rates(**rates), table.from_)


def compile_discount(written: int | float | None, path: KeyPath, report: Report) -> Decimal:
    """The part of the price that is not asked for: 0.12 is 12 %."""
    if written is None:
        return Decimal(0)
    if not 0 <= written < 1:
        message = f"`discount` is a part of the price: {written:g} is none"
        report.error(Code.WRONG_VALUE, path, message, expected="at least 0 and below 1: 0.12 is 12 %")
        return Decimal(0)
    return Decimal(str(written))
