"""The policy in force, and the watch on what it comes from: read, compile, prove, test, build, then one
reference changes. Whatever goes wrong, the policy that is in force stays, and the problem is kept where an
operator looks. A pointer says which version is in force, and all workers follow it."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

from msgspec import Struct
from watchfiles import awatch

from routeproxy.policy.decide import Policy
from routeproxy.policy.live.files import WatchedFiles
from routeproxy.policy.live.versions import Bundle, NoSuchVersion, Pointer, Versions
from routeproxy.policy.problems import RulesRefused

log = logging.getLogger("routeproxy.policy.live")

LOOK_EVERY = 0.5
"""Seconds. The system tells of most changes at once, but not of those on network and Docker mounts, in
folders that come and go, or at the far end of a symlink."""


class Loaded(Struct, frozen=True):
    """A policy that was read anew, and what it was read from."""

    policy: Policy
    bundle: Bundle
    looked_at: tuple[Path, ...] = ()
    """The files and folders that were looked at besides those that are always read."""


class ReloadListener(Protocol):
    """Hears what became of each reload, once it is over."""

    def reload_succeeded(self, before: Policy, after: Policy) -> None:
        """`after` is in force. Both may be of one version: other things than the rules may have changed."""

    def reload_failed(self, in_force: Policy, problem: str) -> None:
        """What is on disk was not taken; `problem` says why, for an operator."""


class LiveRules:
    """The policy in force. `policy` is replaced as a whole, in one step."""

    def __init__(
        self,
        load: Callable[[], Loaded],
        restore: Callable[[Bundle], Policy],
        files: Iterable[Path],
        versions: Versions,
    ) -> None:
        """`load` reads everything anew and raises `RulesRefused` (or `OSError`); `restore` compiles a version
        that was kept; `files` are always read, there or not. Raises what `load` raises, unless a version that
        was in force before can be taken instead."""
        self._load = load
        self._restore = restore
        self._files = WatchedFiles(files)
        self._versions = versions
        self.problem: str | None = None
        """Why what is on disk is not in force; `None` when it is."""
        self.on_change: list[Callable[[Policy], None]] = []
        """Called with what was loaded, in the same step as it takes effect. Other things than the policy may
        have changed with it."""
        self.listeners: list[ReloadListener] = []
        self.number = 0
        """That of the pointer that was followed last."""
        self.guard: Callable[[Policy], None] = lambda policy: None
        """Raises `ValueError` for a policy that must not take effect where it is served."""
        self._one_at_a_time = asyncio.Lock()
        self.policy = self._load_first()

    # --- the beginning

    def _load_first(self) -> Policy:
        pointer = self._versions.pointer()
        try:
            loaded = self._load()
        except (RulesRefused, OSError, ValueError) as refused:
            if pointer is None:
                raise
            policy = self._restore_kept(pointer.version)
            self._watch_also(refused)
            self.problem = _in_words(refused)
            log.error(
                "%s\n%s",
                f"version {policy.version}, the last good one, is in force instead of:",
                self.problem,
            )
            self.number = pointer.number
            return policy
        self._files.watch(loaded.looked_at)
        if pointer is not None and pointer.held == self._files.digest():
            self.number = pointer.number
            self.problem = _held(pointer)
            return self._restore_kept(pointer.version)
        self._record(loaded)
        return loaded.policy

    def _record(self, loaded: Loaded) -> None:
        """Keeps a version for a rollback, and points all workers to it."""
        try:
            self._versions.keep(loaded.bundle)
            self.number = self._versions.point(loaded.policy.version).number
        except OSError as error:
            # A full disk must not keep a good policy from taking effect: the other workers read it too.
            log.error("the version %s can't be kept for a rollback: %s", loaded.policy.version, error)

    def _restore_kept(self, version: str) -> Policy:
        return self._restore(self._versions.bundle(version))

    # --- the watch

    async def follow(self) -> None:
        """Reloads upon every change, for ever."""
        while True:
            # The files themselves: their folder may hold a log, and each of its lines would wake us. What is
            # not there yet is looked for every now and then.
            watched = self._files.paths
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
                        if changed or self._files.paths != watched:
                            break  # editors save by renaming over a file, and others may matter now
            except OSError as error:  # something went away, and may come back
                log.debug("watching anew: %s", error)
                await asyncio.sleep(LOOK_EVERY)
                await self._look_closer()

    async def _look_closer(self) -> None:
        await self._follow_pointer()
        if await self._files.have_changed():
            await self.reload(edited=True)

    async def _follow_pointer(self) -> None:
        """Another worker may have put another version in force."""
        pointer = self._versions.pointer()
        if pointer is None or pointer.number == self.number:
            return
        async with self._one_at_a_time:
            if pointer.version != self.policy.version:
                try:
                    policy = await asyncio.to_thread(self._restore_kept, pointer.version)
                    self.guard(policy)
                except Exception as refused:
                    self._refuse(refused)
                    return
                self._put_in_force(policy, problem=_held(pointer))
            elif pointer.held is not None:
                self.problem = _held(pointer)
            self.number = pointer.number

    # --- changes

    async def reload(self, *, edited: bool = False) -> bool:
        """Whether what is on disk is now in force. After a rollback an edit has to change something, while
        whoever asks for a reload wants what is there."""
        async with self._one_at_a_time:
            self._files.remember()
            pointer = self._versions.pointer()
            if edited and pointer is not None and pointer.held == self._files.digest():
                self.problem = _held(pointer)
                return False
            try:
                loaded = await asyncio.to_thread(self._load)
                self.guard(loaded.policy)
            except Exception as refused:
                self._watch_also(refused)
                self._refuse(refused)
                return False
            self._files.watch(loaded.looked_at)
            await asyncio.to_thread(self._record, loaded)
            self._put_in_force(loaded.policy)
            return True

    async def rollback(
        self, version: str | None = None, *, confirm: Callable[[], object] = lambda: None
    ) -> Policy:
        """Puts `version` in force, or the one before this; it holds until a good file is saved. `confirm` is
        called once no other change is under way, and may raise. Raises `NoSuchVersion`, `RulesRefused` or
        `ValueError`."""
        async with self._one_at_a_time:
            confirm()
            pointer = self._versions.pointer()
            version = version or (pointer.before if pointer is not None else None)
            if version is None:
                raise NoSuchVersion("no version was in force before this one")
            policy = await asyncio.to_thread(self._restore_kept, version)
            self.guard(policy)
            pointer = self._versions.point(policy.version, held=self._files.digest())
            self.number = pointer.number
            self._put_in_force(policy, problem=_held(pointer))
            return policy

    @property
    def history(self) -> tuple[str, ...]:
        """The versions that were in force, the latest last."""
        pointer = self._versions.pointer()
        return pointer.history if pointer is not None else ()

    def _watch_also(self, refused: Exception) -> None:
        """What a refused file includes may be what has to be mended."""
        if isinstance(refused, RulesRefused):
            self._files.watch_also(refused.files)

    def _refuse(self, refused: Exception) -> None:
        """Says why the policy in force stays."""
        self.problem = _in_words(refused)
        if self.problem.startswith(_BUG):
            log.error("while the rules were read:", exc_info=refused)
        for listener in self.listeners:
            listener.reload_failed(self.policy, self.problem)

    def _put_in_force(self, policy: Policy, problem: str | None = None) -> None:
        before, self.policy, self.problem = self.policy, policy, problem
        for notify in self.on_change:
            notify(policy)
        for listener in self.listeners:
            listener.reload_succeeded(before, policy)


_BUG = "a bug in routeproxy: "


def _in_words(refused: Exception) -> str:
    match refused:
        case OSError(filename=str() | Path() as name, strerror=str() as why):
            return f"{name}: {why}"
        case RulesRefused() | OSError() | ValueError() | NoSuchVersion():  # not UTF-8, for one
            return str(refused)
    return f"{_BUG}{refused!r}"


def _held(pointer: Pointer) -> str | None:
    """Why an edit of the rules does not take effect yet."""
    if pointer.held is None:
        return None
    return f"version {pointer.version} was put back and holds until a good file is saved"
