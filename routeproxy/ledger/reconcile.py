"""The ledger held against a provider's invoice, by day and model."""

import csv
import datetime
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from msgspec import Struct

from routeproxy.ledger.sums import Sums
from routeproxy.ledger.usage import Usage, UsageRow

CENT = Decimal("0.01")

NAMES: Mapping[str, tuple[str, ...]] = {
    "day": ("day", "date", "usage_date", "usage_date_utc", "start_time_iso", "chargeperiodstart"),
    "model": ("model", "model_name", "model_version", "resourceid", "line_item", "sku", "sku_name"),
    "cost": ("cost", "cost_usd", "amount", "amount_value", "billedcost", "cost_in_usd", "total_cost"),
}
"""What providers call the columns, in lower case."""


class Invoice(Struct, frozen=True):
    costs: Mapping[tuple[str, str], Decimal]
    """US dollars, by day and model."""
    first: datetime.date
    last: datetime.date

    @classmethod
    def read(cls, lines: Iterable[str], name: str, columns: Mapping[str, str]) -> "Invoice":
        """`columns`: what they are called, as far as that was told. Raises `ValueError`."""
        reader = csv.DictReader(lines)
        found = {column: _column(column, reader.fieldnames or (), columns, name) for column in NAMES}
        costs: dict[tuple[str, str], Decimal] = {}
        days = set[datetime.date]()
        for row in reader:
            where = f"{name}:{reader.line_num}"
            day = _day(row[found["day"]] or "", where)
            days.add(day)
            place = day.isoformat(), (row[found["model"]] or "").strip()
            costs[place] = costs.get(place, Decimal(0)) + _amount(row[found["cost"]] or "", where)
        if not days:
            raise ValueError(f"{name}: there is no line in it")
        return cls(costs, min(days), max(days))


def _column(name: str, known: Iterable[str], told: Mapping[str, str], file: str) -> str:
    if name in told:
        if told[name] in known:
            return told[name]
        raise ValueError(f"{file} has no column `{told[name]}`; it has {', '.join(known)}")
    for column in known:
        if re.sub(r"[\s()-]+", "_", column.strip().lower()).strip("_") in NAMES[name]:
            return column
    hint = f"say which it is: --columns {name}=NAME"
    raise ValueError(f"{file} has no column for the {name}; it has {', '.join(known)}; {hint}")


def _day(written: str, where: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(written.strip()[:10])
    except ValueError:
        raise ValueError(f"{where}: `{written}` is no day such as 2026-11-01") from None


def _amount(written: str, where: str) -> Decimal:
    try:
        amount = Decimal(re.sub(r"[$,\s]|USD", "", written) or "0")
    except InvalidOperation:
        raise ValueError(f"{where}: `{written}` is no amount in US dollars") from None
    if not amount.is_finite():
        raise ValueError(f"{where}: `{written}` is no amount in US dollars")
    return amount


class Difference(Struct, frozen=True):
    day: str
    model: str
    ledger: Decimal
    invoice: Decimal
    words: str
    """What may explain it."""

    @property
    def amount(self) -> Decimal:
        """What the invoice has more."""
        return self.invoice - self.ledger

    @property
    def agrees(self) -> bool:
        return abs(self.amount) < CENT

    @property
    def document(self) -> dict[str, Any]:
        return {
            "day": self.day,
            "model": self.model,
            "ledger_usd": f"{self.ledger:f}",
            "invoice_usd": f"{self.invoice:f}",
            "difference_usd": f"{self.amount:f}",
            "agrees": self.agrees,
            "note": self.words,
        }


def reconciled(usage: Usage, invoice: Invoice) -> list[Difference]:
    """By day and model; `usage` was asked by both."""
    found = {(row.by[0], row.by[1]): row for row in usage.rows}
    nothing = UsageRow(by=(), sums=Sums())
    places = sorted({*found, *invoice.costs})
    return [
        Difference(
            day, model, found.get((day, model), nothing).dollars, invoice.costs.get((day, model), Decimal(0)),
            _words(found.get((day, model)), (day, model) in invoice.costs),
        )
        for day, model in places
    ]  # fmt: skip


def _words(row: UsageRow | None, is_on_invoice: bool) -> str:
    if row is None:
        return "not in the ledger: it did not come through here, or has another name"
    if not is_on_invoice:
        return "not on the invoice"
    if row.sums.unpriced_tokens:
        return f"{row.sums.unpriced_tokens:,} tokens have no price in the ledger"
    return ""
