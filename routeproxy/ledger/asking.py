"""Asks the ledger that a policy names."""

from collections.abc import Mapping

from msgspec.structs import replace

from routeproxy.ledger.opening import ValueOf, open_store
from routeproxy.ledger.reprice import Repriced, repriced
from routeproxy.ledger.store import LedgerUnavailable, Store
from routeproxy.ledger.usage import Question, Usage, usage_of
from routeproxy.ledger.users import known_name
from routeproxy.policy.decide import Policy
from routeproxy.policy.ledger import LedgerSettings
from routeproxy.policy.providers import Provider


def ledger_of(policy: Policy) -> LedgerSettings:
    """Raises `ValueError` where there is none."""
    if policy.ledger is None:
        raise ValueError(f"{policy.source} has no `[ledger]`, so nothing was written down")
    return policy.ledger


async def opened(
    policy: Policy, value_of: ValueOf, *, read_only: bool = True, seconds: float | None = None
) -> Store:
    """Raises `ValueError` where there is no ledger, or it can't be used. `seconds`: how long a question may
    take."""
    try:
        return await open_store(ledger_of(policy), value_of, read_only=read_only, seconds=seconds)
    except LedgerUnavailable as unavailable:
        raise ValueError(f"the ledger can't be used: {unavailable}") from None


async def reprice(
    policy: Policy, question: Question, providers: Mapping[str, Provider], value_of: ValueOf
) -> dict[tuple[str, ...], Repriced]:
    """What it would have cost at the prices of other `providers`. Raises `ValueError`."""
    store = await opened(policy, value_of)
    try:
        return await repriced(store, question, providers)
    except LedgerUnavailable as unavailable:
        raise ValueError(f"the ledger can't be read: {unavailable}") from None
    finally:
        await store.aclose()


async def ask_ledger(
    policy: Policy, question: Question, value_of: ValueOf, seconds: float | None = None
) -> Usage:
    """A user may be asked for by the name of which the ledger only knows a hash. Raises `ValueError`."""
    only = question.only
    if "user" in only:
        only = {**only, "user": known_name(only["user"], ledger_of(policy), value_of)}
    store = await opened(policy, value_of, seconds=seconds)
    try:
        return await usage_of(store, replace(question, only=only))
    except LedgerUnavailable as unavailable:
        raise ValueError(f"the ledger can't be read: {unavailable}") from None
    finally:
        await store.aclose()
