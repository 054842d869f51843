"""The numbers of one process at one moment, and of several as one. Pure."""

from bisect import bisect_left
from collections.abc import Iterable

from msgspec import Struct

from routeproxy.metrics.families import FAMILIES, SECONDS, Family

Labels = tuple[str, ...]
"""The values of a family's labels, in its order."""


class Exemplar(Struct, frozen=True, array_like=True):
    """One request of those that are counted."""

    id: str
    value: float
    at: float


class Histogram(Struct, array_like=True):
    counts: list[int]
    """By bucket, the last of which has no bound; none counts what another counts."""
    sum: float = 0.0
    exemplars: dict[int, Exemplar] = {}
    """By bucket, the latest."""

    @classmethod
    def empty(cls) -> "Histogram":
        return cls([0] * (len(SECONDS) + 1), 0.0, {})

    def observe(self, value: float, exemplar: Exemplar | None = None) -> None:
        bucket = bisect_left(SECONDS, value)
        self.counts[bucket] += 1
        self.sum += value
        if exemplar is not None:
            self.exemplars[bucket] = exemplar

    def add(self, other: "Histogram") -> None:
        self.counts = [own + others for own, others in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum
        for bucket, exemplar in other.exemplars.items():
            known = self.exemplars.get(bucket)
            if known is None or known.at < exemplar.at:
                self.exemplars[bucket] = exemplar


class Snapshot(Struct):
    """By the names of families."""

    numbers: dict[str, dict[Labels, int | float]] = {}
    """Of counters and gauges."""
    histograms: dict[str, dict[Labels, Histogram]] = {}

    def add(self, family: Family, by: float, *labels: str) -> None:
        of_family = self.numbers.setdefault(family.name, {})
        of_family[labels] = of_family.get(labels, 0) + by

    def set(self, family: Family, value: float, *labels: str) -> None:
        self.numbers.setdefault(family.name, {})[labels] = value

    def observe(self, family: Family, value: float, exemplar: Exemplar, *labels: str) -> None:
        of_family = self.histograms.setdefault(family.name, {})
        if labels not in of_family:
            of_family[labels] = Histogram.empty()
        of_family[labels].observe(value, exemplar)

    def without_gauges(self) -> "Snapshot":
        """What stays of a process that is gone."""
        kept = {name: of for name, of in self.numbers.items() if FAMILIES[name].kind == "counter"}
        return Snapshot(kept, self.histograms)


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """What several processes have counted together. None of them is changed."""
    result = Snapshot({}, {})
    for snapshot in snapshots:
        for name, numbers in snapshot.numbers.items():
            family = FAMILIES.get(name)
            if family is None:  # another version's
                continue
            of_family = result.numbers.setdefault(name, {})
            for labels, value in numbers.items():
                of_family[labels] = (
                    _merged(family, of_family[labels], value) if labels in of_family else value
                )
        for name, histograms in snapshot.histograms.items():
            known = result.histograms.setdefault(name, {})
            for labels, histogram in histograms.items():
                if labels not in known:
                    known[labels] = Histogram.empty()
                known[labels].add(histogram)
    return result


def _merged(family: Family, one: float, other: float) -> float:
    if family.kind == "counter" or family.merge == "sum":
        return one + other
    return max(one, other) if family.merge == "max" else min(one, other)
