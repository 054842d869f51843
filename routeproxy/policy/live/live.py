"""The policy in force, and the watch on what it comes from: read, compile, prove, test, build, then one
reference changes. Whatever goes wrong, the policy that is in force stays, and the problem is kept where an
operator looks. Which version is in force is said by a pointer, which all workers follow."""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

from msgspec import Struct
from watchfiles import awatch

from routeproxy.file_stamps import FileStamp, stamp_of
from routeproxy.policy.decide import Policy
from routeproxy.policy.live.versions import Bundle, NoSuchVersion, Pointer, Versions
from routeproxy.policy.problems import RulesRefused

log = logging.getLogger("routeproxy.policy.live")

LOOK_EVERY = 0.5
"""Seconds. The system tells of most changes at once, but not of those on network and Docker mounts, in
folders that come and go, or at the far end of a symlink."""
SETTLE = 0.1
"""Seconds that a file must stay as it is before it is read: an editor may still be writing."""


class Loaded(Struct, frozen=True):
    policy: Policy
    bundle: Bundle
    looked_at: tuple[Path, ...] = ()
    """Files and folders, besides those that are always read."""


class ReloadListener(Protocol):
    """Hears what became of each reload, once it is over."""

    def reload_succeeded(self, before: Policy, after: Policy) -> None:
        """`after` is in force. Both may be of one version: other things than the rules may have changed."""

    def reload_failed(self, in_force: Policy, problem: str) -> None:
        """What is on disk was not taken; `problem` says why, for an operator."""


class LiveRules:
    """`load` reads everything anew and raises `RulesRefused` (or `OSError`); `restore` compiles a version
    that was kept; `files` are what is always read, there or not."""

    def __init__(
        self,
        load: Callable[[], Loaded],
        restore: Callable[[Bundle], Policy],
        files: Iterable[Path],
        versions: Versions,
    ) -> None:
        """Raises what `load` raises, unless a version that was in force before can be taken instead."""
        self._load = load
        self._restore = restore
        self._always = tuple(dict.fromkeys(files))
        self._files = self._always
        self._versions = versions
        self.problem: str | None = None
        """Why what is on disk is not in force; None when it is."""
        self.on_change: list[Callable[[Policy], None]] = []
        """Called with what was loaded, in the same step as it takes effect. Other things than the policy may
        have changed with it."""
        self.listeners: list[ReloadListener] = []
        self.number = 0
        """Of the pointer that was followed last."""
        self.guard: Callable[[Policy], None] = lambda policy: None
        """Raises `ValueError` for a policy that must not take effect where it is served."""
        self._one_at_a_time = asyncio.Lock()
        self._stamps = self._look()
        self._contents = self._read()
        self.policy = self._first()

    # --- the beginning

    def _first(self) -> Policy:
        pointer = self._versions.pointer()
        try:
            loaded = self._load()
        except (RulesRefused, OSError, ValueError) as refused:
            if pointer is None:
                raise
            policy = self._kept(pointer.version)
            self._watch_also(refused)
            self.problem = _in_words(refused)
            log.error(
                "%s\n%s",
                f"version {policy.version}, the last good one, is in force instead of:",
                self.problem,
            )
            self.number = pointer.number
            return policy
        self._watch(loaded.looked_at)
        if pointer is not None and pointer.held == self._digest():
            self.number = pointer.number
            self.problem = _held(pointer)
            return self._kept(pointer.version)
        self._record(loaded)
        return loaded.policy

    def _record(self, loaded: Loaded) -> None:
        try:
            self._versions.keep(loaded.bundle)
            self.number = self._versions.point(loaded.policy.version).number
        except OSError as error:
            # A full disk must not keep a good policy from taking effect: the other workers read it too.
            log.error("the version %s can't be kept for a rollback: %s", loaded.policy.version, error)

    def _kept(self, version: str) -> Policy:
        return self._restore(self._versions.bundle(version))

    # --- the watch

    async def follow(self) -> None:
        """Reloads upon every change, for ever."""
        while True:
            # The files themselves: their folder may hold a log, and each of its lines would wake us. What is
            # not there yet is looked for every now and then.
            watched = self._files
            paths = {self._versions.folder, *watched, *(file.resolve() for file in watched)}
            changes = awatch(
                *filter(Path.exists, paths),
                watch_filter=None,
                recursive=False,
                debounce=200,
                rust_timeout=int(LOOK_EVERY * 1000),
                yield_on_timeout=True,
            )
            try:
                async with aclosing(changes):
                    async for changed in changes:
                        await self._look_closer()
                        if changed or self._files != watched:
                            break  # editors save by renaming over a file, and others may matter now
            except OSError as error:  # something went away, and may come back
                log.debug("watching anew: %s", error)
                await asyncio.sleep(LOOK_EVERY)
                await self._look_closer()

    async def _look_closer(self) -> None:
        await self._follow_pointer()
        if self._look() == self._stamps:
            return
        self._stamps = await self._settled()
        if self._read() != self._contents:  # else it was saved as it was
            await self.reload(edited=True)

    async def _follow_pointer(self) -> None:
        """Another worker may have put another version in force."""
        pointer = self._versions.pointer()
        if pointer is None or pointer.number == self.number:
            return
        async with self._one_at_a_time:
            if pointer.version != self.policy.version:
                try:
                    policy = await asyncio.to_thread(self._kept, pointer.version)
                    self.guard(policy)
                except Exception as refused:
                    self._keep(refused)
                    return
                self._take(policy, problem=_held(pointer))
            elif pointer.held is not None:
                self.problem = _held(pointer)
            self.number = pointer.number

    # --- changes

    async def reload(self, *, edited: bool = False) -> bool:
        """Whether what is on disk is now in force. After a rollback an edit has to change something, while
        whoever asks for a reload wants what is there."""
        async with self._one_at_a_time:
            self._stamps, self._contents = self._look(), self._read()
            pointer = self._versions.pointer()
            if edited and pointer is not None and pointer.held == self._digest():
                self.problem = _held(pointer)
                return False
            try:
                loaded = await asyncio.to_thread(self._load)
                self.guard(loaded.policy)
            except Exception as refused:
                self._watch_also(refused)
                self._keep(refused)
                return False
            self._watch(loaded.looked_at)
            await asyncio.to_thread(self._record, loaded)
            self._take(loaded.policy)
            return True

    async def rollback(self, version: str | None = None) -> Policy:
        """Puts `version` in force, or the one before this; it holds until a good file is saved. Raises
        `NoSuchVersion`, `RulesRefused` or `ValueError`."""
        async with self._one_at_a_time:
            pointer = self._versions.pointer()
            wanted = version or (pointer.before if pointer is not None else None)
            if wanted is None:
                raise NoSuchVersion("no version was in force before this one")
            policy = await asyncio.to_thread(self._kept, wanted)
            self.guard(policy)
            pointer = self._versions.point(policy.version, held=self._digest())
            self.number = pointer.number
            self._take(policy, problem=_held(pointer))
            return policy

    @property
    def history(self) -> tuple[str, ...]:
        """The versions that were in force, the latest last."""
        pointer = self._versions.pointer()
        return pointer.history if pointer is not None else ()

    def _keep(self, refused: Exception) -> None:
        self.problem = _in_words(refused)
        if self.problem.startswith(_BUG):
            log.error("while the rules were read:", exc_info=refused)
        for listener in self.listeners:
            listener.reload_failed(self.policy, self.problem)

    def _take(self, policy: Policy, problem: str | None = None) -> None:
        before, self.policy, self.problem = self.policy, policy, problem
        for notify in self.on_change:
            notify(policy)
        for listener in self.listeners:
            listener.reload_succeeded(before, policy)

    # --- files

    def _watch(self, looked_at: Iterable[Path]) -> None:
        files = tuple(dict.fromkeys((*self._always, *looked_at)))
        if files != self._files:
            self._files = files
            self._stamps, self._contents = self._look(), self._read()

    def _watch_also(self, refused: Exception) -> None:
        """What a refused file includes may be what has to be mended."""
        if isinstance(refused, RulesRefused):
            self._watch((*self._files, *refused.files))

    def _digest(self) -> str:
        """Of the files that rules come from. Variables have no part in a rollback."""
        digest = hashlib.sha256()
        for file, content in zip(self._files, self._contents, strict=True):
            if file.name != ".env" and content is not None:
                digest.update(b"%b\0%d\0%b" % (os.fsencode(file), len(content), content))
        return digest.hexdigest()

    async def _settled(self) -> tuple[FileStamp, ...]:
        stamps = self._look()
        for _ in range(5):
            await asyncio.sleep(SETTLE)
            before, stamps = stamps, self._look()
            if stamps == before:
                break
        return stamps

    def _look(self) -> tuple[FileStamp, ...]:
        return tuple(map(stamp_of, self._files))

    def _read(self) -> tuple[bytes | None, ...]:
        return tuple(map(_content, self._files))


def _content(file: Path) -> bytes | None:
    try:
        if file.is_dir():  # of a folder its names count
            return b"\0".join(sorted(os.fsencode(entry.name) for entry in file.iterdir()))
        return file.read_bytes()
    except OSError:
        return None


_BUG = "a bug in routeproxy: "


def _in_words(refused: Exception) -> str:
    match refused:
        case OSError(filename=str() | Path() as name, strerror=str() as why):
            return f"{name}: {why}"
        case RulesRefused() | OSError() | ValueError() | NoSuchVersion():  # not UTF-8, for one
            return str(refused)
    return f"{_BUG}{refused!r}"


def _held(pointer: Pointer) -> str | None:
    if pointer.held is None:
        return None
    return f"version {pointer.version} was put back and holds until a good file is saved"
