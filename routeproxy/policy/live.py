"""The policy in force, and the watch on what it comes from: read, compile, build, then one reference changes. Whatever goes wrong, the
policy that is in force stays, and the problem is kept where an operator looks."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from watchfiles import awatch

from routeproxy.policy.decide import Policy
from routeproxy.policy.problems import RulesRefused

log = logging.getLogger(__name__)

SETTLE = 0.05
"""Seconds that a file must stay as it is before it is read: an editor may still be writing."""


class LiveRules:
    """`load` reads everything anew and raises `RulesRefused` (or `OSError`); `files` are what it reads, there or not."""

    def __init__(self, load: Callable[[], Policy], files: Iterable[Path]) -> None:
        self._load = load
        self._files = tuple(files)
        self.policy = load()
        self.problem: str | None = None
        """Why what is on disk is not in force; None when it is."""
        self._seen = self._state()
        self.on_change: list[Callable[[Policy], None]] = []

    async def follow(self) -> None:
        """Reloads upon every change, for ever."""
        while True:
            try:
                async for _ in self._changes():
                    await self._settled()
                    if (state := self._state()) != self._seen:
                        self._seen = state
                        await self.reload()
            except (OSError, RuntimeError) as error:  # a watched folder went away: it may come back
                log.debug("watching again after: %s", error)
            await asyncio.sleep(0.5)

    async def reload(self) -> bool:
        """Whether what is on disk is now in force."""
        self._seen = self._state()
        try:
            policy = await asyncio.to_thread(self._load)
        except (RulesRefused, OSError, UnicodeDecodeError) as refused:
            self.problem = str(refused)
            log.error("the rules were not reloaded, version %s stays in force:\n%s", self.policy.version, refused)
            return False
        before, self.policy, self.problem = self.policy, policy, None
        for problem in policy.warnings:
            log.warning("%s", problem)
        if before.version == policy.version:
            log.info("the rules were read again: nothing changed in version %s", policy.version)
        else:
            log.info("the rules were reloaded: version %s replaces %s", policy.version, before.version)
            _say_what_needs_a_restart(before, policy)
        for notify in self.on_change:
            notify(policy)
        return True

    def _changes(self) -> AsyncIterator[object]:
        # Editors save by renaming over the file, and a ConfigMap swaps a symlink beside it, either of which ends a watch on the file
        # itself: the folders are watched, of the name and of what it points to.
        folders = {file.parent for file in self._files} | {file.resolve().parent for file in self._files}
        there = [folder for folder in folders if folder.is_dir()]
        return awatch(*there, watch_filter=None, recursive=False, debounce=200, step=50)

    def _state(self) -> tuple[object, ...]:
        return tuple(_content(file) for file in self._files)

    async def _settled(self) -> None:
        state = self._state()
        for _ in range(10):
            await asyncio.sleep(SETTLE)
            before, state = state, self._state()
            if state == before:
                return


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _say_what_needs_a_restart(before: Policy, after: Policy) -> None:
    for name in ("host", "port", "cors_origins", "max_body_mb"):
        if getattr(before.server, name) != getattr(after.server, name):
            log.warning("[server] %s changed: it takes effect at the next start", name)
