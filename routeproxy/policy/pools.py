"""Pools: several targets that share the requests of one place in a rule. Which of them a request goes to is
chosen after it was decided (`upstream.spread`); all of them are reachable."""

from typing import Literal

from msgspec import Struct

By = Literal["session", "load"]
"""Who goes together: the requests of one session, or each where it is least busy."""

MOST_WEIGHT = 1_000_000

STICKY = 300.0
"""Seconds for which a session that had to move stays where it is."""


class Pool(Struct, frozen=True, kw_only=True):
    name: str
    by: By = "session"
    sticky: float = STICKY
    """Seconds."""


class Member(Struct, frozen=True, kw_only=True):
    """What a target is to its pool."""

    pool: Pool
    name: str
    """As it is written: `azure_eu/gpt-5`, `azure_eu/*`."""
    weight: float = 1.0
    """Its share of the sessions, in proportion to the other members'."""
    max_concurrent: int | None = None
    """How many requests it has at once at most, over all workers of a server."""

    def __str__(self) -> str:
        limit = f", {self.max_concurrent} at once" if self.max_concurrent is not None else ""
        return f"pool {self.pool.name}, weight {self.weight:g}{limit}"


def weight_problem(weight: float) -> str | None:
    """Why it can't be the weight of a member or a team; `None`: it can."""
    if 0 < weight <= MOST_WEIGHT:
        return None
    return f"`weight` is {weight}: a share is above 0 and at most {MOST_WEIGHT:,}"
