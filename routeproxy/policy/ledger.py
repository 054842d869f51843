"""Where the books of requests are kept, and for how long. Nothing here decides a request."""

from typing import Literal

from msgspec import Struct

from routeproxy.policy.secrets import Secret

DAY = 86_400.0

Users = Literal["pseudonym", "plain", "none"]
"""How the ledger knows users: by a keyed hash of their names, by their names, or not at all."""


class LedgerSettings(Struct, frozen=True, kw_only=True):
    """`[ledger]`. Times are in seconds."""

    path: str | None = None
    """A SQLite file."""
    url: Secret | None = None
    """Where the address of a PostgreSQL database stands."""
    retention: float = 90 * DAY
    rollup_retention: float = 3 * 365 * DAY
    spool: str
    """The folder in which rows wait that the database does not take."""
    spool_mb: int = 256
    users: Users = "pseudonym"
    pseudonym_key: Secret | None = None
    migrate: bool = False
    """Whether servers bring the tables of PostgreSQL up to date by themselves."""
    record_headers: frozenset[str] = frozenset()
    """Those that rows keep besides those that rules look at, in lower case."""
    is_synchronous: bool = False
    """Whether what is written survives the loss of power."""
