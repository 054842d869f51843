"""How long tests wait and how many cases they try: one factor for each, so that a busy machine is no failure
and a thorough run is one variable away.

`PATIENCE=3 pytest` waits three times as long for what must come. `LAWS=100 pytest tests/policy` tries a
hundred times as many cases of each law. With `CI` set, which has a quarter of an hour, it is a quarter of
each law, and of the long sweeps a part.
"""

import os
from collections.abc import Collection, Iterable
from typing import TypeVar

from hypothesis import settings

CI = bool(os.environ.get("CI"))

PATIENCE = float(os.environ.get("PATIENCE", "3" if CI else "1"))
LAWS = float(os.environ.get("LAWS", "0.25" if CI else "1"))

Case = TypeVar("Case")
Other = TypeVar("Other")


def seconds(usual: float) -> float:
    """How long to wait for what takes less than `usual` seconds on an idle machine."""
    return usual * PATIENCE


def examples(usual: int) -> settings:
    """A law that is tried with another number of cases than the 100 of the profile."""
    return settings(max_examples=max(1, round(usual * LAWS)))


def part(cases: Iterable[Case]) -> list[Case]:
    """Of the cases of a long sweep all; in CI each third."""
    return [case for case, _ in part_of_table(cases, [None])]


def part_of_table(rows: Iterable[Case], columns: Collection[Other]) -> list[tuple[Case, Other]]:
    """Of a sweep of each with each all; in CI a third, in which every row and every column is tried."""
    every = 3 if LAWS < 1 else 1
    return [
        (case, other)
        for row, case in enumerate(rows)
        for column, other in enumerate(columns)
        if (row + column) % every == 0
    ]
