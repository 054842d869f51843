"""Rows of the ledger, in short, and rows made up at random."""

import datetime
import random
from collections.abc import Iterator
from typing import Any

from routeproxy.ledger.rows import AttemptRow, RequestRow

MICRO = 10**6


def at(text: str) -> int:
    """`2026-11-30T12:00` in UTC, in microseconds."""
    return int(datetime.datetime.fromisoformat(f"{text}+00:00").timestamp() * MICRO)


NOON = at("2026-11-30T12:00")


def attempt(number: int = 1, **fields: Any) -> AttemptRow:
    usual: dict[str, Any] = {
        "provider": "openai", "model": "gpt-5", "at": NOON, "duration": 1000, "usage_source": "reported",
        "input_uncached": 100, "cache_read": 50, "output": 10, "cost_nanousd": 7, "price_source": "rules",
    }  # fmt: skip
    return AttemptRow(number=number, **(usual | fields))


def request(id: int | str, *attempts: AttemptRow, **fields: Any) -> RequestRow:
    usual: dict[str, Any] = {
        "at": NOON, "path": "/v1/messages", "version": "v1", "team": "search", "rule": "default",
        "status": 200,
    }  # fmt: skip
    name = id if isinstance(id, str) else f"{id:032x}"
    return RequestRow(id=name, attempts=attempts, **(usual | fields))


def sample() -> Iterator[RequestRow]:
    """Three days of two teams: what the documentation shows."""
    number = 0
    for day in (28, 29, 30):
        for team, center, model, cost in (
            ("search", "4711", "gpt-5", 41_500_000),
            ("search", "4711", "gpt-5-mini", 3_000_000),
            ("payments", "0815", "llama-3.3-70b", None),
        ):
            for index in range(day - 25):
                number += 1
                began = at(f"2026-11-{day}T{9 + index:02d}:00")
                source = "partial" if index == 3 else "reported"
                took = attempt(
                    provider="corp" if cost is None else "openai", model=model, at=began, usage_source=source,
                    input_uncached=2000, cache_read=18_000, output=700, cost_nanousd=cost,
                    price_source="unknown" if cost is None else "rules",
                )  # fmt: skip
                yield request(
                    number, took, at=began, team=team, labels={"cost_center": center},
                    user=f"user-{index % 2}", rule="background work" if cost is None else "default",
                    facts={"model": "claude-haiku-4-5" if cost is None else "claude-sonnet-5", "team": team},
                    session=f"session-{number % 5}",
                )  # fmt: skip


def made_up(seed: int, number: int, days: float = 40) -> Iterator[RequestRow]:
    """As traffic has them: failures, several attempts, unknown prices, teams, users and sessions."""
    dice = random.Random(seed)
    for index in range(number):
        began = NOON - int(dice.random() * days * 86_400 * MICRO)
        attempts = []
        for place in range(dice.choice((0, 1, 1, 1, 2, 3))):
            source = dice.choice(("reported", "reported", "partial", "estimated", "none"))
            price = dice.choice(("rules", "table", "provider", "unknown")) if source != "none" else ""
            counts: dict[str, Any] = {"input_uncached": None, "cache_read": None, "output": None}
            if source != "none":
                counts = {name: dice.choice((None, dice.randrange(10**6))) for name in counts}
            attempts.append(
                attempt(
                    place + 1,
                    provider=dice.choice(("openai", "azure")),
                    model=dice.choice(("gpt-5", "o9")),
                    at=began + place * MICRO,
                    usage_source=source,
                    price_source=price,
                    cost_nanousd=dice.randrange(10**9) if price not in ("", "unknown") else None,
                    failure=dice.choice((None, None, "server_error")),
                    cache_write_5m=dice.choice((None, 12)) if source != "none" else None,
                    **counts,
                )
            )
        yield request(
            f"{seed:08x}{index:024x}",
            *attempts,
            at=began,
            team=dice.choice((None, "search", "ads")),
            labels=dice.choice(({}, {"cost_center": "4711"}, {"cost_center": "12", "unit": "ä"})),
            key=dice.choice((None, "key 1")),
            rule=dice.choice((None, "default", "eu")),
            user=dice.choice((None, "ann", "bob")),
            user_source="key",
            session=dice.choice((None, "s1", "s2")),
            request_class=dice.choice((None, "main")),
            status=dice.choice((200, 200, 529)),
            client_left=dice.random() < 0.1,
        )
