"""When to look for changes: as soon as the system tells of one, and every now and then, whether or not it
does."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from pathlib import Path

from watchfiles import Change, awatch

log = logging.getLogger("routeproxy.policy.live")

LOOK_EVERY = 0.5
"""Seconds. The system tells of most changes at once, but not of those on network and Docker mounts, in
folders that come and go, or at the far end of a symlink."""

ASK_AGAIN = 10.0
"""Seconds until a system that would tell nothing is asked once more."""


class Notices:
    """The system's notices of changes. Without any (it has no more of what it needs for them, a folder can't
    be read) time alone says when to look."""

    def __init__(self) -> None:
        self._paths: frozenset[Path] = frozenset()
        self._changes: AsyncGenerator[set[tuple[Change, str]], None] | None = None
        self._not_before = 0.0
        self._problem: str | None = None

    async def wait(self, paths: Iterable[Path]) -> None:
        """Returns when something may have changed about `paths`, and after `LOOK_EVERY` seconds at most."""
        now = asyncio.get_running_loop().time()
        if self._changes is None and now < self._not_before:
            await asyncio.sleep(LOOK_EVERY)
            return
        try:
            changes = await self._watch(frozenset(paths))
            if await anext(changes):
                await self.close()  # editors save by renaming over a file, so it may be another by now
            self._problem = None
        except Exception as error:  # watchfiles has no list of what it raises
            await self.close()
            self._not_before = now + ASK_AGAIN
            if str(error) != self._problem:
                self._problem = str(error)
                log.warning(
                    "the system does not tell of changes (%s): files are compared every %s s",
                    self._problem,
                    LOOK_EVERY,
                )
            await asyncio.sleep(LOOK_EVERY)

    async def _watch(self, paths: frozenset[Path]) -> AsyncGenerator[set[tuple[Change, str]], None]:
        if paths != self._paths:
            await self.close()
            self._paths = paths
        if self._changes is None:
            # The files themselves: their folder may hold a log, and each of its lines would wake us.
            self._changes = awatch(
                *await asyncio.to_thread(_with_far_ends, paths),
                watch_filter=None,
                recursive=False,
                debounce=200,
                rust_timeout=int(LOOK_EVERY * 1000),
                yield_on_timeout=True,
            )
        return self._changes

    async def close(self) -> None:
        if self._changes is not None:
            changes, self._changes = self._changes, None
            with suppress(Exception):
                await changes.aclose()


def _with_far_ends(paths: Iterable[Path]) -> list[Path]:
    """Those that are there, and what they lead to."""
    found: set[Path] = set()
    for path in paths:
        with suppress(OSError, RuntimeError):  # Python before 3.13 raises the second for a link to itself
            found |= {path, path.resolve(strict=True)}
    return sorted(path for path in found if _exists(path))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
