"""Writes the ledger beside the answers: what a second brought is spooled, and a thread takes it from there to
the database, which may be slow, full or gone.

What a process was given is on disk within a second, and in the database once that takes it: a process that is
killed loses the second, and the next one sees to what it has spooled.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from routeproxy.ledger.pipeline import Recorded
from routeproxy.ledger.rows import Batch, OpenRow, RequestRow, without_surrogates
from routeproxy.ledger.spool import Spool, SpooledBatch, SpoolFull
from routeproxy.ledger.store import BatchRefused, LedgerUnavailable, Store
from routeproxy.ledger.users import pseudonym_of
from routeproxy.policy.ledger import DAY, LedgerSettings

log = logging.getLogger("routeproxy.ledger")

TRY_AGAIN = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds after the first failures of the database; after more, the last."""
LOOK_FOR_ORPHANS = 10.0
"""Seconds between looks for what other processes have left."""
PRUNE_EVERY = 3600.0
PRUNE_FIRST = 60.0
"""Seconds after the start: a server that is restarted every day prunes, too."""
EXIT_SECONDS = 5.0
"""How long an exit waits for what is spooled to be written. It stays in the spool."""


class LedgerWriter:
    def __init__(
        self,
        settings: LedgerSettings,
        open_store: Callable[[], Awaitable[Store]],
        pseudonym_key: bytes | None = None,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """`open_store`: raises `LedgerUnavailable`. `pseudonym_key`: `None` where users are not hashed.
        `now`: microseconds since 1970."""
        self._settings = settings
        self._open_store = open_store
        self._pseudonym_key = pseudonym_key
        self._now = now
        self.opened_rows: Callable[[], list[OpenRow]] = list
        """Those of requests that are under way since a while, and were not asked for before."""
        self._spool = Spool(
            Path(settings.spool), settings.spool_mb * 2**20, is_synchronous=settings.is_synchronous
        )
        self._to_write: deque[SpooledBatch] = deque()
        self._has_work = threading.Event()
        self._closed_at: float | None = None
        self._problem: str | None = None
        self._spool_problem: str | None = None
        self.dropped = 0
        """Rows that are in no database and will never be."""
        self._thread = threading.Thread(target=self._write_all, name="ledger", daemon=True)

    @property
    def spooled_bytes(self) -> int:
        return self._spool.size

    @property
    def problem(self) -> str | None:
        """Why the database does not take anything now; `None`: it does."""
        return self._problem

    def start(self) -> None:
        """An earlier process may have left something to write."""
        self._thread.start()

    def close(self) -> None:
        """What was put is in the spool; it is written if the database takes it in time."""
        self._closed_at = time.monotonic()
        self._has_work.set()
        if self._thread.is_alive():
            self._thread.join(EXIT_SECONDS)
        self._spool.close()
        if self._to_write:
            count = len(self._to_write)
            batches = f"{count:,} batches" if count > 1 else "a batch"
            log.warning("%s of rows of the ledger: they wait in %s", batches, self._settings.spool)

    # --- in the pipeline's thread

    def put(self, recorded: Sequence[Recorded]) -> None:
        """Spools what is over, and what has newly been under way for a while."""
        batch = Batch(
            requests=[self._of_the_ledger(each.row) for each in recorded], opened=self.opened_rows()
        )
        if not batch.rows:
            return
        try:
            try:
                spooled = self._spool.add(batch)
            except UnicodeEncodeError:  # half an emoji, in what a client calls its user or its session
                spooled = self._spool.add(without_surrogates(batch))
        except SpoolFull as full:
            self._drop(batch, f"the spool {self._settings.spool} is full: {full}")
            return
        except OSError as error:
            if self._problem is not None:
                self._drop(batch, f"{self._settings.spool} can't be written: {error.strerror}")
                return
            spooled = SpooledBatch(None, batch, 0)
        if self._spool_problem is not None and spooled.file is not None:
            log.warning("rows of the ledger are spooled again: %s were lost so far", f"{self.dropped:,}")
            self._spool_problem = None
        if self._problem is not None:
            spooled.forget()
        self._to_write.append(spooled)
        self._has_work.set()

    def _drop(self, batch: Batch, why: str) -> None:
        self.dropped += batch.rows
        if self._spool_problem is None:
            log.error("rows of the ledger are lost: %s; and the database takes none: %s", why, self._problem)
        self._spool_problem = why

    def _of_the_ledger(self, row: RequestRow) -> RequestRow:
        """As it is written: with the user as the ledger may know it."""
        row.user = self._known_as(row.user)
        if row.user is None:
            row.user_source = None
        return row

    def _known_as(self, user: str | None) -> str | None:
        match self._settings.users:
            case "plain":
                return user
            case "pseudonym" if user is not None and self._pseudonym_key is not None:
                return pseudonym_of(user, self._pseudonym_key)
        return None

    # --- the thread that writes

    def _write_all(self) -> None:
        try:
            asyncio.run(self._write_until_closed())
        except Exception:
            log.exception("the ledger is written no more: this is a bug in routeproxy")

    async def _write_until_closed(self) -> None:
        store: Store | None = None
        failures, looked = 0, -LOOK_FOR_ORPHANS
        pruned = time.monotonic() - PRUNE_EVERY + PRUNE_FIRST
        try:
            while True:
                try:
                    store = store or await self._open_store()
                    await self._write_waiting(store)
                    if time.monotonic() >= looked + LOOK_FOR_ORPHANS and self._closed_at is None:
                        looked = time.monotonic()
                        await self._write_orphans(store)
                    if time.monotonic() >= pruned + PRUNE_EVERY and self._closed_at is None:
                        pruned = time.monotonic()
                        await self._prune(store)
                    self._note_success()
                    failures = 0
                except LedgerUnavailable as unavailable:
                    self._note_problem(str(unavailable))
                    if store is not None:
                        await store.aclose()
                        store = None
                    if self._closed_at is not None:
                        return
                    pause = TRY_AGAIN[min(failures, len(TRY_AGAIN) - 1)]
                    failures += 1
                    await self._pause(pause)
                    continue
                if self._closed_at is not None and not self._to_write:
                    return
                self._has_work.wait(LOOK_FOR_ORPHANS)  # nothing else is on this loop
                self._has_work.clear()
        finally:
            if store is not None:
                await store.aclose()

    async def _pause(self, seconds: float) -> None:
        """Unless it is time to go."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._closed_at is None:
            await asyncio.sleep(0.05)

    async def _write_waiting(self, store: Store) -> None:
        while self._to_write:
            spooled = self._to_write[0]
            is_readable = await self._write(store, spooled)
            self._to_write.popleft()
            self._spool.done(spooled) if is_readable else self._spool.set_aside(spooled)

    async def _write_orphans(self, store: Store) -> None:
        for orphans in self._spool.orphans():
            try:
                count = 0
                for spooled in orphans.batches():
                    if await self._write(store, spooled):
                        spooled.delete()
                        count += 1
                    else:
                        spooled.set_aside()
                if count:
                    log.info("%d batches of rows that another process has spooled are in the ledger", count)
            finally:
                orphans.close()

    async def _write(self, store: Store, spooled: SpooledBatch) -> bool:
        """Whether it could be read, or is gone. Raises `LedgerUnavailable`."""
        try:
            batch = spooled.read()
        except FileNotFoundError:
            log.error("rows of the ledger are lost: somebody has deleted %s", spooled.file)
        except (OSError, ValueError) as error:
            log.error("rows of the ledger can't be read, and are set aside: %s", error)
            return False
        else:
            try:
                await store.write(batch, self._now())
            except BatchRefused as refused:
                self.dropped += batch.rows
                log.error("%d rows of the ledger are set aside: %s", batch.rows, refused)
                return False
        return True

    async def _prune(self, store: Store) -> None:
        if self._settings.path is None and not self._settings.migrate:
            return  # it takes the owner of the tables
        if pruned := await store.prune(*boundaries(self._settings, self._now())):
            log.info("the ledger let go what is older than `retention`: %s", f"{pruned:,}")

    def _note_problem(self, problem: str) -> None:
        if self._problem is None:
            log.error("the ledger can't be written, so rows wait in %s: %s", self._settings.spool, problem)
            for spooled in tuple(self._to_write):
                spooled.forget()
        self._problem = problem

    def _note_success(self) -> None:
        if self._problem is not None:
            log.warning("the ledger is written again; %s rows were lost", f"{self.dropped:,}")
        self._problem = None


def boundaries(settings: LedgerSettings, now: int) -> tuple[int, int]:
    """What may go now, in microseconds: rows that began before, in microseconds, and sums, in seconds."""
    rows_before = now - int(settings.retention * 10**6)
    return rows_before, int((now / 10**6 - settings.rollup_retention) // DAY * DAY)
