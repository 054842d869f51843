"""`routeproxy ledger`: what the owner of the ledger does to it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from routeproxy.cli.options import LiteralKeysOption, new_app
from routeproxy.cli.running import run_and_exit, sources_of
from routeproxy.cli.usage import RulesFileOption
from routeproxy.ledger.asking import ledger_of, opened
from routeproxy.ledger.store import LedgerUnavailable, Store
from routeproxy.ledger.users import known_name
from routeproxy.ledger.writer import boundaries
from routeproxy.policy.decide import Policy
from routeproxy.policy.ledger import LedgerSettings
from routeproxy.sources import find_rules
from routeproxy.upstream.keys import SecretFiles

app = new_app(no_args_is_help=True)


@app.callback()
def _ledger() -> None:
    """What the owner of the ledger does to it."""


@app.command(short_help="Bring the ledger's tables up to date.")
def migrate(
    grant: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE", help="Let this role of PostgreSQL write the ledger.", show_default=False
        ),
    ] = None,
    rules: RulesFileOption = None,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Bring the ledger's tables up to date, and make those of the next months.

    Servers of the version before go on meanwhile. Exit code 2: it can't be done.
    """

    async def run(policy: Policy) -> None:
        settings = ledger_of(policy)
        if settings.path is not None:
            await (await opened(policy, SecretFiles().value, read_only=False)).aclose()
            print(f"{settings.path} is up to date")
            return
        from routeproxy.ledger.postgres import PostgresStore

        assert settings.url is not None
        store = await PostgresStore.opened(_value(settings), migrate=True)
        try:
            print(f"the tables are of version {await store.migrate()}")
            if grant is not None:
                await store.grant(grant)
                print(f"{grant} may insert and read rows, and add to sums")
        finally:
            await store.aclose()

    _run(run, rules, allow_literal_keys=allow_literal_keys)


@app.command(short_help="Delete what is older than `retention`.")
def prune(rules: RulesFileOption = None, allow_literal_keys: LiteralKeysOption = False) -> None:
    """Delete rows and sums that are older than `[ledger]` says. Servers with a SQLite file do so by
    themselves."""

    async def run(policy: Policy) -> None:
        settings = ledger_of(policy)
        pruned = await _with_store(
            policy, lambda store: store.prune(*boundaries(settings, time.time_ns() // 1000))
        )
        what = "rows" if settings.path is not None else "months of a table"
        print(f"{pruned:,} {what} deleted")

    _run(run, rules, allow_literal_keys=allow_literal_keys)


@app.command(short_help="Take a user out of the ledger.")
def forget(
    user: Annotated[str, typer.Argument(metavar="USER", help="As the key or the client names them.")],
    rules: RulesFileOption = None,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Take a user out of the ledger: their rows name nobody from now on, nor a session. What was used
    stays. Rows that wait in the spool of a server come later: ask once more then."""

    async def run(policy: Policy) -> None:
        known_as = known_name(user, ledger_of(policy), SecretFiles().value)
        count = await _with_store(policy, lambda store: store.forget(known_as))
        print(f"{count:,} rows name nobody any more")

    _run(run, rules, allow_literal_keys=allow_literal_keys)


def _value(settings: LedgerSettings) -> str:
    assert settings.url is not None
    url = SecretFiles().value(settings.url)
    if url is None:
        raise ValueError(f"the address of the ledger is not known: {settings.url.reference} is not set")
    return url


async def _with_store(policy: Policy, work: Callable[[Store], Awaitable[int]]) -> int:
    store = await opened(policy, SecretFiles().value, read_only=False)
    try:
        return await work(store)
    finally:
        await store.aclose()


def _run(work: Callable[[Policy], Awaitable[None]], rules: Path | None, *, allow_literal_keys: bool) -> None:
    def run() -> int:
        policy = sources_of(find_rules(rules), allow_literal_keys=allow_literal_keys).load()
        try:
            asyncio.run(work(policy))  # type: ignore[arg-type]
        except LedgerUnavailable as unavailable:
            raise ValueError(f"the ledger can't be used: {unavailable}") from None
        return 0

    run_and_exit(run)
