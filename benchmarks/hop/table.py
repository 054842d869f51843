"""Figures by row and subject: as a Markdown table, as JSON, and beside routeproxy's bars."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Row(NamedTuple):
    key: str
    name: str
    digits: int = 2
    ratio: bool = False
    """Whether a hop is compared with the baseline."""


@dataclass
class Results:
    rows: list[Row]
    titles: dict[str, str] = field(default_factory=dict)
    """Of the subjects that have a column."""
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    at_least: set[tuple[str, str]] = field(default_factory=set)
    """Rows and subjects whose figure is a lower bound."""
    notes: list[str] = field(default_factory=list)
    missed: dict[str, list[str]] = field(default_factory=dict)
    """What could not be measured, by why."""

    def add(self, row: str, subject: str, value: float) -> None:
        self.figures.setdefault(row, {}).setdefault(subject, []).append(value)

    def of(self, row: str, subject: str) -> list[float]:
        return self.figures.get(row, {}).get(subject, [])

    def median(self, row: str, subject: str) -> float | None:
        values = self.of(row, subject)
        return statistics.median(values) if values else None

    def note(self, words: str) -> None:
        if words not in self.notes:
            self.notes.append(words)

    def miss(self, why: str, what: str) -> None:
        self.missed.setdefault(why, []).append(what)

    def all_notes(self) -> list[str]:
        return self.notes + [f"{why} ({', '.join(what)})" for why, what in self.missed.items()]


def markdown(results: Results, baseline: str | None, caption: str) -> str:
    """The table, with what one must know to read it below."""
    titles = {key: title for key, title in results.titles.items() if _measured(results, key)}
    lines = ["| | " + " | ".join(titles.values()) + " |", "|---|" + "---:|" * len(titles)]
    for row in results.rows:
        cells = [_cell(results, row, key, baseline) for key in titles]
        if any(cells):
            lines.append(f"| {row.name} | " + " | ".join(cell or "–" for cell in cells) + " |")
    return "\n".join([*lines, "", caption, "", *(f"- {note}" for note in results.all_notes())]).rstrip()


def as_json(results: Results, baseline: str | None, facts: dict[str, Any]) -> dict[str, Any]:
    named = {row.key: row.name for row in results.rows}
    return {
        **facts,
        "baseline": baseline,
        "subjects": results.titles,
        "rows": named,
        "figures": results.figures,
        "lower_bounds": sorted(results.at_least),
        "notes": results.all_notes(),
        "bars": [bar.said(results) for bar in BARS],
    }


def _measured(results: Results, subject: str) -> bool:
    return any(results.of(row.key, subject) for row in results.rows)


def _cell(results: Results, row: Row, subject: str, baseline: str | None) -> str:
    values = results.of(row.key, subject)
    if not values:
        return ""
    median = statistics.median(values)
    said = f"**{median:,.{row.digits}f}**"
    if len(values) > 1:
        said = f"{min(values):,.{row.digits}f} – {said} – {max(values):,.{row.digits}f}"
    if (row.key, subject) in results.at_least:
        said = f"≥ {said}"
    base = results.median(row.key, baseline) if baseline else None
    return (
        f"{said} ({_times(median / base)}×)"
        if row.ratio and base and base > 0 and subject != baseline
        else said
    )


def _times(ratio: float) -> str:
    return f"{ratio:,.1f}" if ratio < 100 else f"{ratio:,.0f}"


class Bar(NamedTuple):
    """What a median is to be at most: a number, or so many times another subject's."""

    name: str
    row: str
    subject: str
    at_most: float
    against: str | None = None

    def said(self, results: Results) -> str:
        own = results.median(self.row, self.subject)
        other = results.median(self.row, self.against) if self.against else 1.0
        if own is None or not other:
            return f"?  {self.name}: not measured"
        found = own / other
        mark = "✓" if found <= self.at_most else "✗"
        if self.at_most < 0.5:  # told the other way round: so many times less
            return f"{mark}  {self.name}: {_times(1 / found)}, at least {_times(1 / self.at_most)}"
        return f"{mark}  {self.name}: {found:.2f}, at most {self.at_most:g}"


def _bars() -> Iterator[Bar]:
    for subject, way in (("routeproxy", "to chat"), ("routeproxy-messages", "to Messages")):
        for name, row, times in (
            ("1 kB", "cpu 1 kB", 8),
            ("100 events at once", "cpu 1 kB at once", 9),
            ("115 kB", "cpu 115 kB", 10),
            ("115 kB, streamed", "cpu 115 kB at once", 11),
            ("100 events one by one", "cpu 1 kB one by one", 3),
        ):
            yield Bar(f"{way}, CPU against nginx, {name}", row, subject, times, "nginx")
        for name, row, times in (("1 kB", "cpu 1 kB", 50), ("stream", "cpu 1 kB at once", 100)):
            yield Bar(f"{way}, CPU against LiteLLM's proxy, {name}", row, subject, 1 / times, "litellm")
        yield Bar(f"{way}, memory against LiteLLM's proxy", "memory after", subject, 1 / 7, "litellm")
        for name, row, times in (("1 kB", "cpu 1 kB", 9), ("stream", "cpu 1 kB at once", 8)):
            yield Bar(f"{way}, CPU against claude-code-router, {name}", row, subject, 1 / times, "ccr")
        yield Bar(f"{way}, start-up (s)", "start-up", subject, 1.0)
        yield Bar(f"{way}, memory after the run (MB)", "memory after", subject, 60.0)
        yield Bar(f"{way}, longest delay of an event in a held stream (ms)", "held longest", subject, 20.0)
    for name, row in (
        ("1 kB", "cpu 1 kB"),
        ("100 events at once", "cpu 1 kB at once"),
        ("115 kB", "cpu 115 kB"),
    ):
        yield Bar(
            f"LiteLLM engine, CPU against the bare call, {name}",
            row,
            "routeproxy-litellm",
            1.1,
            "acompletion",
        )


BARS = list(_bars())
