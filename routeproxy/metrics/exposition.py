"""Metrics as Prometheus reads them: its text format 0.0.4, and OpenMetrics 1.0, which has exemplars. Pure."""

import math
from collections.abc import Iterator

from routeproxy.metrics.families import FAMILIES, SECONDS, Family
from routeproxy.metrics.snapshot import Exemplar, Histogram, Labels, Snapshot

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def format_for(accept: str) -> str:
    """The content type of the answer to a request with this `Accept`."""
    return OPEN_METRICS if "application/openmetrics-text" in accept else TEXT


def exposed(snapshot: Snapshot, content_type: str) -> bytes:
    is_open = content_type == OPEN_METRICS
    lines = [line for family in FAMILIES.values() for line in _lines(family, snapshot, is_open=is_open)]
    if is_open:
        lines.append("# EOF")
    return "".join(f"{line}\n" for line in lines).encode()


def _lines(family: Family, snapshot: Snapshot, *, is_open: bool) -> Iterator[str]:
    """A family without a number is shown all the same, so that a dashboard finds it."""
    name = family.name
    title = name.removesuffix("_total") if is_open and family.kind == "counter" else name
    yield f"# HELP {title} {family.help}"
    yield f"# TYPE {title} {family.kind}"
    if family.kind == "histogram":
        for labels, histogram in sorted(snapshot.histograms.get(name, {}).items()):
            yield from _histogram_lines(family, labels, histogram, is_open=is_open)
        return
    numbers = snapshot.numbers.get(name, {})
    if not numbers and not family.labels:
        numbers = {(): 0}
    for labels, value in sorted(numbers.items()):
        yield f"{name}{_shown(family.labels, labels)} {_number(value, family.digits)}"


def _histogram_lines(family: Family, labels: Labels, histogram: Histogram, *, is_open: bool) -> Iterator[str]:
    count = 0
    for bucket, (bound, number) in enumerate(zip((*SECONDS, math.inf), histogram.counts, strict=True)):
        count += number
        le = "+Inf" if bound == math.inf else _number(bound)
        exemplar = histogram.exemplars.get(bucket) if is_open else None
        shown = _shown((*family.labels, "le"), (*labels, le))
        yield f"{family.name}_bucket{shown} {count}{_exemplar(exemplar)}"
    yield f"{family.name}_count{_shown(family.labels, labels)} {count}"
    yield f"{family.name}_sum{_shown(family.labels, labels)} {_number(histogram.sum)}"


def _exemplar(exemplar: Exemplar | None) -> str:
    if exemplar is None:
        return ""
    return f' # {{request_id="{_escaped(exemplar.id)}"}} {_number(exemplar.value)} {exemplar.at:.3f}'


def _shown(names: tuple[str, ...], values: Labels) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float, digits: int = 0) -> str:
    if digits:
        whole, part = divmod(int(value), 10**digits)
        return f"{whole}.{part:0{digits}d}"
    return str(value) if isinstance(value, int) else repr(float(value))
