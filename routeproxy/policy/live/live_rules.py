"""The policy in force, and the watch on what it comes from: read, compile, prove, test, build, then one
reference changes. Whatever goes wrong, the policy that is in force stays, and the problem is kept where an
operator looks. A pointer says which version is in force, and all workers follow it."""

import asyncio
import datetime
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from routeproxy.policy.decide import Policy
from routeproxy.policy.live.files import WatchedFiles
from routeproxy.policy.live.notices import Notices
from routeproxy.policy.live.versions import (
    Bundle,
    DamagedPointer,
    Loaded,
    NoSuchVersion,
    Pointer,
    Versions,
)
from routeproxy.policy.problems import RulesRefused

log = logging.getLogger("routeproxy.policy.live")

T = TypeVar("T")


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
        self._refusal: str | None = None
        """Why what is on disk is not in force; `None` when it is."""
        self._watch_problem: str | None = None
        """Why it can't be told whether anything has changed; `None` when it can."""
        self.on_change: list[Callable[[Policy], None]] = []
        """Called with what was loaded, in the same step as it takes effect. Other things than the policy may
        have changed with it."""
        self.listeners: list[ReloadListener] = []
        self.guard: Callable[[Policy], None] = lambda policy: None
        """Raises `ValueError` for a policy that must not take effect where it is served."""
        self._pointer: Pointer | None = None
        """The one that was followed last."""
        self._unrecorded: Loaded | None = None
        """What is in force and could not be kept, nor other workers be pointed to it."""
        self._loading, self._recording, self._following = Retry(), Retry(), Retry()
        self._one_at_a_time = asyncio.Lock()
        # Of its own, since whoever fills the threads that all share must not keep rules from being read.
        self._thread = ThreadPoolExecutor(1, "rules")
        self.policy = self._load_first()
        self.since = _now()
        """When this process put the version in force. A reload that changes nothing does not count."""

    @property
    def problem(self) -> str | None:
        """Why what is on disk is not in force, or why nobody can tell; `None` when all is well."""
        return "\n".join(filter(None, (self._refusal, self._watch_problem))) or None

    # --- the beginning

    def _load_first(self) -> Policy:
        pointer = self._first_pointer()
        try:
            loaded = self._load()
        except (RulesRefused, OSError, ValueError) as refused:
            if pointer is None:
                raise
            policy = self._restore_kept(pointer.version)
            self._watch_also(refused)
            self._refusal = _in_words(refused)
            log.error(
                "%s\n%s",
                f"version {policy.version}, the last good one, is in force instead of:",
                self._refusal,
            )
            self._pointer = pointer
            return policy
        self._files.watch(loaded.looked_at)
        if pointer is not None and pointer.held == self._files.digest():
            try:
                policy = self._restore_kept(pointer.version)
            except (NoSuchVersion, RulesRefused, OSError, ValueError) as lost:
                # What is on disk keeps its promises, and no server at all would answer nobody.
                log.error("version %s was put back, and can't be taken: %s", pointer.version, _in_words(lost))
            else:
                self._pointer, self._refusal = pointer, _held(pointer)
                return policy
        self._record(loaded)
        return loaded.policy

    def _first_pointer(self) -> Pointer | None:
        try:
            return self._versions.pointer()
        except OSError as damage:
            log.error("which version was in force last can't be told: %s", _in_words(damage))
            return None

    def _record(self, loaded: Loaded) -> None:
        """Keeps a version for a rollback, and points all workers to it."""
        try:
            self._versions.keep(loaded.bundle)
            self._pointer = self._versions.point(loaded.policy.version)
        except OSError as error:
            # A full disk must not keep a good policy from taking effect: the other workers read it too.
            if self._unrecorded is None or self._unrecorded.policy.version != loaded.policy.version:
                version = loaded.policy.version
                log.error("version %s can't be kept for a rollback: %s", version, _in_words(error))
            self._unrecorded = loaded
            self._recording.failed()
        else:
            self._unrecorded = None
            self._recording.succeeded()

    def _restore_kept(self, version: str) -> Policy:
        return self._restore(self._versions.bundle(version))

    # --- the watch

    async def follow(self) -> None:
        """Takes every change, for ever. What goes wrong while it is looked for is said once, and the next
        round looks again."""
        notices = Notices()
        try:
            while True:
                await notices.wait((self._versions.folder, *self._files.paths))
                await self.look()
        finally:
            await notices.close()

    async def look(self) -> None:
        """Looks once for what has changed."""
        problems = []
        for look in (self._look_at_pointer, self._look_at_files):
            try:
                await look()
            except Exception as error:
                problems.append(_in_words(error))
                if problems[-1].startswith(_BUG):
                    log.debug("while changes were looked for:", exc_info=error)
        watch_problem = "changes can't be told: " + "; ".join(problems) if problems else None
        if watch_problem != self._watch_problem:
            if watch_problem is not None:
                log.error("%s", watch_problem)
            else:
                log.info("changes can be told again")
        self._watch_problem = watch_problem

    async def _look_at_pointer(self) -> None:
        """Another worker may have put another version in force."""
        try:
            pointer = await self._in_thread(self._versions.pointer)
        except DamagedPointer as damage:
            if self._pointer is None:
                raise
            # Nobody else writes it anew, and what is in force here was in force everywhere.
            await self._in_thread(partial(self._versions.write_again, self._pointer))
            log.error("%s: written anew, version %s stays", _in_words(damage), self._pointer.version)
            return
        if pointer is not None and pointer != self._pointer:
            if self._following.is_due():
                await self._follow_pointer(pointer)
        elif self._unrecorded is not None and self._recording.is_due():
            async with self._one_at_a_time:
                await self._in_thread(partial(self._record, self._unrecorded))

    async def _follow_pointer(self, pointer: Pointer) -> None:
        async with self._one_at_a_time:
            if pointer.version != self.policy.version:
                try:
                    policy = await self._in_thread(partial(self._version_in_force, pointer.version))
                    self.guard(policy)
                    self._put_in_force(policy, problem=_held(pointer))
                except Exception as refused:
                    self._following.failed()
                    self._refuse(refused)
                    return
            elif pointer.held is not None:
                self._refusal = _held(pointer)
            self._following.succeeded()
            self._pointer, self._unrecorded = pointer, None

    def _version_in_force(self, version: str) -> Policy:
        """The version that other workers serve, as it was kept, or read anew where that can't be taken."""
        try:
            return self._restore_kept(version)
        except (NoSuchVersion, OSError, ValueError, RulesRefused):
            loaded = self._load()
            if loaded.policy.version != version:
                raise
            return loaded.policy

    async def _look_at_files(self) -> None:
        if await self._in_thread(self._files.have_changed) or self._loading.is_pending_and_due():
            await self.reload(edited=True)

    # --- changes

    async def reload(self, *, edited: bool = False) -> bool:
        """Whether what is on disk is now in force. After a rollback an edit has to change something, while
        whoever asks for a reload wants what is there."""
        async with self._one_at_a_time:
            await self._in_thread(self._files.remember)
            if edited and self._pointer is not None and self._pointer.held == self._files.digest():
                self._refusal = _held(self._pointer)
                return False
            try:
                loaded = await self._in_thread(self._load)
                self.guard(loaded.policy)
                with suppress(OSError):  # `_record` says it; listeners may want to read it
                    await self._in_thread(partial(self._versions.keep, loaded.bundle))
                self._put_in_force(loaded.policy)
            except Exception as refused:
                await self._in_thread(partial(self._watch_also, refused))
                # Rules that are wrong stay wrong until they are edited; what kept them from being read may
                # pass.
                is_lasting = isinstance(refused, RulesRefused | ValueError)
                self._loading.succeeded() if is_lasting else self._loading.failed()
                self._refuse(refused)
                return False
            await self._in_thread(partial(self._files.watch, loaded.looked_at))
            await self._in_thread(partial(self._record, loaded))
            self._loading.succeeded()
            return True

    async def rollback(
        self, version: str | None = None, *, confirm: Callable[[], object] = lambda: None
    ) -> Policy:
        """Puts `version` in force, or the one before this; it holds until a good file is saved. Raises
        `NoSuchVersion`, `RulesRefused`, `OSError` or `ValueError`, and what `confirm` raises when its turn
        has come."""
        async with self._one_at_a_time:
            confirm()
            pointer = await self._in_thread(self._versions.pointer)
            version = version or (pointer.before if pointer is not None else None)
            if version is None:
                raise NoSuchVersion("no version was in force before this one")
            policy = await self._in_thread(partial(self._restore_kept, version))
            self.guard(policy)
            held = self._files.digest()
            self._pointer = await self._in_thread(partial(self._versions.point, policy.version, held=held))
            self._put_in_force(policy, problem=_held(self._pointer))
            self._unrecorded = None
            return policy

    def bundle(self, version: str) -> Bundle:
        """What a version was compiled from. Raises `NoSuchVersion` or `OSError`."""
        return self._versions.bundle(version)

    @property
    def history(self) -> tuple[str, ...]:
        """The versions that were in force, the latest last."""
        return self._pointer.history if self._pointer is not None else ()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _watch_also(self, refused: Exception) -> None:
        """What a refused file includes may be what has to be mended."""
        if isinstance(refused, RulesRefused):
            self._files.watch_also(refused.files)
        self._files.distrust()

    def _refuse(self, refused: Exception) -> None:
        """Says why the policy in force stays."""
        problem = _in_words(refused)
        if problem == self._refusal:
            return
        self._refusal = problem
        if problem.startswith(_BUG):
            log.error("while the rules were read:", exc_info=refused)
        for listener in self.listeners:
            listener.reload_failed(self.policy, problem)

    def _put_in_force(self, policy: Policy, problem: str | None = None) -> None:
        before = self.policy
        try:
            for notify in self.on_change:
                notify(policy)
        except BaseException:
            for notify in self.on_change:  # all of the one, or all of the other
                with suppress(Exception):
                    notify(before)
            raise
        self.policy, self._refusal = policy, problem
        if policy.version != before.version:
            self.since = _now()
        for listener in self.listeners:
            listener.reload_succeeded(before, policy)


class Retry:
    """When to try again what failed: soon at first, then ever more rarely."""

    FIRST, LONGEST = 0.5, 30.0

    def __init__(self) -> None:
        self._delay = self._due = 0.0

    def is_due(self) -> bool:
        """Whether it may be tried, now that there is something to try."""
        return time.monotonic() >= self._due

    def is_pending_and_due(self) -> bool:
        """Whether something that failed waits to be tried again, and has waited long enough."""
        return self._delay > 0 and self.is_due()

    def failed(self) -> None:
        self._delay = min(2 * self._delay, self.LONGEST) or self.FIRST
        self._due = time.monotonic() + self._delay

    def succeeded(self) -> None:
        self._delay = self._due = 0.0


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


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
