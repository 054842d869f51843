"""The versions that were in force, and the pointer that says which one is: a folder that all workers share,
and that outlives them if it is given a name.

What is kept of a version is what it was compiled from, never a secret: `env:` and `file:` are read anew.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from routeproxy.files import read_file, write_whole
from routeproxy.policy.decide import Policy

KEPT = 50
"""How many versions are kept. Older ones are deleted."""


LOCK_WITHIN = 5.0
"""Seconds. A worker that was stopped in the middle must not stop the others."""


class NoSuchVersion(Exception):
    """A version that was not kept, or can't be read any more."""


class DamagedPointer(OSError):
    """What says which version is in force can't be read."""


class Bundle(Struct, frozen=True, kw_only=True):
    """What a policy was compiled from."""

    version: str
    source: str
    """The rules file, or what else the policy came from."""
    text: str
    found: Mapping[str, list[str]] = {}
    """By an `include`, the names of the files that it found."""
    contents: Mapping[str, bytes] = {}
    """By name, the included files and the bodies of tests."""


class Loaded(Struct, frozen=True):
    """A policy that was read anew, and what it was read from."""

    policy: Policy
    bundle: Bundle
    looked_at: tuple[Path, ...] = ()
    """The files and folders that were looked at besides those that are always read."""


class Pointer(Struct, frozen=True, kw_only=True):
    """Which version is in force."""

    version: str
    number: int = 0
    """Grows with every change."""
    history: tuple[str, ...] = ()
    """The versions that were in force, the latest last."""
    held: str | None = None
    """After a rollback: a digest of the files that were rolled back, which count again once they change."""

    @property
    def before(self) -> str | None:
        """The version that was in force before this one."""
        return next((version for version in reversed(self.history) if version != self.version), None)


class Versions:
    """The folder of the versions and of the pointer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pointer(self) -> Pointer | None:
        """`None`: no version was in force yet. Raises `OSError`, also for what is no pointer."""
        try:
            return msgspec.json.decode(read_file(self._pointer), type=Pointer)
        except FileNotFoundError:
            return None
        except ValueError:  # msgspec's are such, too
            raise DamagedPointer(errno.EINVAL, "it is damaged", str(self._pointer)) from None

    def write_again(self, pointer: Pointer) -> None:
        """Over one that is damaged."""
        with self._locked():
            with suppress(DamagedPointer):
                if self.pointer() is not None:
                    return  # somebody was faster
            write_whole(self._pointer, msgspec.json.encode(pointer))

    def point(self, version: str, *, held: str | None = None) -> Pointer:
        """Puts `version` in force for all workers."""
        with self._locked():
            try:
                current = self.pointer()
            except DamagedPointer:
                current = None
            if current is not None and (current.version, current.held) == (version, held):
                return current
            past = current.history if current is not None else ()
            history = past if past[-1:] == (version,) else (*past, version)[-KEPT:]
            number = current.number + 1 if current is not None else 1
            pointer = Pointer(version=version, number=number, history=history, held=held)
            write_whole(self._pointer, msgspec.json.encode(pointer))
            self._delete_all_but(history)
            return pointer

    def keep(self, bundle: Bundle) -> None:
        self._make()
        path, content = self._path(bundle.version), msgspec.json.encode(bundle)
        with suppress(OSError):
            if read_file(path) == content:
                return
        write_whole(path, content)

    def bundle(self, version: str) -> Bundle:
        """Raises `NoSuchVersion` for a version that was not kept."""
        try:
            return msgspec.json.decode(read_file(self._path(version)), type=Bundle)
        except FileNotFoundError:
            raise NoSuchVersion(f"version {version} is not kept here") from None
        except ValueError:
            raise NoSuchVersion(f"what is kept of version {version} is damaged") from None

    @property
    def _pointer(self) -> Path:
        return self.folder / "current.json"

    def _path(self, version: str) -> Path:
        if not version.isalnum():
            raise NoSuchVersion(f"`{version}` is not a version")
        return self.folder / f"version-{version}.json"

    def _delete_all_but(self, history: tuple[str, ...]) -> None:
        for path in self.folder.glob("version-*.json"):
            if path.stem.removeprefix("version-") not in history:
                path.unlink(missing_ok=True)

    def _make(self) -> None:
        # Under /tmp somebody may have cleaned up since.
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Raises `OSError` where another process does not let go of it."""
        self._make()
        path = self.folder / ".lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor, path)
            yield
        finally:
            os.close(descriptor)  # which lets go of it


def _lock(descriptor: int, path: Path) -> None:
    until = time.monotonic() + LOCK_WITHIN
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise OSError(errno.EBUSY, "another process holds it", str(path)) from None
            time.sleep(0.01)
