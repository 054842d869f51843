"""The policy in force, and the watch on what it comes from: read, compile, build, then one reference changes.
Whatever goes wrong, the policy that is in force stays, and the problem is kept where an operator looks."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from watchfiles import awatch

from routeproxy.policy.decide import Policy
from routeproxy.policy.problems import RulesRefused

log = logging.getLogger(__name__)

LOOK_EVERY = 0.5
"""Seconds. The system tells of most changes at once, but not of those on network and Docker mounts, in
folders that come and go, or at the far end of a symlink."""
SETTLE = 0.1
"""Seconds that a file must stay as it is before it is read: an editor may still be writing."""

Stamp = tuple[int, ...] | None


class LiveRules:
    """`load` reads everything anew and raises `RulesRefused` (or `OSError`); `files` are what it reads, there
    or not."""

    def __init__(
        self, load: Callable[[], Policy], files: Iterable[Path], policy: Policy | None = None
    ) -> None:
        """`policy` is what was loaded a moment ago, if it was."""
        self._load = load
        self._files = tuple(dict.fromkeys(files))
        self._stamps = self._look()
        self._contents = self._read()
        self.policy = policy or load()
        self.problem: str | None = None
        """Why what is on disk is not in force; None when it is."""
        self.on_change: list[Callable[[Policy], None]] = []
        """Called with what was loaded, in the same step as it takes effect. Other things than the policy may
        have changed with it."""
        self._one_at_a_time = asyncio.Lock()

    async def follow(self) -> None:
        """Reloads upon every change, for ever."""
        while True:
            # Editors save by renaming over the file, which ends a watch on the file itself: watch its folder.
            folders = {folder for file in self._files for folder in (file.parent, file.resolve().parent)}
            changes = awatch(
                *(folder for folder in folders if folder.is_dir()),
                watch_filter=None,
                recursive=False,
                debounce=200,
                rust_timeout=int(LOOK_EVERY * 1000),
                yield_on_timeout=True,
            )
            try:
                async for _ in changes:
                    await self._look_closer()
            except OSError as error:  # a folder went away, and may come back
                log.debug("watching anew: %s", error)
                await asyncio.sleep(LOOK_EVERY)

    async def _look_closer(self) -> None:
        if self._look() == self._stamps:
            return
        self._stamps = await self._settled()
        if self._read() != self._contents:  # else it was saved as it was
            await self.reload()

    async def reload(self) -> bool:
        """Whether what is on disk is now in force."""
        async with self._one_at_a_time:
            self._stamps, self._contents = self._look(), self._read()
            try:
                policy = await asyncio.to_thread(self._load)
            except Exception as refused:
                self._keep(refused)
                return False
            self._take(policy)
            return True

    def _keep(self, refused: Exception) -> None:
        match refused:
            case RulesRefused():
                self.problem = str(refused)
            case OSError(filename=str() | Path() as name, strerror=str() as why):
                self.problem = f"{name}: {why}"
            case OSError() | ValueError():  # not UTF-8, for one
                self.problem = str(refused)
            case _:
                self.problem = f"a bug in routeproxy: {refused!r}"
                log.error("while the rules were read:", exc_info=refused)
        log.error(
            "the rules were not reloaded, version %s stays in force:\n%s", self.policy.version, self.problem
        )

    def _take(self, policy: Policy) -> None:
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

    async def _settled(self) -> tuple[Stamp, ...]:
        stamps = self._look()
        for _ in range(5):
            await asyncio.sleep(SETTLE)
            before, stamps = stamps, self._look()
            if stamps == before:
                break
        return stamps

    def _look(self) -> tuple[Stamp, ...]:
        return tuple(map(_stamp, self._files))

    def _read(self) -> tuple[bytes | None, ...]:
        return tuple(map(_content, self._files))


def _stamp(file: Path) -> Stamp:
    try:
        # Through symlinks. The change time is there for copies that keep the modification time of another
        # file.
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _say_what_needs_a_restart(before: Policy, after: Policy) -> None:
    for name in ("host", "port", "cors_origins", "signing_key"):
        if getattr(before.server, name) != getattr(after.server, name):
            log.warning("[server] %s changed: it takes effect at the next start", name)
