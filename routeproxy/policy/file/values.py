"""Values that stand in many tables of a rules file: durations, counts, one text or several."""

import re
from typing import Annotated

from msgspec import Meta

Duration = Annotated[
    str,
    Meta(
        pattern=r"^(\d+(\.\d+)?(ms|s|m|h))+$",
        extra={"expected": 'a duration such as "30s", "1m30s" or "500ms"'},
    ),
]
Period = Annotated[
    str,
    Meta(pattern=r"^[1-9]\d*[dwy]$", extra={"expected": 'a number of days, weeks or years: "90d", "3y"'}),
]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Strings = str | list[str]


def listed(value: str | list[str]) -> tuple[str, ...]:
    """The values of a key that takes one or several."""
    return (value,) if isinstance(value, str) else tuple(value)


def seconds(duration: str) -> float:
    """`1m30s` is 90."""
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([\d.]+)(ms|[smh])", duration))


def period(written: str) -> float:
    """Seconds: a year has 365 days."""
    return int(written[:-1]) * {"d": 1, "w": 7, "y": 365}[written[-1]] * 86_400.0


_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
