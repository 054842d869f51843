"""Questions to the ledger as people write them: `--by team --since 30d`, `?by=team&since=30d`."""

import datetime
import re
from collections.abc import Sequence
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from routeproxy.ledger.usage import BY, FILTERS, Question


def asked(
    by: str,
    since: str | None,
    until: str | None,
    month: str | None,
    only: Sequence[str],
    time_zone: str,
    now: datetime.datetime | None = None,
) -> Question:
    """What the options mean. Raises `ValueError`."""
    zone = zone_of(time_zone)
    now = now or datetime.datetime.now(zone)
    names = tuple(name.strip() for name in by.split(",") if name.strip())
    for name in names:
        if name.partition(":")[0] not in BY or (":" in name and not name.startswith("label:")):
            raise ValueError(f"by {name}: expected some of {', '.join(BY)}, or label:NAME")
    if month is not None and (since or until):
        raise ValueError("a month says both ends: leave out since and until")
    try:
        if month is not None:
            begin, end = _month(month, zone)
        else:
            begin, end = beginning(since or "30d", now, zone), ending(until, now, zone)
    except OverflowError:
        raise ValueError(f"since {since}: no calendar goes so far") from None
    if begin >= end:
        raise ValueError(f"nothing lies between {begin:%Y-%m-%d %H:%M} and {end:%Y-%m-%d %H:%M}")
    return Question(by=names, since=begin, until=end, only=dict(map(_filter, only)))


def zone_of(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        words = f"time zone {name}: there is none of this name; expected one like Europe/Berlin"
        raise ValueError(words) from None


def begin_of(day: datetime.date, zone: ZoneInfo) -> datetime.datetime:
    return datetime.datetime.combine(day, datetime.time(), zone)


def beginning(written: str, now: datetime.datetime, zone: ZoneInfo) -> datetime.datetime:
    """The beginning of a day, or of an hour."""
    if found := re.fullmatch(r"(\d{1,6})([hdw])", written):
        number, unit = int(found[1]), found[2]
        if unit == "h":
            past = now - datetime.timedelta(hours=number)
            return past.replace(minute=0, second=0, microsecond=0)
        return begin_of(now.date() - datetime.timedelta(days=number * (7 if unit == "w" else 1)), zone)
    return _day(written, "since", zone)


def ending(written: str | None, now: datetime.datetime, zone: ZoneInfo) -> datetime.datetime:
    """The beginning of a day; `None`: that of tomorrow."""
    if written is not None:
        return _day(written, "until", zone)
    return begin_of(now.date() + datetime.timedelta(days=1), zone)


def _day(written: str, option: str, zone: ZoneInfo) -> datetime.datetime:
    try:
        return begin_of(datetime.date.fromisoformat(written), zone)
    except ValueError:
        words = f"{option} {written}: expected a day such as 2026-11-01, or 30d or 12h ago"
        raise ValueError(words) from None


def _month(written: str, zone: ZoneInfo) -> tuple[datetime.datetime, datetime.datetime]:
    if not re.fullmatch(r"[1-9]\d{3}-(0[1-9]|1[0-2])", written):
        raise ValueError(f"month {written}: expected one such as 2026-11")
    begin = datetime.date.fromisoformat(f"{written}-01")
    end = (begin + datetime.timedelta(days=32)).replace(day=1)
    return begin_of(begin, zone), begin_of(end, zone)


def _filter(written: str) -> tuple[str, str]:
    name, equals, value = written.partition("=")
    if not equals or name not in FILTERS:
        raise ValueError(f"only {written}: expected NAME=VALUE with one of {', '.join(FILTERS)}")
    return name, value
