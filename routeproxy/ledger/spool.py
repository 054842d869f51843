"""Where batches of rows wait on disk until a database has them: one file each, whole or not there, so that
what a process has spooled outlives it. Whoever finds the folder of a process that is gone sees to its files.
"""

import fcntl
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from routeproxy.ledger.rows import Batch

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Batch).decode

ENDING = ".batch"
UNREADABLE = ".unreadable"
NEW = ".new-"
"""How the name of a folder begins that nobody has locked yet."""


class SpoolFull(OSError):
    """No more may wait."""


class SpooledBatch:
    """A batch, in memory while it is new and in its file until it is written."""

    def __init__(self, file: Path | None, batch: Batch | None, size: int) -> None:
        """`file`: none, where the disk took none. `batch`: none, where it is only in the file."""
        self.file = file
        self.size = size
        self._batch = batch

    def read(self) -> Batch:
        """Raises `OSError`, and `ValueError` for a file that holds none."""
        if self._batch is not None:
            return self._batch
        assert self.file is not None
        try:
            return _decode(self.file.read_bytes())
        except msgspec.DecodeError as error:
            raise ValueError(f"{self.file}: {error}") from error

    def forget(self) -> None:
        """It may wait for long: from now on it is in its file alone."""
        if self.file is not None:
            self._batch = None

    def delete(self) -> None:
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    def set_aside(self) -> None:
        if self.file is not None:
            self.file.rename(self.file.with_suffix(UNREADABLE))


class Spool:
    """The folder of one process, in the folder of all."""

    def __init__(self, folder: Path, most_bytes: int, *, is_synchronous: bool = False) -> None:
        """`is_synchronous`: what is added survives the loss of power."""
        self._all = folder
        self._most = most_bytes
        self._is_synchronous = is_synchronous
        self._own: _OwnedFolder | None = None
        self._number = 0
        self._lock = threading.Lock()
        self.size = 0
        """Bytes that wait in the folder of this process."""

    def add(self, batch: Batch) -> SpooledBatch:
        """Raises `SpoolFull`, and `OSError` where the disk can't take it."""
        data = _encode(batch)
        if self.size + len(data) > self._most:
            raise SpoolFull(f"more than {self._most // 2**20} MB wait")
        folder = self._folder()
        self._number += 1
        file = folder.path / f"{self._number:012d}{ENDING}"
        temporary = file.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if self._is_synchronous:
                os.fsync(descriptor)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        temporary.rename(file)
        self._resize(len(data))
        return SpooledBatch(file, batch, len(data))

    def done(self, spooled: SpooledBatch) -> None:
        """The database has it."""
        spooled.delete()
        self._resize(-spooled.size)

    def set_aside(self, spooled: SpooledBatch) -> None:
        """Nobody can read it: it stays for whoever wants to look, out of the way."""
        spooled.set_aside()
        self._resize(-spooled.size)

    def _resize(self, by: int) -> None:
        """One thread adds, another takes away."""
        with self._lock:
            self.size += by

    def orphans(self) -> Iterator["Orphans"]:
        """The files of processes that are gone. Whoever got them first has them until they are closed."""
        if not self._all.is_dir():
            return
        for path in sorted(self._all.iterdir()):
            if (
                not path.is_dir()
                or path.name.startswith(NEW)
                or (self._own is not None and path == self._own.path)
            ):
                continue
            with suppress(OSError):
                if (owned := _OwnedFolder.taken(path)) is not None:
                    yield Orphans(owned)

    def close(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None

    def _folder(self) -> "_OwnedFolder":
        if self._own is None:
            self._all.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._own = _OwnedFolder.made(self._all)
        return self._own


class Orphans:
    def __init__(self, folder: "_OwnedFolder") -> None:
        self._folder = folder

    def batches(self) -> Iterator[SpooledBatch]:
        for file in sorted(self._folder.path.glob(f"*{ENDING}")):
            yield SpooledBatch(file, None, 0)

    def close(self) -> None:
        """Lets the folder go; it is gone if nothing is left in it."""
        self._folder.close()


class _OwnedFolder:
    """A folder with a lock that ends with the process."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def made(cls, parent: Path) -> "_OwnedFolder":
        """It has its name once it is locked: a folder without a lock is that of a process that is gone."""
        path = parent / f"{os.getpid()}-{secrets.token_hex(4)}"
        unlocked = parent / f"{NEW}{path.name}"
        unlocked.mkdir(mode=0o700)
        owned = cls.taken(unlocked)
        assert owned is not None
        unlocked.rename(path)
        owned.path = path
        return owned

    @classmethod
    def taken(cls, path: Path) -> "_OwnedFolder | None":
        """`None`: somebody has it."""
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return cls(path, lock)

    def close(self) -> None:
        with suppress(OSError):
            for leftover in self.path.glob("*.new"):
                leftover.unlink(missing_ok=True)
            if not any(name != "lock" for name in os.listdir(self.path)):
                (self.path / "lock").unlink(missing_ok=True)
                self.path.rmdir()
        os.close(self._lock)
