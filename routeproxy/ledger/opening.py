"""Which database a ledger is in, by its settings."""

from collections.abc import Callable
from pathlib import Path

from routeproxy.ledger.places import place_problem
from routeproxy.ledger.store import LedgerUnavailable, Store
from routeproxy.policy.ledger import LedgerSettings
from routeproxy.policy.secrets import Secret

ValueOf = Callable[[Secret], str | None]
"""What a secret is at the moment; `None`: it is not set."""


async def open_store(
    settings: LedgerSettings, value_of: ValueOf, *, read_only: bool = False, seconds: float | None = None
) -> Store:
    """Raises `LedgerUnavailable`. `read_only`: nothing is made, and nothing is written. `seconds`: how long a
    question may take."""
    if settings.path is not None:
        from routeproxy.ledger.sqlite import SqliteStore  # a server without a ledger has no use for it

        return SqliteStore(
            Path(settings.path), is_synchronous=settings.is_synchronous, read_only=read_only, seconds=seconds
        )
    assert settings.url is not None
    url = value_of(settings.url)
    if url is None:
        raise LedgerUnavailable(f"its address is not known: {settings.url.reference} is not set")
    try:
        from routeproxy.ledger.postgres import PostgresStore
    except ImportError:
        raise LedgerUnavailable("PostgreSQL needs asyncpg: `pip install 'routeproxy[postgres]'`") from None
    return await PostgresStore.opened(url, migrate=settings.migrate and not read_only, seconds=seconds)


def settings_problem(settings: LedgerSettings) -> str | None:
    """Why there can be no ledger at all; `None`: there can."""
    return place_problem(Path(settings.path)) if settings.path is not None else None
