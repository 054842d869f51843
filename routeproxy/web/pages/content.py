"""What a view shows, before it is HTML or CSV: tables, charts and words."""

import csv
import datetime
import io
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from routeproxy.ledger.usage import UsageRow

Tone = Literal["", "good", "bad", "warn", "quiet"]
Kind = Literal["text", "number", "narrow"]
"""`narrow`: a text that is not broken, and takes no more room than it needs."""


class Cell(Struct, frozen=True):
    text: str
    note: str = ""
    """A second line, in small."""
    tone: Tone = ""
    href: str = ""
    share: float | None = None
    """From 0 to 1, drawn as a bar behind the text."""
    value: str | None = None
    """What CSV has, where the text is shortened."""
    time: str = ""
    """When, as ISO 8601 in UTC: shown in the time of whoever looks."""


class Column(Struct, frozen=True):
    title: str
    kind: Kind = "text"


class Table(Struct, frozen=True, kw_only=True):
    name: str
    """Of its CSV, and of its place in the page."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    empty: str
    """What is said where there is no row."""
    lead: str = ""


class Bar(Struct, frozen=True):
    label: str
    title: str
    share: float
    """Of the highest, from 0 to 1."""


class Chart(Struct, frozen=True, kw_only=True):
    title: str
    bars: tuple[Bar, ...]
    top: str
    """What the highest stands for."""


class Words(Struct, frozen=True, kw_only=True):
    """A paragraph, or lines as they are."""

    title: str = ""
    text: str = ""
    lines: tuple[str, ...] = ()
    tone: Tone = ""


class Figure(Struct, frozen=True):
    label: str
    text: str
    note: str = ""
    tone: Tone = ""


class Figures(Struct, frozen=True):
    """A row of numbers that are looked at first."""

    figures: tuple[Figure, ...]


class Choice(Struct, frozen=True):
    label: str
    href: str
    is_chosen: bool


class Choices(Struct, frozen=True, kw_only=True):
    """Links of which one is where one is."""

    title: str
    choices: tuple[Choice, ...]


class Field(Struct, frozen=True, kw_only=True):
    name: str
    label: str
    value: str = ""
    options: tuple[str, ...] | None = None
    """The values to choose from; `None`: anything."""
    rows: int = 1
    hint: str = ""


class Form(Struct, frozen=True, kw_only=True):
    title: str
    action: str
    fields: tuple[Field, ...]
    button: str
    lead: str = ""


Part = Table | Chart | Words | Figures | Choices | Form


class View(Struct, frozen=True, kw_only=True):
    title: str
    lead: str
    parts: tuple[Part, ...]

    def table(self, name: str) -> Table | None:
        return next((part for part in self.parts if isinstance(part, Table) and part.name == name), None)


def as_csv(table: Table) -> bytes:
    """With what is shortened in full. A cell that a spreadsheet would take for a formula is a text there."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.title for column in table.columns])
    for row in table.rows:
        writer.writerow([_in_csv(cell, column) for cell, column in zip(row, table.columns, strict=True)])
    return out.getvalue().encode()


def _in_csv(cell: Cell, column: Column) -> str:
    text = cell.value if cell.value is not None else cell.time or cell.text
    text = f"{text} ({cell.note})" if cell.note and cell.value is None and column.kind != "number" else text
    is_formula = column.kind != "number" and text.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{text}" if is_formula else text


# --- numbers


def number(count: int, **fields: object) -> Cell:
    return Cell(f"{count:,}", value=str(count), **fields)  # type: ignore[arg-type]


def tokens(count: int) -> Cell:
    """Shortened: `12.3 M`"""
    for size, sign in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return Cell(f"{count / size:.{1 if count < 100 * size else 0}f} {sign}", value=str(count))
    return Cell(str(count), value=str(count))


def money(dollars: Decimal, share: float | None = None) -> Cell:
    return Cell(in_dollars(dollars), value=f"{dollars:f}", share=share)


def in_dollars(dollars: Decimal) -> str:
    """To the cent, and below a dollar to the hundredth of one."""
    return f"{dollars:,.2f}" if dollars >= 1 or not dollars else f"{dollars:.4f}"


def cost(row: UsageRow, share: float | None = None) -> Cell:
    """Of what has a price; where nothing has, that is said."""
    if not row.sums.unpriced_tokens:
        return money(row.dollars, share)
    if not row.sums.cost_nanousd:
        return Cell("not known", tone="warn", value="")
    return Cell(f"≥ {in_dollars(row.dollars)}", value=f"{row.dollars:f}", share=share)


def percent(share: float | None) -> Cell:
    if share is None:
        return Cell("–", tone="quiet", value="")
    return Cell(f"{share:.0%}", value=f"{share:.4f}")


def moment(time: datetime.datetime | None) -> Cell:
    if time is None:
        return Cell("–", tone="quiet", value="")
    written = time.astimezone(datetime.UTC)
    return Cell(f"{written:%Y-%m-%d %H:%M} UTC", time=written.isoformat(timespec="seconds"))
